//! A metric with a value that anybody sets, to try a HorizontalPodAutoscaler without an account.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use anyhow::Context;
use axum::{
    Router,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::get,
};
use prometheus::{Encoder, Gauge, Registry, TextEncoder};
use tokio::net::TcpListener;

/// The name of the metric.
pub const NAME: &str = "prom_fake_value";

/// The bits of the value, so that it is read and written at once.
#[derive(Clone, Default)]
struct Value(Arc<AtomicU64>);

/// Returns the server: `GET` and `POST /value`, and `/metrics`.
pub fn router() -> Router {
    Router::new()
        .route("/value", get(read).post(write))
        .route("/metrics", get(metrics))
        .route("/healthz", get(|| async { "ok\n" }))
        .with_state(Value::default())
}

/// Serves on all addresses until the process ends.
///
/// # Errors
///
/// If the port is not available.
pub async fn serve(port: u16) -> anyhow::Result<()> {
    let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
    let listener = TcpListener::bind(address).await.with_context(|| format!("cannot listen on port {port}"))?;
    tracing::info!(port, "serving {NAME}: set it with curl -d 50 http://localhost:{port}/value");
    axum::serve(listener, router()).await.context("the HTTP server failed")
}

async fn read(State(value): State<Value>) -> String {
    format!("{}\n", value.get())
}

async fn write(State(value): State<Value>, text: String) -> Result<String, (StatusCode, String)> {
    match text.trim().parse::<f64>() {
        Ok(new) if new.is_finite() => {
            value.0.store(new.to_bits(), Ordering::Relaxed);
            Ok(format!("{new}\n"))
        }
        _ => {
            Err((StatusCode::BAD_REQUEST, format!("{:?} is not a number\n", text.chars().take(40).collect::<String>())))
        }
    }
}

async fn metrics(State(value): State<Value>) -> Response {
    match encode(value.get()) {
        Ok(text) => ([(CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

fn encode(value: f64) -> prometheus::Result<Vec<u8>> {
    let gauge = Gauge::new(NAME, "The value that was set last.")?;
    gauge.set(value);
    let registry = Registry::new();
    registry.register(Box::new(gauge))?;
    let mut text = Vec::new();
    TextEncoder::new().encode(&registry.gather(), &mut text)?;
    Ok(text)
}

impl Value {
    fn get(&self) -> f64 {
        f64::from_bits(self.0.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

    use axum::{body::Body, http::Request};
    use tower::ServiceExt;

    use super::*;

    async fn send(router: &Router, method: &str, path: &str, body: &str) -> (StatusCode, String) {
        let request = Request::builder().method(method).uri(path).body(Body::from(body.to_owned())).unwrap();
        let response = router.clone().oneshot(request).await.unwrap();
        let status = response.status();
        let bytes = axum::body::to_bytes(response.into_body(), 1 << 16).await.unwrap();
        (status, String::from_utf8(bytes.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn the_value_is_what_was_set_last() {
        let router = router();
        assert_eq!(send(&router, "GET", "/value", "").await.1, "0\n");
        for text in ["50", "-1.5", " 7\n", "1e3"] {
            assert_eq!(send(&router, "POST", "/value", text).await.0, StatusCode::OK, "{text}");
        }
        assert_eq!(send(&router, "GET", "/value", "").await.1, "1000\n");
        for text in ["", "much", "NaN", "inf", "1 2"] {
            assert_eq!(send(&router, "POST", "/value", text).await.0, StatusCode::BAD_REQUEST, "{text}");
        }
        let (_, metrics) = send(&router, "GET", "/metrics", "").await;
        assert!(metrics.contains("# TYPE prom_fake_value gauge\nprom_fake_value 1000\n"), "{metrics}");
    }
}
