//! The metrics API for HorizontalPodAutoscalers: `custom.metrics.k8s.io` and `external.metrics.k8s.io`, which
//! kube-apiserver passes on to this server ([aggregation]). Pure: a request and a snapshot in, a document out.
//!
//! [aggregation]: https://kubernetes.io/docs/concepts/extend-kubernetes/api-extension/apiserver-aggregation/

pub mod authentication;
pub mod documents;
pub mod names;
pub mod offers;
pub mod pass_through;
pub mod request;
pub mod response;
pub mod selector;
pub mod values;
