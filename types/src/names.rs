//! Names, labels and annotations that the operator writes on objects.

/// API group of the custom resources.
pub const GROUP: &str = "vpn.beebs.dev";

/// Finalizer on objects that only the operator may let go.
pub const FINALIZER: &str = "vpn.beebs.dev/finalizer";

/// Label on a copied Secret or a `MaskReservation`: UID of its `MaskProvider`.
pub const OWNER_LABEL: &str = "vpn.beebs.dev/owner";

/// Label on the `Mask` that verifies a `MaskProvider`: UID of that `MaskProvider`.
pub const VERIFY_LABEL: &str = "vpn.beebs.dev/verify";

/// Field manager of every write of the operator.
pub const FIELD_MANAGER: &str = "vpn-operator";

/// Field manager that keeps `spec.replicas` of the Deployment of an OpenVPNServer when the operator hands that field over
/// to an autoscaler.
pub const SHARED_FIELD_MANAGER: &str = "vpn-operator-replicas";

/// Annotation on a copied Secret: UID of the `MaskReservation` that it was copied for.
pub const RESERVATION_ANNOTATION: &str = "vpn.beebs.dev/reservation";

/// Annotation on a copied Secret: hash of the source data.
pub const SOURCE_HASH_ANNOTATION: &str = "vpn.beebs.dev/source-hash";

/// Annotation on the `Mask` that verifies a `MaskProvider`: UID and resourceVersion of the Secret and the fingerprint
/// of `spec.verify.overrides`, separated by spaces.
pub const VERIFIES_ANNOTATION: &str = "vpn.beebs.dev/verifies";

/// Label on the objects of an `OpenVPNServer`: the name of that server.
pub const SERVER_LABEL: &str = "vpn.beebs.dev/openvpn-server";

/// Label on the Secrets of an `OpenVPNServer`: what the Secret holds, `authority`, `server`, `revoked`, `client` or
/// `provider`.
pub const SERVER_SECRET_LABEL: &str = "vpn.beebs.dev/openvpn-secret";

/// Label on the `OpenVPNClient` of a slot: the number of the slot.
pub const SLOT_LABEL: &str = "vpn.beebs.dev/slot";

/// Annotation on the objects of an `OpenVPNServer`: hash of what they were made from.
pub const INPUTS_ANNOTATION: &str = "vpn.beebs.dev/inputs";

/// Annotation on the Pods of an `OpenVPNServer`: hash of the list of revoked certificates. A change makes the kubelet
/// update the files of the Pod.
pub const REVOKED_ANNOTATION: &str = "vpn.beebs.dev/revoked";
/// Annotation of the replicas of an `OpenVPNServer`: a hash of what `OpenVPN` reads only when it starts.
pub const RESTART_ANNOTATION: &str = "vpn.beebs.dev/restart";

/// Annotation on Pods: the ReplicaSet controller deletes the Pod with the lowest number first (KEP-2255).
pub const DELETION_COST_ANNOTATION: &str = "controller.kubernetes.io/pod-deletion-cost";

/// Annotation of an OpenVPNClient whose key is in the memory of a command in a Pod: its profile is not written yet. If the
/// command was interrupted, the key is lost.
pub const ENROLLING_ANNOTATION: &str = "vpn.beebs.dev/enrolling";

/// Longest name of a `Mask`: `{mask}-{provider uid}` must still be a name.
pub const MAX_MASK_NAME: usize = 216;

/// Longest name of a `MaskProvider`: `{provider}-verify` must still be the name of a `Mask`.
pub const MAX_PROVIDER_NAME: usize = 209;

/// Largest `spec.maxSlots`.
pub const MAX_SLOTS: usize = i32::MAX as usize;

/// Name of the `MaskReservation` that locks one slot: `{provider}-{slot}`.
///
/// ```
/// assert_eq!(vpn_types::names::reservation_name("my-vpn", 3), "my-vpn-3");
/// ```
#[must_use]
pub fn reservation_name(provider: &str, slot: usize) -> String {
    format!("{provider}-{slot}")
}

/// The provider and the slot in the name of a `MaskReservation`, or `None` for a name that
/// [`reservation_name`] does not give (such as `my-vpn-03`).
///
/// ```
/// use vpn_types::names::parse_reservation_name;
/// assert_eq!(parse_reservation_name("my-vpn-3"), Some(("my-vpn", 3)));
/// assert_eq!(parse_reservation_name("my-vpn"), None);
/// ```
#[must_use]
pub fn parse_reservation_name(name: &str) -> Option<(&str, usize)> {
    let (provider, digits) = name.rsplit_once('-')?;
    let canonical =
        !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) && (digits == "0" || !digits.starts_with('0'));
    if provider.is_empty() || !canonical {
        return None;
    }
    Some((provider, digits.parse().ok()?))
}

/// Name of the copy of a provider's Secret in the namespace of a `Mask`: `{mask}-{provider uid}`.
#[must_use]
pub fn secret_name(mask: &str, provider_uid: &str) -> String {
    format!("{mask}-{provider_uid}")
}

/// Name of the `Mask` (and of its `MaskConsumer`) that verifies a provider: `{provider}-verify`.
#[must_use]
pub fn verify_name(provider: &str) -> String {
    format!("{provider}-verify")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reservation_names_round_trip() {
        for provider in ["a", "my-vpn", "my-vpn-7", "a.b-c", "7", "my--vpn"] {
            for slot in [0, 1, 9, 10, 4096, MAX_SLOTS] {
                let name = reservation_name(provider, slot);
                assert_eq!(parse_reservation_name(&name), Some((provider, slot)), "{name}");
            }
        }
    }

    #[test]
    fn other_names_are_no_reservations() {
        for name in [
            "",
            "-",
            "-1",
            "vpn",
            "vpn-",
            "vpn-x",
            "vpn-01",
            "vpn-00",
            "vpn-+1",
            "vpn-1a",
            "vpn-1 ",
            "vpn-٣",
            "vpn-99999999999999999999999",
        ] {
            assert_eq!(parse_reservation_name(name), None, "{name}");
        }
    }

    #[test]
    fn the_longest_names_still_fit() {
        let uid = "01234567-89ab-cdef-0123-456789abcdef";
        assert_eq!(secret_name(&"m".repeat(MAX_MASK_NAME), uid).len(), 253);
        let provider = "p".repeat(MAX_PROVIDER_NAME);
        assert_eq!(verify_name(&provider).len(), MAX_MASK_NAME);
        assert!(reservation_name(&provider, MAX_SLOTS).len() <= 253);
    }
}
