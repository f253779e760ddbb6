//! What the controllers count. `server/` registers it. Labels are closed sets, never object names, except for the
//! state of components, which is collected from the live memory at each scrape so that nothing stale is left.

use std::sync::Arc;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, histogram::Histogram},
    registry::Registry,
};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ReasonLabel {
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OutcomeLabels {
    action: &'static str,
    phase: &'static str,
}

#[derive(Debug, Clone)]
pub struct ControllerMetrics(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    events: Family<ReasonLabel, Counter>,
    refusals: Family<ReasonLabel, Counter>,
    unknowns: Family<ReasonLabel, Counter>,
    remediations: Family<OutcomeLabels, Counter>,
    checks: Counter,
    check_seconds: Histogram,
    status_writes: Counter,
    errors: Family<ReasonLabel, Counter>,
}

impl Default for ControllerMetrics {
    fn default() -> Self {
        Self(Arc::new(Inner {
            events: Family::default(),
            refusals: Family::default(),
            unknowns: Family::default(),
            remediations: Family::default(),
            checks: Counter::default(),
            // A look is bounded by its time limit of 3 s.
            check_seconds: Histogram::new([0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 3.0]),
            status_writes: Counter::default(),
            errors: Family::default(),
        }))
    }
}

impl ControllerMetrics {
    pub fn register(&self, registry: &mut Registry) {
        let inner = &self.0;
        registry.register("events", "Facts told to people as events and log lines, by reason", inner.events.clone());
        registry.register(
            "refusals",
            "Decisions in which a guard held an action back, by guard",
            inner.refusals.clone(),
        );
        registry.register("unmeasured", "Readings that could not be taken, by reason", inner.unknowns.clone());
        registry.register(
            "remediations_finished",
            "Remediations that ended, by action and phase",
            inner.remediations.clone(),
        );
        registry.register("checks", "Looks at components", inner.checks.clone());
        registry.register(
            "check_duration_seconds",
            "How long a look at one component took",
            inner.check_seconds.clone(),
        );
        registry.register("status_writes", "Writes of a policy's or Remediation's status", inner.status_writes.clone());
        registry.register(
            "reconcile_errors",
            "Reconciliations that ended in an error, by reason",
            inner.errors.clone(),
        );
    }

    pub fn fact(&self, reason: &'static str) {
        self.0.events.get_or_create(&ReasonLabel { reason }).inc();
    }

    pub fn refusal(&self, guard: &'static str) {
        self.0.refusals.get_or_create(&ReasonLabel { reason: guard }).inc();
    }

    pub fn unknown(&self, reason: &'static str) {
        self.0.unknowns.get_or_create(&ReasonLabel { reason }).inc();
    }

    pub fn finished(&self, action: &'static str, phase: &'static str) {
        self.0.remediations.get_or_create(&OutcomeLabels { action, phase }).inc();
    }

    pub fn check(&self, seconds: f64) {
        self.0.checks.inc();
        self.0.check_seconds.observe(seconds);
    }

    pub fn status_write(&self) {
        self.0.status_writes.inc();
    }

    pub fn error(&self, reason: &'static str) {
        self.0.errors.get_or_create(&ReasonLabel { reason }).inc();
    }
}
