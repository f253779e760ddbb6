//! Amounts of memory as Kubernetes writes them:
//! <https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/>.

use k8s_openapi::api::core::v1::PodSpec;

/// Bytes of a quantity such as `128Mi`, `1.5G`, `1e9` or `128974848000m`; None when it is none.
fn bytes(quantity: &str) -> Option<u64> {
    const SUFFIXES: [(&str, f64); 13] = [
        ("Ki", 1024.0),
        ("Mi", 1_048_576.0),
        ("Gi", 1_073_741_824.0),
        ("Ti", 1_099_511_627_776.0),
        ("Pi", 1_125_899_906_842_624.0),
        ("Ei", 1_152_921_504_606_846_976.0),
        ("m", 1e-3),
        ("k", 1e3),
        ("M", 1e6),
        ("G", 1e9),
        ("T", 1e12),
        ("P", 1e15),
        ("E", 1e18),
    ];
    let suffixed = SUFFIXES.iter().find_map(|(suffix, unit)| Some((quantity.strip_suffix(suffix)?, *unit)));
    let (number, unit) = suffixed.unwrap_or((quantity, 1.0));
    let bytes = number.parse::<f64>().ok()? * unit;
    (bytes.is_finite() && bytes >= 0.0).then_some(bytes as u64)
}

/// What a pod may use: the sum of its containers' memory limits. None when one of them has none.
pub(super) fn memory_limit(pod: &PodSpec) -> Option<u64> {
    let limits = pod.containers.iter().map(|container| {
        let limits = container.resources.as_ref()?.limits.as_ref()?;
        bytes(&limits.get("memory")?.0).filter(|limit| *limit > 0)
    });
    limits.sum::<Option<u64>>().filter(|sum| *sum > 0)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn reads_every_way_of_writing_an_amount() {
        let cases = [
            ("128974848", Some(128_974_848)),
            ("129e6", Some(129_000_000)),
            ("129M", Some(129_000_000)),
            ("128974848000m", Some(128_974_848)),
            ("123Mi", Some(128_974_848)),
            ("1.5Gi", Some(1_610_612_736)),
            ("0", Some(0)),
            ("", None),
            ("-1", None),
            ("1Zi", None),
        ];
        for (quantity, expected) in cases {
            assert_eq!(bytes(quantity), expected, "{quantity:?}");
        }
    }

    #[test]
    fn a_pod_may_use_what_its_containers_may_together() {
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
}
