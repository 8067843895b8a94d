//! What goes wrong, and with which request.

use std::{
    fmt,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use anyhow::{Context, Result};
use http::StatusCode;
use serde_json::{Value, json};
use tokio::{sync::watch, time::timeout};

use crate::{
    audit::{Filter, Request},
    wait::TIMEOUT,
};

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The API server never hears of it; this is the answer.
    Rejected(StatusCode),
    /// It is carried out, but this is the answer, as from a server or a load balancer that has lost sight of it.
    ResponseReplaced(StatusCode),
    /// The connection is cut before the API server hears of it.
    RequestDropped,
    /// It is carried out, and the connection is cut instead of an answer.
    ResponseDropped,
    /// It reaches the API server this much later, even when its sender has long given up.
    RequestDelayed(Duration),
    /// It is carried out, and its answer comes this much later.
    ResponseDelayed(Duration),
    /// A watch that is cut after so many events.
    WatchDisconnected(usize),
    /// A watch that ends after so many events with `410 Expired`: its client has to list anew.
    WatchExpired(usize),
    /// A watch that tells nothing more after so many events, and does not end.
    WatchStalled(usize),
}

/// A fault, and the requests that it befalls.
#[derive(Clone, Debug)]
pub struct Rule {
    filter: Filter,
    skip: usize,
    times: usize,
    fault: Fault,
}

impl Rule {
    /// The first request that passes `filter`. A proxy does not know users: a filter by user matches nothing.
    pub fn first(filter: Filter, fault: Fault) -> Self {
        Self { filter, skip: 0, times: 1, fault }
    }

    /// The request that passes the filter after `skip` others have.
    #[must_use]
    pub fn after(self, skip: usize) -> Self {
        Self { skip, ..self }
    }

    /// So many in a row instead of one.
    #[must_use]
    pub fn times(self, times: usize) -> Self {
        Self { times, ..self }
    }

    /// All from then on.
    #[must_use]
    pub fn always(self) -> Self {
        self.times(usize::MAX)
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Filter { user: _, access, verb, resource, subresource, namespace: _, name } = &self.filter;
        let words = [verb, resource, subresource, name].into_iter().flatten();
        let what = words.map(String::as_str).collect::<Vec<_>>().join(" ");
        write!(f, "{:?}: {what}", self.fault)?;
        if let Some(access) = access {
            write!(f, " {access:?}")?;
        }
        match (self.skip, self.times) {
            (0, 1) => Ok(()),
            (skip, usize::MAX) => write!(f, ", all after {skip}"),
            (skip, times) => write!(f, ", {times} after {skip}"),
        }
    }
}

/// A rule in force.
#[derive(Debug)]
pub struct ActiveRule {
    rule: Rule,
    seen: AtomicUsize,
    hits: watch::Sender<usize>,
}

impl ActiveRule {
    pub(super) fn new(rule: Rule) -> Self {
        Self { rule, seen: AtomicUsize::new(0), hits: watch::Sender::new(0) }
    }

    /// Counts a request; the fault, if it befalls this one.
    pub(super) fn apply(&self, request: &Request) -> Option<Fault> {
        if !self.rule.filter.matches(request) {
            return None;
        }
        let before = self.seen.fetch_add(1, Ordering::SeqCst);
        let due = before >= self.rule.skip && before - self.rule.skip < self.rule.times;
        due.then(|| {
            self.hits.send_modify(|count| *count += 1);
            self.rule.fault
        })
    }

    /// How many requests it has befallen.
    pub fn hits(&self) -> usize {
        *self.hits.borrow()
    }

    /// Waits until it has befallen so many.
    pub async fn wait_for_hits(&self, times: usize) -> Result<()> {
        let mut struck = self.hits.subscribe();
        let waited = timeout(TIMEOUT, struck.wait_for(|count| *count >= times)).await;
        waited.with_context(|| format!("struck {} times, not {times}: {}", self.hits(), self.rule))??;
        Ok(())
    }
}

impl fmt::Display for ActiveRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (struck {} of {})", self.rule, self.hits(), self.seen.load(Ordering::SeqCst))
    }
}

/// The body of an answer with an error: the `Status` of the Kubernetes API, in the words of the API server.
pub(super) fn status(code: StatusCode) -> Value {
    let (reason, message) = match code.as_u16() {
        409 => ("Conflict", "the object has been modified; please apply your changes to the latest version"),
        410 => ("Expired", "too old resource version"),
        429 => ("TooManyRequests", "the server is currently unable to handle the request, please try again later"),
        503 => ("ServiceUnavailable", "the server is currently unable to handle the request"),
        504 => (
            "Timeout",
            "the server was unable to return a response in the time allotted, but may still be processing the request",
        ),
        _ => ("InternalError", "an error on the server has prevented the request from succeeding"),
    };
    json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "code": code.as_u16(),
    })
}
