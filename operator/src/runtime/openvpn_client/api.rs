//! Requests to the API server for the clients of one server.

use std::{pin::pin, time::Duration};

use anyhow::{Context, bail};
use futures::StreamExt;
use kube::{
    Api, Client, Config, ResourceExt,
    api::{ListParams, Patch, PatchParams, PostParams},
    runtime::{WatchStreamExt, watcher::watch_object},
};
use serde_json::{Value, json};
use tokio::time::timeout;
use vpn_types::{ENROLLING_ANNOTATION, OpenVPNClient, OpenVPNServer};

use crate::runtime::{
    execute::DEADLINE,
    watch::{error_chain, is_forbidden},
};

/// The clients of a server.
pub struct Clients {
    server: String,
    servers: Api<OpenVPNServer>,
    clients: Api<OpenVPNClient>,
}

impl Clients {
    /// Connects with the token of the Pod, or with a kubeconfig.
    ///
    /// # Errors
    /// If there is neither.
    pub async fn connect(namespace: Option<&str>, server: &str) -> anyhow::Result<Self> {
        let mut config = Config::infer().await.context("this Pod has no token for the API server")?;
        config.connect_timeout = Some(DEADLINE);
        let agent = concat!("vpn-operator/", env!("CARGO_PKG_VERSION"), " (openvpn-client)");
        config.headers.push((http::header::USER_AGENT, http::HeaderValue::from_static(agent)));
        let namespace = namespace.unwrap_or(&config.default_namespace).to_owned();
        let client = Client::try_from(config).context("the token for the API server cannot be used")?;
        let servers = Api::namespaced(client.clone(), &namespace);
        Ok(Self { server: server.to_owned(), servers, clients: Api::namespaced(client, &namespace) })
    }

    /// Returns the name of the server.
    pub fn server_name(&self) -> &str {
        &self.server
    }

    /// Reads the server.
    ///
    /// # Errors
    /// If the request fails.
    pub async fn server(&self) -> anyhow::Result<OpenVPNServer> {
        let server = request(self.servers.get(&self.server)).await;
        server.with_context(|| format!("cannot read OpenVPNServer {}", self.server))
    }

    /// Reads the clients of all servers of the namespace.
    ///
    /// # Errors
    /// If the request fails.
    pub async fn list(&self) -> anyhow::Result<Vec<OpenVPNClient>> {
        let list = request(self.clients.list(&ListParams::default())).await;
        Ok(list.context("cannot list OpenVPNClients")?.items)
    }

    /// Creates a client. Returns whether its name was free.
    ///
    /// # Errors
    /// If the request fails.
    pub async fn create(&self, client: &OpenVPNClient) -> anyhow::Result<bool> {
        let created = unless_conflict(request(self.clients.create(&PostParams::default(), client)).await);
        created.with_context(|| format!("cannot create OpenVPNClient {}", client.name_any()))
    }

    /// Replaces the certificate signing request of a client. Returns whether it had not changed meanwhile.
    ///
    /// # Errors
    /// If the request fails.
    pub async fn replace_request(&self, client: &OpenVPNClient, csr: &str) -> anyhow::Result<bool> {
        let metadata = json!({"uid": client.uid(), "resourceVersion": client.resource_version()});
        let patched = self.patch(&client.name_any(), json!({"metadata": metadata, "spec": {"csr": csr}})).await;
        unless_conflict(patched).with_context(|| format!("cannot change OpenVPNClient {}", client.name_any()))
    }

    /// Records that the profile of a client is written. Returns whether it had not changed meanwhile.
    ///
    /// # Errors
    /// If the request fails.
    pub async fn enrolled(&self, client: &OpenVPNClient) -> anyhow::Result<bool> {
        let name = client.name_any();
        let metadata = json!({
            "uid": client.uid(),
            "resourceVersion": client.resource_version(),
            "annotations": {ENROLLING_ANNOTATION: null},
        });
        let patched = unless_conflict(self.patch(&name, json!({ "metadata": metadata })).await);
        patched.with_context(|| format!("the profile is written, but OpenVPNClient {name} cannot be changed"))
    }

    /// Revokes a client.
    ///
    /// # Errors
    /// If the request fails, or there is another client with its name now.
    pub async fn revoke(&self, client: &OpenVPNClient) -> anyhow::Result<()> {
        let patch = json!({"metadata": {"uid": client.uid()}, "spec": {"revoked": true}});
        let patched = self.patch(&client.name_any(), patch).await;
        patched.with_context(|| format!("cannot revoke OpenVPNClient {}", client.name_any()))
    }

    async fn patch(&self, name: &str, patch: Value) -> anyhow::Result<()> {
        request(self.clients.patch(name, &PatchParams::default(), &Patch::Merge(patch))).await.map(drop)
    }

    /// Watches a client until `look` returns a result, or the time is over. Then it returns why there is none.
    ///
    /// # Errors
    /// If watching is forbidden.
    pub async fn wait<T, E: ToString>(
        &self,
        name: &str,
        time: Duration,
        look: impl Fn(Option<&OpenVPNClient>) -> Result<T, E>,
    ) -> anyhow::Result<Result<T, String>> {
        let mut changes = pin!(watch_object(self.clients.clone(), name).default_backoff());
        let mut why = "the API server does not answer".to_owned();
        let found = timeout(time, async {
            while let Some(change) = changes.next().await {
                match change.map(|client| look(client.as_ref())) {
                    Ok(Ok(found)) => return Ok(found),
                    Ok(Err(still)) => why = still.to_string(),
                    Err(error) if is_forbidden(&error) => {
                        bail!("cannot watch OpenVPNClient {name}: {}", error_chain(&error))
                    }
                    Err(error) => why = error_chain(&error),
                }
            }
            bail!("the watch on OpenVPNClient {name} ended")
        })
        .await;
        match found {
            Ok(found) => found.map(Ok),
            Err(_) => Ok(Err(why)),
        }
    }
}

/// What the API server said, without the rest of its answer.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
struct Rejected {
    code: u16,
    message: String,
}

async fn request<T>(sent: impl Future<Output = kube::Result<T>>) -> anyhow::Result<T> {
    match timeout(DEADLINE, sent).await {
        Ok(Ok(received)) => Ok(received),
        Ok(Err(kube::Error::Api(status))) => {
            Err(Rejected { code: status.code, message: status.message.clone() }.into())
        }
        Ok(Err(error)) => Err(error.into()),
        Err(_) => bail!("the API server does not answer"),
    }
}

fn unless_conflict<T>(result: anyhow::Result<T>) -> anyhow::Result<bool> {
    match result {
        Err(error) if error.downcast_ref::<Rejected>().is_some_and(|rejected| rejected.code == 409) => Ok(false),
        other => other.map(|_| true),
    }
}
