//! Providers that admit all namespaces. They would serve the Masks of every other test in their cluster.

use anyhow::{Result, ensure};
use e2e::{
    Cluster, Framework, Layout, Namespace, Operator,
    testing::framework::{ensure_eq, local_cluster},
};
use kube::ResourceExt;
use vpn_types::{Mask, MaskProvider, MaskReservation};

#[tokio::test]
async fn a_provider_without_a_list_admits_all_namespaces() -> Result<()> {
    let Some(cluster) = local_cluster().await? else { return Ok(()) };
    let operator = Operator::start(cluster, Layout::FourProcesses).await?;
    Framework::run(cluster, &operator, "provider", async |f| {
        let provider = f.create_provider_with("vpn", 2, |spec| spec.namespaces = None).await?;
        let mut users = Vec::new();
        for _ in 0..2 {
            let user = Framework { namespace: Namespace::create(cluster, "user").await?, client: f.client.clone() };
            let consumer = user.create_active_mask("mine").await?;
            let assigned = consumer.status.clone().and_then(|status| status.provider).unwrap_or_default();
            ensure_eq("provider", (Some(assigned.uid), assigned.namespace), (provider.uid(), f.name().to_owned()))?;
            users.push(user);
        }
        let reserved = |all: &[MaskReservation]| {
            let names: Vec<_> = all.iter().map(|reservation| &*reservation.spec.namespace).collect();
            users.iter().all(|user| names.contains(&user.name()))
        };
        f.wait_until_all("one for each namespace", reserved).await?;
        f.delete::<MaskProvider>("vpn").await?;
        f.wait_deleted(&provider).await?;
        for user in users {
            user.wait_for_reason::<Mask>("mine", "NoProviderFits").await?;
        }
        Ok(())
    })
    .await?;
    example(cluster, &operator).await?;
    operator.stop().await
}

/// Checks the objects that users of version 1.0.1 have in their repositories, field for field.
async fn example(cluster: &Cluster, operator: &Operator) -> Result<()> {
    Framework::run(cluster, operator, "example", async |f| {
        let example = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/example.yaml");
        let output = cluster
            .kubectl()
            .command(cluster.admin())
            .args(["--namespace", f.name(), "apply", "--filename", example])
            .output()
            .await?;
        let (out, warnings) = (String::from_utf8(output.stdout)?, String::from_utf8(output.stderr)?);
        ensure!(output.status.success() && warnings.is_empty(), "{warnings}");
        ensure_eq("objects", out.lines().count(), 3)?;
        // The operator also decodes them. No container runs on this node, so the verification does not finish.
        f.wait_for_reason::<MaskProvider>("my-vpn", "Verifying").await?;
        f.wait_for_reason::<Mask>("my-mask", "NoProviderUsable").await?;
        Ok(())
    })
    .await
}
