//! The API server takes every YAML block of the documentation (server-side dry run).

#[allow(dead_code, reason = "the integration tests use the rest")]
#[path = "../support/pages.rs"]
mod pages;

use std::{fs, path::Path};

use crate::support::cluster::{Test, run};
use pages::{objects, pages, yaml_blocks};

/// What the API server says of one object, if it refuses it.
async fn refusal(test: &Test, file: &Path, object: &str) -> Option<String> {
    fs::write(file, object).unwrap();
    let arguments = ["apply", "--dry-run=server", "--validate=strict", "--filename", file.to_str().unwrap()];
    let applied = test.kubectl(&arguments).await;
    (!applied.success()).then(|| applied.stderr.clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_server_takes_every_yaml_block() {
    run("docs", async |test| {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("block.yaml");
        let (mut applied, mut wrong) = (0, Vec::new());
        for page in pages() {
            for block in yaml_blocks(&page) {
                for object in objects(&page, &block) {
                    // An object of a namespace that the page invents goes into that of the test.
                    let object = object.replace("namespace: shop", &format!("namespace: {}", test.namespace));
                    applied += 1;
                    if let Some(why) = refusal(test, &file, &object).await {
                        wrong.push(format!("{}:{}: {why}", page.path, block.line));
                    }
                }
            }
        }
        assert!(applied >= 15, "only {applied} objects are found");
        assert!(wrong.is_empty(), "{} places:\n{}", wrong.len(), wrong.join("\n"));
    })
    .await;
}
