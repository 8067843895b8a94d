//! What helm renders for injection: the webhook, and the environment that it gives to Pods.

use anyhow::{Context, Result, ensure};
use e2e::{
    operator::chart,
    testing::framework::{ensure_eq, local_cluster},
};
use serde_json::{Value, json};

use crate::{container, file, names, of_kind, values};

const WEBHOOK: &str = "vpn-operator-webhook";

/// Returns the object of a kind with a name.
fn named<'a>(objects: &'a [Value], kind: &str, name: &str) -> Result<&'a Value> {
    let found = of_kind(objects, kind).into_iter().find(|object| object["metadata"]["name"] == name);
    found.with_context(|| format!("no {kind} {name}"))
}

/// Returns the value of a variable of the webhook.
fn env(objects: &[Value], name: &str) -> Result<Value> {
    let env = container(named(objects, "Deployment", WEBHOOK)?)?["env"].as_array().context("no env")?;
    Ok(env.iter().find(|one| one["name"] == name).map_or(Value::Null, |one| one["value"].clone()))
}

#[tokio::test]
async fn every_value_of_injection_gets_where_it_belongs() -> Result<()> {
    let Some(cluster) = local_cluster().await? else { return Ok(()) };
    let objects = chart::render(cluster, &[&values("everything")]).await?;
    let given: Value = serde_yaml::from_str(&std::fs::read_to_string(file("values/everything.yaml"))?)?;
    let given = &given["injection"];

    let webhook = container(named(&objects, "Deployment", WEBHOOK)?)?;
    ensure_eq("args", &webhook["args"], &json!(["serve-webhook"]))?;
    ensure_eq("resources", &webhook["resources"], &given["webhookResources"])?;
    for (variable, value) in [
        ("INJECTION_IMAGE", json!("registry.example.com/gluetun:2")),
        ("INJECTION_OUTBOUND_SUBNETS", json!("10.0.0.0/8,fd00::/8")),
        ("WEBHOOK_NAMES", json!("vpn-operator-webhook.vpn-operator.svc")),
        ("WEBHOOK_SECRET", json!(WEBHOOK)),
        ("WEBHOOK_CONFIGURATION", json!(WEBHOOK)),
    ] {
        ensure_eq(variable, env(&objects, variable)?, value)?;
    }
    let resources = env(&objects, "INJECTION_RESOURCES")?;
    let resources: Value = serde_json::from_str(resources.as_str().context("no resources")?)?;
    ensure_eq("resources of the sidecar", &resources, &given["resources"])?;
    let pods = container(named(&objects, "Deployment", "vpn-operator-pods")?)?;
    ensure_eq("args", &pods["args"], &json!(["manage-pods", "--leader-elect"]))?;
    ensure_eq("resources", &pods["resources"]["limits"]["memory"], &json!("192Mi"))?;

    for part in ["pods", "webhook"] {
        let (name, account) = (format!("vpn-operator-{part}"), json!(format!("ours-{part}")));
        let spec = &named(&objects, "Deployment", &name)?["spec"]["template"]["spec"];
        ensure_eq("account", &spec["serviceAccountName"], &account)?;
        let binding = named(&objects, "ClusterRoleBinding", &name)?;
        ensure_eq("subject", &binding["subjects"][0]["name"], &account)?;
        let budget = &named(&objects, "PodDisruptionBudget", &name)?["spec"];
        ensure_eq("budget", budget, &json!({"maxUnavailable": 1, "selector": {"matchLabels": {"app": name}}}))?;
    }

    let configuration = named(&objects, "MutatingWebhookConfiguration", WEBHOOK)?;
    ensure_eq("annotations", &configuration["metadata"]["annotations"], &given["certificate"]["annotations"])?;
    let hook = &configuration["webhooks"][0];
    ensure_eq("Service", &hook["clientConfig"]["service"]["namespace"], &json!("vpn-operator"))?;
    // The namespaces are limited further, and kube-system stays out.
    let system = json!({"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": ["kube-system"]});
    let wanted = &given["namespaceSelector"];
    let selector =
        json!({"matchLabels": wanted["matchLabels"], "matchExpressions": [system, wanted["matchExpressions"][0]]});
    ensure_eq("namespaces", &hook["namespaceSelector"], &selector)?;
    ensure_eq("failures", &hook["failurePolicy"], &json!("Fail"))?;

    // A labeled Pod in another namespace is refused, instead of started without its VPN.
    let policy = &named(&objects, "ValidatingAdmissionPolicy", WEBHOOK)?["spec"]["matchConstraints"];
    ensure_eq("namespaces", &policy["namespaceSelector"], &Value::Null)?;
    let binding = &named(&objects, "ValidatingAdmissionPolicyBinding", WEBHOOK)?["spec"];
    ensure_eq("binding", binding, &json!({"policyName": WEBHOOK, "validationActions": ["Deny"]}))?;

    let policy = &named(&objects, "NetworkPolicy", WEBHOOK)?["spec"];
    let ports = json!([{"ports": [{"port": 8443, "protocol": "TCP"}, {"port": 8080, "protocol": "TCP"}]}]);
    ensure_eq("Pods", &policy["podSelector"], &json!({"matchLabels": {"app": WEBHOOK}}))?;
    ensure_eq("ports", (&policy["policyTypes"], &policy["ingress"]), (&json!(["Ingress"]), &ports))
}

