//! Leader election with a lease (coordination.k8s.io/v1), compatible with client-go: the leader makes decisions, while
//! the other processes update their caches. It only avoids duplicate work: safety depends on names, UIDs and
//! resourceVersions.
//!
//! Invariant: all waits use the monotonic clock. A lease counts as expired when this process has observed no change of
//! its record for its duration. A leader that cannot renew within [`RENEW_DEADLINE`] exits.

use std::time::{Duration, Instant};

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
    jiff::Timestamp,
};
use kube::{Api, Client, Error, api::PostParams};
use tokio::{sync::watch, time};
use vpn_types::FIELD_MANAGER;

/// The duration of a lease without renewal.
pub const LEASE_DURATION: Duration = Duration::from_secs(15);
/// The time after which a leader that cannot renew the lease gives up.
pub const RENEW_DEADLINE: Duration = Duration::from_secs(10);
/// The interval between attempts to acquire or renew the lease.
pub const RETRY_PERIOD: Duration = Duration::from_secs(2);

/// The time until which this process is the leader, if it is. It sends nothing after that.
pub type LeaderUntil = Option<Instant>;

/// The value for a process without leader election.
pub fn forever() -> LeaderUntil {
    const LONG: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
    Instant::now().checked_add(LONG)
}

/// A candidate for a lease.
pub struct LeaderLease {
    api: Api<Lease>,
    name: String,
    identity: String,
    /// The record that was last observed, and the time of its last observed change.
    observed: Option<(LeaseSpec, Instant)>,
}

/// The lease was lost, or could not be renewed in time. Another process may be the leader.
#[derive(Debug, thiserror::Error)]
#[error("the lease {0} could not be renewed in time")]
pub struct LeaseLost(String);

impl LeaderLease {
    /// Creates a candidate for the lease `namespace/name`. No other process may use `identity`.
    pub fn new(client: Client, namespace: &str, name: &str, identity: String) -> Self {
        Self { api: Api::namespaced(client, namespace), name: name.to_owned(), identity, observed: None }
    }

    /// Acquires the lease, publishes until when this process is the leader, and renews the lease.
    ///
    /// # Errors
    /// Returns an error when the lease is lost. The process has to exit.
    pub async fn lead(&mut self, leader_until: watch::Sender<LeaderUntil>) -> Result<(), LeaseLost> {
        // Times start when a request is sent, because the API server handles it later than that.
        let mut renewed = Instant::now();
        while !self.try_acquire_or_renew().await {
            time::sleep(RETRY_PERIOD).await;
            renewed = Instant::now();
        }
        tracing::info!(lease = self.name, identity = self.identity, "leading");
        loop {
            leader_until.send_replace(Some(renewed + RENEW_DEADLINE));
            time::sleep(RETRY_PERIOD).await;
            let started = Instant::now();
            let remaining = (renewed + RENEW_DEADLINE).saturating_duration_since(started);
            if time::timeout(remaining, self.try_acquire_or_renew()).await.unwrap_or(false) {
                renewed = started;
            } else if renewed.elapsed() >= RENEW_DEADLINE || self.is_held_by_other() {
                return Err(LeaseLost(self.name.clone()));
            }
        }
    }

    /// Releases the lease, so that a standby need not wait for it to expire.
    pub async fn release(&mut self) {
        let release = async {
            let mut lease = self.api.get(&self.name).await?;
            let spec = lease.spec.get_or_insert_default();
            if spec.holder_identity.as_ref() == Some(&self.identity) {
                spec.holder_identity = None;
                spec.lease_duration_seconds = Some(1);
                self.api.replace(&self.name, &params(), &lease).await?;
            }
            Ok::<_, Error>(())
        };
        match time::timeout(RETRY_PERIOD, release).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(lease = self.name, %error, "lease not released, it will expire"),
            Err(_) => tracing::debug!(lease = self.name, "lease not released in time, it will expire"),
        }
    }

    fn is_held_by_other(&self) -> bool {
        let holder = self.observed.as_ref().and_then(|(spec, _)| spec.holder_identity.as_deref());
        holder.is_some_and(|holder| !holder.is_empty() && holder != self.identity)
    }

    /// Acquires or renews the lease, if that is possible now. Logs errors.
    async fn try_acquire_or_renew(&mut self) -> bool {
        match time::timeout(super::DEADLINE, self.acquire_or_renew()).await {
            Ok(Ok(acquired)) => acquired,
            Ok(Err(error)) => {
                tracing::warn!(lease = self.name, %error, "cannot acquire or renew the lease");
                false
            }
            Err(_) => {
                tracing::warn!(lease = self.name, "cannot acquire or renew the lease: timeout");
                false
            }
        }
    }

    async fn acquire_or_renew(&mut self) -> Result<bool, Error> {
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
        if !self.may_acquire(&spec) {
            return Ok(false);
        }
        lease.spec = Some(self.record(Some(&spec)));
        // The resourceVersion in `lease` guards the write, so only one of several candidates succeeds.
        match self.api.replace(&self.name, &params(), &lease).await {
            Ok(lease) => {
                self.observed = lease.spec.map(|spec| (spec, Instant::now()));
                Ok(true)
            }
            Err(Error::Api(status)) if status.is_conflict() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Whether this process holds the lease, or the lease is free or expired.
    fn may_acquire(&mut self, spec: &LeaseSpec) -> bool {
        let since = match &self.observed {
            Some((observed, since)) if observed == spec => *since,
            _ => Instant::now(),
        };
        self.observed = Some((spec.clone(), since));
        let holder = spec.holder_identity.as_deref().unwrap_or_default();
        let duration = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
        let duration = duration.map_or(LEASE_DURATION, Duration::from_secs);
        holder.is_empty() || holder == self.identity || since.elapsed() >= duration
    }

    fn record(&self, before: Option<&LeaseSpec>) -> LeaseSpec {
        let now = MicroTime(Timestamp::now());
        let is_renewal = before.is_some_and(|spec| spec.holder_identity.as_ref() == Some(&self.identity));
        let transitions = before.and_then(|spec| spec.lease_transitions).unwrap_or(0);
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(LEASE_DURATION.as_secs()).ok(),
            acquire_time: before
                .filter(|_| is_renewal)
                .and_then(|spec| spec.acquire_time.clone())
                .or(Some(now.clone())),
            renew_time: Some(now),
            lease_transitions: Some(if is_renewal || before.is_none() {
                transitions
            } else {
                transitions.saturating_add(1)
            }),
            ..LeaseSpec::default()
        }
    }
}

fn params() -> PostParams {
    PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() }
}
