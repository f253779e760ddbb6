//! The API server's audit log: every writing request, by whom, to what.

use std::path::Path;

use jiff::Timestamp;
use serde_json::Value;

use super::cluster::{Test, env};

/// The operator, as the API server knows it.
pub const OPERATOR: &str = "system:serviceaccount:panacea-system:panacea";

/// A writing request that the API server answered.
#[derive(Debug, Clone)]
pub struct Write {
    pub at: Timestamp,
    pub verb: String,
    pub user: String,
    /// `deployments`, or with a subresource `deployments/scale`.
    pub resource: String,
    pub name: String,
    pub code: u64,
}

impl Test {
    /// All writing requests to objects of the test's namespace, oldest first.
    pub fn writes(&self) -> Vec<Write> {
        self.writes_in(env("AUDIT_LOG").as_ref())
    }

    /// The same from the log of another API server.
    pub fn writes_in(&self, log: &Path) -> Vec<Write> {
        let log = std::fs::read_to_string(log).unwrap();
        let ours = format!(r#""namespace":"{}""#, self.namespace);
        let mut writes: Vec<Write> = log.lines().filter(|line| line.contains(&ours)).filter_map(parse).collect();
        writes.sort_by_key(|write| write.at);
        writes
    }

    /// What the operator wrote, or tried to write, beside its own objects and events: to a workload, that is.
    pub fn operator_writes_to_workloads(&self) -> Vec<Write> {
        let own = |write: &Write| {
            let kind = write.resource.split('/').next().unwrap_or_default();
            matches!(kind, "healingpolicies" | "remediations" | "events" | "leases")
        };
        let mut writes = self.writes();
        // Without its own writes in the log, that there are no others would prove nothing.
        assert!(
            writes.iter().any(|write| write.user == OPERATOR && own(write)),
            "the operator is not in the audit log"
        );
        writes.retain(|write| write.user == OPERATOR && !own(write));
        writes
    }
}

/// None for a line that is still being written.
fn parse(line: &str) -> Option<Write> {
    let event: Value = serde_json::from_str(line).ok()?;
    let text = |pointer: &str| event.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    let resource = match text("/objectRef/subresource") {
        sub if sub.is_empty() => text("/objectRef/resource"),
        sub => format!("{}/{sub}", text("/objectRef/resource")),
    };
    Some(Write {
        at: text("/requestReceivedTimestamp").parse().ok()?,
        verb: text("/verb"),
        user: text("/user/username"),
        resource,
        name: text("/objectRef/name"),
        code: event.pointer("/responseStatus/code").and_then(Value::as_u64)?,
    })
}
