//! Asks the exporters of an OpenVPN server's replicas how many clients are connected.

use std::{collections::HashMap, net::SocketAddr, sync::Arc, time::Duration};

use futures::future::{join_all, try_join_all};
use tokio::sync::mpsc;

use crate::{
    engine::Input,
    model::{LabelMatcher, ObjectKey, Replica, Uid},
    openvpn::{EXPORTER_PORT, exposition::CONNECTED_CLIENTS},
    scrape::{DEFAULT_PATH, Fetch, HttpFetch, Samples, Settings, Target},
};

/// How often the replicas of all servers are asked. A status changes no more often because of its clients.
pub const INTERVAL: Duration = Duration::from_secs(30);

/// Asks the replicas of these servers in the background, and sends the sums to the engine. If a replica does not answer,
/// there is no sum for its server.
pub fn report(servers: Vec<(ObjectKey, Uid, Vec<Replica>)>, inputs: &mpsc::UnboundedSender<Input>) {
    for (server, uid, replicas) in servers {
        let inputs = inputs.clone();
        tokio::spawn(async move {
            match try_join_all(replicas.iter().map(ask)).await {
                Ok(counts) => {
                    // Fails while the process is stopping.
                    let _ = inputs.send(Input::ConnectedClients(server, uid, counts.into_iter().sum()));
                }
                Err(error) => {
                    tracing::debug!(kind = "OpenVPNServer", object = %server, error, "connectedClients is unknown");
                }
            }
        });
    }
}

/// Asks all replicas at once. The result omits replicas that do not answer in time.
pub async fn count_clients(replicas: &[Replica]) -> HashMap<Uid, u64> {
    let count = async |replica: &Replica| match ask(replica).await {
        Ok(count) => Some((replica.uid.clone(), count)),
        Err(error) => {
            tracing::info!(kind = "Pod", object = %replica.pod, error, "the number of clients is unknown");
            None
        }
    };
    join_all(replicas.iter().map(count)).await.into_iter().flatten().collect()
}

async fn ask(replica: &Replica) -> Result<u64, String> {
    let names: Arc<[Arc<str>]> = Arc::from([Arc::from(CONNECTED_CLIENTS)]);
    let settings = Settings { port: EXPORTER_PORT, path: Arc::from(DEFAULT_PATH), names: names.clone() };
    let address = SocketAddr::new(replica.address, EXPORTER_PORT);
    let target = Target { pod: replica.pod.clone(), uid: replica.uid.clone(), address, settings };
    let text = HttpFetch.fetch(&target).await.map_err(|error| error.to_string())?;
    let samples = Samples::parse(&text, &names).map_err(|error| error.to_string())?;
    let sum = samples.sum(CONNECTED_CLIENTS, &LabelMatcher::default());
    sum.map(|sum| sum as u64).ok_or_else(|| format!("no {CONNECTED_CLIENTS}"))
}
