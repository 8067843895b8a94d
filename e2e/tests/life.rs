//! The life of an installation: the upgrade from version 1.0.1, revoked permissions, and removal.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::{
    Cluster, Framework, History, Layout, Operator, ProcessSpec,
    operator::{executable, install},
    pods::usage::owned_pod,
    testing::framework::{ensure_eq, local_cluster},
    wait::{Kind, TIMEOUT, is_ready},
};
use k8s_openapi::api::{
    core::v1::{Pod, Secret},
    rbac::v1::ClusterRole,
};
use kube::{
    Api, ResourceExt,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use tokio::{
    sync::Mutex,
    time::{Instant, sleep, timeout},
};
use vpn_types::{
    FINALIZER, GROUP, Mask, MaskConsumer, MaskProvider, MaskReservation, OWNER_LABEL, RESERVATION_ANNOTATION,
    secret_name,
};

const CRDS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../crds");

/// One test at a time, because an operator works in all namespaces.
static ALONE: Mutex<()> = Mutex::const_new(());

/// Creates an object with its status as an earlier version left it.
async fn stored<K: Kind>(f: &Framework, object: Value, status: Value) -> Result<K> {
    let created: K = f.create(serde_json::from_value(object)?).await?;
    let status = Patch::Merge(json!({ "status": status }));
    Ok(f.api::<K>().patch_status(&created.name_any(), &PatchParams::default(), &status).await?)
}

fn owner<K: Kind>(object: &K) -> Value {
    json!([{
        "apiVersion": K::api_version(&()), "kind": K::kind(&()), "name": object.name_any(), "uid": object.uid(),
        "controller": true, "blockOwnerDeletion": true,
    }])
}

/// Creates what version 1.0.1 stores for one assigned Mask: the MaskConsumer, the MaskReservation, the Secret and a
/// running Pod.
async fn stored_by_1_0_1(f: &Framework) -> Result<(MaskConsumer, MaskReservation, Secret, Pod)> {
    let updated = "2023-05-01T12:00:00+00:00";
    let credentials = f.create_credentials("vpn").await?;
    let provider = json!({
        "metadata": { "name": "vpn", "finalizers": [FINALIZER] },
        "spec": f.new_provider("vpn", 1).spec,
    });
    let said = json!({ "phase": "Active", "message": "in use", "lastUpdated": updated, "activeSlots": 1 });
    let provider: MaskProvider = stored(f, provider, said).await?;
    let uid = provider.uid().context("no uid")?;
    let mask = json!({ "metadata": { "name": "mine", "finalizers": [FINALIZER] }, "spec": {} });
    let said = json!({ "phase": "Active", "message": "assigned", "lastUpdated": updated });
    let mask: Mask = stored(f, mask, said).await?;
    let consumer = json!({ "metadata": { "name": "mine", "ownerReferences": owner(&mask) }, "spec": {} });
    let consumer: MaskConsumer = f.create(serde_json::from_value(consumer)?).await?;
    let lock = json!({
        "metadata": { "name": "vpn-0", "ownerReferences": owner(&provider) },
        "spec": { "name": "mine", "namespace": f.name(), "uid": consumer.uid() },
    });
    let lock: MaskReservation = stored(f, lock, json!({ "phase": "Active", "lastUpdated": updated })).await?;
    let secret = json!({
        "metadata": {
            "name": secret_name("mine", &uid),
            "labels": { OWNER_LABEL: uid },
            "ownerReferences": owner(&consumer),
        },
        "data": credentials.data,
    });
    let secret: Secret = f.create(serde_json::from_value(secret)?).await?;
    let assigned = json!({
        "name": "vpn", "namespace": f.name(), "uid": uid, "slot": 0, "reservation": lock.uid(),
        "secret": secret.name_any(),
    });
    let said = json!({ "status": { "phase": "Active", "lastUpdated": updated, "provider": assigned } });
    let consumers = f.api::<MaskConsumer>();
    let consumer = consumers.patch_status("mine", &PatchParams::default(), &Patch::Merge(said)).await?;
    let pod = f.run_pod(owned_pod("user", &consumer, 1)?).await?;
    Ok((consumer, lock, secret, pod))
}

#[tokio::test]
async fn what_version_1_0_1_stored_is_taken_over_as_it_runs() -> Result<()> {
    taken_over(Layout::Combined).await
}

#[tokio::test]
async fn and_by_four_processes_too() -> Result<()> {
    taken_over(Layout::FourProcesses).await
}

async fn taken_over(layout: Layout) -> Result<()> {
    let _alone = ALONE.lock().await;
    let Some(cluster) = local_cluster().await? else { return Ok(()) };
    install(cluster).await?;
    let f = Framework::new(cluster, "upgrade").await?;
    let test = async {
        let (consumer, lock, secret, pod) = stored_by_1_0_1(&f).await?;
        let mut history = History::start(&f.client, Some(f.name())).await?;
        let operator = Operator::start(cluster, layout).await?;
        f.add_logs(&operator);
        let modern = |now: &MaskConsumer| {
            is_ready(now) && now.spec.mask.is_some() && now.finalizers().contains(&FINALIZER.to_owned())
        };
        ensure_eq("MaskConsumer", f.wait_until("mine", "adopted", modern).await?.uid(), consumer.uid())?;
        let modern = |now: &MaskReservation| is_ready(now) && now.finalizers().contains(&FINALIZER.to_owned());
        ensure_eq("lock", f.wait_until("vpn-0", "adopted", modern).await?.uid(), lock.uid())?;
        let modern = |now: &Secret| now.annotations().get(RESERVATION_ANNOTATION) == lock.uid().as_ref();
        ensure_eq("copy", f.wait_until(&secret.name_any(), "adopted", modern).await?.uid(), secret.uid())?;
        let modern = |now: &Mask| is_ready(now) && now.finalizers().is_empty();
        let mask = f.wait_until("mine", "adopted", modern).await?;
        let now = f.api::<Pod>().get("user").await?;
        ensure_eq("Pod", (now.uid(), now.spec, now.metadata.owner_references), {
            (pod.uid(), pod.spec.clone(), pod.metadata.owner_references.clone())
        })?;
        ensure!(now.metadata.deletion_timestamp.is_none(), "the Pod was deleted");

        // The slot is in use, and is released like any other.
        f.create_mask("next").await?;
        f.wait_for_reason::<MaskConsumer>("next", "NoFreeSlot").await?;
        f.kubectl(&["delete", "mask", "mine"]).await?;
        f.wait_active("next").await?;
        f.wait_deleted(&mask).await?;
        f.wait_deleted(&pod).await?;
        f.wait_deleted(&secret).await?;
        ensure_eq("most users at once", history.check_slot_limits().await?.into_values().max(), Some(1))?;
        f.clear(TIMEOUT).await?;
        operator.stop().await
    };
    f.dump_on_error(test).await
}

/// Removes the permission to create a resource from a ClusterRole, and waits until that takes effect.
async fn take_away(cluster: &Cluster, user: &str, role: &str, resource: &str) -> Result<()> {
    let roles: Api<ClusterRole> = Api::all(cluster.client()?);
    let mut changed = roles.get(role).await?;
    for rule in changed.rules.iter_mut().flatten() {
        if rule.resources.iter().flatten().any(|name| name == resource) {
            rule.verbs.retain(|verb| verb != "create");
        }
    }
    roles.replace(role, &PostParams::default(), &changed).await?;
    let resource = if resource == "secrets" { resource.to_owned() } else { format!("{resource}.{GROUP}") };
    let deadline = Instant::now() + TIMEOUT;
    // kubectl fails if the answer is no.
    while cluster.run_kubectl(&["auth", "can-i", "create", &resource, "--as", user]).await.is_ok() {
        ensure!(Instant::now() < deadline, "the permission is still granted");
        sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

#[tokio::test]
async fn rights_that_are_taken_away_are_missed_and_come_back() -> Result<()> {
    let _alone = ALONE.lock().await;
    let Some(cluster) = local_cluster().await? else { return Ok(()) };
    let operator = Operator::start(cluster, Layout::Combined).await?;
    let user = operator.users().pop().context("no user")?;
    for (role, resource) in [
        ("vpn-operator-consumers-secrets", "secrets"),
        ("vpn-operator-consumers", "maskreservations"),
        ("vpn-operator-masks", "maskconsumers"),
    ] {
        Framework::run(cluster, &operator, "forbidden", async |f| {
            f.create_provider("vpn", 1).await?;
            take_away(cluster, &user, role, resource).await?;
            let mask = f.create_mask("mine").await?;
            let told = f.wait_for_reason::<Mask>("mine", "Forbidden").await?;
            let message = serde_json::to_string(&told.status)?;
            ensure!(message.contains(resource), "the permission is not named: {message}");
            f.wait_for_event::<Mask>("mine", "Forbidden", &[resource]).await?;
            f.wait_until_all("no lock is kept", |all: &[MaskReservation]| all.is_empty()).await?;
            install(cluster).await?;
            f.wait_active("mine").await?;
            let served = f.wait_until("mine", "Ready", |mask: &Mask| is_ready(mask)).await?;
            ensure_eq("Mask", served.uid(), mask.uid())?;
            f.clear(TIMEOUT).await
        })
        .await?;
    }
    operator.stop().await
}

async fn delete_crds(cluster: &Cluster) -> Result<()> {
    cluster.run_kubectl(&["delete", "-f", CRDS, "--wait=false"]).await.map(drop)
}

async fn crds_gone(cluster: &Cluster) -> Result<()> {
    let files = ["wait", "--for=delete", "--timeout=60s", "-f", CRDS];
    cluster.run_kubectl(&files).await.map(drop)
}

#[tokio::test]
async fn an_uninstallation_in_order_leaves_nothing() -> Result<()> {
    let _alone = ALONE.lock().await;
    let Some(cluster) = local_cluster().await? else { return Ok(()) };
    let operator = Operator::start(cluster, Layout::FourProcesses).await?;
    Framework::run(cluster, &operator, "uninstall", async |f| {
        f.create_provider("vpn", 1).await?;
        let consumer = f.create_active_mask("mine").await?;
        f.run_pod(owned_pod("user", &consumer, 1)?).await?;
        // As in the README. kubectl waits until the objects are gone.
        let kinds = "masks,maskconsumers,maskproviders";
        cluster.run_kubectl(&["delete", kinds, "--all", "--all-namespaces"]).await?;
        operator.stop().await?;
        delete_crds(cluster).await?;
        crds_gone(cluster).await?;
        f.wait_until_all("no Pod", |pods: &[Pod]| pods.is_empty()).await.map(drop)
    })
    .await
}

#[tokio::test]
async fn the_way_out_when_the_operator_went_first() -> Result<()> {
    let _alone = ALONE.lock().await;
    let Some(cluster) = local_cluster().await? else { return Ok(()) };
    let mut operator = Operator::start(cluster, Layout::Combined).await?;
    let f = Framework::new(cluster, "way-out").await?;
    f.add_logs(&operator);
    let test = async {
        f.create_provider("vpn", 1).await?;
        let consumer = f.create_active_mask("mine").await?;
        let theirs = json!({ "metadata": { "finalizers": ["example.com/theirs", FINALIZER] } });
        f.patch::<MaskConsumer>("mine", theirs).await?;
        f.create_mask("waits").await?;
        f.wait_for_reason::<MaskConsumer>("waits", "NoFreeSlot").await?;
        operator.stop().await?;
        delete_crds(cluster).await?;
        let hangs = |consumer: &MaskConsumer| consumer.metadata.deletion_timestamp.is_some();
        f.wait_until("mine", "its deletion is blocked", hangs).await?;

        let spec = ProcessSpec::new("way-out", executable(cluster).await?, cluster.state_dir().join("way-out.log"))
            .arg("remove-finalizers")
            .env("RUST_BACKTRACE", "0")
            .env("KUBECONFIG", cluster.kubeconfig().display());
        let process = cluster.run(spec).await?;
        let end = timeout(TIMEOUT, process.exited()).await?;
        ensure!(end == "exit code 0", "{end}\n{}", process.log_tail(20));
        // Foreign finalizers stay.
        let held = f.api::<MaskConsumer>().get("mine").await?;
        ensure_eq("finalizers", held.finalizers(), &["example.com/theirs".to_owned()])?;
        f.patch::<MaskConsumer>("mine", json!({ "metadata": { "finalizers": null } })).await?;
        crds_gone(cluster).await?;

        // The operator can be installed again.
        install(cluster).await?;
        operator.restart(cluster).await?;
        f.add_logs(&operator);
        f.create(f.new_provider("vpn", 1)).await?;
        let again = f.create_active_mask("mine").await?;
        ensure!(again.uid() != consumer.uid(), "the same MaskConsumer");
        f.clear(TIMEOUT).await?;
        operator.stop().await
    };
    f.dump_on_error(test).await
}
