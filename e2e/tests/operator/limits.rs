//! Maximum sizes and lengths.

use anyhow::{Context, Result, bail, ensure};
use e2e::{
    Framework,
    audit::Filter,
    cluster::shared,
    operator,
    pods::usage::{owned_pod, slot_secret_name},
    testing::framework::ensure_eq,
    wait::{Kind, is_ready, ready_condition},
};
use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::ResourceExt;
use serde_json::json;
use vpn_types::{
    Mask, MaskConsumer, MaskProvider, MaskReservation, MaskReservationSpec, MaskSpec, SOURCE_HASH_ANNOTATION,
    names::{MAX_MASK_NAME, MAX_PROVIDER_NAME},
};

const MIB: usize = 1024 * 1024;

async fn refused<K: Kind>(f: &Framework, object: K, words: &str) -> Result<()> {
    match f.create(object).await {
        Ok(_) => bail!("accepted"),
        Err(error) => ensure!(format!("{error:#}").contains(words), "no {words:?} in {error:#}"),
    }
    Ok(())
}

fn name(letter: &str, length: usize) -> String {
    letter.repeat(length)
}

#[tokio::test]
async fn the_longest_names() -> Result<()> {
    Framework::test("longest", async |f| {
        let (mask, provider) = (name("m", MAX_MASK_NAME), name("p", MAX_PROVIDER_NAME));
        f.create_provider(&provider, 1).await?;
        let consumer = f.create_active_mask(&mask).await?;
        let secret = slot_secret_name(&consumer)?;
        ensure_eq("length of the Secret's name", secret.len(), 253)?;
        f.api::<Secret>().get(&secret).await?;
        f.run_pod(owned_pod("user", &consumer, 1)?).await?;
        let reservation = f.api::<MaskReservation>().get(&format!("{provider}-0")).await?;
        ensure_eq("consumer", &*reservation.spec.name, &*mask)?;
        f.kubectl(&["wait", "--for=condition=Ready", &format!("mask/{mask}"), "--timeout=60s"]).await?;
        f.kubectl(&["delete", "mask", &mask]).await?;
        f.wait_deleted(&consumer).await?;
        f.wait_deleted(&reservation).await?;

        let longer = Mask::new(&name("m", MAX_MASK_NAME + 1), MaskSpec::default());
        refused(f, longer, "metadata.name may be no more than 216 characters").await?;
        let longer = f.new_provider(&name("p", MAX_PROVIDER_NAME + 1), 1);
        refused(f, longer, "metadata.name may be no more than 209 characters").await
    })
    .await
}

