//! The HTTP server of the exporter.
//!
//! It is on all addresses of the Pod, so clients reach it through the tunnel, which is how they check it. They do not
//! learn who else is connected to this replica. Other replicas see the address of this Pod, and cannot tell.

use std::{net::SocketAddr, sync::Arc};

use axum::{
    Json, Router,
    extract::{ConnectInfo, Request, State},
    http::{StatusCode, header::CONTENT_TYPE},
    middleware::{Next, from_fn_with_state},
    response::{Html, IntoResponse, Response},
    routing::get,
};
use serde::Serialize;

use super::source::Source;
use crate::openvpn::exposition::{Exposition, Server};

/// A session, as `/sessions` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Session {
    /// The common name of the client.
    pub name: String,
    /// When it connected, in seconds since 1970.
    pub since: i64,
    /// Its address in the tunnel.
    pub virtual_address: String,
}

/// Returns the server. Its connections must tell the address of the caller.
pub fn router(source: Arc<Source>, telemetry_path: &str) -> Router {
    let private =
        Router::new().route("/sessions", get(sessions)).layer(from_fn_with_state(source.clone(), refuse_clients));
    let metrics = get(metrics).layer(from_fn_with_state(source.clone(), refuse_clients));
    let mut router = private
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/address", get(address));
    if telemetry_path != "/" {
        let page = format!("<html><body><a href='{telemetry_path}'>Metrics</a></body></html>\n");
        router = router.route("/", get(|| async { Html(page) }));
    }
    router.route(telemetry_path, metrics).with_state(source)
}

/// Refuses what comes through the tunnel.
async fn refuse_clients(
    State(source): State<Arc<Source>>,
    ConnectInfo(caller): ConnectInfo<SocketAddr>,
    request: Request,
    next: Next,
) -> Response {
    match source.is_client(caller.ip()) {
        true => (StatusCode::FORBIDDEN, "not for clients\n").into_response(),
        false => next.run(request).await,
    }
}

async fn metrics(State(source): State<Arc<Source>>) -> Response {
    let answer = source.ask().await;
    let settings = source.settings();
    let servers: Vec<_> = answer
        .servers
        .iter()
        .map(|known| Server { status_path: &known.path, status: known.status.as_deref() })
        .collect();
    let shown = Exposition {
        servers: &servers,
        max_clients: settings.as_ref().map(|settings| settings.max_clients),
        draining: source.is_draining(),
        killed: source.killed().ok(),
        individuals: source.shows_individuals(settings.as_ref()),
    };
    match shown.encode() {
        Ok(text) => ([(CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

async fn readyz(State(source): State<Arc<Source>>) -> (StatusCode, String) {
    let answer = source.ask().await;
    match answer.servers.iter().find(|known| !known.is_ready) {
        None if !answer.servers.is_empty() => (StatusCode::OK, "ok\n".into()),
        None => (StatusCode::SERVICE_UNAVAILABLE, "there is no status of OpenVPN\n".into()),
        Some(known) => {
            let problem = known.problem.as_deref().unwrap_or("the status is old");
            (StatusCode::SERVICE_UNAVAILABLE, format!("{}: {problem}\n", known.path))
        }
    }
}

async fn address(State(source): State<Arc<Source>>, ConnectInfo(caller): ConnectInfo<SocketAddr>) -> String {
    format!("{}\n", source.address_of(caller.ip()))
}

async fn sessions(State(source): State<Arc<Source>>) -> Response {
    if !source.shows_individuals(source.settings().as_ref()) {
        return (StatusCode::NOT_FOUND, "names of clients are not shown\n").into_response();
    }
    let answer = source.ask().await;
    if answer.servers.iter().all(|known| known.status.is_none()) {
        return (StatusCode::SERVICE_UNAVAILABLE, "OpenVPN does not answer\n").into_response();
    }
    let clients = answer.servers.iter().filter_map(|known| known.status.as_ref()).flat_map(|status| &status.clients);
    let sessions = clients.map(|client| Session {
        name: client.common_name.clone(),
        since: client.connected_since,
        virtual_address: client.virtual_address.clone(),
    });
    Json(sessions.collect::<Vec<_>>()).into_response()
}
