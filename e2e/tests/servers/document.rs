//! Applies the manifests in `operator/docs/openvpn.md`, unchanged.

use std::{fs, path::Path};

use anyhow::{Result, ensure};
use e2e::{Framework, testing::documents::blocks, wait::is_ready};
use k8s_openapi::api::{autoscaling::v2::HorizontalPodAutoscaler, core::v1::Service};
use serde_json::json;
use vpn_types::{MaskProvider, OpenVPNClient, OpenVPNServer};

use crate::{
    manifests::{issued, openssl, texts},
    test,
};

/// Applies the manifests below a heading.
async fn apply(f: &Framework, heading: &str) -> Result<()> {
    let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("../operator/docs/openvpn.md");
    let all = blocks(&fs::read_to_string(document)?, Some(heading), "yaml");
    ensure!(!all.is_empty(), "there is no manifest below {heading}");
    let file = tempfile::Builder::new().suffix(".yaml").tempfile()?;
    fs::write(file.path(), all.join("---\n"))?;
    f.kubectl(&["apply", "-f", &file.path().to_string_lossy()]).await.map(drop)
}

/// Gives the Service of a server the address of a load balancer, and waits until the server is ready.
async fn balanced(f: &Framework, name: &str, ip: &str) -> Result<()> {
    f.wait_until(name, "the Service", |_: &Service| true).await?;
    let patch = kube::api::Patch::Merge(json!({"status": {"loadBalancer": {"ingress": [{"ip": ip}]}}}));
    f.api::<Service>().patch_status(name, &Default::default(), &patch).await?;
    f.wait_until(name, "ready", |server: &OpenVPNServer| is_ready(server)).await.map(drop)
}

#[tokio::test]
async fn the_manifests_of_the_document_work_as_they_stand() -> Result<()> {
    test("document", async |f| {
        apply(f, "## Your own VPN in five minutes").await?;
        balanced(f, "home", "203.0.113.7").await?;
        let profile = &issued(f, "laptop").await?["laptop.ovpn"];
        ensure!(profile.contains("remote 203.0.113.7 1194"), "{profile}");

        apply(f, "## Choose what clients reach").await?;
        balanced(f, "office", "203.0.113.8").await?;
        f.wait_for_reason::<OpenVPNServer>("private", "Serving").await?;

        apply(f, "## Add a client").await?;
        issued(f, "guest").await?;
        ensure!(!issued(f, "router").await?.contains_key("tls.key"), "a key");
        apply(f, "### Create clients in a Pod of the server").await?;
        f.wait_for_reason::<OpenVPNServer>("branch", "Serving").await?;
        let revoke = r#"{"spec": {"revoked": true}}"#;
        f.kubectl(&["patch", "openvpnclient", "laptop", "--type=merge", "--patch", revoke]).await?;
        f.wait_for_reason::<OpenVPNClient>("laptop", "Revoked").await?;

        apply(f, "### Scale on connected clients").await?;
        f.api::<HorizontalPodAutoscaler>().get("campus").await?;
        balanced(f, "campus", "203.0.113.9").await?;

        apply(f, "## Use it from Pods").await?;
        f.wait_for_reason::<OpenVPNServer>("exit", "Serving").await?;
        f.wait_until("exit", "five slots", |provider: &MaskProvider| provider.spec.max_slots == 5).await?;
        issued(f, "exit-slot-4").await?;

        let args =
            ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "/dev/stdout", "-subj", "/CN=lab", "-addext"];
        let both = openssl(&[&args[..], &["keyUsage=critical,keyCertSign,cRLSign"]].concat(), &[])?;
        let at = both.find("-----BEGIN CERTIFICATE").unwrap_or(0);
        let dir = tempfile::tempdir()?;
        fs::write(dir.path().join("ca.crt"), &both[at..])?;
        fs::write(dir.path().join("ca.key"), &both[..at])?;
        let file = |name: &str| dir.path().join(name).display().to_string();
        let (certificate, key) = (format!("--cert={}", file("ca.crt")), format!("--key={}", file("ca.key")));
        f.kubectl(&["create", "secret", "tls", "my-ca", &certificate, &key]).await?;
        apply(f, "## Use your own certificate authority").await?;
        f.wait_for_reason::<OpenVPNServer>("lab", "Serving").await?;
        ensure!(texts(f, "lab-ca").await?["tls.crt"].trim() == both[at..].trim(), "another authority");
        apply(f, "## Use your own certificates").await?;
        f.wait_for_reason::<OpenVPNServer>("legacy", "SecretNotFound").await.map(drop)
    })
    .await
}
