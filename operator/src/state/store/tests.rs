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
    store.list_began();
    views.iter().cloned().for_each(|view| store.listed(view));
    store.list_ended().1
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
fn nothing_is_synced_before_the_first_list_is_complete() {
    let mut store = Store::<View>::default();
    store.list_began();
    store.listed(view("a", "1", 5));
    assert!(!store.is_synced() && store.is_empty());
    let (changes, _) = store.list_ended();
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
    assert_eq!(wrote(&mut store, view("a", "1", 10)), Acknowledged::Passed);
    assert_eq!(version(&store, "a"), Some(11));
}

#[test]
fn an_answer_does_not_bring_back_what_the_watch_saw_go() {
    let mut store = synced();
    let _ = store.applied(view("a", "1", 5));
    assert!(store.deleted(&view("a", "1", 6)).is_some());
    assert_eq!(wrote(&mut store, view("a", "1", 5)), Acknowledged::Passed);
    assert!(store.is_empty());
}

#[test]
fn the_deletion_of_a_former_object_leaves_its_successor() {
    let mut store = synced();
    assert_eq!(wrote(&mut store, view("a", "2", 8)), Acknowledged::Assumed);
    assert!(store.deleted(&view("a", "1", 6)).is_none());
    assert_eq!(version(&store, "a"), Some(8));
}

#[test]
fn what_our_write_removed_is_not_brought_back_by_a_late_watch() {
    let mut store = synced();
    // Two objects of one name, one after the other, both removed by us, while the watch has told of neither.
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
    assert!(store.buried.is_empty());
    assert!(store.applied(view("a", "3", 12)).is_some());
}

#[test]
fn a_list_forgets_what_was_written_before_it_began() {
    let mut store = synced();
    wrote(&mut store, view("gone", "1", 5));
    wrote(&mut store, view("older", "2", 9));
    let _ = store.removed(&key("older"), &Uid::from("2"));
    assert!(list(&mut store, &[view("a", "3", 4)]).is_empty());
    assert_eq!(version(&store, "gone"), None);
    assert_eq!(version(&store, "a"), Some(4));
    assert!(store.buried.is_empty());
}

#[test]
fn what_was_written_while_a_list_was_made_has_to_be_read_back() {
    let mut store = synced();
    store.list_began();
    wrote(&mut store, view("new", "1", 5));
    let (_, doubtful) = store.list_ended();
    assert_eq!(doubtful, [key("new")]);
    assert_eq!(version(&store, "new"), Some(5));
}

#[test]
fn an_answer_to_what_was_sent_before_a_list_began_has_to_be_read_back() {
    let mut store = synced();
    let sent = store.epoch();
    let _ = list(&mut store, &[]);
    assert_eq!(store.acknowledged(view("new", "1", 5), sent).0, Acknowledged::Doubtful);
}

#[test]
fn an_answer_to_what_was_sent_while_a_list_was_made_has_to_be_read_back() {
    let mut store = synced();
    store.list_began();
    let sent = store.epoch();
    // Created and removed by somebody else before the list was read: neither the list nor the watch tells of it.
    let _ = store.list_ended();
    assert_eq!(store.acknowledged(view("new", "1", 5), sent).0, Acknowledged::Doubtful);
}
