use std::{io::Write as _, process::ExitCode};

use anyhow::Context as _;

/// The CRDs as in `crds/`: one YAML document for each kind, each with its separator.
///
/// # Errors
/// When a type cannot be serialized; a test would detect that first.
pub fn render_crds() -> Result<String, serde_saphyr::ser::Error> {
    let document = |crd| Ok(format!("---\n{}\n", serde_saphyr::to_string(crd)?.trim_end_matches('\n')));
    crate::api::crds().iter().map(document).collect()
}

pub(super) fn print() -> anyhow::Result<ExitCode> {
    let text = render_crds().context("the CRDs could not be rendered")?;
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}
