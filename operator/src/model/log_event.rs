//! Events of a followed container log.

/// An event of a followed container log.
#[derive(Clone, Debug)]
pub enum LogEvent {
    /// A line.
    Line(String),
    /// The container has terminated, so the log is complete.
    Ended,
    /// The log cannot be read, or not any further, for this reason.
    Unreadable(String),
}
