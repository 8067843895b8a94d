//! What helm renders, and what it refuses.

use anyhow::{Context, Result, ensure};
use e2e::{
    operator::chart,
    testing::bench::{our_cluster, same},
};
use serde_json::{Value, json};

use crate::{container, file, names, of_kind, refused, values};

const FILES: [&str; 4] = ["published", "everything", "combined", "bounded"];
const CONTROLLERS: [&str; 4] = ["consumers", "masks", "providers", "reservations"];

fn release(part: &str) -> String {
    format!("{}-{part}", chart::RELEASE)
}

#[tokio::test]
async fn nothing_to_lint() -> Result<()> {
    let Some(cluster) = our_cluster().await? else { return Ok(()) };
    for name in FILES {
        cluster.run_helm(&["lint", "--strict", chart::DIR, &values(name)]).await?;
    }
    cluster.run_helm(&["lint", "--strict", chart::DIR]).await?;
    // It is what it says: the version of the operator, and an image of that version.
    let chart: Value = serde_yaml::from_str(&std::fs::read_to_string(format!("{}/Chart.yaml", chart::DIR))?)?;
    let values: Value = serde_yaml::from_str(&std::fs::read_to_string(format!("{}/values.yaml", chart::DIR))?)?;
    same("version", &chart["version"], &json!(env!("CARGO_PKG_VERSION")))?;
    same("appVersion", &chart["appVersion"], &chart["version"])?;
    same("image", &values["image"], &json!(e2e::operator_image::NAME.trim_start_matches("docker.io/")))
}

#[tokio::test]
async fn the_names_that_1_0_1_used() -> Result<()> {
    let Some(cluster) = our_cluster().await? else { return Ok(()) };
    let objects = chart::render(cluster, &[&values("published")]).await?;
    let expected: Vec<_> = CONTROLLERS.iter().map(|part| release(part)).collect();
    same("Deployments", &names(&objects, "Deployment"), &expected)?;
    same("PodMonitors", &names(&objects, "PodMonitor"), &expected)?;
    for deployment in of_kind(&objects, "Deployment") {
        let name = &deployment["metadata"]["name"];
        let part = name.as_str().context("no name")?.trim_start_matches("vpn-operator-").to_owned();
        same("label", &deployment["metadata"]["labels"]["app"], name)?;
        // A selector cannot be changed: any other one would make the upgrade fail.
        same("selector", &deployment["spec"]["selector"], &json!({ "matchLabels": { "app": name } }))?;
        same("Pods", &deployment["spec"]["template"]["metadata"]["labels"]["app"], name)?;
        let container = container(deployment)?;
        same("image", &container["image"], &json!("thavlik/vpn-operator:latest"))?;
        same("pull", &container["imagePullPolicy"], &json!("Always"))?;
        same("port", &container["ports"][0]["name"], &json!("metrics"))?;
        same("port", &container["ports"][0]["containerPort"], &json!(8080))?;
        same("args", &container["args"], &json!([format!("manage-{part}"), "--leader-elect"]))?;
        let published = json!({
            "requests": { "memory": "32Mi", "cpu": "10m" }, "limits": { "memory": "64Mi", "cpu": "100m" },
        });
        same("resources", &container["resources"], &published)?;
    }
    for monitor in of_kind(&objects, "PodMonitor") {
        let name = &monitor["metadata"]["name"];
        same("selector", &monitor["spec"]["selector"], &json!({ "matchLabels": { "app": name } }))?;
        same("port", &monitor["spec"]["podMetricsEndpoints"][0]["port"], &json!("metrics"))?;
    }
    Ok(())
}

#[tokio::test]
async fn every_value_gets_where_it_belongs() -> Result<()> {
    let Some(cluster) = our_cluster().await? else { return Ok(()) };
    let objects = chart::render(cluster, &[&values("everything")]).await?;
    let given: Value = serde_yaml::from_str(&std::fs::read_to_string(file("values/everything.yaml"))?)?;
    same("budgets", names(&objects, "PodDisruptionBudget").len(), 4)?;
    for deployment in of_kind(&objects, "Deployment") {
        let name = &deployment["metadata"]["name"];
        let (template, container) = (&deployment["spec"]["template"], container(deployment)?);
        let pod = &template["spec"];
        same("replicas", &deployment["spec"]["replicas"], &json!(2))?;
        same("label", &template["metadata"]["labels"]["example.com/team"], &json!("network"))?;
        same("annotation", &template["metadata"]["annotations"]["example.com/restarted"], &json!("1"))?;
        same("secrets", &pod["imagePullSecrets"], &json!([{ "name": "registry" }, { "name": "other-registry" }]))?;
        for field in ["nodeSelector", "tolerations", "affinity", "priorityClassName"] {
            same(field, &pod[field], &given[field])?;
        }
        same("security", &pod["securityContext"], &given["podSecurityContext"])?;
        let spread = json!([{
            "maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": { "matchLabels": { "app": name } },
        }]);
        same("spread", &pod["topologySpreadConstraints"], &spread)?;
        let env = container["env"].as_array().context("no env")?;
        let value = |name: &str| {
            let mut found = env.iter().filter(|variable| variable["name"] == name);
            (found.next().map(|variable| variable["value"].clone()), found.count())
        };
        same("format", value("LOG_FORMAT"), (Some(json!("json")), 0))?;
        same("the later one", value("RUST_LOG"), (Some(json!("debug")), 0))?;
        same("the extra one", value("METRICS_PREFIX"), (Some(json!("vpn")), 0))?;
        let verifies = name == "vpn-operator-providers";
        let only = |text: &str| (verifies.then(|| json!(text)), 0);
        same("image", value("VERIFY_VPN_IMAGE"), only("registry.example.com/gluetun:1"))?;
        same("image", value("VERIFY_INIT_IMAGE"), only("registry.example.com/curl:1"))?;
        same("image", value("VERIFY_PROBE_IMAGE"), only("registry.example.com/curl:2"))?;
        same("services", value("VERIFY_IP_SERVICES"), only("https://ip.example.com,http://ip.example.org/json"))?;
        same("timeout", value("VERIFY_TIMEOUT"), only("1m30s"))?;
        same("timeout", value("VERIFY_SCHEDULING_TIMEOUT"), only("10m"))?;
        let resources = value("VERIFY_RESOURCES").0.as_ref().and_then(Value::as_str).map(serde_json::from_str::<Value>);
        same("resources", resources.transpose()?.as_ref(), verifies.then_some(&given["verify"]["resources"]))?;
    }
    let account = |part: &str| {
        let named = |object: &&&Value| object["metadata"]["name"] == release(part);
        let deployments = of_kind(&objects, "Deployment");
        deployments.iter().find(named).map(|object| object["spec"]["template"]["spec"]["serviceAccountName"].clone())
    };
    same("account", account("masks"), Some(json!("ours-masks")))?;
    same("account", account("consumers"), Some(json!("vpn-operator-consumers")))
}

