//! Which action goes with which target, cause and parameter: the Rust validation and the CEL rules of the CRD, both generated
//! from the targets' capabilities, say what is written here.

use std::collections::BTreeSet;

use panacea::api::{
    ActionKind, Capabilities, Cause, HealingPolicy, TARGETS, ValidPolicy, default_thresholds, rules_of_causes,
    rules_of_parameters, rules_of_target,
};
use serde_json::{Value, json};
use strum::IntoEnumIterator as _;

use ActionKind::{
    CancelQueries, CleanupMemory, Failover, Job, Mcp, RecoverConnections, ReleaseConnections, Restart, Rollback,
    RollbackConfig, RollbackState, Scale, Webhook,
};

/// A target as a policy names it, its supported actions, and its default actions.
struct Expected {
    noun: &'static str,
    target: Value,
    actions: &'static [ActionKind],
    by_default: &'static [ActionKind],
}

fn expected() -> Vec<Expected> {
    const DEFAULT: &[ActionKind] = &[Rollback, RollbackConfig, RollbackState, CleanupMemory, Restart];
    const ALL: &[ActionKind] =
        &[Rollback, RollbackConfig, RollbackState, CleanupMemory, Restart, Scale, Job, Webhook, Mcp];
    let of = |noun, target, actions, by_default| Expected { noun, target, actions, by_default };
    let named = json!({"name": "db"});
    vec![
        of("a Deployment", json!({"deployment": named}), ALL, DEFAULT),
        of("a StatefulSet", json!({"statefulSet": named}), ALL, DEFAULT),
        of(
            "a DaemonSet",
            json!({"daemonSet": named}),
            &[Rollback, RollbackConfig, RollbackState, CleanupMemory, Restart, Job, Webhook, Mcp],
            DEFAULT,
        ),
        of(
            "a Rollout",
            json!({"rollout": named}),
            &[Rollback, RollbackConfig, CleanupMemory, Restart, Scale, Job, Webhook, Mcp],
            &[Rollback, RollbackConfig, CleanupMemory, Restart],
        ),
        of(
            "a render target",
            json!({"render": {"serviceId": "srv-1"}}),
            &[Rollback, RollbackConfig, RollbackState, Restart, Scale, Job, Webhook, Mcp],
            &[Rollback, Restart],
        ),
        of(
            "a Render Postgres",
            json!({"render": {"postgresId": "dpg-1"}}),
            &[Restart, Failover, Job, Webhook, Mcp],
            &[],
        ),
        of("a vercel target", json!({"vercel": {"projectId": "prj_1"}}), &[Rollback, Job, Webhook, Mcp], &[Rollback]),
        of(
            "a github target",
            json!({"github": {"repository": "octo-org/shop", "environment": "production"}}),
            &[Rollback, Job, Webhook, Mcp],
            &[Rollback],
        ),
        of(
            "a postgres target",
            json!({"postgres": {"connectionSecretRef": named, "workloadRef": {"kind": "StatefulSet", "name": "db"}}}),
            &[RecoverConnections, ReleaseConnections, CancelQueries, Restart, Job, Webhook, Mcp],
            &[RecoverConnections, ReleaseConnections],
        ),
        of("an http target", json!({"http": {"url": "http://db/health"}}), &[Job, Webhook, Mcp], &[]),
    ]
}

/// The causes that an action may name.
fn causes(action: ActionKind) -> Vec<Cause> {
    match action {
        Rollback => vec![Cause::ReleaseRegression],
        RollbackConfig => vec![Cause::ConfigRegression],
        RollbackState => vec![Cause::ReleaseRegression, Cause::ConfigRegression],
        CleanupMemory => vec![Cause::Exhaustion],
        RecoverConnections => vec![Cause::Unreachable],
        ReleaseConnections | CancelQueries => vec![Cause::Exhaustion, Cause::Errors],
        Failover => vec![Cause::Unreachable, Cause::Errors],
        Restart | Scale | Job | Webhook | Mcp => Cause::iter().collect(),
    }
}

