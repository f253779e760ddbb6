//! `$(namespace)`, `$(name)` and `$(pods)` in a query.

use crate::{
    analyze::observation::{UnknownReason, Unmeasured},
    api::ValidComponent,
    targets::kubernetes::{ClusterIndex, PodsPattern},
};

const NAMESPACE: &str = "$(namespace)";
const NAME: &str = "$(name)";
const PODS: &str = "$(pods)";

/// A query that can be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Expanded {
    pub query: String,
    /// The query covers only the pods of the newest template.
    pub of_release: bool,
}

/// Replaces the placeholders of a query. `$(name)` is the target's name, or the component's when the target has none. Fails
/// when the query has `$(pods)`, and there are no pods or they are unknown.
pub(super) fn expand(
    query: &str,
    namespace: &str,
    component: &ValidComponent,
    index: &ClusterIndex,
    release_watch: bool,
) -> Result<Expanded, Unmeasured> {
    let query = named(query, namespace, component);
    if !query.contains(PODS) {
        return Ok(Expanded { query, of_release: false });
    }
    let Some((kind, name)) = component.target.workload() else {
        let message = "$(pods) has no meaning for a target without pods; select the series by other labels";
        return Err(Unmeasured::new(UnknownReason::InvalidSpec, message));
    };
    let PodsPattern { regex, of_release } = index.pods_pattern(kind, namespace, name, release_watch)?;
    Ok(Expanded { query: query.replace(PODS, &regex), of_release })
}

/// As [`expand`], for one pod; none when the query does not distinguish pods.
pub(super) fn expand_for_pod(query: &str, namespace: &str, component: &ValidComponent, pod: &str) -> Option<String> {
    let one = PodsPattern::of_pod(pod).regex;
    query.contains(PODS).then(|| named(query, namespace, component).replace(PODS, &one))
}

fn named(query: &str, namespace: &str, component: &ValidComponent) -> String {
    let name = component.target.query_name(&component.name);
    query.replace(NAMESPACE, &quotable(namespace)).replace(NAME, &quotable(&name))
}

/// Kubernetes names hold no character that could end a PromQL string; any other character is removed.
fn quotable(name: &str) -> String {
    name.chars().filter(|character| character.is_ascii_alphanumeric() || matches!(character, '-' | '.' | '_')).collect()
}

#[cfg(test)]
mod tests {
    use super::quotable;

    #[test]
    fn no_name_ends_its_quotes() {
        assert_eq!(quotable("api-gateway.v2"), "api-gateway.v2");
        assert_eq!(quotable("a\"} or up{x=\"\\\n`"), "aorupx");
    }
}
