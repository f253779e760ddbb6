//! What is the same for all providers that host services: keys, errors, and how far an action is.
//!
//! Their APIs take no idempotency key: whether a call that was not answered had an effect is found out by what has happened
//! since, which [`Before`] tells apart from what was there before the call.

use std::time::{Duration, Instant};

use secrecy::SecretString;

use super::{
    super::kubernetes::{ActError, Kubernetes},
    Observed,
    client::{BaseUrl, BreakerLimits, CallError, Failure, TimeLimits},
};
use crate::{
    analyze::observation::{Hosted, UnknownReason, Unmeasured},
    api::{Access, KeyRef, RemediationReason, Retry},
};

/// One observation of a service; a second one soon after it may be the same.
pub type HostedObservation = Observed<Hosted>;

/// How a provider's API is reached.
#[derive(Debug, Clone)]
pub struct ProviderConfig {
    pub base_url: BaseUrl,
    /// Of targets that name none.
    pub key: Option<SecretString>,
}

/// A service before something is done to it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Before {
    /// The deploy that serves.
    pub live: Option<String>,
    pub instances: Vec<String>,
    /// Of a Render Postgres its status.
    pub newest_restart: Option<String>,
    /// Of rollbacks: what is newer came after the call.
    pub newest_deploy: Option<String>,
    /// What has it deploy by itself, where that is to be switched off: `commit`, `checksPass`.
    pub deploys_on: Option<String>,
}

/// How many instances a service has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    pub run: u32,
    /// None: the provider does not report it.
    pub wanted: Option<u32>,
    pub autoscaled: bool,
}

/// The state of a hosted database, by its status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stands {
    Serves,
    Down,
    /// The provider is at work on it: it is configured, updated, maintained, restored.
    AtWork,
    Suspended,
    /// What the provider was at did not succeed.
    Broken,
    /// The provider does not know, or its word is not known here.
    Unknown,
}

/// What has happened to a database since a call was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Since {
    /// Its status now, in the provider's word.
    pub status: String,
    pub serves: bool,
    /// It served before the call.
    pub served: bool,
    /// It was seen since not to serve, in another way than before the call.
    pub came: bool,
}

/// The effect of a restart so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replaced {
    /// No restart is listed, and the instances are those from before.
    Nothing,
    /// Some are others, and no restart is listed: it may be one, or something else.
    Unclear,
    /// A restart is listed, and old instances still run.
    Begun,
    /// All are new.
    Done,
}

/// A restart, as far as it is seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restarted {
    pub replaced: Replaced,
    /// The deploy that serves.
    pub live: Option<String>,
}

/// A rollback, as far as it is seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeployState {
    /// Nothing has come since.
    Nothing,
    /// Others have come.
    Others,
    /// This deploy is it (or this run, that makes it), and it has this status.
    Deploy { id: String, status: String, live: bool, over: bool },
    /// This is it, and it goes no further before a person does something.
    Waits { id: String, why: String },
}

