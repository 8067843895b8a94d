//! Sends requests to the API server, and returns their outcome. There are no retries here: only the engine retries.

use std::{fmt::Debug, time::Duration};

use k8s_openapi::{
    NamespaceResourceScope,
    api::{
        apps::v1::{Deployment, ReplicaSet},
        core::v1::{ConfigMap, Pod, Secret, Service},
        policy::v1::PodDisruptionBudget,
    },
};
use kube::{
    Api, Client, Error, Resource,
    api::{DeleteParams, EvictParams, ListParams, Patch, PatchParams, PostParams, Preconditions, PropagationPolicy},
    core::{DeserializeGuard, Request},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use time::OffsetDateTime;
use vpn_types::{
    FIELD_MANAGER, Mask, MaskConsumer, MaskProvider, MaskReservation, OpenVPNClient, OpenVPNServer,
    SHARED_FIELD_MANAGER,
};

use super::{classify::classify, clients::count_clients};
use crate::{
    issuing::Refusal,
    model::{Issue, Kind, NewObject, ObjectKey, Operation, Propagation, Uid},
    state::{
        InjectedPod, Object, Outcome, Project, ReplicaSetView, ServerObject, ServerPodView, ServerSecretView,
        VerificationPod, unreadable_reservation,
    },
};

/// The deadline of a request. Without a response by then, the outcome is unknown.
pub const DEADLINE: Duration = Duration::from_secs(5);

/// Sends a request.
pub async fn execute(client: &Client, operation: &Operation) -> Outcome {
    let outcome = match tokio::time::timeout(DEADLINE, dispatch(client, operation)).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(error)) => classify(operation, &error),
        Err(_) => Outcome::Unknown { message: format!("no response within {} s", DEADLINE.as_secs()) },
    };
    log(operation, &outcome);
    outcome
}

/// Logs an outcome. Every line names the object, with its namespace, and for a patch the part that it changes.
fn log(operation: &Operation, outcome: &Outcome) {
    let verb = operation.verb();
    let (kind, object) = match operation {
        Operation::ListPods(namespace) => ("Pod", format!("{namespace}/*")),
        Operation::ListReplicaSets(namespace) => ("ReplicaSet", format!("{namespace}/*")),
        Operation::CountClients(server, _) => (Kind::Server.as_str(), server.to_string()),
        _ => operation.target().map(|(kind, key)| (kind.as_str(), key.to_string())).unwrap_or_default(),
    };
    let part = operation.part();
    match outcome {
        Outcome::Refused { reason, message } => {
            tracing::warn!(kind, object, verb, part, %reason, message, "request rejected");
        }
        Outcome::Unknown { message } => {
            tracing::warn!(kind, object, verb, part, message, "outcome unknown, reading the object");
        }
        Outcome::Undecodable { message } => {
            tracing::warn!(kind, object, verb, part, message, "request succeeded, but the response cannot be decoded");
        }
        Outcome::Object(_)
        | Outcome::Gone
        | Outcome::Pods(_)
        | Outcome::ReplicaSets(_)
        | Outcome::Clients(_)
        | Outcome::Evicted => {
            tracing::debug!(kind, object, verb, part, "request succeeded");
        }
        Outcome::NotFound | Outcome::AlreadyExists | Outcome::Conflict => {
            tracing::debug!(kind, object, verb, part, ?outcome, "request failed");
        }
    }
}

