//! The garbage collector: each step is one object looked at with what is stored at that moment.

use serde_json::json;
use vpn_operator::model::{Kind, ObjectKey};

use crate::server::{FOREGROUND, ORPHAN, Server, finalizers, is_deleting, owners, uid_of};

/// What there is to do for one object.
#[derive(Clone, Debug, PartialEq)]
pub enum Chore {
    /// No owner holds it: delete, `foreground` when it has dependents and its owner waits for them.
    Collect { foreground: bool },
    /// Some owner holds it: the references to those that do not are taken away.
    Strip(Vec<String>),
    /// No dependent blocks it any more.
    EndForeground,
    /// Dependents have to lose their references first.
    Orphan,
}

fn dependents<'a>(server: &'a Server, uid: &'a str) -> impl Iterator<Item = (&'a (Kind, ObjectKey), bool)> {
    server.objects.iter().filter_map(move |(id, value)| {
        let (_, blocks) = owners(value).into_iter().find(|(owner, _)| owner == uid)?;
        Some((id, blocks))
    })
}

/// What there is to do for that object.
pub fn chore(server: &Server, id: &(Kind, ObjectKey)) -> Option<Chore> {
    let object = server.objects.get(id)?;
    let names = finalizers(object);
    if is_deleting(object) && names.iter().any(|name| name == FOREGROUND) {
        let blocked = dependents(server, uid_of(object)).any(|(_, blocks)| blocks);
        return (!blocked).then_some(Chore::EndForeground);
    }
    if is_deleting(object) {
        return names.iter().any(|name| name == ORPHAN).then_some(Chore::Orphan);
    }
    let owners = owners(object);
    if owners.is_empty() {
        return None;
    }
    let (mut solid, mut loose, mut waiting) = (0, Vec::new(), false);
    for (uid, _) in owners {
        match server.by_uid(&uid) {
            None => loose.push(uid),
            Some((_, owner)) if is_deleting(owner) && finalizers(owner).iter().any(|name| name == FOREGROUND) => {
                waiting = true;
                loose.push(uid);
            }
            Some(_) => solid += 1,
        }
    }
    match (solid, loose.is_empty()) {
        (_, true) => None,
        (0, false) => {
            let foreground = waiting && dependents(server, uid_of(object)).next().is_some();
            Some(Chore::Collect { foreground })
        }
        (_, false) => Some(Chore::Strip(loose)),
    }
}

/// Everything there is to do.
pub fn chores(server: &Server) -> Vec<(Kind, ObjectKey)> {
    server.objects.keys().filter(|id| chore(server, id).is_some()).cloned().collect()
}

fn strip(server: &mut Server, (kind, key): &(Kind, ObjectKey), uids: &[String]) {
    let Some(object) = server.get(*kind, key) else { return };
    let mut refs = object["metadata"]["ownerReferences"].as_array().cloned().unwrap_or_default();
    refs.retain(|owner| !uids.iter().any(|uid| owner["uid"] == json!(uid)));
    let refs = if refs.is_empty() { json!(null) } else { json!(refs) };
    server.merge(*kind, key, &json!({"metadata": {"ownerReferences": refs}}), false).unwrap();
}

fn drop_finalizer(server: &mut Server, (kind, key): &(Kind, ObjectKey), name: &str) {
    let Some(object) = server.get(*kind, key) else { return };
    let left: Vec<_> = finalizers(object).into_iter().filter(|finalizer| finalizer != name).collect();
    let left = if left.is_empty() { json!(null) } else { json!(left) };
    server.merge(*kind, key, &json!({"metadata": {"finalizers": left}}), false).unwrap();
}

/// Does what there is to do for that object.
pub fn step(server: &mut Server, id: &(Kind, ObjectKey)) {
    let Some(chore) = chore(server, id) else { return };
    match chore {
        Chore::Collect { foreground } => {
            let how = if foreground { FOREGROUND } else { "Background" };
            server.delete(id.0, &id.1, None, None, Some(how)).unwrap();
        }
        Chore::Strip(uids) => strip(server, id, &uids),
        Chore::EndForeground => drop_finalizer(server, id, FOREGROUND),
        Chore::Orphan => {
            let uid = uid_of(&server.objects[id]).to_owned();
            let all: Vec<_> = dependents(server, &uid).map(|(id, _)| id.clone()).collect();
            for dependent in all {
                strip(server, &dependent, std::slice::from_ref(&uid));
            }
            drop_finalizer(server, id, ORPHAN);
        }
    }
}
