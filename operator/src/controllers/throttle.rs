//! Limits how often statuses that nobody has to act on are written.

use std::time::Duration;

use crate::model::Now;

/// A rate limiter: allows one status in each interval.
#[derive(Clone, Debug)]
pub struct Throttle {
    interval: Duration,
    next: Duration,
    /// When the last one that was refused asks again.
    last_retry: Duration,
}

impl Throttle {
    /// The time over which those that are refused are spread, so that thousands of them do not all ask in each interval.
    const SPREAD: Duration = Duration::from_secs(10);

    /// Returns a limiter that allows a status at once.
    pub const fn new(interval: Duration) -> Self {
        Self { interval, next: Duration::ZERO, last_retry: Duration::ZERO }
    }

    /// Allows a status, or returns the time (monotonic) at which to ask again.
    pub fn take(&mut self, now: Now) -> Result<(), Duration> {
        if now.monotonic >= self.next {
            self.next = now.monotonic + self.interval;
            return Ok(());
        }
        let retry = self.last_retry + self.interval;
        let is_soon = (self.next..now.monotonic + Self::SPREAD).contains(&retry);
        self.last_retry = if is_soon { retry } else { self.next };
        Err(self.last_retry)
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    const INTERVAL: Duration = Duration::from_millis(200);

    fn at(monotonic: Duration) -> Now {
        Now { monotonic, ..Now::default() }
    }

    #[test]
    fn thousands_that_wait_rarely_ask() {
        const COUNT: u32 = 2000;
        let mut throttle = Throttle::new(INTERVAL);
        let mut waiting: Vec<_> = (0..COUNT).map(|_| Duration::ZERO).collect();
        let (mut asked, mut allowed) = (0, 0);
        while let Some((index, now)) = waiting.iter().copied().enumerate().min_by_key(|(_, time)| *time) {
            asked += 1;
            match throttle.take(at(now)) {
                Ok(()) => {
                    allowed += 1;
                    waiting.swap_remove(index);
                }
                Err(retry) => waiting[index] = retry,
            }
        }
        assert_eq!(allowed, COUNT);
        // Each asks about twice in `SPREAD`, and on average half of them wait.
        let spreads = INTERVAL.as_millis() as u32 * COUNT / Throttle::SPREAD.as_millis() as u32;
        assert!(asked < COUNT * spreads * 11 / 10, "{asked} questions in {spreads} spreads");
    }

    proptest! {
        /// Statuses keep their distance, and who asks at the time that it was told waits a bounded time for the first.
        #[test]
        fn statuses_keep_their_distance(steps in vec(0..500u64, 1..200)) {
            let mut throttle = Throttle::new(INTERVAL);
            let (mut now, mut last) = (Duration::ZERO, None);
            for step in steps {
                now += Duration::from_millis(step);
                match throttle.take(at(now)) {
                    Ok(()) => {
                        prop_assert!(last.is_none_or(|last| now - last >= INTERVAL), "{last:?} and {now:?}");
                        last = Some(now);
                    }
                    Err(retry) => {
                        prop_assert!(retry > now && retry < now + Throttle::SPREAD, "{retry:?} at {now:?}");
                        prop_assert!(last.is_some_and(|last| retry >= last + INTERVAL));
                    }
                }
            }
        }
    }
}
