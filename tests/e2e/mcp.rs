//! Panacea's server of the Model Context Protocol: an assistant looks, and a person's Kubernetes rights decide.

use std::{collections::BTreeSet, path::PathBuf, time::Duration};

use kube::ResourceExt as _;
use panacea::api::{Phase, Remediation};
use serde_json::json;

use crate::approval;
use crate::support::{
    cluster::{Test, env, init_crypto, run},
    mcp::{Assistant, McpOverHttp, with_handshake, without_handshake, words},
    operator::Operator,
    role::Person,
};

const READS: [&str; 5] = ["list_components", "get_health", "forecast", "list_remediations", "explain_remediation"];
const WRITES: [&str; 2] = ["approve_remediation", "reject_remediation"];

/// v1 is known good, v2-crash was released, and a rollback waits for a person.
async fn waiting(test: &Test) -> (Operator, Remediation) {
    let (operator, remediation) = approval::waiting(test, 2, &json!({})).await;
    // The policy says so a moment later.
    test.wait_condition("shop", "ApprovalRequired", "True", Duration::from_secs(20)).await;
    (operator, remediation)
}

fn operators_kubeconfig() -> PathBuf {
    env("PANACEA_KUBECONFIG").into()
}

/// Every tool is there, with what an assistant has to know of it before it calls it.
async fn assert_tools(assistant: &Assistant) {
    let tools = assistant.tools().await;
    let names: BTreeSet<&str> = tools.iter().map(|tool| tool.name.as_ref()).collect();
    assert_eq!(names, READS.iter().chain(&WRITES).copied().collect());
    for tool in &tools {
        let hints = tool.annotations.as_ref().unwrap();
        let reads = READS.contains(&tool.name.as_ref());
        assert_eq!((hints.read_only_hint, hints.destructive_hint), (Some(reads), Some(!reads)), "{}", tool.name);
        assert_eq!(hints.idempotent_hint, Some(true), "{}", tool.name);
        assert!(tool.output_schema.as_ref().is_some_and(|schema| schema.contains_key("properties")), "{tool:?}");
        assert_eq!(tool.input_schema["additionalProperties"], false, "{tool:?}");
        let schemas = format!("{:?}{:?}", tool.input_schema, tool.output_schema);
        assert!(!schemas.contains("uint"), "clients warn of a format that JSON Schema has not: {schemas}");
    }
}

