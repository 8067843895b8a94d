use std::time::Instant;

use chrono::Utc;
use proptest::{collection::vec, prelude::*};

use super::*;

const TITLE: &str =
    "OpenVPN 2.6.14 x86_64-pc-linux-gnu [SSL (OpenSSL)] [LZO] [LZ4] [EPOLL] [PKCS11] [MH/PKTINFO] [AEAD]";
const CLIENT_HEADER: &str = "Common Name,Real Address,Virtual Address,Virtual IPv6 Address,Bytes Received,Bytes \
                             Sent,Connected Since,Connected Since (time_t),Username,Client ID,Peer ID,Data Channel \
                             Cipher";
const ROUTE_HEADER: &str = "Virtual Address,Common Name,Real Address,Last Ref,Last Ref (time_t)";
const TAIL: &str = "203.0.113.5:58011,10.240.0.2,,1904,1955,2026-11-27 07:53:55,1795766035";

/// Version 2, with lines of clients and routes.
fn version_2(clients: &[String], routes: &[String]) -> String {
    let clients: String = clients.iter().map(|line| format!("CLIENT_LIST,{line}\n")).collect();
    let routes: String = routes.iter().map(|line| format!("ROUTING_TABLE,{line}\n")).collect();
    format!(
        "TITLE,{TITLE}\nTIME,2026-11-27 07:53:57,1795766037\nHEADER,CLIENT_LIST,{CLIENT_HEADER}\n{clients}\
         HEADER,ROUTING_TABLE,{ROUTE_HEADER}\n{routes}GLOBAL_STATS,Max bcast/mcast queue length,0\n\
         GLOBAL_STATS,dco_enabled,0\nEND\n"
    )
}

fn usual() -> String {
    version_2(
        &[
            format!("laptop,{TAIL},UNDEF,0,0,AES-256-GCM"),
            "UNDEF,203.0.113.9:1234,,,80,90,2026-11-27 07:53:56,1795766036,UNDEF,7,4294967295,".into(),
        ],
        &["10.240.0.2,laptop,203.0.113.5:58011,2026-11-27 07:53:55,1795766035".into()],
    )
}

const VERSION_1: &str = "OpenVPN CLIENT LIST\nUpdated,2026-11-27 07:53:59\n\
    Common Name,Real Address,Bytes Received,Bytes Sent,Connected Since\n\
    laptop,203.0.113.5:58011,1904,2027,2026-11-27 07:53:55\n\
    UNDEF,203.0.113.9:1234,80,90,2026-11-27 07:53:56\n\
    ROUTING TABLE\nVirtual Address,Common Name,Real Address,Last Ref\n\
    10.240.0.2,laptop,203.0.113.5:58011,2026-11-27 07:53:55\n\
    GLOBAL STATS\nMax bcast/mcast queue length,2\nEND\n";

fn parse(text: &str) -> Result<Status, StatusError> {
    Status::parse_in(text.as_bytes(), &Utc)
}

fn laptop() -> Client {
    Client {
        common_name: "laptop".into(),
        real_address: "203.0.113.5:58011".into(),
        virtual_address: "10.240.0.2".into(),
        received: 1904,
        sent: 1955,
        connected_since: 1_795_766_035,
        username: "UNDEF".into(),
        id: Some(0),
    }
}

#[test]
fn versions_2_and_3_are_read() {
    let status = parse(&usual()).expect("complete");
    assert_eq!(status.updated, 1_795_766_037);
    assert_eq!(status.clients, [laptop()]);
    assert_eq!((status.pending, status.ambiguous, status.connected()), (1, 0, 1));
    let route = &status.routes[0];
    assert_eq!((&*route.virtual_address, &*route.common_name), ("10.240.0.2", "laptop"));
    assert_eq!((&*route.real_address, route.last_reference), ("203.0.113.5:58011", 1_795_766_035));
    assert_eq!(parse(&usual().replace(',', "\t")), Ok(status.clone()), "version 3");
    assert_eq!(parse(&usual().replace(',', "\t").replace('\n', "\r\n")), Ok(status), "the answer to `status 3`");
}

#[test]
fn version_1_is_read() {
    let status = parse(VERSION_1).expect("complete");
    assert_eq!(status.updated, 1_795_766_039);
    assert_eq!(status.clients, [Client { sent: 2027, username: String::new(), id: None, ..laptop() }]);
    assert_eq!((status.pending, status.routes.len()), (1, 1));
    // OpenVPN up to 2.4.
    let older = VERSION_1.replace("2026-11-27 07:53:5", "Fri Nov 27 07:53:5 2026");
    let older = older.replace(":5 20269", ":59 2026").replace(":5 20265", ":55 2026").replace(":5 20266", ":56 2026");
    assert_eq!(parse(&older), Ok(status), "{older}");
}

