//! Servers whose certificates the user issues.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use e2e::{Framework, testing::framework::ensure_eq, wait::ready_condition};
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{ConfigMap, Secret},
};
use serde_json::{Value, json};
use time::{Duration, OffsetDateTime};
use vpn_operator::pki::{Authority, Issued, Request, Revoked, Serial, Usage, crl, crl_end, issue};
use vpn_types::{CERTIFICATES_VALID, OpenVPNClient, OpenVPNServer};

use crate::{
    manifests::{create_client, create_server, texts},
    test,
};

fn server(authority: &Authority, name: &str, at: OffsetDateTime, lifetime: Duration) -> Result<Issued> {
    let usage = Usage::Server(Vec::new());
    issue(authority, &Request { common_name: name.into(), usage, serial: Serial::derive(&[name]), lifetime }, at)
}

/// Replaces the Secret of the user.
async fn write(f: &Framework, files: &BTreeMap<&str, String>) -> Result<()> {
    let secret = json!({"metadata": {"name": "mine"}, "stringData": files});
    if f.api::<Secret>().get_opt("mine").await?.is_some() {
        f.delete::<Secret>("mine").await?;
    }
    f.create::<Secret>(serde_json::from_value(secret)?).await.map(drop)
}

async fn told(f: &Framework, reason: &str, text: &str) -> Result<()> {
    let has = |server: &OpenVPNServer| {
        ready_condition(server).is_some_and(|ready| ready.reason == reason && ready.message.contains(text))
    };
    f.wait_until("home", text, has).await.map(drop)
}

async fn restart(f: &Framework) -> Result<Option<String>> {
    let deployment = f.api::<Deployment>().get("home").await?;
    let template = deployment.spec.and_then(|spec| spec.template.metadata);
    Ok(template.and_then(|metadata| metadata.annotations?.remove("vpn.beebs.dev/restart")))
}

#[tokio::test]
async fn each_problem_of_a_keystore_is_told_and_heals() -> Result<()> {
    test("keystore", async |f| {
        let now = OffsetDateTime::now_utc();
        let authority = Authority::new("mine", now - Duration::days(2), Duration::days(1000))?;
        let (good, other) =
            (server(&authority, "a", now, Duration::days(90))?, server(&authority, "b", now, Duration::days(90))?);
        let old = server(&authority, "c", now - Duration::days(2), Duration::days(1))?;
        create_server(f, "home", json!({"replicas": 1, "pki": {"keystoreSecret": "mine"}})).await?;
        told(f, "SecretNotFound", "Secret mine of spec.pki.keystoreSecret does not exist").await?;
        let mut files =
            BTreeMap::from([("server.crt", good.certificate.clone()), ("ca.crt", authority.certificate().to_owned())]);
        write(f, &files).await?;
        told(f, "KeystoreInvalid", "it has no key server.key").await?;
        files.insert("server.key", other.key);
        write(f, &files).await?;
        told(f, "KeystoreInvalid", "server.key does not belong to server.crt").await?;
        files.extend([("server.key", old.key), ("server.crt", old.certificate)]);
        write(f, &files).await?;
        told(f, "KeystoreInvalid", "server.crt expired on").await?;
        ensure!(f.api::<Deployment>().get_opt("home").await?.is_none(), "it runs");
        files.extend([("server.key", good.key), ("server.crt", good.certificate.clone())]);
        write(f, &files).await?;
        told(f, "Serving", "accept").await?;

        // The operator has made no certificates.
        ensure_eq("certificate", &texts(f, "home-server").await?["tls.crt"], &good.certificate)?;
        for name in ["home-ca", "home-revoked"] {
            ensure!(f.api::<Secret>().get_opt(name).await?.is_none(), "{name} exists");
        }
        let config = f.api::<ConfigMap>().get("home-config").await?.data.unwrap_or_default();
        ensure!(!config["server.conf"].contains("tls-crypt"), "{}", config["server.conf"]);
        create_client(f, "laptop", json!({"server": "home"})).await?;
        f.wait_for_reason::<OpenVPNClient>("laptop", "NotIssuing").await?;
        let revoke = json!({"spec": {"revoked": true}});
        let laptop = f.patch::<OpenVPNClient>("laptop", revoke).await?;
        f.wait_until("laptop", "the client is not reported as revoked", |client: &OpenVPNClient| {
            let seen = client.status.as_ref().and_then(|status| status.observed_generation);
            seen == client.metadata.generation
                && ready_condition(client).is_some_and(|ready| ready.reason == "NotIssuing")
        })
        .await?;
        f.delete::<OpenVPNClient>("laptop").await?;
        f.wait_deleted(&laptop).await?;

        // A list of revoked certificates that ends soon, and a new certificate.
        let list = |at| crl(&authority, &Revoked::default(), 1, at);
        let lifetime = crl_end(&list(now)?)?.context("no end")? - now.unix_timestamp();
        let made = now + Duration::days(10) - Duration::seconds(lifetime);
        let renewed = server(&authority, "d", now, Duration::days(90))?;
        let before = restart(f).await?;
        files.extend([("server.key", renewed.key), ("server.crt", renewed.certificate.clone())]);
        files.insert("crl.pem", list(made)?);
        write(f, &files).await?;
        f.wait_until("home", "the condition reports the end of the list", |server: &OpenVPNServer| {
            let mut all = server.status.as_ref().and_then(|status| status.conditions.as_ref()).into_iter().flatten();
            let valid = all.find(|condition| condition.type_ == CERTIFICATES_VALID);
            valid.is_some_and(|valid| valid.status == "False" && valid.message.contains("crl.pem in Secret mine ends"))
        })
        .await?;
        ensure_eq("certificate", &texts(f, "home-server").await?["tls.crt"], &renewed.certificate)?;
        ensure!(restart(f).await? != before, "the replicas still use the old certificate");
        files.insert("crl.pem", list(made - Duration::days(11))?);
        write(f, &files).await?;
        told(f, "KeystoreInvalid", "so OpenVPN refuses all clients").await?;
        f.delete::<Secret>("mine").await?;
        told(f, "SecretNotFound", "mine").await?;
        ensure!(f.api::<Deployment>().get_opt("home").await?.is_some(), "the replicas are gone");
        files.remove("crl.pem");
        write(f, &files).await?;
        told(f, "Serving", "accept").await
    })
    .await
}

#[tokio::test]
async fn a_keystore_excludes_what_needs_certificates_of_the_operator() -> Result<()> {
    test("excluded", async |f| {
        let refused = async |name: &str, spec: Value| match create_server(f, name, spec).await {
            Ok(_) => anyhow::bail!("{name} was not refused"),
            Err(error) => Ok(format!("{error:#}")),
        };
        let said = refused("both", json!({"pki": {"keystoreSecret": "mine", "caSecret": "ca"}})).await?;
        ensure!(said.contains("exclude each other"), "{said}");
        let said = refused("slots", json!({"pki": {"keystoreSecret": "mine"}, "provider": {"maxSlots": 1}})).await?;
        ensure!(said.contains("it issues none"), "{said}");
        create_server(f, "home", json!({"replicas": 0})).await?;
        let said = match f.patch::<OpenVPNServer>("home", json!({"spec": {"pki": {"keystoreSecret": "mine"}}})).await {
            Ok(_) => anyhow::bail!("it was added"),
            Err(error) => format!("{error:#}"),
        };
        ensure!(said.contains("cannot be added or removed"), "{said}");
        Ok(())
    })
    .await
}
