//! A VPN service inside the cluster, with servers for real clients, and credentials for every [`Scenario`].
//!
//! ```text
//! client Pod -- eth0 --> Service vpn --> Pod vpn: openvpn, wireguard-go -- SNAT --> Service address --> Pod address
//! ```
//!
//! A client Pod can ask the Service `address` for its own address. Without the VPN, the answer is the address of the Pod. With
//! the VPN, it is the address of the Pod `vpn`.

use std::{collections::BTreeMap, net::Ipv4Addr};

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::{Pod, Secret, Service};
use kube::{
    Api,
    api::{DeleteParams, PostParams},
};
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use super::{
    client::client_pod,
    endpoints::{
        ADDRESS_PORT, Endpoints, Key, LIMITED_USER, OTHER_USERS, PASSWORD, USER, WIREGUARD_KEYS, new_key,
        wireguard_address,
    },
    scenario::Scenario,
};
use crate::{
    auth::{
        Identity,
        pki::{authority, signed},
    },
    cluster::{Cluster, shared},
    node::{ContainerNode, images},
    testing::Framework,
    tools::Kubectl,
    wait,
};

const FILES: [(&str, &str); 5] = [
    ("start.sh", include_str!("../../vpn-server/start.sh")),
    ("openvpn.conf", include_str!("../../vpn-server/openvpn.conf")),
    ("auth.sh", include_str!("../../vpn-server/auth.sh")),
    ("connect.sh", include_str!("../../vpn-server/connect.sh")),
    ("disconnect.sh", include_str!("../../vpn-server/disconnect.sh")),
];

/// A running VPN service. It has its own namespace.
pub struct VpnService {
    namespace: String,
    admin: Identity,
    kubectl: Kubectl,
    server_pod: Value,
    endpoints: Endpoints,
}

impl VpnService {
    /// The service that the tests of this process share, in [`shared::cluster_with_node`]. A test that stops the
    /// server must start another service.
    pub async fn shared() -> Result<&'static Self> {
        static SERVICE: OnceCell<VpnService> = OnceCell::const_new();
        SERVICE.get_or_try_init(async || Self::start(shared::cluster_with_node().await?).await).await
    }

    /// Starts a service, and returns when clients can connect.
    ///
    /// # Errors
    /// When the cluster has no node that runs containers.
    pub async fn start(cluster: &Cluster) -> Result<Self> {
        let node = node_of(cluster)?;
        for image in [images::vpn_server()?, images::address()?, images::tools()?, images::gluetun()?] {
            node.import(&image).await?;
        }
        let f = Framework::new(cluster, "vpn-service").await?;
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
        f.create::<Secret>(serde_json::from_value(secret)?).await?;
        let server_pod = server_pod("vpn", "/vpn/start.sh");
        // A server that drops all packets.
        let silent_pod = server_pod_with(
            "silent",
            &["sh", "-c", "iptables -P INPUT DROP && touch /tmp/ready && exec sleep 1000000"],
        );
        for pod in [&server_pod, &silent_pod, &address_pod()] {
            f.create::<Pod>(serde_json::from_value(pod.clone())?).await?;
        }
        let address = service(&f, "address", json!([{ "port": ADDRESS_PORT }])).await?;
        let ports = [("openvpn", 1194, "UDP"), ("tcp", 1194, "TCP"), ("stranded", 1195, "UDP"), ("wg", 51820, "UDP")];
        let ports = ports.map(|(name, port, protocol)| json!({ "name": name, "port": port, "protocol": protocol }));
        let server = service(&f, "vpn", json!(ports)).await?;
        let exit = ready_pod(&f, "vpn").await?;
        let silent = ready_pod(&f, "silent").await?;
        ready_pod(&f, "address").await?;
        Ok(Self {
            namespace: f.name().to_owned(),
            admin: cluster.admin().clone(),
            kubectl: cluster.kubectl(),
            server_pod,
            endpoints: Endpoints {
                server,
                address,
                silent,
                authority: ca.pem(),
                other_authority: authority("another-vpn-service")?.pem(),
                server_key,
                keys,
                exit: exit.into(),
            },
        })
    }

    /// The data of a Secret for this scenario: the environment variables of gluetun, and a file if gluetun needs one.
    ///
    /// OpenVPN's provider `custom` reads a file: mount the key [`CONFIG_FILE`](super::CONFIG_FILE) of the Secret as a file in
    /// [`CREDENTIALS_DIR`](super::CREDENTIALS_DIR), as [`mount`](super::mount) does.
    pub fn credentials(&self, scenario: Scenario) -> BTreeMap<String, String> {
        scenario.credentials(&self.endpoints)
    }

    /// The Secret with [`credentials`](Self::credentials), for a namespace of the caller's choice.
    pub fn secret(&self, name: &str, scenario: Scenario) -> Result<Secret> {
        Ok(serde_json::from_value(json!({ "metadata": { "name": name }, "stringData": self.credentials(scenario) }))?)
    }

    /// The URL of the page that returns the address of its client.
    pub fn address_url(&self) -> String {
        self.endpoints.address_url()
    }

    /// The environment variables with which an operator verifies accounts of this service, with the images of the tests.
    pub fn operator_env(&self) -> [(&'static str, String); 4] {
        [
            ("VERIFY_VPN_IMAGE", images::GLUETUN.to_owned()),
            ("VERIFY_INIT_IMAGE", images::TOOLS.to_owned()),
            ("VERIFY_PROBE_IMAGE", images::TOOLS.to_owned()),
            ("VERIFY_IP_SERVICES", self.address_url()),
        ]
    }

    /// The address from which other Pods see a Pod behind the VPN.
    pub fn exit_address(&self) -> Ipv4Addr {
        self.endpoints.exit_address()
    }

    /// The number of requests from each client address.
    pub async fn request_counts(&self) -> Result<BTreeMap<Ipv4Addr, u64>> {
        let path = format!("/api/v1/namespaces/{}/pods/address:{ADDRESS_PORT}/proxy/count", self.namespace);
        let text = self.kubectl.run(&self.admin, &["get", "--raw", &path]).await?;
        let line = |line: &str| {
            let (address, count) = line.split_once(' ').context("no count")?;
            anyhow::Ok((address.parse()?, count.parse()?))
        };
        text.lines().map(line).collect::<Result<_>>().with_context(|| format!("cannot read the counts {text:?}"))
    }

    /// Stops the servers like a crash: they do not notify their clients.
    pub async fn kill(&self) -> Result<()> {
        // The kubelet sends SIGTERM first. What the servers then send must not arrive.
        self.exec("vpn", "iptables -P OUTPUT DROP; iptables -P INPUT DROP").await?;
        self.end_pod().await
    }

    /// Stops the servers gracefully: OpenVPN notifies its clients.
    pub async fn stop(&self) -> Result<()> {
        self.end_pod().await
    }

    /// Starts the servers again, with the same Service address but another exit address.
    pub async fn restart(&self) -> Result<()> {
        let pods = self.pods()?;
        pods.create(&PostParams::default(), &serde_json::from_value(self.server_pod.clone())?).await?;
        let address = pod_ready(pods, "vpn").await?;
        self.endpoints.set_exit_address(address);
        Ok(())
    }

    /// Takes the only connection of the account of [`Scenario::TooManyConnections`], with a Pod that stays.
    pub async fn take_the_only_connection(&self) -> Result<()> {
        static ONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
        let _one = ONE.lock().await;
        let pods = self.pods()?;
        if pods.get_opt("first-device").await?.is_none() {
            let secrets: Api<Secret> = Api::namespaced(self.admin.client()?, &self.namespace);
            let secret = self.secret("first-device", Scenario::TooManyConnections)?;
            secrets.create(&PostParams::default(), &secret).await?;
            let pod = client_pod("first-device", "first-device", None)?;
            pods.create(&PostParams::default(), &pod).await?;
        }
        pod_ready(pods, "first-device").await.map(drop)
    }

    /// The log of the servers (`vpn`), or of another Pod of the service.
    pub async fn logs(&self, pod: &str) -> Result<String> {
        self.kubectl.run(&self.admin, &["--namespace", &self.namespace, "logs", pod]).await
    }

    async fn exec(&self, pod: &str, script: &str) -> Result<String> {
        let args = ["--namespace", &self.namespace, "exec", pod, "--", "sh", "-c", script];
        self.kubectl.run(&self.admin, &args).await
    }

    async fn end_pod(&self) -> Result<()> {
        let pods = self.pods()?;
        pods.delete("vpn", &DeleteParams::default()).await?;
        let gone = |pod: Option<&Pod>| pod.is_none();
        wait::await_condition(pods, "vpn", gone).await?;
        Ok(())
    }

    fn pods(&self) -> Result<Api<Pod>> {
        Ok(Api::namespaced(self.admin.client()?, &self.namespace))
    }
}

