//! `panacea brain`, as a person runs it.

use std::process::{Command, Output, Stdio};

use jiff::{SignedDuration, Timestamp};
use panacea::{
    api::{Phase, Remediation},
    controller::rows::remediation_rows,
    knowledge::{ActionType, BrainRow, Dialect, Metadata, Row, check_id, row_id, views::ddl},
};
use serde_json::{Value, json};

use super::place::{Place, brain, on_both};

on_both!(
    every_question_is_answered_in_every_format,
    remedies_are_listed_by_cause_and_component,
    an_incident_is_shown_from_its_proposal_to_its_end,
    a_missing_remediation_or_server_is_reported,
    a_name_in_two_namespaces_asks_for_one,
    a_missing_table_is_named_with_what_makes_it,
);

/// The program with nothing said about a ledger.
fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_panacea"));
    command.arg("brain").args(arguments).stdin(Stdio::null());
    for variable in ["DATABASE_URL", "DB_HOST", "DB_PORT", "DB_NAME", "DB_USER", "DB_PASSWORD", "PANACEA_DATA_DIR"] {
        command.env_remove(variable);
    }
    command
}

/// Must end with this code; the ledger of this place is asked.
#[track_caller]
fn ask(place: &Place, arguments: &[&str], code: i32) -> Output {
    let mut command = program(arguments);
    match place {
        Place::Sqlite(_) => command.env("PANACEA_DATA_DIR", place.file().parent().unwrap()),
        Place::Postgres(url) => command.env("DATABASE_URL", url),
    };
    ends(command, code)
}

#[track_caller]
fn ends(mut command: Command, code: i32) -> Output {
    let output = command.output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{}{errors}", String::from_utf8_lossy(&output.stdout));
    assert!(!errors.contains("s3cret"), "{errors}");
    output
}

#[track_caller]
fn answer(place: &Place, arguments: &[&str]) -> String {
    String::from_utf8(ask(place, arguments, 0).stdout).unwrap()
}

