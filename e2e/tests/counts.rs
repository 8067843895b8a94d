//! The number of requests that the operator makes, from the API server's audit log.

use std::{
    collections::BTreeSet,
    env,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use e2e::{
    Cluster, Filter, Framework, Layout, Operator,
    audit::{Access, Mark, Request},
    testing::{
        figures::report,
        framework::{ensure_eq, local_cluster},
    },
    wait::{is_active, is_ready, ready_condition, wait_until_all},
};
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::events::v1::Event;
use tokio::{sync::Mutex, time::sleep};
use vpn_types::{Mask, MaskConsumer, MaskProvider, MaskReservation};

/// The number of seconds without requests.
const QUIET_SECONDS: &str = "E2E_QUIET_SECONDS";
/// The timeout for hundreds of Masks.
const TIMEOUT: Duration = Duration::from_secs(180);

/// One test at a time, because an operator works in all namespaces.
static ALONE: Mutex<()> = Mutex::const_new(());

/// Runs a test with an otherwise idle operator.
async fn alone(
    prefix: &str,
    layout: Layout,
    body: impl AsyncFnOnce(&Framework, &Counter<'_>) -> Result<()>,
) -> Result<()> {
    let _alone = ALONE.lock().await;
    let Some(cluster) = local_cluster().await? else { return Ok(()) };
    let operator = Operator::start(cluster, layout).await?;
    let counter = Counter { cluster, users: operator.users(), layout };
    Framework::run(cluster, &operator, prefix, async |f| {
        let result = body(f, &counter).await;
        // Leave nothing for the next test, also after a failure.
        f.clear(TIMEOUT).await?;
        result
    })
    .await?;
    operator.stop().await
}

struct Counter<'a> {
    cluster: &'a Cluster,
    users: Vec<String>,
    layout: Layout,
}

/// The operator's requests in a period.
struct Counts {
    requests: Vec<Request>,
}

impl Counter<'_> {
    async fn mark(&self) -> Result<Mark> {
        self.cluster.audit().context("no audit log")?.mark().await
    }

    async fn since(&self, mark: Mark) -> Result<Counts> {
        let all = self.cluster.audit().context("no audit log")?.since(mark).await?;
        let ours = |request: &&Request| self.users.contains(&request.user) && request.access() != Access::Watch;
        Ok(Counts { requests: all.iter().filter(ours).cloned().collect() })
    }

    /// Waits until the operator sends no requests for a while.
    async fn settled(&self) -> Result<()> {
        self.cluster.audit().context("no audit log")?.settled(&self.users, TIMEOUT).await
    }

    fn report(&self, what: &str, figures: &str) {
        report(&format!("{:?}: {what}: {figures}", self.layout));
    }
}

impl Counts {
    fn reads(&self) -> usize {
        self.count(&Filter::default().access(Access::Read))
    }

    fn count(&self, filter: &Filter) -> usize {
        self.requests.iter().filter(|request| filter.matches(request)).count()
    }

    fn created(&self, resource: &str) -> usize {
        let created = Filter::default().verb("create").resource(resource);
        self.requests.iter().filter(|request| created.matches(request) && request.code == 201).count()
    }

    fn conflicts(&self) -> usize {
        self.requests.iter().filter(|request| request.code == 409).count()
    }

    fn events(&self) -> usize {
        self.count(&Filter::default().resource("events"))
    }

    fn provider_status(&self) -> usize {
        self.count(&Filter::default().resource("maskproviders"))
    }

    /// Returns the number of writes to Masks, MaskConsumers, MaskReservations and Secrets.
    fn slot_writes(&self) -> usize {
        self.count(&Filter::default().access(Access::Write)) - self.events() - self.provider_status()
    }

    fn list(&self) -> String {
        self.requests.iter().map(|request| format!("{request}\n")).collect()
    }
}

/// Creates a MaskProvider, and waits until the last of its first statuses is written.
async fn create_provider(f: &Framework, slots: usize) -> Result<()> {
    f.create_provider("vpn", slots).await?;
    let observed = |provider: &MaskProvider| {
        provider.status.as_ref().and_then(|status| status.observed_generation) == provider.metadata.generation
    };
    f.wait_until("vpn", "an observed spec", observed).await.map(drop)
}

