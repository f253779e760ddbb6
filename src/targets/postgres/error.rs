//! What fails between the operator and a PostgreSQL server. No message holds a secret.

use std::time::Duration;

use sqlx::error::DatabaseError;

use crate::postgres_url::Address;
use crate::{
    analyze::observation::{UnknownReason, Unmeasured},
    api::{RemediationReason, Retry},
};

/// Why the server was not read, or an action on it was not made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct PostgresError {
    pub failure: PostgresFailure,
    message: String,
}

/// The kinds of failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PostgresFailure {
    /// The Secret or its key does not exist, or its content is not usable.
    CredentialsMissing,
    /// The operator's role does not grant the right to read the Secret.
    Forbidden,
    /// The Secret could not be read now.
    Unread,
    /// The server refused the user, the password or the client address.
    CredentialsRefused,
    /// TLS could not be negotiated.
    TlsFailed,
    /// The server has no database of this name.
    DatabaseMissing,
    /// The host name does not resolve.
    Unresolved,
    /// The connection was refused or reset, timed out, or the server is starting or stopping.
    Unreachable,
    /// All connections are taken.
    Saturated,
    /// The database role may not do this.
    NotAllowed,
    /// The answer does not follow the PostgreSQL protocol.
    BadAnswer,
    /// Any other error that the server reports.
    Failed,
}

impl PostgresError {
    pub(super) fn new(failure: PostgresFailure, message: impl Into<String>) -> Self {
        // Conditions and events take 1 kB.
        Self { failure, message: Unmeasured::new(UnknownReason::Refused, message).message }
    }

    /// Nothing was heard within this time.
    pub(super) fn silent(address: &Address, limit: Duration) -> Self {
        let message = format!("{}: nothing was heard within {} s", address.place, limit.as_secs());
        Self::new(PostgresFailure::Unreachable, message)
    }

    /// Sorts an error of sqlx. The error itself is not kept: its text may quote what it was given.
    pub(super) fn sorted(error: &sqlx::Error, address: &Address) -> Self {
        let (failure, words) = match error {
            sqlx::Error::Database(database) => return Self::from_server(database.as_ref(), address),
            sqlx::Error::Io(io) => {
                let text = io.to_string();
                match () {
                    () if text.contains("certificate") || text.contains("TLS") => {
                        (PostgresFailure::TlsFailed, tls_words(&text))
                    }
                    () if text.contains("lookup address") => {
                        (PostgresFailure::Unresolved, format!("its name does not resolve ({text})"))
                    }
                    () => (PostgresFailure::Unreachable, text),
                }
            }
            sqlx::Error::Tls(tls) => (PostgresFailure::TlsFailed, tls_words(&tls.to_string())),
            sqlx::Error::Configuration(_) => {
                (PostgresFailure::CredentialsMissing, "an option of the connection is not valid".to_owned())
            }
            sqlx::Error::Protocol(what) => (PostgresFailure::BadAnswer, format!("bad answer: {what}")),
            other => (PostgresFailure::Failed, other.to_string()),
        };
        Self::new(failure, address.clean(&format!("{}: {words}", address.place)))
    }

    /// By SQLSTATE: <https://www.postgresql.org/docs/current/errcodes-appendix.html>. PgBouncer sends 08P01 for nearly everything.
    fn from_server(error: &dyn DatabaseError, address: &Address) -> Self {
        let code = error.code().unwrap_or_default();
        let text = error.message();
        let failure = match &*code {
            "28P01" => PostgresFailure::CredentialsRefused,
            "28000" if text.contains("no encryption") || text.contains("SSL off") => PostgresFailure::TlsFailed,
            "28000" => PostgresFailure::CredentialsRefused,
            "3D000" => PostgresFailure::DatabaseMissing,
            "53300" => PostgresFailure::Saturated,
            "42501" => PostgresFailure::NotAllowed,
            code if code.starts_with("57P0") || code.starts_with("08") => match () {
                () if text.contains("authentication failed") || text.contains("no such user") => {
                    PostgresFailure::CredentialsRefused
                }
                () if text.contains("no more connections allowed") => PostgresFailure::Saturated,
                () if text.contains("SSL required") => PostgresFailure::TlsFailed,
                () if text.contains("no such database") || text.contains("does not exist") => {
                    PostgresFailure::DatabaseMissing
                }
                () => PostgresFailure::Unreachable,
            },
            _ => PostgresFailure::Failed,
        };
        let hint = match failure {
            PostgresFailure::TlsFailed => "; the server wants TLS: write sslmode=require, or verify-full",
            _ => "",
        };
        // `message()` is the primary message only: DETAIL and CONTEXT may quote values.
        Self::new(failure, address.clean(&format!("{}: {text} (SQLSTATE {code}){hint}", address.place)))
    }

