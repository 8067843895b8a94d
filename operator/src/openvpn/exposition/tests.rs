use std::{collections::BTreeSet, time::Instant};

use proptest::{collection::vec, prelude::*};

use super::*;
use crate::openvpn::{
    killed::Reason,
    status::{Client, Route},
};

const PATH: &str = "/etc/openvpn-exporter/openvpn/openvpn-status.log";

fn client(name: &str, received: u64) -> Client {
    Client {
        common_name: name.into(),
        real_address: "203.0.113.5:58011".into(),
        virtual_address: "10.240.0.2".into(),
        received,
        sent: 7,
        connected_since: 1_795_766_035,
        username: "UNDEF".into(),
        id: Some(3),
    }
}

fn route(name: &str, last_reference: i64) -> Route {
    Route {
        virtual_address: "10.240.0.2".into(),
        common_name: name.into(),
        real_address: "203.0.113.5:58011".into(),
        last_reference,
    }
}

fn encode(status: Option<&Status>, individuals: bool) -> String {
    let mut killed = Killed::default();
    killed.add(Reason::Revoked, 2);
    let servers = [Server { status_path: PATH, status }];
    let shown =
        Exposition { servers: &servers, max_clients: Some(128), draining: true, killed: Some(killed), individuals };
    String::from_utf8(shown.encode().expect("metrics")).expect("text")
}

/// The series without their values.
fn series(text: &str) -> Vec<&str> {
    text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| Some(line.rsplit_once(' ')?.0)).collect()
}

#[test]
fn names_and_labels_are_those_that_dashboards_know() {
    let status = Status {
        updated: 1_795_766_037,
        clients: vec![client("laptop", 1904)],
        routes: vec![route("laptop", 1_795_766_036)],
        pending: 2,
        ambiguous: 1,
    };
    let text = encode(Some(&status), true);
    let labels = "common_name=\"laptop\",connection_time=\"1795766035\",real_address=\"203.0.113.5:58011\"";
    let path = format!("status_path=\"{PATH}\"");
    let client = format!("{{{labels},{path},username=\"UNDEF\",virtual_address=\"10.240.0.2\"}}");
    let labels = "common_name=\"laptop\",real_address=\"203.0.113.5:58011\"";
    for line in [
        format!("openvpn_up{{{path}}} 1"),
        format!("openvpn_status_update_time_seconds{{{path}}} 1795766037"),
        format!("openvpn_server_connected_clients{{{path}}} 2"),
        format!("openvpn_openvpn_server_connected_clients{{{path}}} 2"),
        format!("openvpn_server_pending_clients{{{path}}} 2"),
        format!("openvpn_server_max_clients{{{path}}} 128"),
        format!("openvpn_server_draining{{{path}}} 1"),
        "openvpn_server_sessions_killed_total{reason=\"revoked\"} 2".into(),
        "openvpn_server_sessions_killed_total{reason=\"drain\"} 0".into(),
        format!("openvpn_server_client_received_bytes_total{client} 1904"),
        format!("openvpn_server_client_sent_bytes_total{client} 7"),
        format!(
            "openvpn_server_route_last_reference_time_seconds{{{labels},{path},virtual_address=\"10.240.0.2\"}} \
             1795766036"
        ),
        "# TYPE openvpn_server_client_received_bytes_total counter".into(),
        "# TYPE openvpn_server_connected_clients gauge".into(),
    ] {
        assert!(text.lines().any(|other| other == line), "{line}\n{text}");
    }
    let text = encode(Some(&status), false);
    assert!(text.contains("connected_clients{") && !text.contains("laptop"), "{text}");
}

#[test]
fn a_server_that_does_not_answer_has_no_numbers() {
    let text = encode(None, true);
    assert!(text.contains(&format!("openvpn_up{{status_path=\"{PATH}\"}} 0")), "{text}");
    assert!(!text.contains("connected_clients") && text.contains("max_clients"), "{text}");
}

#[test]
fn sessions_with_the_same_labels_are_added_up() {
    let clients = vec![client("laptop", 10), client("laptop", 5)];
    let routes = vec![route("laptop", 9), route("laptop", 8)];
    let text = encode(Some(&Status { clients, routes, ..Status::default() }), true);
    let received = text.lines().filter(|line| line.starts_with("openvpn_server_client_received_bytes_total{"));
    assert!(received.clone().all(|line| line.ends_with(" 15")) && received.count() == 1, "{text}");
    let used = text.lines().filter(|line| line.starts_with("openvpn_server_route_last"));
    assert!(used.clone().all(|line| line.ends_with(" 9")) && used.count() == 1, "{text}");
}

#[test]
fn thousands_of_clients_are_counted_but_not_all_shown() {
    let clients = (0..5000).map(|number| client(&format!("client-{number}"), 1)).collect();
    let routes = (0..5000).map(|number| route(&format!("client-{number}"), 1)).collect();
    let status = Status { clients, routes, ..Status::default() };
    let started = Instant::now();
    let text = encode(Some(&status), true);
    assert!(started.elapsed().as_secs() < 2, "{:?}", started.elapsed());
    assert!(text.contains(&format!("openvpn_server_connected_clients{{status_path=\"{PATH}\"}} 5000")));
    assert_eq!(series(&text).iter().filter(|name| name.contains("client_received_bytes")).count(), MAX_INDIVIDUALS);
    assert_eq!(series(&text).len(), 3 * MAX_INDIVIDUALS + 7 + 3);
}

proptest! {
    #[test]
    fn no_two_series_are_the_same(names in vec("[ab\",\\\\\n\u{e9}]{0,3}", 0..20)) {
        let clients = names.iter().map(|name| client(name, 1)).collect();
        let routes = names.iter().map(|name| route(name, 1)).collect();
        let text = encode(Some(&Status { clients, routes, ..Status::default() }), true);
        let all = series(&text);
        prop_assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
        prop_assert!(text.lines().all(|line| line.starts_with("openvpn_") || line.starts_with("# ")), "{}", text);
    }
}
