//! Finds MaskProviders, and slots of a MaskProvider, that log in with the same credentials: they share an account or a
//! device.
//!
//! Invariant: only keyed fingerprints are kept. The key is random and never leaves the process, so a fingerprint
//! reveals nothing about the credentials.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    hash::{BuildHasher, RandomState},
    ops::Bound,
    sync::Arc,
};

use k8s_openapi::ByteString;

use super::{CredentialsState, ProviderView};
use crate::{
    gluetun::{is_file, is_public},
    model::ObjectKey,
};

/// The fingerprint of an account or a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint(u64, u64);

/// The login of a slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    /// The fingerprint of the user name and password, or of the private key.
    pub fingerprint: Fingerprint,
    /// Whether the login is a WireGuard private key, which identifies a device.
    pub is_device: bool,
    /// The VPN service. Absent if the Secret names none or `custom`, which matches any service.
    service: Option<Arc<str>>,
}

/// The logins of the slots of a provider.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Logins {
    /// The login of slots without their own Secret.
    pub common: Option<Login>,
    /// The logins of slots with their own Secret.
    pub own: BTreeMap<u32, Option<Login>>,
}

/// Another provider that shares an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SharedWith {
    /// A provider in the same namespace, the first by name.
    Neighbor(Arc<str>),
    /// A provider in another namespace, whose name must not be disclosed.
    Elsewhere,
}

/// The logins of all providers.
#[derive(Clone, Default)]
pub struct LoginIndex {
    hashers: (RandomState, RandomState),
    logins: HashMap<ObjectKey, Logins>,
    /// Providers that refer to a Secret whose state is not known yet.
    unknown: HashSet<ObjectKey>,
    users: HashMap<Fingerprint, BTreeMap<ObjectKey, Option<Arc<str>>>>,
    shared: HashMap<ObjectKey, SharedWith>,
}

impl LoginIndex {
    /// Returns the known logins of a provider.
    pub fn of(&self, provider: &ObjectKey) -> Option<&Logins> {
        self.logins.get(provider)
    }

    /// Returns another provider that shares an account with this one.
    pub fn shared_with(&self, provider: &ObjectKey) -> Option<&SharedWith> {
        self.shared.get(provider)
    }

    /// Whether the state of the Secrets of all providers is known. Until then, the absence of a provider means nothing.
    pub fn is_complete(&self) -> bool {
        self.unknown.is_empty()
    }