#[tokio::test]
async fn values_that_are_not_set_leave_injection_to_the_operator() -> Result<()> {
    let Some(cluster) = local_cluster().await? else { return Ok(()) };
    let enabled = "--set=injection.enabled=true";
    let objects = chart::render(cluster, &[enabled]).await?;
    for variable in ["INJECTION_IMAGE", "INJECTION_OUTBOUND_SUBNETS"] {
        ensure_eq(variable, env(&objects, variable)?, Value::Null)?;
    }
    ensure_eq("policies", names(&objects, "NetworkPolicy"), vec![])?;
    // All Pods of the webhook work, so there are two of them by default.
    ensure_eq("budgets", names(&objects, "PodDisruptionBudget"), vec![WEBHOOK.to_owned()])?;
    let hook = &named(&objects, "MutatingWebhookConfiguration", WEBHOOK)?["webhooks"][0];
    let system = json!([{"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": ["kube-system"]}]);
    ensure_eq("namespaces", &hook["namespaceSelector"], &json!({"matchExpressions": system}))?;

    // Verification and injection use the same image, unless injection has its own.
    let objects = chart::render(cluster, &[enabled, "--set=verify.images.vpn=registry.example.com/gluetun:1"]).await?;
    ensure_eq("image", env(&objects, "INJECTION_IMAGE")?, json!("registry.example.com/gluetun:1"))?;

    // Without metrics, only the API server has a reason to connect.
    let args = [enabled, "--set=injection.networkPolicy.enabled=true,prometheus.expose=false"];
    let objects = chart::render(cluster, &args).await?;
    let policy = &named(&objects, "NetworkPolicy", WEBHOOK)?["spec"];
    ensure_eq("ports", &policy["ingress"], &json!([{"ports": [{"port": 8443, "protocol": "TCP"}]}]))?;

    // One webhook: a PodDisruptionBudget would keep its node from being drained.
    let objects = chart::render(cluster, &[enabled, "--set=injection.replicas=1"]).await?;
    ensure_eq("budgets", names(&objects, "PodDisruptionBudget"), vec![])
}

