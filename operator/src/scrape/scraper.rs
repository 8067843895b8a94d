//! Keeps what Pods answered for a short time, and limits how many are asked at once.

use std::{sync::Arc, time::Duration};

use moka::future::Cache;
use thiserror::Error;
use tokio::{sync::Semaphore, time::timeout};

use super::{
    fetch::{Fetch, FetchError, HttpFetch},
    samples::{Samples, SamplesError},
    target::Target,
};

/// How long an answer, or an error, is used again.
pub const CACHE_TTL: Duration = Duration::from_secs(5);
/// How many Pods are asked at once.
pub const MAX_CONCURRENT: usize = 16;
/// How long a request waits for others before it fails.
pub const QUEUE_TIMEOUT: Duration = Duration::from_secs(3);
/// The maximum number of Pods whose answers are kept.
const MAX_PODS: u64 = 4096;

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

/// Asks Pods for their metrics.
pub struct Scraper<F = HttpFetch> {
    fetch: F,
    queue: Duration,
    permits: Semaphore,
    /// A Pod with another UID, address or annotation is another one.
    answers: Cache<Target, Result<Arc<Samples>, ScrapeError>>,
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

    fn with_limits(fetch: F, Limits { ttl, concurrent, queue }: Limits) -> Self {
        let answers = Cache::builder().max_capacity(MAX_PODS).time_to_live(ttl).build();
        Self { fetch, queue, permits: Semaphore::new(concurrent), answers }
    }

    /// Returns the wanted metrics of a Pod, which are at most [`CACHE_TTL`] old. It takes at most [`QUEUE_TIMEOUT`] and
    /// [`TIMEOUT`](super::TIMEOUT) together. A Pod is asked once for all who wait for its answer.
    ///
    /// # Errors
    /// If the Pod does not answer as it should, which is kept like an answer, or if too many others are being asked.
    pub async fn samples(&self, target: &Target) -> Result<Arc<Samples>, ScrapeError> {
        let ask = async {
            let permit = timeout(self.queue, self.permits.acquire()).await;
            let Ok(Ok(_permit)) = permit else { return Err(ScrapeError::Busy) };
            Ok(self.ask(target).await.map(Arc::new))
        };
        let answer = self.answers.try_get_with_by_ref(target, ask).await;
        answer.unwrap_or_else(|busy| Err((*busy).clone()))
    }

    async fn ask(&self, target: &Target) -> Result<Samples, ScrapeError> {
        let answer = self.fetch.fetch(target).await?;
        Ok(Samples::parse(&answer, &target.settings.names)?)
    }
}

#[cfg(test)]
mod tests;
