//! A user of the API server: a kubeconfig file and the clients made from it.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use k8s_openapi::{
    ByteString,
    api::{
        authentication::v1::{TokenRequest, TokenRequestSpec},
        core::v1::ServiceAccount,
    },
};
use kube::{
    Api, Client, Config,
    api::PostParams,
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::{Value, json};

/// When this variable is set, everything runs against the current context of the kubeconfig that it names (kind, k3s, a
/// company's cluster). Otherwise, everything runs against a control plane that this process starts.
pub const KUBECONFIG: &str = "KUBECONFIG";

/// A user of a cluster.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The name of the user in the audit log. `None` when only the kubeconfig is known.
    pub user: Option<String>,
    /// The kubeconfig file for kubectl, helm, and operator processes.
    pub kubeconfig: PathBuf,
    /// The configuration for clients in this process.
    pub config: Config,
}

impl Identity {
    /// Reads a kubeconfig file.
    pub async fn from_file(kubeconfig: &Path, user: Option<String>) -> Result<Self> {
        let read = Kubeconfig::read_from(kubeconfig)?;
        let mut config = Config::from_custom_kubeconfig(read, &KubeConfigOptions::default())
            .await
            .with_context(|| format!("cannot use the kubeconfig {}", kubeconfig.display()))?;
        // If clients retried requests, the counts in the audit log would depend on luck.
        config.default_retry = false;
        Ok(Self { user, kubeconfig: kubeconfig.to_owned(), config })
    }

    /// Creates a client.
    ///
    /// Tests do not share clients: a client belongs to the runtime on which it was created, and every `#[tokio::test]` has
    /// a runtime of its own.
    pub fn client(&self) -> Result<Client> {
        Ok(Client::try_from(self.config.clone())?)
    }

    /// The identity of a ServiceAccount in the same cluster, with a token that is valid for an hour. The kubeconfig is
    /// written to `dir`.
    pub async fn service_account(&self, namespace: &str, name: &str, dir: &Path) -> Result<Self> {
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client()?, namespace);
        let request = TokenRequest {
            spec: Some(TokenRequestSpec { expiration_seconds: Some(3600), ..Default::default() }),
            ..Default::default()
        };
        let answer = accounts
            .create_token_request(name, &PostParams::default(), &request)
            .await
            .with_context(|| format!("no token for the ServiceAccount {namespace}/{name}"))?;
        let token = answer.status.context("the API server answered without a token")?.token;

        let mut kubeconfig = Kubeconfig::read_from(&self.kubeconfig)?;
        let current = kubeconfig.current_context.clone();
        let cluster = kubeconfig
            .contexts
            .drain(..)
            .find(|context| Some(&context.name) == current.as_ref())
            .and_then(|context| context.context)
            .map(|context| context.cluster)
            .context("the kubeconfig has no current context")?;
        let cluster = kubeconfig
            .clusters
            .into_iter()
            .find(|candidate| candidate.name == cluster)
            .and_then(|named| named.cluster)
            .context("the kubeconfig lacks the cluster of its current context")?;
        let user = format!("system:serviceaccount:{namespace}:{name}");
        let path = dir.join(format!("{namespace}.{name}.kubeconfig"));
        write(&path, &serde_json::to_value(cluster)?, &json!({ "token": token }))?;
        Self::from_file(&path, Some(user)).await
    }
}

/// Writes the kubeconfig of a user with a client certificate.
pub(crate) fn write_certificate(
    path: &Path,
    server: &str,
    authority: String,
    credentials: super::pki::Credentials,
) -> Result<()> {
    let data = |pem: String| ByteString(pem.into_bytes());
    write(
        path,
        &json!({ "server": server, "certificate-authority-data": data(authority) }),
        &json!({
            "client-certificate-data": data(credentials.certificate),
            "client-key-data": data(credentials.key),
        }),
    )
}

fn write(path: &Path, cluster: &Value, user: &Value) -> Result<()> {
    let kubeconfig = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{ "name": "e2e", "cluster": cluster }],
        "users": [{ "name": "e2e", "user": user }],
        "contexts": [{ "name": "e2e", "context": { "cluster": "e2e", "user": "e2e" } }],
        "current-context": "e2e",
    });
    std::fs::write(path, serde_yaml::to_string(&kubeconfig)?)
        .with_context(|| format!("cannot write {}", path.display()))
}
