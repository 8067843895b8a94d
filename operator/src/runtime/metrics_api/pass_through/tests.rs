//! Against a real TLS server on loopback.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use std::net::TcpListener;

use axum::{Router, body::Body as AxumBody, http::HeaderMap, response::IntoResponse, routing::get};
use axum_server::tls_rustls::{RustlsAcceptor, RustlsConfig};
use futures::stream;
use http::Response as HttpResponse;
use kube::client::Body;
use serde_json::{Value as Json, json};
use tower::service_fn;

use super::*;
use crate::{controllers::table, metrics_api::request::Groups};

const PATH: &str = "/apis/custom.metrics.k8s.io/v1beta2/namespaces/media/pods/*";

/// A client of an API server that issues one token.
fn api() -> Client {
    let answer = |request: HttpRequest<Body>| async move {
        assert_eq!(request.uri().path(), "/api/v1/namespaces/vpn/serviceaccounts/reader/token");
        let token = json!({"spec": {"audiences": []}, "status": {"token": "secret", "expirationTimestamp": "2027-01-15T08:00:00Z"}});
        Ok::<_, std::convert::Infallible>(HttpResponse::new(Body::from(token.to_string().into_bytes())))
    };
    Client::new(service_fn(answer), "vpn")
}

fn certificate() -> rcgen::CertifiedKey<rcgen::KeyPair> {
    rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap()
}

async fn hello(headers: HeaderMap) -> impl IntoResponse {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    let item = json!({"token": header("authorization"), "via": header("via"), "user": header("x-remote-user")});
    axum::Json(json!({"kind": "MetricValueList", "items": [item]}))
}

/// Starts a server, and returns its address.
async fn serve(certificate: &rcgen::CertifiedKey<rcgen::KeyPair>) -> Uri {
    let endless = || async {
        let chunks = stream::repeat_with(|| Ok::<_, std::io::Error>(vec![b' '; 1 << 16]));
        ([("content-type", "application/json")], AxumBody::from_stream(chunks))
    };
    let list = || async {
        axum::Json(json!({"kind": "APIResourceList", "resources": [{"name": "pods/load", "namespaced": true}]}))
    };
    let metric = |name: &str| format!("/apis/custom.metrics.k8s.io/v1beta1/namespaces/media/pods/{{name}}/{name}");
    let router = Router::new()
        .route("/apis/custom.metrics.k8s.io/v1beta1", get(list))
        .route(&metric("load"), get(hello))
        .route(&metric("html"), get(|| async { ([("content-type", "text/html")], "<html>") }))
        .route(&metric("endless"), get(endless))
        .route(&metric("silent"), get(std::future::pending::<&'static str>))
        .route(
            &metric("refused"),
            get(|| async { (http::StatusCode::UNAUTHORIZED, axum::Json(json!({"kind": "Status", "message": "no"}))) }),
        );
    let pem = |text: String| text.into_bytes();
    let tls = RustlsConfig::from_pem(pem(certificate.cert.pem()), pem(certificate.signing_key.serialize_pem()))
        .await
        .unwrap();
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = axum_server::from_tcp(listener).unwrap().acceptor(RustlsAcceptor::new(tls));
    tokio::spawn(server.serve(router.into_make_service()));
    format!("https://localhost:{port}").parse().unwrap()
}

fn ca(certificate: &rcgen::CertifiedKey<rcgen::KeyPair>) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), certificate.cert.pem()).unwrap();
    file
}

/// Passes requests on to this server, with little patience.
fn pass_through(target: Target) -> PassThrough {
    let server =
        Server { limit: Duration::from_millis(700), ..Server::new(target, Tokens::new(api(), "vpn", "reader")) };
    let mut offers = Offers::default();
    offers.replace(Group::Custom, [("v1beta1", Vec::new())]);
    let servers = Arc::new(BTreeMap::from([(Group::Custom, Arc::new(server))]));
    PassThrough { servers, offers: watch::channel(offers).1 }
}

async fn ask(pass_through: &PassThrough, metric: &str, passed_on: bool) -> (u16, Json) {
    let path = format!("{PATH}/{metric}");
    let request = Request::parse(Groups { custom: true, external: true }, &path, "labelSelector=a").unwrap();
    let response = pass_through.answer(&request, "labelSelector=a", passed_on, "unknown here").await;
    (response.code, response.body.unwrap())
}

