//! From a spec as written to a policy that the rooms take: parsed once, checked once.
//!
//! The API server's rules refuse most mistakes at `kubectl apply`. What they cannot express, and what an object
//! stored under an older version of them may hold, is found here and named by field, value and fix. A bad
//! component does not stop the others.

use std::{collections::BTreeMap, time::Duration};

use jiff::SignedDuration;
use url::Url;

use super::{
    Cause, Component, GitOps, HealingPolicy, HealingPolicySpec, IntOrPercent, Mode, OFFERED, OnTimeout, Span,
    Threshold, ValidTarget, default_ceilings,
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
    /// The component that is left out because of it; none when it concerns the whole policy.
    pub component: Option<String>,
    /// What is wrong with which value, and what to write instead.
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
    /// Those that are valid, in the order of the spec.
    pub components: Vec<ValidComponent>,
    /// The mistakes, by component.
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
    /// Components that may be unhealthy at once, of all that the spec names.
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
    /// By metric name; the defaults filled in, but for [`OFFERED`] metrics that the policy does not mention.
    pub thresholds: BTreeMap<String, Threshold>,
    /// Where metrics end: what `metrics[].limit` says, and 100 for the well-known percentages.
    pub ceilings: BTreeMap<String, f64>,
    /// The ladder, the default one filled in.
    pub remedies: Vec<ValidRemedy>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetricQuery {
    pub name: String,
    pub query: String,
    /// None: the operator's own Prometheus.
    pub url: Option<Url>,
}

/// A remedy whose every value is usable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValidRemedy {
    pub action: ValidAction,
    /// Never empty.
    pub causes: Vec<Cause>,
    pub approval_required: bool,
}

impl Default for Limits {
    /// Those of a policy that names none.
    fn default() -> Self {
        Checker { at: String::new(), component: None, found: Vec::new() }.limits(&HealingPolicySpec::default())
    }
}

