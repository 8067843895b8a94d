//! A controller that uses the operator. For each `VpnJob` it requests a slot, waits in the queue, runs one Pod, and
//! releases the slot when the Pod has ended.
//!
//! ```sh
//! cargo run -p vpn-types --example job_runner -- crd | kubectl apply -f -
//! cargo run -p vpn-types --example job_runner
//! ```
//!
//! The owners matter: the job owns the Mask, and the MaskConsumer owns the Pod. If the job is deleted or the slot is
//! taken back, the Pod is deleted too, and the slot is free only after that.

#![allow(clippy::duplicated_attributes, reason = "it takes the columns of one `kube(…)` for duplicates")]

use std::{sync::Arc, time::Duration};

use futures::StreamExt;
use k8s_openapi::api::core::v1::{Container, EnvFromSource, Pod, PodTemplateSpec, SecretEnvSource};
use kube::{
    Api, Client, CustomResource, CustomResourceExt, Resource, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions},
    runtime::{
        controller::{Action, Controller},
        reflector::ObjectRef,
        watcher,
    },
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use vpn_types::{Mask, MaskConsumer, MaskConsumerPhase, MaskSpec, READY, owner_reference_for};

/// Label on the Pods: name of the job.
const JOB_LABEL: &str = "example.com/vpn-job";
/// The container that gets the credentials.
const VPN: &str = "vpn";

/// Runs a Pod once, with a VPN connection.
#[derive(CustomResource, JsonSchema, Serialize, Deserialize, Clone, Debug)]
#[kube(group = "example.com", version = "v1", kind = "VpnJob", namespaced, status = "VpnJobStatus")]
#[kube(printcolumn(name = "PHASE", type_ = "string", json_path = ".status.phase"))]
#[kube(printcolumn(name = "MESSAGE", type_ = "string", json_path = ".status.message"))]
struct VpnJobSpec {
    /// Tags of acceptable providers. If absent, any provider matches.
    providers: Option<Vec<String>>,
    /// The Pod. Its container (or init container) `vpn` gets the credentials as environment variables.
    #[schemars(schema_with = "any_object")]
    template: PodTemplateSpec,
}

#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
struct VpnJobStatus {
    phase: Option<Phase>,
    message: Option<String>,
}

#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// There is no slot yet. The message says why.
    Waiting,
    Running,
    Succeeded,
    Failed,
}

fn any_object(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true })
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    if std::env::args().nth(1).as_deref() == Some("crd") {
        print!("{}", serde_yaml::to_string(&VpnJob::crd())?);
        return Ok(());
    }
    let client = Client::try_default().await?;
    let any = watcher::Config::default;
    let same_name = |object: MaskConsumer| to_job(object.namespace(), object.name_any());
    Controller::new(Api::<VpnJob>::all(client.clone()), any())
        .owns(Api::<Mask>::all(client.clone()), any())
        // The MaskConsumer owns the Pods, so a label says which job they belong to.
        .watches(Api::<MaskConsumer>::all(client.clone()), any(), same_name)
        .watches(Api::<Pod>::all(client.clone()), any().labels(JOB_LABEL), |pod: Pod| {
            to_job(pod.namespace(), pod.labels().get(JOB_LABEL).cloned().unwrap_or_default())
        })
        .run(reconcile, |_, _, _| Action::requeue(Duration::from_secs(5)), Arc::new(client))
        .for_each(|result| async move {
            if let Err(error) = result {
                eprintln!("{error}");
            }
        })
        .await;
    Ok(())
}

fn to_job(namespace: Option<String>, name: String) -> Option<ObjectRef<VpnJob>> {
    Some(ObjectRef::new(&name).within(&namespace?))
}

/// Reconciles a job. A watch on what the job waits for requeues it.
async fn reconcile(job: Arc<VpnJob>, client: Arc<Client>) -> Result<Action, kube::Error> {
    let namespace = job.namespace().unwrap_or_default();
    let api = Api::<VpnJob>::namespaced((*client).clone(), &namespace);
    let run = Run { masks: of(&client, &namespace), consumers: of(&client, &namespace), pods: of(&client, &namespace) };
    if job.metadata.deletion_timestamp.is_some() {
        // Kubernetes deletes its Mask.
        return Ok(Action::await_change());
    }
    let status = run.next(&job).await?;
    if job.status.as_ref() != Some(&status) {
        let patch = Patch::Merge(json!({ "status": status }));
        api.patch_status(&job.name_any(), &PatchParams::default(), &patch).await?;
    }
    // Only after the status has the result, because this deletes the Pod.
    if matches!(status.phase, Some(Phase::Succeeded | Phase::Failed)) {
        run.give_back(&job).await?;
    }
    Ok(Action::await_change())
}

fn of<K>(client: &Client, namespace: &str) -> Api<K>
where
    K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
{
    Api::namespaced(client.clone(), namespace)
}

struct Run {
    masks: Api<Mask>,
    consumers: Api<MaskConsumer>,
    pods: Api<Pod>,
}

