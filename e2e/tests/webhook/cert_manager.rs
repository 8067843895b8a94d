//! The certificate of the webhook, kept by the controllers of cert-manager.
//!
//! This test is ignored unless it is asked for, because it builds cert-manager (`e2e/cert-manager`):
//! `cargo test -p e2e --test webhook cert_manager -- --ignored`.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use e2e::{
    Cluster, ControlPlaneOptions, Framework, Layout, Operator, OperatorOptions, Process, ProcessSpec,
    host::{go, notice},
    operator::{self, webhook},
    testing::framework::{ensure_eq, local_cluster},
    wait::{TIMEOUT, await_condition},
};
use k8s_openapi::{
    ByteString,
    api::{
        admissionregistration::v1::MutatingWebhookConfiguration,
        core::v1::{Pod, Secret},
    },
};
use kube::{Api, ResourceExt, api::DeleteParams};
use serde_json::json;
use tokio::time::{sleep, timeout};
use tokio_rustls::rustls::pki_types::{CertificateDer, pem::PemObject};

use crate::{NAME, NAMESPACE, pod, wait_until_served};

const MODULE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/cert-manager");
/// The name of the Certificate, and of its Secret.
const CERTIFICATE: &str = "webhook-tls";

/// Starts cert-manager, and an Issuer with a CA of its own that issues the certificate of the webhook.
async fn start_cert_manager(cluster: &Cluster) -> Result<Process> {
    let build = || {
        notice("building cert-manager unless it exists already: 2 to 4 minutes on 2 cores");
        let programs = go::programs(Path::new(MODULE), "cert-manager")?;
        anyhow::Ok((programs, go::source(Path::new(MODULE), "github.com/cert-manager/cert-manager")?))
    };
    let (programs, source) = tokio::task::spawn_blocking(build).await??;
    let kinds = source.join("deploy/crds").display().to_string();
    cluster.run_kubectl(&["apply", "--server-side", "-f", &kinds]).await?;
    cluster.run_kubectl(&["wait", "--for=condition=Established", "--timeout=60s", "-f", &kinds]).await?;
    let log = cluster.state_dir().join("cert-manager.log");
    let spec = ProcessSpec::new("cert-manager", programs.join("cert-manager"), log);
    let process = cluster.run(spec.path_flag("kubeconfig", cluster.kubeconfig())).await?;

    let of = |kind: &str, name: &str, spec: serde_json::Value| {
        let metadata = json!({"name": name, "namespace": NAMESPACE});
        json!({"apiVersion": "cert-manager.io/v1", "kind": kind, "metadata": metadata, "spec": spec})
    };
    let issuer = |name: &str| json!({"group": "cert-manager.io", "kind": "Issuer", "name": name});
    let key = json!({"algorithm": "ECDSA", "size": 256, "rotationPolicy": "Always"});
    let objects = json!({"apiVersion": "v1", "kind": "List", "items": [
        of("Issuer", "self-signed", json!({"selfSigned": {}})),
        of("Certificate", "ca", json!({
            "isCA": true, "commonName": "ca", "secretName": "ca", "privateKey": key, "issuerRef": issuer("self-signed"),
        })),
        of("Issuer", "ca", json!({"ca": {"secretName": "ca"}})),
        of("Certificate", CERTIFICATE, json!({
            // The API server of the tests reaches the webhook by its address instead of the Service.
            "dnsNames": [format!("{NAME}.{NAMESPACE}.svc")], "ipAddresses": ["127.0.0.1"],
            "secretName": CERTIFICATE, "issuerRef": issuer("ca"),
        })),
    ]});
    let file = tempfile::Builder::new().suffix(".json").tempfile()?;
    std::fs::write(file.path(), objects.to_string())?;
    cluster.run_kubectl(&["apply", "-f", file.path().to_str().context("path")?]).await?;
    // The webhook starts with a finished certificate of cert-manager.
    let ready = ["wait", "--for=condition=Ready", "--timeout=60s", "--namespace", NAMESPACE, "certificate", "--all"];
    cluster.run_kubectl(&ready).await?;
    Ok(process)
}

/// The Secrets and the configuration that cert-manager changes.
struct Watched {
    secrets: Api<Secret>,
    configurations: Api<MutatingWebhookConfiguration>,
}

impl Watched {
    async fn get(&self, secret: &str, key: &str) -> Result<ByteString> {
        let secret = self.secrets.get(secret).await?;
        secret.data.and_then(|mut data| data.remove(key)).with_context(|| format!("no {key}"))
    }

    /// Waits until a key of a Secret exists and differs from `before`.
    async fn changed(&self, secret: &str, key: &str, before: &ByteString) -> Result<ByteString> {
        let is_other = |found: Option<&Secret>| {
            let now = found.and_then(|secret| secret.data.as_ref()?.get(key));
            now.is_some_and(|now| !now.0.is_empty() && now != before)
        };
        let wait = timeout(TIMEOUT, await_condition(self.secrets.clone(), secret, is_other));
        wait.await.with_context(|| format!("{key} of Secret {secret} does not change"))??;
        self.get(secret, key).await
    }

