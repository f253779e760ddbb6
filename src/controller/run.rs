//! Starts the watches and both controllers. Every task is owned here: when one ends unasked, all end, and the
//! process with them, so that a dead task is a restart and not a silence.

use std::{sync::Arc, time::Duration};

use futures::{FutureExt as _, StreamExt as _, future::BoxFuture, stream};
use kube::{
    core::DeserializeGuard,
    runtime::{Controller, controller::Config, reflector::ObjectRef, watcher},
};
use tokio::sync::broadcast;
use tokio_stream::wrappers::{BroadcastStream, WatchStream, errors::BroadcastStreamRecvError};
use tokio_util::sync::CancellationToken;

use super::{
    Context,
    policy::{self, PolicyContext},
    remediation::{self, RemediationContext},
    scoped,
};
use crate::{
    api::{HealingPolicy, Remediation},
    platforms::kubernetes::ClusterIndex,
};

/// Bursts of changes (a rollout makes several a pod) become one look.
const DEBOUNCE: Duration = Duration::from_millis(100);
/// Policies, and actions, that are reconciled at the same time.
const CONCURRENCY: u16 = 32;

type Guarded = DeserializeGuard<HealingPolicy>;

/// Runs until `shutdown`, or until a controller ends unasked, which is an error.
///
/// # Errors
/// When a watch or a controller ended although nobody asked.
pub async fn run(
    context: Arc<Context>,
    index: Arc<ClusterIndex>,
    namespaces: &[String],
    shutdown: CancellationToken,
) -> Result<(), EndedUnasked> {
    let scopes: Vec<Option<&str>> = if namespaces.is_empty() {
        vec![None]
    } else {
        namespaces.iter().map(|namespace| Some(namespace.as_str())).collect()
    };
    let mut tasks: Vec<BoxFuture<'_, &'static str>> = Vec::new();
    let watch = crate::platforms::kubernetes::watch::run(
        context.client.clone(),
        namespaces.to_vec(),
        index.clone(),
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
            return Err(EndedUnasked(what));
        }
    }
    Ok(())
}

/// A task that should run for ever ended.
#[derive(Debug, thiserror::Error)]
#[error("{0} ended unasked; the operator stops so that it is started anew")]
pub struct EndedUnasked(&'static str);

fn controllers(
    context: &Arc<Context>,
    index: &ClusterIndex,
    scope: Option<&str>,
    shutdown: &CancellationToken,
) -> (BoxFuture<'static, ()>, BoxFuture<'static, ()>) {
    let config = || Config::default().debounce(DEBOUNCE).concurrency(CONCURRENCY);
    let remediations =
        Controller::new(scoped::<Remediation>(context.client.clone(), scope), watcher::Config::default())
            .with_config(Config::default().concurrency(CONCURRENCY))
            .graceful_shutdown_on(shutdown.clone().cancelled_owned());
    let policy_context = Arc::new(PolicyContext { shared: context.clone(), remediations: remediations.store() });
    let remediation_context = Arc::new(RemediationContext { shared: context.clone() });

    let guarded = scoped::<Guarded>(context.client.clone(), scope);
    let owned = scoped::<Remediation>(context.client.clone(), scope);
    let policies = Controller::new(guarded, watcher::Config::default())
        .with_config(config())
        .owns(owned, watcher::Config::default())
        .reconcile_on(workload_changes(context.clone(), index, scope))
        .reconcile_on(ledger_changes(context.clone(), scope))
        .graceful_shutdown_on(shutdown.clone().cancelled_owned());

    let policies = policies.run(policy::reconcile, policy::on_error, policy_context).for_each(|result| async move {
        if let Err(error) = result {
            log_queue_error("policy", &error);
        }
    });
    let remediations = remediations.run(remediation::reconcile, remediation::on_error, remediation_context).for_each(
        |result| async move {
            if let Err(error) = result {
                log_queue_error("remediation", &error);
            }
        },
    );
    (policies.boxed(), remediations.boxed())
}

/// Errors of a reconciliation are logged where they happen; what is left concerns the queue and the watches.
fn log_queue_error<R: std::error::Error, Q: std::error::Error>(
    controller: &str,
    error: &kube::runtime::controller::Error<R, Q>,
) {
    use kube::runtime::controller::Error;
    match error {
        // The object is gone, or its reconciliation failed and said so.
        Error::ObjectNotFound(_) | Error::ReconcilerFailed(..) => {}
        error => tracing::warn!(controller, %error, "the watch was interrupted; it goes on by itself"),
    }
}

/// Which policies to look at when a workload changes. Lost notices make everything due.
fn workload_changes(
    context: Arc<Context>,
    index: &ClusterIndex,
    scope: Option<&str>,
) -> impl futures::Stream<Item = ObjectRef<Guarded>> + Send + 'static {
    let changes: broadcast::Receiver<_> = index.changes();
    let scope = scope.map(str::to_owned);
    BroadcastStream::new(changes).flat_map(move |change| {
        let keys: Vec<(String, String)> = match change {
            Ok(changed) => {
                let names = context.memory.mark_changed(&changed.namespace, &changed.name);
                names.into_iter().map(|name| (changed.namespace.to_string(), name)).collect()
            }
            Err(BroadcastStreamRecvError::Lagged(_)) => context.memory.mark_all_changed(),
        };
        stream::iter(in_scope(keys, scope.as_deref()))
    })
}

/// The condition `LedgerAvailable` of every policy follows the ledger.
fn ledger_changes(
    context: Arc<Context>,
    scope: Option<&str>,
) -> impl futures::Stream<Item = ObjectRef<Guarded>> + Send + 'static {
    let scope = scope.map(str::to_owned);
    WatchStream::from_changes(context.ledger.health()).flat_map(move |_| {
        let keys = context.memory.all().into_iter().map(|(key, _)| key).collect();
        stream::iter(in_scope(keys, scope.as_deref()))
    })
}

fn in_scope(keys: Vec<(String, String)>, scope: Option<&str>) -> Vec<ObjectRef<Guarded>> {
    keys.into_iter()
        .filter(|(namespace, _)| scope.is_none_or(|scope| scope == namespace))
        .map(|(namespace, name)| ObjectRef::new(&name).within(&namespace))
        .collect()
}
