//! What the servers controller keeps in addition to the stores. All of it can be lost.

use std::{collections::HashMap, time::Duration};

use crate::{model::Uid, pki::Serial};

/// State of the servers controller.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    /// Serial numbers that this process has recorded and not yet issued, by UID of the client. Of others it is not known
    /// whether a certificate exists, so they are not issued any more.
    pub recorded: HashMap<Uid, Serial>,
    /// When the status of a server was last written (monotonic), by UID.
    pub reported: HashMap<Uid, Duration>,
}
