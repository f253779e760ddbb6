//! Metrics that are read from the live memory at each scrape, so that no stale series is left.

use std::{fmt, sync::Arc};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeGaugeValue, EncodeLabelSet, EncodeMetric},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
};

use crate::{
    api::HealthStatus,
    controller::{Context, memory::Memory},
    knowledge::{LedgerHealth, LedgerStats},
};

/// The state of components and of the ledger.
pub struct Live(pub Arc<Context>);

impl fmt::Debug for Live {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Live").finish_non_exhaustive()
    }
}

impl Collector for Live {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        components(&mut encoder, &self.0.memory)?;
        let available = *self.0.ledger.health().borrow() == LedgerHealth::Available;
        ledger(&mut encoder, available, self.0.ledger.stats())
    }
}

/// The operator's own process.
#[derive(Debug)]
pub struct Process;

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Some(bytes) = resident_bytes() else { return Ok(()) };
        let help = "Resident memory size in bytes.";
        single(&mut encoder, "process_resident_memory_bytes", help, &ConstGauge::new(bytes))
    }
}

/// The shown part of one component.
struct Component {
    labels: [(&'static str, String); 3],
    status: HealthStatus,
    score: Option<u8>,
    /// The state of its provider's circuit breaker, while that is not closed.
    circuit: Option<&'static str>,
    probability: Option<f64>,
    seconds_to_failure: Option<f64>,
}

impl Component {
    fn labels(&self) -> [(&str, &str); 3] {
        self.labels.each_ref().map(|(name, value)| (*name, value.as_str()))
    }

    fn labels_and<'a>(&'a self, name: &'a str, value: &'a str) -> [(&'a str, &'a str); 4] {
        let [namespace, policy, component] = self.labels();
        [namespace, policy, component, (name, value)]
    }
}

fn components(encoder: &mut DescriptorEncoder<'_>, memory: &Memory) -> fmt::Result {
    let mut all = Vec::new();
    for ((namespace, policy), memory) in memory.all() {
        all.extend(memory.lock().components.iter().map(|(name, entry)| {
            let (assessment, forecast) = (entry.last.as_ref().map(|check| &check.assessment), entry.forecast.as_ref());
            Component {
                labels: [("namespace", namespace.clone()), ("policy", policy.clone()), ("component", name.clone())],
                status: assessment.map_or(HealthStatus::Unknown, |assessment| assessment.status),
                score: assessment.and_then(|assessment| assessment.score),
                circuit: entry.circuit.as_ref().map(|circuit| circuit.state.into()),
                probability: forecast.map(|forecast| forecast.probability()),
                seconds_to_failure: forecast.and_then(|forecast| forecast.time_to_failure).map(|time| time.seconds),
            }
        }));
    }
    let help = "Status of a component: 1 for the current one.";
    family(encoder, "component_status", help, all.iter().map(|one| (one.labels_and("status", one.status.into()), 1)))?;
    let help = "Health score of a component, 0 to 100.";
    let scores = all.iter().filter_map(|one| Some((one.labels(), u32::from(one.score?))));
    family(encoder, "component_score", help, scores)?;
    let help = "Forecast failure probability of a component, 0 to 1.";
    let probabilities = all.iter().filter_map(|one| Some((one.labels(), one.probability?)));
    family(encoder, "component_failure_probability_ratio", help, probabilities)?;
    let help = "Forecast time to the failure of a component.";
    let times = all.iter().filter_map(|one| Some((one.labels(), one.seconds_to_failure?.round_ties_even() as i64)));
    family(encoder, "component_time_to_failure_seconds", help, times)?;
    let help = "Circuit breaker of a component's provider: 1 for the current state; no series while it is closed.";
    let circuits = all.iter().filter_map(|one| Some((one.labels_and("state", one.circuit?), 1)));
    family(encoder, "component_circuit", help, circuits)
}

fn ledger(encoder: &mut DescriptorEncoder<'_>, available: bool, stats: &LedgerStats) -> fmt::Result {
    let help = "Whether the ledger can be written to.";
    single(encoder, "ledger_available", help, &ConstGauge::new(u64::from(available)))?;
    let help = "Rows that wait on disk for the ledger.";
    let waiting = [("healing", stats.healing_spooled()), ("health", stats.health_spooled())];
    family(encoder, "ledger_spool_rows", help, waiting.map(|(kind, rows)| ([("kind", kind)], rows)))?;
    let help = "Bytes of these rows, of the spool's limit.";
    single(encoder, "ledger_spool_bytes", help, &ConstGauge::new(stats.spool_bytes()))?;
    let dropped = "Rows of checks and cycles that were lost because the ledger was unreachable or slow; with a spool, counted over restarts.";
    for (name, help, value) in [
        ("ledger_rows_written", "Rows written to the ledger.", stats.rows_written()),
        ("ledger_rows_dropped", dropped, stats.rows_dropped()),
        ("ledger_rows_refused", "Rows that the ledger's database refused for their content.", stats.rows_refused()),
        ("ledger_rows_expired", "Rows deleted because they were older than the retention.", stats.rows_expired()),
        ("ledger_retention_failures", "Failed attempts to delete old rows of a table.", stats.retentions_failed()),
        ("ledger_spool_entries_corrupt", "Damaged entries of the spool, which were skipped.", stats.entries_corrupt()),
    ] {
        single(encoder, name, help, &ConstCounter::new(value))?;
    }
    Ok(())
}

/// Gauges of one name, which is described also without series.
fn family<Labels: EncodeLabelSet, Value: EncodeGaugeValue>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    series: impl IntoIterator<Item = (Labels, Value)>,
) -> fmt::Result {
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    series.into_iter().try_for_each(|(labels, value)| metric.encode_family(&labels)?.encode_gauge(&value))
}

