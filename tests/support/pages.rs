//! The Markdown pages that people read, and the blocks, code spans and links in them. Paths are relative to the repository.

use std::{fs, path::Path};

/// A page of the documentation.
pub struct Page {
    pub path: String,
    pub text: String,
}

/// A fenced block: its language, its text, and the line of its first line in the page.
pub struct Block<'a> {
    pub language: &'a str,
    pub text: String,
    pub line: usize,
}

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// README.md, CONTRIBUTING.md, CHANGELOG.md and all pages below docs/.
pub fn pages() -> Vec<Page> {
    let mut paths = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"].map(|name| root().join(name)).to_vec();
    for folder in ["docs", "docs/targets"] {
        let entries = fs::read_dir(root().join(folder)).unwrap().map(|entry| entry.unwrap().path());
        let mut found: Vec<_> = entries.filter(|path| path.extension().is_some_and(|end| end == "md")).collect();
        found.sort();
        paths.extend(found);
    }
    let page = |path: &std::path::PathBuf| Page {
        path: path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned(),
        text: fs::read_to_string(path).unwrap_or_else(|why| panic!("{}: {why}", path.display())),
    };
    let pages: Vec<Page> = paths.iter().map(page).collect();
    assert!(pages.len() > 15, "only {} pages", pages.len());
    pages
}

impl Page {
    pub fn blocks(&self) -> Vec<Block<'_>> {
        let mut blocks = Vec::new();
        let mut open: Option<Block<'_>> = None;
        for (index, line) in self.text.lines().enumerate() {
            match (line.trim_start().strip_prefix("```"), open.as_mut()) {
                (Some(_), Some(_)) => blocks.extend(open.take()),
                (Some(language), None) => open = Some(Block { language, text: String::new(), line: index + 2 }),
                (None, Some(block)) => {
                    block.text.push_str(line);
                    block.text.push('\n');
                }
                (None, None) => {}
            }
        }
        assert!(open.is_none(), "{}: a block has no end", self.path);
        blocks
    }

    /// The lines outside of fenced blocks, with their numbers.
    pub fn prose(&self) -> Vec<(usize, &str)> {
        let mut inside = false;
        let mut lines = Vec::new();
        for (index, line) in self.text.lines().enumerate() {
            if line.trim_start().starts_with("```") {
                inside = !inside;
            } else if !inside {
                lines.push((index + 1, line));
            }
        }
        lines
    }

    /// The code spans, with the lines on which they begin. A span may go over a line break, not over an empty line.
    pub fn spans(&self) -> Vec<(usize, String)> {
        let mut spans = Vec::new();
        let mut open: Option<(usize, String)> = None;
        for (line, text) in self.prose() {
            if text.trim().is_empty() {
                open = None;
            }
            for (index, part) in text.split('`').enumerate() {
                if index > 0 {
                    match open.take() {
                        Some(span) => spans.push(span),
                        None => open = Some((line, String::new())),
                    }
                }
                if let Some((_, span)) = &mut open {
                    span.push_str(if index == 0 { " " } else { "" });
                    span.push_str(part);
                }
            }
        }
        spans
    }
}

/// The YAML objects of a page: those of `yaml` blocks, and those that a console block pipes into a command.
pub fn yaml_blocks(page: &Page) -> Vec<Block<'_>> {
    const OPEN: &str = "<<'YAML'\n";
    let mut found = Vec::new();
    for block in page.blocks() {
        if block.language == "yaml" {
            found.push(block);
        } else if let Some((before, rest)) = block.text.split_once(OPEN) {
            let line = block.line + before.lines().count();
            let text = rest.split("\nYAML").next().unwrap_or_default().to_owned();
            found.push(Block { language: "yaml", text, line });
        }
    }
    found
}

/// The complete objects of a block, as YAML documents. A fragment of a policy is completed; a block that is no
/// Kubernetes object (a workflow of GitHub) gives none.
///
/// # Panics
/// When the block is neither.
pub fn objects(page: &Page, block: &Block<'_>) -> Vec<String> {
    const POLICY: &str = "apiVersion: panacea.dev/v1alpha1\nkind: HealingPolicy\nmetadata: {name: fragment}\n";
    const COMPONENT: &str = "components:\n  - name: fragment\n    target: {deployment: {name: fragment}}\n";
    let indented = |text: &str, by: &str| -> String { text.lines().map(|line| format!("{by}{line}\n")).collect() };
    let first = block.text.lines().find(|line| !line.trim().is_empty() && !line.starts_with('#')).unwrap_or_default();
    match first.split(':').next().unwrap_or_default() {
        "apiVersion" => block.text.split("\n---\n").map(str::to_owned).collect(),
        "spec" if block.text.contains("\n  components:") => vec![format!("{POLICY}{}", block.text)],
        "spec" => vec![format!("{POLICY}{}{}", block.text, indented(COMPONENT, "  "))],
        "components" => vec![format!("{POLICY}spec:\n{}", indented(&block.text, "  "))],
        "remedies" => vec![format!("{POLICY}spec:\n{}{}", indented(COMPONENT, "  "), indented(&block.text, "      "))],
        "name" if block.text.contains("\njobs:") => Vec::new(),
        other => panic!("{}:{}: a YAML block that begins with {other:?} cannot be checked", page.path, block.line),
    }
}
