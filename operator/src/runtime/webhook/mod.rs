//! The admission webhook: an HTTPS server that answers each AdmissionReview with the decision of [`injection`]. It needs
//! no lease, so that every replica answers.
//!
//! [`injection`]: crate::injection

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use anyhow::Context;
use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, State},
    http::StatusCode,
    routing::{get, post},
};
use futures::StreamExt;
use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api, Client,
    core::{
        DynamicObject, PartialObjectMeta,
        admission::{AdmissionRequest, AdmissionResponse, AdmissionReview, Operation},
    },
    runtime::{
        WatchStreamExt,
        reflector::{self, ObjectRef, Store},
        watcher,
    },
};
use rustls::server::WebPkiClientVerifier;
use serde_json::Value;
use vpn_types::Mask;

use super::{
    certificates::{self, CertificateSource},
    watch::error_chain,
};
use crate::injection::{Answer, Defaults, Inputs, MaskSecret, decide, wanted_mask};
use crate::metrics::Metrics;

/// The path of the webhook.
pub const PATH: &str = "/inject";
/// The largest AdmissionReview: twice what the API server takes for an object.
const LARGEST_REVIEW: usize = 8 << 20;
/// How often the version of the API server is read.
const VERSION_INTERVAL: Duration = Duration::from_secs(600);
/// How long to wait before a failed request at the start is sent again.
const RETRY: Duration = Duration::from_secs(1);

/// Settings of the webhook.
#[derive(Clone, Debug)]
pub struct WebhookSettings {
    /// The port.
    pub port: u16,
    /// Settings for all injected Pods.
    pub defaults: Defaults,
    /// Where the certificate comes from.
    pub certificate: CertificateSource,
}

#[derive(Clone)]
struct Webhook {
    client: Client,
    defaults: Arc<Defaults>,
    namespaces: Store<PartialObjectMeta<Namespace>>,
    /// The minor version of Kubernetes.
    minor: Arc<AtomicU32>,
}

/// Serves until the process ends.
///
/// # Errors
///
/// Returns an error if the port is not available.
pub async fn serve(client: Client, settings: WebhookSettings, metrics: Arc<Metrics>) -> anyhow::Result<()> {
    let no_certificate = WebPkiClientVerifier::no_client_auth();
    let tls = certificates::serve(client.clone(), settings.certificate, no_certificate, metrics).await;
    let minor = Arc::new(AtomicU32::new(first_version(&client).await));
    tokio::spawn(follow_version(client.clone(), minor.clone()));
    let namespaces = namespaces(&client);
    namespaces.wait_until_ready().await.context("the watch on namespaces ended")?;
    let webhook = Webhook { client, defaults: Arc::new(settings.defaults), namespaces, minor };
    let router = Router::new()
        .route(PATH, post(review))
        .route("/readyz", get(|| async { "ok\n" }))
        .layer(DefaultBodyLimit::max(LARGEST_REVIEW))
        .with_state(webhook);
    let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, settings.port));
    tracing::info!(port = settings.port, "serving the webhook");
    let server = axum_server::bind_rustls(address, tls).serve(router.into_make_service());
    server.await.with_context(|| format!("the webhook on port {} failed", settings.port))
}

async fn review(
    State(webhook): State<Webhook>,
    Json(review): Json<AdmissionReview<DynamicObject>>,
) -> Result<Json<AdmissionReview<DynamicObject>>, (StatusCode, String)> {
    let request: AdmissionRequest<DynamicObject> =
        review.try_into().map_err(|error| (StatusCode::BAD_REQUEST, format!("{error}\n")))?;
    Ok(Json(webhook.answer(&request).await.into_review()))
}