#[test]
fn columns_are_found_by_their_names() {
    let text = "TITLE,OpenVPN 2.3\nTIME,Thu Apr  2 13:55:44 2020,1588254944\n\
        HEADER,CLIENT_LIST,Future,Username,Bytes Sent,Common Name,Bytes Received,Real Address,Connected Since\n\
        CLIENT_LIST,?,bob,2,laptop,1,udp4:[2001:db8::1]:5,Thu Apr  2 13:55:43 2020\n\
        HEADER,ROUTING_TABLE,Last Ref,Real Address,Common Name,Virtual Address\n\
        ROUTING_TABLE,Thu Apr  2 13:55:43 2020,192.0.2.1:5,laptop,192.168.7.0/24\n\
        ROUTING_TABLE,Thu Apr  2 13:55:43 2020,192.0.2.1:5,laptop,02:00:00:00:00:01@0C\nEND\n";
    let status = parse(text).expect("complete");
    let client = &status.clients[0];
    assert_eq!((client.received, client.sent, client.id, client.connected_since), (1, 2, None, 1_585_835_743));
    assert_eq!((&*client.username, &*client.virtual_address), ("bob", ""));
    assert_eq!((status.routes.len(), status.routes[1].last_reference), (2, 1_585_835_743));
}

#[test]
fn a_status_that_is_cut_anywhere_is_refused() {
    for text in [usual(), usual().replace(',', "\t"), usual().replace('\n', "\r\n"), VERSION_1.into()] {
        for length in 0..text.len() {
            let error = parse(&text[..length]).expect_err("cut");
            assert_eq!(error, StatusError::Incomplete, "{length}");
        }
    }
}

#[test]
fn a_status_written_over_another_one_is_refused() {
    let (new, old) = (version_2(&[], &[]), usual());
    for length in 1..old.len() {
        // Before the file is cut to its new length.
        let mixed: String = new.chars().take(length).chain(old.chars().skip(length.min(new.len()))).collect();
        let parsed = parse(&mixed);
        assert!(parsed.is_err() || parsed == parse(&old), "{length}: {mixed}");
    }
    assert_eq!(parse(&format!("{new}END\n")), Err(StatusError::Trailing));
}

#[test]
fn what_is_not_the_status_of_a_server_is_refused() {
    assert_eq!(parse("OpenVPN STATISTICS\nUpdated,2026-11-27 07:53:59\nEND\n"), Err(StatusError::NotAServer));
    assert_eq!(parse("<html>\nEND\n"), Err(StatusError::Unknown));
    assert_eq!(parse("TITLE,a\nHEADER,CLIENT_LIST\nEND\n").expect_err("no columns").to_string(), {
        "line 2 of the status: expected names of columns"
    });
    for (from, to) in [
        ("TIME,2026-11-27 07:53:57,1795766037\n", ""),
        ("1795766037", "-1"),
        ("Bytes Sent", "Bytes"),
        ("Connected Since", "Since"),
        ("1904", "19x4"),
        ("1904", ""),
        ("203.0.113.5:58011,10", "203.0.113.5 58011,10"),
        (",0,0,AES", ",0,AES"),
        ("GLOBAL_STATS,dco", "STATS,dco"),
        ("HEADER,ROUTING_TABLE", "HEADER,CLIENT_LIST"),
        ("HEADER,ROUTING_TABLE", "HEADER,OTHER"),
    ] {
        assert!(usual().contains(from), "{from}");
        assert!(parse(&usual().replace(from, to)).is_err(), "{from} {to}");
    }
    for (from, to) in [("ROUTING TABLE", "TABLE"), ("Updated", "Then"), ("1904", "one"), ("Last Ref", "Ref")] {
        assert!(parse(&VERSION_1.replace(from, to)).is_err(), "{from} {to}");
    }
}

#[test]
fn names_with_commas_and_quotes_are_read() {
    let name = "hostile, \"q\" \\ é; x,END,>";
    let clients = [format!("{name},{TAIL},UNDEF,1,1,AES-256-GCM"), format!("a,b,{TAIL},c,d,2,2,AES-256-GCM")];
    let status = parse(&version_2(&clients, &[format!("10.240.0.3,{name},[::1],2026-11-27 07:53:55,1")]));
    let status = status.expect("complete");
    assert_eq!(status.clients[0], Client { common_name: name.into(), id: Some(1), ..laptop() });
    let (common_name, username) = ("a,b".into(), "c,d".into());
    assert_eq!(status.clients[1], Client { common_name, username, id: Some(2), ..laptop() });
    assert_eq!(status.routes[0].common_name, name);
    let old = VERSION_1.replace("laptop,", ">ROUTING TABLE,\"x\",");
    assert_eq!(parse(&old).expect("complete").clients[0].common_name, ">ROUTING TABLE,\"x\"");
}

