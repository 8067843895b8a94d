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
use vpn_types::{OpenVPNClient, OpenVPNServer};

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

    /// Creates a client.
    ///
    /// # Errors
    /// If the request fails, or the name was taken meanwhile.
    pub async fn create(&self, client: &OpenVPNClient) -> anyhow::Result<()> {
        let created = request(self.clients.create(&PostParams::default(), client)).await;
        created.map(drop).with_context(|| format!("cannot create OpenVPNClient {}", client.name_any()))
    }

    /// Replaces the certificate signing request of a client.
    ///
    /// # Errors
    /// If the request fails, or the client has changed meanwhile.
    pub async fn replace_request(&self, client: &OpenVPNClient, csr: &str) -> anyhow::Result<()> {
        self.patch(client, json!({"csr": csr}), client.resource_version()).await
    }

    /// Revokes a client.
    ///
    /// # Errors
    /// If the request fails, or there is another client with its name now.
    pub async fn revoke(&self, client: &OpenVPNClient) -> anyhow::Result<()> {
        self.patch(client, json!({"revoked": true}), None).await
    }

    async fn patch(&self, client: &OpenVPNClient, spec: Value, version: Option<String>) -> anyhow::Result<()> {
        let mut metadata = json!({"uid": client.uid()});
        if let Some(version) = version {
            metadata["resourceVersion"] = json!(version);
        }
        let (name, patch) = (client.name_any(), Patch::Merge(json!({"metadata": metadata, "spec": spec})));
        let patched = request(self.clients.patch(&name, &PatchParams::default(), &patch)).await;
        patched.map(drop).with_context(|| format!("cannot change OpenVPNClient {name}"))
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

async fn request<T>(sent: impl Future<Output = kube::Result<T>>) -> anyhow::Result<T> {
    match timeout(DEADLINE, sent).await {
        Ok(Ok(received)) => Ok(received),
        // The message of the API server, without the rest of its answer.
        Ok(Err(kube::Error::Api(status))) => bail!("{}", status.message),
        Ok(Err(error)) => Err(error.into()),
        Err(_) => bail!("the API server does not answer"),
    }
}
