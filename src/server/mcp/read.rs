//! The tools that only read, except for the explanation of one Remediation.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt as _;
use schemars::JsonSchema;
use serde::Serialize;

use super::{
    Answer,
    arguments::{self, limit, name},
    cluster::{Cluster, Trouble},
};
use crate::api::{
    ActionKind, Cause, ComponentStatus, Episode, ForecastStatus, Foreseen, HealingPolicy, HealthStatus, Phase,
    RefusalStatus, ReleaseStatus, Remediation, Summary, Trend, ValidPolicy, default_thresholds,
};

/// The longest message of an entry of a list, in characters.
const SHORT: usize = 300;

fn short(text: &str) -> String {
    match text.char_indices().nth(SHORT) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

/// How many entries the list shows, of how many. Truncated although all found ones are shown: more exist than were read.
fn heading(shown: usize, found: usize, truncated: bool, kind: &str) -> String {
    match (shown == found, truncated) {
        (true, false) if found == 1 => format!("1 {kind}"),
        (true, false) => format!("{found} {kind}s"),
        (true, true) => format!("{shown} of more than {found} {kind}s"),
        (false, _) => format!("{shown} of {found} {kind}s"),
    }
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Components {
    components: Vec<Listed>,
    /// How many match; the list holds at most `limit` of them.
    found: usize,
    /// The list does not hold all matches: add filters, or raise limit.
    truncated: bool,
}

/// A component in a list.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Listed {
    namespace: String,
    policy: String,
    component: String,
    /// `Deployment/api`, an address; absent while the policy is not valid.
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<String>,
    /// Unknown: not measured, or not checked yet.
    status: HealthStatus,
    /// 0 (dead) to 100 (fine); absent while Unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    score: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trend: Option<Trend>,
    /// The observations against their limits; missing measurements and why.
    message: String,
}

impl Answer for Components {
    fn in_words(&self) -> String {
        let mut text = heading(self.components.len(), self.found, self.truncated, "component");
        for one in &self.components {
            let score = one.score.map(|score| format!(" ({score}/100)")).unwrap_or_default();
            text += &format!("\n- {}/{}/{}: {}{score}", one.namespace, one.policy, one.component, one.status);
            if !one.message.is_empty() {
                text += &format!(": {}", one.message);
            }
        }
        text
    }
}

/// The components of the spec, each with its status.
fn components_of(policy: &HealingPolicy) -> impl Iterator<Item = (&str, ComponentStatus)> {
    let known = policy.status.as_ref().map(|status| status.components.as_slice()).unwrap_or_default();
    policy.spec.components.iter().map(move |component| {
        let status = known.iter().find(|status| status.name == component.name).cloned();
        let unchecked = || ComponentStatus {
            name: component.name.clone(),
            message: "not checked yet: is the operator running?".into(),
            ..ComponentStatus::default()
        };
        (component.name.as_str(), status.unwrap_or_else(unchecked))
    })
}

pub(super) async fn components(cluster: &Cluster, asked: arguments::ListComponents) -> Result<Components, Trouble> {
    let limit = limit(asked.limit)?;
    let namespace = scope(cluster, asked.namespace.as_deref(), asked.all_namespaces)?;
    let (policies, more) = match (&asked.policy, namespace) {
        (Some(policy), Some(namespace)) => (vec![cluster.policy(namespace, policy).await?], false),
        (policy, _) => {
            let policy = policy.as_deref().map(|policy| name("policy", policy)).transpose()?;
            let fields: Vec<String> = policy.map(|policy| format!("metadata.name={policy}")).into_iter().collect();
            cluster.list::<HealingPolicy>(namespace, &fields).await?
        }
    };
    let mut all = Vec::new();
    for policy in &policies {
        let valid = ValidPolicy::new(policy, &default_thresholds()).ok();
        for (component, status) in components_of(policy) {
            if asked.status.is_some_and(|status_asked| status_asked != status.status) {
                continue;
            }
            let found = valid.as_ref().and_then(|valid| valid.component(component));
            all.push(Listed {
                namespace: policy.namespace().unwrap_or_default(),
                policy: policy.name_any(),
                component: component.to_owned(),
                target: found.map(|found| found.target.describe()),
                status: status.status,
                score: status.score,
                trend: status.trend,
                message: short(&status.message),
            });
        }
    }
    let found = all.len();
    all.truncate(limit);
    Ok(Components { truncated: more || found > all.len(), components: all, found })
}

/// The namespace to read; none: all.
fn scope<'a>(cluster: &'a Cluster, asked: Option<&'a str>, all: bool) -> Result<Option<&'a str>, Trouble> {
    match (asked, all) {
        (Some(_), true) => Err(Trouble("namespace and allNamespaces are both set; leave one out".to_owned())),
        (None, true) => Ok(None),
        (asked, false) => cluster.namespace(asked).map(Some),
    }
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Health {
    namespace: String,
    policy: String,
    /// Observe, Approve or Auto.
    mode: String,
    /// While suspended, health checks are paused and no action starts.
    suspended: bool,
    /// The policy in a few words; absent before the first check.
    #[serde(skip_serializing_if = "Option::is_none")]
    summary: Option<Summary>,
    conditions: Vec<Condition>,
    components: Vec<ComponentHealth>,
}

/// A component at its last check.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct ComponentHealth {
    component: String,
    /// Unknown: not measured, or not checked yet.
    status: HealthStatus,
    #[serde(skip_serializing_if = "Option::is_none")]
    score: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trend: Option<Trend>,
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<Timestamp>,
    message: String,
    /// Why no action is taken although something is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    refusal: Option<RefusalStatus>,
    /// The open incident.
    #[serde(skip_serializing_if = "Option::is_none")]
    episode: Option<Episode>,
    #[serde(skip_serializing_if = "Option::is_none")]
    release: Option<ReleaseStatus>,
}

impl Answer for Health {
    fn in_words(&self) -> String {
        let doing = self.summary.as_ref().map_or("not checked yet", |summary| summary.doing.as_str());
        let mut text = format!("{}/{} (mode {}): {doing}", self.namespace, self.policy, self.mode);
        for one in &self.components {
            text += &format!("\n- {}: {}: {}", one.component, one.status, one.message);
            if let Some(refusal) = &one.refusal {
                text += &format!("; no action is taken: {}: {}", refusal.reason, refusal.message);
            }
        }
        for condition in self.conditions.iter().filter(|condition| condition.status != "True") {
            text += &format!("\n{} is {}: {}", condition.type_, condition.status, condition.message);
        }
        text
    }
}

pub(super) async fn health(cluster: &Cluster, asked: arguments::OfPolicy) -> Result<Health, Trouble> {
    let namespace = cluster.namespace(asked.namespace.as_deref())?;
    let policy = cluster.policy(namespace, &asked.policy).await?;
    let components = selected(&policy, &asked)?.map(|status| ComponentHealth {
        component: status.name,
        status: status.status,
        score: status.score,
        trend: status.trend,
        since: status.since,
        message: status.message,
        refusal: status.refusal,
        episode: status.episode,
        release: status.release,
    });
    let components = components.collect();
    let status = policy.status.unwrap_or_default();
    Ok(Health {
        namespace: namespace.to_owned(),
        policy: policy.metadata.name.unwrap_or_default(),
        mode: format!("{:?}", policy.spec.mode),
        suspended: policy.spec.suspend,
        summary: status.summary,
        conditions: status.conditions,
        components,
    })
}

/// All components, or the one that the call names.
fn selected<'a>(
    policy: &'a HealingPolicy,
    asked: &'a arguments::OfPolicy,
) -> Result<impl Iterator<Item = ComponentStatus> + 'a, Trouble> {
    let names: Vec<&str> = policy.spec.components.iter().map(|component| component.name.as_str()).collect();
    if let Some(component) = asked.component.as_deref().filter(|name| !names.contains(name)) {
        let names = names.join(", ");
        return Err(Trouble(format!("{} has no component {component:?}; it has {names}", asked.policy)));
    }
    let is_selected = |name: &str| asked.component.as_deref().is_none_or(|asked| asked == name);
    Ok(components_of(policy).filter(move |(name, _)| is_selected(name)).map(|(_, status)| status))
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Forecasts {
    namespace: String,
    policy: String,
    /// The horizon of `probability`, in hours.
    horizon_hours: u32,
    components: Vec<ComponentForecast>,
}

