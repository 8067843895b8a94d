//! The kinds of objects that the operator reads or writes.

/// The kinds that the operator reads or writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A user's request for one slot.
    Mask,
    /// What workloads own; made for a Mask.
    Consumer,
    /// The lock on one slot.
    Reservation,
    /// One VPN account.
    Provider,
    /// Credentials: a provider's own, or the copy beside a consumer.
    Secret,
    /// A workload that uses a slot.
    Pod,
}

impl Kind {
    /// The kind as users write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Mask => "Mask",
            Kind::Consumer => "MaskConsumer",
            Kind::Reservation => "MaskReservation",
            Kind::Provider => "MaskProvider",
            Kind::Secret => "Secret",
            Kind::Pod => "Pod",
        }
    }
}
