//! `panacea backtest`: recorded histories through the operator's own analysis. Acts on nothing, needs no cluster.
//!
//! ```text
//! sources (which files) ──► csv | remote (rows) ──► walk (Replay, look by look) ──► table, JSON, JSONL, report
//! ```
//!
//! What is said of a row has seen no later row: [`crate::analyze::replay::Replay`] gets them one by one, in order.

mod chart;
mod csv;
mod jsonl;
mod labels;
mod remote;
mod report;
mod sample;
mod sources;
mod table;
mod time;
mod walk;
mod work;

use std::{collections::BTreeMap, fs::File, io::Write, path::PathBuf, process::ExitCode};

use anyhow::{Context as _, bail};
use clap::{Args, ValueEnum};
use jiff::{SignedDuration, Span, SpanRelativeTo};
use url::Url;

use super::config::ThresholdArgs;
use crate::api::{Limits, default_ceilings};

#[derive(Debug, Args)]
#[command(after_long_help = HELP)]
pub(super) struct BacktestArgs {
    /// Histories: NAME.csv or NAME.csv.gz, one a component, or folders of them
    #[arg(value_name = "DIR|FILE", required_unless_present = "prometheus", conflicts_with = "prometheus")]
    paths: Vec<PathBuf>,
    /// Take the history from this Prometheus instead of files
    #[arg(long, value_name = "URL", requires = "queries")]
    prometheus: Option<String>,
    /// A metric and the query that yields its one series, for example
    /// 'memory_usage=100 * max(container_memory_working_set_bytes{pod="api-0"}) / 512e6'. May be repeated
    #[arg(long = "query", value_name = "NAME=PROMQL", requires = "prometheus")]
    queries: Vec<String>,
    /// How far back from now
    #[arg(long, value_name = "DURATION", default_value = "14d", requires = "prometheus")]
    since: String,
    /// Time between two looks
    #[arg(long, value_name = "DURATION", default_value = "60s", requires = "prometheus")]
    step: String,
    /// Name of the component that is asked for
    #[arg(long, value_name = "NAME", default_value = "component", requires = "prometheus")]
    component: String,
    /// Where a metric ends, in its unit: a disk at its size. May be repeated. cpu_usage and memory_usage end at 100
    #[arg(long = "limit", value_name = "METRIC=VALUE")]
    limits: Vec<String>,
    #[command(flatten)]
    thresholds: ThresholdArgs,
    /// How to print the summary
    #[arg(short = 'o', long, default_value = "table")]
    output: Output,
    /// Write what was said after each row as JSON lines; - is standard output (the summary then goes to standard error)
    #[arg(long, value_name = "FILE")]
    jsonl: Option<PathBuf>,
    /// Draw the histories, what was foreseen of them and when as one HTML page that needs nothing else
    #[arg(long, value_name = "FILE.html")]
    report: Option<PathBuf>,
}

const HELP: &str = "\
A file's name is its component's, its folder's name is the set. The first line names the columns:
  t, time, timestamp    seconds, or a date such as 2026-03-01T10:00:00Z (UTC where none is said); must grow
  cpu_usage             percent of the limit
  memory_usage          percent of the limit
  error_rate            failed requests of all, 0 to 1
  latency_ms            milliseconds
  any other             a number; has no limit unless --limit gives one
An empty cell was not measured. A labels.csv beside the files (component,kind,start,end,detail) is drawn in the report.

Examples:
  panacea backtest histories/ --report report.html
  panacea backtest api.csv.gz --limit memory_mib=512 --jsonl - | jq 'select(.level == \"critical\")'
  panacea backtest --prometheus http://prometheus:9090 --since 14d --component api \\
    --query 'memory_usage=100 * max(container_memory_working_set_bytes{pod=~\"api-.*\"}) / 536870912'";

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Table,
    Json,
}

pub(super) async fn backtest(args: BacktestArgs) -> anyhow::Result<ExitCode> {
    let mut ceilings = default_ceilings();
    ceilings.extend(limits(&args.limits)?);
    let thresholds = args.thresholds.thresholds()?;
    let settings = walk::Settings { thresholds, ceilings, limits: Limits::default() };
    // Opened first: a place that cannot be written to is told now and not at the end.
    let mut jsonl = match &args.jsonl {
        None => None,
        Some(path) if path.as_os_str() == "-" => Some(Box::new(std::io::stdout()) as Box<dyn Write + Send>),
        Some(path) => Some(Box::new(create(path)?) as Box<dyn Write + Send>),
    };
    let report = args.report.as_deref().map(|path| create(path).map(|file| (path, file))).transpose()?;

    let sources = match &args.prometheus {
        Some(url) => {
            let now = jiff::Timestamp::now();
            let asked = remote::Asked {
                url: address(url)?,
                queries: queries(&args.queries)?,
                start: now - duration("--since", &args.since)?,
                end: now,
                step: duration("--step", &args.step)?,
            };
            let history = remote::fetch(&asked).await?;
            sources::Sources::of_history(&args.component, history)
        }
        None => sources::find(&args.paths),
    };
    let to_stderr = args.jsonl.as_ref().is_some_and(|path| path.as_os_str() == "-");
    let drawn = report.is_some();
    // It computes for as long as it takes: not on a thread of the runtime.
    let done = tokio::task::spawn_blocking(move || work::work(sources, &settings, drawn, jsonl.as_deref_mut()))
        .await
        .context("the replay failed")?;
    let mut done = match done {
        Ok(done) => done,
        // Who reads has seen enough, as `head` does.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => return Ok(ExitCode::SUCCESS),
        Err(error) => return Err(error).context("--jsonl cannot be written"),
    };
    for bad in &done.bad {
        eprintln!("panacea: {bad}");
    }
    if let Some((path, mut file)) = report {
        let sections = std::mem::take(&mut done.sections);
        report::write(&mut file, &done.summaries, sections, &done.bad)
            .with_context(|| format!("{} cannot be written", path.display()))?;
    }
    let summary = match args.output {
        Output::Table => table::table(&done.summaries, done.bad.len()),
        Output::Json => table::json(&done.summaries, &done.bad)?,
    };
    print(&summary, to_stderr).context("the summary cannot be written")?;
    Ok(if done.bad.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(2) })
}

