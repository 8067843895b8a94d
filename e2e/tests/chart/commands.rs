//! Runs the operator as the Deployments do, with their arguments, environment and ServiceAccounts.

use std::{collections::BTreeSet, net::TcpListener};

use anyhow::{Context, Result, bail, ensure};
use e2e::{
    Cluster, Framework, Process, ProcessSpec,
    operator::{READY, executable, wait_for_log},
    testing::{
        framework::{ensure_eq, local_cluster},
        http,
    },
    wait::TIMEOUT,
};
use serde_json::{Value, json};
use vpn_types::{Mask, MaskSpec};

use crate::{ALONE, Release, container, kinds, of_kind, values};

/// Returns the environment of a container as the kubelet sets it.
fn environment(container: &Value, pod: &Value) -> Result<Vec<(String, String)>> {
    let mut names = BTreeSet::new();
    let mut environment = Vec::new();
    for variable in container["env"].as_array().into_iter().flatten() {
        let name = variable["name"].as_str().context("no name")?.to_owned();
        ensure!(names.insert(name.clone()), "{name} is set twice");
        let value = match (&variable["value"], variable["valueFrom"]["fieldRef"]["fieldPath"].as_str()) {
            (Value::String(value), None) => value.clone(),
            (Value::Null, Some("metadata.name")) => pod["name"].as_str().unwrap_or_default().to_owned(),
            (Value::Null, Some("metadata.namespace")) => pod["namespace"].as_str().unwrap_or_default().to_owned(),
            other => bail!("{name}: {other:?}"),
        };
        environment.push((name, value));
    }
    Ok(environment)
}

/// Starts the container of a Deployment, and returns when it is ready.
pub async fn start(cluster: &Cluster, release: &Release<'_>, deployment: &Value) -> Result<Process> {
    let name = deployment["metadata"]["name"].as_str().context("no name")?;
    let spec = &deployment["spec"]["template"]["spec"];
    let account = spec["serviceAccountName"].as_str().context("no ServiceAccount")?;
    let identity = cluster.service_account(release.name, account).await?;
    let container = container(deployment)?;
    let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
    let webhook_port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
    let log = cluster.state_dir().join(format!("{name}-{port}.log"));
    let mut process = ProcessSpec::new(name, executable(cluster).await?, log);
    process.grace_period_ms = 10_000;
    for arg in container["args"].as_array().context("no args")? {
        process = process.arg(arg.as_str().context("not a string")?);
    }
    for (variable, mut value) in environment(container, &json!({ "name": name, "namespace": release.name }))? {
        match variable.as_str() {
            // A Pod has its own ports.
            "METRICS_PORT" => {
                ensure_eq("port of the probes", container["livenessProbe"]["httpGet"]["port"].to_string(), value)?;
                value = port.to_string();
            }
            "WEBHOOK_PORT" => {
                ensure_eq("port of the probes", container["readinessProbe"]["httpGet"]["port"].to_string(), value)?;
                value = webhook_port.to_string();
            }
            // Without a node, no Service forwards to the process.
            "WEBHOOK_NAMES" => value = "127.0.0.1".to_owned(),
            _ => {}
        }
        process = process.env(&variable, value);
    }
    let process = cluster.run(process.env("KUBECONFIG", identity.kubeconfig.display())).await?;
    wait_for_log(&process, READY).await?;
    let is_webhook = container["args"][0] == "serve-webhook";
    if is_webhook {
        wait_for_log(&process, "serving the webhook").await?;
        call_on_loopback(cluster, name, webhook_port).await?;
    }
    for probe in ["livenessProbe", "readinessProbe"] {
        if container[probe]["httpGet"]["scheme"] == "HTTPS" {
            continue;
        }
        let path = container[probe]["httpGet"]["path"].as_str().context("no path")?;
        http::get(port, path).await.with_context(|| name.to_owned())?;
    }
    Ok(process)
}

/// Lets the API server call the webhook on loopback.
async fn call_on_loopback(cluster: &Cluster, configuration: &str, port: u16) -> Result<()> {
    let patch = json!([
        {"op": "remove", "path": "/webhooks/0/clientConfig/service"},
        {"op": "add", "path": "/webhooks/0/clientConfig/url", "value": format!("https://127.0.0.1:{port}/inject")},
    ]);
    let patch = format!("--patch={patch}");
    let args = ["patch", "mutatingwebhookconfiguration", configuration, "--type=json", &patch];
    cluster.run_kubectl(&args).await.map(drop)
}

