//! Waits until a Mask has a slot, and prints what a Pod needs to use it.
//!
//! `cargo run -p vpn-types --example wait_for_a_slot -- default my-mask`

use std::error::Error;
use std::time::Duration;

use kube::Client;
use vpn_types::{owner_reference_for, wait_active};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let (Some(namespace), Some(mask)) = (args.next(), args.next()) else {
        return Err("usage: wait_for_a_slot NAMESPACE MASK".into());
    };
    let client = Client::try_default().await?;
    let wait = wait_active(client, &namespace, &mask);
    let consumer = tokio::time::timeout(Duration::from_secs(60), wait).await??;

    let assigned = consumer.status.as_ref().and_then(|status| status.provider.as_ref());
    if let Some(assigned) = assigned {
        println!("slot {} of {}, credentials in Secret {}", assigned.slot, assigned.name, assigned.secret);
    }
    println!("ownerReferences: [{}]", serde_json::to_string(&owner_reference_for(&consumer))?);
    Ok(())
}
