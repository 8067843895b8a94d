//! Keeps the certificate of a server of the operator: reads it from its Secret, renews it, and puts the CA where
//! kube-apiserver looks for it. Each replica does so; of two that renew at once, one gets a conflict and reads again.
//!
//! Invariant: an APIService that refers to the Service of somebody else is never changed.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result};
use axum_server::tls_rustls::RustlsConfig;
use futures::{
    StreamExt,
    stream::{BoxStream, select_all},
};
use k8s_openapi::{
    ByteString,
    api::{admissionregistration::v1::MutatingWebhookConfiguration, core::v1::Secret},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
    kube_aggregator::pkg::apis::apiregistration::v1::APIService,
};
use kube::{
    Api, Client, Resource,
    api::{Patch, PatchParams, PostParams},
    runtime::{
        WatchStreamExt,
        watcher::{self, watch_object},
    },
};
use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::danger::ClientCertVerifier,
};
use serde::de::DeserializeOwned;
use serde_json::json;
use time::OffsetDateTime;
use vpn_types::FIELD_MANAGER;

use crate::certificates::{Certificate, Data, load, renew, renewal_time};
use crate::metrics::Metrics;

/// Where the certificate of a server comes from.
#[derive(Clone, Debug)]
pub struct CertificateSource {
    /// What the server is called in messages.
    pub server: &'static str,
    /// The namespace of the Secret, and of the Service of the server.
    pub namespace: String,
    /// The name of the Secret.
    pub secret: String,
    /// The names of the server, if the operator is the issuer. Without any, something else keeps the Secret and the CA
    /// of the clients, such as cert-manager.
    pub names: Vec<String>,
    /// Where kube-apiserver looks for the CA.
    pub clients: Vec<CaTarget>,
}

impl CertificateSource {
    /// Whether the operator is the issuer.
    fn is_issuer(&self) -> bool {
        !self.names.is_empty()
    }
}

/// An object with the CA by which kube-apiserver verifies a server.
#[derive(Clone, Debug)]
pub enum CaTarget {
    /// A MutatingWebhookConfiguration.
    Webhook(String),
    /// An APIService.
    ApiService(String),
}

/// How long to wait before a failed request is sent again, at first.
const RETRY: Duration = Duration::from_secs(1);
/// The same after many failures.
const LONGEST_RETRY: Duration = Duration::from_secs(60);
/// The longest wait between two looks at the certificate: clocks may jump.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);

/// Returns the configuration of a TLS server with the first certificate, as soon as there is one, and keeps it up to
/// date until the process ends. `verifier` verifies the certificates of clients. The server does not wait until its CA is
/// published: that an object of somebody else is in the way concerns only the clients that look there.
pub async fn serve(
    client: Client,
    source: CertificateSource,
    verifier: Arc<dyn ClientCertVerifier>,
    metrics: Arc<Metrics>,
) -> RustlsConfig {
    let config = loop {
        let certificate = ensure(&client, &source).await;
        match certificate.and_then(|certificate| server_config(&certificate, verifier.clone())) {
            Ok(config) => break RustlsConfig::from_config(config),
            Err(error) => tracing::warn!("the {} has no certificate yet: {error:#}", source.server),
        }
        tokio::time::sleep(RETRY).await;
    };
    tokio::spawn(follow(client, source, config.clone(), verifier, metrics));
    config
}

/// Watches an object, for the fact that it changed.
fn changes<K>(api: Api<K>, name: &str) -> BoxStream<'static, Result<(), watcher::Error>>
where
    K: Resource + Clone + DeserializeOwned + std::fmt::Debug + Send + 'static,
{
    watch_object(api, name).default_backoff().map(|change| change.map(drop)).boxed()
}

/// Follows changes of the Secret and of the objects with the CA, and the time, until the process ends.
async fn follow(
    client: Client,
    source: CertificateSource,
    tls: RustlsConfig,
    verifier: Arc<dyn ClientCertVerifier>,
    metrics: Arc<Metrics>,
) {
    let secret = changes(Api::<Secret>::namespaced(client.clone(), &source.namespace), &source.secret);
    // What something else keeps, the operator may not read.
    let clients = source.clients.iter().filter(|_| source.is_issuer()).map(|target| match target {
        CaTarget::Webhook(name) => changes(Api::<MutatingWebhookConfiguration>::all(client.clone()), name),
        CaTarget::ApiService(name) => changes(Api::<APIService>::all(client.clone()), name),
    });
    let mut changes = select_all(clients.chain([secret]));
    let mut current = None;
    // Each watch begins with the object.
    let mut wait = LONGEST_WAIT;
    let mut retry = RETRY;
    loop {
        tokio::select! {
            Some(change) = changes.next() => {
                if let Err(error) = change {
                    tracing::warn!(%error, "watch for the certificate of the {} interrupted, restarting it", source.server);
                    continue;
                }
            }
            () = tokio::time::sleep(wait) => {}
        }
        let published = match ensure(&client, &source).await {
            Ok(certificate) => {
                let until = renewal_time(&certificate) - OffsetDateTime::now_utc().unix_timestamp();
                wait = Duration::from_secs(u64::try_from(until).unwrap_or(60)).clamp(RETRY, LONGEST_WAIT);
                metrics.certificate_ends(source.server, certificate.not_after);
                if current.as_ref() != Some(&certificate) {
                    match server_config(&certificate, verifier.clone()) {
                        Ok(config) => tls.reload_from_config(config),
                        Err(error) => {
                            tracing::error!("the certificate of the {} cannot be used: {error:#}", source.server);
                        }
                    }
                }
                publish_all(&client, &source, current.insert(certificate)).await
            }
            Err(error) => Err(error),
        };
        match published {
            Ok(()) => retry = RETRY,
            Err(error) => {
                tracing::warn!("the certificate of the {} is not up to date: {error:#}", source.server);
                wait = retry;
                retry = (2 * retry).min(LONGEST_RETRY);
            }
        }
    }
}

