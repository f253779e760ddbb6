//! The facts to report from one status to the next: pure.

use jiff::{SignedDuration, Timestamp};

use super::{
    events::{EventReason, Fact},
    memory::{Foreseen, PolicyMemory},
    rows,
};
use crate::api::{ComponentStatus, HealingPolicyStatus, HealthStatus, ValidPolicy, release_name};

/// A component that could not be measured for less than this is not worth a warning: new pods have no metrics yet.
const BLIND_AFTER: SignedDuration = SignedDuration::from_secs(10);

/// The facts that are new. Notes in `memory` which were reported, so that none is reported twice while it lasts.
pub fn facts(
    old: &HealingPolicyStatus,
    new: &HealingPolicyStatus,
    valid: &ValidPolicy,
    memory: &mut PolicyMemory,
    now: Timestamp,
) -> Vec<Fact> {
    let nothing = ComponentStatus::default();
    let mut facts = Vec::new();
    for status in &new.components {
        let before = old.components.iter().find(|component| component.name == status.name).unwrap_or(&nothing);
        let mut news = component_news(before, status);
        news.extend(standing_news(status, memory, now));
        let target = valid.component(&status.name).map(|component| &component.target);
        let secondary = target.and_then(|target| rows::target_reference(&valid.namespace, target));
        facts.extend(news.into_iter().map(|(reason, subject, note)| Fact {
            subject,
            secondary: secondary.clone(),
            ..Fact::new(reason, &status.name, note)
        }));
    }
    facts
}

type News = (EventReason, String, String);

/// `revision 3 (5f6d8)`: what has a number, with the hash in the names of its pods.
fn in_full(revision: i64, hash: &str) -> String {
    let name = release_name(revision, hash);
    if revision > 0 { format!("{name} ({hash})") } else { name }
}

/// What changed between two checks.
fn component_news(before: &ComponentStatus, status: &ComponentStatus) -> Vec<News> {
    let (name, message) = (&status.name, &status.message);
    let mut news = Vec::new();
    if let (Some(old), Some(release)) = (&before.release, &status.release)
        && old.hash != release.hash
    {
        let note =
            format!("{name} runs {} now; checks run more often for a while", in_full(release.revision, &release.hash));
        let subject = format!("{}-{}", release.revision, release.hash);
        news.push((EventReason::ReleaseSeen, subject.clone(), note));
        if let Some(bad) = status.known_bad.iter().find(|bad| bad.digest == release.digest) {
            let note = format!(
                "{name} runs {release} now, whose content is that of {bad}, with which it became unhealthy at {}",
                bad.seen_at.strftime("%Y-%m-%d %H:%M:%SZ")
            );
            news.push((EventReason::KnownBadRelease, subject, note));
        }
    }
    if let (Some(old), Some(config)) = (&before.config, &status.config)
        && !config.changed.is_empty()
        && old.since != config.since
    {
        let note = format!(
            "{name}: {} changed; the content counts as known good once pods with it were healthy",
            config.changed.join(", ")
        );
        news.push((EventReason::ConfigSeen, config.since.to_string(), note));
        if let Some(bad) = status.known_bad_config.iter().find(|bad| config.holds(bad)) {
            let names: Vec<String> = bad.objects.iter().map(ToString::to_string).collect();
            let note = format!(
                "{name}: {} {} the content again with which it became unhealthy at {}",
                names.join(", "),
                if names.len() == 1 { "has" } else { "have" },
                bad.seen_at.strftime("%Y-%m-%d %H:%M:%SZ")
            );
            news.push((EventReason::KnownBadConfig, config.since.to_string(), note));
        }
    }
    if let (None, Some(episode)) = (&before.episode, &status.episode) {
        let note = format!("{name} is {} ({}): {message}", status.status, episode.cause);
        news.push((EventReason::Unhealthy, episode.id.clone(), note));
    }
    if let (Some(episode), None, HealthStatus::Healthy) = (&before.episode, &status.episode, status.status) {
        news.push((EventReason::Recovered, episode.id.clone(), format!("{name} is healthy again: {message}")));
    }
    let was_good = before.known_good.last().map(|good| &good.hash);
    if let Some(good) = status.known_good.last().filter(|good| was_good != Some(&good.hash)) {
        let note = format!("{name}: {} was healthy: it is the last known good one", in_full(good.revision, &good.hash));
        news.push((EventReason::KnownGood, format!("{}-{}", good.revision, good.hash), note));
    }
    news
}

/// What lasts, and was not reported yet.
fn standing_news(status: &ComponentStatus, memory: &mut PolicyMemory, now: Timestamp) -> Vec<News> {
    let PolicyMemory { components, reported, .. } = memory;
    let Some(entry) = components.get_mut(&status.name) else { return Vec::new() };
    let name = &status.name;
    let mut news = Vec::new();
    let blind = status.status == HealthStatus::Unknown && entry.last.is_some();
    let lasting = status.since.is_some_and(|since| now.duration_since(since) >= BLIND_AFTER);
    if blind && lasting && !entry.shown.blind {
        let note = format!("{name}: {}; no action is taken while this lasts", status.message);
        news.push((EventReason::CouldNotMeasure, String::new(), note));
    }
    entry.shown.blind = blind && (lasting || entry.shown.blind);
    news.extend(foreseen(status, &mut entry.shown.foreseen));
    if let Some(refusal) = &entry.refusal {
        let key = format!("refusal/{name}");
        let episode = status.episode.as_ref().map(|episode| episode.id.clone()).unwrap_or_default();
        let subject = format!("{}/{episode}", refusal.guard);
        if reported.insert(key, subject.clone()).as_ref() != Some(&subject) {
            let reason = if refusal.calls_person { EventReason::PersonNeeded } else { EventReason::ActionRefused };
            news.push((reason, subject, format!("{}: {}", refusal.guard, refusal.message)));
        }
    }
    news
}

/// Reports a forecast when its level rises to high or critical, and when it becomes a reason to act; once until it has
/// fallen to low, so that a level that fluctuates around a limit is reported once.
fn foreseen(status: &ComponentStatus, reported: &mut Option<Foreseen>) -> Option<News> {
    let forecast = status.forecast.as_ref()?;
    let now = match forecast.level.as_str() {
        _ if status.foreseen.is_some() => Foreseen::Imminent,
        "critical" => Foreseen::Critical,
        "high" => Foreseen::High,
        "low" => {
            *reported = None;
            return None;
        }
        _ => return None,
    };
    if *reported >= Some(now) {
        return None;
    }
    *reported = Some(now);
    let incident = status.foreseen.as_ref().map(|foreseen| foreseen.id.clone());
    let subject = incident.unwrap_or_else(|| forecast.level.clone());
    let note = format!(
        "{}: risk of a failure within 24 h {:.0}% ({}, confidence {}), time to failure {}: {}",
        status.name,
        forecast.probability * 100.0,
        if now == Foreseen::Imminent { "probable within prediction.horizon" } else { &forecast.level },
        forecast.confidence,
        forecast.time_to_failure.as_deref().unwrap_or("unknown"),
        forecast.reasons.join("; ")
    );
    Some((EventReason::FailureForeseen, subject, note))
}
