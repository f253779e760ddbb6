//! The ConfigMaps and Secrets that a template depends on.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ConfigMap, Container, PodTemplateSpec, Volume};
use serde_json::{Value, json};
use uuid::Uuid;

use super::template::canonical;
use crate::api::ConfigKind;

/// Objects of one template, at most.
const MAX_REFERENCES: usize = 50;
/// Never changes: digests are stored in statuses and Remediations across versions of the operator.
const NAMESPACE: Uuid = Uuid::from_u128(0x1b9e_5d53_90b7_4c58_8f4e_6f0d_2c1c_77a9);

/// An object that a template names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ConfigRef {
    pub kind: ConfigKind,
    pub name: Box<str>,
    /// A change reaches a container only at its start: environment, or a mount with `subPath`.
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

type Named<'a> = (ConfigKind, &'a str);

/// The objects of one source, which has a ConfigMap or a Secret.
fn named<'a>(map: Option<&'a String>, secret: Option<&'a String>) -> impl Iterator<Item = Named<'a>> {
    let map = map.map(|name| (ConfigKind::ConfigMap, name.as_str()));
    map.into_iter().chain(secret.map(|name| (ConfigKind::Secret, name.as_str())))
}

fn of_environment(container: &Container) -> impl Iterator<Item = Named<'_>> {
    let whole = container.env_from.iter().flatten();
    let whole = whole.flat_map(|from| {
        named(from.config_map_ref.as_ref().map(|map| &map.name), from.secret_ref.as_ref().map(|secret| &secret.name))
    });
    let keys = container.env.iter().flatten().filter_map(|variable| variable.value_from.as_ref());
    let keys = keys.flat_map(|from| {
        let secret = from.secret_key_ref.as_ref();
        named(from.config_map_key_ref.as_ref().map(|map| &map.name), secret.map(|secret| &secret.name))
    });
    whole.chain(keys)
}

fn of_volume(volume: &Volume) -> impl Iterator<Item = Named<'_>> {
    let secret = volume.secret.as_ref().and_then(|source| source.secret_name.as_ref());
    let projected = volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten());
    named(volume.config_map.as_ref().map(|map| &map.name), secret).chain(projected.flat_map(|source| {
        named(source.config_map.as_ref().map(|map| &map.name), source.secret.as_ref().map(|secret| &secret.name))
    }))
}

/// Of the content alone, without metadata. Not for security: the digest of a Secret is keyed (`DigestKey`).
pub fn config_digest(map: &ConfigMap) -> Uuid {
    content_digest(&json!({"data": map.data, "binaryData": map.binary_data}))
}

/// Of a ConfigMap as JSON.
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
    fn every_reference_to_an_object_is_found() {
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
