//! The policy files of the e2e tests, without a cluster: what the operator itself says of each.

use std::{fs, path::Path};

use panacea::api::{HealingPolicy, ValidPolicy, default_thresholds};

/// Name and text of each file.
fn files(folder: &str) -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e").join(folder);
    let mut files: Vec<_> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read_to_string(&path).unwrap()))
        .collect();
    files.sort();
    files
}

/// All that is wrong with it by the operator's own reading.
fn mistakes(text: &str) -> Result<Vec<String>, String> {
    let policy: HealingPolicy = serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
    let invalid = match ValidPolicy::new(&policy, &default_thresholds()) {
        Ok(valid) => valid.invalid,
        Err(invalid) => invalid,
    };
    Ok(invalid.into_iter().map(|invalid| invalid.message).collect())
}

#[test]
fn each_wrong_policy_says_what_to_expect_and_where() {
    let files = files("wrong-policies");
    assert!(files.len() >= 30, "{} files", files.len());
    for (name, text) in files {
        let mut lines = text.lines();
        let expect = lines.next().and_then(|line| line.strip_prefix("# expect: ")).unwrap_or_default();
        let place = lines.next().and_then(|line| line.strip_prefix("# where: ")).unwrap_or_default();
        assert!(!expect.is_empty() && matches!(place, "apply" | "status"), "{name}: {expect:?} {place:?}");
        // Those that the API server refuses may be stored from before its rules: they must not panic either.
        let found = mistakes(&text);
        if place == "status" {
            let found = found.unwrap();
            assert!(found.iter().any(|message| message.contains(expect)), "{name}: {expect:?} is not in {found:?}");
            assert!(!found.concat().contains("hunter2"), "{name} shows a password: {found:?}");
        }
    }
}

#[test]
fn right_policies_are_right() {
    let files = files("right-policies");
    assert!(files.len() >= 3);
    for (name, text) in files {
        assert_eq!(mistakes(&text), Ok(Vec::new()), "{name}");
    }
}
