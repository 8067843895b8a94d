//! `openssl` accepts certificates, lists of revoked ones, and keys.

use std::fs;

use tempfile::TempDir;
use vpn_operator::pki::{Authority, Revoked, Serial, Usage, crl, inspect, issue, key_fits, sign_csr};

use crate::fixtures::{authority, client, days, now, request, run, try_run};

/// Writes the certificates of a server and two clients.
fn files(authority: &Authority) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(directory.path().join(name), text).unwrap();
    let names = vec!["vpn.example.org".to_owned(), "203.0.113.7".to_owned()];
    let server = issue(authority, &request("home", Usage::Server(names)), now()).unwrap();
    write("ca.crt", authority.certificate());
    write("server.crt", &server.certificate);
    write("server.key", &server.key);
    write("laptop.crt", &client(authority, "laptop").certificate);
    write("phone.crt", &client(authority, "phone").certificate);
    directory
}

pub fn openssl_accepts_certificates_for_what_they_are_for() {
    let directory = files(&authority());
    let verify = |purpose: &str, file: &str| {
        let command = format!("openssl verify -x509_strict -purpose {purpose} -CAfile ca.crt {file}");
        try_run(directory.path(), &command)
    };
    for (purpose, file, accepted) in [
        ("sslserver", "server.crt", true),
        ("sslclient", "laptop.crt", true),
        ("sslclient", "server.crt", false),
        ("sslserver", "laptop.crt", false),
    ] {
        let (output, ok) = verify(purpose, file);
        assert_eq!(ok, accepted, "{purpose} {file}: {output}");
    }
    let (output, ok) = try_run(directory.path(), "openssl verify -x509_strict -CAfile laptop.crt phone.crt");
    assert!(!ok, "{output}");
}

pub fn openssl_reads_what_was_asked_for() {
    let directory = files(&authority());
    let text = |file: &str| run(directory.path(), &format!("openssl x509 -in {file} -noout -text"));
    let ca = text("ca.crt");
    assert!(ca.contains("CA:TRUE, pathlen:0") && ca.contains("Certificate Sign, CRL Sign"), "{ca}");
    assert!(ca.contains("prime256v1"), "{ca}");
    let server = text("server.crt");
    assert!(server.contains("TLS Web Server Authentication") && !server.contains("Client"), "{server}");
    assert!(server.contains("DNS:vpn.example.org, IP Address:203.0.113.7"), "{server}");
    let laptop = text("laptop.crt");
    assert!(laptop.contains("TLS Web Client Authentication") && laptop.contains("Digital Signature"), "{laptop}");
    assert!(laptop.contains("CA:FALSE") && laptop.contains("Subject: CN = laptop"), "{laptop}");
}

pub fn openssl_reads_the_same_serial() {
    let authority = authority();
    for number in 0..50 {
        let directory = tempfile::tempdir().unwrap();
        let name = format!("client-{number}");
        fs::write(directory.path().join("x.crt"), client(&authority, &name).certificate).unwrap();
        let hex = run(directory.path(), "openssl x509 -in x.crt -noout -serial");
        let hex = hex.trim().strip_prefix("serial=").unwrap();
        let serial = Serial::derive(&[&name]);
        let bytes: Vec<_> = serial.to_bytes().iter().map(|byte| format!("{byte:02X}")).collect();
        assert_eq!(hex, bytes.concat());
    }
}

pub fn openssl_refuses_a_revoked_certificate() {
    let authority = authority();
    let directory = files(&authority);
    let verify = |file: &str| {
        try_run(directory.path(), &format!("openssl verify -crl_check -CAfile ca.crt -CRLfile crl.pem {file}"))
    };
    let mut revoked = Revoked::default();
    let write = |revoked: &Revoked, number| {
        fs::write(directory.path().join("crl.pem"), crl(&authority, revoked, number, now()).unwrap()).unwrap();
    };
    write(&revoked, 1);
    assert!(verify("laptop.crt").1 && verify("phone.crt").1);
    revoked.insert(Serial::derive(&["laptop"]), "laptop", inspect(authority.certificate()).unwrap().not_after);
    write(&revoked, 2);
    let (output, ok) = verify("laptop.crt");
    assert!(!ok && output.contains("certificate revoked"), "{output}");
    assert!(verify("phone.crt").1);
    let text = run(directory.path(), "openssl crl -in crl.pem -noout -text -CAfile ca.crt");
    assert!(text.contains("verify OK"), "{text}");
    assert!(text.contains("X509v3 CRL Number: \n                2\n"), "{text}");
}

pub fn a_key_that_openssl_made_gets_a_certificate() {
    let authority = authority();
    let commands = [
        "openssl req -new -newkey rsa:2048 -nodes -keyout x.key -subj /CN=admin",
        "openssl req -new -newkey rsa:3072 -sha512 -nodes -keyout x.key -subj /CN=admin",
        "openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout x.key -subj /CN=admin",
        // The hash does not belong to the curve.
        "openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:secp384r1 -sha256 -nodes -keyout x.key -subj /CN=admin",
        "openssl req -new -newkey ed25519 -nodes -keyout x.key -subj /CN=admin \
         -addext subjectAltName=DNS:evil -addext extendedKeyUsage=1.2.3.4 -addext nsComment=x",
    ];
    for command in commands {
        let directory = files(&authority);
        run(directory.path(), &format!("{command} -out x.csr"));
        let csr = fs::read_to_string(directory.path().join("x.csr")).unwrap();
        let certificate = sign_csr(&authority, &csr, &request("laptop", Usage::Client), now()).unwrap();
        fs::write(directory.path().join("x.crt"), &certificate).unwrap();
        run(directory.path(), "openssl verify -x509_strict -purpose sslclient -CAfile ca.crt x.crt");
        let subject = run(directory.path(), "openssl x509 -in x.crt -noout -subject -ext subjectAltName");
        assert!(subject.contains("CN = laptop") && !subject.contains("evil"), "{subject}");
        let key = fs::read_to_string(directory.path().join("x.key")).unwrap();
        assert!(key_fits(&certificate, &key), "{command}");
    }
}

pub fn a_key_that_is_weak_or_unknown_gets_no_certificate() {
    let authority = authority();
    let commands = [
        ("openssl req -new -newkey rsa:1024 -nodes -keyout x.key -subj /CN=x", "too weak"),
        ("openssl req -new -newkey rsa:1024 -sha1 -nodes -keyout x.key -subj /CN=x", "too weak"),
        ("openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:secp521r1 -nodes -keyout x.key -subj /CN=x", "cannot"),
        ("openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:secp256k1 -nodes -keyout x.key -subj /CN=x", "cannot"),
        ("openssl req -new -newkey ed448 -nodes -keyout x.key -subj /CN=x", "cannot"),
    ];
    for (command, message) in commands {
        let directory = files(&authority);
        run(directory.path(), &format!("{command} -out x.csr"));
        let csr = fs::read_to_string(directory.path().join("x.csr")).unwrap();
        let problem = sign_csr(&authority, &csr, &request("laptop", Usage::Client), now()).unwrap_err();
        assert!(problem.to_string().contains(message), "{command}: {problem}");
    }
}

pub fn the_end_of_a_certificate_is_that_of_its_ca_if_that_comes_first() {
    let short = Authority::new("home", now(), days(10)).unwrap();
    let issued = client(&short, "laptop");
    let (ca, laptop) = (inspect(short.certificate()).unwrap(), inspect(&issued.certificate).unwrap());
    assert_eq!(ca.not_after, laptop.not_after);
}
