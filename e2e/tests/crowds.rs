//! Thousands of waiting Masks and a thousand accounts: their cost in writes, connections and memory. Each test has its
//! own cluster, which is removed with everything in it.

use std::{collections::BTreeSet, env, fs, time::Duration};

use anyhow::{Context, Result, ensure};
use e2e::{
    Cluster, Filter, Framework, Layout, Operator, OperatorOptions,
    audit::{Access, Request, Requests},
    pods::usage::slot_secret_name,
    testing::{
        figures::{memory, report},
        framework::{ensure_eq, local_cluster},
    },
    wait::{is_active, is_ready, ready_condition, wait_for_count},
};
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::Secret;
use kube::{ResourceExt, api::ListParams};
use serde_json::json;
use tokio::{sync::Mutex, time::Instant};
use vpn_types::{Mask, MaskConsumer, MaskProvider};

/// The number of waiting Masks. 10,000 take two minutes on two cores.
const WAITING: (&str, usize) = ("E2E_CROWD", 2000);
/// The number of providers.
const PROVIDERS: (&str, usize) = ("E2E_PROVIDERS", 1000);
/// The timeout for all of them.
const TIMEOUT: Duration = Duration::from_secs(1200);
/// The number of concurrent creations.
const AT_ONCE: usize = 32;

/// One test at a time, because an operator works in all namespaces.
static ALONE: Mutex<()> = Mutex::const_new(());

fn count((name, default): (&str, usize)) -> Result<usize> {
    env::var(name).map_or(Ok(default), |text| text.parse().with_context(|| format!("{name}={text}")))
}

/// Returns the number of open sockets of a process.
fn sockets(pid: i32) -> Result<usize> {
    let links = fs::read_dir(format!("/proc/{pid}/fd"))?.filter_map(Result::ok);
    Ok(links
        .filter(|link| fs::read_link(link.path()).is_ok_and(|to| to.to_string_lossy().starts_with("socket:")))
        .count())
}

struct Scene<'a> {
    cluster: &'a Cluster,
    operator: Operator,
    user: String,
}

impl Scene<'_> {
    async fn start(cluster: &Cluster) -> Result<Scene<'_>> {
        // A common limit in containers. Each credentials Secret takes a connection.
        let setup = OperatorOptions::new(Layout::Combined).soft_open_files(256);
        let operator = Operator::start_with(cluster, setup).await?;
        let user = operator.users().pop().context("no user")?;
        Ok(Scene { cluster, operator, user })
    }

    fn pid(&self) -> Result<i32> {
        self.operator.pids().next().context("it has ended")
    }

    /// Waits until a second passes without a request of the operator, and returns all its requests since the mark.
    async fn settled(&self, since: e2e::audit::Mark) -> Result<Requests> {
        let audit = self.cluster.audit().context("no audit log")?;
        audit.settled(std::slice::from_ref(&self.user), TIMEOUT).await?;
        audit.since(since).await
    }
}

#[tokio::test]
async fn thousands_of_masks_wait_in_order() -> Result<()> {
    let _alone = ALONE.lock().await;
    let Some(cluster) = local_cluster().await? else { return Ok(()) };
    let count = count(WAITING)?;
    let scene = Scene::start(cluster).await?;
    Framework::run(cluster, &scene.operator, "crowd", async |f| {
        f.create_provider("vpn", 1).await?;
        f.create_active_mask("holder").await?;
        let audit = cluster.audit().context("no audit log")?;
        let (mark, began) = (audit.mark().await?, Instant::now());
        let names: Vec<_> = (0..count).map(|index| format!("mask-{index:05}")).collect();
        let create = stream::iter(&names).map(|name| f.create_mask(name)).buffer_unordered(AT_ONCE);
        create.try_for_each(|_| async { Ok(()) }).await?;
        let created = began.elapsed();
        let waits = |mask: &Mask| ready_condition(mask).is_some_and(|ready| ready.reason == "NoFreeSlot");
        wait_for_count(f.api(), TIMEOUT, "all wait, and say so", count, waits).await?;
        let told = began.elapsed();
        let requests = scene.settled(mark).await?;
        let writes = requests.count(&Filter::default().user(&scene.user).access(Access::Write));
        let events = requests.count(&Filter::default().user(&scene.user).resource("events"));
        let reads = requests.count(&Filter::default().user(&scene.user).access(Access::Read));
        let (now, most) = (memory(scene.pid()?, "VmRSS:")?, memory(scene.pid()?, "VmHWM:")?);
        report(&format!(
            "{count} Masks created in {:.0} s, all wait and say so after {:.0} s; {} writes and {events} Events, {reads} \
             reads; memory of the operator {now} MiB, at most {most} MiB",
            created.as_secs_f64(),
            told.as_secs_f64(),
            writes - events,
        ));
        // The MaskConsumer, its status, and the Mask's status. Queue positions are updated up to five times a second.
        let spare = 2 * 5 * (told.as_secs() as usize + 2);
        ensure!(writes - events <= 3 * count + spare, "{} writes", writes - events);
        ensure!(events <= count + spare, "{events} Events");
        // On a very busy machine, a response can take more than 5 s. Then the operator reads the result back.
        ensure!(reads <= count / 5, "{reads} reads");

        // A slot is handed over as in a short queue.
        let mut line: Vec<_> = f.api::<Mask>().list(&ListParams::default()).await?.items;
        line.retain(|mask| mask.name_any() != "holder");
        line.sort_by_key(|mask| (mask.creation_timestamp().map(|time| time.0), mask.name_any()));
        let mark = audit.mark().await?;
        let mut last = "holder".to_owned();
        let turns = 5;
        for next in line.iter().take(turns).map(ResourceExt::name_any) {
            f.delete::<Mask>(&last).await?;
            f.wait_active(&next).await?;
            last = next;
        }
        let requests = scene.settled(mark).await?;
        let locks = Filter::default().user(&scene.user).verb("create").resource("maskreservations");
        ensure_eq("locks asked for", requests.count(&locks), turns)?;
        let writes = requests.count(&Filter::default().user(&scene.user).access(Access::Write));
        report(&format!("{turns} of {count} served one after the other: {writes} writes"));
        // The first ten queue positions are updated.
        ensure!(writes <= turns * 60, "{writes} writes");
        Ok(())
    })
    .await?;
    scene.operator.stop().await
}

