//! `panacea check`: one look at a policy's components in the current cluster. Acts on nothing, writes nothing.

use std::{collections::BTreeMap, io::Read as _, path::PathBuf, process::ExitCode, sync::Arc, time::Duration};

use anyhow::{Context as _, bail};
use clap::{Args, ValueEnum};
use comfy_table::{ContentArrangement, Table, presets};
use futures::future::join_all;
use kube::{Api, Client, ResourceExt as _};
use serde::Serialize;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::config::{MeasureArgs, connect};
use crate::{
    analyze::{
        assess::{Assessment, assess},
        forecast::{Forecast, Forecaster as _, Foresight},
        observation::{Observation, UnknownReason},
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

/// How long the first listing of the cluster may take, and the metrics' past.
const LIST_LIMIT: Duration = Duration::from_secs(20);

#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    /// The HealingPolicy to check; - reads standard input. Several documents are checked in turn
    #[arg(short = 'f', long, value_name = "FILE")]
    file: PathBuf,
    /// Namespace of a policy that names none
    #[arg(short = 'n', long)]
    namespace: Option<String>,
    /// How to print
    #[arg(short = 'o', long, default_value = "table")]
    output: Output,
    #[command(flatten)]
    measure: MeasureArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Table,
    Json,
}

/// What was found of one component.
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
    /// What the operator would do if it saw this `detection.unhealthyAfter` times in a row.
    would_do: String,
}

pub(super) async fn check(args: CheckArgs) -> anyhow::Result<ExitCode> {
    let thresholds = args.measure.thresholds()?;
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
        findings.extend(look(&client, &policy, (prometheus_url.clone(), hosting.clone()), &thresholds).await?);
    }
    match args.output {
        Output::Json => println!("{}", serde_json::to_string_pretty(&findings)?),
        Output::Table => println!("{}", table(&findings)),
    }
    let worst = |wanted: &dyn Fn(HealthStatus) -> bool| findings.iter().any(|finding| wanted(finding.status));
    Ok(
        if worst(&|status| matches!(status, HealthStatus::Unhealthy | HealthStatus::Critical | HealthStatus::Degraded))
        {
            ExitCode::from(1)
        } else if worst(&|status| status == HealthStatus::Unknown) {
            ExitCode::from(2)
        } else {
            ExitCode::SUCCESS
        },
    )
}

fn read(file: &PathBuf) -> anyhow::Result<Vec<HealingPolicy>> {
    let shown = file.display();
    let mut text = String::new();
    if file.as_os_str() == "-" {
        std::io::stdin().read_to_string(&mut text).context("standard input cannot be read")?;
    } else {
        text = std::fs::read_to_string(file).with_context(|| format!("{shown} cannot be read"))?;
    }
    let documents: Vec<Value> = serde_saphyr::from_multiple(&text).with_context(|| format!("{shown} is not YAML"))?;
    let mut policies = Vec::new();
    for document in documents {
        if document.get("kind").and_then(Value::as_str) == Some("HealingPolicy") {
            let policy = serde_json::from_value(document)
                .with_context(|| format!("{shown} holds a HealingPolicy that cannot be read"))?;
            policies.push(policy);
        }
    }
    if policies.is_empty() {
        bail!("{shown} holds no HealingPolicy");
    }
    Ok(policies)
}

