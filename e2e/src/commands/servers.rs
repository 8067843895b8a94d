//! `e2e servers`
//!
//! The baseline is a Pod that runs the same OpenVPN with the same configuration and keys, but without the agent: see
//! [`Connected::bare`]. The rounds alternate. On a machine with few processors, throughput varies by a tenth between
//! measurements. The processor time of the server varies less.

use anyhow::{Context, Result, ensure};
use clap::Args;
use e2e::{
    Cluster, ControlPlaneOptions, Framework, Layout, Operator, OperatorOptions,
    node::{images, packages},
    operator,
    testing::figures::median,
    vpn::{device_pod, node_of, pod_ready, service},
};
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::{ResourceExt, api::ListParams};
use rustix::param::clock_ticks_per_second;
use serde_json::{Value, json};
use tokio::time::Instant;
use vpn_types::{OpenVPNClient, OpenVPNServer};

/// Measure OpenVPN servers: the time to the first client and throughput, compared with a bare OpenVPN
#[derive(Args)]
pub struct Servers {
    /// How many rounds
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// How long each measurement of throughput takes, in seconds
    #[arg(long, default_value_t = 10)]
    seconds: u64,
}

impl Servers {
    pub async fn run(self) -> Result<()> {
        let cluster = Cluster::connect(ControlPlaneOptions::with_container_node()).await?;
        let node = node_of(&cluster)?;
        packages::ensure(&packages::IPERF3)?;
        let server = images::openvpn(&operator::executable(&cluster).await?)?;
        for image in [server, images::vpn_server()?, images::iperf3()?] {
            node.import(&image).await?;
        }
        let options = OperatorOptions::new(Layout::Combined).servers().env("OPENVPN_IMAGE", images::OPENVPN);
        let operator = Operator::start_with(&cluster, options).await?;
        Framework::run(&cluster, &operator, "servers", async |f| self.measure(f).await).await?;
        operator.stop().await?;
        cluster.stop().await
    }

    async fn measure(&self, f: &Framework) -> Result<()> {
        let ours = Connected::operator(f, "home").await?;
        let bare = Connected::bare(f, "bare").await?;
        let iperf = json!({
            "metadata": {"name": "iperf", "labels": {"app": "iperf"}},
            "spec": {
                "terminationGracePeriodSeconds": 1,
                "containers": [{"name": "iperf", "image": images::IPERF3, "command": ["iperf3", "--server", "--forceflush"]}],
            },
        });
        f.create::<Pod>(serde_json::from_value(iperf)?).await?;
        pod_ready(f.api(), "iperf").await?;
        // Traffic to Pods on the same node bypasses the tunnel, so the target is a Service.
        let target = service(f, "iperf", json!([{"port": 5201}])).await?.to_string();
        let connects = format!("until iperf3 --client {target} --time 1 >/dev/null; do sleep 1; done");
        let first = ["exec", &ours.device, "--container=main", "--", "timeout", "60", "sh", "-c", &connects];
        f.kubectl(&first).await.context("the node does not forward to the Service")?;
        let (mut fast, mut fast_bare) = (Vec::new(), Vec::new());
        for round in 0..self.rounds {
            // Alternates which one is measured first.
            for operator in [round % 2 == 0, round % 2 != 0] {
                let (one, all) = if operator { (&ours, &mut fast) } else { (&bare, &mut fast_bare) };
                all.push(self.throughput(f, one, &target).await?);
            }
        }
        let (rates, costs): (Vec<_>, Vec<_>) = fast.into_iter().unzip();
        let (bare_rates, bare_costs): (Vec<_>, Vec<_>) = fast_bare.into_iter().unzip();
        compare("throughput, Mbit/s", &rates, &bare_rates)?;
        compare("processor time of the server, s/GB", &costs, &bare_costs)?;
        let (mut soon, mut soon_bare) = (Vec::new(), Vec::new());
        for round in 0..self.rounds {
            for (operator, times) in [(true, &mut soon), (false, &mut soon_bare)] {
                let (begun, name) = (Instant::now(), format!("round-{round}-{operator}"));
                let one =
                    if operator { Connected::operator(f, &name).await? } else { Connected::bare(f, &name).await? };
                times.push(begun.elapsed().as_secs_f64());
                one.end(f).await?;
            }
        }
        compare("time to the first client, s", &soon, &soon_bare)
    }

