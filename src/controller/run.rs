//! Starts the watches and both controllers. Every task is owned here: when one ends unexpectedly, all end, and the
//! process with them, so that a dead task is a restart and not a silence.

use std::{collections::BTreeSet, fmt::Debug, sync::Arc, time::Duration};

use futures::{FutureExt as _, Stream, StreamExt as _, future::BoxFuture, stream};
use k8s_openapi::NamespaceResourceScope;
use kube::{
    Resource, ResourceExt as _,
    core::DeserializeGuard,
    runtime::{
        Controller, PredicateConfig, WatchStreamExt as _,
        controller::{Config, Error},
        predicates,
        reflector::{self, ObjectRef},
        watcher::{self, Event, watcher},
    },
};
use serde::de::DeserializeOwned;
use tokio_stream::wrappers::{BroadcastStream, WatchStream, errors::BroadcastStreamRecvError};
use tokio_util::sync::CancellationToken;

use super::{
    Context, GuardedRemediation,
    crd_readiness::is_not_installed,
    on_error,
    policy::{self, PolicyContext},
    remediation, scoped,
};
use crate::{
    api::{HealingPolicy, Remediation},
    targets::kubernetes::ClusterIndex,
};

/// Bursts of changes (a rollout makes several a pod) become one round. Changes are gathered for this long from the
/// first on; the queue's own debounce would start again with each and delay the checks of a busy rollout for ever.
const DEBOUNCE: Duration = Duration::from_millis(100);
/// Changes gathered at most before the round starts.
const MAX_GATHERED: usize = 1024;
/// Policies, and actions, that are reconciled at the same time.
const CONCURRENCY: u16 = 32;

type Guarded = DeserializeGuard<HealingPolicy>;

/// Runs until `shutdown`, or until a watch or a controller ends unexpectedly, which is an error.
pub async fn run(
    context: Arc<Context>,
    index: Arc<ClusterIndex>,
    namespaces: &[String],
    shutdown: CancellationToken,
) -> Result<(), EndedUnexpectedly> {
    let everywhere = namespaces.is_empty().then_some(None);
    let scopes = namespaces.iter().map(|namespace| Some(namespace.as_str())).chain(everywhere);
    let mut tasks: Vec<BoxFuture<'_, &'static str>> = Vec::new();
    let watch = crate::targets::kubernetes::watch::run(
        context.client.clone(),
        namespaces.to_vec(),
        index.clone(),
        Some(context.client.default_namespace().to_owned()),
        shutdown.clone(),
    );
    tasks.push(watch.map(|()| "the watches").boxed());
    for scope in scopes {
        let (policies, remediations) = controllers(&context, &index, scope, &shutdown);
        tasks.push(policies.map(|()| "the policy controller").boxed());
        tasks.push(remediations.map(|()| "the remediation controller").boxed());
    }
    let mut ended = tasks.into_iter().collect::<stream::FuturesUnordered<_>>();
    while let Some(what) = ended.next().await {
        if !shutdown.is_cancelled() {
            return Err(EndedUnexpectedly(what));
        }
    }
    Ok(())
}

