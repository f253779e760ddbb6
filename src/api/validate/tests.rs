//! Each mistake that the API server's rules let through, or that an object stored under older rules may hold, is named
//! by field, value and fix; and what is wrong with one component leaves the others.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::api::{ActionKind, Intent, Safety, default_thresholds};

fn parse(spec: Value) -> Result<ValidPolicy, Vec<Invalid>> {
    let policy = HealingPolicy::new("shop", serde_json::from_value(spec).unwrap());
    ValidPolicy::new(&policy, &default_thresholds())
}

fn api() -> Value {
    json!({"name": "api", "target": {"deployment": {"name": "api"}}})
}

/// `fields` are merged over a right component named `web`.
fn component(fields: Value) -> Value {
    let mut component = json!({"name": "web", "target": {"deployment": {"name": "web"}}});
    component.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    component
}

fn metric(name: &str, query: &str, url: Option<&str>) -> Value {
    let mut prometheus = json!({"query": query});
    if let Some(url) = url {
        prometheus["url"] = json!(url);
    }
    json!({"name": name, "prometheus": prometheus})
}

#[test]
fn the_smallest_policy_gets_the_defaults() {
    let policy = parse(json!({"components": [api()]})).unwrap();
    let limits = &policy.limits;
    assert_eq!(policy.invalid, []);
    assert_eq!((policy.mode, policy.suspend, policy.interval), (Mode::Auto, false, Duration::from_secs(60)));
    assert_eq!((limits.unhealthy_after, limits.healthy_after, limits.confirm_after), (2, 2, Duration::from_secs(2)));
    assert_eq!(
        (limits.release_watch_every, limits.release_watch_for),
        (Duration::from_secs(1), SignedDuration::from_mins(5))
    );
    assert_eq!((limits.max_unhealthy, limits.max_concurrent, limits.budget_actions), (1, 1, 3));
    assert_eq!((limits.budget_window, limits.cooldown), (SignedDuration::from_hours(1), SignedDuration::from_mins(5)));
    assert_eq!((limits.breaker_threshold, limits.breaker_recovery), (5, SignedDuration::from_secs(60)));
    assert_eq!((limits.approval_timeout, limits.on_timeout), (SignedDuration::from_mins(30), OnTimeout::Reject));
    assert_eq!(
        (limits.stabilization, limits.verification_timeout),
        (SignedDuration::from_mins(2), SignedDuration::from_mins(10))
    );
    let component = policy.component("api").unwrap();
    let judged: Vec<&str> = component.thresholds.keys().map(String::as_str).collect();
    assert_eq!(judged, ["error_rate", "latency_ms"], "nobody asked for CPU and memory");
    let asked = json!({"name": "api", "target": {"deployment": {"name": "api"}}, "metrics": [metric("cpu_usage", "up", None)], "thresholds": {"memory_usage": {"warning": 1, "critical": 2}}});
    let asked = parse(json!({"components": [asked]})).unwrap();
    assert_eq!(asked.components[0].thresholds["cpu_usage"], default_thresholds()["cpu_usage"]);
    assert_eq!(asked.components[0].thresholds["memory_usage"].critical, 2.0);
    let ladder: Vec<_> =
        component.remedies.iter().map(|remedy| (remedy.action.kind(), remedy.causes.as_slice())).collect();
    let restart = [Cause::Crash, Cause::Exhaustion, Cause::Errors];
    assert_eq!(
        ladder,
        [
            (ActionKind::Rollback, [Cause::ReleaseRegression].as_slice()),
            (ActionKind::RollbackConfig, [Cause::ConfigRegression].as_slice()),
            (ActionKind::RollbackState, [Cause::ReleaseRegression, Cause::ConfigRegression].as_slice()),
            (ActionKind::CleanupMemory, [Cause::Exhaustion].as_slice()),
            (ActionKind::Restart, restart.as_slice())
        ]
    );
    // What is filled in by serde here is what the API server fills in from the schema's defaults.
    assert_eq!(serde_json::to_value(Safety::default()).unwrap()["maxUnhealthy"], json!("50%"));
}

