//! The certificate with which kube-apiserver proves that it is the front proxy.

use anyhow::{Result, ensure};
use e2e::{Cluster, operator::metrics_api::wait_for_availability, wait::TIMEOUT};
use time::Duration;
use tokio::time::{Instant, sleep};

use crate::{SYNC, alone, failure, wait_for_value};

#[tokio::test]
async fn an_expired_front_proxy_is_refused_until_it_is_replaced() -> Result<()> {
    alone(async |cluster, f, _| {
        let Cluster::Local(local) = cluster else { return Ok(()) };
        f.create_provider("vpn", 3).await?;
        let path = format!("/apis/external.metrics.k8s.io/v1beta1/namespaces/{}/vpno_provider_slots", f.name());
        wait_for_value(f, &path, "3").await?;

        local.pki().replace_front_proxy(Duration::hours(-1))?;
        wait_for_availability(cluster, false).await?;
        // kube-apiserver may have an open connection with the old certificate for a moment.
        let deadline = Instant::now() + TIMEOUT;
        loop {
            let message = failure(f, &path).await;
            if message.as_ref().is_ok_and(|message| message.contains("ServiceUnavailable")) {
                break;
            }
            ensure!(Instant::now() < deadline, "{message:?}");
            sleep(SYNC / 10).await;
        }

        local.pki().replace_front_proxy(Duration::days(365))?;
        wait_for_availability(cluster, true).await?;
        wait_for_value(f, &path, "3").await.map(drop)
    })
    .await
}
