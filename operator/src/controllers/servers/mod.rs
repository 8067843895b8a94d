//! OpenVPN servers: their certificate authority, certificates, revocations, and the objects that run them.
//!
//! Invariants: a certificate authority is created once, and never replaced unless a user asks for it. A serial number is
//! in the status of its client before a certificate with it is issued. A client that is deleted is gone only when all its
//! serial numbers are in the list of revoked ones, which outlives the server. Objects of others are never changed.

mod answers;
mod authority;
mod clients;
mod context;
mod desired;
mod doomed;
mod drift;
mod enrollment;
mod evaluate;
mod keystore;
mod keystore_secret;
mod memory;
mod names;
mod objects;
mod observe;
mod obstacles;
mod provider;
mod report;
mod revocation;
mod rollover;
mod scaling;
mod services;
mod settings;
mod signer;
mod summary;

use std::time::Duration;

use chrono::{DateTime, Utc};

use context::ServersContext;
use keystore_secret::keystore;
pub use memory::Memory;
pub use scaling::replicas_by_server;
pub use settings::{SERVER_IMAGE, Settings};
pub use summary::{CertificateSummary, Summary, summary};

use crate::{
    controllers::{
        Context, Controller, Scope,
        controller::{keep_backoff, nothing_to_settle},
    },
    issuing::Refusal,
    model::{Kind, ObjectKey, ReconcileRequest, RequestPriority, Step, add_finalizer, remove_finalizer},
    state::ServerView,
};

/// Name of this controller.
pub const NAME: &str = "servers";

/// The servers controller.
pub static CONTROLLER: Controller = Controller {
    name: NAME,
    watches: &[
        (Kind::Reservation, Scope::All),
        (Kind::Provider, Scope::All),
        (Kind::Server, Scope::All),
        (Kind::Client, Scope::All),
        (Kind::ServerSecret, Scope::All),
        (Kind::ConfigMap, Scope::All),
        (Kind::Service, Scope::All),
        (Kind::Deployment, Scope::All),
        (Kind::PodDisruptionBudget, Scope::All),
        (Kind::ServerPod, Scope::All),
    ],
    status_of: &[Kind::Server, Kind::Client],
    needs_credentials: false,
    reads: &["GetOpenVPNServer", "GetOpenVPNClient", "GetSecret", "GetServerObject", "GetMaskProvider", "CountClients"],
    writes: &[
        "CreateSecret",
        "UpdateSecret",
        "DeleteSecret",
        "ApplyServerObject",
        "ApplyMaskProvider",
        "ApplyOpenVPNClient",
        "DeleteMaskProvider",
        "DeleteOpenVPNClient",
        "UpdateOpenVPNServer",
        "UpdateOpenVPNServerStatus",
        "UpdateOpenVPNClient",
        "UpdateOpenVPNClientStatus",
        "UpdatePod",
    ],
    handles: |request| matches!(request, ReconcileRequest::Server(_) | ReconcileRequest::Client(_)),
    reconcile,
    observe: observe::observe,
    answered: answers::answered,
    failed: keep_backoff,
    settle: nothing_to_settle,
};

fn reconcile(ctx: &mut Context, request: &ReconcileRequest) -> Step {
    let active = |priority| ctx.backoffs.get(request, priority).filter(|backoff| backoff.is_active(ctx.now));
    let reported = |priority| active(priority).filter(|backoff| backoff.should_be_reported()).cloned();
    let revocation_retry = active(RequestPriority::Slots).map(|backoff| backoff.until);
    let view = ServersContext {
        state: &ctx.state,
        memory: &ctx.memory.servers,
        settings: &ctx.servers,
        backoff: reported(RequestPriority::Maintenance).or_else(|| reported(RequestPriority::Slots)),
        may_revoke: revocation_retry.is_none(),
        now: ctx.now,
    };
    let step = match request {
        ReconcileRequest::Server(key) => view.server(key),
        ReconcileRequest::Client(key) => view.client(key),
        _ => Step::Idle,
    };
    match revocation_retry {
        // Until then, the step is not about the revocation.
        Some(until) => step.and_wait_until(until),
        None => step,
    }
}