/// Sends a request with the type of its kind.
async fn dispatch(client: &Client, operation: &Operation) -> Result<Outcome, Error> {
    macro_rules! by_kind {
        ($kind:expr, $call:ident ( $($argument:expr),* )) => {
            match $kind {
                Kind::Mask => Ok(shown($call::<Mask>(client, $($argument),*).await?, Object::Mask)),
                Kind::Consumer => Ok(shown($call::<MaskConsumer>(client, $($argument),*).await?, Object::Consumer)),
                Kind::Reservation => Ok(shown($call::<MaskReservation>(client, $($argument),*).await?, Object::Reservation)),
                Kind::Provider => Ok(shown($call::<MaskProvider>(client, $($argument),*).await?, |view| Object::Provider(Box::new(view)))),
                Kind::Secret => Ok(shown($call::<Secret>(client, $($argument),*).await?, Object::Copy)),
                Kind::Pod => Ok(shown($call::<Pod>(client, $($argument),*).await?, Object::Pod)),
                Kind::InjectedPod => Ok(injected_pod($call::<Pod>(client, $($argument),*).await?)),
                Kind::Server => Ok(shown($call::<OpenVPNServer>(client, $($argument),*).await?, |view| Object::Server(Box::new(view)))),
                Kind::Client => Ok(shown($call::<OpenVPNClient>(client, $($argument),*).await?, |view| Object::Client(Box::new(view)))),
                Kind::ServerSecret => Ok(server_secret($call::<Secret>(client, $($argument),*).await?)),
                Kind::ConfigMap => Ok(shown($call::<ConfigMap>(client, $($argument),*).await?, server_object)),
                Kind::Service => Ok(shown($call::<Service>(client, $($argument),*).await?, server_object)),
                Kind::Deployment => Ok(shown($call::<Deployment>(client, $($argument),*).await?, server_object)),
                Kind::PodDisruptionBudget => Ok(shown($call::<PodDisruptionBudget>(client, $($argument),*).await?, server_object)),
                Kind::ServerPod => Ok(server_pod($call::<Pod>(client, $($argument),*).await?)),
            }
        };
    }
    match operation {
        Operation::Create(key, NewObject::Consumer(new)) => {
            Ok(shown(create(client, key, &**new).await?, Object::Consumer))
        }
        Operation::Create(key, NewObject::Reservation(new)) => {
            Ok(shown(create(client, key, &**new).await?, Object::Reservation))
        }
        Operation::Create(key, NewObject::Secret(new)) => Ok(shown(create(client, key, &**new).await?, Object::Copy)),
        Operation::Create(key, NewObject::Mask(new)) => Ok(shown(create(client, key, &**new).await?, Object::Mask)),
        Operation::Create(key, NewObject::Pod(new)) => {
            let pod = create(client, key, &**new).await?;
            Ok(match pod.as_ref().and_then(VerificationPod::of) {
                Some(view) => Outcome::Object(Box::new(Object::VerificationPod(Box::new(view)))),
                None => Outcome::Unknown { message: "the response has no metadata".to_owned() },
            })
        }
        Operation::Get(Kind::Reservation, key) => get_reservation(client, key).await,
        Operation::Get(kind, key) => by_kind!(kind, get(key)),
        Operation::Patch(kind, key, patch) => by_kind!(kind, merge(key, patch)),
        Operation::PatchStatus(kind, key, patch) => by_kind!(kind, merge_status(key, patch)),
        Operation::JsonPatch(kind, key, patch) => by_kind!(kind, json_patch(key, patch)),
        Operation::Apply(kind, key, uid, object) => by_kind!(kind, apply(key, uid.is_some(), object)),
        Operation::Share(kind, key, part) => by_kind!(kind, share(key, part)),
        Operation::Issue(request) => issue(client, request).await,
        Operation::Delete { kind, key, uid, version, propagation, grace_period } => {
            let params = DeleteParams {
                grace_period_seconds: *grace_period,
                propagation_policy: propagation.map(|propagation| match propagation {
                    Propagation::Background => PropagationPolicy::Background,
                    Propagation::Foreground => PropagationPolicy::Foreground,
                }),
                preconditions: Some(Preconditions {
                    uid: Some(uid.to_string()),
                    resource_version: version.map(|version| version.to_string()),
                }),
                ..DeleteParams::default()
            };
            by_kind!(kind, delete(key, &params))
        }
        Operation::PatchPodStatus(key, patch) => {
            let pods = api::<Pod>(client, key);
            Ok(injected_pod(Some(pods.patch_status(&key.name, &patch_params(), &Patch::Strategic(patch)).await?)))
        }
        Operation::Evict(key, uid) => {
            let preconditions = Some(Preconditions { uid: Some(uid.to_string()), resource_version: None });
            let delete_options = Some(DeleteParams { preconditions, ..DeleteParams::default() });
            let params = EvictParams { delete_options, ..EvictParams::default() };
            api::<Pod>(client, key).evict(&key.name, &params).await?;
            Ok(Outcome::Evicted)
        }
        Operation::CountClients(_, replicas) => Ok(Outcome::Clients(count_clients(replicas).await)),
        Operation::ListReplicaSets(namespace) => {
            let all = Api::<ReplicaSet>::namespaced(client.clone(), namespace);
            let all = all.list_metadata(&ListParams::default()).await?;
            Ok(Outcome::ReplicaSets(all.iter().filter_map(ReplicaSetView::of).collect()))
        }
        Operation::ListPods(namespace) => {
            // Without a resourceVersion, the read is consistent.
            let pods = Api::<Pod>::namespaced(client.clone(), namespace).list(&ListParams::default()).await?;
            Ok(Outcome::Pods(pods.iter().filter_map(Project::project).collect()))
        }
    }
}

