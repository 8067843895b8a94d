//! The slots of one MaskProvider, counted.

use std::{collections::BTreeMap, sync::Arc};

use super::workloads::WorkloadKey;
use crate::state::Tags;

/// The slots of a provider. All numbers are numbers of slots.
#[derive(Clone, Debug, PartialEq)]
pub struct ProviderSlots {
    /// `spec.maxSlots`.
    pub slots: u64,
    /// Assigned or being assigned.
    pub used: u64,
    /// Neither assigned nor free: being released, held after a release, or blocked by an object of somebody else.
    pub held: u64,
    /// Not held, and their Secret exists. Slots with the same WireGuard key count as one. 0 while the provider is
    /// draining, because it assigns no slots then.
    pub free: u64,
    /// `used`, plus one for each waiting Mask that it could serve. A Mask that matches several usable providers is
    /// demanded of one of them. They share such Masks evenly.
    pub demanded: u64,
    /// Whether its phase is `Ready` or `Active` and its Secret exists.
    pub usable: bool,
    /// Whether it assigns free slots: it is usable, and its current `spec` is in effect.
    pub open: bool,
    /// Whether a slot beyond `spec.maxSlots` is not released yet.
    pub draining: bool,
    /// `spec.tags`.
    pub tags: Tags,
    /// `spec.namespaces`: the namespaces that may use it; absent: all.
    pub namespaces: Option<Tags>,
    /// The labels of the MaskProvider.
    pub labels: BTreeMap<Arc<str>, Arc<str>>,
    /// Slots that Masks could use at the same time: those that are free, used or being released.
    pub assignable: u64,
    /// The slots below `spec.maxSlots` in use, by the workload whose Pods use them. Slots of other Masks have no
    /// workload. Slots of verifications do not count.
    pub users: BTreeMap<Option<WorkloadKey>, u64>,
}
