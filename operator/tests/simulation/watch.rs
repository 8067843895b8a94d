//! Watches: each is ordered, lags behind on its own, and may restart with a list.

use std::{rc::Rc, sync::Arc};

use k8s_openapi::api::core::v1::Secret;
use serde::Deserialize;
use serde_json::Value;
use vpn_operator::{
    engine::Input,
    model::{Kind, ObjectKey},
    state::{Object, WatchEvent, credentials_view},
};

use crate::{
    server::{Event, Server, stored},
    views::{project, verification_pod},
};

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Filter {
    /// All objects of a kind. For Secrets, those with the label of copies.
    Whole(Kind),
    /// The objects of a kind that belong to verifications.
    Verifications(Kind),
    /// A Secret by name.
    Named(ObjectKey),
    /// The Pods of a namespace.
    Pods(Arc<str>),
}

enum Stage {
    New,
    ListStarted,
    Listed(Vec<Rc<Value>>),
    Live,
}

pub struct Watch {
    pub filter: Filter,
    stage: Stage,
    cursor: usize,
}

impl Filter {
    fn kind(&self) -> Kind {
        match self {
            Filter::Whole(kind) | Filter::Verifications(kind) => *kind,
            Filter::Named(_) => Kind::Secret,
            Filter::Pods(_) => Kind::Pod,
        }
    }

    fn admits(&self, value: &Value) -> bool {
        let meta = &value["metadata"];
        match self {
            Filter::Whole(Kind::Secret) => meta["labels"].get(vpn_types::OWNER_LABEL).is_some(),
            Filter::Whole(Kind::InjectedPod) => meta["labels"].get(vpn_types::inject::INJECT_LABEL).is_some(),
            Filter::Whole(
                Kind::ServerSecret
                | Kind::ServerPod
                | Kind::ConfigMap
                | Kind::Service
                | Kind::Deployment
                | Kind::PodDisruptionBudget,
            ) => meta["labels"].get(vpn_types::SERVER_LABEL).is_some(),
            Filter::Whole(_) => true,
            Filter::Verifications(_) => meta["labels"].get(vpn_types::VERIFY_LABEL).is_some(),
            Filter::Named(key) => meta["name"] == *key.name && meta["namespace"] == *key.namespace,
            Filter::Pods(namespace) => meta["namespace"] == **namespace,
        }
    }

    fn input(&self, event: WatchEvent) -> Input {
        match self {
            Filter::Pods(namespace) => Input::Pods(namespace.clone(), event),
            Filter::Whole(_) | Filter::Verifications(_) | Filter::Named(_) => Input::Watch(event),
        }
    }

    fn project(&self, value: &Value) -> Object {
        match self {
            Filter::Verifications(Kind::Pod) => verification_pod(value),
            filter => project(filter.kind(), value),
        }
    }

    fn secret_input(key: &ObjectKey, value: Option<&Value>) -> Input {
        let found = value.map(|value| credentials_view(Secret::deserialize(value).unwrap()));
        Input::Secret(key.clone(), found)
    }

    fn convert(&self, event: &Event) -> Option<Input> {
        if event.kind != stored(self.kind()) {
            return None;
        }
        let before = event.before.as_ref().is_some_and(|value| self.admits(value));
        let after = event.after.as_ref().filter(|value| self.admits(value));
        match (self, before, after) {
            (_, false, None) => None,
            (Filter::Named(key), _, after) => Some(Self::secret_input(key, after.map(|value| &**value))),
            (_, _, Some(value)) => Some(self.input(WatchEvent::Apply(self.project(value)))),
            (_, true, None) => Some(self.input(WatchEvent::Delete(self.project(&event.last)))),
        }
    }
}

impl Watch {
    pub fn new(filter: Filter) -> Self {
        Self { filter, stage: Stage::New, cursor: 0 }
    }

    /// Restarts with a list, as after 410.
    pub fn restart(&mut self) {
        self.stage = Stage::New;
    }

    pub fn is_live(&self) -> bool {
        matches!(self.stage, Stage::Live)
    }

    /// Whether there is an event to deliver.
    pub fn is_behind(&self, server: &Server) -> bool {
        match self.stage {
            Stage::Live => server.log[self.cursor..].iter().any(|event| {
                event.kind == stored(self.filter.kind())
                    && [&event.before, &event.after].into_iter().flatten().any(|value| self.filter.admits(value))
            }),
            _ => true,
        }
    }

    /// Delivers the next event.
    pub fn advance(&mut self, server: &Server) -> Vec<Input> {
        let kind = self.filter.kind();
        let snapshot = || {
            let all = server.of_kind(stored(kind)).map(|(_, value)| value);
            all.filter(|value| self.filter.admits(value)).cloned().collect::<Vec<_>>()
        };
        match &self.stage {
            Stage::New => match &self.filter {
                Filter::Named(key) => {
                    let input = Filter::secret_input(key, snapshot().first().map(|value| &**value));
                    (self.stage, self.cursor) = (Stage::Live, server.log.len());
                    vec![input]
                }
                filter => {
                    let input = filter.input(WatchEvent::Init(kind));
                    self.stage = Stage::ListStarted;
                    vec![input]
                }
            },
            Stage::ListStarted => {
                (self.stage, self.cursor) = (Stage::Listed(snapshot()), server.log.len());
                Vec::new()
            }
            Stage::Listed(values) => {
                let apply = |value: &Rc<Value>| self.filter.input(WatchEvent::InitApply(self.filter.project(value)));
                let mut inputs: Vec<_> = values.iter().map(apply).collect();
                inputs.push(self.filter.input(WatchEvent::InitDone(kind)));
                self.stage = Stage::Live;
                inputs
            }
            Stage::Live => {
                while let Some(event) = server.log.get(self.cursor) {
                    self.cursor += 1;
                    if let Some(input) = self.filter.convert(event) {
                        return vec![input];
                    }
                }
                Vec::new()
            }
        }
    }
}
