//! Takes in what the watches tell, and marks the work that it may change.

use std::sync::Arc;

use super::{Effect, Engine, LogTold, NoteTarget, Told, Unreadable, Work};
use crate::{
    allocator::{DeviceKeys, PoolSpec},
    providers::{self, why_not_usable},
    verification::{self, VerificationPod},
    world::{
        Change, ConsumerView, CopyView, Kind, Login, Logins, Object, ObjectKey, ProviderView, ReservationView, Source,
        SourceView, Touched, Uid,
    },
};

impl Engine {
    /// A watch on a whole kind told something.
    pub(super) fn told(&mut self, told: Told) {
        let world = &mut self.world;
        let touched = match told {
            Told::ListBegan(kind) => {
                match kind {
                    Kind::Mask => world.masks.list_began(),
                    Kind::Consumer => world.consumers.list_began(),
                    Kind::Reservation => world.reservations.list_began(),
                    Kind::Provider => world.providers.list_began(),
                    Kind::Secret => world.copies.list_began(),
                    Kind::Pod => world.verification_pods.list_began(),
                }
                None
            }
            Told::Listed(object) => {
                match object {
                    Object::Mask(view) => world.masks.listed(view),
                    Object::Consumer(view) => world.consumers.listed(view),
                    Object::Reservation(view) => world.reservations.listed(view),
                    Object::Provider(view) => world.providers.listed(view),
                    Object::Copy(view) => world.copies.listed(view),
                    Object::VerificationPod(view) => world.verification_pods.listed(*view),
                    Object::Pod(_) => {}
                }
                None
            }
            Told::ListEnded(kind) => return self.list_ended(kind),
            Told::Applied(object) => match object {
                Object::Mask(view) => world.masks.applied(view).map(Touched::Mask),
                Object::Consumer(view) => world.consumers.applied(view).map(Touched::Consumer),
                Object::Reservation(view) => world.reservations.applied(view).map(Touched::Reservation),
                Object::Provider(view) => world.providers.applied(view).map(Touched::Provider),
                Object::Copy(view) => world.copies.applied(view).map(Touched::Copy),
                Object::VerificationPod(view) => world.verification_pods.applied(*view).map(Touched::VerificationPod),
                Object::Pod(_) => None,
            },
            Told::Deleted(object) => match object {
                Object::Mask(view) => world.masks.deleted(&view).map(Touched::Mask),
                Object::Consumer(view) => world.consumers.deleted(&view).map(Touched::Consumer),
                Object::Reservation(view) => world.reservations.deleted(&view).map(Touched::Reservation),
                Object::Provider(view) => world.providers.deleted(&view).map(Touched::Provider),
                Object::Copy(view) => world.copies.deleted(&view).map(Touched::Copy),
                Object::VerificationPod(view) => world.verification_pods.deleted(&view).map(Touched::VerificationPod),
                Object::Pod(_) => None,
            },
        };
        if let Some(touched) = touched {
            self.touched(touched);
        }
    }

    fn list_ended(&mut self, kind: Kind) {
        fn wrap<V>(changes: Vec<Change<V>>, of: fn(Change<V>) -> Touched) -> Vec<Touched> {
            changes.into_iter().map(of).collect()
        }
        let world = &mut self.world;
        let (touched, doubtful) = match kind {
            Kind::Mask => {
                let (changes, doubtful) = world.masks.list_ended();
                (wrap(changes, Touched::Mask), doubtful)
            }
            Kind::Consumer => {
                let (changes, doubtful) = world.consumers.list_ended();
                (wrap(changes, Touched::Consumer), doubtful)
            }
            Kind::Reservation => {
                let (changes, doubtful) = world.reservations.list_ended();
                (wrap(changes, Touched::Reservation), doubtful)
            }
            Kind::Provider => {
                let (changes, doubtful) = world.providers.list_ended();
                (wrap(changes, Touched::Provider), doubtful)
            }
            Kind::Secret => {
                let (changes, doubtful) = world.copies.list_ended();
                (wrap(changes, Touched::Copy), doubtful)
            }
            Kind::Pod => {
                let (changes, doubtful) = world.verification_pods.list_ended();
                (wrap(changes, Touched::VerificationPod), doubtful)
            }
        };
        for key in doubtful {
            self.doubt(kind, key);
        }
        // Index everything before anything is derived from it.
        for touched in touched {
            self.touched(touched);
        }
    }

