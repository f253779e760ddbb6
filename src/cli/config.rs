//! Options of several subcommands, and the values that they become.

use std::{collections::BTreeMap, num::NonZeroU32, path::PathBuf, time::Duration};

use anyhow::{Context as _, bail};
use clap::Args;
use jiff::{SignedDuration, Span, SpanRelativeTo};
use kube::{Client, config::Config};
use secrecy::{ExposeSecret as _, SecretString};
use url::Url;

use crate::{
    api::{Threshold, default_thresholds},
    knowledge::{LedgerConfig, LedgerOptions, SPOOL_BYTES, SpoolOptions},
    targets::{
        providers::HostingConfig, providers::client::BaseUrl, providers::common::ProviderConfig,
        providers::github::GITHUB_API, providers::render::RENDER_API, providers::vercel::VERCEL_API,
    },
};

/// Defaults for measurements.
#[derive(Debug, Args)]
pub(super) struct MeasureArgs {
    /// URL of the Prometheus for metrics that set no url
    #[arg(long, env = "PROMETHEUS_URL", value_name = "URL")]
    prometheus_url: Option<String>,
    /// API key of Render for components that set none; prefer the variable RENDER_API_KEY: other users of the machine cannot see its value
    #[arg(long, env = "RENDER_API_KEY", hide_env_values = true, value_name = "KEY")]
    render_api_key: Option<SecretString>,
    /// URL of Render's API, for a proxy in front of it
    #[arg(long, env = "RENDER_BASE_URL", default_value = RENDER_API, value_name = "URL")]
    render_base_url: String,
    /// Access token of Vercel for components that set none; prefer the variable VERCEL_TOKEN: other users of the machine cannot see its value
    #[arg(long, env = "VERCEL_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    vercel_token: Option<SecretString>,
    /// URL of Vercel's API, for a proxy in front of it
    #[arg(long, env = "VERCEL_BASE_URL", default_value = VERCEL_API, value_name = "URL")]
    vercel_base_url: String,
    /// Token of GitHub for components that set none; prefer the variable GITHUB_TOKEN: other users of the machine cannot see its value
    #[arg(long, env = "GITHUB_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    github_token: Option<SecretString>,
    /// URL of GitHub's API; for an Enterprise Server https://HOST/api/v3
    #[arg(long, env = "GITHUB_BASE_URL", default_value = GITHUB_API, value_name = "URL")]
    github_base_url: String,
    #[command(flatten)]
    pub(super) thresholds: ThresholdArgs,
}

/// Operator-wide critical values.
#[derive(Debug, Args)]
pub(super) struct ThresholdArgs {
    /// Critical value of cpu_usage, in percent, for policies that set none
    #[arg(long = "heal-cpu-threshold", env = "HEAL_CPU_THRESH", value_name = "PERCENT")]
    cpu: Option<f64>,
    /// Critical value of memory_usage, in percent, for policies that set none
    #[arg(long = "heal-memory-threshold", env = "HEAL_MEMORY_THRESH", value_name = "PERCENT")]
    memory: Option<f64>,
    /// Critical value of error_rate, from 0 to 1, for policies that set none
    #[arg(long = "heal-error-threshold", env = "HEAL_ERROR_THRESH", value_name = "RATIO")]
    error: Option<f64>,
    /// Critical value of latency_ms, in milliseconds, for policies that set none
    #[arg(long = "heal-latency-threshold", env = "HEAL_LATENCY_THRESH", value_name = "MS")]
    latency: Option<f64>,
}

impl MeasureArgs {
    pub(super) fn prometheus_url(&self) -> anyhow::Result<Option<Url>> {
        let text = self.prometheus_url.as_deref().filter(|text| !text.is_empty());
        let url = |text| http_url(text).map_err(|why| anyhow::anyhow!("--prometheus-url {text:?}: {why}"));
        text.map(url).transpose()
    }

    pub(super) fn hosting(&self) -> anyhow::Result<HostingConfig> {
        let provider = |url: &str, option: &str, key: &Option<SecretString>| {
            let base_url = url.parse::<BaseUrl>().map_err(|why| anyhow::anyhow!("{option}: {why}"))?;
            let key = key.clone().filter(|key| !key.expose_secret().trim().is_empty());
            anyhow::Ok(ProviderConfig { base_url, key })
        };
        Ok(HostingConfig {
            render: provider(&self.render_base_url, "--render-base-url (RENDER_BASE_URL)", &self.render_api_key)?,
            vercel: provider(&self.vercel_base_url, "--vercel-base-url (VERCEL_BASE_URL)", &self.vercel_token)?,
            github: provider(&self.github_base_url, "--github-base-url (GITHUB_BASE_URL)", &self.github_token)?,
        })
    }
}

