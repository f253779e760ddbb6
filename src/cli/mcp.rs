//! `panacea mcp`: an assistant can read the state and, with the Kubernetes rights of its user, decide.

use std::{net::SocketAddr, process::ExitCode};

use anyhow::Context as _;
use clap::Args;
use kube::Client;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::{
    config::cluster,
    logging::{self, LogArgs},
};
use crate::server::{
    self,
    mcp::{Cluster, Door, check_names, serve_http, serve_stdio},
};

#[derive(Debug, Args)]
pub(super) struct McpArgs {
    /// Serve HTTP at this address, under /mcp, instead of standard input and output. Every request then needs a token of
    /// the API server (Authorization: Bearer), and has the rights of that token
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// A host name, with or without port, that requests may use beside the loopback names (may be repeated). Needed when
    /// requests to --listen come from other machines
    #[arg(long = "allowed-host", value_name = "HOST", requires = "listen")]
    allowed_hosts: Vec<String>,
    /// An origin whose web pages may send requests, such as https://assistant.example.com:443 (may be repeated). Default: none
    #[arg(long = "allowed-origin", value_name = "ORIGIN", requires = "listen")]
    allowed_origins: Vec<String>,
    /// Namespace of requests that name none. Default: the namespace of the kubeconfig's context
    #[arg(short = 'n', long)]
    namespace: Option<String>,
    #[command(flatten)]
    log: LogArgs,
}

pub(super) async fn mcp(args: McpArgs) -> anyhow::Result<ExitCode> {
    logging::start(&args.log)?;
    let config = cluster().await?;
    let namespace = args.namespace.unwrap_or_else(|| config.default_namespace.clone());
    let Some(listen) = args.listen else {
        let client = Client::try_from(config).context("the cluster's configuration cannot be used")?;
        serve_stdio(Cluster::new(client, namespace, None)).await?;
        return Ok(ExitCode::SUCCESS);
    };
    check_names(listen, &args.allowed_hosts).map_err(anyhow::Error::msg)?;
    let listener = server::listen(listen).await.with_context(|| format!("--listen {listen} cannot be opened"))?;
    let door = Door::new(&config, namespace, args.allowed_hosts, args.allowed_origins);
    let stop = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM cannot be listened to")?;
    let stopper = stop.clone();
    let waiting = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
        stopper.cancel();
    };
    tracing::info!(%listen, "panacea mcp is listening");
    let (served, ()) = tokio::join!(serve_http(door, listener, stop), waiting);
    served.context("the HTTP server failed")?;
    Ok(ExitCode::SUCCESS)
}
