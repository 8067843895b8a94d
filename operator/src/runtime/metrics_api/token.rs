//! Tokens of the ServiceAccount by which another server knows this one.
//!
//! Invariant: another server never gets a token of the ServiceAccount that this process runs as. With such a token, it
//! could do all that this process may do.

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::{
    authentication::v1::{TokenRequest, TokenRequestSpec},
    core::v1::ServiceAccount,
};
use kube::{Api, Client, api::PostParams};
use moka::future::Cache;

use crate::runtime::watch::error_chain;

/// How long a token is valid. kube-apiserver issues none for less than ten minutes.
const VALID: Duration = Duration::from_secs(600);
/// How long a token is used.
const KEEP: Duration = Duration::from_secs(300);

/// Gets tokens, and keeps the last one.
#[derive(Clone)]
pub struct Tokens {
    api: Api<ServiceAccount>,
    name: Arc<str>,
    last: Cache<(), Arc<str>>,
}

impl Tokens {
    /// Creates it without any token.
    pub fn new(client: Client, namespace: &str, name: &str) -> Self {
        let last = Cache::builder().max_capacity(1).time_to_live(KEEP).build();
        Self { api: Api::namespaced(client, namespace), name: name.into(), last }
    }

    /// Returns a token that is valid for some minutes.
    ///
    /// # Errors
    ///
    /// If kube-apiserver gives none.
    pub async fn get(&self) -> Result<Arc<str>, Arc<String>> {
        self.last.try_get_with((), self.request()).await
    }

    /// Forgets the token, because a server has refused it.
    pub async fn forget(&self) {
        self.last.invalidate(&()).await;
    }

    async fn request(&self) -> Result<Arc<str>, String> {
        let spec = TokenRequestSpec {
            // Without an audience, it is kube-apiserver, which the other server asks about the token.
            audiences: None,
            expiration_seconds: Some(VALID.as_secs().cast_signed()),
            ..TokenRequestSpec::default()
        };
        let request = TokenRequest { spec: Some(spec), ..TokenRequest::default() };
        let answer = self.api.create_token_request(&self.name, &PostParams::default(), &request).await;
        let failed = |why: &str| format!("no token of ServiceAccount {}: {why}", self.name);
        let status = answer.map_err(|error| failed(&error_chain(&error)))?.status.unwrap_or_default();
        status.token.map(Arc::from).ok_or_else(|| failed("the answer has none"))
    }
}