/// Why something was not read or not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HostedError {
    /// No key is named, or there is none where it should be.
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
    /// The provider does not tell yet what serves.
    #[error("{0}")]
    Unsettled(String),
    /// The provider has nothing that this could be done to.
    #[error("{0}")]
    Unsupported(&'static str),
    /// The provider has answered that it did something else in place of it.
    #[error("{call}: status {status}: {why}")]
    Elsewise { call: String, attempts: u32, status: u16, why: &'static str },
}

impl HostedError {
    pub fn reason(&self) -> RemediationReason {
        self.unknown().into()
    }

    /// When the same call is worth another attempt, if it had no effect.
    pub fn retry(&self) -> Retry {
        match self {
            Self::CredentialsMissing(_) | Self::Forbidden(_) => Retry::OnChange,
            Self::Unsupported(_) | Self::Elsewise { .. } => Retry::Never,
            Self::KeyUnread(why) => why.retry(),
            Self::Unsettled(_) => Retry::Backoff,
            Self::Call(error) if error.kind.may_pass() => Retry::Backoff,
            Self::Call(error) => match error.kind.status() {
                Some(401..=404) => Retry::OnChange,
                _ => Retry::Never,
            },
        }
    }

    /// The same call may succeed later with nobody changing anything.
    pub fn retryable(&self) -> bool {
        self.retry() == Retry::Backoff
    }

    /// For certain it had no effect.
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
            Self::Elsewise { attempts, .. } => *attempts,
            _ => 0,
        }
    }

    /// HTTP status of the last answer.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Call(error) => error.kind.status(),
            Self::Elsewise { status, .. } => Some(*status),
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
            Self::Unsupported(_) | Self::Elsewise { .. } => Reason::Refused,
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

    /// Whether it says that an action cannot be done at all: what may pass does not.
    pub(super) fn forbids(self) -> Result<(), ActError> {
        match self {
            Self::Forbidden(message) => Err(ActError::Forbidden { verb: "get", resource: "secrets", message }),
            error if error.retryable() => Ok(()),
            error => Err(ActError::BadRemedy(error.to_string())),
        }
    }
}

impl From<HostedError> for Unmeasured {
    fn from(error: HostedError) -> Self {
        Self::new(error.unknown(), error.to_string())
    }
}

/// A provider's words for its key, for messages.
pub(super) struct KeyWords {
    /// "Render API key".
    pub name: &'static str,
    /// The field of a policy that names a Secret.
    pub field: &'static str,
    /// The operator's own.
    pub variable: &'static str,
}

/// The key of the service `id`, read now.
///
/// # Errors
/// CredentialsMissing, Forbidden or KeyUnread, with the Secret's name.
pub(super) async fn key_of(
    kubernetes: &Kubernetes,
    own: Option<&SecretString>,
    words: &KeyWords,
    (namespace, id): (&str, &str),
    reference: Option<&KeyRef>,
) -> Result<SecretString, HostedError> {
    let KeyWords { name, field, variable } = words;
    let Some(reference) = reference else {
        return own.cloned().ok_or_else(|| {
            HostedError::CredentialsMissing(format!(
                "there is no {name} for {id}: name a Secret in {field}, or start the operator with {variable}"
            ))
        });
    };
    kubernetes.secret(namespace, reference).await.map_err(|why| match why {
        ActError::BadRemedy(why) => {
            HostedError::CredentialsMissing(format!("there is no {name} for {id}: {why} ({field})"))
        }
        ActError::Forbidden { .. } => HostedError::Forbidden(format!(
            "the {name} of {id} in Secret {} cannot be read: {why}; set rbac.readCredentials in the chart",
            reference.name
        )),
        why => HostedError::KeyUnread(why),
    })
}

/// One request that changes something, and all its tries.
pub(super) const WRITE_LIMIT: TimeLimits =
    TimeLimits { attempt: Duration::from_secs(10), total: Duration::from_secs(20) };
/// One request that reads.
const READ_ATTEMPT: Duration = Duration::from_millis(2500);
/// An observation with all its requests: fresh enough to be acted on when it ends.
pub(super) const READ_LIMIT: Duration = Duration::from_secs(9);

/// Of a request that reads, and its tries.
pub(super) fn read_limits(until: Instant) -> TimeLimits {
    TimeLimits { attempt: READ_ATTEMPT, total: until.saturating_duration_since(Instant::now()) }
}

pub(super) fn breaker_limits(access: &Access) -> BreakerLimits {
    BreakerLimits { threshold: access.failure_threshold, recovery: access.recovery_timeout }
}

/// "commit 4af0e84: fix the login".
pub(super) fn commit_label(id: &str, message: &str) -> String {
    const LONGEST: usize = 60;
    let first = message.lines().next().unwrap_or_default();
    let message: String = first.chars().take(LONGEST).collect();
    let id: String = id.chars().take(7).collect();
    if message.is_empty() { format!("commit {id}") } else { format!("commit {id}: {message}") }
}
