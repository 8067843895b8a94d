//! A VPN service inside the cluster: servers that real clients log in to, what they see of the world behind, and every
//! way to get it wrong (see [`Case`]).
//!
//! ```text
//! client Pod -- eth0 --> Service vpn --> Pod vpn: openvpn, wireguard-go -- SNAT --> Service address --> Pod address
//! ```
//!
//! A client Pod that asks the Service `address` who it is, is told its own address without the VPN, and that of the Pod
//! `vpn` with it.

use std::{collections::BTreeMap, net::Ipv4Addr, process::Command};

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::{Pod, Secret, Service};
use kube::{
    Api,
    api::{DeleteParams, PostParams},
};
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

pub use super::vpn_case::{CONFIG_FILE, CREDENTIALS_DIR, Case};
use super::{Node, images, run};
use crate::{
    Bench, Cluster, Identity,
    kubectl::Kubectl,
    pki::{authority, signed},
};

/// How many WireGuard keys there are: one key is one device.
pub const WIREGUARD_KEYS: usize = 4;
/// The user whose contract allows one connection.
pub(super) const LIMITED_USER: &str = "limited";
pub(super) const USER: &str = "alice";
/// Further users, each an account of its own.
pub const OTHER_USERS: [&str; 2] = ["bob", "carol"];
/// The password of its users.
pub const PASSWORD: &str = "correct-horse-battery-staple";
const ADDRESS_PORT: u16 = 8080;

const FILES: [(&str, &str); 5] = [
    ("start.sh", include_str!("../../vpn-server/start.sh")),
    ("openvpn.conf", include_str!("../../vpn-server/openvpn.conf")),
    ("auth.sh", include_str!("../../vpn-server/auth.sh")),
    ("connect.sh", include_str!("../../vpn-server/connect.sh")),
    ("disconnect.sh", include_str!("../../vpn-server/disconnect.sh")),
];

/// A WireGuard key pair, as `wg` writes them.
#[derive(Clone, Debug)]
pub(super) struct Key {
    pub private: String,
    pub public: String,
}

/// A running VPN service in a namespace of its own.
pub struct VpnService {
    bench_name: String,
    admin: Identity,
    kubectl: Kubectl,
    server_pod: Value,
    pub(super) server: Ipv4Addr,
    exit: std::sync::Mutex<Ipv4Addr>,
    pub(super) address: Ipv4Addr,
    pub(super) silent: Ipv4Addr,
    pub(super) authority: String,
    pub(super) other_authority: String,
    pub(super) server_key: Key,
    pub(super) keys: Vec<Key>,
}

