//! The command lines of the programs of the control plane.

use std::{
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use crate::{auth::Pki, network::SERVICE_RANGE, process::ProcessSpec, tools::Binaries};

/// Loopback ports that were free when they were picked.
pub struct Ports {
    pub etcd: u16,
    etcd_peer: u16,
    pub apiserver: u16,
}

impl Ports {
    pub fn pick() -> Result<Self> {
        // All are bound at the same time, so that they differ.
        let listeners: [_; 3] = std::array::from_fn(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)));
        let mut ports = listeners.into_iter().map(|listener| Ok(listener?.local_addr()?.port()));
        let mut next = || -> Result<u16> { ports.next().context("no port")?.map_err(|e: std::io::Error| e.into()) };
        Ok(Self { etcd: next()?, etcd_peer: next()?, apiserver: next()? })
    }
}

/// What the command lines have in common.
pub struct Components<'a> {
    pub binaries: &'a Binaries,
    pub dir: &'a Path,
    pub pki: &'a Pki,
    pub ports: &'a Ports,
    /// The address of the API server, if a node runs containers. Otherwise, the API server listens on loopback.
    pub node: Option<Ipv4Addr>,
}

impl Components<'_> {
    pub fn audit_log(&self) -> PathBuf {
        self.dir.join("audit.log")
    }

    /// The address of the API server.
    pub fn address(&self) -> Ipv4Addr {
        self.node.unwrap_or(Ipv4Addr::LOCALHOST)
    }

    fn program(&self, name: &str) -> ProcessSpec {
        let log = self.dir.join(format!("{name}.log"));
        // Trades memory for time: garbage collection takes a tenth less time.
        ProcessSpec::new(name, self.binaries.control_plane(), log).arg(name).env("GOGC", 200)
    }

    pub fn etcd(&self) -> ProcessSpec {
        let url = |port| format!("http://{}:{port}", Ipv4Addr::LOCALHOST);
        let (client, peer) = (url(self.ports.etcd), url(self.ports.etcd_peer));
        self.program("etcd")
            .path_flag("data-dir", &self.dir.join("etcd"))
            .flag("listen-client-urls", &client)
            .flag("advertise-client-urls", &client)
            .flag("listen-peer-urls", &peer)
            .flag("initial-advertise-peer-urls", &peer)
            .flag("initial-cluster", format_args!("default={peer}"))
            // The data is removed at the end of the run, so it does not have to survive a power failure.
            .arg("--unsafe-no-fsync")
    }

    pub fn apiserver(&self, extra: &[String]) -> ProcessSpec {
        let mut spec = self
            .program("kube-apiserver")
            .flag("etcd-servers", format_args!("http://{}:{}", Ipv4Addr::LOCALHOST, self.ports.etcd))
            .flag("bind-address", self.address())
            .flag("secure-port", self.ports.apiserver)
            // The EndpointSlice `kubernetes` contains this address and does not accept loopback. Without a node, it is an
            // address that is reserved for documentation, and nothing listens there.
            .flag("advertise-address", self.node.unwrap_or(Ipv4Addr::new(192, 0, 2, 1)))
            .path_flag("tls-cert-file", &self.pki.server_certificate())
            .path_flag("tls-private-key-file", &self.pki.server_key())
            .path_flag("client-ca-file", &self.pki.authority_file())
            .flag("service-account-issuer", "https://kubernetes.default.svc")
            .path_flag("service-account-key-file", &self.pki.service_account_public_key())
            .path_flag("service-account-signing-key-file", &self.pki.service_account_key())
            .flag("service-cluster-ip-range", SERVICE_RANGE)
            .flag("authorization-mode", "Node,RBAC")
            .flag("allow-privileged", true)
            // For the aggregation layer: tests serve metrics APIs.
            .path_flag("requestheader-client-ca-file", &self.pki.front_proxy_authority())
            .flag("requestheader-allowed-names", "front-proxy-client")
            .flag("requestheader-username-headers", "X-Remote-User")
            .flag("requestheader-group-headers", "X-Remote-Group")
            .flag("requestheader-extra-headers-prefix", "X-Remote-Extra-")
            .path_flag("proxy-client-cert-file", &self.pki.front_proxy_certificate())
            .path_flag("proxy-client-key-file", &self.pki.front_proxy_key())
            .path_flag("audit-policy-file", &self.dir.join("audit-policy.yaml"))
            .path_flag("audit-log-path", &self.audit_log())
            // The API server writes an event before it answers the request, and never rotates the file. So every
            // answered request is in the file.
            .flag("audit-log-mode", "blocking")
            .flag("audit-log-maxsize", 100_000);
        if self.node.is_some() {
            spec = spec
                .flag("enable-admission-plugins", "NodeRestriction")
                // For logs, exec and port-forward.
                .flag("kubelet-preferred-address-types", "InternalIP")
                .path_flag("kubelet-certificate-authority", &self.pki.authority_file())
                .path_flag("kubelet-client-certificate", &self.pki.kubelet_client_certificate())
                .path_flag("kubelet-client-key", &self.pki.kubelet_client_key());
        }
        spec.args.extend_from_slice(extra);
        spec
    }

    pub fn controller_manager(&self, kubeconfig: &Path) -> ProcessSpec {
        self.program("kube-controller-manager")
            .path_flag("kubeconfig", kubeconfig)
            .path_flag("service-account-private-key-file", &self.pki.service_account_key())
            .path_flag("root-ca-file", &self.pki.authority_file())
            .arg("--use-service-account-credentials")
            .flag("leader-elect", false)
            // No test uses its HTTPS server.
            .flag("secure-port", 0)
            .flag("kube-api-qps", 500)
            .flag("kube-api-burst", 1000)
            .flag("horizontal-pod-autoscaler-sync-period", "2s")
            // Short enough to detect a lost node soon, and long enough not to mistake a busy machine for one: kwok
            // renews a lease four times in `kwok::LEASE_SECONDS`.
            .flag("node-monitor-period", "1s")
            .flag("node-monitor-grace-period", "20s")
    }

    pub fn scheduler(&self, kubeconfig: &Path) -> ProcessSpec {
        self.program("kube-scheduler")
            .path_flag("kubeconfig", kubeconfig)
            .flag("leader-elect", false)
            .flag("secure-port", 0)
    }
}
