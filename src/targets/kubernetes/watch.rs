//! The watches that feed the index.
//!
//! Flow of each: list in pages → watch from there, reconnecting every [`WATCH_S`] → after an error, back off and continue
//! from the last version; list again only when the API server no longer has that version (410).
//!
//! kube's own `watcher` is not used, for two reasons. It does not report recovery after an error, so "failing for 30 s" and
//! "quiet since recovery" look the same. And its requests have no time limit: a request that hangs on a dead connection
//! would leave stale facts looking fresh.
//!
//! Guarantees: an object deleted during an outage is removed at the end of the next listing; a dead connection is detected
//! within [`WATCH_S`] + [`SILENCE_MARGIN`] + [`START_LIMIT`].

use std::{
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use backon::{BackoffBuilder as _, ExponentialBuilder};
use futures::{StreamExt as _, future::join_all};
use jiff::Timestamp;
use k8s_openapi::api::{
    apps::v1::{ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet},
    core::v1::{ConfigMap, Node, Pod},
};
use kube::{
    Api, Client, Resource, ResourceExt as _,
    api::{ListParams, WatchEvent, WatchParams},
};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::{
    ClusterIndex, Kubernetes,
    act_error::{ActError, Call, words},
    facts::Rollout,
    index::{Hindrance, Watched, scopes},
    store::Kind,
};
use crate::api::WorkloadKind;

mod secrets;

/// Objects in one page of a listing. Not all memory of a parsed page is reclaimed: with pages of 500, client-go's default,
/// the operator used 4 MB more at 1,000 components (docs/benchmarks.md).
const PAGE: u32 = 100;
/// For one page. Pages of 100 pods are about 1 MB.
const LIST_LIMIT: Duration = Duration::from_secs(15);
/// For the start of the response to a watch.
const START_LIMIT: Duration = Duration::from_secs(5);
/// The API server ends a watch after this many seconds, and the next watch continues from there. Short, because only the
/// end proves that the connection was alive; ten watches cost one small request every 2.5 s.
const WATCH_S: u32 = 25;
/// How much later the end may arrive.
const SILENCE_MARGIN: Duration = Duration::from_secs(3);
/// The longest wait between attempts, before jitter: short, to recover soon after an outage of the API server.
const MAX_BACKOFF: Duration = Duration::from_secs(4);
/// The first wait, before jitter.
const MIN_BACKOFF: Duration = Duration::from_millis(200);
/// Between two attempts of an optional watch that the role does not grant: the role seldom changes.
const REFUSED: Duration = Duration::from_secs(60);
/// Between two checks whether a missing kind is installed: short for the person who has just installed it.
const ABSENT: Duration = Duration::from_secs(10);
/// A watch of this duration ends the last trouble: the backoff starts again.
const SETTLED: Duration = Duration::from_secs(5);
/// A shorter watch was cut by a proxy; the next one must wait.
const SHORT: Duration = Duration::from_secs(1);

/// Feeds the index until `shutdown`. `namespaces` empty: all of them. The operator works without permission to watch nodes
/// (pods on lost nodes look faulty), ConfigMaps or Secrets (no detection of bad configuration). Rollouts are watched where
/// the role grants it and the cluster has them. `home`: the operator's own namespace; without it Secrets are not watched.
pub async fn run(
    client: Client,
    namespaces: Vec<String>,
    index: Arc<ClusterIndex>,
    home: Option<String>,
    shutdown: CancellationToken,
) {
    index.watching(&namespaces);
    let index = &*index;
    let workloads = scopes(&namespaces).into_iter().map(|scope| {
        let (client, home) = (client.clone(), home.as_deref());
        async move {
            tokio::join!(
                keep::<Deployment>(scoped(&client, &scope), &scope, index),
                keep::<StatefulSet>(scoped(&client, &scope), &scope, index),
                keep::<DaemonSet>(scoped(&client, &scope), &scope, index),
                keep::<ReplicaSet>(scoped(&client, &scope), &scope, index),
                keep::<ControllerRevision>(scoped(&client, &scope), &scope, index),
                keep::<Pod>(scoped(&client, &scope), &scope, index),
                keep::<ConfigMap>(scoped(&client, &scope), &scope, index),
                keep_rollouts(&client, &scope, index),
                secrets::keep_secrets(&client, &scope, home, index),
            )
        }
    });
    let nodes = keep::<Node>(Api::all(client.clone()), "", index);
    tokio::select! {
        () = shutdown.cancelled() => {}
        _ = futures::future::join(join_all(workloads), nodes) => {}
    }
}

fn scoped<K>(client: &Client, scope: &str) -> Api<K>
where
    K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
{
    if scope.is_empty() { Api::all(client.clone()) } else { Api::namespaced(client.clone(), scope) }
}

/// Why a listing or a watch ended early.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error("{}", words(.0))]
    Kube(#[from] kube::Error),
    #[error("no response within {} s", .0.as_secs())]
    Silent(Duration),
    #[error("the listing has no resourceVersion")]
    NoVersion,
}

impl Broken {
    fn code(&self) -> Option<u16> {
        match self {
            Self::Kube(kube::Error::Api(status)) => Some(status.code),
            _ => None,
        }
    }
}

/// Never ends.
async fn keep<K: Watched>(api: Api<K>, scope: &str, index: &ClusterIndex) {
    let waits = || {
        ExponentialBuilder::default()
            .with_min_delay(MIN_BACKOFF)
            .with_max_delay(MAX_BACKOFF)
            .without_max_times()
            .with_jitter()
            .build()
    };
    let mut backoff = waits();
    let mut version = None;
    loop {
        let mut long = None;
        let began = Instant::now();
        let ended = follow(&api, scope, index, &mut version).await;
        if began.elapsed() >= SETTLED {
            backoff = waits();
        }
        match ended {
            // The usual end of a watch, unless a proxy cuts watches short.
            Ok(()) if began.elapsed() >= SHORT => continue,
            Ok(()) => {}
            Err(broken) if broken.code() == Some(410) => {
                // Not a failure: the API server keeps versions for about five minutes.
                tracing::debug!(kind = %K::KIND, scope, "the last version has expired; listing again");
                version = None;
            }
            Err(broken) => {
                let hindrance = match broken.code() {
                    Some(403) => Hindrance::Forbidden,
                    // For a kind that every cluster has, a proxy responds.
                    Some(404) if K::KIND == Kind::Rollouts => Hindrance::NotInstalled,
                    _ => Hindrance::Passing,
                };
                long = match hindrance {
                    Hindrance::Forbidden => K::KIND.is_optional().then_some(REFUSED),
                    Hindrance::NotInstalled => Some(ABSENT),
                    Hindrance::Passing => None,
                };
                let first = index.watch_fails(K::KIND, scope, hindrance, broken.to_string(), Timestamp::now());
                if hindrance == Hindrance::NotInstalled {
                    version = None;
                    if first {
                        tracing::info!(kind = %K::KIND, scope, "the kind is not installed in this cluster; checking again");
                    }
                } else if first {
                    tracing::warn!(kind = %K::KIND, scope, error = %broken, "a watch fails; retrying");
                }
            }
        }
        // The iterator has no end.
        let wait = backoff.next().unwrap_or(MAX_BACKOFF);
        sleep(long.unwrap_or(wait)).await;
    }
}

/// Rollouts, where the role grants them: checked first, so that no request is refused again and again. Never ends.
async fn keep_rollouts(client: &Client, scope: &str, index: &ClusterIndex) {
    let kubernetes = Kubernetes::new(client.clone());
    until_allowed(Kind::Rollouts, scope, index, || kubernetes.may(Call::list(WorkloadKind::Rollout.plural()), scope))
        .await;
    keep::<Rollout>(scoped(client, scope), scope, index).await;
}

/// Repeats `check` until it succeeds.
async fn until_allowed<F>(kind: Kind, scope: &str, index: &ClusterIndex, mut check: impl FnMut() -> F)
where
    F: Future<Output = Result<(), ActError>>,
{
    while let Err(error) = check().await {
        // After Rejected there are no facts either, as after Forbidden.
        let is_refused = matches!(error, ActError::Forbidden { .. } | ActError::Rejected(_));
        let hindrance = if is_refused { Hindrance::Forbidden } else { Hindrance::Passing };
        if index.watch_fails(kind, scope, hindrance, error.to_string(), Timestamp::now()) {
            match &error {
                ActError::Forbidden { .. } => tracing::info!(scope, %error, "{kind} are not watched"),
                ActError::Rejected(_) => tracing::warn!(scope, %error, "{kind} are not watched"),
                _ => tracing::warn!(scope, %error, "permission to watch {kind} is unknown; retrying"),
            }
        }
        sleep(if is_refused { REFUSED } else { MAX_BACKOFF }).await;
    }
}

/// Lists where `version` is none, then follows one watch to its end.
async fn follow<K: Watched>(
    api: &Api<K>,
    scope: &str,
    index: &ClusterIndex,
    version: &mut Option<String>,
) -> Result<(), Broken> {
    let from = match version {
        Some(version) => version.clone(),
        None => version.insert(list(api, scope, index).await?).clone(),
    };
    let mut params = WatchParams::default().timeout(WATCH_S);
    params.label_selector = K::LABELS.map(str::to_owned);
    params.field_selector = K::FIELDS.map(str::to_owned);
    let stream = timeout(START_LIMIT, api.watch(&params, &from)).await.map_err(|_| Broken::Silent(START_LIMIT))??;
    if index.watch_works(K::KIND, scope) {
        tracing::info!(kind = %K::KIND, scope, "the watch works again");
    }
    let mut stream = pin!(stream);
    let silence = Duration::from_secs(u64::from(WATCH_S)) + SILENCE_MARGIN;
    loop {
        let event = timeout(silence, stream.next()).await.map_err(|_| Broken::Silent(silence))?;
        match event.transpose()? {
            None => return Ok(()),
            Some(WatchEvent::Added(object) | WatchEvent::Modified(object)) => {
                index.apply(&object);
                *version = object.resource_version();
            }
            Some(WatchEvent::Deleted(object)) => {
                index.delete(&object);
                *version = object.resource_version();
            }
            Some(WatchEvent::Bookmark(mark)) => *version = Some(mark.metadata.resource_version),
            Some(WatchEvent::Error(status)) => return Err(kube::Error::Api(status.boxed()).into()),
        }
    }
}

/// Applies all objects, removes those that do not exist any more, and returns the version to watch from.
async fn list<K: Watched>(api: &Api<K>, scope: &str, index: &ClusterIndex) -> Result<String, Broken> {
    index.listing(K::KIND, scope);
    let mut params = ListParams::default().limit(PAGE);
    params.label_selector = K::LABELS.map(str::to_owned);
    params.field_selector = K::FIELDS.map(str::to_owned);
    loop {
        let page = timeout(LIST_LIMIT, api.list(&params)).await.map_err(|_| Broken::Silent(LIST_LIMIT))??;
        for object in &page.items {
            index.apply(object);
        }
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => {
                index.listed(K::KIND, scope);
                return page.metadata.resource_version.ok_or(Broken::NoVersion);
            }
        }
    }
}

#[cfg(test)]
mod tests;