#[test]
fn a_mistake_that_concerns_all_is_named_by_field_value_and_fix() {
    for (spec, field, words) in [
        (json!({"interval": "often"}), "spec.interval", "\"often\" is not a duration; write for example \"30s\""),
        (json!({"interval": "60"}), "spec.interval", "\"60\" is not a duration"),
        (json!({"interval": "2h"}), "spec.interval", "2h is out of range; it must be from 1s to 1h"),
        (
            json!({"detection": {"unhealthyAfter": 0}}),
            "spec.detection.unhealthyAfter",
            "0 is out of range; it must be from 1 to 20",
        ),
        (json!({"detection": {"healthyAfter": 21}}), "spec.detection.healthyAfter", "21 is out of range"),
        (json!({"detection": {"confirmAfter": "1ms"}}), "spec.detection.confirmAfter", "must be from 100ms to 10m"),
        (json!({"releaseWatch": {"every": "0s"}}), "spec.releaseWatch.every", "must be from 1s to 1m"),
        (json!({"releaseWatch": {"for": "2h"}}), "spec.releaseWatch.for", "must be from 10s to 1h"),
        (json!({"prediction": {"horizon": "1s"}}), "spec.prediction.horizon", "must be from 10m to 24h"),
        (json!({"prediction": {"minProbability": 50.0}}), "spec.prediction.minProbability", "50 is not a probability"),
        (json!({"safety": {"maxUnhealthy": "150%"}}), "spec.safety.maxUnhealthy", "write 2 or \"50%\""),
        (json!({"safety": {"maxConcurrent": 0}}), "spec.safety.maxConcurrent", "must be from 1 to 50"),
        (json!({"safety": {"budget": {"actions": 0}}}), "spec.safety.budget.actions", "must be from 1 to 1000"),
        (json!({"safety": {"budget": {"window": "1s"}}}), "spec.safety.budget.window", "must be from 1m"),
        (json!({"safety": {"cooldown": "-5m"}}), "spec.safety.cooldown", "\"-5m\" is not a duration"),
        (
            json!({"safety": {"circuitBreaker": {"failureThreshold": 101}}}),
            "spec.safety.circuitBreaker.failureThreshold",
            "from 1 to 100",
        ),
        (
            json!({"safety": {"circuitBreaker": {"recoveryTimeout": "0s"}}}),
            "spec.safety.circuitBreaker.recoveryTimeout",
            "from 1s",
        ),
        (json!({"approval": {"timeout": "9999999h"}}), "spec.approval.timeout", "out of range"),
        (
            json!({"verification": {"stabilization": "5m", "timeout": "5m"}}),
            "spec.verification.timeout",
            "5m must be longer than verification.stabilization, 5m",
        ),
        (json!({"components": []}), "spec.components", "is empty; name at least one component"),
    ] {
        let mut full = json!({"components": [api()]});
        full.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        let found = parse(full).unwrap_err();
        assert_eq!(found.len(), 1, "{spec}: {found:?}");
        assert_eq!((found[0].field.as_str(), &found[0].component), (field, &None), "{spec}");
        assert!(
            found[0].message.starts_with(field) && found[0].message.contains(words),
            "{spec}: {:?}",
            found[0].message
        );
    }
}

#[test]
fn all_mistakes_are_reported_at_once() {
    let spec = json!({"interval": "x", "safety": {"cooldown": "y", "maxUnhealthy": "z"}, "components": []});
    let fields: Vec<String> = parse(spec).unwrap_err().into_iter().map(|invalid| invalid.field).collect();
    assert_eq!(fields, ["spec.interval", "spec.safety.maxUnhealthy", "spec.safety.cooldown", "spec.components"]);
}

#[test]
fn each_kind_of_workload_has_its_default_ladder() {
    let ladder = |policy: &ValidPolicy| -> Vec<ActionKind> {
        policy.components[0].remedies.iter().map(|remedy| remedy.action.kind()).collect()
    };
    for (field, described) in [
        ("deployment", "Deployment/db"),
        ("statefulSet", "StatefulSet/db"),
        ("daemonSet", "DaemonSet/db"),
        ("rollout", "Rollout/db"),
    ] {
        let target = json!({field: {"name": "db"}});
        let policy = parse(json!({"components": [{"name": "db", "target": target}]})).unwrap();
        assert_eq!(
            (policy.invalid.as_slice(), policy.components[0].target.describe()),
            (&[][..], described.to_owned())
        );
        let mut expected = vec![
            ActionKind::Rollback,
            ActionKind::RollbackConfig,
            ActionKind::RollbackState,
            ActionKind::CleanupMemory,
            ActionKind::Restart,
        ];
        // A whole state would be a new template, which goes through all steps.
        expected.retain(|action| field != "rollout" || *action != ActionKind::RollbackState);
        assert_eq!(ladder(&policy), expected);
    }
}

