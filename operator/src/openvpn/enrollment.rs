//! Decisions of the commands that create and revoke clients in the Pod of a server.
//!
//! Invariant: a name has at most one client that is not revoked, and a client whose profile was written keeps its key.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt;
use vpn_types::{
    ENROLLING_ANNOTATION, OpenVPNClient, OpenVPNClientPhase, OpenVPNClientSpec, OpenVPNServer, READY, Reason,
};

use super::{client_config::check_common_name, profile::Remote};

/// The maximum number of clients that one name can have had. Limits the search for a free name.
const NAMES: usize = 10_000;

/// What to do for a name that needs a profile.
#[derive(Clone, Debug, PartialEq)]
pub enum Enrollment<'a> {
    /// Create an OpenVPNClient with this name.
    Create(String),
    /// Replace the certificate signing request of this client: a run was interrupted, and the key is lost.
    Replace(&'a OpenVPNClient),
    /// Write the profile of this client again: its key is in this Pod.
    Keep(&'a OpenVPNClient),
}

/// Returns what to do for a name. `all` are the clients in the namespace, and `has_key` says whether the key of a
/// certificate is in this Pod.
///
/// # Errors
/// A message for users.
pub fn enrollment<'a>(
    all: &'a [OpenVPNClient],
    server: &str,
    name: &str,
    has_key: impl Fn(&str) -> bool,
) -> Result<Enrollment<'a>, String> {
    check_common_name(name)?;
    let Some(client) = of_name(all, server, name).find(|client| !is_doomed(client)) else {
        return free_name(all, name).map(Enrollment::Create);
    };
    let object = client.name_any();
    if client.spec.csr.is_none() {
        let key = format!("OpenVPNClient {object} exists, and its key is in a Secret.");
        return Err(format!("{key} Its profile is there too: kubectl get secret {object}"));
    }
    match certificate(client) {
        Some(certificate) if has_key(certificate) => Ok(Enrollment::Keep(client)),
        _ if is_enrolling(client) => Ok(Enrollment::Replace(client)),
        _ => Err(format!(
            "OpenVPNClient {object} exists, and its key is not in this Pod: it is in the profile that was created for it. \
             To create a new one, revoke {name} first"
        )),
    }
}

/// The progress of the certificate of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The certificate is issued. Contains it in PEM.
    Issued(String),
    /// The operator may still issue it. Contains the reason for the delay.
    Waiting(String),
    /// It will not be issued. Contains the reason.
    Refused(String),
}

/// Why a run ends without a profile.
pub const REPLACED: &str = "another run for the same name has replaced its request";

/// Returns the progress of the certificate for a certificate signing request.
pub fn progress(client: Option<&OpenVPNClient>, csr: &str) -> Progress {
    let Some(client) = client else { return Progress::Refused("it was deleted".to_owned()) };
    if is_doomed(client) {
        return Progress::Refused("it was deleted or revoked".to_owned());
    }
    if client.spec.csr.as_deref() != Some(csr) {
        return Progress::Refused(REPLACED.to_owned());
    }
    let status = client.status.clone().unwrap_or_default();
    if status.observed_generation != client.metadata.generation {
        return Progress::Waiting("the operator has not seen it yet".to_owned());
    }
    let why = status.message.unwrap_or_default();
    match status.phase {
        Some(OpenVPNClientPhase::Ready) if status.certificate.is_some() => {
            Progress::Issued(status.certificate.unwrap_or_default())
        }
        // The operator tries again by itself.
        Some(OpenVPNClientPhase::Failed) if reason(client) != Some(Reason::RequestFailed) => Progress::Refused(why),
        _ => Progress::Waiting(why),
    }
}

/// Returns the clients to revoke, so that nobody can connect with a name. They may be revoked already.
///
/// # Errors
/// A message for users, if there is none.
pub fn revocation<'a>(all: &'a [OpenVPNClient], server: &str, name: &str) -> Result<Vec<&'a OpenVPNClient>, String> {
    let found: Vec<_> = of_name(all, server, name).collect();
    if found.is_empty() {
        return Err(format!("OpenVPNServer {server} has no client with the name {name}"));
    }
    if let Some(slot) = found.iter().find(|client| is_slot(client)) {
        let slot = slot.name_any();
        return Err(format!("OpenVPNClient {slot} is a slot of MaskProvider {server}, which the operator manages"));
    }
    Ok(found)
}

