//! The operator is killed after each of its writes for the labeled Pods of a Deployment: the API server has carried out
//! the write, but the operator never sees the response.

use std::{
    ops::Range,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use e2e::{
    Cluster, Fault, FaultProxy, Filter, Framework, History, Layout, Operator, OperatorOptions, Rule,
    audit::Access,
    testing::{figures::report, framework::local_cluster},
    wait::TIMEOUT,
};
use futures::future::try_join_all;
use k8s_openapi::api::{apps::v1::Deployment, core::v1::Pod};
use kube::ResourceExt;
use serde_json::json;
use vpn_types::{MaskProvider, MaskProviderReleaseSpec};

use crate::ALONE;

/// The number of concurrent lives, each in its own namespace. A kill affects all of them, each at a different point.
const AT_ONCE: usize = 8;
/// Longer than a test. The operator is killed while it waits for the response.
const NEVER: Duration = Duration::from_secs(3600);

fn runs(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    pod.metadata.deletion_timestamp.is_none() && phase == Some("Running")
}

fn is_gated(pod: &Pod) -> bool {
    pod.spec.as_ref().and_then(|spec| spec.scheduling_gates.as_ref()).is_some_and(|gates| !gates.is_empty())
}

/// Two Pods and one slot: one runs, the other waits and then follows, and in the end both are gone.
async fn life(f: &Framework) -> Result<()> {
    let mut history = History::start(&f.client, Some(f.name())).await?;
    // A slot is held if it is unknown how its Pod ended.
    let release = MaskProviderReleaseSpec { delay: None, unclean_delay: Some("1s".into()) };
    f.create_provider_with("vpn", 1, |spec| spec.release = Some(release)).await?;
    let deployment = json!({
        "metadata": {"name": "scraper"},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": {"app": "scraper"}},
            "template": {
                "metadata": {"labels": {"app": "scraper", "vpn.beebs.dev/inject": "true"}},
                "spec": {"terminationGracePeriodSeconds": 1, "containers": [{"name": "app", "image": "app"}]},
            },
        },
    });
    f.create::<Deployment>(serde_json::from_value(deployment)?).await?;
    let one_runs =
        |pods: &[Pod]| pods.len() == 2 && pods.iter().filter(|pod| runs(pod)).count() == 1 && pods.iter().any(is_gated);
    let pods = f.wait_until_all::<Pod>("one runs, one waits", one_runs).await?;
    let first = pods.into_iter().find(runs).context("none runs")?;
    f.delete::<Pod>(&first.name_any()).await?;
    f.wait_deleted(&first).await?;
    f.wait_until_all::<Pod>("the other one runs, another one waits", one_runs).await?;
    f.kubectl(&["scale", "deployment/scraper", "--replicas=0"]).await?;
    f.wait_until_all::<Pod>("no Pod", <[_]>::is_empty).await?;
    f.wait_for_no_masks(TIMEOUT).await?;
    let is_idle = |provider: &MaskProvider| {
        provider.status.as_ref().is_some_and(|status| status.active_slots.unwrap_or_default() == 0)
    };
    f.wait_until("vpn", "no slot in use", is_idle).await?;
    history.check_slot_limits().await.map(drop)
}

struct Setting {
    cluster: &'static Cluster,
    proxy: Arc<FaultProxy>,
    operator: Operator,
}

impl Setting {
    /// Runs a [`life`] for each number of writes. Kills the operator once, when each life has had one write more than
    /// its number, or has ended. Returns how many lives had that many writes.
    async fn batch(&mut self, numbers: Range<usize>) -> Result<usize> {
        let mut lives = Vec::new();
        for before in numbers {
            let f = Framework::new(self.cluster, "kill").await?;
            f.add_logs(&self.operator);
            let filter = Filter::default().namespace(f.name()).access(Access::Write);
            let armed = self.proxy.add(Rule::first(filter, Fault::ResponseDelayed(NEVER)).after(before));
            let end = tokio::spawn(async move {
                let result = life(&f).await.with_context(|| format!("killed after {before} writes"));
                f.dump_on_error(async { result }).await
            });
            lives.push((armed, end));
        }
        let points = lives.iter_mut().map(async |(armed, end)| {
            tokio::select! {
                hit = armed.wait_for_hits(1) => hit.map(|()| None),
                ended = end => Ok(Some(ended?)),
            }
        });
        let ended = try_join_all(points).await?;
        self.operator.kill_part("all").await?;
        self.operator.restart(self.cluster).await?;
        let mut kills = 0;
        for ((armed, end), ended) in lives.into_iter().zip(ended) {
            self.proxy.remove(std::slice::from_ref(&armed));
            kills += usize::from(ended.is_none());
            match ended {
                Some(result) => result?,
                None => end.await??,
            }
        }
        Ok(kills)
    }

    /// The number of writes of a life without a kill.
    async fn count_writes(&self) -> Result<usize> {
        let users = self.operator.users();
        let audit = self.cluster.audit().context("no audit log")?;
        let mark = audit.mark().await?;
        let f = Framework::new(self.cluster, "whole").await?;
        f.dump_on_error(life(&f)).await?;
        let filter = Filter::default().namespace(f.name()).access(Access::Write);
        let requests = audit.since(mark).await?;
        Ok(requests.matching(&filter).filter(|request| users.contains(&request.user)).count())
    }
}

#[tokio::test]
async fn a_kill_after_any_write_leaves_no_pod_and_no_slot_behind() -> Result<()> {
    let _alone = ALONE.lock().await;
    let Some(cluster) = local_cluster().await? else { return Ok(()) };
    let proxy = Arc::new(FaultProxy::start(cluster.admin()).await?);
    let options = OperatorOptions::new(Layout::Combined).via_proxy(&proxy).injection(1);
    let operator = Operator::start_with(cluster, options).await?;
    let mut setting = Setting { cluster, proxy, operator };
    let (writes, begun, mut kills) = (setting.count_writes().await?, Instant::now(), 0);
    for first in (0..writes).step_by(AT_ONCE) {
        kills += setting.batch(first..writes.min(first + AT_ONCE)).await?;
    }
    report(&format!(
        "{kills} lives with a kill, after each of the {writes} writes for two labeled Pods that take turns, in {:.0} s",
        begun.elapsed().as_secs_f64()
    ));
    // The number of writes of statuses and Events varies, especially on a busy machine.
    ensure!(kills * 5 >= writes * 4, "only {kills} kills for {writes} writes");
    setting.operator.stop().await
}
