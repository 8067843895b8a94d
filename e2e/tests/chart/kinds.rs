//! The CustomResourceDefinitions: created by the chart or by kubectl, upgraded, kept.

use std::{fs, path::Path};

use anyhow::{Result, ensure};
use e2e::{
    Cluster,
    host::go,
    operator::chart,
    testing::framework::{ensure_eq, local_cluster},
};
use serde_json::Value;

use crate::{ALONE, CRDS, Release, path_text, refused};

/// Creates them with kubectl.
pub async fn apply(cluster: &Cluster) -> Result<()> {
    cluster.run_kubectl(&["apply", "--server-side", "--force-conflicts", "-f", CRDS]).await?;
    established(cluster).await
}

async fn established(cluster: &Cluster) -> Result<()> {
    let wait = ["wait", "--for=condition=Established", "--timeout=60s", "-f", CRDS];
    cluster.run_kubectl(&wait).await.map(drop)
}

/// Deletes them.
pub async fn delete(cluster: &Cluster) -> Result<()> {
    // Serve each kind at least once. If its storage is not ready when it is deleted, the API server removes it only at
    // the next resync after five minutes.
    for kind in ["maskconsumers", "maskproviders", "maskreservations", "masks"] {
        // The CRD may not exist.
        drop(cluster.run_kubectl(&["get", kind, "--all-namespaces"]).await);
    }
    cluster.run_kubectl(&["delete", "--ignore-not-found", "-f", CRDS]).await.map(drop)
}

/// Returns how many of them exist.
pub async fn present(cluster: &Cluster) -> Result<usize> {
    let found = cluster.run_kubectl(&["get", "--ignore-not-found", "--output=name", "-f", CRDS]).await?;
    Ok(found.lines().count())
}

async fn masks(cluster: &Cluster) -> Result<Value> {
    let shown = cluster.run_kubectl(&["get", "crd", "masks.vpn.beebs.dev", "--output=json"]).await?;
    Ok(serde_json::from_str(&shown)?)
}

/// Installs the CRDs of the Prometheus Operator from its Go module. The chart uses two of them.
pub async fn of_prometheus(cluster: &Cluster) -> Result<()> {
    let module = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/prometheus-operator"));
    let source = || go::source(module, "github.com/prometheus-operator/prometheus-operator");
    let dir = tokio::task::spawn_blocking(source).await??.join("example/prometheus-operator-crd");
    let file = |kind| dir.join(format!("monitoring.coreos.com_{kind}.yaml"));
    let (monitors, rules) = (file("podmonitors"), file("prometheusrules"));
    let files = ["-f", path_text(&monitors)?, "-f", path_text(&rules)?];
    cluster.run_kubectl(&[&["apply", "--server-side"], &files[..]].concat()).await?;
    let wait = ["wait", "--for=condition=Established", "--timeout=60s"];
    cluster.run_kubectl(&[&wait[..], &files[..]].concat()).await.map(drop)
}

#[tokio::test]
async fn made_by_the_chart_they_are_brought_up_to_date_and_kept() -> Result<()> {
    let _alone = ALONE.lock().await;
    let Some(cluster) = local_cluster().await? else { return Ok(()) };
    delete(cluster).await?;
    let release = Release { cluster, name: "kinds" };

    // An older version of the chart, without one field of the Mask.
    let older = tempfile::tempdir()?;
    copy(chart::DIR.as_ref(), older.path())?;
    let path = older.path().join("files/crds/vpn.beebs.dev_mask_crd.yaml");
    let mut kind: Value = serde_yaml::from_str(&fs::read_to_string(&path)?)?;
    let schema =
        |kind: &mut Value| kind["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"].take();
    let mut spec = schema(&mut kind);
    ensure!(spec["properties"].as_object_mut().and_then(|fields| fields.remove("priority")).is_some(), "no priority");
    kind["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"] = spec;
    fs::write(&path, serde_yaml::to_string(&kind)?)?;
    release.helm("install", Some(path_text(older.path())?), &["--wait", "--timeout=90s"]).await?;
    let mut first = masks(cluster).await?;
    ensure!(schema(&mut first)["properties"].get("priority").is_none(), "not the older kind");

    release.upgrade(&[]).await?;
    let mut now = masks(cluster).await?;
    ensure_eq("kind", &now["metadata"]["uid"], &first["metadata"]["uid"])?;
    ensure!(schema(&mut now)["properties"].get("priority").is_some(), "still the older kind");

    // The CRD stays, also if `crds.install` is then set to false.
    release.upgrade(&["--set=crds.install=false"]).await?;
    ensure_eq("kinds", present(cluster).await?, vpn_types::crds().len())?;
    release.upgrade(&[]).await?;
    release.helm("uninstall", None, &["--wait"]).await?;
    ensure_eq("kind", &masks(cluster).await?["metadata"]["uid"], &first["metadata"]["uid"])?;

    // A new release can be installed, with the same name or another one.
    release.upgrade(&[]).await?;
    release.helm("uninstall", None, &["--wait"]).await?;
    let other = Release { cluster, name: "other" };
    let notes = other.upgrade(&[]).await?;
    ensure!(notes.contains("masks.vpn.beebs.dev was not created by this release"), "{notes}");
    other.remove().await?;
    apply(cluster).await
}

#[tokio::test]
async fn made_by_kubectl_they_have_to_be_those_of_the_chart() -> Result<()> {
    let _alone = ALONE.lock().await;
    let Some(cluster) = local_cluster().await? else { return Ok(()) };
    delete(cluster).await?;
    apply(cluster).await?;
    let release = Release { cluster, name: "kinds" };
    let notes = release.upgrade(&[]).await?;
    ensure!(notes.contains("masks.vpn.beebs.dev was not created by this release"), "{notes}");
    ensure!(masks(cluster).await?["metadata"]["annotations"]["meta.helm.sh/release-name"].is_null(), "taken over");

    let older =
        r#"[{"op": "remove", "path": "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/priority"}]"#;
    let patch = ["patch", "crd", "masks.vpn.beebs.dev", "--type=json", "--patch", older];
    cluster.run_kubectl(&patch).await?;
    let said = refused(cluster, &release.args("upgrade", Some(chart::DIR), &["--install"])).await?;
    let way_out = "kubectl apply --server-side --force-conflicts -f crds/";
    ensure!(said.contains("masks.vpn.beebs.dev") && said.contains(way_out), "{said}");
    release.upgrade(&["--set=crds.install=false"]).await?;
    apply(cluster).await?;
    release.upgrade(&[]).await?;
    release.remove().await?;
    apply(cluster).await
}

fn copy(from: &std::path::Path, to: &std::path::Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let (path, name) = entry.map(|entry| (entry.path(), entry.file_name()))?;
        if path.is_dir() {
            copy(&path, &to.join(name))?;
        } else {
            fs::copy(&path, to.join(name))?;
        }
    }
    Ok(())
}
