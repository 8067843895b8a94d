//! Real servers and clients, connected by what the operator writes.

use std::{fs, net::Ipv4Addr};

use vpn_operator::{
    openvpn::{
        client_config::ClientConfig,
        config::{Protocol, ServerConfig},
    },
    pki::{Authority, Revoked, Serial, Usage, crl, issue, new_tls_crypt_key, sign_csr, tls_crypt_key},
};

use crate::fixtures::{STARTED, Server, authority, client, config, days, now, request, run, try_run};

pub fn clients_connect_by_udp_and_by_tcp() {
    for protocol in [Protocol::Udp, Protocol::Tcp] {
        let server = Server::start(ServerConfig { protocol, ..config() });
        let laptop = client(&server.authority, "laptop");
        let connection = server.connect("laptop", &server.profile(&laptop)).connected();
        assert_eq!(server.clients(), [("laptop".to_owned(), "10.240.0.2".to_owned())]);
        let log = connection.log();
        let pushed = log.lines().find(|line| line.contains("PUSH_REPLY")).unwrap();
        for option in [
            "redirect-gateway def1",
            "route 10.96.0.0 255.240.0.0",
            "dhcp-option DNS 10.96.0.10",
            "dhcp-option DOMAIN-SEARCH cluster.local",
            "route-gateway 10.240.0.1",
            "topology subnet",
            "ifconfig 10.240.0.2 255.255.0.0",
        ] {
            assert!(pushed.contains(option), "{option}: {pushed}");
        }
        assert!(log.contains("VERIFY KU OK") && log.contains("VERIFY EKU OK"), "{log}");
        assert!(log.contains("VERIFY X509NAME OK: CN=home"), "{log}");
        for line in log.lines().chain(server.log().lines()) {
            assert!(!line.contains("DEPRECATED") && !line.contains("Options error"), "{line}");
        }
    }
}

pub fn a_revoked_client_is_refused_without_a_restart() {
    let server = Server::start(config());
    let (laptop, phone) = (client(&server.authority, "laptop"), client(&server.authority, "phone"));
    drop(server.connect("laptop", &server.profile(&laptop)).connected());
    server.revoke(Serial::derive(&["laptop"]), "laptop");
    let refused = server.connect("laptop", &server.profile(&laptop));
    server.logs("is revoked");
    let _phone = server.connect("phone", &server.profile(&phone)).connected();
    assert!(!refused.log().contains(STARTED));
    // The certificate that replaces it is another one.
    drop(refused);
    let again =
        vpn_operator::pki::Request { serial: Serial::derive(&["laptop", "2"]), ..request("laptop", Usage::Client) };
    let again = issue(&server.authority, &again, now()).unwrap();
    let _laptop = server.connect("laptop", &server.profile(&again)).connected();
}

/// An expired CRL locks everybody out. A directory of revoked certificates does not expire.
pub fn the_directory_of_revoked_certificates_never_expires() {
    let past = now() - days(20 * 365);
    let authority = Authority::new("home", past, days(40 * 365)).unwrap();
    let server = Server::prepare(config(), authority, past);
    let old = crl(&server.authority, &Revoked::default(), 1, past).unwrap();
    fs::write(server.directory.path().join("revoked/crl.pem"), &old).unwrap();
    server.revoke(Serial::derive(&["phone"]), "phone");
    let server = server.started();
    let laptop = client(&server.authority, "laptop");
    let _laptop = server.connect("laptop", &server.profile(&laptop)).connected();
    let _phone = server.connect("phone", &server.profile(&client(&server.authority, "phone")));
    server.logs("is revoked");

    fs::write(server.directory.path().join("ca.crt"), server.authority.certificate()).unwrap();
    fs::write(server.directory.path().join("x.crt"), &laptop.certificate).unwrap();
    let verify = "openssl verify -crl_check -CAfile ca.crt -CRLfile revoked/crl.pem x.crt";
    let (output, ok) = try_run(server.directory.path(), verify);
    assert!(!ok && output.contains("CRL has expired"), "{output}");
}

pub fn a_key_that_stays_on_the_device_connects() {
    let server = Server::start(config());
    let path = server.directory.path();
    run(path, "openssl req -new -newkey rsa:2048 -nodes -keyout client.key -subj /CN=admin -out client.csr");
    let csr = fs::read_to_string(path.join("client.csr")).unwrap();
    let certificate = sign_csr(&server.authority, &csr, &request("laptop", Usage::Client), now()).unwrap();
    let without = vpn_operator::pki::Issued { certificate, key: String::new() };
    let profile = server.profile(&without).replace("<key>\n</key>", "key client.key");
    let _laptop = server.connect("laptop", &profile).connected();
    assert_eq!(server.clients()[0].0, "laptop");
}

