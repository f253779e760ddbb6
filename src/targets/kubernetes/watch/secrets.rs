//! Secrets are watched only where the role grants it, which it does not by default. Permission is checked first: a refused
//! request for Secrets is an alarm in audit logs.

use jiff::Timestamp;
use kube::Client;

use super::{Hindrance, keep, scoped, until_allowed};
use crate::targets::kubernetes::{ClusterIndex, Kubernetes, act_error::Call, store::Kind};

/// Never ends.
pub(super) async fn keep_secrets(client: &Client, scope: &str, home: Option<&str>, index: &ClusterIndex) {
    let Some(home) = home else {
        let message = "Secrets are not watched".to_owned();
        index.watch_fails(Kind::Secrets, scope, Hindrance::Forbidden, message, Timestamp::now());
        return std::future::pending().await;
    };
    let kubernetes = &Kubernetes::new(client.clone());
    until_allowed(Kind::Secrets, scope, index, || async move {
        kubernetes.may(Call::list("secrets"), scope).await?;
        index.digest_key().load(client, home).await
    })
    .await;
    keep::<k8s_openapi::api::core::v1::Secret>(scoped(client, scope), scope, index).await;
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::{Value, json};
    use tokio::time::timeout;

    use super::*;
    use crate::{
        analyze::observation::Measured,
        api::{ConfigKind, WorkloadKind},
        targets::kubernetes::{
            fake_server::{Exchange, get, hangs, post, server_with_end, watch},
            fixtures::{NAME, NS, deployment, healthy, replica_set, see, with},
        },
    };

    fn asked(allowed: bool) -> Exchange {
        let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
        post(
            path,
            201,
            json!({"kind": "SelfSubjectAccessReview", "apiVersion": "authorization.k8s.io/v1", "spec": {}, "status": {"allowed": allowed}}),
        )
    }

    fn secret(name: &str, value: &str) -> Value {
        json!({"kind": "Secret", "apiVersion": "v1", "metadata": {"name": name, "namespace": NS, "resourceVersion": "11"}, "data": {"password": value}})
    }

    /// (name, whether it is there) of what the Deployment's template names, which is two Secrets.
    fn config(index: &ClusterIndex) -> Option<Vec<(String, bool)>> {
        let env = json!([{"secretRef": {"name": "app"}}, {"secretRef": {"name": "absent"}}]);
        for object in [deployment(1, "v1", 3), replica_set(1, "v1", "aaa")] {
            see(index, with(object, "/spec/template/spec/containers/0/envFrom", env.clone()));
        }
        let Measured::Known(workload) = index.workload(WorkloadKind::Deployment, NS, NAME) else { return None };
        let objects = workload.config?.into_iter().map(|one| one.object);
        assert!(objects.clone().all(|object| object.kind == ConfigKind::Secret && !object.digest.contains("cGFzcw")));
        Some(objects.map(|object| (object.name, object.digest != crate::api::MISSING)).collect())
    }

    async fn follow(index: &ClusterIndex, home: Option<&str>, script: Vec<Exchange>) {
        let (client, task, ended) = server_with_end(script);
        tokio::select! {
            () = keep_secrets(&client, "", home, index) => {}
            ended = timeout(Duration::from_secs(20), ended) => match ended {
                Ok(Ok(())) => {}
                _ => drop(task.await.unwrap()),
            }
        }
    }

    #[tokio::test]
    async fn without_the_right_no_request_is_sent_and_nothing_waits() {
        let index = ClusterIndex::default();
        index.watching(&[]);
        for kind in [Kind::Deployments, Kind::StatefulSets, Kind::DaemonSets, Kind::ReplicaSets, Kind::Nodes]
            .into_iter()
            .chain([Kind::ControllerRevisions, Kind::Pods, Kind::ConfigMaps, Kind::Rollouts])
        {
            index.listing(kind, "");
            index.listed(kind, "");
        }
        let settled = async {
            while !index.ready() {
                tokio::task::yield_now().await;
            }
        };
        let (client, task, _) = server_with_end(vec![asked(false)]);
        tokio::select! {
            () = keep_secrets(&client, "", Some("panacea-system"), &index) => {}
            settled = timeout(Duration::from_secs(20), settled) => settled.unwrap(),
        }
        drop(client);
        let question = &task.await.unwrap()[0].body["spec"]["resourceAttributes"];
        assert_eq!((&question["resource"], &question["verb"]), (&json!("secrets"), &json!("list")));
        assert!(!index.digest_key().is_known());
    }

    #[tokio::test]
    async fn with_the_right_the_key_comes_first_and_only_digests_are_stored() {
        let index = healthy();
        let key = json!({"kind": "Secret", "apiVersion": "v1", "metadata": {"name": "panacea-digest-key"}, "data": {"key": "A".repeat(44)}});
        let chosen = "labelSelector=%21panacea.dev%2Fpolicy";
        let listed = json!({"kind": "SecretList", "apiVersion": "v1", "metadata": {"resourceVersion": "10"}, "items": [secret("app", "cGFzcw==")]});
        let deleted = json!({"type": "DELETED", "object": secret("app", "cGFzcw==")});
        let script = |events: &[Value]| {
            vec![
                asked(true),
                get("/api/v1/namespaces/panacea-system/secrets/panacea-digest-key", 200, key.clone()),
                get("/api/v1/secrets?", 200, listed.clone()),
                watch("/api/v1/secrets?&watch=true", events),
                hangs(watch("/api/v1/secrets?&watch=true", &[])),
            ]
        };
        let (client, task, ended) = server_with_end(script(&[]));
        tokio::select! {
            () = keep_secrets(&client, "", Some("panacea-system"), &index) => {}
            ended = timeout(Duration::from_secs(20), ended) => ended.unwrap().unwrap(),
        }
        drop(client);
        let seen = task.await.unwrap();
        for asked in &seen[2..] {
            assert!(asked.path.contains(chosen), "{}", asked.path);
            assert!(asked.path.contains("helm.sh"), "{}", asked.path);
        }
        assert_eq!(config(&index), Some(vec![("absent".into(), false), ("app".into(), true)]));
        let other = healthy();
        follow(&other, Some("panacea-system"), script(&[deleted])).await;
        assert_eq!(config(&other), Some(vec![("absent".into(), false), ("app".into(), false)]));
        // Not while the watch fails or is refused.
        index.watch_fails(Kind::Secrets, "", Hindrance::Passing, "away".into(), Timestamp::now());
        assert_eq!(config(&index), None);
        index.watch_fails(Kind::Secrets, "", Hindrance::Forbidden, "forbidden".into(), Timestamp::now());
        assert_eq!(config(&index), Some(vec![]), "ConfigMaps are still seen");
    }
}
