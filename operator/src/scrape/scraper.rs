//! Keeps what Pods answered for a short time, and limits how many are asked at once.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use thiserror::Error;
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout},
};

use super::{
    fetch::{Fetch, FetchError, HttpFetch},
    samples::{Samples, SamplesError},
    target::Target,
};
use crate::model::ObjectKey;

/// How long an answer, or an error, is used again.
pub const CACHE_TTL: Duration = Duration::from_secs(5);
/// How many Pods are asked at once.
pub const MAX_CONCURRENT: usize = 16;
/// How long a request waits for others before it fails.
pub const QUEUE_TIMEOUT: Duration = Duration::from_secs(3);

/// The number of entries below which old ones are not looked for.
const SMALLEST_SWEEP: usize = 64;

/// The reason why there are no samples of a Pod.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ScrapeError {
    /// The Pod gave no answer that can be read.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// The answer cannot be used.
    #[error(transparent)]
    Samples(#[from] SamplesError),
    /// Too many other Pods are being asked. This error is not kept.
    #[error("too many Pods are being asked for metrics at the moment")]
    Busy,
}

/// The limits of a [`Scraper`].
#[derive(Clone, Copy, Debug)]
struct Limits {
    ttl: Duration,
    concurrent: usize,
    queue: Duration,
}

const LIMITS: Limits = Limits { ttl: CACHE_TTL, concurrent: MAX_CONCURRENT, queue: QUEUE_TIMEOUT };

/// The last answer of a Pod.
struct Answer {
    at: Instant,
    result: Result<Arc<Samples>, ScrapeError>,
}

/// Locked while the Pod is being asked: whoever comes meanwhile waits, and finds the answer.
type Slot = Arc<tokio::sync::Mutex<Option<Answer>>>;

struct Entry {
    target: Target,
    slot: Slot,
}

struct Entries {
    by_pod: HashMap<ObjectKey, Entry>,
    /// The size at which old entries are dropped.
    sweep_at: usize,
}

/// Asks Pods for their metrics.
pub struct Scraper<F = HttpFetch> {
    fetch: F,
    limits: Limits,
    permits: Semaphore,
    entries: Mutex<Entries>,
}

impl Default for Scraper {
    fn default() -> Self {
        Self::new(HttpFetch)
    }
}

impl<F: Fetch> Scraper<F> {
    /// Creates a scraper that asks in the given way.
    pub fn new(fetch: F) -> Self {
        Self::with_limits(fetch, LIMITS)
    }

    fn with_limits(fetch: F, limits: Limits) -> Self {
        let entries = Mutex::new(Entries { by_pod: HashMap::new(), sweep_at: SMALLEST_SWEEP });
        Self { fetch, limits, permits: Semaphore::new(limits.concurrent), entries }
    }

    /// Returns the wanted metrics of a Pod, which are at most [`CACHE_TTL`] old. It takes at most [`QUEUE_TIMEOUT`] and
    /// [`TIMEOUT`](super::TIMEOUT) together.
    ///
    /// # Errors
    /// If the Pod does not answer as it should, which is kept like an answer, or if too many others are being asked.
    pub async fn samples(&self, target: &Target) -> Result<Arc<Samples>, ScrapeError> {
        let slot = self.slot(target);
        let turn = timeout(self.limits.queue, async {
            let answer = slot.lock().await;
            if answer.as_ref().is_some_and(|answer| answer.at.elapsed() < self.limits.ttl) {
                return Ok((answer, None));
            }
            let permit = self.permits.acquire().await.map_err(|_| ScrapeError::Busy)?;
            Ok((answer, Some(permit)))
        });
        let (mut answer, permit) = turn.await.unwrap_or(Err(ScrapeError::Busy))?;
        if permit.is_none()
            && let Some(answer) = &*answer
        {
            return answer.result.clone();
        }
        let result = self.ask(target).await.map(Arc::new);
        *answer = Some(Answer { at: Instant::now(), result: result.clone() });
        result
    }

    /// Drops what is known about a Pod that is gone.
    pub fn forget(&self, pod: &ObjectKey) {
        self.entries().by_pod.remove(pod);
    }

    /// Returns the number of Pods of which something is kept.
    pub fn len(&self) -> usize {
        self.entries().by_pod.len()
    }

    /// Whether nothing is kept.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    async fn ask(&self, target: &Target) -> Result<Samples, ScrapeError> {
        let answer = self.fetch.fetch(target).await?;
        Ok(Samples::parse(&answer, &target.settings.names)?)
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the slot of a Pod. A Pod with another UID, address or annotation is another one.
    fn slot(&self, target: &Target) -> Slot {
        let mut entries = self.entries();
        if let Some(entry) = entries.by_pod.get(&target.pod).filter(|entry| entry.target == *target) {
            return entry.slot.clone();
        }
        if entries.by_pod.len() >= entries.sweep_at {
            entries.by_pod.retain(|_, entry| {
                let answer = entry.slot.try_lock();
                // Locked: the Pod is being asked.
                answer.map_or(true, |answer| answer.as_ref().is_some_and(|one| one.at.elapsed() < self.limits.ttl))
            });
            entries.sweep_at = (entries.by_pod.len() * 2).max(SMALLEST_SWEEP);
        }
        let slot = Slot::default();
        entries.by_pod.insert(target.pod.clone(), Entry { target: target.clone(), slot: slot.clone() });
        slot
    }
}

#[cfg(test)]
mod tests;