impl Webhook {
    async fn answer(&self, request: &AdmissionRequest<DynamicObject>) -> AdmissionResponse {
        let response = AdmissionResponse::from(request);
        let Some(object) = request.object.as_ref().filter(|_| request.operation == Operation::Create) else {
            return response;
        };
        let namespace = request.namespace.as_deref().unwrap_or_default();
        let answer = match serde_json::to_value(object) {
            Ok(pod) => self.decide(namespace, &request.uid, &pod).await.map(|answer| (pod, answer)),
            Err(error) => Err(error.to_string()),
        };
        match answer {
            Ok((_, Answer::Unchanged)) => response,
            Ok((pod, Answer::Changed(new))) => {
                let patch = json_patch::diff(&pod, &new);
                response.with_patch(patch).unwrap_or_else(|error| AdmissionResponse::from(request).deny(error))
            }
            Ok((_, Answer::Refused(why))) => {
                tracing::info!(namespace, name = request.name, "refused: {why}");
                response.deny(format!("vpn-operator: {why}"))
            }
            Err(error) => {
                tracing::warn!(namespace, error, "cannot decide about a Pod");
                response.deny(format!("vpn-operator: cannot decide about this Pod now: {error}"))
            }
        }
    }

    async fn decide(&self, namespace: &str, uid: &str, pod: &Value) -> Result<Answer, String> {
        let suffix: String = uid.chars().filter(char::is_ascii_alphanumeric).take(10).collect();
        let inputs = Inputs {
            namespace_labels: &self.labels_of(namespace).await?,
            minor: self.minor.load(Ordering::Relaxed),
            defaults: &self.defaults,
            suffix: &suffix,
            mask: match wanted_mask(pod) {
                Some(mask) => self.secret_of(namespace, mask).await?,
                None => MaskSecret::default(),
            },
        };
        Ok(decide(pod, &inputs))
    }

    /// Returns the labels of a namespace. If it is new, the watch may not have it yet.
    async fn labels_of(&self, namespace: &str) -> Result<BTreeMap<String, String>, String> {
        let known = self.namespaces.get(&ObjectRef::new(namespace));
        let labels = match known {
            Some(known) => known.metadata.labels.clone(),
            None => {
                let api = Api::<Namespace>::all(self.client.clone());
                let found = api.get_metadata_opt(namespace).await.map_err(|error| error_chain(&error))?;
                found.and_then(|found| found.metadata.labels)
            }
        };
        Ok(labels.unwrap_or_default())
    }

    /// Returns the name of the Secret of a Mask.
    async fn secret_of(&self, namespace: &str, mask: &str) -> Result<MaskSecret, String> {
        let api = Api::<Mask>::namespaced(self.client.clone(), namespace);
        let Some(mask) = api.get_opt(mask).await.map_err(|error| error_chain(&error))? else {
            return Ok(MaskSecret::NoMask);
        };
        let assigned = mask.status.and_then(|status| status.provider).map(|provider| provider.secret);
        Ok(mask.spec.secret_name.or(assigned).map_or(MaskSecret::NotKnown, MaskSecret::Known))
    }
}

fn namespaces(client: &Client) -> Store<PartialObjectMeta<Namespace>> {
    let (store, writer) = reflector::store();
    let api = Api::<PartialObjectMeta<Namespace>>::all(client.clone());
    let stream = watcher(api, watcher::Config::default()).default_backoff().reflect(writer);
    tokio::spawn(stream.for_each(async |event| {
        if let Err(error) = event {
            tracing::warn!(error = %error_chain(&error), "watch on namespaces interrupted, restarting it");
        }
    }));
    store
}

async fn first_version(client: &Client) -> u32 {
    loop {
        match minor_version(client).await {
            Ok(minor) => return minor,
            Err(error) => tracing::warn!("the version of the API server cannot be read: {error:#}"),
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn follow_version(client: Client, minor: Arc<AtomicU32>) {
    loop {
        tokio::time::sleep(VERSION_INTERVAL).await;
        if let Ok(now) = minor_version(&client).await {
            minor.store(now, Ordering::Relaxed);
        }
    }
}

/// Returns the minor version of the API server. Some services append a `+` to it.
async fn minor_version(client: &Client) -> anyhow::Result<u32> {
    let version = client.apiserver_version().await?;
    let digits: String = version.minor.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().with_context(|| format!("minor version {:?}", version.minor))
}
