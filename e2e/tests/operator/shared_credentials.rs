//! An account or a device that is declared twice.

use anyhow::{Result, ensure};
use e2e::{Framework, testing::framework::ensure_eq};
use k8s_openapi::{api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::Condition};
use serde_json::json;
use vpn_types::{Mask, MaskConsumer, MaskProvider, MaskProviderSlotSpec, SHARED_CREDENTIALS};

fn shared(provider: &MaskProvider) -> Option<&Condition> {
    let mut all = provider.status.as_ref()?.conditions.iter().flatten();
    all.find(|condition| condition.type_ == SHARED_CREDENTIALS)
}

fn says(provider: &MaskProvider, words: &[&str]) -> bool {
    shared(provider).is_some_and(|condition| words.iter().all(|word| condition.message.contains(word)))
}

/// Changes the credentials of an existing provider.
async fn logs_in_as(f: &Framework, provider: &str, user: &str) -> Result<()> {
    let login = json!({ "stringData": { "OPENVPN_USER": user, "OPENVPN_PASSWORD": "the-very-secret" } });
    f.patch::<Secret>(&format!("{provider}-credentials"), login).await.map(drop)
}

#[tokio::test]
async fn providers_with_one_account_name_each_other() -> Result<()> {
    Framework::test("shared", async |f| {
        let user = format!("user-of-{}", f.name());
        for name in ["london", "paris", "rome"] {
            let provider = f.create_provider(name, 1).await?;
            ensure_eq("condition", shared(&provider), None)?;
        }
        logs_in_as(f, "london", &user).await?;
        logs_in_as(f, "rome", &user).await?;
        let london = f.wait_until("london", "it names rome", |one| says(one, &["MaskProvider rome"])).await?;
        f.wait_until("rome", "it names london", |one| says(one, &["MaskProvider london"])).await?;
        f.wait_for_event::<MaskProvider>("london", SHARED_CREDENTIALS, &["MaskProvider rome has the same"]).await?;
        f.wait_for_event::<MaskProvider>("rome", SHARED_CREDENTIALS, &["MaskProvider london has the same"]).await?;
        let told = shared(&london).map(|condition| (condition.status.as_str(), condition.reason.as_str()));
        ensure_eq("condition", told, Some(("True", SHARED_CREDENTIALS)))?;
        let whole = serde_json::to_string(&london)?;
        ensure!(!whole.contains(&user) && !whole.contains("the-very-secret"), "credentials in {whole}");
        // The condition is only a warning: slots are still assigned.
        f.create_active_mask("mine").await?;

        // Nothing is disclosed about a provider in another namespace, except that it exists.
        Framework::test("shared-elsewhere", async |elsewhere| {
            elsewhere.create_provider("far", 1).await?;
            logs_in_as(elsewhere, "far", &user).await?;
            let far = elsewhere.wait_until("far", "it is told", |far| says(far, &["in another namespace"])).await?;
            ensure!(!says(&far, &["london"]) && !says(&far, &[f.name()]), "{:?}", shared(&far));
            // In this namespace, the other provider is still named.
            logs_in_as(f, "rome", "somebody-else").await?;
            f.wait_until("rome", "nothing to say", |rome| shared(rome).is_none()).await?;
            f.wait_until("london", "it is told", |one| says(one, &["in another namespace"])).await?;
            Ok(())
        })
        .await?;
        f.delete::<MaskProvider>("paris").await
    })
    .await
}

#[tokio::test]
async fn slots_with_one_wireguard_key_are_assigned_one_at_a_time() -> Result<()> {
    Framework::test("one-key", async |f| {
        let key = |name: &str, key: &str| {
            json!({ "metadata": { "name": name }, "stringData": { "VPN_TYPE": "wireguard", "WIREGUARD_PRIVATE_KEY": key } })
        };
        let common = format!("common-{}", f.name());
        for secret in [key("common", &common), key("own", &format!("own-{}", f.name()))] {
            f.create::<Secret>(serde_json::from_value(secret)?).await?;
        }
        let mut provider = f.new_provider("vpn", 4);
        provider.spec.secret = "common".to_owned();
        provider.spec.slots = Some(vec![
            MaskProviderSlotSpec::default(),
            MaskProviderSlotSpec { secret: Some("own".to_owned()) },
        ]);
        f.create(provider).await?;
        f.wait_for_event::<MaskProvider>("vpn", SHARED_CREDENTIALS, &["Slots 0, 2 and 3", "spec.slots"]).await?;
        let first = f.create_active_mask("first").await?;
        f.create_active_mask("second").await?;
        f.create_mask("third").await?;
        f
            .wait_until("third", "it says why it waits", |third: &MaskConsumer| {
                let message = third.status.as_ref().and_then(|status| status.message.as_deref());
                message.is_some_and(|message| message.contains("same WireGuard private key are assigned one at a time"))
            })
            .await?;
        f.delete::<Mask>("first").await?;
        f.wait_deleted(&first).await?;
        let third = f.wait_active("third").await?;
        let slot = third.status.and_then(|status| status.provider).map(|provider| provider.slot);
        ensure_eq("slot", slot, Some(0))?;
        // With its own key, each slot is a device.
        f.patch::<MaskProvider>("vpn", json!({ "spec": { "maxSlots": 2 } })).await?;
        f.wait_until("vpn", "nothing to say", |vpn: &MaskProvider| shared(vpn).is_none()).await.map(drop)
    })
    .await
}
