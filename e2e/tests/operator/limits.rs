//! The largest and the longest of everything.

use anyhow::{Context, Result, bail, ensure};
use e2e::{
    Bench,
    audit::Filter,
    cluster::shared,
    operator,
    pods::usage::{secret_of, user_pod},
    testing::bench::same,
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

async fn refused<K: Kind>(bench: &Bench, object: K, words: &str) -> Result<()> {
    match bench.create(object).await {
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
    Bench::test("longest", async |bench| {
        let (mask, provider) = (name("m", MAX_MASK_NAME), name("p", MAX_PROVIDER_NAME));
        bench.provider(&provider, 1).await?;
        let consumer = bench.active_mask(&mask).await?;
        let secret = secret_of(&consumer)?;
        same("length of the Secret's name", secret.len(), 253)?;
        bench.api::<Secret>().get(&secret).await?;
        bench.run_pod(user_pod("user", &consumer, 1)?).await?;
        let reservation = bench.api::<MaskReservation>().get(&format!("{provider}-0")).await?;
        same("consumer", &*reservation.spec.name, &*mask)?;
        bench.kubectl(&["wait", "--for=condition=Ready", &format!("mask/{mask}"), "--timeout=60s"]).await?;
        bench.kubectl(&["delete", "mask", &mask]).await?;
        bench.gone(&consumer).await?;
        bench.gone(&reservation).await?;

        let longer = Mask::new(&name("m", MAX_MASK_NAME + 1), MaskSpec::default());
        refused(bench, longer, "metadata.name may be no more than 216 characters").await?;
        let longer = bench.new_provider(&name("p", MAX_PROVIDER_NAME + 1), 1);
        refused(bench, longer, "metadata.name may be no more than 209 characters").await
    })
    .await
}

#[tokio::test]
async fn the_largest_secret() -> Result<()> {
    Bench::test("large-secret", async |bench| {
        // As random as the pattern needs to be for nothing to be lost unnoticed.
        let data: Vec<u8> = (0..MIB).map(|index| (index.wrapping_mul(31) >> 3) as u8).collect();
        let source: Secret = serde_json::from_value(json!({
            "metadata": { "name": "vpn-credentials" },
            "data": { "large": ByteString(data) },
        }))?;
        let source = bench.create(source).await?;
        bench.create(bench.new_provider("vpn", 2)).await?;
        let mut copies = Vec::new();
        for mask in ["first", "second"] {
            copies.push(secret_of(&bench.active_mask(mask).await?)?);
        }
        for copy in &copies {
            let copy = bench.api::<Secret>().get(copy).await?;
            ensure!(copy.data == source.data, "the copy has other data");
        }
        let changed = json!({ "data": { "large": ByteString(vec![7; MIB]) } });
        let changed = bench.patch::<Secret>("vpn-credentials", changed).await?;
        for copy in &copies {
            bench.until(copy, "the new data", |copy: &Secret| copy.data == changed.data).await?;
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn an_immutable_secret_is_rotated_by_making_it_again() -> Result<()> {
    Bench::test("immutable", async |bench| {
        let source = |password: &str| {
            serde_json::from_value::<Secret>(json!({
                "metadata": { "name": "vpn-credentials" },
                "immutable": true,
                "stringData": { "OPENVPN_PASSWORD": password },
            }))
        };
        bench.create(source("old")?).await?;
        bench.create(bench.new_provider("vpn", 1)).await?;
        let consumer = bench.active_mask("mine").await?;
        let copy = bench.api::<Secret>().get(&secret_of(&consumer)?).await?;
        ensure!(copy.immutable != Some(true), "the copy cannot follow");
        let pod = bench.run_pod(user_pod("user", &consumer, 1)?).await?;

        bench.kubectl(&["delete", "secret", "vpn-credentials"]).await?;
        bench.says::<MaskProvider>("vpn", "SecretNotFound").await?;
        bench.create(source("new")?).await?;
        let is_new = |copy: &Secret| {
            let password = copy.data.as_ref().and_then(|data| data.get("OPENVPN_PASSWORD"));
            password.is_some_and(|password| password.0 == b"new")
        };
        let followed = bench.until(&copy.name_any(), "the new password", is_new).await?;
        same("the copy", followed.uid(), copy.uid())?;
        let hash = |copy: &Secret| copy.annotations().get(SOURCE_HASH_ANNOTATION).cloned();
        ensure!(hash(&followed) != hash(&copy), "the same hash");
        bench.until("vpn", "usable", |provider: &MaskProvider| is_ready(provider)).await?;
        // Whoever used it goes on.
        let now = bench.api::<k8s_openapi::api::core::v1::Pod>().get("user").await?;
        same("Pod", (now.uid(), now.metadata.deletion_timestamp), (pod.uid(), None))?;
        let now = bench.api::<MaskConsumer>().get("mine").await?;
        same("MaskConsumer", (now.uid(), is_ready(&now)), (consumer.uid(), true))
    })
    .await
}

/// Such a copy cannot follow its source; nothing is tried over and over for that.
#[tokio::test]
async fn a_copy_that_somebody_made_immutable() -> Result<()> {
    Bench::test("frozen-copy", async |bench| {
        bench.provider("vpn", 2).await?;
        let consumer = bench.active_mask("mine").await?;
        let copy = secret_of(&consumer)?;
        bench.patch::<Secret>(&copy, json!({ "immutable": true })).await?;
        let audit = shared::cluster().await?.audit().context("no audit log")?;
        let mark = audit.mark().await?;
        bench.patch::<Secret>("vpn-credentials", json!({ "stringData": { "OPENVPN_PASSWORD": "new" } })).await?;
        // All else goes on meanwhile.
        for _ in 0..3 {
            let other = bench.active_mask("other").await?;
            bench.delete::<Mask>("other").await?;
            bench.gone(&other).await?;
        }
        let requests = audit.since(mark).await?;
        let user = operator::shared().await?.users().remove(0);
        let about_it = Filter::default().user(user).namespace(bench.name()).name(&copy);
        let count = requests.count(&about_it);
        ensure!(count <= 20, "{count} requests about a copy that cannot change: {:?}", requests.summary(&about_it));
        bench.delete::<Mask>("mine").await?;
        bench.gone(&consumer).await
    })
    .await
}

#[tokio::test]
async fn as_many_slots_as_a_number_can_say() -> Result<()> {
    Bench::test("slots", async |bench| {
        let most = 2_147_483_647;
        bench.provider("vpn", most).await?;
        // The last of them is taken, if not by the operator.
        let spec = MaskReservationSpec { name: "nobody".into(), namespace: bench.name().into(), uid: "none".into() };
        bench.create(MaskReservation::new(&format!("vpn-{}", most - 1), spec)).await?;
        for (mask, slot) in [("first", 0), ("second", 1)] {
            let consumer = bench.active_mask(mask).await?;
            same(mask, consumer.status.and_then(|status| status.provider).map(|provider| provider.slot), Some(slot))?;
        }
        let says = format!("of {most} slots are taken");
        let told = |provider: &MaskProvider| {
            ready_condition(provider).is_some_and(|ready| ready.message.starts_with(&format!("3 {says}")))
        };
        bench.until("vpn", "three taken", told).await?;
        bench.delete::<MaskReservation>(&format!("vpn-{}", most - 1)).await?;
        bench.kubectl(&["scale", "maskprovider/vpn", "--replicas=2"]).await?;
        let in_force = |provider: &MaskProvider| {
            provider.status.as_ref().and_then(|status| status.observed_generation) == provider.metadata.generation
        };
        bench.until("vpn", "two slots", in_force).await?;
        bench.mask("third").await?;
        bench.says::<MaskConsumer>("third", "NoFreeSlot").await?;
        bench.kubectl(&["scale", "maskprovider/vpn", &format!("--replicas={most}")]).await?;
        bench.active("third").await?;
        refused(bench, bench.new_provider("more", most + 1), "2147483647").await
    })
    .await
}
