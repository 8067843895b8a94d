//! The objects that run a server: its configuration, Services, Deployment and PodDisruptionBudget.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use serde_json::{Map, Value, json};
use vpn_types::{
    INPUTS_ANNOTATION, IpForward, MaskProviderVerifyOverridesSpec, OpenVPNServerSpec, RESTART_ANNOTATION, SERVER_LABEL,
    pod_metrics::{METRICS_NAMES_ANNOTATION, METRICS_PORT_ANNOTATION},
};

use super::{
    context::{ServersContext, apply},
    desired::{Desired, EXPORTER_PORT, routes},
    drift::{self, Drift},
    enrollment,
    names::{named, owned_by, selector},
    services::{metrics_service, service},
};
use crate::{
    issuing::keys,
    model::{Kind, Meta, ObjectKey, Operation, Step},
    openvpn::ClientConfig,
    state::{SecretRole, ServerObject, ServerView, Store, combined, merge_overrides},
};

/// How much longer than the drain a Pod may take to end.
const GRACE_BEYOND_DRAIN: u64 = 30;
/// The metrics of replicas that autoscalers may use.
const SCALING_METRICS: &str = "openvpn_server_connected_clients,openvpn_openvpn_server_connected_clients,\
                               openvpn_server_pending_clients,openvpn_server_max_clients";

impl ServersContext<'_> {
    /// Applies the objects that run a server, in an order in which the Pods find what they mount.
    pub fn objects(&self, server: &ServerView, desired: &Desired) -> Step {
        let key = &server.meta.key;
        let state = self.state;
        let all: [(Kind, ObjectKey, &Store<ServerObject>, Value); 6] = [
            (Kind::ConfigMap, named(key, "config"), &state.config_maps, config(desired)),
            (Kind::ConfigMap, named(key, "clients"), &state.config_maps, self.client_configs(server, desired)),
            (Kind::Service, key.clone(), &state.services, service(server, desired)),
            (Kind::Service, named(key, "metrics"), &state.services, metrics_service(server)),
            (Kind::PodDisruptionBudget, key.clone(), &state.pod_disruption_budgets, disruption_budget(server)),
            (Kind::Deployment, key.clone(), &state.deployments, self.deployment(server, desired)),
        ];
        let mut due = Step::Idle;
        for (kind, key, store, object) in all {
            // Without the certificates, the Pods could not start.
            if object.is_null() {
                continue;
            }
            let present = store.get(&key);
            if present.is_some_and(|present| present.meta.deleting) {
                continue;
            }
            let (object, inputs) = finish(server, kind, &key, object);
            let ours = present.filter(|present| present.owner.as_ref() == Some(&server.meta.uid));
            let current = ours.filter(|ours| ours.inputs.as_deref() == Some(&*inputs));
            let event = match current.map(|current| self.drift(server, current, &object)) {
                Some(Drift::None) => continue,
                Some(Drift::CorrectAt(time)) => {
                    due = due.or_else(|| Step::WaitUntil(time));
                    continue;
                }
                Some(Drift::Correct { is_change }) => is_change.then(|| drift::corrected(server, kind, &key)),
                None => None,
            };
            let first = match kind {
                Kind::Deployment => keep_replicas(server, ours).or_else(|| self.rank_replicas(server)),
                _ => Step::Idle,
            };
            let meta = ours.map(|ours| &ours.meta);
            return first.or_else(|| apply(kind, key, meta, with_uid(object, meta)).with_event(event));
        }
        due
    }

    /// The files of clients that have an address or routes of their own.
    fn client_configs(&self, server: &ServerView, desired: &Desired) -> Value {
        let clients = self.clients_of(&server.meta.key).filter(|client| !client.is_doomed());
        let clients = clients.filter(|client| self.same_address(client).is_none());
        let files = clients.filter_map(|client| {
            let config = ClientConfig {
                address: client.spec.address.as_deref().and_then(|address| address.parse().ok()),
                routes: routes(client.spec.routes.as_deref()).unwrap_or_default(),
                behind: Vec::new(),
            };
            config.check(desired.network, desired.max_clients, desired.reachable.as_deref()).ok()?;
            Some((client.common_name().to_owned(), json!(config.file(desired.network)?)))
        });
        json!({"data": files.collect::<Map<_, _>>()})
    }

    /// Returns the hash of what `OpenVPN` reads only when it starts, once there is a certificate.
    pub fn restart(&self, server: &ServerView, desired: &Desired) -> Option<Arc<str>> {
        let secret = self.secret(&named(&server.meta.key, "server"), SecretRole::Server)?;
        let serial = secret.certificate.as_ref()?.serial.to_string();
        let keystore = self.keystore(server);
        let own: Vec<_> = keystore.iter().flat_map(|keystore| keystore.at_start()).collect();
        let parts = [&serial, &desired.server_config, &desired.agent_settings].into_iter().chain(&own);
        Some(combined(parts.map(|text| &**text)))
    }

    fn deployment(&self, server: &ServerView, desired: &Desired) -> Value {
        let key = &server.meta.key;
        let files = self.secret(&named(key, "revoked"), SecretRole::Revoked);
        let restart = self.restart(server, desired).filter(|_| files.is_some() || server.keystore_key().is_some());
        let Some(restart) = restart else { return Value::Null };
        let labels = pod_labels(key);
        let mut spec = json!({
            "selector": {"matchLabels": selector(key)},
            // A replica that ends drains its clients, so the new replica has to exist before.
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "template": {
                "metadata": {
                    "labels": labels,
                    "annotations": {
                        "kubectl.kubernetes.io/default-container": "openvpn",
                        RESTART_ANNOTATION: &*restart,
                        METRICS_PORT_ANNOTATION: EXPORTER_PORT.to_string(),
                        METRICS_NAMES_ANNOTATION: SCALING_METRICS,
                    },
                },
                "spec": pod_spec(server, desired),
            },
        });
        if let Some(replicas) = server.spec.replicas {
            spec["replicas"] = json!(replicas);
        }
        if let Some(changes) = &server.spec.pod {
            spec["template"] = with_changes(spec["template"].take(), changes, &labels);
        }
        json!({"spec": spec})
    }
}

