//! Errors of the database as a closed set of reasons, with texts that hold no secret.

/// Why the ledger cannot be used; also the reason of the condition `LedgerAvailable`, of events, and a metric label.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, strum::Display, strum::IntoStaticStr, strum::EnumIter,
)]
pub enum LedgerReason {
    /// The configuration can never work (not a Postgres URL, an unknown TLS mode). Only a restart with another one helps.
    InvalidConfiguration,
    /// No response: connection refused, DNS, the file cannot be opened, the server is starting or stopping.
    Unreachable,
    /// The server rejected the user, the password or the client's address.
    AuthenticationFailed,
    /// The TLS handshake failed.
    TlsFailed,
    /// The server has no database of that name.
    DatabaseMissing,
    /// The user may connect, but may not create, read or insert.
    Forbidden,
    /// A standby, a read-only session, or a read-only file.
    ReadOnly,
    /// A table lacks a needed column, has one of an unusable type, or requires a column that Panacea does not know.
    WrongSchema,
    /// No space left.
    Full,
    /// The server accepts no further connections.
    TooManyConnections,
    /// Another writer held the lock too long.
    Busy,
    /// No response within the time limit.
    Timeout,
    /// This one row was refused: a retry of the same row will fail again.
    RowRefused,
    /// Any other error, with the database's message.
    Failed,
}

/// A failed operation on the ledger. The text holds no secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("ledger: {message}")]
pub struct LedgerError {
    reason: LedgerReason,
    message: String,
}

/// Longest message, in characters: conditions and events show it (a note has 1 kB).
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

    /// Names the database, without credentials.
    pub(super) fn at(self, place: &str) -> Self {
        Self::new(self.reason, format!("{place}: {}", self.message))
    }

    pub fn reason(&self) -> LedgerReason {
        self.reason
    }

    /// Observation and fix, for a person. At most 512 characters.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Whether the same call may succeed later with the same row.
    pub fn may_pass(&self) -> bool {
        self.reason != LedgerReason::RowRefused
    }

    /// The probe does not find such a fault; only writing does.
    pub(super) fn is_of_writing(&self) -> bool {
        matches!(self.reason, LedgerReason::Full | LedgerReason::Forbidden | LedgerReason::Failed)
    }
}

/// The error is not kept as a source: its text may quote the input (a connection string, a row's detail), and the message
/// is shown in logs, conditions and events.
impl From<sqlx::Error> for LedgerError {
    fn from(error: sqlx::Error) -> Self {
        use LedgerReason as R;
        match error {
            sqlx::Error::Database(error) => {
                let code = error.code().unwrap_or_default();
                let reason = if error.try_downcast_ref::<sqlx::postgres::PgDatabaseError>().is_some() {
                    postgres_reason(&code)
                } else {
                    sqlite_reason(code.parse().unwrap_or(0), error.message())
                };
                // `message()` is the primary message only: DETAIL and CONTEXT of Postgres may quote whole rows.
                Self::new(reason, format!("{} (code {code})", error.message()))
            }
            sqlx::Error::Io(error) => Self::new(R::Unreachable, error.to_string()),
            sqlx::Error::Tls(error) => Self::new(R::TlsFailed, format!("TLS failed: {error}")),
            sqlx::Error::Configuration(_) => Self::new(R::InvalidConfiguration, "a connection option is not valid"),
            sqlx::Error::Protocol(error) => Self::new(R::Unreachable, format!("invalid response: {error}")),
            sqlx::Error::Encode(error) => Self::new(R::RowRefused, format!("cannot encode: {error}")),
            sqlx::Error::ColumnDecode { index, source } => {
                Self::new(R::Failed, format!("cannot read column {index}: {source}"))
            }
            other => Self::new(R::Failed, other.to_string()),
        }
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
        1 if ["no such table", "no column", "no such column", "ON CONFLICT clause does not match"]
            .iter()
            .any(|part| message.contains(part)) =>
        {
            R::WrongSchema
        }
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
    fn each_code_has_a_reason() {
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