impl ThresholdArgs {
    /// The defaults with the operator-wide critical values. A warning value that would not be below the critical value is lowered
    /// in proportion.
    pub(super) fn thresholds(&self) -> anyhow::Result<BTreeMap<String, Threshold>> {
        let mut thresholds = default_thresholds();
        let overrides = [
            ("cpu_usage", "HEAL_CPU_THRESH", self.cpu, 100.0),
            ("memory_usage", "HEAL_MEMORY_THRESH", self.memory, 100.0),
            ("error_rate", "HEAL_ERROR_THRESH", self.error, 1.0),
            ("latency_ms", "HEAL_LATENCY_THRESH", self.latency, f64::MAX),
        ];
        for (metric, variable, value, max) in overrides {
            let (Some(critical), Some(threshold)) = (value, thresholds.get_mut(metric)) else { continue };
            if !critical.is_finite() || critical <= 0.0 || critical > max {
                bail!("{variable} is {critical}; it must be above 0 and at most {max}");
            }
            let ratio = threshold.warning / threshold.critical;
            threshold.critical = critical;
            if threshold.warning >= critical {
                threshold.warning = critical * ratio;
            }
        }
        Ok(thresholds)
    }
}

/// The ledger's file in the data directory.
pub(super) const LEDGER_FILE: &str = "ledger.sqlite";

/// Where the ledger is.
#[derive(Debug, Args)]
pub(super) struct LedgerArgs {
    /// Postgres of the ledger, postgres://USER:PASSWORD@HOST:PORT/DATABASE. Default: --db-host and the like; without these,
    /// SQLite in the data directory
    #[arg(long, env = "DATABASE_URL", hide_env_values = true, value_name = "URL")]
    database_url: Option<SecretString>,
    /// Host of the ledger's Postgres, without --database-url
    #[arg(long, env = "DB_HOST", value_name = "HOST")]
    db_host: Option<String>,
    /// Port of the ledger's Postgres
    #[arg(long, env = "DB_PORT", default_value_t = 5432, value_name = "PORT")]
    db_port: u16,
    /// Database of the ledger's Postgres
    #[arg(long, env = "DB_NAME", default_value = "panacea", value_name = "NAME")]
    db_name: String,
    /// User of the ledger's Postgres
    #[arg(long, env = "DB_USER", default_value = "panacea", value_name = "USER")]
    db_user: String,
    /// Password of the ledger's Postgres; prefer the variable DB_PASSWORD: other users of the machine cannot see its value
    #[arg(long, env = "DB_PASSWORD", hide_env_values = true, value_name = "PASSWORD")]
    db_password: Option<SecretString>,
    /// Directory of the operator's files: the SQLite ledger, and the spool
    #[arg(long, env = "PANACEA_DATA_DIR", default_value = "/var/lib/panacea", value_name = "DIR")]
    data_dir: PathBuf,
}

/// How the operator writes the ledger.
#[derive(Debug, Args)]
pub(super) struct LedgerWriteArgs {
    /// Directory of the rows that wait while the ledger's database is unreachable. Default: the data directory
    #[arg(long, env = "PANACEA_LEDGER_SPOOL", value_name = "DIR")]
    ledger_spool: Option<PathBuf>,
    /// Limit of the waiting rows, in MiB; when it is reached, the oldest rows of checks are dropped, rows of remediations stay
    #[arg(long, env = "PANACEA_LEDGER_SPOOL_MIB", default_value_t = DEFAULT_SPOOL_MIB, value_name = "MIB")]
    ledger_spool_mib: NonZeroU32,
    /// Delete the ledger's rows of this age, for example 90d; at least 1d. Default: no row is deleted
    #[arg(long, env = "PANACEA_LEDGER_RETENTION", value_name = "AGE")]
    ledger_retention: Option<String>,
}

const MIB: u64 = 1024 * 1024;
const DEFAULT_SPOOL_MIB: NonZeroU32 = NonZeroU32::new((SPOOL_BYTES / MIB) as u32).unwrap();

/// A shorter retention would cut the history that forecasts need after a restart.
const LEAST_RETENTION: Duration = Duration::from_secs(24 * 3600);

impl LedgerWriteArgs {
    pub(super) fn options(&self, ledger: &LedgerArgs) -> anyhow::Result<LedgerOptions> {
        let folder = self.ledger_spool.clone().filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or_else(|| ledger.data_dir.clone());
        let max_bytes = u64::from(self.ledger_spool_mib.get()) * MIB;
        let spool = Some(SpoolOptions { folder, max_bytes });
        Ok(LedgerOptions { config: ledger.config()?, spool, retention: self.retention()? })
    }

