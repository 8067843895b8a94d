//! The end of the server: first its sessions, then OpenVPN.

use std::{future::Future, time::Duration};

use rustix::process::Signal;
use tokio::time::{Instant, sleep, timeout};

use super::{
    child::OpenVpn,
    counts::Counts,
    management::{Management, ManagementError},
};
use crate::openvpn::{
    drain::{Drain, LINGER},
    killed::Reason,
    management::{Answer, Command},
};

/// How often to look.
const PERIOD: Duration = Duration::from_secs(1);
/// The number of sessions that are ended over one connection.
const BATCH: usize = 100;
/// How long OpenVPN may take to end.
const STOP: Duration = Duration::from_secs(5);

/// Waits until there are no sessions, ends the remaining ones in the last third of the time, and returns when the time
/// is over, or when `hurry` resolves.
pub async fn drain(management: &Management, counts: &Counts, time: Duration, hurry: impl Future<Output = ()>) {
    tokio::select! {
        () = end_sessions(management, counts, time) => {}
        () = hurry => tracing::info!("a second signal: the sessions that are left end now"),
    }
}

async fn end_sessions(management: &Management, counts: &Counts, time: Duration) {
    let started = Instant::now();
    let mut drain = Drain::new(time);
    tracing::info!("draining for up to {} seconds", time.as_secs());
    while started.elapsed() < time {
        match management.status().await {
            // Until all nodes know that this Pod ends, new clients may still come.
            Ok(status) if status.connected() == 0 && started.elapsed() >= LINGER => {
                tracing::info!("no sessions are left");
                return;
            }
            Ok(status) => {
                let due = drain.due(&status.clients, started.elapsed());
                if let Err(error) = tell(management, counts, &due).await {
                    tracing::warn!("cannot end {} sessions: {error}", due.len());
                }
            }
            Err(error) => tracing::warn!("cannot read the sessions: {error}"),
        }
        sleep(PERIOD.min(time.saturating_sub(started.elapsed()))).await;
    }
    tracing::info!("the time to drain is over: {} sessions were told to connect anew", drain.told());
}

/// Tells the clients of sessions to connect anew.
async fn tell(management: &Management, counts: &Counts, ids: &[u64]) -> Result<(), ManagementError> {
    for ids in ids.chunks(BATCH) {
        let commands: Vec<_> = ids.iter().copied().map(Command::ClientKill).collect();
        let answers = management.run(&commands).await?;
        counts.add(Reason::Drain, answers.iter().filter(|answer| matches!(answer, Answer::Success(_))).count());
    }
    Ok(())
}

/// Ends OpenVPN. It runs as another user, so the agent asks it to end itself.
pub async fn stop(openvpn: &mut OpenVpn, management: &Management) {
    if let Err(error) = management.run(&[Command::Terminate]).await {
        tracing::warn!("cannot ask OpenVPN to end: {error}");
        let _ = openvpn.signal(Signal::TERM);
    }
    if timeout(STOP, openvpn.exited()).await.is_err() {
        tracing::warn!("OpenVPN does not end");
        // If the agent may not, the kernel ends it together with the container.
        let _ = openvpn.signal(Signal::KILL);
    }
}
