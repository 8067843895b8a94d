//! Serves the metrics API: authenticates and authorizes each request, and passes it to [`metrics_api`]. It needs no
//! lease, so that every replica answers.
//!
//! [`metrics_api`]: crate::metrics_api

mod access;
mod capacity;
mod connection;
mod objects;
mod pass_through;
mod token;

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use axum::{
    Extension, Router,
    body::Body,
    extract::{Request as HttpRequest, State},
    http::{
        HeaderMap, Method, StatusCode,
        header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, ETAG, IF_NONE_MATCH, VARY},
        request::Parts,
    },
    response::{IntoResponse, Response as HttpResponse},
    routing::get,
};
use axum_server::tls_rustls::RustlsAcceptor;
use chrono::{DateTime, Utc};
use futures::StreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Client,
    runtime::{WatchStreamExt, watcher::watch_object},
};
use moka::future::Cache;
use rustls::pki_types::UnixTime;
use tokio::sync::watch;

use super::{
    certificates::{self, CertificateSource},
    snapshots::SnapshotClient,
    watch::error_chain,
};
use crate::{
    metrics::{Metrics, Snapshot},
    metrics_api::{
        authentication::{CONFIG_NAME, CONFIG_NAMESPACE, Trust, User},
        names::unknown,
        offers::Offers,
        pass_through::is_passed_on,
        request::{Attributes, Groups, Request},
        response::{Inputs, Response, respond},
        values::NoValue,
    },
};
use access::Access;
use capacity::Capacity;
use connection::{AnyCertificate, PeerAcceptor, PeerCertificates};
use objects::ObjectMetrics;
use pass_through::PassThrough;
pub use pass_through::{PassThroughSettings, Target};

/// How long a snapshot is used.
const KEEP_SNAPSHOT: Duration = Duration::from_millis(500);

/// Settings of the metrics API.
#[derive(Clone, Debug)]
pub struct MetricsApiSettings {
    /// The port.
    pub port: u16,
    /// The groups to serve.
    pub groups: Groups,
    /// The prefix of the names of metrics.
    pub prefix: String,
    /// Whether to serve the capacity of the cluster.
    pub capacity: bool,
    /// Where the certificate comes from.
    pub certificate: CertificateSource,
    /// Which servers are asked for metrics that this one does not know.
    pub pass_through: PassThroughSettings,
}

#[derive(Clone)]
struct Server {
    groups: Groups,
    prefix: Arc<str>,
    access: Access,
    trust: watch::Receiver<Option<Trust>>,
    snapshots: SnapshotClient,
    objects: ObjectMetrics,
    pass_through: PassThrough,
    /// The last snapshot, so that many requests at once take one.
    recent: Cache<(), (Arc<Snapshot>, DateTime<Utc>)>,
}

/// Serves until the process ends.
///
/// # Errors
///
/// Returns an error if the port is not available.
pub async fn serve(
    client: Client,
    settings: MetricsApiSettings,
    snapshots: SnapshotClient,
    metrics: Arc<Metrics>,
) -> anyhow::Result<()> {
    let (sender, trust) = watch::channel(None);
    tokio::spawn(follow_trust(client.clone(), sender));
    let verifier = Arc::new(AnyCertificate::default());
    let tls = certificates::serve(client.clone(), settings.certificate, verifier, metrics.clone()).await;
    let capacity = settings.capacity.then(|| Capacity::watch(&client));
    let server = Server {
        objects: ObjectMetrics::new(client.clone(), capacity),
        groups: settings.groups,
        prefix: settings.prefix.into(),
        pass_through: PassThrough::start(client.clone(), settings.pass_through, &metrics),
        access: Access::new(client),
        trust,
        snapshots,
        recent: Cache::builder().max_capacity(1).time_to_live(KEEP_SNAPSHOT).build(),
    };
    let router = Router::new()
        .route("/healthz", get(|| async { "ok" }))
        .route("/livez", get(|| async { "ok" }))
        .route("/readyz", get(readyz))
        .fallback(answer)
        .with_state(server);
    let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, settings.port));
    tracing::info!(port = settings.port, "serving the metrics API");
    let acceptor = PeerAcceptor(RustlsAcceptor::new(tls));
    let served = axum_server::bind(address).acceptor(acceptor).serve(router.into_make_service());
    served.await.with_context(|| format!("the metrics API on port {} failed", settings.port))
}

async fn readyz(State(server): State<Server>) -> (StatusCode, &'static str) {
    if server.trust.borrow().is_none() {
        return (
            StatusCode::SERVICE_UNAVAILABLE,
            "waiting for ConfigMap kube-system/extension-apiserver-authentication",
        );
    }
    match server.snapshot().await {
        Some(_) => (StatusCode::OK, "ok"),
        None => (StatusCode::SERVICE_UNAVAILABLE, "waiting for the first lists of MaskProviders and Masks"),
    }
}

