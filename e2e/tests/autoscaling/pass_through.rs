//! The metrics API in front of another server of the same API groups. The other one is a second metrics API, whose names
//! of metrics have another prefix. It finds out who asks as prometheus-adapter and KEDA do: by kube-apiserver.

use anyhow::{Context, Result, ensure};
use e2e::{
    Cluster, ControlPlaneOptions, Framework, Identity, Layout, Operator, OperatorOptions, Process, ProcessSpec,
    operator::{self, chart, executable, metrics_api, wait_for_log, webhook::free_port},
    testing::framework::{ensure_eq, local_cluster},
    wait::TIMEOUT,
};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::{SYNC, apply_text, failure, raw, wait_for_running, wait_for_value};

/// The values of the chart for a server in front of another one.
const VALUES: [&str; 6] = [
    "--set=metricsApi.passThrough.custom.service.namespace=vpn-operator",
    "--set=metricsApi.passThrough.custom.service.name=vpn-operator-metrics-api",
    "--set=metricsApi.passThrough.custom.caBundle=LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0t",
    "--set=metricsApi.passThrough.external.service.namespace=vpn-operator",
    "--set=metricsApi.passThrough.external.service.name=vpn-operator-metrics-api",
    "--set=metricsApi.passThrough.external.caSecret=other-ca",
];

/// Another server with its own certificate.
struct Other {
    process: Process,
    /// The variables of a metrics API in front of it.
    env: Vec<(String, String)>,
}

impl Other {
    async fn start(cluster: &Cluster) -> Result<Self> {
        let certificate = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
        let ca = cluster.state_dir().join("other-ca.crt");
        std::fs::write(&ca, certificate.cert.pem())?;
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "other", "namespace": chart::RELEASE},
            "stringData": {
                "tls.crt": certificate.cert.pem(), "tls.key": certificate.signing_key.serialize_pem(),
                "ca.crt": certificate.cert.pem(),
            },
        });
        apply(cluster, &secret.to_string()).await?;
        let port = free_port()?;
        let process = serve(cluster, "other", port, &[]).await?;
        let env = ["CUSTOM", "EXTERNAL"].into_iter().flat_map(|group| {
            let name = format!("METRICS_API_PASS_THROUGH_{group}");
            [(format!("{name}_CA"), ca.display().to_string()), (name, format!("https://localhost:{port}"))]
        });
        Ok(Self { process, env: env.collect() })
    }
}

/// Starts a metrics API with this prefix. Nothing registers it.
async fn serve(cluster: &Cluster, prefix: &str, port: u16, args: &[String]) -> Result<Process> {
    let log = cluster.state_dir().join(format!("{prefix}.log"));
    let mut spec = ProcessSpec::new(prefix, executable(cluster).await?, log)
        .arg("serve-metrics-api")
        .arg("--metrics-api-custom")
        .arg("--metrics-api-external")
        .flag("metrics-prefix", prefix)
        .flag("metrics-api-port", port)
        .flag("metrics-api-secret", "other")
        .flag("lease-namespace", chart::RELEASE)
        .env("KUBECONFIG", cluster.kubeconfig().display())
        .env("NO_COLOR", "1");
    spec.args.extend(args.iter().cloned());
    let process = cluster.run(spec).await?;
    wait_for_log(&process, metrics_api::READY).await?;
    Ok(process)
}

/// Applies objects as administrator.
pub async fn apply(cluster: &Cluster, text: &str) -> Result<()> {
    let file = tempfile::Builder::new().suffix(".yaml").tempfile()?;
    std::fs::write(file.path(), text)?;
    let file = file.path().to_str().context("no text")?;
    cluster.run_kubectl(&["apply", "--server-side", "-f", file]).await.map(drop)
}

/// Asks a metrics API itself, past kube-apiserver, and returns the code and the message.
async fn direct(address: &str, user: &Identity, path: &str) -> Result<(u16, String)> {
    let mut config = user.config.clone();
    config.cluster_url = address.parse()?;
    config.accept_invalid_certs = true;
    let request = http::Request::get(path).body(kube::client::Body::empty())?;
    let response = kube::Client::try_from(config)?.send(request).await?;
    let code = response.status().as_u16();
    let body = http_body_util::BodyExt::collect(response.into_body()).await?.to_bytes();
    let body: Value = serde_json::from_slice(&body)?;
    Ok((code, body["message"].as_str().unwrap_or_default().to_owned()))
}

