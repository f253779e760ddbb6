//! From a spec as written to a policy that the other modules take: parsed once, validated once.
//!
//! The rules of the API server refuse most mistakes at `kubectl apply`. Mistakes that the rules cannot express, or that an
//! object stored under older rules may have, are found here and named by field, value and fix. A bad component does not stop
//! the others.

use std::{collections::BTreeMap, fmt::Display, time::Duration};

use jiff::SignedDuration;
use url::Url;

use super::{
    Cause, Component, GitOps, HealingPolicy, HealingPolicySpec, Metric, Mode, OFFERED, OnTimeout, Span, Threshold,
    ValidTarget, default_ceilings,
};

mod action;
mod connections;
mod mcp;
mod remedies;

pub use action::ValidAction;
pub(crate) use mcp::is_loopback;

/// One mistake in a spec.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invalid {
    /// `spec.components[2].target.http.url`
    pub field: String,
    /// The component that is skipped because of the mistake; none when the mistake concerns the whole policy.
    pub component: Option<String>,
    /// The field, the value, why it is wrong, and what to write instead.
    pub message: String,
}

/// A policy whose every value is usable.
#[derive(Debug, Clone)]
pub struct ValidPolicy {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub generation: i64,
    pub interval: Duration,
    pub mode: Mode,
    pub suspend: bool,
    /// The valid components, in the order of the spec.
    pub components: Vec<ValidComponent>,
    /// The mistakes of the invalid components.
    pub invalid: Vec<Invalid>,
    pub limits: Limits,
}

/// The numbers of a policy, parsed.
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    pub unhealthy_after: u32,
    pub healthy_after: u32,
    pub confirm_after: Duration,
    pub release_watch_every: Duration,
    pub release_watch_for: SignedDuration,
    pub prediction: bool,
    pub prediction_horizon: SignedDuration,
    pub min_probability: f64,
    /// The most components that may be unhealthy at once, of all components of the spec.
    pub max_unhealthy: usize,
    pub max_concurrent: usize,
    pub budget_actions: usize,
    pub budget_window: SignedDuration,
    pub cooldown: SignedDuration,
    pub breaker_threshold: usize,
    pub breaker_recovery: SignedDuration,
    pub max_rollback_age: SignedDuration,
    pub git_ops: GitOps,
    pub approval_timeout: SignedDuration,
    pub on_timeout: OnTimeout,
    pub stabilization: SignedDuration,
    pub verification_timeout: SignedDuration,
}

/// A component whose every value is usable.
#[derive(Debug, Clone)]
pub struct ValidComponent {
    pub name: String,
    pub target: ValidTarget,
    pub metrics: Vec<MetricQuery>,
    /// By metric name; the defaults filled in, except for [`OFFERED`] metrics that the policy does not name.
    pub thresholds: BTreeMap<String, Threshold>,
    /// The highest possible values of metrics: `metrics[].limit`, and 100 for the well-known percentages.
    pub ceilings: BTreeMap<String, f64>,
    /// The ladder; the default ladder when the policy names none.
    pub remedies: Vec<ValidRemedy>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetricQuery {
    pub name: String,
    pub query: String,
    /// None: the Prometheus of the operator.
    pub url: Option<Url>,
}

/// A remedy whose every value is usable.
#[derive(Debug, Clone, PartialEq)]
pub struct ValidRemedy {
    pub action: ValidAction,
    /// Never empty.
    pub causes: Vec<Cause>,
    pub approval_required: bool,
}

impl Default for Limits {
    /// The limits of a policy that names none.
    fn default() -> Self {
        Checker::new("spec".to_owned(), None).limits(&HealingPolicySpec::default())
    }
}

impl ValidPolicy {
    /// Parses the policy. `defaults` are the operator-wide thresholds of the well-known metrics.
    ///
    /// # Errors
    /// When a value that concerns the whole policy is unusable; the list is never empty then.
    pub fn new(policy: &HealingPolicy, defaults: &BTreeMap<String, Threshold>) -> Result<Self, Vec<Invalid>> {
        let spec = &policy.spec;
        let mut check = Checker::new("spec".to_owned(), None);
        let interval = unsigned(check.duration("interval", &spec.interval, SECOND, HOUR));
        let limits = check.limits(spec);
        if spec.components.is_empty() {
            check.bad("components", "is empty; name at least one component");
        }
        if !check.found.is_empty() {
            return Err(check.found);
        }

        let mut components = Vec::with_capacity(spec.components.len());
        let mut invalid = Vec::new();
        for (index, component) in spec.components.iter().enumerate() {
            let mut check = Checker::new(format!("spec.components[{index}]"), Some(component.name.clone()));
            if spec.components[..index].iter().any(|other| other.name == component.name) {
                check.bad("name", format!("{:?} is used twice; every component needs a unique name", component.name));
            }
            let parsed = check.component(component, spec, defaults);
            match parsed {
                Some(valid) if check.found.is_empty() => components.push(valid),
                _ => invalid.extend(check.found),
            }
        }
        Ok(Self {
            namespace: policy.metadata.namespace.clone().unwrap_or_default(),
            name: policy.metadata.name.clone().unwrap_or_default(),
            uid: policy.metadata.uid.clone().unwrap_or_default(),
            generation: policy.metadata.generation.unwrap_or_default(),
            interval,
            mode: spec.mode,
            suspend: spec.suspend,
            components,
            invalid,
            limits,
        })
    }

