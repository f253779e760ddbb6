//! The causes that each action helps against, and its parameter: one row per action.
//!
//! The CEL rules of the CRD ([`super::rules`]), the Rust validation of remedies, the text of `kubectl explain` and the table
//! of docs/remedies.md are generated from these rows and from [`super::Capabilities`].

use super::{ActionKind, Cause};

/// The facts of an action, the same for every target.
#[derive(Debug, Clone, Copy)]
pub struct ActionFacts {
    /// The causes that it can help against; none when it may help against any.
    pub only_for: Option<&'static [Cause]>,
    /// These causes in words; empty when `only_for` is none.
    pub against: &'static str,
    /// The field of a remedy that only this action, or few actions, have.
    pub parameter: Option<Parameter>,
}

/// A field of a remedy that belongs to an action.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parameter {
    pub field: &'static str,
    /// The action is refused without the field.
    pub required: bool,
}

/// Every cause but Unknown.
pub const KNOWN_CAUSES: [Cause; 6] = [
    Cause::ReleaseRegression,
    Cause::ConfigRegression,
    Cause::Crash,
    Cause::Unreachable,
    Cause::Exhaustion,
    Cause::Errors,
];

const fn any_cause(parameter: Option<Parameter>) -> ActionFacts {
    ActionFacts { only_for: None, against: "", parameter }
}

const fn only(causes: &'static [Cause], against: &'static str, parameter: Option<Parameter>) -> ActionFacts {
    ActionFacts { only_for: Some(causes), against, parameter }
}

const fn needs(field: &'static str) -> Option<Parameter> {
    Some(Parameter { field, required: true })
}

const fn may_have(field: &'static str) -> Option<Parameter> {
    Some(Parameter { field, required: false })
}

impl ActionKind {
    /// The table: one row per action.
    #[rustfmt::skip]
    pub const fn facts(self) -> ActionFacts {
        use Cause::{ConfigRegression, Errors, Exhaustion, ReleaseRegression, Unreachable};
        const CONNECTIONS: &str = "connections that run out or sessions that hold others up";
        match self {
            Self::Rollback => only(&[ReleaseRegression], "a bad release", None),
            Self::RollbackConfig => only(&[ConfigRegression], "bad configuration", None),
            Self::RollbackState => only(&[ReleaseRegression, ConfigRegression], "a bad release or bad configuration", None),
            Self::CleanupMemory => only(&[Exhaustion], "memory that runs out", may_have("hook")),
            Self::Restart => any_cause(None),
            Self::Scale => any_cause(needs("scale")),
            Self::Job => any_cause(needs("job")),
            Self::Webhook => any_cause(needs("webhook")),
            Self::Mcp => any_cause(needs("mcp")),
            Self::RecoverConnections => only(&[Unreachable], "a database that takes no connection", may_have("reconnect")),
            Self::ReleaseConnections => only(&[Exhaustion, Errors], CONNECTIONS, may_have("sessions")),
            Self::CancelQueries => only(&[Exhaustion, Errors], CONNECTIONS, needs("sessions")),
            // The standby has the same disk, memory and connections.
            Self::Failover => only(&[Unreachable, Errors], "a database that does not serve, or serves badly", None),
        }
    }

    /// The causes of a remedy that names none.
    pub const fn default_causes(self) -> &'static [Cause] {
        match self.facts().only_for {
            Some(causes) => causes,
            None => &KNOWN_CAUSES,
        }
    }

    /// Whether the user defines what the action does.
    pub fn is_custom(self) -> bool {
        matches!(self, Self::Job | Self::Webhook | Self::Mcp)
    }

    /// Whether the action can help against this cause.
    pub fn helps_against(self, cause: Cause) -> bool {
        self.facts().only_for.is_none_or(|causes| causes.contains(&cause))
    }
}
