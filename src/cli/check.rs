//! `panacea check`: one check of a policy's components in the current cluster. Changes nothing, writes nothing.

use std::{collections::BTreeMap, path::PathBuf, process::ExitCode, sync::Arc, time::Duration};

use anyhow::{Context as _, bail};
use clap::Args;
use comfy_table::Table;
use futures::future::join_all;
use kube::{Api, Client, ResourceExt as _};
use serde::Serialize;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::{
    Output,
    config::{MeasureArgs, connect},
};
use crate::{
    analyze::{
        assess::{Assessment, assess},
        forecast::{Forecast, Forecaster as _, Foresight},
        observation::{Measured, Observation, UnknownReason},
        outlook::Outlook,
        tracker::Tracker,
        trend::trend,
        window::History,
    },
    api::{
        ComponentStatus, ForecastStatus, HealingPolicy, HealthStatus, Limits, Mode, Threshold, ValidComponent,
        ValidPolicy,
    },
    plan::{self, Situation, Verdict},
    targets::{
        Targets,
        kubernetes::{ClusterIndex, watch},
        providers::HostingConfig,
    },
};

/// Time limit of the first listing of the cluster, and of the metrics' history.
const LIST_LIMIT: Duration = Duration::from_secs(20);

#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    /// The HealingPolicy to check; - reads standard input. May contain several documents
    #[arg(short = 'f', long, value_name = "FILE")]
    file: PathBuf,
    /// Namespace of policies that name none. Default: the namespace of the kubeconfig's context
    #[arg(short = 'n', long)]
    namespace: Option<String>,
    /// Output format
    #[arg(short = 'o', long, default_value = "table")]
    output: Output,
    #[command(flatten)]
    measure: MeasureArgs,
}

/// The result for one component.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Finding {
    namespace: String,
    policy: String,
    component: String,
    target: String,
    status: HealthStatus,
    score: Option<u8>,
    trend: Option<crate::api::Trend>,
    warnings: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    forecast: Option<ForecastStatus>,
    /// The operator's action after `detection.unhealthyAfter` such checks in a row.
    would_do: String,
}

pub(super) async fn check(args: CheckArgs) -> anyhow::Result<ExitCode> {
    let thresholds = args.measure.thresholds.thresholds()?;
    let prometheus_url = args.measure.prometheus_url()?;
    let policies = read(&args.file)?;
    let client = connect().await?;
    let hosting = args.measure.hosting()?;
    let mut findings = Vec::new();
    for mut policy in policies {
        let namespace = policy
            .namespace()
            .or_else(|| args.namespace.clone())
            .unwrap_or_else(|| client.default_namespace().to_owned());
        policy.metadata.namespace = Some(namespace.clone());
        findings.extend(check_policy(&client, &policy, (prometheus_url.clone(), hosting.clone()), &thresholds).await?);
    }
    match args.output {
        Output::Json => println!("{}", serde_json::to_string_pretty(&findings)?),
        Output::Table => println!("{}", table(&findings)),
    }
    let any = |statuses: &[HealthStatus]| findings.iter().any(|finding| statuses.contains(&finding.status));
    Ok(if any(&[HealthStatus::Unhealthy, HealthStatus::Critical, HealthStatus::Degraded]) {
        ExitCode::from(1)
    } else if any(&[HealthStatus::Unknown]) {
        ExitCode::from(2)
    } else {
        ExitCode::SUCCESS
    })
}

fn read(file: &PathBuf) -> anyhow::Result<Vec<HealingPolicy>> {
    let shown = file.display();
    let text = if file.as_os_str() == "-" {
        std::io::read_to_string(std::io::stdin()).context("standard input cannot be read")?
    } else {
        std::fs::read_to_string(file).with_context(|| format!("{shown} cannot be read"))?
    };
    let documents: Vec<Value> = serde_saphyr::from_multiple(&text).with_context(|| format!("{shown} is not YAML"))?;
    let mut policies = Vec::new();
    for document in documents {
        if document.get("kind").and_then(Value::as_str) == Some("HealingPolicy") {
            let policy = serde_json::from_value(document);
            policies.push(policy.with_context(|| format!("{shown} contains a HealingPolicy that cannot be read"))?);
        }
    }
    if policies.is_empty() {
        bail!("{shown} contains no HealingPolicy");
    }
    Ok(policies)
}

