//! Takes in how requests ended.

use vpn_types::Reason;

use super::{Effect, Engine, InFlight, Lane, NewObject, Note, Now, Op, Outcome, Propagation, Trouble, Work, target};
use crate::{
    consumers,
    verification::{self, Verdict},
    world::{Acknowledged, CopyView, Kind, Object, ObjectKey, PodView, Touched, Uid},
};

impl Engine {
    /// A request ended.
    pub(super) fn answered(&mut self, id: u64, outcome: Outcome, now: Now) {
        let Some(request) = self.in_flight.remove(&id) else { return };
        let InFlight { work, op, lane, notes, settles, epoch, seen, owner } = request;
        self.busy.remove(&work);
        let deferred = op.written().map(|target| self.writing.ended(target, lane));
        for work in deferred.into_iter().flatten() {
            self.mark(work);
        }
        if let (Work::PodList(namespace), Outcome::Refused { .. } | Outcome::Unknown { .. } | Outcome::NotFound) =
            (&work, &outcome)
        {
            for consumer in self.followers.list_failed(namespace) {
                self.mark(Work::Consumer(consumer));
            }
        }
        if matches!(work, Work::Unreadable(..)) {
            // The answer cannot be read either. Carried out or not, it is told in an Event.
            self.effects.extend(notes.into_iter().map(Effect::Publish));
            return;
        }
        if let (Some(owner), Some((_, key))) = (&owner, op.target()) {
            self.mask_read(&outcome, key, owner);
        }
        let is_read = op.is_read();
        let mut succeeded = false;
        match outcome {
            Outcome::Gone | Outcome::NotFound | Outcome::Conflict if is_pod(&op) => {
                succeeded = true;
                self.unsure.remove(&work);
                self.pod_vanished(&op);
            }
            // The write that removed the last finalizer shows the object a last time.
            Outcome::Object(object) if !is_read && is_last_sight(&object) => {
                succeeded = true;
                let (kind, key, uid) = (object.kind(), object.meta().key.clone(), object.meta().uid.clone());
                self.removed(kind, &key, &uid);
            }
            Outcome::Object(object) => {
                succeeded = true;
                self.unsure.remove(&work);
                self.read(&work, &op, &object, now);
                self.upgraded(&op, &object);
                self.acknowledge(*object, epoch);
            }
            Outcome::Gone => {
                succeeded = true;
                self.gone(&work, &op, seen.as_ref().map(|(uid, _)| uid));
            }
            Outcome::Pods(pods) => {
                succeeded = true;
                self.pods_listed(&work, &pods);
            }
            Outcome::NotFound if matches!(op, Op::Create(..)) => {
                // The namespace itself is gone.
                let message = "the namespace does not exist".to_owned();
                self.refused(&work, &op, lane, Reason::NamespaceTerminating, message, now);
            }
            Outcome::NotFound => {
                succeeded = is_read;
                self.unsure.remove(&work);
                self.gone(&work, &op, seen.as_ref().map(|(uid, _)| uid));
            }
            Outcome::AlreadyExists => self.read_back(&work, &op),
            Outcome::Conflict => {
                let target = op.target().map(|(kind, key)| self.seen(kind, key).1);
                if target == Some(seen) {
                    self.read_back(&work, &op);
                }
            }
            Outcome::Refused { reason, message } => self.refused(&work, &op, lane, reason, message, now),
            Outcome::Unknown { message } => {
                if !is_read {
                    self.read_back(&work, &op);
                }
                let previous = self.troubles.get(&(work.clone(), Lane::Slots));
                let mut trouble = Trouble::after(previous, Reason::RequestFailed, message, now);
                if !is_read && lane == Lane::Slots && trouble.failures >= Trouble::TOO_MANY_UNKNOWN {
                    trouble.message = format!("{}: {}", describe(&op), trouble.message);
                    self.step_aside(&work, &op, &mut trouble);
                }
                self.troubles.insert((work.clone(), Lane::Slots), trouble);
            }
        }
        if succeeded {
            if settles && (!is_read || matches!(work, Work::Read(..))) {
                self.troubles.remove(&(work.clone(), lane));
            } else if let Some(trouble) = self.troubles.get_mut(&(work.clone(), lane)).filter(|_| is_read) {
                // The outcome is known again: whatever is next need not wait.
                if trouble.failures < Trouble::TOO_MANY_UNKNOWN {
                    trouble.until = trouble.until.min(now.monotonic);
                }
            }
            self.effects.extend(notes.into_iter().map(Effect::Publish));
        }
        self.mark(work);
    }

