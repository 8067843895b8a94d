//! What both servers are asked, and how their answers differ.

use Way::{ApiServer, Direct};

/// Who is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// kube-apiserver, which passes the question on.
    ApiServer,
    /// The server itself. kube-apiserver answers these paths on its own.
    Direct,
}

/// A field that differs, and why ours is right.
pub type Explained = (&'static str, &'static str);

/// A question.
pub struct Query {
    /// Who is asked.
    pub way: Way,
    /// The path.
    pub path: String,
    /// The header `Accept`.
    pub accept: Option<&'static str>,
    /// The fields that differ.
    pub differences: &'static [Explained],
}

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";

const ONE_VERSION: &str =
    "The library lists only its first version. kube-apiserver lists the APIServices, which prefer v1beta2.";
const ADDRESS: &str = "It is optional, and would name an address of a Pod. Clients go through kube-apiserver.";
const EMPTY: &str = "The library does not fill aggregated discovery. kube-apiserver reads ours.";
const MORE: &str = "Ours names the same metric and object, and goes on with what would be right.";
const PARSER: &str = "Each parser describes the mistake in its own words.";
const CLIENT: &str = "A selector that cannot be parsed is a mistake of the client, as in labelSelector: 400, not 500.";
const CORE: &str =
    "The apiVersion of the core group is v1. The library writes a slash after the empty name of the group.";

const GROUPS: &[Explained] = &[
    ("/body/apiVersion", "kube-apiserver has it as well."),
    ("/body/groups/0/preferredVersion/groupVersion", ONE_VERSION),
    ("/body/groups/0/preferredVersion/version", ONE_VERSION),
    ("/body/groups/0/serverAddressByClientCIDRs", ADDRESS),
    ("/body/groups/0/versions/0/groupVersion", ONE_VERSION),
    ("/body/groups/0/versions/0/version", ONE_VERSION),
    ("/body/groups/0/versions/1", ONE_VERSION),
    ("/body/groups/1/serverAddressByClientCIDRs", ADDRESS),
];
const GROUP: &[Explained] = &[
    ("/body/preferredVersion/groupVersion", ONE_VERSION),
    ("/body/preferredVersion/version", ONE_VERSION),
    ("/body/versions/0/groupVersion", ONE_VERSION),
    ("/body/versions/0/version", ONE_VERSION),
    ("/body/versions/1", ONE_VERSION),
];
const DISCOVERY: &[Explained] = &[("/body/items/0", EMPTY), ("/body/items/1", EMPTY)];
const NAMESPACE: &[Explained] = &[("/body/items/0/describedObject/apiVersion", CORE)];
const MESSAGE: &[Explained] = &[("/body/message", MORE)];
const SYNTAX: &[Explained] = &[("/body/message", PARSER)];
const METRIC_SYNTAX: &[Explained] =
    &[("/body/code", CLIENT), ("/body/message", PARSER), ("/body/reason", CLIENT), ("/code", CLIENT)];

/// Questions about groups.
const OF_GROUPS: &[(&str, Option<&str>, &[Explained])] = &[
    ("/apis", None, GROUPS),
    ("/apis", Some(AGGREGATED), DISCOVERY),
    ("/apis/custom.metrics.k8s.io", None, GROUP),
    ("/apis/external.metrics.k8s.io", None, &[]),
    ("/apis/custom.metrics.k8s.io/v1", None, &[]),
];

/// Questions about custom metrics of objects in a namespace.
const CUSTOM: &[(&str, &[Explained])] = &[
    ("maskproviders.vpn.beebs.dev/vpn/vpno_provider_slots", &[]),
    ("maskproviders.vpn.beebs.dev/vpn/vpno_provider_slots?metricLabelSelector=provider%3Dvpn", &[]),
    ("maskproviders.vpn.beebs.dev/vpn/vpno_provider_slots?metricLabelSelector=provider+in+(vpn,x),!none", &[]),
    ("maskproviders.vpn.beebs.dev/*/vpno_provider_slots", &[]),
    ("maskproviders.vpn.beebs.dev/*/vpno_provider_slots?labelSelector=tier%3Db", &[]),
    ("maskproviders.vpn.beebs.dev/*/vpno_provider_slots?labelSelector=tier+notin+(b)", &[]),
    ("maskproviders.vpn.beebs.dev/*/vpno_provider_slots?labelSelector=tier%3Dnone", &[]),
    ("maskproviders.vpn.beebs.dev/*/vpno_provider_slots?metricLabelSelector=provider%3Dvpn", &[]),
    ("metrics/vpno_masks_waiting", NAMESPACE),
    ("metrics/vpno_masks?metricLabelSelector=phase%3DActive", NAMESPACE),
    ("deployments.apps/worker/vpno_claimable_slots?metricLabelSelector=reserve%3D1", &[]),
    // Failures.
    ("maskproviders.vpn.beebs.dev/vpn/unknown", MESSAGE),
    ("maskproviders.vpn.beebs.dev/*/unknown", MESSAGE),
    ("maskproviders.vpn.beebs.dev/gone/vpno_provider_slots", MESSAGE),
    ("maskproviders.vpn.beebs.dev/vpn/vpno_provider_slots?metricLabelSelector=provider%3Dx", MESSAGE),
    ("maskproviders.vpn.beebs.dev/*/vpno_provider_slots?labelSelector=a%20b", SYNTAX),
    ("maskproviders.vpn.beebs.dev/*/vpno_provider_slots?metricLabelSelector=a%20b", METRIC_SYNTAX),
    ("maskproviders.vpn.beebs.dev/vpn", &[]),
];

/// Questions about external metrics.
const EXTERNAL: &[(&str, &[Explained])] = &[
    ("vpno_provider_slots_free", &[]),
    ("vpno_provider_slots_free?labelSelector=provider%3Dvpn", &[]),
    ("vpno_provider_slots_free?labelSelector=provider%3Dnone", &[]),
    ("vpno_masks_waiting", &[]),
    ("vpno_masks", &[]),
    // Failures.
    ("unknown", MESSAGE),
    ("vpno_masks?labelSelector=a%20b", SYNTAX),
    ("vpno_masks/more", &[]),
];

/// Returns all questions about a namespace.
pub fn queries(namespace: &str) -> Vec<Query> {
    let query = |way, path, accept, differences| Query { way, path, accept, differences };
    let mut all = Vec::new();
    for &(path, accept, differences) in OF_GROUPS {
        all.push(query(Direct, path.to_owned(), accept, differences));
    }
    for (group, questions) in [
        ("/apis/custom.metrics.k8s.io/v1beta1", CUSTOM),
        ("/apis/custom.metrics.k8s.io/v1beta2", CUSTOM),
        ("/apis/external.metrics.k8s.io/v1beta1", EXTERNAL),
    ] {
        all.push(query(ApiServer, group.to_owned(), None, &[]));
        for &(path, differences) in questions {
            all.push(query(ApiServer, format!("{group}/namespaces/{namespace}/{path}"), None, differences));
        }
    }
    all
}
