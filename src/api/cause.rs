use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use strum::{Display, EnumIter};

/// Why a component is unhealthy, as far as the signals show.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Display, EnumIter)]
pub enum Cause {
    /// The component became unhealthy with its newest template, and the template before was healthy.
    ReleaseRegression,
    /// The component became unhealthy after a change of a ConfigMap or Secret that its template names; the template did not
    /// change.
    ConfigRegression,
    /// Containers crash or cannot start.
    Crash,
    /// A database accepts no connection, although connections are free.
    Unreachable,
    /// A resource is exhausted: memory, CPU, connections, storage.
    Exhaustion,
    /// The component runs, but responds with errors or too slowly.
    Errors,
    /// None of these.
    Unknown,
}
