//! The certificate with which kube-apiserver proves that it is the front proxy.

use anyhow::{Result, ensure};
use e2e::{Cluster, operator::metrics_api::wait_for_availability, testing::framework::ensure_eq};

use time::Duration;

use crate::{alone, failure, raw};

#[tokio::test]
async fn an_expired_front_proxy_is_refused_until_it_is_replaced() -> Result<()> {
    alone(async |cluster, f, _| {
        let Cluster::Local(local) = cluster else { return Ok(()) };
        f.create_provider("vpn", 3).await?;
        let path = format!("/apis/external.metrics.k8s.io/v1beta1/namespaces/{}/vpno_provider_slots", f.name());
        let slots = async || Ok::<_, anyhow::Error>(raw(f, &path).await?["items"][0]["value"].clone());
        ensure_eq("slots", slots().await?, "3".into())?;

        local.pki().replace_front_proxy(Duration::hours(-1))?;
        wait_for_availability(cluster, false).await?;
        let message = failure(f, &path).await?;
        ensure!(message.contains("ServiceUnavailable"), "{message}");

        local.pki().replace_front_proxy(Duration::days(365))?;
        wait_for_availability(cluster, true).await?;
        ensure_eq("slots", slots().await?, "3".into())
    })
    .await
}
