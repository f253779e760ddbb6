//! `panacea backtest`: recorded histories through the operator's analysis. Changes nothing, needs no cluster.
//!
//! ```text
//! sources (files) ──► csv | remote (rows) ──► walk (Replay, row by row) ──► table, JSON, JSONL, report
//! ```
//!
//! The result for a row depends on no later row: [`crate::analyze::replay::Replay`] gets the rows one by one, in order.

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

use std::{
    collections::BTreeMap,
    fs::File,
    io::{ErrorKind, Write, stderr, stdout},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::{Context as _, bail};
use clap::Args;
use jiff::SignedDuration;
use url::Url;

use super::{
    Output,
    config::{ThresholdArgs, duration, http_url},
    print,
};
use crate::api::{Limits, default_ceilings};

#[derive(Debug, Args)]
#[command(after_long_help = HELP)]
pub(super) struct BacktestArgs {
    /// Histories: NAME.csv or NAME.csv.gz, one for each component, or folders of them
    #[arg(value_name = "DIR|FILE", required_unless_present = "prometheus", conflicts_with = "prometheus")]
    paths: Vec<PathBuf>,
    /// Read the history from this Prometheus instead of files
    #[arg(long, value_name = "URL", requires = "queries", value_parser = http_url)]
    prometheus: Option<Url>,
    /// A metric and the query that yields its one series, for example
    /// 'memory_usage=100 * max(container_memory_working_set_bytes{pod="api-0"}) / 512e6'. May be repeated
    #[arg(long = "query", value_name = "NAME=PROMQL", requires = "prometheus", value_parser = query)]
    queries: Vec<(String, String)>,
    /// Length of the history, until now
    #[arg(long, value_name = "DURATION", default_value = "14d", requires = "prometheus", value_parser = duration)]
    since: SignedDuration,
    /// Time between two rows
    #[arg(long, value_name = "DURATION", default_value = "60s", requires = "prometheus", value_parser = duration)]
    step: SignedDuration,
    /// Name of the component
    #[arg(long, value_name = "NAME", default_value = "component", requires = "prometheus")]
    component: String,
    /// Upper limit of a metric, in its unit: of a disk, its size. May be repeated. cpu_usage and memory_usage have the limit 100
    #[arg(long = "limit", value_name = "METRIC=VALUE", value_parser = limit)]
    limits: Vec<(String, f64)>,
    #[command(flatten)]
    thresholds: ThresholdArgs,
    /// Output format of the summary
    #[arg(short = 'o', long, default_value = "table")]
    output: Output,
    /// Write the result for each row as JSON lines; - is standard output (the summary then goes to standard error)
    #[arg(long, value_name = "FILE")]
    jsonl: Option<PathBuf>,
    /// Write a report with charts of the histories and their forecasts, as one HTML page without external files
    #[arg(long, value_name = "FILE.html")]
    report: Option<PathBuf>,
}

const HELP: &str = "\
The name of a file is the component, the name of its folder is the set. The first line names the columns:
  t, time, timestamp    seconds, or a date such as 2026-03-01T10:00:00Z (UTC by default); ascending
  cpu_usage             percent of the limit
  memory_usage          percent of the limit
  error_rate            failed requests of all, 0 to 1
  latency_ms            milliseconds
  any other             a number; without a limit unless --limit sets one
An empty cell was not measured. The report shows a labels.csv beside the files (component,kind,start,end,detail).

Examples:
  panacea backtest histories/ --report report.html
  panacea backtest api.csv.gz --limit memory_mib=512 --jsonl - | jq 'select(.level == \"critical\")'
  panacea backtest --prometheus http://prometheus:9090 --since 14d --component api \\
    --query 'memory_usage=100 * max(container_memory_working_set_bytes{pod=~\"api-.*\"}) / 536870912'";

pub(super) async fn backtest(args: BacktestArgs) -> anyhow::Result<ExitCode> {
    let mut ceilings = default_ceilings();
    ceilings.extend(args.limits);
    let thresholds = args.thresholds.thresholds()?;
    let settings = walk::Settings { thresholds, ceilings, limits: Limits::default() };
    // Opened first: an error is reported now and not at the end.
    let to_stdout = args.jsonl.as_ref().is_some_and(|path| path.as_os_str() == "-");
    let mut jsonl: Option<Box<dyn Write + Send>> = match &args.jsonl {
        None => None,
        Some(_) if to_stdout => Some(Box::new(stdout())),
        Some(path) => Some(Box::new(create(path)?)),
    };
    let report = args.report.as_deref().map(|path| create(path).map(|file| (path, file))).transpose()?;

    let sources = match &args.prometheus {
        Some(url) => {
            let mut queries = BTreeMap::new();
            for (name, query) in args.queries {
                if queries.insert(name.clone(), query).is_some() {
                    bail!("--query {name} is given twice");
                }
            }
            let history = remote::fetch(url, &queries, args.since, args.step).await?;
            sources::Sources::of_history(&args.component, history)
        }
        None => sources::find(&args.paths),
    };
    let drawn = report.is_some();
    // The computation may take minutes: not on a thread of the runtime.
    let done = tokio::task::spawn_blocking(move || work::work(sources, &settings, drawn, jsonl.as_deref_mut()))
        .await
        .context("the replay failed")?;
    let mut done = match done {
        Ok(done) => done,
        // The reader stopped early, as `head` does.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(ExitCode::SUCCESS),
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
    let printed = if to_stdout { print(stderr().lock(), &summary) } else { print(stdout().lock(), &summary) };
    printed.context("the summary cannot be written")?;
    Ok(if done.bad.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(2) })
}

fn create(path: &std::path::Path) -> anyhow::Result<std::io::BufWriter<File>> {
    let file = File::create(path).with_context(|| format!("{} cannot be written", path.display()))?;
    Ok(std::io::BufWriter::new(file))
}

/// `METRIC=VALUE`
fn limit(text: &str) -> Result<(String, f64), &'static str> {
    let parsed = text.rsplit_once('=').and_then(|(name, value)| Some((name.trim(), value.trim().parse().ok()?)));
    match parsed {
        Some((name, value)) if !name.is_empty() && f64::is_finite(value) => Ok((name.to_owned(), value)),
        _ => Err("not METRIC=VALUE; write for example --limit disk_gib=100"),
    }
}

/// `NAME=PROMQL`; a query contains further equals signs.
fn query(text: &str) -> Result<(String, String), String> {
    match text.split_once('=').map(|(name, query)| (name.trim(), query.trim())) {
        Some((name, _)) if name.contains(['(', '{', '"', ' ']) => {
            Err(format!("has no name; write for example --query 'memory_usage={text}'"))
        }
        Some((name, query)) if !name.is_empty() && !query.is_empty() => Ok((name.to_owned(), query.to_owned())),
        _ => Err("not NAME=PROMQL; write for example --query 'error_rate=sum(rate(…))'".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_split_at_the_last_and_queries_at_the_first_equals_sign() {
        assert_eq!(limit("disk=5e3"), Ok(("disk".to_owned(), 5000.0)));
        assert!(limit("disk=full").is_err());
        assert!(limit("disk=inf").is_err());
        let found = query("up=sum(up{job=\"a\"})");
        assert_eq!(found, Ok(("up".to_owned(), "sum(up{job=\"a\"})".to_owned())));
        assert!(query("sum(up{job=\"a\"})").unwrap_err().contains("has no name"));
    }
}
