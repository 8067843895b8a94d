//! Converts a snapshot to gauges. Each scrape creates new ones, so no series outlives its object.

use chrono::{DateTime, Utc};
use prometheus::{IntGaugeVec, Opts, core::Collector, proto::MetricFamily};
use vpn_types::MaskConsumerPhase;

use super::{Claim, GateReason, GatedPods, ProviderSlots, Snapshot, WorkloadKey};

/// Returns the gauges of a snapshot.
pub fn families(prefix: &str, snapshot: &Snapshot, now: DateTime<Utc>) -> prometheus::Result<Vec<MetricFamily>> {
    let mut families = Vec::new();
    let mut add = |name, help, labels: &[&str], values: &mut dyn Iterator<Item = (Vec<&str>, u64)>| {
        let gauges = IntGaugeVec::new(Opts::new(name, help).namespace(prefix), labels)?;
        for (labels, value) in values {
            gauges.get_metric_with_label_values(&labels)?.set(i64::try_from(value).unwrap_or(i64::MAX));
        }
        // A family without series cannot be encoded.
        families.extend(gauges.collect().into_iter().filter(|family| !family.get_metric().is_empty()));
        Ok::<_, prometheus::Error>(())
    };
    for (name, help, value) in PROVIDER {
        let all = snapshot.providers.iter();
        let mut values = all.map(|(key, slots)| (vec![&*key.namespace, &*key.name], value(slots)));
        add(name, help, &["namespace", "provider"], &mut values)?;
    }
    let tags = || snapshot.tags.iter();
    let mut free = tags().map(|(tag, slots)| (vec![&**tag], slots.free));
    add("tag_slots_free", "Slots available at once to a Mask that requests this tag.", &["tag"], &mut free)?;
    let mut waiting = tags().map(|(tag, slots)| (vec![&**tag], slots.waiting));
    let help = "Masks that request this tag and wait for a slot. A Mask that requests several tags counts for each.";
    add("tag_masks_waiting", help, &["tag"], &mut waiting)?;
    let namespaces = || snapshot.namespaces.iter();
    let mut phases = namespaces().flat_map(|(namespace, masks)| {
        let all = MaskConsumerPhase::ALL.iter();
        all.map(move |phase| (vec![&**namespace, phase.as_str()], masks.in_phase(*phase)))
    });
    let help = "MaskConsumers by phase. Each Mask has one, unless it cannot be created.";
    add("masks", help, &["namespace", "phase"], &mut phases)?;
    let mut waiting = namespaces().map(|(namespace, masks)| (vec![&**namespace], masks.waiting));
    let help = "Masks that have no slot for any reason, and are not being deleted.";
    add("masks_waiting", help, &["namespace"], &mut waiting)?;
    let age = |since: Option<DateTime<Utc>>| since.map_or(0, |since| (now - since).num_seconds().max(0).unsigned_abs());
    let mut oldest = namespaces().map(|(namespace, masks)| (vec![&**namespace], age(masks.waiting_since)));
    let help = "Longest current wait of a Mask for a slot; 0 if no Mask waits.";
    add("masks_oldest_wait_seconds", help, &["namespace"], &mut oldest)?;
    // Every reason of a namespace exists from the start, with the value 0.
    let pods = |value: &dyn Fn(&GatedPods, GateReason) -> u64| {
        let series = snapshot.pods.iter().flat_map(|(namespace, pods)| {
            let all = GateReason::ALL.map(|reason| (vec![&**namespace, reason.as_str()], value(pods, reason)));
            all.into_iter()
        });
        series.collect::<Vec<_>>().into_iter()
    };
    let help = "Pods with the label vpn.beebs.dev/inject that have their scheduling gate, by what they wait for: \
                NoMask, a Mask and its MaskConsumer; NoSlot, a slot; SlotInUseByPod, another Pod of the same Mask; \
                SlotAssigned, the removal of the gate; OtherSchedulingGate, another component.";
    add("pods_gated", help, &["namespace", "reason"], &mut pods(&GatedPods::count))?;
    let help =
        "Time since the creation of the oldest Pod with its scheduling gate, by what it waits for; 0 if there is none.";
    let mut oldest = pods(&|pods, reason| age(pods.oldest(reason)));
    add("pods_gated_oldest_seconds", help, &["namespace", "reason"], &mut oldest)?;
    Ok(families)
}

/// Returns the claimable slots of workloads.
pub fn claimable(prefix: &str, snapshot: &Snapshot, claims: &[Claim]) -> prometheus::Result<Vec<MetricFamily>> {
    let help = "How many replicas a workload may run at: its own slots and the free ones, less the reserve and the Masks \
                of others that go first.";
    let labels = ["namespace", "resource", "workload", "tag", "reserve"];
    let gauges = IntGaugeVec::new(Opts::new("claimable_slots", help).namespace(prefix), &labels)?;
    for claim in claims {
        // Without a value, a HorizontalPodAutoscaler changes nothing.
        let Some(value) = snapshot.claimable(claim) else { continue };
        let WorkloadKey { namespace, workload } = &claim.workload;
        let (tag, reserve) = (claim.tag.as_deref().unwrap_or_default(), claim.reserve.to_string());
        let labels = [namespace, &*workload.resource, &*workload.name, tag, &reserve];
        gauges.get_metric_with_label_values(&labels)?.set(i64::try_from(value).unwrap_or(i64::MAX));
    }
    Ok(gauges.collect().into_iter().filter(|family| !family.get_metric().is_empty()).collect())
}

/// The name without the prefix, the description and the value of a gauge of MaskProviders.
pub type ProviderGauge = (&'static str, &'static str, fn(&ProviderSlots) -> u64);

/// The gauges of MaskProviders.
pub const PROVIDER: [ProviderGauge; 6] = [
    ("provider_slots", "Slots of the MaskProvider (spec.maxSlots).", |provider| provider.slots),
    ("provider_slots_used", "Slots that are assigned or being assigned.", |provider| provider.used),
    (
        "provider_slots_free",
        "Slots that nothing holds and whose Secret exists. Slots with the same WireGuard key count as one. 0 while a \
         slot beyond spec.maxSlots is not released.",
        |provider| provider.free,
    ),
    (
        "provider_slots_held",
        "Slots that are neither assigned nor free: being released, or held after a release.",
        |provider| provider.held,
    ),
    (
        "provider_slots_demanded",
        "Used slots, plus one for each waiting Mask that matches this MaskProvider. A Mask that matches several usable \
         ones counts for one of them.",
        |provider| provider.demanded,
    ),
    (
        "provider_usable",
        "1 if phase and Secret allow assignments, else 0, for example after a failed verification.",
        |provider| u64::from(provider.usable),
    ),
];
