//! Takes snapshots of slots and Masks from outside the loop of the engine.

use tokio::sync::{mpsc, oneshot};

use crate::metrics::Snapshot;

/// The maximum number of pending requests. Further ones wait.
const MAX_PENDING: usize = 16;

/// Requests snapshots.
#[derive(Clone)]
pub struct SnapshotClient(mpsc::Sender<SnapshotRequest>);

/// A request for a snapshot.
pub(super) struct SnapshotRequest {
    /// Whether a process that is not the leader may respond.
    pub standby: bool,
    /// Receives the response.
    pub response: oneshot::Sender<Option<Snapshot>>,
}

/// The requests for snapshots that the loop of the engine handles.
pub struct SnapshotRequests(mpsc::Receiver<SnapshotRequest>);

/// Creates a channel for snapshots.
pub fn snapshot_channel() -> (SnapshotClient, SnapshotRequests) {
    let (sender, receiver) = mpsc::channel(MAX_PENDING);
    (SnapshotClient(sender), SnapshotRequests(receiver))
}

impl SnapshotClient {
    /// Takes a snapshot. Returns `None` if the process does not run the consumers controller, is not the leader, or has
    /// not completed its first lists.
    pub async fn take(&self) -> Option<Snapshot> {
        self.request(false).await
    }

    /// The same, but also takes the snapshot of a process that is not the leader.
    pub async fn take_from_any(&self) -> Option<Snapshot> {
        self.request(true).await
    }

    async fn request(&self, standby: bool) -> Option<Snapshot> {
        let (response, receiver) = oneshot::channel();
        self.0.send(SnapshotRequest { standby, response }).await.ok()?;
        receiver.await.ok()?
    }
}

impl SnapshotRequests {
    /// Returns the next request, or `None` if there are no clients any more.
    pub(super) async fn next(&mut self) -> Option<SnapshotRequest> {
        self.0.recv().await
    }
}
