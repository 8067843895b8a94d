//! Many Masks deleted at once, and what their release waits for: not for the garbage collector, which makes some 20
//! requests a second for a whole cluster as kube-controller-manager is shipped.

use anyhow::{Context, Result, ensure};
use e2e::{
    Bench, Cluster, Layout, Operator, Options,
    bench::{LIMIT, our_cluster},
    figures::report,
    load,
    users::user_pod,
};
use vpn_types::{Mask, MaskConsumer, MaskReservation};

/// A cluster of the test's own.
async fn cluster(controller_manager_args: &[&str]) -> Result<Option<Cluster>> {
    if our_cluster().await?.is_none() {
        return Ok(None);
    }
    let controller_manager_args = controller_manager_args.iter().map(|&arg| arg.to_owned()).collect();
    Ok(Some(Cluster::connect(Options { controller_manager_args, ..Options::default() }).await?))
}

#[tokio::test]
async fn a_slot_changes_hands_without_the_garbage_collector() -> Result<()> {
    let Some(cluster) = cluster(&["--controllers=*,-garbage-collector-controller"]).await? else { return Ok(()) };
    for layout in [Layout::Combined, Layout::FourProcesses] {
        let operator = Operator::start(&cluster, layout).await?;
        Bench::run(&cluster, &operator, "releases", async |bench| {
            bench.provider("vpn", 1).await?;
            bench.active_mask("bare").await?;
            bench.mask("with-pod").await?;
            bench.says::<MaskConsumer>("with-pod", "NoFreeSlot").await?;
            bench.delete::<Mask>("bare").await?;
            let consumer = bench.active("with-pod").await?;
            bench.run_pod(user_pod("user", &consumer, 1)?).await?;
            bench.mask("last").await?;
            bench.says::<MaskConsumer>("last", "NoFreeSlot").await?;
            bench.delete::<Mask>("with-pod").await?;
            bench.active("last").await?;
            bench.gone(&consumer).await?;
            bench.delete::<Mask>("last").await?;
            bench.until_all::<MaskReservation>("no MaskReservation", <[_]>::is_empty).await.map(drop)
        })
        .await?;
        operator.stop().await?;
    }
    cluster.stop().await
}

/// As `e2e load` does it, with fewer Masks.
#[tokio::test]
async fn many_slots_are_given_back_with_few_requests() -> Result<()> {
    const COUNT: usize = 100;
    let Some(cluster) = cluster(&load::AS_SHIPPED).await? else { return Ok(()) };
    for layout in [Layout::Combined, Layout::FourProcesses] {
        let operator = Operator::start(&cluster, layout).await?;
        for pods in [false, true] {
            Bench::run(&cluster, &operator, "many", async |bench| {
                let figures = load::run(&cluster, &operator, bench, (COUNT, pods, LIMIT)).await?;
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
