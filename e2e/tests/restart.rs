//! Crashes of the operator and of the API server at any moment, and two operators at once: no slot is leaked, none is given twice.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use e2e::{
    Bench, Cluster, History, Layout, Operator, Signal,
    at_rest::{all_is_well, run_pods},
    bench::{LIMIT, our_cluster, same},
};
use kube::ResourceExt;
use tokio::sync::Mutex;
use vpn_types::{Mask, MaskProvider, MaskProviderReleaseSpec};

const SLOTS: usize = 4;
const MASKS: [&str; 7] = ["a", "b", "c", "d", "e", "f", "g"];

/// One at a time: an operator works in all namespaces.
static ALONE: Mutex<()> = Mutex::const_new(());

/// Who is ended.
#[derive(Clone, Copy)]
enum Victim {
    /// The operator, by SIGKILL.
    Operator,
    /// The operator, by SIGTERM: it has to end well, whatever is under way.
    OperatorInOrder,
    /// The API server.
    ApiServer(Signal),
}

/// Ends somebody at the `moment`th change after something was asked of the operator, and starts it again.
async fn crash(
    cluster: &Cluster,
    operator: &mut Operator,
    changes: &mut History,
    (victim, moment): (Victim, usize),
) -> Result<()> {
    changes.wait_for_changes(moment).await?;
    match victim {
        Victim::Operator => {
            operator.kill().await?;
            operator.restart(cluster).await
        }
        Victim::OperatorInOrder => {
            operator.stop().await?;
            operator.restart(cluster).await
        }
        Victim::ApiServer(signal) => {
            cluster.control_plane().context("not our cluster")?.restart_apiserver(signal).await
        }
    }
}

async fn crashes(layout: Layout, moments: &[(Victim, usize)]) -> Result<()> {
    let _alone = ALONE.lock().await;
    let Some(cluster) = our_cluster().await? else { return Ok(()) };
    let mut operator = Operator::start(cluster, layout).await?;
    for &moment in moments {
        let bench = Bench::new(cluster, "crash").await?;
        bench.add_logs(&operator);
        bench.dump_on_error(one_round(cluster, &mut operator, &bench, moment)).await?;
    }
    operator.stop().await
}

async fn one_round(cluster: &Cluster, operator: &mut Operator, bench: &Bench, moment: (Victim, usize)) -> Result<()> {
    // A Pod that ends while no operator is there to see how leaves its slot held.
    let release = MaskProviderReleaseSpec { delay: None, unclean_delay: Some("1s".into()) };
    bench.provider_with("vpn", SLOTS, |spec| spec.release = Some(release)).await?;
    let mut history = History::start(&bench.client, Some(bench.name())).await?;

    // During assignment.
    let mut changes = History::start(&bench.client, Some(bench.name())).await?;
    for name in MASKS {
        bench.mask(name).await?;
    }
    crash(cluster, operator, &mut changes, moment).await?;
    bench.add_logs(operator);
    let consumers = all_is_well(bench, SLOTS).await?;
    run_pods(bench, &consumers).await?;

    // During release: of an assigned one with its Pod, of the lowered limit, and of one that waits.
    let mut changes = History::start(&bench.client, Some(bench.name())).await?;
    bench.kubectl(&["scale", "maskprovider/vpn", "--replicas=3"]).await?;
    let assigned: BTreeSet<_> = consumers.iter().map(ResourceExt::name_any).collect();
    let waiting = MASKS.iter().find(|name| !assigned.contains(**name)).context("none waits")?;
    for name in [assigned.first().context("none assigned")?.as_str(), waiting] {
        bench.delete::<Mask>(name).await?;
    }
    crash(cluster, operator, &mut changes, moment).await?;
    bench.add_logs(operator);
    let drained = |provider: &MaskProvider| {
        let status = provider.status.clone().unwrap_or_default();
        status.observed_generation == provider.metadata.generation && status.active_slots == Some(3)
    };
    bench.until("vpn", "drained", drained).await?;
    let consumers = all_is_well(bench, 3).await?;
    run_pods(bench, &consumers).await?;

    // All gone: nothing is left of anything.
    bench.clear(LIMIT).await?;
    all_is_well(bench, 0).await?;
    same("most users at once", history.judge().await?.into_values().max(), Some(SLOTS))
}