async fn look(
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
    // What the operator has learned, when the policy is installed; without it there is no last known good template.
    let installed: Api<HealingPolicy> = Api::namespaced(client.clone(), &namespace);
    let found = match tokio::time::timeout(LIST_LIMIT, installed.get_opt(&valid.name)).await {
        Ok(Ok(found)) => found,
        // The answer of a server: policies are not installed there, or not ours to read.
        Ok(Err(kube::Error::Api(_))) => None,
        Ok(Err(error)) => return Err(error).context("the API server cannot be reached"),
        Err(_) => bail!("the API server did not answer within {} s", LIST_LIMIT.as_secs()),
    };
    let learned = found.and_then(|policy| policy.status).unwrap_or_default();

    let index = Arc::new(ClusterIndex::default());
    let shutdown = CancellationToken::new();
    let watching =
        tokio::spawn(watch::run(client.clone(), vec![namespace.clone()], index.clone(), None, shutdown.clone()));
    let targets = Targets::new(client.clone(), index, prometheus_url).with_hosting(hosting);
    let deadline = tokio::time::Instant::now() + LIST_LIMIT;
    let looks = valid.components.iter().map(async |component| {
        let observation = first_check(&targets, &namespace, component, deadline).await;
        let mut history = History::default();
        if valid.limits.prediction {
            // A slow Prometheus costs the forecast, not the answer.
            let past = targets.past(&namespace, component, valid.interval, observation.at);
            for (metric, past) in tokio::time::timeout(LIST_LIMIT, past).await.unwrap_or_default() {
                history.fill(&metric, &past.unwrap_or_default());
            }
        }
        (observation, history)
    });
    let looks: Vec<(Observation, History)> = join_all(looks).await;
    shutdown.cancel();
    watching.await.context("the watches failed")?;

    let known: BTreeMap<&str, &ComponentStatus> =
        learned.components.iter().map(|status| (status.name.as_str(), status)).collect();
    // One look stands for as many as the policy asks for: what would be done if this lasted?
    let limits = Limits { unhealthy_after: 1, ..valid.limits.clone() };
    let valid = ValidPolicy { limits, ..valid };
    let looks = valid.components.iter().zip(looks);
    let judged: Vec<Judged<'_>> = looks
        .map(|(component, (observation, history))| {
            Judged::new(&valid, component, observation, history, known.get(component.name.as_str()).copied())
        })
        .collect();
    let unhealthy = judged.iter().filter(|judged| judged.assessment.is_bad()).count();
    Ok(judged.iter().map(|judged| finding(&valid, judged, unhealthy)).collect())
}

/// One look and its judgement.
struct Judged<'a> {
    component: &'a ValidComponent,
    observation: Observation,
    assessment: Assessment,
    tracker: Tracker,
    history: History,
    forecast: Option<Forecast>,
    outlook: Outlook,
}

impl<'a> Judged<'a> {
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

/// The caches fill while we ask: what is not settled yet is asked again.
async fn first_check(
    targets: &Targets,
    namespace: &str,
    component: &ValidComponent,
    deadline: tokio::time::Instant,
) -> Observation {
    loop {
        let observation = targets.observe(namespace, component, false).await;
        let unsettled = matches!(&observation.target, crate::analyze::observation::Measured::Unknown(why) if why.reason == UnknownReason::Unsettled);
        if !unsettled || tokio::time::Instant::now() >= deadline {
            return observation;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn finding(policy: &ValidPolicy, judged: &Judged<'_>, unhealthy_components: usize) -> Finding {
    let Judged { component, observation, assessment, tracker, history, forecast, outlook } = judged;
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
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(["COMPONENT", "TARGET", "STATUS", "SCORE", "TREND", "FORECAST", "WARNINGS", "WOULD DO"]);
    for finding in findings {
        let forecast = finding.forecast.as_ref().map_or_else(
            || "-".to_owned(),
            |forecast| format!("{:.0}% ({})", forecast.probability * 100.0, forecast.confidence),
        );
        table.add_row([
            format!("{}/{}", finding.policy, finding.component),
            finding.target.clone(),
            finding.status.to_string(),
            finding.score.map_or_else(|| "-".to_owned(), |score| score.to_string()),
            finding.trend.map_or_else(|| "-".to_owned(), |trend| trend.to_string()),
            forecast,
            if finding.warnings.is_empty() { "-".to_owned() } else { finding.warnings.join("\n") },
            finding.would_do.clone(),
        ]);
    }
    table
}
