//! The API server's audit log: every writing request, by whom, to what; and proof that the operator did nothing while
//! it looked on.

use std::{path::Path, time::Duration};

use jiff::Timestamp;
use serde_json::Value;

use super::{
    cluster::{Test, env},
    operator::Operator,
    wait,
};

/// The operator, as the API server knows it.
pub const OPERATOR: &str = "system:serviceaccount:panacea-system:panacea";

/// A writing request that the API server answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    pub at: Timestamp,
    pub verb: String,
    pub user: String,
    /// `deployments`, or with a subresource `deployments/scale`.
    pub resource: String,
    pub name: String,
    pub code: u64,
    /// It was only asked whether it could be done.
    pub dry_run: bool,
}

/// All writing requests to objects of this namespace, oldest first, refused ones included; `""` names those that
/// concern no namespace.
///
/// # Panics
/// When the log holds nothing at all: then it proves nothing.
fn writes_in(log: &Path, namespace: &str) -> Vec<Write> {
    let log = std::fs::read_to_string(log).unwrap();
    assert!(!log.is_empty(), "the audit log is empty");
    // Parsing every line of a long run is slow: the cheap test comes first.
    let ours = format!(r#""namespace":"{namespace}""#);
    let lines = log.lines().filter(|line| namespace.is_empty() || line.contains(&ours));
    let parsed = lines.filter_map(parse).filter(|(at, _)| at == namespace);
    let mut writes: Vec<Write> = parsed.map(|(_, write)| write).collect();
    writes.sort_by_key(|write| write.at);
    writes
}

/// Those of the operator's ServiceAccount.
pub fn operator_writes(namespace: &str) -> Vec<Write> {
    let mut writes = writes_in(env("AUDIT_LOG").as_ref(), namespace);
    writes.retain(|write| write.user == OPERATOR);
    writes
}

impl Test {
    /// All writing requests to objects of the test's namespace, oldest first.
    pub fn writes(&self) -> Vec<Write> {
        writes_in(env("AUDIT_LOG").as_ref(), &self.namespace)
    }

    /// The same from the log of another API server.
    pub fn writes_in(&self, log: &Path) -> Vec<Write> {
        writes_in(log, &self.namespace)
    }

    /// What the operator wrote, or tried to write, beside its own objects and events: to a workload, that is.
    pub fn operator_writes_to_workloads(&self) -> Vec<Write> {
        let mut writes = operator_writes(&self.namespace);
        // Without its own writes in the log, that there are no others would prove nothing.
        assert!(writes.iter().any(Write::is_to_its_own), "the operator is not in the audit log");
        writes.retain(|write| !write.is_to_its_own() && !write.dry_run);
        writes
    }

    /// The pods that were evicted, in order, by the operator with this name at the API server.
    pub fn evicted_by(&self, user: &str) -> Vec<String> {
        let evictions = self.writes().into_iter().filter(|write| write.user == user && !write.dry_run);
        let done = evictions.filter(|write| write.resource == "pods/eviction" && write.code < 300);
        done.map(|write| write.name).collect()
    }

    /// The operator has written nothing in this namespace but events, its policies' status and copies of good states: no
    /// Remediation was ever created, no workload touched.
    pub fn only_told(&self) -> Result<(), String> {
        let its_own = ["events", "healingpolicies/status", "controllerrevisions"];
        let told = |write: &Write| its_own.contains(&write.resource.as_str());
        match operator_writes(&self.namespace).into_iter().find(|write| !told(write)) {
            Some(write) => Err(format!("{write:?}")),
            None => Ok(()),
        }
    }

    /// Watches for `time` that nothing is written, and that the operator continues its checks.
    pub async fn nothing_is_done(&self, operator: &mut Operator, time: Duration) {
        let before = operator.looks().await;
        wait::throughout("that nothing is done", time, async || self.only_told()).await;
        wait::until("the operator to look on", Duration::from_secs(30), async || {
            let looks = operator.looks().await - before;
            if looks >= 2 { Ok(()) } else { Err(format!("{looks} looks")) }
        })
        .await;
        assert!(operator.is_running(), "the operator ended");
        self.only_told().unwrap();
        assert!(self.remediations().await.is_empty(), "{:?}", self.remediations().await);
    }
}

impl Write {
    fn is_to_its_own(&self) -> bool {
        let kind = self.resource.split('/').next().unwrap_or_default();
        // The copies of good states are its own too.
        matches!(kind, "healingpolicies" | "remediations" | "events" | "leases")
            || (kind == "controllerrevisions" && self.verb != "patch")
    }
}

/// The namespace and the request; none for a line that is still being written.
fn parse(line: &str) -> Option<(String, Write)> {
    let event: Value = serde_json::from_str(line).ok()?;
    let text = |pointer: &str| event.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    let resource = match text("/objectRef/subresource") {
        sub if sub.is_empty() => text("/objectRef/resource"),
        sub => format!("{}/{sub}", text("/objectRef/resource")),
    };
    let write = Write {
        at: text("/requestReceivedTimestamp").parse().ok()?,
        verb: text("/verb"),
        user: text("/user/username"),
        resource,
        name: text("/objectRef/name"),
        code: event.pointer("/responseStatus/code").and_then(Value::as_u64)?,
        dry_run: text("/requestURI").contains("dryRun=All"),
    };
    Some((text("/objectRef/namespace"), write))
}
