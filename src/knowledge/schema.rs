//! The three tables: their columns and indexes, and whether an existing table can be used.
//!
//! An existing table is never altered: it may belong to another program. It is used when it has the needed columns with
//! usable types, whatever else it has; otherwise the error names the first fault and its fix.

use super::error::{LedgerError, LedgerReason};

/// The tables, in the order in which they are created.
pub(super) const TABLES: [&str; 3] = ["unified_brain", "ai_proactive_health", "ai_rollback_history"];

/// The SQL dialect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    Postgres,
    Sqlite,
}

/// The type of a column. Arrays are by [`Dialect`].
#[derive(Debug, Clone, Copy)]
pub(super) struct Type {
    /// In the tables that Panacea creates; also the fix that an error names.
    own: [&'static str; 2],
    /// Postgres: as `format_type` names types; SQLite: affinities.
    accepted: [&'static [&'static str]; 2],
    nullable: bool,
}

/// Texts that do not look like numbers survive NUMERIC, the affinity of UUID, JSON, TIMESTAMP.
const TEXTS: &[&str] = &["TEXT", "NUMERIC", "NONE"];

const UUID: Type = Type { own: ["uuid", "TEXT"], accepted: [&["uuid"], TEXTS], nullable: false };
const TEXT: Type = Type { own: ["text", "TEXT"], accepted: [&["text", "character varying"], TEXTS], nullable: false };
const TEXT_OR_NULL: Type = Type { nullable: true, ..TEXT };
/// `json` is not accepted: the queries and indexes use operators that only jsonb has.
const JSON: Type = Type { own: ["jsonb", "TEXT"], accepted: [&["jsonb"], TEXTS], nullable: false };
const BOOL: Type =
    Type { own: ["boolean", "BOOLEAN"], accepted: [&["boolean"], &["INTEGER", "NUMERIC", "NONE"]], nullable: false };
const DOUBLE: Type = Type {
    own: ["double precision", "REAL"],
    accepted: [&["double precision", "real", "numeric"], &["REAL", "NUMERIC", "INTEGER", "NONE"]],
    nullable: true,
};
/// Without a time zone, the session's setting would decide how a time is stored.
const TIME: Type =
    Type { own: ["timestamptz", "TEXT"], accepted: [&["timestamp with time zone"], TEXTS], nullable: false };

const TIME_OR_NULL: Type = Type { nullable: true, ..TIME };

impl Type {
    pub(super) fn own(self, dialect: Dialect) -> &'static str {
        self.own[dialect as usize]
    }

    fn accepts(self, dialect: Dialect, found: &str) -> bool {
        let found = if dialect == Dialect::Sqlite { affinity(found) } else { found };
        self.accepted[dialect as usize].contains(&found)
    }
}

/// A column as the database describes it.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub(super) struct FoundColumn {
    pub table_name: String,
    pub column_name: String,
    /// Postgres: `format_type`; SQLite: the declared type, perhaps empty.
    pub column_type: String,
    /// NOT NULL without a default.
    pub demanding: bool,
}

/// A table as the database describes it.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub(super) struct FoundTable {
    pub table_name: String,
    /// `id` alone is the primary key or has a unique index, as ON CONFLICT (id) needs.
    pub id_is_unique: bool,
    /// `id` and the time of the row together are unique: a table that is partitioned by time can have no more.
    pub id_and_time_are_unique: bool,
    pub may_insert: bool,
    pub may_select: bool,
}

/// The column with the time of a row.
pub(super) fn time_column(table: &str) -> &'static str {
    if table == "ai_proactive_health" { "created_at" } else { "executed_at" }
}

/// The columns of a table, in the order in which rows are inserted.
pub(super) fn columns(table: &str) -> &'static [(&'static str, Type)] {
    match table {
        "unified_brain" => &[
            ("id", UUID),
            ("agent_name", TEXT),
            ("action_type", TEXT),
            ("input_data", JSON),
            ("output_data", JSON),
            ("success", BOOL),
            ("metadata", JSON),
            ("executed_at", TIME),
        ],
        "ai_proactive_health" => &[
            ("id", UUID),
            ("component", TEXT),
            ("health_score", DOUBLE),
            ("trend", TEXT_OR_NULL),
            ("predicted_failure_time", TIME_OR_NULL),
            ("failure_probability", DOUBLE),
            ("metrics", JSON),
            ("warnings", JSON),
            ("created_at", TIME),
            ("updated_at", TIME),
        ],
        _ => &[
            ("id", UUID),
            ("component", TEXT),
            ("rollback_type", TEXT),
            ("from_state", JSON),
            ("to_state", JSON),
            ("success", BOOL),
            ("error_message", TEXT_OR_NULL),
            ("executed_at", TIME),
        ],
    }
}

/// The names of a table's columns, with commas between them.
pub(super) fn column_names(table: &str) -> String {
    columns(table).iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
}

/// The rule of SQLite: <https://www.sqlite.org/datatype3.html#determination_of_column_affinity>.
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

