//! Amounts of CPU, memory and Pods.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::quantity::{millis, units};

/// An amount of CPU and memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Resources {
    /// CPU in millicores.
    pub cpu_millis: u64,
    /// Memory in bytes.
    pub memory_bytes: u64,
}

impl Resources {
    /// Reads `cpu` and `memory` from a list of resources. What is missing, and what is not a quantity, counts as zero:
    /// the API server accepts no such thing.
    pub fn of(list: Option<&BTreeMap<String, Quantity>>) -> Self {
        let text = |name: &str| list.and_then(|list| list.get(name)).map(|quantity| quantity.0.as_str());
        Self {
            cpu_millis: text("cpu").and_then(|text| millis(text).ok()).unwrap_or(0),
            memory_bytes: text("memory").and_then(|text| units(text).ok()).unwrap_or(0),
        }
    }

    /// Returns the sum of two amounts.
    pub fn plus(self, other: Self) -> Self {
        Self {
            cpu_millis: self.cpu_millis.saturating_add(other.cpu_millis),
            memory_bytes: self.memory_bytes.saturating_add(other.memory_bytes),
        }
    }

    /// Returns the larger CPU and the larger memory of two amounts.
    pub fn max(self, other: Self) -> Self {
        Self {
            cpu_millis: self.cpu_millis.max(other.cpu_millis),
            memory_bytes: self.memory_bytes.max(other.memory_bytes),
        }
    }
}

/// What a Node offers, in whole or to Pods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Allocatable {
    /// CPU and memory.
    pub resources: Resources,
    /// The number of Pods.
    pub pods: u64,
}

impl Allocatable {
    /// Reads `cpu`, `memory` and `pods` from a list of resources.
    pub fn of(list: Option<&BTreeMap<String, Quantity>>) -> Self {
        let pods = list.and_then(|list| list.get("pods")).and_then(|quantity| units(&quantity.0).ok());
        Self { resources: Resources::of(list), pods: pods.unwrap_or(0) }
    }
}

/// A sum over Nodes or Pods. It does not overflow, so what was added can be taken away again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sum {
    /// CPU in millicores.
    pub cpu: u128,
    /// Memory in bytes.
    pub memory: u128,
    /// Number of Pods.
    pub pods: u128,
}

impl Sum {
    /// Returns the request of a number of Pods.
    pub fn of(requests: Resources, pods: u64) -> Self {
        let pods = u128::from(pods);
        Self { cpu: u128::from(requests.cpu_millis) * pods, memory: u128::from(requests.memory_bytes) * pods, pods }
    }

    /// Returns the sum of both.
    pub fn plus(self, other: Self) -> Self {
        Self {
            cpu: self.cpu.saturating_add(other.cpu),
            memory: self.memory.saturating_add(other.memory),
            pods: self.pods.saturating_add(other.pods),
        }
    }

    /// Returns the difference, where nothing is less than zero.
    pub fn minus(self, other: Self) -> Self {
        Self {
            cpu: self.cpu.saturating_sub(other.cpu),
            memory: self.memory.saturating_sub(other.memory),
            pods: self.pods.saturating_sub(other.pods),
        }
    }

    /// Returns how many Pods with these requests fit.
    pub fn holds(self, requests: Resources) -> u64 {
        self.holds_by_resources(requests).min(u64::try_from(self.pods).unwrap_or(u64::MAX))
    }

    /// Like [`Sum::holds`], whatever the number of Pods may be.
    pub fn holds_by_resources(self, requests: Resources) -> u64 {
        let by = |free: u128, each: u64| free.checked_div(u128::from(each)).unwrap_or(u128::MAX);
        let fit = by(self.cpu, requests.cpu_millis).min(by(self.memory, requests.memory_bytes));
        u64::try_from(fit).unwrap_or(u64::MAX)
    }
}

impl From<Allocatable> for Sum {
    fn from(offer: Allocatable) -> Self {
        Self { pods: u128::from(offer.pods), ..Self::of(offer.resources, 1) }
    }
}
