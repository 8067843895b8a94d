//! The command line of the exporter, which is also that of the exporter by kumina: a program in Go, whose flags may
//! have one dash.

use std::{
    ffi::OsString,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use clap::{ArgAction, Args, builder::BoolishValueParser};

/// The name of the command.
pub const COMMAND: &str = "openvpn-exporter";
/// The management socket, if there is one at this path.
pub const MANAGEMENT: &str = "/run/openvpn/management.sock";

const LISTEN_ADDRESS: &str = "web.listen-address";
const TELEMETRY_PATH: &str = "web.telemetry-path";
const STATUS_PATHS: &str = "openvpn.status_paths";
const MANAGEMENT_FLAG: &str = "openvpn.management";
const IGNORE_INDIVIDUALS: &str = "ignore.individuals";
const FLAGS: [&str; 8] = [
    LISTEN_ADDRESS,
    TELEMETRY_PATH,
    STATUS_PATHS,
    MANAGEMENT_FLAG,
    IGNORE_INDIVIDUALS,
    "config-dir",
    "run-dir",
    "help",
];

/// Settings of `openvpn-exporter`. Long flags may also have one dash.
#[derive(Clone, Debug, Args)]
pub struct ExporterArgs {
    /// Address and port of the HTTP server. Without an address: all.
    #[arg(long = LISTEN_ADDRESS, default_value = ":9176")]
    pub listen_address: String,

    /// Path of the metrics.
    #[arg(long = TELEMETRY_PATH, default_value = "/metrics", value_parser = parse_path)]
    pub telemetry_path: String,

    /// Status files of OpenVPN, separated by commas. They are read where there is no management socket. The first one
    /// is the label of what the management socket tells.
    #[arg(
        long = STATUS_PATHS,
        default_value = "/etc/openvpn-exporter/openvpn/openvpn-status.log",
        value_delimiter = ','
    )]
    pub status_paths: Vec<PathBuf>,

    /// Management socket of OpenVPN. Default: /run/openvpn/management.sock, if it exists.
    #[arg(long = MANAGEMENT_FLAG)]
    pub management: Option<PathBuf>,

    /// Show no names and addresses of clients, only totals.
    #[arg(
        long = IGNORE_INDIVIDUALS,
        num_args = 0..=1,
        require_equals = true,
        default_value = "false",
        default_missing_value = "true",
        action = ArgAction::Set,
        value_parser = BoolishValueParser::new()
    )]
    pub ignore_individuals: bool,

    /// Directory with `agent.json`. Without that file, the exporter only knows what OpenVPN reports.
    #[arg(long, default_value = "/etc/openvpn/config")]
    pub config_dir: PathBuf,

    /// Directory with the files from the agent for the exporter.
    #[arg(long, default_value = "/run/openvpn")]
    pub run_dir: PathBuf,

    /// Addresses of the Pod. The first IPv4 address is the one from which others see connected clients.
    #[arg(long, env = "POD_IPS", value_delimiter = ',')]
    pub pod_ips: Vec<IpAddr>,
}

fn parse_path(text: &str) -> Result<String, String> {
    // Other characters have a meaning for the router.
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || "/-._~".contains(c);
    match text.strip_prefix('/') {
        Some(_) if text.chars().all(is_allowed) => Ok(text.to_owned()),
        _ => Err("expected a path such as /metrics".into()),
    }
}

impl ExporterArgs {
    /// Returns the addresses to listen on: the first that works is taken.
    ///
    /// # Errors
    /// If the address is malformed, or its name is unknown.
    pub async fn addresses(&self) -> anyhow::Result<Vec<SocketAddr>> {
        let address = &self.listen_address;
        let unknown = |error| anyhow::anyhow!("--{LISTEN_ADDRESS} {address}: {error}");
        match address.strip_prefix(':') {
            // The first one is also for IPv4, but a kernel without IPv6 does not have it.
            Some(port) => {
                let port = port.parse::<u16>().map_err(|error| unknown(error.to_string()))?;
                Ok(vec![([0_u16; 8], port).into(), ([0_u8; 4], port).into()])
            }
            None => match tokio::net::lookup_host(address).await {
                Ok(addresses) => Ok(addresses.collect()),
                Err(error) => Err(unknown(error.to_string())),
            },
        }
    }
}

