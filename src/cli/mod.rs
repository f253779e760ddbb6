//! Arguments → validated configuration; one file for each subcommand. No other module reads the environment.

mod backtest;
mod brain;
mod check;
mod config;
mod crds;
mod logging;
mod mcp;
mod run;

use std::{
    io::{ErrorKind, Write},
    process::ExitCode,
};

use clap::{CommandFactory as _, Parser, Subcommand, ValueEnum};
use comfy_table::{ContentArrangement, Table, presets};

pub use crds::render_crds;

/// Forecasts failures, heals them, verifies the recovery, and records every step
#[derive(Debug, Parser)]
#[command(name = "panacea", version, about, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the operator
    Run(Box<run::RunArgs>),
    /// Check a policy's components once in the current cluster and print the action that would follow; changes nothing.
    /// Exit code 0: all healthy, 1: not all healthy, 2: a check was not possible
    Check(Box<check::CheckArgs>),
    /// Run recorded histories through the operator's analysis, row by row, and report when it would have warned or
    /// acted. Needs no cluster. Exit code 0: done, 2: an input could not be read
    Backtest(Box<backtest::BacktestArgs>),
    /// Query the ledger: actions, success rates, accuracy of warnings, one incident as a timeline.
    /// Exit code 0: done, 1: the ledger contains nothing of the Remediation, 2: the ledger could not be read
    Brain(Box<brain::BrainArgs>),
    /// Serve the Model Context Protocol: an assistant can read the state and, with the Kubernetes rights of its user, approve
    /// or reject. On standard input and output with the current kubeconfig, or over HTTP
    Mcp(Box<mcp::McpArgs>),
    /// Print the CustomResourceDefinitions as YAML
    Crds,
    /// Print a shell completion script
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

impl Cli {
    /// Runs the subcommand.
    ///
    /// # Errors
    /// Observation and fix, for a person.
    pub async fn execute(self) -> anyhow::Result<ExitCode> {
        match self.command {
            Command::Run(args) => run::run(*args).await,
            Command::Check(args) => check::check(*args).await,
            Command::Backtest(args) => backtest::backtest(*args).await,
            Command::Brain(args) => brain::brain(*args).await,
            Command::Mcp(args) => mcp::mcp(*args).await,
            Command::Crds => crds::print(),
            Command::Completions { shell } => {
                clap_complete::generate(shell, &mut Self::command(), "panacea", &mut std::io::stdout());
                Ok(ExitCode::SUCCESS)
            }
        }
    }
}

/// How a result is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Table,
    Json,
}

/// A table without lines, as wide as the terminal.
fn table<T: Into<comfy_table::Row>>(header: T) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic).set_header(header);
    table
}

/// Writes a line. The reader may stop early, as `head` does.
fn print(mut into: impl Write, text: &str) -> std::io::Result<()> {
    writeln!(into, "{}", text.trim_end_matches('\n'))
        .or_else(|error| if error.kind() == ErrorKind::BrokenPipe { Ok(()) } else { Err(error) })
}
