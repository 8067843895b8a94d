//! The commands in the Pods of a server that create and revoke clients, with the permissions that the chart with the
//! values of `stable/openvpn` gives them. Here they run outside of a Pod.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Stdio};

use anyhow::{Context, Result, bail, ensure};
use e2e::{
    Framework,
    auth::Identity,
    operator::{chart, executable},
    testing::framework::{ensure_eq, local_cluster},
    wait::TIMEOUT,
};
use k8s_openapi::api::core::v1::{Secret, Service};
use kube::ResourceExt;
use serde_json::json;
use tempfile::TempDir;
use tokio::{process::Command, time::Instant};
use vpn_types::{OpenVPNClient, OpenVPNClientPhase, OpenVPNServer};

use crate::{
    manifests::{issued, texts, verify},
    test,
};

/// The part of a Pod of the server `openvpn` that the commands see.
struct Pod<'a> {
    f: &'a Framework,
    account: &'a Identity,
    dir: TempDir,
}

impl<'a> Pod<'a> {
    async fn new(f: &'a Framework, account: &'a Identity) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        // The files mounted from this Secret.
        f.wait_until("openvpn-server", "the certificate", |_: &Secret| true).await?;
        for (name, text) in texts(f, "openvpn-server").await? {
            fs::write(dir.path().join(name), text)?;
        }
        fs::create_dir(dir.path().join("profiles"))?;
        Ok(Self { f, account, dir })
    }

    fn profile(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join("profiles").join(format!("{name}.ovpn"))
    }

    /// Runs a command, and returns its standard output, or an error with its standard error.
    async fn run(&self, args: &[&str]) -> Result<String> {
        let cluster = local_cluster().await?.context("no cluster")?;
        let mut command = Command::new(executable(cluster).await?);
        command.arg("openvpn-client").args(args).args(["--namespace", self.f.name()]);
        command.arg("--profile-dir").arg(self.dir.path().join("profiles")).arg("--pki-dir").arg(self.dir.path());
        command.env("KUBECONFIG", &self.account.kubeconfig).env("OPENVPN_SERVER", "openvpn");
        let output = command.stdin(Stdio::null()).output().await?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (said, error) = (text(&output.stdout), text(&output.stderr));
        ensure!(!said.contains("PRIVATE KEY") && !error.contains("PRIVATE KEY"), "it prints a key");
        if !output.status.success() {
            bail!("{error}");
        }
        Ok(said)
    }

    async fn refused(&self, args: &[&str], why: &str) -> Result<()> {
        let Err(error) = self.run(args).await else { bail!("{args:?} was not refused") };
        ensure!(error.to_string().contains(why), "{args:?}: {error}");
        Ok(())
    }
}

/// Installs the chart, and returns the ServiceAccount of its Pods.
async fn install(f: &Framework, values: &str) -> Result<Identity> {
    let cluster = local_cluster().await?.context("no cluster")?;
    let install = ["install", "openvpn", chart::OPENVPN_DIR, "--namespace", f.name(), values];
    let notes = cluster.run_helm(&install).await?;
    ensure!(notes.contains("newClientCert.sh"), "{notes}");
    cluster.service_account(f.name(), "openvpn").await
}

fn key(profile: &Path) -> Result<String> {
    let text = fs::read_to_string(profile)?;
    let (_, key) = text.split_once("<key>").context("no key")?;
    Ok(key.split_once("</key>").context("no end of the key")?.0.to_owned())
}

#[tokio::test]
async fn clients_are_created_and_revoked_with_the_permissions_of_the_chart() -> Result<()> {
    test("enrollment", async |f| {
        let account = install(f, &format!("--values={}", chart::OPENVPN_VALUES)).await?;
        let (one, two) = (Pod::new(f, &account).await?, Pod::new(f, &account).await?);

        // The load balancer has no address, so the operator waits. The next run goes on.
        let create = ["create", "kubeVPN", "203.0.113.7VIP"];
        let hurry = [&create[..], &["--timeout=1s"]].concat();
        one.refused(&hurry, "OpenVPNClient kubevpn has no certificate after 1 s").await?;
        let waiting = f.api::<OpenVPNClient>().get("kubevpn").await?;
        let address =
            kube::api::Patch::Merge(json!({"status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.7"}]}}}));
        f.api::<Service>().patch_status("openvpn", &Default::default(), &address).await?;
        let said = two.run(&create).await?;
        ensure!(said.contains("The profile of OpenVPNClient kubevpn is "), "{said}");
        let client = issued(f, "kubevpn").await?;
        ensure!(!client.contains_key("tls.key"), "its key is in the Secret");
        let object = f.api::<OpenVPNClient>().get("kubevpn").await?;
        ensure!(object.metadata.uid == waiting.metadata.uid, "another client");
        ensure_eq("common name", object.spec.common_name.as_deref(), Some("kubeVPN"))?;
        let certificate = object.status.and_then(|status| status.certificate).context("no certificate")?;
        verify(&client["ca.crt"], &certificate, "sslclient")?;

        // Except for the address and the key, this is the profile that the operator wrote.
        let profile = fs::read_to_string(two.profile("kubeVPN"))?;
        ensure_eq("mode", fs::metadata(two.profile("kubeVPN"))?.permissions().mode() & 0o777, 0o600)?;
        for part in ["proto tcp\n", "remote 203.0.113.7 9914\n", "\nverb 4\n", "<tls-crypt>\n"] {
            ensure!(profile.contains(part), "{part:?} is not in the profile");
        }
        let own = key(&two.profile("kubeVPN"))?;
        let hint = "# The private key has not left your device. Name its file here:\n# key client.key\n";
        let with_key = client["kubevpn.ovpn"].replace(hint, &format!("<key>{own}</key>\n"));
        ensure_eq("profile", &profile, &with_key)?;

        // The second run uses the same key in the same Pod, and fails in another Pod.
        two.run(&["create", "kubeVPN", "vpn.example.com"]).await?;
        let again = fs::read_to_string(two.profile("kubeVPN"))?;
        ensure_eq("profile", again, profile.replace("remote 203.0.113.7 ", "remote vpn.example.com "))?;
        one.refused(&create, "its key is not in this Pod").await?;
        ensure!(!one.profile("kubeVPN").exists(), "a profile without a certificate");

        // Any replica can revoke.
        one.run(&["revoke", "kubeVPN"]).await?;
        let revoked = f.api::<OpenVPNClient>().get("kubevpn").await?.status.context("no status")?;
        ensure_eq("phase", revoked.phase, Some(OpenVPNClientPhase::Revoked))?;
        let serial = vpn_operator::pki::inspect(&certificate)?.serial.to_string();
        ensure!(texts(f, "openvpn-revoked").await?.contains_key(&serial), "{serial} is not revoked");
        two.run(&["revoke", "kubeVPN"]).await?;
        ensure!(!two.profile("kubeVPN").exists(), "the profile of a revoked client stays");
        two.run(&create).await?;
        let second = f.api::<OpenVPNClient>().get("kubevpn-2").await?;
        ensure_eq("common name", second.spec.common_name.as_deref(), Some("kubeVPN"))?;
        ensure!(key(&two.profile("kubeVPN"))? != own, "the key of a revoked client");
        f.wait_until("openvpn", "one client", |server: &OpenVPNServer| {
            let certificates = server.status.as_ref().and_then(|status| status.certificates.as_ref());
            certificates.is_some_and(|it| it.clients == Some(1) && it.revoked >= Some(1))
        })
        .await
        .map(drop)
    })
    .await
}