impl VpnService {
    /// The service that the tests of this process share, in [`node::cluster`](super::cluster). A test that stops the
    /// server needs one of its own.
    pub async fn shared() -> Result<&'static Self> {
        static SERVICE: OnceCell<VpnService> = OnceCell::const_new();
        SERVICE.get_or_try_init(async || Self::start(super::cluster().await?).await).await
    }

    /// Starts a service and returns when it can be used.
    ///
    /// # Errors
    /// When the cluster has no node that runs containers.
    pub async fn start(cluster: &Cluster) -> Result<Self> {
        let node = node_of(cluster)?;
        for image in [images::vpn_server()?, images::address()?, images::tools()?, images::gluetun()?] {
            node.import(&image).await?;
        }
        let bench = Bench::new(cluster, "vpn-service").await?;
        let ca = authority("vpn-service")?;
        let mut server = CertificateParams::new(Vec::new())?;
        server.distinguished_name.push(DnType::CommonName, "vpn-server");
        server.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
        let server = signed(server, &ca)?;
        let server_key = new_key()?;
        let keys = (0..WIREGUARD_KEYS).map(|_| new_key()).collect::<Result<Vec<_>>>()?;

        let mut files: BTreeMap<_, _> = FILES.into_iter().map(|(name, text)| (name, text.to_owned())).collect();
        files.insert("ca.crt", ca.pem());
        files.insert("server.crt", server.certificate);
        files.insert("server.key", server.key);
        let users = [USER].into_iter().chain(OTHER_USERS).map(|user| format!("{user}:{PASSWORD}:1000\n"));
        files.insert("users", format!("{}{LIMITED_USER}:{PASSWORD}:1\n", users.collect::<String>()));
        files.insert("wg0.conf", wireguard_config(&server_key, &keys));
        let secret = json!({ "metadata": { "name": "vpn" }, "stringData": files });
        bench.create::<Secret>(serde_json::from_value(secret)?).await?;
        let server_pod = server_pod("vpn", "/vpn/start.sh");
        // A server that answers nothing: packets to it vanish.
        let silent_pod = server_pod_with(
            "silent",
            &["sh", "-c", "iptables -P INPUT DROP && touch /tmp/ready && exec sleep 1000000"],
        );
        for pod in [&server_pod, &silent_pod, &address_pod()] {
            bench.create::<Pod>(serde_json::from_value(pod.clone())?).await?;
        }
        let address = service(&bench, "address", json!([{ "port": ADDRESS_PORT }])).await?;
        let ports = [("openvpn", 1194, "UDP"), ("tcp", 1194, "TCP"), ("stranded", 1195, "UDP"), ("wg", 51820, "UDP")];
        let ports = ports.map(|(name, port, protocol)| json!({ "name": name, "port": port, "protocol": protocol }));
        let server = service(&bench, "vpn", json!(ports)).await?;
        let exit = ready_pod(&bench, "vpn").await?;
        let silent = ready_pod(&bench, "silent").await?;
        ready_pod(&bench, "address").await?;
        Ok(Self {
            bench_name: bench.name().to_owned(),
            admin: cluster.admin().clone(),
            kubectl: cluster.kubectl(),
            server_pod,
            server,
            exit: exit.into(),
            address,
            silent,
            authority: ca.pem(),
            other_authority: authority("another-vpn-service")?.pem(),
            server_key,
            keys,
        })
    }

    /// The environment variables of gluetun for this case, and the file that some need: the data of a Secret.
    ///
    /// OpenVPN's provider `custom` reads a file: mount the key [`CONFIG_FILE`] of the Secret as a file in
    /// [`CREDENTIALS_DIR`], as [`mount`](super::vpn_case::mount) does.
    pub fn credentials(&self, case: Case) -> BTreeMap<String, String> {
        case.credentials(self)
    }

    /// The Secret with [`credentials`](Self::credentials), for a namespace of the caller's choice.
    pub fn secret(&self, name: &str, case: Case) -> Result<Secret> {
        Ok(serde_json::from_value(json!({ "metadata": { "name": name }, "stringData": self.credentials(case) }))?)
    }

    /// Where a Pod can ask who it is: `http://…`; `/` answers with the address alone.
    pub fn address_url(&self) -> String {
        format!("http://{}:{ADDRESS_PORT}", self.address)
    }

    /// How an operator has to be started so that its verifications use this service and the images of the tests:
    /// environment variables.
    pub fn operator_settings(&self) -> [(&'static str, String); 4] {
        [
            ("VERIFY_VPN_IMAGE", images::GLUETUN.to_owned()),
            ("VERIFY_INIT_IMAGE", images::TOOLS.to_owned()),
            ("VERIFY_PROBE_IMAGE", images::TOOLS.to_owned()),
            ("VERIFY_IP_SERVICES", self.address_url()),
        ]
    }

    /// The address that a Pod behind the VPN has for the others.
    pub fn exit_address(&self) -> Ipv4Addr {
        *self.exit.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// How many requests came from each address so far.
    pub async fn counts(&self) -> Result<BTreeMap<Ipv4Addr, u64>> {
        let path = format!("/api/v1/namespaces/{}/pods/address:{ADDRESS_PORT}/proxy/count", self.bench_name);
        let text = self.kubectl.run(&self.admin, &["get", "--raw", &path]).await?;
        let line = |line: &str| {
            let (address, count) = line.split_once(' ').context("no count")?;
            anyhow::Ok((address.parse()?, count.parse()?))
        };
        text.lines().map(line).collect::<Result<_>>().with_context(|| format!("cannot read the counts {text:?}"))
    }

    /// Ends the servers as a crash does: no client is told.
    pub async fn kill(&self) -> Result<()> {
        // A kubelet sends SIGTERM first; what the servers say then must not be heard.
        self.exec("vpn", "iptables -P OUTPUT DROP; iptables -P INPUT DROP").await?;
        self.end_pod().await
    }

    /// Ends the servers politely: those of OpenVPN tell their clients.
    pub async fn stop(&self) -> Result<()> {
        self.end_pod().await
    }

    /// Starts the servers again, at the same address but with another exit address.
    pub async fn start_again(&self) -> Result<()> {
        let pods = self.pods()?;
        pods.create(&PostParams::default(), &serde_json::from_value(self.server_pod.clone())?).await?;
        let address = pod_ready(pods, "vpn").await?;
        *self.exit.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = address;
        Ok(())
    }

    /// Takes the only connection of the account of [`Case::TooManyConnections`], with a Pod that stays.
    pub async fn take_the_only_connection(&self) -> Result<()> {
        static ONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
        let _one = ONE.lock().await;
        let pods = self.pods()?;
        if pods.get_opt("first-device").await?.is_none() {
            let secrets: Api<Secret> = Api::namespaced(self.admin.client()?, &self.bench_name);
            let secret = self.secret("first-device", Case::TooManyConnections)?;
            secrets.create(&PostParams::default(), &secret).await?;
            let pod = super::vpn_case::client_pod("first-device", "first-device", None)?;
            pods.create(&PostParams::default(), &pod).await?;
        }
        pod_ready(pods, "first-device").await.map(drop)
    }

    /// What the servers, or another Pod of the service, have logged.
    pub async fn logs(&self, pod: &str) -> Result<String> {
        self.kubectl.run(&self.admin, &["--namespace", &self.bench_name, "logs", pod]).await
    }

    async fn exec(&self, pod: &str, script: &str) -> Result<String> {
        let args = ["--namespace", &self.bench_name, "exec", pod, "--", "sh", "-c", script];
        self.kubectl.run(&self.admin, &args).await
    }

    async fn end_pod(&self) -> Result<()> {
        let pods = self.pods()?;
        pods.delete("vpn", &DeleteParams::default()).await?;
        let gone = |pod: Option<&Pod>| pod.is_none();
        kube::runtime::wait::await_condition(pods, "vpn", gone).await?;
        Ok(())
    }

    fn pods(&self) -> Result<Api<Pod>> {
        Ok(Api::namespaced(self.admin.client()?, &self.bench_name))
    }
}

/// The node of a cluster.
///
/// # Errors
/// When it has none that runs containers.
pub fn node_of(cluster: &Cluster) -> Result<&Node> {
    cluster.control_plane().and_then(|control_plane| control_plane.node()).context("no node that runs containers")
}

/// A new WireGuard key pair.
pub(super) fn new_key() -> Result<Key> {
    let private = run(Command::new("wg").arg("genkey"))?.trim().to_owned();
    let mut derive = Command::new("sh");
    let public = run(derive.env("KEY", &private).args(["-c", "echo \"$KEY\" | wg pubkey"]))?.trim().to_owned();
    Ok(Key { private, public })
}

fn wireguard_config(server: &Key, keys: &[Key]) -> String {
    let mut text = format!("[Interface]\nPrivateKey = {}\nListenPort = 51820\n", server.private);
    for (index, key) in keys.iter().enumerate() {
        text += &format!("\n[Peer]\nPublicKey = {}\nAllowedIPs = {}/32\n", key.public, wireguard_address(index));
    }
    text
}

/// The address in the tunnel of the WireGuard key with this index.
pub fn wireguard_address(index: usize) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 9, 0, 2)) + u32::try_from(index).unwrap_or_default())
}

