//! Takes snapshots of slots and Masks from outside the loop of the engine.

use tokio::sync::{mpsc, oneshot};

use crate::metrics::Snapshot;

/// The maximum number of pending requests. Further ones wait.
const MAX_PENDING: usize = 16;

/// Requests snapshots.
#[derive(Clone)]
pub struct SnapshotClient(mpsc::Sender<SnapshotRequest>);

/// Receives the response to a request.
pub(super) type SnapshotRequest = oneshot::Sender<Option<Snapshot>>;

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
        let (sender, receiver) = oneshot::channel();
        self.0.send(sender).await.ok()?;
        receiver.await.ok()?
    }
}

impl SnapshotRequests {
    /// Returns the next request, or `None` if there are no clients any more.
    pub(super) async fn next(&mut self) -> Option<SnapshotRequest> {
        self.0.recv().await
    }
}