/// Creates many Masks at once, and waits until they have their slots and all statuses are up to date.
async fn assign(f: &Framework, provider: &str, names: &[String]) -> Result<Duration> {
    let before = Instant::now();
    let create = stream::iter(names).map(|name| f.create_mask(name)).buffer_unordered(16);
    create.try_for_each(|_| async { Ok(()) }).await?;
    let active = |all: &[MaskConsumer]| all.iter().filter(|consumer| is_active(consumer)).count() >= names.len();
    wait_until_all(f.api(), TIMEOUT, "all Active", active).await?;
    let took = before.elapsed();
    let followed = |all: &[Mask]| all.iter().filter(|mask| is_ready(*mask)).count() >= names.len();
    wait_until_all(f.api(), TIMEOUT, "all Masks Active", followed).await?;
    let locked = |all: &[MaskReservation]| all.iter().filter(|one| is_ready(*one)).count() >= names.len();
    wait_until_all(f.api(), TIMEOUT, "all reservations Active", locked).await?;
    let count = Some(f.api::<MaskReservation>().list(&Default::default()).await?.items.len());
    let used = |provider: &MaskProvider| provider.status.as_ref().and_then(|s| s.active_slots) == count;
    f.wait_until(provider, "all counted", used).await?;
    Ok(took)
}

fn names(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|index| format!("{prefix}-{index:03}")).collect()
}

