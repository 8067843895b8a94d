//! Slots whose Pods were on a lost node. These tests have their own cluster, because a lost node affects all tests.

use anyhow::{Context, Result, ensure};
use e2e::{
    Cluster, ControlPlane, ControlPlaneOptions, Framework, History, Layout, Operator,
    control_plane::kwok,
    pods::usage::owned_pod,
    testing::framework::ensure_eq,
    wait::{is_active, ready_condition},
};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{Api, api::DeleteParams};
use serde_json::json;
use vpn_types::{Mask, MaskConsumer, MaskProvider, MaskProviderReleaseSpec, MaskReservation, MaskReservationStatus};

/// Returns a slot that a Pod on that node uses, and creates a Mask that waits for the slot. `hold` is its `uncleanDelay`.
async fn occupied(
    cluster: &Cluster,
    operator: &Operator,
    node: &str,
    hold: &str,
) -> Result<(Framework, History, MaskConsumer)> {
    let f = Framework::new(cluster, "lost").await?;
    f.add_logs(operator);
    let release = MaskProviderReleaseSpec { delay: None, unclean_delay: Some(hold.into()) };
    f.create_provider_with("vpn", 1, |spec| spec.release = Some(release)).await?;
    let history = History::start(&f.client, Some(f.name())).await?;
    let first = f.create_active_mask("first").await?;
    let mut pod = owned_pod("user", &first, 1)?;
    pod.spec.get_or_insert_default().node_selector =
        Some([("kubernetes.io/hostname".to_owned(), node.to_owned())].into());
    f.run_pod(pod).await?;
    f.create_mask("second").await?;
    f.wait_for_reason::<MaskConsumer>("second", "NoFreeSlot").await?;
    Ok((f, history, first))
}

/// Starts a verification on that node.
async fn verified_on(cluster: &Cluster, operator: &Operator, node: &str) -> Result<Framework> {
    let f = Framework::new(cluster, "lost-verification").await?;
    f.add_logs(operator);
    f.create_credentials("account").await?;
    let mut provider = f.new_provider("account", 1);
    provider.spec.release = Some(MaskProviderReleaseSpec { delay: None, unclean_delay: Some("1s".into()) });
    let pod = json!({ "spec": { "nodeSelector": { "kubernetes.io/hostname": node } } });
    provider.spec.verify = serde_json::from_value(json!({ "timeout": "1h", "overrides": { "pod": pod } }))?;
    f.create(provider).await?;
    let is_bound = |pod: &Pod| pod.spec.as_ref().is_some_and(|spec| spec.node_name.as_deref() == Some(node));
    f.wait_until("account-verify", "on its node", is_bound).await?;
    Ok(f)
}

/// Once the Pod is overdue, the MaskConsumer names the Pod and the node, and says what to do.
async fn held(f: &Framework, node: &str) -> Result<()> {
    let held = f.wait_for_reason::<MaskConsumer>("first", "HeldByLostNode").await?;
    let message = ready_condition(&held).context("no condition")?.message;
    let words = ["Pod user", node, "delete the Node object or force-delete the Pod"];
    ensure!(words.iter().all(|word| message.contains(word)), "{message:?}");
    f.wait_for_event::<Mask>("first", "HeldByLostNode", &words).await?;
    let lock = f.api::<MaskReservation>().get("vpn-0").await?;
    let users = lock.status.and_then(|status| status.users).unwrap_or_default();
    let users: Vec<_> = users.iter().map(|user| (&*user.name, user.node.as_deref())).collect();
    ensure_eq("recorded users", users, vec![("user", Some(node))])?;
    ensure!(!is_active(&f.api::<MaskConsumer>().get("second").await?), "the slot was reassigned");
    Ok(())
}

/// The Pod was removed without a confirmed end. The status shows until when the slot is held.
async fn held_until(f: &Framework) -> Result<MaskReservationStatus> {
    let lock = f.wait_for_reason::<MaskReservation>("vpn-0", "HeldUntilDeadline").await?;
    let message = ready_condition(&lock).context("no condition")?.message;
    let status = lock.status.context("no status")?;
    let until = status.hold_until.context("no holdUntil")?.format("%Y-%m-%dT%H:%M:%SZ").to_string();
    ensure!(message.contains(&until), "{message:?} without {until}");
    f.wait_for_event::<Mask>("first", "HeldUntilDeadline", &["MaskReservation", &until]).await?;
    Ok(status)
}