/// Makes the Secret what it should be, and returns the certificate.
async fn ensure(client: &Client, source: &CertificateSource) -> Result<Certificate> {
    let secrets = Api::<Secret>::namespaced(client.clone(), &source.namespace);
    let name = format!("Secret {}/{}", source.namespace, source.secret);
    let found = secrets.get_opt(&source.secret).await.with_context(|| name.clone())?;
    if !source.is_issuer() {
        return load(&found.and_then(|secret| secret.data).unwrap_or_default()).with_context(|| name.clone());
    }
    let data = found.as_ref().and_then(|secret| secret.data.clone()).unwrap_or_default();
    let data = match renew(&data, &source.names, OffsetDateTime::now_utc())? {
        Some(new) => {
            write(&secrets, source, found, new.clone()).await.with_context(|| name.clone())?;
            tracing::info!(secret = name, "created a certificate for the {}", source.server);
            new
        }
        None => data,
    };
    load(&data)
}

/// Puts the CA into all objects where kube-apiserver looks for it. One that cannot be written does not affect the others.
async fn publish_all(client: &Client, source: &CertificateSource, certificate: &Certificate) -> Result<()> {
    let mut result = Ok(());
    for target in source.clients.iter().filter(|_| source.is_issuer()) {
        let published = publish(client, target, &source.namespace, certificate).await;
        result = result.and(published);
    }
    result
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

/// Puts the CA where kube-apiserver looks for it.
async fn publish(client: &Client, target: &CaTarget, namespace: &str, certificate: &Certificate) -> Result<()> {
    let ca = ByteString(certificate.ca.clone().into_bytes());
    match target {
        CaTarget::Webhook(name) => {
            let what = format!("MutatingWebhookConfiguration {name}");
            let api = Api::<MutatingWebhookConfiguration>::all(client.clone());
            let found = api.get_opt(name).await.with_context(|| what.clone())?;
            let found = found.with_context(|| format!("{what} does not exist"))?;
            let webhooks = found.webhooks.iter().flatten().enumerate();
            let outdated = webhooks.filter(|(_, one)| one.client_config.ca_bundle.as_ref() != Some(&ca));
            let paths = outdated.map(|(position, _)| format!("/webhooks/{position}/clientConfig/caBundle")).collect();
            set(&api, name, &found.metadata, paths, &ca).await.with_context(|| what.clone())
        }
        CaTarget::ApiService(name) => {
            let what = format!("APIService {name}");
            let api = Api::<APIService>::all(client.clone());
            let found = api.get_opt(name).await.with_context(|| what.clone())?;
            let found = found.with_context(|| format!("{what} does not exist"))?;
            let spec = found.spec.unwrap_or_default();
            let service = spec.service.unwrap_or_default();
            let (owner, service) = (service.namespace.unwrap_or_default(), service.name.unwrap_or_default());
            anyhow::ensure!(
                owner == namespace,
                "{what} belongs to Service {owner}/{service}; a cluster has one server for an API group"
            );
            let is_outdated = spec.ca_bundle.as_ref() != Some(&ca);
            let paths = is_outdated.then(|| "/spec/caBundle".to_owned()).into_iter().collect();
            set(&api, name, &found.metadata, paths, &ca).await.with_context(|| what.clone())
        }
    }
}

/// Sets the CA at these paths of an object, unless the object has changed since it was read.
async fn set<K>(api: &Api<K>, name: &str, metadata: &ObjectMeta, paths: Vec<String>, ca: &ByteString) -> Result<()>
where
    K: Clone + DeserializeOwned + std::fmt::Debug,
{
    if paths.is_empty() {
        return Ok(());
    }
    let mut patch =
        vec![json!({"op": "test", "path": "/metadata/resourceVersion", "value": metadata.resource_version})];
    patch.extend(paths.iter().map(|path| json!({"op": "add", "path": path, "value": ca})));
    let patch = Patch::Json::<()>(serde_json::from_value(json!(patch))?);
    let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
    api.patch(name, &params, &patch).await?;
    tracing::info!(name, "the CA of the operator's server is up to date");
    Ok(())
}

fn server_config(certificate: &Certificate, clients: Arc<dyn ClientCertVerifier>) -> Result<Arc<ServerConfig>> {
    let chain = CertificateDer::pem_slice_iter(certificate.certificate.as_bytes()).collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_slice(certificate.key.as_bytes())?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(clients)
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
