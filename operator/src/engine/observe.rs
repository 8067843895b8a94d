//! Takes in what the watches tell, and marks the work that it may change.

use std::sync::Arc;

use super::{Engine, LogEvent, Unreadable};
use crate::{
    allocator::{DeviceKeys, PoolSpec},
    controllers::{
        providers::{self, why_not_usable},
        verification,
    },
    model::{Kind, ObjectKey, Uid},
    state::{
        Change, ConsumerView, CopyView, Login, Logins, Object, ProviderView, ReservationView, Source, SourceView,
        StoreChange, VerificationPod,
    },
};
use crate::{
    model::{Effect, ObjectReference, ReconcileRequest},
    state::WatchEvent,
};

impl Engine {
    /// A watch on a whole kind told something.
    pub(super) fn told(&mut self, told: WatchEvent) {
        let state = &mut self.state;
        let touched = match told {
            WatchEvent::Init(kind) => {
                match kind {
                    Kind::Mask => state.masks.list_began(),
                    Kind::Consumer => state.consumers.list_began(),
                    Kind::Reservation => state.reservations.list_began(),
                    Kind::Provider => state.providers.list_began(),
                    Kind::Secret => state.copies.list_began(),
                    Kind::Pod => state.verification_pods.list_began(),
                }
                None
            }
            WatchEvent::InitApply(object) => {
                match object {
                    Object::Mask(view) => state.masks.listed(view),
                    Object::Consumer(view) => state.consumers.listed(view),
                    Object::Reservation(view) => state.reservations.listed(view),
                    Object::Provider(view) => state.providers.listed(view),
                    Object::Copy(view) => state.copies.listed(view),
                    Object::VerificationPod(view) => state.verification_pods.listed(*view),
                    Object::Pod(_) => {}
                }
                None
            }
            WatchEvent::InitDone(kind) => return self.list_ended(kind),
            WatchEvent::Apply(object) => match object {
                Object::Mask(view) => state.masks.applied(view).map(StoreChange::Mask),
                Object::Consumer(view) => state.consumers.applied(view).map(StoreChange::Consumer),
                Object::Reservation(view) => state.reservations.applied(view).map(StoreChange::Reservation),
                Object::Provider(view) => state.providers.applied(view).map(StoreChange::Provider),
                Object::Copy(view) => state.copies.applied(view).map(StoreChange::Copy),
                Object::VerificationPod(view) => {
                    state.verification_pods.applied(*view).map(StoreChange::VerificationPod)
                }
                Object::Pod(_) => None,
            },
            WatchEvent::Delete(object) => match object {
                Object::Mask(view) => state.masks.deleted(&view).map(StoreChange::Mask),
                Object::Consumer(view) => state.consumers.deleted(&view).map(StoreChange::Consumer),
                Object::Reservation(view) => state.reservations.deleted(&view).map(StoreChange::Reservation),
                Object::Provider(view) => state.providers.deleted(&view).map(StoreChange::Provider),
                Object::Copy(view) => state.copies.deleted(&view).map(StoreChange::Copy),
                Object::VerificationPod(view) => {
                    state.verification_pods.deleted(&view).map(StoreChange::VerificationPod)
                }
                Object::Pod(_) => None,
            },
        };
        if let Some(touched) = touched {
            self.touched(touched);
        }
    }

