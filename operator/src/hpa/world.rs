//! The slots, the Masks that are not scaled, and the Pods that are.
//!
//! Invariant: never more holders than slots. Other Masks get free slots first, then the oldest Pod.

/// The numbers at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// All slots.
    pub slots: u32,
    /// Other Masks.
    pub others: u32,
    /// Other Masks with a slot.
    pub others_held: u32,
    /// `spec.replicas` of the target.
    pub replicas: u32,
    /// Pods of the target.
    pub pods: u32,
    /// Pods of the target with a slot. These are ready.
    pub held: u32,
    /// Slots that the workload leaves.
    pub reserve: u32,
}

impl Snapshot {
    /// Returns the slots that are held.
    pub fn used(&self) -> u32 {
        self.others_held + self.held
    }

    /// Returns the slots that no one holds.
    pub fn free(&self) -> u32 {
        self.slots.saturating_sub(self.used())
    }

    /// Returns the Masks without a slot.
    pub fn waiting(&self) -> u32 {
        self.others - self.others_held + self.pods - self.held
    }

    /// Returns how many replicas the workload may have.
    pub fn claimable(&self) -> f64 {
        let waiting = self.others - self.others_held;
        (self.held + self.free()).saturating_sub(self.reserve + waiting).into()
    }

    /// Returns for how many replicas there is room beside the others.
    pub fn fits(&self) -> f64 {
        self.slots.saturating_sub(self.others + self.reserve).into()
    }
}

/// A Pod of the target.
#[derive(Clone, Copy, Debug)]
struct Pod {
    /// When it can take a slot.
    from: u64,
    /// Whether it has one.
    held: bool,
}

/// What the autoscaler acts on.
#[derive(Clone, Debug)]
pub struct World {
    slots: u32,
    others: u32,
    others_held: u32,
    reserve: u32,
    /// How long a Pod takes until it can have a slot, in seconds.
    pod_delay: u64,
    /// The oldest first. Without Pods, the slots themselves are scaled.
    pods: Option<Vec<Pod>>,
}

impl World {
    /// Returns a world with Pods that exist for a while, or one where `slots` is scaled.
    pub fn new(slots: u32, reserve: u32, replicas: Option<u32>, pod_delay: u64) -> Self {
        let pods = replicas.map(|count| vec![Pod { from: 0, held: false }; count as usize]);
        Self { slots, others: 0, others_held: 0, reserve, pod_delay, pods }
    }

    /// Sets the number of slots.
    pub fn set_slots(&mut self, slots: u32) {
        self.slots = slots;
    }

    /// Sets the number of other Masks.
    pub fn set_others(&mut self, others: u32) {
        self.others = others;
    }

    /// Sets the replicas. Pods without a slot go first, then the youngest.
    pub fn scale(&mut self, now: u64, replicas: u32) {
        let Some(pods) = &mut self.pods else {
            self.slots = replicas;
            return;
        };
        while pods.len() > replicas as usize {
            let index = pods.iter().rposition(|pod| !pod.held).unwrap_or(pods.len() - 1);
            pods.remove(index);
        }
        pods.resize(replicas as usize, Pod { from: now + self.pod_delay, held: false });
    }

    /// Assigns and takes back slots.
    pub fn step(&mut self, now: u64) {
        let mut none = Vec::new();
        let pods = self.pods.as_mut().unwrap_or(&mut none);
        let held = |pods: &[Pod]| pods.iter().filter(|pod| pod.held).count() as u32;
        self.others_held = self.others_held.min(self.others);
        // Too few slots: a Pod is deleted, and its successor waits.
        while held(pods) + self.others_held > self.slots {
            match pods.iter().rposition(|pod| pod.held) {
                Some(index) => {
                    pods.remove(index);
                    pods.push(Pod { from: now + self.pod_delay, held: false });
                }
                None => self.others_held = self.slots,
            }
        }
        let mut free = self.slots - held(pods) - self.others_held;
        let taken = free.min(self.others - self.others_held);
        self.others_held += taken;
        free -= taken;
        for pod in pods.iter_mut().filter(|pod| !pod.held && pod.from <= now).take(free as usize) {
            pod.held = true;
        }
    }

    /// Returns the numbers.
    pub fn snapshot(&self) -> Snapshot {
        let pods = self.pods.as_ref().map_or(0, |pods| pods.len() as u32);
        let held = self.pods.iter().flatten().filter(|pod| pod.held).count() as u32;
        let replicas = if self.pods.is_some() { pods } else { self.slots };
        let (slots, others, others_held, reserve) = (self.slots, self.others, self.others_held, self.reserve);
        Snapshot { slots, others, others_held, replicas, pods, held, reserve }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_go_first_and_no_slot_is_held_twice() {
        let mut world = World::new(5, 0, Some(4), 10);
        world.step(0);
        assert_eq!((world.snapshot().held, world.snapshot().free()), (4, 1));
        world.set_others(3);
        world.step(1);
        let at = world.snapshot();
        assert_eq!((at.others_held, at.waiting(), at.claimable()), (1, 2, 2.0));
        world.scale(2, 2);
        world.step(2);
        assert_eq!(world.snapshot().others_held, 3);
        world.scale(3, 3);
        world.step(20);
        assert_eq!((world.snapshot().held, world.snapshot().waiting()), (2, 1));
        world.set_slots(4);
        world.step(21);
        let at = world.snapshot();
        assert_eq!((at.held, at.used(), at.pods), (1, 4, 3));
    }

    #[test]
    fn a_pod_takes_its_slot_after_the_delay() {
        let mut world = World::new(5, 0, Some(1), 10);
        world.step(0);
        world.scale(0, 3);
        world.step(9);
        assert_eq!(world.snapshot().held, 1);
        world.step(10);
        assert_eq!(world.snapshot().held, 3);
    }

    #[test]
    fn the_slots_of_a_provider_can_be_scaled() {
        let mut world = World::new(5, 0, None, 0);
        world.set_others(9);
        world.step(0);
        assert_eq!((world.snapshot().used(), world.snapshot().waiting(), world.snapshot().replicas), (5, 4, 5));
        world.scale(1, 9);
        world.step(1);
        assert_eq!((world.snapshot().used(), world.snapshot().waiting()), (9, 0));
    }
}
