#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use std::{
    fs,
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
    time::SystemTime,
};

use axum::{
    body::Body,
    extract::ConnectInfo,
    http::{Request, StatusCode},
};
use clap::Parser;
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::UnixListener,
};
use tower::ServiceExt;

use super::*;

#[derive(Debug, Parser)]
struct Cli {
    #[command(flatten)]
    args: ExporterArgs,
}

const SETTINGS: &str = r#"{"version":1,"protocol":"UDP","port":1194,"clients":"10.240.0.0/16","routes":[],
    "drainTimeoutSeconds":300,"maxClients":128,"individuals":true}"#;

fn status(clients: usize) -> String {
    let rows: String = (0..clients)
        .map(|number| {
            format!(
                "CLIENT_LIST,c{number},192.0.2.1:{number},10.240.0.2,,1,2,2026-11-27 07:53:55,3,UNDEF,{number},0,A\n"
            )
        })
        .collect();
    let routes: String = (0..clients)
        .map(|number| format!("ROUTING_TABLE,10.240.0.2,c{number},192.0.2.1:{number},2026-11-27 07:53:55,3\n"))
        .collect();
    format!(
        "TITLE,OpenVPN\nTIME,2026-11-27 07:53:57,1795766037\n\
         HEADER,CLIENT_LIST,Common Name,Real Address,Virtual Address,Virtual IPv6 Address,Bytes Received,Bytes Sent,\
         Connected Since,Connected Since (time_t),Username,Client ID,Peer ID,Data Channel Cipher\n{rows}\
         HEADER,ROUTING_TABLE,Virtual Address,Common Name,Real Address,Last Ref,Last Ref (time_t)\n{routes}END\n"
    )
}

struct Exporter {
    router: axum::Router,
    directory: TempDir,
}

impl Exporter {
    fn new(arguments: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("agent.json"), SETTINGS).unwrap();
        let at = directory.path().display();
        let common = format!("exporter --config-dir={at} --run-dir={at} {}", arguments.replace('@', &at.to_string()));
        let args = Cli::parse_from(common.split_whitespace()).args;
        let router = server::router(Arc::new(Source::new(&args)), &args.telemetry_path);
        Self { router, directory }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.directory.path().join(name)
    }

    async fn get_as(&self, caller: &str, path: &str) -> (StatusCode, String) {
        let mut request = Request::get(path).body(Body::empty()).unwrap();
        request.extensions_mut().insert(ConnectInfo::<SocketAddr>(caller.parse().unwrap()));
        let response = self.router.clone().oneshot(request).await.unwrap();
        let status = response.status();
        let bytes = axum::body::to_bytes(response.into_body(), 1 << 24).await.unwrap();
        (status, String::from_utf8(bytes.to_vec()).unwrap())
    }

    async fn get(&self, path: &str) -> (StatusCode, String) {
        self.get_as("[::ffff:192.0.2.7]:1", path).await
    }
}

#[tokio::test]
async fn a_client_learns_from_which_address_others_see_it() {
    for (pod, expected) in [("fd00::1,10.244.0.4", "10.244.0.4\n"), ("fd00::1", "10.240.0.9\n")] {
        let exporter = Exporter::new(&format!("--pod-ips={pod}"));
        assert_eq!(exporter.get_as("[::ffff:10.240.0.9]:1", "/address").await, (StatusCode::OK, expected.into()));
        assert_eq!(exporter.get("/address").await, (StatusCode::OK, "192.0.2.7\n".into()));
    }
}

/// An OpenVPN that answers `status 3`, and counts connections.
async fn openvpn(socket: std::path::PathBuf, clients: usize, connections: Arc<AtomicUsize>) {
    let listener = UnixListener::bind(socket).unwrap();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        connections.fetch_add(1, Ordering::SeqCst);
        let mut stream = BufReader::new(stream);
        stream.get_mut().write_all(b">INFO:OpenVPN Management Interface Version 5\r\n").await.unwrap();
        let mut line = String::new();
        while stream.read_line(&mut line).await.is_ok_and(|length| length > 0) {
            let answer = status(clients).replace(',', "\t").replace('\n', "\r\n");
            let _ = stream.get_mut().write_all(answer.as_bytes()).await;
        }
    }
}

fn write_old(path: &Path, text: &str, age: Duration) {
    fs::write(path, text).unwrap();
    fs::File::options().append(true).open(path).unwrap().set_modified(SystemTime::now() - age).unwrap();
}

#[tokio::test]
async fn several_files_have_series_of_their_own() {
    let exporter = Exporter::new("--openvpn.status_paths=@/a,@/b,@/a --openvpn.management=@/none");
    assert_eq!(exporter.get("/readyz").await.0, StatusCode::SERVICE_UNAVAILABLE);
    // Without a management socket.
    let directory = exporter.directory.path().display().to_string();
    let files = Exporter { router: file_router(&exporter, &[]), ..exporter };
    write_old(&files.path("a"), &status(2), Duration::from_secs(1));
    write_old(&files.path("b"), "half", Duration::from_secs(1));
    let (_, text) = files.get("/metrics").await;
    for line in [
        format!("openvpn_up{{status_path=\"{directory}/a\"}} 1"),
        format!("openvpn_up{{status_path=\"{directory}/b\"}} 0"),
        format!("openvpn_server_connected_clients{{status_path=\"{directory}/a\"}} 2"),
        format!("openvpn_server_max_clients{{status_path=\"{directory}/a\"}} 128"),
        format!("openvpn_server_draining{{status_path=\"{directory}/a\"}} 0"),
    ] {
        assert!(text.lines().any(|other| other == line), "{line}\n{text}");
    }
    assert!(!text.contains("sessions_killed_total{"), "there is no agent: {text}");
    let (ready, reason) = files.get("/readyz").await;
    assert!(ready == StatusCode::SERVICE_UNAVAILABLE && reason.contains("/b: "), "{reason}");
}

