//! The CEL rules of the CRD that say which remedy goes with which target, cause and parameter, and which names thresholds
//! may have; and their place in the schema. All are generated from [`super::Capabilities`] and [`super::ActionFacts`].
//!
//! The API server estimates a rule's cost for 200 components with 10 remedies each. Every rule here is one pass over the
//! remedies with one look-up in a list of constants, or less.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    JSONSchemaProps, JSONSchemaPropsOrArray, ValidationRule,
};
use strum::IntoEnumIterator as _;

use super::{ActionKind, Capabilities, TARGETS, WELL_KNOWN, in_words, target::target_fields, target_texts};

/// `['A', 'B']`.
fn list<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    let items: Vec<String> = items.into_iter().map(|item| format!("'{}'", item.to_string())).collect();
    format!("[{}]", items.join(", "))
}

fn rule(rule: String, message: String) -> ValidationRule {
    ValidationRule { rule, message: Some(message), ..ValidationRule::default() }
}

/// Exactly one field of the target.
fn target_rule() -> ValidationRule {
    let fields = target_fields();
    let has: Vec<String> = fields.iter().map(|field| format!("has(self.{field})")).collect();
    rule(
        format!("[{}].filter(x, x).size() == 1", has.join(", ")),
        format!("target must name exactly one of: {}", fields.join(", ")),
    )
}

/// Which actions a target has, and what they need.
pub fn rules_of_target(target: &Capabilities) -> Vec<ValidationRule> {
    let other = format!("!({}) || !has(self.remedies)", target.selector);
    let why = target.why_not.map(|why| format!(": {why}")).unwrap_or_default();
    let supported = rule(
        format!(
            "{other} || self.remedies.all(r, r.action in {})",
            list(target.supported().map(|supported| supported.action))
        ),
        format!("remedies: {} has the remedies {}; remove the others{why}", target.noun, target.actions_in_words()),
    );
    let needs = target.supported().filter_map(|supported| {
        let (action, needs) = (supported.action, supported.needs?);
        Some(rule(
            format!("{other} || {} || self.remedies.all(r, r.action != '{action}')", needs.cel),
            format!("{action} of {} {}", target.noun, needs.message),
        ))
    });
    std::iter::once(supported).chain(needs).collect()
}

/// Which names metrics and thresholds may have.
fn metric_rules() -> [ValidationRule; 2] {
    let well_known = list(WELL_KNOWN.iter().map(|metric| metric.name));
    let names: Vec<&str> = WELL_KNOWN.iter().map(|metric| metric.name).collect();
    let own: Vec<String> = TARGETS
        .iter()
        .filter(|target| !target.metrics.is_empty())
        .map(|target| {
            format!(" || ({} && k in {})", target.selector, list(target.metrics.iter().map(|metric| metric.name)))
        })
        .collect();
    [
        rule(
            format!(
                "!has(self.metrics) || self.metrics.all(m, m.name in {well_known} || (has(self.thresholds) && m.name in self.thresholds))"
            ),
            format!("a metric that is not well-known ({}) needs an entry in thresholds", names.join(", ")),
        ),
        rule(
            format!(
                "!has(self.thresholds) || self.thresholds.all(k, k in {well_known}{} || (has(self.metrics) && self.metrics.exists(m, m.name == k)))",
                own.concat()
            ),
            "thresholds names a metric that this component does not measure; check the spelling".to_owned(),
        ),
    ]
}

/// Which causes an action can help against. Actions with the same answer share a rule.
pub fn rules_of_causes() -> Vec<ValidationRule> {
    let mut groups: Vec<Vec<ActionKind>> = Vec::new();
    for action in ActionKind::iter().filter(|action| action.facts().only_for.is_some()) {
        let same = |other: &ActionKind| {
            let (one, other) = (action.facts(), other.facts());
            one.only_for == other.only_for && one.against == other.against
        };
        match groups.iter_mut().find(|group| group.iter().all(same)) {
            Some(group) => group.push(action),
            None => groups.push(vec![action]),
        }
    }
    let of_group = |group: Vec<ActionKind>| {
        let facts = group.first()?.facts();
        let causes = facts.only_for?;
        let help = if group.len() == 1 { "only helps" } else { "only help" };
        let names: Vec<String> = causes.iter().map(ToString::to_string).collect();
        Some(rule(
            format!(
                "!(self.action in {}) || !has(self.__for__) || self.__for__.all(cause, cause in {})",
                list(&group),
                list(causes)
            ),
            format!(
                "{} {help} against {}; write for: [{}], or leave it out",
                in_words(&group),
                facts.against,
                names.join(", ")
            ),
        ))
    };
    groups.into_iter().filter_map(of_group).collect()
}