#[track_caller]
fn refusal(place: &Place, arguments: &[&str], code: i32) -> String {
    let output = ask(place, arguments, code);
    assert!(output.stdout.is_empty(), "{}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8(output.stderr).unwrap()
}

/// The words of each line.
fn words(table: &str) -> Vec<Vec<&str>> {
    table.lines().map(|line| line.split_whitespace().collect()).collect()
}

async fn write(place: &Place, rows: Vec<Row>) {
    let running = place.start();
    running.ledger.record(rows).await.unwrap();
    running.stop().await;
}

async fn every_question_is_answered_in_every_format(place: Place) {
    let now = Timestamp::now();
    let outcome = |number: u32, outcome: &str, success| -> Row {
        let metadata = Metadata::component("shop", "web", "api");
        let output = json!({"outcome": outcome});
        let (id, at) = (row_id(&number.to_string(), "outcome"), "2026-11-22T10:00:00Z".parse().unwrap());
        let action = ActionType::ForecastOutcome;
        BrainRow { id, action, input: json!({}), output, success, metadata, executed_at: at }.into()
    };
    let rows = vec![
        BrainRow { executed_at: now, ..brain(1) }.into(),
        BrainRow { action: ActionType::RollbackFailed, success: false, executed_at: now, ..brain(2) }.into(),
        BrainRow { executed_at: now - SignedDuration::from_hours(48), success: false, ..brain(3) }.into(),
        outcome(1, "CameTrue", true),
        outcome(2, "Missed", false),
        outcome(3, "Unknown", false),
    ];
    write(&place, rows).await;

    let table = answer(&place, &["actions"]);
    assert_eq!(
        words(&table),
        [
            vec!["ACTION", "TYPE", "ACTIONS", "SUCCEEDED"],
            vec!["rollback_failed", "1", "0"],
            vec!["service_restart", "1", "1"]
        ]
    );
    let json: Value = serde_json::from_str(&answer(&place, &["actions", "-o", "json", "--since", "72h"])).unwrap();
    assert_eq!(json[0], json!({"action_type": "service_restart", "actions": 2, "succeeded": 1}));
    assert_eq!(
        answer(&place, &["actions", "-o", "csv"]),
        "action_type,actions,succeeded\nrollback_failed,1,0\nservice_restart,1,1\n"
    );

    let table = answer(&place, &["components"]);
    assert_eq!(words(&table)[1], ["shop", "web", "api", "3", "1"]);
    let json: Value = serde_json::from_str(&answer(&place, &["components", "--output", "json"])).unwrap();
    assert_eq!(
        json,
        json!([{"namespace": "shop", "policy": "web", "component": "api", "interventions": 3, "succeeded": 1}])
    );
    let none = answer(&place, &["components", "-o", "csv", "--policy", "other"]);
    assert_eq!(none, "namespace,policy,component,interventions,succeeded\n", "a head without rows");
    assert_eq!(answer(&place, &["components", "-o", "json", "--namespace", "other"]).trim(), "[]");

    let table = answer(&place, &["success-rates"]);
    assert_eq!(
        words(&table)[1..],
        [
            vec!["forecast_outcome", "3", "0.333"],
            vec!["rollback_failed", "1", "0.000"],
            vec!["service_restart", "2", "0.500"]
        ]
    );
    let json: Value = serde_json::from_str(&answer(&place, &["success-rates", "-o", "json"])).unwrap();
    assert_eq!(json[2], json!({"action_type": "service_restart", "actions": 2, "success_rate": 0.5}));
    assert!(answer(&place, &["success-rates", "-o", "csv"]).ends_with("\nservice_restart,2,0.500\n"));

    let table = answer(&place, &["accuracy"]);
    assert_eq!(words(&table).last().unwrap().join(" "), "2026-11-22 2 1 0.500 1 0 0 0 0 1 1");
    let json: Value = serde_json::from_str(&answer(&place, &["accuracy", "-o", "json"])).unwrap();
    assert_eq!(
        (&json[0]["day"], &json[0]["accuracy"], &json[0]["missed"]),
        (&json!("2026-11-22"), &json!(0.5), &json!(1))
    );
    let csv = answer(&place, &["accuracy", "-o", "csv"]);
    assert_eq!(csv.lines().nth(1), Some("2026-11-22,2,1,0.500,1,0,0,0,0,1,1"));

    let table = answer(&place, &["show"]);
    assert_eq!(words(&table)[0].join(" "), "AT NAMESPACE REMEDIATION COMPONENT ACTION TYPE SUCCESS");
    let listed: Value = serde_json::from_str(&answer(&place, &["show", "-o", "json"])).unwrap();
    let names: Vec<&str> = listed.as_array().unwrap().iter().map(|one| one["remediation"].as_str().unwrap()).collect();
    assert_eq!(names.len(), 3, "{names:?}");
    assert_eq!(names[2], "web-api-3", "the oldest last");
    assert!(
        answer(&place, &["show", "-o", "csv"]).starts_with("at,namespace,remediation,component,action_type,success\n")
    );

    for (arguments, said) in [
        (vec!["actions", "--since", "yesterday"], "--since \"yesterday\" is neither a time nor a duration"),
        (vec!["show", "web-api-1", "--since", "1h"], "leave them out"),
    ] {
        let words = refusal(&place, &arguments, 2);
        assert!(words.contains(said), "{words}");
    }
}

/// A rollback that a person approved and that helped.
fn healed(namespace: &str) -> Remediation {
    let template = |revision: i64, digest: &str| json!({"revision": revision, "hash": digest, "digest": digest});
    let remediation = json!({
        "apiVersion": "panacea.dev/v1alpha1", "kind": "Remediation",
        "metadata": {"name": "web-api-19ab-0", "namespace": namespace, "uid": format!("uid-of-{namespace}")},
        "spec": {
            "plan": {
                "policy": "web", "policyUid": "p", "component": "api", "target": {"kind": "Deployment", "name": "api"},
                "action": "Rollback", "intent": {"rollback": {"to": template(2, "good")}},
                "cause": "ReleaseRegression", "episode": "19ab", "step": 0,
                "why": "error_rate is 40.0%, critical from 10.0%\u{1b}[31m", "decidedAt": "2026-11-22T10:00:00Z",
                "approvalRequired": true, "release": template(3, "bad"),
            },
            "approval": {"decision": "Approved", "reason": "go"},
        },
        "status": {
            "phase": "Succeeded", "reason": "Healthy", "message": "healthy for 2m after the action",
            "decidedBy": {"manager": "kubectl-patch", "at": "2026-11-22T10:01:00Z"},
            "startedAt": "2026-11-22T10:01:01Z", "executedAt": "2026-11-22T10:01:02Z",
            "finishedAt": "2026-11-22T10:04:00Z",
        },
    });
    serde_json::from_value(remediation).unwrap()
}

fn look(policy: &str, component: &str, at: &str) -> Row {
    let at = at.parse().unwrap();
    BrainRow {
        id: check_id("shop", policy, component, at),
        action: ActionType::ProactiveHealthCheck,
        input: json!({}),
        output: json!({"status": "Unhealthy", "health_score": 70, "warnings": ["error_rate is 40%"], "failure_probability": 0.125}),
        success: true,
        metadata: Metadata::component("shop", policy, component),
        executed_at: at,
    }
    .into()
}

async fn remedies_are_listed_by_cause_and_component(place: Place) {
    let mut rows = remediation_rows(&healed("shop"));
    for number in 0..3 {
        let mut failed = healed("shop");
        failed.metadata.uid = Some(format!("failed-{number}"));
        let status = failed.status.as_mut().unwrap();
        status.phase = if number == 0 { Phase::Ineffective } else { Phase::Failed };
        rows.extend(remediation_rows(&failed));
    }
    write(&place, rows).await;
    let by_cause = ["success-rates", "--by", "cause"];
    let table = answer(&place, &by_cause);
    assert_eq!(words(&table)[1].join(" "), "ReleaseRegression Rollback shop web api 1 1 2 0.250 0.046", "{table}");
    let csv = answer(&place, &[&by_cause[..], &["-o", "csv"]].concat());
    assert_eq!(csv.lines().nth(1), Some("ReleaseRegression,Rollback,shop,web,api,1,1,2,0.250,0.046"));
    let json: Value = serde_json::from_str(&answer(&place, &[&by_cause[..], &["-o", "json"]].concat())).unwrap();
    assert_eq!((&json[0]["cause"], &json[0]["failed"]), (&json!("ReleaseRegression"), &json!(2)));
    assert_eq!(answer(&place, &[&by_cause[..], &["-o", "json", "--policy", "other"]].concat()).trim(), "[]");
}

async fn an_incident_is_shown_from_its_proposal_to_its_end(place: Place) {
    let mut rows = remediation_rows(&healed("shop"));
    rows.extend([
        look("web", "api", "2026-11-22T09:49:59Z"), // more than ten minutes before
        look("web", "api", "2026-11-22T09:50:00Z"),
        look("web", "api", "2026-11-22T10:02:00Z"),
        look("web", "api", "2026-11-22T10:04:00.001Z"), // after its end
        look("web", "db", "2026-11-22T10:02:00Z"),
        look("batch", "api", "2026-11-22T10:02:00Z"),
    ]);
    rows.push(
        BrainRow {
            id: row_id("forecast", "outcome"),
            action: ActionType::ForecastOutcome,
            input: json!({}),
            output: json!({"outcome": "Prevented", "message": "in time", "remediation": "web-api-19ab-0"}),
            success: true,
            metadata: Metadata::component("shop", "web", "api"),
            executed_at: "2026-11-22T10:04:00Z".parse().unwrap(),
        }
        .into(),
    );
    write(&place, rows).await;
    let json: Value = serde_json::from_str(&answer(&place, &["show", "web-api-19ab-0", "-o", "json"])).unwrap();
    assert_eq!((&json["namespace"], &json["component"], &json["cut"]), (&json!("shop"), &json!("api"), &json!(false)));
    let events = json["events"].as_array().unwrap();
    let told: Vec<(&str, &str)> =
        events.iter().map(|event| (event["event"].as_str().unwrap(), event["at"].as_str().unwrap())).collect();
    assert_eq!(
        told,
        [
            ("look", "2026-11-22T09:50:00Z"),
            ("proposed", "2026-11-22T10:00:00Z"),
            ("approved", "2026-11-22T10:01:00Z"),
            ("action", "2026-11-22T10:01:02Z"),
            ("rollback", "2026-11-22T10:01:02Z"),
            ("look", "2026-11-22T10:02:00Z"),
            ("verified", "2026-11-22T10:04:00Z"),
            ("forecast", "2026-11-22T10:04:00Z"),
        ]
    );
    let detail = |place: usize| events[place]["detail"].as_str().unwrap();
    assert_eq!(detail(0), "Unhealthy, score 70, 12% probability of a failure within 24 h: error_rate is 40%");
    assert!(detail(1).starts_with("Rollback for ReleaseRegression: error_rate is 40.0%"), "{}", detail(1));
    assert_eq!(detail(2), "by kubectl-patch: go");
    assert_eq!(detail(3), "automatic_rollback of Deployment/api");
    assert_eq!(events[4]["data"]["to_state"], json!({"revision": 2, "hash": "good", "digest": "good"}));
    assert_eq!(detail(6), "Succeeded (Healthy): healthy for 2m after the action");
    assert_eq!((detail(7), &events[7]["success"]), ("Prevented: in time", &json!(true)));

    let table = answer(&place, &["show", "web-api-19ab-0", "--namespace", "shop"]);
    assert!(table.starts_with("web-api-19ab-0 in shop: api of policy web\n"), "{table}");
    assert!(!table.contains('\u{1b}'), "what a terminal would obey: {table:?}");
    let csv = answer(&place, &["show", "web-api-19ab-0", "-o", "csv"]);
    assert_eq!(csv.lines().next(), Some("at,event,success,detail"));
    assert_eq!(csv.lines().filter(|line| line.starts_with("2026-")).count(), 8, "{csv}");
}

async fn a_missing_remediation_or_server_is_reported(place: Place) {
    write(&place, vec![brain(1).into()]).await;
    let words = refusal(&place, &["show", "web-api-77-0"], 1);
    assert!(
        words.contains("nothing of a remediation web-api-77-0") && words.contains("`panacea brain show`"),
        "{words}"
    );
    let words = refusal(&place, &["show", "web-api-1", "--namespace", "other"], 1);
    assert!(words.contains("nothing of a remediation web-api-1"), "{words}");
}

async fn a_name_in_two_namespaces_asks_for_one(place: Place) {
    let rows = ["shop", "test"].iter().flat_map(|namespace| remediation_rows(&healed(namespace)));
    write(&place, rows.collect()).await;
    let words = refusal(&place, &["show", "web-api-19ab-0"], 2);
    assert!(words.contains("in several namespaces: shop, test; name one with --namespace"), "{words}");
    assert!(answer(&place, &["show", "web-api-19ab-0", "-n", "test"]).contains(" in test: "));
}

async fn a_missing_table_is_named_with_what_makes_it(place: Place) {
    place.execute("CREATE TABLE another (id text)").await;
    for question in ["actions", "components", "success-rates", "accuracy", "show"] {
        let words = refusal(&place, &[question], 2);
        assert!(words.contains("unified_brain") && words.contains("`panacea brain schema`"), "{words}");
    }
    let dialect = if matches!(place, Place::Sqlite(_)) { "sqlite" } else { "postgres" };
    let schema = answer(&place, &["schema", "--dialect", dialect]);
    let own = ddl(if dialect == "sqlite" { Dialect::Sqlite } else { Dialect::Postgres });
    assert_eq!(schema.trim_end(), own);
    place.execute(&schema).await;
    assert_eq!(answer(&place, &["actions", "-o", "json"]).trim(), "[]");
}

#[test]
fn without_a_ledger_it_says_how_to_name_one() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = program(&["actions"]);
    command.args(["--data-dir", folder.path().to_str().unwrap()]);
    let words = String::from_utf8(ends(command, 2).stderr).unwrap();
    for wanted in ["no ledger", "ledger.sqlite", "DATABASE_URL", "DB_HOST", "--data-dir"] {
        assert!(words.contains(wanted), "{wanted} is not in {words}");
    }
    assert!(std::fs::read_dir(folder.path()).unwrap().next().is_none(), "it makes none");
    // A server that does not exist.
    let mut command = program(&["actions"]);
    command.env("DATABASE_URL", "postgres://panacea:s3cret@127.0.0.1:1/panacea");
    let words = String::from_utf8(ends(command, 2).stderr).unwrap();
    assert!(words.contains("127.0.0.1:1/panacea as panacea"), "{words}");
}
