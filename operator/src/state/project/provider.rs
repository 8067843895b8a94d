//! Projects a MaskProvider to its view. The view names an invalid field of the spec, and contains all other fields.

use std::{sync::Arc, time::Duration};

use chrono::DateTime;
use vpn_types::{
    INPUTS_ANNOTATION, MaskProvider, MaskProviderStatus, MaskProviderVerifySpec, SHARED_CREDENTIALS, VERIFIED,
    VerifyFailurePolicy,
};

use super::{Project, fnv, labels, meta, overrides::check_overrides, owner_of, status, tags};
use crate::{model::intern, state::views::*};

impl Project for MaskProvider {
    type View = ProviderView;
    fn project(&self) -> Option<ProviderView> {
        let spec = &self.spec;
        let mut invalid = None;
        let mut duration = |parsed: Result<_, vpn_types::InvalidDuration>, field: &str, default| {
            parsed.unwrap_or_else(|error| {
                invalid = Some(Arc::from(format!("spec.release.{field}: {error}")));
                default
            })
        };
        let release_delay = duration(spec.release_delay(), "delay", Default::default());
        let unclean = vpn_types::MaskProviderReleaseSpec::DEFAULT_UNCLEAN_DELAY;
        let unclean_delay = duration(spec.release_unclean_delay(), "uncleanDelay", unclean);
        let verify = match verify_view(spec.verify.as_ref()) {
            Ok(verify) => verify,
            Err(why) => {
                invalid = Some(Arc::from(why));
                None
            }
        };
        Some(ProviderView {
            meta: meta(&self.metadata)?,
            labels: labels(&self.metadata),
            secret: intern(spec.secret.as_str()),
            slot_secrets: spec.slots.iter().flatten().map(|slot| slot.secret.as_deref().map(intern)).collect(),
            max_slots: u32::try_from(spec.max_slots).unwrap_or(u32::MAX >> 1).min(u32::MAX >> 1),
            tags: tags(spec.tags.as_ref()).unwrap_or_default(),
            namespaces: spec.namespaces.as_ref().map(|all| all.iter().map(|ns| intern(ns.as_str())).collect()),
            verify: verify.map(Arc::new),
            verified: verified(self.status.as_ref()),
            shared: shared(self.status.as_ref()),
            release_delay,
            unclean_delay,
            assignment_generation: self.status.as_ref().and_then(|status| status.assignment_generation),
            invalid,
            message: self.status.as_ref().and_then(|status| status.message.as_deref().map(Arc::from)),
            server: owner_of(&self.metadata, "OpenVPNServer").next(),
            inputs: self
                .metadata
                .annotations
                .as_ref()
                .and_then(|all| all.get(INPUTS_ANNOTATION))
                .map(|inputs| intern(inputs)),
            status: status_of!(self),
        })
    }
}

/// The minimum of `spec.verify.interval`: each verification is a login, and frequent logins may get an account banned.
const SHORTEST_INTERVAL: Duration = Duration::from_secs(30);

fn verify_view(spec: Option<&MaskProviderVerifySpec>) -> Result<Option<VerifySpecView>, String> {
    let spec = spec.cloned().unwrap_or_default();
    if spec.skip == Some(true) {
        return Ok(None);
    }
    let timeout = spec.timeout().map_err(|error| format!("spec.verify.timeout: {error}"))?;
    if timeout < Duration::from_secs(1) {
        return Err("spec.verify.timeout: it has to be at least 1s".to_owned());
    }
    let interval = spec.interval().map_err(|error| format!("spec.verify.interval: {error}"))?;
    if interval.is_some_and(|interval| interval < SHORTEST_INTERVAL) {
        return Err(format!(
            "spec.verify.interval: it has to be at least {} s, because each verification is a login",
            SHORTEST_INTERVAL.as_secs()
        ));
    }
    let overrides = spec.overrides.unwrap_or_default();
    check_overrides(&overrides).map_err(|why| format!("spec.verify.overrides.{why}"))?;
    Ok(Some(VerifySpecView {
        timeout: spec.timeout.is_some().then_some(timeout),
        interval,
        release_on_failure: spec.on_failure == Some(VerifyFailurePolicy::Release),
        overrides_hash: Arc::from(format!("{:016x}", fnv([serde_json::to_vec(&overrides).unwrap_or_default()]))),
        overrides,
    }))
}

fn shared(status: Option<&MaskProviderStatus>) -> Option<SharedCondition> {
    let mut conditions = status?.conditions.iter().flatten();
    let condition = conditions.find(|condition| condition.type_ == SHARED_CREDENTIALS)?;
    Some(SharedCondition {
        message: Arc::from(condition.message.as_str()),
        since: DateTime::from_timestamp(condition.last_transition_time.0.as_second(), 0).unwrap_or_default(),
    })
}

fn verified(status: Option<&MaskProviderStatus>) -> VerificationStatusView {
    let Some(status) = status else { return VerificationStatusView::default() };
    let condition = status.conditions.iter().flatten().find(|condition| condition.type_ == VERIFIED);
    let time = |text: &String| DateTime::parse_from_rfc3339(text).ok().map(|time| time.to_utc());
    VerificationStatusView {
        condition: condition.and_then(|condition| {
            Some(VerifiedCondition {
                passed: match &*condition.status {
                    "True" => Some(true),
                    "False" => Some(false),
                    _ => None,
                },
                reason: condition.reason.parse().ok()?,
                message: Arc::from(condition.message.as_str()),
                since: DateTime::from_timestamp(condition.last_transition_time.0.as_second(), 0).unwrap_or_default(),
            })
        }),
        last_verified: status.last_verified.as_ref().and_then(time),
        status: status.verification.clone().unwrap_or_default(),
    }
}
