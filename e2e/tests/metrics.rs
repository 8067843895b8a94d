//! A real Prometheus scrapes the operator's processes, as the chart's PodMonitors say. The tests check the metrics, the
//! alerts and the dashboard. [`discovery`] has the tests with the Prometheus Operator and the current Prometheus.

#[path = "metrics/adapter_rules.rs"]
mod adapter_rules;
#[path = "metrics/discovery/mod.rs"]
mod discovery;
#[path = "metrics/world.rs"]
mod world;

use std::path::Path;

use anyhow::{Context, Result, ensure};
use e2e::{
    Framework, Prometheus,
    audit::Access,
    cluster::shared,
    operator::chart::DIR as CHART,
    pods::usage::unowned_pod,
    testing::{
        framework::local_cluster,
        http::get,
        prometheus::{Programs, Sample, scrape_configs},
    },
    wait::{TIMEOUT, ready_condition},
};
use k8s_openapi::api::core::v1::Pod;
use serde_json::Value;
use vpn_types::{Mask, MaskConsumer, MaskConsumerPhase, MaskProvider, MaskReservation};
use world::{World, render};

const RULES: &str = "rules/vpn-operator.yaml";

#[test]
fn the_alerts_fire_when_they_should() -> Result<()> {
    alerts_fire(&Programs::ensure()?)
}

/// Checks the alerts with promtool, and that they fire as the files of tests say.
fn alerts_fire(programs: &Programs) -> Result<()> {
    let check = [RULES, "rules/injection.yaml"].map(|file| ("check", file));
    let test = ["rules/tests.yaml", "rules/injection-tests.yaml"].map(|file| ("test", file));
    for (what, file) in [check, test].concat() {
        let file = Path::new(CHART).join(file);
        let (success, text) = programs.promtool(&[what, "rules", &file.to_string_lossy()], "")?;
        ensure!(success, "{text}");
    }
    Ok(())
}

#[tokio::test]
async fn the_chart_has_the_alerts_and_the_dashboard_as_tested() -> Result<()> {
    let objects = render(shared::cluster().await?).await?;
    let of_kind = |kind: &str| objects.iter().find(|object| object["kind"] == kind).context("missing");
    let rules: Value = serde_yaml::from_str(&std::fs::read_to_string(Path::new(CHART).join(RULES))?)?;
    ensure!(of_kind("PrometheusRule")?["spec"] == rules, "the PrometheusRule is not {RULES}");
    let dashboard = of_kind("ConfigMap")?;
    ensure!(dashboard["metadata"]["labels"]["grafana_dashboard"] == "1", "{dashboard}");
    let rendered = dashboard["data"]["vpn-operator.json"].as_str().context("no dashboard")?;
    let file = std::fs::read_to_string(Path::new(CHART).join("dashboards/vpn-operator.json"))?;
    ensure!(rendered == file, "the ConfigMap is not the dashboard");
    Ok(())
}

#[tokio::test]
async fn prometheus_knows_what_the_operator_does() -> Result<()> {
    let Some(cluster) = local_cluster().await? else { return Ok(()) };
    let f = Framework::new(cluster, "metrics").await?;
    let test = async {
        let world = World::start(cluster, &f).await?;
        let prometheus = scraping(&world).await?;
        found(&prometheus).await?;
        known(&f, &world, &prometheus, &Programs::ensure()?).await?;
        world.stop().await
    };
    f.dump_on_error(test).await
}

/// Prometheus knows what the operator does.
async fn known(f: &Framework, world: &World<'_>, prometheus: &Prometheus, programs: &Programs) -> Result<()> {
    slots_and_masks(f, prometheus).await?;
    adapter_rules::check(f, prometheus).await?;
    checked(world, programs).await?;
    one_tells(world, prometheus).await?;
    dashboard(f, prometheus).await?;
    alerts(prometheus).await?;
    steady_state(f, world).await?;
    given_back(f, prometheus).await
}

