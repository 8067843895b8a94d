//! The behavior of the replicas after the last event, in one sentence.

use std::fmt;

use super::{
    autoscaler::Autoscaler,
    simulate::{Options, Run},
};

/// What the replicas do in the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// No change at all.
    NeverMoves {
        /// The replicas.
        replicas: i32,
    },
    /// No change any more.
    Settles {
        /// The replicas.
        replicas: i32,
        /// Syncs from the last event to the last change.
        syncs: u64,
    },
    /// No change any more, because of `maxReplicas`.
    Saturates {
        /// The replicas.
        replicas: i32,
        /// What the metrics ask for.
        wanted: i32,
        /// Syncs from the last event to the last change.
        syncs: u64,
    },
    /// Up and down again.
    Oscillates {
        /// The lowest replicas of the last half.
        low: i32,
        /// The highest replicas of the last half.
        high: i32,
        /// The time after which the replicas repeat, in seconds.
        period: Option<u64>,
    },
    /// The simulation is too short to tell.
    Unfinished {
        /// The replicas at the end.
        replicas: i32,
    },
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NeverMoves { replicas } => write!(f, "never moves from {replicas}"),
            Self::Settles { replicas, syncs: 0 } => write!(f, "stays at {replicas}"),
            Self::Settles { replicas, syncs } => write!(f, "settles at {replicas} after {}", count(*syncs)),
            Self::Saturates { replicas, wanted, syncs } => write!(
                f,
                "saturates at the maximum of {replicas} after {}, where the metrics ask for {wanted}",
                count(*syncs)
            ),
            Self::Oscillates { low, high, period: Some(period) } => {
                write!(f, "oscillates between {low} and {high} with a period of {period} s")
            }
            Self::Oscillates { low, high, period: None } => {
                write!(f, "oscillates between {low} and {high}, irregularly")
            }
            Self::Unfinished { replicas } => {
                write!(f, "has not settled: {replicas} at the end, try a longer --duration")
            }
        }
    }
}

fn count(syncs: u64) -> String {
    format!("{syncs} sync{}", if syncs == 1 { "" } else { "s" })
}

/// Judges a simulation.
pub fn verdict(autoscaler: &Autoscaler, options: &Options, run: &Run) -> Verdict {
    let replicas = run.seconds.last().map_or(0, |last| last.replicas as i32);
    if run.changes.is_empty() && run.last_event == 0 {
        let wanted = run.syncs.last().and_then(|sync| sync.wanted);
        return match wanted {
            Some(wanted) if wanted == replicas => Verdict::Settles { replicas, syncs: 0 },
            _ => Verdict::NeverMoves { replicas },
        };
    }
    let after: Vec<_> = run.changes.iter().filter(|change| change.at >= run.last_event).collect();
    let last = after.last().map_or(run.last_event, |change| change.at);
    if options.duration - last >= quiet(autoscaler, options) {
        let syncs = if after.is_empty() { 0 } else { (last - run.last_event) / options.sync_period + 1 };
        let wanted = run.syncs.last().and_then(|sync| sync.wanted).unwrap_or(replicas);
        return match replicas == autoscaler.max && wanted > replicas {
            true => Verdict::Saturates { replicas, wanted, syncs },
            false => Verdict::Settles { replicas, syncs },
        };
    }
    let turns = after.windows(2).filter(|pair| (pair[0].to > pair[0].from) != (pair[1].to > pair[1].from)).count();
    if turns < 2 {
        return Verdict::Unfinished { replicas };
    }
    let half: Vec<_> = run.syncs.iter().filter(|sync| sync.at >= (run.last_event + options.duration) / 2).collect();
    let series: Vec<i32> = half.iter().map(|sync| sync.replicas).collect();
    let (low, high) =
        (series.iter().copied().min().unwrap_or(replicas), series.iter().copied().max().unwrap_or(replicas));
    let repeats = |period: &usize| series.iter().zip(&series[*period..]).all(|(one, other)| one == other);
    let period = (1..=series.len() / 2).find(repeats).map(|syncs| syncs as u64 * options.sync_period);
    Verdict::Oscillates { low, high, period }
}

/// Returns how long nothing must change before the replicas count as settled: longer than any window can hide a change.
fn quiet(autoscaler: &Autoscaler, options: &Options) -> u64 {
    let seconds = |window: Option<i32>| window.and_then(|it| u64::try_from(it).ok());
    let default = options.settings.downscale_stabilization;
    let windows = match &autoscaler.behavior {
        None => default,
        Some(behavior) => {
            let policies = behavior.up.policies.iter().chain(&behavior.down.policies).map(|it| it.period);
            let period = policies.max().and_then(|it| u64::try_from(it).ok()).unwrap_or(0);
            seconds(behavior.up.window).unwrap_or(0).max(seconds(behavior.down.window).unwrap_or(default)).max(period)
        }
    };
    let keda = autoscaler.keda.as_ref().map_or(0, |it| it.cooldown + it.polling);
    windows.max(keda) + options.metric_delay + options.pod_delay + 4 * options.sync_period
}
