//! What can go wrong between us and a PostgreSQL server, in words that hold no secret.

use std::time::Duration;

use sqlx::error::DatabaseError;

use crate::analyze::observation::{UnknownReason, Unmeasured};
use crate::postgres_url::Address;

/// Something that was not read or not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct PostgresError {
    pub kind: Kind,
    message: String,
}

/// A closed set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::IntoStaticStr)]
pub enum Kind {
    /// The Secret, or a key of it, is not there or says nothing usable.
    CredentialsMissing,
    /// The operator's role does not let it read the Secret.
    Forbidden,
    /// The Secret could not be read now.
    Unread,
    /// The server did not accept who we are, or from where we come.
    CredentialsRefused,
    /// TLS could not be agreed on.
    TlsFailed,
    /// The server is there, the database of that name is not.
    DatabaseMissing,
    /// Its name does not resolve.
    Unresolved,
    /// Nobody answers: refused, reset, silent, or the server says that it is starting or stopping.
    Unreachable,
    /// All connections are taken.
    Saturated,
    /// The role may not do this.
    NotAllowed,
    /// What came back is not of PostgreSQL.
    BadAnswer,
    /// Anything else, in the server's own words.
    Failed,
}

impl PostgresError {
    pub(super) fn new(kind: Kind, message: impl Into<String>) -> Self {
        // Conditions and events take 1 kB.
        Self { kind, message: Unmeasured::new(UnknownReason::Refused, message).message }
    }

    /// Nothing was heard within this time.
    pub(super) fn silent(address: &Address, limit: Duration) -> Self {
        let message = format!("{}: nothing was heard within {} s", address.place, limit.as_secs());
        Self::new(Kind::Unreachable, message)
    }

    /// Sorts an error of sqlx. The error itself is not kept: its text may quote what it was given.
    pub(super) fn sorted(error: &sqlx::Error, address: &Address) -> Self {
        let (kind, words) = match error {
            sqlx::Error::Database(database) => return Self::from_server(database.as_ref(), address),
            sqlx::Error::Io(io) => {
                let text = io.to_string();
                match () {
                    () if text.contains("certificate") || text.contains("TLS") => (Kind::TlsFailed, tls_words(&text)),
                    () if text.contains("lookup address") => {
                        (Kind::Unresolved, format!("its name does not resolve ({text})"))
                    }
                    () => (Kind::Unreachable, text),
                }
            }
            sqlx::Error::Tls(tls) => (Kind::TlsFailed, tls_words(&tls.to_string())),
            sqlx::Error::Configuration(_) => {
                (Kind::CredentialsMissing, "an option of the connection is not valid".to_owned())
            }
            sqlx::Error::Protocol(what) => (Kind::BadAnswer, format!("bad answer: {what}")),
            other => (Kind::Failed, other.to_string()),
        };
        Self::new(kind, address.clean(&format!("{}: {words}", address.place)))
    }

    /// By SQLSTATE: <https://www.postgresql.org/docs/current/errcodes-appendix.html>. PgBouncer sends 08P01 for nearly everything.
    fn from_server(error: &dyn DatabaseError, address: &Address) -> Self {
        let code = error.code().unwrap_or_default();
        let text = error.message();
        let kind = match &*code {
            "28P01" => Kind::CredentialsRefused,
            "28000" if text.contains("no encryption") || text.contains("SSL off") => Kind::TlsFailed,
            "28000" => Kind::CredentialsRefused,
            "3D000" => Kind::DatabaseMissing,
            "53300" => Kind::Saturated,
            "42501" => Kind::NotAllowed,
            code if code.starts_with("57P0") || code.starts_with("08") => match () {
                () if text.contains("authentication failed") || text.contains("no such user") => {
                    Kind::CredentialsRefused
                }
                () if text.contains("no more connections allowed") => Kind::Saturated,
                () if text.contains("SSL required") => Kind::TlsFailed,
                () if text.contains("no such database") || text.contains("does not exist") => Kind::DatabaseMissing,
                () => Kind::Unreachable,
            },
            _ => Kind::Failed,
        };
        let hint = match kind {
            Kind::TlsFailed => "; the server wants TLS: write sslmode=require, or verify-full",
            _ => "",
        };
        // `message()` is the primary message only: DETAIL and CONTEXT may quote values.
        Self::new(kind, address.clean(&format!("{}: {text} (SQLSTATE {code}){hint}", address.place)))
    }

    /// CamelCase, from a closed set.
    pub fn reason(&self) -> &'static str {
        self.kind.into()
    }

    /// It was measured: the database takes no connection.
    pub(super) fn is_outage(&self) -> bool {
        matches!(self.kind, Kind::Unreachable | Kind::Saturated)
    }

    /// Waiting may help.
    pub fn may_pass(&self) -> bool {
        matches!(
            self.kind,
            Kind::Unread | Kind::Unresolved | Kind::Unreachable | Kind::Saturated | Kind::BadAnswer | Kind::Failed
        )
    }

    fn unknown(&self) -> UnknownReason {
        use UnknownReason as Reason;
        match self.kind {
            Kind::CredentialsMissing => Reason::CredentialsMissing,
            Kind::Forbidden => Reason::Forbidden,
            Kind::CredentialsRefused => Reason::CredentialsRefused,
            Kind::TlsFailed => Reason::TlsFailed,
            Kind::DatabaseMissing => Reason::TargetNotFound,
            Kind::Unread | Kind::Unresolved | Kind::Unreachable => Reason::Unreachable,
            Kind::Saturated | Kind::NotAllowed | Kind::Failed => Reason::Refused,
            Kind::BadAnswer => Reason::BadAnswer,
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