#[test]
fn a_name_that_looks_like_columns_is_counted_but_not_believed() {
    let clients = [format!("x,192.0.2.1:1,,,1,2,2020-01-01 00:00:00,1,y,{TAIL},UNDEF,3,3,AES-256-GCM")];
    let status = parse(&version_2(&clients, &[])).expect("complete");
    assert_eq!((status.ambiguous, status.connected(), status.clients.len()), (1, 1, 0));
    let tabs = version_2(&[], &[]).replace(',', "\t");
    let line = format!("CLIENT_LIST\t{}\t{}", "x,192.0.2.1:1,,,1", format!("{TAIL},y,3,3,AES").replace(',', "\t"));
    let status = parse(&tabs.replace("HEADER\tROUTING", &format!("{line}\nHEADER\tROUTING"))).expect("complete");
    assert_eq!(status.clients[0].common_name, "x,192.0.2.1:1,,,1", "the answer of OpenVPN is separated by tabs");
}

#[test]
fn names_that_are_not_utf_8_are_replaced() {
    let mut bytes = usual().into_bytes();
    let at = usual().find("laptop").expect("the name");
    bytes[at] = 0xff;
    assert_eq!(Status::parse(&bytes).expect("complete").clients[0].common_name, "\u{fffd}aptop");
}

#[test]
fn one_name_may_connect_several_times() {
    let line = |id: u32| format!("laptop,{TAIL},UNDEF,{id},{id},AES-256-GCM");
    let status = parse(&version_2(&[line(1), line(2)], &[])).expect("complete");
    assert_eq!(status.clients.iter().filter_map(|client| client.id).collect::<Vec<_>>(), [1, 2]);
}

#[test]
fn many_clients_are_read_fast() {
    let clients: Vec<_> = (0..10_000).map(|id| format!("client-{id},{TAIL},UNDEF,{id},{id},AES-256-GCM")).collect();
    let routes: Vec<_> = (0..10_000).map(|id| format!("10.240.0.2,client-{id},[::1],2026-11-27 07:53:55,1")).collect();
    let commas = format!("{}{TAIL},{}UNDEF,1,1,AES-256-GCM", "x,".repeat(32), "y,".repeat(2000));
    let text = version_2(&[clients, vec![commas; 10]].concat(), &routes);
    let started = Instant::now();
    let status = parse(&text).expect("complete");
    assert_eq!((status.clients.len(), status.routes.len()), (10_010, 10_000));
    assert!(started.elapsed().as_secs() < 5, "{:?}", started.elapsed());
}

/// A name as OpenVPN prints it, without control characters.
fn name() -> impl Strategy<Value = String> {
    "[^\\p{C}]{1,40}|[a-z0-9,.:\" ]{1,40}".prop_filter("pending", |name| name != UNDEFINED)
}

proptest! {
    #[test]
    fn no_client_is_lost_or_invented(
        names in vec((name(), name(), any::<u32>()), 0..6),
        cut in any::<prop::sample::Index>(),
        tabs in any::<bool>(),
    ) {
        let separator = if tabs { "\t" } else { "," };
        let separate = |text: String| text.replace(',', separator);
        let mut text = separate(version_2(&[], &[]));
        let lines: String = names
            .iter()
            .map(|(common, user, id)| {
                let before = separate(format!(",{TAIL},"));
                format!("CLIENT_LIST{separator}{common}{before}{user}{}\n", separate(format!(",{id},{id},AES")))
            })
            .collect();
        text.insert_str(text.rfind("HEADER").expect("a header"), &lines);
        let status = parse(&text).expect("complete");
        prop_assert_eq!(status.connected(), names.len() as u64);
        if tabs {
            prop_assert_eq!(status.ambiguous, 0);
            for (client, (common, user, id)) in status.clients.iter().zip(&names) {
                prop_assert_eq!((&client.common_name, &client.username), (common, user));
                prop_assert_eq!(client.id, Some(u64::from(*id)));
            }
        }
        prop_assert_eq!(Status::parse(&text.as_bytes()[..cut.index(text.len())]), Err(StatusError::Incomplete));
    }

    #[test]
    fn no_input_panics(
        bytes in vec(any::<u8>(), 0..300),
        text in "(TITLE|HEADER|CLIENT_LIST|TIME|END|[,0-9\n]|Bytes Sent){0,40}",
    ) {
        let _ = (Status::parse(&bytes), parse(&text), parse(&format!("TITLE,\n{text}\nEND\n")));
        let _ = parse(&format!("OpenVPN CLIENT LIST\n{text}\nROUTING TABLE\n{text}\nGLOBAL STATS\nEND\n"));
    }
}