async fn scraping(world: &World<'_>) -> Result<Prometheus> {
    let monitors = world.objects.iter().filter(|object| object["kind"] == "PodMonitor");
    let configs: Vec<_> = monitors.map(|monitor| scrape_configs(monitor, &world.targets)).collect::<Result<_>>()?;
    Prometheus::start(world.cluster, &configs.concat(), &Path::new(CHART).join(RULES)).await
}

/// Each process is a target with the names of its Pod and its PodMonitor.
async fn found(prometheus: &Prometheus) -> Result<()> {
    let all_up = |samples: &[Sample]| samples.len() == 4 && samples.iter().all(|sample| sample.value == 1.0);
    for target in prometheus.wait_until("up", "four targets", all_up).await? {
        let label = |name: &str| target.labels.get(name).cloned().unwrap_or_default();
        let release = label("job").replace("vpn-operator/", "");
        ensure!(label("pod").starts_with(&format!("{release}-")) && label("namespace") == "vpn-operator", "{target:?}");
        ensure!(label("container") == "operator" && label("endpoint") == "metrics", "{target:?}");
    }
    // Before anything is counted, so that Prometheus sees the increase.
    prometheus.wait_until_value("vpno_mask_assignment_duration_seconds_count", 0.0).await
}

/// Three slots, one in use and two held, and two waiting Masks.
async fn slots_and_masks(f: &Framework, prometheus: &Prometheus) -> Result<()> {
    let tags = || Some(vec!["eu".to_owned(), "fr".to_owned()]);
    f.create_provider_with("paris", 3, |spec| spec.tags = tags()).await?;
    // Its Secret does not exist.
    f.create(f.new_provider("rome", 2)).await?;
    for name in ["one", "two", "three"] {
        let consumer = f.create_active_mask(name).await?;
        // A Pod without an owner, which nobody deletes.
        f.run_pod(unowned_pod(name, &consumer, 1)?).await?;
    }
    for name in ["four", "five"] {
        f.create_mask_with_tags(name, &["eu"]).await?;
    }
    let reads = "sum(vpno_consumers_read_duration_seconds_count) > 0";
    for name in ["one", "two"] {
        f.delete::<Mask>(name).await?;
        f.wait_for_reason::<MaskConsumer>(name, "HeldByPods").await?;
    }
    // A release lists the Pods of the slot. Wait until that read is scraped.
    prometheus.wait_until(reads, "a read", |samples| !samples.is_empty()).await?;
    let namespace = f.name();
    let of = |provider: &str| format!("{{namespace=\"{namespace}\",provider=\"{provider}\"}}");
    for (name, value) in [("", 3.0), ("_used", 1.0), ("_held", 2.0), ("_free", 0.0), ("_demanded", 3.0)] {
        prometheus.wait_until_value(&format!("vpno_provider_slots{name}{}", of("paris")), value).await?;
    }
    prometheus.wait_until_value(&format!("vpno_provider_usable{}", of("paris")), 1.0).await?;
    prometheus.wait_until_value(&format!("vpno_provider_usable{}", of("rome")), 0.0).await?;
    prometheus.wait_until_value(&format!("vpno_provider_slots_demanded{}", of("rome")), 0.0).await?;
    for tag in ["eu", "fr"] {
        let waiting = if tag == "eu" { 2.0 } else { 0.0 };
        prometheus.wait_until_value(&format!("vpno_tag_slots_free{{tag=\"{tag}\"}}"), 0.0).await?;
        prometheus.wait_until_value(&format!("vpno_tag_masks_waiting{{tag=\"{tag}\"}}"), waiting).await?;
    }
    for phase in MaskConsumerPhase::ALL {
        let count = match phase {
            MaskConsumerPhase::Waiting | MaskConsumerPhase::Terminating => 2.0,
            MaskConsumerPhase::Active => 1.0,
            _ => 0.0,
        };
        prometheus
            .wait_until_value(&format!("vpno_masks{{namespace=\"{namespace}\",phase=\"{phase}\"}}"), count)
            .await?;
    }
    prometheus.wait_until_value(&format!("vpno_masks_waiting{{namespace=\"{namespace}\"}}"), 2.0).await?;
    let oldest = format!("vpno_masks_oldest_wait_seconds{{namespace=\"{namespace}\"}} > 0");
    prometheus.wait_until(&oldest, "a wait", |samples| samples.len() == 1).await?;
    prometheus.wait_until_value("vpno_mask_assignment_duration_seconds_count", 3.0).await?;
    ensure!(prometheus.query("{exported_namespace!=\"\"}").await?.is_empty(), "labels were overwritten");

    f.delete::<Mask>("three").await?;
    f.wait_for_reason::<MaskConsumer>("three", "HeldByPods").await?;
    prometheus.wait_until_value(&format!("vpno_provider_slots_held{}", of("paris")), 3.0).await
}

