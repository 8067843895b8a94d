//! The output of the demo. On a terminal, it is a table that is redrawn in place. Otherwise, it is a line for each change,
//! and the table at the end of each step.

use std::{
    collections::BTreeMap,
    io::{IsTerminal, Write, stdout},
    time::Instant,
};

use kube::ResourceExt;
use vpn_types::MaskProviderPhase;

use super::view::{ClusterView, is_usable, runs};

/// One line of the table: a Mask, or its MaskConsumer after the Mask was deleted.
#[derive(Clone, PartialEq)]
struct Row {
    name: String,
    phase: String,
    slot: String,
    pod: &'static str,
    message: String,
}

impl Row {
    fn line(&self) -> String {
        let Self { name, phase, slot, pod, message } = self;
        format!("{name:<9} {phase:<12} {slot:<9} {pod:<9} {message}").trim_end().to_owned()
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
                out.push_str(&format!("{time}{name:<9} gone\n"));
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
            lines.push("    MASK      PHASE        SLOT      POD\n".to_owned());
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
    let names = view.masks().map(ResourceExt::name_any).chain(view.consumers().map(ResourceExt::name_any));
    names.map(|name| (name.clone(), row(view, name))).collect()
}

/// Returns a row with the state of the MaskConsumer. The Mask follows shortly after.
fn row(view: &ClusterView, name: String) -> Row {
    let consumer = view.consumer(&name);
    let status = consumer.and_then(|consumer| consumer.status.as_ref());
    let deleting = consumer.is_some_and(|consumer| consumer.metadata.deletion_timestamp.is_some());
    let phase = match status.and_then(|status| status.phase) {
        _ if deleting => "Terminating",
        Some(phase) => phase.as_str(),
        None => "Pending",
    };
    let slot = status.and_then(|status| status.provider.as_ref());
    let slot = slot.map(|slot| format!("{}-{}", slot.name, slot.slot)).unwrap_or_default();
    let pod = match view.pod(&name) {
        None => "",
        Some(pod) if !runs(pod) && pod.metadata.deletion_timestamp.is_some() => "stopped",
        Some(pod) if pod.metadata.deletion_timestamp.is_some() => "stopping",
        Some(pod) => match pod.status.as_ref().and_then(|status| status.phase.as_deref()) {
            Some("Running") => "running",
            _ => "starting",
        },
    };
    // Until the status has the phase Terminating, its message is about the assigned slot.
    let told = status.filter(|status| status.phase.is_some_and(|told| told.as_str() == phase && phase != "Active"));
    let message = told.and_then(|status| status.message.clone()).unwrap_or_default();
    Row { name, phase: phase.to_owned(), slot, pod, message }
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
