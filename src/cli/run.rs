//! `panacea run`: wires the rooms and waits for their end.

use std::{net::SocketAddr, process::ExitCode, sync::Arc, time::Duration};

use anyhow::Context as _;
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::{
    config::{LedgerArgs, LedgerWriteArgs, MeasureArgs, connect},
    logging::{self, LogArgs},
};
use crate::{
    analyze::forecast::Foresight,
    controller::{
        self, Context, crd_readiness::CrdReadiness, events::Events, memory::Memory, metrics::ControllerMetrics,
        write_tracker::WriteTracker,
    },
    knowledge::Ledger,
    server::{self, Server},
    targets::{
        Targets,
        kubernetes::{ARGOCD_NAMESPACE, ClusterIndex},
    },
};

/// The controllers and the ledger stop within this time; the chart gives the pod 15 s.
const STOP_LIMIT: Duration = Duration::from_secs(9);
/// Before that, calls to hooks, webhooks and tools get so long to end.
const DRAIN_LIMIT: Duration = Duration::from_secs(4);

#[derive(Debug, Args)]
pub(super) struct RunArgs {
    /// Only look at this namespace (may be repeated). Left out: all
    #[arg(long = "watch-namespace", env = "PANACEA_WATCH_NAMESPACES", value_delimiter = ',', value_name = "NAMESPACE")]
    watch_namespaces: Vec<String>,
    /// Where /metrics, /healthz and /readyz are served
    #[arg(long, env = "PANACEA_LISTEN_ADDRESS", default_value = "0.0.0.0:8080", value_name = "ADDRESS")]
    listen_address: SocketAddr,
    /// Where Argo CD runs: the namespace of Applications whose marks name none
    #[arg(long, env = "PANACEA_ARGOCD_NAMESPACE", default_value = ARGOCD_NAMESPACE, value_name = "NAMESPACE")]
    argocd_namespace: String,
    #[command(flatten)]
    measure: MeasureArgs,
    #[command(flatten)]
    ledger: LedgerArgs,
    #[command(flatten)]
    ledger_write: LedgerWriteArgs,
    #[command(flatten)]
    log: LogArgs,
}

pub(super) async fn run(args: RunArgs) -> anyhow::Result<ExitCode> {
    logging::start(&args.log)?;
    let prometheus_url = args.measure.prometheus_url()?;
    let thresholds = args.measure.thresholds()?;
    let hosting = args.measure.hosting()?;
    let ledger = args.ledger_write.options(&args.ledger)?;
    let namespaces: Vec<String> = args.watch_namespaces.into_iter().filter(|namespace| !namespace.is_empty()).collect();
    let client = connect().await?;
    let listener = server::listen(args.listen_address)
        .await
        .with_context(|| format!("--listen-address {} cannot be opened", args.listen_address))?;

    let shutdown = CancellationToken::new();
    // The ledger stops last, so that the controllers' last rows get in.
    let ledger_shutdown = CancellationToken::new();
    let (ledger, ledger_task) = Ledger::start(ledger, ledger_shutdown.clone());
    let index = Arc::new(ClusterIndex::default());
    let metrics = ControllerMetrics::default();
    let mut targets = Targets::new(client.clone(), index.clone(), prometheus_url).with_hosting(hosting);
    targets.kubernetes = targets.kubernetes.with_argocd_namespace(&args.argocd_namespace);
    let context = Arc::new(Context {
        targets,
        ledger,
        forecaster: Box::new(Foresight),
        thresholds,
        memory: Memory::default(),
        kinds: CrdReadiness::default(),
        events: Events::new(client.clone(), metrics.clone()),
        metrics,
        backoff: Default::default(),
        starting: tokio::sync::Mutex::new(()),
        written: WriteTracker::default(),
        client,
    });
    let scope = if namespaces.is_empty() { "all namespaces".to_owned() } else { namespaces.join(", ") };
    tracing::info!(version = env!("CARGO_PKG_VERSION"), scope, listen = %args.listen_address, "panacea starts");

    let server = Server::new(context.clone(), index.clone()).run(listener, shutdown.clone());
    let controllers = controller::run::run(context.clone(), index, &namespaces, shutdown.clone());
    tokio::pin!(server, controllers);
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM cannot be listened to")?;
    let early = tokio::select! {
        ended = &mut controllers => Some(ended.map_err(anyhow::Error::from)),
        ended = &mut server => Some(ended.context("the HTTP server ended")),
        _ = terminate.recv() => None,
        _ = tokio::signal::ctrl_c() => None,
    };
    let stop_limit = DRAIN_LIMIT + STOP_LIMIT;
    tracing::info!("panacea stops: what is being done is finished first, {} s at most", stop_limit.as_secs());
    // The answer to a call is stored by a reconciliation, and kube starts none after a graceful shutdown has begun, also
    // none that was scheduled before. So the controllers go on while calls end, and only new calls are refused. What has
    // not ended by then is left to the next process: it delivers hooks and webhooks again with the same key, and does not
    // call tools again.
    let early = match early {
        None => tokio::select! {
            ended = &mut controllers => Some(ended.map_err(anyhow::Error::from)),
            ended = &mut server => Some(ended.context("the HTTP server ended")),
            drained = context.targets.drain(DRAIN_LIMIT) => {
                if !drained {
                    tracing::warn!("a call to a hook, webhook or tool has not ended; the next process goes on from there");
                }
                None
            }
        },
        early => early,
    };
    shutdown.cancel();
    let stopped = tokio::time::timeout(STOP_LIMIT, async {
        if early.is_none() {
            let (controllers, server) = tokio::join!(controllers, server);
            controllers?;
            server?;
        }
        ledger_shutdown.cancel();
        ledger_task.await.context("the ledger's writer failed")
    })
    .await;
    match early {
        Some(ended) => {
            ended?;
            anyhow::bail!("a part of the operator ended unasked");
        }
        None => {
            stopped.unwrap_or_else(|_| {
                tracing::warn!("not everything was finished in time; it goes on when the operator is started again");
                Ok(())
            })?;
            tracing::info!("panacea has stopped");
            Ok(ExitCode::SUCCESS)
        }
    }
}