    /// Reads one object back whose state is in doubt.
    pub(super) fn doubt(&mut self, kind: Kind, key: ObjectKey) {
        let work = Work::Read(kind, key.clone());
        self.unsure.insert(work.clone(), (kind, key));
        self.mark(work);
    }

    /// A store changed: updates what is derived from it, and marks the work that it may change.
    pub(super) fn touched(&mut self, touched: Touched) {
        self.world.reindex(&touched);
        match touched {
            Touched::Mask(Change { key, .. }) => self.mark_mask(key),
            Touched::Consumer(change) => self.consumer_changed(change),
            Touched::Reservation(change) => self.reservation_changed(change),
            Touched::Provider(change) => self.provider_changed(change),
            Touched::Copy(change) => self.copy_changed(change),
            Touched::VerificationPod(change) => self.verification_pod_changed(change),
        }
    }

    fn verification_pod_changed(&mut self, Change { key, before }: Change<VerificationPod>) {
        let uid = self.world.verification_pods.get(&key).map(|pod| &pod.meta.uid);
        if let Some(before) = before
            && uid != Some(&before.meta.uid)
            && self.logs.remove(&before.meta.uid).is_some()
        {
            self.effects.push(Effect::UnfollowLog(before.meta.uid));
        }
        self.mark_verification(&key);
    }

    /// Something of that name changed which may be part of a verification.
    fn mark_verification(&mut self, key: &ObjectKey) {
        if let Some(provider) = verification::provider_of(key)
            && self.world.providers.get(&provider).is_some()
        {
            self.mark(Work::Verification(provider));
        }
    }

    /// The log of a verification Pod told something.
    pub(super) fn log_told(&mut self, uid: &Uid, told: LogTold) {
        let Some((_, log)) = self.logs.get_mut(uid) else { return };
        match told {
            LogTold::Line(line) => log.digest.push(&line),
            LogTold::Ended => log.ended = true,
            LogTold::Unreadable(why) => (log.ended, log.unreadable) = (true, Some(why)),
        }
        let pod = self.world.verification_pods.values().find(|pod| pod.meta.uid == *uid);
        if let Some(key) = pod.map(|pod| pod.meta.key.clone()) {
            self.mark_verification(&key);
        }
    }

    fn mark_mask(&mut self, key: ObjectKey) {
        if self.world.masks.get(&key).is_none() && self.world.consumers.get(&key).is_none() {
            self.forget_work(&Work::Mask(key.clone()));
        }
        self.mark_verification(&key);
        self.mark(Work::Mask(key));
    }

