use std::collections::BTreeSet;

use proptest::{collection::vec, prelude::*};
use serde_json::json;
use vpn_types::MaskProvider;

use super::*;
use crate::state::{CredentialsView, Project};

fn data(pairs: &[(&str, &str)]) -> BTreeMap<String, ByteString> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), ByteString(value.as_bytes().to_vec()))).collect()
}

fn login(common: &[(&str, &str)], own: &[(&str, &str)]) -> Option<(bool, Fingerprint, Option<Arc<str>>)> {
    thread_local!(static INDEX: LoginIndex = LoginIndex::default());
    let login = INDEX.with(|index| index.login(&data(common), &data(own)))?;
    Some((login.is_device, login.fingerprint, login.service))
}

#[test]
fn an_account_is_user_and_password_and_a_device_is_its_private_key() {
    let account = |user, password| login(&[("OPENVPN_USER", user), ("OPENVPN_PASSWORD", password)], &[]);
    assert_eq!(account("me", "secret"), account(" me\n", "secret"));
    assert_ne!(account("me", "secret"), account("me", "other"));
    assert_ne!(account("me", "secret"), account("mes", "ecret"));
    // Such as the account number of Mullvad.
    let number = |user| login(&[("OPENVPN_USER", user)], &[]);
    assert_eq!(account("12345", ""), number("12345"));
    assert_ne!(number("12345"), number("54321"));
    assert_eq!(login(&[("SERVER_COUNTRIES", "Sweden")], &[]), None);

    let key = login(&[("VPN_TYPE", "wireguard"), ("WIREGUARD_PRIVATE_KEY", "k1=")], &[]);
    assert!(key.as_ref().is_some_and(|(is_device, ..)| *is_device));
    let file = [("VPN_TYPE", "wireguard"), ("wg0.conf", "[Interface]\nPrivateKey = k1=\nAddress = 10.0.0.2/32\n")];
    assert_eq!(login(&file, &[]), key);
    let own = [("WIREGUARD_PRIVATE_KEY", "k1=")];
    assert_eq!(login(&[("VPN_TYPE", "wireguard"), ("WIREGUARD_PRIVATE_KEY", "k2=")], &own), key);

    // Gluetun does not read this key, because it connects with OpenVPN.
    let unused = [("VPN_TYPE", "openvpn"), ("WIREGUARD_PRIVATE_KEY", "k1="), ("OPENVPN_USER", "me")];
    assert_eq!(login(&unused, &[]), number("me"));

    let certificate = "client\n<cert>\n-----BEGIN CERTIFICATE-----\nMIIC\n-----END CERTIFICATE-----\n</cert>\n<key>\n\
                       -----BEGIN PRIVATE KEY-----\nMIIE\nvQ==\n-----END PRIVATE KEY-----\n</key>\n";
    let client = login(&[("custom.ovpn", certificate)], &[]);
    assert!(client.as_ref().is_some_and(|(is_device, ..)| !is_device));
    assert_eq!(login(&[("OPENVPN_KEY", "MIIEvQ==")], &[]), client);
    assert_eq!(login(&[("ta.key", "-----BEGIN OpenVPN Static key V1-----\nabcd\n")], &[]), None);

    // Names that only overrides know.
    let custom = |user| login(&[("my-user", user), ("my-password", "secret"), ("SERVER_COUNTRIES", "Sweden")], &[]);
    assert_eq!(custom("me"), login(&[("my-user", "me"), ("my-password", "secret")], &[]));
    assert_ne!(custom("me"), custom("you"));
    // Not filled in yet.
    assert_eq!(login(&[("OPENVPN_USER", ""), ("OPENVPN_PASSWORD", " ")], &[]), None);
}

#[test]
fn two_services_may_have_the_same_user() {
    let me = |service: &str| {
        let account = [("OPENVPN_USER", "me"), ("OPENVPN_PASSWORD", "secret"), ("VPN_SERVICE_PROVIDER", service)];
        source(&account)
    };
    let mut state = Index::default();
    state.set("a/one", 1, vec![me("Mullvad")]);
    state.set("a/two", 1, vec![me("nordvpn")]);
    assert_eq!(state.of("a/one"), None);
    state.set("a/two", 1, vec![me("mullvad")]);
    assert_eq!(state.of("a/one"), Some("two".to_owned()));
    state.set("a/two", 1, vec![me("nordvpn")]);
    state.set("a/three", 1, vec![me("custom")]);
    assert_eq!((state.of("a/one"), state.of("a/two")), (Some("three".to_owned()), Some("three".to_owned())));
}

#[test]
fn slots_that_do_not_exist_have_no_login() {
    let key = |key: &str| source(&[("VPN_TYPE", "wireguard"), ("WIREGUARD_PRIVATE_KEY", key)]);
    let mut state = Index::default();
    state.set("a/one", 2, vec![key("common"), key("k0"), key("k1"), key("k2")]);
    state.set("b/two", 1, vec![key("k2")]);
    state.set("b/three", 1, vec![key("common")]);
    assert_eq!(state.of("a/one"), None, "slot 2 is beyond maxSlots, and no slot has the common key");
    state.set("a/one", 3, vec![key("common"), key("k0"), key("k1"), key("k2")]);
    assert_eq!(state.of("a/one"), Some("another namespace".to_owned()));
    state.set("a/one", 4, vec![key("common"), key("k0"), key("k1")]);
    assert_eq!(state.of("b/three"), Some("another namespace".to_owned()));
    assert_eq!(state.of("b/two"), None);
}

