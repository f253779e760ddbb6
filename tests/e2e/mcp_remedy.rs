//! A tool of an MCP server as a remedy: called at most once, whatever dies, and not trusted before the component is healthy.

use std::{path::Path, sync::atomic::Ordering, time::Duration};

use kube::ResourceExt as _;
use panacea::api::{Phase, Remediation};
use serde_json::{Value, json};

use crate::support::{
    cluster::{Test, env, run},
    gate::{Gate, Side},
    objects::{merge, policy},
    operator::{Operator, Options},
    role::Role,
    tools::Tools,
    wait,
};

const TOKEN: &str = "tok-3nmyCDGBKInavdOK15jsl";

fn remedy(url: &str, tool: &str, more: &Value) -> Value {
    let mut mcp = json!({"url": url, "tool": tool, "arguments": {"service": "$(component)"}});
    merge(&mut mcp, more);
    json!({"action": "Mcp", "mcp": mcp})
}

fn with_token() -> Value {
    json!({"tokenSecretRef": {"name": "ops", "key": "token"}})
}

/// Over an HTTP service that nothing else can heal; every tool of it is allowed.
fn over(tools: &Tools, remedies: &[Value]) -> Value {
    let allowed: Vec<Value> =
        remedies.iter().map(|remedy| json!({"url": remedy["mcp"]["url"], "tool": remedy["mcp"]["tool"]})).collect();
    let mut wanted = policy("shop", &["site"], &json!({"spec": {"interval": "1s"}}));
    wanted["spec"]["components"][0]["target"] = json!({"http": {"url": format!("{}/health", tools.address)}});
    wanted["spec"]["components"][0]["remedies"] = json!(remedies);
    wanted["spec"]["detection"] = json!({"confirmAfter": "200ms"});
    wanted["spec"]["safety"]["allowedMcpTools"] = json!(allowed);
    wanted["spec"]["safety"]["circuitBreaker"] = json!({"failureThreshold": 100});
    wanted["spec"]["verification"] = json!({"stabilization": "1s", "timeout": "4s"});
    wanted
}

/// An operator that may read the token.
async fn operator(test: &Test) -> (Role, Operator) {
    let role = Role::with(test, &["rbac.readCredentials=true"]).await;
    let options = Options::default().through(role.kubeconfig()).with("PANACEA_LOG", "debug,rmcp=trace");
    test.make_secret("ops", json!({"token": TOKEN, "wrong": "nonsense"})).await;
    (role, Operator::start(test, options).await)
}

fn message(remediation: &Remediation) -> &str {
    remediation.status.as_ref().map(|status| status.message.as_str()).unwrap_or_default()
}

