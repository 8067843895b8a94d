//! The watches. They project each object to its view. An object that cannot be decoded is logged and skipped, and does
//! not affect others.

use std::{fmt::Debug, sync::Arc};

use futures::{Stream, StreamExt};
use k8s_openapi::{
    NamespaceResourceScope,
    api::{
        apps::v1::Deployment,
        core::v1::{ConfigMap, Pod, Secret, Service},
        policy::v1::PodDisruptionBudget,
    },
};
use kube::{
    Api, Client, Resource,
    core::{DeserializeGuard, PartialObjectMeta},
    runtime::{
        WatchStreamExt,
        watcher::{self, Config, Event, watch_object, watcher},
    },
};
use serde::de::DeserializeOwned;
use tokio::{sync::mpsc::UnboundedSender, task::AbortHandle};
use vpn_types::{
    Mask, MaskConsumer, MaskProvider, MaskReservation, OWNER_LABEL, OpenVPNClient, OpenVPNServer, SERVER_LABEL,
    VERIFY_LABEL, inject::INJECT_LABEL,
};

use crate::{
    controllers::Scope,
    engine::Input,
    model::{Kind, ObjectKey, ObjectReference},
    state::{
        InjectedPod, Object, PodView, Project, ServerObject, ServerPodView, ServerSecretView, VerificationPod,
        WatchEvent, credentials_view, meta, unreadable_reservation,
    },
};

type Inputs = UnboundedSender<Input>;

/// Watches all objects of a kind, or those of verifications. For Secrets, watches the metadata of copies.
pub fn kind(client: &Client, kind: Kind, scope: Scope, inputs: Inputs) -> AbortHandle {
    let config = match scope {
        Scope::Verifications => Config::default().labels(VERIFY_LABEL),
        Scope::All => Config::default(),
    };
    match kind {
        Kind::Mask => objects::<Mask>(client, kind, config, Object::Mask, inputs),
        Kind::Consumer => objects::<MaskConsumer>(client, kind, config, Object::Consumer, inputs),
        Kind::Reservation => objects::<MaskReservation>(client, kind, config, Object::Reservation, inputs),
        Kind::Provider => {
            objects::<MaskProvider>(client, kind, config, |view| Object::Provider(Box::new(view)), inputs)
        }
        Kind::Pod => {
            let stream = watcher(Api::<Pod>::all(client.clone()), config).default_backoff();
            let view = |pod: &Pod| VerificationPod::of(pod).map(|view| Object::VerificationPod(Box::new(view)));
            let events = stream.map(move |event| convert((kind, "*"), event, view));
            forward(events, move |event| inputs.send(Input::Watch(event)).is_ok())
        }
        Kind::InjectedPod => {
            let config = config.labels(INJECT_LABEL);
            let stream = watcher(Api::<Pod>::all(client.clone()), config).default_backoff();
            let events = stream.map(injected_pod_event);
            forward(events, move |event| inputs.send(Input::Watch(event)).is_ok())
        }
        Kind::Server => objects::<OpenVPNServer>(client, kind, config, |view| Object::Server(Box::new(view)), inputs),
        Kind::Client => objects::<OpenVPNClient>(client, kind, config, |view| Object::Client(Box::new(view)), inputs),
        Kind::ServerSecret => {
            let view = |secret: &Secret| ServerSecretView::of(secret).map(|view| Object::ServerSecret(Box::new(view)));
            labeled(client, kind, inputs, view)
        }
        Kind::ConfigMap => labeled::<ConfigMap>(client, kind, inputs, server_object),
        Kind::Service => labeled::<Service>(client, kind, inputs, server_object),
        Kind::Deployment => labeled::<Deployment>(client, kind, inputs, server_object),
        Kind::PodDisruptionBudget => labeled::<PodDisruptionBudget>(client, kind, inputs, server_object),
        Kind::ServerPod => {
            let view = |pod: &Pod| ServerPodView::of(pod).map(|view| Object::ServerPod(Box::new(view)));
            labeled(client, kind, inputs, view)
        }
        Kind::Secret => {
            let copies = Api::<PartialObjectMeta<Secret>>::all(client.clone());
            let stream = watcher(copies, Config::default().labels(OWNER_LABEL)).default_backoff();
            let events = stream.map(move |event| convert((kind, "*"), event, |meta| meta.project().map(Object::Copy)));
            forward(events, move |event| inputs.send(Input::Watch(event)).is_ok())
        }
    }
}

