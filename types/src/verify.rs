//! How a `MaskProvider` is verified.

use std::time::Duration;

use chrono::{DateTime, Utc};
use kube::KubeSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::closed_set::closed_set;
use crate::duration::{InvalidDuration, parse_duration};
use crate::schema;

/// Whether and how the credentials are tried out. A verification takes one slot and runs one Pod in the
/// namespace of the MaskProvider: it connects and checks that the public address has changed.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct MaskProviderVerifySpec {
    /// Hand out slots without trying the credentials, for example when they are not meant for gluetun.
    /// Default: `false`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skip: Option<bool>,

    /// How long connecting may take before the verification has failed, for example `1m30s`. Counted from
    /// the start of the `vpn` container. A number without a unit is seconds. Default: `60s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<String>,

    /// How often to verify again, for example `24h`. The same form as `timeout`. Absent: only once, and when
    /// the Secret changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<String>,

    /// What happens to slots in use when a later verification fails.
    #[serde(default, deserialize_with = "schema::lenient", skip_serializing_if = "Option::is_none")]
    pub on_failure: Option<VerifyFailurePolicy>,

    /// Changes to the verification Pod. They can make it any Pod: whoever may create MaskProviders in a namespace may
    /// run any Pod there.
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

/// Changes to the verification Pod: merged onto the Pod that the operator makes.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct MaskProviderVerifyOverridesSpec {
    /// Changes to single containers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub containers: Option<MaskProviderVerifyContainerOverridesSpec>,

    /// Changes to the Pod, in the form of a Pod (`metadata`, `spec`). Containers are matched by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::any_object")]
    pub pod: Option<Value>,
}

/// Changes to the containers of the verification Pod, each in the form of a container, for example
/// `{image: "qmcgaw/gluetun:v3.41.3"}`.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct MaskProviderVerifyContainerOverridesSpec {
    /// The container that reads the public address before the VPN is up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::any_object")]
    pub init: Option<Value>,

    /// The gluetun container, which connects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::any_object")]
    pub vpn: Option<Value>,

    /// The container that reads the public address once the VPN is up, and compares.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::any_object")]
    pub probe: Option<Value>,
}

/// How the last verification went. Kept here so that a restart of the operator neither forgets a verdict nor tries
/// failing credentials sooner.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct MaskProviderVerificationStatus {
    /// UID of the Mask of the last verification that came to a verdict.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<String>,

    /// The Secret that the verdict is about: its UID and resourceVersion. With `spec.slots`, a fingerprint of those of
    /// all Secrets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_version: Option<String>,

    /// Fingerprint of `spec.verify.overrides` at that time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overrides: Option<String>,

    /// Public address of the VPN, as seen by the last verification that passed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_address: Option<String>,

    /// How many verifications have failed in a row.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failures: Option<i32>,

    /// When the next one is tried after a failure: the delay doubles each time, from 30 s to 1 h. It is tried at
    /// once when one of the Secrets or `spec.verify.overrides` changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::optional_date_time")]
    pub retry_at: Option<DateTime<Utc>>,
}

closed_set! {
    /// What happens to slots in use when a later verification fails. `Keep`: they stay, only no new ones are
    /// assigned. `Release`: they are given back, their Pods are deleted. Default: `Keep`.
    #[derive(Serialize, Deserialize, schemars::JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub enum VerifyFailurePolicy or () = |_| ();
    {
        /// They stay; no new ones are assigned.
        #[default]
        Keep,
        /// They are given back: their Pods are deleted.
        Release,
    }
}
