//! The workloads in `e2e/demo`, applied unchanged: their traffic always leaves through the VPN, and the slot is
//! released when they are gone.

use anyhow::{Context, Result, ensure};
use e2e::{
    Cluster, Framework, History,
    cluster::shared,
    node::images,
    pods::{
        logs::{container_status, wait_for_log},
        usage::slot_secret_name,
    },
    testing::framework::ensure_eq,
    vpn::{Scenario, VpnService, node_of},
    wait::is_ready,
};
use k8s_openapi::api::{batch::v1::Job, core::v1::Pod};
use kube::ResourceExt;
use vpn_types::{Mask, MaskConsumer, MaskProvider};

use crate::{verification, vpn::TIMEOUT};

const DEPLOYMENT: &str = include_str!("../../demo/deployment.yaml");
const STATEFUL_SET: &str = include_str!("../../demo/statefulset.yaml");
const JOB: &str = include_str!("../../demo/job.yaml");

/// Runs a workload on the only slot of an account. The Mask `first` holds the slot, and `second` waits for it.
async fn contended(
    template: &str,
    case: Scenario,
    body: impl AsyncFnOnce(&Cluster, &Framework, &VpnService, &Pod) -> Result<()>,
) -> Result<()> {
    let cluster = shared::cluster_with_node().await?;
    let operator = verification::operator(VpnService::shared().await?).await?;
    Framework::run(cluster, operator, "workload", async |f| {
        let vpn = VpnService::shared().await?;
        f.create(vpn.secret("account-credentials", case)?).await?;
        f.create(f.new_provider("account", 1)).await?;
        f.wait_until("account", "a usable provider", |provider: &MaskProvider| is_ready(provider)).await?;
        let mut history = History::start(&f.client, Some(f.name())).await?;
        let first = f.create_active_mask("first").await?;
        f.create_mask("second").await?;
        f.wait_for_reason::<MaskConsumer>("second", "NoFreeSlot").await?;
        apply(cluster, f, vpn, template, &first).await?;
        let what = "a Pod with an address";
        let has_address = |pod: &Pod| pod.status.as_ref().is_some_and(|status| status.pod_ip.is_some());
        let pods = f.wait_until_all(what, |pods: &[Pod]| pods.len() == 1 && has_address(&pods[0])).await?;
        let pod = pods.into_iter().next().context("no Pod")?;
        body(cluster, f, vpn, &pod).await?;
        let own = pod.status.as_ref().and_then(|status| status.pod_ip.as_deref()).context("no address")?.parse()?;
        ensure!(!vpn.request_counts().await?.contains_key(&own), "traffic left by the Pod's own address");

        f.delete::<Mask>("first").await?;
        f.wait_active("second").await?;
        f.wait_deleted(&pod).await?;
        f.wait_deleted(&first).await?;
        ensure_eq("most users at once", history.check_slot_limits().await?.into_values().collect::<Vec<_>>(), vec![1])
    })
    .await
}

/// Fills in a template and applies it.
async fn apply(
    cluster: &Cluster,
    f: &Framework,
    vpn: &VpnService,
    template: &str,
    consumer: &MaskConsumer,
) -> Result<()> {
    let values = [
        ("${MASK}", consumer.name_any()),
        ("${CONSUMER_UID}", consumer.uid().context("no uid")?),
        ("${SECRET}", slot_secret_name(consumer)?),
        ("${IMAGE}", images::GLUETUN.into()),
        ("${APP_IMAGE}", images::TOOLS.into()),
        ("${URL}", vpn.address_url()),
    ];
    let (comments, content) = template.split_once("apiVersion").context("no object")?;
    for (name, _) in values.iter().filter(|(name, _)| content.contains(name)) {
        ensure!(comments.contains(name), "the file does not explain {name}");
    }
    let filled = values.iter().fold(format!("apiVersion{content}"), |text, (name, value)| text.replace(name, value));
    let file = cluster.state_dir().join(format!("{}.yaml", f.name()));
    std::fs::write(&file, filled)?;
    f.kubectl(&["apply", "-f", &file.to_string_lossy()]).await.map(drop)
}

async fn ready(f: &Framework, pod: &Pod) -> Result<Pod> {
    f.wait_until(&pod.name_any(), "a ready Pod", is_ready).await
}

/// Whatever the app sends, and whatever happens to the VPN client, traffic leaves through the VPN or not at all.
async fn stays_behind_the_vpn(cluster: &Cluster, f: &Framework, vpn: &VpnService, pod: &Pod) -> Result<()> {
    let name = pod.name_any();
    let pod = ready(f, pod).await?;
    let exit = vpn.exit_address().to_string();
    let app = ["exec", &name, "--container=app", "--", "sh", "-c"];
    let url = vpn.address_url();
    let endless = format!("while :; do curl --silent --max-time 1 {url} >> /tmp/seen; done > /dev/null 2>&1 &");
    f.kubectl(&[&app[..], &[&endless]].concat()).await?;
    let seen = || async {
        f.kubectl(&[&app[..], &["until [ -s /tmp/seen ]; do sleep 0.1; done; sort -u /tmp/seen"]].concat()).await
    };
    ensure_eq("all that the app saw", seen().await?.trim(), exit.as_str())?;

    let before = container_status(&pod, "vpn").context("no container vpn")?;
    let id = before.container_id.clone().context("no container")?;
    node_of(cluster)?.kill_container(&id).await?;
    let again = |pod: &Pod| {
        let vpn = container_status(pod, "vpn");
        vpn.is_some_and(|vpn| vpn.restart_count > before.restart_count && vpn.started == Some(true)) && is_ready(pod)
    };
    f.wait_until(&name, "a VPN client that was started again", again).await?;
    f.kubectl(&[&app[..], &["rm /tmp/seen"]].concat()).await?;
    ensure_eq("all that the app saw afterwards", seen().await?.trim(), exit.as_str())
}

pub async fn a_deployment_behind_the_vpn() -> Result<()> {
    contended(DEPLOYMENT, Scenario::OpenVpn, stays_behind_the_vpn).await
}

pub async fn a_stateful_set_behind_the_vpn() -> Result<()> {
    contended(STATEFUL_SET, Scenario::WireGuard(2), stays_behind_the_vpn).await
}

/// The app requests its public address immediately after the start.
pub async fn a_job_behind_the_vpn() -> Result<()> {
    contended(JOB, Scenario::OpenVpnTcp, async |_, f, vpn, pod| {
        let exit = vpn.exit_address().to_string();
        let name = pod.name_any();
        wait_for_log(&f.api(), &name, "app", &[&exit], TIMEOUT).await?;
        // The Job is complete although the sidecar runs until it is stopped.
        let complete = |job: &Job| job.status.as_ref().is_some_and(|status| status.succeeded == Some(1));
        f.wait_until("first", "a complete Job", complete).await?;
        Ok(())
    })
    .await
}