/// Watches the objects of OpenVPN servers of a kind.
fn labeled<K>(client: &Client, kind: Kind, inputs: Inputs, view: fn(&K) -> Option<Object>) -> AbortHandle
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let config = Config::default().labels(SERVER_LABEL);
    let stream = watcher(Api::<K>::all(client.clone()), config).default_backoff();
    let events = stream.map(move |event| convert((kind, "*"), event, view));
    forward(events, move |event| inputs.send(Input::Watch(event)).is_ok())
}

fn server_object<K: Project<View = ServerObject>>(object: &K) -> Option<Object> {
    object.project().map(|view| Object::ServerObject(Box::new(view)))
}

fn objects<K>(client: &Client, kind: Kind, config: Config, wrap: fn(K::View) -> Object, inputs: Inputs) -> AbortHandle
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Project,
    K: Clone + Debug + DeserializeOwned + Send + Sync + 'static,
    K::View: 'static,
{
    let api = Api::<DeserializeGuard<K>>::all(client.clone());
    let stream = watcher(api, config).default_backoff();
    let unreadable = inputs.clone();
    let events = stream.map(move |event| {
        if let Ok(Event::Delete(DeserializeGuard(Err(invalid)))) = &event {
            // It has no status to report in any more. Its key and UID are enough.
            let metadata = meta(&invalid.metadata)?;
            return Some(WatchEvent::Lost(kind, metadata.key, metadata.uid));
        }
        convert((kind, "*"), event, |guard| match &guard.0 {
            Ok(object) => object.project().map(wrap),
            Err(invalid) => {
                let metadata = meta(&invalid.metadata)?;
                let (kind_name, object) = (kind.as_str(), &metadata.key);
                tracing::error!(kind = kind_name, %object, error = invalid.error, "cannot be decoded");
                let version = metadata.version;
                let target = ObjectReference { kind, key: metadata.key, uid: metadata.uid };
                // Fails when the process is stopping.
                let _ = unreadable.send(Input::Undecodable { target, version, error: invalid.error.clone() });
                let is_lock = kind == Kind::Reservation;
                is_lock.then(|| unreadable_reservation(&invalid.metadata))?.map(Object::Reservation)
            }
        })
    });
    forward(events, move |event| inputs.send(Input::Watch(event)).is_ok())
}

/// Watches the Pods of one namespace.
pub fn pods(client: &Client, namespace: Arc<str>, inputs: Inputs) -> AbortHandle {
    let api = Api::<Pod>::namespaced(client.clone(), &namespace);
    let stream = watcher(api, Config::default()).default_backoff();
    let all = format!("{namespace}/*");
    let events = stream.map(move |event| {
        convert((Kind::Pod, &*all), event, |pod| pod.project().filter(may_use_slot).map(Object::Pod))
    });
    forward(events, move |event| inputs.send(Input::Pods(namespace.clone(), event)).is_ok())
}

/// Whether a Pod references a Secret, or a MaskConsumer owns it.
fn may_use_slot(pod: &PodView) -> bool {
    !pod.consumers.is_empty() || !pod.secrets.is_empty()
}

/// Watches a single Secret.
pub fn secret(client: &Client, key: ObjectKey, inputs: Inputs) -> AbortHandle {
    let api = Api::<Secret>::namespaced(client.clone(), &key.namespace);
    let name = key.name.clone();
    let stream = watch_object(api, &name).default_backoff();
    let events = stream.map(move |found| match found {
        Ok(found) => Some(Input::Secret(key.clone(), found.map(credentials_view))),
        Err(error) => {
            report((Kind::Secret, &key.to_string()), &error);
            is_forbidden(&error).then(|| Input::SecretUnreadable(key.clone(), Arc::from(error_chain(&error))))
        }
    });
    forward(events, move |input| inputs.send(input).is_ok())
}

