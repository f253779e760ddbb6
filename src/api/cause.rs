use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Why a component is unhealthy, as far as the signals tell.
#[derive(
    Serialize,
    Deserialize,
    JsonSchema,
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    strum::Display,
    strum::EnumString,
    strum::EnumIter,
    strum::IntoStaticStr,
)]
pub enum Cause {
    /// It turned bad with its newest template, and the one before was good.
    ReleaseRegression,
    /// It turned bad after a ConfigMap or Secret changed that its template names, and the template did not change.
    ConfigRegression,
    /// Containers crash or cannot start.
    Crash,
    /// A database takes no connection, though there is room for one.
    Unreachable,
    /// A resource runs out: memory, CPU, connections, storage.
    Exhaustion,
    /// It runs, and answers wrongly or too slowly.
    Errors,
    /// None of these.
    Unknown,
}