#[test]
fn a_mistake_in_one_component_leaves_the_others() {
    let http = |url: &str| json!({"target": {"http": {"url": url}}});
    let hook = |hook: Value| json!({"remedies": [{"action": "CleanupMemory", "hook": hook}]});
    for (fields, field, words) in [
        (
            json!({"target": {}}),
            "target",
            "set exactly one of deployment, statefulSet, daemonSet, rollout, render, vercel, github, postgres, http",
        ),
        (json!({"target": {"deployment": {"name": "a"}, "http": {"url": "http://a/"}}}), "target", "set exactly one"),
        (
            json!({"target": {"statefulSet": {"name": "a"}, "daemonSet": {"name": "a"}}}),
            "target",
            "has 2 fields set; set exactly one",
        ),
        (
            json!({"target": {"rollout": {"name": "a"}}, "remedies": [{"action": "RollbackState"}]}),
            "remedies[0].action",
            "a Rollout has no RollbackState",
        ),
        (json!({"name": "api"}), "name", "\"api\" is used twice"),
        (
            json!({"thresholds": {"latency_ms": {"warning": 9.0, "critical": 8.0}}}),
            "thresholds.latency_ms",
            "warning 9 must be below critical 8",
        ),
        (
            json!({"thresholds": {"latency_ms": {"warning": 8.0, "critical": 8.0}}}),
            "thresholds.latency_ms",
            "must be below",
        ),
        (json!({"metrics": [metric("queue", "up", None)]}), "metrics[0].name", "add thresholds.queue"),
        (
            json!({"metrics": [metric("error_rate", "a", None), metric("error_rate", "b", None)]}),
            "metrics[1].name",
            "measured twice",
        ),
        (
            json!({"metrics": [metric("error_rate", " \n", None)]}),
            "metrics[0].prometheus.query",
            "is empty; write a PromQL query",
        ),
        (
            json!({"metrics": [metric("error_rate", "up", Some("prometheus:9090"))]}),
            "metrics[0].prometheus.url",
            "must start with http:// or https://",
        ),
        (
            json!({"metrics": [metric("error_rate", "up", Some("http://u:hunter2@p/"))]}),
            "metrics[0].prometheus.url",
            "holds credentials",
        ),
        (http("web.example.com"), "target.http.url", "is not a URL"),
        (http("ftp://web.example.com"), "target.http.url", "must start with http:// or https://"),
        (http("https://web.example.com:port/"), "target.http.url", "is not a URL"),
        (http("https://u:hunter2@web.example.com/"), "target.http.url", "holds credentials"),
        (
            json!({"target": {"http": {"url": "http://a/", "timeout": "1m"}}}),
            "target.http.timeout",
            "must be from 100ms to 10s",
        ),
        (
            json!({"target": {"http": {"url": "http://a/", "json": {"path": "x[", "equals": ""}}}}),
            "target.http.json.path",
            "only names and indexes are supported, for example $.status",
        ),
        (
            json!({"target": {"http": {"url": "http://a/"}}, "remedies": [{"action": "Restart"}]}),
            "remedies[0].action",
            "an http target does not support Restart, only Job, Webhook and Mcp; remove it",
        ),
        (json!({"target": {"render": {"serviceId": "srv-1/2"}}}), "target.render.serviceId", "it is like srv-d1x2y3z4"),
        (render(json!({"serviceId": "dpg-1-a"})), "target.render.serviceId", "the id of a Postgres; write postgresId"),
        (render(json!({"postgresId": "srv-1"})), "target.render.postgresId", "it is like dpg-d1x2y3z4-a"),
        (render(json!({})), "target.render", "exactly one of serviceId and postgresId"),
        (render(json!({"serviceId": "srv-1", "postgresId": "dpg-1"})), "target.render", "exactly one of"),
        (
            json!({"target": {"render": {"postgresId": "dpg-1"}}, "remedies": [{"action": "Rollback"}]}),
            "remedies[0].action",
            "a Render Postgres does not support Rollback, only Restart, Failover, Job",
        ),
        (
            json!({"remedies": [{"action": "Failover"}]}),
            "remedies[0].action",
            "a Deployment does not support Failover, only Rollback",
        ),
        (
            json!({"target": {"render": {"postgresId": "dpg-1"}}, "remedies": [{"action": "Failover", "for": ["Exhaustion"]}]}),
            "remedies[0].for",
            "cannot help against Exhaustion; write [Unreachable, Errors]",
        ),
        (json!({"target": {"vercel": {"projectId": "shop"}}}), "target.vercel.projectId", "it is like prj_a1B2c3"),
        (
            json!({"target": {"vercel": {"projectId": "prj_1", "teamId": "shop"}}}),
            "target.vercel.teamId",
            "not the team's name",
        ),
        (
            json!({"target": {"vercel": {"projectId": "prj_1"}}, "remedies": [{"action": "Restart"}]}),
            "remedies[0].action",
            "nothing that could be restarted",
        ),
        (github(json!({"repository": "shop"})), "target.github.repository", "it is like octo-org/shop"),
        (github(json!({"repository": "octo-org/.."})), "target.github.repository", "it is like octo-org/shop"),
        (github(json!({"environment": "a;b"})), "target.github.environment", "it is like production"),
        (
            github(json!({"workflow": {"file": "../rollback.yml"}})),
            "target.github.workflow.file",
            "it is like rollback.yml",
        ),
        (
            github(json!({"workflow": {"file": "rollback.yml", "ref": "c0ffee0c0ffee0c0ffee0c0ffee0c0ffee0c0ffe"}})),
            "target.github.workflow.ref",
            "no branch or tag",
        ),
        (
            github(json!({"workflow": {"file": "rollback.yml", "inputs": {"sha": "abc"}}})),
            "target.github.workflow.shaInput",
            "remove it from inputs",
        ),
        (
            json!({"target": {"render": {"serviceId": "srv-1"}}, "remedies": [{"action": "CleanupMemory"}]}),
            "remedies[0].action",
            "only Rollback, RollbackConfig, RollbackState, Restart, Scale, Job, Webhook and Mcp",
        ),
        (
            json!({"remedies": [{"action": "Restart"}, {"action": "Rollback", "for": ["Crash"]}]}),
            "remedies[1].for",
            "cannot help against Crash; write [ReleaseRegression]",
        ),
        (
            json!({"remedies": [{"action": "CleanupMemory", "for": ["Exhaustion", "Errors"]}]}),
            "remedies[0].for",
            "cannot help against Errors; write [Exhaustion]",
        ),
        (
            json!({"remedies": [{"action": "RollbackConfig", "for": ["Crash"]}]}),
            "remedies[0].for",
            "cannot help against Crash; write [ConfigRegression]",
        ),
        (
            json!({"remedies": [{"action": "Restart", "hook": {"url": "http://a/gc"}}]}),
            "remedies[0].hook",
            "only the action CleanupMemory has it",
        ),
        (json!({"remedies": [{"action": "Job"}]}), "remedies[0].job", "is missing; the action Job needs it"),
        (
            json!({"remedies": [{"action": "Restart", "webhook": {"url": "http://a/"}}]}),
            "remedies[0].webhook",
            "only the action Webhook has it",
        ),
        (
            json!({"remedies": [{"action": "Job", "job": {"template": {"spec": {"templat": 1}}}}]}),
            "remedies[0].job.template",
            "spec.templat is no field of a Job",
        ),
        (
            json!({"remedies": [{"action": "Job", "job": {"templateRef": {"name": "a", "key": "b"}, "deadline": "7h"}}]}),
            "remedies[0].job.deadline",
            "must be from 1s to 6h",
        ),
        (
            json!({"remedies": [{"action": "Webhook", "webhook": {"url": "http://u:hunter2@a/"}}]}),
            "remedies[0].webhook.url",
            "holds credentials",
        ),
        (json!({"remedies": [{"action": "Mcp"}]}), "remedies[0].mcp", "is missing; the action Mcp needs it"),
        (
            json!({"remedies": [{"action": "Mcp", "mcp": {"url": "https://a/mcp", "tool": "heal"}}]}),
            "remedies[0].mcp.tool",
            "add {url: \"https://a/mcp\", tool: \"heal\"} to spec.safety.allowedMcpTools",
        ),
        (hook(json!({"url": "http://u:hunter2@a/gc"})), "remedies[0].hook.url", "holds credentials"),
        (hook(json!({"url": "a/gc"})), "remedies[0].hook.url", "is not a URL"),
        (hook(json!({"url": "http://a/gc", "timeout": "2m"})), "remedies[0].hook.timeout", "must be from 100ms to 1m"),
    ] {
        let policy = parse(json!({"components": [api(), component(fields.clone())]})).unwrap();
        let names: Vec<&str> = policy.components.iter().map(|component| component.name.as_str()).collect();
        assert_eq!(names, ["api"], "{fields}");
        let [invalid] = policy.invalid.as_slice() else { panic!("{fields}: {:?}", policy.invalid) };
        assert_eq!(invalid.field, format!("spec.components[1].{field}"), "{fields}");
        assert_eq!(invalid.component.as_deref(), fields["name"].as_str().or(Some("web")), "{fields}");
        assert!(invalid.message.contains(words), "{fields}: {:?}", invalid.message);
        assert!(!invalid.message.contains("hunter2"), "a password is shown: {:?}", invalid.message);
    }
}