impl ServersContext<'_> {
    /// Returns the next step for the server of that name. The order matters: what is needed to revoke comes before what
    /// is needed to serve.
    fn server(&self, key: &ObjectKey) -> Step {
        let Some(server) = self.state.servers.get(key) else {
            // Clients may be deleted after their server. Their certificates are revoked nevertheless.
            return self.revoke(key, None);
        };
        if server.meta.deleting {
            return self.finish(server);
        }
        if server.meta.finalizer.is_none() {
            return Step::maintain(add_finalizer(Kind::Server, &server.meta));
        }
        let desired = match desired::Desired::of(self.state, server, self.settings, self.now) {
            Ok(desired) => desired,
            Err(message) => {
                return self.revoke(key, Some(server)).or_else(|| self.report(server, &evaluate::invalid(message)));
            }
        };
        // No failure may delay the revocation of a client.
        let revocation = self.revoke(key, Some(server)).or_else(|| self.announce_revocations(key));
        if matches!(revocation, Step::Send(_)) {
            return revocation;
        }
        if let Some(backoff) = &self.backoff {
            let step = self.report(server, &evaluate::in_backoff(backoff));
            return step.and_wait_until(backoff.until);
        }
        if let Some(obstacle) = self.obstacle(server) {
            return self.report(server, &obstacle);
        }
        if server.keystore_key().is_some() {
            return self.serve_keystore(server, &desired);
        }
        let authority = self.authority(server).or_else(|| self.next_authority(server));
        authority.or_else(|| self.server_certificate(server)).or_else(|| {
            self.objects(server, &desired).or_sooner(|| {
                let condition = self.authority_problem(server).unwrap_or_else(|| self.evaluate(server, &desired));
                let step = self.hand_over(server, &desired).or_else(|| self.provider(server, &desired));
                step.or_else(|| self.report(server, &condition)).or_else(|| self.wait(server))
            })
        })
    }

    /// The next step for a server with the certificates of the user.
    fn serve_keystore(&self, server: &ServerView, desired: &desired::Desired) -> Step {
        match keystore(self.state, server, self.now) {
            // The configuration depends on the files, so wait until they are known.
            None => return Step::Idle,
            Some(Err(Refusal { reason, message })) => return self.report(server, &evaluate::failed(reason, message)),
            Some(Ok(_)) => {}
        }
        self.copy_keystore(server).or_else(|| {
            self.objects(server, desired).or_sooner(|| {
                let step = self.report(server, &self.evaluate(server, desired));
                step.or_else(|| self.wait_for_keystore(server))
            })
        })
    }

    /// Deletion: the MaskProvider first, whose finalizer gives its slots back, and then the rest by the garbage collector.
    fn finish(&self, server: &ServerView) -> Step {
        let step = self.revoke(&server.meta.key, None).or_else(|| self.delete_provider(server));
        let step = step.or_else(|| self.delete_authority(server));
        step.or_else(|| match self.own_provider(server) {
            Some(_) => self.report(server, &evaluate::terminating()),
            None => remove_finalizer(Kind::Server, &server.meta).map_or(Step::Idle, Step::maintain),
        })
    }

    /// Waits until something has to be renewed, or users have to be told that it cannot be.
    fn wait(&self, server: &ServerView) -> Step {
        let times = self.renewal_time(server).into_iter().chain(self.warning_time(server));
        let due = times.chain(self.rollover_times(server)).min();
        due.map_or(Step::Idle, |due| self.wait_until(due))
    }

    /// Waits until a time of the wall clock.
    fn wait_until(&self, due: DateTime<Utc>) -> Step {
        let delay = (due - self.now.wall).to_std().unwrap_or(Duration::ZERO);
        Step::WaitUntil(self.now.monotonic + delay.max(Duration::from_secs(1)))
    }
}
