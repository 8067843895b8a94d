//! Servers with the users' own files, such as those from the chart `stable/openvpn`.

use std::fs;

use vpn_operator::{
    openvpn::{KeystoreFiles, config::ServerConfig},
    pki::{Revoked, Serial, crl},
};

use crate::fixtures::{STARTED, Server, authority, client, config, days, now, run};

pub fn a_server_with_all_files_of_a_user_honors_the_list_of_revoked_certificates() {
    let keystore = Some(KeystoreFiles { dh: true, crl: true, ta: true });
    let server = Server::prepare(ServerConfig { keystore, ..config() }, authority(), now());
    let (path, mut revoked) = (server.directory.path().to_owned(), Revoked::default());
    run(&path.join("pki"), "openssl genpkey -genparam -algorithm DH -pkeyopt group:ffdhe2048 -out dh.pem");
    assert!(fs::read_to_string(path.join("pki/dh.pem")).unwrap().contains("DH PARAMETERS-----"));
    fs::rename(path.join("pki/tls-crypt.key"), path.join("pki/ta.key")).unwrap();
    let list = |revoked: &Revoked| {
        fs::write(path.join("new"), crl(&server.authority, revoked, 1, now()).unwrap()).unwrap();
        fs::rename(path.join("new"), path.join("revoked/crl.pem")).unwrap();
    };
    list(&revoked);
    let (laptop, phone) = (client(&server.authority, "laptop"), client(&server.authority, "phone"));
    let profile = |issued| {
        let profile = server.profile(issued);
        profile.replace("<tls-crypt>", "key-direction 1\n<tls-auth>").replace("</tls-crypt>", "</tls-auth>")
    };
    let (of_laptop, of_phone) = (profile(&laptop), profile(&phone));
    revoked.insert(Serial::derive(&["laptop"]), "laptop", (now() + days(10)).unix_timestamp());
    let second = crl(&server.authority, &revoked, 2, now()).unwrap();
    let server = server.started();
    drop(server.connect("laptop", &of_laptop).connected());
    fs::write(path.join("new"), second).unwrap();
    fs::rename(path.join("new"), path.join("revoked/crl.pem")).unwrap();
    let refused = server.connect("laptop", &of_laptop);
    server.logs("certificate revoked");
    let _phone = server.connect("phone", &of_phone).connected();
    assert!(!refused.log().contains(STARTED));
}
