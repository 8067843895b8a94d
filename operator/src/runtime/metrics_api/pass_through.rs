//! Asks the server that had an API group before for metrics that this one does not know.
//!
//! Invariant: this server's own answers never wait for another one. Its lists are read in the background, and each
//! question has limits: of time, of size, and of how many are open at once.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, OnceLock},
    time::Duration,
};

use http::{
    Request as HttpRequest, Uri,
    header::{ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_TYPE, HeaderValue, USER_AGENT, VIA},
};
use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper::body::Bytes;
use hyper_rustls::HttpsConnector;
use hyper_util::{
    client::legacy::{Client as HttpClient, connect::HttpConnector},
    rt::TokioExecutor,
};
use kube::{Client, Config, client::ConfigExt};
use tokio::{
    sync::{Semaphore, watch},
    time::timeout,
};

use super::token::Tokens;
use crate::{
    metrics::Metrics,
    metrics_api::{
        offers::{Offers, Resource},
        pass_through::{Answer, PSEUDONYM, Question, respond},
        request::{Group, Request},
        response::Response,
    },
    runtime::watch::error_chain,
};

/// How often the lists of resources are read.
const READ_LISTS: Duration = Duration::from_secs(15);
/// How long an answer may take, from the connection to the last byte.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The largest body of an answer, in bytes. What is larger is not read to its end.
const MAX_BODY_BYTES: usize = 2 << 20;
/// How many questions to one server are open at once. More wait, and their wait counts as time of the answer.
const AT_ONCE: usize = 4;

/// Another server.
#[derive(Clone, Debug)]
pub struct Target {
    /// Its address, `https://HOST:PORT`.
    pub address: Uri,
    /// The file with the certificate authorities to trust.
    pub ca: Option<PathBuf>,
    /// Whether any certificate is accepted.
    pub insecure: bool,
}

/// Which servers are asked, and as whom.
#[derive(Clone, Debug, Default)]
pub struct PassThroughSettings {
    /// The server of each group.
    pub targets: BTreeMap<Group, Target>,
    /// The namespace of the ServiceAccount.
    pub namespace: String,
    /// The ServiceAccount by which the servers know this one.
    pub service_account: String,
}

/// The servers that requests are passed on to.
#[derive(Clone)]
pub struct PassThrough {
    servers: Arc<BTreeMap<Group, Arc<Server>>>,
    offers: watch::Receiver<Offers>,
}

impl PassThrough {
    /// Starts to read the lists of the servers.
    pub fn start(client: Client, settings: PassThroughSettings, metrics: &Arc<Metrics>) -> Self {
        let (sender, offers) = watch::channel(Offers::default());
        let tokens = Tokens::new(client, &settings.namespace, &settings.service_account);
        let servers = settings.targets.into_iter().map(|(group, target)| {
            let server = Arc::new(Server::new(target, tokens.clone()));
            tokio::spawn(follow(group, server.clone(), sender.clone(), metrics.clone()));
            (group, server)
        });
        Self { servers: Arc::new(servers.collect()), offers }
    }

    /// Returns what the servers offer, as far as it is known.
    pub fn offers(&self) -> Offers {
        self.offers.borrow().clone()
    }

    /// Returns the response to a request for a metric that this server does not know. `unknown` says so, and
    /// `passed_on` that the request came from a server of this kind.
    pub async fn answer(&self, request: &Request, query: &str, passed_on: bool, unknown: &str) -> Response {
        let question = Question::of(request, query, &self.offers.borrow());
        let server = question.as_ref().and_then(|question| self.servers.get(&question.group));
        let (Some(question), Some(server)) = (question, server) else {
            return Response::failure(404, "NotFound", unknown);
        };
        if passed_on {
            let why =
                format!("{unknown}; the request came back to the server that passed it on to {}", server.address());
            return Response::failure(508, "LoopDetected", &why);
        }
        respond(&question, server.ask(&question.path).await, unknown, &server.address())
    }
}

/// Reads the lists of a server, until the process ends.
async fn follow(group: Group, server: Arc<Server>, offers: watch::Sender<Offers>, metrics: Arc<Metrics>) {
    let mut ticks = tokio::time::interval(READ_LISTS);
    let mut before = None;
    loop {
        ticks.tick().await;
        let (address, lists) = (server.address(), server.lists(group).await);
        let failure = lists.as_ref().err().cloned();
        metrics.set_pass_through_up(group.name(), failure.is_none());
        if before.as_ref() != Some(&failure) {
            match &failure {
                None => tracing::info!("metrics of {} are passed on to {address}", group.name()),
                Some(why) => tracing::warn!("{address}, which has other metrics of {}, {why}", group.name()),
            }
            before = Some(failure);
        }
        offers.send_modify(|offers| match lists {
            Ok(lists) => offers.replace(group, lists),
            Err(_) => offers.clear(group),
        });
    }
}

