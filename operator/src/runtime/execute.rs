//! Sends one request to the API server and says how it ended. Nothing is sent twice behind the engine's back.

use std::{fmt::Debug, time::Duration};

use k8s_openapi::{NamespaceResourceScope, api::core::v1::Pod, api::core::v1::Secret};
use kube::{
    Api, Client, Error, Resource,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions, PropagationPolicy},
    core::{DeserializeGuard, Request},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use vpn_types::{FIELD_MANAGER, Mask, MaskConsumer, MaskProvider, MaskReservation};

use super::classify::classify;
use crate::{
    model::{Kind, NewObject, ObjectKey, Operation, Propagation},
    state::{Object, Outcome, Project, VerificationPod, unreadable_reservation},
};

/// How long a request may take. What is not answered by then has an unknown outcome.
pub const DEADLINE: Duration = Duration::from_secs(5);

/// Sends one request.
pub async fn execute(client: &Client, op: &Operation) -> Outcome {
    let answer = match tokio::time::timeout(DEADLINE, dispatch(client, op)).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(error)) => classify(op, &error),
        Err(_) => Outcome::Unknown { message: format!("no answer within {} s", DEADLINE.as_secs()) },
    };
    log(op, &answer);
    answer
}

/// Every line names the object: `kind`, and `object` as namespace and name; that of a patch also the part that it changes.
fn log(op: &Operation, answer: &Outcome) {
    let verb = op.verb();
    let (kind, object) = match op {
        Operation::ListPods(namespace) => (Kind::Pod, format!("{namespace}/*")),
        _ => op.target().map(|(kind, key)| (kind, key.to_string())).unwrap_or((Kind::Pod, String::new())),
    };
    let (kind, part) = (kind.as_str(), op.part());
    match answer {
        Outcome::Refused { reason, message } => tracing::warn!(kind, object, verb, part, %reason, message, "refused"),
        Outcome::Unknown { message } => {
            tracing::warn!(kind, object, verb, part, message, "outcome unknown, to be read back");
        }
        Outcome::Object(_) | Outcome::Gone | Outcome::Pods(_) => tracing::debug!(kind, object, verb, part, "done"),
        Outcome::NotFound | Outcome::AlreadyExists | Outcome::Conflict => {
            tracing::debug!(kind, object, verb, part, outcome = ?answer, "not done");
        }
    }
}

/// The typed calls, by kind.
async fn dispatch(client: &Client, op: &Operation) -> Result<Outcome, Error> {
    macro_rules! by_kind {
        ($kind:expr, $call:ident ( $($argument:expr),* )) => {
            match $kind {
                Kind::Mask => Ok(shown($call::<Mask>(client, $($argument),*).await?, Object::Mask)),
                Kind::Consumer => Ok(shown($call::<MaskConsumer>(client, $($argument),*).await?, Object::Consumer)),
                Kind::Reservation => Ok(shown($call::<MaskReservation>(client, $($argument),*).await?, Object::Reservation)),
                Kind::Provider => Ok(shown($call::<MaskProvider>(client, $($argument),*).await?, |view| Object::Provider(Box::new(view)))),
                Kind::Secret => Ok(shown($call::<Secret>(client, $($argument),*).await?, Object::Copy)),
                Kind::Pod => Ok(shown($call::<Pod>(client, $($argument),*).await?, Object::Pod)),
            }
        };
    }
    match op {
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
                None => Outcome::Unknown { message: "the answer lacks metadata".to_owned() },
            })
        }
        Operation::Get(Kind::Reservation, key) => get_reservation(client, key).await,
        Operation::Get(kind, key) => by_kind!(kind, get(key)),
        Operation::Patch(kind, key, patch) => by_kind!(kind, merge(key, patch)),
        Operation::PatchStatus(kind, key, patch) => by_kind!(kind, merge_status(key, patch)),
        Operation::JsonPatch(kind, key, patch) => by_kind!(kind, json_patch(key, patch)),
        Operation::Delete { kind, key, uid, version, propagation } => {
            let params = DeleteParams {
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
        Operation::ListPods(namespace) => {
            // No resourceVersion: a consistent read.
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
            None => Outcome::Unknown { message: "the answer lacks metadata".to_owned() },
        },
    }
}

/// POST, with `timeout` so that the server gives up no later than we do.
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

/// A reservation locks its slot even when it cannot be decoded.
async fn get_reservation(client: &Client, key: &ObjectKey) -> Result<Outcome, Error> {
    let read: Option<DeserializeGuard<MaskReservation>> = get(client, key).await?;
    Ok(match read {
        Some(DeserializeGuard(Err(invalid))) => match unreadable_reservation(&invalid.metadata) {
            Some(view) => Outcome::Object(Box::new(Object::Reservation(view))),
            None => Outcome::Unknown { message: invalid.error },
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

/// The object while a finalizer (or a Pod's grace period) holds it, `None` when it is gone.
async fn delete<K: Namespaced>(client: &Client, key: &ObjectKey, params: &DeleteParams) -> Result<Option<K>, Error> {
    Ok(api::<K>(client, key).delete(&key.name, params).await?.left())
}
