//! Why a component is bad, as far as its signals show.

use super::{
    assess::{Assessment, ProblemKind},
    metric,
    observation::FaultKind,
};
use crate::api::Cause;

/// The cause by the worst critical problem. The [`super::tracker`], which knows the releases, detects regressions.
pub fn cause(assessment: &Assessment) -> Cause {
    let cause = |kind: &ProblemKind| match kind {
        ProblemKind::Fault(FaultKind::OomKilled) => Cause::Exhaustion,
        ProblemKind::Fault(_) | ProblemKind::ProgressDeadlineExceeded => Cause::Crash,
        ProblemKind::Metric(name) if metric::is_of_a_resource(name) => Cause::Exhaustion,
        ProblemKind::NoConnection => Cause::Unreachable,
        ProblemKind::Saturated => Cause::Exhaustion,
        ProblemKind::Metric(_) | ProblemKind::Http => Cause::Errors,
        ProblemKind::Unavailable | ProblemKind::Unschedulable | ProblemKind::Stopped => Cause::Unknown,
    };
    // Crash before exhaustion before errors: the enum's own order, and the order in which one leads to the other.
    assessment.critical().map(|problem| cause(&problem.kind)).min().unwrap_or(Cause::Unknown)
}
