//! A simulated cluster with its operators. Everything that can happen next is a [`Move`], in any order.

use std::{collections::BTreeMap, time::Duration};

use chrono::{DateTime, TimeDelta, Utc};
use vpn_operator::{
    controllers::{ControllerSet, table},
    engine::Input,
    metrics::action,
    model::{Effect, Kind, LogEvent, Now, ObjectKey, Operation, Request},
    state::Outcome,
};

use crate::{
    deployments, evictions, garbage,
    node::{Act, Nodes},
    oracle,
    process::{InFlight, Process, describe, outcome_name, start_process, start_watch},
    server::{Server, refused},
    watch::Filter,
};

/// In milliseconds.
const A_DAY: u64 = 24 * 3_600_000;

/// The deadline of a request in milliseconds, as in the operator.
pub const DEADLINE: u64 = 5_000;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Move {
    /// The API server handles a request.
    Apply(usize),
    /// The response arrives.
    Answer(usize),
    /// A watch delivers an event.
    Watch(usize, Filter),
    /// A deadline of a process has come.
    Tick(usize),
    Garbage(Kind, ObjectKey),
    Node(ObjectKey, Act),
    /// The controllers of a Deployment and its ReplicaSets.
    Deployment(ObjectKey, deployments::Act),
}

pub struct Sim {
    pub server: Server,
    pub nodes: Nodes,
    pub processes: Vec<Process>,
    pub in_flight: Vec<InFlight>,
    pub trace: Vec<String>,
    /// The number of requests that the API server has handled, by verb and kind.
    pub counts: BTreeMap<(&'static str, Option<Kind>), usize>,
    /// The UIDs of reservations that a user removed by force.
    pub forced: Vec<String>,
    pub evictions: Vec<evictions::Eviction>,
    /// Whether a Pod may be evicted when the one before it is gone, though nobody has its slot yet.
    pub late_handovers: bool,
    pub clock: u64,
    /// Whether the garbage collector does nothing.
    pub gc_stalled: bool,
    /// Which moves have precedence.
    pub bias: Bias,
    /// A crash after this number of requests.
    pub crash_at: Option<(usize, Crash)>,
    turn: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bias {
    Even,
    /// Other moves have precedence over watches.
    WatchesLast,
    WatchesFirst,
}

/// The fate of the request during which a process crashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// It is never sent.
    Before,
    /// The API server handles it, and the response is lost.
    After,
    /// It is still in flight.
    Late,
}

/// Checks that the controller declares the action, so that its series exist from the start.
fn check_action(request: &Request) {
    let (controller, name) = (table::controller_of(&request.reconcile), action(&request.operation));
    let all = if request.operation.is_read() { controller.reads } else { controller.writes };
    assert!(all.contains(&name), "{name} of {}", controller.name);
}

fn start() -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000, 0).unwrap()
}

impl Sim {
    pub fn new(roles: &[ControllerSet]) -> Self {
        Self {
            server: Server { now: start(), ..Server::default() },
            nodes: Nodes::default(),
            processes: roles.iter().map(|roles| start_process(roles, 0, 0)).collect(),
            in_flight: Vec::new(),
            trace: Vec::new(),
            counts: BTreeMap::new(),
            forced: Vec::new(),
            evictions: Vec::new(),
            late_handovers: false,
            clock: 0,
            gc_stalled: false,
            bias: Bias::Even,
            crash_at: None,
            turn: 0,
        }
    }

    pub fn note(&mut self, text: impl Into<String>) {
        self.trace.push(format!("{:>8.3} {}", self.clock as f64 / 1000.0, text.into()));
    }

    /// Returns everything that can happen without a fault.
    pub fn moves(&self) -> Vec<Move> {
        let mut moves = Vec::new();
        for (i, request) in self.in_flight.iter().enumerate() {
            moves.push(if request.outcome.is_some() { Move::Answer(i) } else { Move::Apply(i) });
        }
        for (p, process) in self.processes.iter().enumerate() {
            let behind = process.watches.values().filter(|watch| watch.is_behind(&self.server));
            moves.extend(behind.map(|watch| Move::Watch(p, watch.filter.clone())));
            if self.due(p).is_some_and(|at| at <= self.clock) {
                moves.push(Move::Tick(p));
            }
        }
        if !self.gc_stalled {
            moves.extend(garbage::tasks(&self.server).into_iter().map(|(kind, key)| Move::Garbage(kind, key)));
        }
        for (key, pod) in self.server.of_kind(Kind::Pod) {
            let acts = self.nodes.acts(&self.server, pod).into_iter();
            moves.extend(acts.map(|act| Move::Node(key.clone(), act)));
        }
        for deployment in &self.server.deployments {
            let acts = deployment.acts(&self.server).into_iter();
            moves.extend(acts.map(|act| Move::Deployment(deployment.key.clone(), act)));
        }
        moves
    }

