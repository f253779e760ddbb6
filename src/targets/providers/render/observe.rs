//! One look at a service: itself, its deploys, instances and events, and its metrics.

use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};

use super::{
    Account, READ_LIMIT, Render,
    batch::Shared,
    state::{Read, hosted, live},
    usage,
    wire::{Deploy, DeployItem, Event, EventItem, Instance, Series, Service},
};
use crate::{
    analyze::observation::{Hosted, Measured, Reading, UnknownReason, Unmeasured},
    api::{Access, RenderService},
    targets::providers::common::{HostedError, HostedObservation},
};

/// A look this young stands for another one: an action asks more often than a service changes. Shorter than the pause between
/// two looks of a policy.
pub(super) const SAME_OBSERVATION: Duration = Duration::from_secs(3);
/// Metrics have a point each 30 s at best, and the service itself changes seldom: read anew after this time.
pub(super) const SAME_REST: Duration = Duration::from_secs(15);
/// Metrics are asked for so far back, at their best resolution.
const METRICS_OVER: SignedDuration = SignedDuration::from_mins(3);
const RESOLUTION_S: &str = "30";
/// After this time a service that is not looked at any more may be forgotten.
pub(super) const OLD: Duration = Duration::from_secs(600);
/// Deploys and events read in one look: the newest.
const DEPLOYS: &str = "20";
const EVENTS: &str = "50";
/// Further pages that are read to find the deploy that serves behind failed ones.
const MORE_PAGES: usize = 4;
/// A rollback of a rollback of …
const MAX_DEPTH: usize = 5;
/// So long after a rollback was made its event may be missing.
const EVENT_LATE: SignedDuration = SignedDuration::from_secs(60);
/// Services, and rollbacks, that are remembered before old ones are forgotten.
pub(super) const MANY: usize = 1024;

/// A service as it was last seen.
#[derive(Default)]
pub(super) struct Remembered {
    look: Option<(Instant, HostedObservation)>,
    rest: Option<(Instant, Rest)>,
}

/// What is not read at each look.
#[derive(Clone)]
struct Rest {
    service: Service,
    /// The deploy that served then.
    live: Option<String>,
    instances: Option<Vec<Instance>>,
    metrics: Vec<(&'static str, Reading)>,
}

pub(super) fn young<T: Clone>(remembered: &Option<(Instant, T)>, age: Duration) -> Option<T> {
    remembered.as_ref().filter(|(at, _)| at.elapsed() < age).map(|(_, what)| what.clone())
}

type Answer = Result<Vec<Series>, Unmeasured>;

impl Render {
    /// One look, or the one that was made just now. Takes at most 9 s.
    pub async fn observe(&self, namespace: &str, service: &RenderService) -> HostedObservation {
        let key = key(namespace, service);
        if let Some(look) = self.remembered(&key, |seen| young(&seen.look, SAME_OBSERVATION)) {
            return look;
        }
        let until = Instant::now() + READ_LIMIT;
        let read = self.observe_anew(namespace, service, &key, until).await;
        let at = Timestamp::now();
        let (target, metrics) = match read {
            Ok((hosted, metrics)) => (Measured::Known(hosted), metrics),
            Err(error) => (Measured::Unknown(error.into()), Vec::new()),
        };
        let look = HostedObservation { at, target, metrics };
        self.remember(key, |seen| seen.look = Some((Instant::now(), look.clone())));
        look
    }