fn print(summary: &str, to_stderr: bool) -> std::io::Result<()> {
    let written = if to_stderr {
        writeln!(std::io::stderr().lock(), "{summary}")
    } else {
        writeln!(std::io::stdout().lock(), "{summary}")
    };
    written.or_else(|error| if error.kind() == std::io::ErrorKind::BrokenPipe { Ok(()) } else { Err(error) })
}

fn create(path: &std::path::Path) -> anyhow::Result<std::io::BufWriter<File>> {
    let file = File::create(path).with_context(|| format!("{} cannot be written", path.display()))?;
    Ok(std::io::BufWriter::new(file))
}

/// `METRIC=VALUE`, each.
fn limits(texts: &[String]) -> anyhow::Result<BTreeMap<String, f64>> {
    let mut limits = BTreeMap::new();
    for text in texts {
        let parsed = text.rsplit_once('=').and_then(|(name, value)| Some((name.trim(), value.trim().parse().ok()?)));
        match parsed {
            Some((name, value)) if !name.is_empty() && f64::is_finite(value) => limits.insert(name.to_owned(), value),
            _ => bail!("--limit {text:?} is not METRIC=VALUE; write for example --limit disk_gib=100"),
        };
    }
    Ok(limits)
}

/// `NAME=PROMQL`, each; a query holds further equals signs.
fn queries(texts: &[String]) -> anyhow::Result<BTreeMap<String, String>> {
    let mut queries = BTreeMap::new();
    for text in texts {
        let (name, query) = match text.split_once('=') {
            Some((name, query)) if !name.trim().is_empty() && !query.trim().is_empty() => (name.trim(), query.trim()),
            _ => bail!("--query {text:?} is not NAME=PROMQL; write for example --query 'error_rate=sum(rate(…))'"),
        };
        if name.contains(['(', '{', '"', ' ']) {
            bail!("--query {text:?} has no name; write for example --query 'memory_usage={text}'");
        }
        if queries.insert(name.to_owned(), query.to_owned()).is_some() {
            bail!("--query {name} is given twice");
        }
    }
    Ok(queries)
}

fn address(text: &str) -> anyhow::Result<Url> {
    let url = Url::parse(text).with_context(|| format!("--prometheus {text:?} is not a URL"))?;
    if !matches!(url.scheme(), "http" | "https") {
        bail!("--prometheus {text:?} must start with http:// or https://");
    }
    Ok(url)
}

/// `14d`, `36h`, `1h30m`, `60s`: a day has 24 hours.
pub(super) fn duration(flag: &str, text: &str) -> anyhow::Result<SignedDuration> {
    let parsed = text.parse::<Span>().and_then(|span| span.to_duration(SpanRelativeTo::days_are_24_hours()));
    let length = parsed.with_context(|| format!("{flag} {text:?} is not a duration; write for example 14d or 60s"))?;
    if length < SignedDuration::from_secs(1) {
        bail!("{flag} {text:?} must be 1s or more");
    }
    Ok(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_know_days() {
        assert_eq!(duration("--since", "14d").unwrap(), SignedDuration::from_hours(14 * 24));
        assert_eq!(duration("--since", "1h30m").unwrap(), SignedDuration::from_mins(90));
        for bad in ["", "5", "0s", "-1h", "soon"] {
            assert!(duration("--since", bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn limits_and_queries_are_split_at_their_own_equals_sign() {
        assert_eq!(limits(&["disk=5e3".into()]).unwrap(), [("disk".to_owned(), 5000.0)].into());
        assert!(limits(&["disk=full".into()]).is_err());
        assert!(limits(&["disk=inf".into()]).is_err());
        let found = queries(&["up=sum(up{job=\"a\"})".into()]).unwrap();
        assert_eq!(found["up"], "sum(up{job=\"a\"})");
        assert!(queries(&["sum(up{job=\"a\"})".into()]).unwrap_err().to_string().contains("has no name"));
    }
}
