//! The command line over the [`e2e`] library.

mod checks;
mod commands;
mod demo;

use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::{Parser, Subcommand};
use e2e::{
    process::{
        Isolation, isolation,
        protocol::{BECOME, SUPERVISE},
        supervisor,
    },
    tools::Binaries,
};

/// A real Kubernetes control plane for vpn-operator, without a container registry
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// See vpn-operator at work on a real control plane
    Demo(commands::demo::Demo),
    /// Run every check that a change has to pass
    Test(commands::test::Test),
    /// Start a cluster and keep it until Ctrl-C
    Up(commands::up::Up),
    /// Run the kubectl that is built with the control plane
    Kubectl(commands::kubectl::Kubectl),
    /// Build a container image without a container engine
    Image(commands::image::Image),
    /// Measure many Masks at once: time, requests and memory
    Load(commands::load::Load),
    /// Measure labeled Pods: many at once, compared with as many Masks, or single Pods, compared with handwritten ones
    Labeled(commands::labeled::Labeled),
    /// Measure OpenVPN servers: the time to the first client and throughput
    Servers(commands::servers::Servers),
    /// Build the programs of the control plane unless they exist already
    Build,
    /// Own the processes of a cluster; started by the library
    #[command(hide = true, name = SUPERVISE)]
    Supervise {
        /// The directory to remove at the end
        remove: Option<PathBuf>,
    },
    /// Keep the namespaces of a node; started by the library
    #[command(hide = true, name = isolation::ISOLATE)]
    Isolate {
        #[arg(value_parser = isolation)]
        isolation: Isolation,
        /// The directory to remove at the end
        remove: Option<PathBuf>,
    },
    /// Be the first process of the namespaces of a node
    #[command(hide = true, name = isolation::INIT)]
    Init {
        outside: u32,
        #[arg(value_parser = isolation)]
        isolation: Isolation,
    },
    /// Become a program that is killed with its parent; started by the supervisor
    #[command(hide = true, name = BECOME)]
    Become {
        parent: u32,
        program: PathBuf,
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
}

fn main() -> Result<ExitCode> {
    match Cli::parse().command {
        Command::Test(test) => return test.run(),
        Command::Demo(demo) => run(demo.run()),
        Command::Up(up) => run(up.run()),
        Command::Load(load) => run(load.run()),
        Command::Labeled(labeled) => run(labeled.run()),
        Command::Servers(servers) => run(servers.run()),
        Command::Kubectl(kubectl) => kubectl.run(),
        Command::Image(image) => image.run(),
        Command::Build => Binaries::ensure().map(|binaries| println!("{}", binaries.dir().display())),
        Command::Supervise { remove } => supervisor::supervise(remove.as_deref()),
        Command::Isolate { isolation, remove } => isolation::isolate(&isolation, remove.as_deref()),
        Command::Init { outside, isolation } => isolation::init(outside, &isolation),
        Command::Become { parent, program, args } => supervisor::become_program(parent, &program, &args),
    }?;
    Ok(ExitCode::SUCCESS)
}

fn isolation(argument: &str) -> serde_json::Result<Isolation> {
    serde_json::from_str(argument)
}

/// Runs a command that needs the async runtime. The supervisor must not have one: it
/// starts processes from its only long-lived thread.
fn run(command: impl Future<Output = Result<()>>) -> Result<()> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(command)
}
