//! `panacea check` and its small sisters, as a person runs them.

use std::{io::Write as _, path::Path, time::Duration};

use serde_json::{Value, json};
use tokio::process::Command;

use crate::support::{
    audit::{OPERATOR, Write},
    cluster::{Test, env, run},
    objects::policy,
    operator::{Operator, Options, binary},
    shell::{Ended, output},
    wait,
};

/// The program with nothing in its environment but where the cluster is.
async fn panacea(kubeconfig: &str, arguments: &[&str]) -> Ended {
    let mut command = Command::new(binary());
    output(command.env_clear().env("KUBECONFIG", kubeconfig).args(arguments)).await
}

pub fn file(content: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::Builder::new().suffix(".yaml").tempfile().unwrap();
    file.write_all(content.as_bytes()).unwrap();
    file
}

fn policy_file(test: &Test, components: &[&str]) -> tempfile::NamedTempFile {
    let mut wanted = policy("shop", components, &json!({}));
    wanted["metadata"]["namespace"] = json!(test.namespace);
    file(&wanted.to_string())
}

fn shown(path: &Path) -> &str {
    path.to_str().unwrap()
}

pub async fn check_json(kubeconfig: &str, path: &Path) -> (Option<i32>, Vec<Value>) {
    let ended = panacea(kubeconfig, &["check", "-f", shown(path), "-o", "json"]).await;
    let findings = serde_json::from_str(&ended.stdout).unwrap_or_else(|why| panic!("{why}: {ended:?}"));
    (ended.code, findings)
}

