//! Many Masks deleted at once, and what their release waits for: not for the garbage collector, which makes some 20
//! requests a second for a whole cluster as kube-controller-manager is shipped.

use std::env;

use anyhow::{Context, Result, ensure};
use e2e::{
    Cluster, ControlPlaneOptions, Filter, Framework, Layout, Operator,
    audit::Access,
    pods::usage::owned_pod,
    testing::{
        figures::{memory_kib, report},
        framework::local_cluster,
    },
    wait::is_active,
};
use futures::{StreamExt, TryStreamExt, future::try_join_all, stream};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use tokio::time::Instant;
use vpn_types::{Mask, MaskConsumer, MaskReservation};

/// How many Masks are deleted at once.
const COUNT: (&str, usize) = ("E2E_RELEASES", 100);
/// How many requests of users are under way at once.
const AT_ONCE: usize = 32;

/// A cluster of the test's own.
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

/// Prints how long it took to give so many slots back, and the ratio to how long it took to assign them.
#[tokio::test]
async fn many_slots_are_given_back_with_few_requests() -> Result<()> {
    let count = env::var(COUNT.0).map_or(Ok(COUNT.1), |text| text.parse::<usize>().context(COUNT.0))?;
    // As shipped.
    let Some(cluster) = cluster(&["--kube-api-qps=20", "--kube-api-burst=30"]).await? else { return Ok(()) };
    for layout in [Layout::Combined, Layout::FourProcesses] {
        let operator = Operator::start(&cluster, layout).await?;
        for pods in [false, true] {
            Framework::run(&cluster, &operator, "many", async |f| measure(&cluster, &operator, f, count, pods).await)
                .await
                .with_context(|| format!("{layout:?}, Pods: {pods}"))?;
        }
        operator.stop().await?;
    }
    cluster.stop().await
}

/// Of all its processes together.
fn memory_of(operator: &Operator, field: &str) -> Result<u64> {
    operator.pids().map(|pid| memory_kib(pid, field)).sum()
}

async fn measure(cluster: &Cluster, operator: &Operator, f: &Framework, count: usize, pods: bool) -> Result<()> {
    f.create_provider("vpn", count).await?;
    let empty = memory_of(operator, "VmRSS:")?;
    let names: Vec<_> = (0..count).map(|number| format!("mask-{number:05}")).collect();
    let began = Instant::now();
    stream::iter(&names)
        .map(|name| f.create_mask(name))
        .buffer_unordered(AT_ONCE)
        .try_for_each(async |_| Ok(()))
        .await?;
    let all_active = |all: &[MaskConsumer]| all.iter().filter(|consumer| is_active(consumer)).count() == count;
    let consumers = f.wait_until_all("all Active", all_active).await?;
    let assigned = began.elapsed();
    let (now, most) = (memory_of(operator, "VmRSS:")?, memory_of(operator, "VmHWM:")?);
    report(&format!(
        "memory of {} processes: {empty} KiB before, {now} KiB with {count} Active Masks, {} KiB each; at most {most} KiB",
        operator.users().len(),
        now.saturating_sub(empty) / count as u64,
    ));
    if pods {
        let new = consumers.iter().map(|consumer| owned_pod(&consumer.name_any(), consumer, 1));
        let new = new.collect::<Result<Vec<_>>>()?;
        stream::iter(new).map(|pod| f.create(pod)).buffer_unordered(AT_ONCE).try_for_each(async |_| Ok(())).await?;
        let runs = |pod: &&Pod| pod.status.as_ref().is_some_and(|status| status.phase.as_deref() == Some("Running"));
        f.wait_until_all::<Pod>("all Pods run", |all| all.iter().filter(runs).count() == count).await?;
    }
    let audit = cluster.audit().context("no audit log")?;
    let (mark, began) = (audit.mark().await?, Instant::now());
    let deletions = stream::iter(&names).map(|name| f.delete::<Mask>(name)).buffer_unordered(AT_ONCE);
    deletions.try_for_each(async |()| Ok(())).await?;
    f.wait_until_all::<MaskReservation>("all slots free", <[_]>::is_empty).await?;
    let released = began.elapsed();
    let requests = audit.since(mark).await?;
    let of_users = operator.users();
    let count_of = |access: Access| -> usize {
        let by_user = of_users.iter().map(|user| requests.count(&Filter::default().user(user).access(access)));
        by_user.sum()
    };
    let events: usize =
        of_users.iter().map(|user| requests.count(&Filter::default().user(user).resource("events"))).sum();
    let (writes, reads) = (count_of(Access::Write) - events, count_of(Access::Read));
    report(&format!(
        "{count} Masks {}in {} processes: assigned in {:.1} s, all slots free {:.1} s after the first deletion, ratio {:.2}; \
         {:.1} writes and {:.2} reads each",
        if pods { "with a Pod each that takes a second to stop, " } else { "" },
        of_users.len(),
        assigned.as_secs_f64(),
        released.as_secs_f64(),
        released.as_secs_f64() / assigned.as_secs_f64(),
        writes as f64 / count as f64,
        reads as f64 / count as f64,
    ));
    ensure!(writes <= 10 * count + 20, "{writes} writes for {count} releases");
    ensure!(reads <= count, "{reads} reads for {count} releases");
    try_join_all(consumers.iter().map(|consumer| f.wait_deleted(consumer))).await.map(drop)
}