type Connections = HttpClient<HttpsConnector<HttpConnector>, Empty<Bytes>>;

/// One of the servers.
struct Server {
    target: Target,
    tokens: Tokens,
    connections: OnceLock<Connections>,
    permits: Semaphore,
    limit: Duration,
}

impl Server {
    fn new(target: Target, tokens: Tokens) -> Self {
        Self { target, tokens, connections: OnceLock::new(), permits: Semaphore::new(AT_ONCE), limit: TIMEOUT }
    }

    fn address(&self) -> String {
        self.target.address.to_string().trim_end_matches('/').to_owned()
    }

    /// Returns the lists of the versions that it serves.
    async fn lists(&self, group: Group) -> Result<Vec<(&'static str, Vec<Resource>)>, String> {
        let mut lists = Vec::new();
        for version in group.versions() {
            let path = format!("/apis/{}/{version}", group.name());
            let answer = self.ask(&path).await.map_err(|why| format!("gives no answer: {why}"))?;
            lists.extend(answer.resources()?.map(|resources| (*version, resources)));
        }
        if lists.is_empty() { Err("does not serve it".to_owned()) } else { Ok(lists) }
    }

    /// Asks for a path.
    async fn ask(&self, path: &str) -> Result<Answer, String> {
        let answer = timeout(self.limit, self.exchange(path)).await;
        answer.unwrap_or_else(|_| Err(format!("no complete answer within {} s", self.limit.as_secs_f64())))
    }

    async fn exchange(&self, path: &str) -> Result<Answer, String> {
        let _permit = self.permits.acquire().await.map_err(|error| error.to_string())?;
        let connections = self.connections()?;
        let token = self.tokens.get().await.map_err(|why| why.to_string())?;
        let mut bearer = HeaderValue::from_str(&format!("Bearer {token}")).map_err(|error| error.to_string())?;
        bearer.set_sensitive(true);
        let request = HttpRequest::get(format!("{}{path}", self.address()))
            .header(ACCEPT, "application/json")
            .header(ACCEPT_ENCODING, "identity")
            .header(AUTHORIZATION, bearer)
            .header(USER_AGENT, concat!("vpn-operator/", env!("CARGO_PKG_VERSION"), " (metrics-api)"))
            .header(VIA, format!("1.1 {PSEUDONYM}"))
            .body(Empty::new())
            .map_err(|error| error.to_string())?;
        let (head, body) = connections.request(request).await.map_err(|error| error_chain(&error))?.into_parts();
        if head.status == http::StatusCode::UNAUTHORIZED {
            self.tokens.forget().await;
        }
        let body = Limited::new(body, MAX_BODY_BYTES).collect().await.map_err(|error| {
            if error.is::<LengthLimitError>() {
                return format!("the answer has more than {MAX_BODY_BYTES} bytes");
            }
            error_chain(&*error)
        })?;
        let content_type = head.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        Ok(Answer { code: head.status.as_u16(), content_type: content_type.to_owned(), body: body.to_bytes().to_vec() })
    }

    /// Returns the client with its connections. The file with the certificate authorities may come after the start.
    fn connections(&self) -> Result<&Connections, String> {
        if let Some(connections) = self.connections.get() {
            return Ok(connections);
        }
        let Target { address, ca, insecure } = &self.target;
        let mut config = Config::new(address.clone());
        // Not those of the system: they say nothing about a Service.
        config.root_cert = Some(Vec::new());
        config.root_cert_file.clone_from(ca);
        config.accept_invalid_certs = *insecure;
        if ca.is_none() && !insecure {
            return Err("no certificate authority to trust is set".to_owned());
        }
        let connector = config.rustls_https_connector();
        let connector =
            connector.map_err(|error| format!("the certificate authority cannot be used: {}", error_chain(&error)))?;
        Ok(self.connections.get_or_init(|| HttpClient::builder(TokioExecutor::new()).build(connector)))
    }
}

#[cfg(test)]
mod tests;
