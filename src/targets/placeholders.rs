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
    /// It speaks of the newest template's pods alone.
    pub of_release: bool,
}

/// Fills a query in. `$(name)` is the target's name, or the component's when the target has none.
///
/// # Errors
/// When `$(pods)` is asked for and there are none, or they are not known.
pub(super) fn expand(
    query: &str,
    namespace: &str,
    component: &ValidComponent,
    index: &ClusterIndex,
    release_watch: bool,
) -> Result<Expanded, Unmeasured> {
    let mut of_release = false;
    let mut query = named(query, namespace, component);
    if query.contains(PODS) {
        let Some((kind, name)) = component.target.workload() else {
            return Err(Unmeasured::new(
                UnknownReason::InvalidSpec,
                "$(pods) has no meaning for a target without pods; name the series by other labels",
            ));
        };
        let pods: PodsPattern = index.pods_pattern(kind, namespace, name, release_watch)?;
        of_release = pods.of_release;
        query = query.replace(PODS, &pods.regex);
    }
    Ok(Expanded { query, of_release })
}

/// The same of one pod alone; none when the query does not tell pods apart.
pub(super) fn expand_for_pod(query: &str, namespace: &str, component: &ValidComponent, pod: &str) -> Option<String> {
    let one = PodsPattern::of_pod(pod).regex;
    query.contains(PODS).then(|| named(query, namespace, component).replace(PODS, &one))
}

fn named(query: &str, namespace: &str, component: &ValidComponent) -> String {
    let name = component.target.query_name(&component.name);
    query.replace(NAMESPACE, &quotable(namespace)).replace(NAME, &quotable(&name))
}

/// Kubernetes names hold nothing that could end a PromQL string; anything else is left out rather than trusted.
fn quotable(name: &str) -> String {
    name.chars().filter(|character| character.is_ascii_alphanumeric() || matches!(character, '-' | '.' | '_')).collect()
}

#[cfg(test)]
mod tests {
    use super::quotable;

    #[test]
    fn nothing_gets_out_of_its_quotes() {
        assert_eq!(quotable("api-gateway.v2"), "api-gateway.v2");
        assert_eq!(quotable("a\"} or up{x=\"\\\n`"), "aorupx");
    }
}
