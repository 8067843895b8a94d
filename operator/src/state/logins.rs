//! Which MaskProviders, and which slots of one, log in with the same credentials: they are one account, or one device.
//!
//! Invariant: only keyed fingerprints are kept. The key is made anew in each process and never leaves it, so that a
//! fingerprint says nothing to anybody who has not got the credentials already.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    hash::{BuildHasher, RandomState},
    ops::Bound,
    sync::Arc,
};

use k8s_openapi::ByteString;

use super::{ProviderView, Source};
use crate::model::ObjectKey;

/// Fingerprint of what identifies an account or a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint(u64, u64);

/// What a slot logs in with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    /// Fingerprint of user name and password, or of a private key.
    pub fingerprint: Fingerprint,
    /// Whether it is the private key of WireGuard, which is one device.
    pub is_device: bool,
    /// The VPN service. Absent where the Secret names none, or a server of one's own (`custom`): then it may be any.
    service: Option<Arc<str>>,
}

/// What the slots of one provider log in with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Logins {
    /// Slots without a Secret of their own.
    pub common: Option<Login>,
    /// Slots with one.
    pub own: BTreeMap<u32, Option<Login>>,
}

/// Another provider with the same account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SharedWith {
    /// The first of them by name in the same namespace.
    Neighbor(Arc<str>),
    /// One in another namespace, of which no more may be said.
    Elsewhere,
}

/// The logins of all providers.
#[derive(Clone, Default)]
pub struct LoginIndex {
    hashers: (RandomState, RandomState),
    logins: HashMap<ObjectKey, Logins>,
    /// Providers of which not all Secrets have been told.
    unknown: HashSet<ObjectKey>,
    users: HashMap<Fingerprint, BTreeMap<ObjectKey, Option<Arc<str>>>>,
    shared: HashMap<ObjectKey, SharedWith>,
}

impl LoginIndex {
    /// What the slots of a provider log in with, as far as is known.
    pub fn of(&self, provider: &ObjectKey) -> Option<&Logins> {
        self.logins.get(provider)
    }

    /// The other provider that has the same account, if there is one.
    pub fn shared_with(&self, provider: &ObjectKey) -> Option<&SharedWith> {
        self.shared.get(provider)
    }

    /// Whether the Secrets of all providers have been told: only then does absence mean anything.
    pub fn is_complete(&self) -> bool {
        self.unknown.is_empty()
    }

    /// Takes in what a provider is made of now (`None`: it is gone). Returns the providers of which
    /// [`LoginIndex::shared_with`] has changed.
    pub(super) fn update<'a>(
        &mut self,
        key: &ObjectKey,
        provider: Option<&ProviderView>,
        source: impl Fn(&ObjectKey) -> &'a Source,
    ) -> Vec<ObjectKey> {
        let is_unknown = |provider: &ProviderView| {
            provider.secret_keys().iter().any(|secret| matches!(source(secret), Source::Unknown))
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
            let now = self.other_than(&key);
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

    fn other_than(&self, key: &ObjectKey) -> Option<SharedWith> {
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
            let beside = users
                .range((Bound::Included(first), Bound::Unbounded))
                .take_while(|(other, _)| other.namespace == key.namespace)
                .find(is_same)
                .map(|(other, _)| SharedWith::Neighbor(other.name.clone()));
            let found = beside.or_else(|| users.iter().any(|user| is_same(&user)).then_some(SharedWith::Elsewhere));
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

    fn logins_of<'a>(&self, provider: &ProviderView, source: impl Fn(&ObjectKey) -> &'a Source) -> Logins {
        let empty = BTreeMap::new();
        let data_of = |key: &ObjectKey| match source(key) {
            Source::Present(source) => Some(&*source.data),
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

    /// What a slot logs in with whose own Secret is laid over the common one.
    pub fn login(&self, common: &BTreeMap<String, ByteString>, own: &BTreeMap<String, ByteString>) -> Option<Login> {
        let text = |key: &str| {
            let value = own.get(key).or_else(|| common.get(key))?;
            Some(std::str::from_utf8(&value.0).ok()?.trim()).filter(|text| !text.is_empty())
        };
        let one_of = |keys: &[&str]| keys.iter().find_map(|key| text(key));
        let user = one_of(&["OPENVPN_USER", "USER"]).zip(one_of(&["OPENVPN_PASSWORD", "PASSWORD"]));
        let own_files = own.iter();
        let common_files = common.iter().filter(|(key, _)| !own.contains_key(*key));
        let mut files = own_files.chain(common_files).filter_map(|(_, value)| std::str::from_utf8(&value.0).ok());
        let is_wireguard = match text("VPN_TYPE") {
            Some(kind) => !kind.eq_ignore_ascii_case("openvpn"),
            None => user.is_none(),
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
                let key = key.map(|key| pem_key(&key).unwrap_or(key));
                self.fingerprint(&["key", &key.or_else(|| files.find_map(pem_key))?])
            }
        };
        Some(Login { fingerprint, is_device: false, service })
    }

    fn fingerprint(&self, parts: &[&str]) -> Fingerprint {
        Fingerprint(self.hashers.0.hash_one(parts), self.hashers.1.hash_one(parts))
    }
}

impl Logins {
    /// One of each that there is, in no order.
    fn all(&self) -> impl Iterator<Item = &Login> {
        self.common.iter().chain(self.own.values().flatten())
    }
}

/// The private key in a WireGuard configuration.
fn wireguard_key(file: &str) -> Option<&str> {
    let mut settings = file.lines().filter_map(|line| line.split_once('='));
    let (_, key) = settings.find(|(name, _)| name.trim().eq_ignore_ascii_case("PrivateKey"))?;
    Some(key.trim()).filter(|key| !key.is_empty())
}

/// The private key in a PEM file, or in an OpenVPN configuration, without line breaks, which do not tell keys apart.
fn pem_key(file: &str) -> Option<String> {
    let mut lines = file.lines().map(str::trim);
    lines.find(|line| line.starts_with("-----BEGIN") && line.contains("PRIVATE KEY"))?;
    let key: String = lines.take_while(|line| !line.starts_with("-----END")).collect();
    Some(key).filter(|key| !key.is_empty())
}

#[cfg(test)]
mod tests;
