//! Removes the operator's finalizer from every object, after the operator was uninstalled. Nothing protects the slots
//! after that.

use std::fmt::Debug;

use anyhow::Context;
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{ListParams, Patch, PatchParams},
    core::PartialObjectMeta,
};
use serde::de::DeserializeOwned;
use serde_json::json;
use vpn_types::{FINALIZER, Mask, MaskConsumer, MaskProvider, MaskReservation, OpenVPNClient, OpenVPNServer};

/// Removes the operator's finalizer, and no other, from all its custom resources. Returns the number of objects that
/// had it.
///
/// # Errors
/// Returns an error if a list or a patch fails. The finalizers removed so far stay removed, so try again.
pub async fn remove_all(client: &Client) -> anyhow::Result<usize> {
    // Each kind before the kinds that it protects.
    Ok(remove::<Mask>(client).await?
        + remove::<MaskConsumer>(client).await?
        + remove::<MaskReservation>(client).await?
        + remove::<MaskProvider>(client).await?
        + remove::<OpenVPNClient>(client).await?
        + remove::<OpenVPNServer>(client).await?)
}

async fn remove<K>(client: &Client) -> anyhow::Result<usize>
where
    K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
{
    let kind = K::kind(&());
    let all = Api::<PartialObjectMeta<K>>::all(client.clone()).list(&ListParams::default()).await;
    let all = match all {
        // The custom resource definition is already gone. Then the response is not a Status of the API.
        Err(kube::Error::Api(status)) if status.code == 404 => return Ok(0),
        other => other.with_context(|| format!("{kind} objects cannot be listed"))?,
    };
    let (mut removed, mut failed) = (0, 0);
    for object in all {
        let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
        let Some(at) = object.finalizers().iter().position(|finalizer| finalizer == FINALIZER) else { continue };
        let path = format!("/metadata/finalizers/{at}");
        let patch = json!([{"op": "test", "path": path, "value": FINALIZER}, {"op": "remove", "path": path}]);
        let patch = Patch::Json::<()>(serde_json::from_value(patch)?);
        let api = Api::<PartialObjectMeta<K>>::namespaced(client.clone(), &namespace);
        match api.patch(&name, &PatchParams::default(), &patch).await {
            Err(kube::Error::Api(status)) if status.is_not_found() => continue,
            // The others must not wait for it.
            Err(error) => {
                tracing::error!(%error, "the finalizer of {kind} {namespace}/{name} cannot be removed");
                failed += 1;
                continue;
            }
            Ok(_) => {}
        }
        tracing::info!(kind = %kind, object = format!("{namespace}/{name}"), "finalizer removed");
        removed += 1;
    }
    anyhow::ensure!(failed == 0, "{failed} finalizers of {kind} objects cannot be removed; the log says why");
    Ok(removed)
}
