//! `MaskReservation`: the lock on a slot.

use chrono::{DateTime, Utc};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use crate::closed_set::closed_set;
use crate::schema;

/// The MaskConsumer that holds the slot. It never changes.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[kube(
    group = "vpn.beebs.dev",
    version = "v1",
    kind = "MaskReservation",
    plural = "maskreservations",
    namespaced,
    status = "MaskReservationStatus",
    derive = "PartialEq",
    derive = "Default",
    category = "vpn",
    shortname = "mkr",
    doc = "Locks one slot of a MaskProvider for one MaskConsumer. The operator creates and deletes it in the namespace of the MaskProvider, with the name `{provider}-{slot}`. A name exists only once, so a slot has only one holder.\n\nIt stays until nothing uses the slot any more. Its status names the Pods that the operator waits for.",
    printcolumn(name = "PHASE", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "CONSUMER-NAMESPACE", type_ = "string", json_path = ".spec.namespace"),
    printcolumn(name = "CONSUMER", type_ = "string", json_path = ".spec.name"),
    printcolumn(name = "HOLD-UNTIL", type_ = "string", json_path = ".status.holdUntil"),
    printcolumn(name = "AGE", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "REASON",
        type_ = "string",
        priority = 1,
        json_path = r#".status.conditions[?(@.type=="Ready")].reason"#
    ),
    printcolumn(name = "MESSAGE", type_ = "string", priority = 1, json_path = ".status.message")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self == oldSelf").message("the spec of a MaskReservation never changes: delete the MaskConsumer to give the slot back"))]
pub struct MaskReservationSpec {
    /// Name of the MaskConsumer.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,

    /// Namespace of the MaskConsumer.
    #[schemars(length(min = 1, max = 63))]
    pub namespace: String,

    /// UID of the MaskConsumer. Another MaskConsumer with the same name does not hold the slot.
    #[schemars(length(min = 1, max = 128))]
    pub uid: String,
}

/// Observed state of the slot.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct MaskReservationStatus {
    /// Phase of the slot.
    #[serde(default, deserialize_with = "schema::lenient", skip_serializing_if = "Option::is_none")]
    pub phase: Option<MaskReservationPhase>,

    /// Human-readable explanation of the phase.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,

    /// When another field of this status last changed (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_updated: Option<String>,

    /// While the slot is being released, the Pods that still use it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub users: Option<Vec<SlotUser>>,

    /// When the operator frees the slot, after the last Pod is gone (RFC 3339). See `spec.release` of the
    /// MaskProvider.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::optional_date_time")]
    pub hold_until: Option<DateTime<Utc>>,

    /// `metadata.generation` of the MaskReservation that this status describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// Conditions. `Ready` is `True` while the slot is assigned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Option<Vec<Condition>>,
}

/// A Pod that uses the slot, in the namespace of the MaskConsumer.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct SlotUser {
    /// Name of the Pod.
    pub name: String,

    /// UID of the Pod.
    pub uid: String,

    /// Node that the Pod runs on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
}

closed_set! {
    /// Phase of a slot: `Pending`, `Active` or `Terminating`. The `Ready` condition has the reason.
    #[derive(Serialize, Deserialize, schemars::JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub enum MaskReservationPhase or () = |_| ();
    {
        /// The slot is locked, and not assigned yet.
        Pending,
        /// The slot is assigned to the MaskConsumer.
        Active,
        /// The slot is being released. `status.users` names the Pods that the operator waits for.
        Terminating,
    }
}