#[tokio::test]
async fn a_thousand_providers() -> Result<()> {
    let _alone = ALONE.lock().await;
    let Some(cluster) = local_cluster().await? else { return Ok(()) };
    let count = count(PROVIDERS)?;
    let mut scene = Scene::start(cluster).await?;
    let before = memory(scene.pid()?, "VmRSS:")?;
    let f = Framework::new(cluster, "accounts").await?;
    f.add_logs(&scene.operator);
    let test = async {
        let began = Instant::now();
        let names: Vec<_> = (0..count).map(|index| format!("vpn-{index:04}")).collect();
        let create = stream::iter(&names).map(async |name| {
            f.create_credentials(name).await?;
            f.create(f.new_provider(name, 1)).await
        });
        create.buffer_unordered(AT_ONCE).try_for_each(|_| async { Ok(()) }).await?;
        wait_for_count(f.api(), TIMEOUT, "all usable", count, is_ready::<MaskProvider>).await?;
        report(&format!(
            "{count} providers usable after {:.0} s; memory of the operator {} MiB ({before} without them), {} sockets",
            began.elapsed().as_secs_f64(),
            memory(scene.pid()?, "VmRSS:")?,
            sockets(scene.pid()?)?,
        ));

        // New Masks get slots, each of another provider.
        let consumers = stream::iter(0..20).map(async |index| f.create_active_mask(&format!("mask-{index}")).await);
        let consumers: Vec<MaskConsumer> = consumers.buffer_unordered(AT_ONCE).try_collect().await?;
        let mut used: Vec<_> =
            consumers.iter().filter_map(|one| Some(one.status.as_ref()?.provider.as_ref()?.uid.clone())).collect();
        used.sort_unstable();
        used.dedup();
        ensure_eq("providers used", used.len(), consumers.len())?;

        // The next process lists them all.
        scene.operator.kill().await?;
        let began = Instant::now();
        scene.operator.restart(cluster).await?;
        f.add_logs(&scene.operator);
        f.create_active_mask("after").await?;
        report(&format!(
            "with {count} providers: a slot assigned {:.1} s after the start",
            began.elapsed().as_secs_f64()
        ));
        scene.operator.stop().await
    };
    f.dump_on_error(test).await
}

/// Thousands of copies follow a changed Secret. A new Mask does not wait for them.
#[tokio::test]
async fn a_new_mask_does_not_wait_for_a_rotation() -> Result<()> {
    const COPIES: usize = 300;
    let _alone = ALONE.lock().await;
    let Some(cluster) = local_cluster().await? else { return Ok(()) };
    let scene = Scene::start(cluster).await?;
    Framework::run(cluster, &scene.operator, "rotation", async |f| {
        f.create_provider("vpn", COPIES + 1).await?;
        let names: Vec<_> = (0..COPIES).map(|index| format!("mask-{index:03}")).collect();
        let create = stream::iter(&names).map(async |name| f.create_mask(name).await).buffer_unordered(AT_ONCE);
        create.try_for_each(|_| async { Ok(()) }).await?;
        wait_for_count(f.api::<MaskConsumer>(), TIMEOUT, "all Active", COPIES, is_active).await?;
        scene.settled(cluster.audit().context("no audit log")?.mark().await?).await?;

        let audit = cluster.audit().context("no audit log")?;
        let mark = audit.mark().await?;
        let password = json!({ "stringData": { "OPENVPN_PASSWORD": "new" } });
        let (_, new) = tokio::try_join!(f.patch::<Secret>("vpn-credentials", password), f.create_active_mask("new"))?;
        let own = slot_secret_name(&new)?;
        let requests = scene.settled(mark).await?;
        let of_operator: Vec<_> = requests.matching(&Filter::default().user(&scene.user)).cloned().collect();
        // The copy of the new Mask may be patched, too, and a patch may be sent again.
        let copies = |requests: &[Request]| {
            let patches = Filter::default().verb("patch").resource("secrets");
            let names = requests.iter().filter(|request| patches.matches(request) && request.name != own);
            names.map(|request| request.name.clone()).collect::<BTreeSet<_>>().len()
        };
        let is_commit = |request: &Request| {
            (&*request.verb, &*request.resource, &*request.name) == ("patch", "maskconsumers", "new")
                && request.subresource == "status"
        };
        ensure_eq("copies", copies(&of_operator), COPIES)?;
        let commit = of_operator.iter().position(is_commit).context("no commit")?;
        let before = copies(&of_operator[..commit]);
        report(&format!("{before} of {COPIES} copies were patched before a new Mask had its slot"));
        ensure!(before < COPIES / 2, "{before} of {COPIES} copies were patched first");
        Ok(())
    })
    .await?;
    scene.operator.stop().await
}
