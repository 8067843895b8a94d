//! Objects, an engine that knows them, and the metrics that it shows.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};
use time::OffsetDateTime;
use vpn_operator::{
    controllers::table,
    engine::{Engine, Input},
    issuing::{Certificate, Content, Data, Issuer},
    metrics::{METRICS_API, Metrics, Snapshot, WEBHOOK},
    model::{Kind, Now, ObjectKey, Operation, ReconcileRequest},
    pki::Serial,
    state::{CredentialsView, InjectedPod, Object, Project, ServerSecretView, WatchEvent},
};
use vpn_types::{
    MaskConsumer, MaskProvider, MaskReservation, OpenVPNServer, SERVER_LABEL, SERVER_SECRET_LABEL,
    inject::{INJECT_LABEL, INJECTED_ANNOTATION, SLOT_GATE},
};

/// The creation time of every object.
pub const CREATED: &str = "2026-01-01T00:00:00Z";

pub fn now() -> DateTime<Utc> {
    CREATED.parse::<DateTime<Utc>>().unwrap() + TimeDelta::seconds(90)
}

pub fn metadata(namespace: &str, name: &str) -> Value {
    json!({
        "namespace": namespace, "name": name, "uid": format!("uid of {name}"), "resourceVersion": "1", "generation": 1,
        "creationTimestamp": CREATED, "finalizers": ["vpn.beebs.dev/finalizer"],
    })
}

pub fn provider(name: &str, slots: u32, tags: &[&str], phase: &str) -> Object {
    let provider: MaskProvider = serde_json::from_value(json!({
        "apiVersion": "vpn.beebs.dev/v1", "kind": "MaskProvider", "metadata": metadata("vpn", name),
        "spec": {"secret": "credentials", "maxSlots": slots, "tags": tags, "verify": {"skip": true}},
        "status": {"phase": phase, "observedGeneration": 1},
    }))
    .unwrap();
    Object::Provider(Box::new(provider.project().unwrap()))
}

pub fn waiting(namespace: &str, name: &str, tags: Option<&[&str]>) -> Object {
    consumer(namespace, name, tags, json!({"phase": "Waiting"}))
}

pub fn consumer(namespace: &str, name: &str, tags: Option<&[&str]>, status: Value) -> Object {
    let consumer: MaskConsumer = serde_json::from_value(json!({
        "apiVersion": "vpn.beebs.dev/v1", "kind": "MaskConsumer", "metadata": metadata(namespace, name),
        "spec": {"providers": tags}, "status": status,
    }))
    .unwrap();
    Object::Consumer(consumer.project().unwrap())
}

/// Returns a consumer with a slot, and its reservation.
pub fn active(namespace: &str, name: &str, provider: &str, slot: u32) -> [Object; 2] {
    let reservation = format!("{provider}-{slot}");
    let status = json!({"phase": "Active", "provider": {
        "namespace": "vpn", "name": provider, "uid": format!("uid of {provider}"), "slot": slot,
        "reservation": format!("uid of {reservation}"), "secret": "copy",
    }});
    let consumer = consumer(namespace, name, None, status);
    let mut metadata = metadata("vpn", &reservation);
    metadata["ownerReferences"] = json!([{
        "apiVersion": "vpn.beebs.dev/v1", "kind": "MaskProvider", "name": provider, "uid": format!("uid of {provider}"),
    }]);
    let reservation: MaskReservation = serde_json::from_value(json!({
        "apiVersion": "vpn.beebs.dev/v1", "kind": "MaskReservation", "metadata": metadata,
        "spec": {"namespace": namespace, "name": name, "uid": format!("uid of {name}")},
    }))
    .unwrap();
    [consumer, Object::Reservation(reservation.project().unwrap())]
}

/// Returns a Pod that waits with its gate.
pub fn gated(namespace: &str, name: &str) -> Object {
    let mut metadata = metadata(namespace, name);
    metadata["labels"] = json!({INJECT_LABEL: "true"});
    let injected = json!({"version": "2.0.0", "secret": name});
    metadata["annotations"] = json!({INJECTED_ANNOTATION: injected.to_string()});
    let spec = json!({"containers": [], "schedulingGates": [{"name": SLOT_GATE}]});
    let pod = serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap();
    Object::InjectedPod(Box::new(InjectedPod::of(&pod).unwrap()))
}

pub fn watch(engine: &mut Engine, events: impl IntoIterator<Item = WatchEvent>) {
    let now = Now { wall: now(), monotonic: Duration::ZERO };
    engine.handle(events.into_iter().map(Input::Watch), now);
}

