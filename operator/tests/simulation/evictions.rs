//! Invariant I11: Pods of older revisions are evicted one at a time.

use serde_json::{Value, json};
use vpn_operator::model::{Kind, ObjectKey};

use crate::{
    metadata::{is_deleting, uid_of},
    pods,
    run::Sim,
    server::Event,
};

/// An eviction that the API server has accepted.
pub struct Eviction {
    /// The UID of the Deployment.
    deployment: String,
    pub pod: ObjectKey,
    uid: String,
    /// The UID of the MaskConsumer whose slot the Pod had.
    consumer: String,
    /// Its reservation, unless Pods share the Mask.
    reservation: Option<ObjectKey>,
    /// The number of changes until then.
    at: usize,
}

impl Eviction {
    /// Whether another Pod has got the slot, or may still be about to.
    fn is_complete(&self, sim: &Sim) -> bool {
        let is_for_another = |event: &Event| {
            let last = &event.last;
            match &self.reservation {
                Some(key) => {
                    let meta = &last["metadata"];
                    let is_same = meta["name"] == *key.name && meta["namespace"] == *key.namespace;
                    event.kind == Kind::Reservation && is_same && last["spec"]["uid"] != json!(self.consumer)
                }
                None => {
                    let user = last["status"]["pod"]["uid"].as_str();
                    uid_of(last) == self.consumer && user.is_some_and(|user| user != self.uid)
                }
            }
        };
        let is_gone = || sim.server.by_uid(&self.uid).is_none();
        sim.server.log[self.at..].iter().any(is_for_another) || (sim.late_handovers && is_gone())
    }
}

/// Checks an eviction that the API server has just accepted. `before` is the Pod before it.
pub fn accepted(sim: &mut Sim, key: &ObjectKey, before: &Value) -> Result<(), String> {
    // Evicted again.
    if is_deleting(before) {
        return Ok(());
    }
    let owner = sim.server.deployments.iter().find_map(|one| Some((one, one.owner(before)?)));
    let Some((deployment, set)) = owner else { return Err(format!("I11: nothing replaces Pod {key}")) };
    if set.uid == deployment.newest().uid {
        return Err(format!("I11: Pod {key} is evicted, and belongs to the newest revision"));
    }
    let slot = pods::injected(before).and_then(|injected| {
        let mask = ObjectKey::new(&*key.namespace, injected.mask.as_ref().unwrap_or(&injected.secret));
        let consumer = sim.server.get(Kind::Consumer, &mask)?;
        let holds = consumer["status"]["provider"]["secret"] == json!(injected.secret);
        holds.then(|| (uid_of(consumer).to_owned(), injected.mask.is_some()))
    });
    let Some((consumer, shares)) = slot else { return Err(format!("I11: Pod {key} is evicted, and has no slot")) };
    let reservation = sim.server.of_kind(Kind::Reservation).find(|(_, one)| one["spec"]["uid"] == json!(consumer));
    let reservation = reservation.map(|(key, _)| key.clone()).filter(|_| !shares);
    let deployment = deployment.uid.clone();
    let earlier = sim.evictions.iter().filter(|one| one.deployment == deployment);
    if let Some(earlier) = earlier.into_iter().find(|one| !one.is_complete(sim)) {
        return Err(format!("I11: Pod {key} is evicted before the slot of Pod {} has another Pod", earlier.pod));
    }
    let (pod, uid, at) = (key.clone(), uid_of(before).to_owned(), sim.server.log.len());
    sim.evictions.push(Eviction { deployment, pod, uid, consumer, reservation, at });
    Ok(())
}
