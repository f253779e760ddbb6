//! Defaults of a policy; the API server fills these in.

use super::*;

pub(super) fn interval() -> Span {
    "60s".into()
}

/// A policy without any value, not even components.
impl Default for HealingPolicySpec {
    fn default() -> Self {
        Self {
            interval: interval(),
            mode: Mode::default(),
            suspend: false,
            components: Vec::new(),
            detection: Detection::default(),
            release_watch: ReleaseWatch::default(),
            prediction: Prediction::default(),
            safety: Safety::default(),
            approval: ApprovalPolicy::default(),
            verification: Verification::default(),
        }
    }
}

impl Default for Detection {
    fn default() -> Self {
        Self { unhealthy_after: 2, healthy_after: 2, confirm_after: "2s".into() }
    }
}

impl Default for ReleaseWatch {
    fn default() -> Self {
        Self { every: "1s".into(), length: "5m".into() }
    }
}

impl Default for Prediction {
    fn default() -> Self {
        Self { enabled: true, horizon: "1h".into(), min_probability: 0.5 }
    }
}

impl Default for Safety {
    fn default() -> Self {
        Self {
            max_unhealthy: IntOrPercent::Percent("50%".into()),
            max_concurrent: 1,
            budget: Budget::default(),
            cooldown: "5m".into(),
            circuit_breaker: CircuitBreaker::default(),
            max_rollback_age: "168h".into(),
            git_ops: GitOps::default(),
            allowed_mcp_tools: Vec::new(),
        }
    }
}

impl Default for Budget {
    fn default() -> Self {
        Self { actions: 3, window: "1h".into() }
    }
}

impl Default for CircuitBreaker {
    fn default() -> Self {
        Self { failure_threshold: 5, recovery_timeout: "60s".into() }
    }
}

impl Default for ApprovalPolicy {
    fn default() -> Self {
        Self { timeout: "30m".into(), on_timeout: OnTimeout::Reject }
    }
}

impl Default for Verification {
    fn default() -> Self {
        Self { stabilization: "2m".into(), timeout: "10m".into() }
    }
}
