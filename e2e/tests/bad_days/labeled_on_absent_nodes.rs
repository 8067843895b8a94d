//! Slots of labeled Pods that were on a lost node. Each test has a cluster of its own, because a lost node affects all
//! tests.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::{
    Cluster, ControlPlaneOptions, Framework, History, Layout, Operator, OperatorOptions,
    control_plane::kwok,
    testing::framework::{ensure_eq, local_cluster},
    wait::{is_active, ready_condition},
};
use k8s_openapi::api::{
    apps::v1::ReplicaSet,
    core::v1::{Node, Pod},
};
use kube::{Api, ResourceExt, api::DeleteParams};
use serde_json::{Value, json};
use vpn_types::{Mask, MaskConsumer, MaskProviderReleaseSpec, MaskReservation};

/// Long enough to distinguish a held slot from a free one.
const HOLD: &str = "8s";

fn runs(pod: &Pod) -> bool {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running")
}

fn is_gated(pod: &Pod) -> bool {
    pod.spec.as_ref().and_then(|spec| spec.scheduling_gates.as_ref()).is_some_and(|gates| !gates.is_empty())
}

fn template(nodes: &[&str]) -> Value {
    let hosts = json!([{"key": "kubernetes.io/hostname", "operator": "In", "values": nodes}]);
    let terms = json!([{"matchExpressions": hosts}]);
    json!({
        "metadata": {"labels": {"app": "scraper", "vpn.beebs.dev/inject": "true"}},
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": terms,
            }}},
            // The Pod is evicted as soon as its node is lost.
            "tolerations": [{
                "key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute",
                "tolerationSeconds": 0,
            }],
            "containers": [{"name": "app", "image": "app"}],
        },
    })
}

/// A ReplicaSet of two Pods.
fn replica_set(template: Value) -> Result<ReplicaSet> {
    Ok(serde_json::from_value(json!({
        "metadata": {"name": "scraper"},
        "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "scraper"}}, "template": template},
    }))?)
}

/// A namespace in which a Pod on a node uses the only slot, and other Pods wait.
struct Scene {
    f: Framework,
    history: History,
    /// The Pod that runs.
    pod: Pod,
    /// Its node.
    node: String,
    consumer: MaskConsumer,
}

impl Scene {
    /// Runs one of two Pods on one of these nodes. The other Pod waits, and can run on any of them.
    async fn new(cluster: &Cluster, operator: &Operator, nodes: &[&str]) -> Result<Self> {
        let f = Framework::new(cluster, "lost").await?;
        f.add_logs(operator);
        let release = MaskProviderReleaseSpec { delay: None, unclean_delay: Some(HOLD.into()) };
        f.create_provider_with("vpn", 1, |spec| spec.release = Some(release)).await?;
        let history = History::start(&f.client, Some(f.name())).await?;
        f.create::<ReplicaSet>(replica_set(template(nodes))?).await?;
        let pods = f.wait_until_all::<Pod>("one runs, one waits", |pods| {
            pods.len() == 2 && pods.iter().any(runs) && pods.iter().any(is_gated)
        });
        let pod = pods.await?.into_iter().find(runs).context("none runs")?;
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).context("no node")?;
        let consumers = f.wait_until_all::<MaskConsumer>("one has the slot", |all| all.iter().any(is_active)).await?;
        let consumer = consumers.into_iter().find(is_active).context("none is Active")?;
        Ok(Self { f, history, pod, node, consumer })
    }

    async fn lose_node(&self) -> Result<()> {
        kwok::lose_node(&self.f.client, &self.node).await?;
        // The taint manager deletes the Pod, and nothing confirms that it has ended.
        let is_evicted = |pod: &Pod| pod.metadata.deletion_timestamp.is_some();
        self.f.wait_until(&self.pod.name_any(), "evicted", is_evicted).await.map(drop)
    }

    /// While the Pod exists, its slot is held, and the waiting Pods report it.
    async fn held_by_pod(&self) -> Result<()> {
        let mask = self.consumer.name_any();
        let held = self.f.wait_for_reason::<MaskConsumer>(&mask, "HeldByLostNode").await?;
        let message = ready_condition(&held).context("no condition")?.message;
        let pod = self.pod.name_any();
        let words = [&*pod, &self.node, "delete the Node object or force-delete the Pod"];
        ensure!(words.iter().all(|word| message.contains(word)), "{message:?}");
        self.nobody_else_runs().await
    }

    async fn nobody_else_runs(&self) -> Result<()> {
        let pods = self.f.api::<Pod>().list(&Default::default()).await?;
        let others = pods.iter().filter(|pod| pod.uid() != self.pod.uid() && !is_gated(pod));
        let others: Vec<_> = others.map(ResourceExt::name_any).collect();
        ensure!(others.is_empty(), "{others:?} got the slot");
        Ok(())
    }

    /// The Pod is gone without a confirmed end. The slot is held for a while. Then the next Pod gets it.
    async fn held_and_handed_over(mut self) -> Result<()> {
        let f = &self.f;
        let history = &mut self.history;
        let consumer = &self.consumer;
        let test = async {
            let lock = f.wait_for_reason::<MaskReservation>("vpn-0", "HeldUntilDeadline").await?;
            let until = lock.status.and_then(|status| status.hold_until).context("no holdUntil")?.timestamp();
            let next = |all: &[MaskConsumer]| all.iter().any(|one| is_active(one) && one.uid() != consumer.uid());
            let consumers = f.wait_until_all::<MaskConsumer>("another one has the slot", next).await?;
            let next = consumers.iter().find(|one| is_active(one)).context("none is Active")?;
            let assigned = ready_condition(next).context("no condition")?.last_transition_time.0.as_second();
            ensure!(assigned >= until, "assigned {} s before the end of the hold", until - assigned);
            let pods = f.wait_until_all::<Pod>("the next one runs", |pods| pods.iter().any(runs)).await?;
            ensure_eq("Pods that run", pods.iter().filter(|pod| runs(pod)).count(), 1)?;
            f.wait_deleted(consumer).await?;
            f.wait_until_all::<Mask>("a Mask for each Pod", |masks| masks.len() == 2).await?;
            ensure_eq("most users at once", history.check_slot_limits().await?.into_values().max(), Some(1))
        };
        f.dump_on_error(test).await
    }
}

