//! Events about a MaskProvider.

use vpn_types::Reason;

use crate::{
    model::{EventRecord, Kind, object_reference},
    state::ProviderView,
};

/// Returns an Event about a MaskProvider.
pub fn event(
    provider: &ProviderView,
    warning: bool,
    reason: Reason,
    action: &'static str,
    message: String,
) -> EventRecord {
    let regarding = object_reference(Kind::Provider, &provider.meta.key, &provider.meta.uid);
    EventRecord { regarding, related: None, warning, reason, action, message }
}