/// A metric without labels.
fn single(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, metric: &impl EncodeMetric) -> fmt::Result {
    metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)
}

/// Second field of /proc/self/statm (proc(5)), in pages of 4 KiB; none where there is no procfs.
fn resident_bytes() -> Option<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    statm.split_whitespace().nth(1)?.parse::<u64>().ok().map(|pages| pages * 4096)
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use prometheus_client::{encoding::text::encode, registry::Registry};

    use super::*;
    use crate::{
        analyze::{
            assess::Assessment,
            forecast::{Confidence, Forecast, TimeToFailure},
            observation::{Measured, Observation, UnknownReason, Unmeasured},
        },
        api::{CircuitState, CircuitStatus},
        controller::memory::{Check, ComponentMemory},
    };

    /// All but the process, as [`Live`] gives it.
    #[derive(Debug)]
    struct Parts(Arc<Memory>, LedgerStats);

    impl Collector for Parts {
        fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
            components(&mut encoder, &self.0)?;
            ledger(&mut encoder, true, &self.1)
        }
    }

    fn checked() -> ComponentMemory {
        let target = Measured::Unknown(Unmeasured::new(UnknownReason::Unreachable, String::new()));
        let observation = Observation { at: Timestamp::UNIX_EPOCH, target, metrics: Default::default() };
        let (problems, unknowns) = (Vec::new(), Vec::new());
        let assessment = Assessment { status: HealthStatus::Degraded, score: Some(73), problems, unknowns };
        ComponentMemory {
            last: Some(Check { observation, assessment }),
            circuit: Some(CircuitStatus { state: CircuitState::Open, retry_at: None }),
            forecast: Some(Forecast {
                within: [0.1, 0.25, 0.625],
                time_to_failure: Some(TimeToFailure { seconds: 5399.6, earliest: 1.0, latest: 9000.0 }),
                leak: false,
                confidence: Confidence::High,
                reasons: Vec::new(),
                exhaustions: Vec::new(),
                memory: None,
            }),
            ..ComponentMemory::default()
        }
    }

    #[test]
    fn the_names_of_the_metrics_of_components_and_ledger_do_not_change() {
        let memory = Arc::new(Memory::default());
        memory.policy("prod", "shop", "uid").lock().components =
            [("api".to_owned(), checked()), ("web".to_owned(), ComponentMemory::default())].into();
        let mut registry = Registry::with_prefix("panacea");
        registry.register_collector(Box::new(Parts(memory.clone(), LedgerStats::default())));
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        assert_eq!(
            text,
            r#"# HELP panacea_component_status Status of a component: 1 for the current one.
# TYPE panacea_component_status gauge
panacea_component_status{namespace="prod",policy="shop",component="api",status="Degraded"} 1
panacea_component_status{namespace="prod",policy="shop",component="web",status="Unknown"} 1
# HELP panacea_component_score Health score of a component, 0 to 100.
# TYPE panacea_component_score gauge
panacea_component_score{namespace="prod",policy="shop",component="api"} 73
# HELP panacea_component_failure_probability_ratio Forecast failure probability of a component, 0 to 1.
# TYPE panacea_component_failure_probability_ratio gauge
panacea_component_failure_probability_ratio{namespace="prod",policy="shop",component="api"} 0.625
# HELP panacea_component_time_to_failure_seconds Forecast time to the failure of a component.
# TYPE panacea_component_time_to_failure_seconds gauge
panacea_component_time_to_failure_seconds{namespace="prod",policy="shop",component="api"} 5400
# HELP panacea_component_circuit Circuit breaker of a component's provider: 1 for the current state; no series while it is closed.
# TYPE panacea_component_circuit gauge
panacea_component_circuit{namespace="prod",policy="shop",component="api",state="Open"} 1
# HELP panacea_ledger_available Whether the ledger can be written to.
# TYPE panacea_ledger_available gauge
panacea_ledger_available 1
# HELP panacea_ledger_spool_rows Rows that wait on disk for the ledger.
# TYPE panacea_ledger_spool_rows gauge
panacea_ledger_spool_rows{kind="healing"} 0
panacea_ledger_spool_rows{kind="health"} 0
# HELP panacea_ledger_spool_bytes Bytes of these rows, of the spool's limit.
# TYPE panacea_ledger_spool_bytes gauge
panacea_ledger_spool_bytes 0
# HELP panacea_ledger_rows_written Rows written to the ledger.
# TYPE panacea_ledger_rows_written counter
panacea_ledger_rows_written_total 0
# HELP panacea_ledger_rows_dropped Rows of checks and cycles that were lost because the ledger was unreachable or slow; with a spool, counted over restarts.
# TYPE panacea_ledger_rows_dropped counter
panacea_ledger_rows_dropped_total 0
# HELP panacea_ledger_rows_refused Rows that the ledger's database refused for their content.
# TYPE panacea_ledger_rows_refused counter
panacea_ledger_rows_refused_total 0
# HELP panacea_ledger_rows_expired Rows deleted because they were older than the retention.
# TYPE panacea_ledger_rows_expired counter
panacea_ledger_rows_expired_total 0
# HELP panacea_ledger_retention_failures Failed attempts to delete old rows of a table.
# TYPE panacea_ledger_retention_failures counter
panacea_ledger_retention_failures_total 0
# HELP panacea_ledger_spool_entries_corrupt Damaged entries of the spool, which were skipped.
# TYPE panacea_ledger_spool_entries_corrupt counter
panacea_ledger_spool_entries_corrupt_total 0
# EOF
"#
        );
        // A forgotten policy has no series at the next scrape.
        memory.forget("prod", "shop");
        text.clear();
        encode(&mut text, &registry).unwrap();
        assert!(text.contains("# TYPE panacea_component_status gauge") && !text.contains("prod"), "{text}");
    }

    #[test]
    fn the_process_has_no_prefix() {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Process));
        registry
            .sub_registry_with_prefix("panacea")
            .register_collector(Box::new(Parts(Arc::new(Memory::default()), LedgerStats::default())));
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        let bytes = text.lines().find_map(|line| line.strip_prefix("process_resident_memory_bytes "));
        assert!(bytes.is_some_and(|bytes| bytes.parse::<u64>().is_ok_and(|bytes| bytes > 1024 * 1024)), "{text}");
        assert!(text.contains("\npanacea_ledger_available 1\n"), "{text}");
    }
}
