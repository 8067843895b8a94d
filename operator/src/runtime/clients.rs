//! Asks the exporters of an OpenVPN server's replicas how many clients are connected.

use std::{collections::HashMap, net::SocketAddr, sync::Arc, time::Duration};

use futures::future::join_all;
use tokio::sync::mpsc;

use crate::{
    engine::Input,
    model::{LabelMatcher, ObjectKey, Replica, Uid},
    openvpn::{EXPORTER_PORT, exposition::CONNECTED_CLIENTS},
    scrape::{DEFAULT_PATH, Fetch, HttpFetch, Samples, Settings, Target},
};

/// How often the replicas of all servers are asked, and so the maximum rate of status changes due to clients.
pub const INTERVAL: Duration = Duration::from_secs(30);

/// Asks the replicas of these servers in the background, and tells the engine. Of a server with a replica that does not
/// answer, it tells nothing.
pub fn report(servers: Vec<(ObjectKey, Uid, Vec<Replica>)>, inputs: &mpsc::UnboundedSender<Input>) {
    for (server, uid, replicas) in servers {
        let inputs = inputs.clone();
        tokio::spawn(async move {
            let counts = count_clients(&replicas).await;
            if counts.len() == replicas.len() {
                // Fails while the process is stopping.
                let _ = inputs.send(Input::ConnectedClients(server, uid, counts.values().sum()));
            }
        });
    }
}

/// Asks all replicas at once. Those that do not answer in time are left out.
pub async fn count_clients(replicas: &[Replica]) -> HashMap<Uid, u64> {
    let names: Arc<[Arc<str>]> = Arc::from([Arc::from(CONNECTED_CLIENTS)]);
    let ask = async |replica: &Replica| {
        let settings = Settings { port: EXPORTER_PORT, path: Arc::from(DEFAULT_PATH), names: names.clone() };
        let address = SocketAddr::new(replica.address, EXPORTER_PORT);
        let target = Target { pod: replica.pod.clone(), uid: replica.uid.clone(), address, settings };
        let answer = HttpFetch.fetch(&target).await.map_err(|error| error.to_string());
        let samples = answer.and_then(|text| Samples::parse(&text, &names).map_err(|error| error.to_string()));
        match samples.map(|samples| samples.sum(CONNECTED_CLIENTS, &LabelMatcher::default())) {
            Ok(Some(sum)) => Some((replica.uid.clone(), sum as u64)),
            Ok(None) => None,
            Err(error) => {
                tracing::debug!(kind = "Pod", object = %replica.pod, error, "the number of clients is unknown");
                None
            }
        }
    };
    join_all(replicas.iter().map(ask)).await.into_iter().flatten().collect()
}