#[test]
fn a_tool_is_called_only_where_the_policy_allows_it_and_nobody_listens() {
    let of = |mcp: Value| {
        let allowed = ["https://a/mcp", "http://a/mcp", "http://localhost:81/mcp"];
        let allowed = allowed.map(|url| json!({"url": url, "tool": "heal"}));
        let remedies = json!([{"action": "Mcp", "mcp": mcp}]);
        let components = json!([component(json!({"remedies": remedies}))]);
        parse(json!({"components": components, "safety": {"allowedMcpTools": allowed}})).unwrap()
    };
    for url in ["https://a/mcp", "http://localhost:81/mcp"] {
        let policy = of(json!({"url": url, "tool": "heal", "arguments": {"service": "$(name)"}}));
        assert!(policy.invalid.is_empty(), "{url}: {:?}", policy.invalid);
        let ValidAction::Fixed(Intent::Mcp(mcp)) = &policy.components[0].remedies[0].action else {
            panic!("{policy:?}")
        };
        assert_eq!(mcp.url, url);
    }
    for (mcp, field, words) in [
        (json!({"url": "http://a/mcp", "tool": "heal"}), "url", "must start with https://"),
        (
            json!({"url": "https://a/mcp", "tool": "kill"}),
            "tool",
            "add {url: \"https://a/mcp\", tool: \"kill\"} to spec",
        ),
        (json!({"url": "https://a/mcp/", "tool": "heal"}), "tool", "spec.safety.allowedMcpTools"),
        (json!({"url": "https://a/mcp", "tool": "heal", "arguments": {"a": "$(b)"}}), "arguments", "has $(b)"),
        (json!({"url": "https://a/mcp", "tool": "heal", "timeout": "1h"}), "timeout", "must be from 1s to 10m"),
    ] {
        let policy = of(mcp.clone());
        let [invalid] = policy.invalid.as_slice() else { panic!("{mcp}: {:?}", policy.invalid) };
        assert_eq!(invalid.field, format!("spec.components[0].remedies[0].mcp.{field}"), "{mcp}");
        assert!(invalid.message.contains(words), "{mcp}: {}", invalid.message);
    }
}