    fn due(&self, p: usize) -> Option<u64> {
        let process = &self.processes[p];
        let at = process.engine.next_deadline()?;
        Some(process.started + u64::try_from(at.as_micros().div_ceil(1000)).unwrap())
    }

    pub fn make(&mut self, chosen: Move) -> Result<(), String> {
        match chosen {
            Move::Apply(i) => match self.crash_at {
                Some((0, crash)) => self.crash_during(i, crash)?,
                _ => {
                    self.crash_at = self.crash_at.map(|(left, crash)| (left - 1, crash));
                    self.apply(i)?;
                }
            },
            Move::Answer(i) => self.answer(i),
            Move::Watch(p, filter) => {
                let inputs = self.processes[p].watches.get_mut(&filter).unwrap().advance(&self.server);
                self.note(format!("watch {filter:?} of {p} delivers {} inputs", inputs.len()));
                self.feed(p, inputs);
            }
            Move::Tick(p) => {
                self.note(format!("tick {p}"));
                self.feed(p, vec![Input::Tick]);
            }
            Move::Garbage(kind, key) => {
                let id = (kind, key);
                self.note(format!("gc {} {}: {:?}", kind.as_str(), id.1, garbage::task(&self.server, &id)));
                garbage::step(&mut self.server, &id);
            }
            Move::Node(key, act) => {
                self.note(format!("node {key}: {act:?}"));
                self.nodes.act(&mut self.server, &key, act);
            }
            Move::Deployment(key, act) => {
                self.note(format!("Deployment {key}: {act:?}"));
                self.act_on_deployment(&key, act);
            }
        }
        oracle::always(self)
    }

    pub fn apply(&mut self, i: usize) -> Result<(), String> {
        let operation = self.in_flight[i].operation.clone();
        let before = operation.target().and_then(|(kind, key)| self.server.get(kind, key).cloned());
        let allowed = oracle::allowed(self, &operation, before.as_deref());
        let outcome = self.server.handle(&operation);
        self.note(format!("apply {} -> {}", describe(&operation), outcome_name(&outcome)));
        *self.counts.entry((operation.verb(), operation.target().map(|(kind, _)| kind))).or_default() += 1;
        if let (Operation::Evict(key, _), Outcome::Evicted, Some(before)) = (&operation, &outcome, &before) {
            evictions::accepted(self, key, before)?;
        }
        let changed = matches!(outcome, Outcome::Object(_) | Outcome::Gone);
        self.in_flight[i].outcome = Some(outcome);
        if changed {
            allowed?;
            oracle::preserves_foreign_fields(&self.server, &operation, before.as_deref())?;
        }
        oracle::always(self)
    }

    fn crash_during(&mut self, i: usize, crash: Crash) -> Result<(), String> {
        self.crash_at = None;
        let p = self.in_flight[i].process;
        match crash {
            Crash::Before => drop(self.in_flight.remove(i)),
            Crash::After => self.apply(i)?,
            Crash::Late => self.note(format!("late: {}", describe(&self.in_flight[i].operation))),
        }
        self.crash(p);
        Ok(())
    }

    pub fn answer(&mut self, i: usize) {
        let request = self.in_flight.remove(i);
        let outcome = request.outcome.unwrap();
        if self.processes[request.process].incarnation == request.incarnation {
            self.note(format!("answer {}", describe(&request.operation)));
            self.feed(request.process, vec![Input::Answer(request.id, outcome)]);
        }
    }

    /// Loses the response of a request. The API server may still handle the request.
    pub fn lose(&mut self, i: usize) {
        self.note(format!("no response to {}", describe(&self.in_flight[i].operation)));
        let (process, id, incarnation) =
            (self.in_flight[i].process, self.in_flight[i].id, self.in_flight[i].incarnation);
        self.in_flight[i].incarnation = u64::MAX;
        if self.in_flight[i].outcome.is_some() {
            self.in_flight.remove(i);
        }
        if self.processes[process].incarnation == incarnation {
            let outcome = Outcome::Unknown { message: "timeout".to_owned() };
            self.feed(process, vec![Input::Answer(id, outcome)]);
        }
    }

    pub fn refuse(&mut self, i: usize) {
        if self.in_flight[i].outcome.is_none() {
            self.note(format!("reject {}", describe(&self.in_flight[i].operation)));
            self.in_flight[i].outcome = Some(refused());
        }
    }

    /// Restarts a process. Its requests may still arrive.
    pub fn crash(&mut self, p: usize) {
        self.note(format!("crash {p}"));
        let process = &mut self.processes[p];
        *process = start_process(process.engine.controllers(), process.incarnation + 1, self.clock);
    }

