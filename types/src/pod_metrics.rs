//! The annotations of a Pod whose own metrics the operator serves, so that an autoscaler can use them.
//!
//! | annotation | meaning |
//! |---|---|
//! | `vpn.beebs.dev/metrics-port` | port that serves metrics in the text format of Prometheus, over HTTP |
//! | `vpn.beebs.dev/metrics-path` | path of the metrics, `/metrics` by default |
//! | `vpn.beebs.dev/metrics-names` | names of the metrics to serve, separated by commas, at most 16 |
//!
//! The namespace of the Pod has to have the label `vpn.beebs.dev/pod-metrics: enabled`.

/// Label of a namespace whose Pods may offer metrics.
pub const POD_METRICS_LABEL: &str = "vpn.beebs.dev/pod-metrics";
/// The value of [`POD_METRICS_LABEL`].
pub const POD_METRICS_ENABLED: &str = "enabled";

/// Port that serves metrics.
pub const METRICS_PORT_ANNOTATION: &str = "vpn.beebs.dev/metrics-port";
/// Path of the metrics.
pub const METRICS_PATH_ANNOTATION: &str = "vpn.beebs.dev/metrics-path";
/// Names of metrics, separated by commas.
pub const METRICS_NAMES_ANNOTATION: &str = "vpn.beebs.dev/metrics-names";

/// The annotations that users set.
pub const ANNOTATIONS: [&str; 3] = [METRICS_PORT_ANNOTATION, METRICS_PATH_ANNOTATION, METRICS_NAMES_ANNOTATION];
