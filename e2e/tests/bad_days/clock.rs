//! An operator whose clock is wrong, or is set while it works. Only its wall clock: that of a machine is set so.

use anyhow::{Context, Result, ensure};
use e2e::{
    Bench, Cluster, History, Layout, Operator, Setup,
    operator::install,
    pods::usage::user_pod,
    testing::bench::{our_cluster, same},
    tools::faketime::Clock,
    wait::{Kind, is_ready, ready_condition},
};
use kube::{
    ResourceExt,
    api::{Patch, PatchParams},
};
use serde_json::json;
use vpn_types::{Mask, MaskConsumer, MaskProvider, MaskProviderReleaseSpec, MaskReservation};

use crate::ALONE;

async fn by(cluster: &Cluster, clock: &Clock) -> Result<Operator> {
    let setup = clock.env().iter().fold(Setup::new(Layout::Combined), |setup, (name, value)| setup.env(name, value));
    Operator::start_with(cluster, setup).await
}

/// One slot that changes hands, with a hold of `delay` in between.
async fn first_and_second(bench: &Bench, delay: &str) -> Result<(History, MaskConsumer)> {
    let release = MaskProviderReleaseSpec { delay: Some(delay.into()), unclean_delay: None };
    bench.provider_with("vpn", 1, |spec| spec.release = Some(release)).await?;
    let history = History::start(&bench.client, Some(bench.name())).await?;
    let first = bench.active_mask("first").await?;
    bench.run_pod(user_pod("user", &first, 1)?).await?;
    for name in ["second", "third"] {
        bench.mask(name).await?;
        bench.says::<MaskConsumer>(name, "NoFreeSlot").await?;
    }
    bench.delete::<Mask>("first").await?;
    Ok((history, first))
}

async fn handed_over(bench: &Bench, mut history: History, first: &MaskConsumer) -> Result<MaskConsumer> {
    let second = bench.active("second").await?;
    bench.gone(first).await?;
    same("most users at once", history.judge().await?.into_values().max(), Some(1))?;
    Ok(second)
}

#[tokio::test]
async fn a_clock_that_is_wrong_changes_neither_order_nor_holds() -> Result<()> {
    let _alone = ALONE.lock().await;
    let Some(cluster) = our_cluster().await? else { return Ok(()) };
    for offset in ["+2h", "-2h"] {
        let clock = Clock::new(cluster.state_dir(), &format!("clock{offset}"))?;
        clock.set(offset)?;
        let operator = by(cluster, &clock).await?;
        Bench::run(cluster, &operator, "clock", async |bench| {
            let (history, first) = first_and_second(bench, "3s").await?;
            let lock = bench.says::<MaskReservation>("vpn-0", "HeldUntilDeadline").await?;
            let until = lock.status.and_then(|status| status.hold_until).context("no holdUntil")?.timestamp();
            let second = handed_over(bench, history, &first).await?;
            let assigned = ready_condition(&second).context("no condition")?.last_transition_time.0.as_second();
            ensure!(assigned >= until, "assigned {} s before the end of the hold", until - assigned);
            // It really goes by that clock.
            let stored = second.creation_timestamp().context("no creationTimestamp")?.0.as_second();
            ensure!((assigned - stored).abs() > 3600, "the clock is right");
            bench.clear(e2e::wait::LIMIT).await
        })
        .await?;
        operator.stop().await?;
    }
    Ok(())
}

/// Set back by an hour during a hold, a clock must not make it an hour longer.
#[tokio::test]
async fn a_clock_that_is_set_back_prolongs_no_hold() -> Result<()> {
    let _alone = ALONE.lock().await;
    let Some(cluster) = our_cluster().await? else { return Ok(()) };
    let clock = Clock::new(cluster.state_dir(), "clock-back")?;
    let operator = by(cluster, &clock).await?;
    Bench::run(cluster, &operator, "clock-back", async |bench| {
        let (history, first) = first_and_second(bench, "3s").await?;
        bench.says::<MaskReservation>("vpn-0", "HeldUntilDeadline").await?;
        clock.set("-1h")?;
        handed_over(bench, history, &first).await?;
        bench.clear(e2e::wait::LIMIT).await
    })
    .await?;
    operator.stop().await
}

/// Set forth by an hour during a hold, a clock must not end it.
#[tokio::test]
async fn a_clock_that_is_set_forth_ends_no_hold() -> Result<()> {
    let _alone = ALONE.lock().await;
    let Some(cluster) = our_cluster().await? else { return Ok(()) };
    let clock = Clock::new(cluster.state_dir(), "clock-forth")?;
    let operator = by(cluster, &clock).await?;
    Bench::run(cluster, &operator, "clock-forth", async |bench| {
        let (history, first) = first_and_second(bench, "20s").await?;
        let held = bench.says::<MaskReservation>("vpn-0", "HeldUntilDeadline").await?;
        clock.set("+1h")?;
        // Something else happens, at which the operator looks at its clock.
        bench.delete::<Mask>("third").await?;
        let second = handed_over(bench, history, &first).await?;
        let until = held.status.and_then(|status| status.hold_until).context("no holdUntil")?.timestamp();
        let assigned = ready_condition(&second).context("no condition")?.last_transition_time.0.as_second() - 3600;
        ensure!(assigned >= until, "assigned {} s before the end of the hold", until - assigned);
        bench.clear(e2e::wait::LIMIT).await
    })
    .await?;
    operator.stop().await
}

/// Makes the status of an object say that it was written in a thousand years.
async fn written_in_the_future<K: Kind>(bench: &Bench, name: &str) -> Result<()> {
    let future = "2999-01-01T00:00:00Z";
    let condition = json!({
        "type": "Ready", "status": "True", "reason": "Assigned", "message": "of the future", "lastTransitionTime": future,
    });
    let status = Patch::Merge(json!({ "status": { "lastUpdated": future, "conditions": [condition] } }));
    bench.api::<K>().patch_status(name, &PatchParams::default(), &status).await?;
    Ok(())
}

#[tokio::test]
async fn timestamps_of_the_future_are_only_words() -> Result<()> {
    let _alone = ALONE.lock().await;
    let Some(cluster) = our_cluster().await? else { return Ok(()) };
    install(cluster).await?;
    let mut operator = Operator::start(cluster, Layout::Combined).await?;
    let bench = Bench::new(cluster, "future").await?;
    bench.add_logs(&operator);
    let test = async {
        bench.provider("vpn", 1).await?;
        let consumer = bench.active_mask("mine").await?;
        bench.until("mine", "Ready", |mask: &Mask| is_ready(mask)).await?;
        let pod = bench.run_pod(user_pod("user", &consumer, 1)?).await?;
        operator.kill().await?;
        written_in_the_future::<Mask>(&bench, "mine").await?;
        written_in_the_future::<MaskConsumer>(&bench, "mine").await?;
        written_in_the_future::<MaskProvider>(&bench, "vpn").await?;
        written_in_the_future::<MaskReservation>(&bench, "vpn-0").await?;
        operator.restart(cluster).await?;
        bench.add_logs(&operator);
        bench.says::<MaskProvider>("vpn", "Available").await?;
        bench.says::<MaskReservation>("vpn-0", "SlotInUse").await?;
        bench.mask("next").await?;
        bench.says::<Mask>("next", "NoFreeSlot").await?;
        same("consumer", bench.active("mine").await?.uid(), consumer.uid())?;
        bench.delete::<Mask>("mine").await?;
        bench.active("next").await?;
        bench.gone(&pod).await?;
        bench.clear(e2e::wait::LIMIT).await?;
        operator.stop().await
    };
    bench.dump_on_error(test).await
}
