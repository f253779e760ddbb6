//! The API of one provider, and the credential of a service there.

use std::time::{Duration, Instant};

use reqwest::Method;
use secrecy::SecretString;

use super::{
    super::kubernetes::{ActError, Kubernetes},
    client::{ApiClient, BreakerLimits, Call, Manner, Quota, Repeat, TimeLimits},
    common::{HostedError, ProviderConfig},
};
use crate::api::{Access, CircuitStatus};

/// An observation with all its requests: fresh enough to be acted on when it ends.
pub(super) const READ_LIMIT: Duration = Duration::from_secs(9);
/// One request that reads.
const READ_ATTEMPT: Duration = Duration::from_millis(2500);
/// One request that changes something, and all its tries.
const WRITE_LIMIT: TimeLimits = TimeLimits { attempt: Duration::from_secs(10), total: Duration::from_secs(20) };

/// A provider's words for its key, for messages.
pub(super) struct KeyWords {
    /// "Render API key".
    pub name: &'static str,
    /// The field of a policy that names a Secret.
    pub field: &'static str,
    /// The operator's own.
    pub variable: &'static str,
}

/// The API of one provider.
pub(super) struct ProviderApi {
    pub client: ApiClient,
    /// Of targets that name no key.
    key: Option<SecretString>,
    words: KeyWords,
    pub kubernetes: Kubernetes,
}

/// A service, the key for its calls, and until when they may read.
pub(super) struct Account<'a> {
    pub id: &'a str,
    access: &'a Access,
    pub key: SecretString,
    pub until: Instant,
}

impl ProviderApi {
    pub fn new(config: ProviderConfig, manner: Manner, words: KeyWords, kubernetes: &Kubernetes) -> Self {
        let client = ApiClient::new(config.base_url, manner);
        Self { client, key: config.key, words, kubernetes: kubernetes.clone() }
    }

    /// Reads the key of the service `id`, whose calls may read within 9 s from now.
    ///
    /// # Errors
    /// CredentialsMissing, Forbidden or KeyUnread, with the Secret's name.
    pub async fn account<'a>(
        &self,
        namespace: &str,
        id: &'a str,
        access: &'a Access,
    ) -> Result<Account<'a>, HostedError> {
        let until = Instant::now() + READ_LIMIT;
        let KeyWords { name, field, variable } = self.words;
        let key = match &access.key {
            None => self.key.clone().ok_or_else(|| {
                HostedError::CredentialsMissing(format!(
                    "there is no {name} for {id}: name a Secret in {field}, or start the operator with {variable}"
                ))
            })?,
            Some(reference) => self.kubernetes.secret(namespace, reference).await.map_err(|why| match why {
                ActError::BadRemedy(why) => {
                    HostedError::CredentialsMissing(format!("there is no {name} for {id}: {why} ({field})"))
                }
                ActError::Forbidden { .. } => HostedError::Forbidden(format!(
                    "the {name} of {id} in Secret {} cannot be read: {why}; set rbac.readCredentials in the chart",
                    reference.name
                )),
                why => HostedError::KeyUnread(why),
            })?,
        };
        Ok(Account { id, access, key, until })
    }

    pub fn restore_circuit(&self, id: &str, access: &Access, shown: &CircuitStatus) {
        self.client.restore_circuit(id, shown, breaker_limits(access));
    }
}

impl Account<'_> {
    /// A call that reads. `what`: in words, for messages.
    pub fn read<'c>(
        &'c self,
        what: &'c str,
        path: &'c [&'c str],
        query: &'c [(&'c str, String)],
        quotas: &'c [Quota],
    ) -> Call<'c> {
        let total = self.until.saturating_duration_since(Instant::now());
        Call {
            what,
            method: Method::GET,
            path,
            query,
            json: None,
            repeat: Repeat::Always,
            quotas,
            breaker: self.id,
            breaker_limits: breaker_limits(self.access),
            time: TimeLimits { attempt: READ_ATTEMPT, total },
        }
    }

    /// A call that changes something.
    pub fn write<'c>(
        &'c self,
        method: Method,
        what: &'c str,
        path: &'c [&'c str],
        quotas: &'c [Quota],
        repeat: Repeat,
    ) -> Call<'c> {
        Call { method, repeat, time: WRITE_LIMIT, ..self.read(what, path, &[], quotas) }
    }
}

fn breaker_limits(access: &Access) -> BreakerLimits {
    BreakerLimits { threshold: access.failure_threshold, recovery: access.recovery_timeout }
}
