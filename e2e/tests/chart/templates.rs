//! What helm renders, and what it rejects.

use anyhow::{Context, Result, ensure};
use e2e::{
    operator::chart,
    testing::framework::{ensure_eq, local_cluster},
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
    let Some(cluster) = local_cluster().await? else { return Ok(()) };
    for name in FILES {
        cluster.run_helm(&["lint", "--strict", chart::DIR, &values(name)]).await?;
    }
    cluster.run_helm(&["lint", "--strict", chart::DIR]).await?;
    // The chart has the version of the operator, and uses the image of that version.
    let chart: Value = serde_yaml::from_str(&std::fs::read_to_string(format!("{}/Chart.yaml", chart::DIR))?)?;
    let values: Value = serde_yaml::from_str(&std::fs::read_to_string(format!("{}/values.yaml", chart::DIR))?)?;
    ensure_eq("version", &chart["version"], &json!(env!("CARGO_PKG_VERSION")))?;
    ensure_eq("appVersion", &chart["appVersion"], &chart["version"])?;
    ensure_eq("image", &values["image"], &json!(e2e::operator_image::NAME.trim_start_matches("docker.io/")))
}

#[tokio::test]
async fn the_names_that_1_0_1_used() -> Result<()> {
    let Some(cluster) = local_cluster().await? else { return Ok(()) };
    let objects = chart::render(cluster, &[&values("published")]).await?;
    let expected: Vec<_> = CONTROLLERS.iter().map(|part| release(part)).collect();
    ensure_eq("Deployments", &names(&objects, "Deployment"), &expected)?;
    ensure_eq("PodMonitors", &names(&objects, "PodMonitor"), &expected)?;
    for deployment in of_kind(&objects, "Deployment") {
        let name = &deployment["metadata"]["name"];
        let part = name.as_str().context("no name")?.trim_start_matches("vpn-operator-").to_owned();
        ensure_eq("label", &deployment["metadata"]["labels"]["app"], name)?;
        // A selector is immutable: another one would make the upgrade fail.
        ensure_eq("selector", &deployment["spec"]["selector"], &json!({ "matchLabels": { "app": name } }))?;
        ensure_eq("Pods", &deployment["spec"]["template"]["metadata"]["labels"]["app"], name)?;
        let container = container(deployment)?;
        ensure_eq("image", &container["image"], &json!("thavlik/vpn-operator:latest"))?;
        ensure_eq("pull", &container["imagePullPolicy"], &json!("Always"))?;
        ensure_eq("port", &container["ports"][0]["name"], &json!("metrics"))?;
        ensure_eq("port", &container["ports"][0]["containerPort"], &json!(8080))?;
        ensure_eq("args", &container["args"], &json!([format!("manage-{part}"), "--leader-elect"]))?;
        let published = json!({
            "requests": { "memory": "32Mi", "cpu": "10m" }, "limits": { "memory": "64Mi", "cpu": "100m" },
        });
        ensure_eq("resources", &container["resources"], &published)?;
    }
    for monitor in of_kind(&objects, "PodMonitor") {
        let name = &monitor["metadata"]["name"];
        ensure_eq("selector", &monitor["spec"]["selector"], &json!({ "matchLabels": { "app": name } }))?;
        ensure_eq("port", &monitor["spec"]["podMetricsEndpoints"][0]["port"], &json!("metrics"))?;
    }
    Ok(())
}

