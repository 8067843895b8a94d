//! `MaskProvider`: a VPN account and its slots.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use crate::closed_set::closed_set;
use crate::duration::{InvalidDuration, parse_duration};
use crate::schema;
use crate::verify::{MaskProviderVerificationStatus, MaskProviderVerifySpec};

/// The VPN account: where its credentials are, how many devices it allows at once, and who may use it.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[kube(
    group = "vpn.beebs.dev",
    version = "v1",
    kind = "MaskProvider",
    plural = "maskproviders",
    namespaced,
    status = "MaskProviderStatus",
    derive = "PartialEq",
    derive = "Default",
    category = "vpn",
    shortname = "mkp",
    scale(
        spec_replicas_path = ".spec.maxSlots",
        status_replicas_path = ".status.activeSlots",
        label_selector_path = ".status.selector"
    ),
    doc = "One VPN account. The operator assigns its slots to Masks.\n\n`kubectl scale maskprovider/NAME --replicas=N` changes `spec.maxSlots`.",
    validation = Rule::new("self.metadata.name.size() <= 209").message("metadata.name may be no more than 209 characters, because other names are made from it"),
    printcolumn(name = "PHASE", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "USED", type_ = "integer", json_path = ".status.activeSlots"),
    printcolumn(name = "SLOTS", type_ = "integer", json_path = ".spec.maxSlots"),
    printcolumn(name = "AGE", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "REASON", type_ = "string", priority = 1, json_path = r#".status.conditions[?(@.type=="Ready")].reason"#),
    printcolumn(name = "MESSAGE", type_ = "string", priority = 1, json_path = ".status.message"),
    printcolumn(name = "SECRET", type_ = "string", priority = 1, json_path = ".spec.secret"),
    printcolumn(name = "TAGS", type_ = "string", priority = 1, json_path = ".spec.tags"),
    printcolumn(name = "VERIFIED", type_ = "date", priority = 1, json_path = ".status.lastVerified")
)]
#[serde(rename_all = "camelCase")]
pub struct MaskProviderSpec {
    /// Name of the Secret with the credentials, in the namespace of the MaskProvider. Its keys are environment
    /// variables of gluetun, for example `VPN_SERVICE_PROVIDER`, `OPENVPN_USER` and `OPENVPN_PASSWORD`. Each
    /// MaskConsumer gets a copy, and the operator updates the copies when this Secret changes. Whoever may create
    /// MaskProviders in a namespace can therefore copy any Secret of that namespace to another one.
    #[schemars(schema_with = "schema::secret_name")]
    pub secret: String,

    /// How many devices the account allows at once, 0 to 2147483647. Never more than this many MaskConsumers have
    /// running Pods. When you lower it, the operator releases the highest slots and deletes their Pods.
    #[schemars(schema_with = "schema::slots")]
    pub max_slots: usize,

    /// Credentials of individual slots, for services that give each device its own, such as WireGuard keys. Entry 0
    /// is for slot 0, and so on. A slot without an entry has only the credentials in `secret`. The operator ignores
    /// entries beyond `maxSlots`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub slots: Option<Vec<MaskProviderSlotSpec>>,

    /// Tags that a Mask can request in `spec.providers`, for example `["nordvpn", "preferred", "uk-london"]`. One
    /// matching tag is enough.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::tags")]
    pub tags: Option<Vec<String>>,

    /// Namespaces whose Masks may use this account. If absent, all namespaces may. If empty, none may.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::namespaces")]
    pub namespaces: Option<Vec<String>>,

    /// Whether and how the operator verifies the credentials before it assigns slots.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verify: Option<MaskProviderVerifySpec>,

    /// How long a slot stays held after its last Pod is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release: Option<MaskProviderReleaseSpec>,
}

/// Settings of one slot.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct MaskProviderSlotSpec {
    /// Name of a Secret in the namespace of the MaskProvider. Its keys, for example `WIREGUARD_PRIVATE_KEY` and
    /// `WIREGUARD_ADDRESSES`, are added to the keys of `spec.secret` and replace those of the same name. The operator
    /// does not assign the slot while this Secret does not exist.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::optional_secret_name")]
    pub secret: Option<String>,
}

