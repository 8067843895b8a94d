//! Each kind of request fails in each way: no slot is assigned twice or leaked, and the operator recovers on its own.

use std::{env, sync::Arc, time::Duration};

use anyhow::{Context, Result, ensure};
use e2e::{
    Cluster, Fault, FaultProxy, Filter, Framework, History, Layout, Operator, OperatorOptions, Rule,
    testing::{
        framework::{ensure_eq, local_cluster},
        steady_state::{run_pods, wait_for_steady_state},
    },
    wait::TIMEOUT,
};
use futures::{StreamExt, stream};
use http::StatusCode;
use kube::ResourceExt;
use vpn_types::{Mask, MaskProviderReleaseSpec};

use crate::ALONE;

/// If set to any value, every fault is combined with every request in both layouts. Otherwise, only some are.
const ALL: &str = "E2E_ALL_FAULTS";
/// The number of concurrent rounds, each in its own namespace.
const AT_ONCE: usize = 12;
const SLOTS: usize = 2;
/// Longer than the operator's request timeout.
const LATE: Duration = Duration::from_secs(6);

/// The requests of each round: verb, resource, subresource.
const REQUESTS: [(&str, &str, &str); 15] = [
    ("create", "maskconsumers", ""),
    ("create", "maskreservations", ""),
    ("create", "secrets", ""),
    ("patch", "maskconsumers", "status"),
    ("patch", "masks", "status"),
    ("patch", "maskreservations", "status"),
    ("patch", "maskproviders", "status"),
    ("patch", "maskproviders", ""),
    ("patch", "maskconsumers", ""),
    ("patch", "maskreservations", ""),
    ("delete", "secrets", ""),
    ("delete", "pods", ""),
    ("delete", "maskconsumers", ""),
    ("delete", "maskreservations", ""),
    ("list", "pods", ""),
];

const FAULTS: [Fault; 11] = [
    Fault::Rejected(StatusCode::UNAUTHORIZED),
    Fault::Rejected(StatusCode::CONFLICT),
    Fault::Rejected(StatusCode::TOO_MANY_REQUESTS),
    Fault::Rejected(StatusCode::INTERNAL_SERVER_ERROR),
    Fault::Rejected(StatusCode::SERVICE_UNAVAILABLE),
    Fault::ResponseReplaced(StatusCode::INTERNAL_SERVER_ERROR),
    Fault::ResponseReplaced(StatusCode::GATEWAY_TIMEOUT),
    Fault::RequestDropped,
    Fault::ResponseDropped,
    Fault::RequestDelayed(LATE),
    Fault::ResponseDelayed(LATE),
];

struct Setting {
    cluster: &'static Cluster,
    proxy: Arc<FaultProxy>,
    operator: Operator,
}

impl Setting {
    async fn start(layout: Layout) -> Result<Option<Self>> {
        let Some(cluster) = local_cluster().await? else { return Ok(None) };
        let proxy = Arc::new(FaultProxy::start(cluster.admin()).await?);
        let operator = Operator::start_with(cluster, OperatorOptions::new(layout).via_proxy(&proxy)).await?;
        Ok(Some(Self { cluster, proxy, operator }))
    }

    /// Runs [`life`] with a fault in one kind of request, after `skip` requests of that kind.
    async fn round(&self, (verb, resource, subresource): (&str, &str, &str), fault: Fault, skip: usize) -> Result<()> {
        let f = Framework::new(self.cluster, "fault").await?;
        f.add_logs(&self.operator);
        let filter = Filter::default().namespace(f.name()).verb(verb).resource(resource).subresource(subresource);
        let armed = self.proxy.add(Rule::first(filter, fault).after(skip));
        let result = f.dump_on_error(life(&f)).await;
        self.proxy.remove(std::slice::from_ref(&armed));
        result.with_context(|| armed.to_string())?;
        ensure!(armed.hits() == 1 || skip > 0, "no such request: {armed}");
        Ok(())
    }
}