    /// `status.reason` of the Remediation that this error ends or blocks.
    pub fn reason(&self) -> RemediationReason {
        match self.failure {
            PostgresFailure::CredentialsMissing => RemediationReason::CredentialsMissing,
            PostgresFailure::Forbidden => RemediationReason::Forbidden,
            PostgresFailure::Unread => RemediationReason::Unread,
            PostgresFailure::CredentialsRefused => RemediationReason::CredentialsRefused,
            PostgresFailure::TlsFailed => RemediationReason::TlsFailed,
            PostgresFailure::DatabaseMissing => RemediationReason::DatabaseMissing,
            PostgresFailure::Unresolved => RemediationReason::Unresolved,
            PostgresFailure::Unreachable => RemediationReason::Unreachable,
            PostgresFailure::Saturated => RemediationReason::Saturated,
            PostgresFailure::NotAllowed => RemediationReason::NotAllowed,
            PostgresFailure::BadAnswer => RemediationReason::BadAnswer,
            PostgresFailure::Failed => RemediationReason::Failed,
        }
    }

    /// The error is a measurement: the database takes no connection.
    pub(super) fn is_outage(&self) -> bool {
        matches!(self.failure, PostgresFailure::Unreachable | PostgresFailure::Saturated)
    }

    /// When another attempt may succeed.
    pub fn retry(&self) -> Retry {
        match self.failure {
            PostgresFailure::Unread
            | PostgresFailure::Unresolved
            | PostgresFailure::Unreachable
            | PostgresFailure::Saturated
            | PostgresFailure::BadAnswer
            | PostgresFailure::Failed => Retry::Backoff,
            PostgresFailure::CredentialsMissing
            | PostgresFailure::Forbidden
            | PostgresFailure::CredentialsRefused
            | PostgresFailure::TlsFailed
            | PostgresFailure::DatabaseMissing
            | PostgresFailure::NotAllowed => Retry::OnChange,
        }
    }

    fn unknown(&self) -> UnknownReason {
        use UnknownReason as Reason;
        match self.failure {
            PostgresFailure::CredentialsMissing => Reason::CredentialsMissing,
            PostgresFailure::Forbidden => Reason::Forbidden,
            PostgresFailure::CredentialsRefused => Reason::CredentialsRefused,
            PostgresFailure::TlsFailed => Reason::TlsFailed,
            PostgresFailure::DatabaseMissing => Reason::TargetNotFound,
            PostgresFailure::Unread | PostgresFailure::Unresolved | PostgresFailure::Unreachable => Reason::Unreachable,
            PostgresFailure::Saturated | PostgresFailure::NotAllowed | PostgresFailure::Failed => Reason::Refused,
            PostgresFailure::BadAnswer => Reason::BadAnswer,
        }
    }
}

impl From<PostgresError> for Unmeasured {
    fn from(error: PostgresError) -> Self {
        Self::new(error.unknown(), error.to_string())
    }
}

fn tls_words(text: &str) -> String {
    let hint = match text.to_ascii_lowercase() {
        lower if lower.contains("expired") => "the server's certificate has expired: renew it",
        lower if lower.contains("unknownissuer") || lower.contains("unknown issuer") => {
            "the server's certificate is of an authority that is not trusted: name it in target.postgres.caSecretRef"
        }
        lower if lower.contains("not valid for name") || lower.contains("notvalidforname") => {
            "the server's certificate is of another name: connect by the name that it has"
        }
        lower if lower.contains("does not support") => "the server has no TLS: write sslmode=disable, if that is meant",
        _ => "see sslmode, and target.postgres.caSecretRef",
    };
    format!("TLS failed: {text}; {hint}")
}
