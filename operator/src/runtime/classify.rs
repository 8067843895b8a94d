//! Classifies errors of the API server: whether the request took effect, and if not, why.

use kube::{
    Error,
    core::{Status, response::StatusCause},
};
use vpn_types::Reason;

use crate::{model::Operation, state::Outcome};

/// Returns the outcome of a request that failed with this error.
pub fn classify(operation: &Operation, error: &Error) -> Outcome {
    let status = match error {
        Error::Api(status) => status,
        // kube decodes the response to a failed request as a `Status`, so this is the object of a successful one.
        Error::SerdeError(error) => return Outcome::Undecodable { message: error.to_string() },
        error => return Outcome::Unknown { message: error.to_string() },
    };
    let message = status.message.clone();
    let refused = |reason| Outcome::Refused { reason, message: message.clone() };
    match status.code {
        404 => Outcome::NotFound,
        409 if status.is_already_exists() => Outcome::AlreadyExists,
        409 => Outcome::Conflict,
        // The subresource `eviction`: a PodDisruptionBudget does not allow it now.
        429 if matches!(operation, Operation::Evict(..)) => refused(Reason::EvictionRefused),
        // A webhook with `failurePolicy: Fail` did not respond. Admission precedes the write.
        500 if message.contains("failed calling webhook") => refused(Reason::AdmissionDenied),
        408 | 500.. => Outcome::Unknown { message },
        _ if message.contains("admission webhook") || message.contains("ValidatingAdmissionPolicy") => {
            refused(Reason::AdmissionDenied)
        }
        // The API server does not distinguish a failed `test` of a JSON patch from an invalid patch. For an invalid
        // object it lists causes.
        422 if matches!(operation, Operation::JsonPatch(..)) && causes(status).next().is_none() => Outcome::Conflict,
        401 => refused(Reason::Forbidden),
        403 if is_terminating(status) => refused(Reason::NamespaceTerminating),
        403 => refused(forbidden(&message)),
        _ => refused(Reason::RequestFailed),
    }
}

/// Returns the reason of a 403. Messages of authorization name a user and what it cannot do. All other messages are
/// from admission plugins.
fn forbidden(message: &str) -> Reason {
    let contains = |phrases: &[&str]| phrases.iter().any(|phrase| message.contains(phrase));
    // The phrases of the plugins ResourceQuota, LimitRanger and PodSecurity.
    if contains(&["exceeded quota", "failed quota", "insufficient quota", "status unknown for quota"]) {
        Reason::QuotaExceeded
    } else if contains(&[" usage per ", "limit to request ratio per "]) {
        Reason::LimitRangeExceeded
    } else if contains(&["violates PodSecurity"]) {
        Reason::PodSecurityForbidden
    } else if contains(&["cannot set blockOwnerDeletion", "cannot set an ownerRef on a resource you can't delete"])
        || (contains(&["User \""]) && contains(&[" cannot "]))
    {
        // The first two phrases are of the plugin OwnerReferencesPermissionEnforcement.
        Reason::Forbidden
    } else {
        Reason::AdmissionDenied
    }
}

fn causes(status: &Status) -> impl Iterator<Item = &StatusCause> {
    status.details.iter().flat_map(|details| details.causes.iter())
}

fn is_terminating(status: &Status) -> bool {
    causes(status).any(|cause| cause.reason == "NamespaceTerminating") || status.message.contains("is being terminated")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_403_is_a_missing_permission_only_if_authorization_denied_the_request() {
        for (message, reason) in [
            (
                r#"pods is forbidden: User "system:serviceaccount:v:o" cannot create resource "pods" in API group "" in the namespace "a""#,
                Reason::Forbidden,
            ),
            (
                r#"secrets "x" is forbidden: cannot set blockOwnerDeletion if an ownerReference refers to a resource you can't set finalizers on: , <nil>"#,
                Reason::Forbidden,
            ),
            (
                r#"secrets "x" is forbidden: cannot set an ownerRef on a resource you can't delete: , <nil>"#,
                Reason::Forbidden,
            ),
            (
                r#"pods "acc-verify" is forbidden: failed quota: limits: must specify limits.cpu for: init,probe,vpn; limits.memory for: init,probe,vpn"#,
                Reason::QuotaExceeded,
            ),
            (
                r#"pods "acc-verify" is forbidden: exceeded quota: q, requested: pods=1, used: pods=1, limited: pods=1"#,
                Reason::QuotaExceeded,
            ),
            (r#"pods "acc-verify" is forbidden: status unknown for quota: q, resources: pods"#, Reason::QuotaExceeded),
            (
                r#"pods "acc-verify" is forbidden: maximum memory usage per Container is 16Mi, but limit is 128Mi"#,
                Reason::LimitRangeExceeded,
            ),
            (
                r#"pods "acc-verify" is forbidden: cpu max limit to request ratio per Container is 2, but provided ratio is 4.000000"#,
                Reason::LimitRangeExceeded,
            ),
            (
                r#"pods "acc-verify" is forbidden: violates PodSecurity "baseline:latest": non-default capabilities"#,
                Reason::PodSecurityForbidden,
            ),
            (
                r#"pods "acc-verify" is forbidden: error looking up service account a/default: serviceaccount "default" not found"#,
                Reason::AdmissionDenied,
            ),
            (r#"pods "acc-verify" is forbidden: no PriorityClass with name x was found"#, Reason::AdmissionDenied),
        ] {
            assert_eq!(forbidden(message), reason, "{message}");
        }
    }
}
