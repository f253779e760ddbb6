//! What can go wrong between us and the database, as a closed set of reasons, with texts that hold no secret.

use sqlx::error::DatabaseError;

/// Why the ledger cannot be used; used as is in the condition `LedgerAvailable`, in events and metric labels.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, strum::Display, strum::IntoStaticStr, strum::EnumIter,
)]
pub enum LedgerReason {
    /// The configuration can never work (not a Postgres URL, an unknown TLS mode). Only a restart with another one helps.
    InvalidConfiguration,
    /// Nobody answers: refused, DNS, the file cannot be opened, the server is starting or stopping.
    Unreachable,
    /// The server did not accept who we are, or from where we come.
    AuthenticationFailed,
    /// TLS could not be agreed on.
    TlsFailed,
    /// The server is there, the database of that name is not.
    DatabaseMissing,
    /// We may connect and may not create, read or insert.
    Forbidden,
    /// A standby, a read-only session, or a read-only file.
    ReadOnly,
    /// A table is there and lacks a needed column, has one of an unusable type, or demands columns that we do not know.
    WrongSchema,
    /// No space left.
    Full,
    /// The server takes no further connections.
    TooManyConnections,
    /// Another writer held the lock too long.
    Busy,
    /// No answer within the time limit.
    Timeout,
    /// This row, and no other, was refused: a retry of the same row will fail again.
    RowRefused,
    /// Anything else, in the database's own words.
    Failed,
}

/// An operation on the ledger that did not happen. The text holds no secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("ledger: {message}")]
pub struct LedgerError {
    reason: LedgerReason,
    message: String,
}

/// Longest message, in characters: it goes into conditions and events (1 kB a note).
const MAX_MESSAGE: usize = 512;

impl LedgerError {
    pub(super) fn new(reason: LedgerReason, message: impl Into<String>) -> Self {
        let mut message = message.into();
        if let Some((cut, _)) = message.char_indices().nth(MAX_MESSAGE - 3) {
            message.truncate(cut);
            message.push_str("...");
        }
        Self { reason, message }
    }

    pub(super) fn timeout(what: &str, limit: std::time::Duration) -> Self {
        Self::new(LedgerReason::Timeout, format!("{what} took longer than {} s", limit.as_secs()))
    }

    pub fn reason(&self) -> LedgerReason {
        self.reason
    }

    /// What was seen and what would help, for a person. At most 512 characters.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Whether the same call may succeed later without anybody changing the row.
    pub fn may_pass(&self) -> bool {
        self.reason != LedgerReason::RowRefused
    }

    /// The schema that we saw is not, or no longer, the one that is there.
    pub(super) fn is_schema(&self) -> bool {
        self.reason == LedgerReason::WrongSchema
    }

    /// Looking does not find it; only writing does.
    pub(super) fn is_of_writing(&self) -> bool {
        matches!(self.reason, LedgerReason::Full | LedgerReason::Forbidden | LedgerReason::Failed)
    }

    /// Sorts an error of sqlx. `place` says which database, without credentials.
    ///
    /// The error itself is not kept as a source: its text may quote what the caller gave (a connection string, a
    /// row's detail), and everything that is kept here ends in a log, a condition or an event.
    pub(super) fn from_sqlx(error: &sqlx::Error, place: &str) -> Self {
        use LedgerReason as R;
        match error {
            sqlx::Error::Database(database) => Self::from_database(database.as_ref(), place),
            sqlx::Error::Io(io) => Self::new(R::Unreachable, format!("{place}: {io}")),
            sqlx::Error::Tls(tls) => Self::new(R::TlsFailed, format!("{place}: TLS failed: {tls}")),
            sqlx::Error::Configuration(_) => {
                Self::new(R::InvalidConfiguration, format!("{place}: a connection option is not valid"))
            }
            sqlx::Error::Protocol(what) => Self::new(R::Unreachable, format!("{place}: bad answer: {what}")),
            sqlx::Error::Encode(what) => Self::new(R::RowRefused, format!("{place}: cannot encode: {what}")),
            sqlx::Error::ColumnDecode { index, source } => {
                Self::new(R::WrongSchema, format!("{place}: column {index} holds something else: {source}"))
            }
            other => Self::new(R::Failed, format!("{place}: {other}")),
        }
    }