/// Without `spec.replicas`, something else scales the Deployment. A field that nobody else has applied would get its
/// default when the operator stops applying it, so another field manager applies it first.
fn keep_replicas(server: &ServerView, deployment: Option<&ServerObject>) -> Step {
    let Some(deployment) = deployment.filter(|_| server.spec.replicas.is_none()) else { return Step::Idle };
    let Some(replicas) = deployment.replicas else { return Step::Idle };
    let key = &deployment.meta.key;
    let part = json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": &*key.name, "namespace": &*key.namespace, "uid": deployment.meta.uid.as_str()},
        "spec": {"replicas": replicas},
    });
    Step::maintain(Operation::Share(Kind::Deployment, key.clone(), part)).provisional()
}

/// Adds what all objects have, and returns the hash of it.
pub fn finish(server: &ServerView, kind: Kind, key: &ObjectKey, mut object: Value) -> (Value, String) {
    let api_version = match kind {
        Kind::Deployment => "apps/v1",
        Kind::PodDisruptionBudget => "policy/v1",
        Kind::Provider | Kind::Client => "vpn.beebs.dev/v1",
        _ => "v1",
    };
    object["apiVersion"] = json!(api_version);
    object["kind"] = json!(kind.as_str());
    let metadata = &mut object["metadata"];
    metadata["name"] = json!(&*key.name);
    metadata["namespace"] = json!(&*key.namespace);
    metadata["labels"][SERVER_LABEL] = json!(&*server.meta.key.name);
    metadata["ownerReferences"] = json!([owned_by(server)]);
    let inputs = combined([&*object.to_string()]).to_string();
    object["metadata"]["annotations"][INPUTS_ANNOTATION] = json!(inputs);
    (object, inputs)
}

/// Adds the UID of the object to update, so that the request cannot change another one.
pub fn with_uid(mut object: Value, present: Option<&Meta>) -> Value {
    if let Some(present) = present {
        object["metadata"]["uid"] = json!(present.uid.as_str());
    }
    object
}

fn pod_labels(key: &ObjectKey) -> Value {
    json!({"app": "openvpn", "release": &*key.name, SERVER_LABEL: &*key.name})
}

fn config(desired: &Desired) -> Value {
    json!({"data": {"server.conf": desired.server_config, "agent.json": desired.agent_settings}})
}

fn disruption_budget(server: &ServerView) -> Value {
    json!({"spec": {"maxUnavailable": 1, "selector": {"matchLabels": selector(&server.meta.key)}}})
}

