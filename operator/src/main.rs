//! Parses the command line and runs the controllers.

use anyhow::Context;
use clap::Parser;
use kube::{Client, Config};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::{EnvFilter, fmt};
use vpn_operator::{
    cli::{Cli, LogFormat},
    shell,
};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    match cli.log_format {
        LogFormat::Text => fmt().with_env_filter(filter).with_writer(std::io::stderr).init(),
        LogFormat::Json => fmt().json().with_env_filter(filter).with_writer(std::io::stderr).init(),
    }
    let mut config = Config::infer().await.context("no kubeconfig and no in-cluster credentials found")?;
    // An outcome that is not known is read back, never sent again behind our back.
    config.default_retry = false;
    config.connect_timeout = Some(shell::DEADLINE);
    let agent = format!("vpn-operator/{} ({})", env!("CARGO_PKG_VERSION"), cli.command.name());
    config.headers.push((http::header::USER_AGENT, agent.parse().context("User-Agent")?));
    let client = Client::try_from(config).context("the API server's address or credentials cannot be used")?;
    let (ready, mut unready) = tokio::sync::watch::channel(Vec::new());
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let stop = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping");
    };
    tokio::spawn(async move {
        while unready.changed().await.is_ok() {
            if unready.borrow_and_update().is_empty() {
                tracing::info!("ready: all watches have listed");
                return;
            }
        }
    });
    tracing::info!(version = env!("CARGO_PKG_VERSION"), controllers = cli.command.name(), "starting");
    shell::run(client, cli.command.roles(), ready, stop).await;
    Ok(())
}
