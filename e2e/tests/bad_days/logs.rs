//! The log of the operator: plain text or JSON lines, each of which names its object.

use std::fs;

use anyhow::{Context, Result, ensure};
use e2e::{
    Cluster, Framework, Layout, Operator, OperatorOptions, pods::usage::owned_pod, testing::framework::local_cluster,
    wait::TIMEOUT,
};
use k8s_openapi::api::core::v1::ResourceQuota;
use serde_json::Value;
use vpn_types::Mask;

use crate::ALONE;

/// Messages about the process itself, which name no object.
const OF_THE_PROCESS: [&str; 4] =
    ["starting", "ready: all watches have listed", "stopping", "exiting with requests in flight"];

/// Masks are assigned, wait, are rejected and are released.
async fn a_day(f: &Framework) -> Result<()> {
    f.create_provider("vpn", 1).await?;
    let first = f.create_active_mask("first").await?;
    f.run_pod(owned_pod("user", &first, 1)?).await?;
    f.kubectl(&["create", "quota", "none", "--hard=count/maskconsumers.vpn.beebs.dev=1"]).await?;
    let in_force = |quota: &ResourceQuota| quota.status.as_ref().is_some_and(|status| status.used.is_some());
    f.wait_until("none", "a quota in force", in_force).await?;
    f.create_mask("refused").await?;
    f.wait_for_reason::<Mask>("refused", "QuotaExceeded").await?;
    f.kubectl(&["delete", "quota", "none"]).await?;
    f.wait_for_reason::<Mask>("refused", "NoFreeSlot").await?;
    f.delete::<Mask>("first").await?;
    f.wait_active("refused").await?;
    f.clear(TIMEOUT).await
}

async fn logged(cluster: &Cluster, layout: Layout, format: &str) -> Result<Vec<String>> {
    let setup =
        OperatorOptions::new(layout).arg(&format!("--log-format={format}")).env("RUST_LOG", "warn,vpn_operator=debug");
    let operator = Operator::start_with(cluster, setup).await?;
    Framework::run(cluster, &operator, "logs", a_day).await?;
    operator.stop().await?;
    let mut lines = Vec::new();
    for log in operator.logs() {
        lines.extend(fs::read_to_string(log)?.lines().map(str::to_owned));
    }
    Ok(lines)
}

#[tokio::test]
async fn every_line_names_its_object() -> Result<()> {
    let _alone = ALONE.lock().await;
    let Some(cluster) = local_cluster().await? else { return Ok(()) };

    let lines = logged(cluster, Layout::FourProcesses, "json").await?;
    for line in &lines {
        let entry: Value = serde_json::from_str(line).with_context(|| format!("no JSON: {line}"))?;
        let (fields, word) = (&entry["fields"], |name: &str| entry[name].as_str().is_some_and(|word| !word.is_empty()));
        ensure!(word("timestamp") && word("level") && word("target"), "{line}");
        let message = fields["message"].as_str().context("no message")?;
        let names =
            fields["kind"].is_string() && fields["object"].as_str().is_some_and(|name| name.contains(['/', '*']));
        ensure!(names || OF_THE_PROCESS.contains(&message), "no object in {line}");
        if fields["verb"] == "patch" {
            let part = fields["part"].as_str();
            ensure!(part.is_some_and(|part| ["status", "spec", "data", "finalizers"].contains(&part)), "{line}");
        }
    }
    ensure!(lines.iter().any(|line| line.contains("QuotaExceeded") && line.contains("/refused")), "no refusal");
    ensure!(lines.iter().any(|line| line.contains("\"part\":\"status\"")), "no patch of a status");

    let lines = logged(cluster, Layout::Combined, "text").await?;
    for line in &lines {
        let names = line.contains("kind=") && line.contains("object=");
        ensure!(names || OF_THE_PROCESS.iter().any(|words| line.contains(words)), "no object in {line}");
    }
    ensure!(lines.iter().any(|line| line.contains("QuotaExceeded") && line.contains("/refused")), "no refusal");
    Ok(())
}
