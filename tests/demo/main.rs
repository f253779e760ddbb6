//! `make demo`: a version that crashes and one that answers 40% of its requests with errors are released on a real
//! Kubernetes API; each is seen, rolled back, verified and recorded. Prints what happens as it happens.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a demonstration that cannot go on fails")]

#[path = "../support/mod.rs"]
mod support;

use std::{collections::BTreeSet, process::ExitCode, time::Duration};

use futures::{StreamExt as _, TryStreamExt as _};
use jiff::Timestamp;
use k8s_openapi::api::events::v1::Event;
use kube::{
    ResourceExt as _,
    runtime::{WatchStreamExt as _, watcher},
};
use panacea::api::{Phase, Remediation};
use serde_json::json;
use sqlx::{Connection as _, PgConnection, Row as _};
use support::{
    cluster::{Test, env, run},
    objects::{image_of, policy},
    traffic::{Traffic, error_rate_metric},
};
use tokio::process::Command;

const GOOD: &str = "shop/checkout:v1";
/// A release that is not healed by then failed the demo.
const LIMIT: Duration = Duration::from_secs(90);

#[tokio::main]
async fn main() -> ExitCode {
    let mut healed = None;
    let demo = run("demo", async |test| healed = Some(demo(test).await));
    tokio::select! {
        () = demo => {}
        _ = tokio::signal::ctrl_c() => return ExitCode::from(130),
    }
    match healed {
        Some((crash, errors)) => {
            println!("\nhealed: crash in {crash:.1} s, errors in {errors:.1} s");
            ExitCode::SUCCESS
        }
        None => ExitCode::FAILURE,
    }
}

async fn demo(test: &Test) -> (f64, f64) {
    say("", "starts", "10 pods of checkout, version v1, with 100 requests a second; a policy that may act");
    test.deploy("checkout", GOOD, 10).await;
    test.wait_rolled_out("checkout").await;
    let _traffic = Traffic::start(test, "checkout").await;
    let mut wanted = policy("shop", &["checkout"], &json!({"spec": {"interval": "60s"}}));
    wanted["spec"]["components"][0]["metrics"] = json!([error_rate_metric("5s")]);
    test.apply_policy(&wanted).await;
    let status = test.wait_known_good("shop", "checkout").await;
    say(
        "",
        "seen",
        &format!(
            "checkout is {}, score {}: its template is the last known good one",
            status.status,
            status.score.unwrap_or(0)
        ),
    );

    let crash = release(test, "shop/checkout:v2-crash", "a version that crashes at start").await;
    let errors =
        release(test, "shop/checkout:v3-errors", "a version that answers 40% of its requests with errors").await;

    println!("\n$ kubectl get hp,rem");
    kubectl(test, &["get", "hp,rem"]).await;
    println!("\nunified_brain (healing rows; checks and cycles are beside them):");
    brain(test).await;
    (crash, errors)
}

/// Releases a bad version and reports the events until the component is healed: seconds from the release until the component
/// was healthy again for good.
async fn release(test: &Test, image: &str, words: &str) -> f64 {
    println!();
    let known: BTreeSet<String> = test.remediations().await.iter().map(Remediation::name_any).collect();
    let released = Timestamp::now();
    test.release("checkout", image).await;
    say("+0.0 s", "released", &format!("{image}, {words}"));
    let remediation = tokio::select! {
        remediation = healed(test, &known) => remediation,
        () = narrate(test, released) => unreachable!("the watch never ends"),
        () = tokio::time::sleep(LIMIT) => panic!("{image} was not healed within {} s", LIMIT.as_secs()),
    };
    // Both must be true in the API server, not only in the events.
    let deployment = test.deployment("checkout").await;
    assert_eq!(image_of(&deployment), GOOD, "the good version is back");
    test.wait_rolled_out("checkout").await;
    let since =
        remediation.status.and_then(|status| status.healthy_since).expect("a success has been healthy since a time");
    since.duration_since(released).as_secs_f64()
}

