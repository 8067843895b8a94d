//! `MaskConsumer`: the holder of a slot.

use chrono::{DateTime, Utc};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Deserializer, Serialize};

use crate::closed_set::closed_set;
use crate::schema;

/// The requested slot. The operator copies it from the Mask. A MaskConsumer that you create by hand gets a slot too.
#[derive(CustomResource, KubeSchema, Serialize, Clone, Debug, Default, PartialEq)]
#[kube(
    group = "vpn.beebs.dev",
    version = "v1",
    kind = "MaskConsumer",
    plural = "maskconsumers",
    namespaced,
    status = "MaskConsumerStatus",
    derive = "PartialEq",
    derive = "Default",
    category = "vpn",
    shortname = "mkc",
    doc = "Holds one slot of a VPN account and owns the Secret with the credentials. The operator creates one for each Mask, with the same name and namespace.\n\nWorkloads that use the credentials name it in their `ownerReferences`, with `blockOwnerDeletion: true`. The operator assigns the slot to another MaskConsumer only when the last Pod that uses it is gone.",
    validation = Rule::new("self.metadata.name.size() <= 216").message("metadata.name may be no more than 216 characters, because other names are made from it"),
    validation = Rule::new("(has(self.spec) && has(self.spec.secretName)) == (has(oldSelf.spec) && has(oldSelf.spec.secretName)) && (!has(self.spec) || !has(self.spec.secretName) || self.spec.secretName == oldSelf.spec.secretName)").message("spec.secretName cannot be changed"),
    printcolumn(name = "PHASE", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "PROVIDER", type_ = "string", json_path = ".status.provider.name"),
    printcolumn(name = "SLOT", type_ = "integer", json_path = ".status.provider.slot"),
    printcolumn(name = "AGE", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "REASON", type_ = "string", priority = 1, json_path = r#".status.conditions[?(@.type=="Ready")].reason"#),
    printcolumn(name = "MESSAGE", type_ = "string", priority = 1, json_path = ".status.message"),
    printcolumn(name = "SECRET", type_ = "string", priority = 1, json_path = ".status.provider.secret"),
    printcolumn(name = "PRIORITY", type_ = "integer", priority = 1, json_path = ".spec.priority")
)]
#[serde(rename_all = "camelCase")]
pub struct MaskConsumerSpec {
    /// Tags of acceptable providers, copied from the Mask. If absent, any provider matches. If empty, no provider
    /// matches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::tags")]
    pub providers: Option<Vec<String>>,

    /// Priority in the queue, copied from the Mask. Default: 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<i32>,

    /// Name of the Secret with the credentials, copied from the Mask. Default: a name made of the name of the
    /// MaskConsumer and the UID of the MaskProvider.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::optional_secret_name")]
    pub secret_name: Option<String>,

    /// The Mask that this MaskConsumer was created for. Absent if you created it by hand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mask: Option<MaskReference>,
}

/// `spec` may be null or absent, because no field of it is required.
impl<'de> Deserialize<'de> for MaskConsumerSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(remote = "MaskConsumerSpec", rename_all = "camelCase")]
        struct Shape {
            #[serde(default)]
            providers: Option<Vec<String>>,
            #[serde(default)]
            priority: Option<i32>,
            #[serde(default)]
            secret_name: Option<String>,
            #[serde(default)]
            mask: Option<MaskReference>,
        }
        #[derive(Deserialize)]
        struct Present(#[serde(with = "Shape")] MaskConsumerSpec);

        let spec = Option::<Present>::deserialize(deserializer)?;
        Ok(spec.map(|Present(spec)| spec).unwrap_or_default())
    }
}

/// The Mask that a MaskConsumer was created for.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct MaskReference {
    /// UID of the Mask.
    pub uid: String,

    /// When the Mask was created (RFC 3339). It is the place in the queue, also for a MaskConsumer that the operator
    /// creates again.
    #[schemars(schema_with = "schema::date_time")]
    pub creation_timestamp: DateTime<Utc>,

    /// The Pod that the Mask was created for. If it disappears without evidence that its containers have ended, the slot
    /// is held for `spec.release.uncleanDelay` of the MaskProvider.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<SlotPod>,
}

/// The slot that a MaskConsumer holds.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct AssignedProvider {
    /// Name of the MaskProvider.
    pub name: String,

    /// Namespace of the MaskProvider.
    pub namespace: String,

    /// UID of the MaskProvider.
    pub uid: String,

    /// Number of the slot, starting at 0. It is below `maxSlots` of the provider, unless `maxSlots` was lowered
    /// and the slot is being released.
    #[schemars(schema_with = "schema::slots")]
    pub slot: usize,

    /// UID of the MaskReservation `{provider}-{slot}`, which locks the slot.
    pub reservation: String,

    /// Name of the Secret with the credentials, in the namespace of the MaskConsumer. Use it with `envFrom` or as a
    /// volume.
    pub secret: String,
}

/// The Pod that may use a slot.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct SlotPod {
    /// Name of the Pod, in the namespace of the MaskConsumer.
    pub name: String,

    /// UID of the Pod.
    pub uid: String,
}

/// Observed state of the MaskConsumer.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct MaskConsumerStatus {
    /// Phase of the MaskConsumer.
    #[serde(default, deserialize_with = "schema::lenient", skip_serializing_if = "Option::is_none")]
    pub phase: Option<MaskConsumerPhase>,

    /// Human-readable explanation of the phase.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,

    /// When another field of this status last changed (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_updated: Option<String>,

    /// The assigned slot and the name of the Secret with the credentials.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<AssignedProvider>,

    /// UID of the last MaskReservation that the operator withdrew unused, because a later write of the assignment
    /// was rejected. An assignment to that MaskReservation can no longer be committed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub withdrawn_reservation: Option<String>,

    /// The Pod that may use the slot, if Pods share the Mask with the annotation `vpn.beebs.dev/mask`. Only one of
    /// them runs at a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<SlotPod>,

    /// `metadata.generation` of the MaskConsumer that this status describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// Conditions. `Ready` is `True` while a slot is assigned. To wait for it, use
    /// `kubectl wait --for=condition=Ready maskconsumer/NAME`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Option<Vec<Condition>>,
}

closed_set! {
    /// Phase of a MaskConsumer: `Pending`, `Waiting`, `Active`, `Terminating` or `ErrNoProviders`. The `Ready`
    /// condition has the reason.
    #[derive(Serialize, Deserialize, schemars::JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub enum MaskConsumerPhase or () = |_| ();
    {
        /// The operator has not looked at the MaskConsumer yet.
        Pending,
        /// No slot is free, or an error prevents the assignment.
        Waiting,
        /// A slot is assigned and the Secret with the credentials exists.
        Active,
        /// The MaskConsumer is being deleted. Pods that use the slot may still run.
        Terminating,
        /// No usable provider matches.
        ErrNoProviders,
    }
}
