//! The ConfigMaps and Secrets that a template stands on.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ConfigMap, Container, PodTemplateSpec, Volume};
use serde_json::{Value, json};
use uuid::Uuid;

use super::template::canonical;
use crate::api::ConfigKind;

/// Objects of one template that are followed.
const MAX_REFERENCES: usize = 50;
/// Fixed for ever: digests are kept in statuses and Remediations across versions of the operator.
const NAMESPACE: Uuid = Uuid::from_u128(0x1b9e_5d53_90b7_4c58_8f4e_6f0d_2c1c_77a9);

/// An object that a template names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ConfigRef {
    pub kind: ConfigKind,
    pub name: Box<str>,
    /// What changes in it reaches a container only when that is started anew: environment, or a mount with `subPath`.
    pub on_start: bool,
}

/// By kind and name, each once.
pub(super) fn references(template: &PodTemplateSpec) -> Box<[ConfigRef]> {
    let mut found: BTreeMap<(ConfigKind, &str), bool> = BTreeMap::new();
    let Some(pod) = &template.spec else { return Box::default() };
    let containers = || pod.containers.iter().chain(pod.init_containers.iter().flatten());
    for named in containers().flat_map(of_environment) {
        found.insert(named, true);
    }
    for volume in pod.volumes.iter().flatten() {
        let mut mounts = containers().flat_map(|container| container.volume_mounts.iter().flatten());
        let parts = mounts
            .any(|mount| mount.name == volume.name && (mount.sub_path.is_some() || mount.sub_path_expr.is_some()));
        for named in of_volume(volume) {
            *found.entry(named).or_default() |= parts;
        }
    }
    let named = found.into_iter().filter(|((_, name), _)| !name.is_empty());
    let reference =
        |((kind, name), on_start): ((ConfigKind, &str), bool)| ConfigRef { kind, name: name.into(), on_start };
    named.take(MAX_REFERENCES).map(reference).collect()
}

fn of_environment(container: &Container) -> impl Iterator<Item = (ConfigKind, &str)> {
    let whole = container.env_from.iter().flatten().flat_map(|from| {
        let map = from.config_map_ref.as_ref().map(|source| (ConfigKind::ConfigMap, source.name.as_str()));
        map.into_iter().chain(from.secret_ref.as_ref().map(|source| (ConfigKind::Secret, source.name.as_str())))
    });
    let sources = container.env.iter().flatten().filter_map(|variable| variable.value_from.as_ref());
    let keys = sources.flat_map(|from| {
        let map = from.config_map_key_ref.as_ref().map(|source| (ConfigKind::ConfigMap, source.name.as_str()));
        map.into_iter().chain(from.secret_key_ref.as_ref().map(|source| (ConfigKind::Secret, source.name.as_str())))
    });
    whole.chain(keys)
}

fn of_volume(volume: &Volume) -> impl Iterator<Item = (ConfigKind, &str)> {
    let map = volume.config_map.iter().map(|source| (ConfigKind::ConfigMap, source.name.as_str()));
    let secret = volume.secret.iter().filter_map(|source| Some((ConfigKind::Secret, source.secret_name.as_deref()?)));
    let projected = volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten());
    let projected = projected.flat_map(|source| {
        let map = source.config_map.as_ref().map(|source| (ConfigKind::ConfigMap, source.name.as_str()));
        map.into_iter().chain(source.secret.as_ref().map(|source| (ConfigKind::Secret, source.name.as_str())))
    });
    map.chain(secret).chain(projected)
}

/// The same for the same content, whatever its metadata. Not for security: a Secret's is made with a key (`DigestKey`).
pub fn config_digest(map: &ConfigMap) -> Uuid {
    content_digest(&json!({"data": map.data, "binaryData": map.binary_data}))
}

/// The same of a ConfigMap as JSON.
pub(super) fn content_digest(map: &Value) -> Uuid {
    let full = |field: &str| map[field].as_object().filter(|data| !data.is_empty());
    let mut text = String::with_capacity(1024);
    canonical(&json!({"data": full("data"), "binaryData": full("binaryData")}), &mut text);
    Uuid::new_v5(&NAMESPACE, text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(value: Value) -> Uuid {
        config_digest(&serde_json::from_value(value).unwrap())
    }

    #[test]
    fn every_way_to_name_an_object_is_known() {
        let template: PodTemplateSpec = serde_json::from_value(json!({"spec": {
            "initContainers": [{"name": "i", "envFrom": [{"configMapRef": {"name": "init"}}, {"secretRef": {"name": "s"}}]}],
            "containers": [{
                "name": "c",
                "env": [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "one-key", "key": "k"}}}, {"name": "B", "value": "b"}, {"name": "C", "valueFrom": {"secretKeyRef": {"name": "password", "key": "k"}}}],
                "volumeMounts": [{"name": "v1", "mountPath": "/v1"}, {"name": "v2", "mountPath": "/v2", "subPath": "f"}],
            }],
            "volumes": [
                {"name": "v1", "configMap": {"name": "live"}},
                {"name": "v2", "configMap": {"name": "part"}},
                {"name": "v3", "projected": {"sources": [{"configMap": {"name": "projected"}}, {"configMap": {"name": "one-key"}}, {"secret": {"name": "s"}}]}},
                {"name": "v4", "emptyDir": {}},
                {"name": "v5", "secret": {"secretName": "tls"}},
                {"name": "v6", "secret": {"optional": true}},
            ],
        }}))
        .unwrap();
        let found = references(&template);
        let of = |kind| found.iter().filter(move |one| one.kind == kind).map(|one| (&*one.name, one.on_start));
        let maps: Vec<(&str, bool)> = of(ConfigKind::ConfigMap).collect();
        assert_eq!(maps, [("init", true), ("live", false), ("one-key", true), ("part", true), ("projected", false)]);
        let secrets: Vec<(&str, bool)> = of(ConfigKind::Secret).collect();
        assert_eq!(secrets, [("password", true), ("s", true), ("tls", false)]);
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
