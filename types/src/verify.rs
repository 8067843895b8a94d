//! How a `MaskProvider` is verified.

use std::time::Duration;

use chrono::{DateTime, Utc};
use kube::KubeSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::closed_set::closed_set;
use crate::duration::{InvalidDuration, parse_duration};
use crate::schema;

/// Whether and how the operator verifies the credentials. A verification takes one slot and runs one Pod in the
/// namespace of the MaskProvider. The Pod connects and checks that the public address has changed.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct MaskProviderVerifySpec {
    /// Assigns slots without verifying the credentials, for example because they are not for gluetun. Default:
    /// `false`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skip: Option<bool>,

    /// How long connecting may take before the verification fails, for example `1m30s`. The time starts with the
    /// `vpn` container. A number without a unit is in seconds. Default: `60s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<String>,

    /// How often to verify again, for example `24h`. Same format as `timeout`. If absent, the operator verifies once
    /// and whenever a Secret changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<String>,

    /// What happens to slots in use when a later verification fails.
    #[serde(default, deserialize_with = "schema::lenient", skip_serializing_if = "Option::is_none")]
    pub on_failure: Option<VerifyFailurePolicy>,

    /// Changes to the verification Pod. They can turn it into any Pod: whoever may create MaskProviders in a namespace
    /// can run any Pod there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overrides: Option<MaskProviderVerifyOverridesSpec>,
}

impl MaskProviderVerifySpec {
    /// `timeout` when it is absent.
    pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);

    /// How long connecting may take.
    ///
    /// # Errors
    /// When the field is not a duration.
    pub fn timeout(&self) -> Result<Duration, InvalidDuration> {
        self.timeout.as_deref().map_or(Ok(Self::DEFAULT_TIMEOUT), parse_duration)
    }

    /// How often to verify again; `None` for only once.
    ///
    /// # Errors
    /// When the field is not a duration.
    pub fn interval(&self) -> Result<Option<Duration>, InvalidDuration> {
        self.interval.as_deref().map(parse_duration).transpose()
    }
}

/// Changes that the operator merges into the verification Pod.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct MaskProviderVerifyOverridesSpec {
    /// Changes to individual containers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub containers: Option<MaskProviderVerifyContainerOverridesSpec>,

    /// Changes to the Pod, in the form of a Pod (`metadata`, `spec`). Containers match by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::any_object")]
    pub pod: Option<Value>,
}

/// Changes to the containers of the verification Pod, each in the form of a container, for example
/// `{image: "qmcgaw/gluetun:v3.41.3"}`.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct MaskProviderVerifyContainerOverridesSpec {
    /// Changes to the container that reads the public address before the VPN is up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::any_object")]
    pub init: Option<Value>,

    /// Changes to the gluetun container, which connects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::any_object")]
    pub vpn: Option<Value>,

    /// Changes to the container that reads the public address when the VPN is up, and compares.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::any_object")]
    pub probe: Option<Value>,
}

/// Result of the last verification. It outlives the process of the operator, so a restart neither loses a result nor
/// retries failing credentials sooner.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct MaskProviderVerificationStatus {
    /// UID of the Mask of the last verification that finished.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<String>,

    /// UID and resourceVersion of the verified Secret. With `spec.slots`, a fingerprint of those of all Secrets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_version: Option<String>,

    /// Fingerprint of `spec.verify.overrides` at the time of the verification.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overrides: Option<String>,

    /// Public address of the VPN in the last verification that passed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_address: Option<String>,

    /// How many verifications have failed in a row.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failures: Option<i32>,

    /// When the operator tries again after a failure. The delay doubles each time, from 30 s to 1 h. When a Secret or
    /// `spec.verify.overrides` changes, the operator tries again at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::optional_date_time")]
    pub retry_at: Option<DateTime<Utc>>,
}

closed_set! {
    /// What happens to slots in use when a later verification fails. With `Keep` they stay assigned, and the operator
    /// assigns no further slots. With `Release` the operator releases them and deletes their Pods. Default: `Keep`.
    #[derive(Serialize, Deserialize, schemars::JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub enum VerifyFailurePolicy or () = |_| ();
    {
        /// Slots in use stay assigned. No further slots are assigned.
        #[default]
        Keep,
        /// Slots in use are released, and their Pods are deleted.
        Release,
    }
}