/// Returns an engine that has just listed these objects.
pub fn engine(objects: impl IntoIterator<Item = Object>) -> Engine {
    let mut engine = Engine::standby(table::all());
    let kinds: Vec<_> = table::all().watches().into_keys().collect();
    watch(&mut engine, kinds.iter().map(|kind| WatchEvent::Init(*kind)));
    watch(&mut engine, objects.into_iter().map(WatchEvent::InitApply));
    watch(&mut engine, kinds.iter().map(|kind| WatchEvent::InitDone(*kind)));
    let source =
        CredentialsView { data: Default::default(), hash: "0".into(), version: "u/1".into(), data_since: "u/1".into() };
    let secret = Input::Secret(ObjectKey::new("vpn", "credentials"), Some(source));
    engine.handle([secret], Now { wall: now(), monotonic: Duration::ZERO });
    engine
}

pub fn demanded(snapshot: &Snapshot, provider: &str) -> u64 {
    snapshot.providers[&ObjectKey::new("vpn", provider)].demanded
}

pub fn server_secret(suffix: &str, role: &str, data: &Data) -> Object {
    let mut metadata = metadata("vpn", &format!("home-{suffix}"));
    metadata["labels"] = json!({SERVER_LABEL: "home", SERVER_SECRET_LABEL: role});
    let secret = serde_json::from_value(json!({"metadata": metadata, "data": data})).unwrap();
    Object::ServerSecret(Box::new(ServerSecretView::of(&secret).unwrap()))
}

/// Returns a server with its certificates.
pub fn server() -> [Object; 3] {
    let server: OpenVPNServer =
        serde_json::from_value(json!({"metadata": metadata("vpn", "home"), "spec": {"replicas": 2}})).unwrap();
    let made = |content: Content| content.data(None, OffsetDateTime::now_utc()).unwrap();
    let authority =
        made(Content::Authority { common_name: "home-ca".to_owned(), generation: 1, own: None, predecessor: None });
    let text = |key: &str| Arc::from(String::from_utf8(authority[key].0.clone()).unwrap());
    let certificate: std::sync::Arc<str> = text("tls.crt");
    let issuer =
        Issuer { trusted: certificate.clone(), certificate, key: text("tls.key"), tls_crypt: text("tls-crypt.key") };
    let own = made(Content::Server(Certificate {
        authority: issuer,
        common_name: "home".to_owned(),
        serial: Serial::derive(&["home"]),
        not_after: (OffsetDateTime::now_utc() + time::Duration::days(365)).unix_timestamp(),
    }));
    [
        Object::Server(Box::new(server.project().unwrap())),
        server_secret("ca", "authority", &authority),
        server_secret("server", "server", &own),
    ]
}

/// Returns the metrics and the engine of a process with all controllers that has sent requests.
pub fn sample() -> (Metrics, Engine) {
    let objects = [provider("paris", 3, &["eu"], "Active"), waiting("apps", "two", Some(&["eu"]))];
    let metrics = Metrics::new("vpno", &table::all()).unwrap();
    for server in [WEBHOOK, METRICS_API] {
        metrics.certificate_ends(server, now().timestamp());
    }
    metrics.set_pass_through_up("custom.metrics.k8s.io", true);
    let key = ObjectKey::new("apps", "one");
    let requests =
        [ReconcileRequest::Mask, ReconcileRequest::Consumer, ReconcileRequest::Reservation, ReconcileRequest::Provider]
            .map(|request| request(key.clone()));
    for request in requests {
        for operation in
            [Operation::Get(Kind::Consumer, key.clone()), Operation::PatchStatus(Kind::Mask, key.clone(), json!({}))]
        {
            metrics.requested(&request, &operation);
            metrics.answered(&request, &operation, Duration::from_millis(3));
        }
    }
    let objects = objects.into_iter().chain(active("apps", "one", "paris", 0)).chain(server());
    let objects = objects.chain([gated("apps", "three")]);
    (metrics, engine(objects))
}

/// A metric in the text format.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Shown {
    pub name: String,
    pub kind: String,
    pub labels: BTreeSet<String>,
    pub help: String,
}

pub fn parse(text: &str) -> Vec<Shown> {
    let mut all: Vec<Shown> = Vec::new();
    for line in text.lines() {
        if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) {
            let (name, help) = (name.to_owned(), help.to_owned());
            all.push(Shown { name, help, kind: String::new(), labels: BTreeSet::new() });
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            all.last_mut().unwrap().kind = rest.split_once(' ').unwrap().1.to_owned();
        } else if let Some((_, labels)) = line.rsplit_once('}').and_then(|(labels, _)| labels.split_once('{')) {
            let names = labels.split(',').map(|label| label.split_once('=').unwrap().0.to_owned());
            all.last_mut().unwrap().labels.extend(names.filter(|name| name != "le"));
        }
    }
    all
}

pub fn shown() -> Vec<Shown> {
    let (metrics, engine) = sample();
    parse(&metrics.encode(Some(&Snapshot::of(&engine)), now()).unwrap())
}
