//! CAs that other tools created.

use std::fs;

use tempfile::TempDir;
use vpn_operator::pki::{Authority, AuthorityProblem, Revoked, Usage, crl, issue, trusted};

use crate::fixtures::{client, now, request, run};

const CONFIG: &str = "\
[req]
distinguished_name = none
x509_extensions = ca
[none]
[ca]
basicConstraints = critical,CA:TRUE
keyUsage = critical,keyCertSign,cRLSign
subjectKeyIdentifier = hash
";

/// Creates a CA with `openssl`, with this kind of key.
fn made(key: &str, subject: &str, config: &str) -> (TempDir, Result<Authority, AuthorityProblem>) {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("ca.cnf"), config).unwrap();
    run(directory.path(), key);
    let req = "openssl req -x509 -new -multivalue-rdn -config ca.cnf -key ca.key -days 30 -out ca.crt";
    run(directory.path(), &format!("{req} -subj '{subject}'"));
    let read = |name: &str| fs::read_to_string(directory.path().join(name)).unwrap();
    let authority = Authority::load(&read("ca.crt"), &read("ca.key"), now());
    (directory, authority)
}

pub fn keys_of_each_format_can_sign() {
    let keys = [
        "openssl genrsa -traditional -out ca.key 2048 && grep -q 'BEGIN RSA' ca.key",
        "openssl genrsa -out ca.key 3072 && grep -q 'BEGIN PRIVATE' ca.key",
        "openssl ecparam -genkey -name prime256v1 -out ca.key && grep -q 'EC PARAMETERS' ca.key",
        "openssl ecparam -genkey -noout -name secp384r1 -out ca.key && grep -q 'BEGIN EC PRIVATE' ca.key",
        "openssl genpkey -algorithm ed25519 -out ca.key",
    ];
    for key in keys {
        let (directory, authority) = made(key, "/C=IT/O=Example/emailAddress=a@example.org/CN=Own CA", CONFIG);
        let authority = authority.unwrap_or_else(|problem| panic!("{key}: {problem}"));
        let write = |name: &str, text: &str| fs::write(directory.path().join(name), text).unwrap();
        write("laptop.crt", &client(&authority, "laptop").certificate);
        write("server.crt", &issue(&authority, &request("home", Usage::Server(vec![])), now()).unwrap().certificate);
        write("crl.pem", &crl(&authority, &Revoked::default(), 1, now()).unwrap());
        let verify = "openssl verify -x509_strict -crl_check -CAfile ca.crt -CRLfile crl.pem";
        run(directory.path(), &format!("{verify} -purpose sslclient laptop.crt"));
        run(directory.path(), &format!("{verify} -purpose sslserver server.crt"));
    }
}

pub fn keys_that_cannot_sign_are_refused() {
    let keys = [
        "openssl genrsa -out ca.key 1024",
        "openssl ecparam -genkey -noout -name secp521r1 -out ca.key",
        "openssl genpkey -algorithm ed448 -out ca.key",
    ];
    for key in keys {
        assert_eq!(made(key, "/CN=Own CA", CONFIG).1.unwrap_err(), AuthorityProblem::NotAKey, "{key}");
    }
    let (directory, _) = made("openssl genrsa -out ca.key 2048", "/CN=Own CA", CONFIG);
    run(directory.path(), "openssl pkcs8 -topk8 -in ca.key -passout pass:secret -out encrypted.key");
    let read = |name: &str| fs::read_to_string(directory.path().join(name)).unwrap();
    let problem = Authority::load(&read("ca.crt"), &read("encrypted.key"), now()).unwrap_err();
    assert_eq!(problem, AuthorityProblem::NotAKey);
}

pub fn a_name_that_cannot_be_written_again_is_refused() {
    for subject in ["/DC=org/DC=example/CN=Own CA", "/O=Example+CN=Own CA"] {
        let (_, authority) = made("openssl ecparam -genkey -noout -name prime256v1 -out ca.key", subject, CONFIG);
        assert_eq!(authority.unwrap_err(), AuthorityProblem::UnusableName, "{subject}");
    }
}

/// CAs of old tools have no key identifier. For other tools, it is not a hash of the key as in `CONFIG`.
pub fn a_list_of_revoked_certificates_is_that_of_a_ca_with_any_key_identifier() {
    for identifier in ["", "subjectKeyIdentifier = 01:02:03"] {
        let config = CONFIG.replace("subjectKeyIdentifier = hash", identifier);
        let key = "openssl ecparam -genkey -noout -name prime256v1 -out ca.key";
        let (directory, authority) = made(key, "/CN=Own CA", &config);
        let authority = authority.unwrap();
        let write = |name: &str, text: &str| fs::write(directory.path().join(name), text).unwrap();
        write("laptop.crt", &client(&authority, "laptop").certificate);
        write("crl.pem", &crl(&authority, &Revoked::default(), 1, now()).unwrap());
        run(directory.path(), "openssl verify -crl_check -CAfile ca.crt -CRLfile crl.pem laptop.crt");
    }
}

/// Both sides trust this bundle while a new CA replaces an old one.
pub fn a_bundle_trusts_each_of_its_authorities() {
    let directory = tempfile::tempdir().unwrap();
    let (old, new) = (crate::fixtures::authority(), crate::fixtures::authority());
    let bundle = trusted(&format!("{}{}", new.certificate(), old.certificate())).unwrap().concat();
    fs::write(directory.path().join("ca.crt"), bundle).unwrap();
    for (name, authority) in [("old", &old), ("new", &new)] {
        fs::write(directory.path().join("x.crt"), client(authority, name).certificate).unwrap();
        run(directory.path(), "openssl verify -x509_strict -CAfile ca.crt x.crt");
    }
}