/// The forecast for a component.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct ComponentForecast {
    component: String,
    /// There is a forecast. False: nothing can be said, and `whyNot` says why.
    measured: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    why_not: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    forecast: Option<ForecastStatus>,
    /// A failure foreseen soon enough, with enough confidence, to act ahead of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    foreseen: Option<Foreseen>,
}

impl Answer for Forecasts {
    fn in_words(&self) -> String {
        let mut text = format!("{}/{}", self.namespace, self.policy);
        for one in &self.components {
            match (&one.forecast, &one.why_not) {
                (Some(forecast), _) => {
                    let percent = forecast.probability * 100.0;
                    let (level, confidence, hours) = (&forecast.level, &forecast.confidence, self.horizon_hours);
                    text += &format!(
                        "\n- {}: {percent:.0}% within {hours} hours ({level}; confidence: {confidence})",
                        one.component
                    );
                    if let Some(time) = &forecast.time_to_failure {
                        text += &format!(", in {time}");
                    }
                    forecast.reasons.iter().for_each(|reason| text += &format!("; {reason}"));
                }
                (None, why) => {
                    text += &format!("\n- {}: no forecast: {}", one.component, why.as_deref().unwrap_or_default());
                }
            }
            if let Some(foreseen) = &one.foreseen {
                text += &format!("; acts ahead: {}", foreseen.reason);
            }
        }
        text
    }
}

