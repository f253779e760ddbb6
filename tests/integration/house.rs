//! The rules of the house that no compiler keeps: purity, the map, and the size of files.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

fn source(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// All Rust files below a folder.
fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    assert!(!found.is_empty(), "{} holds no Rust file", folder.display());
    found.sort();
    found
}

/// The forbidden names in a source text, comments left out.
fn impurities(text: &str) -> Vec<String> {
    /// Found as whole words.
    const FORBIDDEN: [&str; 18] = [
        "tokio",
        "kube::",
        "use kube",
        "k8s_openapi",
        "sqlx",
        "reqwest",
        "SystemTime",
        "Instant::now",
        "Timestamp::now",
        "Zoned::now",
        "rand",
        "uuid",
        "std::fs",
        "std::net",
        "std::env",
        "std::process",
        "std::thread",
        "async fn",
    ];
    let code: Vec<&str> = text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect();
    let code = code.join("\n");
    let is_word = |character: Option<char>| character.is_some_and(|c| c.is_alphanumeric() || c == '_');
    let mut found: Vec<String> = FORBIDDEN
        .into_iter()
        .filter(|name| {
            code.match_indices(name).any(|(at, _)| {
                let open_end = name.ends_with(':');
                !is_word(code[..at].chars().next_back())
                    && (open_end || !is_word(code[at + name.len()..].chars().next()))
            })
        })
        .map(str::to_owned)
        .collect();
    // The same in braces: `use std::{fs, net}`.
    for import in code.split("use std::{").skip(1) {
        let names = import.split(';').next().unwrap_or_default();
        let words = names.split(|c: char| !c.is_alphanumeric() && c != '_');
        let bad = words.filter(|word| matches!(*word, "fs" | "net" | "env" | "process" | "thread" | "Instant"));
        found.extend(bad.map(|word| format!("std::{word}")));
    }
    found
}

#[test]
fn analysis_and_plan_are_pure() {
    for room in ["src/analyze", "src/plan"] {
        for file in rust_files(&source(room)) {
            let found = impurities(&fs::read_to_string(&file).unwrap());
            assert!(
                found.is_empty(),
                "{} names {}: time and history come in as arguments there, and I/O belongs to targets, knowledge or controller",
                file.display(),
                found.join(", ")
            );
        }
    }
}

/// What a file that only declares a target must not name, comments left out.
fn clients(text: &str) -> Vec<String> {
    const FORBIDDEN: [&str; 12] = [
        "kube::Client",
        "kube::Api",
        "kube::api",
        "kube::client",
        "kube::runtime",
        "k8s_openapi",
        "reqwest",
        "sqlx",
        "tokio",
        "async fn",
        "std::fs",
        "std::net",
    ];
    let code: Vec<&str> = text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect();
    let code = code.join("\n");
    let named = FORBIDDEN.into_iter().filter(|name| code.contains(name)).map(str::to_owned);
    let imports = code.split("crate::").skip(1).filter(|rest| !rest.starts_with("api::"));
    let own = imports.map(|rest| format!("crate::{}", rest.split(['\n', ';', '{']).next().unwrap_or_default()));
    let parent = code.contains("super::").then(|| "super::".to_owned());
    named.chain(own).chain(parent).collect()
}

#[test]
fn the_spec_of_a_target_is_pure() {
    let files = rust_files(&source("src/targets"));
    let specs: Vec<&PathBuf> = files.iter().filter(|file| file.ends_with("spec.rs")).collect();
    assert!(specs.len() >= 6, "{specs:?}");
    for file in specs {
        let found = clients(&fs::read_to_string(file).unwrap());
        assert!(
            found.is_empty(),
            "{} names {}: crate::api imports it, so it imports crate::api alone and has no client",
            file.display(),
            found.join(", ")
        );
    }
    assert_eq!(
        clients("use kube::KubeSchema;\nuse crate::api::{Span, Capabilities}; // no tokio"),
        Vec::<String>::new()
    );
    assert_eq!(clients("use kube::Client;\nuse crate::targets::Target;"), ["kube::Client", "crate::targets::Target"]);
}

