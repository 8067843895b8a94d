//! What the engine did, for those who count.

use chrono::{DateTime, Utc};

use crate::model::Kind;
use crate::model::ReconcileRequest;

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
    pub const fn of(work: &ReconcileRequest) -> Self {
        match work {
            ReconcileRequest::Mask(_) => Self::Masks,
            ReconcileRequest::Consumer(_) | ReconcileRequest::Acknowledgement(_) | ReconcileRequest::PodList(_) => {
                Self::Consumers
            }
            ReconcileRequest::Reservation(_) => Self::Reservations,
            ReconcileRequest::Provider(_) | ReconcileRequest::Verification(_) => Self::Providers,
            ReconcileRequest::Read(kind, _) | ReconcileRequest::Unreadable(kind, _) => match kind {
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
pub struct Counters {
    /// How often each controller looked at an object, in the order of [`Controller::ALL`].
    decisions: [u64; 4],
    /// Creation times of the MaskConsumers that turned out to have their slot now.
    pub assigned: Vec<DateTime<Utc>>,
}

impl Counters {
    /// Notes a decision.
    pub(super) fn decided(&mut self, work: &ReconcileRequest) {
        self.decisions[Controller::of(work) as usize] += 1;
    }

    /// How often a controller looked at an object.
    pub fn decisions(&self, controller: Controller) -> u64 {
        self.decisions[controller as usize]
    }
}
