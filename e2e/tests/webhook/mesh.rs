//! Beside the webhook of a service mesh, which adds containers too.

use anyhow::{Context, Result, ensure};
use e2e::{
    Layout,
    testing::webhook::mesh::{Mesh, PROBED_PORT},
};
use k8s_openapi::api::core::v1::{Container, Pod};
use kube::api::PostParams;
use tokio::time::timeout;

use crate::{TIMEOUT, alone, pod, wait_until_served};

/// The API server calls the webhooks in the order of their names, and ours again after another one.
#[tokio::test]
async fn the_order_of_the_webhooks_makes_no_difference() -> Result<()> {
    alone(Layout::Combined, 1, async |cluster, f, _| {
        wait_until_served(f).await?;
        for name in ["a-mesh", "z-mesh"] {
            let mesh = Mesh::start(&cluster.client()?, name, f.name()).await?;
            let (init, proxy) = (format!("{name}-init"), format!("{name}-proxy"));
            let only_this_one = async {
                loop {
                    // There is nothing to watch for when a configuration takes effect, or no longer.
                    let params = PostParams { dry_run: true, ..PostParams::default() };
                    let spec = f.api::<Pod>().create(&params, &pod("app", true)?).await?.spec.context("no spec")?;
                    if names(&spec.containers) == [&*proxy, "app"] {
                        return anyhow::Ok(spec);
                    }
                }
            };
            let spec = timeout(TIMEOUT, only_this_one).await.context("the webhook takes no effect")??;
            mesh.unregister().await?;
            let before_app = spec.init_containers.as_deref().unwrap_or_default();
            ensure!(names(before_app) == ["vpn", &*init], "{before_app:?}");
            let ports = variable(&before_app[0], "FIREWALL_INPUT_PORTS");
            ensure!(ports == Some(PROBED_PORT.to_string()), "{name}: {ports:?}");
            ensure!(spec.scheduling_gates.as_ref().is_some_and(|gates| gates.len() == 1), "{name}: {spec:?}");
        }
        Ok(())
    })
    .await
}

fn names(containers: &[Container]) -> Vec<&str> {
    containers.iter().map(|one| &*one.name).collect()
}

fn variable(container: &Container, name: &str) -> Option<String> {
    container.env.iter().flatten().find(|one| one.name == name)?.value.clone()
}