#[tokio::test]
async fn of_two_runs_for_one_name_in_two_pods_one_writes_the_profile() -> Result<()> {
    test("race", async |f| {
        let account = install(f, "--set=service.type=ClusterIP").await?;
        let (one, two) = (Pod::new(f, &account).await?, Pod::new(f, &account).await?);
        let race = ["create", "phone", "203.0.113.7"];
        let both = futures::future::join(Box::pin(one.run(&race)), Box::pin(two.run(&race))).await;
        let [won, lost] = if both.0.is_ok() { [&one, &two] } else { [&two, &one] };
        ensure!(both.0.is_ok() != both.1.is_ok(), "{both:?}");
        let phone = f.api::<OpenVPNClient>().get("phone").await?;
        ensure!(phone.annotations().is_empty(), "not enrolled");
        let certificate = phone.status.and_then(|status| status.certificate).context("no certificate")?;
        ensure!(vpn_operator::pki::key_fits(&certificate, &key(&won.profile("phone"))?), "another key");
        ensure!(!lost.profile("phone").exists(), "a profile that does not work");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn what_cannot_be_is_refused_and_the_account_can_do_nothing_else() -> Result<()> {
    test("refused", async |f| {
        let cluster = local_cluster().await?.context("no cluster")?;
        let install =
            ["install", "openvpn", chart::OPENVPN_DIR, "--namespace", f.name(), "--set=service.type=ClusterIP"];
        cluster.run_helm(&install).await?;
        let account = cluster.service_account(f.name(), "openvpn").await?;
        let pod = Pod::new(f, &account).await?;
        pod.refused(&["create", "openvpn-ca", "203.0.113.7"], "Secret openvpn-ca already exists").await?;
        pod.refused(&["create", "a/b", "203.0.113.7"], "is not a common name").await?;
        pod.refused(&["create", "-_", "203.0.113.7"], "error").await?;
        pod.refused(&["create", "laptop", "203.0.113.7 x"], "neither an IP address nor a name").await?;
        pod.refused(&["revoke", "laptop"], "no client with the name laptop").await?;
        ensure_eq("profiles", fs::read_dir(pod.dir.path().join("profiles"))?.count(), 0)?;

        let user = format!("--as=system:serviceaccount:{}:openvpn", f.name());
        let may = async |verb: &str, what: &str| {
            let words: Vec<_> = what.split(' ').collect();
            f.kubectl(&[&["auth", "can-i", verb, &user], &words[..]].concat()).await.is_ok()
        };
        ensure!(may("get", "openvpnservers/openvpn").await && may("create", "openvpnclients").await, "too few");
        for (verb, what) in [
            ("get", "secrets"),
            ("delete", "openvpnclients"),
            ("patch", "openvpnservers/openvpn"),
            ("get", "openvpnservers/other"),
            ("patch", "openvpnclients --subresource=status"),
            ("get", "pods"),
        ] {
            ensure!(!may(verb, what).await, "it may {verb} {what}");
        }
        // Without the value, there is no account, and the Pods have no token.
        let off = ["upgrade", "openvpn", chart::OPENVPN_DIR, "--namespace", f.name(), "--set=enrollment.enabled=false"];
        local_cluster().await?.context("no cluster")?.run_helm(&off).await?;
        f.wait_until("openvpn", "no account", |server: &OpenVPNServer| server.spec.service_account_name.is_none())
            .await?;
        // The API server's authorizer learns of it from a watch of its own.
        let deadline = Instant::now() + TIMEOUT;
        while may("create", "openvpnclients").await {
            ensure!(Instant::now() < deadline, "the account may still create clients");
        }
        let Err(error) = pod.run(&["create", "laptop", "203.0.113.7"]).await else { bail!("it was not refused") };
        // The API server accepts the token of a deleted account for some seconds.
        let known = ["forbidden", "Unauthorized"].iter().any(|why| error.to_string().contains(why));
        ensure!(known, "{error}");
        Ok(())
    })
    .await
}