#[test]
fn the_index_is_incomplete_while_a_secret_is_unknown() {
    let mut state = Index::default();
    state.set("a/one", 1, vec![CredentialsState::Unknown]);
    assert!(!state.index.is_complete());
    state.set("a/one", 1, vec![CredentialsState::Missing]);
    assert!(state.index.is_complete());
    state.set("a/one", 1, vec![CredentialsState::Unknown]);
    state.remove("a/one");
    assert!(state.index.is_complete());
}

fn source(pairs: &[(&str, &str)]) -> CredentialsState {
    let text: Arc<str> = "".into();
    CredentialsState::Present(CredentialsView {
        data: Arc::new(data(pairs)),
        hash: text.clone(),
        version: text.clone(),
        data_since: text,
    })
}

/// An index with its Secrets: for each provider the common one, then those of its slots.
#[derive(Default)]
struct Index {
    index: LoginIndex,
    sources: HashMap<ObjectKey, CredentialsState>,
}

fn key(path: &str) -> ObjectKey {
    let (namespace, name) = path.split_once('/').unwrap_or_default();
    ObjectKey::new(namespace, name)
}

impl Index {
    fn set(&mut self, path: &str, slots: usize, secrets: Vec<CredentialsState>) -> Vec<ObjectKey> {
        let key = key(path);
        let name = |number: usize| format!("{}-{number}", key.name);
        for (number, source) in secrets.iter().enumerate() {
            self.sources.insert(ObjectKey::new(&key.namespace, name(number)), source.clone());
        }
        let own: Vec<_> = (1..secrets.len()).map(|number| json!({"secret": name(number)})).collect();
        let provider: MaskProvider = serde_json::from_value(json!({
            "apiVersion": "vpn.beebs.dev/v1", "kind": "MaskProvider",
            "metadata": {"namespace": &*key.namespace, "name": &*key.name, "uid": path, "resourceVersion": "1"},
            "spec": {"secret": name(0), "maxSlots": slots, "slots": own},
        }))
        .expect("a MaskProvider");
        let provider = provider.project().expect("metadata");
        let Self { index, sources } = self;
        index.update(&key, Some(&provider), |key| sources.get(key).unwrap_or(&CredentialsState::Unknown))
    }

    fn remove(&mut self, path: &str) -> Vec<ObjectKey> {
        self.index.update(&key(path), None, |_| &CredentialsState::Unknown)
    }

    fn of(&self, path: &str) -> Option<String> {
        Some(match self.index.shared_with(&key(path))? {
            SharedWith::Neighbor(name) => name.to_string(),
            SharedWith::Elsewhere => "another namespace".to_owned(),
        })
    }
}

proptest! {
    /// The index and the reported changes depend only on the current accounts, not on the order of updates.
    #[test]
    fn each_provider_is_shared_with_the_first_other_one_that_has_its_account(
        steps in vec((0..6usize, prop::option::of((0..3usize, 0..3usize))), 1..40),
    ) {
        const PATHS: [&str; 6] = ["a/p", "a/q", "a/r", "b/p", "b/q", "c/p"];
        let account = |number: usize| source(&[("OPENVPN_USER", "me"), ("OPENVPN_PASSWORD", ["x", "y", "z"][number])]);
        let mut index = Index::default();
        let mut truth: BTreeMap<&str, BTreeSet<usize>> = BTreeMap::new();
        for (which, accounts) in steps {
            let path = PATHS[which];
            let before: Vec<_> = PATHS.iter().map(|path| index.of(path)).collect();
            let changed = match accounts {
                Some((a, b)) => {
                    truth.insert(path, BTreeSet::from([a, b]));
                    index.set(path, 2, vec![account(a), account(b)])
                }
                None => {
                    truth.remove(path);
                    index.remove(path)
                }
            };
            for (path, before) in PATHS.iter().zip(before) {
                let namespace = path.split_once('/').map(|(namespace, _)| namespace);
                let others = truth.iter().filter(|(other, theirs)| {
                    *other != path && truth.get(path).is_some_and(|ours| !ours.is_disjoint(theirs))
                });
                let names: Vec<_> = others.filter_map(|(other, _)| other.split_once('/')).collect();
                let neighbor = names.iter().find(|(other, _)| Some(*other) == namespace);
                let neighbor = neighbor.map(|(_, name)| (*name).to_owned());
                let expected = neighbor.or_else(|| (!names.is_empty()).then(|| "another namespace".to_owned()));
                prop_assert_eq!(index.of(path), expected.clone());
                prop_assert_eq!(changed.contains(&key(path)), before != expected);
            }
        }
    }
}
