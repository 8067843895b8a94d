//! What the log of a container says.

/// What the log of a container says.
#[derive(Clone, Debug)]
pub enum LogEvent {
    /// A line.
    Line(String),
    /// The container has ended, and with it its log.
    Ended,
    /// It cannot be read, or no further; why.
    Unreadable(String),
}
