//! Consumers: gives each MaskConsumer a slot (W2–W4), keeps what it has, and takes the slot back (release).
//!
//! Invariants: a consumer that has a reservation adopts it and never takes another (I2); a reservation is given up
//! only when its consumer is going away, is committed to another, or has been fenced (I3).

mod assign;
mod followers;
mod keep;
mod release;
mod shared;
mod waiting;
mod withdraw;

use std::collections::HashMap;

use vpn_types::Reason;

pub use followers::Followers;
pub use release::find_users;
pub use waiting::{Throttle, class};

use crate::{
    allocator::Allocator,
    engine::{Effect, Note, NoteTarget, Now, Step, Trouble, add_finalizer, target},
    world::{ConsumerView, CopyView, Kind, ObjectKey, ReservationView, SlotUserView, Uid, World},
};

/// What has to be remembered of a consumer beside what the stores say. All of it can be lost: a restart reads or does
/// the same again.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    /// The reservation that is being given back because the assignment met a refusal.
    pub withdrawing: Option<Uid>,
    /// The Secret in the way, as read after W3 found the name taken.
    pub obstacle: Option<CopyView>,
    /// Release: the copied Secret is known to be gone.
    pub copy_gone: bool,
    /// Release: the Pods that are waited for. Absent until they have been listed.
    pub users: Option<Vec<SlotUserView>>,
    /// Release: how the Pods are, or were, listed.
    pub listing: Listing,
    /// The reservation that the consumer is committed to was read and is not there, or not its own.
    pub lock_gone: bool,
    /// Release: the deletion was upgraded to foreground. The garbage collector takes its finalizer away again as soon
    /// as no dependent blocks, which may be long before the last user is gone.
    pub upgraded: bool,
    /// Release: some user vanished without evidence that its containers ended.
    pub unclean: bool,
    /// Waiting: since when (monotonic) a provider that fits is about to be judged.
    pub settling_since: Option<std::time::Duration>,
    /// The provider was read and is gone.
    pub provider_gone: bool,
}

/// How the one consistent list of Pods comes about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Listing {
    /// Not begun.
    #[default]
    NotYet,
    /// The watch on the namespace was begun for this release; its first list serves.
    ByWatch,
    /// The watch was there already: a list of its own.
    ByRequest,
}

/// What a decision for a consumer works with.
pub struct Scene<'a> {
    /// All that is known.
    pub world: &'a World,
    /// Queue and slots.
    pub allocator: &'a mut Allocator,
    /// Per consumer, by UID.
    pub progress: &'a mut HashMap<Uid, Progress>,
    /// Limits how often places in line are rewritten.
    pub throttle: &'a mut Throttle,
    /// Watches to begin or end.
    pub effects: &'a mut Vec<Effect>,
    /// Releases under way.
    pub followers: &'a mut Followers,
    /// Why the Pods of its namespace cannot be listed at present.
    pub list_trouble: Option<Trouble>,
    /// Consumers to look at again once the free slots have been handed out.
    pub revisit: &'a mut Vec<ObjectKey>,
    /// What went wrong last with this consumer.
    pub trouble: &'a mut Option<Trouble>,
    /// The time.
    pub now: Now,
}

impl Scene<'_> {
    fn progress(&mut self, consumer: &ConsumerView) -> &mut Progress {
        self.progress.entry(consumer.meta.uid.clone()).or_default()
    }

    /// What is remembered of a consumer, if anything is: of most there is nothing.
    fn recall(&mut self, consumer: &ConsumerView) -> Option<&mut Progress> {
        self.progress.get_mut(&consumer.meta.uid)
    }

    fn obstacle(&mut self, consumer: &ConsumerView) -> Option<CopyView> {
        self.recall(consumer)?.obstacle.clone()
    }

    fn trouble_now(&self) -> Option<&Trouble> {
        self.trouble.as_ref().filter(|trouble| trouble.is_active(self.now))
    }

    fn out_of_line(&mut self, consumer: &ConsumerView) {
        self.allocator.leave(&consumer.meta.uid);
        self.allocator.end_grant(&consumer.meta.uid);
    }
}

/// The next step for the MaskConsumer of that name.
pub fn decide(scene: &mut Scene<'_>, key: &ObjectKey) -> Step {
    let world = scene.world;
    let Some(consumer) = world.consumers.get(key) else { return Step::Idle };
    if consumer.meta.deleting {
        scene.out_of_line(consumer);
        return release::decide(scene, consumer);
    }
    if consumer.meta.finalizer.is_none() {
        let op = add_finalizer(Kind::Consumer, &consumer.meta);
        return if consumer.assigned.is_some() { Step::keep_house(op) } else { Step::send(op) };
    }
    if consumer.assigned.is_some() {
        scene.out_of_line(consumer);
        return keep::decide(scene, consumer);
    }
    assign::decide(scene, consumer)
}

/// The reservations that point at this consumer by name and UID.
fn reservations<'a>(world: &'a World, consumer: &'a ConsumerView) -> impl Iterator<Item = &'a ReservationView> {
    world.reservations_of(&consumer.meta.uid).filter(|reservation| reservation.consumer == consumer.meta.key)
}

/// The object on which users look for Events: the Mask where there is one, else the consumer itself.
pub fn regarding(consumer: &ConsumerView) -> NoteTarget {
    match &consumer.owner {
        Some(mask) => target(Kind::Mask, &consumer.meta.key, mask),
        None => target(Kind::Consumer, &consumer.meta.key, &consumer.meta.uid),
    }
}

fn note(consumer: &ConsumerView, warning: bool, reason: Reason, action: &'static str, message: String) -> Note {
    let itself = target(Kind::Consumer, &consumer.meta.key, &consumer.meta.uid);
    Note { regarding: regarding(consumer), related: Some(itself), warning, reason, action, message }
}
