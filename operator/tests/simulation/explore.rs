//! Random walks. A walk is a list of numbers, each of which chooses what happens next, so it can be replayed, and made
//! shorter until every number in it counts.

use std::panic::{AssertUnwindSafe, catch_unwind};

use vpn_operator::controllers::ControllerSet;

use crate::{oracle, run::Sim};

/// SplitMix64.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// What may go wrong in a walk.
#[derive(Clone, Copy)]
pub struct Weather {
    pub crashes: bool,
    pub losses: bool,
    pub relists: bool,
    pub refusals: bool,
    /// Slots are scarce from the start, users make and end Masks and Pods only, and containers crash all the time.
    pub crowded: bool,
}

impl Weather {
    pub const FAIR: Self = Self { crashes: false, losses: false, relists: false, refusals: false, crowded: false };
    pub const FOUL: Self = Self { crashes: true, losses: true, relists: true, refusals: true, crowded: false };
    pub const CROWDED: Self = Self { crowded: true, ..Self::FAIR };
}

fn disturb(sim: &mut Sim, weather: Weather, what: u64, which: usize) {
    match what {
        0 if weather.crashes => sim.crash(which % sim.processes.len()),
        1..=3 if weather.losses && !sim.flights.is_empty() => sim.lose(which % sim.flights.len()),
        4 if weather.refusals && !sim.flights.is_empty() => sim.refuse(which % sim.flights.len()),
        // It is far behind for a while, and then goes on.
        7 => sim.gc_stalled = !sim.gc_stalled,
        5 | 6 if weather.relists => {
            let p = which % sim.processes.len();
            let filters: Vec<_> = sim.processes[p].watches.keys().cloned().collect();
            let filter = &filters[(which / 7) % filters.len()];
            sim.note(format!("watch {filter:?} of {p} breaks"));
            sim.processes[p].watches.get_mut(filter).unwrap().restart();
        }
        _ => sim.advance([1, 400, 1_000, 4_000, 16_000, 100_000][which % 6]),
    }
}

fn walk(sim: &mut Sim, weather: Weather, choices: &[u32]) -> Result<(), String> {
    sim.account("p", 2);
    sim.settle()?;
    if weather.crowded {
        sim.crowd();
        sim.settle()?;
    }
    for choice in choices {
        let (what, which) = (choice % 128, (choice >> 7) as usize);
        sim.advance_quietly();
        match what {
            0..=11 if weather.crowded => sim.whim(which / 14 * 32 + which % 14),
            0..=11 => sim.whim(which),
            12..=20 => disturb(sim, weather, u64::from(what) - 12, which),
            21..=22 => sim.crash_container(which),
            23..=30 if weather.crowded => sim.crash_container(which),
            _ => {
                // Prefer one party for some time now and then, so that others lag far behind.
                let moves = sim.moves();
                if !moves.is_empty() {
                    sim.make(moves[which % moves.len()].clone())?;
                }
            }
        }
        oracle::always(sim)?;
    }
    sim.gc_stalled = false;
    sim.settle()?;
    sim.stays_quiet()?;
    sim.clean_up();
    sim.settle()?;
    oracle::at_rest(sim)?;
    sim.stays_quiet()
}

/// Runs one walk; the trace and what went wrong, if anything did.
pub fn run(roles: &[ControllerSet], weather: Weather, choices: &[u32]) -> Option<(Vec<String>, String)> {
    let mut sim = Sim::new(roles);
    let result = catch_unwind(AssertUnwindSafe(|| walk(&mut sim, weather, choices)));
    let what = match result {
        Ok(Ok(())) => return None,
        Ok(Err(what)) => what,
        Err(panic) => {
            let message = panic.downcast_ref::<String>().cloned();
            format!("panic: {}", message.unwrap_or_else(|| "?".to_owned()))
        }
    };
    Some((std::mem::take(&mut sim.trace), what))
}

/// Leaves out whatever is not needed for a failure of the same sort.
fn shrink(roles: &[ControllerSet], weather: Weather, choices: Vec<u32>) -> Vec<u32> {
    let sort = |what: &str| what.split(':').next().unwrap_or_default().to_owned();
    let first = run(roles, weather, &choices).map(|(_, what)| sort(&what));
    let fails = |choices: &[u32]| run(roles, weather, choices).map(|(_, what)| sort(&what)) == first;
    let mut best = choices;
    let mut size = best.len().div_ceil(2);
    let end = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while size > 0 && std::time::Instant::now() < end {
        let mut at = 0;
        let mut shorter = false;
        while at < best.len() {
            let mut fewer = best.clone();
            fewer.drain(at..(at + size).min(best.len()));
            if fails(&fewer) {
                best = fewer;
                shorter = true;
            } else {
                at += size;
            }
        }
        size = if size == 1 && shorter { 1 } else { size / 2 };
    }
    best
}

/// Walks from `runs` seeds. `SIMULATION_RUNS` multiplies their number, `SIMULATION_SEED` picks a single one.
pub fn explore(name: &str, roles: &[ControllerSet], weather: Weather, runs: u64, steps: usize) {
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    let seeds = match number("SIMULATION_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..runs * number("SIMULATION_RUNS").unwrap_or(1),
    };
    for seed in seeds {
        let mut random = Random(seed ^ (name.len() as u64) << 32);
        let length = steps / 4 + (random.next() as usize) % steps;
        let choices: Vec<_> = (0..length).map(|_| (random.next() >> 32) as u32).collect();
        if let Some(first) = run(roles, weather, &choices) {
            let choices = shrink(roles, weather, choices);
            let (trace, what) = run(roles, weather, &choices).unwrap_or(first);
            panic!("{name}: seed {seed}: {what}\nchoices {choices:?}\n{}\n{what}", tail(&trace));
        }
    }
}

pub fn tail(trace: &[String]) -> String {
    trace[trace.len().saturating_sub(120)..].join("\n")
}
