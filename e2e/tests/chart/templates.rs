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
    ensure_eq("budgets", names(&objects, "PodDisruptionBudget").len(), 6)?;
    for deployment in of_kind(&objects, "Deployment") {
        let name = &deployment["metadata"]["name"];
        let (template, container) = (&deployment["spec"]["template"], container(deployment)?);
        let pod = &template["spec"];
        let replicas = if name == "vpn-operator-webhook" { 3 } else { 2 };
        ensure_eq("replicas", &deployment["spec"]["replicas"], &json!(replicas))?;
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
    for object in [of_kind(&objects, "PodMonitor"), of_kind(&objects, "PrometheusRule")].concat() {
        let (name, labels) = (&object["metadata"]["name"], &object["metadata"]["labels"]);
        ensure_eq("label", (&labels["release"], &labels["app"]), (&json!("stack"), name))?;
    }
    // The prefix of metrics is in the environment of the operator only.
    for kind in ["PodMonitor", "PrometheusRule", "ConfigMap"] {
        let text = serde_json::to_string(&of_kind(&objects, kind))?;
        ensure!(!text.contains("vpno_"), "{kind}: {text}");
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
    let behind = |service: &str| {
        let service = service.replace(',', ",metricsApi.passThrough.custom.service.");
        format!("metricsApi.custom=true,metricsApi.passThrough.custom.service.{service}")
    };
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
        ("injection.enabled=perhaps", "at '/injection/enabled': got string, want boolean"),
        ("injection.replicas=0", "at '/injection/replicas': minimum: got 0, want 1"),
        ("injection.images=gluetun", "at '/injection': additional properties 'images' not allowed"),
        ("injection.image=gluetun latest", "at '/injection/image': 'gluetun latest' does not match"),
        ("injection.resources.limits.memory=lots", "at '/injection/resources/limits/memory': 'lots' does not match"),
        (
            "injection.webhookResources.limit.memory=1Gi",
            "at '/injection/webhookResources': additional properties 'limit'",
        ),
        ("injection.serviceAccountName=A_B", "at '/injection/serviceAccountName': 'A_B' does not match"),
        ("injection.outboundSubnets={10.0.0.1}", "at '/injection/outboundSubnets/0': '10.0.0.1' does not match"),
        ("injection.outboundSubnets=10.0.0.0/8", "at '/injection/outboundSubnets': got string, want array"),
        ("injection.namespaceSelector.a=b", "at '/injection/namespaceSelector': additional properties 'a' not allowed"),
        ("injection.namespaceSelector.matchLabels.a=1", "/matchLabels/a': got number, want string"),
        ("injection.namespaceSelector.matchExpressions={a}", "/matchExpressions/0': got string, want object"),
        ("injection.namespaceSelector.matchExpressions[0].key=a", "/matchExpressions/0': missing property 'operator'"),
        ("injection.namespaceSelector.matchExpressions[0].operator=Is", "of 'In', 'NotIn', 'Exists', 'DoesNotExist'"),
        ("injection.certificate.secretName=A_B", "at '/injection/certificate/secretName': 'A_B' does not match"),
        ("injection.networkPolicy.enabled=1", "at '/injection/networkPolicy/enabled': got number, want boolean"),
        ("logging.format=xml", "value must be one of 'text', 'json'"),
        ("podLabels.app=mine", "podLabels must not have the key app"),
        (r"podLabels.vpn\.beebs\.dev/inject=x", "podLabels must not have the key vpn.beebs.dev/inject"),
        ("replicas=2,leaderElection=false", "so leaderElection must be true"),
        ("metricsApi.passThrough.custom.service.name=a", "is set, so metricsApi.custom must be true"),
        (&behind("name=a"), "metricsApi.passThrough.custom.service needs a namespace"),
        (&behind("name=a,namespace=b"), "needs one of caBundle, caSecret and insecureSkipTLSVerify, but has none"),
        (&behind("name=test-metrics-api,namespace=default"), "come back to the metrics API"),
        (&behind("name=kubernetes,namespace=default"), "come back to the metrics API"),
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

#[tokio::test]
async fn a_metrics_api_in_front_of_other_servers_has_their_addresses_and_authorities() -> Result<()> {
    let Some(cluster) = local_cluster().await? else { return Ok(()) };
    let bundle = "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0t";
    let values = json!({
        "custom": true, "external": true,
        "passThrough": {
            "custom": {"service": {"namespace": "monitoring", "name": "adapter"}, "caBundle": bundle},
            "external": {"service": {"namespace": "keda", "name": "keda", "port": 6443}, "caSecret": "keda-ca"},
        },
    });
    let objects = chart::render(cluster, &[&format!("--set-json=metricsApi={values}")]).await?;
    let name = release("metrics-api");
    let deployment = of_kind(&objects, "Deployment").into_iter().find(|one| one["metadata"]["name"] == *name);
    let deployment = deployment.context("no Deployment")?;
    let env = |name: &str| -> Result<Value> {
        let env = container(deployment)?["env"].as_array().context("no env")?;
        Ok(env.iter().find(|one| one["name"] == name).map_or(Value::Null, |one| one["value"].clone()))
    };
    ensure_eq("custom", env("METRICS_API_PASS_THROUGH_CUSTOM")?, json!("https://adapter.monitoring.svc:443"))?;
    ensure_eq("external", env("METRICS_API_PASS_THROUGH_EXTERNAL")?, json!("https://keda.keda.svc:6443"))?;
    ensure_eq("insecure", env("METRICS_API_PASS_THROUGH_EXTERNAL_INSECURE")?, Value::Null)?;
    let spec = &deployment["spec"]["template"]["spec"];
    for (number, group) in ["custom", "external"].into_iter().enumerate() {
        let dir = format!("/etc/vpn-operator/pass-through/{group}");
        let file = env(&format!("METRICS_API_PASS_THROUGH_{}_CA", group.to_uppercase()))?;
        ensure_eq("file", file, json!(format!("{dir}/ca.crt")))?;
        ensure_eq("mount", &container(deployment)?["volumeMounts"][number]["mountPath"], &json!(dir))?;
    }
    let config = format!("{}-custom", release("metrics-pass-through"));
    ensure_eq("volume", &spec["volumes"][0]["configMap"]["name"], &json!(config))?;
    ensure_eq("volume", &spec["volumes"][1]["secret"]["secretName"], &json!("keda-ca"))?;
    let bundles = of_kind(&objects, "ConfigMap");
    ensure_eq("bundle", &bundles[0]["data"]["ca.crt"], &json!("-----BEGIN CERTIFICATE-----"))?;

    // Other servers see tokens of this account, so it may only read metrics.
    let account = release("metrics-pass-through");
    let subject = |object: &&Value| object["subjects"][0]["name"] == *account;
    let roles: Vec<_> = of_kind(&objects, "ClusterRoleBinding").into_iter().filter(subject).collect();
    ensure_eq("bindings", roles.len() + of_kind(&objects, "RoleBinding").into_iter().filter(subject).count(), 1)?;
    let role = of_kind(&objects, "ClusterRole").into_iter().find(|one| one["metadata"]["name"] == *account);
    let groups = ["custom.metrics.k8s.io", "external.metrics.k8s.io"];
    let rule = json!([{"apiGroups": groups, "resources": ["*"], "verbs": ["get", "list"]}]);
    ensure_eq("rule", &role.context("no role")?["rules"], &rule)
}
