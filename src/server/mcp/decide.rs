//! A person's decision, as with `kubectl patch`: the same field, with the caller's own rights.

use kube::api::{Patch, PatchParams};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::json;

use super::{
    Answer,
    arguments::Decide,
    cluster::{Cluster, Trouble, limited},
    explain::{is_open, plan_of},
};
use crate::api::{Decision, Phase, Remediation};

/// The field manager of decisions, before the caller's name.
const MANAGER: &str = "panacea-mcp";
/// In bytes; Kubernetes allows no longer one (`metav1.PatchOptions`).
const LONGEST_MANAGER: usize = 128;
/// Attempts when the object, but not its plan, changes in the meantime.
const TRIES: u32 = 3;
/// In characters; as in the CRD.
const LONGEST_REASON: usize = 1024;

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Decided {
    namespace: String,
    remediation: String,
    decision: Decision,
    /// False: the same decision was made before.
    changed: bool,
    /// The name under which the decision is recorded.
    recorded_as: String,
    /// The phase at the time of the decision; the operator continues from there in a moment.
    phase: Phase,
}

impl Answer for Decided {
    fn in_words(&self) -> String {
        let Self { namespace, remediation, decision, recorded_as, .. } = self;
        if self.changed {
            format!(
                "{namespace}/{remediation} is {decision}, recorded as {recorded_as}; list_remediations shows the outcome"
            )
        } else {
            format!("{namespace}/{remediation} was {decision} already; nothing was changed")
        }
    }
}

pub(super) async fn decide(cluster: &Cluster, asked: Decide, decision: Decision) -> Result<Decided, Trouble> {
    if asked.reason.chars().count() > LONGEST_REASON {
        return Err(Trouble(format!("reason is longer than {LONGEST_REASON} characters; shorten it")));
    }
    let namespace = cluster.namespace(asked.namespace.as_deref())?;
    let manager = manager(cluster.user().await.as_deref());
    for _ in 0..TRIES {
        let found = cluster.remediation(namespace, &asked.remediation).await?;
        let decided = |changed, recorded_as: String| Decided {
            namespace: namespace.to_owned(),
            remediation: asked.remediation.clone(),
            decision,
            changed,
            recorded_as,
            phase: found.status.as_ref().map(|status| status.phase).unwrap_or_default(),
        };
        if let Some(by) = made_already(&found, &asked, decision)? {
            return Ok(decided(false, by));
        }
        // The decision is about the object as just read: any other change is a conflict, and the object is read again.
        let patch = Patch::Merge(json!({
            "metadata": {"uid": found.metadata.uid, "resourceVersion": found.metadata.resource_version},
            "spec": {"approval": {"decision": decision, "reason": asked.reason}},
        }));
        let params = PatchParams { field_manager: Some(manager.clone()), ..PatchParams::default() };
        let api = cluster.api::<Remediation>(namespace);
        let patched = limited(async {
            match api.patch(&asked.remediation, &params, &patch).await {
                Err(kube::Error::Api(status)) if status.is_conflict() => Ok(false),
                patched => patched.map(|_| true),
            }
        });
        if patched.await? {
            return Ok(decided(true, manager));
        }
    }
    Err(Trouble(format!(
        "{} changed {TRIES} times during the decision; nothing was decided; try again",
        asked.remediation
    )))
}

/// The author of the same decision, if there is one already. An error for another decision, when it is too late, and
/// when the plan is not the explained one.
fn made_already(found: &Remediation, asked: &Decide, decision: Decision) -> Result<Option<String>, Trouble> {
    let name = &asked.remediation;
    let plan = plan_of(found);
    if plan != asked.plan {
        let given: String = asked.plan.chars().take(40).collect();
        return Err(Trouble(format!(
            "plan {given:?} is not that of {name}: nothing was decided; call explain_remediation, show the result to the person, and decide with its plan"
        )));
    }
    let status = found.status.clone().unwrap_or_default();
    match &found.spec.approval {
        Some(made) if made.decision == decision => {
            Ok(Some(status.decided_by.map_or_else(|| "unknown".to_owned(), |by| by.manager)))
        }
        Some(made) => Err(Trouble(format!("{name} was {} already; a decision cannot be changed", made.decision))),
        None if is_open(status.phase) => Ok(None),
        None => Err(Trouble(format!("{name} is {}: a decision has no effect any more", status.phase))),
    }
}

/// The name under which the API server records the decision: with the caller's name, where that is known.
fn manager(user: Option<&str>) -> String {
    let Some(user) = user else { return MANAGER.to_owned() };
    let printable: String = user.chars().filter(|c| !c.is_control()).collect();
    let mut manager = format!("{MANAGER}:{printable}");
    manager.truncate(manager.floor_char_boundary(LONGEST_MANAGER));
    manager
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decision_is_recorded_with_the_callers_name() {
        assert_eq!(manager(None), "panacea-mcp");
        assert_eq!(manager(Some("jane@example.com")), "panacea-mcp:jane@example.com");
        assert_eq!(manager(Some(&"ü".repeat(200))).len(), 128);
    }
}