async fn one_assignment(layout: Layout) -> Result<()> {
    alone("one", layout, async |f, counter| {
        create_provider(f, 2).await?;
        counter.settled().await?;
        let mark = counter.mark().await?;
        assign(f, "vpn", &names("mask", 1)).await?;
        let assigned = |event: &Event| event.reason.as_deref() == Some("Assigned");
        f.wait_until_all::<Event>("Assigned", |all| all.iter().any(assigned)).await?;
        let counts = counter.since(mark).await?;
        ensure_eq(&format!("writes\n{}", counts.list()), counts.slot_writes(), 6)?;
        ensure_eq(&format!("reads\n{}", counts.list()), counts.reads(), 0)?;
        ensure_eq(&format!("Events\n{}", counts.list()), counts.events(), 1)?;
        ensure_eq(&format!("writes of MaskProvider.status\n{}", counts.list()), counts.provider_status(), 1)?;
        counter.report("one assignment", "6 writes, 0 reads, 1 Event, 1 provider status");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn an_assignment_takes_six_writes_in_one_process() -> Result<()> {
    one_assignment(Layout::Combined).await
}

#[tokio::test]
async fn an_assignment_takes_six_writes_in_four_processes() -> Result<()> {
    one_assignment(Layout::FourProcesses).await
}

async fn at_once(layout: Layout, count: usize) -> Result<()> {
    alone("at-once", layout, async |f, counter| {
        create_provider(f, count).await?;
        counter.settled().await?;
        let mark = counter.mark().await?;
        let began = Instant::now();
        let took = assign(f, "vpn", &names("mask", count)).await?;
        counter.settled().await?;
        let seconds = began.elapsed().as_secs() as usize + 1;
        let counts = counter.since(mark).await?;
        counter.report(
            &format!("{count} Masks at once on {count} slots"),
            &format!(
                "all Active after {:.1} s; {} writes, {} reads, {} conflicts, {} Events, {} provider statuses",
                took.as_secs_f64(),
                counts.slot_writes(),
                counts.reads(),
                counts.conflicts(),
                counts.events(),
                counts.provider_status()
            ),
        );
        ensure_eq("MaskConsumers created", counts.created("maskconsumers"), count)?;
        ensure_eq("MaskReservations created", counts.created("maskreservations"), count)?;
        ensure_eq("Secrets created", counts.created("secrets"), count)?;
        ensure_eq("deletions", counts.count(&Filter::default().verb("delete")), 0)?;
        // A stale write fails with a conflict and is retried. That must be rare.
        let spare = count / 20;
        ensure!(counts.conflicts() <= spare, "{} conflicts\n{}", counts.conflicts(), counts.list());
        let most = 6 * count + 2 * spare;
        ensure!(counts.slot_writes() <= most, "{} writes\n{}", counts.slot_writes(), counts.list());
        ensure!(counts.reads() <= 2 * spare, "{} reads\n{}", counts.reads(), counts.list());
        ensure!(counts.events() <= count, "{} Events", counts.events());
        ensure!(counts.provider_status() <= seconds, "{} provider statuses in {seconds} s", counts.provider_status());

        let consumers = f.api::<MaskConsumer>().list(&Default::default()).await?;
        let slot = |consumer: &MaskConsumer| Some(consumer.status.as_ref()?.provider.as_ref()?.slot);
        let slots: BTreeSet<_> = consumers.iter().filter_map(slot).collect();
        ensure!(slots.into_iter().eq(0..count), "not each slot is assigned once");

        let began = Instant::now();
        f.clear(TIMEOUT).await?;
        let took = began.elapsed().as_secs_f64();
        counter.report(&format!("{count} Masks deleted at once"), &format!("nothing left after {took:.1} s"));
        Ok(())
    })
    .await
}

#[tokio::test]
async fn twenty_at_once_on_twenty_slots() -> Result<()> {
    at_once(Layout::Combined, 20).await
}

#[tokio::test]
async fn twenty_at_once_on_twenty_slots_in_four_processes() -> Result<()> {
    at_once(Layout::FourProcesses, 20).await
}

#[tokio::test]
async fn five_hundred_at_once_on_five_hundred_slots() -> Result<()> {
    at_once(Layout::Combined, 500).await
}

async fn quiet(layout: Layout) -> Result<()> {
    alone("quiet", layout, async |f, counter| {
        create_provider(f, 100).await?;
        assign(f, "vpn", &names("active", 100)).await?;
        let waiting = names("waiting", 100);
        let create = stream::iter(&waiting).map(|name| f.create_mask(name)).buffer_unordered(16);
        create.try_for_each(|_| async { Ok(()) }).await?;
        let waits = |mask: &&Mask| ready_condition(*mask).is_some_and(|ready| ready.reason == "NoFreeSlot");
        let all_wait = |all: &[Mask]| all.iter().filter(waits).count() == waiting.len();
        wait_until_all(f.api(), TIMEOUT, "100 waiting", all_wait).await?;
        counter.settled().await?;

        let seconds = env::var(QUIET_SECONDS).map_or(Ok(60), |text| text.parse())?;
        let mark = counter.mark().await?;
        // Not a wait for an event: nothing may happen in this period.
        sleep(Duration::from_secs(seconds)).await;
        let counts = counter.since(mark).await?;
        counter.report("100 Active and 100 waiting", &format!("{} requests in {seconds} s", counts.requests.len()));
        ensure!(counts.requests.is_empty(), "{}", counts.list());

        // One slot becomes free: one waiting Mask gets it, and no other tries.
        let mark = counter.mark().await?;
        f.delete::<Mask>("active-042").await?;
        f.wait_active("waiting-000").await?;
        counter.settled().await?;
        let counts = counter.since(mark).await?;
        counter.report(
            "one of 100 slots handed to one of 100 waiters",
            &format!("{} writes, {} reads, {} conflicts", counts.slot_writes(), counts.reads(), counts.conflicts()),
        );
        ensure_eq(
            "MaskReservations asked for",
            counts.count(&Filter::default().verb("create").resource("maskreservations")),
            1,
        )?;
        ensure_eq("conflicts", counts.conflicts(), 0)
    })
    .await
}

#[tokio::test]
async fn a_hundred_active_and_a_hundred_waiting_cost_nothing() -> Result<()> {
    quiet(Layout::Combined).await
}

#[tokio::test]
async fn nor_in_four_processes() -> Result<()> {
    quiet(Layout::FourProcesses).await
}
