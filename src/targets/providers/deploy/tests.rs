use jiff::Timestamp;

use super::*;
use crate::{
    api::ActionKind,
    targets::{
        model::{World, walk},
        providers::fixtures::*,
    },
};

const WORDS: DeployWords = DeployWords {
    provider: crate::targets::providers::fixtures::WORDS,
    limit: SignedDuration::from_mins(15),
    brings: |id, to| format!("deploy {id} of what {to} was"),
    others: "other deploys were made",
    left_behind: "",
};

/// How far the deploy is that the call made.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
enum Stage {
    #[default]
    Building,
    Waits,
    Live,
    Failed,
}

#[derive(Debug, Clone, PartialEq, Default)]
struct Service {
    deploys: u32,
    made_at: Option<Timestamp>,
    listed: bool,
    stage: Stage,
    /// Auto-deploy is off.
    auto_off: bool,
    /// The provider has auto-deploy.
    has_auto: bool,
    released: bool,
    /// Somebody else requests a deploy after the call.
    others: bool,
    /// Environment variables that differ.
    env: usize,
    /// Somebody else changed a variable.
    env_changed: bool,
}

fn names(count: usize) -> EnvChanges {
    (0..count).map(|place| (format!("V{place:02}"), (place > 0).then(|| "value".into()))).collect()
}

macro_rules! world {
    ($procedure:ty) => {
        impl World<$procedure> for Service {
            fn at(&self, now: Timestamp) -> Self {
                Self { listed: is_listed(self.made_at, now), ..self.clone() }
            }

            fn observations(&self, progress: &ProviderProgress) -> Vec<DeploySeen> {
                observations(self, progress)
            }

            fn results(&self, effect: &DeployEffect, progress: &ProviderProgress) -> Vec<(Self, DeployAnswer)> {
                results(self, effect, progress)
            }

            fn later(&self) -> Vec<Self> {
                if self.deploys == 0 || matches!(self.stage, Stage::Live | Stage::Failed) {
                    return Vec::new();
                }
                [Stage::Waits, Stage::Live, Stage::Failed].map(|stage| Self { stage, ..self.clone() }).into()
            }

            fn violation(&self, step: &DeployStep) -> Option<String> {
                violation(self, step)
            }
        }
    };
}

fn observations(service: &Service, progress: &ProviderProgress) -> Vec<DeploySeen> {
    if progress.sent_at.is_none() {
        let before = Before {
            live: Some(if service.released { "dep-2" } else { "dep-1" }.into()),
            newest_deploy: Some("dep-1".into()),
            deploys_on: (service.has_auto && !service.auto_off).then(|| "commit".into()),
            ..Before::default()
        };
        let env = match service.env_changed {
            true => Err(EnvError::Changed("V00 was changed".into())),
            false => Ok(names(service.env)),
        };
        return vec![DeploySeen::Before(Ok((before, env))), DeploySeen::Before(Err(unread()))];
    }
    let (id, made) = ("dep-9".to_owned(), service.deploys > 0);
    let state = match service.stage {
        Stage::Waits => DeployState::Waits { id, why: "an approval is pending".into() },
        stage => {
            let (live, over) = (stage == Stage::Live, stage == Stage::Failed);
            DeployState::Deploy { id, status: format!("{stage:?}"), live, over }
        }
    };
    let mut all = vec![DeploySeen::After(Err(unread()))];
    all.extend(made.then_some(DeploySeen::After(Ok(state))));
    if progress.deploy.is_none() && !(made && service.listed) {
        let state = if service.others { DeployState::Others } else { DeployState::Nothing };
        all.push(DeploySeen::After(Ok(state)));
    }
    all
}

fn results(service: &Service, effect: &DeployEffect, progress: &ProviderProgress) -> Vec<(Service, DeployAnswer)> {
    let changed = |done: Service| {
        let failed = || [lost(), without_effect().remove(2)];
        let lost = (done.clone(), DeployAnswer::Changed(Err(lost())));
        let failed = failed().map(|error| (service.clone(), DeployAnswer::Changed(Err(error))));
        [(done, DeployAnswer::Changed(Ok(()))), lost].into_iter().chain(failed).collect::<Vec<_>>()
    };
    match effect {
        DeployEffect::SwitchAutoDeployOff { .. } => changed(Service { auto_off: true, ..service.clone() }),
        DeployEffect::RestoreAutoDeploy { .. } => changed(Service { auto_off: false, ..service.clone() }),
        DeployEffect::Finish(_) | DeployEffect::Report => vec![(service.clone(), DeployAnswer::Changed(Ok(())))],
        DeployEffect::RestoreEnv(names) => {
            let mut all = changed(Service { env: service.env - names.len(), ..service.clone() });
            let half = Service { env: service.env - names.len() / 2, ..service.clone() };
            all.push((half, DeployAnswer::Changed(Err(lost()))));
            all
        }
        DeployEffect::Send => {
            let (deploys, made_at) = (service.deploys + 1, Some(at(progress.sent_at)));
            let done = Service { deploys, made_at, ..service.clone() };
            let without = without_effect().into_iter().map(|error| (service.clone(), DeployAnswer::Sent(Err(error))));
            let named = DeployAnswer::Sent(Ok((Some("dep-9".into()), 201)));
            let with = [named, DeployAnswer::Sent(Ok((None, 201))), DeployAnswer::Sent(Err(lost()))];
            with.map(|answer| (done.clone(), answer)).into_iter().chain(without).collect()
        }
    }
}

