use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    time::{Instant, sleep},
};

use super::*;
use crate::{
    model::{ObjectKey, Uid},
    scrape::Settings,
};

const SHORT: Duration = Duration::from_millis(400);
/// Longer than any complete answer takes.
const LONG: Duration = Duration::from_secs(20);

/// Counts the connections to a server, and the bytes that it could send.
#[derive(Default)]
struct Seen {
    connections: AtomicUsize,
    sent: AtomicUsize,
}

/// Starts a server that sends the same bytes to everyone, then more of the same after each pause, `times` times.
async fn server(head: &[u8], more: &[u8], pause: Duration, times: usize) -> (SocketAddr, Arc<Seen>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let seen = Arc::new(Seen::default());
    let (head, more, counted) = (head.to_vec(), more.to_vec(), seen.clone());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            counted.connections.fetch_add(1, Ordering::SeqCst);
            let (head, more, counted) = (head.clone(), more.clone(), counted.clone());
            tokio::spawn(async move {
                let mut request = [0; 4096];
                let read = stream.read(&mut request).await.unwrap_or(0);
                assert!(request[..read].starts_with(b"GET /metrics HTTP/1.1\r\n"));
                let _ = stream.write_all(&head).await;
                for _ in 0..times {
                    sleep(pause).await;
                    if stream.write_all(&more).await.is_err() {
                        return;
                    }
                    counted.sent.fetch_add(more.len(), Ordering::SeqCst);
                }
                let _ = stream.shutdown().await;
            });
        }
    });
    (address, seen)
}

async fn answer(text: &str) -> Result<Vec<u8>, FetchError> {
    let (address, seen) = server(text.as_bytes(), b"", Duration::ZERO, 0).await;
    let answer = get(address, "/metrics", LONG).await;
    assert_eq!(seen.connections.load(Ordering::SeqCst), 1);
    answer
}

#[tokio::test]
async fn text_is_read_to_its_end() {
    let body = Ok(b"up 1\n".to_vec());
    assert_eq!(answer("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nup 1\n").await, body);
    assert_eq!(answer("HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nup 1\n").await, body);
    let kind = "Content-Type: Text/Plain; version=0.0.4; charset=utf-8";
    let chunked = format!("HTTP/1.1 200 OK\r\n{kind}\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nup 1\n\r\n0\r\n\r\n");
    assert_eq!(answer(&chunked).await, body);
    let kind = "Content-Type: application/openmetrics-text; version=1.0.0";
    assert_eq!(answer(&format!("HTTP/1.1 200 OK\r\n{kind}\r\nContent-Length: 5\r\n\r\nup 1\n")).await, body);
}

#[tokio::test]
async fn a_body_at_the_limit_is_read_and_one_beyond_it_is_an_error() {
    let of = |bytes: usize| format!("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{}", "x".repeat(bytes));
    assert_eq!(answer(&of(MAX_BODY_BYTES)).await.map(|body| body.len()), Ok(MAX_BODY_BYTES));
    assert_eq!(answer(&of(MAX_BODY_BYTES + 1)).await, Err(FetchError::TooLarge));
}

#[tokio::test]
async fn an_answer_of_1_gib_is_not_read() {
    let megabyte = vec![b'x'; 1 << 20];
    let known = b"HTTP/1.1 200 OK\r\nContent-Length: 1073741824\r\n\r\n";
    for head in [&known[..], b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"] {
        let (address, seen) = server(head, &megabyte, Duration::ZERO, 1024).await;
        assert_eq!(get(address, "/metrics", LONG).await, Err(FetchError::TooLarge));
        // What is sent beyond the limit is in the buffers of the two sockets.
        assert!(seen.sent.load(Ordering::SeqCst) < 64 << 20);
    }
}

#[tokio::test]
async fn a_server_that_never_answers_or_drips_takes_no_longer_than_the_limit() {
    let (silent, _) = server(b"", b"", LONG, 1).await;
    let (drips, _) = server(b"HTTP/1.1 200 OK\r\n\r\n", b"x", Duration::from_millis(10), 100_000).await;
    let (drips_head, _) = server(b"HTTP/1.1 200 OK\r\nA: ", b"x", Duration::from_millis(10), 100_000).await;
    for address in [silent, drips, drips_head] {
        let start = Instant::now();
        assert_eq!(get(address, "/metrics", SHORT).await, Err(FetchError::Timeout));
        assert!(start.elapsed() < LONG);
    }
}

#[tokio::test]
async fn what_is_not_a_complete_answer_is_an_error() {
    for text in [
        "",
        "HTTP/1.1 200 OK\r\nContent-Le",
        "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nup 1\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nup 1\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        "SSH-2.0-OpenSSH_9.2\r\n",
        "\0\u{1}\u{2}",
    ] {
        let found = answer(text).await;
        assert!(matches!(found, Err(FetchError::Http(_))), "{text:?}: {found:?}");
    }
    let large = format!("HTTP/1.1 200 OK\r\nA: {}\r\n\r\n", "x".repeat(4 * MAX_HEADER_BYTES));
    assert!(matches!(answer(&large).await, Err(FetchError::Http(_))));
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let (elsewhere, seen) = server(b"HTTP/1.1 200 OK\r\n\r\nup 1\n", b"", Duration::ZERO, 0).await;
    for status in [301, 302, 303, 307, 308] {
        let text =
            format!("HTTP/1.1 {status} Moved\r\nLocation: http://{elsewhere}/metrics\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(answer(&text).await, Err(FetchError::Status(status)));
    }
    assert_eq!(seen.connections.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn other_statuses_and_what_is_not_text_are_errors() {
    for status in [204, 206, 404, 500, 503] {
        let text = format!("HTTP/1.1 {status} Whatever\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(answer(&text).await, Err(FetchError::Status(status)));
    }
    let with =
        async |header: &str| answer(&format!("HTTP/1.1 200 OK\r\n{header}\r\nContent-Length: 2\r\n\r\nx\n")).await;
    assert_eq!(with("Content-Encoding: gzip").await, Err(FetchError::Encoding("gzip".to_owned())));
    assert_eq!(with("Content-Encoding: identity").await, Ok(b"x\n".to_vec()));
    for kind in ["application/octet-stream", "text/html; charset=utf-8", "application/json"] {
        assert_eq!(with(&format!("Content-Type: {kind}")).await, Err(FetchError::ContentType(kind.to_owned())));
    }
}

#[tokio::test]
async fn nothing_listens() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    drop(listener);
    assert!(matches!(get(address, "/metrics", LONG).await, Err(FetchError::Connect(_))));
}

#[tokio::test]
async fn a_loopback_address_is_not_asked() {
    let (address, seen) = server(b"HTTP/1.1 200 OK\r\n\r\nup 1\n", b"", Duration::ZERO, 0).await;
    let settings = Settings { port: address.port(), path: Arc::from("/metrics"), names: Arc::from([]) };
    let target = Target { pod: ObjectKey::new("n", "p"), uid: Uid::from("u"), address, settings };
    assert_eq!(HttpFetch.fetch(&target).await, Err(FetchError::Address(AddressError::Loopback(address.ip()))));
    assert_eq!(seen.connections.load(Ordering::SeqCst), 0);
}