#[test]
fn a_hosted_service_has_the_remedies_that_its_provider_can_do_and_the_policys_breaker() {
    let key = json!({"name": "render", "key": "apiKey"});
    let target = json!({"render": {"serviceId": "srv-1", "apiKeySecretRef": key}});
    let safety = json!({"circuitBreaker": {"failureThreshold": 2, "recoveryTimeout": "7s"}});
    let policy = parse(json!({"components": [component(json!({"target": target}))], "safety": safety})).unwrap();
    let component = &policy.components[0];
    let actions: Vec<ActionKind> = component.remedies.iter().map(|remedy| remedy.action.kind()).collect();
    assert_eq!(actions, [ActionKind::Rollback, ActionKind::Restart]);
    let ValidTarget::Render(service) = &component.target else { panic!("{:?}", component.target) };
    assert_eq!((service.access.failure_threshold, service.access.recovery_timeout), (2, Duration::from_secs(7)));
    assert_eq!(service.access.key.as_ref().map(|key| key.name.as_str()), Some("render"));
    assert_eq!(component.target.describe(), "Render/srv-1");
    assert!(component.thresholds.contains_key("error_rate") && !component.thresholds.contains_key("cpu_usage"));
}

#[test]
fn a_render_postgres_has_no_default_remedies() {
    let policy = parse(json!({"components": [component(render(json!({"postgresId": "dpg-1-a"})))]})).unwrap();
    let component = &policy.components[0];
    assert!(component.remedies.is_empty());
    assert_eq!(component.target.describe(), "Render/dpg-1-a");
    assert_eq!(component.thresholds["connections_usage"], Threshold { warning: 80.0, critical: 95.0 });
    assert!(component.ceilings.contains_key("storage_usage") && !component.ceilings.contains_key("wraparound_usage"));
}

