//! Services that Render hosts (<https://api-docs.render.com>): looked at, restarted, rolled back.
//!
//! A service's deploys are its releases. A rollback makes a new deploy of what another one was, and is known by that one
//! ([`crate::analyze::observation::ReleaseId`]). Keys are read by reference at the moment of use.

mod act;
mod look;
mod state;
mod usage;
mod wire;

use std::{
    collections::HashMap,
    sync::Mutex,
    time::{Duration, Instant},
};

use reqwest::Method;
use secrecy::SecretString;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{
    cloud::{Answer, BaseUrl, BreakerLimits, Call, Cloud, CloudError, Kind, Quota, Repeat, TimeLimits},
    kubernetes::{ActError, Kubernetes},
};
use crate::{
    analyze::observation::{UnknownReason, Unmeasured},
    api::RenderService,
};
pub use act::{Before, Replaced, RollbackState, Seen};
pub use look::RenderLook;

/// Where Render's API is.
pub const RENDER_API: &str = "https://api.render.com/v1";

/// Limits of the API (<https://api-docs.render.com/reference/rate-limiting>): reads and writes by key, what makes deploys by
/// key and service.
const READS: u32 = 400;
const WRITES: u32 = 30;
const DEPLOYS: u32 = 10;
const PER: Duration = Duration::from_secs(60);
/// One request that changes something, and all its tries.
const WRITE_LIMIT: TimeLimits = TimeLimits { attempt: Duration::from_secs(10), total: Duration::from_secs(20) };
/// One request that reads, and a look with all of them: fresh enough to be acted on when it ends.
const READ_ATTEMPT: Duration = Duration::from_millis(2500);
const READ_LIMIT: Duration = Duration::from_secs(9);

/// How the API is reached.
#[derive(Debug, Clone)]
pub struct RenderConfig {
    pub base_url: BaseUrl,
    /// Of targets that name none.
    pub api_key: Option<SecretString>,
}

/// Looks at services and acts on them. One for the whole operator.
pub struct Render {
    cloud: Cloud,
    api_key: Option<SecretString>,
    kubernetes: Kubernetes,
    seen: Mutex<HashMap<String, look::Remembered>>,
    /// What deploys that are rollbacks went back to, by their ids.
    targets: Mutex<HashMap<String, String>>,
}

/// Why something was not read or not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RenderError {
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
    /// A rollback runs of which it is not told yet what it goes back to.
    #[error("it is not told yet what the deploy {0} goes back to")]
    Unsettled(String),
}

impl RenderError {
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
            Self::CredentialsMissing(_) | Self::Forbidden(_) => false,
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
}

impl From<RenderError> for Unmeasured {
    fn from(error: RenderError) -> Self {
        Self::new(error.unknown(), error.to_string())
    }
}

/// A service, and the key to ask with.
pub struct Account<'a> {
    service: &'a RenderService,
    key: SecretString,
}

impl Render {
    pub fn new(config: RenderConfig, kubernetes: Kubernetes) -> Self {
        let RenderConfig { base_url, api_key } = config;
        let cloud = Cloud::new(base_url);
        Self { cloud, api_key, kubernetes, seen: Mutex::default(), targets: Mutex::default() }
    }

    /// The key of a service, read now.
    ///
    /// # Errors
    /// CredentialsMissing, Forbidden or KeyUnread, with the Secret's name.
    pub async fn account<'a>(&self, namespace: &str, service: &'a RenderService) -> Result<Account<'a>, RenderError> {
        let id = &service.service_id;
        let Some(reference) = &service.key else {
            let key = self.api_key.clone().ok_or_else(|| {
                RenderError::CredentialsMissing(format!(
                    "there is no Render API key for {id}: name a Secret in target.render.apiKeySecretRef, or start the operator with RENDER_API_KEY"
                ))
            })?;
            return Ok(Account { service, key });
        };
        match self.kubernetes.secret(namespace, reference).await {
            Ok(key) => Ok(Account { service, key }),
            Err(ActError::BadRemedy(why)) => Err(RenderError::CredentialsMissing(format!(
                "there is no Render API key for {id}: {why} (target.render.apiKeySecretRef)"
            ))),
            Err(why @ ActError::Forbidden { .. }) => Err(RenderError::Forbidden(format!(
                "the Render API key of {id} in Secret {} cannot be read: {why}; set rbac.readCredentials in the chart",
                reference.name
            ))),
            Err(why) => Err(RenderError::KeyUnread(why)),
        }
    }

    /// Something of the service's, to be read within this time.
    async fn get<T: DeserializeOwned>(
        &self,
        account: &Account<'_>,
        what: &str,
        path: &[&str],
        query: &[(&str, String)],
        until: Instant,
    ) -> Result<T, RenderError> {
        let id = &account.service.service_id;
        let breaker = if path.first() == Some(&"metrics") { format!("{id} metrics") } else { id.clone() };
        let quotas = [Quota { name: "read".into(), calls: READS, per: PER }];
        let call = Call {
            what,
            method: Method::GET,
            path,
            query,
            json: None,
            repeat: Repeat::Always,
            quotas: &quotas,
            breaker: &breaker,
            breaker_limits: limits(account),
            time: TimeLimits { attempt: READ_ATTEMPT, total: until.saturating_duration_since(Instant::now()) },
        };
        Ok(self.cloud.read(&account.key, &call).await?)
    }

    /// A call that changes something. What it counts against is not documented for each: a rollback is taken for both.
    async fn change(
        &self,
        account: &Account<'_>,
        method: Method,
        (what, path): (&str, &[&str]),
        json: Option<&Value>,
        repeat: Repeat,
    ) -> Result<Answer, RenderError> {
        let id = &account.service.service_id;
        let writes = Quota { name: "write".into(), calls: WRITES, per: PER };
        let deploys = Quota { name: format!("deploy {id}"), calls: DEPLOYS, per: PER };
        let quotas = match (&method, path.last()) {
            (&Method::PATCH, _) => vec![deploys],
            (_, Some(&"rollback")) => vec![writes, deploys],
            _ => vec![writes],
        };
        let call = Call {
            what,
            method,
            path,
            query: &[],
            json,
            repeat,
            quotas: &quotas,
            breaker: id,
            breaker_limits: limits(account),
            time: WRITE_LIMIT,
        };
        Ok(self.cloud.send(&account.key, &call).await?)
    }
}

fn limits(account: &Account<'_>) -> BreakerLimits {
    BreakerLimits { threshold: account.service.failure_threshold, recovery: account.service.recovery_timeout }
}
