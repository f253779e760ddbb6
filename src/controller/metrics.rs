//! What the controllers count. `server/` registers it. Labels are closed sets, never object names, except for the
//! state of components, which is collected from the live memory at each scrape so that no stale series is left.

use prometheus_client::{
    metrics::{counter::Counter, family::Family, histogram::Histogram},
    registry::Registry,
};

type Labels<const N: usize> = [(&'static str, &'static str); N];
type ByReason = Family<Labels<1>, Counter>;

#[derive(Debug, Clone)]
pub struct ControllerMetrics {
    events: ByReason,
    refusals: ByReason,
    unknowns: ByReason,
    remediations: Family<Labels<2>, Counter>,
    checks: Counter,
    check_seconds: Histogram,
    status_writes: Counter,
    errors: ByReason,
}

impl Default for ControllerMetrics {
    fn default() -> Self {
        Self {
            events: Family::default(),
            refusals: Family::default(),
            unknowns: Family::default(),
            remediations: Family::default(),
            checks: Counter::default(),
            // A check is bounded by its time limit of 3 s.
            check_seconds: Histogram::new([0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 3.0]),
            status_writes: Counter::default(),
            errors: Family::default(),
        }
    }
}

impl ControllerMetrics {
    pub fn register(&self, registry: &mut Registry) {
        registry.register("events", "Facts reported as events and log lines, by reason", self.events.clone());
        let help = "Decisions in which a guard held an action back, by guard";
        registry.register("refusals", help, self.refusals.clone());
        registry.register("unmeasured", "Readings that could not be taken, by reason", self.unknowns.clone());
        let help = "Remediations that ended, by action and phase";
        registry.register("remediations_finished", help, self.remediations.clone());
        registry.register("checks", "Checks of components", self.checks.clone());
        registry.register(
            "check_duration_seconds",
            "Duration of the check of one component",
            self.check_seconds.clone(),
        );
        registry.register("status_writes", "Writes of a policy's or Remediation's status", self.status_writes.clone());
        let help = "Reconciliations that ended in an error, by reason";
        registry.register("reconcile_errors", help, self.errors.clone());
    }

    pub fn fact(&self, reason: &'static str) {
        self.events.get_or_create(&[("reason", reason)]).inc();
    }

    pub fn refusal(&self, guard: &'static str) {
        self.refusals.get_or_create(&[("reason", guard)]).inc();
    }

    pub fn unknown(&self, reason: &'static str) {
        self.unknowns.get_or_create(&[("reason", reason)]).inc();
    }

    pub fn finished(&self, action: &'static str, phase: &'static str) {
        self.remediations.get_or_create(&[("action", action), ("phase", phase)]).inc();
    }

    pub fn check(&self, seconds: f64) {
        self.checks.inc();
        self.check_seconds.observe(seconds);
    }

    pub fn status_write(&self) {
        self.status_writes.inc();
    }

    pub fn error(&self, reason: &'static str) {
        self.errors.get_or_create(&[("reason", reason)]).inc();
    }
}
