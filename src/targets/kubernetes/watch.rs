//! The watches that feed the index.
//!
//! Flow of each: list in pages → watch from there, reconnecting every [`WATCH_S`] → after an error, back off and go on
//! from the last version; list anew only when the API server no longer has that version (410).
//!
//! kube's own `watcher` is not used, for two reasons. It says nothing when it has got through again after an error, so
//! "failing for 30 s" could not be told from "quiet since it recovered". And its requests have no time limit: one that
//! hangs on a dead connection would leave stale facts looking fresh.
//!
//! Guarantees: an object deleted while nobody watched is removed at the end of the next listing; a connection that died
//! silently is noticed within [`WATCH_S`] + [`SILENCE_MARGIN`] + [`START_LIMIT`].

use std::{
    fmt::Debug,
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use backon::{BackoffBuilder as _, ExponentialBuilder};
use futures::{StreamExt as _, future::join_all};
use jiff::Timestamp;
use k8s_openapi::api::{
    apps::v1::{ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet},
    core::v1::{ConfigMap, Node, Pod, Secret},
};
use kube::{
    Api, Client, Resource, ResourceExt as _,
    api::{ListParams, WatchEvent, WatchParams},
};
use serde::de::DeserializeOwned;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::{
    ClusterIndex, Kubernetes,
    act_error::{ActError, Call, words},
    facts::Rollout,
    index::{Hindrance, scopes},
    store::Kind,
};
use crate::api::WorkloadKind;

mod secrets;

/// Objects in one page of a listing. What a page takes while it is parsed is not all given back: with pages of 500,
/// client-go's default, the operator kept 4 MB more at 1,000 components (docs/benchmarks.md).
const PAGE: u32 = 100;
/// For one page. Pages of 100 pods are about 1 MB.
const LIST_LIMIT: Duration = Duration::from_secs(15);
/// For the API server to begin its answer to a watch.
const START_LIMIT: Duration = Duration::from_secs(5);
/// The API server ends a watch after this many seconds and we begin the next one from where it ended. Short, because
/// only then is it known that the connection was alive; ten watches of it cost one small request every 2.5 s.
const WATCH_S: u32 = 25;
/// How much later than that the end may arrive.
const SILENCE_MARGIN: Duration = Duration::from_secs(3);
/// The longest wait between tries, before jitter: after an outage of the API server everything is seen again soon.
const MAX_BACKOFF: Duration = Duration::from_secs(4);
/// The first wait, before jitter.
const MIN_BACKOFF: Duration = Duration::from_millis(200);
/// Between two tries of what the role does not grant and can be done without: it is seldom granted later.
const REFUSED: Duration = Duration::from_secs(60);
/// Between two looks whether a kind that was not installed is by now: soon enough for who has just installed it.
const ABSENT: Duration = Duration::from_secs(10);
/// A watch that lasted this long shows that the last trouble is over: the waits begin small again.
const SETTLED: Duration = Duration::from_secs(5);
/// A watch that ends well before its time was cut by something in between; the next one must wait.
const SHORT: Duration = Duration::from_secs(1);

/// Feeds the index until `shutdown`. `namespaces` empty: all of them. Nodes are watched in any case; being refused
/// those costs only the distinction of pods on lost nodes, being refused ConfigMaps or Secrets only that of bad
/// configuration. Rollouts are watched where the role grants it and the cluster has them. `home`: the operator's own namespace; Secrets are not looked at without one.
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

/// A kind that the index takes.
trait Watched: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static {
    const KIND: Kind;
    /// Which ones, by label and by field; empty: all of them.
    const LABELS: &str = "";
    const FIELDS: &str = "";
    fn apply(&self, index: &ClusterIndex);
    fn delete(&self, index: &ClusterIndex);
}

macro_rules! watched {
    ($type:ty, $kind:ident, $apply:ident, $delete:ident) => {
        impl Watched for $type {
            const KIND: Kind = Kind::$kind;
            fn apply(&self, index: &ClusterIndex) {
                index.$apply(self);
            }
            fn delete(&self, index: &ClusterIndex) {
                index.$delete(self);
            }
        }
    };
}
watched!(Deployment, Deployments, apply_deployment, delete_deployment);
watched!(StatefulSet, StatefulSets, apply_stateful_set, delete_stateful_set);
watched!(DaemonSet, DaemonSets, apply_daemon_set, delete_daemon_set);
watched!(ControllerRevision, ControllerRevisions, apply_controller_revision, delete_controller_revision);
watched!(Rollout, Rollouts, apply_rollout, delete_rollout);
watched!(ReplicaSet, ReplicaSets, apply_replica_set, delete_replica_set);
watched!(Pod, Pods, apply_pod, delete_pod);
watched!(ConfigMap, ConfigMaps, apply_config_map, delete_config_map);
watched!(Node, Nodes, apply_node, delete_node);

impl Watched for Secret {
    const KIND: Kind = Kind::Secrets;
    // Our own copies are no configuration.
    const LABELS: &str = "!panacea.dev/policy";
    // Many, large or short-lived, and none that a person configures a workload by.
    const FIELDS: &str = "type!=kubernetes.io/service-account-token,type!=helm.sh/release.v1";
    fn apply(&self, index: &ClusterIndex) {
        index.apply_secret(self);
    }
    fn delete(&self, index: &ClusterIndex) {
        index.delete_secret(self);
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
    #[error("no answer within {} s", .0.as_secs())]
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

fn selector(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
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
            // The usual end of a watch: on with the next one, unless something in between cuts them short.
            Ok(()) if began.elapsed() >= SHORT => continue,
            Ok(()) => {}
            Err(broken) if broken.code() == Some(410) => {
                // Not a failure: the API server keeps versions for about five minutes.
                tracing::debug!(kind = %K::KIND, scope, "the last seen version has expired; listing anew");
                version = None;
            }
            Err(broken) => {
                let hindrance = match broken.code() {
                    Some(403) => Hindrance::Forbidden,
                    // Of what every cluster has, this would be something in between.
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
                    // Whatever it was at, it begins anew.
                    version = None;
                    if first {
                        tracing::info!(kind = %K::KIND, scope, "the kind is not installed in this cluster; looking again");
                    }
                } else if first {
                    tracing::warn!(kind = %K::KIND, scope, error = %broken, "a watch does not get through; trying again");
                }
            }
        }
        // The iterator has no end; were that to change, the longest wait is right.
        let wait = backoff.next().unwrap_or(MAX_BACKOFF);
        sleep(long.unwrap_or(wait)).await;
    }
}

/// Rollouts, where the role grants them. It is asked first, so that nothing is refused again and again. Never ends.
async fn keep_rollouts(client: &Client, scope: &str, index: &ClusterIndex) {
    let kubernetes = Kubernetes::new(client.clone());
    until_allowed(Kind::Rollouts, scope, index, || kubernetes.may(Call::list(WorkloadKind::Rollout.plural()), scope))
        .await;
    keep::<Rollout>(scoped(client, scope), scope, index).await;
}

/// Asks until the answer is yes.
async fn until_allowed<F>(kind: Kind, scope: &str, index: &ClusterIndex, mut ask: impl FnMut() -> F)
where
    F: Future<Output = Result<(), ActError>>,
{
    let fails =
        |hindrance, error: &ActError| index.watch_fails(kind, scope, hindrance, error.to_string(), Timestamp::now());
    loop {
        let wait = match ask().await {
            Ok(()) => return,
            Err(error @ ActError::Forbidden { .. }) => {
                if fails(Hindrance::Forbidden, &error) {
                    tracing::info!(scope, %error, "{kind} are not watched");
                }
                REFUSED
            }
            // Nothing can be said of them, and all else goes on: as if it were refused.
            Err(error @ ActError::Rejected(_)) => {
                if fails(Hindrance::Forbidden, &error) {
                    tracing::warn!(scope, %error, "{kind} are not watched");
                }
                REFUSED
            }
            Err(error) => {
                if fails(Hindrance::Passing, &error) {
                    tracing::warn!(scope, %error, "it is not known yet whether {kind} may be watched; trying again");
                }
                MAX_BACKOFF
            }
        };
        sleep(wait).await;
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
    (params.label_selector, params.field_selector) = (selector(K::LABELS), selector(K::FIELDS));
    let stream = timeout(START_LIMIT, api.watch(&params, &from)).await.map_err(|_| Broken::Silent(START_LIMIT))??;
    if index.watch_works(K::KIND, scope) {
        tracing::info!(kind = %K::KIND, scope, "the watch gets through again");
    }
    let mut stream = pin!(stream);
    let silence = Duration::from_secs(u64::from(WATCH_S)) + SILENCE_MARGIN;
    loop {
        let event = timeout(silence, stream.next()).await.map_err(|_| Broken::Silent(silence))?;
        match event.transpose()? {
            None => return Ok(()),
            Some(WatchEvent::Added(object) | WatchEvent::Modified(object)) => {
                object.apply(index);
                *version = object.resource_version();
            }
            Some(WatchEvent::Deleted(object)) => {
                object.delete(index);
                *version = object.resource_version();
            }
            Some(WatchEvent::Bookmark(mark)) => *version = Some(mark.metadata.resource_version),
            Some(WatchEvent::Error(status)) => return Err(kube::Error::Api(status.boxed()).into()),
        }
    }
}

/// Applies all that exists, removes what does not any more, and returns the version to watch from.
async fn list<K: Watched>(api: &Api<K>, scope: &str, index: &ClusterIndex) -> Result<String, Broken> {
    index.listing(K::KIND, scope);
    let mut params = ListParams::default().limit(PAGE);
    (params.label_selector, params.field_selector) = (selector(K::LABELS), selector(K::FIELDS));
    loop {
        let page = timeout(LIST_LIMIT, api.list(&params)).await.map_err(|_| Broken::Silent(LIST_LIMIT))??;
        for object in &page.items {
            object.apply(index);
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
