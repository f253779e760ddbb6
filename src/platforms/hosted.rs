//! What is the same for all providers that host services: keys, errors, and how far an action is.
//!
//! Their APIs take no key of idempotence: what came of a call that was not answered is told by what has happened since, which
//! [`Before`] tells apart from what was there before it.

use secrecy::SecretString;

use super::{
    Look,
    cloud::{BreakerLimits, Cloud, CloudError, Kind},
    kubernetes::{ActError, Kubernetes},
    render::{Render, RenderConfig},
    vercel::{Vercel, VercelConfig},
};
use crate::{
    analyze::observation::{Hosted, UnknownReason, Unmeasured},
    api::{
        Access, ActionKind, CircuitStatus, HostedStatus, KeyRef, RENDER_KIND, RenderService, VERCEL_KIND, VercelProject,
    },
};

/// How the providers' APIs are reached.
#[derive(Debug, Clone)]
pub struct HostingConfig {
    pub render: RenderConfig,
    pub vercel: VercelConfig,
}

/// The providers. One for the whole operator.
pub struct Hosting {
    pub render: Render,
    pub vercel: Vercel,
}

impl Hosting {
    pub fn new(config: HostingConfig, kubernetes: &Kubernetes) -> Self {
        let HostingConfig { render, vercel } = config;
        Self { render: Render::new(render, kubernetes.clone()), vercel: Vercel::new(vercel, kubernetes.clone()) }
    }
}

/// What one look at a service saw; a second one soon after it may be the same.
pub type HostedLook = Look<Hosted>;

/// A service before something is done to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Before {
    /// The deploy that serves.
    pub live: Option<String>,
    pub instances: Vec<String>,
    pub newest_restart: Option<String>,
    /// Of rollbacks: what is newer came after the call.
    pub newest_deploy: Option<String>,
    /// What has it deploy by itself, where that is to be switched off: `commit`, `checksPass`.
    pub deploys_on: Option<String>,
}

/// What has become of a restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replaced {
    /// No restart was told of, and the instances are those from before.
    Nothing,
    /// Some are others, and no restart was told of: it may be one, or something else.
    Unclear,
    /// A restart was told of, and old instances still run.
    Begun,
    /// All are new.
    Done,
}

/// A restart, as far as it is seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub replaced: Replaced,
    /// The deploy that serves.
    pub live: Option<String>,
}

