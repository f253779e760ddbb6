use clap::{Args, ValueEnum};
use tracing::{Level, Metadata};
use tracing_subscriber::{EnvFilter, filter::filter_fn, fmt, layer::SubscriberExt as _, util::SubscriberInitExt as _};

#[derive(Debug, Args)]
pub(super) struct LogArgs {
    /// Log lines to write: a level, or filters such as `info,panacea=debug`
    #[arg(long = "log", env = "PANACEA_LOG", default_value = "info", value_name = "FILTER")]
    filter: String,
    /// Format of log lines
    #[arg(long = "log-format", env = "PANACEA_LOG_FORMAT", default_value = "json")]
    format: LogFormat,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum LogFormat {
    Json,
    Text,
}

/// Starts logging to standard error.
pub(super) fn start(args: &LogArgs) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&args.filter).map_err(|why| {
        anyhow::anyhow!(
            "--log {:?} is not a log filter ({why}); write for example info or info,panacea=debug",
            args.filter
        )
    })?;
    let builder = fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match args.format {
        LogFormat::Json => {
            let builder = builder.json().flatten_event(true).with_current_span(false).with_span_list(false);
            builder.finish().with(filter_fn(may_be_written)).init();
        }
        LogFormat::Text => builder.with_ansi(false).finish().with(filter_fn(may_be_written)).init(),
    }
    Ok(())
}

/// kube's client logs the whole body of a response that it cannot parse, perhaps that of a Secret; the caller gets the error and
/// logs it. The SDK of the Model Context Protocol logs whole messages below WARN, with the arguments and results of tools,
/// perhaps a token.
fn may_be_written(line: &Metadata<'_>) -> bool {
    let of_kube = line.target() == "kube_client::client" && *line.level() == Level::WARN;
    let of_mcp = line.target().starts_with("rmcp") && *line.level() > Level::WARN;
    !of_kube && !of_mcp
}
