//! The three tables: how they are made, and whether one that is already there can be used.
//!
//! An existing table is never altered: it may belong to somebody else. It is used when it has the needed columns with
//! usable types, whatever else it has; otherwise the first thing that is wrong is named together with its fix.

use super::error::{LedgerError, LedgerReason};

/// The tables, in the order in which they are made.
pub(super) const TABLES: [&str; 3] = ["unified_brain", "ai_proactive_health", "ai_rollback_history"];

/// What a column has to hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Uuid,
    Text,
    Json,
    Bool,
    Double,
    Time,
}

/// Whose SQL it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    Postgres,
    Sqlite,
}

/// A column as the database describes it.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub(super) struct FoundColumn {
    pub table_name: String,
    pub column_name: String,
    /// Postgres: `format_type`; SQLite: the declared type, perhaps empty.
    pub column_type: String,
    /// NOT NULL, and nothing fills it when an INSERT leaves it out.
    pub demanding: bool,
}

/// A table as the database describes it.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub(super) struct FoundTable {
    pub table_name: String,
    /// `id` alone is the primary key or has a unique index: ON CONFLICT (id) needs it.
    pub id_is_unique: bool,
    /// `id` and the time of the row together are: all that a table can have that is partitioned by time.
    pub id_and_time_are_unique: bool,
    pub may_insert: bool,
    pub may_select: bool,
}

/// The column with the time of a row.
pub(super) fn time_column(table: &str) -> &'static str {
    if table == "ai_proactive_health" { "created_at" } else { "executed_at" }
}

fn needed(table: &str) -> &'static [(&'static str, Kind)] {
    match table {
        "unified_brain" => &[
            ("id", Kind::Uuid),
            ("agent_name", Kind::Text),
            ("action_type", Kind::Text),
            ("input_data", Kind::Json),
            ("output_data", Kind::Json),
            ("success", Kind::Bool),
            ("metadata", Kind::Json),
            ("executed_at", Kind::Time),
        ],
        "ai_proactive_health" => &[
            ("id", Kind::Uuid),
            ("component", Kind::Text),
            ("health_score", Kind::Double),
            ("trend", Kind::Text),
            ("predicted_failure_time", Kind::Time),
            ("failure_probability", Kind::Double),
            ("metrics", Kind::Json),
            ("warnings", Kind::Json),
            ("created_at", Kind::Time),
            ("updated_at", Kind::Time),
        ],
        _ => &[
            ("id", Kind::Uuid),
            ("component", Kind::Text),
            ("rollback_type", Kind::Text),
            ("from_state", Kind::Json),
            ("to_state", Kind::Json),
            ("success", Kind::Bool),
            ("error_message", Kind::Text),
            ("executed_at", Kind::Time),
        ],
    }
}

impl Kind {
    /// The type that our own tables have, which is also the fix that we name.
    fn own_type(self, dialect: Dialect) -> &'static str {
        match (dialect, self) {
            (Dialect::Postgres, Self::Uuid) => "uuid",
            (Dialect::Postgres, Self::Json) => "jsonb",
            (Dialect::Postgres, Self::Bool) => "boolean",
            (Dialect::Postgres, Self::Double) => "double precision",
            (Dialect::Postgres, Self::Time) => "timestamptz",
            (Dialect::Sqlite, Self::Bool) => "BOOLEAN",
            (Dialect::Sqlite, Self::Double) => "REAL",
            (Dialect::Postgres, Self::Text) => "text",
            (Dialect::Sqlite, Self::Uuid | Self::Text | Self::Json | Self::Time) => "TEXT",
        }
    }

    fn accepts(self, dialect: Dialect, found: &str) -> bool {
        match dialect {
            Dialect::Postgres => match self {
                Self::Uuid => found == "uuid",
                Self::Text => matches!(found, "text" | "character varying"),
                // `json` is refused: our queries and indexes use operators that only jsonb has.
                Self::Json => found == "jsonb",
                Self::Bool => found == "boolean",
                Self::Double => matches!(found, "double precision" | "real" | "numeric"),
                // Without a time zone the same moment would be stored differently by the session's setting.
                Self::Time => found == "timestamp with time zone",
            },
            Dialect::Sqlite => {
                let affinity = affinity(found);
                match self {
                    // Texts that do not look like numbers survive NUMERIC, the affinity of UUID, JSON, TIMESTAMP.
                    Self::Uuid | Self::Text | Self::Json | Self::Time => {
                        matches!(affinity, "TEXT" | "NUMERIC" | "NONE")
                    }
                    Self::Bool => matches!(affinity, "INTEGER" | "NUMERIC" | "NONE"),
                    Self::Double => matches!(affinity, "REAL" | "NUMERIC" | "INTEGER" | "NONE"),
                }
            }
        }
    }
}

