//! Asks kube-apiserver who has a token (TokenReview), and what a user may do (SubjectAccessReview). Answers are kept for
//! some seconds, as other aggregated API servers do, and equal questions at the same time are asked once.

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::{
    authentication::v1::{TokenReview, TokenReviewSpec},
    authorization::v1::{NonResourceAttributes, ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec},
};
use kube::{Api, Client, api::PostParams};
use moka::future::Cache;

use crate::{
    metrics_api::{
        authentication::{MASTERS, User},
        request::Attributes,
    },
    runtime::watch::error_chain,
};

/// How long an answer is kept.
const KEEP: Duration = Duration::from_secs(10);
/// The maximum number of answers about permissions.
const MAX_ANSWERS: u64 = 4096;
/// The maximum size of the tokens of which answers are kept, in bytes. Anybody can send long ones.
const MAX_TOKEN_BYTES: u64 = 4 << 20;

/// Whether a user may do something; if not, why.
type Permission = Result<(), String>;

/// Answers questions about users.
#[derive(Clone)]
pub struct Access {
    client: Client,
    tokens: Cache<String, Option<User>>,
    permissions: Cache<(User, Attributes), Permission>,
}

impl Access {
    /// Creates it without any answers.
    pub fn new(client: Client) -> Self {
        Self {
            client,
            tokens: Cache::builder()
                .weigher(|token: &String, _| u32::try_from(token.len()).unwrap_or(u32::MAX))
                .max_capacity(MAX_TOKEN_BYTES)
                .time_to_live(KEEP)
                .build(),
            permissions: Cache::builder().max_capacity(MAX_ANSWERS).time_to_live(KEEP).build(),
        }
    }

    /// Returns the user of a token, or `None` if it is not valid.
    ///
    /// # Errors
    ///
    /// If kube-apiserver gives no answer.
    pub async fn user_of(&self, token: &str) -> Result<Option<User>, Arc<String>> {
        self.tokens.try_get_with(token.to_owned(), review(self.client.clone(), token)).await
    }

    /// Returns whether a user may do something, and if not, why.
    ///
    /// # Errors
    ///
    /// If kube-apiserver gives no answer.
    pub async fn may(&self, user: &User, attributes: &Attributes) -> Result<Permission, Arc<String>> {
        if user.groups.iter().any(|group| group == MASTERS) {
            return Ok(Ok(()));
        }
        let asked = ask(self.client.clone(), user, attributes);
        self.permissions.try_get_with((user.clone(), attributes.clone()), asked).await
    }
}

async fn review(client: Client, token: &str) -> Result<Option<User>, String> {
    let spec = TokenReviewSpec { token: token.to_owned(), ..TokenReviewSpec::default() };
    let review = TokenReview { spec, ..TokenReview::default() };
    let answer = Api::<TokenReview>::all(client).create(&PostParams::default(), &review).await;
    let status = answer.map_err(|error| error_chain(&error))?.status.unwrap_or_default();
    if status.authenticated != Some(true) {
        return Ok(None);
    }
    let user = status.user.unwrap_or_default();
    Ok(Some(
        User {
            name: user.username.unwrap_or_default(),
            uid: user.uid,
            groups: user.groups.unwrap_or_default(),
            extra: user.extra.unwrap_or_default(),
        }
        .authenticated(),
    ))
}

async fn ask(client: Client, user: &User, attributes: &Attributes) -> Result<Permission, String> {
    let mut spec = SubjectAccessReviewSpec {
        user: Some(user.name.clone()),
        uid: user.uid.clone(),
        groups: Some(user.groups.clone()),
        extra: Some(user.extra.clone()),
        ..SubjectAccessReviewSpec::default()
    };
    match attributes {
        Attributes::Path(path) => {
            spec.non_resource_attributes =
                Some(NonResourceAttributes { path: Some(path.clone()), verb: Some("get".to_owned()) });
        }
        Attributes::Resource { verb, group, version, namespace, resource, subresource, name } => {
            let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
            spec.resource_attributes = Some(ResourceAttributes {
                verb: text(verb),
                group: text(group),
                version: text(version),
                namespace: text(namespace),
                resource: text(resource),
                subresource: text(subresource),
                name: text(name),
                ..ResourceAttributes::default()
            });
        }
    }
    let review = SubjectAccessReview { spec, ..SubjectAccessReview::default() };
    let answer = Api::<SubjectAccessReview>::all(client).create(&PostParams::default(), &review).await;
    let status = answer.map_err(|error| error_chain(&error))?.status.unwrap_or_default();
    if status.allowed {
        return Ok(Ok(()));
    }
    let reason =
        status.reason.filter(|reason| !reason.is_empty()).map_or(String::new(), |reason| format!(": {reason}"));
    let what = match attributes {
        Attributes::Path(path) => format!("get path \"{path}\""),
        Attributes::Resource { verb, group, namespace, resource, subresource, .. } => {
            let resource = if subresource.is_empty() { resource } else { &format!("{resource}/{subresource}") };
            format!("{verb} resource \"{resource}\" in API group \"{group}\" in the namespace \"{namespace}\"")
        }
    };
    Ok(Err(format!("User \"{}\" cannot {what}{reason}", user.name)))
}