/// The tables that do not exist.
pub(super) fn missing(columns: &[FoundColumn]) -> Vec<&'static str> {
    TABLES.into_iter().filter(|table| !columns.iter().any(|found| found.table_name == *table)).collect()
}

/// Whether the existing tables can be used.
///
/// # Errors
/// `WrongSchema` with table, column and fix; `Forbidden` with the missing GRANT.
pub(super) fn validate(dialect: Dialect, found: &[FoundColumn], tables: &[FoundTable]) -> Result<(), LedgerError> {
    let wrong = |message: String| Err(LedgerError::new(LedgerReason::WrongSchema, message));
    for table in TABLES {
        let found: Vec<_> = found.iter().filter(|column| column.table_name == table).collect();
        for (name, kind) in columns(table) {
            let own = kind.own(dialect);
            let Some(column) = found.iter().find(|column| column.column_name.eq_ignore_ascii_case(name)) else {
                return wrong(format!(
                    "table {table} exists without the column {name}; fix: ALTER TABLE {table} ADD COLUMN {name} {own}, \
                     or give Panacea a separate database"
                ));
            };
            if !kind.accepts(dialect, &column.column_type) {
                return wrong(format!(
                    "column {name} of table {table} is of type {}, but must be {own}; fix: change the column's type, \
                     or give Panacea a separate database",
                    column.column_type
                ));
            }
        }
        let unknown = found.iter().find(|column| {
            column.demanding && !columns(table).iter().any(|(name, _)| column.column_name.eq_ignore_ascii_case(name))
        });
        if let Some(column) = unknown {
            let name = &column.column_name;
            return wrong(format!(
                "column {name} of table {table} is NOT NULL without a default, and Panacea does not know this column; \
                 fix: add a default, or drop NOT NULL"
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

/// The statements that create a table and its indexes.
///
/// The indexes serve, in order: rows of a span of time, [`super::queries`], the history that is read at a start, and the
/// rollbacks of a component.
pub(super) fn statements(dialect: Dialect, table: &str) -> Vec<String> {
    let column = |(name, kind): &(&str, Type)| {
        let constraint = match *name {
            "id" => " NOT NULL PRIMARY KEY",
            _ if kind.nullable => "",
            _ => " NOT NULL",
        };
        format!("    {name} {}{constraint}", kind.own(dialect))
    };
    let columns: Vec<String> = columns(table).iter().map(column).collect();
    let create = format!("CREATE TABLE IF NOT EXISTS {table} (\n{}\n)", columns.join(",\n"));
    let indexes: &[&str] = match (dialect, table) {
        (Dialect::Postgres, "unified_brain") => &[
            "unified_brain_executed_at ON unified_brain (executed_at)",
            "unified_brain_questions ON unified_brain (action_type, executed_at, success)
    WHERE agent_name LIKE '%self_healing%'",
        ],
        (Dialect::Postgres, "ai_proactive_health") => &[
            "ai_proactive_health_history
    ON ai_proactive_health ((metrics ->> 'panacea.dev/component'), created_at)",
            // For the retention: rows come in the order of time, so a few pages of this index do for millions of rows.
            "ai_proactive_health_created_at ON ai_proactive_health USING brin (created_at)",
        ],
        (Dialect::Sqlite, "unified_brain") => &[
            "unified_brain_executed_at ON unified_brain (executed_at)",
            // Not partial: SQLite would check each row of the table again for the condition.
            "unified_brain_questions
    ON unified_brain (action_type, executed_at, success, agent_name)",
        ],
        (Dialect::Sqlite, "ai_proactive_health") => &["ai_proactive_health_history
    ON ai_proactive_health (json_extract(metrics, '$.\"panacea.dev/component\"'), created_at)"],
        _ => &["ai_rollback_history_component ON ai_rollback_history (component, executed_at)"],
    };
    let indexes = indexes.iter().map(|index| format!("CREATE INDEX IF NOT EXISTS {index}"));
    std::iter::once(create).chain(indexes).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good(dialect: Dialect) -> (Vec<FoundColumn>, Vec<FoundTable>) {
        let shown = |kind: Type| match kind.own(dialect) {
            "timestamptz" => "timestamp with time zone",
            own => own,
        };
        let columns = TABLES.iter().flat_map(|table| {
            columns(table).iter().map(move |(name, kind)| FoundColumn {
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
        match validate(dialect, &columns, &tables) {
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
            said.starts_with("WrongSchema: column id of table unified_brain is of type text, but must be uuid"),
            "{said}"
        );

        let said =
            verdict(Dialect::Postgres, |columns, _| columns[7].column_type = "timestamp without time zone".to_owned());
        assert!(said.contains("executed_at") && said.contains("must be timestamptz"), "{said}");

        let said = verdict(Dialect::Sqlite, |columns, _| columns[0].column_type = "INTEGER".to_owned());
        assert!(
            said.starts_with("WrongSchema: column id of table unified_brain is of type INTEGER, but must be TEXT"),
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
    fn missing_tables_are_not_wrong_tables() {
        let (columns, _) = good(Dialect::Sqlite);
        assert!(missing(&columns).is_empty());
        assert_eq!(missing(&[]), TABLES);
    }
}