/// The node of a cluster.
///
/// # Errors
/// When it has none that runs containers.
pub fn node_of(cluster: &Cluster) -> Result<&ContainerNode> {
    cluster.control_plane().and_then(|control_plane| control_plane.node()).context("no node that runs containers")
}

fn wireguard_config(server: &Key, keys: &[Key]) -> String {
    let mut text = format!("[Interface]\nPrivateKey = {}\nListenPort = 51820\n", server.private);
    for (index, key) in keys.iter().enumerate() {
        text += &format!("\n[Peer]\nPublicKey = {}\nAllowedIPs = {}/32\n", key.public, wireguard_address(index));
    }
    text
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
                // A readiness probe would start a program in the container each time.
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

/// Creates a Service for the Pod with the label `app` of the same name, and returns its address.
pub async fn service(f: &Framework, name: &str, ports: Value) -> Result<Ipv4Addr> {
    let service = json!({ "metadata": { "name": name }, "spec": { "selector": { "app": name }, "ports": ports } });
    let created = f.create::<Service>(serde_json::from_value(service)?).await?;
    Ok(created.spec.and_then(|spec| spec.cluster_ip).context("a Service without address")?.parse()?)
}

async fn ready_pod(f: &Framework, name: &str) -> Result<Ipv4Addr> {
    f.dump_on_error(async { pod_ready(f.api(), name).await.map(drop) }).await?;
    pod_ready(f.api(), name).await
}

/// Waits until a Pod is ready, and returns its address.
pub async fn pod_ready(pods: Api<Pod>, name: &str) -> Result<Ipv4Addr> {
    let ready = kube::runtime::conditions::is_pod_running();
    let is_ready = |pod: Option<&Pod>| {
        use kube::runtime::wait::Condition;
        ready.matches_object(pod) && pod.is_some_and(wait::is_ready)
    };
    let wait = wait::await_condition(pods, name, is_ready);
    let pod = tokio::time::timeout(wait::TIMEOUT, wait)
        .await
        .with_context(|| format!("the Pod {name} is not ready"))??
        .context("no Pod")?;
    Ok(pod.status.and_then(|status| status.pod_ip).context("a Pod without address")?.parse()?)
}