/// Waits until discovery shows both servers, or only ours.
async fn discovery(f: &Framework, both: bool) -> Result<()> {
    let deadline = Instant::now() + TIMEOUT;
    for (group, own, other) in [
        ("custom.metrics.k8s.io/v1beta1", "maskproviders.vpn.beebs.dev/vpno_provider_slots", "other_provider_slots"),
        ("custom.metrics.k8s.io/v1beta2", "maskproviders.vpn.beebs.dev/vpno_provider_slots", "other_provider_slots"),
        ("external.metrics.k8s.io/v1beta1", "vpno_tag_slots_free", "other_tag_slots_free"),
    ] {
        loop {
            let list = raw(f, &format!("/apis/{group}")).await?.to_string();
            ensure!(list.contains(own), "{group}: our own metrics are not in the list: {list}");
            if list.contains(other) == both {
                break;
            }
            ensure!(Instant::now() < deadline, "{group}: {list}");
            sleep(SYNC).await;
        }
    }
    Ok(())
}

#[tokio::test]
async fn metrics_of_a_former_server_are_read_through_ours() -> Result<()> {
    if local_cluster().await?.is_none() {
        return Ok(());
    }
    let cluster = Cluster::connect(ControlPlaneOptions::default()).await?;
    operator::install(&cluster).await?;
    apply(&cluster, &rights(&cluster).await?).await?;
    let other = Other::start(&cluster).await?;
    let mut options = OperatorOptions::new(Layout::Combined).metrics_api();
    for (name, value) in &other.env {
        options = options.env(name, value);
    }
    let operator = Operator::start_with(&cluster, options).await?;
    let f = Framework::new(&cluster, "front").await?;
    f.add_logs(&operator);
    f.namespace.add_log(other.process.spec().log.clone());
    f.dump_on_error(async {
        metrics_api::wait_until_available(&cluster).await?;
        f.create_provider("vpn", 3).await?;
        values(&f).await?;
        permissions(&cluster, &f, &operator).await?;
        loops(&cluster, &f).await?;
        autoscaler(&f).await?;
        chart_takes_over(&cluster).await?;
        gone(&f, &other).await
    })
    .await?;
    operator.stop().await?;
    cluster.stop().await
}

/// The ServiceAccount for the other server, and its permissions. The chart refuses a release in front of itself, so here
/// the values name another Service.
async fn rights(cluster: &Cluster) -> Result<String> {
    let values = chart::METRICS_API.iter().chain(&VALUES);
    let values: Vec<_> = values.map(|value| value.replace("vpn-operator-metrics-api", "other")).collect();
    chart::render_rights(cluster, &values).await
}

async fn values(f: &Framework) -> Result<()> {
    discovery(f, true).await?;
    let ns = f.name();
    for version in ["v1beta1", "v1beta2"] {
        for prefix in ["vpno", "other"] {
            let metric = format!("{prefix}_provider_slots");
            let path = format!("/apis/custom.metrics.k8s.io/{version}/namespaces/{ns}/maskproviders.vpn.beebs.dev");
            let found = wait_for_value(f, &format!("{path}/vpn/{metric}"), "3").await?;
            let name = if version == "v1beta1" { "metricName" } else { "metric" };
            ensure!(found["items"][0][name].to_string().contains(&metric), "{found}");
            let selected = raw(f, &format!("{path}/*/{metric}?labelSelector=no%3Dsuch")).await?;
            ensure_eq("selected", selected["items"].as_array().map(Vec::len), Some(0))?;
        }
    }
    let external = format!("/apis/external.metrics.k8s.io/v1beta1/namespaces/{ns}");
    wait_for_value(f, &format!("{external}/other_provider_slots_free?labelSelector=provider%3Dvpn"), "3").await?;

    // What neither has: both say so.
    let of_pods = failure(f, &format!("/apis/custom.metrics.k8s.io/v1beta2/namespaces/{ns}/pods/*/load")).await?;
    ensure!(of_pods.matches("does not have the label vpn.beebs.dev/pod-metrics").count() == 2, "{of_pods}");
    let unknown = failure(f, &format!("{external}/nobody_knows")).await?;
    for known in ["NotFound", "vpno_tag_slots_free", "https://localhost", "says:", "other_tag_slots_free"] {
        ensure!(unknown.contains(known), "{unknown}");
    }
    Ok(())
}

