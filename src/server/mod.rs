//! `/metrics`, `/healthz`, `/readyz`: only registers what the rooms count, and decides nothing. Beside them [`mcp`], a
//! program of its own.

pub mod mcp;

use std::{fmt::Write as _, net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router, extract::State, http::StatusCode, http::header::CONTENT_TYPE, response::IntoResponse, routing::get,
};
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tower_http::timeout::TimeoutLayer;

use crate::{
    api::{CircuitStatus, HealthStatus},
    controller::Context,
    knowledge::LedgerHealth,
    targets::kubernetes::ClusterIndex,
};

/// No request is served longer.
const LIMIT: Duration = Duration::from_secs(5);

pub struct Server {
    context: Arc<Context>,
    index: Arc<ClusterIndex>,
    registry: Registry,
}

impl Server {
    pub fn new(context: Arc<Context>, index: Arc<ClusterIndex>) -> Self {
        let mut registry = Registry::with_prefix("panacea");
        context.metrics.register(&mut registry);
        Self { context, index, registry }
    }

    /// Serves until `shutdown`.
    ///
    /// # Errors
    /// When the listener fails.
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

/// Opens the port, so that a taken one is a clear error at start.
///
/// # Errors
/// When the address cannot be bound.
pub async fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    TcpListener::bind(address).await
}

/// Ready when our own kinds and the cluster were listed once. The ledger is not asked: it must not keep us from
/// healing.
async fn readyz(State(server): State<Arc<Server>>) -> impl IntoResponse {
    match server.context.kinds.ready() {
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, why),
        Ok(()) if !server.index.ready() => {
            (StatusCode::SERVICE_UNAVAILABLE, "the first listing of the cluster is not done yet".to_owned())
        }
        Ok(()) => (StatusCode::OK, "ok".to_owned()),
    }
}

async fn metrics(State(server): State<Arc<Server>>) -> impl IntoResponse {
    let mut text = String::new();
    if prometheus_client::encoding::text::encode(&mut text, &server.registry).is_err() {
        return (StatusCode::INTERNAL_SERVER_ERROR, "the metrics could not be encoded").into_response();
    }
    let text = text.trim_end_matches("# EOF\n").to_owned() + &live(&server) + "# EOF\n";
    ([(CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text).into_response()
}

/// Gauges made from the live memory at each scrape: what is gone leaves no series behind.
fn live(server: &Server) -> String {
    let mut text = String::new();
    let mut status = String::from(
        "# HELP panacea_component_status Status of a component: 1 for the one it has.\n# TYPE panacea_component_status gauge\n",
    );
    let mut score = String::from(
        "# HELP panacea_component_score Health score of a component, 0 to 100.\n# TYPE panacea_component_score gauge\n",
    );
    let mut probability = String::from(
        "# HELP panacea_component_failure_probability_ratio Forecast failure probability of a component, 0 to 1.\n# TYPE panacea_component_failure_probability_ratio gauge\n",
    );
    let mut time = String::from(
        "# HELP panacea_component_time_to_failure_seconds Foreseen time to the failure of a component.\n# TYPE panacea_component_time_to_failure_seconds gauge\n",
    );
    let mut circuit = String::from(
        "# HELP panacea_component_circuit Circuit breaker of a component's provider: 1 for the state it is in; none while it is closed.\n# TYPE panacea_component_circuit gauge\n",
    );
    for ((namespace, policy), memory) in server.context.memory.all() {
        for (component, entry) in &memory.lock().components {
            // Names are checked by Kubernetes: no character needs escaping.
            let labels = format!(r#"namespace="{namespace}",policy="{policy}",component="{component}""#);
            let current = entry.last.as_ref().map_or(HealthStatus::Unknown, |look| look.assessment.status);
            let _ = writeln!(status, "panacea_component_status{{{labels},status=\"{current}\"}} 1");
            if let Some(value) = entry.last.as_ref().and_then(|look| look.assessment.score) {
                let _ = writeln!(score, "panacea_component_score{{{labels}}} {value}");
            }
            if let Some(CircuitStatus { state, .. }) = &entry.circuit {
                let _ = writeln!(circuit, "panacea_component_circuit{{{labels},state=\"{state}\"}} 1");
            }
            if let Some(forecast) = &entry.forecast {
                let _ = writeln!(
                    probability,
                    "panacea_component_failure_probability_ratio{{{labels}}} {}",
                    forecast.probability()
                );
                if let Some(foreseen) = forecast.time_to_failure {
                    let _ =
                        writeln!(time, "panacea_component_time_to_failure_seconds{{{labels}}} {:.0}", foreseen.seconds);
                }
            }
        }
    }
    text.push_str(&status);
    text.push_str(&score);
    text.push_str(&probability);
    text.push_str(&time);
    text.push_str(&circuit);
    let ledger = &server.context.ledger;
    let available = u8::from(*ledger.health().borrow() == LedgerHealth::Available);
    let stats = ledger.stats();
    let _ = write!(
        text,
        "# HELP panacea_ledger_available Whether the ledger can be written to.\n# TYPE panacea_ledger_available gauge\npanacea_ledger_available {available}\n\
         # HELP panacea_ledger_spool_rows Rows that wait on disk for the ledger.\n# TYPE panacea_ledger_spool_rows gauge\n\
         panacea_ledger_spool_rows{{kind=\"healing\"}} {}\npanacea_ledger_spool_rows{{kind=\"health\"}} {}\n\
         # HELP panacea_ledger_spool_bytes What they take of the spool's bound.\n# TYPE panacea_ledger_spool_bytes gauge\npanacea_ledger_spool_bytes {}\n",
        stats.healing_spooled(),
        stats.health_spooled(),
        stats.spool_bytes(),
    );
    for (name, help, value) in [
        ("rows_written", "Rows written to the ledger.", stats.rows_written()),
        (
            "rows_dropped",
            "Rows of checks and cycles that were lost because the ledger was away or slow; with a spool, of all lives of it.",
            stats.rows_dropped(),
        ),
        ("rows_refused", "Rows that the ledger's database refused for what they hold.", stats.rows_refused()),
        ("rows_expired", "Rows deleted because they were older than the retention.", stats.rows_expired()),
        ("retention_failures", "Passes over a table to delete old rows that failed.", stats.retentions_failed()),
        ("spool_entries_corrupt", "Entries of the spool that were damaged and skipped.", stats.entries_corrupt()),
    ] {
        let _ = write!(
            text,
            "# HELP panacea_ledger_{name} {help}\n# TYPE panacea_ledger_{name} counter\npanacea_ledger_{name}_total {value}\n"
        );
    }
    if let Some(bytes) = resident_bytes() {
        let _ = write!(
            text,
            "# HELP process_resident_memory_bytes Resident memory size in bytes.\n# TYPE process_resident_memory_bytes gauge\nprocess_resident_memory_bytes {bytes}\n"
        );
    }
    text
}

/// Second field of /proc/self/statm (proc(5)), in pages of 4 KiB; none where there is no procfs.
fn resident_bytes() -> Option<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    statm.split_whitespace().nth(1)?.parse::<u64>().ok().map(|pages| pages * 4096)
}
