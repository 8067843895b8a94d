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
    /// An OpenVPN server.
    Server,
    /// A client of an OpenVPN server.
    Client,
    /// A Secret of an OpenVPN server: its certificate authority, a certificate, or the revoked ones.
    ServerSecret,
    /// The configuration of an OpenVPN server.
    ConfigMap,
    /// A Service of an OpenVPN server.
    Service,
    /// The Deployment of an OpenVPN server.
    Deployment,
    /// The PodDisruptionBudget of an OpenVPN server.
    PodDisruptionBudget,
    /// A replica of an OpenVPN server.
    ServerPod,
}

impl Kind {
    /// Returns the kind as in manifests.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Mask => "Mask",
            Kind::Consumer => "MaskConsumer",
            Kind::Reservation => "MaskReservation",
            Kind::Provider => "MaskProvider",
            Kind::Secret | Kind::ServerSecret => "Secret",
            Kind::Pod | Kind::InjectedPod | Kind::ServerPod => "Pod",
            Kind::Server => "OpenVPNServer",
            Kind::Client => "OpenVPNClient",
            Kind::ConfigMap => "ConfigMap",
            Kind::Service => "Service",
            Kind::Deployment => "Deployment",
            Kind::PodDisruptionBudget => "PodDisruptionBudget",
        }
    }
}
