//! `panacea run`: connects the modules and waits for their end.

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
/// Before that, the time limit for calls to hooks, webhooks and tools.
const DRAIN_LIMIT: Duration = Duration::from_secs(4);

#[derive(Debug, Args)]
pub(super) struct RunArgs {
    /// Watch only this namespace (may be repeated). Default: all
    #[arg(long = "watch-namespace", env = "PANACEA_WATCH_NAMESPACES", value_delimiter = ',', value_name = "NAMESPACE")]
    watch_namespaces: Vec<String>,
    /// Address of /metrics, /healthz and /readyz
    #[arg(long, env = "PANACEA_LISTEN_ADDRESS", default_value = "0.0.0.0:8080", value_name = "ADDRESS")]
    listen_address: SocketAddr,
    /// Namespace of Argo CD: of Applications whose tracking annotation or label names none
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
    let thresholds = args.measure.thresholds.thresholds()?;
    let hosting = args.measure.hosting()?;
    let ledger = args.ledger_write.options(&args.ledger)?;
    let namespaces: Vec<String> = args.watch_namespaces.into_iter().filter(|namespace| !namespace.is_empty()).collect();
    let client = connect().await?;
    let listener = server::listen(args.listen_address)
        .await
        .with_context(|| format!("--listen-address {} cannot be opened", args.listen_address))?;

    let shutdown = CancellationToken::new();
    // The ledger stops last, so that it writes the controllers' last rows.
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
    tracing::info!(version = env!("CARGO_PKG_VERSION"), scope, listen = %args.listen_address, "panacea is starting");

    let server = Server::new(context.clone(), index.clone()).run(listener, shutdown.clone());
    let controllers = controller::run::run(context.clone(), index, &namespaces, shutdown.clone());
    tokio::pin!(server, controllers);
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM cannot be listened to")?;
    // A reconciliation stores the response to a call, and kube starts no reconciliation after a graceful shutdown has begun,
    // not even a scheduled one. So the controllers continue while calls end, and only new calls are refused. The next process
    // handles calls that have not ended: it delivers hooks and webhooks again with the same key, and does not call tools again.
    let stopping = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
        let limit = (DRAIN_LIMIT + STOP_LIMIT).as_secs();
        tracing::info!("panacea is stopping: finishing work in progress, for at most {limit} s");
        if !context.targets.drain(DRAIN_LIMIT).await {
            tracing::warn!("a call to a hook, webhook or tool has not ended; the next process continues from there");
        }
    };
    let early = tokio::select! {
        ended = &mut controllers => Some(ended.map_err(anyhow::Error::from)),
        ended = &mut server => Some(ended.context("the HTTP server failed")),
        () = stopping => None,
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
    if let Some(ended) = early {
        ended?;
        anyhow::bail!("a part of the operator exited unexpectedly");
    }
    stopped.unwrap_or_else(|_| {
        tracing::warn!("work in progress was not finished in time; it continues when the operator starts again");
        Ok(())
    })?;
    tracing::info!("panacea has stopped");
    Ok(ExitCode::SUCCESS)
}