/// A rollback, as far as it is seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RollbackState {
    /// Nothing has come since.
    Nothing,
    /// Others have come.
    Others,
    /// This deploy is it, and it has this status.
    Deploy { id: String, status: String, live: bool, over: bool },
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
    Call(#[from] CloudError),
    /// The provider does not tell yet what serves.
    #[error("{0}")]
    Unsettled(String),
    /// The provider has nothing that this could be done to.
    #[error("{0}")]
    Unsupported(&'static str),
}

impl HostedError {
    /// CamelCase, from a closed set.
    pub fn reason(&self) -> &'static str {
        self.unknown().into()
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
            _ => 0,
        }
    }

    /// Waiting may help.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::CredentialsMissing(_) | Self::Forbidden(_) | Self::Unsupported(_) => false,
            Self::KeyUnread(why) => why.retryable(),
            Self::Call(error) => error.kind.may_pass(),
            Self::Unsettled(_) => true,
        }
    }

    /// HTTP status of the last answer.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Call(error) => error.kind.status(),
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
            Self::Unsupported(_) => Reason::Refused,
            Self::Call(error) => match &error.kind {
                Kind::Invalid(_) => Reason::NotConfigured,
                Kind::Throttled { .. } | Kind::Status { status: 429, .. } => Reason::RateLimited,
                Kind::CircuitOpen { .. } => Reason::CircuitOpen,
                Kind::Unreachable(_) | Kind::Broken(_) | Kind::Status { status: 500.., .. } => Reason::Unreachable,
                Kind::Timeout(_) => Reason::Timeout,
                Kind::Status { status: 401 | 403, .. } => Reason::CredentialsRefused,
                Kind::Status { status: 404 | 410, .. } => Reason::TargetNotFound,
                Kind::Status { .. } => Reason::Refused,
                Kind::BadAnswer { .. } => Reason::BadAnswer,
            },
        }
    }

    /// Whether it says that an action cannot be done at all: what may pass does not.
    pub(super) fn forbids(self) -> Result<(), ActError> {
        match self {
            Self::Forbidden(message) => Err(ActError::Forbidden { verb: "get", resource: "secrets", message }),
            error if error.may_pass() => Ok(()),
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

/// A service that can be acted on, and who hosts it. Calls are on the heap: one is larger than what calls it, and stands on the
/// stack of everything above it.
#[derive(Clone, Copy)]
pub enum HostedService<'a> {
    Render(&'a Render, &'a RenderService),
    Vercel(&'a Vercel, &'a VercelProject),
}

/// What is asked of a provider that has no instances.
const NO_INSTANCES: HostedError =
    HostedError::Unsupported("what Vercel hosts has no instances that could be restarted; nothing was done");

impl<'a> HostedService<'a> {
    /// `Render`, `Vercel`: the kind of the target as well.
    pub fn provider(self) -> &'static str {
        match self {
            Self::Render(..) => RENDER_KIND,
            Self::Vercel(..) => VERCEL_KIND,
        }
    }

    pub fn id(self) -> &'a str {
        match self {
            Self::Render(_, service) => &service.service_id,
            Self::Vercel(_, project) => &project.project_id,
        }
    }

    /// The circuit breaker of its API for it, in words for the status; none while it is closed.
    pub fn circuit(self) -> Option<CircuitStatus> {
        self.cloud().0.circuit(self.id())
    }

    /// Takes up what an earlier life of the operator has shown as [`Self::circuit`].
    pub fn restore_circuit(self, shown: &CircuitStatus) {
        let (cloud, access) = self.cloud();
        cloud.restore_circuit(self.id(), shown, breaker_limits(access));
    }

    fn cloud(self) -> (&'a Cloud, &'a Access) {
        match self {
            Self::Render(render, service) => (&render.cloud, &service.access),
            Self::Vercel(vercel, project) => (&vercel.cloud, &project.access),
        }
    }

    /// In words what a rollback brings live: the deploy `id` itself, or a new one of what `to` was.
    pub fn brought(self, id: &str, to: &str) -> String {
        match self {
            Self::Render(..) => format!("deploy {id} of what {to} was"),
            Self::Vercel(..) => to.to_owned(),
        }
    }

    /// In words what came since a rollback was asked for, when it is not that.
    pub fn others(self) -> &'static str {
        match self {
            Self::Render(..) => "other deploys have come",
            Self::Vercel(..) => "other rollbacks or promotions have come",
        }
    }

    /// What a rollback that came about leaves behind, for a person.
    pub fn left_behind(self) -> &'static str {
        match self {
            Self::Render(..) => "",
            Self::Vercel(..) => {
                "; new deployments do not go live by themselves until you promote one (Undo Rollback or Promote in Vercel's dashboard, or vercel promote)"
            }
        }
    }

    /// Whether an action can be done at all.
    ///
    /// # Errors
    /// BadRemedy, Forbidden or Autoscaled, in words for a person; what may pass is no reason.
    pub async fn could_act(self, namespace: &str, action: ActionKind, to: Option<&str>) -> Result<(), ActError> {
        match self {
            Self::Render(render, service) => Box::pin(render.could_act(namespace, service, action)).await,
            Self::Vercel(..) if action == ActionKind::Restart => Err(ActError::BadRemedy(NO_INSTANCES.to_string())),
            Self::Vercel(vercel, project) => Box::pin(vercel.could_roll_back(namespace, project, to)).await,
        }
    }

    /// What is there before the call.
    ///
    /// # Errors
    /// See [`HostedError`].
    pub async fn before(self, namespace: &str) -> Result<Before, HostedError> {
        match self {
            Self::Render(render, service) => Box::pin(render.before(namespace, service)).await,
            Self::Vercel(vercel, project) => Box::pin(vercel.before(namespace, project)).await,
        }
    }

    /// Asks for a restart, which has begun when this is answered; the answer's status.
    ///
    /// # Errors
    /// See [`HostedError`]; [`HostedError::not_done`] tells whether it had no effect for certain.
    pub async fn restart(self, namespace: &str) -> Result<u16, HostedError> {
        match self {
            Self::Render(render, service) => Box::pin(render.restart(namespace, service)).await,
            Self::Vercel(..) => Err(NO_INSTANCES),
        }
    }

    /// What has become of a restart since it was sent.
    ///
    /// # Errors
    /// See [`HostedError`].
    pub async fn restarted(self, namespace: &str, sent: &HostedStatus) -> Result<Seen, HostedError> {
        match self {
            Self::Render(render, service) => {
                Box::pin(render.restarted(namespace, service, &sent.instances_before, sent.newest_before.as_deref()))
                    .await
            }
            Self::Vercel(..) => Err(NO_INSTANCES),
        }
    }

    /// Has new commits deployed on `trigger` (`commit`, `checksPass`), or on nothing (`off`).
    ///
    /// # Errors
    /// See [`HostedError`].
    pub async fn set_auto_deploy(self, namespace: &str, trigger: &str) -> Result<(), HostedError> {
        match self {
            Self::Render(render, service) => Box::pin(render.set_auto_deploy(namespace, service, trigger)).await,
            // It does so by itself, see `left_behind`.
            Self::Vercel(..) => Ok(()),
        }
    }

    /// Asks for a rollback; the deploy that is to be live, where that is known, and the answer's status.
    ///
    /// # Errors
    /// See [`HostedError`]; [`HostedError::not_done`] tells whether it had no effect for certain.
    pub async fn roll_back(self, namespace: &str, to: &str) -> Result<(Option<String>, u16), HostedError> {
        match self {
            Self::Render(render, service) => Box::pin(render.roll_back(namespace, service, to)).await,
            Self::Vercel(vercel, project) => {
                let status = Box::pin(vercel.roll_back(namespace, project, to)).await?;
                Ok((Some(to.to_owned()), status))
            }
        }
    }

    /// What has become of a rollback to `to` since it was sent.
    ///
    /// # Errors
    /// See [`HostedError`].
    pub async fn rolled_back(
        self,
        namespace: &str,
        sent: &HostedStatus,
        to: &str,
    ) -> Result<RollbackState, HostedError> {
        let newest_before = sent.newest_before.as_deref();
        match self {
            Self::Render(render, service) => match &sent.deploy {
                Some(deploy) => Box::pin(render.rollback_state(namespace, service, deploy)).await,
                None => Box::pin(render.find_rollback(namespace, service, to, newest_before)).await,
            },
            Self::Vercel(vercel, project) => Box::pin(vercel.rolled_back(namespace, project, to, newest_before)).await,
        }
    }
}