/// More Masks than slots, Pods on all slots, a deleted Mask, its replacement, and the end.
async fn life(f: &Framework) -> Result<()> {
    // A slot is held if it is unknown how its Pod ended.
    let release = MaskProviderReleaseSpec { delay: None, unclean_delay: Some("1s".into()) };
    let mut history = History::start(&f.client, Some(f.name())).await?;
    f.create_provider_with("vpn", SLOTS, |spec| spec.release = Some(release)).await?;
    for name in ["a", "b", "c"] {
        f.create_mask(name).await?;
    }
    let consumers = wait_for_steady_state(f, SLOTS).await?;
    run_pods(f, &consumers).await?;
    let first = consumers.first().context("none")?;
    f.delete::<Mask>(&first.name_any()).await?;
    f.wait_deleted(first).await?;
    let consumers = wait_for_steady_state(f, SLOTS).await?;
    run_pods(f, &consumers).await?;
    let most = history.check_slot_limits().await?.into_values().max();
    f.clear(TIMEOUT).await?;
    wait_for_steady_state(f, 0).await?;
    history.check_slot_limits().await?;
    ensure_eq("most users at once", most, Some(SLOTS))?;
    // There were three Masks, and none was evicted.
    ensure_eq("MaskConsumers", history.consumers(), 3)
}

/// Runs one of `one_of` rounds, or all if [`ALL`] is set. The error names all failed rounds.
async fn rounds(layout: Layout, one_of: usize) -> Result<()> {
    let _alone = ALONE.lock().await;
    let Some(setting) = Setting::start(layout).await? else { return Ok(()) };
    let one_of = if env::var_os(ALL).is_some() { 1 } else { one_of };
    let all = REQUESTS.into_iter().flat_map(|request| FAULTS.map(|fault| (request, fault)));
    let all = all.flat_map(|(request, fault)| [0, 1].map(|skip| (request, fault, skip)));
    let chosen: Vec<_> = all.step_by(one_of).collect();
    let setting = &setting;
    let run = |(request, fault, skip)| async move { setting.round(request, fault, skip).await.err() };
    let failed: Vec<_> = stream::iter(chosen.iter().copied()).map(run).buffer_unordered(AT_ONCE).collect().await;
    let failed: Vec<_> = failed.into_iter().flatten().map(|error| format!("{error:#}")).collect();
    ensure!(failed.is_empty(), "{} of {} rounds failed:\n{}", failed.len(), chosen.len(), failed.join("\n\n"));
    setting.operator.stop().await
}

#[tokio::test]
async fn bad_answers_to_every_request_of_one_process() -> Result<()> {
    rounds(Layout::Combined, 9).await
}

#[tokio::test]
async fn bad_answers_to_every_request_of_four_processes() -> Result<()> {
    rounds(Layout::FourProcesses, 29).await
}

/// The resources that the operator watches.
const WATCHED: [&str; 6] = ["masks", "maskconsumers", "maskproviders", "maskreservations", "secrets", "pods"];

/// The first watches on each kind end after a few events, each in another way.
#[tokio::test]
async fn watches_that_are_cut_or_expire() -> Result<()> {
    let _alone = ALONE.lock().await;
    let Some(cluster) = local_cluster().await? else { return Ok(()) };
    for fault in [Fault::WatchDisconnected(2), Fault::WatchExpired(1), Fault::WatchExpired(3)] {
        let proxy = Arc::new(FaultProxy::start(cluster.admin()).await?);
        let watches = |kind| Rule::first(Filter::default().verb("watch").resource(kind), fault).times(2);
        let armed = WATCHED.map(|kind| proxy.add(watches(kind)));
        let operator = Operator::start_with(cluster, OperatorOptions::new(Layout::Combined).via_proxy(&proxy)).await?;
        let f = Framework::new(cluster, "watches").await?;
        f.add_logs(&operator);
        f.dump_on_error(life(&f)).await.with_context(|| format!("{fault:?}"))?;
        for watch in &armed {
            ensure!(watch.hits() > 0, "no watch: {watch}");
        }
        operator.stop().await?;
    }
    Ok(())
}