trait Namespaced: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + DeserializeOwned {}
impl<K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + DeserializeOwned> Namespaced
    for K
{
}

fn api<K: Namespaced>(client: &Client, key: &ObjectKey) -> Api<K> {
    Api::namespaced(client.clone(), &key.namespace)
}

fn shown<K: Project>(object: Option<K>, wrap: fn(K::View) -> Object) -> Outcome {
    match object {
        None => Outcome::Gone,
        Some(object) => match object.project() {
            Some(view) => Outcome::Object(Box::new(wrap(view))),
            None => Outcome::Unknown { message: "the response has no metadata".to_owned() },
        },
    }
}

fn server_object(view: ServerObject) -> Object {
    Object::ServerObject(Box::new(view))
}

fn server_secret(secret: Option<Secret>) -> Outcome {
    match secret.map(|secret| ServerSecretView::of(&secret)) {
        None => Outcome::Gone,
        Some(Some(view)) => Outcome::Object(Box::new(Object::ServerSecret(Box::new(view)))),
        Some(None) => Outcome::Unknown { message: "the response has no metadata".to_owned() },
    }
}

fn server_pod(pod: Option<Pod>) -> Outcome {
    match pod.map(|pod| ServerPodView::of(&pod)) {
        None => Outcome::Gone,
        Some(Some(view)) => Outcome::Object(Box::new(Object::ServerPod(Box::new(view)))),
        Some(None) => Outcome::Unknown { message: "the response has no metadata".to_owned() },
    }
}

fn injected_pod(pod: Option<Pod>) -> Outcome {
    match pod.map(|pod| InjectedPod::read(&pod)) {
        None => Outcome::Gone,
        Some(Some(view)) => Outcome::Object(Box::new(Object::InjectedPod(Box::new(view)))),
        Some(None) => Outcome::Unknown { message: "the response has no metadata".to_owned() },
    }
}

/// Sends a POST with the parameter `timeout`, so that the API server gives up no later than the operator.
async fn create<K: Namespaced + Serialize>(client: &Client, key: &ObjectKey, new: &K) -> Result<Option<K>, Error> {
    let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
    let body = serde_json::to_vec(new).map_err(Error::SerdeError)?;
    let path = K::url_path(&(), Some(&key.namespace));
    let mut request = Request::new(path).create(&params, body).map_err(Error::BuildRequest)?;
    let uri = format!("{}&timeout={}s", request.uri(), DEADLINE.as_secs());
    if let Ok(uri) = uri.parse() {
        *request.uri_mut() = uri;
    }
    client.request(request).await.map(Some)
}

async fn get<K: Namespaced>(client: &Client, key: &ObjectKey) -> Result<Option<K>, Error> {
    api::<K>(client, key).get(&key.name).await.map(Some)
}

