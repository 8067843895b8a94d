//! Asks the engine what is known of slots and Masks, from outside its loop.

use tokio::sync::{mpsc, oneshot};

use crate::metrics::Snapshot;

/// How many may be asking at once; others wait.
const ASKING: usize = 16;

/// Where to ask.
#[derive(Clone)]
pub struct Snapshots(mpsc::Sender<Question>);

/// Waits for a snapshot.
pub(super) type Question = oneshot::Sender<Option<Snapshot>>;

/// What the loop of the engine hears.
pub struct Questions(mpsc::Receiver<Question>);

/// Both ends.
pub fn snapshots() -> (Snapshots, Questions) {
    let (ask, asked) = mpsc::channel(ASKING);
    (Snapshots(ask), Questions(asked))
}

impl Snapshots {
    /// A snapshot of this moment. `None` from a process that does not run the consumers controller, does not lead, or
    /// has not listed everything yet: what it knows is not to be shown.
    pub async fn take(&self) -> Option<Snapshot> {
        let (answer, answered) = oneshot::channel();
        self.0.send(answer).await.ok()?;
        answered.await.ok()?
    }
}

impl Questions {
    /// The next question; none when nobody can ask any more.
    pub(super) async fn next(&mut self) -> Option<Question> {
        self.0.recv().await
    }
}