    fn from_database(error: &dyn DatabaseError, place: &str) -> Self {
        let code = error.code().unwrap_or_default();
        let reason = if error.try_downcast_ref::<sqlx::postgres::PgDatabaseError>().is_some() {
            postgres_reason(&code)
        } else {
            sqlite_reason(code.parse().unwrap_or(0), error.message())
        };
        // `message()` is the primary message only: DETAIL and CONTEXT of Postgres may quote whole rows.
        Self::new(reason, format!("{place}: {} (code {code})", error.message()))
    }
}

/// By SQLSTATE: <https://www.postgresql.org/docs/current/errcodes-appendix.html>.
fn postgres_reason(code: &str) -> LedgerReason {
    use LedgerReason as R;
    match code {
        "28P01" | "28000" => R::AuthenticationFailed,
        "3D000" => R::DatabaseMissing,
        "42501" => R::Forbidden,
        "25006" => R::ReadOnly,
        // Undefined table or column, type mismatch, no unique index for ON CONFLICT, no such schema.
        "42P01" | "42703" | "42804" | "42P10" | "3F000" => R::WrongSchema,
        "53300" => R::TooManyConnections,
        "53100" => R::Full,
        "57014" => R::Timeout,
        "55P03" | "40001" | "40P01" => R::Busy,
        "57P01" | "57P02" | "57P03" => R::Unreachable,
        // A trigger's RAISE, a row that is too large for an index or a page.
        "P0001" | "54000" => R::RowRefused,
        _ if code.starts_with("08") => R::Unreachable,
        // Data exceptions and violated constraints.
        _ if code.starts_with("22") || code.starts_with("23") => R::RowRefused,
        _ => R::Failed,
    }
}

/// By result code, of which the low byte is the class: <https://www.sqlite.org/rescode.html>.
fn sqlite_reason(code: u32, message: &str) -> LedgerReason {
    use LedgerReason as R;
    match code & 0xff {
        1 if message.contains("no such table")
            || message.contains("no column")
            || message.contains("no such column") =>
        {
            R::WrongSchema
        }
        1 if message.contains("ON CONFLICT clause does not match") => R::WrongSchema,
        3 | 23 => R::Forbidden,
        5 | 6 => R::Busy,
        8 => R::ReadOnly,
        13 => R::Full,
        14 => R::Unreachable,
        18..=20 => R::RowRefused,
        _ => R::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_sorted_into_reasons() {
        for (code, reason) in [
            ("28P01", LedgerReason::AuthenticationFailed),
            ("3D000", LedgerReason::DatabaseMissing),
            ("42501", LedgerReason::Forbidden),
            ("25006", LedgerReason::ReadOnly),
            ("42P01", LedgerReason::WrongSchema),
            ("53100", LedgerReason::Full),
            ("53300", LedgerReason::TooManyConnections),
            ("57P03", LedgerReason::Unreachable),
            ("08006", LedgerReason::Unreachable),
            ("22P05", LedgerReason::RowRefused),
            ("23514", LedgerReason::RowRefused),
            ("XX000", LedgerReason::Failed),
        ] {
            assert_eq!(postgres_reason(code), reason, "{code}");
        }
        for (code, message, reason) in [
            (1, "no such table: unified_brain", LedgerReason::WrongSchema),
            (1, "near \"SELEC\": syntax error", LedgerReason::Failed),
            (5, "database is locked", LedgerReason::Busy),
            (261, "database is locked", LedgerReason::Busy),
            (1032, "attempt to write a readonly database", LedgerReason::ReadOnly),
            (13, "database or disk is full", LedgerReason::Full),
            (14, "unable to open database file", LedgerReason::Unreachable),
            (275, "CHECK constraint failed", LedgerReason::RowRefused),
        ] {
            assert_eq!(sqlite_reason(code, message), reason, "{code} {message}");
        }
    }

    #[test]
    fn long_messages_are_cut_on_a_character() {
        let error = LedgerError::new(LedgerReason::Failed, "é".repeat(2000));
        assert_eq!(error.message().chars().count(), MAX_MESSAGE);
        assert!(error.message().ends_with("..."));
    }
}
