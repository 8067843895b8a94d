//! An admission webhook on loopback that allows, denies, or does not answer, like the policy engine of a cluster.

pub mod mesh;

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

use anyhow::Result;
use axum::{
    Router,
    extract::State,
    routing::post,
    serve::{Listener, serve},
};
use k8s_openapi::{ByteString, api::admissionregistration::v1::ValidatingWebhookConfiguration};
use kube::{
    Api, Client,
    api::{DeleteParams, PostParams},
};
use rcgen::generate_simple_self_signed;
use serde_json::{Value, json};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::AbortHandle,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        crypto::ring,
        pki_types::{PrivateKeyDer, pem::PemObject},
    },
    server::TlsStream,
};

/// The answer of the webhook to every request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Allowed.
    Allow,
    /// Denied, with this message.
    Deny(&'static str),
    /// No answer until the verdict changes.
    NoResponse,
}

/// A webhook and its ValidatingWebhookConfiguration. Dropping it stops the server, but keeps the configuration.
pub struct Webhook {
    client: Client,
    name: String,
    verdict: watch::Sender<Verdict>,
    server: AbortHandle,
}

impl Drop for Webhook {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Webhook {
    /// Starts a webhook for all operations on `resources` (such as `secrets` or `maskconsumers/status`) in `namespace`. Its
    /// timeout is `seconds` (1 to 30). Without an answer, the API server rejects the request.
    pub async fn start(
        client: &Client,
        namespace: &str,
        resources: &[&str],
        seconds: u8,
        verdict: Verdict,
    ) -> Result<Self> {
        let verdict = watch::Sender::new(verdict);
        let router = Router::new().route("/", post(review)).with_state(verdict.subscribe());
        let (client_config, server) = serve_tls(router).await?;
        let name = format!("{namespace}.vpn.example.com");
        let registration: ValidatingWebhookConfiguration = serde_json::from_value(json!({
            "metadata": { "name": name },
            "webhooks": [{
                "name": name,
                "clientConfig": client_config,
                "rules": [{
                    "apiGroups": ["*"], "apiVersions": ["*"], "operations": ["*"], "resources": resources,
                }],
                "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": namespace } },
                "failurePolicy": "Fail",
                "timeoutSeconds": seconds,
                "sideEffects": "None",
                "admissionReviewVersions": ["v1"],
            }],
        }))?;
        Api::all(client.clone()).create(&PostParams::default(), &registration).await?;
        Ok(Self { client: client.clone(), name, verdict, server })
    }

    /// Changes the verdict, also for requests that are still waiting.
    pub fn set_verdict(&self, verdict: Verdict) {
        self.verdict.send_replace(verdict);
    }

    /// Deletes the ValidatingWebhookConfiguration.
    pub async fn unregister(&self) -> Result<()> {
        let api: Api<ValidatingWebhookConfiguration> = Api::all(self.client.clone());
        api.delete(&self.name, &DeleteParams::default()).await?;
        Ok(())
    }
}

/// Serves a router with TLS on loopback. Returns the `clientConfig` of a webhook at `/`, and the server.
async fn serve_tls(router: Router) -> Result<(Value, AbortHandle)> {
    let pair = generate_simple_self_signed([Ipv4Addr::LOCALHOST.to_string()])?;
    let authority = ByteString(pair.cert.pem().into_bytes());
    let key = PrivateKeyDer::from_pem_slice(pair.signing_key.serialize_pem().as_bytes())?;
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![pair.cert.der().clone()], key)?;
    let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let url = format!("https://{}/", tcp.local_addr()?);
    let listener = TlsListener { tcp, tls: TlsAcceptor::from(Arc::new(config)) };
    let server = tokio::spawn(async move { serve(listener, router).await }).abort_handle();
    Ok((json!({ "url": url, "caBundle": authority }), server))
}

async fn review(State(mut verdict): State<watch::Receiver<Verdict>>, review: String) -> String {
    let review: Value = serde_json::from_str(&review).unwrap_or_default();
    let spoken = verdict.wait_for(|verdict| *verdict != Verdict::NoResponse).await.map(|verdict| *verdict);
    let (allowed, message) = match spoken {
        Ok(Verdict::Allow) => (true, ""),
        Ok(Verdict::Deny(message)) => (false, message),
        // The test is over.
        Ok(Verdict::NoResponse) | Err(_) => (false, "the webhook ends"),
    };
    json!({
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "response": { "uid": review["request"]["uid"], "allowed": allowed, "status": { "message": message } },
    })
    .to_string()
}

struct TlsListener {
    tcp: TcpListener,
    tls: TlsAcceptor,
}

impl Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            // The server continues after a failed handshake.
            let Ok((stream, address)) = self.tcp.accept().await else { continue };
            if let Ok(stream) = self.tls.accept(stream).await {
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.tcp.local_addr()
    }
}
