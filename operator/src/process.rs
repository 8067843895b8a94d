//! The process: configuration, signals and leader election around the runtime.

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
        self, Reporting, SnapshotClient, fake_metric,
        health::{self, ServerState},
        lease::{self, LeaderLease},
        metrics_api::{self, MetricsApiSettings},
        openvpn_client, openvpn_exporter, openvpn_server,
        webhook::{self, WebhookSettings},
    },
};

/// Runs a command until it ends, or until the process receives a signal.
pub async fn main(cli: Cli) -> ExitCode {
    // Before the log: the output of these is for people.
    if let Command::Hpa(command) = &cli.command {
        return command.run();
    }
    if let Command::OpenvpnClient(command) = cli.command {
        return openvpn_client::run(command).await;
    }
    log(cli.log_format);
    // It is the first process of its container, and collects all others.
    if let Command::OpenvpnServer(args) = cli.command {
        return openvpn_server::run(args).await;
    }
    match run(cli).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Logged instead of printed, because the format may be JSON.
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: Cli) -> anyhow::Result<()> {
    raise_file_limit();
    if let Command::FakeMetric { port } = cli.command {
        return fake_metric::serve(port).await;
    }
    if let Command::OpenvpnExporter(args) = cli.command {
        return openvpn_exporter::run(args).await;
    }
    let mut config = Config::infer().await.context("no kubeconfig and no in-cluster credentials found")?;
    // The engine reads the object after an unknown outcome. The client must not retry on its own.
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
    let webhook = cli.webhook.settings(&cli.command, &namespace);
    let metrics_api = cli.metrics_api.settings(&cli.command, &namespace, &cli.metrics_prefix);
    // These servers take no part in the election, and the observer never leads.
    let observes = matches!(cli.command, Command::ServeMetricsApi);
    let leader_elect = cli.leader_elect && !observes && !matches!(cli.command, Command::ServeWebhook);
    let controllers = cli.command.controllers(cli.webhook.injection, cli.servers.servers);
    let (unsynced_sender, unsynced) = watch::channel(controllers.clone().watches().into_keys().collect());
    let (leader_sender, leader_until) = watch::channel(if leader_elect || observes { None } else { lease::forever() });
    let mut leader_lease = LeaderLease::new(client.clone(), &namespace, cli.command.lease(), identity());
    tokio::spawn(log_when_ready(unsynced.clone()));
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (stop, stopped) = tokio::sync::oneshot::channel();
    let metrics = Metrics::new(&cli.metrics_prefix, &controllers.clone())?;
    let metrics = Arc::new(metrics.with_claims(cli.metrics_api.metrics_api_claims.clone()));
    let webhook = serve_webhook(client.clone(), webhook, metrics.clone());
    let (snapshots, snapshot_requests) = runtime::snapshot_channel();
    let metrics_api = serve_metrics_api(client.clone(), metrics_api, snapshots.clone(), metrics.clone());
    let server_state = ServerState { unsynced, metrics: metrics.clone(), snapshots };
    let reporting = Reporting { unsynced: unsynced_sender, metrics, snapshot_requests };
    let settings = (cli.verification.into(), cli.servers.into());
    let controllers = runtime::run(client, controllers, settings, reporting, leader_until, async {
        // The sender exists as long as the process.
        let _ = stopped.await;
    });
    let end = async {
        tokio::select! {
            _ = terminate.recv() => Ok(()),
            _ = interrupt.recv() => Ok(()),
            lost = leader_lease.lead(leader_sender), if leader_elect => lost.map_err(anyhow::Error::from),
            failed = serve(cli.metrics_port, server_state) => failed,
            failed = webhook => failed,
            failed = metrics_api => failed,
        }
    };
    let shutdown = async {
        if let Err(error) = end.await {
            // Another process may already be the leader. Exit at once, without waiting for requests in flight.
            tracing::error!("{error:#}");
            std::process::exit(1);
        }
        tracing::info!("stopping");
        let _ = stop.send(());
    };
    tokio::join!(controllers, shutdown);
    if leader_elect {
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

/// Returns a unique identity: the name of the Pod, and the start time in case of several processes on a host.
fn identity() -> String {
    let host =
        std::env::var("POD_NAME").or_else(|_| std::env::var("HOSTNAME")).unwrap_or_else(|_| "vpn-operator".into());
    format!("{host}_{}_{}", std::process::id(), chrono::Utc::now().timestamp_micros())
}

async fn log_when_ready(mut unsynced: watch::Receiver<runtime::UnsyncedKinds>) {
    if unsynced.wait_for(Vec::is_empty).await.is_ok() {
        tracing::info!("ready: all watches have listed");
    }
}

async fn serve(port: Option<u16>, state: ServerState) -> anyhow::Result<()> {
    match port {
        Some(port) => health::serve(port, state).await,
        None => std::future::pending().await,
    }
}

async fn serve_webhook(client: Client, settings: Option<WebhookSettings>, metrics: Arc<Metrics>) -> anyhow::Result<()> {
    match settings {
        Some(settings) => webhook::serve(client, settings, metrics).await,
        None => std::future::pending().await,
    }
}

async fn serve_metrics_api(
    client: Client,
    settings: Option<MetricsApiSettings>,
    snapshots: SnapshotClient,
    metrics: Arc<Metrics>,
) -> anyhow::Result<()> {
    match settings {
        Some(settings) => metrics_api::serve(client, settings, snapshots, metrics).await,
        None => std::future::pending().await,
    }
}

/// Raises the soft limit of open files. Each credentials Secret has a watch, which is a connection, so the usual limit
/// of 1024 is too low for a thousand providers.
fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        tracing::debug!(%error, "cannot raise the limit of open files");
    }
}