/// A router for the files `a` and `b`, whatever is at the usual path of the socket.
fn file_router(exporter: &Exporter, more: &[&str]) -> axum::Router {
    let at = exporter.directory.path().display();
    let line = format!("exporter --config-dir={at} --run-dir={at} --openvpn.status_paths={at}/a,{at}/b,{at}/a");
    let args = Cli::parse_from(line.split_whitespace().chain(more.iter().copied())).args;
    server::router(Arc::new(Source::new(&args)), &args.telemetry_path)
}

#[tokio::test]
async fn a_server_is_ready_as_long_as_its_files_are_new() {
    for (age, ready) in [(1, true), (170, true), (190, false)] {
        let exporter = Exporter::new("");
        let exporter = Exporter { router: file_router(&exporter, &[]), ..exporter };
        for name in ["a", "b"] {
            write_old(&exporter.path(name), &status(0), Duration::from_secs(age));
        }
        assert_eq!(exporter.get("/readyz").await.0 == StatusCode::OK, ready, "{age}");
    }
}

#[tokio::test]
async fn requests_within_a_second_share_one_connection() {
    let exporter = Exporter::new("--openvpn.management=@/socket");
    let connections = Arc::new(AtomicUsize::new(0));
    let server = tokio::spawn(openvpn(exporter.path("socket"), 3, connections.clone()));
    tokio::task::yield_now().await;
    let all = futures::future::join_all((0..20).map(|_| exporter.get("/metrics"))).await;
    assert!(all.iter().all(|(status, text)| *status == StatusCode::OK && text.contains("connected_clients{")));
    assert_eq!(exporter.get("/readyz").await, (StatusCode::OK, "ok\n".into()));
    let (_, sessions) = exporter.get("/sessions").await;
    assert!(sessions.starts_with(r#"[{"name":"c0","since":3,"virtualAddress":"10.240.0.2"},{"name""#), "{sessions}");
    assert_eq!(connections.load(Ordering::SeqCst), 1);
    server.abort();
    let _ = server.await;
    sleep(Duration::from_millis(1100)).await;
    let (ready, reason) = exporter.get("/readyz").await;
    assert!(ready == StatusCode::SERVICE_UNAVAILABLE && reason.contains("does not listen"), "{reason}");
    let (_, text) = exporter.get("/metrics").await;
    assert!(text.contains("openvpn_up{status_path=\"/etc/openvpn-exporter/openvpn/openvpn-status.log\"} 1"), "{text}");
}

#[tokio::test]
async fn what_the_agent_tells_is_shown() {
    let exporter = Exporter::new("--openvpn.management=@/socket");
    fs::write(exporter.path("draining"), "").unwrap();
    fs::write(exporter.path("killed.json"), r#"{"revoked":4}"#).unwrap();
    let (_, text) = exporter.get("/metrics").await;
    assert!(text.contains("openvpn_server_sessions_killed_total{reason=\"revoked\"} 4"), "{text}");
    assert!(text.contains("log\"} 1\n# HELP openvpn_server_max"), "{text}");
}

#[tokio::test]
async fn individuals_are_shown_unless_somebody_objects() {
    for (arguments, settings, shown) in [
        ("", SETTINGS.to_owned(), true),
        ("--ignore.individuals", SETTINGS.to_owned(), false),
        ("", SETTINGS.replace("\"individuals\":true", "\"individuals\":false"), false),
    ] {
        let exporter = Exporter::new(&format!("--openvpn.management=@/socket {arguments}"));
        fs::write(exporter.path("agent.json"), settings).unwrap();
        let server = tokio::spawn(openvpn(exporter.path("socket"), 1, Arc::default()));
        tokio::task::yield_now().await;
        assert_eq!(exporter.get("/metrics").await.1.contains("c0"), shown);
        assert_eq!(exporter.get("/sessions").await.0 == StatusCode::OK, shown);
        server.abort();
    }
}

#[tokio::test]
async fn clients_do_not_learn_who_else_is_connected() {
    let exporter = Exporter::new("--openvpn.management=@/socket --web.telemetry-path=/numbers");
    for path in ["/numbers", "/sessions"] {
        assert_eq!(exporter.get_as("10.240.3.4:5", path).await.0, StatusCode::FORBIDDEN, "{path}");
        assert_ne!(exporter.get_as("10.241.3.4:5", path).await.0, StatusCode::FORBIDDEN, "{path}");
    }
    for path in ["/healthz", "/address", "/"] {
        assert_eq!(exporter.get_as("10.240.3.4:5", path).await.0, StatusCode::OK, "{path}");
    }
    assert_eq!(exporter.get("/address").await.1, "192.0.2.7\n");
    assert_eq!(exporter.get_as("[2001:db8::1]:1", "/address").await.1, "2001:db8::1\n");
    assert_eq!(exporter.get("/metrics").await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_thousand_clients_are_shown_fast() {
    let exporter = Exporter::new("--openvpn.management=@/socket");
    let server = tokio::spawn(openvpn(exporter.path("socket"), 1000, Arc::default()));
    tokio::task::yield_now().await;
    let started = Instant::now();
    let (_, text) = exporter.get("/metrics").await;
    println!("a scrape of 1,000 clients took {:?}", started.elapsed());
    assert!(text.contains("\"c999\"") && started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
    server.abort();
}
