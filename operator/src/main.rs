//! Parses the command line and runs the command.

use std::process::ExitCode;

use clap::Parser;
use vpn_operator::{cli::Cli, process, runtime::openvpn_exporter::two_dashes};

#[tokio::main]
async fn main() -> ExitCode {
    process::main(Cli::parse_from(two_dashes(std::env::args_os()))).await
}
