//! The kinds of objects that the operator reads or writes.

/// A kind of object that the operator reads or writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A user's request for one slot.
    Mask,
    /// The object that the operator creates for a Mask, and that owns Pods.
    Consumer,
    /// The lock on one slot.
    Reservation,
    /// A VPN account.
    Provider,
    /// Credentials: those of a provider, or the copy in the namespace of a consumer.
    Secret,
    /// A Pod that uses a slot, or verifies a provider.
    Pod,
    /// A Pod that the webhook injected. It is cached by itself, and all the time.
    InjectedPod,
}

impl Kind {
    /// Returns the kind as in manifests.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Mask => "Mask",
            Kind::Consumer => "MaskConsumer",
            Kind::Reservation => "MaskReservation",
            Kind::Provider => "MaskProvider",
            Kind::Secret => "Secret",
            Kind::Pod | Kind::InjectedPod => "Pod",
        }
    }
}
