//! One attempt to verify a provider, and the names of its objects.

use std::collections::HashMap;

use vpn_types::verify_name;

use super::evaluate::{Log, VerificationResult};
use crate::{
    model::{ObjectKey, Uid},
    state::{MaskView, ProviderView, VerifyInputs},
};

/// State of a verification in progress. All of it can be lost: after a restart, it is determined again.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// UID of its Mask.
    pub mask: Uid,
    /// The Secret version and the overrides that it verifies.
    pub inputs: Option<VerifyInputs>,
    /// UID of the Pod once it was seen: if it is gone, it was deleted.
    pub pod: Option<Uid>,
    /// The result, until it is stored.
    pub result: Option<VerificationResult>,
}

/// Verifications in progress, by UID of the provider.
pub type Attempts = HashMap<Uid, Attempt>;

/// Logs of gluetun by UID of the Pod, each with the restart count of its container.
pub type Logs = HashMap<Uid, (i32, Log)>;

/// Returns the name of the Mask, the MaskConsumer and the Pod of a verification.
pub fn key_of(provider: &ObjectKey) -> ObjectKey {
    ObjectKey { namespace: provider.namespace.clone(), name: verify_name(&provider.name).into() }
}

/// Returns the provider that a Mask, MaskConsumer or Pod of that name would verify.
pub fn provider_of(key: &ObjectKey) -> Option<ObjectKey> {
    let name = key.name.strip_suffix("-verify")?;
    Some(ObjectKey { namespace: key.namespace.clone(), name: name.into() })
}

/// Whether a Mask was created to verify that provider.
pub fn is_ours(mask: &MaskView, provider: &ProviderView) -> bool {
    mask.verifies.as_ref().is_some_and(|verifies| verifies.provider == provider.meta.uid)
}

impl Attempt {
    /// Returns the attempt of a verification Mask.
    pub fn of(mask: &MaskView) -> Self {
        let inputs = mask.verifies.as_ref().and_then(|verifies| verifies.inputs.clone());
        Self { mask: mask.meta.uid.clone(), inputs, pod: None, result: None }
    }
}