/// Field, value, the actions that have it, and those of them that need it.
fn parameters() -> [(&'static str, Value, &'static [ActionKind], &'static [ActionKind]); 7] {
    [
        ("hook", json!({"url": "http://db/gc"}), &[CleanupMemory], &[]),
        ("scale", json!({"by": "+1", "max": 5}), &[Scale], &[Scale]),
        ("job", json!({"templateRef": {"name": "jobs", "key": "fix"}}), &[Job], &[Job]),
        ("webhook", json!({"url": "http://ops/heal"}), &[Webhook], &[Webhook]),
        ("mcp", json!({"url": "https://ops/mcp", "tool": "heal"}), &[Mcp], &[Mcp]),
        ("reconnect", json!({"delays": ["1s"]}), &[RecoverConnections], &[]),
        ("sessions", Value::Null, &[ReleaseConnections, CancelQueries], &[CancelQueries]),
    ]
}

fn value(field: &str, value: &Value, action: ActionKind) -> Value {
    match (field, action) {
        ("sessions", CancelQueries) => json!({"runningLongerThan": "1m"}),
        ("sessions", _) => json!({"idleLongerThan": "1m"}),
        _ => value.clone(),
    }
}

/// A remedy with all that its action needs.
fn remedy(action: ActionKind) -> Value {
    let mut remedy = json!({"action": action});
    for (field, example, _, needing) in parameters() {
        if needing.contains(&action) {
            remedy[field] = value(field, &example, action);
        }
    }
    remedy
}

/// The mistakes of a policy with this target and these remedies, and the actions of its ladder.
fn read(target: &Value, remedies: Option<Value>) -> (Vec<String>, Vec<ActionKind>) {
    let mut component = json!({"name": "db", "target": target});
    if let Some(remedies) = remedies {
        component["remedies"] = remedies;
    }
    let allowed = json!([{"url": "https://ops/mcp", "tool": "heal"}]);
    let spec = json!({"components": [component], "safety": {"allowedMcpTools": allowed}});
    let policy = HealingPolicy::new("shop", serde_json::from_value(spec).unwrap());
    let valid = ValidPolicy::new(&policy, &default_thresholds()).unwrap();
    let ladder = valid.components.iter().flat_map(|component| &component.remedies);
    let ladder = ladder.map(|remedy| remedy.action.kind()).collect();
    (valid.invalid.into_iter().map(|invalid| invalid.message).collect(), ladder)
}

fn capabilities(noun: &str) -> &'static Capabilities {
    TARGETS.into_iter().find(|target| target.noun == noun).unwrap_or_else(|| panic!("no target is {noun}"))
}

#[test]
fn the_validation_accepts_exactly_the_expected_actions_for_the_expected_causes() {
    assert_eq!(TARGETS.len(), expected().len(), "each target has its expectation here");
    for Expected { noun, target, actions, by_default } in expected() {
        for action in ActionKind::iter() {
            for cause in Cause::iter() {
                let mut remedy = remedy(action);
                remedy["for"] = json!([cause]);
                let (mistakes, _) = read(&target, Some(json!([remedy])));
                let right = actions.contains(&action) && causes(action).contains(&cause);
                assert_eq!(mistakes.is_empty(), right, "{action} for {cause} of {noun}: {mistakes:?}");
            }
            let (mistakes, _) = read(&target, Some(json!([remedy(action)])));
            assert_eq!(mistakes.is_empty(), actions.contains(&action), "{action} of {noun}: {mistakes:?}");
            let named = mistakes.first().is_none_or(|told| {
                told.contains("spec.components[0].remedies[0].action: ")
                    && told.contains(&format!("{noun} does not support {action}, only "))
                    && told.contains("remove it")
            });
            assert!(named, "field, value and fix are named: {mistakes:?}");
        }
        assert_eq!(read(&target, None), (Vec::new(), by_default.to_vec()), "{noun}");
    }
}

#[test]
fn a_restart_of_a_database_needs_its_workload() {
    let target = json!({"postgres": {"connectionSecretRef": {"name": "db"}}});
    let (mistakes, _) = read(&target, Some(json!([remedy(Restart)])));
    let [told] = mistakes.as_slice() else { panic!("{mistakes:?}") };
    assert!(told.contains("Restart of a postgres target needs target.postgres.workloadRef"), "{told}");
    for action in [RecoverConnections, ReleaseConnections, CancelQueries, Job] {
        assert_eq!(read(&target, Some(json!([remedy(action)]))).0, Vec::<String>::new(), "{action}");
    }
}

#[test]
fn a_parameter_goes_with_its_actions_and_no_other() {
    for Expected { target, actions, .. } in expected() {
        for action in actions {
            for (field, example, users, needing) in parameters() {
                let mut with = remedy(*action);
                with[field] = value(field, &example, *action);
                let (mistakes, _) = read(&target, Some(json!([with])));
                assert_eq!(mistakes.is_empty(), users.contains(action), "{field} of {action}: {mistakes:?}");
                let mut without = remedy(*action);
                without.as_object_mut().unwrap().remove(field);
                let (mistakes, _) = read(&target, Some(json!([without])));
                assert_eq!(mistakes.is_empty(), !needing.contains(action), "no {field} of {action}: {mistakes:?}");
            }
        }
    }
}

/// The names in the first list after `before`: `r.action in ['A', 'B']`.
fn names(rule: &str, before: &str) -> BTreeSet<String> {
    let list = rule.split_once(before).unwrap_or_else(|| panic!("no {before:?} in {rule}")).1;
    let list = list.strip_prefix('[').unwrap().split(']').next().unwrap();
    list.split(", ").map(|name| name.trim_matches('\'').to_owned()).collect()
}

fn words<T: ToString>(items: &[T]) -> BTreeSet<String> {
    items.iter().map(T::to_string).collect()
}

