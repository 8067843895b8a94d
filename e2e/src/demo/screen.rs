//! The output of the demo. On a terminal, it is a table that is redrawn in place. Otherwise, it is a line for each change,
//! and the table at the end of each step.

use std::{
    collections::BTreeMap,
    io::{IsTerminal, Write, stdout},
    time::Instant,
};

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use vpn_types::{MaskConsumerPhase, MaskProviderPhase};

use super::view::{ClusterView, is_usable, phase, runs, told, waits};

/// One line of the table: a Pod.
#[derive(Clone, PartialEq)]
struct Row {
    name: String,
    state: &'static str,
    slot: String,
    message: String,
}

impl Row {
    fn line(&self) -> String {
        let Self { name, state, slot, message } = self;
        format!("{name:<24} {state:<9} {slot:<9} {message}").trim_end().to_owned()
    }
}

pub struct Screen {
    terminal: bool,
    began: Instant,
    step: usize,
    /// The number of table lines that are on the terminal.
    drawn: usize,
    rows: BTreeMap<String, Row>,
    accounts: String,
}

impl Screen {
    pub fn new() -> Self {
        Self {
            terminal: stdout().is_terminal(),
            began: Instant::now(),
            step: 0,
            drawn: 0,
            rows: BTreeMap::new(),
            accounts: String::new(),
        }
    }

    /// Announces the next step.
    pub fn step(&mut self, text: &str) {
        self.step += 1;
        let (bold, plain) = if self.terminal { ("\x1b[1m", "\x1b[0m") } else { ("", "") };
        self.print(&format!("\n{bold}{}. {text}{plain}", self.step));
    }

    /// Prints lines above the table.
    pub fn print(&mut self, text: &str) {
        let mut out = self.erased();
        out.push_str(text);
        out.push('\n');
        self.draw(out);
    }

    /// Shows changes.
    pub fn show(&mut self, view: &ClusterView) {
        let (rows, accounts) = (rows(view), accounts(view));
        if rows == self.rows && accounts == self.accounts {
            return;
        }
        let mut out = self.erased();
        if !self.terminal {
            let time = format!("{:6.1} s  ", self.began.elapsed().as_secs_f64());
            for row in rows.values().filter(|row| self.rows.get(&row.name) != Some(row)) {
                out.push_str(&format!("{time}{}\n", row.line()));
            }
            for name in self.rows.keys().filter(|name| !rows.contains_key(*name)) {
                out.push_str(&format!("{time}{name:<24} gone\n"));
            }
        }
        (self.rows, self.accounts) = (rows, accounts);
        self.draw(out);
    }

    /// Prints the table, unless the terminal already shows it.
    pub fn table(&mut self) {
        if !self.terminal {
            emit(&self.lines().concat());
        }
    }

    fn lines(&self) -> Vec<String> {
        if self.accounts.is_empty() && self.rows.is_empty() {
            return Vec::new();
        }
        let mut lines = vec!["\n".to_owned()];
        if !self.rows.is_empty() {
            lines.push("    POD                      STATE     SLOT\n".to_owned());
            lines.extend(self.rows.values().map(|row| format!("    {}\n", row.line())));
        }
        lines.push(format!("    accounts: {}\n", self.accounts));
        lines
    }

    /// Returns the escape sequence that removes the table from the terminal.
    fn erased(&mut self) -> String {
        match std::mem::take(&mut self.drawn) {
            0 => String::new(),
            lines => format!("\x1b[{lines}A\x1b[J"),
        }
    }

    fn draw(&mut self, mut out: String) {
        if self.terminal {
            let lines = self.lines();
            self.drawn = lines.len();
            // Disables line wrapping, because wrapped lines cannot be erased.
            out = format!("{out}\x1b[?7l{}\x1b[?7h", lines.concat());
        }
        emit(&out);
    }
}

/// Prints text. If the output is closed, the tour goes on with its checks.
fn emit(text: &str) {
    let mut out = stdout();
    drop(out.write_all(text.as_bytes()).and_then(|()| out.flush()));
}

fn rows(view: &ClusterView) -> BTreeMap<String, Row> {
    view.pods().map(|pod| (pod.name_any(), row(view, pod))).collect()
}

fn row(view: &ClusterView, pod: &Pod) -> Row {
    let consumer = view.consumer_of(pod);
    let status = consumer.and_then(|consumer| consumer.status.as_ref());
    let state = match phase(pod) {
        Some("Succeeded" | "Failed") => "done",
        _ if pod.metadata.deletion_timestamp.is_some() && runs(pod) => "stopping",
        _ if pod.metadata.deletion_timestamp.is_some() => "stopped",
        _ if waits(pod) => "waiting",
        Some("Running") => "running",
        _ => "starting",
    };
    let slot = status.and_then(|status| status.provider.as_ref());
    let slot = slot.map(|slot| format!("{}-{}", slot.name, slot.slot)).unwrap_or_default();
    let is_releasing = status.is_some_and(|status| status.phase == Some(MaskConsumerPhase::Terminating));
    let message = match state {
        "waiting" if slot.is_empty() => told(pod).map(str::to_owned),
        "stopping" | "stopped" if is_releasing => status.and_then(|status| status.message.clone()),
        _ => None,
    };
    Row { name: pod.name_any(), state, slot, message: message.unwrap_or_default() }
}

fn accounts(view: &ClusterView) -> String {
    let taken = |provider: &str| {
        let of = |name: &str| vpn_types::parse_reservation_name(name).is_some_and(|(of, _)| of == provider);
        view.reservations().filter(|reservation| of(&reservation.name_any())).count()
    };
    let account = |provider: &vpn_types::MaskProvider| {
        let name = provider.name_any();
        match provider.status.as_ref().and_then(|status| status.phase) {
            Some(phase) if !is_usable(provider) && phase != MaskProviderPhase::Active => format!("{name} {phase}"),
            _ => format!("{name} {} of {} taken", taken(&name), provider.spec.max_slots),
        }
    };
    view.providers().map(account).collect::<Vec<_>>().join(", ")
}
