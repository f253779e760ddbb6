//! Arguments → validated configuration; one file a subcommand. Past this border nothing is read from the
//! environment again.

mod backtest;
mod brain;
mod check;
mod config;
mod crds;
mod logging;
mod mcp;
mod run;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};

pub use crds::render_crds;

/// Sees failures coming, heals them, verifies that it helped, and writes down every step.
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
    /// Look once at a policy's components in the current cluster and say what would be done; acts on nothing.
    /// Exit code 0: all healthy, 1: not, 2: could not look
    Check(Box<check::CheckArgs>),
    /// Run recorded histories through the operator's analysis, look by look, and say when it would have warned or
    /// acted. Needs no cluster. Exit code 0: done, 2: something could not be read
    Backtest(Box<backtest::BacktestArgs>),
    /// Ask the ledger: what was done, how often it helped, how often warnings were right, one incident as a timeline.
    /// Exit code 0: answered, 1: what was asked for is not there, 2: it could not be read
    Brain(Box<brain::BrainArgs>),
    /// Serve the Model Context Protocol: an assistant can look and, where the rights of the person it works for allow it,
    /// approve or reject. On standard input and output with the current kubeconfig, or over HTTP
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
    /// With what a person can do about it.
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
