//! Views of the objects on the simulated API server.

use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{ConfigMap, Pod, Secret, Service},
    policy::v1::PodDisruptionBudget,
};
use serde::Deserialize;
use serde_json::Value;
use vpn_operator::{
    model::Kind,
    state::{InjectedPod, Object, Project, ServerPodView, ServerSecretView, VerificationPod},
};
use vpn_types::{Mask, MaskConsumer, MaskProvider, MaskReservation, OpenVPNClient, OpenVPNServer};

/// Projects an object like the runtime.
pub fn project(kind: Kind, value: &Value) -> Object {
    fn typed<T: serde::de::DeserializeOwned>(value: &Value) -> T {
        T::deserialize(value).unwrap_or_else(|error| panic!("{error}: {value}"))
    }
    match kind {
        Kind::Mask => Object::Mask(typed::<Mask>(value).project().unwrap()),
        Kind::Consumer => Object::Consumer(typed::<MaskConsumer>(value).project().unwrap()),
        Kind::Reservation => Object::Reservation(typed::<MaskReservation>(value).project().unwrap()),
        Kind::Provider => Object::Provider(Box::new(typed::<MaskProvider>(value).project().unwrap())),
        Kind::Secret => Object::Copy(typed::<Secret>(value).project().unwrap()),
        Kind::Pod => Object::Pod(typed::<Pod>(value).project().unwrap()),
        Kind::InjectedPod => Object::InjectedPod(Box::new(InjectedPod::of(&typed::<Pod>(value)).unwrap())),
        Kind::Server => Object::Server(Box::new(typed::<OpenVPNServer>(value).project().unwrap())),
        Kind::Client => Object::Client(Box::new(typed::<OpenVPNClient>(value).project().unwrap())),
        Kind::ServerSecret => Object::ServerSecret(Box::new(ServerSecretView::of(&typed::<Secret>(value)).unwrap())),
        Kind::ServerPod => Object::ServerPod(Box::new(ServerPodView::of(&typed::<Pod>(value)).unwrap())),
        Kind::ConfigMap => Object::ServerObject(Box::new(typed::<ConfigMap>(value).project().unwrap())),
        Kind::Service => Object::ServerObject(Box::new(typed::<Service>(value).project().unwrap())),
        Kind::Deployment => Object::ServerObject(Box::new(typed::<Deployment>(value).project().unwrap())),
        Kind::PodDisruptionBudget => {
            Object::ServerObject(Box::new(typed::<PodDisruptionBudget>(value).project().unwrap()))
        }
    }
}

/// Projects a verification Pod like the runtime.
pub fn verification_pod(value: &Value) -> Object {
    let pod = Pod::deserialize(value).unwrap();
    Object::VerificationPod(Box::new(VerificationPod::of(&pod).unwrap()))
}
