//! Parses the command line and runs the command.

use std::process::ExitCode;

use clap::Parser;
use vpn_operator::{cli::Cli, process};

#[tokio::main]
async fn main() -> ExitCode {
    process::main(Cli::parse()).await
}