/// SQLite's own rule: <https://www.sqlite.org/datatype3.html#determination_of_column_affinity>.
fn affinity(declared: &str) -> &'static str {
    let declared = declared.to_ascii_uppercase();
    let has = |part: &str| declared.contains(part);
    if has("INT") {
        "INTEGER"
    } else if has("CHAR") || has("CLOB") || has("TEXT") {
        "TEXT"
    } else if declared.is_empty() || declared == "ANY" {
        "NONE"
    } else if has("BLOB") {
        "BLOB"
    } else if has("REAL") || has("FLOA") || has("DOUB") {
        "REAL"
    } else {
        "NUMERIC"
    }
}

/// Which of the tables are not there.
pub(super) fn missing(columns: &[FoundColumn]) -> Vec<&'static str> {
    TABLES.into_iter().filter(|table| !columns.iter().any(|found| found.table_name == *table)).collect()
}

/// Whether what is there can be used.
///
/// # Errors
/// `WrongSchema` with table, column and fix; `Forbidden` with the GRANT that is missing.
pub(super) fn judge(dialect: Dialect, columns: &[FoundColumn], tables: &[FoundTable]) -> Result<(), LedgerError> {
    for table in TABLES {
        let found: Vec<_> = columns.iter().filter(|column| column.table_name == table).collect();
        for (name, kind) in needed(table) {
            let own = kind.own_type(dialect);
            let Some(column) = found.iter().find(|column| column.column_name.eq_ignore_ascii_case(name)) else {
                return wrong(format!(
                    "table {table} exists without the column {name}; fix: ALTER TABLE {table} ADD COLUMN {name} {own}, \
                     or give Panacea a database of its own"
                ));
            };
            if !kind.accepts(dialect, &column.column_type) {
                return wrong(format!(
                    "column {name} of table {table} is of type {}, needed is {own}; fix: change the column's type, \
                     or give Panacea a database of its own",
                    column.column_type
                ));
            }
        }
        let stranger = found.iter().find(|column| {
            column.demanding && !needed(table).iter().any(|(name, _)| column.column_name.eq_ignore_ascii_case(name))
        });
        if let Some(column) = stranger {
            let name = &column.column_name;
            return wrong(format!(
                "column {name} of table {table} is NOT NULL without a default, and Panacea does not know what to put \
                 there; fix: give it a default, or drop NOT NULL"
            ));
        }
        let facts = tables.iter().find(|facts| facts.table_name == table);
        if !facts.is_some_and(|facts| facts.id_is_unique || facts.id_and_time_are_unique) {
            return wrong(format!(
                "column id of table {table} has no primary key and no unique index; \
                 fix: ALTER TABLE {table} ADD PRIMARY KEY (id), or CREATE UNIQUE INDEX ON {table} (id)"
            ));
        }
        let grant = match facts {
            Some(facts) if !facts.may_insert => "INSERT",
            Some(facts) if !facts.may_select => "SELECT",
            _ => continue,
        };
        return Err(LedgerError::new(
            LedgerReason::Forbidden,
            format!(
                "{grant} on table {table} is not allowed; fix: GRANT SELECT, INSERT ON {table} TO the user of Panacea"
            ),
        ));
    }
    Ok(())
}

fn wrong(message: String) -> Result<(), LedgerError> {
    Err(LedgerError::new(LedgerReason::WrongSchema, message))
}

