//! Measures many Masks at once: how long the operator takes to assign and release their slots, how many requests it
//! sends, and how much memory it uses. Times are compared only within one run.

use std::{fmt, time::Duration};

use anyhow::{Context, Result, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use tokio::time::Instant;
use vpn_types::{Mask, MaskConsumer, MaskReservation};

use crate::{
    Cluster, Filter, Framework, Operator,
    audit::{Access, Requests},
    pods::usage::owned_pod,
    testing::figures::memory_kib,
    wait::{is_active, wait_for_count},
};

/// The number of concurrent user requests.
pub const AT_ONCE: usize = 32;

/// The default client limits of kube-controller-manager, which throttle its garbage collector. The tests use higher
/// ones.
pub const AS_SHIPPED: [&str; 2] = ["--kube-api-qps=20", "--kube-api-burst=30"];

/// The results. Memory is in KiB, summed over all processes of the operator.
#[derive(Clone, Debug)]
pub struct Figures {
    /// The number of Masks.
    pub count: usize,
    /// Whether each Mask had a Pod.
    pub pods: bool,
    /// The number of operator processes.
    pub processes: usize,
    /// The time from the first Mask to the last assigned slot.
    pub assigned: Duration,
    /// The time from the first deletion to the last free slot.
    pub released: Duration,
    /// Writes to the API server for all assignments, excluding Events.
    pub assignment_writes: usize,
    /// Writes to the API server for all releases, excluding Events.
    pub release_writes: usize,
    /// Reads for all releases.
    pub release_reads: usize,
    /// All requests for the assignments, and for the releases.
    pub requests: [Requests; 2],
    /// Resident memory before the first Mask.
    pub empty: u64,
    /// Resident memory while all Masks have a slot.
    pub full: u64,
    /// Peak resident memory up to that point.
    pub peak: u64,
}

impl Figures {
    /// Resident memory per Mask.
    pub fn memory_each(&self) -> f64 {
        self.full.saturating_sub(self.empty) as f64 / self.count as f64
    }

    /// Ratio of the release time to the assignment time.
    pub fn release_ratio(&self) -> f64 {
        self.released.as_secs_f64() / self.assigned.as_secs_f64()
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let each = |count: usize| count as f64 / self.count as f64;
        write!(
            f,
            "{} Masks{} in {} processes: assigned in {:.1} s ({:.1} writes each), all slots free {:.1} s after the first \
             deletion ({:.1} writes and {:.2} reads each), ratio {:.2}; resident memory {} KiB before, {} KiB with all \
             of them ({:.1} KiB each), peak {} KiB ({:.2} of that)",
            self.count,
            if self.pods { " with a Pod each that takes a second to stop," } else { "" },
            self.processes,
            self.assigned.as_secs_f64(),
            each(self.assignment_writes),
            self.released.as_secs_f64(),
            each(self.release_writes),
            each(self.release_reads),
            self.release_ratio(),
            self.empty,
            self.full,
            self.memory_each(),
            self.peak,
            self.peak as f64 / self.full as f64,
        )
    }
}

/// Counts the requests of all processes of the operator, excluding writes of Events.
pub fn requests_of(operator: &Operator, requests: &Requests, access: Access) -> usize {
    let of = |user: &String| {
        let all = Filter::default().user(user).access(access);
        let events = if access == Access::Write { requests.count(&all.clone().resource("events")) } else { 0 };
        requests.count(&all) - events
    };
    operator.users().iter().map(of).sum()
}

/// Creates `count` Masks at once, each with a slot, and deletes them. With `pods`, each gets a Pod in between.
///
/// # Errors
/// If a step exceeds `limit`, or an object cannot be created.
pub async fn run(
    cluster: &Cluster,
    operator: &Operator,
    f: &Framework,
    (count, pods, limit): (usize, bool, Duration),
) -> Result<Figures> {
    let audit = cluster.audit().context("no audit log")?;
    let memory = |field: &str| -> Result<u64> { operator.pids().map(|pid| memory_kib(pid, field)).sum() };

    f.create_provider("vpn", count).await?;
    let empty = memory("VmRSS:")?;
    let names: Vec<_> = (0..count).map(|number| format!("mask-{number:05}")).collect();
    let (mark, began) = (audit.mark().await?, Instant::now());
    let all_active = wait_for_count(f.api::<MaskConsumer>(), limit, "all Active", count, is_active);
    let made =
        stream::iter(&names).map(|name| f.create_mask(name)).buffer_unordered(AT_ONCE).try_for_each(async |_| Ok(()));
    tokio::try_join!(made, all_active)?;
    let assigned = began.elapsed();
    let assignment_requests = audit.since(mark).await?;
    let assignment_writes = requests_of(operator, &assignment_requests, Access::Write);
    let (full, peak) = (memory("VmRSS:")?, memory("VmHWM:")?);

    if pods {
        let make = async |name: &String| {
            let consumer = f.api::<MaskConsumer>().get(name).await?;
            f.create(owned_pod(&consumer.name_any(), &consumer, 1)?).await
        };
        let runs = |pod: &Pod| pod.status.as_ref().is_some_and(|status| status.phase.as_deref() == Some("Running"));
        let all_run = wait_for_count(f.api::<Pod>(), limit, "all Pods run", count, runs);
        let made = stream::iter(&names).map(make).buffer_unordered(AT_ONCE).try_for_each(async |_| Ok(()));
        tokio::try_join!(made, all_run)?;
    }
    // Statuses and Events of the assignments would otherwise count as part of the releases.
    audit.settled(&operator.users(), limit).await?;
    let (mark, began) = (audit.mark().await?, Instant::now());
    let all_free = wait_for_count(f.api::<MaskReservation>(), limit, "all slots free", 0, |_| true);
    let deleted = stream::iter(&names)
        .map(|name| f.delete::<Mask>(name))
        .buffer_unordered(AT_ONCE)
        .try_for_each(async |()| Ok(()));
    tokio::try_join!(deleted, all_free)?;
    let released = began.elapsed();
    let requests = audit.since(mark).await?;
    let (release_writes, release_reads) =
        (requests_of(operator, &requests, Access::Write), requests_of(operator, &requests, Access::Read));
    wait_for_count(f.api::<MaskConsumer>(), limit, "no MaskConsumer", 0, |_| true).await?;
    ensure!(count > 0, "no Mask");
    Ok(Figures {
        count,
        pods,
        processes: operator.users().len(),
        assigned,
        released,
        assignment_writes,
        release_writes,
        release_reads,
        requests: [assignment_requests, requests],
        empty,
        full,
        peak,
    })
}