async fn handed_over(f: &Framework, history: &mut History, first: &MaskConsumer) -> Result<MaskConsumer> {
    let second = f.wait_active("second").await?;
    f.wait_deleted(first).await?;
    ensure_eq("most users at once", history.check_slot_limits().await?.into_values().max(), Some(1))?;
    Ok(second)
}

fn at_or_after(consumer: &MaskConsumer, held: &MaskReservationStatus) -> Result<()> {
    let until = held.hold_until.context("no holdUntil")?.timestamp();
    let assigned = ready_condition(consumer).context("no condition")?.last_transition_time.0.as_second();
    ensure!(assigned >= until, "assigned {} s before the end of the hold", until - assigned);
    Ok(())
}

#[tokio::test]
async fn the_slot_of_a_pod_on_a_lost_node_is_held() -> Result<()> {
    let cluster = Cluster::Local(Box::new(
        ControlPlane::start(ControlPlaneOptions { kwok_nodes: 4, ..ControlPlaneOptions::default() }).await?,
    ));
    let [_, stays_away, is_deleted, returns] = [0, 1, 2, 3].map(kwok::node_name);
    let client = cluster.client()?;
    let mut operator = Operator::start(&cluster, Layout::Combined).await?;
    let forced = occupied(&cluster, &operator, &stays_away, "8s").await?;
    // The operator is killed during this hold, when the other scenes are over.
    let deleted = occupied(&cluster, &operator, &is_deleted, "20s").await?;
    let back = occupied(&cluster, &operator, &returns, "8s").await?;
    let verified = verified_on(&cluster, &operator, &is_deleted).await?;
    for node in [&stays_away, &is_deleted, &returns] {
        kwok::lose_node(&client, node).await?;
    }
    for (f, ..) in [&forced, &deleted, &back] {
        f.delete::<Mask>("first").await?;
    }
    // The Pod garbage collector force-deletes the node's Pods within a minute.
    Api::<Node>::all(client.clone()).delete(&is_deleted, &DeleteParams::default()).await?;

    let by_force = async {
        let (f, mut history, first) = forced;
        let test = async {
            held(&f, &stays_away).await?;
            f.kubectl(&["delete", "pod", "user", "--force", "--grace-period=0"]).await?;
            let until = held_until(&f).await?;
            let second = handed_over(&f, &mut history, &first).await?;
            at_or_after(&second, &until)
        };
        f.dump_on_error(test).await
    };
    let on_return = async {
        let (f, mut history, first) = back;
        let test = async {
            held(&f, &returns).await?;
            kwok::restore_node(&f.client, &returns).await?;
            // Its kubelet reports how the Pod ended, so there is no hold.
            handed_over(&f, &mut history, &first).await.map(drop)
        };
        f.dump_on_error(test).await
    };
    let (f, mut history, first) = deleted;
    let mut until = None;
    let by_collector = f.dump_on_error(async {
        held(&f, &is_deleted).await?;
        until = Some(held_until(&f).await?);
        Ok(())
    });
    let interrupted = verified.dump_on_error(async {
        verified.wait_for_reason::<MaskProvider>("account", "Interrupted").await?;
        verified
            .wait_for_event::<MaskProvider>("account", "Interrupted", &["verification Pod", "tried again at"])
            .await?;
        verified.wait_until_all::<MaskConsumer>("the slot is released", <[_]>::is_empty).await.map(drop)
    });
    tokio::try_join!(by_force, on_return, by_collector, interrupted)?;

    let test = async {
        let until = until.context("no hold")?;
        // The API server stores the deadline, so it survives the process.
        operator.kill().await?;
        operator.restart(&cluster).await?;
        f.add_logs(&operator);
        let second = handed_over(&f, &mut history, &first).await?;
        at_or_after(&second, &until)?;
        ensure!(f.api::<Pod>().get_opt("user").await?.is_none(), "the Pod exists");
        anyhow::Ok(())
    };
    f.dump_on_error(test).await?;

    operator.stop().await?;
    cluster.stop().await
}
