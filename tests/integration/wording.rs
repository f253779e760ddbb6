//! Phrases that are never right in this repository, and what to write instead. CONTRIBUTING.md has the rules.

use std::{
    fs,
    path::{Path, PathBuf},
};

use regex::Regex;

/// Regular expressions of words, in any case; a space stands for any gap, also a line break within a comment or a string. With
/// each: what to write instead.
const BANNED: &[(&str, &str)] = &[
    ("what (came|comes|come|became|becomes) of", "the outcome"),
    ("(came|come|comes) of (it|them|this)", "the outcome"),
    ("whatever came of", "the outcome"),
    ("look(s|ed|ing)? (at|after)", "check, assess, maintain"),
    ("(is|are|was|were|be|being|been) looked", "is checked"),
    ("(has|have|had) to look", "a person must act"),
    ("look(s|ing|ed)? again", "the next check"),
    ("could not look", "could not check"),
    ("goes no further", "waits for manual action"),
    ("by itself goes", "without action"),
    ("(by|of) (itself|themselves)", "automatically, without action"),
    ("unasked", "unexpectedly, automatically"),
    ("team's own", "custom"),
    ("teams' own", "custom"),
    ("(remedy|remedies|tools?|jobs?|webhooks?|endpoints?|reason) of (its|their|your) own", "custom, its"),
    ("(go|goes|going|gone|went) back", "roll back, rollback"),
    ("(way|ways) back", "rollback"),
    ("what to roll back to", "the rollback target"),
    ("(all|else|everything|anything|one) is well", "healthy"),
    (
        "(is|are|was|were|be|been|being) well( again|[^-\\x20A-Za-z]| (and|or|by|after|before|when|with|as|now|for))",
        "healthy",
    ),
    ("as well as ever", "healthy"),
    ("(is|are|was|were|be|been|being) told", "is reported, is known"),
    ("told (that|by|apart|from|as|how|which|what|at|to|of)", "reported, distinguished"),
    ("(tells|tell) (that|how|which|what|whether|nothing|of|by|apart)", "reports, shows"),
    ("(nobody|nothing|no one) (can tell|tells|knows)", "is unknown"),
    ("nobody knows", "is unknown"),
    ("in vain", "without success"),
    ("(give|gives|gave|given|giving) back", "reclaim, free, release"),
    ("(give|gives|gave|giving) (it|them|memory|leaked memory) back", "reclaim, free"),
    ("anew", "again"),
    ("by hand", "manually"),
    ("(is|are|was|were|be) away", "is unreachable, unavailable"),
    ("(is|are|was|were) (not|no longer|never) there", "does not exist"),
    ("stands? (for|in the way|beside)", "is, represents, blocks"),
    ("rest(s|ed|ing) (up)?on", "is based on"),
    ("at the least", "at least"),
    ("for certain", "certainly, proven"),
    ("lest", "so that … not"),
    ("elsewise", "otherwise"),
    ("whoever", "the user who, a person who"),
    ("rungs?", "step"),
    ("(goes|went|going) on", "continues, resumes"),
    ("goes? on when", "resumes when"),
    ("meanwhile", "in the meantime, since then"),
    ("(is|are|was|were|be|been) begun", "is started"),
    ("(is|are|was|were|be|been|being) done to", "is performed on"),
    ("(is|are|was|were|be|been|being) judged", "is assessed"),
    ("kept cop(y|ies)", "snapshot"),
    ("(this|one|each|every|a|all) (life|lives) of (the|an) operator", "operator process"),
    ("behind its back", "rephrase"),
    ("(said|says) no", "refused, rejected"),
    ("mend(s|ed)?", "fix"),
    ("1 components", "1 component"),
    ("(a|one|each|every|its|the) own remed(y|ies)", "custom remedy"),
    ("own words", "message"),
    ("as (it|they) stands?", "as it is"),
];

