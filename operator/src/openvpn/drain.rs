//! Draining: sessions may continue until they end by themselves. In the last third of the time, the remaining clients
//! are told to reconnect, evenly spread, so that the other servers do not get all of them at once.

use std::{collections::BTreeSet, time::Duration};

use super::status::Client;

/// How long a session continues if its client does not reconnect when told to.
pub const LINGER: Duration = Duration::from_secs(5);

/// The sessions that were told to end, and the time they have.
#[derive(Clone, Debug)]
pub struct Drain {
    timeout: Duration,
    told: BTreeSet<u64>,
}

impl Drain {
    /// Begins to drain.
    pub fn new(timeout: Duration) -> Self {
        Self { timeout, told: BTreeSet::new() }
    }

    /// When the first session is told to end.
    pub fn begin(&self) -> Duration {
        self.timeout * 2 / 3
    }

    /// When the last session is told to end: early enough for it to leave in time.
    pub fn end(&self) -> Duration {
        let third = self.timeout - self.begin();
        self.timeout - LINGER.min(third / 2)
    }

    /// The number of sessions that were told to end.
    pub fn told(&self) -> usize {
        self.told.len()
    }

    /// Returns the sessions to end now, and takes them as told. Those that are connected longest come first.
    pub fn due(&mut self, clients: &[Client], elapsed: Duration) -> Vec<u64> {
        if elapsed < self.begin() {
            return Vec::new();
        }
        let ids: BTreeSet<_> = clients.iter().filter_map(|client| client.id).collect();
        let left: Vec<_> = ids.difference(&self.told).copied().collect();
        let all = self.told.len() + left.len();
        let target = if elapsed >= self.end() {
            all
        } else {
            let (since, window) = ((elapsed - self.begin()).as_nanos(), (self.end() - self.begin()).as_nanos());
            usize::try_from((all as u128 * since).div_ceil(window)).unwrap_or(all)
        };
        let due: Vec<_> = left.into_iter().take(target.saturating_sub(self.told.len())).collect();
        self.told.extend(&due);
        due
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn clients(ids: impl IntoIterator<Item = u64>) -> Vec<Client> {
        ids.into_iter().map(|id| Client { id: Some(id), ..Client::default() }).collect()
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn the_last_third_is_evenly_spread() {
        let mut drain = Drain::new(seconds(300));
        assert_eq!((drain.begin(), drain.end()), (seconds(200), seconds(295)));
        let all = clients(0..95);
        for second in 0..=200 {
            assert!(drain.due(&all, seconds(second)).is_empty(), "{second}");
        }
        for second in 201..=295 {
            assert_eq!(drain.due(&all, seconds(second)), [second - 201]);
        }
        assert!(drain.due(&all, seconds(296)).is_empty(), "nobody is told twice");
        assert_eq!(drain.due(&clients([7, 500]), seconds(297)), [500], "a newcomer is told at once");
    }

    #[test]
    fn without_time_all_are_told_at_once() {
        assert_eq!(Drain::new(Duration::ZERO).due(&clients(0..3), Duration::ZERO), [0, 1, 2]);
    }

    proptest! {
        #[test]
        fn everybody_is_gone_by_the_end_and_nobody_before_the_last_third(
            timeout in 0..4000_u64,
            count in 0..300_u64,
            mut moments in vec(0..4000_u64, 0..40),
            leaving in 1..20_u64,
        ) {
            let mut drain = Drain::new(seconds(timeout));
            prop_assert!(drain.begin() <= drain.end() && drain.end() <= seconds(timeout));
            moments.retain(|moment| *moment < timeout);
            moments.push(timeout);
            moments.sort_unstable();
            let mut connected: BTreeSet<u64> = (0..count).collect();
            for (turn, moment) in moments.iter().enumerate() {
                let left = connected.len();
                let due = drain.due(&clients(connected.iter().copied()), seconds(*moment));
                prop_assert!(due.is_empty() || seconds(*moment) >= drain.begin());
                for id in &due {
                    prop_assert!(connected.remove(id), "told twice");
                }
                if seconds(*moment) < drain.end() {
                    let fair = (seconds(*moment).saturating_sub(drain.begin())).as_secs_f64()
                        / (drain.end() - drain.begin()).as_secs_f64();
                    let told = drain.told() as f64;
                    prop_assert!(due.is_empty() || told <= (told + left as f64) * fair + 1.0);
                }
                // Some clients leave by themselves, and new ones connect.
                connected.retain(|id| id % leaving != 0);
                if *moment < timeout {
                    connected.insert(1000 + turn as u64);
                }
            }
            prop_assert!(connected.is_empty(), "{connected:?}");
        }
    }
}
