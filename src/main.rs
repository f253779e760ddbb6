use std::process::ExitCode;

use clap::Parser as _;
use panacea::cli::Cli;

#[tokio::main]
async fn main() -> ExitCode {
    // One provider for kube, reqwest and sqlx: two of them panic at run time.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    match Cli::parse().execute().await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("panacea: {error:#}");
            ExitCode::from(2)
        }
    }
}