    /// Release, step 4, was carried out.
    fn upgraded(&mut self, op: &Op, object: &Object) {
        if let Op::Delete { kind: Kind::Consumer, propagation: Some(Propagation::Foreground), .. } = op {
            self.progress.entry(object.meta().uid.clone()).or_default().upgraded = true;
        }
    }

    fn pod_vanished(&mut self, op: &Op) {
        if let Op::Delete { key, uid, .. } = op
            && let Some(pods) = self.world.pods.get_mut(&key.namespace)
        {
            pods.vanished(uid);
        }
    }

    fn read_back(&mut self, work: &Work, op: &Op) {
        if let Some((kind, key)) = op.target() {
            self.unsure.insert(work.clone(), (kind, key.clone()));
        }
    }

    /// The API server showed an object: as the answer to a write, or to a read.
    fn acknowledge(&mut self, object: Object, sent: crate::world::Epoch) {
        let (kind, key) = (object.kind(), object.meta().key.clone());
        let world = &mut self.world;
        let (how, touched) = match object {
            // Without the masks controller the watch selects by label, see above.
            Object::Mask(view) if self.roles.masks || view.verifies.is_some() => {
                let (how, change) = world.masks.acknowledged(view, sent);
                (how, change.map(Touched::Mask))
            }
            Object::Consumer(view) => {
                let (how, change) = world.consumers.acknowledged(view, sent);
                (how, change.map(Touched::Consumer))
            }
            Object::Reservation(view) => {
                let (how, change) = world.reservations.acknowledged(view, sent);
                (how, change.map(Touched::Reservation))
            }
            Object::Provider(view) => {
                let (how, change) = world.providers.acknowledged(view, sent);
                (how, change.map(Touched::Provider))
            }
            Object::VerificationPod(view) => {
                let (how, change) = world.verification_pods.acknowledged(*view, sent);
                (how, change.map(Touched::VerificationPod))
            }
            // The watch selects copies by label: of any other Secret it would never tell that it is gone.
            Object::Copy(view) if view.labelled => {
                let (how, change) = world.copies.acknowledged(view, sent);
                (how, change.map(Touched::Copy))
            }
            Object::Copy(_) | Object::Mask(_) => (Acknowledged::Passed, None),
            Object::Pod(pod) => {
                if let Some(pods) = world.pods.get_mut(&key.namespace) {
                    pods.merge(&[pod]);
                }
                (Acknowledged::Assumed, None)
            }
        };
        if let Some(touched) = touched {
            self.touched(touched);
        }
        if how == Acknowledged::Doubtful {
            self.doubt(kind, key);
        }
    }

    /// The target of a request is gone, and so is what the store holds of it, if it is still what it held then.
    fn gone(&mut self, work: &Work, op: &Op, uid: Option<&Uid>) {
        let Some((kind, key)) = op.target() else { return };
        let key = key.clone();
        if let Some(uid) = uid {
            self.removed(kind, &key, uid);
        }
        match (work, kind) {
            (Work::Consumer(consumer), Kind::Secret) => {
                let Some(consumer) = self.world.consumers.get(consumer) else { return };
                let progress = self.progress.entry(consumer.meta.uid.clone()).or_default();
                progress.copy_gone = true;
                progress.obstacle = None;
            }
            (Work::Consumer(consumer), Kind::Provider) => {
                let Some(consumer) = self.world.consumers.get(consumer) else { return };
                self.progress.entry(consumer.meta.uid.clone()).or_default().provider_gone = true;
            }
            (Work::Consumer(consumer), Kind::Reservation) if matches!(op, Op::Get(..)) => {
                let Some(consumer) = self.world.consumers.get(consumer) else { return };
                self.progress.entry(consumer.meta.uid.clone()).or_default().lock_gone = true;
            }
            (Work::Reservation(reservation), Kind::Consumer) => {
                let Some(reservation) = self.world.reservations.get(reservation) else { return };
                let uid = reservation.consumer_uid.clone();
                self.world.note_departed(&uid);
            }
            _ => {}
        }
    }

