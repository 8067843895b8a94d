//! The chart's objects, with its Deployments run as local processes. Their Pods use the host network of a node with an
//! address of this machine.

use std::{net::TcpListener, path::PathBuf};

use anyhow::{Context, Result, ensure};
use e2e::{
    Cluster, Framework, Identity, Process, ProcessSpec,
    control_plane::kwok,
    operator::{
        READY,
        chart::{self, RELEASE},
        executable, wait_for_log,
    },
    testing::prometheus::targets,
    wait::{TIMEOUT, wait_until_all},
};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, api::PostParams};
use serde::Deserialize;
use serde_json::{Value, json};

/// The name of the node with the address of this machine.
pub const NODE: &str = "this-machine";

/// An operator process.
pub struct Part {
    pub name: String,
    pub port: u16,
    pub process: Process,
    identity: Identity,
}

pub struct World<'a> {
    pub cluster: &'a Cluster,
    /// All objects of the chart.
    pub objects: Vec<Value>,
    pub parts: Vec<Part>,
    /// The Pods in the release's namespace, for Prometheus to discover.
    pub targets: PathBuf,
}

/// Renders the chart with all metrics options.
pub async fn render(cluster: &Cluster) -> Result<Vec<Value>> {
    let wanted =
        ["podMonitors", "rules.enabled", "dashboard.enabled"].map(|value| format!("--set=prometheus.{value}=true"));
    chart::render(cluster, &wanted.each_ref().map(String::as_str)).await
}

