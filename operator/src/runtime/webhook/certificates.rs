//! Keeps the certificate of the webhook: reads it from its Secret, renews it, and puts the CA into the
//! MutatingWebhookConfiguration. Each replica does so; of two that renew at once, one gets a conflict and reads again.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result};
use axum_server::tls_rustls::RustlsConfig;
use futures::{
    StreamExt,
    stream::{pending, select},
};
use k8s_openapi::{
    ByteString,
    api::{admissionregistration::v1::MutatingWebhookConfiguration, core::v1::Secret},
};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
    runtime::{WatchStreamExt, watcher::watch_object},
};
use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use serde_json::json;
use time::OffsetDateTime;
use vpn_types::FIELD_MANAGER;

use crate::certificates::{Certificate, Data, load, renew, renewal_time};
use crate::metrics::Metrics;

/// Where the certificate of the webhook comes from.
#[derive(Clone, Debug)]
pub struct CertificateSource {
    /// The namespace of the Secret.
    pub namespace: String,
    /// The name of the Secret.
    pub secret: String,
    /// The names of the server, if the operator is the issuer. Without any, something else keeps the Secret, and the
    /// MutatingWebhookConfiguration, such as cert-manager.
    pub names: Vec<String>,
    /// The name of the MutatingWebhookConfiguration.
    pub configuration: String,
}

/// How long to wait before a failed request is sent again.
const RETRY: Duration = Duration::from_secs(1);
/// The longest wait between two looks at the certificate: clocks may jump.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);

/// Returns the first certificate, as soon as there is one.
pub async fn first(client: &Client, source: &CertificateSource) -> RustlsConfig {
    loop {
        match ensure(client, source).await.and_then(|certificate| server_config(&certificate)) {
            Ok(config) => return RustlsConfig::from_config(config),
            Err(error) => tracing::warn!("the webhook has no certificate yet: {error:#}"),
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// Follows changes of the Secret and of the configuration, and the time, until the process ends.
pub async fn follow(client: Client, source: CertificateSource, tls: RustlsConfig, metrics: Arc<Metrics>) {
    let secrets = watch_object(Api::<Secret>::namespaced(client.clone(), &source.namespace), &source.secret);
    let configurations = watch_object(Api::<MutatingWebhookConfiguration>::all(client.clone()), &source.configuration);
    let configurations = configurations.default_backoff().map(|change| change.map(drop));
    let changes = select(
        secrets.default_backoff().map(|change| change.map(drop)),
        // If something else keeps it, the webhook needs no permission to see it.
        if source.names.is_empty() { pending().left_stream() } else { configurations.right_stream() },
    );
    tokio::pin!(changes);
    let mut current = None;
    // Each watch begins with the object.
    let mut wait = LONGEST_WAIT;
    loop {
        tokio::select! {
            Some(change) = changes.next() => {
                if let Err(error) = change {
                    tracing::warn!(%error, "watch for the certificate of the webhook interrupted, restarting it");
                    continue;
                }
            }
            () = tokio::time::sleep(wait) => {}
        }
        match ensure(&client, &source).await {
            Ok(certificate) => {
                let until = renewal_time(&certificate) - OffsetDateTime::now_utc().unix_timestamp();
                wait = Duration::from_secs(u64::try_from(until).unwrap_or(60)).clamp(RETRY, LONGEST_WAIT);
                metrics.certificate_ends(certificate.not_after);
                if current.as_ref() != Some(&certificate) {
                    match server_config(&certificate) {
                        Ok(config) => tls.reload_from_config(config),
                        Err(error) => tracing::error!("the certificate of the webhook cannot be used: {error:#}"),
                    }
                    current = Some(certificate);
                }
            }
            Err(error) => {
                tracing::warn!("the certificate of the webhook is not up to date: {error:#}");
                wait = RETRY;
            }
        }
    }
}

/// Makes the Secret and the configuration what they should be, and returns the certificate.
async fn ensure(client: &Client, source: &CertificateSource) -> Result<Certificate> {
    let secrets = Api::<Secret>::namespaced(client.clone(), &source.namespace);
    let name = format!("Secret {}/{}", source.namespace, source.secret);
    let found = secrets.get_opt(&source.secret).await.with_context(|| name.clone())?;
    if source.names.is_empty() {
        return load(&found.and_then(|secret| secret.data).unwrap_or_default()).with_context(|| name.clone());
    }
    let data = found.as_ref().and_then(|secret| secret.data.clone()).unwrap_or_default();
    let data = match renew(&data, &source.names, OffsetDateTime::now_utc())? {
        Some(new) => {
            write(&secrets, source, found, new.clone()).await.with_context(|| name.clone())?;
            tracing::info!(secret = name, "created a certificate for the webhook");
            new
        }
        None => data,
    };
    let certificate = load(&data)?;
    publish(client, source, &certificate).await?;
    Ok(certificate)
}

async fn write(secrets: &Api<Secret>, source: &CertificateSource, found: Option<Secret>, data: Data) -> Result<()> {
    let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
    match found {
        // With its resourceVersion, so that one of two replicas fails.
        Some(mut secret) => {
            secret.data = Some(data);
            secrets.replace(&source.secret, &params, &secret).await?;
        }
        None => {
            let mut secret =
                Secret { data: Some(data), type_: Some("kubernetes.io/tls".to_owned()), ..Secret::default() };
            secret.metadata.name = Some(source.secret.clone());
            secrets.create(&params, &secret).await?;
        }
    }
    Ok(())
}

/// Puts the CA into the MutatingWebhookConfiguration.
async fn publish(client: &Client, source: &CertificateSource, certificate: &Certificate) -> Result<()> {
    let api = Api::<MutatingWebhookConfiguration>::all(client.clone());
    let name = format!("MutatingWebhookConfiguration {}", source.configuration);
    let Some(found) = api.get_opt(&source.configuration).await.with_context(|| name.clone())? else {
        anyhow::bail!("{name} does not exist");
    };
    let ca = ByteString(certificate.ca.clone().into_bytes());
    let webhooks = found.webhooks.unwrap_or_default();
    let outdated = webhooks.iter().enumerate().filter(|(_, one)| one.client_config.ca_bundle.as_ref() != Some(&ca));
    let mut patch = vec![json!({
        "op": "test", "path": "/metadata/resourceVersion", "value": found.metadata.resource_version,
    })];
    patch.extend(outdated.map(|(position, _)| {
        json!({"op": "add", "path": format!("/webhooks/{position}/clientConfig/caBundle"), "value": ca})
    }));
    if patch.len() > 1 {
        let patch = Patch::Json::<()>(serde_json::from_value(json!(patch))?);
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        api.patch(&source.configuration, &params, &patch).await.with_context(|| name.clone())?;
        tracing::info!("the CA of the webhook is now in {name}");
    }
    Ok(())
}

fn server_config(certificate: &Certificate) -> Result<Arc<ServerConfig>> {
    let chain = CertificateDer::pem_slice_iter(certificate.certificate.as_bytes()).collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_slice(certificate.key.as_bytes())?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
