//! What one observation of a service reads: the service, its deploys, instances, events and metrics.

use std::time::Instant;

use jiff::{SignedDuration, Timestamp};

use super::{
    MANY, RenderServiceTarget,
    batch::Shared,
    memory::{SAME_REST, key, young},
    state::{Read, hosted, live},
    usage,
    wire::{Deploy, Event, Instance, Item, Series, Service},
};
use crate::{
    analyze::{
        metric::{CPU_USAGE, MEMORY_USAGE},
        observation::{Hosted, Reading, UnknownReason, Unmeasured},
    },
    targets::providers::{
        account::{Account, READ_LIMIT},
        client::{Credential, cache},
        common::{HostedError, Metrics},
    },
};

/// Deploys of a page, and pages that are searched for the deploy that serves, behind failed ones.
const DEPLOYS: (usize, usize) = (20, 5);
/// Events that one observation reads: the newest.
const EVENTS: &str = "50";
/// A rollback of a rollback of …
const MAX_DEPTH: usize = 5;
/// For so long after a rollback its event may be missing.
const EVENT_LATE: SignedDuration = SignedDuration::from_secs(60);

/// What not every observation reads, and when it was read.
pub(super) type Rest = Option<(Instant, Seldom)>;

#[derive(Clone)]
pub(super) struct Seldom {
    service: Service,
    /// The deploy that served then.
    live: Option<String>,
    instances: Option<Vec<Instance>>,
    metrics: Metrics,
}

type Answer = Result<Vec<Series>, Unmeasured>;

impl<'a> RenderServiceTarget<'a> {
    /// Policies with the same key share observations, but not releases with and without their environment.
    pub(super) fn key(&self, namespace: &str) -> String {
        let with = if self.service.env_vars { " with its environment" } else { "" };
        format!("{}{with}", key(namespace, &self.service.service_id, &self.service.access))
    }

