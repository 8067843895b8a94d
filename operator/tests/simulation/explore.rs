//! Random walks. A walk is a list of numbers that choose the next step, so it can be replayed, and shrunk after a
//! failure.

use std::panic::{AssertUnwindSafe, catch_unwind};

use vpn_operator::controllers::ControllerSet;

use crate::{oracle, pods, run::Sim, user};

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

/// The faults of a walk.
#[derive(Clone, Copy)]
pub struct Faults {
    pub crashes: bool,
    pub losses: bool,
    pub relists: bool,
    pub refusals: bool,
    /// There are more Masks than slots, users create and delete only Masks and Pods, and containers crash often.
    pub contention: bool,
}

impl Faults {
    pub const NONE: Self = Self { crashes: false, losses: false, relists: false, refusals: false, contention: false };
    pub const ALL: Self = Self { crashes: true, losses: true, relists: true, refusals: true, contention: false };
    pub const CONTENTION: Self = Self { contention: true, ..Self::NONE };
}

fn disturb(sim: &mut Sim, faults: Faults, what: u64, which: usize) {
    match what {
        0 if faults.crashes => sim.crash(which % sim.processes.len()),
        1..=3 if faults.losses && !sim.in_flight.is_empty() => sim.lose(which % sim.in_flight.len()),
        4 if faults.refusals && !sim.in_flight.is_empty() => sim.refuse(which % sim.in_flight.len()),
        // It lags far behind for a while.
        7 => sim.gc_stalled = !sim.gc_stalled,
        5 | 6 if faults.relists => {
            let p = which % sim.processes.len();
            let filters: Vec<_> = sim.processes[p].watches.keys().cloned().collect();
            let filter = &filters[(which / 7) % filters.len()];
            sim.note(format!("watch {filter:?} of {p} breaks"));
            sim.processes[p].watches.get_mut(filter).unwrap().restart();
        }
        _ => sim.advance([1, 400, 1_000, 4_000, 16_000, 100_000][which % 6]),
    }
}

fn walk(sim: &mut Sim, faults: Faults, choices: &[u32]) -> Result<(), String> {
    sim.account("p", 2);
    sim.settle()?;
    if faults.contention {
        sim.create_masks();
        sim.settle()?;
    }
    for choice in choices {
        let (what, which) = (choice % 128, (choice >> 7) as usize);
        sim.advance_quietly();
        match what {
            0..=11 if faults.contention => sim.random_user_action(which / 14 * user::ACTIONS + which % 14),
            0..=11 => sim.random_user_action(which),
            12..=20 => disturb(sim, faults, u64::from(what) - 12, which),
            21..=22 => sim.crash_container(which),
            23..=30 if faults.contention => sim.crash_container(which),
            _ => {
                // Any step that is possible now.
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
    pods::at_rest(sim)?;
    sim.clean_up();
    sim.settle()?;
    oracle::at_rest(sim)?;
    sim.stays_quiet()
}

/// Runs a walk. Returns the trace and the error if it failed.
pub fn run(roles: &[ControllerSet], faults: Faults, choices: &[u32]) -> Option<(Vec<String>, String)> {
    let mut sim = Sim::new(roles);
    let result = catch_unwind(AssertUnwindSafe(|| walk(&mut sim, faults, choices)));
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

/// Removes choices that are not needed for a failure of the same kind.
fn shrink(roles: &[ControllerSet], faults: Faults, choices: Vec<u32>) -> Vec<u32> {
    let sort = |what: &str| what.split(':').next().unwrap_or_default().to_owned();
    let first = run(roles, faults, &choices).map(|(_, what)| sort(&what));
    let fails = |choices: &[u32]| run(roles, faults, choices).map(|(_, what)| sort(&what)) == first;
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

/// Runs walks from `runs` seeds. `SIMULATION_RUNS` multiplies their number, and `SIMULATION_SEED` selects one.
pub fn explore(name: &str, roles: &[ControllerSet], faults: Faults, runs: u64, steps: usize) {
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    let seeds = match number("SIMULATION_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..runs * number("SIMULATION_RUNS").unwrap_or(1),
    };
    for seed in seeds {
        let mut random = Random(seed ^ (name.len() as u64) << 32);
        let length = steps / 4 + (random.next() as usize) % steps;
        let choices: Vec<_> = (0..length).map(|_| (random.next() >> 32) as u32).collect();
        if let Some(first) = run(roles, faults, &choices) {
            let choices = shrink(roles, faults, choices);
            let (trace, what) = run(roles, faults, &choices).unwrap_or(first);
            panic!("{name}: seed {seed}: {what}\nchoices {choices:?}\n{}\n{what}", tail(&trace));
        }
    }
}

pub fn tail(trace: &[String]) -> String {
    trace[trace.len().saturating_sub(120)..].join("\n")
}