/// promtool reports nothing, except for names from earlier versions.
async fn checked(world: &World<'_>, programs: &Programs) -> Result<()> {
    for part in &world.parts {
        let text = get(part.port, "/metrics").await?;
        let (_, said) = programs.promtool(&["check", "metrics"], &text)?;
        let inherited = |line: &str| {
            let name = line.split(' ').next().unwrap_or_default();
            name.ends_with("_reconcile_counter") || name.ends_with("_action_counter")
        };
        let new: Vec<_> = said.lines().filter(|line| !line.trim().is_empty() && !inherited(line)).collect();
        ensure!(new.is_empty(), "{}: {new:?}\n{text}", part.name);
        ensure!(text.contains("process_resident_memory_bytes "), "{text}");
        for word in ["\"one\"", "\"four\"", "paris-0"] {
            ensure!(!text.contains(word), "{word} in a label:\n{text}");
        }
    }
    Ok(())
}

/// Only one process exports metrics of slots and Masks, even with a standby.
async fn one_tells(world: &World<'_>, prometheus: &Prometheus) -> Result<()> {
    prometheus.wait_until_value("count(vpno_mask_assignment_duration_seconds_count)", 1.0).await?;
    let standby = world.standby("consumers").await?;
    let text = get(standby.port, "/metrics").await?;
    ensure!(text.contains("vpno_consumers_reconcile_counter 0"), "{text}");
    for word in ["vpno_provider_", "vpno_tag_", "vpno_masks", "vpno_mask_"] {
        ensure!(!text.contains(word), "a standby exports {word}:\n{text}");
    }
    ensure!(standby.process.stop(TIMEOUT).await? == "exit code 0", "the standby did not exit cleanly");
    Ok(())
}

/// Assigns a slot and releases it, and waits until all statuses show it.
async fn round(f: &Framework) -> Result<()> {
    let used = async |slots: usize| {
        let used = |provider: &MaskProvider| provider.status.as_ref().and_then(|status| status.active_slots);
        f.wait_until("lyon", "its status", |provider| used(provider).unwrap_or(0) == slots).await
    };
    let mask = f.create_mask_with_tags("round", &["lyon"]).await?;
    let consumer = f.wait_active("round").await?;
    used(1).await?;
    f.delete::<Mask>("round").await?;
    f.wait_deleted(&mask).await?;
    f.wait_deleted(&consumer).await?;
    used(0).await.map(drop)
}

