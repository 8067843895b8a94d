//! `Mask`: the request for one slot.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Deserializer, Serialize};

use crate::closed_set::closed_set;
use crate::consumer::AssignedProvider;
use crate::schema;

/// The requested slot. All fields are optional. Without any field, every provider that allows this namespace matches.
#[derive(CustomResource, KubeSchema, Serialize, Clone, Debug, Default, PartialEq)]
#[kube(
    group = "vpn.beebs.dev",
    version = "v1",
    kind = "Mask",
    plural = "masks",
    namespaced,
    status = "MaskStatus",
    derive = "PartialEq",
    derive = "Default",
    category = "vpn",
    shortname = "mk",
    doc = "Requests one slot of a VPN account.\n\nFor each Mask, the operator creates a MaskConsumer with the same name and namespace. When the MaskConsumer is `Active`, the credentials are in the Secret named by `status.provider.secret`, in this namespace. Workloads that use the credentials name the MaskConsumer in their `ownerReferences`.",
    validation = Rule::new("self.metadata.name.size() <= 216").message("metadata.name may be no more than 216 characters, because other names are made from it"),
    validation = Rule::new("(has(self.spec) && has(self.spec.secretName)) == (has(oldSelf.spec) && has(oldSelf.spec.secretName)) && (!has(self.spec) || !has(self.spec.secretName) || self.spec.secretName == oldSelf.spec.secretName)").message("spec.secretName cannot be changed; delete the Mask and create it again"),
    printcolumn(name = "PHASE", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "PROVIDER", type_ = "string", json_path = ".status.provider.name"),
    printcolumn(name = "SLOT", type_ = "integer", json_path = ".status.provider.slot"),
    printcolumn(name = "AGE", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "REASON", type_ = "string", priority = 1, json_path = r#".status.conditions[?(@.type=="Ready")].reason"#),
    printcolumn(name = "MESSAGE", type_ = "string", priority = 1, json_path = ".status.message"),
    printcolumn(name = "SECRET", type_ = "string", priority = 1, json_path = ".status.provider.secret"),
    printcolumn(name = "PRIORITY", type_ = "integer", priority = 1, json_path = ".spec.priority"),
    printcolumn(name = "POD", type_ = "string", priority = 1, json_path = r#".metadata.ownerReferences[?(@.kind=="Pod")].name"#)
)]
#[serde(rename_all = "camelCase")]
pub struct MaskSpec {
    /// Tags of acceptable providers, for example `["nordvpn", "uk-london"]`. At least one of them must be
    /// among the `tags` of the MaskProvider. If absent, any provider matches. If empty, no provider matches. A
    /// change applies to a Mask that waits; an `Active` Mask keeps its slot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::tags")]
    pub providers: Option<Vec<String>>,

    /// Priority in the queue. Masks with a higher priority get a free slot first; among equals, the older Mask
    /// does. The operator never takes away a slot in use because of priority. Default: 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<i32>,

    /// Name of the Secret with the credentials, in this namespace. With it, a workload can refer to the Secret
    /// before a slot is assigned. A Secret of that name must not exist. It cannot be changed. Default: a name made
    /// of the name of the Mask and the UID of the MaskProvider.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::optional_secret_name")]
    pub secret_name: Option<String>,
}

/// `spec` may be null or absent, because no field of it is required.
impl<'de> Deserialize<'de> for MaskSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(remote = "MaskSpec", rename_all = "camelCase")]
        struct Shape {
            #[serde(default)]
            providers: Option<Vec<String>>,
            #[serde(default)]
            priority: Option<i32>,
            #[serde(default)]
            secret_name: Option<String>,
        }
        #[derive(Deserialize)]
        struct Present(#[serde(with = "Shape")] MaskSpec);

        let spec = Option::<Present>::deserialize(deserializer)?;
        Ok(spec.map(|Present(spec)| spec).unwrap_or_default())
    }
}

/// Observed state of the request. It follows the MaskConsumer with the same name.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct MaskStatus {
    /// Phase of the request.
    #[serde(default, deserialize_with = "schema::lenient", skip_serializing_if = "Option::is_none")]
    pub phase: Option<MaskPhase>,

    /// Human-readable explanation of the phase.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,

    /// When another field of this status last changed (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_updated: Option<String>,

    /// The assigned slot and the name of the Secret with the credentials.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<AssignedProvider>,

    /// `metadata.generation` of the Mask that this status describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// Conditions. `Ready` is `True` while a slot is assigned. To wait for it, use
    /// `kubectl wait --for=condition=Ready mask/NAME`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Option<Vec<Condition>>,
}

closed_set! {
    /// Phase of a Mask: `Pending`, `Waiting`, `Active`, `Terminating` or `ErrNoProviders`. The `Ready` condition
    /// has the reason.
    #[derive(Serialize, Deserialize, schemars::JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub enum MaskPhase or () = |_| ();
    {
        /// The operator has not looked at the Mask yet.
        Pending,
        /// No slot is free, or an error prevents the assignment.
        Waiting,
        /// A slot is assigned and the Secret with the credentials exists.
        Active,
        /// The Mask is being deleted.
        Terminating,
        /// No usable provider matches.
        ErrNoProviders,
    }
}
