//! Credentials of single slots: a WireGuard key is one device.

use anyhow::{Context, Result, ensure};
use e2e::{
    pods::usage::secret_of,
    testing::bench::same,
    vpn::{Case, VpnService, client_pod, pod_ready, wireguard_address},
    wait::is_ready,
};
use k8s_openapi::api::core::v1::{Pod, Secret};
use serde_json::json;
use vpn_types::{MaskProvider, MaskProviderSlotSpec, owner_reference_for};

use crate::{bench, verification::operator};

/// What differs from device to device.
const OWN: [&str; 2] = ["WIREGUARD_PRIVATE_KEY", "WIREGUARD_ADDRESSES"];

/// Two devices of one account, verified with the key of one of them, are connected at the same time.
pub async fn each_device_has_its_key() -> Result<()> {
    bench("devices", async |_, bench| {
        let vpn = VpnService::shared().await?;
        bench.add_logs(operator(vpn).await?);
        let mut common = vpn.credentials(Case::WireGuard(0));
        common.retain(|name, _| !OWN.contains(&name.as_str()));
        let secret = json!({ "metadata": { "name": "account" }, "stringData": common });
        bench.create::<Secret>(serde_json::from_value(secret)?).await?;
        let mut provider = bench.new_provider("account", 2);
        for device in 0..2 {
            let name = format!("device-{device}");
            let mut own = vpn.credentials(Case::WireGuard(device));
            own.retain(|name, _| OWN.contains(&name.as_str()));
            let secret = json!({ "metadata": { "name": name }, "stringData": own });
            bench.create::<Secret>(serde_json::from_value(secret)?).await?;
            provider.spec.slots.get_or_insert_default().push(MaskProviderSlotSpec { secret: Some(name) });
        }
        provider.spec.secret = "account".to_owned();
        provider.spec.verify = None;
        bench.create(provider).await?;
        bench.until("account", "verified", |provider: &MaskProvider| is_ready(provider)).await?;

        let mut devices = Vec::new();
        for name in ["first", "second"] {
            let consumer = bench.active_mask(name).await?;
            let slot = consumer.status.as_ref().and_then(|status| status.provider.as_ref()).map(|slot| slot.slot);
            devices.push((slot.context("no slot")?, name));
            let owner = serde_json::to_value(owner_reference_for(&consumer))?;
            bench.create::<Pod>(client_pod(name, &secret_of(&consumer)?, Some(owner))?).await?;
        }
        for (device, name) in devices {
            pod_ready(bench.api(), name).await?;
            let ask = ["exec", name, "--container=main", "--"];
            let seen = bench
                .kubectl(&[&ask[..], &["curl", "--silent", "--max-time", "60", &vpn.address_url()]].concat())
                .await?;
            same("public address", seen.trim(), &*vpn.exit_address().to_string())?;
            let addresses = bench.kubectl(&[&ask[..], &["ip", "-4", "address"]].concat()).await?;
            let own = wireguard_address(device).to_string();
            ensure!(addresses.contains(&own), "{name} has not {own} but {addresses}");
        }
        Ok(())
    })
    .await
}
