//! Objects that the types cannot decode, stored before the schema forbade them. They affect no other object, and their
//! conditions and Events name the problem.

use anyhow::{Context, Result, ensure};
use e2e::{
    Cluster, Framework, History, Layout, Operator, OperatorOptions,
    pods::usage::owned_pod,
    testing::framework::{ensure_eq, local_cluster},
    wait::{Kind, TIMEOUT, await_condition},
};
use k8s_openapi::{
    api::{core::v1::Pod, events::v1::Event},
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, ResourceExt,
    api::{ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use tokio::time::{Duration, Instant, sleep, timeout};
use vpn_types::{Mask, MaskConsumer, MaskProvider, MaskReservation, OpenVPNClient, OpenVPNServer};

use crate::ALONE;

/// The kinds with schemas that accept anything, until [`Lax::strict`].
struct Lax {
    api: Api<CustomResourceDefinition>,
    strict: Vec<CustomResourceDefinition>,
}

impl Lax {
    async fn now(cluster: &Cluster, probe: &Framework) -> Result<Self> {
        let api: Api<CustomResourceDefinition> = Api::all(cluster.client()?);
        let mut strict = Vec::new();
        for kind in vpn_types::crds() {
            let mut definition = api.get(&kind.name_any()).await?;
            strict.push(definition.clone());
            let anything = json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true });
            for version in &mut definition.spec.versions {
                let schema = json!({ "type": "object", "properties": { "spec": anything, "status": anything } });
                version.schema = Some(serde_json::from_value(json!({ "openAPIV3Schema": schema }))?);
            }
            set_versions(&api, &definition).await?;
        }
        let lax = Self { api, strict };
        lax.until_accepted(probe, true).await?;
        Ok(lax)
    }

    async fn strict(self, probe: &Framework) -> Result<()> {
        for before in &self.strict {
            set_versions(&self.api, before).await?;
        }
        self.until_accepted(probe, false).await
    }

    /// There is nothing to watch for which schema is in effect, so this probes with a dry run.
    async fn until_accepted(&self, f: &Framework, accepted: bool) -> Result<()> {
        let (dry, deadline) = (PostParams { dry_run: true, ..PostParams::default() }, Instant::now() + TIMEOUT);
        let unreadable = [
            (raw::<Mask>(f), object::<Mask>("probe", json!({ "providers": "london" }))),
            (raw::<MaskConsumer>(f), object::<MaskConsumer>("probe", json!({ "providers": "london" }))),
            (raw::<MaskProvider>(f), object::<MaskProvider>("probe", json!({ "maxSlots": 1, "secret": 5 }))),
            (raw::<MaskReservation>(f), object::<MaskReservation>("probe", json!({ "name": 1 }))),
            (raw::<OpenVPNServer>(f), object::<OpenVPNServer>("probe", json!({ "maxClients": "many" }))),
            (raw::<OpenVPNClient>(f), object::<OpenVPNClient>("probe", json!({ "server": "nowhere", "duration": 5 }))),
        ];
        for (api, probe) in unreadable {
            loop {
                let answer = api.create(&dry, &probe).await;
                if answer.is_ok() == accepted {
                    break;
                }
                ensure!(Instant::now() < deadline, "the schema is not in force after {TIMEOUT:?}: {answer:?}");
                sleep(Duration::from_millis(50)).await;
            }
        }
        Ok(())
    }
}

/// Sets the versions with their schemas. A patch does not conflict with a status that is written at the same time.
async fn set_versions(api: &Api<CustomResourceDefinition>, definition: &CustomResourceDefinition) -> Result<()> {
    let versions = Patch::Merge(json!({ "spec": { "versions": definition.spec.versions } }));
    api.patch(&definition.name_any(), &PatchParams::default(), &versions).await?;
    Ok(())
}

fn raw<K: Kind>(f: &Framework) -> Api<DynamicObject> {
    Api::namespaced_with(f.client.clone(), f.name(), &ApiResource::erase::<K>(&()))
}

fn object<K: Kind>(name: &str, spec: Value) -> DynamicObject {
    DynamicObject::new(name, &ApiResource::erase::<K>(&())).data(json!({ "spec": spec }))
}

async fn create<K: Kind>(f: &Framework, name: &str, spec: Value) -> Result<()> {
    raw::<K>(f).create(&PostParams::default(), &object::<K>(name, spec)).await?;
    Ok(())
}

async fn patch<K: Kind>(f: &Framework, name: &str, patch: Value) -> Result<()> {
    raw::<K>(f).patch(name, &PatchParams::default(), &Patch::Merge(patch)).await?;
    Ok(())
}