    fn retention(&self) -> anyhow::Result<Option<Duration>> {
        let Some(text) = self.ledger_retention.as_deref().filter(|text| !text.is_empty()) else { return Ok(None) };
        let fix = "write for example 90d or 36h, at least 1d, or omit it to keep all rows";
        let flag = "--ledger-retention (PANACEA_LEDGER_RETENTION)";
        let Ok(age) = parse_duration(text) else { bail!("{flag} {text:?} is not an age; {fix}") };
        match Duration::try_from(age) {
            Ok(age) if age >= LEAST_RETENTION => Ok(Some(age)),
            _ => bail!("{flag} {text:?} is less than 1d; {fix}"),
        }
    }
}

fn parse_duration(text: &str) -> Result<SignedDuration, jiff::Error> {
    text.parse::<Span>()?.to_duration(SpanRelativeTo::days_are_24_hours())
}

/// `14d`, `36h`, `1h30m`, `60s`: a day has 24 hours.
pub(super) fn duration(text: &str) -> Result<SignedDuration, &'static str> {
    match parse_duration(text) {
        Err(_) => Err("not a duration; write for example 14d or 60s"),
        Ok(length) if length < SignedDuration::from_secs(1) => Err("must be 1s or more"),
        Ok(length) => Ok(length),
    }
}

pub(super) fn http_url(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|why| format!("not a URL: {why}"))?;
    if matches!(url.scheme(), "http" | "https") {
        Ok(url)
    } else {
        Err("must start with http:// or https://".to_owned())
    }
}

impl LedgerArgs {
    pub(super) fn config(&self) -> anyhow::Result<LedgerConfig> {
        if let Some(url) = self.database_url.as_ref().filter(|url| !url.expose_secret().is_empty()) {
            return Ok(LedgerConfig::Postgres(url.clone()));
        }
        let Some(host) = self.db_host.as_deref().filter(|host| !host.is_empty()) else {
            return Ok(LedgerConfig::Sqlite(self.data_dir.join(LEDGER_FILE)));
        };
        let mut url = Url::parse("postgres://localhost").context("the Postgres URL could not be built")?;
        url.set_host(Some(host)).with_context(|| format!("DB_HOST {host:?} is not a host name"))?;
        let password = self.db_password.as_ref().map(|password| password.expose_secret());
        let set = url
            .set_port(Some(self.db_port))
            .and_then(|()| url.set_username(&self.db_user))
            .and_then(|()| url.set_password(password));
        if set.is_err() {
            bail!("DB_HOST {host:?} cannot carry a port, user and password");
        }
        url.set_path(&self.db_name);
        Ok(LedgerConfig::Postgres(SecretString::from(url.to_string())))
    }
}

/// A client for [`cluster`].
pub(super) async fn connect() -> anyhow::Result<Client> {
    Client::try_from(cluster().await?).context("the cluster's configuration cannot be used")
}

/// The configuration of the cluster that KUBECONFIG, ~/.kube/config or the pod's ServiceAccount names.
pub(super) async fn cluster() -> anyhow::Result<Config> {
    let mut config = Config::infer()
        .await
        .context("no cluster is configured: set KUBECONFIG, or run in a pod with a ServiceAccount")?;
    // kube retries 429 and 5xx up to 15 times, which can delay a reconciliation for minutes; the callers have their own limits
    // and retries.
    config.default_retry = false;
    config.connect_timeout = Some(Duration::from_secs(3));
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_know_days() {
        assert_eq!(duration("14d").unwrap(), SignedDuration::from_hours(14 * 24));
        assert_eq!(duration("1h30m").unwrap(), SignedDuration::from_mins(90));
        for bad in ["", "5", "0s", "-1h", "soon"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_retention_is_an_age_of_a_day_or_more() {
        let parsed = |text: &str| {
            let ledger_retention = Some(text.to_owned());
            LedgerWriteArgs { ledger_spool: None, ledger_spool_mib: DEFAULT_SPOOL_MIB, ledger_retention }.retention()
        };
        assert_eq!(parsed("").unwrap(), None);
        for (text, hours) in [("90d", 90 * 24), ("2w", 14 * 24), ("1d", 24), ("36h", 36)] {
            assert_eq!(parsed(text).unwrap(), Some(Duration::from_secs(hours * 3600)), "{text}");
        }
        for text in ["90", "23h", "-90d", "often", "3mo"] {
            let error = parsed(text).unwrap_err().to_string();
            assert!(error.contains("--ledger-retention") && error.contains(text) && error.contains("90d"), "{error}");
        }
    }
}