#[tokio::test(flavor = "multi_thread")]
async fn check_says_what_it_sees_and_would_do_and_touches_nothing() {
    run("check", async |test| {
        let (operator, admin) = (env("PANACEA_KUBECONFIG"), env("KUBECONFIG"));
        for name in ["api", "cart"] {
            test.deploy(name, "shop/app:v1", 2).await;
            test.wait_rolled_out(name).await;
        }
        let both = policy_file(test, &["api", "cart"]);
        for kubeconfig in [&operator, &admin] {
            let (code, findings) = check_json(kubeconfig, both.path()).await;
            assert_eq!(code, Some(0), "{findings:?}");
            assert_eq!(findings.len(), 2);
            for (finding, name) in findings.iter().zip(["api", "cart"]) {
                assert_eq!((&finding["component"], &finding["policy"]), (&json!(name), &json!("shop")));
                assert_eq!((&finding["status"], &finding["score"]), (&json!("Healthy"), &json!(100)));
                assert_eq!((&finding["warnings"], &finding["wouldDo"]), (&json!([]), &json!("nothing")));
                assert_eq!(finding["forecast"]["confidence"], json!("insufficient history"), "{finding}");
            }
        }
        let table = panacea(&operator, &["check", "-f", shown(both.path())]).await;
        assert_eq!(table.code, Some(0), "{table:?}");
        for word in ["COMPONENT", "WOULD DO", "shop/api", "shop/cart", "Deployment/api", "Healthy", "100"] {
            assert!(table.stdout.contains(word), "{word} is not in\n{}", table.stdout);
        }

        test.release("api", "shop/app:v2-crash").await;
        let bad = wait::until("check to see the crash", Duration::from_secs(30), async || {
            let (code, findings) = check_json(&operator, both.path()).await;
            let seen = code == Some(1) && findings[0]["warnings"].to_string().contains("CrashLoop");
            if seen { Ok(findings) } else { Err(format!("{code:?} {findings:?}")) }
        })
        .await;
        assert_eq!(bad[1]["status"], json!("Healthy"), "the other one is healthy");
        // A container in a crash loop runs for moments: a check at such a moment sees nothing wrong.
        wait::until("the table to show the crash", Duration::from_secs(30), async || {
            let table = panacea(&admin, &["check", "-f", shown(both.path())]).await;
            let shown = table.code == Some(1) && table.stdout.contains("CrashLoop");
            if shown { Ok(()) } else { Err(format!("{table:?}")) }
        })
        .await;

        // It only looked: all that was written here was written by this test and by Kubernetes.
        let writes = test.writes();
        let ours = ["healingpolicies", "remediations"];
        assert!(writes.iter().any(|write| write.resource == "deployments"), "the audit log shows this namespace");
        let by_panacea = |write: &&Write| write.user == OPERATOR || ours.contains(&write.resource.as_str());
        assert_eq!(writes.iter().filter(by_panacea).count(), 0, "{writes:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn check_uses_what_the_operator_has_learned() {
    run("check-learned", async |test| {
        let _operator = Operator::start(test, Options::default()).await;
        test.deploy("api", "shop/app:v1", 2).await;
        let mut wanted = policy("shop", &["api"], &json!({"spec": {"mode": "Approve"}}));
        test.apply_policy(&wanted).await;
        test.wait_known_good("shop", "api").await;
        test.release("api", "shop/app:v2-crash").await;
        test.wait_component("shop", "api", "to be in an incident", |status| status.episode.is_some()).await;
        wanted["metadata"]["namespace"] = json!(test.namespace);
        // A container in a crash loop runs for moments: a check at such a moment finds nothing wrong.
        let policy = file(&wanted.to_string());
        let findings = wait::until("check to see the crash", Duration::from_secs(30), async || {
            match check_json(&env("PANACEA_KUBECONFIG"), policy.path()).await {
                (Some(1), findings) => Ok(findings),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
        let would_do = findings[0]["wouldDo"].as_str().unwrap();
        assert!(would_do.starts_with("Rollback after approval"), "{would_do}");
        assert!(would_do.contains("rollback target revision 1 was the last known good"), "{would_do}");
        assert!(test.component("shop", "api").await.unwrap().episode.is_some(), "check ended nothing");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn check_ends_with_2_when_it_could_not_check() {
    run("check-blind", async |test| {
        let operator = env("PANACEA_KUBECONFIG");
        let missing = policy_file(test, &["missing"]);
        let (code, findings) = check_json(&operator, missing.path()).await;
        assert_eq!((code, &findings[0]["status"]), (Some(2), &json!("Unknown")), "{findings:?}");
        assert_eq!(findings[0]["score"], Value::Null);
        assert!(findings[0]["warnings"].to_string().contains("missing"), "{findings:?}");

        let twice = "kind: HealingPolicy\napiVersion: panacea.dev/v1alpha1\nmetadata: {name: shop}\nspec:\n  components:\n  - {name: api, target: {deployment: {name: api}}}\n  - {name: api, target: {deployment: {name: api}}}\n";
        for (content, words) in [
            ("{ this is : [ not yaml", "is not YAML"),
            ("", "contains no HealingPolicy"),
            ("kind: ConfigMap\n", "contains no HealingPolicy"),
            ("kind: HealingPolicy\nspec: 7\n", "HealingPolicy that cannot be read"),
            (twice, "api"),
        ] {
            let bad = file(content);
            let ended = panacea(&operator, &["check", "-f", shown(bad.path())]).await;
            assert_eq!(ended.code, Some(2), "{content:?}: {ended:?}");
            assert!(ended.stderr.contains(words), "{content:?}: {ended:?}");
            assert!(!ended.stderr.contains("panicked"), "{ended:?}");
        }
        let none = panacea(&operator, &["check", "-f", "/no/such/file.yaml"]).await;
        assert_eq!(none.code, Some(2), "{none:?}");
        assert!(none.stderr.contains("cannot be read"), "{none:?}");
        let usage = panacea(&operator, &["check"]).await;
        assert_eq!(usage.code, Some(2), "{usage:?}");

        // An API server that does not exist.
        let kubeconfig = std::fs::read_to_string(&operator).unwrap();
        let (before, after) = kubeconfig.split_once("https://127.0.0.1:").unwrap();
        let after = after.trim_start_matches(|character: char| character.is_ascii_digit());
        let away = file(&format!("{before}https://127.0.0.1:1{after}"));
        let ended = panacea(shown(away.path()), &["check", "-f", shown(missing.path())]).await;
        assert_eq!(ended.code, Some(2), "{ended:?}");
        let said = format!("{}{}", ended.stdout, ended.stderr);
        assert!(said.contains("refused") || said.contains("not reach") || said.contains("127.0.0.1:1"), "{ended:?}");
        let nowhere = panacea("/no/such/kubeconfig", &["check", "-f", shown(missing.path())]).await;
        assert_eq!(nowhere.code, Some(2), "{nowhere:?}");
        assert!(nowhere.stderr.contains("KUBECONFIG"), "{nowhere:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn crds_and_completions_are_printed_without_a_cluster() {
    let crds = panacea("/no/such/kubeconfig", &["crds"]).await;
    assert_eq!(crds.code, Some(0), "{crds:?}");
    let kept = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/crds/panacea.dev.yaml")).unwrap();
    assert!(crds.stdout == kept, "crds/panacea.dev.yaml is not what `panacea crds` prints; run `make crds`");

    let completions = panacea("/no/such/kubeconfig", &["completions", "bash"]).await;
    assert_eq!(completions.code, Some(0), "{completions:?}");
    let script = file(&completions.stdout);
    // Loaded, it completes: the function and what it is registered for are there.
    let load = format!("source '{0}' && complete -p panacea", shown(script.path()));
    for arguments in [vec!["-n", shown(script.path())], vec!["--norc", "-c", load.as_str()]] {
        let ended = output(Command::new("bash").args(arguments)).await;
        assert!(ended.success(), "{ended:?}");
    }
}
