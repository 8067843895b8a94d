//! An operator whose wall clock is wrong, or is changed while it runs. The monotonic clock stays correct, as when the
//! clock of a machine is set.

use anyhow::{Context, Result, ensure};
use e2e::{
    Cluster, Framework, History, Layout, Operator, OperatorOptions,
    operator::install,
    pods::usage::owned_pod,
    testing::framework::{ensure_eq, local_cluster},
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
    let setup =
        clock.env().iter().fold(OperatorOptions::new(Layout::Combined), |setup, (name, value)| setup.env(name, value));
    Operator::start_with(cluster, setup).await
}

/// Hands one slot from `first` to `second`, with a hold of `delay` in between.
async fn first_and_second(f: &Framework, delay: &str) -> Result<(History, MaskConsumer)> {
    let release = MaskProviderReleaseSpec { delay: Some(delay.into()), unclean_delay: None };
    f.create_provider_with("vpn", 1, |spec| spec.release = Some(release)).await?;
    let history = History::start(&f.client, Some(f.name())).await?;
    let first = f.create_active_mask("first").await?;
    f.run_pod(owned_pod("user", &first, 1)?).await?;
    for name in ["second", "third"] {
        f.create_mask(name).await?;
        f.wait_for_reason::<MaskConsumer>(name, "NoFreeSlot").await?;
    }
    f.delete::<Mask>("first").await?;
    Ok((history, first))
}

async fn handed_over(f: &Framework, mut history: History, first: &MaskConsumer) -> Result<MaskConsumer> {
    let second = f.wait_active("second").await?;
    f.wait_deleted(first).await?;
    ensure_eq("most users at once", history.check_slot_limits().await?.into_values().max(), Some(1))?;
    Ok(second)
}

#[tokio::test]
async fn a_clock_that_is_wrong_changes_neither_order_nor_holds() -> Result<()> {
    let _alone = ALONE.lock().await;
    let Some(cluster) = local_cluster().await? else { return Ok(()) };
    for offset in ["+2h", "-2h"] {
        let clock = Clock::new(cluster.state_dir(), &format!("clock{offset}"))?;
        clock.set(offset)?;
        let operator = by(cluster, &clock).await?;
        Framework::run(cluster, &operator, "clock", async |f| {
            let (history, first) = first_and_second(f, "8s").await?;
            let lock = f.wait_for_reason::<MaskReservation>("vpn-0", "HeldUntilDeadline").await?;
            let until = lock.status.and_then(|status| status.hold_until).context("no holdUntil")?.timestamp();
            let second = handed_over(f, history, &first).await?;
            let assigned = ready_condition(&second).context("no condition")?.last_transition_time.0.as_second();
            ensure!(assigned >= until, "assigned {} s before the end of the hold", until - assigned);
            // The operator really uses the wrong clock.
            let stored = second.creation_timestamp().context("no creationTimestamp")?.0.as_second();
            ensure!((assigned - stored).abs() > 3600, "the clock is right");
            f.clear(e2e::wait::TIMEOUT).await
        })
        .await?;
        operator.stop().await?;
    }
    Ok(())
}

/// A clock that is set back by an hour during a hold does not extend it by an hour.
#[tokio::test]
async fn a_clock_that_is_set_back_prolongs_no_hold() -> Result<()> {
    let _alone = ALONE.lock().await;
    let Some(cluster) = local_cluster().await? else { return Ok(()) };
    let clock = Clock::new(cluster.state_dir(), "clock-back")?;
    let operator = by(cluster, &clock).await?;
    Framework::run(cluster, &operator, "clock-back", async |f| {
        let (history, first) = first_and_second(f, "8s").await?;
        f.wait_for_reason::<MaskReservation>("vpn-0", "HeldUntilDeadline").await?;
        clock.set("-1h")?;
        handed_over(f, history, &first).await?;
        f.clear(e2e::wait::TIMEOUT).await
    })
    .await?;
    operator.stop().await
}

/// A clock that is set forward by an hour during a hold does not end it.
#[tokio::test]
async fn a_clock_that_is_set_forth_ends_no_hold() -> Result<()> {
    let _alone = ALONE.lock().await;
    let Some(cluster) = local_cluster().await? else { return Ok(()) };
    let clock = Clock::new(cluster.state_dir(), "clock-forth")?;
    let operator = by(cluster, &clock).await?;
    Framework::run(cluster, &operator, "clock-forth", async |f| {
        let (history, first) = first_and_second(f, "20s").await?;
        let held = f.wait_for_reason::<MaskReservation>("vpn-0", "HeldUntilDeadline").await?;
        clock.set("+1h")?;
        // Another change makes the operator read its clock.
        f.delete::<Mask>("third").await?;
        let second = handed_over(f, history, &first).await?;
        let until = held.status.and_then(|status| status.hold_until).context("no holdUntil")?.timestamp();
        let assigned = ready_condition(&second).context("no condition")?.last_transition_time.0.as_second() - 3600;
        ensure!(assigned >= until, "assigned {} s before the end of the hold", until - assigned);
        f.clear(e2e::wait::TIMEOUT).await
    })
    .await?;
    operator.stop().await
}

/// Writes a status with a timestamp a thousand years in the future.
async fn written_in_the_future<K: Kind>(f: &Framework, name: &str) -> Result<()> {
    let future = "2999-01-01T00:00:00Z";
    let condition = json!({
        "type": "Ready", "status": "True", "reason": "Assigned", "message": "of the future", "lastTransitionTime": future,
    });
    let status = Patch::Merge(json!({ "status": { "lastUpdated": future, "conditions": [condition] } }));
    f.api::<K>().patch_status(name, &PatchParams::default(), &status).await?;
    Ok(())
}

#[tokio::test]
async fn timestamps_of_the_future_are_only_words() -> Result<()> {
    let _alone = ALONE.lock().await;
    let Some(cluster) = local_cluster().await? else { return Ok(()) };
    install(cluster).await?;
    let mut operator = Operator::start(cluster, Layout::Combined).await?;
    let f = Framework::new(cluster, "future").await?;
    f.add_logs(&operator);
    let test = async {
        f.create_provider("vpn", 1).await?;
        let consumer = f.create_active_mask("mine").await?;
        f.wait_until("mine", "Ready", |mask: &Mask| is_ready(mask)).await?;
        let pod = f.run_pod(owned_pod("user", &consumer, 1)?).await?;
        operator.kill().await?;
        written_in_the_future::<Mask>(&f, "mine").await?;
        written_in_the_future::<MaskConsumer>(&f, "mine").await?;
        written_in_the_future::<MaskProvider>(&f, "vpn").await?;
        written_in_the_future::<MaskReservation>(&f, "vpn-0").await?;
        operator.restart(cluster).await?;
        f.add_logs(&operator);
        f.wait_for_reason::<MaskProvider>("vpn", "Available").await?;
        f.wait_for_reason::<MaskReservation>("vpn-0", "SlotInUse").await?;
        f.create_mask("next").await?;
        f.wait_for_reason::<Mask>("next", "NoFreeSlot").await?;
        ensure_eq("consumer", f.wait_active("mine").await?.uid(), consumer.uid())?;
        f.delete::<Mask>("mine").await?;
        f.wait_active("next").await?;
        f.wait_deleted(&pod).await?;
        f.clear(e2e::wait::TIMEOUT).await?;
        operator.stop().await
    };
    f.dump_on_error(test).await
}
