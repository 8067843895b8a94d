//! Runs a Pod with a VPN connection, like a controller does with a Mask.
//!
//! `cargo run -p vpn-types --example run_with_vpn`, with the objects of `e2e/demo/providers.yaml` and the namespace
//! `apps` in the cluster of your kubeconfig.

use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client, api::PostParams};
use serde_json::json;
use vpn_types::{Mask, MaskSpec, owner_reference_for, wait_active};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let client = Client::try_default().await?;

    // 1. Request a slot.
    let masks: Api<Mask> = Api::namespaced(client.clone(), "apps");
    let mask = Mask::new("my-job", MaskSpec { providers: Some(vec!["uk".into()]), ..MaskSpec::default() });
    masks.create(&PostParams::default(), &mask).await?;

    // 2. Wait in the queue. The wait has no time limit; wrap it in a timeout if you need one.
    let consumer = wait_active(client.clone(), "apps", "my-job").await?;
    let slot = consumer.status.as_ref().and_then(|status| status.provider.as_ref()).ok_or("no slot")?;

    // 3. Use the credentials, and set the owner reference.
    let pod: Pod = serde_json::from_value(json!({
        "metadata": { "name": "my-job", "ownerReferences": [owner_reference_for(&consumer)] },
        "spec": {
            "restartPolicy": "Never",
            "containers": [{
                "name": "vpn",
                "image": "qmcgaw/gluetun:v3.41.3",
                "envFrom": [{ "secretRef": { "name": slot.secret } }],
                "securityContext": { "capabilities": { "add": ["NET_ADMIN"] } },
            }],
        },
    }))?;
    Api::<Pod>::namespaced(client, "apps").create(&PostParams::default(), &pod).await?;

    // 4. Delete the Mask when the work is done. The Pod ends first, then the next Mask gets the slot.
    Ok(())
}
