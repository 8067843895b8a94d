//! The process of OpenVPN: its output, its end, and the end of all other processes whose parent is gone.
//!
//! The agent is the first process of its container, so the kernel gives it all orphans. One task waits for all
//! processes; nothing else may wait for one while OpenVPN runs.

use std::{
    collections::VecDeque,
    ffi::OsStr,
    io::{self, BufRead, BufReader, Read, Write},
    path::Path,
    process::{Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use anyhow::Context;
use rustix::process::{Pid, Signal, WaitOptions, kill_process, wait};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{mpsc, watch},
    time::timeout,
};

/// The number of lines to remember.
const REMEMBERED: usize = 10;
/// The size up to which a line is kept together.
const MAX_LINE: u64 = 16 * 1024;

/// What OpenVPN says about each connection to its management socket, of which there are several a minute.
const NOISE: [&str; 4] = [
    "MANAGEMENT: Client connected from",
    "MANAGEMENT: Client disconnected",
    "MANAGEMENT: CMD ",
    // Logged after a waiting client has given up.
    "MANAGEMENT: TCP send error: Broken pipe",
];

/// The last lines of output.
#[derive(Clone, Debug, Default)]
pub struct LastLines(Arc<Mutex<VecDeque<String>>>);

impl LastLines {
    fn push(&self, line: String) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == REMEMBERED {
            lines.pop_front();
        }
        lines.push_back(line);
    }

    /// Returns them as a text.
    pub fn text(&self) -> String {
        let lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().map(String::as_str).collect()
    }
}

/// A running OpenVPN.
#[derive(Debug)]
pub struct OpenVpn {
    pid: Pid,
    exit: watch::Receiver<Option<u8>>,
    /// Nothing is sent. The channel closes when all output has been passed on.
    output: mpsc::Receiver<()>,
    last_lines: LastLines,
}

impl OpenVpn {
    /// Starts a command.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start(program: &Path, arguments: &[&OsStr]) -> anyhow::Result<Self> {
        // Before the process starts, because its end would be missed otherwise.
        let mut ended = signal(SignalKind::child()).context("cannot handle SIGCHLD")?;
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("cannot start {}", program.display()))?;
        let pid = Pid::from_child(&child);
        let last_lines = LastLines::default();
        let (until_end, output) = mpsc::channel(1);
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        stdout.into_iter().for_each(|stdout| spawn_pass_on(stdout, last_lines.clone(), until_end.clone()));
        stderr.into_iter().for_each(|stderr| spawn_pass_on(stderr, last_lines.clone(), until_end.clone()));
        let (sender, exit) = watch::channel(None);
        tokio::spawn(async move {
            loop {
                while let Ok(Some((ended, status))) = wait(WaitOptions::NOHANG) {
                    if ended == pid {
                        let by_signal = status.terminating_signal().map(|signal| 128 + signal);
                        let code = status.exit_status().or(by_signal).and_then(|code| u8::try_from(code).ok());
                        sender.send_replace(Some(code.unwrap_or(1)));
                    }
                }
                // Signals are merged: one may stand for several processes, but none gets lost.
                if ended.recv().await.is_none() {
                    return;
                }
            }
        });
        Ok(Self { pid, exit, output, last_lines })
    }

    /// Waits for the end, and returns the code: that of the process, or 128 and the number of the signal.
    pub async fn exited(&mut self) -> u8 {
        // The sender exists as long as the process of the agent.
        let code = self.exit.wait_for(Option::is_some).await.map_or(None, |code| *code).unwrap_or(1);
        // A process that OpenVPN left behind may keep the output open.
        let _ = timeout(Duration::from_secs(1), self.output.recv()).await;
        code
    }

    /// Sends a signal. Without the capability KILL that fails as soon as OpenVPN runs as another user.
    ///
    /// # Errors
    /// If the agent may not, or if the process has ended.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        match *self.exit.borrow() {
            // The number may belong to another process by now.
            Some(_) => Err(io::ErrorKind::NotFound.into()),
            None => Ok(kill_process(self.pid, signal)?),
        }
    }

    /// Returns the last lines of output.
    pub fn last_lines(&self) -> String {
        self.last_lines.text()
    }
}

/// Passes output on in a thread of its own: to write may block. The thread ends with the process.
fn spawn_pass_on(output: impl Read + Send + 'static, last_lines: LastLines, until_end: mpsc::Sender<()>) {
    thread::spawn(move || {
        pass_on(output, &mut io::stdout(), &last_lines);
        drop(until_end);
    });
}

/// Passes the output of OpenVPN on, line by line.
fn pass_on(output: impl Read, to: &mut impl Write, last_lines: &LastLines) {
    let mut output = BufReader::new(output);
    let mut line = Vec::new();
    loop {
        line.clear();
        match (&mut output).take(MAX_LINE).read_until(b'\n', &mut line) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(%error, "cannot read the output of OpenVPN");
                return;
            }
        }
        if !line.ends_with(b"\n") {
            line.push(b'\n');
        }
        let text = String::from_utf8_lossy(&line);
        if NOISE.iter().any(|noise| text.contains(noise)) {
            continue;
        }
        // If nobody reads it any more, OpenVPN must not stop.
        let _ = to.write_all(&line).and_then(|()| to.flush());
        last_lines.push(text.into_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_is_left_out_and_the_last_lines_are_remembered() {
        let at = "2026-11-27 07:54:27 ";
        let mut output: String = (0..20).map(|number| format!("{at}line {number}\n")).collect();
        for noise in ["Client connected from /run/m", "CMD 'status 3'", "Client disconnected"] {
            output += &format!("{at}MANAGEMENT: {noise}\n");
        }
        output += "MANAGEMENT: unix domain socket listening on /run/m\nno end";
        let (mut passed, last_lines) = (Vec::new(), LastLines::default());
        pass_on(output.as_bytes(), &mut passed, &last_lines);
        let passed = String::from_utf8_lossy(&passed).into_owned();
        assert_eq!(passed.lines().count(), 22);
        assert!(passed.ends_with("line 19\nMANAGEMENT: unix domain socket listening on /run/m\nno end\n"), "{passed}");
        let last = last_lines.text();
        assert_eq!(last.lines().count(), REMEMBERED);
        assert!(last.contains("line 12\n") && !last.contains("line 11\n") && last.ends_with("no end\n"), "{last}");
    }

    #[test]
    fn a_line_without_an_end_is_passed_on_in_pieces() {
        let (mut passed, last_lines) = (Vec::new(), LastLines::default());
        pass_on(io::repeat(b'x').take(3 * MAX_LINE), &mut passed, &last_lines);
        assert_eq!(passed.iter().filter(|byte| **byte == b'\n').count(), 3);
    }
}
