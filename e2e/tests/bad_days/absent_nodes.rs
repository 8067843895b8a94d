//! Slots whose Pods were on a node that was lost. A cluster of its own, because a lost node is everybody's.

use anyhow::{Context, Result, ensure};
use e2e::{
    Bench, Cluster, ControlPlane, History, Layout, Operator, Options,
    control_plane::kwok,
    pods::usage::user_pod,
    testing::bench::same,
    wait::{is_active, ready_condition},
};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{Api, api::DeleteParams};
use serde_json::json;
use vpn_types::{Mask, MaskConsumer, MaskProvider, MaskProviderReleaseSpec, MaskReservation, MaskReservationStatus};

/// A slot, a Pod that uses it on that node, and somebody who waits for the slot.
async fn occupied(cluster: &Cluster, operator: &Operator, node: &str) -> Result<(Bench, History, MaskConsumer)> {
    let bench = Bench::new(cluster, "lost").await?;
    bench.add_logs(operator);
    let release = MaskProviderReleaseSpec { delay: None, unclean_delay: Some("4s".into()) };
    bench.provider_with("vpn", 1, |spec| spec.release = Some(release)).await?;
    let history = History::start(&bench.client, Some(bench.name())).await?;
    let first = bench.active_mask("first").await?;
    let mut pod = user_pod("user", &first, 1)?;
    pod.spec.get_or_insert_default().node_selector =
        Some([("kubernetes.io/hostname".to_owned(), node.to_owned())].into());
    bench.run_pod(pod).await?;
    bench.mask("second").await?;
    bench.says::<MaskConsumer>("second", "NoFreeSlot").await?;
    Ok((bench, history, first))
}

/// A verification that is under way on that node.
async fn verified_on(cluster: &Cluster, operator: &Operator, node: &str) -> Result<Bench> {
    let bench = Bench::new(cluster, "lost-verification").await?;
    bench.add_logs(operator);
    bench.credentials("account").await?;
    let mut provider = bench.new_provider("account", 1);
    provider.spec.release = Some(MaskProviderReleaseSpec { delay: None, unclean_delay: Some("1s".into()) });
    let pod = json!({ "spec": { "nodeSelector": { "kubernetes.io/hostname": node } } });
    provider.spec.verify = serde_json::from_value(json!({ "timeout": "1h", "overrides": { "pod": pod } }))?;
    bench.create(provider).await?;
    let is_bound = |pod: &Pod| pod.spec.as_ref().is_some_and(|spec| spec.node_name.as_deref() == Some(node));
    bench.until("account-verify", "on its node", is_bound).await?;
    Ok(bench)
}

/// Once the Pod is overdue the consumer says which Pod, on which node, holds the slot, and what can be done.
async fn held(bench: &Bench, node: &str) -> Result<()> {
    let held = bench.says::<MaskConsumer>("first", "HeldByLostNode").await?;
    let message = ready_condition(&held).context("no condition")?.message;
    let words = ["Pod user", node, "delete the Node object or the Pod by force"];
    ensure!(words.iter().all(|word| message.contains(word)), "{message:?}");
    bench.told::<Mask>("first", "HeldByLostNode", &words).await?;
    let lock = bench.api::<MaskReservation>().get("vpn-0").await?;
    let users = lock.status.and_then(|status| status.users).unwrap_or_default();
    let users: Vec<_> = users.iter().map(|user| (&*user.name, user.node.as_deref())).collect();
    same("recorded users", users, vec![("user", Some(node))])?;
    ensure!(!is_active(&bench.api::<MaskConsumer>().get("second").await?), "the slot was given away");
    Ok(())
}

/// The Pod is gone, and nobody knows how it ended: the slot is held until a deadline that everybody can see.
async fn held_until(bench: &Bench) -> Result<MaskReservationStatus> {
    let lock = bench.says::<MaskReservation>("vpn-0", "HeldUntilDeadline").await?;
    let message = ready_condition(&lock).context("no condition")?.message;
    let status = lock.status.context("no status")?;
    let until = status.hold_until.context("no holdUntil")?.format("%Y-%m-%dT%H:%M:%SZ").to_string();
    ensure!(message.contains(&until), "{message:?} without {until}");
    bench.told::<Mask>("first", "HeldUntilDeadline", &["MaskReservation", &until]).await?;
    Ok(status)
}

async fn handed_over(bench: &Bench, history: &mut History, first: &MaskConsumer) -> Result<MaskConsumer> {
    let second = bench.active("second").await?;
    bench.gone(first).await?;
    same("most users at once", history.judge().await?.into_values().max(), Some(1))?;
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
    let cluster = Cluster::Ours(Box::new(ControlPlane::start(Options { nodes: 4, ..Options::default() }).await?));
    let [_, stays_away, is_deleted, returns] = [0, 1, 2, 3].map(kwok::node_name);
    let client = cluster.client()?;
    let mut operator = Operator::start(&cluster, Layout::Combined).await?;
    let forced = occupied(&cluster, &operator, &stays_away).await?;
    let deleted = occupied(&cluster, &operator, &is_deleted).await?;
    let back = occupied(&cluster, &operator, &returns).await?;
    let verified = verified_on(&cluster, &operator, &is_deleted).await?;
    for node in [&stays_away, &is_deleted, &returns] {
        kwok::lose_node(&client, node).await?;
    }
    for (bench, ..) in [&forced, &deleted, &back] {
        bench.delete::<Mask>("first").await?;
    }
    // In most of a minute the garbage collector of Pods will delete what was on it, by force.
    Api::<Node>::all(client.clone()).delete(&is_deleted, &DeleteParams::default()).await?;

    let by_force = async {
        let (bench, mut history, first) = forced;
        let test = async {
            held(&bench, &stays_away).await?;
            bench.kubectl(&["delete", "pod", "user", "--force", "--grace-period=0"]).await?;
            let until = held_until(&bench).await?;
            let second = handed_over(&bench, &mut history, &first).await?;
            at_or_after(&second, &until)
        };
        bench.dump_on_error(test).await
    };
    let on_return = async {
        let (bench, mut history, first) = back;
        let test = async {
            held(&bench, &returns).await?;
            kwok::restore_node(&bench.client, &returns).await?;
            // Its kubelet says how the Pod ended: there is nothing to hold the slot for.
            handed_over(&bench, &mut history, &first).await.map(drop)
        };
        bench.dump_on_error(test).await
    };
    tokio::try_join!(by_force, on_return)?;

    let (bench, mut history, first) = deleted;
    let test = async {
        held(&bench, &is_deleted).await?;
        let until = held_until(&bench).await?;
        // The deadline is kept by the API server, not by the process.
        operator.kill().await?;
        operator.restart(&cluster).await?;
        bench.add_logs(&operator);
        let second = handed_over(&bench, &mut history, &first).await?;
        at_or_after(&second, &until)?;
        ensure!(bench.api::<Pod>().get_opt("user").await?.is_none(), "the Pod is there");
        anyhow::Ok(())
    };
    bench.dump_on_error(test).await?;

    let test = async {
        verified.says::<MaskProvider>("account", "Interrupted").await?;
        verified.told::<MaskProvider>("account", "Interrupted", &["verification Pod", "tried again at"]).await?;
        verified.until_all::<MaskConsumer>("the slot given back", <[_]>::is_empty).await.map(drop)
    };
    verified.dump_on_error(test).await?;
    operator.stop().await?;
    cluster.stop().await
}
