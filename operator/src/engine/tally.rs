//! What the heart did, for those who count.

use chrono::{DateTime, Utc};

use super::Work;
use crate::world::Kind;

/// The four controllers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Controller {
    /// Makes MaskConsumers, and keeps the status of Masks.
    Masks,
    /// Assigns slots and takes them back.
    Consumers,
    /// Keeps the status of MaskReservations, and frees them.
    Reservations,
    /// Keeps the status of MaskProviders, and holds them.
    Providers,
}

impl Controller {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Masks, Self::Consumers, Self::Reservations, Self::Providers];

    /// The plural, as in `manage-masks`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Masks => "masks",
            Self::Consumers => "consumers",
            Self::Reservations => "reservations",
            Self::Providers => "providers",
        }
    }

    /// Whose work it is. What is nobody's, as what is read back, counts for the controller that owns the kind.
    pub const fn of(work: &Work) -> Self {
        match work {
            Work::Mask(_) => Self::Masks,
            Work::Consumer(_) | Work::Acknowledgement(_) | Work::PodList(_) => Self::Consumers,
            Work::Reservation(_) => Self::Reservations,
            Work::Provider(_) | Work::Verification(_) => Self::Providers,
            Work::Read(kind, _) | Work::Unreadable(kind, _) => match kind {
                Kind::Mask => Self::Masks,
                Kind::Consumer | Kind::Secret | Kind::Pod => Self::Consumers,
                Kind::Reservation => Self::Reservations,
                Kind::Provider => Self::Providers,
            },
        }
    }
}

/// What one call of [`Engine::handle`](super::Engine::handle) did.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// How often each controller looked at an object, in the order of [`Controller::ALL`].
    decisions: [u64; 4],
    /// Creation times of the MaskConsumers that turned out to have their slot now.
    pub assigned: Vec<DateTime<Utc>>,
}

impl Tally {
    /// Notes a decision.
    pub(super) fn decided(&mut self, work: &Work) {
        self.decisions[Controller::of(work) as usize] += 1;
    }

    /// How often a controller looked at an object.
    pub fn decisions(&self, controller: Controller) -> u64 {
        self.decisions[controller as usize]
    }
}