    fn consumer_changed(&mut self, Change { key, before }: Change<ConsumerView>) {
        let assigned = self.world.consumers.get(&key).and_then(|view| view.assigned.clone());
        let assigned_before = before.as_ref().and_then(|view| view.assigned.clone());
        if let (Some(_), None, Some(before)) = (&assigned, &assigned_before, &before) {
            self.tally.assigned.push(before.meta.created);
        }
        // The new holder first, so that a slot that stays with it is never free in between.
        if let Some(assigned) = &assigned {
            self.allocator.committed(&assigned.provider, assigned.slot);
        }
        if let Some(assigned) = &assigned_before {
            self.allocator.uncommitted(&assigned.provider, assigned.slot);
        }
        let deleting = |view: &ConsumerView| view.meta.deleting;
        if before.as_ref().is_some_and(|view| !deleting(view)) && self.world.consumers.get(&key).is_some_and(deleting) {
            // What was refused before is not what the release asks for.
            self.forget_work(&Work::Consumer(key.clone()));
        }
        let now = self.world.consumers.get(&key).map(|view| view.meta.uid.clone());
        let mut uids: Vec<_> = now.iter().cloned().collect();
        if let Some(before) = before
            && now.as_ref() != Some(&before.meta.uid)
        {
            let uid = before.meta.uid;
            self.allocator.leave(&uid);
            self.allocator.end_grant(&uid);
            self.progress.remove(&uid);
            self.end_follow(&key, &uid);
            uids.push(uid);
            self.forget_work(&Work::Consumer(key.clone()));
        }
        for uid in uids {
            let reservations: Vec<_> = self.world.reservations_of(&uid).map(|view| view.meta.key.clone()).collect();
            for reservation in reservations {
                self.mark(Work::Reservation(reservation));
            }
        }
        self.mark_mask(key.clone());
        self.mark(Work::Consumer(key));
    }

    /// Ends the watch on a namespace's Pods once no release there needs it.
    fn end_follow(&mut self, key: &ObjectKey, uid: &Uid) {
        if self.followers.end(key, uid) {
            self.world.pods.remove(&key.namespace);
            self.forget_work(&Work::PodList(key.namespace.clone()));
            self.effects.push(Effect::UnwatchPods(key.namespace.clone()));
        }
    }

    fn reservation_changed(&mut self, Change { key, before }: Change<ReservationView>) {
        let now = self.world.reservations.get(&key);
        let slot_of = |view: &ReservationView| Some((view.provider()?, view.slot.as_ref()?.1));
        let mut marks = vec![Work::Reservation(key.clone())];
        for view in before.iter().chain(now) {
            marks.push(Work::Consumer(view.consumer.clone()));
            marks.extend(view.provider().map(Work::Provider));
        }
        match (before.as_ref().and_then(slot_of), now.and_then(slot_of)) {
            (_, Some((provider, slot))) => self.allocator.reserved(&provider, slot),
            (Some((provider, slot)), None) => self.allocator.unreserved(&provider, slot),
            (None, None) => {}
        }
        if let Some(before) = before
            && now.is_none_or(|view| view.meta.uid != before.meta.uid)
        {
            self.holds.remove(&before.meta.uid);
            self.forget_work(&Work::Reservation(key));
        }
        for work in marks {
            self.mark(work);
        }
    }

    fn provider_changed(&mut self, Change { key, before }: Change<ProviderView>) {
        let now = self.world.providers.get(&key).cloned();
        if self.roles.needs_sources() {
            let secrets =
                |view: &Option<ProviderView>| view.as_ref().map(ProviderView::secret_keys).unwrap_or_default();
            let (unwanted, wanted) = (secrets(&before), secrets(&now));
            unwanted.difference(&wanted).for_each(|secret| self.unwatch_source(&key, secret));
            wanted.into_iter().for_each(|secret| self.watch_source(&key, secret));
        }
        if let Some(before) = &before
            && now.as_ref().is_none_or(|view| view.meta.uid != before.meta.uid)
        {
            self.writes.remove(&before.meta.uid);
            self.forget_work(&Work::Provider(key.clone()));
            self.forget_work(&Work::Acknowledgement(key.clone()));
            self.forget_work(&Work::Verification(key.clone()));
            self.attempts.remove(&before.meta.uid);
        }
        self.refresh_logins(&key);
        self.refresh_pool(&key);
        // Status changes, of which there are many, change nothing for those who have a slot.
        let concerns_holders = match (&before, &now) {
            (Some(before), Some(now)) => {
                before.meta.uid != now.meta.uid
                    || before.meta.deleting != now.meta.deleting
                    || before.max_slots != now.max_slots
                    || before.status.phase != now.status.phase
                    || before.secret != now.secret
                    || before.slot_secrets != now.slot_secrets
            }
            _ => true,
        };
        if concerns_holders {
            self.mark_holders(&key);
        }
        self.mark(Work::Acknowledgement(key.clone()));
        self.mark(Work::Verification(key.clone()));
        self.mark(Work::Provider(key));
    }

