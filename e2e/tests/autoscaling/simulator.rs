//! `vpn-operator hpa simulate`, beside the real controller.

use anyhow::{Context, Result, ensure};
use e2e::{
    Cluster,
    operator::executable,
    testing::{documents::blocks, framework::ensure_eq},
};

use crate::{DOCUMENT, alone, apply_text, changes, replicas, replicas_over_syncs, wait_for_running};

/// An HPA that multiplies its replicas by the free slots: it oscillates. No whole number of free slots is within the
/// tolerance of its target, so it does not settle by chance either.
const ON_FREE_SLOTS: &str = "
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: worker}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: worker}
  minReplicas: 1
  maxReplicas: 20
  metrics:
    - type: External
      external:
        metric:
          name: vpno_provider_slots_free
          selector:
            matchLabels: {provider: vpn}
        target: {type: Value, value: 1500m}
  behavior:
    scaleUp:
      policies: [{type: Percent, value: 900, periodSeconds: 2}]
    scaleDown:
      stabilizationWindowSeconds: 0
";

/// Returns the first `count` replica counts that `vpn-operator hpa simulate` predicts for a manifest.
pub async fn simulated(cluster: &Cluster, manifest: &str, slots: usize, count: usize) -> Result<Vec<i32>> {
    let file = tempfile::Builder::new().suffix(".yaml").tempfile()?;
    std::fs::write(file.path(), manifest)?;
    let mut command = tokio::process::Command::new(executable(cluster).await?);
    command.args(["hpa", "simulate", file.path().to_str().context("no text")?, "--slots", &slots.to_string()]);
    command.args(["--sync-period", "2s", "--duration", "180s", "--pod-delay", "0s", "--output", "csv"]);
    let output = command.output().await?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout)?;
    let replicas = text.lines().skip(1).map(|line| Ok(line.split(',').nth(3).context(line.to_owned())?.parse()?));
    let mut replicas = replicas.collect::<Result<Vec<i32>>>()?;
    replicas.dedup();
    replicas.truncate(count);
    Ok(replicas)
}

#[tokio::test]
async fn the_simulator_predicts_what_the_controller_does() -> Result<()> {
    alone(async |cluster, f, _| {
        f.create_provider("vpn", 20).await?;
        let text =
            blocks(&std::fs::read_to_string(DOCUMENT)?, Some("## Take the slots that are left"), "yaml").concat();
        let (deployment, good) = text.split_once("---\n").context("one object")?;
        apply_text(f, deployment).await?;
        wait_for_running(f, 1).await?;

        let wanted = simulated(cluster, ON_FREE_SLOTS, 20, 6).await?;
        ensure_eq("the simulator", &wanted[..], &[10, 20, 1, 10, 20, 1][..])?;
        // How far and how fast it swings depends on when Pods start and slots are released, that it does so does not.
        let falls_twice = |seen: &[i32]| seen.windows(2).filter(|pair| pair[1] < pair[0]).count() == 2;
        let swings = changes(f, "worker", replicas, falls_twice);
        tokio::try_join!(apply_text(f, ON_FREE_SLOTS), swings).context("an HPA on free slots settles")?;

        let wanted = simulated(cluster, good, 20, 6).await?;
        f.kubectl(&["delete", "hpa", "worker"]).await?;
        // A sync that began before the deletion may still set its count.
        loop {
            f.kubectl(&["scale", "deployment/worker", "--replicas=1"]).await?;
            if replicas_over_syncs(f, "worker", 1).await? == [1].into() {
                break;
            }
        }
        wait_for_running(f, 1).await?;
        let seen = changes(f, "worker", replicas, |seen| seen.len() == wanted.len());
        let (_, seen) = tokio::try_join!(apply_text(f, good), seen)?;
        ensure_eq("an HPA on claimable slots", &seen, &wanted)?;
        ensure_eq("then nothing changes", replicas_over_syncs(f, "worker", 20).await?, [19].into())
    })
    .await
}