/// Where a banned phrase is a name of an older API.
const OLD_NAMES: [(&str, &str); 1] = [("tests/e2e/crds.rs", "rung")];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All files that people read, relative to the repository. CRDs are generated from src/api; fixtures hold the texts of others.
fn files() -> Vec<PathBuf> {
    const ENDS: [&str; 7] = ["rs", "md", "yaml", "txt", "tpl", "sh", "css"];
    let mut found: Vec<PathBuf> = ["README.md", "CHANGELOG.md", "CONTRIBUTING.md"].map(PathBuf::from).to_vec();
    let mut folders: Vec<PathBuf> = ["src", "charts", "docs", "tests"].map(PathBuf::from).to_vec();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(root().join(&folder)).unwrap() {
            let entry = entry.unwrap();
            let path = folder.join(entry.file_name());
            let skipped = ["tests/fixtures", "charts/panacea/crds", "tests/integration/wording.rs"];
            if skipped.iter().any(|skipped| path == Path::new(skipped)) {
                continue;
            }
            let script = folder.ends_with("control-plane") && path.extension().is_none();
            if entry.file_type().unwrap().is_dir() {
                folders.push(path);
            } else if script || path.extension().is_some_and(|end| ENDS.iter().any(|known| end == *known)) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// Finds banned phrases.
struct Finder {
    any: Regex,
    phrases: Vec<(Regex, &'static str)>,
}

impl Finder {
    fn new() -> Self {
        let any: Vec<String> = BANNED.iter().map(|(phrase, _)| with_gaps(phrase)).collect();
        Self {
            any: words(&any.join("|")),
            phrases: BANNED.iter().map(|(phrase, instead)| (words(&with_gaps(phrase)), *instead)).collect(),
        }
    }

    /// Line and words of each banned phrase, with what to write instead.
    fn find(&self, text: &str) -> Vec<(usize, String)> {
        // Names are words with underscores.
        let text = text.replace('_', " ");
        let found = self.any.find_iter(&text).map(|hit| {
            let line = text[..hit.start()].matches('\n').count() + 1;
            let instead = self.phrases.iter().find(|(phrase, _)| phrase.is_match(hit.as_str()));
            let said = hit.as_str().split_whitespace().collect::<Vec<_>>().join(" ");
            (line, format!("\"{said}\": write {}", instead.map_or("something else", |(_, instead)| instead)))
        });
        found.collect()
    }
}

/// A space of a phrase may be a line break with the marks of a comment or a string on both sides.
fn with_gaps(phrase: &str) -> String {
    const GAP: &str = r"(?:[ \t]+|[ \t\\]*\n[ \t]*(?:(?:///?!?|//!|#|--|\*|>)[ \t]+)?)";
    phrase.replace(' ', GAP)
}

/// ASCII boundaries: those of Unicode make it ten times slower.
fn words(pattern: &str) -> Regex {
    Regex::new(&format!(r"(?i)(?-u:\b)(?:{pattern})(?:(?-u:\b)|\W|$)")).unwrap()
}

/// Without the code spans: the changelog names fields as they were called before.
fn without_code(text: &str) -> String {
    Regex::new("`[^`\n]*`").unwrap().replace_all(text, "`code`").into_owned()
}

#[test]
fn no_banned_phrase_is_used() {
    assert!(BANNED.len() >= 30);
    let (files, finder) = (files(), Finder::new());
    assert!(files.len() > 200, "only {} files", files.len());
    let mut wrong = Vec::new();
    for file in files {
        let mut text = fs::read_to_string(root().join(&file)).unwrap();
        if file == Path::new("CHANGELOG.md") {
            text = without_code(&text);
        }
        let is_old = |what: &str| OLD_NAMES.iter().any(|(old, name)| file == Path::new(old) && what.contains(name));
        let hits = finder.find(&text).into_iter().filter(|(_, what)| !is_old(what));
        wrong.extend(hits.map(|(line, what)| format!("{}:{line}: {what}", file.display())));
    }
    assert!(wrong.is_empty(), "{} places:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn phrases_are_found_in_comments_strings_and_names() {
    let finder = Finder::new();
    for (text, expected) in [
        ("/// It is told what\n/// came of it.", vec![1, 1]),
        ("\"ended unasked, and started \\\n   anew\"", vec![1, 2]),
        ("what\n// became of it", vec![1]),
        ("fn all_is_well_again() {}", vec![1]),
        ("# Nothing is looked at", vec![1]),
        ("Deploy it by hand.", vec![1]),
        ("The component is well.", vec![1]),
        ("when it is well again", vec![1]),
        ("This is well known, as well as well-formed.", vec![]),
        ("the newest one; renewed; nearest outlook", vec![]),
        ("It stands.\n\nFor all.", vec![]),
    ] {
        let found = finder.find(text);
        let lines: Vec<usize> = found.iter().map(|(line, _)| *line).collect();
        assert_eq!(lines, expected, "{text}: {found:?}");
    }
}
