//! State of the providers controller.

use std::{collections::HashMap, time::Duration};

use crate::model::Uid;

/// Monotonic time of the last status write for each provider, by UID.
pub type LastWrites = HashMap<Uid, Duration>;
