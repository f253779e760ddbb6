//! From a check to the memory: assessed, taken into windows, tracker and outlook.

use jiff::SignedDuration;

use super::{
    Context,
    memory::{Check, ComponentMemory, PolicyMemory},
};
use crate::{
    analyze::{assess::Assessment, observation::Observation, trend::trend},
    api::ValidPolicy,
};

/// The observation of one component.
pub(super) struct Observed {
    /// The component's index in the policy.
    pub component: usize,
    pub observation: Observation,
    /// How long the check took.
    pub seconds: f64,
}

/// Assesses each observation and takes it into the component's memory.
pub(super) fn analyze(ctx: &Context, valid: &ValidPolicy, memory: &mut PolicyMemory, observed: Vec<Observed>) {
    for Observed { component, observation, seconds } in observed {
        let component = &valid.components[component];
        let Some(entry) = memory.components.get_mut(&component.name) else { continue };
        ctx.metrics.check(seconds);
        let assessment = entry.assess(component, &observation);
        for (_, why) in &assessment.unknowns {
            ctx.metrics.unknown(why.reason.into());
        }
        entry.tracker.record(&observation, &assessment, &valid.limits);
        remember(entry, valid, &observation, &assessment);
        let sampled = entry.sampled == Some(observation.at);
        // A forecast is based on the history.
        if sampled || entry.forecast.is_some() != valid.limits.prediction {
            let make = || ctx.forecaster.forecast(&entry.history, &component.ceilings);
            entry.forecast = valid.limits.prediction.then(make);
        }
        entry.outlook.follow(&entry.tracker);
        match &entry.forecast {
            // A forecast without a new sample says nothing new.
            Some(_) if !sampled => {}
            Some(forecast) => entry.outlook.record(forecast, &observation, &valid.limits),
            None => entry.outlook.clear(),
        }
        let wait = entry.tracker.next_check(&valid.limits, valid.interval).max(component.target.min_check_interval());
        entry.due = Some(observation.at + wait);
        entry.circuit = ctx.targets.circuit(&component.target);
        entry.last = Some(Check { observation, assessment });
    }
}

/// Forecasts count samples: the checks of a release watch, one a second, would make a warm-up of minutes look like hours.
fn remember(entry: &mut ComponentMemory, valid: &ValidPolicy, observation: &Observation, assessment: &Assessment) {
    // All pods are new: the next samples are of other processes.
    if let Some(release) = entry.tracker.release().filter(|_| entry.tracker.settled_since() == Some(observation.at)) {
        if entry.process.as_ref().is_some_and(|before| *before != release.hash) {
            entry.history.replaced();
        }
        entry.process = Some(release.hash.clone());
    }
    let pace = SignedDuration::try_from(valid.interval.mul_f64(0.9)).unwrap_or(SignedDuration::ZERO);
    if entry.sampled.is_none_or(|at| observation.at.duration_since(at) >= pace) {
        entry.history.push(observation, assessment.score);
        entry.sampled = Some(observation.at);
    } else {
        entry.history.push_score(observation, assessment.score);
    }
    entry.trend = trend(&entry.history.score);
}
