//! The documentation names only what the code has: generated parts, links, names and YAML blocks.

mod advice;
mod drift;
mod generated;
#[path = "../../support/pages.rs"]
mod pages;
mod reference;
mod yaml;

use std::sync::LazyLock;

use serde_json::Value;

/// The CRDs as JSON: rendering them takes a tenth of a second.
static CRDS: LazyLock<Vec<Value>> =
    LazyLock::new(|| panacea::api::crds().iter().map(|crd| serde_json::to_value(crd).unwrap()).collect());

/// The schema of a kind of Panacea, where there is one.
fn schema(kind: &str) -> Option<&'static Value> {
    let crd = CRDS.iter().find(|crd| crd["spec"]["names"]["kind"] == kind)?;
    Some(&crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"])
}

/// Where something is wrong: `PAGE:LINE: WHAT`.
fn at(page: &str, line: usize, what: impl std::fmt::Display) -> String {
    format!("{page}:{line}: {what}")
}

#[track_caller]
fn nothing_wrong(wrong: &[String]) {
    assert!(wrong.is_empty(), "{} places:\n{}", wrong.len(), wrong.join("\n"));
}