pub(super) async fn forecasts(cluster: &Cluster, asked: arguments::OfPolicy) -> Result<Forecasts, Trouble> {
    let namespace = cluster.namespace(asked.namespace.as_deref())?;
    let policy = cluster.policy(namespace, &asked.policy).await?;
    let enabled = policy.spec.prediction.enabled;
    let components = selected(&policy, &asked)?.map(|status| {
        let why_not = match (&status.forecast, enabled) {
            (Some(_), _) => None,
            (None, false) => Some("spec.prediction.enabled is false".to_owned()),
            (None, true) => Some(format!("no forecast yet; the component is {}: {}", status.status, status.message)),
        };
        ComponentForecast {
            component: status.name,
            measured: status.forecast.is_some(),
            why_not,
            forecast: status.forecast,
            foreseen: status.foreseen,
        }
    });
    let (namespace, components) = (namespace.to_owned(), components.collect());
    // The horizon of `status.components[].forecast.probability`.
    Ok(Forecasts { namespace, policy: policy.name_any(), horizon_hours: 24, components })
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Remediations {
    /// The newest first.
    remediations: Vec<Known>,
    /// How many match; the list holds at most `limit` of them.
    found: usize,
    /// The list does not hold all matches: add filters, or raise limit.
    truncated: bool,
}

/// A Remediation in a list.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Known {
    namespace: String,
    remediation: String,
    policy: String,
    component: String,
    action: ActionKind,
    cause: Cause,
    phase: Phase,
    /// CamelCase, from a closed set.
    reason: String,
    message: String,
    decided_at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    finished_at: Option<Timestamp>,
}

impl Answer for Remediations {
    fn in_words(&self) -> String {
        let mut text = heading(self.remediations.len(), self.found, self.truncated, "remediation");
        for one in &self.remediations {
            let Known { namespace, remediation, action, component, phase, reason, message, .. } = one;
            text += &format!("\n- {namespace}/{remediation}: {action} of {component}: {phase} ({reason}): {message}");
        }
        text
    }
}

pub(super) async fn remediations(
    cluster: &Cluster,
    asked: arguments::ListRemediations,
) -> Result<Remediations, Trouble> {
    let limit = limit(asked.limit)?;
    let namespace = scope(cluster, asked.namespace.as_deref(), asked.all_namespaces)?;
    let mut fields = Vec::new();
    for (field, value) in [("policy", &asked.policy), ("component", &asked.component)] {
        if let Some(value) = value {
            fields.push(format!("spec.plan.{field}={}", name(field, value)?));
        }
    }
    let (mut all, more) = cluster.list::<Remediation>(namespace, &fields).await?;
    all.retain(|one| {
        let phase = one.status.as_ref().map(|status| status.phase).unwrap_or_default();
        asked.phase.is_none_or(|asked| asked == phase) && !(asked.open && phase.is_final())
    });
    all.sort_by_key(|one| std::cmp::Reverse(one.spec.plan.decided_at));
    let found = all.len();
    all.truncate(limit);
    let remediations = all.into_iter().map(|one| {
        let status = one.status.clone().unwrap_or_default();
        Known {
            namespace: one.namespace().unwrap_or_default(),
            remediation: one.name_any(),
            phase: status.phase,
            reason: status.reason,
            message: short(&status.message),
            finished_at: status.finished_at,
            policy: one.spec.plan.policy,
            component: one.spec.plan.component,
            action: one.spec.plan.action,
            cause: one.spec.plan.cause,
            decided_at: one.spec.plan.decided_at,
        }
    });
    let remediations: Vec<Known> = remediations.collect();
    Ok(Remediations { truncated: more || found > remediations.len(), remediations, found })
}
