//! Quantities of memory and CPU:
//! <https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/>.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Container, PodSpec};

pub(super) use crate::api::amount;

/// The sum of the containers' memory limits, in bytes. None when a container has none.
pub(super) fn memory_limit(pod: &PodSpec) -> Option<u64> {
    let limits =
        pod.containers.iter().map(|container| Some(limit(container, "memory")? as u64).filter(|limit| *limit > 0));
    limits.sum::<Option<u64>>().filter(|sum| *sum > 0)
}

/// At least one limit is set.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ContainerLimits {
    pub name: Box<str>,
    /// Above 0.
    pub cores: Option<f64>,
    /// In bytes, above 0.
    pub memory: Option<f64>,
}

/// The limits of a pod's containers and sidecars after admission (a LimitRange, an injected sidecar), which the template
/// does not have. None when no container has a limit.
pub(super) fn container_limits(pod: &PodSpec) -> Option<Arc<[ContainerLimits]>> {
    let inits = pod.init_containers.iter().flatten();
    let sidecars = inits.filter(|container| container.restart_policy.as_deref() == Some("Always"));
    let limits = pod.containers.iter().chain(sidecars).filter_map(|container| {
        let (cores, memory) = (limit(container, "cpu"), limit(container, "memory"));
        let name = container.name.as_str().into();
        (cores.is_some() || memory.is_some()).then_some(ContainerLimits { name, cores, memory })
    });
    let limits: Vec<ContainerLimits> = limits.collect();
    (!limits.is_empty()).then(|| limits.into())
}

/// Zero means no limit.
fn limit(container: &Container, resource: &str) -> Option<f64> {
    let limits = container.resources.as_ref()?.limits.as_ref()?;
    amount(&limits.get(resource)?.0).filter(|limit| *limit > 0.0)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rounded(amount: f64) -> f64 {
        (amount * 1e6).round() / 1e6
    }

    #[test]
    fn reads_every_way_of_writing_an_amount() {
        let cases = [
            ("128974848", Some(128_974_848.0)),
            ("129e6", Some(129_000_000.0)),
            ("129M", Some(129_000_000.0)),
            ("128974848000m", Some(128_974_848.0)),
            ("123Mi", Some(128_974_848.0)),
            ("1024Ki", Some(1_048_576.0)),
            ("1.5Gi", Some(1_610_612_736.0)),
            ("250m", Some(0.25)),
            ("250000u", Some(0.25)),
            ("250000000n", Some(0.25)),
            ("0", Some(0.0)),
            ("", None),
            ("-1", None),
            ("1Zi", None),
        ];
        for (quantity, expected) in cases {
            assert_eq!(amount(quantity).map(rounded), expected, "{quantity:?}");
        }
    }

    #[test]
    fn the_limit_of_a_pod_is_the_sum_of_its_containers() {
        let pod = |limits: &[Option<&str>]| -> PodSpec {
            let container = |limit: &Option<&str>| match limit {
                Some(limit) => json!({"name": "c", "resources": {"limits": {"memory": limit}}}),
                None => json!({"name": "c"}),
            };
            let containers: Vec<_> = limits.iter().map(container).collect();
            serde_json::from_value(json!({"containers": containers})).unwrap()
        };
        assert_eq!(memory_limit(&pod(&[Some("1Gi"), Some("1Mi")])), Some(1_074_790_400));
        assert_eq!(memory_limit(&pod(&[Some("1Gi"), None])), None, "the other one may use all of the node");
        assert_eq!(memory_limit(&pod(&[])), None);
    }

    #[test]
    fn limits_are_those_of_containers_and_sidecars() {
        let limited = |name: &str, limits: serde_json::Value| json!({"name": name, "resources": {"limits": limits}});
        let mut sidecar = limited("proxy", json!({"cpu": "100m"}));
        sidecar["restartPolicy"] = "Always".into();
        let pod = json!({
            "containers": [limited("app", json!({"cpu": "2", "memory": "1Ki"})), limited("none", json!({"cpu": "0"})), {"name": "free"}],
            "initContainers": [sidecar, limited("setup", json!({"memory": "1Ki"}))],
        });
        let limits = container_limits(&serde_json::from_value(pod).unwrap()).unwrap();
        let expected = [("app", Some(2.0), Some(1024.0)), ("proxy", Some(0.1), None)];
        assert_eq!(limits.iter().map(|it| (&*it.name, it.cores, it.memory)).collect::<Vec<_>>(), expected);
        let free = json!({"containers": [{"name": "free"}]});
        assert_eq!(container_limits(&serde_json::from_value(free).unwrap()), None);
    }
}
