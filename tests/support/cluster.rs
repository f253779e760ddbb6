//! The cluster of this test run, and a namespace of the test's own in it.

use std::{panic::AssertUnwindSafe, path::PathBuf, sync::Once, time::Duration};

use futures::FutureExt as _;
use k8s_openapi::api::core::v1::{Event, Namespace, Pod};
use kube::{
    Api, Client, Config, ResourceExt as _,
    api::{DeleteParams, ListParams, ObjectMeta, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
};
use panacea::api::{HealingPolicy, Remediation};
use tokio::time::timeout;

/// The variable, or a failure that says how to get a cluster.
pub fn env(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| {
        panic!("{name} is not set: these tests need the real control plane; run `make test`, or `tests/control-plane/with --install cargo test --test e2e`")
    })
}

pub fn cluster_dir() -> PathBuf {
    env("PANACEA_CLUSTER_DIR").into()
}

pub fn control_plane_script(name: &str) -> PathBuf {
    PathBuf::from(env("PANACEA_CONTROL_PLANE")).join(name)
}

pub fn init_crypto() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    });
}

/// A client of the kubeconfig at `path`.
pub async fn client_of(path: impl Into<PathBuf>) -> Client {
    init_crypto();
    let path = path.into();
    let kubeconfig = Kubeconfig::read_from(&path).unwrap_or_else(|why| panic!("{}: {why}", path.display()));
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
    Client::try_from(config).unwrap()
}

/// The administrator's client.
pub async fn admin() -> Client {
    client_of(env("KUBECONFIG")).await
}

/// A running test: its namespace and the administrator's client.
#[derive(Clone)]
pub struct Test {
    pub client: Client,
    pub namespace: String,
}

/// Runs a test in a namespace of its own. When it fails, what the namespace holds is printed; the namespace is
/// removed in any case.
pub async fn run(name: &str, test: impl AsyncFnOnce(&Test)) {
    let client = admin().await;
    let namespace = format!("{name}-{}", &uuid::Uuid::new_v4().simple().to_string()[..6]);
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let metadata = ObjectMeta { name: Some(namespace.clone()), ..ObjectMeta::default() };
    namespaces.create(&PostParams::default(), &Namespace { metadata, ..Namespace::default() }).await.unwrap();
    let context = Test { client, namespace };
    let result = AssertUnwindSafe(test(&context)).catch_unwind().await;
    if result.is_err() {
        context.dump().await;
    }
    context.remove().await;
    if let Err(panic) = result {
        std::panic::resume_unwind(panic);
    }
}

impl Test {
    pub fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = kube::core::NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Removes the namespace; Remediations that no operator will record any more are let go.
    async fn remove(&self) {
        let remediations: Api<Remediation> = self.api();
        if let Ok(list) = remediations.list(&ListParams::default()).await {
            for remediation in list.items.iter().filter(|remediation| !remediation.finalizers().is_empty()) {
                let patch = kube::api::Patch::Merge(serde_json::json!({"metadata": {"finalizers": null}}));
                let _ = remediations.patch(&remediation.name_any(), &Default::default(), &patch).await;
            }
        }
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        let _ = namespaces.delete(&self.namespace, &DeleteParams::default()).await;
    }

    async fn dump(&self) {
        let _ = timeout(Duration::from_secs(10), async {
            eprintln!("---- namespace {} at the failure", self.namespace);
            for policy in self.api::<HealingPolicy>().list(&ListParams::default()).await.into_iter().flatten() {
                eprintln!("policy {}: {}", policy.name_any(), serde_json::to_string_pretty(&policy.status).unwrap());
            }
            for remediation in self.api::<Remediation>().list(&ListParams::default()).await.into_iter().flatten() {
                let text = serde_json::to_string_pretty(&(&remediation.spec, &remediation.status)).unwrap();
                eprintln!("remediation {}: {text}", remediation.name_any());
            }
            for pod in self.api::<Pod>().list(&ListParams::default()).await.into_iter().flatten() {
                let images: Vec<_> =
                    pod.spec.iter().flat_map(|spec| &spec.containers).filter_map(|c| c.image.clone()).collect();
                let ready = pod
                    .status
                    .iter()
                    .flat_map(|s| s.conditions.iter().flatten())
                    .any(|c| c.type_ == "Ready" && c.status == "True");
                eprintln!("pod {} {images:?} ready={ready}", pod.name_any());
            }
            for event in self.api::<Event>().list(&ListParams::default()).await.into_iter().flatten() {
                if event
                    .source
                    .as_ref()
                    .and_then(|source| source.component.as_deref())
                    .is_none_or(|c| c.contains("panacea"))
                    || event.reporting_component.as_deref().is_some_and(|c| c.contains("panacea"))
                {
                    eprintln!("event {:?} {:?}: {:?}", event.involved_object.name, event.reason, event.message);
                }
            }
        })
        .await;
    }
}
