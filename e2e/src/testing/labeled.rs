//! Measures Pods with the label `vpn.beebs.dev/inject`: many at once, beside as many Masks alone, and single ones on a
//! node that runs containers, beside the same Pod written by hand. Times are compared only within one run.

use std::{fmt, time::Duration};

use anyhow::{Context, Result, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::Pod;
use kube::{Resource, ResourceExt, api::PostParams};
use serde_json::json;
use tokio::time::{Instant, sleep};
use vpn_types::{Mask, MaskConsumer, MaskReservation};

use super::{
    figures::{median, memory_kib},
    load::{AT_ONCE, requests_of},
};
use crate::{
    Cluster, Framework, Operator,
    audit::{Access, Requests},
    node::images,
    wait::{is_ready, wait_for_count},
};

/// How many Pods at once. Times are counted from the first Pod.
#[derive(Clone, Debug)]
pub struct Crowd {
    /// The number of Pods.
    pub count: usize,
    /// The time until each Pod has its slot, and no scheduling gate.
    pub ungated: Duration,
    /// The time until all Pods run.
    pub running: Duration,
    /// Writes to the API server until all run, excluding Events.
    pub writes: usize,
    /// Reads until all run.
    pub reads: usize,
    /// How long nothing changed.
    pub idle: Duration,
    /// Writes and reads in that time.
    pub idle_requests: [usize; 2],
    /// Resident memory of all processes before the first Pod and with all of them, in KiB.
    pub memory: [u64; 2],
    /// The time from the first deletion to the last free slot.
    pub released: Duration,
    /// All requests until all Pods run, and for the releases.
    pub requests: [Requests; 2],
}

impl fmt::Display for Crowd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let each = |count: usize| count as f64 / self.count as f64;
        let [before, after] = self.memory;
        write!(
            f,
            "{} labeled Pods: slots assigned and gates removed in {:.1} s, running after {:.1} s ({:.2} writes and {:.2} \
             reads each); {} writes and {} reads in {} s without a change; resident memory {before} KiB before, {after} KiB \
             with all of them ({:.1} KiB each); all slots free {:.1} s after the first deletion",
            self.count,
            self.ungated.as_secs_f64(),
            self.running.as_secs_f64(),
            each(self.writes),
            each(self.reads),
            self.idle_requests[0],
            self.idle_requests[1],
            self.idle.as_secs(),
            after.saturating_sub(before) as f64 / self.count as f64,
            self.released.as_secs_f64(),
        )
    }
}

/// A Pod with the label. `image` is that of its container `main`.
fn labeled(name: &str, image: &str) -> Result<Pod> {
    Ok(serde_json::from_value(json!({
        "metadata": {"name": name, "labels": {"vpn.beebs.dev/inject": "true"}},
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "enableServiceLinks": false,
            "automountServiceAccountToken": false,
            "containers": [{"name": "main", "image": image, "command": ["sleep", "1000000"]}],
        },
    }))?)
}

fn is_gated(pod: &Pod) -> bool {
    pod.spec.as_ref().and_then(|spec| spec.scheduling_gates.as_ref()).is_some_and(|gates| !gates.is_empty())
}

fn runs(pod: &Pod) -> bool {
    pod.status.as_ref().is_some_and(|status| status.phase.as_deref() == Some("Running"))
}

/// Creates `count` Pods without the label at once. Returns the time until all run.
///
/// # Errors
/// If they do not run within `limit`, or a Pod cannot be created.
pub async fn plain(f: &Framework, count: usize, limit: Duration) -> Result<Duration> {
    let began = Instant::now();
    let made = stream::iter(0..count)
        .map(async |number| {
            let mut pod = labeled(&format!("pod-{number:05}"), "app")?;
            pod.metadata.labels = None;
            f.create(pod).await
        })
        .buffer_unordered(AT_ONCE)
        .try_for_each(async |_| Ok(()));
    let all_run = async {
        wait_for_count(f.api::<Pod>(), limit, "all run", count, runs).await?;
        Ok(began.elapsed())
    };
    let ((), took) = tokio::try_join!(made, all_run)?;
    Ok(took)
}