#[tokio::test]
async fn a_crash_of_the_only_process() -> Result<()> {
    crashes(Layout::Combined, &[1, 4, 7, 10, 12].map(|moment| (Victim::Operator, moment))).await
}

#[tokio::test]
async fn a_crash_of_all_four_processes() -> Result<()> {
    crashes(Layout::FourProcesses, &[3, 9].map(|moment| (Victim::Operator, moment))).await
}

#[tokio::test]
async fn a_stop_in_the_middle_of_the_work() -> Result<()> {
    crashes(Layout::Combined, &[(Victim::OperatorInOrder, 5)]).await?;
    crashes(Layout::FourProcesses, &[(Victim::OperatorInOrder, 8)]).await
}

/// The operator goes on by itself, and its processes are the same ones.
#[tokio::test]
async fn the_api_server_goes_away_and_comes_back() -> Result<()> {
    for (layout, signal, moment) in [
        (Layout::Combined, Signal::KILL, 5),
        (Layout::FourProcesses, Signal::KILL, 9),
        (Layout::Combined, Signal::TERM, 2),
    ] {
        crashes(layout, &[(Victim::ApiServer(signal), moment)]).await?;
    }
    Ok(())
}

/// Without one of its processes the operator holds what is held.
#[tokio::test]
async fn a_missing_process_is_made_up_for_when_it_returns() -> Result<()> {
    let _alone = ALONE.lock().await;
    let Some(cluster) = our_cluster().await? else { return Ok(()) };
    let mut operator = Operator::start(cluster, Layout::FourProcesses).await?;
    for part in ["masks", "consumers", "reservations", "providers"] {
        let bench = Bench::new(cluster, part).await?;
        bench.add_logs(&operator);
        let operator = &mut operator;
        bench
            .dump_on_error(async {
                let release = MaskProviderReleaseSpec { delay: None, unclean_delay: Some("1s".into()) };
                bench.provider_with("vpn", 1, |spec| spec.release = Some(release)).await?;
                let mut history = History::start(&bench.client, Some(bench.name())).await?;
                let first = bench.active_mask("first").await?;
                run_pods(&bench, std::slice::from_ref(&first)).await?;
                operator.kill_part(part).await?;
                bench.delete::<Mask>("first").await?;
                bench.mask("second").await?;
                // What is done without that process, in its own time; then the rest.
                history.wait_for_changes(1).await?;
                operator.restart(cluster).await?;
                bench.add_logs(operator);
                bench.active("second").await?;
                bench.gone(&first).await?;
                all_is_well(&bench, 1).await?;
                bench.clear(LIMIT).await?;
                same("most users at once", history.judge().await?.into_values().max(), Some(1))
            })
            .await?;
    }
    operator.stop().await
}

/// Nothing but names, UIDs and versions keeps two operators from giving a slot twice.
#[tokio::test]
async fn two_operators_at_once() -> Result<()> {
    let _alone = ALONE.lock().await;
    let Some(cluster) = our_cluster().await? else { return Ok(()) };
    let operators =
        [Operator::start(cluster, Layout::Combined).await?, Operator::start(cluster, Layout::Combined).await?];
    let bench = Bench::new(cluster, "two").await?;
    operators.iter().for_each(|operator| bench.add_logs(operator));
    bench
        .dump_on_error(async {
            bench.provider("vpn", 10).await?;
            let mut history = History::start(&bench.client, Some(bench.name())).await?;
            let names: Vec<_> = (0..20).map(|index| format!("mask-{index:02}")).collect();
            futures::future::try_join_all(names.iter().map(|name| bench.mask(name))).await?;
            let consumers = all_is_well(&bench, 10).await?;
            run_pods(&bench, &consumers).await?;
            for consumer in &consumers[..5] {
                bench.delete::<Mask>(&consumer.name_any()).await?;
            }
            for consumer in &consumers[..5] {
                bench.gone(consumer).await?;
            }
            let consumers = all_is_well(&bench, 10).await?;
            run_pods(&bench, &consumers).await?;
            same("most users at once", history.judge().await?.into_values().max(), Some(10))?;
            // Nobody was deleted but by the user.
            let ever = history.consumers();
            ensure!(ever == names.len(), "{ever} MaskConsumers for {} Masks", names.len());
            bench.clear(LIMIT).await?;
            all_is_well(&bench, 0).await.map(drop)
        })
        .await?;
    for operator in operators {
        operator.stop().await?;
    }
    Ok(())
}
