//! `/metrics`, `/healthz`, `/readyz`: only registers what the other modules count, and decides nothing. Beside them
//! [`mcp`], a separate program.

mod collectors;
pub mod mcp;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router, extract::State, http::StatusCode, http::header::CONTENT_TYPE, response::IntoResponse, routing::get,
};
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tower_http::timeout::TimeoutLayer;

use crate::{controller::Context, targets::kubernetes::ClusterIndex};

/// The time limit of a request.
const LIMIT: Duration = Duration::from_secs(5);

pub struct Server {
    context: Arc<Context>,
    index: Arc<ClusterIndex>,
    registry: Registry,
}

impl Server {
    pub fn new(context: Arc<Context>, index: Arc<ClusterIndex>) -> Self {
        let mut registry = Registry::default();
        // A standard name, without prefix.
        registry.register_collector(Box::new(collectors::Process));
        let ours = registry.sub_registry_with_prefix("panacea");
        context.metrics.register(ours);
        ours.register_collector(Box::new(collectors::Live(context.clone())));
        Self { context, index, registry }
    }

    /// Serves until `shutdown`.
    pub async fn run(self, listener: TcpListener, shutdown: CancellationToken) -> std::io::Result<()> {
        let router = Router::new()
            .route("/metrics", get(metrics))
            .route("/healthz", get(|| async { "ok" }))
            .route("/readyz", get(readyz))
            .layer(TimeoutLayer::with_status_code(StatusCode::SERVICE_UNAVAILABLE, LIMIT))
            .with_state(Arc::new(self));
        axum::serve(listener, router).with_graceful_shutdown(shutdown.cancelled_owned()).await
    }
}

/// Opens the port before the rest starts, so that a port in use is a clear error.
pub async fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    TcpListener::bind(address).await
}

/// Ready once the operator's own kinds and the cluster were listed. The ledger does not count: healing must not depend
/// on it.
async fn readyz(State(server): State<Arc<Server>>) -> impl IntoResponse {
    match server.context.kinds.ready() {
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, why),
        Ok(()) if !server.index.ready() => {
            (StatusCode::SERVICE_UNAVAILABLE, "the first list of the cluster is not complete yet".to_owned())
        }
        Ok(()) => (StatusCode::OK, "ok".to_owned()),
    }
}

async fn metrics(State(server): State<Arc<Server>>) -> impl IntoResponse {
    let mut text = String::new();
    if prometheus_client::encoding::text::encode(&mut text, &server.registry).is_err() {
        return (StatusCode::INTERNAL_SERVER_ERROR, "the metrics could not be encoded").into_response();
    }
    ([(CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text).into_response()
}
