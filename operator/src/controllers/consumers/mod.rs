//! Consumers: gives each MaskConsumer a slot (W2–W4), keeps what it has, and takes the slot back (release).
//!
//! Invariants: a consumer that has a reservation adopts it and never takes another (I2); a reservation is given up
//! only when its consumer is going away, is committed to another, or has been fenced (I3).

mod assign;
mod context;
mod followers;
mod keep;
mod release;
mod shared;
mod throttle;
mod waiting;
mod withdraw;

pub use context::{ConsumerMemory, Context, Listing, regarding};
pub use followers::Followers;
pub use release::find_users;
pub use throttle::Throttle;
pub use waiting::class;

use crate::model::{Kind, ObjectKey, Step, add_finalizer};

/// The next step for the MaskConsumer of that name.
pub fn decide(ctx: &mut Context<'_>, key: &ObjectKey) -> Step {
    let state = ctx.state;
    let Some(consumer) = state.consumers.get(key) else { return Step::Idle };
    if consumer.meta.deleting {
        ctx.out_of_line(consumer);
        return release::decide(ctx, consumer);
    }
    if consumer.meta.finalizer.is_none() {
        let op = add_finalizer(Kind::Consumer, &consumer.meta);
        return if consumer.assigned.is_some() { Step::maintain(op) } else { Step::send(op) };
    }
    if consumer.assigned.is_some() {
        ctx.out_of_line(consumer);
        return keep::decide(ctx, consumer);
    }
    assign::decide(ctx, consumer)
}