async fn alone(kwok_nodes: usize, body: impl AsyncFnOnce(&Cluster, &mut Operator) -> Result<()>) -> Result<()> {
    if local_cluster().await?.is_none() {
        return Ok(());
    }
    let cluster = Cluster::connect(ControlPlaneOptions { kwok_nodes, ..ControlPlaneOptions::default() }).await?;
    let mut operator = Operator::start_with(&cluster, OperatorOptions::new(Layout::Combined).injection(1)).await?;
    body(&cluster, &mut operator).await?;
    operator.stop().await?;
    cluster.stop().await
}

async fn force_delete(scene: &Scene) -> Result<()> {
    scene.f.kubectl(&["delete", "pod", &scene.pod.name_any(), "--force", "--grace-period=0"]).await.map(drop)
}

#[tokio::test]
async fn the_slot_of_a_labeled_pod_on_a_lost_node_is_held() -> Result<()> {
    alone(4, async |cluster, operator| {
        let nodes = [0, 1, 2, 3].map(kwok::node_name);
        let [a, b, c, d] = nodes.each_ref().map(String::as_str);
        let forced = Scene::new(cluster, operator, &[a, b]).await?;
        let collected = Scene::new(cluster, operator, &[c, d]).await?;
        tokio::try_join!(forced.lose_node(), collected.lose_node())?;
        // The Pod garbage collector force-deletes the Pods of a Node that does not exist within a minute.
        Api::<Node>::all(cluster.client()?).delete(&collected.node, &DeleteParams::default()).await?;
        let by_force = async {
            forced.f.dump_on_error(forced.held_by_pod()).await?;
            force_delete(&forced).await?;
            forced.held_and_handed_over().await
        };
        let by_collector = async {
            collected.f.dump_on_error(collected.held_by_pod()).await?;
            collected.held_and_handed_over().await
        };
        tokio::try_join!(by_force, by_collector).map(drop)
    })
    .await
}

/// The Pod is force-deleted while it runs, and no release was in progress before.
#[tokio::test]
async fn a_labeled_pod_that_vanishes_while_it_runs_holds_its_slot() -> Result<()> {
    alone(2, async |cluster, operator| {
        let nodes = [0, 1].map(kwok::node_name);
        let scene = Scene::new(cluster, operator, &nodes.each_ref().map(String::as_str)).await?;
        force_delete(&scene).await?;
        scene.held_and_handed_over().await
    })
    .await
}

/// The operator may have run on the same node.
#[tokio::test]
async fn nor_is_the_slot_free_if_the_pod_vanishes_while_no_operator_runs() -> Result<()> {
    alone(2, async |cluster, operator| {
        let nodes = [0, 1].map(kwok::node_name);
        let scene = Scene::new(cluster, operator, &nodes.each_ref().map(String::as_str)).await?;
        operator.kill_part("all").await?;
        force_delete(&scene).await?;
        scene.f.wait_deleted(&scene.pod).await?;
        operator.restart(cluster).await?;
        scene.f.add_logs(operator);
        scene.held_and_handed_over().await
    })
    .await
}

/// One of the Pods that share a Mask disappears while the operator does not run either.
#[tokio::test]
async fn the_next_pod_of_a_shared_mask_waits_for_one_that_vanished() -> Result<()> {
    alone(1, async |cluster, operator| {
        let f = Framework::new(cluster, "lost-turn").await?;
        f.add_logs(operator);
        let release = MaskProviderReleaseSpec { delay: None, unclean_delay: Some(HOLD.into()) };
        f.create_provider_with("vpn", 1, |spec| spec.release = Some(release)).await?;
        f.create_active_mask("shared").await?;
        let mut set = template(&[&kwok::node_name(0)]);
        set["metadata"]["annotations"] = json!({"vpn.beebs.dev/mask": "shared"});
        f.create::<ReplicaSet>(replica_set(set)?).await?;
        let one_runs = |pods: &[Pod]| pods.len() == 2 && pods.iter().any(runs) && pods.iter().any(is_gated);
        let pods = f.wait_until_all::<Pod>("one runs, one waits", one_runs).await?;
        let first = pods.into_iter().find(runs).context("none runs")?;
        operator.kill_part("all").await?;
        let begun = Instant::now();
        f.kubectl(&["delete", "pod", &first.name_any(), "--force", "--grace-period=0"]).await?;
        f.wait_deleted(&first).await?;
        operator.restart(cluster).await?;
        f.add_logs(operator);
        let test = async {
            f.wait_until_all::<Pod>("another one runs", one_runs).await?;
            ensure!(begun.elapsed() >= Duration::from_secs(8), "after {:?}", begun.elapsed());
            Ok(())
        };
        f.dump_on_error(test).await
    })
    .await
}