    async fn observe_anew(
        &self,
        namespace: &str,
        asked: &RenderService,
        key: &str,
        until: Instant,
    ) -> Result<(Hosted, Vec<(&'static str, Reading)>), HostedError> {
        let account = self.account(namespace, asked).await?;
        account.fleet.observe(account.id, Instant::now());
        let mut known = None;
        if let Some(rest) = self.remembered(key, |seen| young(&seen.rest, SAME_REST)) {
            let (deploys, events) =
                tokio::try_join!(self.deploys(&account, until), self.newest_events(&account, until))?;
            // Of another deploy it would be, and say nothing of this one.
            known = (live(&deploys).map(|live| &live.id) == rest.live.as_ref()).then_some((deploys, events, rest));
        }
        let (deploys, events, rest) = match known {
            Some(known) => known,
            None => {
                // First one call alone: where it fails the others would too.
                let service = self.service(&account, until).await?;
                let metrics = async { Ok(self.metrics(&account, &service, until).await) };
                let (read, metrics) = tokio::try_join!(self.read(&account, service.clone(), until), metrics)?;
                let Read { service, deploys, instances, events } = read;
                let live = live(&deploys).map(|live| live.id.clone());
                let rest = Rest { service, live, instances, metrics };
                self.remember(key.to_owned(), |seen| seen.rest = Some((Instant::now(), rest.clone())));
                (deploys, events, rest)
            }
        };
        let Rest { service, live: _, instances, metrics } = rest;
        let read = Read { service, deploys, instances, events };
        let root = match read.live() {
            Some(live) => self.root(&account, live, &read.events, until).await?,
            None => None,
        };
        let mut hosted = hosted(&read, root.as_deref(), Timestamp::now());
        hosted.settled &= read.live().is_none_or(|live| is_of(&metrics, live, Timestamp::now()));
        if let (true, Some(live), Some(release)) = (asked.env_vars, read.live(), &mut hosted.release) {
            hosted.config = self.running(namespace, asked, &account, live, root.as_deref(), until).await?;
            // The code alone: the environment is a configuration of its own.
            if let Some(source) = live.source() {
                release.digest = source;
            }
        }
        Ok((hosted, metrics))
    }

    pub(super) async fn service(&self, account: &Account<'_>, until: Instant) -> Result<Service, HostedError> {
        let id = account.id;
        self.get(account, &format!("read service {id}"), &["services", id], &[], until).await
    }

    /// Its deploys, instances and events.
    pub(super) async fn read(
        &self,
        account: &Account<'_>,
        service: Service,
        until: Instant,
    ) -> Result<Read, HostedError> {
        let (deploys, instances, events) = tokio::try_join!(
            self.deploys(account, until),
            self.instances_of(account, &service, until),
            self.newest_events(account, until)
        )?;
        Ok(Read { service, deploys, instances, events })
    }

    /// None for a service that has none.
    async fn instances_of(
        &self,
        account: &Account<'_>,
        service: &Service,
        until: Instant,
    ) -> Result<Option<Vec<Instance>>, HostedError> {
        if !service.has_instances() {
            return Ok(None);
        }
        self.instances(account, until).await.map(Some)
    }

    /// The newest first, up to the one that serves at least.
    pub(super) async fn deploys(&self, account: &Account<'_>, until: Instant) -> Result<Vec<Deploy>, HostedError> {
        let id = account.id;
        let what = format!("list deploys of {id}");
        let mut deploys: Vec<Deploy> = Vec::new();
        let mut cursor: Option<String> = None;
        for _ in 0..=MORE_PAGES {
            let mut query = vec![("limit", DEPLOYS.to_owned())];
            query.extend(cursor.take().map(|cursor| ("cursor", cursor)));
            let page: Vec<DeployItem> = self.get(account, &what, &["services", id, "deploys"], &query, until).await?;
            cursor = page.last().and_then(|item| item.cursor.clone());
            deploys.extend(page.into_iter().map(|item| item.deploy));
            if cursor.is_none() || deploys.iter().any(Deploy::is_live) {
                break;
            }
        }
        Ok(deploys)
    }

    pub(super) async fn instances(&self, account: &Account<'_>, until: Instant) -> Result<Vec<Instance>, HostedError> {
        let id = account.id;
        self.get(account, &format!("list instances of {id}"), &["services", id, "instances"], &[], until).await
    }

    async fn newest_events(&self, account: &Account<'_>, until: Instant) -> Result<Vec<Event>, HostedError> {
        self.events(account, &[("limit", EVENTS.to_owned())], until).await
    }

    /// The newest first.
    pub(super) async fn events(
        &self,
        account: &Account<'_>,
        query: &[(&str, String)],
        until: Instant,
    ) -> Result<Vec<Event>, HostedError> {
        let id = account.id;
        let what = format!("list events of {id}");
        let items: Vec<EventItem> = self.get(account, &what, &["services", id, "events"], query, until).await?;
        let mut events: Vec<Event> = items.into_iter().map(|item| item.event).collect();
        events.sort_by_key(|event| std::cmp::Reverse(event.timestamp));
        Ok(events)
    }

    /// The deploy that was built which this one is; none: this one.
    async fn root(
        &self,
        account: &Account<'_>,
        deploy: &Deploy,
        events: &[Event],
        until: Instant,
    ) -> Result<Option<String>, HostedError> {
        let mut deploy = deploy.clone();
        let mut root = None;
        for _ in 0..MAX_DEPTH {
            let Some(target) = self.target(account, &deploy, events, until).await? else { break };
            deploy = self.deploy(account, &target, until).await?;
            root = Some(target);
        }
        Ok(root)
    }

    /// What a rollback went back to; none: it is none, or nobody knows any more.
    pub(super) async fn target(
        &self,
        account: &Account<'_>,
        deploy: &Deploy,
        events: &[Event],
        until: Instant,
    ) -> Result<Option<String>, HostedError> {
        if !deploy.is_rollback() {
            return Ok(None);
        }
        let known = self.targets.lock().get(&deploy.id).cloned();
        if known.is_some() {
            return Ok(known);
        }
        let of = |events: &[Event]| {
            let mut told = events.iter().filter_map(Event::rollback);
            told.find(|(id, _)| *id == deploy.id).map(|(_, target)| target.to_owned())
        };
        let mut found = of(events);
        if let (None, Some(made)) = (&found, deploy.created_at) {
            let query = [
                ("type", "deploy_started".to_owned()),
                ("startTime", (made - EVENT_LATE).to_string()),
                ("endTime", (made + EVENT_LATE).to_string()),
                ("limit", "100".to_owned()),
            ];
            found = of(&self.events(account, &query, until).await?);
            if found.is_none() && Timestamp::now().duration_since(made) < EVENT_LATE {
                return Err(HostedError::Unsettled(format!(
                    "it is not told yet what the deploy {} goes back to",
                    deploy.id
                )));
            }
        }
        if let Some(target) = &found {
            self.note_target(&deploy.id, target);
        }
        Ok(found)
    }

    pub(super) fn note_target(&self, deploy: &str, target: &str) {
        let mut targets = self.targets.lock();
        if targets.len() >= MANY {
            targets.clear();
        }
        targets.insert(deploy.to_owned(), target.to_owned());
    }

    pub(super) async fn deploy(
        &self,
        account: &Account<'_>,
        deploy: &str,
        until: Instant,
    ) -> Result<Deploy, HostedError> {
        let id = account.id;
        let path = ["services", id, "deploys", deploy];
        self.get(account, &format!("read deploy {deploy} of {id}"), &path, &[], until).await
    }

    async fn metrics(&self, account: &Account<'_>, service: &Service, until: Instant) -> Vec<(&'static str, Reading)> {
        if service.is_suspended() || !service.has_instances() {
            return Vec::new();
        }
        let now = Timestamp::now();
        let own = &[account.id];
        let http = async {
            if service.kind != "web_service" {
                return (Ok(Vec::new()), Ok(Vec::new()));
            }
            let (requests, latency) = tokio::join!(
                self.metric(account, "http-requests", own, Some(("aggregateBy", "statusCode")), now, until),
                self.metric(account, "http-latency", own, Some(("quantile", "0.95")), now, until)
            );
            (requests.map_err(Unmeasured::from), latency.map_err(Unmeasured::from))
        };
        let (cpu, memory, cpu_limit, memory_limit, (requests, latency)) = tokio::join!(
            self.shared(account, Shared::Cpu, now, until),
            self.shared(account, Shared::Memory, now, until),
            self.shared(account, Shared::CpuLimit, now, until),
            self.shared(account, Shared::MemoryLimit, now, until),
            http,
        );
        let found = [
            usage::cpu(&cpu, &cpu_limit, now),
            usage::memory(&memory, &memory_limit, now),
            usage::error_rate(&requests, now),
            usage::latency(&latency, now),
        ];
        found.into_iter().flatten().collect()
    }

    /// What is read for all services of the key at once, or was just now.
    async fn shared(&self, account: &Account<'_>, what: Shared, now: Timestamp, until: Instant) -> Answer {
        let id = account.id;
        let fleet = &account.fleet;
        let mut known = match tokio::time::timeout_at(until.into(), fleet.known(what).lock()).await {
            Ok(known) => known,
            Err(_) => {
                let why = format!("{} of {id} was not read within {READ_LIMIT:?}", what.metric());
                return Err(Unmeasured::new(UnknownReason::Timeout, why));
            }
        };
        if let Some(series) = known.of(id, what, Instant::now()) {
            return Ok(series);
        }
        let asked = fleet.worth_asking(id, what, &known, Instant::now());
        if asked.len() > 1 {
            let resources: Vec<&str> = asked.iter().map(String::as_str).collect();
            match self.metric(account, what.metric(), &resources, None, now, until).await {
                Ok(series) => known.take(&asked, series, Instant::now()),
                // One that does not exist any more may spoil it for all.
                Err(why) if matches!(why.status(), Some(400 | 403 | 404 | 410)) => {}
                Err(why) => return Err(why.into()),
            }
            if let Some(series) = known.of(id, what, Instant::now()) {
                return Ok(series);
            }
        }
        let series = self.metric(account, what.metric(), &[id], None, now, until).await?;
        known.take(&asked[..1], series.clone(), Instant::now());
        Ok(series)
    }

    pub(super) async fn metric(
        &self,
        account: &Account<'_>,
        metric: &str,
        resources: &[&str],
        more: Option<(&str, &str)>,
        now: Timestamp,
        until: Instant,
    ) -> Result<Vec<Series>, HostedError> {
        let mut query: Vec<(&str, String)> = resources.iter().map(|id| ("resource", (*id).to_owned())).collect();
        query.extend([
            ("startTime", second(now - METRICS_OVER)),
            ("endTime", second(now)),
            ("resolutionSeconds", RESOLUTION_S.to_owned()),
        ]);
        query.extend(more.map(|(name, value)| (name, value.to_owned())));
        let what = match resources {
            [id] => format!("read {metric} of {id}"),
            many => format!("read {metric} of {} services", many.len()),
        };
        self.get(account, &what, &["metrics", metric], &query, until).await
    }

    fn remembered<T>(&self, key: &str, what: impl FnOnce(&Remembered) -> Option<T>) -> Option<T> {
        self.seen.lock().get(key).and_then(what)
    }

    fn remember(&self, key: String, change: impl FnOnce(&mut Remembered)) {
        let mut seen = self.seen.lock();
        if seen.len() >= MANY {
            seen.retain(|_, seen| young(&seen.look, OLD).is_some());
        }
        change(seen.entry(key).or_default());
    }

    /// The next look is made anew: something was done.
    pub(super) fn forget_observation(&self, namespace: &str, service: &RenderService) {
        self.seen.lock().remove(&key(namespace, service));
    }
}

/// Two policies that ask with the same key see the same; others may not see it at all.
pub(super) fn key(namespace: &str, service: &RenderService) -> String {
    // What is a release is another thing with them.
    let with = if service.env_vars { " with its environment" } else { "" };
    format!("{}{with}", place(namespace, &service.service_id, &service.access))
}

/// What two policies see alike.
pub(super) fn place(namespace: &str, id: &str, access: &Access) -> String {
    match &access.key {
        Some(key) => format!("{namespace}/{}/{}/{id}", key.name, key.key),
        None => id.to_owned(),
    }
}

/// What was measured was measured of this deploy; metrics come late. One that nobody asks anything has none.
fn is_of(metrics: &[(&'static str, Reading)], live: &Deploy, now: Timestamp) -> bool {
    let Some(since) = live.finished_at.filter(|at| now.duration_since(*at) <= usage::STALE) else { return true };
    metrics.iter().filter_map(|(_, reading)| reading.sample.as_ref()).all(|sample| sample.at >= since)
}

fn second(at: Timestamp) -> String {
    at.round(jiff::Unit::Second).unwrap_or(at).to_string()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::analyze::observation::Sample;

    #[test]
    fn what_was_measured_before_a_deploy_went_live_says_nothing_of_it() {
        let now: Timestamp = "2026-11-25T10:00:00Z".parse().unwrap();
        let ago = |seconds| now - SignedDuration::from_secs(seconds);
        let live = |seconds| -> Deploy {
            serde_json::from_value(json!({"id": "dep-1", "status": "live", "finishedAt": ago(seconds)})).unwrap()
        };
        let measured = |seconds| {
            let sample = Some(Sample { of: "it".into(), at: ago(seconds) });
            ("error_rate", Reading { sample, ..Reading::new(Measured::Known(0.0), false) })
        };
        assert!(!is_of(&[measured(30)], &live(20), now) && !is_of(&[measured(10), measured(30)], &live(20), now));
        assert!(is_of(&[measured(10)], &live(20), now) && is_of(&[], &live(20), now));
        assert!(is_of(&[measured(170)], &live(160), now), "it is waited for no longer than a figure counts");
    }
}
