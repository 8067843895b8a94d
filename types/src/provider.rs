//! `MaskProvider`: a VPN account and its slots.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use crate::closed_set::closed_set;
use crate::duration::{InvalidDuration, parse_duration};
use crate::schema;
use crate::verify::{MaskProviderVerificationStatus, MaskProviderVerifySpec};

/// A VPN account: where its credentials are, how many devices it allows at once, and who may use it.
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
    doc = "One VPN account, whose slots are handed out to Masks.\n\n`kubectl scale maskprovider/NAME --replicas=N` changes `spec.maxSlots`.",
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
    /// MaskConsumer gets a copy; when this Secret changes, the copies follow. Whoever may create MaskProviders in a
    /// namespace can therefore copy out any Secret of that namespace.
    #[schemars(schema_with = "schema::secret_name")]
    pub secret: String,

    /// How many devices the account allows at once, 0 to 2147483647. Never more than this many MaskConsumers
    /// have running Pods. When it is lowered, the highest slots are given back: their Pods are deleted.
    #[schemars(schema_with = "schema::slots")]
    pub max_slots: usize,

    /// Credentials of single slots, for services that give each device its own, as WireGuard does with its keys. Entry 0
    /// is for slot 0, and so on. A slot without an entry has the credentials in `secret` alone. Entries beyond
    /// `maxSlots` are not used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub slots: Option<Vec<MaskProviderSlotSpec>>,

    /// Words that a Mask can ask for in `spec.providers`, for example `["nordvpn", "preferred", "uk-london"]`.
    /// One that matches is enough.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::tags")]
    pub tags: Option<Vec<String>>,

    /// Namespaces whose Masks may use this account. Absent: all namespaces.
    /// An empty list: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::namespaces")]
    pub namespaces: Option<Vec<String>>,

    /// Whether and how the credentials are tried out before slots are handed out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verify: Option<MaskProviderVerifySpec>,

    /// How long a slot stays taken after its last Pod is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release: Option<MaskProviderReleaseSpec>,
}

/// What one slot has of its own.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct MaskProviderSlotSpec {
    /// Name of a Secret in the namespace of the MaskProvider. Its keys are added to those of the MaskProvider's
    /// `spec.secret`, and replace those of the same name, for example `WIREGUARD_PRIVATE_KEY` and
    /// `WIREGUARD_ADDRESSES`. While this Secret does not exist the slot is not handed out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::optional_secret_name")]
    pub secret: Option<String>,
}

/// How long a slot stays taken after its last Pod is gone: VPN services count a dropped session for a while.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct MaskProviderReleaseSpec {
    /// After all containers of the last Pod have ended. A number with a unit (`ms`, `s`, `m`, `h`, `d`), or
    /// several: `30s`, `1m30s`. Default: `0s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::duration")]
    pub delay: Option<String>,

    /// After the last Pod vanished without a sign that its containers ended (deleted by force, or its node was
    /// removed), so that its session may still be open. The same form as `delay`. Default: `5m`.
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

/// State of the account and its slots.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct MaskProviderStatus {
    /// Where the MaskProvider stands.
    #[serde(default, deserialize_with = "schema::lenient", skip_serializing_if = "Option::is_none")]
    pub phase: Option<MaskProviderPhase>,

    /// Why the MaskProvider is in this phase, for people to read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,

    /// When something else in this status last changed (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_updated: Option<String>,

    /// When the credentials last passed verification (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_verified: Option<String>,

    /// How the last verification went.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verification: Option<MaskProviderVerificationStatus>,

    /// How many slots are taken, those that are being given back included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::optional_slots")]
    pub active_slots: Option<usize>,

    /// Label selector for the scale subresource, as autoscalers read it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,

    /// `metadata.generation` of the MaskProvider that this status was made from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// `metadata.generation` whose `maxSlots` the consumers controller obeys. Written only where the controllers run
    /// as separate processes: there it is what lets `observedGeneration` move on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assignment_generation: Option<i64>,

    /// `Ready` is `True` while slots can be assigned. `Verified` is `True` when the credentials have passed
    /// verification, `False` when they have failed it, `Unknown` before; it is absent with `verify.skip`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Option<Vec<Condition>>,
}

closed_set! {
    /// `Pending`: not looked at yet, or no slots. `Verifying`: the credentials are being tried out. `Verified`:
    /// they work. `Ready`: slots can be assigned, none is in use. `Active`: slots can be assigned, some are in
    /// use. `Terminating`: being deleted, slots are given back. `ErrSecretNotFound`: there is no such Secret.
    /// `ErrVerifyFailed`: the credentials do not work. The reason is in the `Ready` condition.
    #[derive(Serialize, Deserialize, schemars::JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub enum MaskProviderPhase or () = |_| ();
    {
        /// Not looked at yet, or no slots.
        Pending,
        /// The credentials are being tried out.
        Verifying,
        /// The credentials work; `Ready` or `Active` comes next.
        Verified,
        /// Slots can be assigned, none is in use.
        Ready,
        /// Slots can be assigned, some are in use.
        Active,
        /// The provider is being deleted; its slots are given back first.
        Terminating,
        /// There is no Secret of the name in `spec.secret`.
        ErrSecretNotFound,
        /// The credentials do not work.
        ErrVerifyFailed,
    }
}