    /// Waits until the configuration has a matching CA.
    async fn injected(&self, is_it: impl Fn(&ByteString) -> bool) -> Result<()> {
        let has = |found: Option<&MutatingWebhookConfiguration>| {
            let webhook = found.and_then(|found| found.webhooks.as_ref()?.first());
            webhook.and_then(|webhook| webhook.client_config.ca_bundle.as_ref()).is_some_and(&is_it)
        };
        let wait = timeout(TIMEOUT, await_condition(self.configurations.clone(), NAME, has));
        wait.await.context("the CA is not in the MutatingWebhookConfiguration")??;
        Ok(())
    }
}

/// Waits until the webhook serves this certificate, signed by the CA in the configuration, and admits a Pod.
async fn is_served(cluster: &Cluster, f: &Framework, leaf: &ByteString, name: &str) -> Result<()> {
    let leaf = CertificateDer::from_pem_slice(&leaf.0).context("no PEM")?.to_vec();
    let deadline = Instant::now() + TIMEOUT;
    while webhook::served_certificate(cluster).await.context("the webhook and its CA do not match")? != leaf {
        ensure!(Instant::now() < deadline, "the webhook does not serve the new certificate");
        sleep(Duration::from_millis(100)).await;
    }
    wait_until_served(f).await?;
    let pod = f.create::<Pod>(pod(name, true)?).await?;
    let gates = pod.spec.and_then(|spec| spec.scheduling_gates).unwrap_or_default();
    ensure_eq("gates", gates.len(), 1)
}

#[tokio::test]
#[ignore = "builds cert-manager: 2 to 4 minutes on 2 cores"]
async fn the_certificate_of_cert_manager_is_served_and_renewed() -> Result<()> {
    if local_cluster().await?.is_none() {
        return Ok(());
    }
    let cluster = Cluster::connect(ControlPlaneOptions::default()).await?;
    // The Secret is in the namespace of the operator.
    operator::install(&cluster).await?;
    let cert_manager = start_cert_manager(&cluster).await?;
    let options = OperatorOptions::new(Layout::Combined).injection(1).certificate(CERTIFICATE);
    let operator = Operator::start_with(&cluster, options).await;
    let operator = operator.with_context(|| format!("cert-manager:\n{}", cert_manager.log_tail(60)))?;
    let before: Vec<_> = operator.pids().collect();
    let f = Framework::new(&cluster, "cert-manager").await?;
    f.add_logs(&operator);
    f.namespace.add_log(&cert_manager.spec().log);
    let test = async {
        let client = cluster.client()?;
        let watched = Watched { secrets: Api::namespaced(client.clone(), NAMESPACE), configurations: Api::all(client) };
        let (leaf, ca) = (watched.get(CERTIFICATE, "tls.crt").await?, watched.get(CERTIFICATE, "ca.crt").await?);
        watched.injected(|now| *now == ca).await?;
        is_served(&cluster, &f, &leaf, "first").await?;

        // As `cmctl renew` does.
        let issuing = r#"{"status":{"conditions":[{"type":"Issuing","status":"True","reason":"ManuallyTriggered",
            "message":"Certificate re-issuance manually triggered","lastTransitionTime":"2024-01-01T00:00:00Z"}]}}"#;
        let name = format!("certificate/{CERTIFICATE}");
        let patch = ["patch", &name, "--namespace", NAMESPACE, "--subresource=status", "--type=merge", "-p", issuing];
        cluster.run_kubectl(&patch).await?;
        let leaf = watched.changed(CERTIFICATE, "tls.crt", &leaf).await?;
        is_served(&cluster, &f, &leaf, "renewed").await?;

        // A key of another type: its PEM is not that of an RSA key.
        let ecdsa = r#"{"spec":{"privateKey":{"algorithm":"ECDSA","size":256,"rotationPolicy":"Always"}}}"#;
        let patch = ["patch", &name, "--namespace", NAMESPACE, "--type=merge", "-p", ecdsa];
        cluster.run_kubectl(&patch).await?;
        let leaf = watched.changed(CERTIFICATE, "tls.crt", &leaf).await?;
        is_served(&cluster, &f, &leaf, "with-another-key").await?;

        // The Secret is deleted.
        watched.secrets.delete(CERTIFICATE, &DeleteParams::default()).await?;
        let leaf = watched.changed(CERTIFICATE, "tls.crt", &leaf).await?;
        is_served(&cluster, &f, &leaf, "issued-again").await?;

        ensure_eq("processes", operator.pids().collect::<Vec<_>>(), before)?;

        // cert-manager keeps the Secret, and the operator only reads it.
        let secret = watched.secrets.get(CERTIFICATE).await?;
        let managers = secret.managed_fields().iter().filter_map(|field| field.manager.as_deref());
        ensure!(managers.clone().all(|manager| manager.contains("cert-manager")), "{:?}", managers.collect::<Vec<_>>());
        let warning = "watch for the certificate of the webhook interrupted";
        for log in operator.logs() {
            ensure!(!std::fs::read_to_string(&log)?.contains(warning), "{}: {warning}", log.display());
        }
        Ok(())
    };
    f.dump_on_error(test).await?;
    operator.stop().await?;
    cluster.stop().await
}