impl Run {
    /// Takes the next step, and returns the status of the job.
    async fn next(&self, job: &VpnJob) -> Result<VpnJobStatus, kube::Error> {
        let name = job.name_any();
        if let Some(done) = job.status.clone().filter(|s| matches!(s.phase, Some(Phase::Succeeded | Phase::Failed))) {
            return Ok(done);
        }
        // 1. Request a slot.
        let Some(mask) = self.masks.get_opt(&name).await? else {
            let mut mask = Mask::new(&name, MaskSpec { providers: job.spec.providers.clone(), ..MaskSpec::default() });
            mask.metadata.owner_references = job.controller_owner_ref(&()).map(|owner| vec![owner]);
            self.masks.create(&PostParams::default(), &mask).await?;
            return Ok(is(Phase::Waiting, "requested a slot"));
        };
        if !is_owned(&mask, job.uid()) {
            return Ok(is(Phase::Waiting, "a Mask with this name belongs to something else"));
        }
        // 2. Wait in the queue. The Mask says what it waits for, and its place.
        let consumer = self.consumers.get_opt(&name).await?.filter(|consumer| has_slot(consumer, &mask));
        let Some(consumer) = consumer else {
            return Ok(is(Phase::Waiting, &why_it_waits(&mask)));
        };
        // 3. Use the slot. A Pod of an earlier MaskConsumer is being deleted.
        let Some(pod) = self.pods.get_opt(&name).await? else {
            return match pod_of(job, &consumer) {
                Ok(pod) => {
                    self.pods.create(&PostParams::default(), &pod).await?;
                    Ok(is(Phase::Running, "created the Pod"))
                }
                Err(why) => Ok(is(Phase::Failed, why)),
            };
        };
        if !is_owned(&pod, consumer.uid()) {
            return Ok(is(Phase::Waiting, "the Pod of an earlier run still exists"));
        }
        let phase = pod.status.and_then(|status| status.phase).unwrap_or_default();
        Ok(match phase.as_str() {
            "Succeeded" => is(Phase::Succeeded, "the Pod has succeeded"),
            "Failed" => is(Phase::Failed, "the Pod has failed"),
            _ => is(Phase::Running, "the Pod exists"),
        })
    }

    /// 4. Release the slot. The Pod ends first, then the next Mask gets the slot.
    async fn give_back(&self, job: &VpnJob) -> Result<(), kube::Error> {
        let Some(mask) = self.masks.get_opt(&job.name_any()).await?.filter(|mask| is_owned(mask, job.uid())) else {
            return Ok(());
        };
        let this_one = Preconditions { uid: mask.uid(), resource_version: None };
        let params = DeleteParams { preconditions: Some(this_one), ..DeleteParams::default() };
        match self.masks.delete(&job.name_any(), &params).await {
            Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => Ok(()),
            result => result.map(drop),
        }
    }
}

fn is(phase: Phase, message: &str) -> VpnJobStatus {
    VpnJobStatus { phase: Some(phase), message: Some(message.to_owned()) }
}

fn is_owned<K: Resource>(object: &K, owner: Option<String>) -> bool {
    object.meta().owner_references.iter().flatten().any(|reference| Some(&reference.uid) == owner.as_ref())
}

/// Whether the MaskConsumer of this Mask has a slot and is not being deleted.
fn has_slot(consumer: &MaskConsumer, mask: &Mask) -> bool {
    let phase = consumer.status.as_ref().and_then(|status| status.phase);
    phase == Some(MaskConsumerPhase::Active)
        && consumer.metadata.deletion_timestamp.is_none()
        && is_owned(consumer, mask.uid())
}

fn why_it_waits(mask: &Mask) -> String {
    let conditions = mask.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let ready = conditions.into_iter().find(|condition| condition.type_ == READY);
    ready.map_or_else(|| "waiting for the operator".to_owned(), |ready| ready.message.clone())
}

/// The Pod of a job, for the slot of this MaskConsumer.
fn pod_of(job: &VpnJob, consumer: &MaskConsumer) -> Result<Pod, &'static str> {
    let status = consumer.status.as_ref();
    let slot = status.and_then(|status| status.provider.as_ref()).ok_or("the MaskConsumer names no provider")?;
    let PodTemplateSpec { metadata, spec } = job.spec.template.clone();
    let (mut metadata, mut spec) = (metadata.unwrap_or_default(), spec.ok_or("the template has no spec")?);
    metadata.name = Some(job.name_any());
    metadata.owner_references = Some(vec![owner_reference_for(consumer)]);
    metadata.labels.get_or_insert_default().insert(JOB_LABEL.to_owned(), job.name_any());
    let is_vpn = |container: &&mut Container| container.name == VPN;
    let mut containers = spec.init_containers.iter_mut().flatten().chain(&mut spec.containers);
    let vpn = containers.find(is_vpn).ok_or("the template has no container `vpn`")?;
    let secret = SecretEnvSource { name: slot.secret.clone(), optional: None };
    let credentials = EnvFromSource { secret_ref: Some(secret), ..EnvFromSource::default() };
    vpn.env_from.get_or_insert_default().push(credentials);
    spec.restart_policy = Some("Never".to_owned());
    // A Service named `openvpn` would give gluetun an OPENVPN_PORT.
    spec.enable_service_links = Some(false);
    Ok(Pod { metadata, spec: Some(spec), status: None })
}
