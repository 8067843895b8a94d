//! How many clients are connected to the replicas of an OpenVPN server, as their exporters tell.

use std::{collections::HashMap, net::SocketAddr, sync::Arc};

use futures::future::join_all;

use crate::{
    model::{LabelMatcher, Replica, Uid},
    openvpn::{EXPORTER_PORT, exposition::CONNECTED_CLIENTS},
    scrape::{DEFAULT_PATH, Fetch, HttpFetch, Samples, Settings, Target},
};

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
                tracing::info!(kind = "Pod", object = %replica.pod, error, "the number of clients is unknown");
                None
            }
        }
    };
    join_all(replicas.iter().map(ask)).await.into_iter().flatten().collect()
}