impl<'a> World<'a> {
    /// Applies the chart and starts its Deployments.
    pub async fn start(cluster: &'a Cluster, f: &Framework) -> Result<Self> {
        let objects = render(cluster).await?;
        kwok::create_host_node(&f.client, NODE, "127.0.0.1").await?;
        let mut applied = vec![json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": RELEASE } })];
        let mut deployments = Vec::new();
        for object in &objects {
            match object["kind"].as_str().context("no kind")? {
                // The cluster already has these kinds, or they belong to the Prometheus Operator.
                "CustomResourceDefinition" | "PodMonitor" | "PrometheusRule" => {}
                "Deployment" => deployments.push(on_this_machine(object.clone())?),
                _ => applied.push(object.clone()),
            }
        }
        applied
            .extend(serde_yaml::Deserializer::from_str(OTHERS).map(Value::deserialize).collect::<Result<Vec<_>, _>>()?);
        applied.extend(deployments.iter().map(|(deployment, _)| deployment.clone()));
        let file = cluster.state_dir().join("chart.json");
        let list = json!({ "apiVersion": "v1", "kind": "List", "items": applied });
        std::fs::write(&file, serde_json::to_vec(&list)?)?;
        let file = file.to_string_lossy();
        cluster.run_kubectl(&["apply", "--server-side", "--force-conflicts", "-f", &file]).await?;

        let file = cluster.state_dir().join("pods.json");
        let mut world = Self { cluster, objects, parts: Vec::new(), targets: file };
        for (deployment, port) in &deployments {
            let part = world.run(deployment, *port).await?;
            f.namespace.add_log(part.process.spec().log.clone());
            world.parts.push(part);
        }
        for part in &world.parts {
            wait_for_log(&part.process, READY).await?;
            wait_for_log(&part.process, "leading").await?;
        }
        // Discovery has the permissions that a Prometheus needs.
        let prometheus = cluster.service_account(RELEASE, "prometheus").await?;
        let pods = Api::<Pod>::namespaced(prometheus.client()?, RELEASE);
        let here = |pod: &Pod| pod.status.as_ref().and_then(|status| status.pod_ip.as_deref()) == Some("127.0.0.1");
        let pods = wait_until_all(pods, TIMEOUT, "all Pods, with the address of this machine", |pods| {
            pods.len() == deployments.len() + OTHER_PODS && pods.iter().all(here)
        });
        std::fs::write(&world.targets, serde_json::to_vec(&targets(&pods.await?))?)?;
        Ok(world)
    }

    /// Runs the only container of a Deployment, with the permissions of its ServiceAccount.
    async fn run(&self, deployment: &Value, port: u16) -> Result<Part> {
        let pod = &deployment["spec"]["template"]["spec"];
        let account = pod["serviceAccountName"].as_str().context("no ServiceAccount")?;
        let identity = self.cluster.service_account(RELEASE, account).await?;
        let args = pod["containers"][0]["args"].as_array().context("no arguments")?;
        let name = deployment["metadata"]["name"].as_str().context("no name")?;
        let log = self.cluster.state_dir().join(format!("{name}-{port}.log"));
        let mut spec = ProcessSpec::new(name, executable(self.cluster).await?, log)
            .env("KUBECONFIG", identity.kubeconfig.display())
            .env("POD_NAMESPACE", RELEASE)
            .env("METRICS_PORT", port)
            .env("NO_COLOR", "1");
        for arg in args {
            spec = spec.arg(arg.as_str().context("an argument that is not a string")?);
        }
        spec.grace_period_ms = 10_000;
        Ok(Part { name: name.to_owned(), port, process: self.cluster.run(spec).await?, identity })
    }

    /// Starts a second process of a controller, as a standby.
    pub async fn standby(&self, controller: &str) -> Result<Part> {
        let (deployment, port) = self.other_port(controller)?;
        let part = self.run(&deployment, port).await?;
        wait_for_log(&part.process, READY).await?;
        Ok(part)
    }

    /// Starts a standby that has a Pod. The Deployment cannot have a second replica here: both would have the same port
    /// of the same node.
    pub async fn standby_with_pod(&self, controller: &str) -> Result<(Part, Pod)> {
        let (deployment, port) = self.other_port(controller)?;
        let part = self.run(&deployment, port).await?;
        wait_for_log(&part.process, READY).await?;
        let template = &deployment["spec"]["template"];
        let pod: Pod = serde_json::from_value(json!({
            "metadata": { "name": format!("{}-standby", part.name), "labels": template["metadata"]["labels"] },
            "spec": template["spec"],
        }))?;
        let pods = Api::<Pod>::namespaced(self.cluster.client()?, RELEASE);
        Ok((part, pods.create(&PostParams::default(), &pod).await?))
    }

    /// Returns a Deployment as it runs on this machine, with a port that nothing uses yet.
    fn other_port(&self, controller: &str) -> Result<(Value, u16)> {
        let name = format!("{RELEASE}-{controller}");
        let object =
            self.objects.iter().find(|object| object["kind"] == "Deployment" && object["metadata"]["name"] == *name);
        on_this_machine(object.context("no such Deployment")?.clone())
    }

    /// Returns the names of the processes in the audit log.
    pub fn users(&self) -> Vec<String> {
        self.parts.iter().filter_map(|part| part.identity.user.clone()).collect()
    }

    /// Stops the processes, which must exit cleanly.
    pub async fn stop(self) -> Result<()> {
        for part in &self.parts {
            let end = part.process.stop(TIMEOUT).await?;
            ensure!(end == "exit code 0", "{}: {end}\n{}", part.name, part.process.log_tail(30));
        }
        Ok(())
    }
}

/// Gives a Deployment the host network of the node on this machine, and a free port for metrics: here, four Pods share
/// one address.
fn on_this_machine(mut deployment: Value) -> Result<(Value, u16)> {
    let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
    let pod = &mut deployment["spec"]["template"]["spec"];
    pod["hostNetwork"] = json!(true);
    pod["nodeSelector"] = json!({ "kubernetes.io/hostname": NODE });
    pod["tolerations"] = json!([{ "operator": "Exists" }]);
    let container = &mut pod["containers"][0];
    let metrics = container["ports"].as_array_mut().into_iter().flatten().find(|named| named["name"] == "metrics");
    metrics.context("no port for metrics")?["containerPort"] = json!(port);
    Ok((deployment, port))
}

/// The scraper, with the role for a Prometheus, and Pods that it must not scrape: one of another app, and one with
/// another port name.
const OTHERS: &str = "
apiVersion: v1
kind: ServiceAccount
metadata: {name: prometheus, namespace: vpn-operator}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: prometheus, namespace: vpn-operator}
rules:
  - {apiGroups: [''], resources: [pods], verbs: [get, list, watch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: prometheus, namespace: vpn-operator}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: prometheus}
subjects: [{kind: ServiceAccount, name: prometheus, namespace: vpn-operator}]
---
apiVersion: v1
kind: Pod
metadata: {name: not-ours, namespace: vpn-operator, labels: {app: not-ours}}
spec:
  hostNetwork: true
  nodeSelector: {kubernetes.io/hostname: this-machine}
  tolerations: [{operator: Exists}]
  containers: [{name: operator, image: any, ports: [{name: metrics, containerPort: 1}]}]
---
apiVersion: v1
kind: Pod
metadata: {name: no-metrics, namespace: vpn-operator, labels: {app: vpn-operator-masks}}
spec:
  hostNetwork: true
  nodeSelector: {kubernetes.io/hostname: this-machine}
  tolerations: [{operator: Exists}]
  containers: [{name: operator, image: any, ports: [{name: other, containerPort: 2}]}]
";
const OTHER_PODS: usize = 2;
