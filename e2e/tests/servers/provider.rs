//! A server that serves as an account: its MaskProvider and the slots.

use anyhow::{Context, Result, ensure};
use e2e::testing::framework::ensure_eq;
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use serde_json::json;
use vpn_types::{Mask, MaskProvider, OpenVPNClient, OpenVPNServer};

use crate::{
    manifests::{create_server, serial, texts},
    test,
};

#[tokio::test]
async fn masks_use_a_server_like_any_account() -> Result<()> {
    test("account", async |f| {
        let provider = json!({"maxSlots": 2, "tags": ["home"], "verify": {"skip": true}});
        create_server(f, "home", json!({"replicas": 1, "provider": provider})).await?;
        f.create_mask_with_tags("mine", &["home"]).await?;
        f.create_mask_with_tags("yours", &["home"]).await?;
        let (first, second) = (f.wait_active("mine").await?, f.wait_active("yours").await?);
        let copy = |consumer: &vpn_types::MaskConsumer| {
            consumer.status.as_ref().and_then(|status| status.provider.as_ref()).map(|assigned| assigned.secret.clone())
        };
        let first_copy = texts(f, &copy(&first).context("no Secret")?).await?;
        let second_copy = texts(f, &copy(&second).context("no Secret")?).await?;
        ensure_eq("type", first_copy["VPN_TYPE"].as_str(), "openvpn")?;
        ensure_eq("health", first_copy["HEALTH_TARGET_ADDRESSES"].as_str(), "10.240.0.1:9176")?;
        ensure!(first_copy["client.ovpn"].contains("remote 10."), "gluetun takes addresses only");
        let number = serial(&second_copy["tls.crt"])?;
        ensure!(serial(&first_copy["tls.crt"])? != number, "two slots have one certificate");

        // The slot is released first. Then its certificate is revoked.
        f.patch::<OpenVPNServer>("home", json!({"spec": {"provider": {"maxSlots": 1}}})).await?;
        f.wait_until("home-revoked", "the slot is revoked", |secret: &Secret| {
            secret.data.as_ref().is_some_and(|data| data.len() > 2)
        })
        .await?;
        let account = f.api::<MaskProvider>().get("home").await?;
        ensure_eq("slots in use", account.status.and_then(|status| status.active_slots), Some(1))?;
        f.wait_until_all::<OpenVPNClient>("one client", |all| all.len() == 1).await?;

        // Deleting the server releases the other slot.
        let server = f.api::<OpenVPNServer>().get("home").await?;
        f.delete::<OpenVPNServer>("home").await?;
        f.wait_deleted(&server).await?;
        f.wait_until_all::<MaskProvider>("no MaskProvider", <[_]>::is_empty).await?;
        f.wait_for_reason::<Mask>("mine", "NoProviderFits").await?;
        f.wait_until_all::<OpenVPNClient>("no client", <[_]>::is_empty).await?;
        let revoked = texts(f, "home-revoked").await?;
        ensure!(revoked.contains_key(&number), "{:?}", revoked.keys());
        Ok(())
    })
    .await
}

#[tokio::test]
async fn without_provider_the_account_goes_and_the_server_stays() -> Result<()> {
    test("no-account", async |f| {
        let provider = json!({"maxSlots": 1, "verify": {"skip": true}});
        create_server(f, "home", json!({"replicas": 1, "provider": provider})).await?;
        f.create_active_mask("mine").await?;
        f.patch::<OpenVPNServer>("home", json!({"spec": {"provider": null}})).await?;
        f.wait_until_all::<MaskProvider>("no MaskProvider", <[_]>::is_empty).await?;
        f.wait_until_all::<OpenVPNClient>("no client", <[_]>::is_empty).await?;
        let server = f.wait_for_reason::<OpenVPNServer>("home", "Serving").await?;
        ensure!(server.metadata.deletion_timestamp.is_none(), "{}", server.name_any());
        Ok(())
    })
    .await
}