/// Whether permissions are missing. Other errors are temporary, such as an unavailable API server or an expired watch.
pub(super) fn is_forbidden(error: &watcher::Error) -> bool {
    let failed = match error {
        watcher::Error::InitialListFailed(error) | watcher::Error::WatchStartFailed(error) => error,
        _ => return false,
    };
    matches!(failed, kube::Error::Api(status) if matches!(status.code, 401 | 403))
}

fn injected_pod_event(event: watcher::Result<Event<Pod>>) -> Option<WatchEvent> {
    if let Ok(Event::Apply(pod) | Event::Delete(pod)) = &event
        && InjectedPod::of(pod).is_none()
    {
        let meta = meta(&pod.metadata)?;
        return Some(WatchEvent::Lost(Kind::InjectedPod, meta.key, meta.uid));
    }
    let view = |pod: &Pod| InjectedPod::of(pod).map(|view| Object::InjectedPod(Box::new(view)));
    convert((Kind::InjectedPod, "*"), event, view)
}

/// Converts an event of kube. `watched` is the kind and, for the log, the objects.
fn convert<K>(
    watched: (Kind, &str),
    event: watcher::Result<Event<K>>,
    view: impl Fn(&K) -> Option<Object>,
) -> Option<WatchEvent> {
    let (kind, _) = watched;
    match event {
        Ok(Event::Init) => Some(WatchEvent::Init(kind)),
        Ok(Event::InitApply(object)) => view(&object).map(WatchEvent::InitApply),
        Ok(Event::InitDone) => Some(WatchEvent::InitDone(kind)),
        Ok(Event::Apply(object)) => view(&object).map(WatchEvent::Apply),
        Ok(Event::Delete(object)) => view(&object).map(WatchEvent::Delete),
        Err(error) => {
            report(watched, &error);
            None
        }
    }
}

fn report((kind, object): (Kind, &str), error: &watcher::Error) {
    tracing::warn!(kind = kind.as_str(), object, error = %error_chain(error), "watch interrupted, restarting it");
}

/// Formats an error with its sources.
pub(super) fn error_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// Forwards the items of a stream in a task of its own, until `send` returns false.
pub(super) fn forward<T: Send + 'static>(
    stream: impl Stream<Item = Option<T>> + Send + 'static,
    mut send: impl FnMut(T) -> bool + Send + 'static,
) -> AbortHandle {
    let task = tokio::spawn(async move {
        futures::pin_mut!(stream);
        while let Some(item) = stream.next().await {
            if item.is_some_and(|item| !send(item)) {
                return;
            }
        }
    });
    task.abort_handle()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

    use serde_json::json;

    use super::*;

    #[test]
    fn a_pod_that_loses_its_annotation_is_not_watched_any_more() {
        let pod = |annotations| {
            let metadata = json!({
                "namespace": "a", "name": "one", "uid": "u1", "resourceVersion": "7", "annotations": annotations,
            });
            serde_json::from_value::<Pod>(json!({"metadata": metadata})).unwrap()
        };
        let injected = json!({"vpn.beebs.dev/injected": r#"{"version": "2.0.0", "secret": "one-x"}"#});
        let is_lost = |event| {
            matches!(injected_pod_event(Ok(event)), Some(WatchEvent::Lost(Kind::InjectedPod, key, uid))
            if key == ObjectKey::new("a", "one") && uid.as_str() == "u1")
        };
        for annotations in [json!({}), json!({"vpn.beebs.dev/injected": "junk"})] {
            assert!(is_lost(Event::Apply(pod(annotations.clone()))));
            assert!(is_lost(Event::Delete(pod(annotations))));
        }
        assert!(matches!(injected_pod_event(Ok(Event::Apply(pod(injected)))), Some(WatchEvent::Apply(_))));
    }
}
