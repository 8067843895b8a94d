//! The exporter beside an OpenVPN server. It needs no rights: it reads the management socket, or status files.

pub mod arguments;
pub mod file;
pub mod server;
pub mod source;
#[cfg(test)]
mod tests;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    time::{Instant, sleep},
};

pub use self::arguments::{ExporterArgs, two_dashes};
use self::source::Source;

/// The exporter exits after nobody has listened on the management socket for this long.
const GONE: Duration = Duration::from_secs(2);
/// How often to look.
const PERIOD: Duration = Duration::from_millis(500);

/// Serves until the Pod ends: after a signal, the exporter continues as long as OpenVPN does. A Pod that becomes
/// unready loses its sessions, so it must stay ready until they have ended.
///
/// # Errors
/// If the address is not available.
pub async fn run(args: ExporterArgs) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let listener = TcpListener::bind(&*args.addresses().await?).await;
    let listener = listener.with_context(|| format!("cannot listen on {}", args.listen_address))?;
    let source = Arc::new(Source::new(&args));
    let router = server::router(source.clone(), &args.telemetry_path);
    tracing::info!(address = %listener.local_addr()?, "serving metrics of OpenVPN");
    let server = axum::serve(listener, router.into_make_service_with_connect_info::<SocketAddr>());
    let end = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => return,
        }
        if source.uses_management() {
            tracing::info!("waiting for the end of OpenVPN");
            gone(&source).await;
        }
    };
    tokio::select! {
        served = server => served.context("the HTTP server failed"),
        () = end => Ok(()),
    }
}

/// Waits until nobody listens on the management socket for some time.
async fn gone(source: &Arc<Source>) {
    let mut since: Option<Instant> = None;
    loop {
        if source.ask().await.is_gone {
            if since.get_or_insert_with(Instant::now).elapsed() >= GONE {
                return;
            }
        } else {
            since = None;
        }
        sleep(PERIOD).await;
    }
}
