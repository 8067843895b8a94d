//! Many Masks deleted at once. Their release does not wait for the garbage collector, which by default makes about 20
//! requests per second for the whole cluster.

use anyhow::{Context, Result, ensure};
use e2e::{
    Cluster, ControlPlaneOptions, Framework, Layout, Operator,
    pods::usage::owned_pod,
    testing::{figures::report, framework::local_cluster, load},
    wait::TIMEOUT,
};
use vpn_types::{Mask, MaskConsumer, MaskReservation};

/// Starts a cluster for one test.
async fn cluster(controller_manager_args: &[&str]) -> Result<Option<Cluster>> {
    if local_cluster().await?.is_none() {
        return Ok(None);
    }
    let controller_manager_args = controller_manager_args.iter().map(|&arg| arg.to_owned()).collect();
    Ok(Some(Cluster::connect(ControlPlaneOptions { controller_manager_args, ..ControlPlaneOptions::default() }).await?))
}

#[tokio::test]
async fn a_slot_changes_hands_without_the_garbage_collector() -> Result<()> {
    let Some(cluster) = cluster(&["--controllers=*,-garbage-collector-controller"]).await? else { return Ok(()) };
    for layout in [Layout::Combined, Layout::FourProcesses] {
        let operator = Operator::start(&cluster, layout).await?;
        Framework::run(&cluster, &operator, "releases", async |f| {
            f.create_provider("vpn", 1).await?;
            f.create_active_mask("bare").await?;
            f.create_mask("with-pod").await?;
            f.wait_for_reason::<MaskConsumer>("with-pod", "NoFreeSlot").await?;
            f.delete::<Mask>("bare").await?;
            let consumer = f.wait_active("with-pod").await?;
            f.run_pod(owned_pod("user", &consumer, 1)?).await?;
            f.create_mask("last").await?;
            f.wait_for_reason::<MaskConsumer>("last", "NoFreeSlot").await?;
            f.delete::<Mask>("with-pod").await?;
            f.wait_active("last").await?;
            f.wait_deleted(&consumer).await?;
            f.delete::<Mask>("last").await?;
            f.wait_until_all::<MaskReservation>("no MaskReservation", <[_]>::is_empty).await.map(drop)
        })
        .await?;
        operator.stop().await?;
    }
    cluster.stop().await
}

/// Like `e2e load`, with fewer Masks.
#[tokio::test]
async fn many_slots_are_given_back_with_few_requests() -> Result<()> {
    const COUNT: usize = 100;
    let Some(cluster) = cluster(&load::AS_SHIPPED).await? else { return Ok(()) };
    for layout in [Layout::Combined, Layout::FourProcesses] {
        let operator = Operator::start(&cluster, layout).await?;
        for pods in [false, true] {
            Framework::run(&cluster, &operator, "many", async |f| {
                let figures = load::run(&cluster, &operator, f, (COUNT, pods, TIMEOUT)).await?;
                report(&figures.to_string());
                let (writes, reads) = (figures.release_writes, figures.release_reads);
                ensure!(writes <= 10 * COUNT + 20, "{writes} writes for {COUNT} releases");
                ensure!(reads <= COUNT, "{reads} reads for {COUNT} releases");
                Ok(())
            })
            .await
            .with_context(|| format!("{layout:?}, Pods: {pods}"))?;
        }
        operator.stop().await?;
    }
    cluster.stop().await
}
