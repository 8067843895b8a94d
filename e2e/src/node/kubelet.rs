//! The configuration of kubelet and kube-proxy.

use std::{fs, path::Path};

use anyhow::Result;
use serde_json::json;

use super::containerd::socket;
use crate::{
    auth::Pki,
    network::{CLUSTER_DNS, NODE_POD_RANGE},
    process::{Isolation, ProcessSpec},
};

/// The name of the node.
pub const NODE: &str = "node";

/// The files for kubelet and kube-proxy.
pub struct Files<'a> {
    pub pki: &'a Pki,
    /// The kubeconfig of `system:node:…`.
    pub kubelet: &'a Path,
    /// The kubeconfig of `system:kube-proxy`.
    pub proxy: &'a Path,
}

/// The processes kubelet and kube-proxy. `program` contains both.
pub fn processes(program: &Path, dir: &Path, isolation: &Isolation, files: &Files<'_>) -> Result<[ProcessSpec; 2]> {
    let (kubelet, proxy) = (dir.join("kubelet.yaml"), dir.join("kube-proxy.yaml"));
    let resolver = dir.join("resolv.conf");
    fs::write(&resolver, "")?;
    let config = json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "containerRuntimeEndpoint": format!("unix://{}", socket(dir).display()),
        "authentication": {
            "anonymous": { "enabled": false },
            "webhook": { "enabled": true },
            "x509": { "clientCAFile": files.pki.authority_file() },
        },
        "authorization": { "mode": "Webhook" },
        "tlsCertFile": files.pki.kubelet_certificate(),
        "tlsPrivateKeyFile": files.pki.kubelet_key(),
        "clusterDomain": "cluster.local",
        "clusterDNS": [CLUSTER_DNS],
        "resolvConf": resolver,
        "podLogsDir": dir.join("logs"),
        "volumePluginDir": dir.join("volume-plugins"),
        // For tests, cgroup v1 is good enough.
        "failCgroupV1": false,
        "cgroupDriver": "cgroupfs",
        // A kubelet kills processes in cgroups of Pods that it does not know, so it must not see other cgroups.
        "cgroupRoot": format!("/{}", isolation.name),
        "enforceNodeAllocatable": [],
        "failSwapOn": false,
        // These values do not need CAP_SYS_RESOURCE.
        "maxOpenFiles": 20000,
        "oomScoreAdj": 0,
        // Only tests delete Pods. Other programs use the same disk, so its free space is no reason for an eviction.
        "evictionHard": {
            "memory.available": "0%",
            "nodefs.available": "0%",
            "nodefs.inodesFree": "0%",
            "imagefs.available": "0%",
            "imagefs.inodesFree": "0%",
        },
        // There is no registry to pull an image from again.
        "imageGCHighThresholdPercent": 100,
        "serializeImagePulls": false,
        "maxPods": 250,
        "podPidsLimit": 1000,
        // The VPN server forwards packets in a Pod.
        "allowedUnsafeSysctls": ["net.ipv4.ip_forward"],
        "healthzBindAddress": "127.0.0.1",
    });
    fs::write(&kubelet, config.to_string())?;
    let config = json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "iptables",
        "clientConnection": { "kubeconfig": files.proxy },
        "hostnameOverride": NODE,
        "clusterCIDR": NODE_POD_RANGE,
        // The limits of the machine do not change.
        "conntrack": { "maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s" },
        "iptables": { "minSyncPeriod": "0s" },
    });
    fs::write(&proxy, config.to_string())?;

    let spec = |name: &str| ProcessSpec::new(name, program, dir.join(format!("{name}.log"))).arg(name);
    let kubelet = spec("kubelet")
        .path_flag("config", &kubelet)
        .path_flag("kubeconfig", files.kubelet)
        .path_flag("root-dir", &dir.join("kubelet"))
        .flag("hostname-override", NODE)
        .flag("node-ip", isolation.node)
        .flag("v", 2);
    Ok([kubelet, spec("kube-proxy").path_flag("config", &proxy)])
}