/// Waits until an Event and a condition say that the object cannot be decoded.
async fn named(f: &Framework, kind: &str, name: &str) -> Result<()> {
    let tells = |event: &Event| {
        let about = event.regarding.clone().unwrap_or_default();
        event.reason.as_deref() == Some("InvalidSpec")
            && event.type_.as_deref() == Some("Warning")
            && (about.kind.as_deref(), about.name.as_deref()) == (Some(kind), Some(name))
            && event.note.as_ref().is_some_and(|note| note.contains("cannot be read"))
    };
    f.wait_until_all::<Event>(&format!("{kind} {name} is named"), |all| all.iter().any(tells)).await?;
    let api = match kind {
        "Mask" => raw::<Mask>(f),
        "MaskConsumer" => raw::<MaskConsumer>(f),
        "MaskProvider" => raw::<MaskProvider>(f),
        "OpenVPNServer" => raw::<OpenVPNServer>(f),
        "OpenVPNClient" => raw::<OpenVPNClient>(f),
        _ => raw::<MaskReservation>(f),
    };
    // The condition in the form that the schema exposes.
    let says = |object: Option<&DynamicObject>| {
        let ready = object.and_then(|object| object.data.pointer("/status/conditions/0")).unwrap_or(&Value::Null);
        ready["reason"] == "InvalidSpec" && ready["status"] == "False"
    };
    let wait = await_condition(api, name, says);
    timeout(TIMEOUT, wait).await.with_context(|| format!("{kind} {name} has no condition that says so"))??;
    Ok(())
}

/// Stores undecodable objects of all kinds, including the MaskReservation of slot 0 of `vpn`.
async fn store_unreadable(f: &Framework) -> Result<()> {
    create::<Mask>(f, "bad-mask", json!({ "providers": "london" })).await?;
    create::<MaskConsumer>(f, "bad-consumer", json!({ "priority": "high" })).await?;
    let spec = json!({ "secret": 5, "maxSlots": 1 });
    create::<MaskProvider>(f, "bad-provider", spec).await?;
    create::<OpenVPNServer>(f, "bad-server", json!({ "replicas": 0, "maxClients": "many" })).await?;
    create::<OpenVPNClient>(f, "bad-client", json!({ "server": "nowhere", "duration": 5 })).await?;
    create::<MaskReservation>(f, "vpn-0", json!({ "name": 1 })).await
}

const UNREADABLE: [(&str, &str); 6] = [
    ("Mask", "bad-mask"),
    ("MaskConsumer", "bad-consumer"),
    ("MaskProvider", "bad-provider"),
    ("OpenVPNServer", "bad-server"),
    ("OpenVPNClient", "bad-client"),
    ("MaskReservation", "vpn-0"),
];

#[tokio::test]
async fn an_object_that_cannot_be_read_stops_no_other() -> Result<()> {
    let _alone = ALONE.lock().await;
    let Some(cluster) = local_cluster().await? else { return Ok(()) };
    let options = OperatorOptions::new(Layout::Combined).servers();
    let mut operator = Operator::start_with(cluster, options).await?;
    let f = Framework::new(cluster, "unreadable").await?;
    f.add_logs(&operator);
    let test = async {
        // Stored while the operator watches.
        let lax = Lax::now(cluster, &f).await?;
        store_unreadable(&f).await?;
        // Stored before the schema forbids them. A status is also rejected if a rule gets a value of another type.
        for (kind, name) in UNREADABLE {
            named(&f, kind, name).await?;
        }
        lax.strict(&f).await?;
        f.create_provider("vpn", 2).await?;
        let consumer = f.create_active_mask("mine").await?;
        let slot = |consumer: &MaskConsumer| {
            consumer.status.as_ref().and_then(|status| status.provider.as_ref()).map(|provider| provider.slot)
        };
        ensure_eq("slot (an undecodable object locks the other one)", slot(&consumer), Some(1))?;
        // Present when the operator starts.
        operator.kill().await?;
        let events: Api<Event> = f.api();
        events.delete_collection(&DeleteParams::default(), &Default::default()).await?;
        operator.restart(cluster).await?;
        f.add_logs(&operator);
        for (kind, name) in UNREADABLE {
            named(&f, kind, name).await?;
        }
        f.create_mask("second").await?;
        f.wait_for_reason::<MaskConsumer>("second", "NoFreeSlot").await?;

        // Once corrected or deleted, they behave like all other objects.
        raw::<MaskReservation>(&f).delete("vpn-0", &DeleteParams::default()).await?;
        ensure_eq("slot", slot(&f.wait_active("second").await?), Some(0))?;
        patch::<Mask>(&f, "bad-mask", json!({ "spec": { "providers": null } })).await?;
        f.wait_for_reason::<Mask>("bad-mask", "NoFreeSlot").await?;
        patch::<MaskConsumer>(&f, "bad-consumer", json!({ "spec": { "priority": null } })).await?;
        f.wait_for_reason::<MaskConsumer>("bad-consumer", "NoFreeSlot").await?;
        let spec = json!({ "spec": { "secret": "vpn-credentials", "namespaces": [], "verify": { "skip": true } } });
        patch::<MaskProvider>(&f, "bad-provider", spec).await?;
        f.wait_for_reason::<MaskProvider>("bad-provider", "Available").await?;
        f.delete::<MaskConsumer>("bad-consumer").await?;
        patch::<OpenVPNClient>(&f, "bad-client", json!({ "spec": { "duration": null } })).await?;
        let client = f.wait_for_reason::<OpenVPNClient>("bad-client", "ServerNotFound").await?;
        patch::<OpenVPNServer>(&f, "bad-server", json!({ "spec": { "maxClients": null } })).await?;
        let server = f.wait_for_reason::<OpenVPNServer>("bad-server", "PodsUnavailable").await?;
        f.delete::<OpenVPNClient>("bad-client").await?;
        f.wait_deleted(&client).await?;
        f.delete::<OpenVPNServer>("bad-server").await?;
        f.wait_deleted(&server).await?;
        f.clear(TIMEOUT).await?;
        operator.stop().await
    };
    f.dump_on_error(test).await
}