/// Every query of the dashboard returns numbers.
async fn dashboard(f: &Framework, prometheus: &Prometheus) -> Result<()> {
    // A rate needs a second event after the first one has been scraped.
    f.create_provider_with("lyon", 1, |spec| spec.tags = Some(vec!["lyon".to_owned()])).await?;
    round(f).await?;
    for (controller, action) in [
        ("masks", "CreateMaskConsumer"),
        ("consumers", "CreateMaskReservation"),
        ("reservations", "UpdateMaskReservation"),
        ("providers", "UpdateMaskProviderStatus"),
    ] {
        let scraped = format!("vpno_{controller}_write_duration_seconds_count{{action=\"{action}\"}}");
        prometheus.wait_until(&scraped, "it", |samples| samples.len() == 1).await?;
    }
    round(f).await?;
    let dashboard: Value =
        serde_json::from_str(&std::fs::read_to_string(Path::new(CHART).join("dashboards/vpn-operator.json"))?)?;
    let panels = dashboard["panels"].as_array().context("no panels")?;
    let mut queries = 0;
    for panel in panels {
        for target in panel["targets"].as_array().context("no targets")? {
            let expression = target["expr"].as_str().context("no query")?;
            let expression = expression
                .replace("$__rate_interval", "2m")
                .replace("$namespace", f.name())
                .replace("$job", "vpn-operator/.*");
            ensure!(!expression.contains('$'), "an unknown variable: {expression}");
            let numbers = |samples: &[Sample]| samples.iter().any(|sample| sample.value.is_finite());
            prometheus.wait_until(&expression, &format!("data for {}", panel["title"]), numbers).await?;
            queries += 1;
        }
    }
    ensure!(queries > 20, "only {queries} queries were found");
    Ok(())
}

/// Alerts that have not fired yet are pending where expected, and nowhere else. On a busy machine, others are pending
/// for a moment: a scrape can be late, and a slot can be held while it is released.
async fn alerts(prometheus: &Prometheus) -> Result<()> {
    let expected = |samples: &[Sample]| {
        let mut names: Vec<_> = samples.iter().filter_map(|sample| sample.labels.get("alertname")).collect();
        names.sort();
        names == ["VpnProviderUnusable", "VpnSlotsHeld"]
    };
    // How fast the API server answers depends on the machine. The tests of the rules check that alert.
    let alerts = r#"ALERTS{alertname!="VpnOperatorApiSlow"}"#;
    prometheus.wait_until(alerts, "VpnProviderUnusable and VpnSlotsHeld", expected).await.map(drop)
}

/// Scrapes make no requests to the API server.
async fn steady_state(f: &Framework, world: &World<'_>) -> Result<()> {
    let audit = world.cluster.audit().context("no audit log")?;
    // A release that takes long is reported in the status of its MaskReservation.
    let told = |one: &MaskReservation| ready_condition(one).is_some_and(|ready| ready.reason == "Releasing");
    let all_told = |all: &[MaskReservation]| all.len() == 3 && all.iter().all(told);
    f.wait_until_all("three releases that take long", all_told).await?;
    audit.settled(&world.users(), TIMEOUT).await?;
    let mark = audit.mark().await?;
    for _ in 0..50 {
        for part in &world.parts {
            get(part.port, "/metrics").await?;
        }
    }
    let requests = audit.since(mark).await?;
    let users = world.users();
    let other = requests.iter().filter(|request| {
        users.contains(&request.user) && request.access() != Access::Watch && request.resource != "leases"
    });
    let other: Vec<_> = other.map(ToString::to_string).collect();
    ensure!(other.is_empty(), "{other:?}");
    Ok(())
}

/// Deletes the remaining Pods: the slots are handed over, and at the end all objects and series are gone.
async fn given_back(f: &Framework, prometheus: &Prometheus) -> Result<()> {
    for name in ["one", "two", "three"] {
        f.delete::<Pod>(name).await?;
    }
    for name in ["four", "five"] {
        f.wait_active(name).await?;
    }
    let namespace = f.name();
    prometheus
        .wait_until_value(&format!("vpno_provider_slots_free{{namespace=\"{namespace}\",provider=\"paris\"}}"), 1.0)
        .await?;
    prometheus.wait_until_value("vpno_tag_slots_free{tag=\"eu\"}", 1.0).await?;
    prometheus.wait_until_value("vpno_mask_assignment_duration_seconds_count", 7.0).await?;
    f.clear(TIMEOUT).await?;
    let left = format!("{{__name__=~\"vpno_(masks|provider).*\",namespace=\"{namespace}\"}}");
    prometheus.wait_until(&left, "nothing", <[_]>::is_empty).await?;
    prometheus.wait_until("{__name__=~\"vpno_tag.*\"}", "nothing", <[_]>::is_empty).await.map(drop)
}
