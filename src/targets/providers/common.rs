//! What all providers that host services have in common: observations, errors, and how far an action is.
//!
//! Their APIs take no idempotency key: whether a call without a response had an effect is found out by comparison with
//! [`Before`], the service before the call.

use std::{fmt, time::Duration};

use jiff::Timestamp;
use secrecy::SecretString;

use super::{
    super::kubernetes::ActError,
    Observed,
    client::{BaseUrl, CallError, Failure},
};
use crate::{
    analyze::observation::{Measured, Reading, UnknownReason, Unmeasured},
    api::RemediationReason,
};

/// How a provider's API is reached.
#[derive(Debug, Clone)]
pub struct ProviderConfig {
    pub base_url: BaseUrl,
    /// Of targets that name no key.
    pub key: Option<SecretString>,
}

/// Between two preflights of a refused action at least, for the provider's rate limits.
pub(super) const PREFLIGHT_INTERVAL: Duration = Duration::from_secs(15);

/// Metrics that a target brings, by name.
pub(super) type Metrics = Vec<(&'static str, Reading)>;

/// The observation that was just read.
pub(super) fn observed<T>(read: Result<(T, Metrics), HostedError>) -> Observed<T> {
    let (target, metrics) = match read {
        Ok((target, metrics)) => (Measured::Known(target), metrics),
        Err(error) => (Measured::Unknown(error.into()), Vec::new()),
    };
    Observed { at: Timestamp::now(), target, metrics }
}

/// A service before a call.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Before {
    /// The deploy that serves.
    pub live: Option<String>,
    pub instances: Vec<String>,
    pub newest_restart: Option<String>,
    /// For rollbacks: a newer one came after the call.
    pub newest_deploy: Option<String>,
    /// What triggers auto-deploy, where that is to be switched off: `commit`, `checksPass`.
    pub deploys_on: Option<String>,
}

/// How many instances a service has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    pub run: u32,
    /// None: the provider does not report it.
    pub desired: Option<u32>,
    pub autoscaled: bool,
}

/// The state of a hosted database, by its status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DatabaseState {
    Serves,
    Down,
    /// The provider configures, updates, maintains or restores the database.
    AtWork,
    Suspended,
    /// The provider's work on the database failed.
    Broken,
    /// The provider does not know the state, or the status is unknown here.
    Unknown,
}

/// A database since a call was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Since {
    /// Its status now, in the provider's word.
    pub status: String,
    pub serves: bool,
    /// The database served before the call.
    pub served: bool,
    /// Since the call the database was seen not to serve, with another status than before the call.
    pub came: bool,
}

/// The effect of a restart so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replaced {
    /// No restart is listed, and the instances are those from before.
    Nothing,
    /// Some are new, and no restart is listed: the cause may be a restart, or something else.
    Unclear,
    /// A restart is listed, and old instances still run.
    Begun,
    /// All are new.
    Done,
}

/// The effect of a restart so far, and what serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restarted {
    pub replaced: Replaced,
    /// The deploy that serves.
    pub live: Option<String>,
}

/// How far a deploy is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeployState {
    /// No deploy is listed since the call.
    Nothing,
    /// Other deploys are.
    Others,
    /// The deploy (or the run that makes it).
    Deploy { id: String, status: String, live: bool, over: bool },
    /// The deploy waits for manual action.
    Waits { id: String, why: String },
}

impl DeployState {
    /// The operator's own deploy is not listed.
    pub fn without_ours(nothing_newer: bool) -> Self {
        if nothing_newer { Self::Nothing } else { Self::Others }
    }
}

