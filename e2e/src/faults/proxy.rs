//! The proxy server.

use std::{
    convert::Infallible,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Context, Result, anyhow, bail};
use futures::{Stream, StreamExt, stream};
use http::{HeaderMap, Method, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    body::{Bytes, Frame, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_rustls::HttpsConnector;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo, TokioTimer},
};
use kube::{
    client::ConfigExt,
    config::{AuthInfo, Kubeconfig},
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::{AbortHandle, JoinSet},
    time::sleep,
};

use super::{ActiveRule, Fault, Rule, request, rule::status};
use crate::auth::Identity;

type Body = UnsyncBoxBody<Bytes, anyhow::Error>;
type Response = http::Response<Body>;

/// A proxy in front of an API server. Dropping it closes all connections.
pub struct FaultProxy {
    address: SocketAddr,
    proxy: Arc<Proxy>,
    server: AbortHandle,
}

struct Proxy {
    api_server: Uri,
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    rules: Mutex<Vec<Arc<ActiveRule>>>,
    cuts: watch::Sender<u64>,
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl FaultProxy {
    /// Starts a proxy without rules in front of the API server of `identity`.
    pub async fn start(identity: &Identity) -> Result<Self> {
        // Each request has its own credentials.
        let mut config = identity.config.clone();
        config.auth_info = AuthInfo::default();
        let client = Client::builder(TokioExecutor::new()).build(config.rustls_https_connector()?);
        let proxy = Arc::new(Proxy {
            api_server: config.cluster_url,
            client,
            rules: Mutex::default(),
            cuts: watch::Sender::new(0),
        });
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let server = tokio::spawn(accept(listener, Arc::clone(&proxy))).abort_handle();
        Ok(Self { address, proxy, server })
    }

    /// The same user, but with the address of this proxy. The user must have a token, because the proxy cannot forward a client
    /// certificate. The kubeconfig is written to `dir`.
    pub async fn proxied_identity(&self, identity: &Identity, dir: &Path) -> Result<Identity> {
        let mut kubeconfig = Kubeconfig::read_from(&identity.kubeconfig)?;
        for cluster in kubeconfig.clusters.iter_mut().filter_map(|named| named.cluster.as_mut()) {
            cluster.server = Some(format!("http://{}", self.address));
            cluster.certificate_authority_data = None;
        }
        if !kubeconfig.auth_infos.iter().all(|named| named.auth_info.as_ref().is_some_and(|info| info.token.is_some()))
        {
            bail!("{} has no token", identity.kubeconfig.display());
        }
        let name = identity.kubeconfig.file_stem().context("no file")?.to_string_lossy();
        let path = dir.join(format!("{name}.behind-{}.kubeconfig", self.address.port()));
        std::fs::write(&path, serde_yaml::to_string(&kubeconfig)?)?;
        Identity::from_file(&path, identity.user.clone()).await
    }

    /// Adds a rule. If several rules match a request, the oldest one applies.
    pub fn add(&self, rule: Rule) -> Arc<ActiveRule> {
        let rule = Arc::new(ActiveRule::new(rule));
        self.proxy.rules().push(Arc::clone(&rule));
        rule
    }

    /// Removes rules. Requests that are already delayed, and watches that already have a fault, keep it.
    pub fn remove(&self, rules: &[Arc<ActiveRule>]) {
        self.proxy.rules().retain(|active| !rules.iter().any(|rule| Arc::ptr_eq(active, rule)));
    }

    /// Closes all open connections. The API server still handles requests that were forwarded.
    pub fn close_connections(&self) {
        self.proxy.cuts.send_modify(|cuts| *cuts += 1);
    }
}

async fn accept(listener: TcpListener, proxy: Arc<Proxy>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(serve(stream, Arc::clone(&proxy)));
                }
                // For example, there are too many open files until other connections end.
                Err(_) => tokio::task::yield_now().await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Serves one connection until it ends or is closed.
async fn serve(stream: TcpStream, proxy: Arc<Proxy>) {
    let mut cuts = proxy.cuts.subscribe();
    // Small responses are sent immediately.
    let _ = stream.set_nodelay(true);
    let handle = service_fn(move |request| {
        let proxy = Arc::clone(&proxy);
        async move { proxy.handle(request).await }
    });
    let connection = http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), handle);
    tokio::select! {
        // An error means that a rule, the client, or the API server closed the connection.
        _ = connection => {}
        _ = cuts.changed() => {}
    }
}

impl Proxy {
    fn rules(&self) -> std::sync::MutexGuard<'_, Vec<Arc<ActiveRule>>> {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The fault for a request. All rules count the request, and the oldest one that is due applies.
    fn fault(&self, seen: &crate::audit::Request) -> Option<Fault> {
        let rules: Vec<_> = self.rules().clone();
        let due: Vec<_> = rules.iter().filter_map(|rule| rule.apply(seen)).collect();
        due.into_iter().next()
    }

