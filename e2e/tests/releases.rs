//! Many Masks deleted at once, and what their release waits for: not for the garbage collector, which makes some 20
//! requests a second for a whole cluster as kube-controller-manager is shipped.

use std::env;

use anyhow::{Context, Result, ensure};
use e2e::{
    Bench, Cluster, Filter, Layout, Operator, Options,
    audit::Access,
    pods::usage::user_pod,
    testing::{
        bench::our_cluster,
        figures::{memory_kib, report},
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

/// Prints how long it took to give so many slots back, and the ratio to how long it took to assign them.
#[tokio::test]
async fn many_slots_are_given_back_with_few_requests() -> Result<()> {
    let count = env::var(COUNT.0).map_or(Ok(COUNT.1), |text| text.parse::<usize>().context(COUNT.0))?;
    // As shipped.
    let Some(cluster) = cluster(&["--kube-api-qps=20", "--kube-api-burst=30"]).await? else { return Ok(()) };
    for layout in [Layout::Combined, Layout::FourProcesses] {
        let operator = Operator::start(&cluster, layout).await?;
        for pods in [false, true] {
            Bench::run(&cluster, &operator, "many", async |bench| {
                measure(&cluster, &operator, bench, count, pods).await
            })
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

async fn measure(cluster: &Cluster, operator: &Operator, bench: &Bench, count: usize, pods: bool) -> Result<()> {
    bench.provider("vpn", count).await?;
    let empty = memory_of(operator, "VmRSS:")?;
    let names: Vec<_> = (0..count).map(|number| format!("mask-{number:05}")).collect();
    let began = Instant::now();
    stream::iter(&names).map(|name| bench.mask(name)).buffer_unordered(AT_ONCE).try_for_each(async |_| Ok(())).await?;
    let all_active = |all: &[MaskConsumer]| all.iter().filter(|consumer| is_active(consumer)).count() == count;
    let consumers = bench.until_all("all Active", all_active).await?;
    let assigned = began.elapsed();
    let (now, most) = (memory_of(operator, "VmRSS:")?, memory_of(operator, "VmHWM:")?);
    report(&format!(
        "memory of {} processes: {empty} KiB before, {now} KiB with {count} Active Masks, {} KiB each; at most {most} KiB",
        operator.users().len(),
        now.saturating_sub(empty) / count as u64,
    ));
    if pods {
        let new = consumers.iter().map(|consumer| user_pod(&consumer.name_any(), consumer, 1));
        let new = new.collect::<Result<Vec<_>>>()?;
        stream::iter(new).map(|pod| bench.create(pod)).buffer_unordered(AT_ONCE).try_for_each(async |_| Ok(())).await?;
        let runs = |pod: &&Pod| pod.status.as_ref().is_some_and(|status| status.phase.as_deref() == Some("Running"));
        bench.until_all::<Pod>("all Pods run", |all| all.iter().filter(runs).count() == count).await?;
    }
    let audit = cluster.audit().context("no audit log")?;
    let (mark, began) = (audit.mark().await?, Instant::now());
    let deletions = stream::iter(&names).map(|name| bench.delete::<Mask>(name)).buffer_unordered(AT_ONCE);
    deletions.try_for_each(async |()| Ok(())).await?;
    bench.until_all::<MaskReservation>("all slots free", <[_]>::is_empty).await?;
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
    try_join_all(consumers.iter().map(|consumer| bench.gone(consumer))).await.map(drop)
}