/// Creates `count` Pods at once, on as many slots, observes them for `idle` while nothing changes, and deletes them.
///
/// # Errors
/// If a step exceeds `limit`, or a Pod cannot be created.
pub async fn crowd(
    cluster: &Cluster,
    operator: &Operator,
    f: &Framework,
    (count, idle, limit): (usize, Duration, Duration),
) -> Result<Crowd> {
    ensure!(count > 0, "no Pod");
    let audit = cluster.audit().context("no audit log")?;
    let memory = || -> Result<u64> { operator.pids().map(|pid| memory_kib(pid, "VmRSS:")).sum() };
    f.create_provider("vpn", count).await?;
    let before = memory()?;
    let names: Vec<_> = (0..count).map(|number| format!("pod-{number:05}")).collect();
    let (mark, began) = (audit.mark().await?, Instant::now());
    let made = stream::iter(&names)
        .map(async |name| f.create(labeled(name, "app")?).await)
        .buffer_unordered(AT_ONCE)
        .try_for_each(async |_| Ok(()));
    let until = async |what: &str, reached: fn(&Pod) -> bool| {
        wait_for_count(f.api::<Pod>(), limit, what, count, reached).await.map(|_| began.elapsed())
    };
    let ungated = until("all have their slot", |pod| !is_gated(pod));
    let ((), ungated, running) = tokio::try_join!(made, ungated, until("all run", runs))?;
    let starts = audit.since(mark).await?;
    let (writes, reads) = (requests_of(operator, &starts, Access::Write), requests_of(operator, &starts, Access::Read));

    audit.settled(&operator.users(), limit).await?;
    let mark = audit.mark().await?;
    // Not a wait for an event: nothing may happen in this period.
    sleep(idle).await;
    let requests = audit.since(mark).await?;
    let idle_requests = [Access::Write, Access::Read].map(|access| requests_of(operator, &requests, access));
    let after = memory()?;

    let (mark, began) = (audit.mark().await?, Instant::now());
    let all_free = wait_for_count(f.api::<MaskReservation>(), limit, "all slots free", 0, |_| true);
    let deleted = stream::iter(&names)
        .map(|name| f.delete::<Pod>(name))
        .buffer_unordered(AT_ONCE)
        .try_for_each(async |()| Ok(()));
    tokio::try_join!(deleted, all_free)?;
    let released = began.elapsed();
    let requests = [starts, audit.since(mark).await?];
    wait_for_count(f.api::<MaskConsumer>(), limit, "no MaskConsumer", 0, |_| true).await?;
    let memory = [before, after];
    Ok(Crowd { count, ungated, running, writes, reads, idle, idle_requests, memory, released, requests })
}

/// The times of all rounds in seconds, from the creation of a Pod until it is ready behind the VPN.
#[derive(Clone, Debug)]
pub struct Single {
    /// Pods with the label, which get their slot after their creation.
    pub labeled: Vec<f64>,
    /// The same Pods without label and gate, with the Secret of a slot that was assigned before.
    pub by_hand: Vec<f64>,
}

impl fmt::Display for Single {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [labeled, by_hand] = [&self.labeled, &self.by_hand].map(|times| median(times.clone()).unwrap_or(f64::NAN));
        write!(
            f,
            "from the creation of a Pod until it is ready behind the VPN: {labeled:.2} s with the label, {by_hand:.2} s by \
             hand, ratio {:.2} ({:.2?} and {:.2?})",
            labeled / by_hand,
            self.labeled,
            self.by_hand,
        )
    }
}

/// Starts labeled Pods and Pods written by hand in turns, `rounds` of each. `f` has a provider with a free slot.
///
/// # Errors
/// If a Pod does not become ready.
pub async fn single(f: &Framework, rounds: usize) -> Result<Single> {
    let mut figures = Single { labeled: Vec::new(), by_hand: Vec::new() };
    for round in 0..rounds {
        // Each is first as often as the other.
        for with_label in [round % 2 == 0, round % 2 != 0] {
            let name = format!("{}-{round}", if with_label { "labeled" } else { "by-hand" });
            let pod = labeled(&name, images::TOOLS)?;
            let (pod, times) = match with_label {
                true => (pod, &mut figures.labeled),
                false => (by_hand(f, pod).await?, &mut figures.by_hand),
            };
            let began = Instant::now();
            let created = f.create(pod).await?;
            f.wait_until::<Pod>(&name, "ready", is_ready).await?;
            times.push(began.elapsed().as_secs_f64());
            f.delete::<Pod>(&name).await?;
            f.wait_deleted(&created).await?;
            if !with_label {
                f.delete::<Mask>(&name).await?;
            }
            f.wait_until_all::<MaskReservation>("the slot is free", <[_]>::is_empty).await?;
        }
    }
    Ok(figures)
}

/// Returns what the webhook makes of a labeled Pod, as a user would write it for a Mask of the same name. That Mask is
/// Active when this returns.
async fn by_hand(f: &Framework, pod: Pod) -> Result<Pod> {
    let name = pod.name_any();
    let dry_run = PostParams { dry_run: true, ..PostParams::default() };
    let injected = f.api::<Pod>().create(&dry_run, &pod).await?;
    let consumer = f.create_active_mask(&name).await?;
    let secret =
        consumer.status.as_ref().and_then(|status| status.provider.as_ref()).context("no slot")?.secret.clone();
    let mut spec = injected.spec.context("no spec")?;
    ensure!(spec.scheduling_gates.take().is_some(), "not injected: {spec:?}");
    let sidecar = spec.init_containers.iter_mut().flatten().find(|one| one.restart_policy.is_some());
    let env = sidecar.and_then(|sidecar| sidecar.env_from.as_mut()).context("no sidecar")?;
    let given = std::mem::replace(
        &mut env.first_mut().and_then(|from| from.secret_ref.as_mut()).context("no Secret")?.name,
        secret.clone(),
    );
    for volume in spec.volumes.iter_mut().flatten() {
        if let Some(source) = volume.secret.as_mut().filter(|source| source.secret_name.as_ref() == Some(&given)) {
            source.secret_name = Some(secret.clone());
        }
    }
    let owner = consumer.owner_ref(&()).context("no UID")?;
    let mut pod = Pod { spec: Some(spec), ..Pod::default() };
    pod.metadata.name = Some(name);
    pod.metadata.owner_references = Some(vec![owner]);
    Ok(pod)
}
