//! The ConfigMaps that a template stands on.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ConfigMap, Container, PodTemplateSpec, Volume};
use serde_json::json;
use uuid::Uuid;

use super::template::canonical;

/// Objects of one template that are followed.
const MAX_REFERENCES: usize = 50;
/// Fixed for ever: digests are kept in statuses and Remediations across versions of the operator.
const NAMESPACE: Uuid = Uuid::from_u128(0x1b9e_5d53_90b7_4c58_8f4e_6f0d_2c1c_77a9);

/// A ConfigMap that a template names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ConfigRef {
    pub name: Box<str>,
    /// What changes in it reaches a container only when that is started anew: environment, or a mount with `subPath`.
    pub on_start: bool,
}

/// By name, each once.
pub(super) fn references(template: &PodTemplateSpec) -> Box<[ConfigRef]> {
    let mut found: BTreeMap<&str, bool> = BTreeMap::new();
    let Some(pod) = &template.spec else { return Box::default() };
    let containers = || pod.containers.iter().chain(pod.init_containers.iter().flatten());
    for name in containers().flat_map(of_environment) {
        found.insert(name, true);
    }
    for volume in pod.volumes.iter().flatten() {
        let mut mounts = containers().flat_map(|container| container.volume_mounts.iter().flatten());
        let parts = mounts
            .any(|mount| mount.name == volume.name && (mount.sub_path.is_some() || mount.sub_path_expr.is_some()));
        for name in of_volume(volume) {
            *found.entry(name).or_default() |= parts;
        }
    }
    let named = found.into_iter().filter(|(name, _)| !name.is_empty());
    named.take(MAX_REFERENCES).map(|(name, on_start)| ConfigRef { name: name.into(), on_start }).collect()
}

fn of_environment(container: &Container) -> impl Iterator<Item = &str> {
    let whole =
        container.env_from.iter().flatten().filter_map(|from| Some(from.config_map_ref.as_ref()?.name.as_str()));
    let keys = container
        .env
        .iter()
        .flatten()
        .filter_map(|variable| Some(variable.value_from.as_ref()?.config_map_key_ref.as_ref()?.name.as_str()));
    whole.chain(keys)
}

fn of_volume(volume: &Volume) -> impl Iterator<Item = &str> {
    let own = volume.config_map.iter().map(|source| source.name.as_str());
    let projected = volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten());
    own.chain(projected.filter_map(|source| Some(source.config_map.as_ref()?.name.as_str())))
}

/// The same for the same content, whatever its metadata. Not for security.
pub fn config_digest(map: &ConfigMap) -> Uuid {
    let mut text = String::with_capacity(1024);
    let data = map.data.as_ref().filter(|data| !data.is_empty());
    let binary = map.binary_data.as_ref().filter(|data| !data.is_empty());
    canonical(&json!({"data": data, "binaryData": binary}), &mut text);
    Uuid::new_v5(&NAMESPACE, text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(value: serde_json::Value) -> Uuid {
        config_digest(&serde_json::from_value(value).unwrap())
    }

    #[test]
    fn every_way_to_name_a_config_map_is_known() {
        let template: PodTemplateSpec = serde_json::from_value(json!({"spec": {
            "initContainers": [{"name": "i", "envFrom": [{"configMapRef": {"name": "init"}}, {"secretRef": {"name": "s"}}]}],
            "containers": [{
                "name": "c",
                "env": [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "one-key", "key": "k"}}}, {"name": "B", "value": "b"}],
                "volumeMounts": [{"name": "v1", "mountPath": "/v1"}, {"name": "v2", "mountPath": "/v2", "subPath": "f"}],
            }],
            "volumes": [
                {"name": "v1", "configMap": {"name": "live"}},
                {"name": "v2", "configMap": {"name": "part"}},
                {"name": "v3", "projected": {"sources": [{"configMap": {"name": "projected"}}, {"configMap": {"name": "one-key"}}, {"secret": {"name": "s"}}]}},
                {"name": "v4", "emptyDir": {}},
            ],
        }}))
        .unwrap();
        let found = references(&template);
        let found: Vec<(&str, bool)> = found.iter().map(|one| (&*one.name, one.on_start)).collect();
        assert_eq!(found, [("init", true), ("live", false), ("one-key", true), ("part", true), ("projected", false)]);
        assert!(references(&PodTemplateSpec::default()).is_empty());
    }

    #[test]
    fn content_counts_and_nothing_else() {
        let plain = map(json!({"data": {"a": "1"}}));
        assert_eq!(
            plain,
            map(json!({"metadata": {"name": "x", "labels": {"l": "m"}}, "data": {"a": "1"}, "binaryData": {}}))
        );
        assert_ne!(plain, map(json!({"data": {"a": "2"}})));
        assert_ne!(plain, map(json!({"binaryData": {"a": "MQ=="}})));
        assert_eq!(map(json!({})), map(json!({"data": {}})));
        assert_eq!(plain.to_string(), "cb0b50ac-78b2-5d38-94ec-216f4b217b57", "pinned: statuses hold it");
    }
}
