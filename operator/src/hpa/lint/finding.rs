//! A finding.

use super::edit::Edit;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// The autoscaler does not work.
    Error,
    /// The autoscaler may not work.
    Warning,
    /// Good to know.
    Info,
}

/// Something about an autoscaler.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// How bad it is.
    pub level: Level,
    /// A stable name.
    pub code: &'static str,
    /// What is wrong and why.
    pub message: String,
    /// The correction, if the manifest determines it.
    pub(super) edits: Vec<Edit>,
}

impl Finding {
    /// Returns a finding without a correction.
    pub fn new(level: Level, code: &'static str, message: impl Into<String>) -> Self {
        Self { level, code, message: message.into(), edits: Vec::new() }
    }

    /// Adds a correction.
    pub fn with(mut self, edits: Vec<Edit>) -> Self {
        self.edits = edits;
        self
    }
}