    /// Handles a request. An error closes the connection.
    async fn handle(self: Arc<Self>, request: http::Request<Incoming>) -> Result<Response> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await?.to_bytes();
        let agent = parts.headers.get(header::USER_AGENT).and_then(|agent| agent.to_str().ok()).unwrap_or_default();
        let seen = request::read(&parts.method, &parts.uri, agent, &body);
        let fault = self.fault(&seen);
        let is_watch = seen.verb == "watch";
        let pass_on = self.pass_on(parts.method, parts.uri, parts.headers, body);
        match fault {
            Some(Fault::Rejected(code)) => return answer(code),
            Some(Fault::RequestDropped) => bail!("cut by a rule"),
            _ => {}
        }
        if is_watch {
            let (head, body) = pass_on.await?.into_parts();
            return Ok(http::Response::from_parts(head, watch_body(body, fault)));
        }
        // This task continues when the client disconnects.
        let answered = tokio::spawn(async move {
            if let Some(Fault::RequestDelayed(late)) = fault {
                sleep(late).await;
            }
            let (head, body) = pass_on.await?.into_parts();
            let body = body.collect().await?.to_bytes();
            anyhow::Ok(http::Response::from_parts(head, whole(body)))
        });
        let answered = answered.await??;
        match fault {
            Some(Fault::ResponseReplaced(code)) => answer(code),
            Some(Fault::ResponseDropped) => bail!("cut by a rule"),
            Some(Fault::ResponseDelayed(late)) => {
                sleep(late).await;
                Ok(answered)
            }
            _ => Ok(answered),
        }
    }

    /// Sends a request to the API server.
    fn pass_on(
        &self,
        method: Method,
        uri: Uri,
        mut headers: HeaderMap,
        body: Bytes,
    ) -> impl Future<Output = Result<http::Response<Incoming>>> + Send + use<> {
        let client = self.client.clone();
        let target = Uri::builder()
            .scheme(self.api_server.scheme_str().unwrap_or("https"))
            .authority(self.api_server.authority().map(ToString::to_string).unwrap_or_default())
            .path_and_query(uri.path_and_query().map_or("/", |path| path.as_str()))
            .build();
        // These headers belong to the connection, not to the request.
        for name in [header::HOST, header::CONNECTION, header::CONTENT_LENGTH, header::TRANSFER_ENCODING] {
            headers.remove(name);
        }
        async move {
            let mut request = http::Request::new(Full::new(body));
            (*request.method_mut(), *request.uri_mut(), *request.headers_mut()) = (method, target?, headers);
            let mut response = client.request(request).await?;
            for name in [header::CONNECTION, header::TRANSFER_ENCODING] {
                response.headers_mut().remove(name);
            }
            Ok(response)
        }
    }
}

fn whole(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never: Infallible| match never {}).boxed_unsync()
}

/// Returns an error response.
fn answer(code: StatusCode) -> Result<Response> {
    let mut response = http::Response::builder().status(code).header(header::CONTENT_TYPE, "application/json");
    if code == StatusCode::TOO_MANY_REQUESTS {
        response = response.header(header::RETRY_AFTER, 1);
    }
    Ok(response.body(whole(Bytes::from(status(code).to_string())))?)
}

type Chunks = Pin<Box<dyn Stream<Item = Result<Bytes>> + Send>>;

/// Returns the events of a watch, one line of JSON each, up to the point where the fault takes effect.
fn watch_body(body: Incoming, fault: Option<Fault>) -> Body {
    let chunks: Chunks = Box::pin(body.into_data_stream().map(|chunk| chunk.map_err(anyhow::Error::from)));
    let chunks: Chunks = match fault {
        Some(Fault::WatchDisconnected(after)) => {
            Box::pin(lines(chunks, after).chain(stream::once(async { Err(anyhow!("cut by a rule")) })))
        }
        Some(Fault::WatchExpired(after)) => {
            let event = serde_json::json!({ "type": "ERROR", "object": status(StatusCode::GONE) });
            Box::pin(lines(chunks, after).chain(stream::once(async move { Ok(Bytes::from(format!("{event}\n"))) })))
        }
        Some(Fault::WatchStalled(after)) => Box::pin(lines(chunks, after).chain(stream::pending())),
        _ => chunks,
    };
    BodyExt::boxed_unsync(StreamBody::new(chunks.map(|chunk| chunk.map(Frame::data))))
}

/// Returns the first `count` lines, and drops the rest.
fn lines(chunks: Chunks, count: usize) -> impl Stream<Item = Result<Bytes>> + Send {
    stream::unfold((chunks, count), |(mut chunks, left)| async move {
        if left == 0 {
            return None;
        }
        let chunk = match chunks.next().await? {
            Ok(chunk) => chunk,
            Err(error) => return Some((Err(error), (chunks, 0))),
        };
        let ends = chunk.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1);
        let ends: Vec<_> = ends.take(left).collect();
        let (left, part) = match ends.last() {
            Some(end) if ends.len() == left => (0, chunk.slice(..*end)),
            _ => (left - ends.len(), chunk),
        };
        Some((Ok(part), (chunks, left)))
    })
}