/// Reads a reservation, which locks its slot even if it cannot be decoded.
async fn get_reservation(client: &Client, key: &ObjectKey) -> Result<Outcome, Error> {
    let read: Option<DeserializeGuard<MaskReservation>> = get(client, key).await?;
    Ok(match read {
        Some(DeserializeGuard(Err(invalid))) => match unreadable_reservation(&invalid.metadata) {
            Some(view) => Outcome::Object(Box::new(Object::Reservation(view))),
            None => Outcome::Undecodable { message: invalid.error },
        },
        Some(DeserializeGuard(Ok(reservation))) => shown(Some(reservation), Object::Reservation),
        None => Outcome::NotFound,
    })
}

fn patch_params() -> PatchParams {
    PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() }
}

async fn merge<K: Namespaced>(client: &Client, key: &ObjectKey, patch: &Value) -> Result<Option<K>, Error> {
    api::<K>(client, key).patch(&key.name, &patch_params(), &Patch::Merge(patch)).await.map(Some)
}

async fn merge_status<K: Namespaced>(client: &Client, key: &ObjectKey, patch: &Value) -> Result<Option<K>, Error> {
    api::<K>(client, key).patch_status(&key.name, &patch_params(), &Patch::Merge(patch)).await.map(Some)
}

async fn json_patch<K: Namespaced>(client: &Client, key: &ObjectKey, patch: &Value) -> Result<Option<K>, Error> {
    let patch = Patch::Json::<()>(serde_json::from_value(patch.clone()).map_err(Error::SerdeError)?);
    api::<K>(client, key).patch(&key.name, &patch_params(), &patch).await.map(Some)
}

async fn apply<K: Namespaced>(
    client: &Client,
    key: &ObjectKey,
    force: bool,
    object: &Value,
) -> Result<Option<K>, Error> {
    let params = PatchParams { force, ..patch_params() };
    api::<K>(client, key).patch(&key.name, &params, &Patch::Apply(object)).await.map(Some)
}

async fn share<K: Namespaced>(client: &Client, key: &ObjectKey, part: &Value) -> Result<Option<K>, Error> {
    let params = PatchParams { field_manager: Some(SHARED_FIELD_MANAGER.to_owned()), ..PatchParams::default() };
    api::<K>(client, key).patch(&key.name, &params, &Patch::Apply(part)).await.map(Some)
}

/// Makes the content of a Secret, outside of the threads that serve requests, and writes it.
async fn issue(client: &Client, request: &Issue) -> Result<Outcome, Error> {
    let api = api::<Secret>(client, &request.key);
    let present = match &request.replaces {
        Some(_) => Some(api.get(&request.key.name).await?),
        None => None,
    };
    let has_changed = |(_, version): &(Uid, u64)| {
        let found = present.as_ref().and_then(|secret| secret.metadata.resource_version.as_deref());
        found != Some(&*version.to_string())
    };
    if request.replaces.as_ref().is_some_and(has_changed) {
        return Ok(Outcome::Conflict);
    }
    let known = match request.content.source() {
        Some(name) => api.get_opt(name).await?.and_then(|secret| secret.data),
        None => present.as_ref().and_then(|secret| secret.data.clone()),
    };
    let content = request.content.clone();
    let made = tokio::task::spawn_blocking(move || content.data(known.as_ref(), OffsetDateTime::now_utc()));
    let data = match made.await {
        Ok(Ok(data)) => data,
        Ok(Err(Refusal { reason, message })) => return Ok(Outcome::Refused { reason, message }),
        Err(error) => return Ok(Outcome::Unknown { message: error.to_string() }),
    };
    let written = match present {
        None => create(client, &request.key, &request.secret(data)).await?,
        Some(present) => json_patch(client, &request.key, &request.replacement(&present, data)).await?,
    };
    Ok(server_secret(written))
}

/// Deletes an object. Returns the object while a finalizer or the grace period of a Pod keeps it, or `None`.
async fn delete<K: Namespaced>(client: &Client, key: &ObjectKey, params: &DeleteParams) -> Result<Option<K>, Error> {
    Ok(api::<K>(client, key).delete(&key.name, params).await?.left())
}
