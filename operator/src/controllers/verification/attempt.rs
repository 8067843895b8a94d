//! One attempt to verify a provider, and the names of the objects that belong to it.

use std::collections::HashMap;

use vpn_types::verify_name;

use super::evaluate::{Log, VerificationResult};
use crate::{
    model::{ObjectKey, Uid},
    state::{MaskView, ProviderView, VerifyInputs},
};

/// What has to be remembered of a verification under way. All of it can be lost: it is found out again.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// UID of its Mask.
    pub mask: Uid,
    /// What it tries out.
    pub inputs: Option<VerifyInputs>,
    /// The Pod was seen: if it is gone, somebody ended it.
    pub pod: Option<Uid>,
    /// The result, until it is stored.
    pub result: Option<VerificationResult>,
}

/// Verifications under way, by UID of the provider.
pub type Attempts = HashMap<Uid, Attempt>;

/// Gluetun's logs, by UID of the Pod, each with the run of the container that it is of.
pub type Logs = HashMap<Uid, (i32, Log)>;

/// Name of the Mask, the MaskConsumer and the Pod.
pub fn key_of(provider: &ObjectKey) -> ObjectKey {
    ObjectKey { namespace: provider.namespace.clone(), name: verify_name(&provider.name).into() }
}

/// The provider that a Mask, MaskConsumer or Pod of that name would verify.
pub fn provider_of(key: &ObjectKey) -> Option<ObjectKey> {
    let name = key.name.strip_suffix("-verify")?;
    Some(ObjectKey { namespace: key.namespace.clone(), name: name.into() })
}

/// Whether a Mask was made to verify that provider.
pub fn is_ours(mask: &MaskView, provider: &ProviderView) -> bool {
    mask.verifies.as_ref().is_some_and(|verifies| verifies.provider == provider.meta.uid)
}

impl Attempt {
    /// The attempt that a Mask stands for.
    pub fn of(mask: &MaskView) -> Self {
        let inputs = mask.verifies.as_ref().and_then(|verifies| verifies.inputs.clone());
        Self { mask: mask.meta.uid.clone(), inputs, pod: None, result: None }
    }
}
