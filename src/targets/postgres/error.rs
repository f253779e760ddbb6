//! Failures between the operator and a PostgreSQL server. No message holds a secret.

use std::{future::Future, time::Duration};

use sqlx::error::DatabaseError;
use tokio::time::timeout;

use crate::postgres_url::Address;
use crate::{
    analyze::observation::{UnknownReason, Unmeasured},
    api::{RemediationReason as Reason, Retry},
};

/// Why the server was not read, or an action on it was not performed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct PostgresError {
    /// `status.reason` of the Remediation that this error ends or blocks.
    pub reason: Reason,
    message: String,
}

impl PostgresError {
    pub(super) fn new(reason: Reason, message: impl Into<String>) -> Self {
        // Conditions and events take 1 kB.
        Self { reason, message: Unmeasured::new(UnknownReason::Refused, message).message }
    }

    /// Classifies an error of sqlx. The error itself is not stored: its text may quote its input.
    pub(super) fn sorted(error: &sqlx::Error, address: &Address) -> Self {
        let (reason, words) = match error {
            sqlx::Error::Database(database) => return Self::from_server(database.as_ref(), address),
            sqlx::Error::Io(io) => match io.to_string() {
                text if text.contains("certificate") || text.contains("TLS") => (Reason::TlsFailed, tls_words(&text)),
                text if text.contains("lookup address") => {
                    (Reason::Unresolved, format!("its name does not resolve ({text})"))
                }
                text => (Reason::Unreachable, text),
            },
            sqlx::Error::Tls(tls) => (Reason::TlsFailed, tls_words(&tls.to_string())),
            sqlx::Error::Configuration(_) => {
                (Reason::CredentialsMissing, "an option of the connection is not valid".to_owned())
            }
            sqlx::Error::Protocol(what) => (Reason::BadAnswer, format!("bad response: {what}")),
            other => (Reason::Failed, other.to_string()),
        };
        Self::new(reason, address.clean(&format!("{}: {words}", address.place)))
    }

    /// By SQLSTATE: <https://www.postgresql.org/docs/current/errcodes-appendix.html>. PgBouncer sends 08P01 for nearly all errors.
    fn from_server(error: &dyn DatabaseError, address: &Address) -> Self {
        let code = error.code().unwrap_or_default();
        let text = error.message();
        let says = |words: &str| text.contains(words);
        let reason = match &*code {
            "28000" if says("no encryption") || says("SSL off") => Reason::TlsFailed,
            "28P01" | "28000" => Reason::CredentialsRefused,
            "3D000" => Reason::DatabaseMissing,
            "53300" => Reason::Saturated,
            "42501" => Reason::NotAllowed,
            code if code.starts_with("57P0") || code.starts_with("08") => match () {
                () if says("authentication failed") || says("no such user") => Reason::CredentialsRefused,
                () if says("no more connections allowed") => Reason::Saturated,
                () if says("SSL required") => Reason::TlsFailed,
                () if says("no such database") || says("does not exist") => Reason::DatabaseMissing,
                () => Reason::Unreachable,
            },
            _ => Reason::Failed,
        };
        let hint = match reason {
            Reason::TlsFailed => "; the server requires TLS: set sslmode=require, or verify-full",
            _ => "",
        };
        // `message()` is the primary message only: DETAIL and CONTEXT may quote values.
        Self::new(reason, address.clean(&format!("{}: {text} (SQLSTATE {code}){hint}", address.place)))
    }

    /// The error is a measurement: the database accepts no connection.
    pub(super) fn is_outage(&self) -> bool {
        matches!(self.reason, Reason::Unreachable | Reason::Saturated)
    }

    /// When another attempt may succeed.
    pub fn retry(&self) -> Retry {
        match self.reason {
            Reason::CredentialsMissing
            | Reason::Forbidden
            | Reason::CredentialsRefused
            | Reason::TlsFailed
            | Reason::DatabaseMissing
            | Reason::NotAllowed => Retry::OnChange,
            _ => Retry::Backoff,
        }
    }
}

impl From<PostgresError> for Unmeasured {
    fn from(error: PostgresError) -> Self {
        let reason = match error.reason {
            Reason::CredentialsMissing => UnknownReason::CredentialsMissing,
            Reason::Forbidden => UnknownReason::Forbidden,
            Reason::CredentialsRefused => UnknownReason::CredentialsRefused,
            Reason::TlsFailed => UnknownReason::TlsFailed,
            Reason::DatabaseMissing => UnknownReason::TargetNotFound,
            Reason::Unread | Reason::Unresolved | Reason::Unreachable => UnknownReason::Unreachable,
            Reason::BadAnswer => UnknownReason::BadAnswer,
            _ => UnknownReason::Refused,
        };
        Self::new(reason, error.message)
    }
}

/// The result of `work`, which takes at most `limit`.
pub(super) async fn within<T>(
    address: &Address,
    limit: Duration,
    work: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, PostgresError> {
    match timeout(limit, work).await {
        Ok(done) => done.map_err(|error| PostgresError::sorted(&error, address)),
        Err(_) => {
            let message = format!("{}: no response within {} s", address.place, limit.as_secs());
            Err(PostgresError::new(Reason::Unreachable, message))
        }
    }
}

fn tls_words(text: &str) -> String {
    let hint = match text.to_ascii_lowercase() {
        lower if lower.contains("expired") => "the server's certificate has expired: renew it",
        lower if lower.contains("unknownissuer") || lower.contains("unknown issuer") => {
            "the authority of the server's certificate is not trusted: name it in target.postgres.caSecretRef"
        }
        lower if lower.contains("not valid for name") || lower.contains("notvalidforname") => {
            "the server's certificate has another name: connect by that name"
        }
        lower if lower.contains("does not support") => "the server has no TLS: set sslmode=disable if that is intended",
        _ => "check sslmode and target.postgres.caSecretRef",
    };
    format!("TLS failed: {text}; {hint}")
}
