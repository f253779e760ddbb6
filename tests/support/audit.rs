//! What the operator wrote, from the API server's audit log; and proof that it did nothing while it looked on.

use std::{fs, time::Duration};

use serde_json::Value;

use super::{
    cluster::{Test, env},
    operator::Operator,
    wait,
};

const OPERATOR: &str = "system:serviceaccount:panacea-system:panacea";

/// One writing request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    pub verb: String,
    pub resource: String,
    pub subresource: String,
    pub name: String,
    pub at: String,
}

/// All writing requests of the operator's ServiceAccount in this namespace, refused ones included; `""` names those
/// that concern no namespace.
///
/// # Panics
/// When the log holds nothing at all: then it proves nothing.
pub fn operator_writes(namespace: &str) -> Vec<Write> {
    let log = fs::read_to_string(env("AUDIT_LOG")).unwrap();
    // The last line may be half written; the next look sees it.
    let entries = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut any = false;
    let mut found = Vec::new();
    for entry in entries {
        any = true;
        let text = |path: &str| entry.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned();
        if text("/user/username") == OPERATOR && text("/objectRef/namespace") == namespace {
            found.push(Write {
                verb: text("/verb"),
                resource: text("/objectRef/resource"),
                subresource: text("/objectRef/subresource"),
                name: text("/objectRef/name"),
                at: text("/requestReceivedTimestamp"),
            });
        }
    }
    assert!(any, "the audit log is empty");
    found
}

impl Test {
    /// The operator has written nothing in this namespace but events and its policies' status: no Remediation was
    /// ever created, no workload touched.
    pub fn only_told(&self) -> Result<(), String> {
        let told = |write: &Write| {
            write.resource == "events" || (write.resource == "healingpolicies" && write.subresource == "status")
        };
        match operator_writes(&self.namespace).into_iter().find(|write| !told(write)) {
            Some(write) => Err(format!("{write:?}")),
            None => Ok(()),
        }
    }

    /// Watches for `time` that nothing is done, and that the operator looked on meanwhile.
    pub async fn nothing_is_done(&self, operator: &mut Operator, time: Duration) {
        let before = operator.counter("panacea_looks_total").await;
        wait::throughout("that nothing is done", time, async || self.only_told()).await;
        wait::until("the operator to look on", Duration::from_secs(30), async || {
            let looks = operator.counter("panacea_looks_total").await - before;
            if looks >= 2.0 { Ok(()) } else { Err(format!("{looks} looks")) }
        })
        .await;
        assert!(operator.is_running(), "the operator ended");
        self.only_told().unwrap();
        assert!(self.remediations().await.is_empty(), "{:?}", self.remediations().await);
    }
}
