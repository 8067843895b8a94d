//! The conditions and their reasons.

use crate::closed_set::closed_set;

/// Type of the condition that every custom resource has.
pub const READY: &str = "Ready";

/// Type of the condition of a `MaskProvider` with the result of the last verification.
pub const VERIFIED: &str = "Verified";

/// Type of the condition of a `MaskProvider` that exists, and is `True`, while another one has the same credentials, or
/// while slots of it have the same WireGuard key.
pub const SHARED_CREDENTIALS: &str = "SharedCredentials";

/// Type of the condition of a Pod with the label `vpn.beebs.dev/inject`. It is `True` when the Pod has a slot.
pub const SLOT_ASSIGNED: &str = "vpn.beebs.dev/SlotAssigned";

/// Type of the condition of an `OpenVPNServer` that is `False` when a certificate is about to end that the operator cannot
/// renew.
pub const CERTIFICATES_VALID: &str = "CertificatesValid";

/// Not the name of a [`Reason`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown reason {0:?}")]
pub struct UnknownReason(pub String);

closed_set! {
    /// The `reason` of a `Ready` condition, or of the `Verified` condition of a MaskProvider. Some reasons appear on
    /// Events only.
    ///
    /// The documentation of a reason begins with the custom resources it appears on, or `Event`; without such a
    /// beginning it appears on all of them. The API reference in `crds/README.md` is generated from it.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
    pub enum Reason or UnknownReason = |s: &str| UnknownReason(s.to_owned());
    {
        /// Mask, MaskConsumer, Pod: A slot is assigned and the Secret with the credentials exists.
        Assigned,
        /// Mask, MaskConsumer: All slots of the matching providers are taken. The Mask waits for the next free slot.
        NoFreeSlot,
        /// Mask, MaskConsumer: No provider has one of the requested tags and allows this namespace.
        NoProviderFits,
        /// Mask, MaskConsumer: Providers match, but none of them is `Ready` or `Active`.
        NoProviderUsable,
        /// MaskProvider: `maxSlots` was lowered, and slots beyond it are still in use. No slot is assigned until they are
        /// released.
        ProviderDraining,
        /// Mask: The MaskConsumer of an earlier Mask with this name still exists.
        PreviousConsumerTerminating,
        /// Mask: A MaskConsumer with this name exists and belongs to something else.
        ConsumerNameTaken,
        /// Pod: The Mask that the Pod needs exists and belongs to something else.
        MaskNameTaken,
        /// Pod: The Mask that the annotation `vpn.beebs.dev/mask` names does not exist or cannot be used.
        MaskNotUsable,
        /// Pod: Another Pod uses the slot of the Mask. Pods that share a Mask run one at a time.
        SlotInUseByPod,
        /// Pod: Another scheduling gate has to be removed first. The message names it.
        OtherSchedulingGate,
        /// Pod: A Pod of an older revision has the slot, and could not be evicted. The message says why.
        EvictionRefused,
        /// Event: A Pod of an older revision of the Deployment was evicted, so that the new revision gets its slot.
        RevisionEvicted,
        /// MaskConsumer: A Secret with the name of the copy exists and belongs to something else.
        SecretNameTaken,
        /// Mask, MaskConsumer: The namespace is being deleted.
        NamespaceTerminating,
        /// A ResourceQuota does not allow the objects that are needed, or requires requests or limits on the containers
        /// of the verification Pod. Set `verify.resources` in the chart or `spec.verify.overrides.containers`.
        QuotaExceeded,
        /// MaskProvider: A LimitRange does not allow the resources of the verification Pod. Set `verify.resources` in
        /// the chart or `spec.verify.overrides.containers`.
        LimitRangeExceeded,
        /// The operator lacks a permission.
        Forbidden,
        /// An admission webhook, policy or plugin rejected a write. The message quotes it.
        AdmissionDenied,
        /// The API server rejected a request or did not answer it. The operator retries with backoff.
        RequestFailed,
        /// MaskConsumer, MaskReservation: The slot is being released.
        Releasing,
        /// MaskConsumer: A Pod without an owner reference still uses the slot. The message names the Pod.
        HeldByPods,
        /// MaskConsumer: A Pod that should have stopped 30 s ago may still use the slot. The message names the Pod and
        /// its node.
        HeldByLostNode,
        /// MaskConsumer, MaskReservation: A finalizer that the operator does not own keeps an object of the slot. The
        /// message names the object.
        HeldByFinalizer,
        /// MaskReservation: The last Pod is gone. The slot stays held until `status.holdUntil`.
        HeldUntilDeadline,
        /// Event: The slot was taken back because `maxSlots` was lowered or the provider was deleted, or the Mask was
        /// deleted and left its MaskConsumer behind.
        Evicted,
        /// Event: An object of a slot in use was deleted, and the operator created it again.
        Restored,
        /// Event: The copied Secret now has the changed credentials. Running Pods keep the environment they started
        /// with.
        CredentialsChanged,
        /// Event: Several Pods used one slot at the same time, found when the slot was released. Each Pod is a device
        /// of its own.
        SlotShared,
        /// MaskReservation: The slot is assigned.
        SlotInUse,
        /// MaskReservation: Nothing uses the slot any more, and this object is deleted.
        SlotFree,
        /// MaskProvider: Slots can be assigned.
        Available,
        /// OpenVPNServer: A replica accepts clients.
        Serving,
        /// OpenVPNServer: The load balancer has no address yet. The Events of the Service may say why. Set
        /// `spec.endpoint.host` if it never gets one.
        EndpointPending,
        /// OpenVPNServer: No replica accepts clients. The message says why, as far as the Pods tell.
        PodsUnavailable,
        /// OpenVPNServer: Packets are not forwarded on the node. Enable `net.ipv4.ip_forward` there, or set
        /// `spec.ipForward`.
        ForwardingDisabled,
        /// OpenVPNServer: The network of the clients contains an address of a Pod, a Service or a node. The message
        /// names both.
        NetworkOverlap,
        /// OpenVPNServer, OpenVPNClient: The Secret with the certificate authority is gone. Restore it from a backup, or
        /// increase `spec.pki.generation` to have a new one, with which no client can connect until it has a new profile.
        CertificateAuthorityMissing,
        /// OpenVPNServer, OpenVPNClient: The certificate authority cannot issue certificates. The message says why.
        CertificateAuthorityInvalid,
        /// OpenVPNServer: The Secret that `spec.pki.keystoreSecret` names cannot be used. The message says why.
        KeystoreInvalid,
        /// OpenVPNClient: The OpenVPNServer has `spec.pki.keystoreSecret`, so the operator issues and revokes no
        /// certificates.
        NotIssuing,
        /// OpenVPNServer: A certificate is about to end, and the operator cannot renew it. The message names it.
        CertificateExpiring,
        /// OpenVPNServer: All certificates are valid for longer than 30 days, or the operator renews them in time.
        CertificatesCurrent,
        /// OpenVPNServer, OpenVPNClient: An object with the name of one that is needed exists and belongs to something
        /// else. The message names it.
        NameTaken,
        /// Event: An object of an OpenVPNServer was changed, and the operator has set it back. The message names it.
        DriftCorrected,
        /// OpenVPNClient: The client has a valid certificate.
        Issued,
        /// OpenVPNClient: All certificates of the client are revoked.
        Revoked,
        /// OpenVPNClient: The OpenVPNServer that `spec.server` names does not exist.
        ServerNotFound,
        /// OpenVPNClient: The OpenVPNServer is not able to issue certificates yet. Its conditions say why.
        ServerNotReady,
        /// OpenVPNClient: `spec.csr` is not a valid certificate signing request. The message says why.
        SigningRequestInvalid,
        /// Event: A MaskReservation that the operator did not create blocks a slot of the MaskProvider.
        SlotBlocked,
        /// Event: Keys of the Secret mean nothing to the verification. The message names them.
        SecretKeysIgnored,
        /// MaskProvider: Another MaskProvider has the same credentials, or slots of this one have the same WireGuard
        /// key. It is also the type of a condition.
        SharedCredentials,
        /// MaskProvider: The credentials have not been verified yet.
        NotVerified,
        /// MaskProvider: The credentials are being verified, or wait for a slot to be verified on.
        Verifying,
        /// MaskProvider: The last verification passed.
        Passed,
        /// MaskProvider: The credentials passed, and are verified again as soon as a slot is free and no Mask waits for
        /// it.
        ReverificationPending,
        /// MaskProvider: The VPN service rejects the user name or password, or the Secret lacks what a login needs.
        /// Correct the Secret.
        CredentialsRejected,
        /// MaskProvider: The VPN service reports that too many devices are connected. Lower `maxSlots`, or disconnect
        /// what uses the account elsewhere.
        DeviceLimit,
        /// MaskProvider: No server of the VPN service matches the settings in the Secret (`SERVER_COUNTRIES`, …).
        NoServer,
        /// MaskProvider: gluetun cannot use the settings in the Secret. The message quotes it.
        ConfigInvalid,
        /// MaskProvider: The VPN server cannot be reached or does not answer. With WireGuard, the key may be wrong.
        NoHandshake,
        /// MaskProvider, OpenVPNServer: There is no tunnel device. It needs `NET_ADMIN` and a node with `/dev/net/tun`.
        TunUnavailable,
        /// MaskProvider, OpenVPNServer: The namespace does not admit the Pod, which needs `NET_ADMIN`. Label the
        /// namespace `pod-security.kubernetes.io/enforce: privileged`.
        PodSecurityForbidden,
        /// MaskProvider: The verification Pod fits no node. The message quotes the scheduler.
        Unschedulable,
        /// MaskProvider: The VPN connected, but the public address is the same as before.
        SameAddress,
        /// MaskProvider: The verification did not finish within `verify.timeout`. The message says how far it got.
        Timeout,
        /// MaskProvider: The verification Pod was deleted or evicted before it finished. The operator tries again.
        Interrupted,
        /// MaskProvider: A Mask or Pod named `PROVIDER-verify` exists that the operator did not create. Delete or
        /// rename it.
        VerificationNameTaken,
        /// MaskProvider: `spec.maxSlots` is 0.
        NoSlots,
        /// MaskProvider, OpenVPNServer: The Secret that `spec.secret`, `spec.pki.caSecret` or `spec.pki.keystoreSecret`
        /// names does not exist.
        SecretNotFound,
        /// A field of `spec` has an unusable value, or the object cannot be decoded. The message says what is wrong.
        InvalidSpec,
        /// The object is being deleted.
        Deleting,
        /// The operator has not looked at the object yet.
        Pending,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_round_trip() {
        assert_eq!(Reason::ALL.len(), 74);
        for reason in Reason::ALL {
            assert_eq!(reason.as_str().parse(), Ok(*reason));
            assert_eq!(reason.to_string(), reason.as_str());
            assert!(reason.as_str().chars().all(|c| c.is_ascii_alphanumeric()));
            assert!(reason.description().ends_with('.'), "{reason} is not described");
        }
        assert_eq!("Nope".parse::<Reason>(), Err(UnknownReason("Nope".into())));
    }
}