/// Why a service could not be read, or a call not be carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HostedError {
    /// No key is named, or the named Secret holds none.
    #[error("{0}")]
    CredentialsMissing(String),
    /// The operator's role does not let it read the key.
    #[error("{0}")]
    Forbidden(String),
    /// The key could not be read now.
    #[error("the API key could not be read: {0}")]
    KeyUnread(ActError),
    #[error(transparent)]
    Call(#[from] CallError),
    /// The provider does not report yet what serves.
    #[error("{0}")]
    Unsettled(String),
    /// The provider has nothing that the action could change.
    #[error("{0}")]
    Unsupported(&'static str),
    /// The provider did something else instead.
    #[error("{call}: status {status}: {why}")]
    OtherEffect { call: String, attempts: u32, status: u16, why: &'static str },
}

impl HostedError {
    pub fn reason(&self) -> RemediationReason {
        self.unknown().into()
    }

    /// The same call may succeed later although nobody changes anything.
    pub fn retryable(&self) -> bool {
        match self {
            Self::KeyUnread(why) => why.retryable(),
            Self::Unsettled(_) => true,
            Self::Call(error) => error.kind.may_pass(),
            _ => false,
        }
    }

    /// The call certainly had no effect.
    pub fn not_done(&self) -> bool {
        match self {
            Self::Call(error) => error.kind.not_done(),
            _ => true,
        }
    }

    /// Requests that were sent.
    pub fn attempts(&self) -> u32 {
        match self {
            Self::Call(error) => error.attempts,
            Self::OtherEffect { attempts, .. } => *attempts,
            _ => 0,
        }
    }

    /// HTTP status of the last answer.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Call(error) => error.kind.status(),
            Self::OtherEffect { status, .. } => Some(*status),
            _ => None,
        }
    }

    fn unknown(&self) -> UnknownReason {
        use UnknownReason as Reason;
        match self {
            Self::CredentialsMissing(_) => Reason::CredentialsMissing,
            Self::Forbidden(_) => Reason::Forbidden,
            Self::KeyUnread(_) => Reason::Unreachable,
            Self::Unsettled(_) => Reason::Unsettled,
            Self::Unsupported(_) | Self::OtherEffect { .. } => Reason::Refused,
            Self::Call(error) => match &error.kind {
                Failure::Invalid(_) => Reason::NotConfigured,
                Failure::Throttled { .. } => Reason::RateLimited,
                limited if limited.is_limit() => Reason::RateLimited,
                Failure::CircuitOpen { .. } => Reason::CircuitOpen,
                Failure::Unreachable(_) | Failure::Broken(_) | Failure::Status { status: 500.., .. } => {
                    Reason::Unreachable
                }
                Failure::Timeout(_) => Reason::Timeout,
                Failure::Status { status: 401 | 403, .. } => Reason::CredentialsRefused,
                Failure::Status { status: 404 | 410, .. } => Reason::TargetNotFound,
                Failure::Status { .. } => Reason::Refused,
                Failure::BadAnswer { .. } => Reason::BadAnswer,
            },
        }
    }

    /// Refuses an action that cannot succeed; an error that may pass refuses nothing.
    pub(super) fn forbids(self) -> Result<(), ActError> {
        match self {
            Self::Forbidden(message) => Err(ActError::Forbidden { verb: "get", resource: "secrets", message }),
            error if error.retryable() => Ok(()),
            error => Err(ActError::BadRemedy(error.to_string())),
        }
    }
}

/// Refuses an action for the reason that was read.
pub(super) fn refused(read: Result<Option<String>, HostedError>) -> Result<(), ActError> {
    match read {
        Err(error) => error.forbids(),
        Ok(why) => why.map_or(Ok(()), |why| Err(ActError::BadRemedy(why))),
    }
}

impl From<HostedError> for Unmeasured {
    fn from(error: HostedError) -> Self {
        Self::new(error.unknown(), error.to_string())
    }
}

/// "commit 4af0e84: fix the login".
pub(super) fn commit_label(id: &str, message: &str) -> String {
    const LONGEST: usize = 60;
    let first = message.lines().next().unwrap_or_default();
    let message: String = first.chars().take(LONGEST).collect();
    let id: String = id.chars().take(7).collect();
    if message.is_empty() { format!("commit {id}") } else { format!("commit {id}: {message}") }
}

/// "the newest deploy dep-2 (commit 4af0e84: fix) ended as build_failed; dep-1 still serves".
pub(super) fn failed_deploy<T: fmt::Display>(
    noun: &str,
    (id, label): (T, &str),
    status: &str,
    live: Option<T>,
) -> String {
    let serves = live.map(|live| format!("; {live} still serves")).unwrap_or_default();
    format!("the newest {noun} {id} ({label}) ended as {status}{serves}")
}