#[tokio::test]
async fn what_is_not_asked_for_is_not_there() -> Result<()> {
    let Some(cluster) = our_cluster().await? else { return Ok(()) };
    let objects = chart::render(cluster, &[]).await?;
    for kind in ["PodMonitor", "PodDisruptionBudget", "PrometheusRule", "ConfigMap", "Secret", "Job"] {
        same(kind, names(&objects, kind), vec![])?;
    }
    same("kinds", names(&objects, "CustomResourceDefinition").len(), 4)?;
    let text = serde_json::to_string(&objects)?;
    ensure!(!text.contains("VERIFY_"), "defaults of verification are the operator's");

    let objects = chart::render(cluster, &[&values("combined")]).await?;
    same("Deployments", names(&objects, "Deployment"), vec![release("all")])?;
    same("accounts", names(&objects, "ServiceAccount"), vec![release("all")])?;
    same("args", &container(of_kind(&objects, "Deployment")[0])?["args"], &json!(["manage-all"]))?;
    for kind in ["CustomResourceDefinition", "PodMonitor"] {
        same(kind, names(&objects, kind), vec![])?;
    }
    ensure!(!serde_json::to_string(&objects)?.contains("aggregate-to"), "aggregated roles");

    let objects = chart::render(cluster, &["--set=rbac.create=false,rbac.aggregate=false"]).await?;
    for kind in ["Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"] {
        same(kind, names(&objects, kind), vec![])?;
    }
    let objects = chart::render(cluster, &["--set=serviceAccounts.create=false"]).await?;
    same("accounts", names(&objects, "ServiceAccount"), vec![])
}

#[tokio::test]
async fn nonsense_is_refused_with_the_reason() -> Result<()> {
    let Some(cluster) = our_cluster().await? else { return Ok(()) };
    for (nonsense, reason) in [
        ("replica=2", "additional properties 'replica' not allowed"),
        ("replicas=two", "at '/replicas': got string, want integer"),
        ("replicas=-1", "at '/replicas': minimum: got -1, want 0"),
        ("combined.enabled=perhaps", "at '/combined/enabled': got string, want boolean"),
        ("controllers.mask.resources.limits.memory=1Gi", "at '/controllers': additional properties 'mask'"),
        ("controllers.masks.resources.limits.memory=lots", "at '/controllers/masks/resources/limits/memory': 'lots'"),
        ("verify.timeout=soon", "at '/verify/timeout': 'soon' does not match"),
        ("verify.ipServices={ftp://x}", "at '/verify/ipServices/0': 'ftp://x' does not match"),
        ("imagePullPolicy=Sometimes", "value must be one of 'Always', 'IfNotPresent', 'Never'"),
        ("rbac.secretNamespaces={A_B}", "at '/rbac/secretNamespaces/0': 'A_B' does not match"),
        ("logging.format=xml", "value must be one of 'text', 'json'"),
        ("podLabels.app=mine", "podLabels must not have the key app"),
        ("replicas=2,leaderElection=false", "so leaderElection must be true"),
    ] {
        let said = refused(cluster, &["template", "test", chart::DIR, "--set", nonsense]).await?;
        ensure!(said.contains(reason), "{nonsense}: {said}");
    }
    Ok(())
}

#[tokio::test]
async fn names_too_long_are_refused() -> Result<()> {
    let Some(cluster) = our_cluster().await? else { return Ok(()) };
    let longest = "a".repeat(50);
    cluster.run_helm(&["template", &longest, chart::DIR]).await?;
    let said = refused(cluster, &["template", &format!("{longest}b"), chart::DIR]).await?;
    ensure!(said.contains("Use a release name of at most 50 characters."), "{said}");
    // helm itself allows 53, and `-all` is short.
    let combined = ["template", &"a".repeat(53), chart::DIR, "--set=combined.enabled=true"];
    cluster.run_helm(&combined).await.map(drop)
}
