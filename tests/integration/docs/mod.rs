//! The documentation names only what the code has: generated parts, links, names and YAML blocks.

mod advice;
mod drift;
mod generated;
#[path = "../../support/pages.rs"]
mod pages;
mod reference;
mod yaml;

/// Where something is wrong: `PAGE:LINE: WHAT`.
fn at(page: &str, line: usize, what: impl std::fmt::Display) -> String {
    format!("{page}:{line}: {what}")
}

#[track_caller]
fn nothing_wrong(wrong: &[String]) {
    assert!(wrong.is_empty(), "{} places:\n{}", wrong.len(), wrong.join("\n"));
}