    pub fn component(&self, name: &str) -> Option<&ValidComponent> {
        self.components.iter().find(|component| component.name == name)
    }
}

const SECOND: i64 = 1_000;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;

fn unsigned(duration: SignedDuration) -> Duration {
    Duration::try_from(duration).unwrap_or_default()
}

/// Collects the mistakes of one part of a spec.
pub(crate) struct Checker {
    at: String,
    component: Option<String>,
    found: Vec<Invalid>,
}

impl Checker {
    fn new(at: String, component: Option<String>) -> Self {
        Self { at, component, found: Vec::new() }
    }

    /// Notes a mistake. An empty field means the part itself.
    pub(crate) fn bad(&mut self, field: &str, message: impl Display) {
        let dot = if field.is_empty() { "" } else { "." };
        let field = format!("{}{dot}{field}", self.at);
        self.found.push(Invalid { message: format!("{field}: {message}"), field, component: self.component.clone() });
    }

    /// Checks a part of the part.
    fn within<T>(&mut self, field: &str, check: impl FnOnce(&mut Self) -> T) -> T {
        let outer = self.at.len();
        self.at.push('.');
        self.at.push_str(field);
        let checked = check(self);
        self.at.truncate(outer);
        checked
    }

    pub(crate) fn duration(&mut self, field: &str, span: &Span, min_ms: i64, max_ms: i64) -> SignedDuration {
        let (min, max) = (SignedDuration::from_millis(min_ms), SignedDuration::from_millis(max_ms));
        let why = match span.parse() {
            Ok(length) if length >= min && length <= max => return length,
            Ok(_) => format!("{span} is out of range; it must be from {min:#} to {max:#}"),
            Err(why) => why,
        };
        self.bad(field, why);
        min
    }

    fn range(&mut self, field: &str, value: u32, min: u32, max: u32) -> u32 {
        if !(min..=max).contains(&value) {
            self.bad(field, format!("{value} is out of range; it must be from {min} to {max}"));
        }
        value
    }

    fn limits(&mut self, spec: &HealingPolicySpec) -> Limits {
        let HealingPolicySpec { detection, release_watch, prediction, safety, approval, verification, .. } = spec;
        let breaker = &safety.circuit_breaker;
        let max_unhealthy = safety.max_unhealthy.of(spec.components.len()).unwrap_or_else(|why| {
            self.bad("safety.maxUnhealthy", why);
            0
        });
        let confirm_after = self.duration("detection.confirmAfter", &detection.confirm_after, 100, 10 * MINUTE);
        let release_watch_every = self.duration("releaseWatch.every", &release_watch.every, SECOND, MINUTE);
        let (recovery, timeout) = (&breaker.recovery_timeout, &verification.timeout);
        let failures = breaker.failure_threshold;
        let limits = Limits {
            unhealthy_after: self.range("detection.unhealthyAfter", detection.unhealthy_after, 1, 20),
            healthy_after: self.range("detection.healthyAfter", detection.healthy_after, 1, 20),
            confirm_after: unsigned(confirm_after),
            release_watch_every: unsigned(release_watch_every),
            release_watch_for: self.duration("releaseWatch.for", &release_watch.length, 10 * SECOND, HOUR),
            prediction: prediction.enabled,
            prediction_horizon: self.duration("prediction.horizon", &prediction.horizon, 10 * MINUTE, 24 * HOUR),
            min_probability: prediction.min_probability,
            max_unhealthy,
            max_concurrent: self.range("safety.maxConcurrent", safety.max_concurrent, 1, 50) as usize,
            budget_actions: self.range("safety.budget.actions", safety.budget.actions, 1, 1000) as usize,
            budget_window: self.duration("safety.budget.window", &safety.budget.window, MINUTE, 24 * HOUR),
            cooldown: self.duration("safety.cooldown", &safety.cooldown, 0, 24 * HOUR),
            breaker_threshold: self.range("safety.circuitBreaker.failureThreshold", failures, 1, 100) as usize,
            breaker_recovery: self.duration("safety.circuitBreaker.recoveryTimeout", recovery, SECOND, 24 * HOUR),
            max_rollback_age: self.duration("safety.maxRollbackAge", &safety.max_rollback_age, HOUR, 2160 * HOUR),
            git_ops: safety.git_ops,
            approval_timeout: self.duration("approval.timeout", &approval.timeout, SECOND, 168 * HOUR),
            on_timeout: approval.on_timeout,
            stabilization: self.duration("verification.stabilization", &verification.stabilization, 0, HOUR),
            verification_timeout: self.duration("verification.timeout", timeout, 2 * SECOND, 6 * HOUR),
        };
        if limits.verification_timeout <= limits.stabilization {
            let stabilization = &verification.stabilization;
            let message = format!("{timeout} must be longer than verification.stabilization, {stabilization}");
            self.bad("verification.timeout", message);
        }
        let probability = prediction.min_probability;
        if !(0.0..=1.0).contains(&probability) {
            let message = format!("{probability} is not a probability; write a number from 0.05 to 1");
            self.bad("prediction.minProbability", message);
        }
        limits
    }

