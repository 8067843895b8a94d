//! One HTTP request to a Pod, with limits.

use std::{future::Future, net::SocketAddr, pin::pin, time::Duration};

use http::{
    HeaderMap, Request, Response, StatusCode,
    header::{ACCEPT, ACCEPT_ENCODING, CONNECTION, CONTENT_ENCODING, CONTENT_TYPE, HOST, USER_AGENT},
};
use http_body_util::{BodyExt, Empty};
use hyper::{
    body::{Body, Bytes, Incoming},
    client::conn::http1,
};
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::{net::TcpStream, time::timeout};

use super::{
    address::{AddressError, check_address},
    target::Target,
};

/// How long a request may take, from the connection to the last byte of the answer.
pub const TIMEOUT: Duration = Duration::from_secs(2);
/// The largest body of an answer, in bytes. What is larger is not read to its end.
pub const MAX_BODY_BYTES: usize = 1 << 20;
/// The largest head of an answer, in bytes.
pub const MAX_HEADER_BYTES: usize = 32 * 1024;

/// The accepted media types. The version of the text format is the one without quoted names.
const ACCEPTED: &str = "text/plain;version=0.0.4, text/plain;q=0.5, application/openmetrics-text;version=1.0.0;q=0.3";
/// The types of text that can be parsed.
const TYPES: [&str; 2] = ["text/plain", "application/openmetrics-text"];

/// The reason why a Pod gave no answer that can be read.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum FetchError {
    /// The address may not be asked.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// The answer was not complete in time.
    #[error("no complete answer within {} s", TIMEOUT.as_secs())]
    Timeout,
    /// There is no connection.
    #[error("cannot connect: {0}")]
    Connect(String),
    /// The answer is not HTTP, ends too early, or has too large a head.
    #[error("bad answer: {0}")]
    Http(String),
    /// The status is not 200. Redirects are not followed.
    #[error("the answer has the status {0}")]
    Status(u16),
    /// The body is compressed, which was not asked for.
    #[error("the answer has the encoding {0:?}")]
    Encoding(String),
    /// The body is not text.
    #[error("the answer has the type {0:?}")]
    ContentType(String),
    /// The body is larger than [`MAX_BODY_BYTES`].
    #[error("the answer has more than {MAX_BODY_BYTES} bytes")]
    TooLarge,
}

/// Asks Pods.
pub trait Fetch: Send + Sync {
    /// Returns the body of the answer of a Pod.
    fn fetch(&self, target: &Target) -> impl Future<Output = Result<Vec<u8>, FetchError>> + Send;
}

/// Asks Pods over HTTP.
#[derive(Clone, Copy, Debug, Default)]
pub struct HttpFetch;

impl Fetch for HttpFetch {
    async fn fetch(&self, target: &Target) -> Result<Vec<u8>, FetchError> {
        check_address(target.address.ip())?;
        get(target.address, &target.settings.path, TIMEOUT).await
    }
}

/// Sends one request on a connection of its own. The connection is closed when the future ends or is dropped.
pub(super) async fn get(address: SocketAddr, path: &str, limit: Duration) -> Result<Vec<u8>, FetchError> {
    timeout(limit, exchange(address, path)).await.unwrap_or(Err(FetchError::Timeout))
}

fn bad(error: impl std::error::Error) -> FetchError {
    let mut text = error.to_string();
    if let Some(source) = error.source() {
        text = format!("{text}: {source}");
    }
    FetchError::Http(text)
}

async fn exchange(address: SocketAddr, path: &str) -> Result<Vec<u8>, FetchError> {
    let stream = TcpStream::connect(address).await.map_err(|error| FetchError::Connect(error.to_string()))?;
    let mut builder = http1::Builder::new();
    let handshake = builder.max_buf_size(MAX_HEADER_BYTES).handshake(TokioIo::new(stream));
    let (mut sender, connection) = handshake.await.map_err(bad)?;
    let request = Request::get(path)
        .header(HOST, address.to_string())
        .header(ACCEPT, ACCEPTED)
        .header(ACCEPT_ENCODING, "identity")
        .header(USER_AGENT, concat!("vpn-operator/", env!("CARGO_PKG_VERSION")))
        .header(CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(bad)?;
    let mut answer = pin!(async move { read(sender.send_request(request).await.map_err(bad)?).await });
    // The connection moves the bytes. When it has ended, what it has read so far is still there.
    tokio::select! {
        biased;
        answer = &mut answer => answer,
        _ = connection => answer.await,
    }
}

async fn read(response: Response<Incoming>) -> Result<Vec<u8>, FetchError> {
    let (head, mut body) = response.into_parts();
    if head.status != StatusCode::OK {
        return Err(FetchError::Status(head.status.as_u16()));
    }
    check_headers(&head.headers)?;
    if body.size_hint().lower() > MAX_BODY_BYTES as u64 {
        return Err(FetchError::TooLarge);
    }
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(bad)?.into_data() else { continue };
        if bytes.len() + data.len() > MAX_BODY_BYTES {
            return Err(FetchError::TooLarge);
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes)
}

/// Checks that the body is plain text. An answer without a type may be.
fn check_headers(headers: &HeaderMap) -> Result<(), FetchError> {
    let text = |name| headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).trim().to_lowercase());
    let short = |text: String| text.chars().take(64).collect();
    if let Some(encoding) = text(CONTENT_ENCODING).filter(|encoding| encoding != "identity") {
        return Err(FetchError::Encoding(short(encoding)));
    }
    let is_text = |kind: &String| TYPES.contains(&kind.split(';').next().unwrap_or_default().trim());
    match text(CONTENT_TYPE).filter(|kind| !is_text(kind)) {
        Some(other) => Err(FetchError::ContentType(short(other))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
