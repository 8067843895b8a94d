//! One account, or one device, that is declared twice.

use anyhow::{Result, ensure};
use e2e::{Bench, bench::same};
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

/// Gives the provider of that name, which is there, other credentials.
async fn logs_in_as(bench: &Bench, provider: &str, user: &str) -> Result<()> {
    let login = json!({ "stringData": { "OPENVPN_USER": user, "OPENVPN_PASSWORD": "the-very-secret" } });
    bench.patch::<Secret>(&format!("{provider}-credentials"), login).await.map(drop)
}

#[tokio::test]
async fn providers_with_one_account_name_each_other() -> Result<()> {
    Bench::test("shared", async |bench| {
        let user = format!("user-of-{}", bench.name());
        for name in ["london", "paris", "rome"] {
            let provider = bench.provider(name, 1).await?;
            same("condition", shared(&provider), None)?;
        }
        logs_in_as(bench, "london", &user).await?;
        logs_in_as(bench, "rome", &user).await?;
        let london = bench.until("london", "it names rome", |one| says(one, &["MaskProvider rome"])).await?;
        bench.until("rome", "it names london", |one| says(one, &["MaskProvider london"])).await?;
        bench.told::<MaskProvider>("london", SHARED_CREDENTIALS, &["MaskProvider rome has the same"]).await?;
        bench.told::<MaskProvider>("rome", SHARED_CREDENTIALS, &["MaskProvider london has the same"]).await?;
        let told = shared(&london).map(|condition| (condition.status.as_str(), condition.reason.as_str()));
        same("condition", told, Some(("True", SHARED_CREDENTIALS)))?;
        let whole = serde_json::to_string(&london)?;
        ensure!(!whole.contains(&user) && !whole.contains("the-very-secret"), "credentials in {whole}");
        // It is a warning: slots are assigned all the same.
        bench.active_mask("mine").await?;

        // Nothing may be said of what is in another namespace, but that it is there.
        Bench::test("shared-elsewhere", async |elsewhere| {
            elsewhere.provider("far", 1).await?;
            logs_in_as(elsewhere, "far", &user).await?;
            let far = elsewhere.until("far", "it is told", |far| says(far, &["in another namespace"])).await?;
            ensure!(!says(&far, &["london"]) && !says(&far, &[bench.name()]), "{:?}", shared(&far));
            // Here the neighbor is named as before.
            logs_in_as(bench, "rome", "somebody-else").await?;
            bench.until("rome", "nothing to say", |rome| shared(rome).is_none()).await?;
            bench.until("london", "it is told", |one| says(one, &["in another namespace"])).await?;
            Ok(())
        })
        .await?;
        bench.delete::<MaskProvider>("paris").await
    })
    .await
}

#[tokio::test]
async fn slots_with_one_wireguard_key_are_assigned_one_at_a_time() -> Result<()> {
    Bench::test("one-key", async |bench| {
        let key = |name: &str, key: &str| {
            json!({ "metadata": { "name": name }, "stringData": { "VPN_TYPE": "wireguard", "WIREGUARD_PRIVATE_KEY": key } })
        };
        let common = format!("common-{}", bench.name());
        for secret in [key("common", &common), key("own", &format!("own-{}", bench.name()))] {
            bench.create::<Secret>(serde_json::from_value(secret)?).await?;
        }
        let mut provider = bench.new_provider("vpn", 4);
        provider.spec.secret = "common".to_owned();
        provider.spec.slots = Some(vec![
            MaskProviderSlotSpec::default(),
            MaskProviderSlotSpec { secret: Some("own".to_owned()) },
        ]);
        bench.create(provider).await?;
        bench.told::<MaskProvider>("vpn", SHARED_CREDENTIALS, &["Slots 0, 2 and 3", "spec.slots"]).await?;
        let first = bench.active_mask("first").await?;
        bench.active_mask("second").await?;
        bench.mask("third").await?;
        bench
            .until("third", "it says why it waits", |third: &MaskConsumer| {
                let message = third.status.as_ref().and_then(|status| status.message.as_deref());
                message.is_some_and(|message| message.contains("same WireGuard private key are assigned one at a time"))
            })
            .await?;
        bench.delete::<Mask>("first").await?;
        bench.gone(&first).await?;
        let third = bench.active("third").await?;
        let slot = third.status.and_then(|status| status.provider).map(|provider| provider.slot);
        same("slot", slot, Some(0))?;
        // With a key of its own each is a device.
        bench.patch::<MaskProvider>("vpn", json!({ "spec": { "maxSlots": 2 } })).await?;
        bench.until("vpn", "nothing to say", |vpn: &MaskProvider| shared(vpn).is_none()).await.map(drop)
    })
    .await
}
