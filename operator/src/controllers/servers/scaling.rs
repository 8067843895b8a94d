//! The clients of replicas, and which replicas go first when a server gets fewer of them.
//!
//! Invariant: for that, the replicas are counted once for each change of the server. One that does not answer delays
//! nothing.

use serde_json::json;
use vpn_types::DELETION_COST_ANNOTATION;

use super::context::ServersContext;
use crate::{
    model::{Kind, ObjectKey, Operation, Replica, Step, Uid},
    state::{ClusterState, ServerPodView, ServerView},
};

impl ServersContext<'_> {
    /// Before a Deployment is scaled down, sets each replica's deletion cost to its number of clients. The ReplicaSet
    /// controller deletes the replica with the lowest cost first (KEP-2255).
    pub fn rank_replicas(&self, server: &ServerView) -> Step {
        let replicas = || self.state.server_pods_of(&server.meta.key).filter(|pod| !pod.ended && !pod.meta.deleting);
        let wanted = server.spec.replicas.and_then(|wanted| usize::try_from(wanted).ok());
        if wanted.is_none_or(|wanted| wanted == 0 || replicas().count() <= wanted) {
            return Step::Idle;
        }
        let counted = self.memory.counted.get(&server.meta.uid);
        let Some((_, clients)) = counted.filter(|(generation, _)| *generation == server.meta.generation) else {
            let asked = replicas().filter(|pod| pod.ready).filter_map(replica).collect();
            return Step::maintain(Operation::CountClients(server.meta.key.clone(), asked));
        };
        let cost = |pod: &ServerPodView| {
            let cost = i32::try_from(*clients.get(&pod.meta.uid)?).unwrap_or(i32::MAX);
            (pod.deletion_cost != Some(cost)).then_some(cost)
        };
        let Some((pod, cost)) = replicas().find_map(|pod| Some((pod, cost(pod)?))) else { return Step::Idle };
        let patch = json!({"metadata": {
            "uid": pod.meta.uid.as_str(), "annotations": {DELETION_COST_ANNOTATION: cost.to_string()},
        }});
        Step::maintain(Operation::Patch(Kind::ServerPod, pod.meta.key.clone(), patch))
    }
}

/// Returns the replicas of each server that may have clients, with the UID of the server. One that is being deleted has
/// them until it is gone.
pub fn replicas_by_server(state: &ClusterState) -> Vec<(ObjectKey, Uid, Vec<Replica>)> {
    let of_server = |server: &ServerView| {
        let pods = state.server_pods_of(&server.meta.key).filter(|pod| pod.ready && !pod.ended);
        (server.meta.key.clone(), server.meta.uid.clone(), pods.filter_map(replica).collect())
    };
    state.servers.values().filter(|server| !server.meta.deleting).map(of_server).collect()
}

fn replica(pod: &ServerPodView) -> Option<Replica> {
    let address = pod.address.as_deref()?.parse().ok()?;
    Some(Replica { pod: pod.meta.key.clone(), uid: pod.meta.uid.clone(), address })
}