    fn removed(&mut self, kind: Kind, key: &ObjectKey, uid: &Uid) {
        let world = &mut self.world;
        let touched = match kind {
            Kind::Mask => world.masks.removed(key, uid).map(Touched::Mask),
            Kind::Consumer => world.consumers.removed(key, uid).map(Touched::Consumer),
            Kind::Reservation => world.reservations.removed(key, uid).map(Touched::Reservation),
            Kind::Provider => world.providers.removed(key, uid).map(Touched::Provider),
            Kind::Secret => world.copies.removed(key, uid).map(Touched::Copy),
            Kind::Pod => world.verification_pods.removed(key, uid).map(Touched::VerificationPod),
        };
        if let Some(touched) = touched {
            self.touched(touched);
        }
    }

    /// What a read tells a controller besides what the stores take from it.
    fn read(&mut self, work: &Work, op: &Op, object: &Object, now: Now) {
        match (work, object) {
            (Work::Verification(provider), _) if matches!(op, Op::Get(..)) => {
                self.name_read(provider, object, now);
            }
            (Work::Consumer(key), Object::Copy(copy)) => self.copy_read(key, copy),
            (Work::Consumer(key), Object::Provider(_)) => {
                if let Some(consumer) = self.world.consumers.get(key) {
                    self.progress.entry(consumer.meta.uid.clone()).or_default().provider_gone = false;
                }
            }
            (Work::Consumer(key), Object::Reservation(reservation)) => {
                let Some(consumer) = self.world.consumers.get(key) else { return };
                let uid = consumer.meta.uid.clone();
                if uid != reservation.consumer_uid {
                    self.progress.entry(uid).or_default().lock_gone = true;
                } else if let Some(progress) = self.progress.get_mut(&uid) {
                    progress.lock_gone = false;
                }
            }
            (Work::Reservation(key), Object::Consumer(consumer)) => {
                let Some(reservation) = self.world.reservations.get(key) else { return };
                if reservation.consumer_uid != consumer.meta.uid {
                    let uid = reservation.consumer_uid.clone();
                    self.world.note_departed(&uid);
                }
            }
            _ => {}
        }
    }

    /// A Mask was read by name, to find out whether the one with the UID `owner` is gone.
    fn mask_read(&mut self, outcome: &Outcome, key: &ObjectKey, owner: &Uid) {
        let is_gone = match outcome {
            Outcome::NotFound => true,
            Outcome::Object(object) => object.meta().uid != *owner,
            _ => false,
        };
        if is_gone {
            self.world.note_mask_gone(key, owner);
        }
    }

    /// The name of a verification's Mask or Pod was taken, and this is what has it.
    fn name_read(&mut self, key: &ObjectKey, object: &Object, now: Now) {
        let Some(provider) = self.world.providers.get(key) else { return };
        let (kind, name) = (object.kind().as_str(), &object.meta().key);
        let message = format!("a {kind} {name} exists that the operator did not make; delete or rename it");
        match object {
            Object::Mask(mask) if mask.verifies.is_none() => {
                let work = (Work::Verification(key.clone()), Lane::Slots);
                let trouble = Trouble::after(self.troubles.get(&work), Reason::VerificationNameTaken, message, now);
                self.troubles.insert(work, trouble);
            }
            Object::Pod(pod) if pod.consumers.is_empty() => {
                if let Some(attempt) = self.attempts.get_mut(&provider.meta.uid) {
                    attempt.verdict = Some(Verdict::failed(Reason::VerificationNameTaken, message));
                }
            }
            _ => {}
        }
    }

