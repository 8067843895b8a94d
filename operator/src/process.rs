//! One process of the operator, from its start to its end.

use std::{process::ExitCode, sync::Arc};

use anyhow::Context;
use kube::{Client, Config};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};
use tracing_subscriber::{EnvFilter, fmt};

use crate::{
    cli::{Cli, Command, LogFormat},
    metrics::Metrics,
    runtime::{
        self, Observers,
        health::{self, Served},
        lease::{self, LeaderLease},
    },
};

/// Runs what the command line says, until it ends or is told to.
pub async fn main(cli: Cli) -> ExitCode {
    log(cli.log_format);
    match run(cli).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // As all else in the log: it may be read by a program.
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: Cli) -> anyhow::Result<()> {
    raise_open_files();
    let mut config = Config::infer().await.context("no kubeconfig and no in-cluster credentials found")?;
    // An outcome that is not known is read back, never sent again behind our back.
    config.default_retry = false;
    config.connect_timeout = Some(runtime::DEADLINE);
    let agent = format!("vpn-operator/{} ({})", env!("CARGO_PKG_VERSION"), cli.command.name());
    config.headers.push((http::header::USER_AGENT, agent.parse().context("User-Agent")?));
    let namespace = cli.lease_namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
    let client = Client::try_from(config).context("the API server's address or credentials cannot be used")?;

    if matches!(cli.command, Command::RemoveFinalizers) {
        let removed = runtime::finalizers::remove_all(&client).await?;
        tracing::info!("{removed} finalizers removed");
        return Ok(());
    }
    tracing::info!(version = env!("CARGO_PKG_VERSION"), controllers = cli.command.name(), "starting");
    let (ready, unready) = watch::channel(cli.command.controllers().watches().into_keys().collect());
    let (lead, leads) = watch::channel(if cli.leader_elect { None } else { lease::for_ever() });
    let mut leader_lease = LeaderLease::new(client.clone(), &namespace, cli.command.lease(), identity());
    tokio::spawn(say_when_ready(unready.clone()));
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (stop, stopped) = tokio::sync::oneshot::channel();
    let metrics = Arc::new(Metrics::new(&cli.metrics_prefix, &cli.command.controllers())?);
    let (snapshots, questions) = runtime::snapshots();
    let served = Served { unready, metrics: metrics.clone(), snapshots };
    let observers = Observers { ready, metrics, questions };
    let controllers =
        runtime::run(client, cli.command.controllers(), cli.verification.into(), observers, leads, async {
            // The sender goes only with the process.
            let _ = stopped.await;
        });
    let guardian = async {
        tokio::select! {
            _ = terminate.recv() => Ok(()),
            _ = interrupt.recv() => Ok(()),
            lost = leader_lease.lead(lead), if cli.leader_elect => lost.map_err(anyhow::Error::from),
            ended = serve(cli.metrics_port, served) => ended,
        }
    };
    let shutdown = async {
        let why = guardian.await;
        if let Err(error) = &why {
            // Another process may lead already: nothing may be sent any more, not even what is under way may be
            // waited for.
            tracing::error!("{error:#}");
            std::process::exit(1);
        }
        tracing::info!("stopping");
        let _ = stop.send(());
    };
    tokio::join!(controllers, shutdown);
    if cli.leader_elect {
        leader_lease.release().await;
    }
    Ok(())
}

fn log(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let lines = fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        LogFormat::Text => lines.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).init(),
        LogFormat::Json => lines.json().init(),
    }
}

/// A name that no other process has: the Pod's, and the time of the start for two on one host.
fn identity() -> String {
    let host =
        std::env::var("POD_NAME").or_else(|_| std::env::var("HOSTNAME")).unwrap_or_else(|_| "vpn-operator".into());
    format!("{host}_{}_{}", std::process::id(), chrono::Utc::now().timestamp_micros())
}

async fn say_when_ready(mut unready: watch::Receiver<runtime::Unready>) {
    if unready.wait_for(Vec::is_empty).await.is_ok() {
        tracing::info!("ready: all watches have listed");
    }
}

async fn serve(port: Option<u16>, served: Served) -> anyhow::Result<()> {
    match port {
        Some(port) => health::serve(port, served).await,
        None => std::future::pending().await,
    }
}

/// Each credentials Secret is a watch, and each watch a connection: with a thousand providers the usual soft limit of
/// 1024 open files does not do.
fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        tracing::debug!(%error, "the limit of open files stays as it is");
    }
}