/// Installs the chart, runs its processes, assigns a slot and releases it.
async fn works(
    cluster: &Cluster,
    args: &[&str],
    also: impl AsyncFnOnce(&[Process], &Framework) -> Result<()>,
) -> Result<()> {
    let release = Release { cluster, name: "commands" };
    let f = Framework::new(cluster, "commands").await?;
    let own = format!("--set=rbac.secretNamespaces={{{}}}", f.name());
    let args: Vec<_> = args.iter().map(|&arg| if arg == OWN_NAMESPACE { own.as_str() } else { arg }).collect();
    release.upgrade(&args).await?;
    let mut processes = Vec::new();
    for deployment in of_kind(&release.objects().await?, "Deployment") {
        processes.push(start(cluster, &release, deployment).await?);
    }
    let test = async {
        f.create_provider("vpn", 1).await?;
        f.create_active_mask("mine").await?;
        also(&processes, &f).await?;
        f.clear(TIMEOUT).await
    };
    for process in &processes {
        f.namespace.add_log(&process.spec().log);
    }
    f.dump_on_error(test).await?;
    for process in &processes {
        ensure_eq("end", process.stop(TIMEOUT).await?.as_str(), "exit code 0")?;
    }
    release.remove().await?;
    kinds::apply(cluster).await
}

/// Placeholder for the test's own namespace, the only one where Secrets may be changed.
const OWN_NAMESPACE: &str = "own namespace";

#[tokio::test]
async fn a_process_for_each_controller_works() -> Result<()> {
    let _alone = ALONE.lock().await;
    let Some(cluster) = local_cluster().await? else { return Ok(()) };
    kinds::of_prometheus(cluster).await?;
    works(cluster, &[&values("published")], async |processes, _| ensure_eq("processes", processes.len(), 4)).await
}

#[tokio::test]
async fn one_process_for_all_controllers_works() -> Result<()> {
    let _alone = ALONE.lock().await;
    let Some(cluster) = local_cluster().await? else { return Ok(()) };
    kinds::apply(cluster).await?;
    works(cluster, &[&values("combined")], async |processes, _| ensure_eq("processes", processes.len(), 1)).await
}

#[tokio::test]
async fn other_values_reach_the_process() -> Result<()> {
    let _alone = ALONE.lock().await;
    let Some(cluster) = local_cluster().await? else { return Ok(()) };
    kinds::of_prometheus(cluster).await?;
    works(cluster, &[&values("everything")], async |processes, _| {
        for process in processes {
            let log = std::fs::read_to_string(&process.spec().log)?;
            let lines: Vec<Value> =
                log.lines().map(serde_json::from_str).collect::<Result<_, _>>().context("a log line is not JSON")?;
            ensure!(lines.iter().any(|line| line["level"] == "DEBUG"), "no debug lines in {}", process.spec().name);
            // All Pods of the webhook work.
            let leads = process.spec().name != "commands-webhook";
            ensure!(log.contains("leading") == leads, "{} leads, or does not lead", process.spec().name);
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn secrets_are_changed_in_the_named_namespaces_only() -> Result<()> {
    let _alone = ALONE.lock().await;
    let Some(cluster) = local_cluster().await? else { return Ok(()) };
    works(cluster, &[OWN_NAMESPACE], async |_, f| {
        let other = Framework::new(cluster, "other").await?;
        f.kubectl(&["delete", "mask", "mine"]).await?;
        let everywhere = json!({ "spec": { "namespaces": null } });
        f.patch::<vpn_types::MaskProvider>("vpn", everywhere).await?;
        other.create(Mask::new("theirs", MaskSpec::default())).await?;
        let told = other.wait_for_reason::<Mask>("theirs", "Forbidden").await?;
        let message = serde_json::to_string(&told.status)?;
        ensure!(message.contains("secrets"), "{message}");
        other.kubectl(&["delete", "mask", "theirs"]).await?;
        // Before the operator stops, because nothing else removes the finalizer.
        other.wait_until_all::<vpn_types::MaskConsumer>("no MaskConsumer", <[_]>::is_empty).await.map(drop)
    })
    .await
}
