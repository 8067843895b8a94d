//! Many clients of an OpenVPN server at once, and no requests at rest.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use e2e::{
    Framework, Layout, Operator, OperatorOptions,
    audit::Access,
    operator::webhook::free_port,
    testing::{
        figures,
        framework::{ensure_eq, local_cluster},
        http,
    },
    wait::{is_ready, wait_for_count},
};
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{DeleteParams, ListParams};
use serde_json::json;
use vpn_types::{OpenVPNClient, OpenVPNServer};

const CLIENTS: usize = 1000;
/// The timeout. Only a failing test reaches it.
const LIMIT: Duration = Duration::from_secs(300);
/// How long the operator must stay idle.
const QUIET: Duration = Duration::from_secs(20);

/// Returns how often the operator has decided, and how often that took longer than 50 ms.
async fn decisions(port: u16) -> Result<(u64, u64)> {
    let text = http::get(port, "/metrics").await?;
    let value = |name: &str| -> Result<u64> {
        let name = format!("vpno_decision_duration_seconds_{name} ");
        Ok(text.lines().find_map(|line| line.strip_prefix(&name)).context(name)?.parse()?)
    };
    let (all, short) = (value("count")?, value("bucket{le=\"0.05\"}")?);
    Ok((all, all - short))
}

#[tokio::test]
async fn a_thousand_clients_are_issued_and_revoked_and_then_nothing_happens() -> Result<()> {
    let Some(cluster) = local_cluster().await? else { return Ok(()) };
    let port = free_port()?;
    let options = OperatorOptions::new(Layout::Combined).servers().env("METRICS_PORT", &port.to_string());
    let operator = Operator::start_with(cluster, options).await?;
    let audit = cluster.audit().context("no audit log")?;
    let counts = async |mark| {
        let requests = audit.since(mark).await?;
        let own = |access: Access| {
            let is_own = |user: &String| operator.users().contains(user);
            requests.iter().filter(|request| is_own(&request.user) && request.access() == access).count()
        };
        anyhow::Ok((own(Access::Write), own(Access::Read)))
    };
    Framework::run(cluster, &operator, "many", async |f| {
        let server = json!({"metadata": {"name": "home"}, "spec": {"replicas": 1}});
        f.create::<OpenVPNServer>(serde_json::from_value(server)?).await?;
        f.wait_for_reason::<OpenVPNServer>("home", "Serving").await?;
        let (mark, start) = (audit.mark().await?, Instant::now());
        let ready = wait_for_count(f.api::<OpenVPNClient>(), LIMIT, "issued", CLIENTS, is_ready);
        let create = stream::iter(0..CLIENTS)
            .map(|number| async move {
                let client = json!({"metadata": {"name": format!("c{number}")}, "spec": {"server": "home"}});
                f.create::<OpenVPNClient>(serde_json::from_value(client)?).await
            })
            .buffer_unordered(16)
            .try_for_each(async |_| Ok(()));
        tokio::try_join!(ready, create)?;
        let took = start.elapsed().as_secs_f64();
        let (writes, reads) = counts(mark).await?;
        let each = |count: usize| count as f64 / CLIENTS as f64;
        figures::report(&format!(
            "{CLIENTS} clients created and issued in {took:.1} s, {:.2} writes and {:.2} reads each",
            each(writes),
            each(reads)
        ));

        // The status of the server follows within a second; then nothing happens any more.
        f.wait_until("home", "the count", |server: &OpenVPNServer| {
            let certificates = server.status.as_ref().and_then(|status| status.certificates.as_ref());
            certificates.and_then(|certificates| certificates.clients) == i32::try_from(CLIENTS).ok()
        })
        .await?;
        // Events are written a few at a time.
        audit.settled(&operator.users(), LIMIT).await?;
        let mark = audit.mark().await?;
        tokio::time::sleep(QUIET).await;
        ensure_eq("writes and reads at rest", counts(mark).await?, (0, 0))?;

        let start = Instant::now();
        f.api::<OpenVPNClient>().delete_collection(&DeleteParams::default(), &ListParams::default()).await?;
        wait_for_count(f.api::<OpenVPNClient>(), LIMIT, "gone", 0, |_: &OpenVPNClient| true).await?;
        figures::report(&format!("{CLIENTS} clients revoked in {:.1} s", start.elapsed().as_secs_f64()));
        let (all, long) = decisions(port).await?;
        figures::report(&format!("of {all} decisions of the operator, {long} took longer than 50 ms"));
        let files = f.api::<Secret>().get("home-revoked").await?.data.unwrap_or_default();
        let is_serial = |name: &&String| name.bytes().all(|byte| byte.is_ascii_digit());
        ensure_eq("revoked", files.keys().filter(is_serial).count(), CLIENTS)
    })
    .await
}
