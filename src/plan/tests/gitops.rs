//! What belongs to Flux or Argo CD.

use super::*;
use crate::analyze::observation::GitOpsOwner;

pub(super) fn flux(known: bool) -> Option<GitOpsOwner> {
    Some(GitOpsOwner { words: "Flux Kustomization shop/storefront".into(), known })
}

#[test]
fn what_may_be_suspended_does_not_stop_a_rollback() {
    let suspends = json!({"safety": {"gitOps": "Suspend"}});
    let mut story = crash_release(suspends.clone());
    story.workload(|w| w.gitops_owner = flux(true)).after(1.0);
    assert_eq!(proposal(&story, &[]).action, ActionKind::Rollback);
    // Of one that has no name, nothing can be.
    let mut story = crash_release(suspends);
    story.workload(|w| w.gitops_owner = flux(false)).after(1.0);
    let Verdict::Refuse(refused) = check(&story, &[]) else { panic!("it should be refused") };
    assert_eq!(refused.guard, Guard::GitOpsOwned);
    assert!(refused.message.contains("cannot be suspended"), "{}", refused.message);
}

#[test]
fn gitops_does_not_stop_a_restart() {
    let mut story = crash(json!({}));
    story.workload(|w| w.gitops_owner = flux(true)).after(1.0);
    assert_eq!(proposal(&story, &[]).action, ActionKind::Restart);
}
