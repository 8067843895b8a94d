//! The garbage collector. Each step handles one object, based on what is stored at that moment.

use serde_json::json;
use vpn_operator::model::{Kind, ObjectKey};

use crate::{
    metadata::{finalizers, is_deleting, owners, uid_of},
    server::{FOREGROUND, ORPHAN, Server},
};

/// What the garbage collector does with an object.
#[derive(Clone, Debug, PartialEq)]
pub enum GcTask {
    /// Delete it, because it has no owner any more; `foreground` if it has dependents and its owner waits for them.
    Collect { foreground: bool },
    /// Remove the references to these owners, because it still has another one.
    Strip(Vec<String>),
    /// Remove the finalizer, because no dependent blocks its deletion.
    EndForeground,
    /// Remove the references of its dependents, and then the finalizer.
    Orphan,
}

fn dependents<'a>(server: &'a Server, uid: &'a str) -> impl Iterator<Item = (&'a (Kind, ObjectKey), bool)> {
    server.objects.iter().filter_map(move |(id, value)| {
        let (_, blocks) = owners(value).into_iter().find(|(owner, _)| owner == uid)?;
        Some((id, blocks))
    })
}

/// Returns what to do with an object.
pub fn task(server: &Server, id: &(Kind, ObjectKey)) -> Option<GcTask> {
    let object = server.objects.get(id)?;
    let names = finalizers(object);
    if is_deleting(object) && names.iter().any(|name| name == FOREGROUND) {
        let blocked = dependents(server, uid_of(object)).any(|(_, blocks)| blocks);
        return (!blocked).then_some(GcTask::EndForeground);
    }
    if is_deleting(object) {
        return names.iter().any(|name| name == ORPHAN).then_some(GcTask::Orphan);
    }
    let owners = owners(object);
    if owners.is_empty() {
        return None;
    }
    let (mut solid, mut loose, mut waiting) = (0, Vec::new(), false);
    for (uid, _) in owners {
        match server.by_uid(&uid) {
            None if server.deployments.iter().any(|one| one.replica_sets.iter().any(|set| set.uid == uid)) => {
                solid += 1
            }
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
            Some(GcTask::Collect { foreground })
        }
        (_, false) => Some(GcTask::Strip(loose)),
    }
}

/// Returns all objects with something to do.
pub fn tasks(server: &Server) -> Vec<(Kind, ObjectKey)> {
    server.objects.keys().filter(|id| task(server, id).is_some()).cloned().collect()
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

/// Handles an object.
pub fn step(server: &mut Server, id: &(Kind, ObjectKey)) {
    let Some(task) = task(server, id) else { return };
    match task {
        GcTask::Collect { foreground } => {
            let how = if foreground { FOREGROUND } else { "Background" };
            server.delete(id.0, &id.1, None, None, Some(how), None).unwrap();
        }
        GcTask::Strip(uids) => strip(server, id, &uids),
        GcTask::EndForeground => drop_finalizer(server, id, FOREGROUND),
        GcTask::Orphan => {
            let uid = uid_of(&server.objects[id]).to_owned();
            let all: Vec<_> = dependents(server, &uid).map(|(id, _)| id.clone()).collect();
            for dependent in all {
                strip(server, &dependent, std::slice::from_ref(&uid));
            }
            drop_finalizer(server, id, ORPHAN);
        }
    }
}