    fn copy_read(&mut self, key: &ObjectKey, copy: &CopyView) {
        let Some(consumer) = self.world.consumers.get(key) else { return };
        let uid = consumer.meta.uid.clone();
        let ours = copy.consumer_uid.as_ref() == Some(&uid);
        let progress = self.progress.entry(uid).or_default();
        // Of that name, but not ours: as far as the release goes, our copy is gone.
        progress.copy_gone = !ours;
        progress.obstacle = (!ours || !copy.labelled).then(|| copy.clone());
    }

    fn pods_listed(&mut self, work: &Work, listed: &[PodView]) {
        let Work::PodList(namespace) = work else { return };
        let Some(pods) = self.world.pods.get_mut(namespace) else { return };
        pods.merge(listed);
        for key in self.followers.list_answered(namespace) {
            let Some(consumer) = self.world.consumers.get(&key) else { continue };
            let held: Vec<_> = self.world.reservations_of(&consumer.meta.uid).collect();
            let users = consumers::find_users(consumer, &held, &self.world.pods[namespace]);
            self.progress.entry(consumer.meta.uid.clone()).or_default().users = Some(users);
            self.mark(Work::Consumer(key));
        }
    }

    fn refused(&mut self, work: &Work, op: &Op, lane: Lane, reason: Reason, message: String, now: Now) {
        if let (Work::Verification(key), Op::Create(_, NewObject::Pod(_))) = (work, op)
            && let Some(provider) = self.world.providers.get(key)
            && let Some(attempt) = self.attempts.get_mut(&provider.meta.uid)
        {
            // The slot goes back, and it is tried again after a while.
            attempt.verdict = Some(verification::refused(reason, &message));
            return;
        }
        let slot = (work.clone(), lane);
        let message = format!("{}: {message}", describe(op));
        let mut trouble = Trouble::after(self.troubles.get(&slot), reason, message, now);
        if trouble.failures == 1
            && let Op::PatchStatus(kind, key, _) = op
            && let (_, Some((uid, _))) = self.seen(*kind, key)
        {
            // What cannot be said in the status is said in an Event.
            let consumer = self.world.consumers.get(key).filter(|_| *kind == Kind::Consumer);
            self.effects.push(Effect::Publish(Note {
                regarding: consumer.map_or_else(|| target(*kind, key, &uid), consumers::regarding),
                related: None,
                warning: true,
                reason,
                action: "Report",
                message: trouble.message.clone(),
            }));
        }
        if lane == Lane::Slots {
            self.step_aside(work, op, &mut trouble);
        }
        self.troubles.insert(slot, trouble);
    }

    /// A consumer that cannot take its slot leaves it to the next in line, and tries again after a while.
    fn step_aside(&mut self, work: &Work, op: &Op, trouble: &mut Trouble) {
        if let Work::Consumer(key) = work
            && let Some(consumer) = self.world.consumers.get(key)
            && consumer.assigned.is_none()
            && !consumer.meta.deleting
        {
            let uid = consumer.meta.uid.clone();
            match op {
                Op::Create(_, NewObject::Reservation(_)) => {
                    // The slot goes to the next in line; this one steps aside for a while.
                    self.allocator.end_grant(&uid);
                    trouble.gate = false;
                }
                Op::Create(_, NewObject::Secret(_)) | Op::PatchStatus(Kind::Consumer, ..) => {
                    let reservation = self.world.reservations_of(&uid).next().map(|view| view.meta.uid.clone());
                    let progress = self.progress.entry(uid).or_default();
                    // A second refusal while withdrawing means that the fence itself is refused: that has to wait.
                    trouble.gate = progress.withdrawing.is_some();
                    progress.withdrawing = reservation;
                }
                _ => {}
            }
        }
    }
}

fn is_pod(op: &Op) -> bool {
    op.target().is_some_and(|(kind, _)| kind == Kind::Pod)
}

fn is_last_sight(object: &Object) -> bool {
    let meta = object.meta();
    meta.deleting && meta.finalizers == 0 && object.kind() != Kind::Pod
}

fn describe(op: &Op) -> String {
    match op.target() {
        Some((kind, key)) => format!("{} {} {key}", op.verb(), kind.as_str()),
        None => op.verb().to_owned(),
    }
}
