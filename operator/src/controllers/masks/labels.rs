//! Labels that a MaskConsumer inherits from its Mask: all except those by which delivery tools track their objects.
//!
//! A tool that finds its label on an object that is not in its source prunes that object.

/// Exact names: labels of Helm and other deployment tools (well-known labels of Kubernetes), of Argo CD before version
/// 3, and of `kubectl apply --prune --applyset` (KEP-3659).
const NAMES: [&str; 3] =
    ["app.kubernetes.io/instance", "app.kubernetes.io/managed-by", "applyset.kubernetes.io/part-of"];

/// Domains of label prefixes, including subdomains: Argo CD, Helm, Flux, Fleet, kapp, Config Sync, Skaffold.
const DOMAINS: [&str; 9] = [
    "argocd.argoproj.io",
    "helm.sh",
    "toolkit.fluxcd.io",
    "fleet.cattle.io",
    "objectset.rio.cattle.io",
    "kapp.k14s.io",
    "configmanagement.gke.io",
    "configsync.gke.io",
    "skaffold.dev",
];

/// Whether a delivery tool tracks its objects by this label.
pub fn is_of_delivery_tool(label: &str) -> bool {
    let is_within = |domain: &str| {
        let prefix = label.split('/').next().unwrap_or_default();
        prefix.strip_suffix(domain).is_some_and(|sub| sub.is_empty() || sub.ends_with('.'))
    };
    NAMES.contains(&label) || (label.contains('/') && DOMAINS.into_iter().any(is_within))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_of_delivery_tools_are_recognized() {
        for label in [
            "argocd.argoproj.io/instance",
            "app.kubernetes.io/instance",
            "app.kubernetes.io/managed-by",
            "helm.sh/chart",
            "kustomize.toolkit.fluxcd.io/name",
            "helm.toolkit.fluxcd.io/namespace",
            "applyset.kubernetes.io/part-of",
        ] {
            assert!(is_of_delivery_tool(label), "{label}");
        }
        for label in
            ["team", "app.kubernetes.io/name", "app.kubernetes.io/part-of", "helm.sh", "nothelm.sh/x", "x/helm.sh"]
        {
            assert!(!is_of_delivery_tool(label), "{label}");
        }
    }
}