impl ValidPolicy {
    /// Parses the policy. `defaults` are the operator-wide thresholds of the well-known metrics.
    ///
    /// # Errors
    /// When a value that concerns the whole policy is unusable; the list is never empty then.
    pub fn new(policy: &HealingPolicy, defaults: &BTreeMap<String, Threshold>) -> Result<Self, Vec<Invalid>> {
        let spec = &policy.spec;
        let mut check = Checker { at: "spec".into(), component: None, found: Vec::new() };
        let interval = unsigned(check.duration("interval", &spec.interval, SECOND, HOUR));
        let limits = check.limits(spec);
        if spec.components.is_empty() {
            check.bad("components", "is empty; name at least one component".to_owned());
        }
        if !check.found.is_empty() {
            return Err(check.found);
        }

        let mut components = Vec::with_capacity(spec.components.len());
        let mut invalid = Vec::new();
        for (index, component) in spec.components.iter().enumerate() {
            let mut check = Checker {
                at: format!("spec.components[{index}]"),
                component: Some(component.name.clone()),
                found: Vec::new(),
            };
            if spec.components[..index].iter().any(|other| other.name == component.name) {
                check.bad(
                    "name",
                    format!("{:?} is used twice; every component needs a name of its own", component.name),
                );
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
    pub(crate) fn bad(&mut self, field: &str, message: String) {
        let field = format!("{}.{field}", self.at);
        self.found.push(Invalid { message: format!("{field}: {message}"), field, component: self.component.clone() });
    }

    pub(crate) fn duration(&mut self, field: &str, span: &Span, min_ms: i64, max_ms: i64) -> SignedDuration {
        let (min, max) = (SignedDuration::from_millis(min_ms), SignedDuration::from_millis(max_ms));
        match span.parse() {
            Ok(length) if length < min || length > max => {
                self.bad(field, format!("{span} is out of range; it must be from {min:#} to {max:#}"));
                min
            }
            Ok(length) => length,
            Err(why) => {
                self.bad(field, why);
                min
            }
        }
    }

    fn range(&mut self, field: &str, value: u32, min: u32, max: u32) -> u32 {
        if !(min..=max).contains(&value) {
            self.bad(field, format!("{value} is out of range; it must be from {min} to {max}"));
        }
        value
    }

    fn max_unhealthy(&mut self, value: &IntOrPercent, total: usize) -> usize {
        value.of(total).unwrap_or_else(|why| {
            self.bad("safety.maxUnhealthy", why);
            0
        })
    }

    fn limits(&mut self, spec: &HealingPolicySpec) -> Limits {
        let safety = &spec.safety;
        let limits = Limits {
            unhealthy_after: self.range("detection.unhealthyAfter", spec.detection.unhealthy_after, 1, 20),
            healthy_after: self.range("detection.healthyAfter", spec.detection.healthy_after, 1, 20),
            confirm_after: unsigned(self.duration(
                "detection.confirmAfter",
                &spec.detection.confirm_after,
                100,
                10 * MINUTE,
            )),
            release_watch_every: unsigned(self.duration(
                "releaseWatch.every",
                &spec.release_watch.every,
                SECOND,
                MINUTE,
            )),
            release_watch_for: self.duration("releaseWatch.for", &spec.release_watch.length, 10 * SECOND, HOUR),
            prediction: spec.prediction.enabled,
            prediction_horizon: self.duration("prediction.horizon", &spec.prediction.horizon, 10 * MINUTE, 24 * HOUR),
            min_probability: spec.prediction.min_probability,
            max_unhealthy: self.max_unhealthy(&safety.max_unhealthy, spec.components.len()),
            max_concurrent: self.range("safety.maxConcurrent", safety.max_concurrent, 1, 50) as usize,
            budget_actions: self.range("safety.budget.actions", safety.budget.actions, 1, 1000) as usize,
            budget_window: self.duration("safety.budget.window", &safety.budget.window, MINUTE, 24 * HOUR),
            cooldown: self.duration("safety.cooldown", &safety.cooldown, 0, 24 * HOUR),
            breaker_threshold: self.range(
                "safety.circuitBreaker.failureThreshold",
                safety.circuit_breaker.failure_threshold,
                1,
                100,
            ) as usize,
            breaker_recovery: self.duration(
                "safety.circuitBreaker.recoveryTimeout",
                &safety.circuit_breaker.recovery_timeout,
                SECOND,
                24 * HOUR,
            ),
            max_rollback_age: self.duration("safety.maxRollbackAge", &safety.max_rollback_age, HOUR, 2160 * HOUR),
            git_ops: safety.git_ops,
            approval_timeout: self.duration("approval.timeout", &spec.approval.timeout, SECOND, 168 * HOUR),
            on_timeout: spec.approval.on_timeout,
            stabilization: self.duration("verification.stabilization", &spec.verification.stabilization, 0, HOUR),
            verification_timeout: self.duration(
                "verification.timeout",
                &spec.verification.timeout,
                2 * SECOND,
                6 * HOUR,
            ),
        };
        if limits.verification_timeout <= limits.stabilization {
            self.bad(
                "verification.timeout",
                format!(
                    "{} must be longer than verification.stabilization, {}",
                    spec.verification.timeout, spec.verification.stabilization
                ),
            );
        }
        if !(0.0..=1.0).contains(&spec.prediction.min_probability) {
            self.bad(
                "prediction.minProbability",
                format!("{} is not a probability; write a number from 0.05 to 1", spec.prediction.min_probability),
            );
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
        // What the platform offers unasked is no reason to call a component bad before its policy says from where on: many
        // run at their CPU limit, or with a heap that fills most of its memory, by design.
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
            let field = format!("metrics[{index}]");
            if component.metrics[..index].iter().any(|other| other.name == metric.name) {
                self.bad(&format!("{field}.name"), format!("{:?} is measured twice", metric.name));
            }
            if !thresholds.contains_key(&metric.name) {
                self.bad(
                    &format!("{field}.name"),
                    format!(
                        "{:?} is not well-known and has no entry in thresholds; add thresholds.{}",
                        metric.name, metric.name
                    ),
                );
            }
            if metric.prometheus.query.trim().is_empty() {
                self.bad(
                    &format!("{field}.prometheus.query"),
                    "is empty; write a PromQL query that yields one sample".to_owned(),
                );
            }
            if let Some(limit) = metric.limit {
                if !(limit.is_finite() && limit > 0.0) {
                    self.bad(&format!("{field}.limit"), format!("{limit} must be a number above 0"));
                }
                ceilings.insert(metric.name.clone(), limit);
            }
            let url =
                metric.prometheus.url.as_deref().and_then(|url| self.url(&format!("{field}.prometheus.url"), url));
            metrics.push(MetricQuery { name: metric.name.clone(), query: metric.prometheus.query.clone(), url });
        }
        let target = component.target.validate(self, component, spec)?;
        let remedies = self.remedies(component, target.capabilities(), &spec.safety.allowed_mcp_tools);
        Some(ValidComponent { name: component.name.clone(), target, metrics, thresholds, ceilings, remedies })
    }

    /// How many were found so far.
    pub(crate) fn mistakes(&self) -> usize {
        self.found.len()
    }

    /// Whether it is an id of a provider's, with this prefix.
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
        match Url::parse(text) {
            Ok(url) if !matches!(url.scheme(), "http" | "https") => {
                self.bad(field, format!("{text:?} must start with http:// or https://"));
                None
            }
            // The value is not repeated: it holds a password.
            Ok(url) if !url.username().is_empty() || url.password().is_some() => {
                self.bad(
                    field,
                    "holds credentials, which everyone who can read the policy would see; take them out".to_owned(),
                );
                None
            }
            Ok(url) => Some(url),
            Err(why) => {
                self.bad(field, format!("{text:?} is not a URL ({why})"));
                None
            }
        }
    }
}

#[cfg(test)]
mod tests;
