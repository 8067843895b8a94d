//! What is known of the Secret with the files of the user.

use time::OffsetDateTime;
use vpn_types::Reason;

use crate::{
    issuing::{Keystore, Refusal},
    model::Now,
    state::{ClusterState, CredentialsState, ServerView},
};

/// Returns the usable keystore of a server, or why there is none. `None` if the server has none, or it is not read yet.
pub fn keystore(state: &ClusterState, server: &ServerView, now: Now) -> Option<Result<Keystore, Refusal>> {
    let key = server.keystore_key()?;
    let now = OffsetDateTime::from_unix_timestamp(now.wall.timestamp()).ok()?;
    match state.credentials_secret(&key) {
        CredentialsState::Unknown => None,
        CredentialsState::Missing => Some(Err(Refusal::keystore_missing(&key.name))),
        CredentialsState::Unreadable(why) => {
            let message = format!("Secret {} of spec.pki.keystoreSecret cannot be read: {why}", key.name);
            Some(Err(Refusal { reason: Reason::Forbidden, message }))
        }
        CredentialsState::Present(secret) => {
            let read = Keystore::read(&secret.data, now);
            Some(read.map_err(|why| Refusal::keystore_invalid(&key.name, &why)))
        }
    }
}