    fn component(
        &mut self,
        component: &Component,
        spec: &HealingPolicySpec,
        defaults: &BTreeMap<String, Threshold>,
    ) -> Option<ValidComponent> {
        let mut thresholds = defaults.clone();
        for (name, threshold) in &component.thresholds {
            let Threshold { warning, critical } = *threshold;
            if !warning.is_finite() || !critical.is_finite() || warning >= critical {
                self.bad(&format!("thresholds.{name}"), format!("warning {warning} must be below critical {critical}"));
            }
            thresholds.insert(name.clone(), *threshold);
        }
        // A metric that the platform measures on its own does not make a component unhealthy without a threshold in the policy:
        // many run at their CPU limit, or with a heap that fills most of its memory, by design.
        for offered in OFFERED {
            let named = component.thresholds.contains_key(offered);
            if !named && !component.metrics.iter().any(|metric| metric.name == offered) {
                thresholds.remove(offered);
            }
        }
        let mut metrics = Vec::with_capacity(component.metrics.len());
        let mut ceilings = default_ceilings();
        for own in component.target.capabilities().iter().flat_map(|target| target.metrics) {
            if let Some(threshold) = own.threshold {
                thresholds.entry(own.name.to_owned()).or_insert(threshold);
            }
            ceilings.extend(own.ceiling.map(|ceiling| (own.name.to_owned(), ceiling)));
        }
        for (index, metric) in component.metrics.iter().enumerate() {
            let Metric { name, prometheus, limit } = metric;
            ceilings.extend(limit.map(|limit| (name.clone(), limit)));
            let url = self.within(&format!("metrics[{index}]"), |check| {
                if component.metrics[..index].iter().any(|other| other.name == *name) {
                    check.bad("name", format!("{name:?} is measured twice"));
                }
                if !thresholds.contains_key(name) {
                    let message =
                        format!("{name:?} is not well-known and has no entry in thresholds; add thresholds.{name}");
                    check.bad("name", message);
                }
                if prometheus.query.trim().is_empty() {
                    check.bad("prometheus.query", "is empty; write a PromQL query that returns one sample");
                }
                if let Some(limit) = limit.filter(|limit| !(limit.is_finite() && *limit > 0.0)) {
                    check.bad("limit", format!("{limit} must be a number above 0"));
                }
                prometheus.url.as_deref().and_then(|url| check.url("prometheus.url", url))
            });
            metrics.push(MetricQuery { name: name.clone(), query: prometheus.query.clone(), url });
        }
        let target = component.target.validate(self, component, spec)?;
        let remedies = self.remedies(component, target.capabilities(), &spec.safety.allowed_mcp_tools);
        Some(ValidComponent { name: component.name.clone(), target, metrics, thresholds, ceilings, remedies })
    }

    /// The number of mistakes so far.
    pub(crate) fn mistakes(&self) -> usize {
        self.found.len()
    }

    /// Whether the text is an id of a provider, with this prefix.
    pub(crate) fn is_id(&mut self, field: &str, id: &str, prefix: &str, of_what: &str) -> bool {
        let fits = |character: char| character.is_ascii_alphanumeric() || character == '-';
        let rest = id.strip_prefix(prefix);
        let is = (5..=64).contains(&id.len()) && rest.is_some_and(|rest| !rest.is_empty() && rest.chars().all(fits));
        if !is {
            self.bad(field, format!("{id:?} is no id of {of_what}"));
        }
        is
    }

    pub(crate) fn url(&mut self, field: &str, text: &str) -> Option<Url> {
        let why = match Url::parse(text) {
            Ok(url) if !matches!(url.scheme(), "http" | "https") => {
                format!("{text:?} must start with http:// or https://")
            }
            // The value is not repeated: it contains a password.
            Ok(url) if !url.username().is_empty() || url.password().is_some() => {
                "holds credentials, which everyone who can read the policy would see; remove them".to_owned()
            }
            Ok(url) => return Some(url),
            Err(why) => format!("{text:?} is not a URL ({why})"),
        };
        self.bad(field, why);
        None
    }
}

#[cfg(test)]
mod tests;