    pub fn feed(&mut self, p: usize, inputs: Vec<Input>) {
        let process = &mut self.processes[p];
        let monotonic = Duration::from_millis(self.clock - process.started);
        let now = Now { wall: self.server.now, monotonic };
        let (mut sent, mut logs) = (Vec::new(), Vec::new());
        for effect in process.engine.handle(inputs, now) {
            match effect {
                Effect::Send(request) => {
                    check_action(&request);
                    sent.push(InFlight {
                        process: p,
                        incarnation: process.incarnation,
                        id: request.id,
                        operation: request.operation,
                        sent: self.clock,
                        outcome: None,
                    });
                }
                Effect::RecordEvent(_) => {}
                Effect::WatchSecret(key) => start_watch(process, Filter::Named(key)),
                Effect::UnwatchSecret(key) => drop(process.watches.remove(&Filter::Named(key))),
                Effect::WatchPods(namespace) => start_watch(process, Filter::Pods(namespace)),
                Effect::UnwatchPods(namespace) => drop(process.watches.remove(&Filter::Pods(namespace))),
                Effect::FollowLog { key, uid, .. } => logs.push((key, uid)),
                Effect::UnfollowLog(_) => {}
            }
        }
        sent.sort_by_key(|request| describe(&request.operation));
        for request in sent {
            self.note(format!("{p} sends {}", describe(&request.operation)));
            self.in_flight.push(request);
        }
        for (key, uid) in logs {
            let lines = self.nodes.log(&self.server, &key).into_iter();
            self.feed(p, lines.map(|line| Input::Log(uid.clone(), LogEvent::Line(line.to_owned()))).collect());
        }
    }

    /// Advances the clock. Requests time out at their deadline.
    pub fn advance(&mut self, millis: u64) {
        let end = self.clock + millis;
        while let Some(i) = (0..self.in_flight.len()).find(|i| self.in_flight[*i].sent + DEADLINE <= end) {
            self.set_clock(self.clock.max(self.in_flight[i].sent + DEADLINE));
            let unanswered = self.in_flight[i].id;
            self.lose(i);
            // It does not arrive any more.
            self.in_flight.retain(|request| request.incarnation != u64::MAX || request.id != unanswered);
        }
        self.set_clock(end);
        self.note(format!("{millis} ms pass"));
    }

    fn set_clock(&mut self, clock: u64) {
        self.clock = clock;
        self.server.now = start() + TimeDelta::milliseconds(i64::try_from(clock).unwrap());
        self.nodes.expire(self.server.now);
    }

    /// Makes moves without faults until there are none, including timers.
    pub fn settle(&mut self) -> Result<(), String> {
        let horizon = self.clock + 40 * 60_000;
        for _ in 0..5_000 {
            let moves = self.moves();
            if !moves.is_empty() {
                self.turn = self.turn.wrapping_add(7919);
                self.advance_quietly();
                let preferred: Vec<_> = (moves.iter())
                    .filter(|chosen| match self.bias {
                        Bias::Even => true,
                        Bias::WatchesLast => !matches!(chosen, Move::Watch(..)),
                        Bias::WatchesFirst => matches!(chosen, Move::Watch(..)),
                    })
                    .collect();
                let chosen = match preferred.len() {
                    0 => &moves[self.turn % moves.len()],
                    all => preferred[self.turn % all],
                };
                self.make(chosen.clone())?;
                continue;
            }
            let due = (0..self.processes.len()).filter_map(|p| self.due(p)).min();
            match due {
                None => return Ok(()),
                Some(at) if at <= horizon => self.advance(at.saturating_sub(self.clock)),
                // The renewal of a certificate.
                Some(at) if at > self.clock + A_DAY => return Ok(()),
                Some(_) => return Err("timers never end".to_owned()),
            }
        }
        Err("does not come to rest".to_owned())
    }

    /// Advances the clock by a millisecond, unless a request would time out.
    pub fn advance_quietly(&mut self) {
        if self.in_flight.iter().all(|request| request.sent + DEADLINE > self.clock + 1) {
            self.set_clock(self.clock + 1);
        }
    }

    /// Checks that no process sends a request any more.
    pub fn stays_quiet(&mut self) -> Result<(), String> {
        for _ in 0..10 {
            self.advance(60_000);
            for p in 0..self.processes.len() {
                self.feed(p, vec![Input::Tick]);
            }
            if let Some(request) = self.in_flight.first() {
                return Err(format!("I7: not quiet: {}", describe(&request.operation)));
            }
        }
        Ok(())
    }

    pub fn total(&self, verb: &'static str, kind: Kind) -> usize {
        self.counts.get(&(verb, Some(kind))).copied().unwrap_or(0)
    }
}