#[tokio::test]
async fn every_value_gets_where_it_belongs() -> Result<()> {
    let Some(cluster) = local_cluster().await? else { return Ok(()) };
    let objects = chart::render(cluster, &[&values("everything")]).await?;
    let given: Value = serde_yaml::from_str(&std::fs::read_to_string(file("values/everything.yaml"))?)?;
    ensure_eq("budgets", names(&objects, "PodDisruptionBudget").len(), 4)?;
    for deployment in of_kind(&objects, "Deployment") {
        let name = &deployment["metadata"]["name"];
        let (template, container) = (&deployment["spec"]["template"], container(deployment)?);
        let pod = &template["spec"];
        ensure_eq("replicas", &deployment["spec"]["replicas"], &json!(2))?;
        ensure_eq("label", &template["metadata"]["labels"]["example.com/team"], &json!("network"))?;
        ensure_eq("annotation", &template["metadata"]["annotations"]["example.com/restarted"], &json!("1"))?;
        ensure_eq("secrets", &pod["imagePullSecrets"], &json!([{ "name": "registry" }, { "name": "other-registry" }]))?;
        for field in ["nodeSelector", "tolerations", "affinity", "priorityClassName"] {
            ensure_eq(field, &pod[field], &given[field])?;
        }
        ensure_eq("security", &pod["securityContext"], &given["podSecurityContext"])?;
        let spread = json!([{
            "maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": { "matchLabels": { "app": name } },
        }]);
        ensure_eq("spread", &pod["topologySpreadConstraints"], &spread)?;
        let env = container["env"].as_array().context("no env")?;
        let value = |name: &str| {
            let mut found = env.iter().filter(|variable| variable["name"] == name);
            (found.next().map(|variable| variable["value"].clone()), found.count())
        };
        ensure_eq("format", value("LOG_FORMAT"), (Some(json!("json")), 0))?;
        ensure_eq("the later one", value("RUST_LOG"), (Some(json!("debug")), 0))?;
        ensure_eq("the extra one", value("METRICS_PREFIX"), (Some(json!("vpn")), 0))?;
        let verifies = name == "vpn-operator-providers";
        let only = |text: &str| (verifies.then(|| json!(text)), 0);
        ensure_eq("image", value("VERIFY_VPN_IMAGE"), only("registry.example.com/gluetun:1"))?;
        ensure_eq("image", value("VERIFY_INIT_IMAGE"), only("registry.example.com/curl:1"))?;
        ensure_eq("image", value("VERIFY_PROBE_IMAGE"), only("registry.example.com/curl:2"))?;
        ensure_eq("services", value("VERIFY_IP_SERVICES"), only("https://ip.example.com,http://ip.example.org/json"))?;
        ensure_eq("timeout", value("VERIFY_TIMEOUT"), only("1m30s"))?;
        ensure_eq("timeout", value("VERIFY_SCHEDULING_TIMEOUT"), only("10m"))?;
        let resources = value("VERIFY_RESOURCES").0.as_ref().and_then(Value::as_str).map(serde_json::from_str::<Value>);
        ensure_eq("resources", resources.transpose()?.as_ref(), verifies.then_some(&given["verify"]["resources"]))?;
    }
    let account = |part: &str| {
        let named = |object: &&&Value| object["metadata"]["name"] == release(part);
        let deployments = of_kind(&objects, "Deployment");
        deployments.iter().find(named).map(|object| object["spec"]["template"]["spec"]["serviceAccountName"].clone())
    };
    ensure_eq("account", account("masks"), Some(json!("ours-masks")))?;
    ensure_eq("account", account("consumers"), Some(json!("vpn-operator-consumers")))
}

#[tokio::test]
async fn what_is_not_asked_for_is_not_there() -> Result<()> {
    let Some(cluster) = local_cluster().await? else { return Ok(()) };
    let objects = chart::render(cluster, &[]).await?;
    for kind in ["PodMonitor", "PodDisruptionBudget", "PrometheusRule", "ConfigMap", "Secret", "Job"] {
        ensure_eq(kind, names(&objects, kind), vec![])?;
    }
    ensure_eq("kinds", names(&objects, "CustomResourceDefinition").len(), vpn_types::crds().len())?;
    let text = serde_json::to_string(&objects)?;
    ensure!(!text.contains("VERIFY_"), "defaults of verification are the operator's");

    let objects = chart::render(cluster, &[&values("combined")]).await?;
    ensure_eq("Deployments", names(&objects, "Deployment"), vec![release("all")])?;
    ensure_eq("accounts", names(&objects, "ServiceAccount"), vec![release("all")])?;
    ensure_eq("args", &container(of_kind(&objects, "Deployment")[0])?["args"], &json!(["manage-all"]))?;
    for kind in ["CustomResourceDefinition", "PodMonitor"] {
        ensure_eq(kind, names(&objects, kind), vec![])?;
    }
    ensure!(!serde_json::to_string(&objects)?.contains("aggregate-to"), "aggregated roles");

    let objects = chart::render(cluster, &["--set=rbac.create=false,rbac.aggregate=false"]).await?;
    for kind in ["Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"] {
        ensure_eq(kind, names(&objects, kind), vec![])?;
    }
    let objects = chart::render(cluster, &["--set=serviceAccounts.create=false"]).await?;
    ensure_eq("accounts", names(&objects, "ServiceAccount"), vec![])
}

#[tokio::test]
async fn nonsense_is_refused_with_the_reason() -> Result<()> {
    let Some(cluster) = local_cluster().await? else { return Ok(()) };
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
    let Some(cluster) = local_cluster().await? else { return Ok(()) };
    let longest = "a".repeat(50);
    cluster.run_helm(&["template", &longest, chart::DIR]).await?;
    let said = refused(cluster, &["template", &format!("{longest}b"), chart::DIR]).await?;
    ensure!(said.contains("Use a release name of at most 50 characters."), "{said}");
    // helm allows 53 characters, and `-all` is a short suffix.
    let combined = ["template", &"a".repeat(53), chart::DIR, "--set=combined.enabled=true"];
    cluster.run_helm(&combined).await.map(drop)
}
