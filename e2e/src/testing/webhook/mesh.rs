//! A mutating webhook on loopback that adds containers to Pods, like that of a service mesh.

use anyhow::Result;
use axum::{Router, extract::State, routing::post};
use k8s_openapi::{ByteString, api::admissionregistration::v1::MutatingWebhookConfiguration};
use kube::{
    Api, Client,
    api::{DeleteParams, PostParams},
};
use serde_json::{Value, json};
use tokio::task::AbortHandle;

use super::serve_tls;

/// The port that kubelet probes in the proxy.
pub const PROBED_PORT: u16 = 15021;

/// A webhook and its MutatingWebhookConfiguration. Dropping it stops the server, but keeps the configuration.
pub struct Mesh {
    client: Client,
    name: String,
    server: AbortHandle,
}

impl Drop for Mesh {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Mesh {
    /// Starts a webhook that adds the init container `NAME-init` and the container `NAME-proxy`, each in front of the
    /// others, to the Pods of a namespace. The API server calls webhooks in the order of the names of their configurations.
    ///
    /// # Errors
    /// If the configuration cannot be created.
    pub async fn start(client: &Client, name: &str, namespace: &str) -> Result<Self> {
        let (client_config, server) =
            serve_tls(Router::new().route("/", post(review)).with_state(name.to_owned())).await?;
        let registration: MutatingWebhookConfiguration = serde_json::from_value(json!({
            "metadata": { "name": name },
            "webhooks": [{
                "name": format!("{name}.example.com"),
                "clientConfig": client_config,
                "rules": [{ "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"] }],
                "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": namespace } },
                "failurePolicy": "Fail",
                "reinvocationPolicy": "IfNeeded",
                "sideEffects": "None",
                "admissionReviewVersions": ["v1"],
            }],
        }))?;
        Api::all(client.clone()).create(&PostParams::default(), &registration).await?;
        Ok(Self { client: client.clone(), name: name.to_owned(), server })
    }

    /// Deletes the MutatingWebhookConfiguration.
    ///
    /// # Errors
    /// If it cannot be deleted.
    pub async fn unregister(&self) -> Result<()> {
        let api: Api<MutatingWebhookConfiguration> = Api::all(self.client.clone());
        api.delete(&self.name, &DeleteParams::default()).await?;
        Ok(())
    }
}

async fn review(State(name): State<String>, review: String) -> String {
    let proxy = format!("{name}-proxy");
    let review: Value = serde_json::from_str(&review).unwrap_or_default();
    let pod = &review["request"]["object"];
    let mut response = json!({ "uid": review["request"]["uid"], "allowed": true });
    let has_proxy = pod["spec"]["containers"].as_array().into_iter().flatten().any(|one| one["name"] == *proxy);
    if !has_proxy {
        let mut new = pod.clone();
        let probe = json!({ "httpGet": { "path": "/healthz/ready", "port": PROBED_PORT } });
        let added = [
            ("initContainers", json!({ "name": format!("{name}-init"), "image": "mesh" })),
            ("containers", json!({ "name": proxy, "image": "mesh", "readinessProbe": probe })),
        ];
        for (list, container) in added {
            let present = new["spec"][list].as_array().cloned().unwrap_or_default();
            new["spec"][list] = json!([vec![container], present].concat());
        }
        let patch = serde_json::to_vec(&json_patch::diff(pod, &new)).unwrap_or_default();
        response["patchType"] = json!("JSONPatch");
        response["patch"] = json!(ByteString(patch));
    }
    json!({ "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response }).to_string()
}