    pub(super) async fn account(&self, namespace: &str) -> Result<Account<'a>, HostedError> {
        self.render.api.account(namespace, &self.service.service_id, &self.service.access).await
    }

    /// The next observation reads everything: something was changed.
    pub(super) fn forget_observation(&self, namespace: &str) {
        self.render.services.change(&self.key(namespace), |seen| (seen.observation, seen.rest) = (None, None));
    }

    pub(super) async fn hosted(&self, namespace: &str, key: &str) -> Result<(Hosted, Metrics), HostedError> {
        let account = self.account(namespace).await?;
        self.render.fleets.of(Credential::of(&account.key), Instant::now()).observe(account.id, Instant::now());
        let mut known = None;
        if let Some(rest) = self.render.services.rest(key, |rest| young(rest, SAME_REST)) {
            let (deploys, events) = tokio::try_join!(self.deploys(&account), self.newest_events(&account))?;
            // The metrics of another deploy would be wrong for this one.
            known = (live(&deploys).map(|live| &live.id) == rest.live.as_ref()).then_some((deploys, events, rest));
        }
        let (deploys, events, rest) = match known {
            Some(known) => known,
            None => {
                // First one call alone: where it fails the others would fail too.
                let service = self.service(&account).await?;
                let metrics = async { Ok(self.metrics(&account, &service).await) };
                let (read, metrics) = tokio::try_join!(self.read(&account, service.clone()), metrics)?;
                let Read { service, deploys, instances, events } = read;
                let live = live(&deploys).map(|live| live.id.clone());
                let rest = Seldom { service, live, instances, metrics };
                self.render.services.change(key, |seen| seen.rest = Some((Instant::now(), rest.clone())));
                (deploys, events, rest)
            }
        };
        let Seldom { service, live: _, instances, metrics } = rest;
        let read = Read { service, deploys, instances, events };
        let root = match read.live() {
            Some(live) => self.root(&account, live, &read.events).await?,
            None => None,
        };
        let mut hosted = hosted(&read, root.as_deref(), Timestamp::now());
        hosted.settled &= read.live().is_none_or(|live| is_of(&metrics, live, Timestamp::now()));
        if let (true, Some(live), Some(release)) = (self.service.env_vars, read.live(), &mut hosted.release) {
            hosted.config = self.running(namespace, &account, live, root.as_deref()).await?;
            // The code alone: the environment is a separate configuration.
            if let Some(source) = live.source() {
                release.digest = source;
            }
        }
        Ok((hosted, metrics))
    }

    pub(super) async fn service(&self, account: &Account<'_>) -> Result<Service, HostedError> {
        let id = account.id;
        self.render.get(account, &format!("read service {id}"), &["services", id], &[]).await
    }

    /// The service's deploys, instances and events.
    pub(super) async fn read(&self, account: &Account<'_>, service: Service) -> Result<Read, HostedError> {
        let instances =
            async { if service.has_instances() { self.instances(account).await.map(Some) } else { Ok(None) } };
        let (deploys, instances, events) =
            tokio::try_join!(self.deploys(account), instances, self.newest_events(account))?;
        Ok(Read { service, deploys, instances, events })
    }

    /// The newest first, up to the one that serves at least.
    pub(super) async fn deploys(&self, account: &Account<'_>) -> Result<Vec<Deploy>, HostedError> {
        let (what, path) = (format!("list deploys of {}", account.id), ["services", account.id, "deploys"]);
        let serves = |deploys: &[Deploy]| deploys.iter().any(Deploy::is_live);
        Ok(self.render.list(account, (&what, &path), DEPLOYS, serves).await?.0)
    }

    pub(super) async fn instances(&self, account: &Account<'_>) -> Result<Vec<Instance>, HostedError> {
        let (what, path) = (format!("list instances of {}", account.id), ["services", account.id, "instances"]);
        self.render.get(account, &what, &path, &[]).await
    }

    async fn newest_events(&self, account: &Account<'_>) -> Result<Vec<Event>, HostedError> {
        self.events(account, &[("limit", EVENTS.to_owned())]).await
    }

    /// The newest first.
    pub(super) async fn events(
        &self,
        account: &Account<'_>,
        query: &[(&str, String)],
    ) -> Result<Vec<Event>, HostedError> {
        let (what, path) = (format!("list events of {}", account.id), ["services", account.id, "events"]);
        let items: Vec<Item<Event>> = self.render.get(account, &what, &path, query).await?;
        let mut events: Vec<Event> = items.into_iter().map(|item| item.item).collect();
        events.sort_by_key(|event| std::cmp::Reverse(event.timestamp));
        Ok(events)
    }

    /// The first deploy of this one's state; none: this one.
    async fn root(
        &self,
        account: &Account<'_>,
        deploy: &Deploy,
        events: &[Event],
    ) -> Result<Option<String>, HostedError> {
        let mut deploy = deploy.clone();
        let mut root = None;
        for _ in 0..MAX_DEPTH {
            let Some(target) = self.rollback_target(account, &deploy, events).await? else { break };
            deploy = self.deploy(account, &target).await?;
            root = Some(target);
        }
        Ok(root)
    }

    /// The target of a rollback; none: the deploy is no rollback, or the target is not known any more.
    pub(super) async fn rollback_target(
        &self,
        account: &Account<'_>,
        deploy: &Deploy,
        events: &[Event],
    ) -> Result<Option<String>, HostedError> {
        if !deploy.is_rollback() {
            return Ok(None);
        }
        let known = self.render.targets.lock().get(&deploy.id).cloned();
        if known.is_some() {
            return Ok(known);
        }
        let of = |events: &[Event]| {
            let mut rollbacks = events.iter().filter_map(Event::rollback);
            rollbacks.find(|(id, _)| *id == deploy.id).map(|(_, target)| target.to_owned())
        };
        let mut found = of(events);
        if let (None, Some(made)) = (&found, deploy.created_at) {
            let query = [
                ("type", "deploy_started".to_owned()),
                ("startTime", (made - EVENT_LATE).to_string()),
                ("endTime", (made + EVENT_LATE).to_string()),
                ("limit", "100".to_owned()),
            ];
            found = of(&self.events(account, &query).await?);
            if found.is_none() && Timestamp::now().duration_since(made) < EVENT_LATE {
                let id = &deploy.id;
                return Err(HostedError::Unsettled(format!("the rollback target of deploy {id} is not reported yet")));
            }
        }
        if let Some(target) = &found {
            self.note_target(&deploy.id, target);
        }
        Ok(found)
    }

    pub(super) fn note_target(&self, deploy: &str, target: &str) {
        cache(&mut self.render.targets.lock(), MANY, deploy.to_owned(), target.to_owned());
    }

    pub(super) async fn deploy(&self, account: &Account<'_>, deploy: &str) -> Result<Deploy, HostedError> {
        let id = account.id;
        let path = ["services", id, "deploys", deploy];
        self.render.get(account, &format!("read deploy {deploy} of {id}"), &path, &[]).await
    }

    async fn metrics(&self, account: &Account<'_>, service: &Service) -> Metrics {
        if service.is_suspended() || !service.has_instances() {
            return Vec::new();
        }
        let http = async |metric, more| -> Answer {
            if service.kind != "web_service" {
                return Ok(Vec::new());
            }
            Ok(self.render.metric(account, metric, &[account.id], Some(more)).await?)
        };
        let (cpu, memory, cpu_limit, memory_limit, requests, latency) = tokio::join!(
            self.shared(account, Shared::Cpu),
            self.shared(account, Shared::Memory),
            self.shared(account, Shared::CpuLimit),
            self.shared(account, Shared::MemoryLimit),
            http("http-requests", ("aggregateBy", "statusCode")),
            http("http-latency", ("quantile", "0.95")),
        );
        let now = Timestamp::now();
        let found = [
            usage::share(CPU_USAGE, &cpu, &cpu_limit, now),
            usage::share(MEMORY_USAGE, &memory, &memory_limit, now),
            usage::error_rate(&requests, now),
            usage::latency(&latency, now),
        ];
        found.into_iter().flatten().collect()
    }

    /// A metric that is read for all services of the key at once, or was read just now.
    async fn shared(&self, account: &Account<'_>, what: Shared) -> Answer {
        let (id, metric) = (account.id, what.metric());
        let fleet = self.render.fleets.of(Credential::of(&account.key), Instant::now());
        let Ok(mut known) = tokio::time::timeout_at(account.until.into(), fleet.known(what).lock()).await else {
            let why = format!("{metric} of {id} was not read within {READ_LIMIT:?}");
            return Err(Unmeasured::new(UnknownReason::Timeout, why));
        };
        if let Some(series) = known.of(id, what, Instant::now()) {
            return Ok(series);
        }
        let services = fleet.worth_reading(id, what, &known, Instant::now());
        if services.len() > 1 {
            let resources: Vec<&str> = services.iter().map(String::as_str).collect();
            match self.render.metric(account, metric, &resources, None).await {
                Ok(series) => known.take(&services, series, Instant::now()),
                // One service that does not exist any more may spoil the response for all.
                Err(why) if matches!(why.status(), Some(400 | 403 | 404 | 410)) => {}
                Err(why) => return Err(why.into()),
            }
            if let Some(series) = known.of(id, what, Instant::now()) {
                return Ok(series);
            }
        }
        let series = self.render.metric(account, metric, &[id], None).await?;
        known.take(&services[..1], series.clone(), Instant::now());
        Ok(series)
    }
}

/// The metrics were measured of this deploy; metrics come late. A service without requests has none.
fn is_of(metrics: &[(&str, Reading)], live: &Deploy, now: Timestamp) -> bool {
    let Some(since) = live.finished_at.filter(|at| now.duration_since(*at) <= usage::STALE) else { return true };
    metrics.iter().filter_map(|(_, reading)| reading.sample.as_ref()).all(|sample| sample.at >= since)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::analyze::observation::{Measured, Sample};

    #[test]
    fn metrics_from_before_a_deploy_went_live_are_not_of_that_deploy() {
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
        assert!(is_of(&[measured(170)], &live(160), now), "waiting ends when the figure is stale");
    }
}
