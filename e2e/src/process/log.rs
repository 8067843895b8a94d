//! The log files of processes.

use std::path::Path;

/// The last `lines` lines of a log file, or the reason why it cannot be read.
pub fn log_tail(log: &Path, lines: usize) -> String {
    match std::fs::read(log) {
        Ok(bytes) => {
            let text = String::from_utf8_lossy(&bytes);
            let all: Vec<_> = text.lines().collect();
            all[all.len().saturating_sub(lines)..].join("\n")
        }
        Err(error) => format!("(no log {}: {error})", log.display()),
    }
}