async fn check_policy(
    client: &Client,
    policy: &HealingPolicy,
    (prometheus_url, hosting): (Option<url::Url>, HostingConfig),
    thresholds: &BTreeMap<String, Threshold>,
) -> anyhow::Result<Vec<Finding>> {
    let namespace = policy.namespace().unwrap_or_default();
    let valid = ValidPolicy::new(policy, thresholds).map_err(|mistakes| {
        let words: Vec<String> = mistakes.into_iter().map(|mistake| mistake.message).collect();
        anyhow::anyhow!("{}", words.join("\n"))
    })?;
    if let Some(mistake) = valid.invalid.first() {
        bail!("{}", mistake.message);
    }
    // The status of the installed policy, if any; without it there is no last known good template.
    let installed: Api<HealingPolicy> = Api::namespaced(client.clone(), &namespace);
    let found = match tokio::time::timeout(LIST_LIMIT, installed.get_opt(&valid.name)).await {
        Ok(Ok(found)) => found,
        // A response of the server: the CRD is not installed, or the user may not read policies.
        Ok(Err(kube::Error::Api(_))) => None,
        Ok(Err(error)) => return Err(error).context("the API server cannot be reached"),
        Err(_) => bail!("no response of the API server within {} s", LIST_LIMIT.as_secs()),
    };
    let learned = found.and_then(|policy| policy.status).unwrap_or_default();

    let index = Arc::new(ClusterIndex::default());
    let shutdown = CancellationToken::new();
    let watching =
        tokio::spawn(watch::run(client.clone(), vec![namespace.clone()], index.clone(), None, shutdown.clone()));
    let targets = Targets::new(client.clone(), index, prometheus_url).with_hosting(hosting);
    let deadline = tokio::time::Instant::now() + LIST_LIMIT;
    let checks = valid.components.iter().map(async |component| {
        let observation = first_check(&targets, &namespace, component, deadline).await;
        let mut history = History::default();
        if valid.limits.prediction {
            // A slow Prometheus prevents the forecast, not the check.
            let past = targets.past(&namespace, component, valid.interval, observation.at);
            for (metric, past) in tokio::time::timeout(LIST_LIMIT, past).await.unwrap_or_default() {
                history.fill(&metric, &past.unwrap_or_default());
            }
        }
        (observation, history)
    });
    let checks: Vec<(Observation, History)> = join_all(checks).await;
    shutdown.cancel();
    watching.await.context("the watches failed")?;

    let known: BTreeMap<&str, &ComponentStatus> =
        learned.components.iter().map(|status| (status.name.as_str(), status)).collect();
    // This one check represents as many as the policy requires for an action.
    let limits = Limits { unhealthy_after: 1, ..valid.limits.clone() };
    let valid = ValidPolicy { limits, ..valid };
    let checks = valid.components.iter().zip(checks);
    let checked: Vec<Checked<'_>> = checks
        .map(|(component, (observation, history))| {
            Checked::new(&valid, component, observation, history, known.get(component.name.as_str()).copied())
        })
        .collect();
    let unhealthy = checked.iter().filter(|checked| checked.assessment.is_bad()).count();
    Ok(checked.iter().map(|checked| finding(&valid, checked, unhealthy)).collect())
}

/// One check and its assessment.
struct Checked<'a> {
    component: &'a ValidComponent,
    observation: Observation,
    assessment: Assessment,
    tracker: Tracker,
    history: History,
    forecast: Option<Forecast>,
    outlook: Outlook,
}