/// How long a slot stays held after its last Pod is gone. Some VPN services count a session for a while after it ends.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct MaskProviderReleaseSpec {
    /// The delay after all containers of the last Pod have ended. One or more numbers with a unit (`ms`, `s`, `m`,
    /// `h`, `d`), for example `30s` or `1m30s`. Default: `0s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::duration")]
    pub delay: Option<String>,

    /// The delay after the last Pod disappeared without confirmation that its containers ended, because it was deleted
    /// by force or its node was removed. Its session may still be open. Same format as `delay`. Default: `5m`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::duration")]
    pub unclean_delay: Option<String>,
}

impl MaskProviderReleaseSpec {
    /// `uncleanDelay` when it is absent.
    pub const DEFAULT_UNCLEAN_DELAY: Duration = Duration::from_secs(300);

    /// How long to hold the slot after a clean end.
    ///
    /// # Errors
    /// When the field is not a duration.
    pub fn delay(&self) -> Result<Duration, InvalidDuration> {
        self.delay.as_deref().map_or(Ok(Duration::ZERO), parse_duration)
    }

    /// How long to hold the slot after an unclean end.
    ///
    /// # Errors
    /// When the field is not a duration.
    pub fn unclean_delay(&self) -> Result<Duration, InvalidDuration> {
        self.unclean_delay.as_deref().map_or(Ok(Self::DEFAULT_UNCLEAN_DELAY), parse_duration)
    }
}

impl MaskProviderSpec {
    /// Name of the Secret of one slot, if it has one of its own.
    pub fn slot_secret(&self, slot: usize) -> Option<&str> {
        self.slots.as_ref()?.get(slot)?.secret.as_deref()
    }

    /// How long to hold a slot after a clean end, whether or not `release` is set.
    ///
    /// # Errors
    /// When the field is not a duration.
    pub fn release_delay(&self) -> Result<Duration, InvalidDuration> {
        self.release.clone().unwrap_or_default().delay()
    }

    /// How long to hold a slot after an unclean end, whether or not `release` is set.
    ///
    /// # Errors
    /// When the field is not a duration.
    pub fn release_unclean_delay(&self) -> Result<Duration, InvalidDuration> {
        self.release.clone().unwrap_or_default().unclean_delay()
    }
}

/// Observed state of the account and its slots.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct MaskProviderStatus {
    /// Phase of the MaskProvider.
    #[serde(default, deserialize_with = "schema::lenient", skip_serializing_if = "Option::is_none")]
    pub phase: Option<MaskProviderPhase>,

    /// Human-readable explanation of the phase.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,

    /// When another field of this status last changed (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_updated: Option<String>,

    /// When the credentials last passed verification (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_verified: Option<String>,

    /// Result of the last verification.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verification: Option<MaskProviderVerificationStatus>,

    /// How many slots are taken, including those that are being released.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::optional_slots")]
    pub active_slots: Option<usize>,

    /// Label selector for the scale subresource, which autoscalers read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,

    /// `metadata.generation` of the MaskProvider that this status describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// `metadata.generation` whose `maxSlots` the consumers controller applies. The operator writes it only when the
    /// controllers run as separate processes. There, `observedGeneration` follows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assignment_generation: Option<i64>,

    /// Conditions. `Ready` is `True` while slots can be assigned. `Verified` is `True` after the credentials passed
    /// verification, `False` after they failed, and `Unknown` before. With `verify.skip` it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Option<Vec<Condition>>,
}

closed_set! {
    /// Phase of a MaskProvider: `Pending`, `Verifying`, `Verified`, `Ready`, `Active`, `Terminating`,
    /// `ErrSecretNotFound` or `ErrVerifyFailed`. The `Ready` condition has the reason.
    #[derive(Serialize, Deserialize, schemars::JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub enum MaskProviderPhase or () = |_| ();
    {
        /// The operator has not looked at the MaskProvider yet, or `maxSlots` is 0.
        Pending,
        /// The credentials are being verified.
        Verifying,
        /// The credentials work. `Ready` or `Active` follows.
        Verified,
        /// Slots can be assigned, and none is in use.
        Ready,
        /// Slots can be assigned, and some are in use.
        Active,
        /// The MaskProvider is being deleted. Its slots are released first.
        Terminating,
        /// The Secret that `spec.secret` names does not exist.
        ErrSecretNotFound,
        /// The credentials do not work.
        ErrVerifyFailed,
    }
}