#[tokio::test]
async fn the_largest_secret() -> Result<()> {
    Framework::test("large-secret", async |f| {
        // Varied data, so that the test notices a lost part.
        let data: Vec<u8> = (0..MIB).map(|index| (index.wrapping_mul(31) >> 3) as u8).collect();
        let source: Secret = serde_json::from_value(json!({
            "metadata": { "name": "vpn-credentials" },
            "data": { "large": ByteString(data) },
        }))?;
        let source = f.create(source).await?;
        f.create(f.new_provider("vpn", 2)).await?;
        let mut copies = Vec::new();
        for mask in ["first", "second"] {
            copies.push(slot_secret_name(&f.create_active_mask(mask).await?)?);
        }
        for copy in &copies {
            let copy = f.api::<Secret>().get(copy).await?;
            ensure!(copy.data == source.data, "the copy has other data");
        }
        let changed = json!({ "data": { "large": ByteString(vec![7; MIB]) } });
        let changed = f.patch::<Secret>("vpn-credentials", changed).await?;
        for copy in &copies {
            f.wait_until(copy, "the new data", |copy: &Secret| copy.data == changed.data).await?;
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn an_immutable_secret_is_rotated_by_making_it_again() -> Result<()> {
    Framework::test("immutable", async |f| {
        let source = |password: &str| {
            serde_json::from_value::<Secret>(json!({
                "metadata": { "name": "vpn-credentials" },
                "immutable": true,
                "stringData": { "OPENVPN_PASSWORD": password },
            }))
        };
        f.create(source("old")?).await?;
        f.create(f.new_provider("vpn", 1)).await?;
        let consumer = f.create_active_mask("mine").await?;
        let copy = f.api::<Secret>().get(&slot_secret_name(&consumer)?).await?;
        ensure!(copy.immutable != Some(true), "the copy cannot follow");
        let pod = f.run_pod(owned_pod("user", &consumer, 1)?).await?;

        f.kubectl(&["delete", "secret", "vpn-credentials"]).await?;
        f.wait_for_reason::<MaskProvider>("vpn", "SecretNotFound").await?;
        f.create(source("new")?).await?;
        let is_new = |copy: &Secret| {
            let password = copy.data.as_ref().and_then(|data| data.get("OPENVPN_PASSWORD"));
            password.is_some_and(|password| password.0 == b"new")
        };
        let followed = f.wait_until(&copy.name_any(), "the new password", is_new).await?;
        ensure_eq("the copy", followed.uid(), copy.uid())?;
        let hash = |copy: &Secret| copy.annotations().get(SOURCE_HASH_ANNOTATION).cloned();
        ensure!(hash(&followed) != hash(&copy), "the same hash");
        f.wait_until("vpn", "usable", |provider: &MaskProvider| is_ready(provider)).await?;
        // Pods that use it keep running.
        let now = f.api::<k8s_openapi::api::core::v1::Pod>().get("user").await?;
        ensure_eq("Pod", (now.uid(), now.metadata.deletion_timestamp), (pod.uid(), None))?;
        let now = f.api::<MaskConsumer>().get("mine").await?;
        ensure_eq("MaskConsumer", (now.uid(), is_ready(&now)), (consumer.uid(), true))
    })
    .await
}

/// Such a copy cannot be updated, and the operator does not retry in a loop.
#[tokio::test]
async fn a_copy_that_somebody_made_immutable() -> Result<()> {
    Framework::test("frozen-copy", async |f| {
        f.create_provider("vpn", 2).await?;
        let consumer = f.create_active_mask("mine").await?;
        let copy = slot_secret_name(&consumer)?;
        f.patch::<Secret>(&copy, json!({ "immutable": true })).await?;
        let audit = shared::cluster().await?.audit().context("no audit log")?;
        let mark = audit.mark().await?;
        f.patch::<Secret>("vpn-credentials", json!({ "stringData": { "OPENVPN_PASSWORD": "new" } })).await?;
        // Other work continues in the meantime.
        for _ in 0..3 {
            let other = f.create_active_mask("other").await?;
            f.delete::<Mask>("other").await?;
            f.wait_deleted(&other).await?;
        }
        let requests = audit.since(mark).await?;
        let user = operator::shared().await?.users().remove(0);
        let about_it = Filter::default().user(user).namespace(f.name()).name(&copy);
        let count = requests.count(&about_it);
        ensure!(count <= 20, "{count} requests about a copy that cannot change: {:?}", requests.summary(&about_it));
        f.delete::<Mask>("mine").await?;
        f.wait_deleted(&consumer).await
    })
    .await
}

#[tokio::test]
async fn as_many_slots_as_a_number_can_say() -> Result<()> {
    Framework::test("slots", async |f| {
        let most = 2_147_483_647;
        f.create_provider("vpn", most).await?;
        // The highest slot is reserved, although not by the operator.
        let spec = MaskReservationSpec { name: "nobody".into(), namespace: f.name().into(), uid: "none".into() };
        f.create(MaskReservation::new(&format!("vpn-{}", most - 1), spec)).await?;
        for (mask, slot) in [("first", 0), ("second", 1)] {
            let consumer = f.create_active_mask(mask).await?;
            ensure_eq(
                mask,
                consumer.status.and_then(|status| status.provider).map(|provider| provider.slot),
                Some(slot),
            )?;
        }
        let says = format!("of {most} slots are taken");
        let told = |provider: &MaskProvider| {
            ready_condition(provider).is_some_and(|ready| ready.message.starts_with(&format!("3 {says}")))
        };
        f.wait_until("vpn", "three taken", told).await?;
        f.delete::<MaskReservation>(&format!("vpn-{}", most - 1)).await?;
        f.kubectl(&["scale", "maskprovider/vpn", "--replicas=2"]).await?;
        let in_force = |provider: &MaskProvider| {
            provider.status.as_ref().and_then(|status| status.observed_generation) == provider.metadata.generation
        };
        f.wait_until("vpn", "two slots", in_force).await?;
        f.create_mask("third").await?;
        f.wait_for_reason::<MaskConsumer>("third", "NoFreeSlot").await?;
        f.kubectl(&["scale", "maskprovider/vpn", &format!("--replicas={most}")]).await?;
        f.wait_active("third").await?;
        refused(f, f.new_provider("more", most + 1), "2147483647").await
    })
    .await
}
