//! Providers that admit all namespaces: they would serve the Masks of every other test in their cluster.

use anyhow::{Result, ensure};
use e2e::{
    Bench, Cluster, Layout, Namespace, Operator,
    testing::bench::{our_cluster, same},
};
use kube::ResourceExt;
use vpn_types::{Mask, MaskProvider, MaskReservation};

#[tokio::test]
async fn a_provider_without_a_list_admits_all_namespaces() -> Result<()> {
    let Some(cluster) = our_cluster().await? else { return Ok(()) };
    let operator = Operator::start(cluster, Layout::FourProcesses).await?;
    Bench::run(cluster, &operator, "provider", async |bench| {
        let provider = bench.provider_with("vpn", 2, |spec| spec.namespaces = None).await?;
        let mut users = Vec::new();
        for _ in 0..2 {
            let user = Bench { namespace: Namespace::create(cluster, "user").await?, client: bench.client.clone() };
            let consumer = user.active_mask("mine").await?;
            let assigned = consumer.status.clone().and_then(|status| status.provider).unwrap_or_default();
            same("provider", (Some(assigned.uid), assigned.namespace), (provider.uid(), bench.name().to_owned()))?;
            users.push(user);
        }
        let reserved = |all: &[MaskReservation]| {
            let names: Vec<_> = all.iter().map(|reservation| &*reservation.spec.namespace).collect();
            users.iter().all(|user| names.contains(&user.name()))
        };
        bench.until_all("one for each namespace", reserved).await?;
        bench.delete::<MaskProvider>("vpn").await?;
        bench.gone(&provider).await?;
        for user in users {
            user.says::<Mask>("mine", "NoProviderFits").await?;
        }
        Ok(())
    })
    .await?;
    example(cluster, &operator).await?;
    operator.stop().await
}

/// What users of version 1.0.1 have in their repositories, field for field.
async fn example(cluster: &Cluster, operator: &Operator) -> Result<()> {
    Bench::run(cluster, operator, "example", async |bench| {
        let example = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/example.yaml");
        let output = cluster
            .kubectl()
            .command(cluster.admin())
            .args(["--namespace", bench.name(), "apply", "--filename", example])
            .output()
            .await?;
        let (out, warnings) = (String::from_utf8(output.stdout)?, String::from_utf8(output.stderr)?);
        ensure!(output.status.success() && warnings.is_empty(), "{warnings}");
        same("objects", out.lines().count(), 3)?;
        // Not only accepted: understood. No container runs on this node, so it comes to no verdict.
        bench.says::<MaskProvider>("my-vpn", "Verifying").await?;
        bench.says::<Mask>("my-mask", "NoProviderUsable").await?;
        Ok(())
    })
    .await
}
