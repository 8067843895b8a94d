//! Crashes of the operator and the API server at any moment, and two operators at once: no slot is leaked or assigned
//! twice.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use e2e::{
    Cluster, ControlPlaneOptions, Framework, History, Layout, Operator, Signal,
    testing::{
        framework::{ensure_eq, local_cluster},
        steady_state::{run_pods, wait_for_steady_state},
    },
    wait::{TIMEOUT, is_active},
};
use futures::future::try_join_all;
use kube::ResourceExt;
use tokio::sync::Mutex;
use vpn_types::{Mask, MaskConsumer, MaskProvider, MaskProviderReleaseSpec};

const SLOTS: usize = 4;
const MASKS: [&str; 7] = ["a", "b", "c", "d", "e", "f", "g"];

/// One test at a time, because an operator works in all namespaces.
static ALONE: Mutex<()> = Mutex::const_new(());

/// What is stopped.
#[derive(Clone, Copy)]
enum Victim {
    /// The operator, with SIGKILL.
    Operator,
    /// The operator, with SIGTERM: it must exit cleanly at any moment.
    OperatorInOrder,
    /// The API server.
    ApiServer(Signal),
}

/// Stops the victim after this number of changes, and starts it again.
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

/// Creates as many namespaces as there are crashes. Each crash affects all of them, each at a different point.
async fn crashes(cluster: &Cluster, layout: Layout, moments: &[(Victim, usize)]) -> Result<()> {
    let mut operator = Operator::start(cluster, layout).await?;
    let all = try_join_all(moments.iter().map(|_| Scene::new(cluster, &operator))).await?;
    for step in [Step::Assignment, Step::Release] {
        let mut changes = History::start(&cluster.client()?, None).await?;
        try_join_all(all.iter().map(|scene| scene.ask(step))).await?;
        for &(victim, moment) in moments {
            // An API server that gets SIGTERM waits a minute for its connections, so once is enough.
            if step == Step::Release && matches!(victim, Victim::ApiServer(Signal::TERM)) {
                continue;
            }
            crash(cluster, &mut operator, &mut changes, (victim, moment)).await?;
            all.iter().for_each(|scene| scene.f.add_logs(&operator));
        }
        try_join_all(all.iter().map(|scene| scene.settled(step))).await?;
    }
    try_join_all(all.into_iter().map(Scene::end)).await?;
    operator.stop().await
}

/// What the operator is doing when it is stopped.
#[derive(Clone, Copy, PartialEq)]
enum Step {
    /// Assigns slots to more Masks than there are slots.
    Assignment,
    /// Releases the slots of a deleted Mask with a Pod and of a lowered limit, while a waiting Mask is deleted.
    Release,
}

/// A test namespace.
struct Scene {
    f: Framework,
    history: History,
}

impl Scene {
    async fn new(cluster: &Cluster, operator: &Operator) -> Result<Self> {
        let f = Framework::new(cluster, "crash").await?;
        f.add_logs(operator);
        // If a Pod ends while no operator observes it, its slot is held.
        let release = MaskProviderReleaseSpec { delay: None, unclean_delay: Some("1s".into()) };
        f.create_provider_with("vpn", SLOTS, |spec| spec.release = Some(release)).await?;
        let history = History::start(&f.client, Some(f.name())).await?;
        Ok(Self { f, history })
    }

    async fn ask(&self, step: Step) -> Result<()> {
        let f = &self.f;
        if step == Step::Assignment {
            for name in MASKS {
                f.create_mask(name).await?;
            }
            return Ok(());
        }
        f.kubectl(&["scale", "maskprovider/vpn", "--replicas=3"]).await?;
        let consumers = f.wait_until_all::<MaskConsumer>("listed", |_| true).await?;
        let assigned: BTreeSet<_> = consumers.iter().filter(|one| is_active(one)).map(ResourceExt::name_any).collect();
        let waiting = MASKS.iter().find(|name| !assigned.contains(**name)).context("none waits")?;
        for name in [assigned.first().context("none assigned")?.as_str(), waiting] {
            f.delete::<Mask>(name).await?;
        }
        Ok(())
    }

    async fn settled(&self, step: Step) -> Result<()> {
        let f = &self.f;
        f.dump_on_error(async {
            let slots = if step == Step::Assignment { SLOTS } else { SLOTS - 1 };
            let drained = |provider: &MaskProvider| {
                let status = provider.status.clone().unwrap_or_default();
                status.observed_generation == provider.metadata.generation && status.active_slots == Some(slots)
            };
            f.wait_until("vpn", "as many slots in use as there are", drained).await?;
            let consumers = wait_for_steady_state(f, slots).await?;
            run_pods(f, &consumers).await
        })
        .await
    }

    /// Deletes everything, and checks that nothing is left.
    async fn end(mut self) -> Result<()> {
        let f = &self.f;
        let history = &mut self.history;
        f.dump_on_error(async {
            f.clear(TIMEOUT).await?;
            wait_for_steady_state(f, 0).await?;
            ensure_eq("most users at once", history.check_slot_limits().await?.into_values().max(), Some(SLOTS))
        })
        .await
    }
}

