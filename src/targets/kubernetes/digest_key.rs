//! How Secrets are compared without disclosing them.
//!
//! Digests are written to statuses, Remediations and the ledger, whose readers may not be allowed to read Secrets. A plain
//! hash of a weak password can be guessed; so digests of Secrets are an HMAC with a random key. The key is in a Secret of
//! the operator's namespace: the same for every process of the operator and all its replicas, and out of reach of readers
//! of the workloads' namespaces. Only content counts, so a deleted and recreated, or a restored Secret compares equal. With
//! a new key (the old one was deleted) no snapshot matches the digests, and no Secret is restored.

use std::sync::{Arc, OnceLock};

use hmac::{Hmac, KeyInit as _, Mac as _};
use k8s_openapi::{ByteString, api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::{Api, Client, api::PostParams};
use secrecy::{ExposeSecret as _, SecretSlice};
use serde_json::Value;
use sha2::Sha256;
use uuid::{Builder, Uuid};

use super::{
    act::limited,
    act_error::{ActError, Call},
    config::content_digest,
    template::canonical,
};
use crate::api::{ConfigKind, POLICY_MANAGER};

/// The Secret, and its field with the key.
const NAME: &str = "panacea-digest-key";
const FIELD: &str = "key";
const LENGTH: usize = 32;

/// Shared by the watch and the actions; empty before the permission to read Secrets is confirmed. Cheap to clone.
#[derive(Clone, Default)]
pub struct DigestKey(Arc<OnceLock<SecretSlice<u8>>>);

impl DigestKey {
    pub(super) fn is_known(&self) -> bool {
        self.0.get().is_some()
    }

    /// None while there is no key.
    pub(super) fn secret_digest(&self, secret: &Secret) -> Option<Uuid> {
        // A map of strings always has a JSON form.
        self.keyed(&serde_json::to_value(&secret.data).unwrap_or_default())
    }

    /// The digest of an object as JSON. Unreachable, for a Secret while there is no key.
    pub(super) fn digest(&self, kind: ConfigKind, object: &Value) -> Result<Uuid, ActError> {
        match kind {
            ConfigKind::ConfigMap => Ok(content_digest(object)),
            ConfigKind::Secret | ConfigKind::EnvVars => self
                .keyed(&object["data"])
                .ok_or_else(|| ActError::Unreachable("the key for digests of Secrets was not read yet".to_owned())),
        }
    }

    fn keyed(&self, data: &Value) -> Option<Uuid> {
        let mut hmac = Hmac::<Sha256>::new_from_slice(self.0.get()?.expose_secret()).ok()?;
        let mut text = String::with_capacity(1024);
        canonical(data.as_object().filter(|data| !data.is_empty()).map_or(&Value::Null, |_| data), &mut text);
        hmac.update(text.as_bytes());
        // Half of the HMAC: as long as the digest of a ConfigMap, and too long to guess.
        Some(Builder::from_custom_bytes(*hmac.finalize().into_bytes().first_chunk()?).into_uuid())
    }

    /// Reads the key; creates one when there is none.
    pub(super) async fn load(&self, client: &Client, namespace: &str) -> Result<(), ActError> {
        if self.is_known() {
            return Ok(());
        }
        let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
        let params = PostParams { field_manager: Some(POLICY_MANAGER.to_owned()), ..PostParams::default() };
        let read = || limited(Call::GET_SECRET, api.get_opt(NAME));
        let secret = match read().await? {
            Some(secret) => secret,
            None => match limited(Call::CREATE_SECRET, api.create(&params, &fresh())).await {
                Ok(secret) => secret,
                // Another replica was first.
                Err(ActError::Conflict { .. }) => read().await?.unwrap_or_default(),
                Err(error) => return Err(error),
            },
        };
        let key = secret.data.unwrap_or_default().remove(FIELD).map(|key| key.0).unwrap_or_default();
        if key.len() < LENGTH {
            let message = format!(
                "Secret {namespace}/{NAME} has no key of {LENGTH} bytes; delete the Secret to have a new one created"
            );
            return Err(ActError::Rejected(message));
        }
        // The first one stays: two watches at the same time read the same key.
        let _ = self.0.set(key.into());
        Ok(())
    }

    #[cfg(test)]
    pub(super) fn of(key: &[u8]) -> Self {
        Self(Arc::new(OnceLock::from(SecretSlice::from(key.to_vec()))))
    }
}

fn fresh() -> Secret {
    // Two of version 4: 244 bits from the system's random source.
    let key = [Uuid::new_v4(), Uuid::new_v4()].iter().flat_map(|part| part.into_bytes()).collect();
    Secret {
        metadata: ObjectMeta { name: Some(NAME.to_owned()), ..ObjectMeta::default() },
        immutable: Some(true),
        data: Some([(FIELD.to_owned(), ByteString(key))].into()),
        ..Secret::default()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::targets::kubernetes::fake_server::{failure, get, post, server};

    const PATH: &str = "/api/v1/namespaces/panacea-system/secrets";

    fn secret(value: Value) -> Secret {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn content_counts_and_the_key_and_nothing_else() {
        let key = DigestKey::of(&[7; 32]);
        let of = |value: Value| key.secret_digest(&secret(value)).unwrap();
        let plain = of(json!({"data": {"a": "MQ=="}}));
        let same = json!({"metadata": {"name": "x", "uid": "u", "labels": {"l": "m"}}, "type": "Opaque", "data": {"a": "MQ=="}});
        assert_eq!((of(same.clone()), key.digest(ConfigKind::Secret, &same)), (plain, Ok(plain)));
        assert_ne!(plain, of(json!({"data": {"a": "Mg=="}})));
        assert_eq!(of(json!({})), of(json!({"data": {}})));
        let other = DigestKey::of(&[8; 32]);
        assert_ne!(other.secret_digest(&secret(json!({"data": {"a": "MQ=="}}))), Some(plain));
        assert_eq!(plain.to_string(), "46522cd1-e452-81b5-bac5-b5bc02703a06", "pinned: statuses hold it");
        let none = DigestKey::default();
        assert_eq!(none.secret_digest(&secret(same.clone())), None);
        assert_eq!(none.digest(ConfigKind::Secret, &same).unwrap_err().reason().name(), "Unreachable");
    }

    #[tokio::test]
    async fn the_key_is_created_once_and_then_read() {
        let stored =
            |key: &str| json!({"kind": "Secret", "apiVersion": "v1", "metadata": {"name": NAME}, "data": {FIELD: key}});
        let good = stored(&"A".repeat(44));
        let exists = failure(409, "AlreadyExists", "secrets \"panacea-digest-key\" already exists");
        let path = format!("{PATH}/{NAME}");
        let absent = || get(&path, 404, failure(404, "NotFound", "not found"));
        for script in [
            vec![get(&path, 200, good.clone())],
            vec![absent(), post(PATH, 201, good.clone())],
            vec![absent(), post(PATH, 409, exists), get(&path, 200, good)],
        ] {
            let (client, task) = server(script);
            let key = DigestKey::default();
            assert_eq!(key.load(&client, "panacea-system").await, Ok(()));
            assert_eq!(key.load(&client, "panacea-system").await, Ok(()), "without asking again");
            assert!(key.is_known());
            drop(client);
            for seen in task.await.unwrap().iter().filter(|seen| !seen.body.is_null()) {
                let made: Secret = secret(seen.body.clone());
                assert_eq!((made.immutable, made.data.unwrap()[FIELD].0.len()), (Some(true), LENGTH));
            }
        }
        let (client, task) = server(vec![get(&path, 200, stored("AAAA"))]);
        let why = DigestKey::default().load(&client, "panacea-system").await.unwrap_err();
        assert!(why.to_string().contains("has no key"), "{why}");
        drop(client);
        task.await.unwrap();
    }
}