/// How each ended, in order: (phase, reason).
async fn ends(test: &Test) -> Vec<(Phase, String)> {
    test.outcomes().await.into_iter().map(|(_, phase, reason)| (phase, reason)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tool_heals_in_both_eras_with_the_facts_in_its_arguments_and_is_believed_when_it_helped() {
    run("mcp-heals", async |test| {
        let tools = Tools::start(Some(TOKEN)).await;
        let (_role, operator) = operator(test).await;
        let (older, newer) = (format!("{}/older", tools.address), format!("{}/mcp", tools.address));
        let facts = json!({"arguments": {"why": "$(cause): $(why)", "key": "$(uid)/$(kind)/$(namespace)"}});
        let mut second = remedy(&newer, "restart_service", &with_token());
        merge(&mut second["mcp"], &facts);
        let remedies = [remedy(&older, "looks_away", &with_token()), second];
        test.apply_policy(&over(&tools, &remedies)).await;
        let healed = test.wait_remediation(Phase::Succeeded).await;

        assert_eq!(tools.called(), ["looks_away", "restart_service"]);
        let (_, given) = &tools.calls()[1];
        assert_eq!(given["service"], "site");
        assert!(given["why"].as_str().unwrap().starts_with("Errors: ") && given["why"].to_string().contains("500"));
        assert_eq!(given["key"], json!(format!("{}/Http/{}", healed.uid().unwrap(), test.namespace)));
        // The first answered well, and it helped nobody.
        let first = &test.remediations().await[0];
        assert_eq!(first.status.as_ref().unwrap().phase, Phase::Ineffective, "{}", message(first));
        test.wait_event("Verifying", &healed.name_any(), r#"responded "restarted"; watching whether it helps"#).await;

        test.wait_recorded(&healed.name_any(), Duration::from_secs(20)).await;
        let rows: Vec<_> = operator.action_rows().await.into_iter().map(|row| (row.0, row.1)).collect();
        assert_eq!(rows, [("custom_remedy_failed".to_owned(), false), ("custom_remedy".to_owned(), true)]);
        let told = &operator.action_outputs().await[1];
        assert_eq!(told["tool"], "restart_service");
        assert!(told["called_at"].is_string(), "{told}");
        test.assert_stand_nowhere(&operator, &[TOKEN]).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_says_why_and_whether_anything_was_called_and_the_next_remedy_is_tried() {
    run("mcp-fails", async |test| {
        let tools = Tools::start(Some(TOKEN)).await;
        let (_role, operator) = operator(test).await;
        let at = |path: &str| format!("{}{path}", tools.address);
        let closed = {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            format!("http://{}/mcp", listener.local_addr().unwrap())
        };
        let mut wrong = with_token();
        wrong["tokenSecretRef"]["key"] = json!("wrong");
        let mut misfit = with_token();
        misfit["arguments"] = json!({"sevrice": "api"});
        let steps = [
            (remedy(&closed, "fails", &json!({})), "McpUnreachable", "refused"),
            (remedy(&at("/mcp"), "looks_away", &json!({})), "McpRefused", "401 Unauthorized: the token is missing"),
            (remedy(&at("/mcp"), "hangs", &wrong), "McpRefused", "401 Unauthorized"),
            (remedy(&at("/nowhere"), "fails", &with_token()), "McpRefused", "404"),
            (remedy(&at("/moved"), "fails", &with_token()), "McpRefused", "307"),
            (
                remedy(&at("/mcp"), "resart", &with_token()),
                "McpNoSuchTool",
                r#"no tool "resart", only restart_service"#,
            ),
            (
                remedy(&at("/mcp"), "restart_service", &misfit),
                "McpBadArguments",
                "sevrice is not an argument of the tool",
            ),
            (remedy(&at("/mcp"), "fails", &with_token()), "McpToolFailed", "no such service; you sent [the token]"),
            (remedy(&at("/mcp"), "asks", &with_token()), "McpWantsInput", "the operator provides none"),
            (remedy(&at("/older"), "asks", &with_token()), "McpWantsInput", "the operator provides none"),
        ];
        let remedies: Vec<Value> = steps.iter().map(|(remedy, ..)| remedy.clone()).collect();
        test.apply_policy(&over(&tools, &remedies)).await;
        wait::until("the ladder to be climbed", Duration::from_secs(150), async || {
            let ends = ends(test).await;
            if ends.len() == steps.len() && ends.iter().all(|end| end.0.is_final()) {
                Ok(())
            } else {
                Err(format!("{ends:?}"))
            }
        })
        .await;
        let all = test.remediations().await;
        for (found, (remedy, reason, words)) in all.iter().zip(&steps) {
            let status = found.status.as_ref().unwrap();
            assert_eq!(
                (status.phase, status.reason.as_str()),
                (Phase::Failed, *reason),
                "{remedy}: {}",
                status.message
            );
            assert!(status.message.contains(words), "{remedy}: {}", status.message);
            let before = !["McpToolFailed", "McpWantsInput"].contains(reason);
            assert_eq!(status.message.contains("nothing was called"), before, "{}", status.message);
            assert_eq!(status.progress.is_some(), !before, "{status:?}");
        }
        assert_eq!(tools.called(), ["fails", "asks", "asks"]);
        assert_eq!(tools.went_elsewhere(), 0, "a redirect was followed");
        test.assert_stand_nowhere(&operator, &[TOKEN]).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_is_no_reason_to_call_again_and_the_components_health_decides() {
    run("mcp-lost", async |test| {
        let tools = Tools::start(None).await;
        let _operator = Operator::start(test, Options::default()).await;
        let at = format!("{}/mcp", tools.address);
        let remedies = [
            remedy(&at, "hangs", &json!({"timeout": "2s"})),
            remedy(&at, "chatters", &json!({})),
            remedy(&format!("{}/older", tools.address), "chatters", &json!({})),
            remedy(&at, "breaks", &json!({})),
        ];
        test.apply_policy(&over(&tools, &remedies)).await;
        let healed = test.wait_remediation(Phase::Succeeded).await;
        assert_eq!(tools.called(), ["hangs", "chatters", "chatters", "breaks"], "each once");
        let all = test.remediations().await;
        for one in &all[..3] {
            assert_eq!(one.status.as_ref().unwrap().phase, Phase::Ineffective, "{}", message(one));
        }
        let words = ["no response within 2s", "exceeded the maximum size", "unknown: ", "unknown: "];
        for (remediation, words) in all.iter().zip(words) {
            test.wait_event("Verifying", &remediation.name_any(), words).await;
            test.wait_event("Verifying", &remediation.name_any(), "it is not called again").await;
        }
        assert_eq!(healed.name_any(), all[3].name_any());
    })
    .await;
}

/// Killed before the call is noted, when it is noted and not made, and while it is made.
#[tokio::test(flavor = "multi_thread")]
async fn killed_around_the_call_it_is_made_once_at_most() {
    run("mcp-killed", async |test| {
        let tools = Tools::start(None).await;
        let gate = Gate::start(Path::new(&env("PANACEA_KUBECONFIG"))).await;
        let options = Options::default().through(gate.kubeconfig());
        let mut operator = Operator::start(test, options).await;
        let at = format!("{}/mcp", tools.address);
        let slow = json!({"timeout": "5m"});
        let remedies = [remedy(&at, "looks_away", &json!({})), remedy(&at, "hangs", &slow)];
        let mut held = gate.hold(Side::Request, |seen| seen.body.contains("calledAt"));
        test.apply_policy(&over(&tools, &remedies)).await;
        held.reached().await;
        operator.kill9();
        drop(held);
        assert_eq!(ends(test).await, [(Phase::Running, "Acting".to_owned())], "the intent is there before the call");
        assert!(tools.calls().is_empty());

        let mut held = gate.hold(Side::Answer, |seen| seen.body.contains("calledAt"));
        operator.spawn();
        held.reached().await;
        operator.kill9();
        drop(held);
        assert!(tools.calls().is_empty());
        operator.spawn();
        // That it was noted is all that is known: it is not called, and did not help.
        wait::until("the second call", Duration::from_secs(90), async || {
            if tools.called() == ["hangs"] {
                Ok(())
            } else {
                Err(format!("{:?} {:?}", tools.called(), ends(test).await))
            }
        })
        .await;
        assert_eq!(test.remediations().await[0].status.as_ref().unwrap().phase, Phase::Ineffective);

        operator.kill9();
        tools.well.store(true, Ordering::SeqCst);
        operator.spawn();
        let healed = test.wait_remediation(Phase::Succeeded).await;
        test.wait_event("Verifying", &healed.name_any(), "the operator ended before the answer was stored").await;
        assert_eq!(tools.called(), ["hangs"], "once, whatever died");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tool_that_is_not_allowed_any_more_is_not_called() {
    run("mcp-allowed", async |test| {
        let tools = Tools::start(None).await;
        let _operator = Operator::start(test, Options::default()).await;
        let mut step = remedy(&format!("{}/mcp", tools.address), "restart_service", &json!({}));
        step["approval"] = json!("Required");
        test.apply_policy(&over(&tools, &[step])).await;
        let waiting = test.wait_remediation(Phase::AwaitingApproval).await;
        test.patch_policy("shop", json!({"spec": {"safety": {"allowedMcpTools": null}}})).await;
        let (reason, message) = test.wait_condition("shop", "Ready", "False", Duration::from_secs(20)).await;
        assert_eq!(reason, "InvalidSpec", "{message}");
        assert!(
            message.contains("spec.components[0].remedies[0].mcp.tool")
                && message.contains("spec.safety.allowedMcpTools"),
            "{message}"
        );
        test.approve(&waiting.name_any()).await;
        let ended = test.wait_ended(&waiting.name_any()).await.status.unwrap();
        assert_eq!((ended.phase, ended.reason.as_str()), (Phase::Expired, "ComponentGone"), "{}", ended.message);
        assert!(tools.calls().is_empty());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_may_not_be_read_is_reported_before_the_action_starts() {
    run("mcp-secret", async |test| {
        let tools = Tools::start(Some(TOKEN)).await;
        let role = Role::with(test, &[]).await;
        let _operator = Operator::start(test, Options::default().through(role.kubeconfig())).await;
        let at = format!("{}/mcp", tools.address);
        let remedies = [remedy(&at, "restart_service", &with_token()), remedy(&at, "looks_away", &json!({}))];
        test.apply_policy(&over(&tools, &remedies)).await;
        let refused = test.wait_remediation(Phase::Failed).await;
        assert_eq!(refused.status.as_ref().unwrap().reason, "McpRefused", "{}", message(&refused));
        let first = &test.remediations().await[0];
        assert_eq!(ends(test).await[0], (Phase::Expired, "Forbidden".to_owned()), "{}", message(first));
        assert!(message(first).contains("not allowed to get secrets"), "{}", message(first));
        test.wait_event("Blocked", &first.name_any(), "rbac.readCredentials").await;
        assert!(tools.calls().is_empty());
    })
    .await;
}