#[tokio::test]
async fn a_webhook_whose_certificate_something_else_keeps_may_not_change_it() -> Result<()> {
    let Some(cluster) = local_cluster().await? else { return Ok(()) };
    let args = chart::injection_args(Some("webhook-tls"));
    let objects = chart::render(cluster, &args.iter().map(String::as_str).collect::<Vec<_>>()).await?;
    ensure_eq("secret", env(&objects, "WEBHOOK_SECRET")?, json!("webhook-tls"))?;
    ensure_eq("names", env(&objects, "WEBHOOK_NAMES")?, Value::Null)?;
    let rule = json!([{
        "apiGroups": [""], "resources": ["secrets"], "resourceNames": ["webhook-tls"], "verbs": ["get", "list", "watch"],
    }]);
    let role = named(&objects, "Role", "vpn-operator-webhook-certificate")?;
    ensure_eq("rules", &role["rules"], &rule)?;
    let role = serde_json::to_string(named(&objects, "ClusterRole", WEBHOOK)?)?;
    ensure!(!role.contains("mutatingwebhookconfigurations"), "{role}");
    let configuration = named(&objects, "MutatingWebhookConfiguration", WEBHOOK)?;
    let source = &configuration["metadata"]["annotations"]["cert-manager.io/inject-ca-from"];
    ensure_eq("source of the CA", source, &json!("vpn-operator/webhook-tls"))
}

/// Without injection, nothing has the metrics that these alerts miss.
#[tokio::test]
async fn alerts_miss_the_pods_controller_and_the_webhook_only_where_they_run() -> Result<()> {
    let Some(cluster) = local_cluster().await? else { return Ok(()) };
    let rules = "--set=prometheus.rules.enabled=true";
    for (enabled, expected) in [(false, vec![1]), (true, vec![1, 1])] {
        let injection = format!("--set=injection.enabled={enabled}");
        let objects = chart::render(cluster, &[rules, &injection]).await?;
        let groups = named(&objects, "PrometheusRule", chart::RELEASE)?["spec"]["groups"].as_array();
        let down = |group: &Value| {
            let rules = group["rules"].as_array().into_iter().flatten();
            rules.filter(|rule| rule["alert"] == "VpnOperatorDown").count()
        };
        ensure_eq("VpnOperatorDown", groups.context("no groups")?.iter().map(down).collect::<Vec<_>>(), expected)?;
        let text = serde_json::to_string(&groups)?;
        ensure_eq("pods controller", text.contains("absent(vpno_pods_reconcile_counter)"), enabled)?;
    }
    // The prefix of metrics and the address of the runbook are those of the values.
    let own = [
        "--set=prometheus.rules.runbookUrl=https://wiki",
        "--set=extraEnv[0].name=METRICS_PREFIX,extraEnv[0].value=us",
    ];
    let objects = chart::render(cluster, &[&[rules, "--set=injection.enabled=true"], &own[..]].concat()).await?;
    let alert = &named(&objects, "PrometheusRule", chart::RELEASE)?["spec"]["groups"][1]["rules"][0];
    let expr = "absent(us_pods_reconcile_counter) or absent(us_webhook_certificate_expiry_timestamp_seconds)\n";
    ensure_eq("expression", &alert["expr"], &json!(expr))?;
    ensure_eq("runbook", &alert["annotations"]["runbook_url"], &json!("https://wiki#vpnoperatordown"))
}

/// Kubernetes 1.29 does not serve `admissionregistration.k8s.io/v1` ValidatingAdmissionPolicy.
#[tokio::test]
async fn kubernetes_1_29_gets_the_webhook_without_the_admission_policy() -> Result<()> {
    let Some(cluster) = local_cluster().await? else { return Ok(()) };
    let policies = ["ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"];
    let without_policies = |mut objects: Vec<Value>| {
        objects.retain(|object| policies.iter().all(|kind| object["kind"] != *kind));
        objects
    };
    let values = values("everything");
    let render = async |version: &str| chart::render(cluster, &[&values, "--kube-version", version]).await;
    let newer = render("1.30.0").await?;
    for kind in policies {
        ensure_eq(kind, names(&newer, kind), vec![WEBHOOK.to_owned()])?;
    }
    // Versions of cloud providers have a suffix, with which semver would otherwise order them before 1.30.0.
    for version in ["1.30.0-gke.1", "1.30.0+k3s1"] {
        ensure_eq(version, names(&render(version).await?, policies[0]), vec![WEBHOOK.to_owned()])?;
    }
    let older = render("1.29.0").await?;
    for kind in policies {
        ensure_eq(kind, names(&older, kind), vec![])?;
    }
    ensure!(older == without_policies(newer), "Kubernetes 1.29 gets other objects than 1.30");
    Ok(())
}