/// Whether the operator has recorded that all certificates of a client are revoked. It deletes no client before that.
pub fn is_revoked(client: Option<&OpenVPNClient>) -> bool {
    let phase = client.map(|client| client.status.as_ref().and_then(|status| status.phase));
    phase.is_none_or(|phase| phase == Some(OpenVPNClientPhase::Revoked))
}

/// Returns the client to create.
pub fn new_client(object: &str, server: &str, name: &str, csr: String) -> OpenVPNClient {
    let common_name = (object != name).then(|| name.to_owned());
    let spec = OpenVPNClientSpec { server: server.to_owned(), common_name, csr: Some(csr), ..Default::default() };
    let mut client = OpenVPNClient::new(object, spec);
    client.annotations_mut().insert(ENROLLING_ANNOTATION.to_owned(), "true".to_owned());
    client
}

/// Whether the profile of a client is not written yet.
pub fn is_enrolling(client: &OpenVPNClient) -> bool {
    client.annotations().contains_key(ENROLLING_ANNOTATION)
}

/// Returns where a client connects to. `address` may be what a template prints for all fields of the ingress of a load
/// balancer: the address and then its `ipMode`.
///
/// # Errors
/// A message for users.
pub fn remote(address: &str) -> Result<Remote, String> {
    let address = address.trim();
    let is_address = |text: &&str| text.parse::<std::net::IpAddr>().is_ok();
    let of_mode = ["VIP", "Proxy"].into_iter().find_map(|mode| address.strip_suffix(mode)).filter(is_address);
    of_mode.unwrap_or(address).parse()
}

/// Returns the port that clients outside of the cluster connect to.
pub fn remote_port(server: &OpenVPNServer) -> u16 {
    let status = server.status.as_ref().and_then(|status| status.endpoint.as_ref());
    let port = status.and_then(|endpoint| endpoint.port).and_then(|port| u16::try_from(port).ok());
    port.unwrap_or_else(|| server.spec.port())
}

/// Returns the certificate of a client whose key is not with the operator.
pub fn certificate(client: &OpenVPNClient) -> Option<&str> {
    client.status.as_ref()?.certificate.as_deref()
}

fn of_name<'a>(all: &'a [OpenVPNClient], server: &str, name: &str) -> impl Iterator<Item = &'a OpenVPNClient> {
    let has_name = move |client: &&OpenVPNClient| match &client.spec.common_name {
        Some(common_name) => common_name == name,
        None => client.metadata.name.as_deref() == Some(name),
    };
    all.iter().filter(move |client| client.spec.server == server).filter(has_name)
}

fn is_doomed(client: &OpenVPNClient) -> bool {
    client.metadata.deletion_timestamp.is_some() || client.spec.revoked == Some(true)
}

fn is_slot(client: &OpenVPNClient) -> bool {
    client.owner_references().iter().any(|owner| owner.kind == "OpenVPNServer")
}

fn reason(client: &OpenVPNClient) -> Option<Reason> {
    let conditions = client.status.as_ref()?.conditions.as_deref()?;
    let is_ready = |condition: &&Condition| condition.type_ == READY;
    conditions.iter().find(is_ready)?.reason.parse().ok()
}

/// Returns the first name of an object for a common name that no client has: `laptop`, `laptop-2`, …
fn free_name(all: &[OpenVPNClient], name: &str) -> Result<String, String> {
    let base = object_name(name)
        .ok_or_else(|| format!("{name:?} cannot be the name of an OpenVPNClient: it has no letter and no digit"))?;
    let numbered = (2..NAMES).map(|number| format!("{base}-{number}"));
    let is_free = |name: &String| all.iter().all(|client| client.metadata.name.as_ref() != Some(name));
    let free = std::iter::once(base.clone()).chain(numbered).find(is_free);
    free.ok_or_else(|| format!("there are {NAMES} clients with the name {name}: delete revoked ones"))
}

/// Returns a common name as the name of an object: lowercase letters, digits, `-` and `.`.
fn object_name(name: &str) -> Option<String> {
    let lower = name.to_ascii_lowercase().replace('_', "-");
    // Each part between dots begins and ends with a letter or a digit.
    let parts: Vec<_> = lower.split('.').map(|part| part.trim_matches('-')).filter(|part| !part.is_empty()).collect();
    (!parts.is_empty()).then(|| parts.join("."))
}

#[cfg(test)]
mod tests;
