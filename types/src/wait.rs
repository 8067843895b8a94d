//! Helpers for clients that need a slot.

use futures::{StreamExt, stream};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::runtime::{WatchStreamExt, watcher, watcher::watch_object};
use kube::{Api, Client, Resource};

use crate::{Mask, MaskConsumer, MaskConsumerPhase};

/// Why waiting for a slot ended without one.
#[derive(Debug, thiserror::Error)]
pub enum WaitError {
    /// The Mask does not exist.
    #[error("there is no such Mask")]
    MaskNotFound,

    /// The Mask was deleted or is being deleted, or another Mask with the same name has taken its place.
    #[error("the Mask was deleted")]
    MaskDeleted,

    /// The API server rejects the watch. The client needs `list` and `watch` on Masks and MaskConsumers. Other errors
    /// are retried.
    #[error("cannot watch: {0}")]
    Refused(#[source] Box<watcher::Error>),

    /// The watch ended.
    #[error("the watch ended")]
    Ended,
}

/// Waits until the `MaskConsumer` of a `Mask` is `Active`, and returns it. `status.provider.secret` is the name of the
/// Secret with the credentials. Set [`owner_reference_for`] the MaskConsumer on the Pods that use the Secret.
///
/// The Mask must exist. A MaskConsumer does not count if it is being deleted, or if it belongs to something else or to
/// an earlier Mask with the same name. The wait has no time limit; wrap it in a timeout if you need one.
///
/// ```no_run
/// # async fn example(client: kube::Client) -> Result<(), Box<dyn std::error::Error>> {
/// let wait = vpn_types::wait_active(client, "default", "my-mask");
/// let consumer = tokio::time::timeout(std::time::Duration::from_secs(60), wait).await??;
/// let owner = vpn_types::owner_reference_for(&consumer);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// If the Mask does not exist or is deleted meanwhile, and if the API server rejects the watch.
pub async fn wait_active(client: Client, namespace: &str, mask: &str) -> Result<MaskConsumer, WaitError> {
    let masks = watch_object(Api::<Mask>::namespaced(client.clone(), namespace), mask)
        .default_backoff()
        .map(|event| event.map(|mask| Seen::Mask(mask.map(Box::new))));
    let consumers = watch_object(Api::<MaskConsumer>::namespaced(client, namespace), mask)
        .default_backoff()
        .map(|event| event.map(|consumer| Seen::Consumer(consumer.map(Box::new))));
    let mut events = std::pin::pin!(stream::select(masks, consumers));

    let mut wait = Wait::default();
    while let Some(event) = events.next().await {
        match event {
            Ok(seen) => {
                if let Some(consumer) = wait.step(seen)? {
                    return Ok(consumer);
                }
            }
            Err(error) if is_refusal(&error) => return Err(WaitError::Refused(Box::new(error))),
            Err(_) => {}
        }
    }
    Err(WaitError::Ended)
}

/// The owner reference for a Pod that uses the slot of this `MaskConsumer`, or for the workload that creates such Pods.
/// When the slot is released, the operator deletes the Pod, and the slot is free only when the Pod is gone.
///
/// Pass a `MaskConsumer` from the API server. Without a UID, the API server rejects the reference.
#[must_use]
pub fn owner_reference_for(consumer: &MaskConsumer) -> OwnerReference {
    OwnerReference {
        api_version: MaskConsumer::api_version(&()).into_owned(),
        kind: MaskConsumer::kind(&()).into_owned(),
        name: consumer.metadata.name.clone().unwrap_or_default(),
        uid: consumer.metadata.uid.clone().unwrap_or_default(),
        controller: None,
        block_owner_deletion: Some(true),
    }
}

/// The latest state of one of the two objects.
enum Seen {
    Mask(Option<Box<Mask>>),
    Consumer(Option<Box<MaskConsumer>>),
}

/// What the watches have shown so far.
#[derive(Default)]
struct Wait {
    mask_uid: Option<String>,
    consumer: Option<Box<MaskConsumer>>,
}

impl Wait {
    fn step(&mut self, seen: Seen) -> Result<Option<MaskConsumer>, WaitError> {
        match seen {
            Seen::Mask(None) if self.mask_uid.is_none() => return Err(WaitError::MaskNotFound),
            Seen::Mask(None) => return Err(WaitError::MaskDeleted),
            Seen::Mask(Some(mask)) => {
                let another = self.mask_uid.is_some() && self.mask_uid != mask.metadata.uid;
                if another || mask.metadata.deletion_timestamp.is_some() {
                    return Err(WaitError::MaskDeleted);
                }
                self.mask_uid = mask.metadata.uid;
            }
            Seen::Consumer(consumer) => self.consumer = consumer,
        }
        let ours =
            |consumer: &mut Box<MaskConsumer>| self.mask_uid.as_deref().is_some_and(|uid| is_active(consumer, uid));
        Ok(self.consumer.take_if(ours).map(|consumer| *consumer))
    }
}

fn is_active(consumer: &MaskConsumer, mask_uid: &str) -> bool {
    let controlled = consumer
        .metadata
        .owner_references
        .iter()
        .flatten()
        .any(|owner| owner.controller == Some(true) && owner.uid == mask_uid);
    let status = consumer.status.as_ref();
    controlled
        && consumer.metadata.deletion_timestamp.is_none()
        && status.and_then(|s| s.phase) == Some(MaskConsumerPhase::Active)
        && status.is_some_and(|s| s.provider.is_some())
}

/// Whether a retry is useless: no permission, or the resource does not exist.
fn is_refusal(error: &watcher::Error) -> bool {
    let code = match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status))
        | watcher::Error::WatchFailed(kube::Error::Api(status))
        | watcher::Error::WatchError(status) => status.code,
        _ => return false,
    };
    matches!(code, 401 | 403 | 404)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn mask(uid: &str) -> Seen {
        Seen::Mask(Some(from(json!({"metadata": {"name": "m", "uid": uid}, "spec": {}}))))
    }

    fn consumer(owner: &str, phase: &str) -> Value {
        json!({
            "metadata": {
                "name": "m",
                "uid": "c1",
                "ownerReferences": [{
                    "apiVersion": "vpn.beebs.dev/v1", "kind": "Mask", "name": "m", "uid": owner, "controller": true,
                }],
            },
            "spec": {},
            "status": {"phase": phase, "provider": {
                "name": "p", "namespace": "n", "uid": "u", "slot": 0, "reservation": "r", "secret": "s",
            }},
        })
    }

    fn from<T: serde::de::DeserializeOwned>(value: Value) -> Box<T> {
        Box::new(serde_json::from_value(value).unwrap())
    }

    fn saw(value: Value) -> Seen {
        Seen::Consumer(Some(from(value)))
    }

    #[test]
    fn active_in_either_order() {
        let mut wait = Wait::default();
        assert!(wait.step(mask("m1")).unwrap().is_none());
        assert!(wait.step(Seen::Consumer(None)).unwrap().is_none());
        assert!(wait.step(saw(consumer("m1", "Waiting"))).unwrap().is_none());
        let consumer_seen = wait.step(saw(consumer("m1", "Active"))).unwrap().unwrap();
        assert_eq!(owner_reference_for(&consumer_seen).uid, "c1");
        assert_eq!(owner_reference_for(&consumer_seen).block_owner_deletion, Some(true));

        let mut wait = Wait::default();
        assert!(wait.step(saw(consumer("m1", "Active"))).unwrap().is_none());
        assert!(wait.step(mask("m1")).unwrap().is_some());
    }

    #[test]
    fn others_do_not_count() {
        let mut wait = Wait::default();
        assert!(wait.step(mask("m1")).unwrap().is_none());
        assert!(wait.step(saw(consumer("m0", "Active"))).unwrap().is_none());
        let mut terminating = consumer("m1", "Active");
        terminating["metadata"]["deletionTimestamp"] = json!("2030-01-01T00:00:00Z");
        assert!(wait.step(saw(terminating)).unwrap().is_none());
        let mut not_controlled = consumer("m1", "Active");
        not_controlled["metadata"]["ownerReferences"][0]["controller"] = json!(false);
        assert!(wait.step(saw(not_controlled)).unwrap().is_none());
        assert!(wait.step(saw(consumer("m1", "Active"))).unwrap().is_some());
    }

    #[test]
    fn a_mask_that_goes() {
        let gone = || Seen::Mask(None);
        assert!(matches!(Wait::default().step(gone()), Err(WaitError::MaskNotFound)));

        let mut wait = Wait::default();
        assert!(wait.step(mask("m1")).unwrap().is_none());
        assert!(matches!(wait.step(gone()), Err(WaitError::MaskDeleted)));

        let mut wait = Wait::default();
        assert!(wait.step(mask("m1")).unwrap().is_none());
        assert!(matches!(wait.step(mask("m2")), Err(WaitError::MaskDeleted)));
    }
}
