//! Credentials of single slots: one key is one device.

use anyhow::{Result, ensure};
use e2e::{
    Bench,
    pods::usage::{secret_of, user_pod},
    testing::bench::same,
    wait::ready_condition,
};
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::ResourceExt;
use serde_json::json;
use vpn_types::{Mask, MaskConsumer, MaskProvider, MaskProviderSlotSpec};

async fn key(bench: &Bench, slot: usize, value: &str) -> Result<Secret> {
    let data = json!({ "WIREGUARD_PRIVATE_KEY": value, "OPENVPN_USER": format!("device-{slot}") });
    let secret = json!({ "metadata": { "name": format!("key-{slot}") }, "stringData": data });
    bench.create(serde_json::from_value(secret)?).await
}

/// A provider of two slots, each with a Secret of its own, of which the second is not there yet.
async fn half_there(bench: &Bench) -> Result<()> {
    key(bench, 0, "first").await?;
    let own = |slot: usize| MaskProviderSlotSpec { secret: Some(format!("key-{slot}")) };
    bench.provider_with("vpn", 2, |spec| spec.slots = Some(vec![own(0), own(1)])).await.map(drop)
}

/// What the credentials of a MaskConsumer say: its key, its user, and what all slots have in common.
async fn credentials(bench: &Bench, consumer: &MaskConsumer) -> Result<[String; 3]> {
    let copy = bench.api::<Secret>().get(&secret_of(consumer)?).await?;
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
    Bench::test("slot-secrets", async |bench| {
        half_there(bench).await?;
        let first = bench.active_mask("first").await?;
        same("credentials", credentials(bench, &first).await?, expected("first", 0))?;

        // The second slot is free, and nobody gets it.
        bench.mask("second").await?;
        let waits: MaskConsumer = bench.says("second", "NoFreeSlot").await?;
        let told = ready_condition(&waits).map(|ready| ready.message).unwrap_or_default();
        ensure!(told.contains("slot 1 is not handed out: its Secret key-1 does not exist"), "{told}");
        bench.told::<MaskProvider>("vpn", "SecretNotFound", &["slot 1", "key-1"]).await?;
        let names_it = |provider: &MaskProvider| message(provider).contains("slot 1 is not handed out");
        bench.until("vpn", "the slot is named", names_it).await?;

        key(bench, 1, "second").await?;
        let second = bench.active("second").await?;
        same("credentials", credentials(bench, &second).await?, expected("second", 1))?;
        bench.until("vpn", "it is named no more", |provider| !names_it(provider)).await.map(drop)
    })
    .await
}

#[tokio::test]
async fn a_changed_key_reaches_its_slot_and_no_other() -> Result<()> {
    Bench::test("slot-rotation", async |bench| {
        half_there(bench).await?;
        key(bench, 1, "second").await?;
        let (first, second) = (bench.active_mask("first").await?, bench.active_mask("second").await?);
        let pod = bench.run_pod(user_pod("user", &second, 1)?).await?;
        let untouched = bench.api::<Secret>().get(&secret_of(&first)?).await?;
        bench.patch::<Secret>("key-1", json!({ "stringData": { "WIREGUARD_PRIVATE_KEY": "changed" } })).await?;
        bench.told::<Mask>("second", "CredentialsChanged", &["vpn"]).await?;
        same("credentials", credentials(bench, &second).await?, expected("changed", 1))?;
        let now = bench.api::<Secret>().get(&untouched.name_any()).await?;
        same("the other copy", now.resource_version(), untouched.resource_version())?;

        // Without its Secret the slot is kept by who has it, and then handed to nobody.
        bench.delete::<Secret>("key-1").await?;
        bench.told::<MaskProvider>("vpn", "SecretNotFound", &["slot 1", "key-1"]).await?;
        same("credentials", credentials(bench, &second).await?, expected("changed", 1))?;
        let now = bench.api::<Pod>().get("user").await?;
        same("Pod", (now.uid(), now.metadata.deletion_timestamp), (pod.uid(), None))?;
        bench.delete::<Mask>("second").await?;
        bench.gone(&second).await?;
        bench.mask("third").await?;
        bench.says::<MaskConsumer>("third", "NoFreeSlot").await?;
        key(bench, 1, "again").await?;
        let third = bench.active("third").await?;
        same("credentials", credentials(bench, &third).await?, expected("again", 1))
    })
    .await
}

#[tokio::test]
async fn an_account_without_any_of_them_is_not_used() -> Result<()> {
    Bench::test("no-slot-secret", async |bench| {
        bench.credentials("vpn").await?;
        let mut provider = bench.new_provider("vpn", 1);
        provider.spec.slots = Some(vec![MaskProviderSlotSpec { secret: Some("key-0".to_owned()) }]);
        bench.create(provider).await?;
        bench.mask("mine").await?;
        let told = bench.says::<MaskProvider>("vpn", "SecretNotFound").await?;
        ensure!(message(&told).contains("slot 0 is not handed out: its Secret key-0"), "{}", message(&told));
        bench.says::<Mask>("mine", "NoProviderUsable").await?;
        key(bench, 0, "first").await?;
        let mine = bench.active("mine").await?;
        same("credentials", credentials(bench, &mine).await?, expected("first", 0))
    })
    .await
}
