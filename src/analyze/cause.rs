//! Why a component is bad, as far as its signals tell.

use super::{
    assess::{Assessment, ProblemKind},
    metric,
    observation::FaultKind,
};
use crate::api::Cause;

/// The cause by the worst critical problem. Regressions are told by the [`super::tracker`], which knows the releases.
pub fn cause(assessment: &Assessment) -> Cause {
    let rank = |kind: &ProblemKind| match kind {
        ProblemKind::Fault(FaultKind::OomKilled) => Cause::Exhaustion,
        ProblemKind::Fault(_) | ProblemKind::ProgressDeadlineExceeded => Cause::Crash,
        ProblemKind::Metric(name) if metric::is_of_a_resource(name) => Cause::Exhaustion,
        ProblemKind::NoConnection => Cause::Unreachable,
        ProblemKind::Saturated => Cause::Exhaustion,
        ProblemKind::Metric(_) | ProblemKind::Http => Cause::Errors,
        ProblemKind::Unavailable | ProblemKind::Unschedulable | ProblemKind::Stopped => Cause::Unknown,
    };
    // Crash before exhaustion before errors: the enum's own order, and the order in which one leads to the other.
    assessment.critical().map(|problem| rank(&problem.kind)).min().unwrap_or(Cause::Unknown)
}
