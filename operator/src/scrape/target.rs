//! Which Pods are asked, and where.

use std::net::{IpAddr, SocketAddr};

use k8s_openapi::api::core::v1::Pod;
use thiserror::Error;

use super::{
    address::{AddressError, check_address},
    settings::{Settings, SettingsError},
};
use crate::model::{ObjectKey, Uid};

/// A Pod that can be asked for its metrics.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    /// The namespace and name of the Pod.
    pub pod: ObjectKey,
    /// The UID of the Pod.
    pub uid: Uid,
    /// The address of the Pod, with the port of its annotation.
    pub address: SocketAddr,
    /// The path, and the names of the metrics.
    pub settings: Settings,
}

/// The reason why a Pod that has the annotations is not asked.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TargetError {
    /// The annotations are not understood.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The Pod does not run, so it has no metrics.
    #[error("the Pod is not running")]
    NotRunning,
    /// The address of the Pod is that of its Node.
    #[error("the Pod uses the network of its node")]
    HostNetwork,
    /// The address is none that a Pod can have.
    #[error("the address of the Pod cannot be asked: {0}")]
    Address(#[from] AddressError),
}

impl Target {
    /// Returns where to ask a Pod, or `None` if it has none of the annotations. Whether its namespace allows that is
    /// another question: [`is_enabled`](super::is_enabled).
    ///
    /// # Errors
    /// If the annotations are invalid, if the Pod does not run, or if its address may not be asked.
    pub fn of(pod: &Pod) -> Result<Option<Self>, TargetError> {
        let Some(settings) = pod.metadata.annotations.as_ref().map(Settings::parse).transpose()?.flatten() else {
            return Ok(None);
        };
        if pod.spec.as_ref().is_none_or(|spec| spec.host_network == Some(true)) {
            return Err(TargetError::HostNetwork);
        }
        let status = pod.status.as_ref().filter(|status| status.phase.as_deref() == Some("Running"));
        let status = status.ok_or(TargetError::NotRunning)?;
        let parse = |text: &str| text.parse::<IpAddr>().ok();
        let address = status.pod_ip.as_deref().and_then(parse).ok_or(TargetError::NotRunning)?;
        check_address(address)?;
        let more = status.host_ips.iter().flatten().map(|host| host.ip.as_str());
        if status.host_ip.as_deref().into_iter().chain(more).filter_map(parse).any(|host| host == address) {
            return Err(TargetError::HostNetwork);
        }
        let meta = &pod.metadata;
        let (Some(name), Some(uid)) = (&meta.name, &meta.uid) else { return Err(TargetError::NotRunning) };
        Ok(Some(Self {
            pod: ObjectKey::new(meta.namespace.as_deref().unwrap_or_default(), name),
            uid: Uid::from(uid),
            address: SocketAddr::new(address, settings.port),
            settings,
        }))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn of(change: impl FnOnce(&mut Value)) -> Result<Option<Target>, TargetError> {
        let mut pod = json!({
            "metadata": {"name": "p", "namespace": "n", "uid": "u", "annotations": {
                "vpn.beebs.dev/metrics-port": "9176",
                "vpn.beebs.dev/metrics-names": "openvpn_up",
            }},
            "spec": {"containers": []},
            "status": {"phase": "Running", "podIP": "10.244.0.7", "hostIP": "192.168.1.2"},
        });
        change(&mut pod);
        Target::of(&serde_json::from_value(pod).expect("a Pod"))
    }

    #[test]
    fn a_running_pod_with_the_annotations_is_asked_at_its_own_address() {
        let target = of(|_| {}).expect("valid").expect("a target");
        assert_eq!(target.address, "10.244.0.7:9176".parse().expect("an address"));
        let target = of(|pod| pod["status"]["podIP"] = json!("fd00::7")).expect("valid").expect("a target");
        assert_eq!(target.address, "[fd00::7]:9176".parse().expect("an address"));
        assert_eq!(of(|pod| pod["metadata"]["annotations"] = json!({"a": "b"})), Ok(None));
        assert_eq!(of(|pod| pod["metadata"]["annotations"] = json!(null)), Ok(None));
    }

    #[test]
    fn others_are_not_asked() {
        assert_eq!(of(|pod| pod["spec"]["hostNetwork"] = json!(true)), Err(TargetError::HostNetwork));
        assert_eq!(of(|pod| pod["status"]["podIP"] = json!("192.168.1.2")), Err(TargetError::HostNetwork));
        let second = json!([{"ip": "192.168.1.2"}, {"ip": "10.244.0.7"}]);
        assert_eq!(of(|pod| pod["status"]["hostIPs"] = second), Err(TargetError::HostNetwork));
        for phase in ["Pending", "Succeeded", "Failed", "Unknown"] {
            assert_eq!(of(|pod| pod["status"]["phase"] = json!(phase)), Err(TargetError::NotRunning), "{phase}");
        }
        assert_eq!(of(|pod| pod["status"]["podIP"] = json!(null)), Err(TargetError::NotRunning));
        assert_eq!(of(|pod| pod["status"]["podIP"] = json!("metadata.internal")), Err(TargetError::NotRunning));
        for address in ["127.0.0.1", "169.254.169.254", "0.0.0.0", "::1", "fe80::1", "::ffff:127.0.0.1"] {
            let refused = of(|pod| pod["status"]["podIP"] = json!(address));
            assert!(matches!(refused, Err(TargetError::Address(_))), "{address}");
        }
        let port = |pod: &mut Value| pod["metadata"]["annotations"]["vpn.beebs.dev/metrics-port"] = json!("x");
        assert!(matches!(of(port), Err(TargetError::Settings(SettingsError::Port(_)))));
    }
}