    /// Measures how much a device sends through its server, in Mbit/s, and how much processor time the server needs for
    /// a gigabyte, in seconds.
    async fn throughput(&self, f: &Framework, one: &Connected, target: &str) -> Result<(f64, f64)> {
        let sent = async || {
            let read =
                ["exec", &one.device, "--container=main", "--", "cat", "/sys/class/net/tun0/statistics/tx_bytes"];
            anyhow::Ok(f.kubectl(&read).await?.trim().parse::<f64>()?)
        };
        let (before, used_before) = (sent().await?, one.processor_seconds(f).await?);
        let seconds = self.seconds.to_string();
        let run =
            ["exec", &one.device, "--container=main", "--", "iperf3", "--json", "--client", target, "--time", &seconds];
        let report: Value = serde_json::from_str(&f.kubectl(&run).await?)?;
        ensure!(report["error"].is_null(), "iperf3: {}", report["error"]);
        let received = &report["end"]["sum_received"];
        let (bytes, rate) = (received["bytes"].as_f64(), received["bits_per_second"].as_f64());
        let (through, used) = (sent().await? - before, one.processor_seconds(f).await? - used_before);
        ensure!(
            bytes.is_some_and(|bytes| (1.0..=through).contains(&bytes)),
            "not through the tunnel: {through} of {bytes:?}"
        );
        Ok((rate.context("iperf3 gave no rate")? / 1e6, used / (through / 1e9)))
    }
}

/// A server with one connected device.
struct Connected {
    server: String,
    device: String,
    operator: bool,
}

impl Connected {
    /// An OpenVPNServer and an OpenVPNClient, as a user applies them.
    async fn operator(f: &Framework, name: &str) -> Result<Self> {
        let server = json!({"metadata": {"name": name}, "spec": {"replicas": 1, "ipForward": "Sysctl"}});
        f.create::<OpenVPNServer>(serde_json::from_value(server)?).await?;
        let device = format!("{name}-device");
        let client = json!({"metadata": {"name": device}, "spec": {"server": name}});
        f.create::<OpenVPNClient>(serde_json::from_value(client)?).await?;
        f.wait_for_reason::<OpenVPNClient>(&device, "Issued").await?;
        f.create(device_pod(&device, &device, &format!("{device}.ovpn"), images::IPERF3)?).await?;
        pod_ready(f.api(), &device).await?;
        Ok(Self { server: name.to_owned(), device, operator: true })
    }

