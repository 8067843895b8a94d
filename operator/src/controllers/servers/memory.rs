//! What the servers controller keeps in addition to the stores. All of it can be lost.

use std::{collections::HashMap, sync::Arc, time::Duration};

use crate::{
    model::{Kind, ObjectKey, Uid},
    pki::Serial,
};

/// State of the servers controller.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    /// Serial numbers that this process has recorded and not yet issued, by UID of the client. A certificate with any
    /// other recorded number may exist, so that number is not used any more.
    pub recorded: HashMap<Uid, Serial>,
    /// How many clients each replica had before the server gets fewer of them, by UID of the server and of the Pod, and the
    /// `metadata.generation` of the server that it was counted for.
    pub counted: HashMap<Uid, (i64, HashMap<Uid, u64>)>,
    /// How many clients are connected to all replicas, by UID of the server.
    pub connected: HashMap<Uid, u64>,
    /// The results of applying the objects of a server, by its UID.
    pub applied: HashMap<Uid, HashMap<(Kind, ObjectKey), Applied>>,
    /// When the status of a server was last written (monotonic), by UID.
    pub reported: HashMap<Uid, Duration>,
}

/// An object as the API server returned it when it was applied.
#[derive(Clone, Debug)]
pub struct Applied {
    /// Its content.
    pub content: Arc<str>,
    /// When it was applied (monotonic).
    pub at: Duration,
}
