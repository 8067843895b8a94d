//! What kubelet and people ask the process: `/healthz` (it answers), `/readyz` (all watches have listed; else which are
//! waited for).

use std::net::Ipv4Addr;

use anyhow::Context;
use axum::{Router, extract::State, http::StatusCode, routing::get};
use tokio::{net::TcpListener, sync::watch};

use super::Unready;

/// Serves on all addresses until the process ends.
///
/// # Errors
/// When the port cannot be had.
pub async fn serve(port: u16, unready: watch::Receiver<Unready>) -> anyhow::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await;
    let listener = listener.with_context(|| format!("port {port} cannot be listened on"))?;
    let router =
        Router::new().route("/healthz", get(|| async { "ok\n" })).route("/readyz", get(readyz)).with_state(unready);
    axum::serve(listener, router).await.context("the health server ended")
}

async fn readyz(State(unready): State<watch::Receiver<Unready>>) -> (StatusCode, String) {
    let waiting: Vec<_> = unready.borrow().iter().map(|kind| kind.as_str()).collect();
    if waiting.is_empty() {
        (StatusCode::OK, "ok\n".to_owned())
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, format!("waiting for the first list of: {}\n", waiting.join(", ")))
    }
}
