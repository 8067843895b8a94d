//! Credentials of individual slots: one key is one device.

use anyhow::{Result, ensure};
use e2e::{
    Framework,
    pods::usage::{owned_pod, slot_secret_name},
    testing::framework::ensure_eq,
    wait::ready_condition,
};
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::ResourceExt;
use serde_json::json;
use vpn_types::{Mask, MaskConsumer, MaskProvider, MaskProviderSlotSpec};

async fn key(f: &Framework, slot: usize, value: &str) -> Result<Secret> {
    let data = json!({ "WIREGUARD_PRIVATE_KEY": value, "OPENVPN_USER": format!("device-{slot}") });
    let secret = json!({ "metadata": { "name": format!("key-{slot}") }, "stringData": data });
    f.create(serde_json::from_value(secret)?).await
}

/// Creates a provider with two slots, each with its own Secret. The second Secret does not exist yet.
async fn half_there(f: &Framework) -> Result<()> {
    key(f, 0, "first").await?;
    let own = |slot: usize| MaskProviderSlotSpec { secret: Some(format!("key-{slot}")) };
    f.create_provider_with("vpn", 2, |spec| spec.slots = Some(vec![own(0), own(1)])).await.map(drop)
}

/// Returns the credentials of a MaskConsumer: its key, its user, and the setting that all slots share.
async fn credentials(f: &Framework, consumer: &MaskConsumer) -> Result<[String; 3]> {
    let copy = f.api::<Secret>().get(&slot_secret_name(consumer)?).await?;
    let value = |name: &str| {
        let value = copy.data.as_ref().and_then(|data| data.get(name)).map(|value| value.0.clone());
        String::from_utf8_lossy(&value.unwrap_or_default()).into_owned()
    };
    Ok(["WIREGUARD_PRIVATE_KEY", "OPENVPN_USER", "OPENVPN_PASSWORD"].map(value))
}

fn expected(key: &str, slot: usize) -> [String; 3] {
    [key.to_owned(), format!("device-{slot}"), "secret".to_owned()]
}

fn message(provider: &MaskProvider) -> String {
    ready_condition(provider).map(|ready| ready.message).unwrap_or_default()
}

#[tokio::test]
async fn each_slot_has_its_own_credentials_once_they_are_there() -> Result<()> {
    Framework::test("slot-secrets", async |f| {
        half_there(f).await?;
        let first = f.create_active_mask("first").await?;
        ensure_eq("credentials", credentials(f, &first).await?, expected("first", 0))?;

        // The second slot is free, but cannot be assigned.
        f.create_mask("second").await?;
        let waits: MaskConsumer = f.wait_for_reason("second", "NoFreeSlot").await?;
        let told = ready_condition(&waits).map(|ready| ready.message).unwrap_or_default();
        ensure!(told.contains("Slot 1 cannot be assigned: Secret key-1 does not exist"), "{told}");
        f.wait_for_event::<MaskProvider>("vpn", "SecretNotFound", &["Slot 1", "key-1"]).await?;
        let names_it = |provider: &MaskProvider| message(provider).contains("Slot 1 cannot be assigned");
        f.wait_until("vpn", "the slot is named", names_it).await?;

        key(f, 1, "second").await?;
        let second = f.wait_active("second").await?;
        ensure_eq("credentials", credentials(f, &second).await?, expected("second", 1))?;
        f.wait_until("vpn", "the condition no longer names the slot", |provider| !names_it(provider)).await.map(drop)
    })
    .await
}

#[tokio::test]
async fn a_changed_key_reaches_its_slot_and_no_other() -> Result<()> {
    Framework::test("slot-rotation", async |f| {
        half_there(f).await?;
        key(f, 1, "second").await?;
        let (first, second) = (f.create_active_mask("first").await?, f.create_active_mask("second").await?);
        let pod = f.run_pod(owned_pod("user", &second, 1)?).await?;
        let untouched = f.api::<Secret>().get(&slot_secret_name(&first)?).await?;
        f.patch::<Secret>("key-1", json!({ "stringData": { "WIREGUARD_PRIVATE_KEY": "changed" } })).await?;
        f.wait_for_event::<Mask>("second", "CredentialsChanged", &["vpn"]).await?;
        ensure_eq("credentials", credentials(f, &second).await?, expected("changed", 1))?;
        let now = f.api::<Secret>().get(&untouched.name_any()).await?;
        ensure_eq("the other copy", now.resource_version(), untouched.resource_version())?;

        // Without its Secret, the slot stays with its holder and is not assigned again after that.
        f.delete::<Secret>("key-1").await?;
        f.wait_for_event::<MaskProvider>("vpn", "SecretNotFound", &["Slot 1", "key-1"]).await?;
        ensure_eq("credentials", credentials(f, &second).await?, expected("changed", 1))?;
        let now = f.api::<Pod>().get("user").await?;
        ensure_eq("Pod", (now.uid(), now.metadata.deletion_timestamp), (pod.uid(), None))?;
        f.delete::<Mask>("second").await?;
        f.wait_deleted(&second).await?;
        f.create_mask("third").await?;
        f.wait_for_reason::<MaskConsumer>("third", "NoFreeSlot").await?;
        key(f, 1, "again").await?;
        let third = f.wait_active("third").await?;
        ensure_eq("credentials", credentials(f, &third).await?, expected("again", 1))
    })
    .await
}

#[tokio::test]
async fn an_account_without_any_of_them_is_not_used() -> Result<()> {
    Framework::test("no-slot-secret", async |f| {
        f.create_credentials("vpn").await?;
        let mut provider = f.new_provider("vpn", 1);
        provider.spec.slots = Some(vec![MaskProviderSlotSpec { secret: Some("key-0".to_owned()) }]);
        f.create(provider).await?;
        f.create_mask("mine").await?;
        let told = f.wait_for_reason::<MaskProvider>("vpn", "SecretNotFound").await?;
        ensure!(message(&told).contains("Slot 0 cannot be assigned: Secret key-0"), "{}", message(&told));
        f.wait_for_reason::<Mask>("mine", "NoProviderUsable").await?;
        key(f, 0, "first").await?;
        let mine = f.wait_active("mine").await?;
        ensure_eq("credentials", credentials(f, &mine).await?, expected("first", 0))
    })
    .await
}