fn violation(service: &Service, step: &DeployStep) -> Option<String> {
    use RemediationReason::{DeadlineExceeded, DeployFailed};
    let made = service.deploys > 0;
    if service.auto_off && step.progress().auto_deploy_was.is_none() {
        return Some("auto-deploy is off, and it is not stored".to_owned());
    }
    match step {
        Step::Perform { effect: DeployEffect::Send, .. } if made => {
            Some("the call is repeated, and the first one had its effect".to_owned())
        }
        Step::Perform { effect: DeployEffect::Send, .. } if service.has_auto && !service.auto_off => {
            Some("it is rolled back while auto-deploy is on".to_owned())
        }
        Step::Perform { effect: DeployEffect::Send, .. } if service.env > 0 => {
            Some("it is deployed before all variables are restored".to_owned())
        }
        Step::Perform { effect: DeployEffect::RestoreEnv(names), progress, .. } => {
            let stored = names.iter().all(|name| progress.env_vars.contains(name));
            (!stored || names.len() > AT_ONCE).then(|| "variables are set that are not stored".to_owned())
        }
        Step::Perform { effect: DeployEffect::RestoreAutoDeploy { .. }, .. } if made => {
            Some("auto-deploy would undo the rollback".to_owned())
        }
        Step::Done { .. } if service.stage != Stage::Live => Some("nothing is live".to_owned()),
        Step::Ended { reason: DeployFailed | DeadlineExceeded, .. } => None,
        Step::Ended { .. } if made => Some("the deploy was made, and the end says that it was not".to_owned()),
        Step::Ended { progress, message, .. }
            if !progress.env_vars.is_empty() && !message.contains("are restored, or some of them") =>
        {
            Some("variables stay changed, and the end does not say so".to_owned())
        }
        Step::OutcomeUnknown { message, .. }
            if !service.others && !message.contains("the service cannot be checked") =>
        {
            Some("the outcome can be known".to_owned())
        }
        _ => None,
    }
}

fn deny(answer: &DeployAnswer) -> DeployAnswer {
    match answer {
        DeployAnswer::Sent(Err(error)) if !error.not_done() => DeployAnswer::Sent(Err(not_sent())),
        answer => answer.clone(),
    }
}

faulty!(Deploy, DeployEffect, DeployAnswer, deny);
world!(Deploy);
world!(Forgets);
world!(Denies);

fn template(hash: &str) -> TemplateRef {
    TemplateRef { revision: 0, hash: hash.into(), digest: hash.into() }
}

fn deploy(action: ActionKind, desired: Desired) -> Deploy {
    Deploy { caller: caller(action), words: WORDS, desired }
}

fn rolls_back() -> Deploy {
    deploy(ActionKind::Rollback, Desired::Rollback(template("dep-0")))
}

fn with_auto() -> Service {
    Service { has_auto: true, ..Service::default() }
}

#[test]
fn a_rollback_is_made_once_in_every_order_of_answers_losses_and_crashes() {
    let report = walk(&rolls_back(), with_auto(), ProviderProgress::default(), limits(45, 180));
    report.assert_holds();
    for end in [
        "Done Executed",
        "Failed DeployFailed",
        "Failed DeadlineExceeded",
        "Failed NotDone",
        "Failed CredentialsRefused",
        "Expired PolicyGone",
        "OutcomeUnknown",
    ] {
        assert!(report.reached(end), "{end} was not reached: {report:?}");
    }
}

#[test]
fn a_rollback_of_what_others_deploy_too_is_left_to_a_person() {
    let released = Service { released: true, ..with_auto() };
    let report = walk(&rolls_back(), released, ProviderProgress::default(), limits(45, 180));
    report.assert_holds();
    assert!(report.reached("Failed Superseded"), "{report:?}");
    let others = Service { others: true, ..Service::default() };
    let report = walk(&rolls_back(), others, ProviderProgress::default(), limits(45, 180));
    report.assert_holds();
    assert!(report.reached("OutcomeUnknown"), "{report:?}");
}

#[test]
fn a_redeploy_restores_all_variables_first() {
    let procedure = deploy(ActionKind::RollbackConfig, Desired::Redeploy(template("dep-1")));
    let service = Service { env: 12, ..Service::default() };
    let report = walk(&procedure, service.clone(), ProviderProgress::default(), limits(100, 300));
    report.assert_holds();
    for end in ["Done Executed", "Failed DeployFailed", "Failed CredentialsRefused", "Expired PolicyGone"] {
        assert!(report.reached(end), "{end} was not reached: {report:?}");
    }
    let changed = Service { env_changed: true, ..service };
    let report = walk(&procedure, changed, ProviderProgress::default(), limits(100, 300));
    report.assert_holds();
    assert!(report.reached("Failed Superseded"), "{report:?}");
}

#[test]
fn the_model_notices_a_forgotten_call_and_a_denied_one() {
    let progress = ProviderProgress::default;
    walk(&Forgets(rolls_back()), with_auto(), progress(), limits(45, 180)).assert_caught();
    walk(&Denies(rolls_back()), with_auto(), progress(), limits(45, 180)).assert_caught();
}
