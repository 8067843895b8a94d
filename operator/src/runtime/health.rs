//! What kubelet, Prometheus and people ask the process: `/healthz` (it answers), `/readyz` (all watches have listed; else
//! which are waited for), `/metrics`.

use std::{net::Ipv4Addr, sync::Arc, time::Instant};

use anyhow::Context;
use axum::{
    Router,
    extract::{Request, State},
    http::{StatusCode, header::CONTENT_TYPE},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse, Response},
    routing::get,
};
use chrono::Utc;
use tokio::{net::TcpListener, sync::watch};

use super::{Unready, snapshots::Snapshots};
use crate::metrics::Metrics;

/// What the answers are made of.
#[derive(Clone)]
pub struct Served {
    /// What is still waited for.
    pub unready: watch::Receiver<Unready>,
    /// Counts and durations.
    pub metrics: Arc<Metrics>,
    /// Slots and Masks.
    pub snapshots: Snapshots,
}

/// Serves on all addresses until the process ends.
///
/// # Errors
/// When the port cannot be had.
pub async fn serve(port: u16, served: Served) -> anyhow::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await;
    let listener = listener.with_context(|| format!("port {port} cannot be listened on"))?;
    let router = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .layer(from_fn_with_state(served.metrics.clone(), count))
        .with_state(served);
    axum::serve(listener, router).await.context("the health server ended")
}

async fn readyz(State(served): State<Served>) -> (StatusCode, String) {
    let waiting: Vec<_> = served.unready.borrow().iter().map(|kind| kind.as_str()).collect();
    if waiting.is_empty() {
        (StatusCode::OK, "ok\n".to_owned())
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, format!("waiting for the first list of: {}\n", waiting.join(", ")))
    }
}

async fn metrics(State(served): State<Served>) -> Response {
    let snapshot = served.snapshots.take().await;
    match served.metrics.encode(snapshot.as_ref(), Utc::now()) {
        Ok(text) => ([(CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

async fn count(State(metrics): State<Arc<Metrics>>, request: Request, next: Next) -> Response {
    let began = Instant::now();
    let response = next.run(request).await;
    metrics.served(began);
    response
}