fn pod_spec(server: &ServerView, desired: &Desired) -> Value {
    let key = &server.meta.key;
    let drain = server.spec.drain_timeout().unwrap_or(OpenVPNServerSpec::DEFAULT_DRAIN).as_secs();
    let forward = server.spec.ip_forward.unwrap_or_default();
    let mount = |name: &str, path: &str| json!({"name": name, "mountPath": path, "readOnly": true});
    let writable = |name: &str, path: &str| json!({"name": name, "mountPath": path});
    let mut spec = json!({
        "terminationGracePeriodSeconds": drain + GRACE_BEYOND_DRAIN,
        "automountServiceAccountToken": false,
        "enableServiceLinks": false,
        "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
        "topologySpreadConstraints": [{
            "maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": selector(key)},
        }],
        "containers": [
            {
                "name": "openvpn",
                "image": desired.image,
                "args": ["openvpn-server"],
                "ports": [{
                    "name": "openvpn", "containerPort": desired.port,
                    "protocol": server.spec.protocol.unwrap_or_default().as_str(),
                }],
                "securityContext": {
                    "runAsUser": 0,
                    "allowPrivilegeEscalation": false,
                    "readOnlyRootFilesystem": true,
                    "capabilities": {"drop": ["ALL"], "add": ["NET_ADMIN", "MKNOD", "SETUID", "SETGID"]},
                },
                "volumeMounts": [
                    mount("config", "/etc/openvpn/config"),
                    mount("clients", "/etc/openvpn/ccd"),
                    mount("pki", "/etc/openvpn/pki"),
                    mount("revoked", "/etc/openvpn/revoked"),
                    writable("run", "/run/openvpn"),
                    writable("openvpn-status", "/tmp"),
                ],
            },
            {
                "name": "exporter",
                "image": desired.image,
                "args": ["openvpn-exporter", "--openvpn.management=/run/openvpn/management.sock"],
                "env": [{"name": "POD_IPS", "valueFrom": {"fieldRef": {"fieldPath": "status.podIPs"}}}],
                "ports": [{"name": "metrics", "containerPort": EXPORTER_PORT, "protocol": "TCP"}],
                "readinessProbe": {
                    "httpGet": {"path": "/readyz", "port": "metrics"},
                    "periodSeconds": 2, "timeoutSeconds": 3, "failureThreshold": 3,
                },
                "securityContext": {
                    "runAsUser": 65534, "runAsGroup": 65534, "runAsNonRoot": true,
                    "allowPrivilegeEscalation": false,
                    "readOnlyRootFilesystem": true,
                    "capabilities": {"drop": ["ALL"]},
                },
                "volumeMounts": [
                    mount("config", "/etc/openvpn/config"),
                    mount("openvpn-status", "/etc/openvpn-exporter/openvpn"),
                    writable("run", "/run/openvpn"),
                ],
            },
        ],
        "volumes": [
            {"name": "config", "configMap": {"name": format!("{}-config", key.name)}},
            {"name": "clients", "configMap": {"name": format!("{}-clients", key.name)}},
            {"name": "pki", "secret": {"secretName": format!("{}-server", key.name), "defaultMode": 0o400}},
            // openvpn reads these files when it is no longer root.
            {"name": "revoked", "secret": {"secretName": format!("{}-revoked", key.name), "defaultMode": 0o444}},
            {"name": "run", "emptyDir": {"medium": "Memory"}},
            {"name": "openvpn-status", "emptyDir": {}},
        ],
    });
    if server.keystore_key().is_some() {
        // The certificates that the user has revoked, which openvpn reads when it is no longer root.
        let volumes = spec["volumes"].as_array_mut().into_iter().flatten();
        for volume in volumes.filter(|volume| volume["name"] == "revoked") {
            volume["secret"] = json!({
                "secretName": format!("{}-server", key.name), "defaultMode": 0o444, "optional": true,
                "items": [{"key": keys::CRL, "path": keys::CRL}],
            });
        }
    }
    match forward {
        IpForward::Auto => {}
        IpForward::Sysctl => {
            spec["securityContext"]["sysctls"] = json!([{"name": "net.ipv4.ip_forward", "value": "1"}])
        }
        IpForward::InitContainer => {
            spec["initContainers"] = json!([{
                "name": "ip-forward",
                "image": desired.image,
                "command": ["sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"],
                "securityContext": {"privileged": true, "runAsUser": 0},
            }]);
        }
    }
    if let Some(account) = server.spec.service_account_name.as_deref().filter(|account| !account.is_empty()) {
        enrollment::enable(&mut spec, account, &key.name);
    }
    spec
}

/// Merges the changes of the user into the Pod. The labels stay, because the operator and the Services select by them.
fn with_changes(template: Value, changes: &Value, labels: &Value) -> Value {
    let overrides = MaskProviderVerifyOverridesSpec { containers: None, pod: Some(changes.clone()) };
    let merged = serde_json::from_value::<Pod>(template.clone()).ok();
    let merged = merged.and_then(|pod| merge_overrides(pod, &overrides).ok());
    let Some(mut merged) = merged.and_then(|pod| serde_json::to_value(pod).ok()) else { return template };
    for (key, value) in labels.as_object().into_iter().flatten() {
        merged["metadata"]["labels"][key] = value.clone();
    }
    if let Value::Object(fields) = &mut merged {
        fields.retain(|field, _| field == "metadata" || field == "spec");
    }
    merged
}
