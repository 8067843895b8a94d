//! The slots of one provider.

use std::collections::BTreeMap;

use rangemap::RangeSet;

use super::{Class, Line};
use crate::world::{Tags, Uid};

/// Who holds a slot. A slot is free when nobody does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// A MaskReservation of that name exists.
    Reservation,
    /// We granted it and the reservation is on its way.
    Grant,
    /// A MaskConsumer is committed to it, even if somebody forced its reservation away.
    Consumer,
}

#[derive(Clone, Copy, Debug, Default)]
struct Holders {
    reservation: bool,
    grant: bool,
    consumers: usize,
}

/// Slots that are held: numbers up to 2³¹ − 1, and nothing here counts through them.
#[derive(Clone, Debug, Default)]
pub struct Slots {
    held: BTreeMap<u32, Holders>,
    /// The same slots as runs: the lowest free one is the first gap.
    runs: RangeSet<u32>,
}

impl Slots {
    /// Notes that `holder` has the slot.
    pub fn hold(&mut self, slot: u32, holder: Holder) {
        let holders = self.held.entry(slot).or_default();
        match holder {
            Holder::Reservation => holders.reservation = true,
            Holder::Grant => holders.grant = true,
            Holder::Consumer => holders.consumers += 1,
        }
        self.runs.insert(slot..slot.saturating_add(1));
    }

    /// Notes that `holder` no longer has the slot.
    pub fn let_go(&mut self, slot: u32, holder: Holder) {
        let Some(holders) = self.held.get_mut(&slot) else { return };
        match holder {
            Holder::Reservation => holders.reservation = false,
            Holder::Grant => holders.grant = false,
            Holder::Consumer => holders.consumers = holders.consumers.saturating_sub(1),
        }
        if !holders.reservation && !holders.grant && holders.consumers == 0 {
            self.held.remove(&slot);
            self.runs.remove(slot..slot.saturating_add(1));
        }
    }

    /// Whether no slot is held.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Number of slots held.
    pub fn len(&self) -> usize {
        self.held.len()
    }
}

/// What a pool is made of, as the provider's spec and status say.
#[derive(Clone, Debug, PartialEq)]
pub struct PoolSpec {
    /// UID of the provider.
    pub uid: Uid,
    /// Number of slots: 0 … `capacity` − 1 may be handed out.
    pub capacity: u32,
    /// Those among them that cannot be handed out at present. Few, in order.
    pub withheld: Vec<u32>,
    /// Tags of the provider.
    pub tags: Tags,
    /// Namespaces that may use it; absent: any.
    pub namespaces: Option<Tags>,
    /// Whether users may be assigned, from all that is known besides the slots.
    pub usable: bool,
    /// Whether a verification may be, likewise.
    pub verifiable: bool,
    /// Whether `usable` follows from a status that tells of the present spec.
    pub current: bool,
    /// Why it is not usable, in words for users.
    pub why_not: String,
}

/// A provider and its slots.
#[derive(Clone, Debug)]
pub struct Pool {
    /// What the provider says.
    pub spec: PoolSpec,
    /// Its slots that are held.
    pub slots: Slots,
}

impl Pool {
    /// Whether a slot beyond the capacity is still held; nothing is handed out until it is back.
    pub fn is_draining(&self) -> bool {
        self.slots.held.last_key_value().is_some_and(|(slot, _)| *slot >= self.spec.capacity)
    }

    /// The slot to hand out next: the lowest free one, if any may be handed out to users or to a verification.
    pub fn next_free(&self) -> Option<u32> {
        if !(self.spec.usable || self.spec.verifiable)
            || !self.spec.current
            || self.spec.capacity == 0
            || self.is_draining()
        {
            return None;
        }
        let all = 0..self.spec.capacity;
        let mut free = self.slots.runs.gaps(&all).flatten();
        free.find(|slot| self.spec.withheld.binary_search(slot).is_err())
    }

    /// Whether a line gets slots of this provider now.
    pub fn serves(&self, line: &Line) -> bool {
        if line.is_verifying() { self.spec.verifiable } else { self.spec.usable }
    }

    /// Whether a waiter of that class may use this provider.
    pub fn fits(&self, class: &Class) -> bool {
        let (spec, Class { namespace, tags, verifies }) = (&self.spec, class);
        if let Some(uid) = verifies {
            return *uid == spec.uid;
        }
        tags.as_ref().is_none_or(|wanted| wanted.iter().any(|tag| spec.tags.contains(tag)))
            && spec.namespaces.as_ref().is_none_or(|allowed| allowed.iter().any(|ns| ns == namespace))
    }
}