#[test]
fn a_vercel_project_supports_only_rollback() {
    let target = json!({"vercel": {"projectId": "prj_1", "teamId": "team_1"}});
    let policy = parse(json!({"components": [component(json!({"target": target}))]})).unwrap();
    let component = &policy.components[0];
    let actions: Vec<ActionKind> = component.remedies.iter().map(|remedy| remedy.action.kind()).collect();
    assert_eq!(actions, [ActionKind::Rollback]);
    let ValidTarget::Vercel(project) = &component.target else { panic!("{:?}", component.target) };
    assert_eq!((project.team_id.as_deref(), project.access.key.as_ref()), (Some("team_1"), None));
    assert_eq!(component.target.describe(), "Vercel/prj_1");
}

fn render(fields: Value) -> Value {
    json!({"target": {"render": fields}})
}

/// A github target with these fields over right ones.
fn github(fields: Value) -> Value {
    let mut target = json!({"repository": "octo-org/shop", "environment": "production"});
    target.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    json!({"target": {"github": target}})
}

#[test]
fn a_github_environment_is_rolled_back_by_its_workflow() {
    let wanted = github(json!({"workflow": {"file": "rollback.yml"}}));
    let policy = parse(json!({"components": [component(wanted)]})).unwrap();
    let component = &policy.components[0];
    let actions: Vec<ActionKind> = component.remedies.iter().map(|remedy| remedy.action.kind()).collect();
    assert_eq!(actions, [ActionKind::Rollback]);
    let ValidTarget::Github(environment) = &component.target else { panic!("{:?}", component.target) };
    assert_eq!((environment.owner.as_str(), environment.name.as_str()), ("octo-org", "shop"));
    let workflow = environment.workflow.as_ref().unwrap();
    assert_eq!((workflow.git_ref.as_str(), workflow.sha_input.as_str()), ("main", "sha"));
    assert_eq!(component.target.describe(), "GitHub/octo-org/shop:production");
}

#[test]
fn remedies_mean_what_they_say() {
    let causes = |remedies: Value| {
        let policy = parse(json!({"components": [component(json!({"remedies": remedies}))]})).unwrap();
        let remedies = policy.components[0].remedies.iter();
        remedies.map(|remedy| (remedy.causes.clone(), remedy.approval_required)).collect::<Vec<_>>()
    };
    use Cause::{ConfigRegression, Crash, Errors, Exhaustion, ReleaseRegression, Unreachable};
    assert_eq!(causes(json!([])), []);
    assert_eq!(causes(json!([{"action": "Rollback", "approval": "Required"}])), [(vec![ReleaseRegression], true)]);
    assert_eq!(
        causes(json!([{"action": "Restart"}])),
        [(vec![ReleaseRegression, ConfigRegression, Crash, Unreachable, Exhaustion, Errors], false)]
    );
    assert_eq!(
        causes(json!([{"action": "CleanupMemory", "hook": {"url": "http://a/gc"}}])),
        [(vec![Exhaustion], false)]
    );
    assert_eq!(causes(json!([{"action": "Restart", "for": ["Unknown"]}])), [(vec![Cause::Unknown], false)]);
}

proptest! {
    #[test]
    fn no_text_makes_a_duration_panic(text in any::<String>(), like in "[0-9]{0,22}(ms|s|m|h|d|\\.|-| )?[0-9]{0,22}(ms|s|m|h)?") {
        for text in [text.as_str(), like.as_str()] {
            let parsed = Span::from(text).parse();
            prop_assert!(parsed.is_ok_and(|length| length >= SignedDuration::ZERO) || Span::from(text).parse().is_err());
            let policy = parse(json!({"interval": text, "safety": {"cooldown": text, "maxUnhealthy": text}, "components": [api()]}));
            // What is taken is within its limits.
            if let Ok(policy) = policy {
                prop_assert!(policy.interval >= Duration::from_secs(1) && policy.interval <= Duration::from_secs(3600));
            }
        }
    }

    #[test]
    fn what_was_written_is_what_is_read(hours in 0..10_000_u32, minutes in 0..10_000_u32, ms in 0..10_000_000_u32) {
        let expected = SignedDuration::from_hours(hours.into()) + SignedDuration::from_mins(minutes.into()) + SignedDuration::from_millis(ms.into());
        prop_assert_eq!(Span::from(format!("{hours}h{minutes}m{ms}ms").as_str()).parse(), Ok(expected));
    }
}