/// The actions that have this parameter, and those of them that need it.
pub(super) fn users_of(field: &str) -> (Vec<ActionKind>, Vec<ActionKind>) {
    let has = |action: &ActionKind| action.facts().parameter.is_some_and(|parameter| parameter.field == field);
    let needs = |action: &ActionKind| action.facts().parameter.is_some_and(|parameter| parameter.required);
    let users: Vec<ActionKind> = ActionKind::iter().filter(has).collect();
    let needing = users.iter().copied().filter(needs).collect();
    (users, needing)
}

/// All parameters of actions, each once.
pub(super) fn parameters() -> Vec<&'static str> {
    let mut fields = Vec::new();
    for parameter in ActionKind::iter().filter_map(|action| action.facts().parameter) {
        if !fields.contains(&parameter.field) {
            fields.push(parameter.field);
        }
    }
    fields
}

/// Which action has which parameter.
pub fn rules_of_parameters() -> Vec<ValidationRule> {
    let of_field = |field: &'static str| {
        let (users, needing) = users_of(field);
        if let ([one], [_]) = (users.as_slice(), needing.as_slice()) {
            return vec![rule(
                format!("has(self.{field}) == (self.action == '{one}')"),
                format!("the action {one} needs {field}, and no other has it"),
            )];
        }
        let have = if users.len() == 1 { "has" } else { "have" };
        let mut rules = vec![rule(
            format!("!has(self.{field}) || self.action in {}", list(&users)),
            format!("only {} {have} {field}; remove it, or change the action", in_words(&users)),
        )];
        if !needing.is_empty() {
            rules.push(rule(
                format!("!(self.action in {}) || has(self.{field})", list(&needing)),
                format!("the action {} needs {field}", in_words(&needing)),
            ));
        }
        rules
    };
    parameters().into_iter().flat_map(of_field).collect()
}

/// Writes the generated rules and texts into the schema of a HealingPolicy.
pub(super) fn complete(schema: &mut JSONSchemaProps) {
    let Some(components) = property(schema, &["spec", "components"]) else { return };
    let Some(component) = items(components) else { return };
    add(component, metric_rules());
    add(component, TARGETS.iter().flat_map(|target| rules_of_target(target)));
    if let Some(target) = property(component, &["target"]) {
        add(target, [target_rule()]);
        describe(target, &format!("Exactly one field is set: {}.", target_fields().join(", ")));
    }
    if let Some(thresholds) = property(component, &["thresholds"]) {
        describe(thresholds, &target_texts::default_thresholds_text());
    }
    let Some(remedies) = property(component, &["remedies"]) else { return };
    describe(remedies, &target_texts::default_remedies_text());
    let Some(remedy) = items(remedies) else { return };
    add(remedy, rules_of_parameters().into_iter().chain(rules_of_causes()));
    if let Some(causes) = property(remedy, &["for"]) {
        describe(causes, &target_texts::causes_text());
    }
}

fn property<'a>(schema: &'a mut JSONSchemaProps, path: &[&str]) -> Option<&'a mut JSONSchemaProps> {
    path.iter().try_fold(schema, |schema, name| schema.properties.as_mut()?.get_mut(*name))
}

fn items(schema: &mut JSONSchemaProps) -> Option<&mut JSONSchemaProps> {
    match schema.items.as_mut()? {
        JSONSchemaPropsOrArray::Schema(items) => Some(items),
        JSONSchemaPropsOrArray::Schemas(_) => None,
    }
}

fn add(schema: &mut JSONSchemaProps, rules: impl IntoIterator<Item = ValidationRule>) {
    schema.x_kubernetes_validations.get_or_insert_with(Vec::new).extend(rules);
}

fn describe(schema: &mut JSONSchemaProps, more: &str) {
    let text = schema.description.get_or_insert_with(String::new);
    if !text.is_empty() {
        text.push(' ');
    }
    text.push_str(more);
}