#[test]
fn the_cel_rules_list_exactly_the_expected_actions() {
    for Expected { noun, actions, .. } in expected() {
        let target = capabilities(noun);
        let rules = rules_of_target(target);
        let selector = format!("!({}) || ", target.selector);
        assert!(rules.iter().all(|rule| rule.rule.starts_with(&selector)), "{noun}");
        assert_eq!(names(&rules[0].rule, "r.action in "), words(actions), "{noun}");
        let needs: Vec<&str> = rules[1..].iter().map(|rule| rule.rule.as_str()).collect();
        let restart = "!(has(self.target.postgres)) || !has(self.remedies) || has(self.target.postgres.workloadRef) || self.remedies.all(r, r.action != 'Restart')";
        let expected: &[&str] = if noun == "a postgres target" { &[restart] } else { &[] };
        assert_eq!(needs, expected, "{noun}");
    }
}

#[test]
fn the_cel_rules_list_exactly_the_expected_causes_and_parameters() {
    let rules = rules_of_causes();
    for action in ActionKind::iter() {
        let action_name: &str = action.into();
        let mut own = rules.iter().filter(|rule| names(&rule.rule, "self.action in ").contains(action_name));
        match causes(action) {
            all if all.len() == Cause::iter().count() => assert!(own.next().is_none(), "{action}"),
            causes => {
                let rule = own.next().unwrap_or_else(|| panic!("no rule limits {action}"));
                assert_eq!(names(&rule.rule, "cause in "), words(&causes), "{action}");
            }
        }
    }
    let rules: Vec<String> = rules_of_parameters().into_iter().map(|rule| rule.rule).collect();
    let expected = [
        "!has(self.hook) || self.action in ['CleanupMemory']",
        "has(self.scale) == (self.action == 'Scale')",
        "has(self.job) == (self.action == 'Job')",
        "has(self.webhook) == (self.action == 'Webhook')",
        "has(self.mcp) == (self.action == 'Mcp')",
        "!has(self.reconnect) || self.action in ['RecoverConnections']",
        "!has(self.sessions) || self.action in ['ReleaseConnections', 'CancelQueries']",
        "!(self.action in ['CancelQueries']) || has(self.sessions)",
    ];
    assert_eq!(rules, expected);
}

#[test]
fn the_generated_rules_and_texts_are_in_the_schema() {
    let crds = serde_json::to_value(panacea::api::crds()).unwrap();
    let spec = &crds[0]["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
    let component = &spec["properties"]["components"]["items"];
    let remedies = &component["properties"]["remedies"];
    let rules_at = |schema: &Value| -> BTreeSet<String> {
        let rules = schema["x-kubernetes-validations"].as_array().unwrap().iter();
        rules.map(|rule| rule["rule"].as_str().unwrap().to_owned()).collect()
    };
    let (of_component, of_remedy) = (rules_at(component), rules_at(&remedies["items"]));
    for rule in TARGETS.iter().flat_map(|target| rules_of_target(target)) {
        assert!(of_component.contains(&rule.rule), "{}", rule.rule);
    }
    for rule in rules_of_causes().into_iter().chain(rules_of_parameters()) {
        assert!(of_remedy.contains(&rule.rule), "{}", rule.rule);
    }
    let names = of_component.iter().find(|rule| rule.contains("self.thresholds.all(k, k in ")).unwrap();
    for name in TARGETS.iter().flat_map(|target| target.metrics).map(|metric| metric.name) {
        assert!(names.contains(&format!("'{name}'")), "{name}");
    }
    // Each field of a target is in the rule that allows one alone.
    let target = &component["properties"]["target"];
    let fields: BTreeSet<&str> = target["properties"].as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(fields, TARGETS.iter().map(|target| target.field).collect());
    let one = rules_at(target);
    assert!(fields.iter().all(|field| one.iter().any(|rule| rule.contains(&format!("has(self.{field})")))), "{one:?}");
    for (field, text) in [
        ("remedies", "an http target: none"),
        ("thresholds", "a postgres target: connections_usage 80/95, storage_usage 80/95, wraparound_usage 40/75"),
        ("target", "Exactly one field is set: deployment, statefulSet"),
    ] {
        let told = component["properties"][field]["description"].as_str().unwrap();
        assert!(told.contains(text), "{told}");
    }
}

#[test]
fn what_is_done_by_default_is_supported_and_helps() {
    for target in TARGETS {
        for (action, causes) in target.default_remedies {
            let supported = target.find(*action).unwrap_or_else(|| panic!("{action} of {}", target.noun));
            assert!(supported.needs.is_none(), "{action} of {} needs more than a target", target.noun);
            assert!(causes.iter().all(|cause| action.helps_against(*cause)), "{action} of {}", target.noun);
            assert!(action.facts().parameter.is_none_or(|parameter| !parameter.required), "{action}");
        }
    }
}
