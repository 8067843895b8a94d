//! Several Pods on one slot: each of them is a device, and the account allows one device for each slot.

use vpn_types::Reason;

use super::context::event;
use crate::{
    model::EventRecord,
    state::{ConsumerView, PodStage, PodView},
};

/// The maximum number of Pods that are named.
const SHOWN: usize = 3;

/// Returns an Event if several Pods use a slot at the same time.
pub fn shared(consumer: &ConsumerView, users: &[&PodView]) -> Option<EventRecord> {
    let mut running: Vec<_> = users.iter().filter(|pod| pod.stage == PodStage::Running).collect();
    if running.len() < 2 {
        return None;
    }
    running.sort_by_key(|pod| &pod.meta.key);
    let names: Vec<_> = running.iter().take(SHOWN).map(|pod| &*pod.meta.key.name).collect();
    let more = match running.len() - names.len() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let message = format!(
        "{} Pods use this slot at the same time: {}{more}; the VPN service counts each Pod as a device, so give each \
         Pod its own Mask",
        running.len(),
        names.join(", ")
    );
    Some(event(consumer, true, Reason::SlotShared, "Release", message))
}
