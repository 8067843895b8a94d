//! The first process in a container with an OpenVPN server: it sets up the network, starts OpenVPN, ends the
//! sessions of revoked clients, and lets sessions end by themselves before the Pod does.

pub mod child;
pub mod counts;
pub mod management;
pub mod prepare;
pub mod revoked;
pub mod stop;

use std::{
    ffi::{OsStr, OsString},
    fs::{self, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context;
use clap::Args;
use tokio::signal::unix::{Signal, SignalKind, signal};

use self::{child::OpenVpn, counts::Counts, management::Management, revoked::RevokedDirectory};
use crate::openvpn::{
    AgentSettings, firewall,
    settings::{SETTINGS_FILE, SETTINGS_VERSION},
};

/// The name of OpenVPN's configuration, in its directory.
pub const CONFIG_FILE: &str = "server.conf";
/// The name of the management socket, in the directory that both containers share.
pub const MANAGEMENT_SOCKET: &str = "management.sock";
/// The name of the file that tells the exporter that the Pod ends.
pub const DRAINING_FILE: &str = "draining";
/// The size up to which Kubernetes reads the message of a container that ended.
const MAX_MESSAGE: usize = 3 * 1024;

/// Settings of `openvpn-server`.
#[derive(Clone, Debug, Args)]
pub struct ServerArgs {
    /// Directory with `server.conf` and `agent.json`.
    #[arg(long, default_value = "/etc/openvpn/config")]
    pub config_dir: PathBuf,

    /// Directory with the certificate and the key of the server.
    #[arg(long, default_value = "/etc/openvpn/pki")]
    pub pki_dir: PathBuf,

    /// Directory with a file for each revoked serial number, with the common name as its content.
    #[arg(long, default_value = "/etc/openvpn/revoked")]
    pub revoked_dir: PathBuf,

    /// Directory for the management socket, shared with the exporter.
    #[arg(long, default_value = "/run/openvpn")]
    pub run_dir: PathBuf,

    /// OpenVPN.
    #[arg(long, default_value = "openvpn")]
    pub openvpn: PathBuf,

    /// Status file of OpenVPN, which others than root may read.
    #[arg(long, default_value = "/tmp/openvpn-status.log")]
    pub status_file: PathBuf,

    /// Program for the rules of the network.
    #[arg(long, default_value = "iptables", hide = true)]
    pub iptables: OsString,

    /// Device for tunnels.
    #[arg(long, default_value = "/dev/net/tun", hide = true)]
    pub tun_device: PathBuf,

    /// Setting of the kernel that lets it forward packets.
    #[arg(long, default_value = "/proc/sys/net/ipv4/ip_forward", hide = true)]
    pub forwarding_setting: PathBuf,

    /// File for the reason why the container ended. Nothing is written if it does not exist.
    #[arg(long, default_value = "/dev/termination-log", hide = true)]
    pub termination_log: PathBuf,
}

/// Runs the server until OpenVPN ends, and returns its code, or until the container is to end.
pub async fn run(args: ServerArgs) -> ExitCode {
    match serve(&args).await {
        Ok(code) => code.into(),
        Err(error) => {
            tracing::error!("{error:#}");
            explain(&args.termination_log, &format!("{error:#}\n"));
            ExitCode::FAILURE
        }
    }
}

async fn serve(args: &ServerArgs) -> anyhow::Result<u8> {
    // First of all: the first process of a container ignores signals that it does not handle.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let settings = read_settings(&args.config_dir)?;
    check_keys(&args.pki_dir)?;
    let draining = args.run_dir.join(DRAINING_FILE);
    // A file from before the container was restarted.
    let _ = fs::remove_file(&draining);
    prepare::tun(&args.tun_device)?;
    prepare::forwarding(&args.forwarding_setting)?;
    prepare::firewall(&args.iptables, &firewall::steps(&settings))?;
    let status_file = args.status_file.display();
    prepare::status_file(&args.status_file).with_context(|| format!("cannot create {status_file}"))?;

    let counts = Counts::new(&args.run_dir);
    let management = Management::new(args.run_dir.join(MANAGEMENT_SOCKET));
    // Before OpenVPN starts, so that each certificate is refused by it or found here.
    let revoked = RevokedDirectory::new(&args.revoked_dir);
    let config = args.config_dir.join(CONFIG_FILE);
    let mut openvpn = OpenVpn::start(&args.openvpn, &[OsStr::new("--config"), config.as_os_str()])?;
    let watch = revoked::watch(revoked, &management, &counts);

    let until_end = async {
        tokio::select! {
            code = openvpn.exited() => return Some(code),
            () = first(&mut terminate, &mut interrupt) => {}
        }
        if let Err(error) = fs::write(&draining, "") {
            tracing::warn!(%error, "cannot write {}", draining.display());
        }
        let hurry = first(&mut terminate, &mut interrupt);
        tokio::select! {
            code = openvpn.exited() => Some(code),
            () = stop::drain(&management, &counts, settings.drain_timeout(), hurry) => None,
        }
    };
    let code = tokio::select! {
        code = until_end => code,
        () = watch => None,
    };
    match code {
        Some(code) => {
            tracing::error!(code, "OpenVPN ended");
            explain(&args.termination_log, &openvpn.last_lines());
            Ok(code)
        }
        None => {
            stop::stop(&mut openvpn, &management).await;
            Ok(0)
        }
    }
}

async fn first(terminate: &mut Signal, interrupt: &mut Signal) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

fn read_settings(directory: &Path) -> anyhow::Result<AgentSettings> {
    let path = directory.join(SETTINGS_FILE);
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let settings = AgentSettings::parse(&text).with_context(|| format!("{} is malformed", path.display()))?;
    if settings.version != SETTINGS_VERSION {
        tracing::warn!(version = settings.version, "the settings are of another version: new ones have no effect");
    }
    Ok(settings)
}

/// Checks that the Secret is there, because OpenVPN only tells that it has no certificate.
fn check_keys(directory: &Path) -> anyhow::Result<()> {
    for name in ["ca.crt", "tls.crt", "tls.key"] {
        let path = directory.join(name);
        fs::File::open(&path).with_context(|| format!("cannot read {}", path.display()))?;
    }
    Ok(())
}

/// Writes the reason why the container ended.
fn explain(file: &Path, text: &str) {
    let from = text.len().saturating_sub(MAX_MESSAGE);
    let from = (from..text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(text.len());
    let written = OpenOptions::new().write(true).truncate(true).open(file);
    if let Ok(mut file) = written {
        // There is nobody to tell.
        let _ = file.write_all(&text.as_bytes()[from..]);
    }
}
