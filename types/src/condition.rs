//! The conditions and their reasons.

use crate::closed_set::closed_set;

/// Type of the one condition that every kind has.
pub const READY: &str = "Ready";

/// Type of the condition of a `MaskProvider` that tells how the last verification went.
pub const VERIFIED: &str = "Verified";

/// Type of the condition of a `MaskProvider` that is there, and true, while another one has the same credentials, or while
/// slots of it have the same WireGuard key.
pub const SHARED_CREDENTIALS: &str = "SharedCredentials";

/// Not the name of a [`Reason`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown reason {0:?}")]
pub struct UnknownReason(pub String);

closed_set! {
    /// Why the `Ready` condition of an object, or the `Verified` condition of a MaskProvider, is as it is: the `reason`
    /// of that condition. Some are told by Events only.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
    pub enum Reason or UnknownReason = |s: &str| UnknownReason(s.to_owned());
    {
        /// Mask, MaskConsumer: a slot is assigned and the Secret is there.
        Assigned,
        /// Mask, MaskConsumer: all slots of the providers that fit are taken; waits for the next one.
        NoFreeSlot,
        /// Mask, MaskConsumer: no provider has one of the wanted tags and allows this namespace.
        NoProviderFits,
        /// Mask, MaskConsumer: there are providers that fit, but none is `Ready` or `Active`.
        NoProviderUsable,
        /// Mask, MaskConsumer: the provider that fits is giving up slots (`maxSlots` was lowered).
        ProviderDraining,
        /// Mask: the MaskConsumer of a former Mask of this name is not gone yet.
        PreviousConsumerTerminating,
        /// Mask: a MaskConsumer of this name exists that belongs to something else.
        ConsumerNameTaken,
        /// MaskConsumer: a Secret of the name of the copy exists that belongs to something else.
        SecretNameTaken,
        /// Mask, MaskConsumer: the namespace is being deleted.
        NamespaceTerminating,
        /// A ResourceQuota does not allow the objects that are needed, or demands that their containers have requests or
        /// limits.
        QuotaExceeded,
        /// MaskProvider: a LimitRange does not allow the resources of the verification Pod.
        LimitRangeExceeded,
        /// The operator lacks a permission.
        Forbidden,
        /// An admission webhook or policy refused a write.
        AdmissionDenied,
        /// The API server refused or did not answer a request; tried again with growing delays.
        RequestFailed,
        /// MaskConsumer, MaskReservation: the slot is being given back.
        Releasing,
        /// MaskConsumer, MaskReservation: Pods still use the slot; the status names them.
        HeldByPods,
        /// MaskConsumer, MaskReservation: a Pod on a node that does not answer may still use the slot.
        HeldByLostNode,
        /// MaskConsumer, MaskReservation: an object of the slot is kept by somebody's finalizer.
        HeldByFinalizer,
        /// MaskReservation: the last Pod is gone; held until `status.holdUntil`.
        HeldUntilDeadline,
        /// Event: the slot was taken back (`maxSlots` lowered, provider deleted), or its Mask was deleted without it.
        Evicted,
        /// Event: what belongs to a slot in use was taken away, and was made again.
        Restored,
        /// Event: the copied Secret follows changed credentials.
        CredentialsChanged,
        /// Event: several Pods use one slot at the same time; each of them is a device of its own.
        SlotShared,
        /// MaskReservation: the slot is assigned.
        SlotInUse,
        /// MaskReservation: nothing uses the slot any more; this object goes.
        SlotFree,
        /// MaskProvider: slots can be assigned.
        Available,
        /// Event: a MaskReservation that the operator did not make blocks a slot of the MaskProvider.
        SlotBlocked,
        /// Event: keys of the credentials Secret have no meaning to a verification, and are ignored.
        SecretKeysIgnored,
        /// MaskProvider: another MaskProvider has the same credentials, or slots of it have the same WireGuard key.
        SharedCredentials,
        /// MaskProvider: the credentials have not been verified yet.
        NotVerified,
        /// MaskProvider: the credentials are being tried out, or wait for a slot to be tried out on.
        Verifying,
        /// MaskProvider: the last verification passed.
        Passed,
        /// MaskProvider: verified, and to be verified again as soon as a slot is free and nobody waits for it.
        ReverificationPending,
        /// MaskProvider: the VPN service refused user name or password.
        CredentialsRejected,
        /// MaskProvider: the VPN service accepted the credentials, and says that too many devices are connected.
        DeviceLimit,
        /// MaskProvider: no server of the VPN service matches the settings in the Secret.
        NoServer,
        /// MaskProvider: gluetun cannot use the settings in the Secret.
        ConfigInvalid,
        /// MaskProvider: the VPN server cannot be reached, or does not complete the handshake.
        NoHandshake,
        /// MaskProvider: gluetun cannot make a tunnel device on this node.
        TunUnavailable,
        /// MaskProvider: the namespace does not admit the verification Pod (Pod Security Standards).
        PodSecurityForbidden,
        /// MaskProvider: no node takes the verification Pod.
        Unschedulable,
        /// MaskProvider: connected, but the public address is the same as before.
        SameAddress,
        /// MaskProvider: the verification did not come to an end in time.
        Timeout,
        /// MaskProvider: the verification Pod was deleted or evicted before it came to an end.
        Interrupted,
        /// MaskProvider: a Mask or Pod of the name that verification needs exists and belongs to something else.
        VerificationNameTaken,
        /// MaskProvider: `spec.maxSlots` is 0.
        NoSlots,
        /// MaskProvider: the Secret named by `spec.secret` does not exist.
        SecretNotFound,
        /// A field of `spec` cannot be used; the message names it.
        InvalidSpec,
        /// The object is being deleted.
        Deleting,
        /// Not looked at yet.
        Pending,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_round_trip() {
        assert_eq!(Reason::ALL.len(), 50);
        for reason in Reason::ALL {
            assert_eq!(reason.as_str().parse(), Ok(*reason));
            assert_eq!(reason.to_string(), reason.as_str());
            assert!(reason.as_str().chars().all(|c| c.is_ascii_alphanumeric()));
        }
        assert_eq!("Nope".parse::<Reason>(), Err(UnknownReason("Nope".into())));
    }
}
