use super::*;

#[derive(Clone, Debug, PartialEq)]
struct View(ObjectKey, Uid, u64);

impl Versioned for View {
    fn key(&self) -> &ObjectKey {
        &self.0
    }
    fn uid(&self) -> &Uid {
        &self.1
    }
    fn version(&self) -> u64 {
        self.2
    }
}

fn key(name: &str) -> ObjectKey {
    ObjectKey::new("ns", name)
}

fn view(name: &str, uid: &str, version: u64) -> View {
    View(key(name), Uid::from(uid), version)
}

fn version(store: &Store<View>, name: &str) -> Option<u64> {
    store.get(&key(name)).map(Versioned::version)
}

fn list(store: &mut Store<View>, views: &[View]) -> Vec<ObjectKey> {
    store.list_started();
    views.iter().cloned().for_each(|view| store.listed(view));
    store.list_completed().1
}

fn synced() -> Store<View> {
    let mut store = Store::default();
    let _ = list(&mut store, &[]);
    store
}

fn wrote(store: &mut Store<View>, view: View) -> Acknowledged {
    let sent = store.epoch();
    store.acknowledged(view, sent).0
}

#[test]
fn a_store_is_synced_when_the_first_list_is_complete() {
    let mut store = Store::<View>::default();
    store.list_started();
    store.listed(view("a", "1", 5));
    assert!(!store.is_synced() && store.is_empty());
    let (changes, _) = store.list_completed();
    assert!(store.is_synced() && changes.len() == 1 && version(&store, "a") == Some(5));
}

#[test]
fn a_write_is_visible_until_the_watch_has_passed_it() {
    let mut store = synced();
    assert_eq!(wrote(&mut store, view("a", "1", 9)), Acknowledged::Assumed);
    assert!(store.applied(view("a", "1", 7)).is_none());
    assert_eq!(version(&store, "a"), Some(9));
    assert!(store.applied(view("a", "1", 9)).is_none());
    assert!(store.applied(view("a", "1", 11)).is_some());
    assert_eq!(wrote(&mut store, view("a", "1", 10)), Acknowledged::Stale);
    assert_eq!(version(&store, "a"), Some(11));
}

#[test]
fn a_response_does_not_bring_back_what_the_watch_saw_deleted() {
    let mut store = synced();
    let _ = store.applied(view("a", "1", 5));
    assert!(store.deleted(&view("a", "1", 6)).is_some());
    assert_eq!(wrote(&mut store, view("a", "1", 5)), Acknowledged::Stale);
    assert!(store.is_empty());
}

#[test]
fn the_deletion_of_a_former_object_keeps_its_successor() {
    let mut store = synced();
    assert_eq!(wrote(&mut store, view("a", "2", 8)), Acknowledged::Assumed);
    assert!(store.deleted(&view("a", "1", 6)).is_none());
    assert_eq!(version(&store, "a"), Some(8));
}

#[test]
fn a_stale_watch_does_not_bring_back_what_a_write_deleted() {
    let mut store = synced();
    // Two objects with the same name, one after the other. Writes delete both, and the watch has delivered neither.
    for (uid, version) in [("1", 5), ("2", 9)] {
        wrote(&mut store, view("a", uid, version));
        assert!(store.removed(&key("a"), &Uid::from(uid)).is_some());
    }
    for event in [view("a", "1", 5), view("a", "1", 6)] {
        assert!(store.applied(event).is_none());
    }
    let _ = store.deleted(&view("a", "1", 7));
    assert!(store.applied(view("a", "2", 9)).is_none());
    let _ = store.deleted(&view("a", "2", 10));
    assert!(store.is_empty());
    assert!(store.tombstones.is_empty());
    assert!(store.applied(view("a", "3", 12)).is_some());
}

#[test]
fn a_list_replaces_what_was_written_before_it_started() {
    let mut store = synced();
    wrote(&mut store, view("gone", "1", 5));
    wrote(&mut store, view("older", "2", 9));
    let _ = store.removed(&key("older"), &Uid::from("2"));
    assert!(list(&mut store, &[view("a", "3", 4)]).is_empty());
    assert_eq!(version(&store, "gone"), None);
    assert_eq!(version(&store, "a"), Some(4));
    assert!(store.tombstones.is_empty());
}

#[test]
fn what_was_written_during_a_list_has_to_be_read_back() {
    let mut store = synced();
    store.list_started();
    wrote(&mut store, view("new", "1", 5));
    let (_, unconfirmed) = store.list_completed();
    assert_eq!(unconfirmed, [key("new")]);
    assert_eq!(version(&store, "new"), Some(5));
}

#[test]
fn a_response_to_a_request_sent_before_a_list_has_to_be_read_back() {
    let mut store = synced();
    let sent = store.epoch();
    let _ = list(&mut store, &[]);
    assert_eq!(store.acknowledged(view("new", "1", 5), sent).0, Acknowledged::Unconfirmed);
}

#[test]
fn a_response_to_a_request_sent_during_a_list_has_to_be_read_back() {
    let mut store = synced();
    store.list_started();
    let sent = store.epoch();
    // Created, and deleted by somebody else before the list: neither the list nor the watch contains it.
    let _ = store.list_completed();
    assert_eq!(store.acknowledged(view("new", "1", 5), sent).0, Acknowledged::Unconfirmed);
}
