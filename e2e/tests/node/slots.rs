//! Credentials of individual slots: a WireGuard key is one device.

use anyhow::{Context, Result, ensure};
use e2e::{
    pods::usage::slot_secret_name,
    testing::framework::ensure_eq,
    vpn::{Scenario, VpnService, client_pod, pod_ready, wireguard_address},
    wait::is_ready,
};
use k8s_openapi::api::core::v1::{Pod, Secret};
use serde_json::json;
use vpn_types::{MaskProvider, MaskProviderSlotSpec, owner_reference_for};

use crate::{test, verification::operator};

/// The settings that differ between devices.
const OWN: [&str; 2] = ["WIREGUARD_PRIVATE_KEY", "WIREGUARD_ADDRESSES"];

/// Two devices of one account, verified with the key of one of them, connect at the same time.
pub async fn each_device_has_its_key() -> Result<()> {
    test("devices", async |_, f| {
        let vpn = VpnService::shared().await?;
        f.add_logs(operator(vpn).await?);
        let mut common = vpn.credentials(Scenario::WireGuard(0));
        common.retain(|name, _| !OWN.contains(&name.as_str()));
        let secret = json!({ "metadata": { "name": "account" }, "stringData": common });
        f.create::<Secret>(serde_json::from_value(secret)?).await?;
        let mut provider = f.new_provider("account", 2);
        for device in 0..2 {
            let name = format!("device-{device}");
            let mut own = vpn.credentials(Scenario::WireGuard(device));
            own.retain(|name, _| OWN.contains(&name.as_str()));
            let secret = json!({ "metadata": { "name": name }, "stringData": own });
            f.create::<Secret>(serde_json::from_value(secret)?).await?;
            provider.spec.slots.get_or_insert_default().push(MaskProviderSlotSpec { secret: Some(name) });
        }
        provider.spec.secret = "account".to_owned();
        provider.spec.verify = None;
        f.create(provider).await?;
        f.wait_until("account", "verified", |provider: &MaskProvider| is_ready(provider)).await?;

        let mut devices = Vec::new();
        for name in ["first", "second"] {
            let consumer = f.create_active_mask(name).await?;
            let slot = consumer.status.as_ref().and_then(|status| status.provider.as_ref()).map(|slot| slot.slot);
            devices.push((slot.context("no slot")?, name));
            let owner = serde_json::to_value(owner_reference_for(&consumer))?;
            f.create::<Pod>(client_pod(name, &slot_secret_name(&consumer)?, Some(owner))?).await?;
        }
        for (device, name) in devices {
            pod_ready(f.api(), name).await?;
            let ask = ["exec", name, "--container=main", "--"];
            let seen =
                f.kubectl(&[&ask[..], &["curl", "--silent", "--max-time", "60", &vpn.address_url()]].concat()).await?;
            ensure_eq("public address", seen.trim(), &*vpn.exit_address().to_string())?;
            let addresses = f.kubectl(&[&ask[..], &["ip", "-4", "address"]].concat()).await?;
            let own = wireguard_address(device).to_string();
            ensure!(addresses.contains(&own), "{name} has not {own} but {addresses}");
        }
        Ok(())
    })
    .await
}