    /// Updates the logins of a provider, or removes them if `provider` is `None`. Returns the providers whose
    /// [`LoginIndex::shared_with`] changed.
    pub(super) fn update<'a>(
        &mut self,
        key: &ObjectKey,
        provider: Option<&ProviderView>,
        source: impl Fn(&ObjectKey) -> &'a CredentialsState,
    ) -> Vec<ObjectKey> {
        let is_unknown = |provider: &ProviderView| {
            provider.secret_keys().iter().any(|secret| matches!(source(secret), CredentialsState::Unknown))
        };
        if provider.is_some_and(is_unknown) {
            self.unknown.insert(key.clone());
        } else {
            self.unknown.remove(key);
        }
        let now = provider.map(|provider| self.logins_of(provider, source));
        if self.logins.get(key) == now.as_ref() {
            return Vec::new();
        }
        let mut concerned = BTreeSet::from([key.clone()]);
        let before = match now.clone() {
            Some(now) => self.logins.insert(key.clone(), now),
            None => self.logins.remove(key),
        };
        for login in before.iter().flat_map(Logins::all) {
            if let Some(users) = self.users.get_mut(&login.fingerprint) {
                users.remove(key);
                concerned.extend(users.keys().cloned());
                if users.is_empty() {
                    self.users.remove(&login.fingerprint);
                }
            }
        }
        for login in now.iter().flat_map(Logins::all) {
            let users = self.users.entry(login.fingerprint).or_default();
            users.insert(key.clone(), login.service.clone());
            concerned.extend(users.keys().cloned());
        }
        let mut changed = Vec::new();
        for key in concerned {
            let now = self.find_shared(&key);
            if self.shared.get(&key) != now.as_ref() {
                match now {
                    Some(now) => self.shared.insert(key.clone(), now),
                    None => self.shared.remove(&key),
                };
                changed.push(key);
            }
        }
        changed
    }

    fn find_shared(&self, key: &ObjectKey) -> Option<SharedWith> {
        let logins = self.logins.get(key)?;
        let users = logins.all().filter_map(|login| Some((login, self.users.get(&login.fingerprint)?)));
        let mut shared = None;
        for (login, users) in users {
            let is_same = |(other, service): &(&ObjectKey, &Option<Arc<str>>)| {
                let same_service = login.is_device
                    || service.is_none()
                    || login.service.is_none()
                    || login.service.as_ref() == service.as_ref();
                *other != key && same_service
            };
            let first = ObjectKey { namespace: key.namespace.clone(), name: "".into() };
            let neighbor = users
                .range((Bound::Included(first), Bound::Unbounded))
                .take_while(|(other, _)| other.namespace == key.namespace)
                .find(is_same)
                .map(|(other, _)| SharedWith::Neighbor(other.name.clone()));
            let found = neighbor.or_else(|| users.iter().any(|user| is_same(&user)).then_some(SharedWith::Elsewhere));
            shared = match (shared, found) {
                (Some(SharedWith::Neighbor(a)), Some(SharedWith::Neighbor(b))) => Some(SharedWith::Neighbor(a.min(b))),
                (Some(SharedWith::Neighbor(a)), _) | (_, Some(SharedWith::Neighbor(a))) => {
                    Some(SharedWith::Neighbor(a))
                }
                (a, b) => a.or(b),
            };
        }
        shared
    }

    fn logins_of<'a>(&self, provider: &ProviderView, source: impl Fn(&ObjectKey) -> &'a CredentialsState) -> Logins {
        let empty = BTreeMap::new();
        let data_of = |key: &ObjectKey| match source(key) {
            CredentialsState::Present(source) => Some(&*source.data),
            _ => None,
        };
        let Some(common) = data_of(&provider.secret_key()) else { return Logins::default() };
        let own = provider.own_secrets().map(|(slot, secret)| {
            let login = data_of(&provider.key_beside(secret)).and_then(|own| self.login(common, own));
            (slot, login)
        });
        let own: BTreeMap<_, _> = own.collect();
        let has_common = u32::try_from(own.len()).is_ok_and(|own| own < provider.max_slots);
        Logins { common: self.login(common, &empty).filter(|_| has_common), own }
    }

    /// Returns the login of a slot whose own Secret is merged into the common one.
    pub fn login(&self, common: &BTreeMap<String, ByteString>, own: &BTreeMap<String, ByteString>) -> Option<Login> {
        let text = |key: &str| {
            let value = own.get(key).or_else(|| common.get(key))?;
            Some(std::str::from_utf8(&value.0).ok()?.trim()).filter(|text| !text.is_empty())
        };
        let one_of = |keys: &[&str]| keys.iter().find_map(|key| text(key));
        let user = one_of(&["OPENVPN_USER", "USER"]);
        // Some services know an account by its number alone.
        let user = user.map(|user| (user, one_of(&["OPENVPN_PASSWORD", "PASSWORD"]).unwrap_or_default()));
        let own_files = own.iter();
        let common_files = common.iter().filter(|(key, _)| !own.contains_key(*key));
        let mut files = own_files.chain(common_files).filter_map(|(_, value)| std::str::from_utf8(&value.0).ok());
        let is_wireguard = match text("VPN_TYPE") {
            Some(kind) => !kind.eq_ignore_ascii_case("openvpn"),
            None => user.is_none_or(|(_, password)| password.is_empty()),
        };
        let device = || {
            one_of(&["WIREGUARD_PRIVATE_KEY", "AMNEZIAWG_PRIVATE_KEY"])
                .or_else(|| files.clone().find_map(wireguard_key))
                .filter(|_| is_wireguard)
        };
        if let Some(key) = device() {
            return Some(Login { fingerprint: self.fingerprint(&["wireguard", key]), is_device: true, service: None });
        }
        let service = one_of(&["VPN_SERVICE_PROVIDER", "VPNSP"]).map(str::to_lowercase);
        let service = service.filter(|name| name != "custom").map(Arc::from);
        let fingerprint = match user {
            Some((user, password)) => self.fingerprint(&["user", user, password]),
            None => {
                let key = one_of(&["OPENVPN_KEY", "OPENVPN_ENCRYPTED_KEY"]).map(str::to_owned);
                let key = key.map(|key| pem_key(&key).unwrap_or(key)).or_else(|| files.find_map(pem_key));
                match key {
                    Some(key) => self.fingerprint(&["key", &key]),
                    None => self.fingerprint_of_unknown(own, common)?,
                }
            }
        };
        Some(Login { fingerprint, is_device: false, service })
    }

    /// Returns the fingerprint of keys with names that say nothing, such as those that overrides refer to: the accounts are
    /// the same if all of them are.
    fn fingerprint_of_unknown(
        &self,
        own: &BTreeMap<String, ByteString>,
        common: &BTreeMap<String, ByteString>,
    ) -> Option<Fingerprint> {
        let all: BTreeMap<_, _> = common.iter().chain(own).collect();
        let is_secret =
            |key: &str, value: &ByteString| !is_public(key) && !is_file(key) && !value.0.trim_ascii().is_empty();
        let parts: Vec<_> =
            all.into_iter().filter(|(key, value)| is_secret(key, value)).map(|(key, value)| (key, &value.0)).collect();
        (!parts.is_empty()).then(|| Fingerprint(self.hashers.0.hash_one(&parts), self.hashers.1.hash_one(&parts)))
    }

    fn fingerprint(&self, parts: &[&str]) -> Fingerprint {
        Fingerprint(self.hashers.0.hash_one(parts), self.hashers.1.hash_one(parts))
    }
}

impl Logins {
    /// Returns all logins, in no particular order.
    fn all(&self) -> impl Iterator<Item = &Login> {
        self.common.iter().chain(self.own.values().flatten())
    }
}

/// Returns the private key in a WireGuard configuration.
fn wireguard_key(file: &str) -> Option<&str> {
    let mut settings = file.lines().filter_map(|line| line.split_once('='));
    let (_, key) = settings.find(|(name, _)| name.trim().eq_ignore_ascii_case("PrivateKey"))?;
    Some(key.trim()).filter(|key| !key.is_empty())
}

/// Returns the private key in a PEM file or an OpenVPN configuration, without line breaks, so that keys that differ
/// only in those are equal.
fn pem_key(file: &str) -> Option<String> {
    let mut lines = file.lines().map(str::trim);
    lines.find(|line| line.starts_with("-----BEGIN") && line.contains("PRIVATE KEY"))?;
    let key: String = lines.take_while(|line| !line.starts_with("-----END")).collect();
    Some(key).filter(|key| !key.is_empty())
}

#[cfg(test)]
mod tests;
