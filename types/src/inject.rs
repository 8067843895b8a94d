//! The label and the annotations of a Pod that gets a slot of its own, without a Mask made by hand.
//!
//! | annotation | meaning |
//! |---|---|
//! | `vpn.beebs.dev/providers` | tags of acceptable providers, separated by commas, as in `spec.providers` of a Mask |
//! | `vpn.beebs.dev/priority` | priority in the queue, as in `spec.priority` of a Mask |
//! | `vpn.beebs.dev/mask` | use the slot of this Mask instead; its Pods run one at a time |
//! | `vpn.beebs.dev/sidecar` | `gluetun` (default), or `none` for a Pod with a VPN container of its own |
//! | `vpn.beebs.dev/surge` | `evict` (default) or `wait`: what a rolling update does when no slot is free |
//! | `vpn.beebs.dev/image` | image of the sidecar |
//! | `vpn.beebs.dev/resources` | resources of the sidecar, as the JSON of `resources` of a container |
//! | `vpn.beebs.dev/outbound-subnets` | networks that the Pod reaches outside of the VPN |
//! | `vpn.beebs.dev/input-ports` | ports that are reachable from outside of the VPN |

use serde::{Deserialize, Serialize};

/// Label of a Pod that gets a slot. `"true"` asks for one; with `"false"`, the Pod is left alone.
pub const INJECT_LABEL: &str = "vpn.beebs.dev/inject";

/// Scheduling gate (KEP-3521) of a Pod that waits for its slot.
pub const SLOT_GATE: &str = "vpn.beebs.dev/slot";

/// Annotation of the operator on a Pod: what the webhook added to it, as JSON.
pub const INJECTED_ANNOTATION: &str = "vpn.beebs.dev/injected";

/// Tags of acceptable providers.
pub const PROVIDERS_ANNOTATION: &str = "vpn.beebs.dev/providers";
/// Priority in the queue.
pub const PRIORITY_ANNOTATION: &str = "vpn.beebs.dev/priority";
/// Name of an existing Mask.
pub const MASK_ANNOTATION: &str = "vpn.beebs.dev/mask";
/// `gluetun` or `none`.
pub const SIDECAR_ANNOTATION: &str = "vpn.beebs.dev/sidecar";
/// `evict` or `wait`.
pub const SURGE_ANNOTATION: &str = "vpn.beebs.dev/surge";
/// Image of the sidecar.
pub const IMAGE_ANNOTATION: &str = "vpn.beebs.dev/image";
/// Resources of the sidecar.
pub const RESOURCES_ANNOTATION: &str = "vpn.beebs.dev/resources";
/// Networks outside of the VPN.
pub const OUTBOUND_SUBNETS_ANNOTATION: &str = "vpn.beebs.dev/outbound-subnets";
/// Ports that are reachable from outside of the VPN.
pub const INPUT_PORTS_ANNOTATION: &str = "vpn.beebs.dev/input-ports";

/// The annotations that users set.
pub const ANNOTATIONS: [&str; 9] = [
    PROVIDERS_ANNOTATION,
    PRIORITY_ANNOTATION,
    MASK_ANNOTATION,
    SIDECAR_ANNOTATION,
    SURGE_ANNOTATION,
    IMAGE_ANNOTATION,
    RESOURCES_ANNOTATION,
    OUTBOUND_SUBNETS_ANNOTATION,
    INPUT_PORTS_ANNOTATION,
];

/// What the webhook decided for a Pod: the value of [`INJECTED_ANNOTATION`]. The operator goes by it, not by the
/// annotations of the user, which can be changed while the Pod runs.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Injected {
    /// Version of the operator that injected.
    pub version: String,
    /// Name of the Secret with the credentials. Without `mask`, it is also the name of the Mask of this Pod.
    pub secret: String,
    /// The Mask whose slot the Pod uses, if it exists without the Pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mask: Option<String>,
    /// Tags of acceptable providers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub providers: Option<Vec<String>>,
    /// Priority in the queue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<i32>,
    /// What a rolling update does when no slot is free.
    #[serde(default, skip_serializing_if = "Surge::is_evict")]
    pub surge: Surge,
}

/// What a rolling update does when the new Pod waits for a slot that a Pod of the old revision has.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Surge {
    /// One Pod of the oldest revision is evicted.
    #[default]
    Evict,
    /// The new Pod waits.
    Wait,
}

impl Surge {
    fn is_evict(&self) -> bool {
        *self == Self::Evict
    }
}