    fn mark_holders(&mut self, provider: &ObjectKey) {
        // Highest slot first: the order in which they are evicted when `maxSlots` was lowered.
        let holders: Vec<_> =
            self.world.reservations_on(provider).rev().map(|(_, view)| view.consumer.clone()).collect();
        for consumer in holders {
            self.mark(Work::Consumer(consumer));
        }
    }

    /// Looks anew at who has the same credentials as a provider.
    fn refresh_logins(&mut self, key: &ObjectKey) {
        if !self.roles.needs_sources() {
            return;
        }
        let was_complete = self.world.logins.is_complete();
        let mut marks = self.world.refresh_logins(key);
        if !was_complete && self.world.logins.is_complete() {
            marks.extend(providers::with_condition(&self.world));
        }
        for provider in marks {
            self.mark(Work::Provider(provider));
        }
    }

    /// Tells the allocator what a provider offers now.
    pub(super) fn refresh_pool(&mut self, key: &ObjectKey) {
        let Some(provider) = self.world.providers.get(key) else {
            self.allocator.remove_pool(key);
            return;
        };
        let has_source = matches!(self.world.source(&provider.secret_key()), Source::Present(_));
        let held = has_source && provider.meta.finalizer.is_some() && !provider.meta.deleting;
        let usable = provider.is_usable() && held && verification::admits_users(&self.world, provider);
        let spec = PoolSpec {
            uid: provider.meta.uid.clone(),
            capacity: provider.max_slots,
            withheld: self.world.withheld(provider).map(|(slot, ..)| slot).collect(),
            keys: self.world.logins.of(key).map(device_keys).unwrap_or_default(),
            tags: provider.tags.clone(),
            namespaces: provider.namespaces.clone(),
            usable,
            verifiable: provider.verify.is_some() && held,
            current: provider.is_current(),
            why_not: if usable { String::new() } else { why_not_usable(&self.world, provider) },
        };
        self.allocator.set_pool(key.clone(), spec);
    }

    fn copy_changed(&mut self, Change { key, before }: Change<CopyView>) {
        let gone = self.world.copies.get(&key).is_none();
        for uid in before
            .iter()
            .chain(self.world.copies.get(&key))
            .filter_map(|view| view.consumer_uid.clone())
            .collect::<Vec<_>>()
        {
            let Some(consumer) = self.world.consumer_by_uid(&uid) else { continue };
            let was_its_copy = consumer.assigned.as_ref().is_some_and(|assigned| assigned.secret == key.name);
            let work = Work::Consumer(consumer.meta.key.clone());
            if was_its_copy && gone {
                self.progress.entry(uid.clone()).or_default().copy_gone = true;
            } else if let Some(progress) = self.progress.get_mut(&uid) {
                progress.copy_gone &= !was_its_copy;
            }
            if let Some(progress) = self.progress.get_mut(&uid) {
                progress.obstacle = None;
            }
            self.mark(work);
        }
    }

    fn watch_source(&mut self, provider: &ObjectKey, secret: ObjectKey) {
        let providers = self.sources.entry(secret.clone()).or_default();
        if providers.is_empty() {
            self.effects.push(Effect::WatchSecret(secret));
        }
        providers.insert(provider.clone());
    }

    fn unwatch_source(&mut self, provider: &ObjectKey, secret: &ObjectKey) {
        if let Some(providers) = self.sources.get_mut(secret)
            && providers.remove(provider)
            && providers.is_empty()
        {
            self.sources.remove(secret);
            self.world.sources.remove(secret);
            self.effects.push(Effect::UnwatchSecret(secret.clone()));
        }
    }