pub fn a_client_gets_its_own_address_and_others_do_not() {
    let server = Server::start(config());
    let address = Ipv4Addr::new(10, 240, 200, 7);
    let own = ClientConfig {
        address: Some(address),
        routes: vec!["192.168.7.0/24".parse().unwrap()],
        behind: vec!["192.168.8.0/24".parse().unwrap()],
    };
    assert_eq!(own.check(server.config.clients, server.config.max_clients, None), Ok(()));
    let file = own.file(server.config.clients).unwrap();
    fs::write(server.directory.path().join("ccd/laptop"), file).unwrap();
    let connect = |name: &str| server.connect(name, &server.profile(&client(&server.authority, name))).connected();
    let (_phone, laptop) = (connect("phone"), connect("laptop"));
    let mut clients = server.clients();
    clients.sort();
    let row = |name: &str, address: &str| (name.to_owned(), address.to_owned());
    assert_eq!(clients, [row("laptop", "10.240.200.7"), row("phone", "10.240.0.2")]);
    assert!(laptop.log().contains("route 192.168.7.0 255.255.255.0"));
}

pub fn a_client_without_the_shared_key_is_not_answered() {
    let server = Server::start(config());
    let laptop = server.profile(&client(&server.authority, "laptop"));
    let other = new_tls_crypt_key().unwrap();
    let begin = laptop.find("<tls-crypt>").unwrap();
    let stranger = server.connect("laptop", &format!("{}<tls-crypt>\n{other}</tls-crypt>\n", &laptop[..begin]));
    server.logs("tls-crypt unwrap error");
    assert!(server.clients().is_empty(), "the status lists the rejected client");
    assert!(!stranger.log().contains("TLS: Initial packet"));
}

pub fn a_certificate_of_another_kind_or_authority_is_refused() {
    let server = Server::start(config());
    let wrong = [
        (client(&authority(), "laptop"), "unable to get local issuer certificate"),
        (
            issue(&server.authority, &request("laptop", Usage::Server(vec![])), now()).unwrap(),
            "unsuitable certificate purpose",
        ),
    ];
    for (issued, message) in wrong {
        let refused = server.connect("laptop", &server.profile(&issued));
        server.logs(message);
        assert!(!refused.log().contains(STARTED));
    }
}

pub fn a_client_refuses_a_server_with_another_name_or_kind() {
    let server = Server::start(config());
    let profile = server.profile(&client(&server.authority, "laptop"));
    let refused = server.connect("laptop", &profile.replace("\"home\" name", "\"office\" name"));
    refused.logs("VERIFY X509NAME ERROR");
}

/// The same code of OpenVPN reads both.
pub fn the_shared_key_is_the_one_that_openvpn_makes() {
    let directory = tempfile::tempdir().unwrap();
    run(directory.path(), "openvpn --genkey secret made.key");
    let made = fs::read_to_string(directory.path().join("made.key")).unwrap();
    let hex: String = made.lines().filter(|line| line.len() == 32 && !line.contains('-')).collect();
    let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
    let bytes: Vec<_> = (0..hex.len()).step_by(2).map(byte).collect();
    assert_eq!(tls_crypt_key(bytes.as_slice().try_into().unwrap()), made);
}

/// The pool is smaller than the network.
pub fn as_many_clients_connect_as_there_may_be() {
    let clients = "10.8.0.0/28".parse().unwrap();
    let server = Server::start(ServerConfig { clients, max_clients: 3, ..config() });
    let connect = |name: &str| server.connect(name, &server.profile(&client(&server.authority, name))).connected();
    let _first = ["a", "b", "c"].map(connect);
    assert_eq!(server.clients().len(), 3);
}

/// OpenVPN trusts a chain only if it ends in a self-signed CA. Both sides get the same text.
pub fn clients_of_a_ca_that_another_one_signed_connect() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let key = "openssl ecparam -genkey -noout -name prime256v1";
    let extensions =
        "[req]\ndistinguished_name=x\n[x]\n[ca]\nbasicConstraints=critical,CA:TRUE\nkeyUsage=keyCertSign\n";
    fs::write(path.join("ca.cnf"), extensions).unwrap();
    run(path, &format!("{key} -out root.key && {key} -out own.key"));
    run(
        path,
        "openssl req -x509 -new -config ca.cnf -extensions ca -key root.key -days 30 -subj /CN=root -out root.crt",
    );
    run(path, "openssl req -new -config ca.cnf -key own.key -subj /CN=own -out own.csr");
    let sign = "openssl x509 -req -in own.csr -CA root.crt -CAkey root.key -CAcreateserial -days 20";
    run(path, &format!("{sign} -extfile ca.cnf -extensions ca -out own.crt"));
    let read = |name: &str| fs::read_to_string(path.join(name)).unwrap();
    let chain = read("own.crt") + &read("root.crt");
    let authority = Authority::load(&chain, &read("own.key"), now()).unwrap();
    let server = Server::prepare(config(), authority, now()).started();
    let _laptop = server.connect("laptop", &server.profile(&client(&server.authority, "laptop"))).connected();
}
