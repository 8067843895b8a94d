//! What the providers controller remembers.

use std::{collections::HashMap, time::Duration};

use crate::model::Uid;

/// When (monotonic) each provider's status was last written, by UID.
pub type LastWrites = HashMap<Uid, Duration>;
