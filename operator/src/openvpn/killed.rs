//! How many sessions the agent ended. The agent writes the numbers to a file, and the exporter shows them.

use serde::{Deserialize, Serialize};

/// The name of the file, in the directory that both containers share.
pub const KILLED_FILE: &str = "killed.json";

/// Why a session was ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The certificate was revoked.
    Revoked,
    /// The Pod ends.
    Drain,
    /// The same client has a newer session on another Pod.
    Duplicate,
}

/// The numbers of sessions that the agent ended since the Pod started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Killed {
    revoked: u64,
    drain: u64,
    duplicate: u64,
}

impl Killed {
    /// Counts sessions.
    pub fn add(&mut self, reason: Reason, sessions: u64) {
        match reason {
            Reason::Revoked => self.revoked += sessions,
            Reason::Drain => self.drain += sessions,
            Reason::Duplicate => self.duplicate += sessions,
        }
    }

    /// Returns the numbers by reason, as the label of the metric has it.
    pub fn by_reason(&self) -> [(&'static str, u64); 3] {
        [("revoked", self.revoked), ("drain", self.drain), ("duplicate", self.duplicate)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_is_written_and_read() {
        let mut killed = Killed::default();
        killed.add(Reason::Revoked, 2);
        killed.add(Reason::Drain, 1);
        killed.add(Reason::Drain, 1);
        let text = serde_json::to_string(&killed).expect("JSON");
        assert_eq!(text, r#"{"revoked":2,"drain":2,"duplicate":0}"#);
        assert_eq!(serde_json::from_str::<Killed>(&text).expect("valid"), killed);
        assert_eq!(killed.by_reason(), [("revoked", 2), ("drain", 2), ("duplicate", 0)]);
        assert_eq!(serde_json::from_str::<Killed>("{\"other\":1}").expect("valid"), Killed::default());
    }
}