async fn healed(test: &Test, known: &BTreeSet<String>) -> Remediation {
    loop {
        let new = test.remediations().await.into_iter().find(|remediation| !known.contains(&remediation.name_any()));
        if let Some(remediation) =
            new.filter(|remediation| remediation.status.as_ref().is_some_and(|status| status.phase.is_final()))
        {
            let status = remediation.status.clone().unwrap_or_default();
            // Its last event follows the phase within milliseconds: let the story end.
            tokio::time::sleep(Duration::from_millis(300)).await;
            assert_eq!(status.phase, Phase::Succeeded, "{}: {}", status.reason, status.message);
            return remediation;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// One line an event of Panacea, with the seconds since the release.
async fn narrate(test: &Test, released: Timestamp) {
    let mut told: BTreeSet<String> = BTreeSet::new();
    let events = watcher(test.api::<Event>(), watcher::Config::default()).applied_objects();
    let mut events = events.boxed();
    loop {
        let Ok(Some(event)) = events.try_next().await else { continue };
        let repeated = event.series.as_ref().map(|series| series.last_observed_time.0);
        let at = repeated.or(event.event_time.as_ref().map(|time| time.0)).unwrap_or(released);
        let note = event.note.clone().unwrap_or_default();
        let key = format!("{}{}", event.name_any(), event.series.as_ref().map_or(0, |series| series.count));
        if at < released || event.reporting_controller.as_deref() != Some(panacea::api::REPORTER) || !told.insert(key) {
            continue;
        }
        let step = match event.reason.as_deref().unwrap_or_default() {
            "ReleaseSeen" | "ConfigSeen" | "KnownBadRelease" | "KnownBadConfig" | "Unhealthy" | "CouldNotMeasure"
            | "KnownGood" => "seen",
            "FailureForeseen" => "forecast",
            "RemediationCreated" => "decided",
            "Acting" | "Verifying" => "acted",
            "Succeeded" | "Recovered" => "verified",
            other => other,
        };
        let seconds = at.duration_since(released).as_secs_f64();
        say(&format!("+{seconds:.1} s"), step, &note);
        if event.reason.as_deref() == Some("Unhealthy")
            && let Some(forecast) = test.component("shop", "checkout").await.and_then(|status| status.forecast)
        {
            let words = if forecast.reasons.is_empty() {
                format!("nothing announced it ({})", forecast.confidence)
            } else {
                let reasons = forecast.reasons.join("; ");
                format!("{:.0}% ({}): {reasons}", forecast.probability * 100.0, forecast.confidence)
            };
            say(&format!("+{seconds:.1} s"), "forecast", &words);
        }
    }
}

fn say(when: &str, step: &str, words: &str) {
    let short: String = words.chars().take(230).collect();
    println!("{when:>8}  {step:<9} {short}{}", if short.len() < words.len() { "..." } else { "" });
}

async fn kubectl(test: &Test, arguments: &[&str]) {
    let status = Command::new("kubectl")
        .args(["-n", &test.namespace])
        .args(arguments)
        .status()
        .await
        .expect("kubectl is on PATH");
    assert!(status.success(), "kubectl {arguments:?}");
}

async fn brain(test: &Test) {
    let query = "SELECT to_char(executed_at AT TIME ZONE 'UTC', 'HH24:MI:SS') AS at, agent_name, action_type, success, \
                 metadata->>'remediation' AS remediation FROM unified_brain \
                 WHERE metadata->>'namespace' = $1 AND metadata->>'remediation' IS NOT NULL ORDER BY executed_at";
    let rows = support::wait::until("two healing rows in unified_brain", Duration::from_secs(20), async || {
        let mut connection = PgConnection::connect(&env("DATABASE_URL")).await.map_err(|why| why.to_string())?;
        let rows =
            sqlx::query(query).bind(&test.namespace).fetch_all(&mut connection).await.map_err(|why| why.to_string())?;
        if rows.len() == 2 { Ok(rows) } else { Err(format!("{} rows", rows.len())) }
    })
    .await;
    println!("{:<9} {:<20} {:<20} {:<8} remediation", "at", "agent_name", "action_type", "success");
    for row in rows {
        let (at, agent, action): (String, String, String) =
            (row.get("at"), row.get("agent_name"), row.get("action_type"));
        let (success, remediation): (bool, String) = (row.get("success"), row.get("remediation"));
        println!("{at:<9} {agent:<20} {action:<20} {success:<8} {remediation}");
    }
}
