use std::{io::Write as _, process::ExitCode};

use anyhow::Context as _;

/// The CRDs as one YAML document a kind, each with its separator: what `crds/` holds.
///
/// # Errors
/// When a type cannot be serialized, which a test would show first.
pub fn render_crds() -> Result<String, serde_saphyr::ser::Error> {
    let mut text = String::new();
    for crd in crate::api::crds() {
        text.push_str("---\n");
        text.push_str(&serde_saphyr::to_string(&crd)?);
        if !text.ends_with('\n') {
            text.push('\n');
        }
    }
    Ok(text)
}

pub(super) fn print() -> anyhow::Result<ExitCode> {
    let text = render_crds().context("the CRDs could not be rendered")?;
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}
