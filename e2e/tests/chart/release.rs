//! The life of a release, from the upgrade of version 1.0.1 to its removal.

use anyhow::{Context, Result, ensure};
use e2e::{
    Cluster, Framework,
    operator::chart,
    testing::framework::{ensure_eq, local_cluster},
};
use serde_json::Value;
use tokio::process::Command;
use vpn_types::Mask;

use crate::{ALONE, Release, file, kinds, names, values};

/// Returns what identifies the Deployments of a release.
fn deployments(objects: &[Value]) -> Vec<(Value, Value)> {
    let metadata = |object: &Value| (object["metadata"]["name"].clone(), object["metadata"]["uid"].clone());
    let mut found: Vec<_> = crate::of_kind(objects, "Deployment").into_iter().map(metadata).collect();
    found.sort_by_key(|(name, _)| name.to_string());
    found
}

/// Installs with each values file, uninstalls, and checks what is left.
#[tokio::test]
async fn every_rendered_object_is_accepted_and_goes_again() -> Result<()> {
    let _alone = ALONE.lock().await;
    let Some(cluster) = local_cluster().await? else { return Ok(()) };
    kinds::of_prometheus(cluster).await?;
    for namespace in ["bounded-apps", "bounded-accounts"] {
        cluster.run_kubectl(&["create", "namespace", namespace]).await?;
    }
    for name in ["published", "everything", "combined", "bounded"] {
        let release = Release { cluster, name: "install" };
        let values = values(name);
        let mut args = vec![values.as_str()];
        if name == "combined" {
            // These values leave the CRDs to kubectl.
            kinds::apply(cluster).await?;
        } else {
            kinds::delete(cluster).await?;
        }
        let rendered = chart::render(cluster, &args).await?;
        args.insert(0, "--dry-run=server");
        release.upgrade(&args).await.with_context(|| format!("dry run with {name}"))?;
        // `--wait` waits until the Deployments are Available.
        release.upgrade(&args[1..]).await.with_context(|| format!("with {name}"))?;
        as_the_notes_say(&release).await.with_context(|| format!("notes with {name}"))?;
        let objects = release.objects().await?;
        let rendered_names = |kind| names(&rendered, kind).len();
        for kind in KINDS {
            ensure_eq(kind, names(&objects, kind).len(), rendered_names(kind))?;
        }
        release.helm("uninstall", None, &["--wait"]).await?;
        let left = cluster.run_kubectl(&["get", LEFT, "--all-namespaces", "--output=name", "-l", OURS]).await?;
        ensure_eq("left", left.as_str(), "")?;
        ensure!(kinds::present(cluster).await? == vpn_types::crds().len(), "uninstalling the release deleted CRDs");
    }
    kinds::apply(cluster).await
}

/// Runs the first command of the notes, split as a shell does.
async fn as_the_notes_say(release: &Release<'_>) -> Result<()> {
    let Release { cluster, name } = release;
    let notes = cluster.run_helm(&["get", "notes", name, "--namespace", name]).await?;
    let command = notes.split("\n\n").find_map(|part| part.trim().strip_prefix("kubectl ")).context("no command")?;
    let words = Command::new("sh").arg("-c").arg(format!("printf '%s\\n' {command}")).output().await?.stdout;
    let words = String::from_utf8(words)?;
    let said = cluster.run_kubectl(&words.lines().collect::<Vec<_>>()).await?;
    ensure!(said.lines().count() > 0 && said.lines().all(|line| line.ends_with("condition met")), "{command}:\n{said}");
    Ok(())
}

const OURS: &str = "app.kubernetes.io/instance=install";
const KINDS: [&str; 10] = [
    "Deployment",
    "PodMonitor",
    "PodDisruptionBudget",
    "ClusterRole",
    "Role",
    "ServiceAccount",
    "Service",
    "MutatingWebhookConfiguration",
    "ValidatingAdmissionPolicy",
    "NetworkPolicy",
];
const LEFT: &str = "deployments,pods,poddisruptionbudgets,podmonitors,serviceaccounts,roles,rolebindings,clusterroles,\
                    clusterrolebindings,services,mutatingwebhookconfigurations,validatingadmissionpolicies,\
                    validatingadmissionpolicybindings,networkpolicies";

#[tokio::test]
async fn from_1_0_1_forth_and_back_to_the_end() -> Result<()> {
    let _alone = ALONE.lock().await;
    let Some(cluster) = local_cluster().await? else { return Ok(()) };
    kinds::of_prometheus(cluster).await?;
    kinds::apply(cluster).await?;
    let f = Framework::new(cluster, "release").await?;
    f.create_mask("stays").await?;
    let test = life(cluster, &f);
    f.dump_on_error(test).await
}

async fn life(cluster: &Cluster, f: &Framework) -> Result<()> {
    let release = Release { cluster, name: "upgrade" };
    let published = values("published");
    let previous = file("previous");
    release.helm("install", Some(&previous), &[&published, "--wait", "--timeout=90s"]).await?;
    let before = deployments(&release.objects().await?);
    ensure_eq("Deployments", before.len(), 4)?;

    // An upgrade with the same values keeps the Deployments.
    release.upgrade(&[&published]).await?;
    let upgraded = release.objects().await?;
    ensure_eq("Deployments", deployments(&upgraded), before.clone())?;
    let probes = |objects: &[Value]| {
        let container = |object: &&Value| object["spec"]["template"]["spec"]["containers"][0].clone();
        let containers = crate::of_kind(objects, "Deployment");
        containers.iter().map(container).filter(|container| container["readinessProbe"].is_object()).count()
    };
    ensure_eq("with probes", probes(&upgraded), 4)?;

    // Other values, and back.
    release.upgrade(&[&values("everything")]).await?;
    ensure_eq("budgets", names(&release.objects().await?, "PodDisruptionBudget").len(), 6)?;
    release.upgrade(&["--set=combined.enabled=true"]).await?;
    let combined = release.objects().await?;
    ensure_eq("Deployments", names(&combined, "Deployment"), vec!["upgrade-all".to_owned()])?;
    release.helm("rollback", None, &["3", "--wait", "--timeout=90s"]).await?;
    ensure_eq("Deployments", names(&release.objects().await?, "Deployment").len(), 6)?;
    release.helm("rollback", None, &["1", "--wait", "--timeout=90s"]).await?;
    let back = release.objects().await?;
    ensure_eq("with probes", probes(&back), 0)?;
    ensure_eq("ServiceAccounts", names(&back, "ServiceAccount"), vec![])?;
    release.upgrade(&["--reset-then-reuse-values"]).await?;
    ensure_eq("PodMonitors", names(&release.objects().await?, "PodMonitor").len(), 4)?;

    let notes = cluster.run_helm(&["get", "notes", "upgrade", "--namespace", "upgrade"]).await?;
    ensure!(notes.contains("deployment/upgrade-masks"), "no next command: {notes}");

    release.helm("uninstall", None, &["--wait"]).await?;
    let left = cluster.run_kubectl(&["get", "deployments", "--namespace", "upgrade", "--output=name"]).await?;
    ensure_eq("left", left.as_str(), "")?;
    f.api::<Mask>().get("stays").await.context("uninstalling the release deleted a Mask")?;
    f.kubectl(&["delete", "mask", "stays"]).await.map(drop)
}