#[tokio::test]
async fn a_slot_is_held_while_what_it_rests_on_cannot_be_read() -> Result<()> {
    held_while_unreadable(&["provider", "consumer", "mask"]).await
}

#[tokio::test]
async fn a_slot_is_held_while_its_lock_cannot_be_read() -> Result<()> {
    held_while_unreadable(&["lock"]).await
}

/// A Mask keeps its slot while an object that the slot depends on cannot be decoded.
async fn held_while_unreadable(parts: &[&str]) -> Result<()> {
    let _alone = ALONE.lock().await;
    let Some(cluster) = local_cluster().await? else { return Ok(()) };
    let mut operator = Operator::start(cluster, Layout::Combined).await?;
    for &broken in parts {
        let f = Framework::new(cluster, broken).await?;
        f.add_logs(&operator);
        let operator = &mut operator;
        let test = async {
            f.create_provider("vpn", 1).await?;
            let mut history = History::start(&f.client, Some(f.name())).await?;
            let consumer = f.create_active_mask("mine").await?;
            let pod = f.run_pod(owned_pod("user", &consumer, 1)?).await?;
            f.create_mask("waits").await?;
            f.wait_for_reason::<Mask>("waits", "NoFreeSlot").await?;
            let most = history.check_slot_limits().await?.into_values().max();
            ensure_eq("most users at once", most, Some(1))?;
            drop(history);

            let lax = Lax::now(cluster, &f).await?;
            let heal = match broken {
                "provider" => {
                    patch::<MaskProvider>(&f, "vpn", json!({ "spec": { "tags": "london" } })).await?;
                    json!({ "spec": { "tags": null } })
                }
                "consumer" => {
                    patch::<MaskConsumer>(&f, "mine", json!({ "spec": { "priority": "high" } })).await?;
                    json!({ "spec": { "priority": null } })
                }
                "mask" => {
                    patch::<Mask>(&f, "mine", json!({ "spec": { "providers": "london" } })).await?;
                    json!({ "spec": { "providers": null } })
                }
                _ => {
                    let name = f.api::<MaskReservation>().get("vpn-0").await?.spec.name;
                    patch::<MaskReservation>(&f, "vpn-0", json!({ "spec": { "name": 1 } })).await?;
                    json!({ "spec": { "name": name } })
                }
            };
            lax.strict(&f).await?;
            operator.kill().await?;
            operator.restart(cluster).await?;
            f.add_logs(operator);
            let (kind, name) = match broken {
                "provider" => ("MaskProvider", "vpn"),
                "consumer" => ("MaskConsumer", "mine"),
                "mask" => ("Mask", "mine"),
                _ => ("MaskReservation", "vpn-0"),
            };
            named(&f, kind, name).await?;
            // Another event must not reassign the slot.
            let other = Framework::new(cluster, "beside").await?;
            other.create_provider("vpn", 1).await?;
            other.create_active_mask("other").await?;
            let waits = raw::<MaskConsumer>(&f).get("waits").await?;
            ensure!(waits.data["status"]["phase"] != "Active", "the slot was reassigned");
            let now = f.api::<Pod>().get("user").await?;
            ensure_eq("Pod", (now.uid(), now.metadata.deletion_timestamp.is_none()), (pod.uid(), true))?;
            let alive = raw::<MaskConsumer>(&f).get("mine").await?;
            ensure_eq("consumer", (alive.uid(), alive.metadata.deletion_timestamp.is_none()), (consumer.uid(), true))?;
            other.clear(TIMEOUT).await?;

            // Correct the object with a lax schema, because the strict one never lets the spec of a MaskReservation
            // change.
            let lax = Lax::now(cluster, &f).await?;
            match kind {
                "MaskProvider" => patch::<MaskProvider>(&f, name, heal).await?,
                "MaskConsumer" => patch::<MaskConsumer>(&f, name, heal).await?,
                "Mask" => patch::<Mask>(&f, name, heal).await?,
                _ => patch::<MaskReservation>(&f, name, heal).await?,
            }
            lax.strict(&f).await?;
            f.delete::<Mask>("mine").await?;
            f.wait_active("waits").await.context("after the object was corrected")?;
            f.clear(TIMEOUT).await
        };
        f.dump_on_error(test).await?;
    }
    operator.stop().await
}