async fn answer(
    State(server): State<Server>,
    Extension(peer): Extension<PeerCertificates>,
    request: HttpRequest,
) -> HttpResponse {
    let (request, _) = request.into_parts();
    let response = server.answer(&peer, &request).await.unwrap_or_else(|failure| failure);
    let body = response.body.map_or_else(Body::empty, |body| Body::from(body.to_string()));
    let code = StatusCode::from_u16(response.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut http = (code, [(CONTENT_TYPE, response.content_type)], body).into_response();
    http.headers_mut().insert(VARY, ACCEPT.into());
    if let Some(etag) = response.etag.and_then(|etag| etag.parse().ok()) {
        http.headers_mut().insert(ETAG, etag);
    }
    http
}

impl Server {
    async fn answer(&self, peer: &PeerCertificates, request: &Parts) -> Result<Response, Response> {
        let (path, query) = (request.uri.path(), request.uri.query().unwrap_or_default());
        let user = self.user(peer, &request.headers).await?;
        let parsed = Request::parse(self.groups, path, query);
        let attributes =
            parsed.as_ref().map_or_else(|_| Attributes::Path(path.to_owned()), |request| request.attributes(path));
        let permission = self.access.may(&user, &attributes).await.map_err(|why| {
            tracing::warn!("cannot ask whether a user has permission: {why}");
            Response::failure(500, "InternalError", &format!("cannot ask for permission: {why}"))
        })?;
        permission.map_err(|why| Response::failure(403, "Forbidden", &why))?;
        if request.method != Method::GET {
            let why = "the server does not allow this method on the requested resource";
            return Err(Response::failure(405, "MethodNotAllowed", why));
        }
        let parsed = parsed.map_err(|unknown| Response::unknown(&unknown))?;
        let passed_on = is_passed_on(&request.headers);
        let mut unknown = unknown(&parsed, &self.prefix);
        if let Request::Custom { version, query: custom } = &parsed
            && let Some(found) = self.objects.values(custom).await
        {
            match found {
                Err(NoValue::UnknownMetric(why)) => unknown = Some(why),
                found => return Ok(Response::of_values(version, &found, &custom.selector, Utc::now())),
            }
        }
        if let Some(why) = unknown {
            return Ok(self.pass_through.answer(&parsed, query, passed_on, &why).await);
        }
        // Else the lists of two servers that ask each other would hold each other's names for ever.
        let offers = if passed_on { Offers::default() } else { self.pass_through.offers() };
        let snapshot = match parsed {
            Request::Custom { .. } | Request::External { .. } => self.snapshot().await,
            _ => None,
        };
        let header = |name| request.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        Ok(respond(
            &parsed,
            &Inputs {
                groups: self.groups,
                prefix: &self.prefix,
                offers: &offers,
                snapshot: snapshot.as_ref().map(|(snapshot, at)| (&**snapshot, *at)),
                accept: header(ACCEPT),
                if_none_match: header(IF_NONE_MATCH),
            },
        ))
    }

    /// Returns the user of a request: by certificate, else by token, else anonymous.
    async fn user(&self, peer: &PeerCertificates, headers: &HeaderMap) -> Result<User, Response> {
        let unauthorized = || Response::failure(401, "Unauthorized", "Unauthorized");
        let trust = self.trust.borrow().clone().unwrap_or_default();
        let by_certificate = trust.user(&peer.0, headers, UnixTime::now());
        if let Ok(Some(user)) = by_certificate {
            return Ok(user);
        }
        let token = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        if let Some(token) = token.and_then(|value| value.strip_prefix("Bearer ")) {
            let user = self.access.user_of(token.trim()).await.map_err(|why| {
                tracing::warn!("cannot ask who has a token: {why}");
                Response::failure(500, "InternalError", &format!("cannot ask who has this token: {why}"))
            })?;
            return user.ok_or_else(unauthorized);
        }
        match by_certificate {
            Err(why) => {
                tracing::debug!("refused a certificate: {why:#}");
                Err(unauthorized())
            }
            Ok(_) => Ok(User::anonymous()),
        }
    }

    /// Returns a recent snapshot, or `None` while the first lists are not complete.
    async fn snapshot(&self) -> Option<(Arc<Snapshot>, DateTime<Utc>)> {
        let take = async { self.snapshots.take_from_any().await.map(|snapshot| (Arc::new(snapshot), Utc::now())) };
        self.recent.optionally_get_with((), take).await
    }
}

/// Follows the ConfigMap with the certificates to trust, until the process ends.
async fn follow_trust(client: Client, trust: watch::Sender<Option<Trust>>) {
    let api = Api::<ConfigMap>::namespaced(client, CONFIG_NAMESPACE);
    let mut changes = std::pin::pin!(watch_object(api, CONFIG_NAME).default_backoff());
    while let Some(change) = changes.next().await {
        match change {
            Ok(config) => match Trust::of(&config.and_then(|config| config.data).unwrap_or_default()) {
                Ok(new) => drop(trust.send_replace(Some(new))),
                Err(error) => tracing::error!("ConfigMap {CONFIG_NAMESPACE}/{CONFIG_NAME} cannot be used: {error:#}"),
            },
            Err(error) => {
                let error = error_chain(&error);
                tracing::warn!(error, "watch on ConfigMap {CONFIG_NAMESPACE}/{CONFIG_NAME} interrupted, restarting it");
            }
        }
    }
}
