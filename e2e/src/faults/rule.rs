//! What goes wrong, and for which requests.

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

/// What the proxy does with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The proxy answers with this status. The API server does not get the request.
    Rejected(StatusCode),
    /// The API server handles the request, but the proxy answers with this status, as a load balancer may do.
    ResponseReplaced(StatusCode),
    /// The proxy closes the connection. The API server does not get the request.
    RequestDropped,
    /// The API server handles the request, but the proxy closes the connection instead of answering.
    ResponseDropped,
    /// The API server gets the request after this delay, even if the client has disconnected.
    RequestDelayed(Duration),
    /// The API server handles the request, and the client gets the response after this delay.
    ResponseDelayed(Duration),
    /// The proxy closes the connection of a watch after this number of events.
    WatchDisconnected(usize),
    /// A watch ends with `410 Expired` after this number of events: the client has to list again.
    WatchExpired(usize),
    /// A watch delivers no more events after this number of events, and does not end.
    WatchStalled(usize),
}

/// A fault and the requests that it applies to.
#[derive(Clone, Debug)]
pub struct Rule {
    filter: Filter,
    skip: usize,
    times: usize,
    fault: Fault,
}

impl Rule {
    /// Applies a fault to the first request that passes `filter`. The proxy does not know users, so a filter by user matches
    /// nothing.
    pub fn first(filter: Filter, fault: Fault) -> Self {
        Self { filter, skip: 0, times: 1, fault }
    }

    /// Skips the first `skip` requests that pass the filter.
    #[must_use]
    pub fn after(self, skip: usize) -> Self {
        Self { skip, ..self }
    }

    /// Applies the fault to this number of consecutive requests instead of one.
    #[must_use]
    pub fn times(self, times: usize) -> Self {
        Self { times, ..self }
    }

    /// Applies the fault to all following requests.
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

/// A rule that a proxy applies.
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

    /// Counts a request. Returns the fault, if it applies to this request.
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

    /// The number of requests that the fault was applied to.
    pub fn hits(&self) -> usize {
        *self.hits.borrow()
    }

    /// Waits until the fault was applied to this number of requests.
    pub async fn wait_for_hits(&self, times: usize) -> Result<()> {
        let mut hits = self.hits.subscribe();
        let waited = timeout(TIMEOUT, hits.wait_for(|count| *count >= times)).await;
        waited.with_context(|| format!("applied {} times, not {times}: {}", self.hits(), self.rule))??;
        Ok(())
    }
}

impl fmt::Display for ActiveRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (applied to {} of {} requests)", self.rule, self.hits(), self.seen.load(Ordering::SeqCst))
    }
}

/// The body of an error response: a `Status` with the messages of the API server.
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
