//! The leader lease (coordination.k8s.io/v1, the protocol of client-go's leaderelection): one process decides, the
//! others follow the watches and wait. It is for quiet only: safety rests on names, UIDs and resourceVersions.
//!
//! Invariant: all waiting is judged by a monotonic clock. A lease counts as expired when its record has not changed
//! for its duration *as seen by this process*; a leader that has not renewed within [`RENEW_DEADLINE`] ends.

use std::time::{Duration, Instant};

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
    jiff::Timestamp,
};
use kube::{Api, Client, Error, api::PostParams};
use tokio::{sync::watch, time};
use vpn_types::FIELD_MANAGER;

/// How long a lease lasts without renewal.
pub const LEASE_DURATION: Duration = Duration::from_secs(15);
/// A leader that could not renew for this long gives up.
pub const RENEW_DEADLINE: Duration = Duration::from_secs(10);
/// How often the lease is renewed, or looked at.
pub const RETRY_PERIOD: Duration = Duration::from_secs(2);

/// Whether this process leads, and until when (monotonic): nothing is sent after that.
pub type Lead = Option<Instant>;

/// The lead of a process that has no rival.
pub fn for_ever() -> Lead {
    const LONG: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
    Instant::now().checked_add(LONG)
}

/// One process's hold on a lease.
pub struct LeaderLease {
    api: Api<Lease>,
    name: String,
    identity: String,
    /// The record as last seen, and since when it has been so.
    seen: Option<(LeaseSpec, Instant)>,
}

/// The lease is lost, or could not be renewed in time: another process may lead.
#[derive(Debug, thiserror::Error)]
#[error("the lease {0} could not be renewed in time")]
pub struct Lost(String);

impl LeaderLease {
    /// The lease `namespace/name`, to be held as `identity`, which no other process may use.
    pub fn new(client: Client, namespace: &str, name: &str, identity: String) -> Self {
        Self { api: Api::namespaced(client, namespace), name: name.to_owned(), identity, seen: None }
    }

    /// Waits until the lease is ours, says so and until when, and renews it.
    ///
    /// # Errors
    /// When it was ours and is not any more: the process has to end.
    pub async fn lead(&mut self, lead: watch::Sender<Lead>) -> Result<(), Lost> {
        // All is counted from when a request was sent: what the server did with it can only be later.
        let mut renewed = Instant::now();
        while !self.attempt().await {
            time::sleep(RETRY_PERIOD).await;
            renewed = Instant::now();
        }
        tracing::info!(lease = self.name, identity = self.identity, "leading");
        loop {
            lead.send_replace(Some(renewed + RENEW_DEADLINE));
            time::sleep(RETRY_PERIOD).await;
            let started = Instant::now();
            let rest = (renewed + RENEW_DEADLINE).saturating_duration_since(started);
            if time::timeout(rest, self.attempt()).await.unwrap_or(false) {
                renewed = started;
            } else if renewed.elapsed() >= RENEW_DEADLINE || self.is_anothers() {
                return Err(Lost(self.name.clone()));
            }
        }
    }

    /// Gives the lease back, so that a standby need not wait for it to expire.
    pub async fn release(&mut self) {
        let given_up = async {
            let mut lease = self.api.get(&self.name).await?;
            let spec = lease.spec.get_or_insert_default();
            if spec.holder_identity.as_ref() == Some(&self.identity) {
                spec.holder_identity = None;
                spec.lease_duration_seconds = Some(1);
                self.api.replace(&self.name, &params(), &lease).await?;
            }
            Ok::<_, Error>(())
        };
        match time::timeout(RETRY_PERIOD, given_up).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(lease = self.name, %error, "lease not released; it expires"),
            Err(_) => tracing::debug!(lease = self.name, "lease not released in time; it expires"),
        }
    }

    fn is_anothers(&self) -> bool {
        let holder = self.seen.as_ref().and_then(|(spec, _)| spec.holder_identity.as_deref());
        holder.is_some_and(|holder| !holder.is_empty() && holder != self.identity)
    }

    /// Takes or renews the lease if that is possible now.
    async fn attempt(&mut self) -> bool {
        match time::timeout(super::DEADLINE, self.try_once()).await {
            Ok(Ok(ours)) => ours,
            Ok(Err(error)) => {
                tracing::warn!(lease = self.name, %error, "the lease cannot be read or written");
                false
            }
            Err(_) => {
                tracing::warn!(lease = self.name, "no answer about the lease");
                false
            }
        }
    }

    async fn try_once(&mut self) -> Result<bool, Error> {
        let Some(mut lease) = self.api.get_opt(&self.name).await? else {
            let lease = Lease {
                metadata: ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() },
                spec: Some(self.record(None)),
            };
            return match self.api.create(&params(), &lease).await {
                Ok(_) => Ok(true),
                Err(Error::Api(status)) if status.is_already_exists() => Ok(false),
                Err(error) => Err(error),
            };
        };
        let spec = lease.spec.clone().unwrap_or_default();
        if !self.may_take(&spec) {
            return Ok(false);
        }
        lease.spec = Some(self.record(Some(&spec)));
        // Guarded by the resourceVersion in `lease`: of several that try, one succeeds.
        match self.api.replace(&self.name, &params(), &lease).await {
            Ok(lease) => {
                self.seen = lease.spec.map(|spec| (spec, Instant::now()));
                Ok(true)
            }
            Err(Error::Api(status)) if status.is_conflict() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Whether the lease is ours, free, or has not been renewed for its duration.
    fn may_take(&mut self, spec: &LeaseSpec) -> bool {
        let since = match &self.seen {
            Some((seen, since)) if seen == spec => *since,
            _ => Instant::now(),
        };
        self.seen = Some((spec.clone(), since));
        let holder = spec.holder_identity.as_deref().unwrap_or_default();
        let lasts = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
        let lasts = lasts.map_or(LEASE_DURATION, Duration::from_secs);
        holder.is_empty() || holder == self.identity || since.elapsed() >= lasts
    }

    fn record(&self, before: Option<&LeaseSpec>) -> LeaseSpec {
        let now = MicroTime(Timestamp::now());
        let ours = before.is_some_and(|spec| spec.holder_identity.as_ref() == Some(&self.identity));
        let transitions = before.and_then(|spec| spec.lease_transitions).unwrap_or(0);
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(LEASE_DURATION.as_secs()).ok(),
            acquire_time: before.filter(|_| ours).and_then(|spec| spec.acquire_time.clone()).or(Some(now.clone())),
            renew_time: Some(now),
            lease_transitions: Some(if ours || before.is_none() { transitions } else { transitions.saturating_add(1) }),
            ..LeaseSpec::default()
        }
    }
}

fn params() -> PostParams {
    PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() }
}
