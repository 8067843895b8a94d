//! Servers, clients and exporters.

use std::{
    fs::{self, Permissions},
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process::Command,
};

use e2e::{
    operator::executable_in,
    testing::programs::{Network, Program, eventually},
};
use rcgen::ExtendedKeyUsagePurpose;
use tempfile::TempDir;

use crate::certificates::Authority;

pub const OPENVPN: &str = "/usr/sbin/openvpn";
/// OpenVPN logs this when it is ready.
pub const STARTED: &str = "Initialization Sequence Completed";

/// The files of a server.
pub struct World {
    directory: TempDir,
    /// The network outlives the agent, as the network of a Pod outlives its containers. Each server needs its own,
    /// because tunnels would clash.
    network: Network,
    authority: Authority,
    /// The operator.
    pub program: PathBuf,
}

impl World {
    /// Makes certificates and the configuration of a server with a version of the status.
    pub fn new(drain_seconds: u64, status_version: u32) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let program = executable_in(directory.path()).unwrap();
        let world = Self { directory, network: Network::new(), authority: Authority::new(), program };
        // OpenVPN runs as another user after it has started.
        fs::set_permissions(world.path(""), Permissions::from_mode(0o755)).unwrap();
        for name in ["config", "pki", "revoked", "run"] {
            fs::create_dir(world.path(name)).unwrap();
        }
        fs::set_permissions(world.path("run"), Permissions::from_mode(0o777)).unwrap();
        fs::write(world.path("pki/ca.crt"), world.authority.pem()).unwrap();
        world.authority.issue("server", 1, ExtendedKeyUsagePurpose::ServerAuth, &world.path("pki/tls"));
        fs::write(world.path("forwarding"), "1").unwrap();
        fs::write(world.path("termination-log"), "").unwrap();
        let settings = format!(
            r#"{{"version":1,"protocol":"UDP","port":1194,"clients":"10.240.0.0/16","redirectGateway":true,
            "routes":[],"drainTimeoutSeconds":{drain_seconds},"maxClients":128,"individuals":true}}"#
        );
        fs::write(world.path("config/agent.json"), settings).unwrap();
        fs::write(world.path("config/server.conf"), world.config(status_version)).unwrap();
        world
    }

    fn config(&self, status_version: u32) -> String {
        let at = self.directory.path().display();
        format!(
            "port 1194\nproto udp\ndev tun0\ndev-type tun\ntopology subnet\n\
             server 10.240.0.0 255.255.0.0\nca {at}/pki/ca.crt\ncert {at}/pki/tls.crt\nkey {at}/pki/tls.key\ndh none\n\
             tls-version-min 1.2\nremote-cert-tls client\ncrl-verify {at}/revoked dir\nkeepalive 10 60\n\
             max-clients 128\nuser nobody\ngroup nogroup\npersist-key\npersist-tun\nstatus {at}/status.log 1\n\
             status-version {status_version}\nmanagement {at}/run/management.sock unix\n\
             explicit-exit-notify 1\nverb 3\n"
        )
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn read(&self, name: &str) -> String {
        String::from_utf8_lossy(&fs::read(self.path(name)).unwrap_or_default()).into_owned()
    }

    /// The command line of the agent, with changes.
    pub fn arguments(&self, changes: &[(&str, &str)]) -> Vec<String> {
        let at = self.directory.path().display();
        let line = format!(
            "openvpn-server --config-dir {at}/config --pki-dir {at}/pki --revoked-dir {at}/revoked --run-dir {at}/run \
             --openvpn {OPENVPN} --status-file {at}/status.log --iptables true --tun-device /dev/null \
             --forwarding-setting {at}/forwarding --termination-log {at}/termination-log"
        );
        let mut arguments: Vec<_> = line.split_whitespace().map(str::to_owned).collect();
        for (flag, value) in changes {
            let at = arguments.iter().position(|argument| argument == flag).unwrap();
            arguments[at + 1] = (*value).to_owned();
        }
        arguments
    }

    /// Returns the command that runs a program in the network.
    pub fn inside(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        self.network.command(program)
    }

    /// Starts the agent with changes of its command line.
    pub fn start_agent(&self, changes: &[(&str, &str)]) -> Program {
        Program::start(self.inside(&self.program).args(self.arguments(changes)), &self.path("agent.log"))
    }

    /// Starts the agent, and waits until OpenVPN runs.
    pub fn agent(&self) -> Program {
        let agent = self.start_agent(&[]);
        agent.writes(STARTED, 20);
        agent
    }

    /// Starts a client, and waits until it is connected.
    pub fn client(&self, name: &str, serial: u64) -> Program {
        let file: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
        self.authority.issue(name, serial, ExtendedKeyUsagePurpose::ClientAuth, &self.path(&file));
        let at = self.directory.path().display();
        let line = format!(
            "--client --dev null --proto udp --remote 127.0.0.1 1194 --nobind --ca {at}/pki/ca.crt \
             --cert {at}/{file}.crt --key {at}/{file}.key --remote-cert-tls server --verb 3 --connect-retry 1 1 \
             --route-noexec --ifconfig-noexec --explicit-exit-notify 1"
        );
        let log = self.path(&format!("{file}.log"));
        let client = Program::start(self.inside(OPENVPN).args(line.split_whitespace()), &log);
        client.writes(STARTED, 20);
        client
    }

    /// Starts an exporter that reads the management socket.
    pub fn exporter(&self) -> Exporter {
        self.exporter_with(&format!("--openvpn.management={}", self.path("run/management.sock").display()))
    }

    /// Starts an exporter.
    pub fn exporter_with(&self, more: &str) -> Exporter {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let at = self.directory.path().display();
        let line = format!(
            "openvpn-exporter -web.listen-address=127.0.0.1:{port} --config-dir {at}/config --run-dir {at}/run {more}"
        );
        // The exporter runs outside the network, so it does not end with the network if the test is killed.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]).arg(&self.program).args(line.split_whitespace());
        let process = Program::start(&mut command, &self.path(&format!("exporter-{port}.log")));
        eventually("the exporter listens", 20, || TcpStream::connect(("127.0.0.1", port)).ok());
        Exporter { process, port }
    }

    /// Revokes a certificate.
    pub fn revoke(&self, name: &str, serial: u64) {
        // Like the files of the kubelet, the file appears together with its content.
        fs::write(self.path("new"), name).unwrap();
        fs::rename(self.path("new"), self.path(&format!("revoked/{serial}"))).unwrap();
    }
}