/// Every tool that looks, on a policy whose rollback waits.
async fn assert_checks(test: &Test, assistant: &Assistant, remediation: &str) -> String {
    let listed = assistant.answer("list_components", json!({})).await;
    assert_eq!((&listed["found"], &listed["truncated"]), (&json!(1), &json!(false)), "{listed}");
    let one = &listed["components"][0];
    assert_eq!((&one["component"], &one["policy"]), (&json!("api"), &json!("shop")), "{listed}");
    assert_eq!((&one["target"], &one["namespace"]), (&json!("Deployment/api"), &json!(test.namespace)), "{listed}");
    // A crash loop runs for moments: how it is changes from look to look.
    for wanted in ["Healthy", "Unhealthy"] {
        let found = assistant.answer("list_components", json!({"status": wanted})).await;
        let all = found["components"].as_array().unwrap();
        assert!(all.iter().all(|one| one["status"] == wanted), "{found}");
    }
    let none = assistant.answer("list_components", json!({"status": "Unknown"})).await;
    assert_eq!(none["found"], 0, "{none}");

    let health = assistant.answer("get_health", json!({"policy": "shop", "component": "api"})).await;
    assert_eq!((&health["mode"], &health["suspended"]), (&json!("Approve"), &json!(false)), "{health}");
    assert_eq!(health["components"][0]["episode"]["cause"], "ReleaseRegression", "{health}");
    let conditions = health["conditions"].as_array().unwrap();
    assert!(conditions.iter().any(|one| one["type"] == "ApprovalRequired" && one["status"] == "True"), "{health}");

    let foreseen = assistant.answer("forecast", json!({"policy": "shop"})).await;
    let of_api = &foreseen["components"][0];
    match of_api["measured"].as_bool().unwrap() {
        true => assert!(of_api["forecast"]["confidence"].is_string() && of_api["forecast"]["level"].is_string()),
        false => assert!(of_api["forecast"].is_null() && of_api["whyNot"].is_string(), "{foreseen}"),
    }

    let listed = assistant.answer("list_remediations", json!({"policy": "shop", "open": true})).await;
    assert_eq!((&listed["found"], &listed["remediations"][0]["remediation"]), (&json!(1), &json!(remediation)));
    assert_eq!(listed["remediations"][0]["phase"], "AwaitingApproval", "{listed}");
    let none = assistant.answer("list_remediations", json!({"phase": "Succeeded"})).await;
    assert_eq!(none["found"], 0, "{none}");

    let explained = assistant.call("explain_remediation", json!({"remediation": remediation})).await;
    let text = words(&explained);
    let explained = explained.structured_content.unwrap();
    assert_eq!((&explained["action"], &explained["decidable"]), (&json!("Rollback"), &json!(true)));
    assert!(explained["from"]["hash"].is_string() && explained["to"]["hash"].is_string(), "{explained}");
    assert!(explained["timeline"].as_array().unwrap().len() >= 2, "{explained}");
    let plan = explained["plan"].as_str().unwrap();
    for said in ["Why: ", "Deployment/api is rolled back", "AwaitingApproval", "kubectl patch rem", plan] {
        assert!(text.contains(said), "{said} is not in {text}");
    }
    plan.to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_assistant_looks_in_both_eras_and_a_persons_yes_is_done_under_their_name() {
    run("mcp-yes", async |test| {
        let (operator, remediation) = waiting(test).await;
        let name = remediation.name_any();
        let jane = Person::with(test, "jane", "get,list,patch").await;
        let mut plan = String::new();
        for era in [with_handshake(), without_handshake()] {
            let assistant = Assistant::on_stdio(test, &jane.kubeconfig(), era).await;
            assert_tools(&assistant).await;
            plan = assert_checks(test, &assistant, &name).await;
        }
        let assistant = Assistant::on_stdio(test, &jane.kubeconfig(), without_handshake()).await;

        // Only what was explained can be decided.
        let other = json!({"remediation": name, "plan": "0123456789abcdef"});
        let why = assistant.refusal("approve_remediation", other).await;
        assert!(why.contains("plan") && why.contains("call explain_remediation"), "{why}");
        assert_eq!(test.wait_remediation(Phase::AwaitingApproval).await.spec.approval, None);

        let yes = json!({"remediation": name, "plan": plan, "reason": "the release is bad"});
        let decided = assistant.answer("approve_remediation", yes.clone()).await;
        let by = format!("panacea-mcp:{}", jane.user);
        assert_eq!((&decided["changed"], &decided["recordedAs"]), (&json!(true), &json!(by)), "{decided}");
        let ended = test.wait_ended(&name).await;
        let status = ended.status.unwrap();
        assert_eq!(status.phase, Phase::Succeeded, "{}", status.message);
        assert_eq!(status.decided_by.map(|by| by.manager), Some(by));
        assert_eq!(ended.spec.approval.unwrap().reason, "the release is bad");
        assert_eq!(test.image("api").await, "shop/api:v1");
        test.wait_recorded(&name, Duration::from_secs(20)).await;
        let kinds: Vec<_> = operator.action_rows().await.into_iter().map(|row| (row.0, row.1)).collect();
        assert_eq!(kinds, [("remediation_approval".to_owned(), true), ("automatic_rollback".to_owned(), true)]);

        // The same again changes nothing, and the other is too late.
        let again = assistant.answer("approve_remediation", yes.clone()).await;
        assert_eq!(again["changed"], false, "{again}");
        let why = assistant.refusal("reject_remediation", yes).await;
        assert!(why.contains("was Approved already"), "{why}");
        let explained = assistant.answer("explain_remediation", json!({"remediation": name})).await;
        assert_eq!((&explained["decidable"], &explained["phase"]), (&json!(false), &json!("Succeeded")));
        assert!(explained["timeline"].to_string().contains("Approved by panacea-mcp"), "{explained}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rejection_without_the_right_is_refused_with_the_message_of_kubernetes() {
    run("mcp-no", async |test| {
        let (_operator, remediation) = waiting(test).await;
        let name = remediation.name_any();
        let reader = Person::with(test, "reader", "get,list").await;
        let assistant = Assistant::on_stdio(test, &reader.kubeconfig(), without_handshake()).await;
        let plan = assert_checks(test, &assistant, &name).await;
        let no = json!({"remediation": name, "plan": plan, "reason": "it is a game day"});
        let theirs = format!(
            r#"remediations.panacea.dev "{name}" is forbidden: User "{}" cannot patch resource "remediations" in API group "panacea.dev" in the namespace "{}""#,
            reader.user, test.namespace
        );
        for tool in ["reject_remediation", "approve_remediation"] {
            let why = assistant.refusal(tool, no.clone()).await;
            assert!(why.contains(&theirs), "{why} does not hold {theirs}");
        }
        let unchanged = test.wait_remediation(Phase::AwaitingApproval).await;
        assert_eq!((unchanged.name_any(), unchanged.spec.approval), (name.clone(), None));

        // A caller without the right to read gets an error too; and it differs from that of a missing object.
        let blind = Person::with(test, "blind", "watch").await;
        let blind = Assistant::on_stdio(test, &blind.kubeconfig(), without_handshake()).await;
        for (tool, arguments) in [
            ("list_components", json!({})),
            ("get_health", json!({"policy": "shop"})),
            ("list_remediations", json!({})),
        ] {
            let why = blind.refusal(tool, arguments).await;
            assert!(why.contains("is forbidden: User") && why.contains("Role"), "{tool}: {why}");
        }
        let elsewhere = assistant.refusal("list_components", json!({"allNamespaces": true})).await;
        assert!(elsewhere.contains("at the cluster scope"), "{elsewhere}");
        for (tool, arguments, wanted) in [
            ("get_health", json!({"policy": "shop", "component": "web"}), r#"shop has no component "web"; it has api"#),
            ("forecast", json!({"policy": "other"}), r#"there is no HealingPolicy "other" in namespace"#),
            ("explain_remediation", json!({"remediation": "other"}), r#"there is no Remediation "other" in namespace"#),
            ("get_health", json!({"policy": "../secrets/x"}), "cannot be a name in Kubernetes"),
            ("list_components", json!({"namespace": "a/b"}), "namespace \"a/b\" cannot be a name"),
            ("list_components", json!({"limit": 0}), "limit is 0; it must be from 1 to 200"),
            ("list_components", json!({"stauts": "Healthy"}), "unknown field `stauts`"),
            ("list_remediations", json!({"phase": "Waiting"}), "phase: unknown variant `Waiting`"),
            ("approve_remediation", json!({"remediation": name}), "missing field `plan`"),
        ] {
            let why = assistant.refusal(tool, arguments.clone()).await;
            assert!(why.contains(wanted), "{tool} {arguments}: {why}");
        }

        let jane = Person::with(test, "jane", "get,list,patch").await;
        let jane = Assistant::on_stdio(test, &jane.kubeconfig(), with_handshake()).await;
        let decided = jane.answer("reject_remediation", no).await;
        assert_eq!(decided["decision"], "Rejected", "{decided}");
        let status = test.wait_ended(&name).await.status.unwrap();
        assert_eq!(status.phase, Phase::Rejected, "{}", status.message);
        assert!(status.message.contains("panacea-mcp:") && status.message.contains("it is a game day"), "{status:?}");
        assert_eq!(test.generation("api").await, 2, "nothing was done");
    })
    .await;
}

/// A call as a program sends it that has read the protocol, and nothing else.
async fn posted(url: &str, headers: &[(&str, &str)], body: String) -> (u16, String, String) {
    init_crypto();
    let mut request = reqwest::Client::new()
        .post(url)
        .header("content-type", "application/json")
        .header("accept", "application/json, text/event-stream")
        .header("mcp-protocol-version", "2025-11-25");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answer = request.body(body).send().await.unwrap();
    let challenge = answer.headers().get("www-authenticate").map(|value| value.to_str().unwrap().to_owned());
    (answer.status().as_u16(), challenge.unwrap_or_default(), answer.text().await.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn over_http_each_request_has_the_rights_of_its_own_token_and_no_others() {
    run("mcp-http", async |test| {
        let (_operator, remediation) = waiting(test).await;
        let name = remediation.name_any();
        let server = McpOverHttp::start(test, &operators_kubeconfig()).await;
        let jane = Person::with(test, "jane", "get,list,patch").await;
        let reader = Person::with(test, "reader", "get,list").await;

        let list =
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"list_components","arguments":{}}}"#;
        let (janes, bad) = (format!("Bearer {}", jane.token), format!("Bearer {}x", jane.token));
        let foreign = ("host", "evil.example.com");
        for (headers, wanted) in [
            (vec![], 401),
            (vec![("authorization", "Basic amFuZTpwdw==")], 401),
            (vec![("authorization", bad.as_str())], 401),
            (vec![("authorization", janes.as_str()), foreign], 403),
            (vec![("authorization", janes.as_str()), ("origin", "https://evil.example.com")], 403),
            (vec![("authorization", janes.as_str()), ("origin", "null")], 403),
            (vec![("authorization", janes.as_str())], 200),
        ] {
            let (status, challenge, text) = posted(&server.url, &headers, list.to_owned()).await;
            assert_eq!(status, wanted, "{text}");
            assert_eq!(challenge.starts_with("Bearer"), wanted == 401, "{challenge}");
            assert_eq!(text.contains("Deployment/api"), wanted == 200, "{text}");
        }
        let long = format!("{}{}", " ".repeat(70_000), list);
        let (status, _, text) = posted(&server.url, &[("authorization", &janes)], long).await;
        assert_eq!(status, 413, "{text}");
        for token in [None, Some("nonsense")] {
            let refused = Assistant::on_http(&server.url, token, with_handshake()).await;
            assert!(refused.is_err(), "{token:?} got in");
        }

        let mut plan = String::new();
        for era in [with_handshake(), without_handshake()] {
            let assistant = Assistant::on_http(&server.url, Some(&reader.token), era).await.unwrap();
            assert_tools(&assistant).await;
            plan = assert_checks(test, &assistant, &name).await;
            let no = json!({"remediation": name, "plan": plan});
            let why = assistant.refusal("reject_remediation", no).await;
            assert!(why.contains(&format!("is forbidden: User \"{}\"", reader.user)), "{why}");
        }
        let unchanged = test.wait_remediation(Phase::AwaitingApproval).await;
        assert_eq!(unchanged.spec.approval, None);
        let assistant = Assistant::on_http(&server.url, Some(&jane.token), without_handshake()).await.unwrap();
        assistant.answer("reject_remediation", json!({"remediation": name, "plan": plan})).await;
        let status = test.wait_ended(&name).await.status.unwrap();
        assert_eq!(status.phase, Phase::Rejected, "{}", status.message);
        assert_eq!(status.decided_by.map(|by| by.manager), Some(format!("panacea-mcp:{}", jane.user)));

        let log = server.log();
        assert!(log.contains("panacea mcp is listening"), "{log}");
        for token in [&jane.token, &reader.token] {
            assert!(!log.contains(token.as_str()), "a token stands in the log, at its most talkative");
        }
    })
    .await;
}