impl<'a> Checked<'a> {
    fn new(
        policy: &ValidPolicy,
        component: &'a ValidComponent,
        observation: Observation,
        mut history: History,
        learned: Option<&ComponentStatus>,
    ) -> Self {
        let mut tracker = learned.map(Tracker::restore).unwrap_or_default();
        let newest = observation.target.known().and_then(|target| target.released()).map(|released| released.id);
        let assessment = assess(&observation, &component.thresholds, &history, tracker.release_unproven(newest));
        tracker.record(&observation, &assessment, &policy.limits);
        history.push(&observation, assessment.score);
        let forecast = policy.limits.prediction.then(|| Foresight.forecast(&history, &component.ceilings));
        let mut outlook = learned.map(Outlook::restore).unwrap_or_default();
        outlook.follow(&tracker);
        if let Some(forecast) = &forecast {
            outlook.record(forecast, &observation, &policy.limits);
        }
        Self { component, observation, assessment, tracker, history, forecast, outlook }
    }
}

/// The caches are filling: an observation that is not settled yet is repeated.
async fn first_check(
    targets: &Targets,
    namespace: &str,
    component: &ValidComponent,
    deadline: tokio::time::Instant,
) -> Observation {
    loop {
        let observation = targets.observe(namespace, component, false).await;
        let unsettled = matches!(&observation.target, Measured::Unknown(why) if why.reason == UnknownReason::Unsettled);
        if !unsettled || tokio::time::Instant::now() >= deadline {
            return observation;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn finding(policy: &ValidPolicy, checked: &Checked<'_>, unhealthy_components: usize) -> Finding {
    let Checked { component, observation, assessment, tracker, history, forecast, outlook } = checked;
    let situation = Situation {
        policy,
        component,
        tracker,
        observation,
        assessment,
        forecast: forecast.as_ref(),
        foreseen: outlook.foreseen(),
        unhealthy_components,
        suspected_components: 0,
        history: &[],
        now: observation.at,
    };
    let would_do = match plan::decide(&situation) {
        Verdict::Nothing => "nothing".to_owned(),
        Verdict::Refuse(refusal) => format!("nothing ({}: {})", refusal.guard, refusal.message),
        Verdict::Propose(proposal) => {
            let ask = if proposal.approval_required || policy.mode == Mode::Approve { " after approval" } else { "" };
            format!("{}{ask}: {}", proposal.action, proposal.why)
        }
    };
    let problems = assessment.problems.iter().map(|problem| problem.message.clone());
    let unknowns = assessment.unknowns.iter().map(|(name, why)| format!("{name}: {}: {}", why.reason, why.message));
    Finding {
        namespace: policy.namespace.clone(),
        policy: policy.name.clone(),
        component: component.name.clone(),
        target: component.target.describe(),
        status: assessment.status,
        score: assessment.score,
        trend: trend(&history.score),
        warnings: problems.chain(unknowns).collect(),
        forecast: forecast.as_ref().map(|forecast| forecast.status(observation.at)),
        would_do,
    }
}

fn table(findings: &[Finding]) -> Table {
    let header = ["COMPONENT", "TARGET", "STATUS", "SCORE", "TREND", "FORECAST", "WARNINGS", "WOULD DO"];
    let mut table = super::table(header);
    let dash = || "-".to_owned();
    for finding in findings {
        let forecast = finding.forecast.as_ref();
        let forecast = forecast.map(|it| format!("{:.0}% ({})", it.probability * 100.0, it.confidence));
        table.add_row([
            format!("{}/{}", finding.policy, finding.component),
            finding.target.clone(),
            finding.status.to_string(),
            finding.score.map_or_else(dash, |score| score.to_string()),
            finding.trend.map_or_else(dash, |trend| trend.to_string()),
            forecast.unwrap_or_else(dash),
            if finding.warnings.is_empty() { dash() } else { finding.warnings.join("\n") },
            finding.would_do.clone(),
        ]);
    }
    table
}