    fn list_ended(&mut self, kind: Kind) {
        fn wrap<V>(changes: Vec<Change<V>>, of: fn(Change<V>) -> StoreChange) -> Vec<StoreChange> {
            changes.into_iter().map(of).collect()
        }
        let state = &mut self.state;
        let (touched, doubtful) = match kind {
            Kind::Mask => {
                let (changes, doubtful) = state.masks.list_ended();
                (wrap(changes, StoreChange::Mask), doubtful)
            }
            Kind::Consumer => {
                let (changes, doubtful) = state.consumers.list_ended();
                (wrap(changes, StoreChange::Consumer), doubtful)
            }
            Kind::Reservation => {
                let (changes, doubtful) = state.reservations.list_ended();
                (wrap(changes, StoreChange::Reservation), doubtful)
            }
            Kind::Provider => {
                let (changes, doubtful) = state.providers.list_ended();
                (wrap(changes, StoreChange::Provider), doubtful)
            }
            Kind::Secret => {
                let (changes, doubtful) = state.copies.list_ended();
                (wrap(changes, StoreChange::Copy), doubtful)
            }
            Kind::Pod => {
                let (changes, doubtful) = state.verification_pods.list_ended();
                (wrap(changes, StoreChange::VerificationPod), doubtful)
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
        let work = ReconcileRequest::Read(kind, key.clone());
        self.unsure.insert(work.clone(), (kind, key));
        self.mark(work);
    }

    /// A store changed: updates what is derived from it, and marks the work that it may change.
    pub(super) fn touched(&mut self, touched: StoreChange) {
        self.state.reindex(&touched);
        match touched {
            StoreChange::Mask(Change { key, .. }) => self.mark_mask(key),
            StoreChange::Consumer(change) => self.consumer_changed(change),
            StoreChange::Reservation(change) => self.reservation_changed(change),
            StoreChange::Provider(change) => self.provider_changed(change),
            StoreChange::Copy(change) => self.copy_changed(change),
            StoreChange::VerificationPod(change) => self.verification_pod_changed(change),
        }
    }

    fn verification_pod_changed(&mut self, Change { key, before }: Change<VerificationPod>) {
        let uid = self.state.verification_pods.get(&key).map(|pod| &pod.meta.uid);
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
            && self.state.providers.get(&provider).is_some()
        {
            self.mark(ReconcileRequest::Verification(provider));
        }
    }

    /// The log of a verification Pod told something.
    pub(super) fn log_told(&mut self, uid: &Uid, told: LogEvent) {
        let Some((_, log)) = self.logs.get_mut(uid) else { return };
        match told {
            LogEvent::Queue(line) => log.digest.push(&line),
            LogEvent::Ended => log.ended = true,
            LogEvent::Unreadable(why) => (log.ended, log.unreadable) = (true, Some(why)),
        }
        let pod = self.state.verification_pods.values().find(|pod| pod.meta.uid == *uid);
        if let Some(key) = pod.map(|pod| pod.meta.key.clone()) {
            self.mark_verification(&key);
        }
    }

    fn mark_mask(&mut self, key: ObjectKey) {
        if self.state.masks.get(&key).is_none() && self.state.consumers.get(&key).is_none() {
            self.forget_work(&ReconcileRequest::Mask(key.clone()));
        }
        self.mark_verification(&key);
        self.mark(ReconcileRequest::Mask(key));
    }

    fn consumer_changed(&mut self, Change { key, before }: Change<ConsumerView>) {
        let assigned = self.state.consumers.get(&key).and_then(|view| view.assigned.clone());
        let assigned_before = before.as_ref().and_then(|view| view.assigned.clone());
        if let (Some(_), None, Some(before)) = (&assigned, &assigned_before, &before) {
            self.counters.assigned.push(before.meta.created);
        }
        // The new holder first, so that a slot that stays with it is never free in between.
        if let Some(assigned) = &assigned {
            self.allocator.committed(&assigned.provider, assigned.slot);
        }
        if let Some(assigned) = &assigned_before {
            self.allocator.uncommitted(&assigned.provider, assigned.slot);
        }
        let deleting = |view: &ConsumerView| view.meta.deleting;
        if before.as_ref().is_some_and(|view| !deleting(view)) && self.state.consumers.get(&key).is_some_and(deleting) {
            // What was refused before is not what the release asks for.
            self.forget_work(&ReconcileRequest::Consumer(key.clone()));
        }
        let now = self.state.consumers.get(&key).map(|view| view.meta.uid.clone());
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
            self.forget_work(&ReconcileRequest::Consumer(key.clone()));
        }
        for uid in uids {
            let reservations: Vec<_> = self.state.reservations_of(&uid).map(|view| view.meta.key.clone()).collect();
            for reservation in reservations {
                self.mark(ReconcileRequest::Reservation(reservation));
            }
        }
        self.mark_mask(key.clone());
        self.mark(ReconcileRequest::Consumer(key));
    }

    /// Ends the watch on a namespace's Pods once no release there needs it.
    fn end_follow(&mut self, key: &ObjectKey, uid: &Uid) {
        if self.followers.end(key, uid) {
            self.state.pods.remove(&key.namespace);
            self.forget_work(&ReconcileRequest::PodList(key.namespace.clone()));
            self.effects.push(Effect::UnwatchPods(key.namespace.clone()));
        }
    }

    fn reservation_changed(&mut self, Change { key, before }: Change<ReservationView>) {
        let now = self.state.reservations.get(&key);
        let slot_of = |view: &ReservationView| Some((view.provider()?, view.slot.as_ref()?.1));
        let mut marks = vec![ReconcileRequest::Reservation(key.clone())];
        for view in before.iter().chain(now) {
            marks.push(ReconcileRequest::Consumer(view.consumer.clone()));
            marks.extend(view.provider().map(ReconcileRequest::Provider));
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
            self.forget_work(&ReconcileRequest::Reservation(key));
        }
        for work in marks {
            self.mark(work);
        }
    }

    fn provider_changed(&mut self, Change { key, before }: Change<ProviderView>) {
        let now = self.state.providers.get(&key).cloned();
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
            self.forget_work(&ReconcileRequest::Provider(key.clone()));
            self.forget_work(&ReconcileRequest::Acknowledgement(key.clone()));
            self.forget_work(&ReconcileRequest::Verification(key.clone()));
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
        self.mark(ReconcileRequest::Acknowledgement(key.clone()));
        self.mark(ReconcileRequest::Verification(key.clone()));
        self.mark(ReconcileRequest::Provider(key));
    }

    fn mark_holders(&mut self, provider: &ObjectKey) {
        // Highest slot first: the order in which they are evicted when `maxSlots` was lowered.
        let holders: Vec<_> =
            self.state.reservations_on(provider).rev().map(|(_, view)| view.consumer.clone()).collect();
        for consumer in holders {
            self.mark(ReconcileRequest::Consumer(consumer));
        }
    }

    /// Looks anew at who has the same credentials as a provider.
    fn refresh_logins(&mut self, key: &ObjectKey) {
        if !self.roles.needs_sources() {
            return;
        }
        let was_complete = self.state.logins.is_complete();
        let mut marks = self.state.refresh_logins(key);
        if !was_complete && self.state.logins.is_complete() {
            marks.extend(providers::with_condition(&self.state));
        }
        for provider in marks {
            self.mark(ReconcileRequest::Provider(provider));
        }
    }

    /// Tells the allocator what a provider offers now.
    pub(super) fn refresh_pool(&mut self, key: &ObjectKey) {
        let Some(provider) = self.state.providers.get(key) else {
            self.allocator.remove_pool(key);
            return;
        };
        let has_source = matches!(self.state.source(&provider.secret_key()), Source::Present(_));
        let held = has_source && provider.meta.finalizer.is_some() && !provider.meta.deleting;
        let usable = provider.is_usable() && held && verification::admits_users(&self.state, provider);
        let spec = PoolSpec {
            uid: provider.meta.uid.clone(),
            capacity: provider.max_slots,
            withheld: self.state.withheld(provider).map(|(slot, ..)| slot).collect(),
            keys: self.state.logins.of(key).map(device_keys).unwrap_or_default(),
            tags: provider.tags.clone(),
            namespaces: provider.namespaces.clone(),
            usable,
            verifiable: provider.verify.is_some() && held,
            current: provider.is_current(),
            why_not: if usable { String::new() } else { why_not_usable(&self.state, provider) },
        };
        self.allocator.set_pool(key.clone(), spec);
    }

    fn copy_changed(&mut self, Change { key, before }: Change<CopyView>) {
        let gone = self.state.copies.get(&key).is_none();
        for uid in before
            .iter()
            .chain(self.state.copies.get(&key))
            .filter_map(|view| view.consumer_uid.clone())
            .collect::<Vec<_>>()
        {
            let Some(consumer) = self.state.consumer_by_uid(&uid) else { continue };
            let was_its_copy = consumer.assigned.as_ref().is_some_and(|assigned| assigned.secret == key.name);
            let work = ReconcileRequest::Consumer(consumer.meta.key.clone());
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
            self.state.sources.remove(secret);
            self.effects.push(Effect::UnwatchSecret(secret.clone()));
        }
    }

    /// The watch on one named Secret told what is there.
    pub(super) fn source_told(&mut self, key: ObjectKey, source: Option<SourceView>) {
        let Some(providers) = self.sources.get(&key) else { return };
        let changed = match (self.state.source(&key), &source) {
            (Source::Present(before), Some(now)) => before.hash != now.hash,
            (Source::Missing, None) => false,
            _ => true,
        };
        let providers: Vec<_> = providers.iter().cloned().collect();
        let source = source.map(|now| match self.state.source(&key) {
            Source::Present(before) if before.hash == now.hash => {
                SourceView { data_since: before.data_since.clone(), ..now }
            }
            _ => now,
        });
        self.state.sources.insert(key, source.map_or(Source::Missing, Source::Present));
        for provider in providers {
            self.refresh_logins(&provider);
            self.refresh_pool(&provider);
            if changed {
                self.mark_holders(&provider);
            }
            self.mark(ReconcileRequest::Verification(provider.clone()));
            self.mark(ReconcileRequest::Provider(provider));
        }
    }

    /// The watch on one named Secret failed. What it told before stays true until it tells otherwise.
    pub(super) fn source_unreadable(&mut self, key: &ObjectKey, why: Arc<str>) {
        let Some(providers) = self.sources.get(key) else { return };
        if matches!(self.state.source(key), Source::Unknown | Source::Unreadable(_)) {
            let providers: Vec<_> = providers.iter().cloned().collect();
            self.state.sources.insert(key.clone(), Source::Unreadable(why));
            for provider in providers {
                self.refresh_logins(&provider);
                self.refresh_pool(&provider);
                self.mark(ReconcileRequest::Provider(provider));
            }
        }
    }

    /// The watch on the Pods of a namespace told something.
    pub(super) fn pods_told(&mut self, namespace: Arc<str>, told: WatchEvent) {
        let Some(pods) = self.state.pods.get_mut(&namespace) else { return };
        let concerned: Vec<_> = match told {
            WatchEvent::Init(_) => return pods.list_began(),
            WatchEvent::InitApply(Object::Pod(pod)) => return pods.listed(pod),
            WatchEvent::InitDone(_) => {
                pods.list_ended();
                self.followers.all(&namespace).cloned().collect()
            }
            WatchEvent::Apply(Object::Pod(pod)) => {
                let concerned = self.followers.concerned(&namespace, &pod);
                pods.applied(pod);
                concerned.into_iter().collect()
            }
            WatchEvent::Delete(Object::Pod(pod)) => {
                pods.deleted(&pod);
                self.followers.concerned(&namespace, &pod).into_iter().collect()
            }
            WatchEvent::InitApply(_) | WatchEvent::Apply(_) | WatchEvent::Delete(_) => return,
        };
        for uid in concerned {
            if let Some(consumer) = self.state.consumer_by_uid(&uid) {
                let work = ReconcileRequest::Consumer(consumer.meta.key.clone());
                self.mark(work);
            }
        }
    }

    /// An object that cannot be decoded is passed over; its owner is told, once.
    pub(super) fn undecodable(&mut self, target: ObjectReference, error: String) {
        let (kind, key) = (target.kind, target.key.clone());
        let known = self.unreadable.get(&(kind, key.clone()));
        if known.is_none_or(|known| known.uid != target.uid || known.error != error) {
            self.unreadable.insert((kind, key.clone()), Unreadable { uid: target.uid, error, told: false });
            self.mark(ReconcileRequest::Unreadable(kind, key));
        }
    }

    /// Nothing of an object that is gone may hold back the next one of its name.
    fn forget_work(&mut self, work: &ReconcileRequest) {
        self.clear_timer(work);
        for lane in super::RequestPriority::ALL {
            self.backoffs.remove(&(work.clone(), lane));
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