/// Returns the command line with two dashes before the long flags of the exporter. That of other commands stays as it
/// is.
pub fn two_dashes(arguments: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let (mut is_exporter, mut is_over) = (false, false);
    let with_dashes = |argument: OsString| {
        let text = argument.to_str().unwrap_or_default();
        is_over |= is_exporter && text == "--";
        let flag = text.strip_prefix('-').filter(|_| is_exporter && !is_over);
        let is_known = flag.is_some_and(|flag| FLAGS.contains(&flag.split('=').next().unwrap_or_default()));
        let changed = if is_known { OsString::from(format!("-{text}")) } else { argument.clone() };
        is_exporter |= text == COMMAND;
        changed
    };
    arguments.into_iter().map(with_dashes).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    enum Cli {
        OpenvpnExporter(ExporterArgs),
    }

    fn parse(arguments: &str) -> Result<ExporterArgs, clap::Error> {
        let arguments = ["vpn-operator", COMMAND].into_iter().chain(arguments.split_whitespace());
        let Cli::OpenvpnExporter(args) = Cli::try_parse_from(two_dashes(arguments.map(OsString::from)))?;
        Ok(args)
    }

    #[test]
    fn flags_have_one_dash_or_two() {
        for dashes in ["-", "--"] {
            let equals = format!(
                "{dashes}openvpn.status_paths=/a,/b {dashes}web.listen-address=:9 {dashes}ignore.individuals \
                 {dashes}web.telemetry-path=/m {dashes}config-dir=/c"
            );
            for arguments in [equals.clone(), equals.replace("paths=", "paths ").replace("path=", "path ")] {
                let args = parse(&arguments).unwrap();
                assert_eq!(args.status_paths, [PathBuf::from("/a"), PathBuf::from("/b")]);
                assert_eq!((&*args.listen_address, &*args.telemetry_path), (":9", "/m"));
                assert!(args.ignore_individuals && args.config_dir.ends_with("c"));
            }
        }
    }

    #[test]
    fn defaults_are_those_that_are_known() {
        let args = parse("").unwrap();
        assert_eq!(args.status_paths, [PathBuf::from("/etc/openvpn-exporter/openvpn/openvpn-status.log")]);
        assert_eq!((&*args.listen_address, &*args.telemetry_path), (":9176", "/metrics"));
        assert!(!args.ignore_individuals && args.management.is_none());
    }

    #[test]
    fn a_flag_of_go_may_have_a_value() {
        assert!(parse("-ignore.individuals=true").unwrap().ignore_individuals);
        assert!(parse("-ignore.individuals=1").unwrap().ignore_individuals);
        assert!(!parse("-ignore.individuals=false").unwrap().ignore_individuals);
        assert!(parse("-unknown").is_err());
        assert!(parse("-web.telemetry-path={x}").is_err());
        assert!(parse("-web.telemetry-path=metrics").is_err());
    }

    #[test]
    fn other_commands_stay_as_they_are() {
        let same = |line: &str| {
            let arguments: Vec<_> = line.split(' ').map(OsString::from).collect();
            assert_eq!(two_dashes(arguments.clone()), arguments);
        };
        same("vpn-operator manage-all -config-dir x");
        same("vpn-operator openvpn-exporter -- -config-dir x");
        same("vpn-operator openvpn-exporter -h -V --config-dir -x");
        same("vpn-operator -config-dir openvpn-exporter");
    }

    #[tokio::test]
    async fn the_address_may_be_missing() {
        let addresses =
            async |address: &str| parse(&format!("-web.listen-address={address}")).unwrap().addresses().await;
        assert_eq!(addresses(":9176").await.unwrap()[1], "0.0.0.0:9176".parse().unwrap());
        assert_eq!(addresses("127.0.0.1:1").await.unwrap(), ["127.0.0.1:1".parse().unwrap()]);
        assert!(addresses(":x").await.is_err());
        assert!(addresses("9176").await.is_err());
    }
}
