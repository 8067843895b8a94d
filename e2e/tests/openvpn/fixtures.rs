//! A CA, a server and its clients, in a network namespace of their own.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::Ipv4Addr,
    os::unix::{fs::PermissionsExt, net::UnixStream},
    path::Path,
    process::Command,
    time::Duration,
};

use e2e::testing::programs::{Network, Program};
use tempfile::TempDir;
use time::OffsetDateTime;
use vpn_operator::{
    openvpn::{
        config::{Protocol, ServerConfig, server_config},
        profile::{Profile, Remote},
    },
    pki::{Authority, Issued, Request, Serial, Usage, issue, new_tls_crypt_key},
};

/// The timeout of every wait, in seconds.
const PATIENCE: u64 = 30;
/// Servers and clients log this when they are ready.
pub const STARTED: &str = "Initialization Sequence Completed";

pub fn now() -> OffsetDateTime {
    OffsetDateTime::now_utc()
}

pub fn days(number: i64) -> time::Duration {
    time::Duration::days(number)
}

pub fn authority() -> Authority {
    Authority::new("home", now(), days(3650)).unwrap()
}

pub fn request(name: &str, usage: Usage) -> Request {
    Request { common_name: name.to_owned(), usage, serial: Serial::derive(&[name]), lifetime: days(365) }
}

pub fn client(authority: &Authority, name: &str) -> Issued {
    issue(authority, &request(name, Usage::Client), now()).unwrap()
}

/// Returns the output of a program, which must succeed.
pub fn run(directory: &Path, command: &str) -> String {
    let (output, ok) = try_run(directory, command);
    assert!(ok, "{command}: {output}");
    output
}

/// Returns the output of a program, and whether it succeeded.
pub fn try_run(directory: &Path, command: &str) -> (String, bool) {
    let output = Command::new("sh").args(["-c", &format!("{command} 2>&1")]).current_dir(directory).output().unwrap();
    (String::from_utf8_lossy(&output.stdout).into_owned(), output.status.success())
}

pub fn config() -> ServerConfig {
    ServerConfig {
        protocol: Protocol::Udp,
        port: 1194,
        clients: "10.240.0.0/16".parse().unwrap(),
        redirect_gateway: true,
        routes: vec!["10.96.0.0/12".parse().unwrap()],
        dns_servers: vec![Ipv4Addr::new(10, 96, 0, 10)],
        search_domains: vec!["cluster.local".parse().unwrap()],
        mssfix: 1360,
        max_clients: 128,
        lines: vec![],
        keystore: None,
    }
}

/// A client.
pub struct Client(Program);

impl Client {
    /// Waits until it is connected.
    pub fn connected(self) -> Self {
        self.logs(STARTED);
        self
    }

    /// Waits until its log has a text.
    pub fn logs(&self, text: &str) {
        self.0.writes(text, PATIENCE);
    }

    pub fn log(&self) -> String {
        self.0.log()
    }
}

/// A server.
pub struct Server {
    running: Option<Program>,
    pub authority: Authority,
    pub config: ServerConfig,
    pub directory: TempDir,
    tls_crypt: String,
    network: Network,
}

impl Server {
    /// Starts a server with a new CA.
    pub fn start(config: ServerConfig) -> Self {
        let server = Self::prepare(config, authority(), now());
        server.started()
    }

    /// Writes the files of a server, with a certificate issued at another time.
    pub fn prepare(config: ServerConfig, authority: Authority, issued: OffsetDateTime) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        // The server becomes `nobody` and reads the directory of revoked certificates as such.
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        for name in ["pki", "revoked", "ccd", "run"] {
            fs::create_dir(path.join(name)).unwrap();
        }
        let wanted = Request { lifetime: days(36500), ..request("home", Usage::Server(vec![])) };
        let own = issue(&authority, &wanted, issued).unwrap();
        let tls_crypt = new_tls_crypt_key().unwrap();
        let files = [("ca.crt", authority.certificate()), ("tls.crt", &own.certificate), ("tls.key", &own.key)];
        for (name, text) in files.into_iter().chain([("tls-crypt.key", &*tls_crypt)]) {
            fs::write(path.join("pki").join(name), text).unwrap();
            fs::set_permissions(path.join("pki").join(name), fs::Permissions::from_mode(0o400)).unwrap();
        }
        Self { running: None, authority, config, directory, tls_crypt, network: Network::new() }
    }

    pub fn started(mut self) -> Self {
        let path = self.directory.path();
        let root = path.to_str().unwrap();
        let text = server_config(&self.config)
            .replace("/etc/openvpn", root)
            .replace("/run/openvpn", &format!("{root}/run"))
            .replace("/tmp/openvpn-status.log", &format!("{root}/status.log"));
        fs::write(path.join("server.conf"), text).unwrap();
        let running = self.openvpn("server", "server.conf");
        running.writes(STARTED, PATIENCE);
        self.running = Some(running);
        self
    }

    pub fn profile(&self, client: &Issued) -> String {
        let remote: Remote = "127.0.0.1".parse().unwrap();
        let profile = Profile {
            protocol: self.config.protocol,
            remote: &remote,
            port: self.config.port,
            server_name: "home",
            ca: self.authority.certificate(),
            certificate: &client.certificate,
            key: Some(&client.key),
            tls_crypt: &self.tls_crypt,
            mssfix: 1360,
            lines: &[],
        };
        profile.to_string()
    }

    /// Starts a client with a profile, but without a tunnel device of its own.
    pub fn connect(&self, name: &str, profile: &str) -> Client {
        let file = format!("{name}.ovpn");
        let device = "\ndev null\nifconfig-noexec\nroute-noexec\n";
        fs::write(self.directory.path().join(&file), profile.replace("\ndev tun\n", device)).unwrap();
        Client(self.openvpn(name, &file))
    }

    pub fn revoke(&self, serial: Serial, name: &str) {
        fs::write(self.directory.path().join("revoked").join(serial.to_string()), name).unwrap();
    }

    pub fn log(&self) -> String {
        self.running.as_ref().unwrap().log()
    }

    /// Waits until the log of the server has a text.
    pub fn logs(&self, text: &str) {
        self.running.as_ref().unwrap().writes(text, PATIENCE);
    }

    /// Returns the common names of the clients that are connected, with their addresses.
    pub fn clients(&self) -> Vec<(String, String)> {
        let mut stream = UnixStream::connect(self.directory.path().join("run/management.sock")).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(PATIENCE))).unwrap();
        stream.write_all(b"status 3\n").unwrap();
        let lines = BufReader::new(stream).lines().map(Result::unwrap).take_while(|line| line != "END");
        let rows = lines.filter_map(|line| line.strip_prefix("CLIENT_LIST\t").map(str::to_owned));
        let fields = rows.map(|row| row.split('\t').map(str::to_owned).collect::<Vec<_>>());
        fields.map(|fields| (fields[0].clone(), fields[2].clone())).collect()
    }

    fn openvpn(&self, name: &str, config: &str) -> Program {
        let path = self.directory.path();
        let mut command = self.network.command("openvpn");
        Program::start(command.args(["--config", config]).current_dir(path), &path.join(format!("{name}.log")))
    }
}
