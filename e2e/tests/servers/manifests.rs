//! Servers and clients, and what is in their Secrets.

use std::{collections::BTreeMap, fs, process::Command};

use anyhow::{Context, Result, ensure};
use e2e::{Framework, host::command::run};
use k8s_openapi::api::core::v1::Secret;
use serde_json::{Value, json};
use vpn_types::{OpenVPNClient, OpenVPNServer};

/// The data of a Secret, as text.
pub type Texts = BTreeMap<String, String>;

pub async fn create_server(f: &Framework, name: &str, spec: Value) -> Result<OpenVPNServer> {
    f.create(serde_json::from_value(json!({"metadata": {"name": name}, "spec": spec}))?).await
}

pub async fn create_client(f: &Framework, name: &str, spec: Value) -> Result<OpenVPNClient> {
    f.create(serde_json::from_value(json!({"metadata": {"name": name}, "spec": spec}))?).await
}

/// Waits until a client has its certificate, and returns the data of its Secret.
pub async fn issued(f: &Framework, name: &str) -> Result<Texts> {
    f.wait_for_reason::<OpenVPNClient>(name, "Issued").await?;
    texts(f, name).await
}

pub async fn texts(f: &Framework, name: &str) -> Result<Texts> {
    let secret = f.api::<Secret>().get(name).await.with_context(|| format!("Secret {name}"))?;
    let text = |value: k8s_openapi::ByteString| String::from_utf8_lossy(&value.0).into_owned();
    Ok(secret.data.unwrap_or_default().into_iter().map(|(key, value)| (key, text(value))).collect())
}

/// Runs openssl in a directory with these files, and returns its output.
pub fn openssl(args: &[&str], files: &[(&str, &str)]) -> Result<String> {
    let dir = tempfile::tempdir()?;
    for (name, text) in files {
        fs::write(dir.path().join(name), text)?;
    }
    run(Command::new("openssl").args(args).current_dir(dir.path()))
}

/// The serial number of a certificate, in decimal.
pub fn serial(certificate: &str) -> Result<String> {
    let info = vpn_operator::pki::inspect(certificate)?;
    let printed = openssl(&["x509", "-noout", "-serial", "-in", "c"], &[("c", certificate)])?;
    let hexadecimal: String = info.serial.to_bytes().iter().map(|byte| format!("{byte:02X}")).collect();
    ensure!(printed.trim() == format!("serial={hexadecimal}"), "openssl reads another serial: {printed}");
    Ok(info.serial.to_string())
}

/// Fails unless the authority signed the certificate for this purpose (`sslclient` or `sslserver`).
pub fn verify(authority: &str, certificate: &str, purpose: &str) -> Result<()> {
    let files = [("ca", authority), ("c", certificate)];
    openssl(&["verify", "-x509_strict", "-purpose", purpose, "-CAfile", "ca", "c"], &files).map(drop)
}
