//! `MaskReservation`: the lock on a slot.

use chrono::{DateTime, Utc};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use crate::closed_set::closed_set;
use crate::schema;

/// The MaskConsumer that holds the slot. Never changes.
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
    doc = "Locks one slot of a MaskProvider for one MaskConsumer. Made and deleted by the operator, in the namespace of the MaskProvider, with the name `{provider}-{slot}`: as a name exists once, so does the slot.\n\nIt stays until nothing uses the slot any more; its status names the Pods that are waited for.",
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

    /// UID of the MaskConsumer: another one of the same name has no claim to the slot.
    #[schemars(length(min = 1, max = 128))]
    pub uid: String,
}

/// What the slot is waiting for.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct MaskReservationStatus {
    /// Where the slot stands.
    #[serde(default, deserialize_with = "schema::lenient", skip_serializing_if = "Option::is_none")]
    pub phase: Option<MaskReservationPhase>,

    /// Why the MaskReservation is in this phase, for people to read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,

    /// When something else in this status last changed (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_updated: Option<String>,

    /// While the slot is being given back: the Pods that still use it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub users: Option<Vec<SlotUser>>,

    /// The last Pod is gone, and the slot stays taken until then (RFC 3339): see `spec.release` of the
    /// MaskProvider.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::optional_date_time")]
    pub hold_until: Option<DateTime<Utc>>,

    /// `metadata.generation` of the MaskReservation that this status was made from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// `Ready` is `True` while the slot is assigned.
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
    /// `Pending`: taken, not assigned yet. `Active`: assigned to the MaskConsumer. `Terminating`: being given
    /// back; `status.users` names the Pods that are waited for.
    #[derive(Serialize, Deserialize, schemars::JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub enum MaskReservationPhase or () = |_| ();
    {
        /// Taken, not assigned yet.
        Pending,
        /// Assigned to the MaskConsumer.
        Active,
        /// Being given back.
        Terminating,
    }
}
