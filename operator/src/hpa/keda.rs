//! What KEDA does itself: it scales from zero when a metric is active, and to zero after the cooldown period. In
//! between its HorizontalPodAutoscaler decides.

use super::autoscaler::Keda;

/// The state of KEDA for a ScaledObject.
#[derive(Clone, Debug, Default)]
pub struct Activation {
    last_active: Option<u64>,
}

impl Activation {
    /// Decides at a time in seconds. `active` says whether a metric is above its activation value. Returns the new
    /// number of replicas and why, unless KEDA leaves it.
    pub fn poll(&mut self, keda: &Keda, now: u64, current: i32, active: bool) -> Option<(i32, String)> {
        if active {
            self.last_active = Some(now);
            let asleep = current == 0 || keda.idle.is_some_and(|_| current < keda.min);
            return asleep.then(|| (keda.min.max(1), "KEDA: a metric is above its activation value".into()));
        }
        let cooled = self.last_active.is_none_or(|at| at + keda.cooldown < now);
        match keda.idle {
            Some(idle) if current > idle => cooled.then(|| (idle, "KEDA: no metric is active".into())),
            Some(_) => None,
            None if current > 0 && keda.min == 0 => cooled.then(|| (0, "KEDA: no metric is active".into())),
            None => (current < keda.min).then(|| (keda.min, "KEDA: below minReplicaCount".into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keda(min: i32, idle: Option<i32>) -> Keda {
        Keda { min, idle, polling: 30, cooldown: 300, activations: vec![0.0], fallback: false, paused: None }
    }

    #[test]
    fn zero_is_left_at_once_and_reached_after_the_cooldown() {
        let mut activation = Activation::default();
        let mut poll = |now, current, active| activation.poll(&keda(0, None), now, current, active).map(|(to, _)| to);
        assert_eq!(poll(0, 0, false), None);
        assert_eq!(poll(30, 0, true), Some(1));
        assert_eq!(poll(60, 7, true), None);
        assert_eq!(poll(360, 7, false), None, "exactly the cooldown period");
        assert_eq!(poll(390, 7, false), Some(0));
    }

    #[test]
    fn idle_replicas_are_kept_instead_of_zero() {
        let mut activation = Activation::default();
        let mut poll =
            |now, current, active| activation.poll(&keda(3, Some(1)), now, current, active).map(|(to, _)| to);
        assert_eq!(poll(0, 3, false), Some(1));
        assert_eq!(poll(30, 1, false), None);
        assert_eq!(poll(60, 1, true), Some(3));
    }
}