/// A running exporter.
pub struct Exporter {
    pub process: Program,
    port: u16,
}

impl Exporter {
    /// Returns the status and the body.
    pub fn get(&self, path: &str) -> (u16, String) {
        eventually(&format!("an answer to {path}"), 5, || self.try_get(path))
    }

    fn try_get(&self, path: &str) -> Option<(u16, String)> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: exporter\r\nConnection: close\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
    }

    /// Returns the value of the only series of a metric, with or without labels.
    pub fn value(&self, name: &str) -> Option<f64> {
        let (_, text) = self.get("/metrics");
        let series =
            text.lines().find(|line| line.starts_with(name) && line[name.len()..].starts_with(['{', ' ', '"']))?;
        series.rsplit_once(' ')?.1.parse().ok()
    }

    /// Waits until a metric has a value.
    pub fn shows(&self, name: &str, value: f64, seconds: u64) {
        eventually(&format!("{name} is {value}"), seconds, || (self.value(name) == Some(value)).then_some(()));
    }

    /// Waits until as many sessions are shown, and returns them.
    pub fn shows_sessions(&self, count: usize, seconds: u64) -> Vec<(String, i64)> {
        let what = format!("{count} sessions are shown");
        eventually(&what, seconds, || Some(self.sessions()).filter(|sessions| sessions.len() == count))
    }

    /// Waits until at least as many sessions have ended for a reason.
    pub fn shows_ended(&self, reason: &str, count: f64, seconds: u64) {
        eventually(&format!("{count} sessions ended: {reason}"), seconds, || {
            (self.ended(reason) >= count).then_some(())
        });
    }

    pub fn ended(&self, reason: &str) -> f64 {
        self.value(&format!("openvpn_server_sessions_killed_total{{reason=\"{reason}")).unwrap_or_default()
    }

    /// Returns names and times of sessions.
    pub fn sessions(&self) -> Vec<(String, i64)> {
        let sessions: serde_json::Value = serde_json::from_str(&self.get("/sessions").1).unwrap_or_default();
        let sessions = sessions.as_array().cloned().unwrap_or_default();
        let mut sessions: Vec<_> = sessions
            .iter()
            .map(|one| (one["name"].as_str().unwrap().to_owned(), one["since"].as_i64().unwrap()))
            .collect();
        sessions.sort();
        sessions
    }
}
