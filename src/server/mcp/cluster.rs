//! The API server with one caller's rights. Every call has a time limit, every list a cap.

use std::time::Duration;

use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use kube::{
    Api, Client, Resource,
    api::{ListParams, PostParams},
    core::NamespaceResourceScope,
};
use serde::de::DeserializeOwned;

use super::arguments::name;
use crate::api::{GROUP, HealingPolicy, INSTALL_CRDS, Remediation};

/// No request to the API server takes longer.
const LIMIT: Duration = Duration::from_secs(10);
/// Objects of one page of a list.
const PAGE: u32 = 500;
/// Objects of a kind read for one answer; the answer says when there are more.
const MOST_READ: usize = 2000;

/// Why there is no answer, and how to correct that.
#[derive(Debug)]
pub(super) struct Trouble(pub String);

/// The API server with one caller's identity.
#[derive(Clone)]
pub struct Cluster {
    client: Client,
    namespace: String,
    user: Option<String>,
}

impl Cluster {
    /// `namespace` serves calls that name none. `user`: the API server's name for the caller, if already known.
    pub fn new(client: Client, namespace: String, user: Option<String>) -> Self {
        Self { client, namespace, user }
    }

    /// The API server's name for the caller.
    pub(super) async fn user(&self) -> Option<String> {
        match &self.user {
            Some(user) => Some(user.clone()),
            None => who_am_i(&self.client).await.ok().flatten(),
        }
    }

    pub(super) fn namespace<'a>(&'a self, asked: Option<&'a str>) -> Result<&'a str, Trouble> {
        asked.map_or(Ok(self.namespace.as_str()), |asked| name("namespace", asked))
    }

    pub(super) fn api<K>(&self, namespace: &str) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// The objects of one namespace, or with `None` of all, and whether there are more than were read.
    pub(super) async fn list<K>(&self, namespace: Option<&str>, fields: &[String]) -> Result<(Vec<K>, bool), Trouble>
    where
        K: Resource<Scope = NamespaceResourceScope> + Clone + DeserializeOwned + std::fmt::Debug,
        K::DynamicType: Default,
    {
        let api: Api<K> = namespace.map_or_else(|| Api::all(self.client.clone()), |namespace| self.api(namespace));
        let mut params = ListParams::default().limit(PAGE);
        if !fields.is_empty() {
            params = params.fields(&fields.join(","));
        }
        let mut found = Vec::new();
        loop {
            let page = limited(api.list(&params)).await?;
            found.extend(page.items);
            let more = page.metadata.continue_.filter(|token| !token.is_empty());
            match more {
                Some(_) if found.len() >= MOST_READ => return Ok((found, true)),
                Some(token) => params = params.continue_token(&token),
                None => return Ok((found, false)),
            }
        }
    }

    pub(super) async fn policy(&self, namespace: &str, policy: &str) -> Result<HealingPolicy, Trouble> {
        let found = limited(self.api(namespace).get_opt(name("policy", policy)?)).await?;
        found.ok_or_else(|| missing("HealingPolicy", namespace, policy, "list_components"))
    }

    pub(super) async fn remediation(&self, namespace: &str, remediation: &str) -> Result<Remediation, Trouble> {
        let found = limited(self.api(namespace).get_opt(name("remediation", remediation)?)).await?;
        found.ok_or_else(|| missing("Remediation", namespace, remediation, "list_remediations"))
    }
}

fn missing(kind: &str, namespace: &str, name: &str, list: &str) -> Trouble {
    Trouble(format!("there is no {kind} {name:?} in namespace {namespace:?}; {list} shows which exist"))
}

/// The API server's name for the client. None when the API server accepts the caller, who may not ask for the name.
pub(super) async fn who_am_i(client: &Client) -> Result<Option<String>, kube::Error> {
    let api: Api<SelfSubjectReview> = Api::all(client.clone());
    let (params, review) = (PostParams::default(), SelfSubjectReview::default());
    let asked = tokio::time::timeout(LIMIT, api.create(&params, &review)).await;
    match asked.unwrap_or_else(|elapsed| Err(kube::Error::Service(elapsed.into()))) {
        Ok(review) => Ok(review.status.and_then(|status| status.user_info).and_then(|user| user.username)),
        Err(kube::Error::Api(status)) if status.code == 403 => Ok(None),
        Err(error) => Err(error),
    }
}

pub(super) async fn limited<T>(request: impl Future<Output = Result<T, kube::Error>>) -> Result<T, Trouble> {
    match tokio::time::timeout(LIMIT, request).await {
        Ok(response) => response.map_err(|error| trouble(&error)),
        Err(_) => Err(Trouble(format!("no response of the API server within {} s; try again", LIMIT.as_secs()))),
    }
}

/// With the API server's own message.
fn trouble(error: &kube::Error) -> Trouble {
    let kube::Error::Api(status) = error else {
        return Trouble(format!("the API server is unreachable: {error}"));
    };
    let message = &status.message;
    Trouble(match status.code {
        401 => format!("Kubernetes does not know the caller ({message}); sign in again, or send a valid token"),
        403 => format!(
            "Kubernetes does not allow the request: {message}; an administrator can grant the right with a Role for {GROUP}"
        ),
        404 => format!("Kubernetes has no such kind ({message}); install Panacea's with: {INSTALL_CRDS}"),
        _ => format!("Kubernetes refuses the request: {message}"),
    })
}