fn server_pod(name: &str, program: &str) -> Value {
    server_pod_with(name, &[program])
}

fn server_pod_with(name: &str, command: &[&str]) -> Value {
    json!({
        "metadata": { "name": name, "labels": { "app": name } },
        "spec": {
            "terminationGracePeriodSeconds": 5,
            "enableServiceLinks": false,
            "automountServiceAccountToken": false,
            "securityContext": { "sysctls": [{ "name": "net.ipv4.ip_forward", "value": "1" }] },
            "containers": [{
                "name": "server",
                "image": images::VPN_SERVER,
                "command": command,
                "securityContext": { "capabilities": { "add": ["NET_ADMIN"] } },
                // Not as a readiness probe: each time a program is started in the container.
                "startupProbe": {
                    "exec": { "command": ["test", "-e", "/tmp/ready"] },
                    "periodSeconds": 1,
                    "failureThreshold": 120,
                },
                "volumeMounts": [{ "name": "files", "mountPath": "/vpn" }],
            }],
            "volumes": [{ "name": "files", "secret": { "secretName": "vpn", "defaultMode": 0o755 } }],
        },
    })
}

fn address_pod() -> Value {
    json!({
        "metadata": { "name": "address", "labels": { "app": "address" } },
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "automountServiceAccountToken": false,
            "containers": [{
                "name": "server",
                "image": images::ADDRESS,
                "readinessProbe": { "tcpSocket": { "port": ADDRESS_PORT }, "periodSeconds": 1 },
            }],
        },
    })
}

async fn service(bench: &Bench, name: &str, ports: Value) -> Result<Ipv4Addr> {
    let service = json!({ "metadata": { "name": name }, "spec": { "selector": { "app": name }, "ports": ports } });
    let created = bench.create::<Service>(serde_json::from_value(service)?).await?;
    Ok(created.spec.and_then(|spec| spec.cluster_ip).context("a Service without address")?.parse()?)
}

async fn ready_pod(bench: &Bench, name: &str) -> Result<Ipv4Addr> {
    bench.dump_on_error(async { pod_ready(bench.api(), name).await.map(drop) }).await?;
    pod_ready(bench.api(), name).await
}

/// Waits until a Pod is ready, and gives its address.
pub async fn pod_ready(pods: Api<Pod>, name: &str) -> Result<Ipv4Addr> {
    let ready = kube::runtime::conditions::is_pod_running();
    let is_ready = |pod: Option<&Pod>| {
        use kube::runtime::wait::Condition;
        ready.matches_object(pod) && pod.is_some_and(crate::observe::is_ready)
    };
    let wait = kube::runtime::wait::await_condition(pods, name, is_ready);
    let pod = tokio::time::timeout(crate::observe::LIMIT, wait)
        .await
        .with_context(|| format!("the Pod {name} is not ready"))??
        .context("no Pod")?;
    Ok(pod.status.and_then(|status| status.pod_ip).context("a Pod without address")?.parse()?)
}
