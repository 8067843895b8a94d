//! The configuration and the targets of the quick test, compared with those that are generated and discovered.

use std::{collections::BTreeSet, path::Path};

use anyhow::{Context, Result, bail, ensure};
use e2e::{
    Prometheus,
    testing::{
        difference::differences,
        framework::ensure_eq,
        prometheus::{configuration, scrape_configs},
    },
};
use serde_json::{Value, json};

use super::prometheus_operator::Generated;
use crate::{CHART, RULES};

/// A field that differs, and why.
type Explained = (&'static str, &'static str);

const DISCOVERY: &str = "Debian's build of Prometheus cannot discover Pods. It reads them from a file.";
/// The differences of scrape configurations.
const OF_JOBS: &[Explained] = &[("/file_sd_configs", DISCOVERY), ("/kubernetes_sd_configs", DISCOVERY)];
/// The differences of what is left.
const OF_THE_REST: &[Explained] = &[
    ("/global/external_labels", "They name this Prometheus to others, such as Alertmanager. Queries do not show them."),
    ("/rule_files/0", "The file of the chart, instead of a ConfigMap with the same content."),
];

/// Fails unless two documents differ exactly in these fields.
fn judge(what: &str, ours: &Value, theirs: &Value, explained: &[Explained]) -> Result<()> {
    let found = differences(ours, theirs);
    let paths = found.iter().map(|difference| difference.path.as_str());
    let expected = explained.iter().map(|(path, _)| *path);
    ensure!(paths.eq(expected), "{what}: {found:#?}\nours {ours:#}\ntheirs {theirs:#}");
    Ok(())
}

/// Fails unless the quick test configures Prometheus for these PodMonitors as the Prometheus Operator does.
pub fn compare(generated: &Generated, monitors: &[Value]) -> Result<()> {
    let mut jobs = BTreeSet::new();
    for monitor in monitors {
        for ours in scrape_configs(monitor, Path::new("pods.json"))? {
            let name = ours["job_name"].as_str().context("a job without a name")?;
            let theirs = generated.job(name).with_context(|| format!("no job {name}"))?;
            judge(name, &ours, theirs, OF_JOBS)?;
            discovers(name, monitor, theirs)?;
            jobs.insert(name.to_owned());
        }
    }
    let all = generated.config["scrape_configs"].as_array().into_iter().flatten();
    let of_pods = all.filter_map(|job| job["job_name"].as_str()).filter(|name| name.starts_with("podMonitor/"));
    ensure_eq("the jobs of PodMonitors", of_pods.map(str::to_owned).collect(), jobs)?;

    let rules = Path::new(CHART).join(RULES);
    let (ours, mut theirs) = (configuration(&[], &rules), generated.config.clone());
    theirs["scrape_configs"] = json!([]);
    judge("the rest", &ours, &theirs, OF_THE_REST)?;
    let rules: Value = serde_yaml::from_str(&std::fs::read_to_string(rules)?)?;
    ensure_eq("the rules", &generated.rules, &vec![rules])
}

/// Fails unless a job discovers Pods in the namespaces that its PodMonitor selects.
fn discovers(name: &str, monitor: &Value, config: &Value) -> Result<()> {
    let all = monitor["spec"]["namespaceSelector"]["any"] == true;
    let namespaces = (!all).then(|| json!({ "names": [monitor["metadata"]["namespace"]] }));
    let [discovery] = config["kubernetes_sd_configs"].as_array().map(Vec::as_slice).unwrap_or_default() else {
        bail!("{name}: {config:#}");
    };
    ensure_eq(name, (&discovery["role"], discovery.get("namespaces")), (&json!("pod"), namespaces.as_ref()))
}

/// Fails unless these jobs discover the targets that the quick test reads from its file, with the same labels. A
/// discovered target may have more of them.
pub async fn compare_targets(prometheus: &Prometheus, jobs: &[String], file: &Path) -> Result<()> {
    let ours: Vec<Value> = serde_json::from_slice(&std::fs::read(file)?)?;
    let theirs = prometheus.get("/api/v1/targets").await?;
    let all = ["activeTargets", "droppedTargets"].map(|state| theirs[state].as_array());
    let all: Vec<_> = all.into_iter().flatten().flatten().collect();
    for job in jobs {
        let discovered: Vec<_> = all.iter().filter(|target| target["scrapePool"] == **job).collect();
        ensure_eq(job, discovered.len(), ours.len())?;
        for target in &ours {
            let labels = target["labels"].as_object().context("a target without labels")?;
            let same = |found: &Value| {
                found["__address__"] == target["targets"][0] && labels.iter().all(|(key, value)| found[key] == *value)
            };
            let found = discovered.iter().any(|target| same(&target["discoveredLabels"]));
            ensure!(found, "{job} did not discover {target:#}, but {discovered:#?}");
        }
    }
    Ok(())
}
