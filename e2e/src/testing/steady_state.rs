//! The state that the operator reaches after any fault: no object is leaked, and no Mask waits while a slot is free.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::ResourceExt;
use vpn_types::{Mask, MaskConsumer, MaskReservation, OWNER_LABEL};

use super::framework::Framework;
use crate::{pods::usage::owned_pod, wait::is_active};

/// Waits until `active` MaskConsumers have a slot, each with its MaskReservation and its Secret, and there are no others.
pub async fn wait_for_steady_state(f: &Framework, active: usize) -> Result<Vec<MaskConsumer>> {
    // The garbage collector may not have deleted a MaskConsumer yet whose Mask was deleted. This uses a watch, which
    // continues where a list fails: the API server may have restarted just now.
    let masks = f.wait_until_all::<Mask>("listed", |_| true).await?;
    let masks: BTreeSet<_> = masks.iter().filter_map(ResourceExt::uid).collect();
    let is_wanted = |consumer: &MaskConsumer| {
        let owners = consumer.owner_references();
        consumer.metadata.deletion_timestamp.is_none() && owners.iter().all(|owner| masks.contains(&owner.uid))
    };
    let assigned = |all: &[MaskConsumer]| {
        all.iter().all(is_wanted) && all.iter().filter(|consumer| is_active(consumer)).count() == active
    };
    let mut consumers = f.wait_until_all("assigned", assigned).await?;
    consumers.retain(is_active);
    let holders: BTreeSet<_> = consumers.iter().filter_map(ResourceExt::uid).collect();
    let locks = |all: &[MaskReservation]| {
        let uids: BTreeSet<_> = all.iter().map(|reservation| reservation.spec.uid.clone()).collect();
        all.len() == active && uids == holders
    };
    f.wait_until_all("one reservation for each", locks).await?;
    let copies = |all: &[Secret]| {
        let copies: Vec<_> = all.iter().filter(|secret| secret.labels().contains_key(OWNER_LABEL)).collect();
        let owners = copies.iter().flat_map(|secret| secret.owner_references());
        copies.len() == active && owners.map(|owner| owner.uid.clone()).collect::<BTreeSet<_>>() == holders
    };
    f.wait_until_all("one Secret for each", copies).await?;
    Ok(consumers)
}

/// Creates a Pod for each MaskConsumer that has none.
pub async fn run_pods(f: &Framework, consumers: &[MaskConsumer]) -> Result<()> {
    let pods = f.wait_until_all::<Pod>("listed", |_| true).await?;
    for consumer in consumers {
        let owned = |pod: &Pod| pod.owner_references().iter().any(|owner| Some(&owner.uid) == consumer.uid().as_ref());
        if !pods.iter().any(owned) {
            let uid = consumer.uid().context("no uid")?;
            f.run_pod(owned_pod(&format!("{}-{uid}", consumer.name_any()), consumer, 1)?).await?;
        }
    }
    Ok(())
}
