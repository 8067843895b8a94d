//! What an error of the API server says: whether the request was carried out, and if not, why.

use kube::{
    Error,
    core::{Status, response::StatusCause},
};
use vpn_types::Reason;

use crate::{model::Operation, state::Outcome};

/// What an error says about whether the request was carried out.
pub fn classify(op: &Operation, error: &Error) -> Outcome {
    let Error::Api(status) = error else {
        return Outcome::Unknown { message: error.to_string() };
    };
    let message = status.message.clone();
    let refused = |reason| Outcome::Refused { reason, message: message.clone() };
    match status.code {
        404 => Outcome::NotFound,
        409 if status.is_already_exists() => Outcome::AlreadyExists,
        409 => Outcome::Conflict,
        // A webhook that did not answer, and whose failurePolicy is Fail: admission comes before anything is written.
        500 if message.contains("failed calling webhook") => refused(Reason::AdmissionDenied),
        408 | 500.. => Outcome::Unknown { message },
        _ if message.contains("admission webhook") || message.contains("ValidatingAdmissionPolicy") => {
            refused(Reason::AdmissionDenied)
        }
        // A failed `test` of a JSON patch is not told apart from a bad patch; an object that would be invalid is, by
        // its causes.
        422 if matches!(op, Operation::JsonPatch(..)) && causes(status).next().is_none() => Outcome::Conflict,
        401 => refused(Reason::Forbidden),
        403 if is_terminating(status) => refused(Reason::NamespaceTerminating),
        403 => refused(forbidden(&message)),
        _ => refused(Reason::RequestFailed),
    }
}

/// What stands behind a 403. Authorization says who cannot do what; all else is the word of an admission plugin.
fn forbidden(message: &str) -> Reason {
    let says = |words: &[&str]| words.iter().any(|words| message.contains(words));
    // The wording of the ResourceQuota, LimitRanger and PodSecurity plugins.
    if says(&["exceeded quota", "failed quota", "insufficient quota", "status unknown for quota"]) {
        Reason::QuotaExceeded
    } else if says(&[" usage per ", "limit to request ratio per "]) {
        Reason::LimitRangeExceeded
    } else if says(&["violates PodSecurity"]) {
        Reason::PodSecurityForbidden
    } else if says(&["cannot set blockOwnerDeletion"]) || (says(&["User \""]) && says(&[" cannot "])) {
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
    fn a_403_is_a_missing_permission_only_when_authorization_says_so() {
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