#[tokio::test]
async fn a_metric_that_is_unknown_here_comes_from_the_other_server() {
    let certificate = certificate();
    let file = ca(&certificate);
    let address = serve(&certificate).await;
    let other = pass_through(Target { address, ca: Some(file.path().to_owned()), insecure: false });
    let (code, values) = ask(&other, "load", false).await;
    assert_eq!(code, 200, "{values}");
    let item = &values["items"][0];
    assert_eq!((&item["token"], &item["via"]), (&json!("Bearer secret"), &json!("1.1 vpn-operator-metrics-api")));
    assert_eq!(item["user"], "");

    for (metric, code, says) in [
        ("html", 503, "\"text/html\", not JSON"),
        ("endless", 503, "more than 2097152 bytes"),
        ("silent", 503, "no complete answer within 0.7 s"),
        ("refused", 503, "refuses the ServiceAccount"),
    ] {
        let (found, status) = ask(&other, metric, false).await;
        assert_eq!(found, code, "{status}");
        let message = status["message"].as_str().unwrap();
        assert!(message.contains(says) && message.contains("unknown here; https://localhost:"), "{message}");
    }
    let (code, status) = ask(&other, "load", true).await;
    assert_eq!((code, status["reason"].as_str()), (508, Some("LoopDetected")));
}

#[tokio::test]
async fn a_server_that_cannot_be_trusted_or_reached_is_named_with_the_reason() {
    let (real, wrong) = (certificate(), certificate());
    let (address, file) = (serve(&real).await, ca(&wrong));
    let target = Target { address, ca: Some(file.path().to_owned()), insecure: false };
    let nowhere: Uri = "https://localhost:1".parse().unwrap();
    let unknown: Uri = "https://no-such-service.invalid:443".parse().unwrap();
    let missing = Some(PathBuf::from("/no/such/file"));
    for (target, says) in [
        (target.clone(), "certificate"),
        (Target { address: nowhere, ..target.clone() }, "refused"),
        (Target { address: unknown, ..target.clone() }, "gives no answer"),
        (Target { ca: missing, ..target.clone() }, "the certificate authority cannot be used"),
        (Target { ca: None, ..target.clone() }, "no certificate authority to trust is set"),
    ] {
        let (code, status) = ask(&pass_through(target), "load", false).await;
        let message = status["message"].as_str().unwrap();
        assert!(code == 503 && message.contains(says), "{message}");
    }
    let any = Target { ca: None, insecure: true, ..target };
    assert_eq!(ask(&pass_through(any), "load", false).await.0, 200);
}

/// Four silent questions are open. What this server answers by itself does not go through here, and a fifth question ends
/// in time.
#[tokio::test]
async fn many_questions_to_a_silent_server_end_in_time() {
    let certificate = certificate();
    let file = ca(&certificate);
    let address = serve(&certificate).await;
    let other = pass_through(Target { address, ca: Some(file.path().to_owned()), insecure: false });
    let began = std::time::Instant::now();
    let all = futures::future::join_all((0..20).map(|_| ask(&other, "silent", false))).await;
    assert!(all.iter().all(|(code, _)| *code == 503));
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

#[tokio::test]
async fn the_lists_of_a_server_are_known_once_they_are_read_and_gone_when_it_is() {
    let certificate = certificate();
    let file = ca(&certificate);
    let target = Target { address: serve(&certificate).await, ca: Some(file.path().to_owned()), insecure: false };
    let server = Server::new(target.clone(), Tokens::new(api(), "vpn", "reader"));
    // It does not serve the newer version: axum answers 404.
    let lists = server.lists(Group::Custom).await.unwrap();
    assert_eq!(lists.iter().map(|(version, list)| (*version, list.len())).collect::<Vec<_>>(), [("v1beta1", 1)]);
    assert_eq!(server.lists(Group::External).await, Err("does not serve it".to_owned()));

    let settings = PassThroughSettings {
        targets: [(Group::Custom, target)].into(),
        namespace: "vpn".to_owned(),
        service_account: "reader".to_owned(),
    };
    let metrics = Arc::new(Metrics::new("vpno", &table::all()).unwrap());
    let mut running = PassThrough::start(api(), settings, &metrics);
    running.offers.wait_for(|offers| offers.of(Group::Custom, "v1beta1").len() == 1).await.unwrap();
    assert!(running.offers().of(Group::Custom, "v1beta2").is_empty());
    let text = metrics.encode(None, chrono::Utc::now()).unwrap();
    assert!(text.contains("vpno_metrics_api_pass_through_up{group=\"custom.metrics.k8s.io\"} 1"), "{text}");
}