/// A task that should run for ever ended.
#[derive(Debug, thiserror::Error)]
#[error("{0} ended unexpectedly; the operator exits so that Kubernetes restarts it")]
pub struct EndedUnexpectedly(&'static str);

fn controllers(
    context: &Arc<Context>,
    index: &ClusterIndex,
    scope: Option<&str>,
    shutdown: &CancellationToken,
) -> (BoxFuture<'static, ()>, BoxFuture<'static, ()>) {
    let config = || Config::default().concurrency(CONCURRENCY);
    let (store, writer) = reflector::store();
    let watched = watch_own::<GuardedRemediation>(context, scope).reflect(writer).applied_objects();
    let remediations = Controller::for_stream(watched, store)
        .with_config(config())
        .graceful_shutdown_on(shutdown.clone().cancelled_owned());
    let policy_context = Arc::new(PolicyContext { shared: context.clone(), remediations: remediations.store() });

    // The operator's own writes of the status change no generation, so they start no round.
    let (store, writer) = reflector::store();
    let changed = watch_own::<Guarded>(context, scope)
        .modify(without_unread_metadata)
        .reflect(writer)
        .applied_objects()
        .predicate_filter(predicates::generation, PredicateConfig::default());
    let owned = scoped::<Remediation>(context.client.clone(), scope);
    let policies = Controller::for_stream(changed, store)
        .with_config(config())
        .owns(owned, watcher::Config::default())
        .reconcile_on(workload_changes(context.clone(), index, scope))
        .reconcile_on(ledger_changes(context.clone(), scope))
        .graceful_shutdown_on(shutdown.clone().cancelled_owned());

    let shared = context.clone();
    let retry =
        |object: Arc<Guarded>, error: &_, context: Arc<PolicyContext>| on_error(&context.shared, &*object, error);
    let policies = policies.run(policy::reconcile, retry, policy_context).for_each(move |result| {
        if let Err(Error::ObjectNotFound(gone)) = &result {
            shared.memory.forget(gone.namespace.as_deref().unwrap_or_default(), &gone.name);
        } else if let Err(error) = result {
            log_queue_error("policy", &error);
        }
        futures::future::ready(())
    });
    let retry = |object: Arc<GuardedRemediation>, error: &_, ctx: Arc<Context>| on_error(&ctx, &*object, error);
    let remediations = remediations.run(remediation::reconcile, retry, context.clone()).for_each(|result| async move {
        if let Err(error) = result {
            log_queue_error("remediation", &error);
        }
    });
    (policies.boxed(), remediations.boxed())
}

/// Metadata that no code here reads is not cached: the managed fields take more memory than the fields themselves.
fn without_unread_metadata(policy: &mut Guarded) {
    policy.meta_mut().managed_fields = None;
    policy.annotations_mut().remove("kubectl.kubernetes.io/last-applied-configuration");
}

/// The watch of one of the operator's own kinds; continues after errors, with backoff.
fn watch_own<K>(
    context: &Arc<Context>,
    scope: Option<&str>,
) -> impl Stream<Item = watcher::Result<Event<K>>> + Send + 'static
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let kind: &'static str = if K::kind(&()) == HealingPolicy::kind(&()) { "HealingPolicy" } else { "Remediation" };
    let (context, scope) = (context.clone(), scope.map(str::to_owned));
    let at = scope.clone().unwrap_or_default();
    context.kinds.expect(kind, &at);
    watcher(scoped::<K>(context.client.clone(), scope.as_deref()), watcher::Config::default())
        .inspect(move |event| context.kinds.note(kind, &at, event))
        .default_backoff()
}

/// Errors of a reconciliation are logged where they happen; these concern the queue and the watches.
fn log_queue_error<R: std::error::Error>(controller: &str, error: &Error<R, watcher::Error>) {
    match error {
        // The object does not exist any more, or the failure of its reconciliation is logged.
        Error::ObjectNotFound(_) | Error::ReconcilerFailed(..) => {}
        // Logged once, with the command that installs the kind.
        Error::QueueError(trouble) if is_not_installed(trouble) => {}
        error => tracing::warn!(controller, %error, "the watch was interrupted; it resumes automatically"),
    }
}

/// The policies to reconcile when a workload changes. Lost notices make everything due.
fn workload_changes(
    context: Arc<Context>,
    index: &ClusterIndex,
    scope: Option<&str>,
) -> impl Stream<Item = ObjectRef<Guarded>> + Send + 'static {
    let scope = scope.map(str::to_owned);
    let changes = BroadcastStream::new(index.changes());
    let gathered = tokio_stream::StreamExt::chunks_timeout(changes, MAX_GATHERED, DEBOUNCE);
    gathered.flat_map(move |changes| {
        let mut keys: BTreeSet<(String, String)> = BTreeSet::new();
        for change in changes {
            match change {
                Ok(changed) => {
                    let names = context.memory.mark_changed(&changed.namespace, changed.kind, &changed.name);
                    keys.extend(names.into_iter().map(|name| (changed.namespace.to_string(), name)));
                }
                Err(BroadcastStreamRecvError::Lagged(_)) => keys.extend(context.memory.mark_all_changed()),
            }
        }
        stream::iter(in_scope(keys, scope.as_deref()))
    })
}

/// The condition `LedgerAvailable` of every policy follows the ledger.
fn ledger_changes(
    context: Arc<Context>,
    scope: Option<&str>,
) -> impl Stream<Item = ObjectRef<Guarded>> + Send + 'static {
    let scope = scope.map(str::to_owned);
    WatchStream::from_changes(context.ledger.health()).flat_map(move |_| {
        let keys = context.memory.all().into_iter().map(|(key, _)| key);
        stream::iter(in_scope(keys, scope.as_deref()))
    })
}

fn in_scope(keys: impl IntoIterator<Item = (String, String)>, scope: Option<&str>) -> Vec<ObjectRef<Guarded>> {
    keys.into_iter()
        .filter(|(namespace, _)| scope.is_none_or(|scope| scope == namespace))
        .map(|(namespace, name)| ObjectRef::new(&name).within(&namespace))
        .collect()
}
