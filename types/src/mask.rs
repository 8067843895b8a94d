//! `Mask`: the request for one slot.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Deserializer, Serialize};

use crate::closed_set::closed_set;
use crate::consumer::AssignedProvider;
use crate::schema;

/// What is asked for: one slot of one VPN account. All fields are optional; with none of them, any
/// provider that allows this namespace will do.
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
    doc = "Asks for one slot of a VPN account.\n\nFor each Mask the operator makes a MaskConsumer of the same name and namespace. Once that is `Active`, the credentials are in the Secret named by `status.provider.secret`, in this namespace. Workloads that use them name the MaskConsumer in their `ownerReferences`.",
    validation = Rule::new("self.metadata.name.size() <= 216").message("metadata.name may be no more than 216 characters, because other names are made from it"),
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
pub struct MaskSpec {
    /// Tags of the providers that will do, for example `["nordvpn", "uk-london"]`: one of them must be
    /// among the `tags` of the MaskProvider. Absent: any provider will do. An empty list: none will. A
    /// change reaches a Mask that waits; one that is `Active` keeps its slot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::tags")]
    pub providers: Option<Vec<String>>,

    /// Place in the queue when slots are short: higher comes first, 0 when absent. Among equals the older
    /// Mask comes first. A slot that is in use is never taken away for a higher priority.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<i32>,
}

/// `spec` may be null or absent: a Mask needs none of its fields.
impl<'de> Deserialize<'de> for MaskSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(remote = "MaskSpec")]
        struct Shape {
            #[serde(default)]
            providers: Option<Vec<String>>,
            #[serde(default)]
            priority: Option<i32>,
        }
        #[derive(Deserialize)]
        struct Present(#[serde(with = "Shape")] MaskSpec);

        let spec = Option::<Present>::deserialize(deserializer)?;
        Ok(spec.map(|Present(spec)| spec).unwrap_or_default())
    }
}

/// How far the request is. Follows the MaskConsumer of the same name.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct MaskStatus {
    /// Where the request stands.
    #[serde(default, deserialize_with = "schema::lenient", skip_serializing_if = "Option::is_none")]
    pub phase: Option<MaskPhase>,

    /// Why the Mask is in this phase, for people to read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,

    /// When something else in this status last changed (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_updated: Option<String>,

    /// The assigned slot, and the name of the Secret with the credentials.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<AssignedProvider>,

    /// `metadata.generation` of the Mask that this status was made from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// `Ready` is `True` while a slot is assigned. Wait for it with
    /// `kubectl wait --for=condition=Ready mask/NAME`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Option<Vec<Condition>>,
}

closed_set! {
    /// `Pending`: not looked at yet. `Waiting`: no slot is free, or something is in the way. `Active`: a
    /// slot is assigned and the Secret is there. `Terminating`: being deleted. `ErrNoProviders`: no usable
    /// provider fits. The reason is in the `Ready` condition.
    #[derive(Serialize, Deserialize, schemars::JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub enum MaskPhase or () = |_| ();
    {
        /// Not looked at yet.
        Pending,
        /// No slot is free, or something is in the way.
        Waiting,
        /// A slot is assigned and the Secret is there.
        Active,
        /// The Mask is being deleted.
        Terminating,
        /// No usable provider fits.
        ErrNoProviders,
    }
}