#[test]
fn the_reader_of_sources_finds_what_it_looks_for() {
    for (text, expected) in [
        ("use tokio::time;", vec!["tokio"]),
        ("let now = jiff::Timestamp::now();", vec!["Timestamp::now"]),
        ("use std::{collections::BTreeMap, fs};", vec!["std::fs"]),
        ("pub async fn look() {}", vec!["async fn"]),
        ("let x = kube::Client::default();", vec!["kube::"]),
        ("let x = rand::random();", vec!["rand"]),
        ("// no tokio here\nlet operand = brand::new();\nuse std::{collections, time::Duration};", vec![]),
    ] {
        assert_eq!(impurities(text), expected, "{text}");
    }
}

#[test]
fn the_map_names_exactly_the_rooms() {
    let map = fs::read_to_string(source("src/lib.rs")).unwrap();
    let on_the_map: BTreeSet<String> = map
        .lines()
        .filter_map(|line| line.trim_start().strip_prefix("//! - [`")?.split_once("`]: "))
        .map(|(room, _)| room.to_owned())
        .collect();
    let in_the_house: BTreeSet<String> = fs::read_dir(source("src"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_dir() || path.extension().is_some_and(|extension| extension == "rs"))
        .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
        .filter(|room| !matches!(room.as_str(), "lib" | "main"))
        .collect();
    assert_eq!(on_the_map, in_the_house, "left: the lines \"//! - [`room`]: …\" of src/lib.rs; right: what is in src/");
}

#[test]
fn no_file_is_longer_than_a_person_reads() {
    for file in rust_files(&source("src")) {
        let lines = fs::read_to_string(&file).unwrap().lines().count();
        assert!(lines <= 500, "{} has {lines} lines, more than 500: split it by what it does", file.display());
    }
}

/// Modules below `src/` and what each imports of the others, `use crate::{…}` and paths alike.
fn imports() -> BTreeMap<String, BTreeSet<String>> {
    let root = source("src");
    let mut all: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for file in rust_files(&root) {
        let first = file.strip_prefix(&root).unwrap().components().next().unwrap();
        let module = Path::new(first.as_os_str()).file_stem().unwrap().to_str().unwrap().to_owned();
        let text = fs::read_to_string(&file).unwrap();
        let code: String =
            text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n");
        let names = code.split("crate::").skip(1).flat_map(|rest| match rest.strip_prefix('{') {
            Some(list) => leading_names(list),
            None => vec![name(rest)],
        });
        all.entry(module).or_default().extend(names.filter(|name| {
            !name.is_empty() && (root.join(name).is_dir() || root.join(format!("{name}.rs")).is_file())
        }));
    }
    for (module, names) in &mut all {
        names.remove(module);
    }
    all
}

fn name(text: &str) -> String {
    text.chars().take_while(|character| character.is_alphanumeric() || *character == '_').collect()
}

/// The first names in a list of imports in braces, up to its closing brace.
fn leading_names(list: &str) -> Vec<String> {
    let (mut depth, mut names, mut item) = (0, Vec::new(), String::new());
    for character in list.chars() {
        match character {
            '}' if depth == 0 => break,
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => names.push(name(std::mem::take(&mut item).trim())),
            _ if depth == 0 => item.push(character),
            _ => {}
        }
    }
    names.push(name(item.trim()));
    names
}

/// One circle is defended, in src/api/target.rs: the spec of a target is API and lives with its target.
#[test]
fn modules_import_in_one_direction() {
    let imports = imports();
    assert!(imports["controller"].contains("plan"), "the reader of imports finds nothing: {imports:?}");
    let order =
        ["main", "cli", "server", "controller", "knowledge", "targets", "plan", "analyze", "postgres_url", "api"];
    let place = |module: &str| order.iter().position(|name| *name == module);
    for (module, names) in &imports {
        for name in names {
            let defended = (module.as_str(), name.as_str()) == ("api", "targets");
            assert!(
                defended || place(module) < place(name),
                "{module} imports {name}, which comes before it in {order:?}; imports: {imports:?}"
            );
        }
    }
}
