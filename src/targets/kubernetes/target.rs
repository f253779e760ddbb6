//! A Deployment, StatefulSet, DaemonSet or Rollout as a target.

use async_trait::async_trait;
use jiff::Timestamp;

use super::{
    ActError, ClusterIndex, Kubernetes, SnapshotOf, WorkloadRef, cleanup::CleanupExecutor, write::WriteExecutor,
};
use crate::{
    analyze::{observation::TargetState, tracker::GoodState},
    api::{Intent, ValidPolicy, WorkloadKind},
    targets::{
        Observed, Target, Targets,
        executor::{Executor, Order},
    },
};

/// A workload of the policy's namespace.
pub struct WorkloadTarget<'a> {
    pub kind: WorkloadKind,
    pub name: &'a str,
    pub index: &'a ClusterIndex,
    pub kubernetes: &'a Kubernetes,
}

#[async_trait]
impl<'a> Target<'a> for WorkloadTarget<'a> {
    async fn observe(&self, namespace: &str) -> Observed<TargetState> {
        let workload = self.index.workload(self.kind, namespace, self.name);
        let target = workload.map(|workload| TargetState::Workload(Box::new(workload)));
        Observed { at: Timestamp::now(), target, metrics: Vec::new() }
    }

    /// See [`executor`]: an action on a workload continues also when its policy is gone.
    fn executor(&self, _: Order<'a>) -> Option<Box<dyn Executor + 'a>> {
        None
    }

    async fn snapshot(&self, namespace: &str, of: SnapshotOf, good: &GoodState) -> Option<Result<(), ActError>> {
        let workload = WorkloadRef { kind: self.kind, namespace, name: self.name };
        Some(self.kubernetes.on(workload).snapshot(of, good).await)
    }
}

/// The executor for the workload that the plan names; none when the plan names no workload.
pub fn executor<'a>(
    targets: &'a Targets,
    order: Order<'a>,
    policy: Option<&'a ValidPolicy>,
    kubernetes: Kubernetes,
) -> Option<Box<dyn Executor + 'a>> {
    let kind = order.plan.target.kind.parse().ok()?;
    let workload = WorkloadRef { kind, namespace: order.namespace, name: &order.plan.target.name };
    match &order.plan.intent {
        Intent::CleanupMemory { hook: Some(_), .. } => None,
        Intent::CleanupMemory { memory, hook: None } => {
            Some(Box::new(CleanupExecutor { kubernetes, workload, order, targets, policy, growth: memory }))
        }
        _ => Some(Box::new(WriteExecutor { kubernetes, workload, order, targets, policy })),
    }
}
