//! The metrics of the servers to which requests are passed on.

use std::{collections::BTreeMap, sync::Arc};

use serde::Deserialize;

use super::request::Group;

/// A resource in a list of discovery.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Resource {
    /// The name: `resource/metric`, or `metric` for an external metric.
    pub name: String,
    /// The kind of the answer.
    #[serde(default)]
    pub kind: String,
    /// Whether its objects have a namespace.
    #[serde(default)]
    pub namespaced: bool,
}

/// What other servers offer, for each version that they serve.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Offers(BTreeMap<(Group, &'static str), Arc<Vec<Resource>>>);

impl Offers {
    /// Returns what is offered in a version of a group.
    pub fn of(&self, group: Group, version: &'static str) -> &[Resource] {
        self.0.get(&(group, version)).map_or(&[], |resources| resources)
    }

    /// Whether a version of a group is served.
    pub fn serves(&self, group: Group, version: &'static str) -> bool {
        self.0.contains_key(&(group, version))
    }

    /// Removes what is offered in a group. Which versions it has is still known.
    pub fn clear(&mut self, group: Group) {
        for (_, resources) in self.0.iter_mut().filter(|((other, _), _)| *other == group) {
            *resources = Arc::default();
        }
    }

    /// Replaces what is offered in a group.
    pub fn replace(&mut self, group: Group, offered: impl IntoIterator<Item = (&'static str, Vec<Resource>)>) {
        self.0.retain(|(other, _), _| *other != group);
        self.0.extend(offered.into_iter().map(|(version, resources)| ((group, version), Arc::new(resources))));
    }
}