    /// The watch on one named Secret told what is there.
    pub(super) fn source_told(&mut self, key: ObjectKey, source: Option<SourceView>) {
        let Some(providers) = self.sources.get(&key) else { return };
        let changed = match (self.world.source(&key), &source) {
            (Source::Present(before), Some(now)) => before.hash != now.hash,
            (Source::Missing, None) => false,
            _ => true,
        };
        let providers: Vec<_> = providers.iter().cloned().collect();
        let source = source.map(|now| match self.world.source(&key) {
            Source::Present(before) if before.hash == now.hash => {
                SourceView { data_since: before.data_since.clone(), ..now }
            }
            _ => now,
        });
        self.world.sources.insert(key, source.map_or(Source::Missing, Source::Present));
        for provider in providers {
            self.refresh_logins(&provider);
            self.refresh_pool(&provider);
            if changed {
                self.mark_holders(&provider);
            }
            self.mark(Work::Verification(provider.clone()));
            self.mark(Work::Provider(provider));
        }
    }

    /// The watch on one named Secret failed. What it told before stays true until it tells otherwise.
    pub(super) fn source_unreadable(&mut self, key: &ObjectKey, why: Arc<str>) {
        let Some(providers) = self.sources.get(key) else { return };
        if matches!(self.world.source(key), Source::Unknown | Source::Unreadable(_)) {
            let providers: Vec<_> = providers.iter().cloned().collect();
            self.world.sources.insert(key.clone(), Source::Unreadable(why));
            for provider in providers {
                self.refresh_logins(&provider);
                self.refresh_pool(&provider);
                self.mark(Work::Provider(provider));
            }
        }
    }

    /// The watch on the Pods of a namespace told something.
    pub(super) fn pods_told(&mut self, namespace: Arc<str>, told: Told) {
        let Some(pods) = self.world.pods.get_mut(&namespace) else { return };
        let concerned: Vec<_> = match told {
            Told::ListBegan(_) => return pods.list_began(),
            Told::Listed(Object::Pod(pod)) => return pods.listed(pod),
            Told::ListEnded(_) => {
                pods.list_ended();
                self.followers.all(&namespace).cloned().collect()
            }
            Told::Applied(Object::Pod(pod)) => {
                let concerned = self.followers.concerned(&namespace, &pod);
                pods.applied(pod);
                concerned.into_iter().collect()
            }
            Told::Deleted(Object::Pod(pod)) => {
                pods.deleted(&pod);
                self.followers.concerned(&namespace, &pod).into_iter().collect()
            }
            Told::Listed(_) | Told::Applied(_) | Told::Deleted(_) => return,
        };
        for uid in concerned {
            if let Some(consumer) = self.world.consumer_by_uid(&uid) {
                let work = Work::Consumer(consumer.meta.key.clone());
                self.mark(work);
            }
        }
    }

    /// An object that cannot be decoded is passed over; its owner is told, once.
    pub(super) fn undecodable(&mut self, target: NoteTarget, error: String) {
        let (kind, key) = (target.kind, target.key.clone());
        let known = self.unreadable.get(&(kind, key.clone()));
        if known.is_none_or(|known| known.uid != target.uid || known.error != error) {
            self.unreadable.insert((kind, key.clone()), Unreadable { uid: target.uid, error, told: false });
            self.mark(Work::Unreadable(kind, key));
        }
    }

    /// Nothing of an object that is gone may hold back the next one of its name.
    fn forget_work(&mut self, work: &Work) {
        self.clear_timer(work);
        for lane in super::Lane::ALL {
            self.troubles.remove(&(work.clone(), lane));
        }
        self.unsure.remove(work);
    }
}

/// The keys of slots that log in as one device.
fn device_keys(logins: &Logins) -> DeviceKeys {
    let key = |login: &Option<Login>| login.as_ref().filter(|login| login.is_device).map(|login| login.fingerprint);
    let own = logins.own.iter().map(|(slot, login)| (*slot, key(login))).collect();
    DeviceKeys { common: key(&logins.common), own }
}