/// The other server knows us, not the user: whether a user may read its metrics is our decision.
async fn permissions(cluster: &Cluster, f: &Framework, operator: &Operator) -> Result<()> {
    let ns = f.name();
    let (address, jane) = (operator.metrics_api().context("no metrics API")?, cluster.user("jane", None).await?);
    let path = format!("/apis/external.metrics.k8s.io/v1beta1/namespaces/{ns}/other_provider_slots");
    let elsewhere = "/apis/external.metrics.k8s.io/v1beta1/namespaces/default/other_provider_slots";
    let of_node = "/apis/custom.metrics.k8s.io/v1beta2/nodes/any/other_load";
    for path in [elsewhere, of_node] {
        ensure_eq("code without permission", direct(&address, &jane, path).await?.0, 403)?;
    }
    f.kubectl(&["create", "role", "reader", "--verb=list", "--resource=other_provider_slots.external.metrics.k8s.io"])
        .await?;
    f.kubectl(&["create", "rolebinding", "reader", "--role=reader", "--user=jane"]).await?;
    f.kubectl(&["get", "--raw", &path, "--as=jane"]).await?;
    ensure_eq("code with permission", direct(&address, &jane, &path).await?.0, 200)
}

/// A metrics API in front of kube-apiserver, which leads to the one that is registered: this one does not pass the
/// request on again.
async fn loops(cluster: &Cluster, f: &Framework) -> Result<()> {
    let (port, api_server) = (free_port()?, &cluster.admin().config.cluster_url);
    let api_server = api_server.authority().context("no host")?;
    let behind = format!("--metrics-api-pass-through-custom=https://{api_server}");
    let process =
        serve(cluster, "third", port, &[behind, "--metrics-api-pass-through-custom-insecure".to_owned()]).await?;
    let path = format!("/apis/custom.metrics.k8s.io/v1beta2/namespaces/{}/maskproviders.vpn.beebs.dev/vpn", f.name());
    let address = format!("https://localhost:{port}");
    let (code, message) = direct(&address, cluster.admin(), &format!("{path}/other_provider_slots")).await?;
    ensure!(code == 508 && message.contains("came back"), "{code} {message}");
    let own = direct(&address, cluster.admin(), &format!("{path}/vpno_provider_slots")).await?;
    ensure_eq("a metric of the registered one", own.0, 200)?;
    process.stop(TIMEOUT).await.map(drop)
}

const FOLLOWER: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: follower}
spec:
  selector:
    matchLabels: {app: follower}
  template:
    metadata:
      labels: {app: follower}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{name: app, image: app}]
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: follower}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: follower}
  minReplicas: 1
  maxReplicas: 10
  metrics:
    - type: Object
      object:
        describedObject: {apiVersion: vpn.beebs.dev/v1, kind: MaskProvider, name: vpn}
        metric: {name: other_provider_slots}
        target: {type: AverageValue, averageValue: '1'}
    - type: External
      external:
        metric: {name: other_masks_waiting}
        target: {type: AverageValue, averageValue: '1'}
";

async fn autoscaler(f: &Framework) -> Result<()> {
    apply_text(f, FOLLOWER).await?;
    wait_for_running(f, 3).await
}

/// The chart takes an APIService only from the server that the values name.
async fn chart_takes_over(cluster: &Cluster) -> Result<()> {
    let install = ["install", "front", chart::DIR, "--dry-run=server", "--take-ownership", "--set=crds.install=false"];
    let with = |values: &[&'static str]| [&install[..], &chart::METRICS_API[..], values].concat();
    cluster.run_helm(&with(&VALUES)).await?;
    let wrong = "--set=metricsApi.passThrough.external.service.name=keda";
    for (values, says) in [
        (&[][..], "let the metrics API stand in front of it with metricsApi.passThrough.custom"),
        (&[&VALUES[..], &[wrong]].concat(), "metricsApi.passThrough.external names Service vpn-operator/keda"),
    ] {
        let refused = cluster.run_helm(&with(values)).await.err().context("helm took an APIService")?;
        ensure!(format!("{refused:#}").contains(says), "{refused:#}");
    }
    Ok(())
}

/// Without the other server, our own metrics are as before.
async fn gone(f: &Framework, other: &Other) -> Result<()> {
    other.process.stop(TIMEOUT).await?;
    let path = format!("/apis/custom.metrics.k8s.io/v1beta2/namespaces/{}/maskproviders.vpn.beebs.dev/vpn", f.name());
    let message = failure(f, &format!("{path}/other_provider_slots")).await?;
    ensure!(message.contains("ServiceUnavailable") && message.contains("gives no answer"), "{message}");
    wait_for_value(f, &format!("{path}/vpno_provider_slots"), "3").await?;
    discovery(f, false).await
}