    /// A Pod that runs OpenVPN with the files of the server `home`, without the agent, and a device with its profile.
    async fn bare(f: &Framework, name: &str) -> Result<Self> {
        let script = "mkdir -p /dev/net && mknod /dev/net/tun c 10 200 &&
            iptables -t nat -A POSTROUTING -s 10.240.0.0/16 ! -o tun0 -j MASQUERADE &&
            exec openvpn --config /etc/openvpn/config/server.conf";
        let volumes = [
            ("config", "/etc/openvpn/config", json!({"configMap": {"name": "home-config"}})),
            ("clients", "/etc/openvpn/ccd", json!({"configMap": {"name": "home-clients"}})),
            ("pki", "/etc/openvpn/pki", json!({"secret": {"secretName": "home-server"}})),
            ("revoked", "/etc/openvpn/revoked", json!({"secret": {"secretName": "home-revoked"}})),
            ("run", "/run/openvpn", json!({"emptyDir": {"medium": "Memory"}})),
        ];
        let mounts = volumes.iter().map(|(name, path, _)| json!({"name": name, "mountPath": path}));
        let mounts: Vec<_> = mounts.collect();
        let volumes = volumes.into_iter().map(|(name, _, mut volume)| {
            volume["name"] = json!(name);
            volume
        });
        let pod = json!({
            "metadata": {"name": name, "labels": {"app": name}},
            "spec": {
                "terminationGracePeriodSeconds": 3,
                "enableServiceLinks": false,
                "automountServiceAccountToken": false,
                "securityContext": {"sysctls": [{"name": "net.ipv4.ip_forward", "value": "1"}]},
                "containers": [{
                    "name": "openvpn", "image": images::OPENVPN, "command": ["sh", "-c", script],
                    "securityContext": {"capabilities": {"add": ["NET_ADMIN"]}},
                    "volumeMounts": mounts,
                }],
                "volumes": volumes.collect::<Vec<_>>(),
            },
        });
        f.create::<Pod>(serde_json::from_value(pod)?).await?;
        let address = service(f, name, json!([{"port": 1194, "protocol": "UDP"}])).await?;
        let device = format!("{name}-device");
        let issued = f.api::<Secret>().get("home-device").await?.data.unwrap_or_default();
        let profile = String::from_utf8(issued.get("home-device.ovpn").context("no profile")?.0.clone())?;
        let lines = profile.lines().map(|line| match line.starts_with("remote ") {
            true => format!("remote {address} 1194 udp\n"),
            false => format!("{line}\n"),
        });
        let secret = json!({"metadata": {"name": device}, "stringData": {"device.ovpn": lines.collect::<String>()}});
        f.create::<Secret>(serde_json::from_value(secret)?).await?;
        f.create(device_pod(&device, &device, "device.ovpn", images::IPERF3)?).await?;
        pod_ready(f.api(), &device).await?;
        Ok(Self { server: name.to_owned(), device, operator: false })
    }

    /// The processor time that the processes of the server have used, in seconds: see proc_pid_stat(5).
    async fn processor_seconds(&self, f: &Framework) -> Result<f64> {
        let pods = f.api::<Pod>().list(&ListParams::default()).await?;
        let is_server = |pod: &&Pod| {
            let labels = pod.labels();
            [labels.get("app"), labels.get("release")].contains(&Some(&self.server))
        };
        let pod = pods.iter().find(is_server).context("no Pod of the server")?.name_any();
        let read = ["exec", &pod, "--container=openvpn", "--", "sh", "-c", "cat /proc/[0-9]*/stat"];
        let stats = f.kubectl(&read).await?;
        let ticks = stats.lines().filter_map(|line| {
            let (_, fields) = line.rsplit_once(") ")?;
            let used = fields.split(' ').skip(11).take(2).map(|field| field.parse::<f64>().ok());
            used.sum::<Option<f64>>()
        });
        Ok(ticks.sum::<f64>() / clock_ticks_per_second() as f64)
    }

    /// Deletes the device and the server.
    async fn end(self, f: &Framework) -> Result<()> {
        let device = f.api::<Pod>().get(&self.device).await?;
        f.delete::<Pod>(&self.device).await?;
        f.wait_deleted(&device).await?;
        match self.operator {
            true => {
                f.delete::<OpenVPNServer>(&self.server).await?;
                let is_its = |pod: &Pod| pod.name_any().starts_with(&self.server);
                f.wait_until_all::<Pod>("its replica is gone", |pods| !pods.iter().any(is_its)).await.map(drop)
            }
            false => {
                let pod = f.api::<Pod>().get(&self.server).await?;
                f.delete::<Pod>(&self.server).await?;
                f.wait_deleted(&pod).await
            }
        }
    }
}

/// Prints the medians, their ratio, and all measurements.
fn compare(what: &str, ours: &[f64], bare: &[f64]) -> Result<()> {
    let (of_ours, of_bare) = (median(ours.to_vec())?, median(bare.to_vec())?);
    println!("{what}: {of_ours:.2}, bare {of_bare:.2}, ratio {:.3} ({ours:.2?} and {bare:.2?})", of_ours / of_bare);
    Ok(())
}