/// Runs crashes in the shared cluster.
async fn alone(layout: Layout, moments: &[(Victim, usize)]) -> Result<()> {
    let _alone = ALONE.lock().await;
    match local_cluster().await? {
        Some(cluster) => crashes(cluster, layout, moments).await,
        None => Ok(()),
    }
}

#[tokio::test]
async fn a_crash_of_the_only_process() -> Result<()> {
    alone(Layout::Combined, &[1, 4, 7, 10, 12].map(|moment| (Victim::Operator, moment))).await
}

#[tokio::test]
async fn a_crash_of_all_four_processes() -> Result<()> {
    alone(Layout::FourProcesses, &[3, 9].map(|moment| (Victim::Operator, moment))).await
}

#[tokio::test]
async fn a_stop_in_the_middle_of_the_work() -> Result<()> {
    alone(Layout::Combined, &[(Victim::OperatorInOrder, 5)]).await?;
    alone(Layout::FourProcesses, &[(Victim::OperatorInOrder, 8)]).await
}

/// The operator recovers by itself, in the same processes. Each test has its own API server.
async fn without_api_server(layout: Layout, endings: &[(Signal, usize)]) -> Result<()> {
    let cluster = Cluster::connect(ControlPlaneOptions::default()).await?;
    if cluster.is_local() {
        let victims: Vec<_> = endings.iter().map(|&(signal, moment)| (Victim::ApiServer(signal), moment)).collect();
        crashes(&cluster, layout, &victims).await?;
    }
    cluster.stop().await
}

#[tokio::test]
async fn the_api_server_goes_away_and_comes_back() -> Result<()> {
    without_api_server(Layout::Combined, &[(Signal::KILL, 5), (Signal::TERM, 2)]).await
}

#[tokio::test]
async fn the_api_server_of_four_processes_goes_away_and_comes_back() -> Result<()> {
    without_api_server(Layout::FourProcesses, &[(Signal::KILL, 9)]).await
}

/// While one of its processes is down, the operator releases no slot that is in use.
#[tokio::test]
async fn a_missing_process_is_made_up_for_when_it_returns() -> Result<()> {
    let _alone = ALONE.lock().await;
    let Some(cluster) = local_cluster().await? else { return Ok(()) };
    let mut operator = Operator::start(cluster, Layout::FourProcesses).await?;
    for part in ["masks", "consumers", "reservations", "providers"] {
        let f = Framework::new(cluster, part).await?;
        f.add_logs(&operator);
        let operator = &mut operator;
        f.dump_on_error(async {
            let release = MaskProviderReleaseSpec { delay: None, unclean_delay: Some("1s".into()) };
            f.create_provider_with("vpn", 1, |spec| spec.release = Some(release)).await?;
            let mut history = History::start(&f.client, Some(f.name())).await?;
            let first = f.create_active_mask("first").await?;
            run_pods(&f, std::slice::from_ref(&first)).await?;
            operator.kill_part(part).await?;
            f.delete::<Mask>("first").await?;
            f.create_mask("second").await?;
            // Changes that need no stopped process, then the rest.
            history.wait_for_changes(1).await?;
            operator.restart(cluster).await?;
            f.add_logs(operator);
            f.wait_active("second").await?;
            f.wait_deleted(&first).await?;
            wait_for_steady_state(&f, 1).await?;
            f.clear(TIMEOUT).await?;
            ensure_eq("most users at once", history.check_slot_limits().await?.into_values().max(), Some(1))
        })
        .await?;
    }
    operator.stop().await
}

/// Only names, UIDs and resource versions keep two operators from assigning a slot twice.
#[tokio::test]
async fn two_operators_at_once() -> Result<()> {
    let _alone = ALONE.lock().await;
    let Some(cluster) = local_cluster().await? else { return Ok(()) };
    let operators =
        [Operator::start(cluster, Layout::Combined).await?, Operator::start(cluster, Layout::Combined).await?];
    let f = Framework::new(cluster, "two").await?;
    operators.iter().for_each(|operator| f.add_logs(operator));
    f.dump_on_error(async {
        f.create_provider("vpn", 10).await?;
        let mut history = History::start(&f.client, Some(f.name())).await?;
        let names: Vec<_> = (0..20).map(|index| format!("mask-{index:02}")).collect();
        try_join_all(names.iter().map(|name| f.create_mask(name))).await?;
        let consumers = wait_for_steady_state(&f, 10).await?;
        run_pods(&f, &consumers).await?;
        for consumer in &consumers[..5] {
            f.delete::<Mask>(&consumer.name_any()).await?;
        }
        for consumer in &consumers[..5] {
            f.wait_deleted(consumer).await?;
        }
        let consumers = wait_for_steady_state(&f, 10).await?;
        run_pods(&f, &consumers).await?;
        ensure_eq("most users at once", history.check_slot_limits().await?.into_values().max(), Some(10))?;
        // Only the user deleted MaskConsumers.
        let ever = history.consumers();
        ensure!(ever == names.len(), "{ever} MaskConsumers for {} Masks", names.len());
        f.clear(TIMEOUT).await?;
        wait_for_steady_state(&f, 0).await.map(drop)
    })
    .await?;
    for operator in operators {
        operator.stop().await?;
    }
    Ok(())
}