/// Statements that make a table and its indexes.
///
/// The indexes serve, in order: what is about a span of time, [`super::queries`], the history that is read back at a start,
/// and the rollbacks of a component.
pub(super) fn statements(dialect: Dialect, table: &str) -> &'static [&'static str] {
    match (dialect, table) {
        (Dialect::Postgres, "unified_brain") => &[
            "CREATE TABLE IF NOT EXISTS unified_brain (
                id uuid PRIMARY KEY,
                agent_name text NOT NULL,
                action_type text NOT NULL,
                input_data jsonb NOT NULL,
                output_data jsonb NOT NULL,
                success boolean NOT NULL,
                metadata jsonb NOT NULL,
                executed_at timestamptz NOT NULL
            )",
            "CREATE INDEX IF NOT EXISTS unified_brain_executed_at ON unified_brain (executed_at)",
            "CREATE INDEX IF NOT EXISTS unified_brain_questions ON unified_brain (action_type, executed_at, success)
                WHERE agent_name LIKE '%self_healing%'",
        ],
        (Dialect::Postgres, "ai_proactive_health") => &[
            "CREATE TABLE IF NOT EXISTS ai_proactive_health (
                id uuid PRIMARY KEY,
                component text NOT NULL,
                health_score double precision,
                trend text,
                predicted_failure_time timestamptz,
                failure_probability double precision,
                metrics jsonb NOT NULL,
                warnings jsonb NOT NULL,
                created_at timestamptz NOT NULL,
                updated_at timestamptz NOT NULL
            )",
            "CREATE INDEX IF NOT EXISTS ai_proactive_health_history
                ON ai_proactive_health ((metrics ->> 'panacea.dev/component'), created_at)",
            // For the retention: rows come in the order of time, so a few pages of it do for millions.
            "CREATE INDEX IF NOT EXISTS ai_proactive_health_created_at ON ai_proactive_health USING brin (created_at)",
        ],
        (Dialect::Postgres, _) => &[
            "CREATE TABLE IF NOT EXISTS ai_rollback_history (
                id uuid PRIMARY KEY,
                component text NOT NULL,
                rollback_type text NOT NULL,
                from_state jsonb NOT NULL,
                to_state jsonb NOT NULL,
                success boolean NOT NULL,
                error_message text,
                executed_at timestamptz NOT NULL
            )",
            "CREATE INDEX IF NOT EXISTS ai_rollback_history_component ON ai_rollback_history (component, executed_at)",
        ],
        (Dialect::Sqlite, "unified_brain") => &[
            "CREATE TABLE IF NOT EXISTS unified_brain (
                id TEXT NOT NULL PRIMARY KEY,
                agent_name TEXT NOT NULL,
                action_type TEXT NOT NULL,
                input_data TEXT NOT NULL,
                output_data TEXT NOT NULL,
                success BOOLEAN NOT NULL,
                metadata TEXT NOT NULL,
                executed_at TEXT NOT NULL
            )",
            "CREATE INDEX IF NOT EXISTS unified_brain_executed_at ON unified_brain (executed_at)",
            // Not partial: SQLite would ask each row of the table again whether it belongs in.
            "CREATE INDEX IF NOT EXISTS unified_brain_questions
                ON unified_brain (action_type, executed_at, success, agent_name)",
        ],
        (Dialect::Sqlite, "ai_proactive_health") => &[
            "CREATE TABLE IF NOT EXISTS ai_proactive_health (
                id TEXT NOT NULL PRIMARY KEY,
                component TEXT NOT NULL,
                health_score REAL,
                trend TEXT,
                predicted_failure_time TEXT,
                failure_probability REAL,
                metrics TEXT NOT NULL,
                warnings TEXT NOT NULL,
                created_at TEXT NOT NULL,
                updated_at TEXT NOT NULL
            )",
            "CREATE INDEX IF NOT EXISTS ai_proactive_health_history
                ON ai_proactive_health (json_extract(metrics, '$.\"panacea.dev/component\"'), created_at)",
        ],
        (Dialect::Sqlite, _) => &[
            "CREATE TABLE IF NOT EXISTS ai_rollback_history (
                id TEXT NOT NULL PRIMARY KEY,
                component TEXT NOT NULL,
                rollback_type TEXT NOT NULL,
                from_state TEXT NOT NULL,
                to_state TEXT NOT NULL,
                success BOOLEAN NOT NULL,
                error_message TEXT,
                executed_at TEXT NOT NULL
            )",
            "CREATE INDEX IF NOT EXISTS ai_rollback_history_component ON ai_rollback_history (component, executed_at)",
        ],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good(dialect: Dialect) -> (Vec<FoundColumn>, Vec<FoundTable>) {
        let shown = |kind: Kind| match (dialect, kind) {
            (Dialect::Postgres, Kind::Time) => "timestamp with time zone",
            _ => kind.own_type(dialect),
        };
        let columns = TABLES.iter().flat_map(|table| {
            needed(table).iter().map(move |(name, kind)| FoundColumn {
                table_name: (*table).to_owned(),
                column_name: (*name).to_owned(),
                column_type: shown(*kind).to_owned(),
                demanding: true,
            })
        });
        let tables = TABLES.map(|table| FoundTable {
            table_name: table.to_owned(),
            id_is_unique: true,
            id_and_time_are_unique: false,
            may_insert: true,
            may_select: true,
        });
        (columns.collect(), tables.into())
    }

    fn verdict(dialect: Dialect, change: impl FnOnce(&mut Vec<FoundColumn>, &mut Vec<FoundTable>)) -> String {
        let (mut columns, mut tables) = good(dialect);
        change(&mut columns, &mut tables);
        match judge(dialect, &columns, &tables) {
            Ok(()) => "fine".to_owned(),
            Err(error) => format!("{}: {}", error.reason(), error.message()),
        }
    }

    #[test]
    fn own_tables_are_fine() {
        for dialect in [Dialect::Postgres, Dialect::Sqlite] {
            assert_eq!(verdict(dialect, |_, _| ()), "fine");
        }
    }

    #[test]
    fn each_fault_is_named_with_its_fix() {
        let said = verdict(Dialect::Postgres, |columns, _| columns.retain(|column| column.column_name != "metadata"));
        assert!(said.starts_with("WrongSchema: table unified_brain exists without the column metadata; fix: ALTER TABLE unified_brain ADD COLUMN metadata jsonb"), "{said}");

        let said = verdict(Dialect::Postgres, |columns, _| columns[0].column_type = "text".to_owned());
        assert!(
            said.starts_with("WrongSchema: column id of table unified_brain is of type text, needed is uuid"),
            "{said}"
        );

        let said =
            verdict(Dialect::Postgres, |columns, _| columns[7].column_type = "timestamp without time zone".to_owned());
        assert!(said.contains("executed_at") && said.contains("needed is timestamptz"), "{said}");

        let said = verdict(Dialect::Sqlite, |columns, _| columns[0].column_type = "INTEGER".to_owned());
        assert!(
            said.starts_with("WrongSchema: column id of table unified_brain is of type INTEGER, needed is TEXT"),
            "{said}"
        );

        let said = verdict(Dialect::Sqlite, |columns, _| {
            let mut extra = columns[0].clone();
            extra.column_name = "tenant".to_owned();
            columns.push(extra);
        });
        assert!(
            said.starts_with("WrongSchema: column tenant of table unified_brain is NOT NULL without a default"),
            "{said}"
        );

        let said = verdict(Dialect::Postgres, |_, tables| tables[1].id_is_unique = false);
        assert!(said.starts_with("WrongSchema: column id of table ai_proactive_health has no primary key"), "{said}");

        let said = verdict(Dialect::Postgres, |_, tables| tables[2].may_insert = false);
        assert!(said.starts_with("Forbidden: INSERT on table ai_rollback_history is not allowed"), "{said}");
    }

    #[test]
    fn missing_tables_are_told_apart_from_wrong_ones() {
        let (columns, _) = good(Dialect::Sqlite);
        assert!(missing(&columns).is_empty());
        assert_eq!(missing(&[]), TABLES);
    }
}
