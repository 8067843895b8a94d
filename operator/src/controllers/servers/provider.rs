//! The MaskProvider of a server: a client for each slot, and the account that Masks use.
//!
//! Invariant: a certificate of a slot is revoked only when the providers controller has confirmed that the slot is not in
//! use: `maxSlots` is lowered first.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use k8s_openapi::ByteString;
use serde_json::{Value, json};
use vpn_types::{MaskProviderVerifySpec, OpenVPNProviderSpec, SERVER_SECRET_LABEL, SLOT_LABEL};

use super::{
    clients::SLOT_FILE,
    context::{ServersContext, apply},
    desired::{Desired, EXPORTER_PORT},
    names::named,
    objects::{finish, with_uid},
};
use crate::{
    model::{Kind, ObjectKey, Step, delete},
    state::{ClientView, ProviderView, SecretRole, ServerView},
};

impl ServersContext<'_> {
    /// Creates and updates the MaskProvider with its slots, or removes it.
    pub fn provider(&self, server: &ServerView, desired: &Desired) -> Step {
        let Some(spec) = &server.spec.provider else {
            return self.delete_provider(server).or_else(|| self.delete_slots(server, 0));
        };
        // The profiles of the slots have the address of the Service, and the verification asks the exporters.
        let (Some(_), Some(metrics_ip)) = (desired.cluster_ip, desired.metrics_ip) else { return Step::Idle };
        let slots = u32::from(spec.max_slots);
        let step = self.create_slots(server, slots);
        let step = step.or_else(|| self.provider_secret(server, desired));
        let step = step.or_else(|| self.mask_provider(server, spec, metrics_ip, desired.network.gateway()));
        step.or_else(|| self.delete_slots(server, slots))
    }

    /// Returns the MaskProvider of a server.
    pub fn own_provider(&self, server: &ServerView) -> Option<&ProviderView> {
        let found = self.state.providers.get(&server.meta.key)?;
        (found.server.as_ref() == Some(&server.meta.uid)).then_some(found)
    }

    /// Deletes the MaskProvider. Its finalizer gives the slots back first.
    pub fn delete_provider(&self, server: &ServerView) -> Step {
        match self.own_provider(server) {
            Some(provider) if !provider.meta.deleting => Step::maintain(delete(Kind::Provider, &provider.meta, None)),
            _ => Step::Idle,
        }
    }

    fn create_slots(&self, server: &ServerView, slots: u32) -> Step {
        for slot in 0..slots {
            let key = slot_key(server, slot);
            let present = self.state.clients.get(&key);
            if present.is_some_and(|present| present.meta.deleting) {
                continue;
            }
            let client = json!({
                "metadata": {"labels": {SLOT_LABEL: slot.to_string()}},
                "spec": {"server": &*server.meta.key.name},
            });
            let (client, inputs) = finish(server, Kind::Client, &key, client);
            let ours = present.filter(|present| present.owner.as_ref() == Some(&server.meta.uid));
            if ours.is_none_or(|ours| ours.inputs.as_deref() != Some(&*inputs)) {
                return apply(Kind::Client, key, ours.map(|it| &it.meta), with_uid(client, ours.map(|it| &it.meta)));
            }
        }
        Step::Idle
    }

    /// Deletes the clients of slots beyond the limit, which revokes their certificates.
    fn delete_slots(&self, server: &ServerView, slots: u32) -> Step {
        let provider = self.own_provider(server);
        let is_free = |slot: u32| match provider {
            None => true,
            Some(provider) => {
                let mut held = self.state.reservations_on(&provider.meta.key);
                provider.max_slots <= slot && provider.is_current() && !held.any(|(other, _)| other == slot)
            }
        };
        let is_surplus = |client: &&ClientView| {
            let is_ours = client.owner.as_ref() == Some(&server.meta.uid) && !client.meta.deleting;
            is_ours && client.slot.is_some_and(|slot| slot >= slots && is_free(slot))
        };
        let mut surplus = self.clients_of(&server.meta.key).filter(is_surplus);
        surplus.next().map_or(Step::Idle, |client| Step::maintain(delete(Kind::Client, &client.meta, None)))
    }

    /// The variables of gluetun that all slots have in common.
    fn provider_secret(&self, server: &ServerView, desired: &Desired) -> Step {
        let key = named(&server.meta.key, "provider");
        let gateway = desired.network.gateway();
        let variables = [
            ("VPN_SERVICE_PROVIDER", "custom".to_owned()),
            ("VPN_TYPE", "openvpn".to_owned()),
            ("OPENVPN_CUSTOM_CONFIG", format!("/gluetun/{SLOT_FILE}")),
            // By default gluetun checks its health with hosts on the Internet, which a cluster may not reach.
            ("HEALTH_TARGET_ADDRESSES", format!("{gateway}:{EXPORTER_PORT}")),
            ("HEALTH_ICMP_TARGET_IPS", gateway.to_string()),
        ];
        let data: serde_json::Map<_, _> = variables
            .into_iter()
            .map(|(name, value)| (name.to_owned(), json!(ByteString(value.into_bytes()))))
            .collect();
        let secret = json!({
            "metadata": {"labels": {SERVER_SECRET_LABEL: SecretRole::Provider.as_str()}},
            "data": data,
        });
        let (secret, inputs) = finish(server, Kind::ServerSecret, &key, secret);
        let ours = self.secret(&key, SecretRole::Provider).filter(|it| it.owner.as_ref() == Some(&server.meta.uid));
        if ours.is_some_and(|ours| ours.inputs.as_deref() == Some(&*inputs)) {
            return Step::Idle;
        }
        apply(Kind::ServerSecret, key, ours.map(|it| &it.meta), with_uid(secret, ours.map(|it| &it.meta)))
    }

    fn mask_provider(
        &self,
        server: &ServerView,
        spec: &OpenVPNProviderSpec,
        metrics_ip: IpAddr,
        gateway: Ipv4Addr,
    ) -> Step {
        let key = server.meta.key.clone();
        let secret = |slot: u32| json!({"secret": &*slot_key(server, slot).name});
        let mut account = json!({
            "secret": format!("{}-provider", key.name),
            "maxSlots": spec.max_slots,
            "slots": (0..u32::from(spec.max_slots)).map(secret).collect::<Vec<_>>(),
            "verify": verify(spec.verify.as_ref(), metrics_ip, gateway),
        });
        for (field, value) in [("tags", &spec.tags), ("namespaces", &spec.namespaces)] {
            if let Some(value) = value {
                account[field] = json!(value);
            }
        }
        let (provider, inputs) = finish(server, Kind::Provider, &key, json!({"spec": account}));
        let ours = self.own_provider(server);
        // A verification that cannot succeed would be tried again only after a while.
        if ours.is_none() && !self.state.server_pods_of(&key).any(|pod| pod.ready) {
            return Step::Idle;
        }
        if ours.is_some_and(|ours| ours.meta.deleting || ours.inputs.as_deref() == Some(&*inputs)) {
            return Step::Idle;
        }
        apply(Kind::Provider, key, ours.map(|it| &it.meta), with_uid(provider, ours.map(|it| &it.meta)))
    }
}

/// Returns the key of the client and the Secret of a slot.
pub fn slot_key(server: &ServerView, slot: u32) -> ObjectKey {
    named(&server.meta.key, &format!("slot-{slot}"))
}

/// The exporters return the address that other hosts see for a client. Without the VPN, the client asks their Service.
/// With the VPN, it asks its server, which needs no route to the cluster. A service on the Internet would see the same
/// address both times if the client and the server are on one node.
fn verify(given: Option<&MaskProviderVerifySpec>, metrics_ip: IpAddr, gateway: Ipv4Addr) -> Value {
    let given = given.cloned().unwrap_or_default();
    let has_own = given.overrides.is_some();
    let mut verify = json!(given);
    if !has_own {
        let ask = |host: IpAddr| {
            let host = SocketAddr::new(host, EXPORTER_PORT);
            json!({"env": [{"name": "IP_SERVICES", "value": format!("http://{host}/address")}]})
        };
        verify["overrides"] = json!({"containers": {"init": ask(metrics_ip), "probe": ask(gateway.into())}});
    }
    verify
}
