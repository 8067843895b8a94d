//! One file per subcommand.

pub mod demo;
pub mod image;
pub mod kubectl;
pub mod labeled;
pub mod load;
pub mod servers;
pub mod test;
pub mod up;

use std::io;

use tokio::signal::unix::{SignalKind, signal};

/// Resolves when this process should end: on Ctrl-C, SIGTERM, or a closed terminal.
fn stopped() -> io::Result<impl Future<Output = ()>> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {},
            _ = terminate.recv() => {},
            _ = hangup.recv() => {},
        }
    })
}
