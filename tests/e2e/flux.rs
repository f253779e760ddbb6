//! `safety.gitOps: Suspend` beside Flux's own kustomize-controller: while its Kustomization is suspended it does not undo
//! the rollback, and what comes next in its source is applied. The source is served here, as source-controller would.

use std::{
    process::{Child, Command, Stdio},
    time::Duration,
};

use axum::{Router, extract::Path, routing::get};
use k8s_openapi::api::{apps::v1::Deployment, core::v1::ConfigMap};
use kube::ResourceExt as _;
use panacea::api::{GitOps, Phase};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::{
    gitops_suspend::{Kind, crds},
    support::{
        cluster::{Test, cluster_dir, run},
        objects::{deployment, policy},
        operator::{Operator, Options},
        role::Role,
        shell::{directory_of, typed},
        wait,
    },
};

/// Flux's kustomize-controller for one namespace, as the administrator; ends with the test.
struct KustomizeController {
    child: Child,
    log: tempfile::NamedTempFile,
}

impl KustomizeController {
    async fn start(test: &Test) -> Self {
        let log = tempfile::NamedTempFile::new().unwrap();
        let child = Command::new(directory_of("build", &["flux"]).await.join("kustomize-controller"))
            .args(["--watch-all-namespaces=false", "--metrics-addr=0", "--health-addr=0"])
            .env("KUBECONFIG", cluster_dir().join("admin.kubeconfig"))
            .env("RUNTIME_NAMESPACE", &test.namespace)
            .stdin(Stdio::null())
            .stdout(log.reopen().unwrap())
            .stderr(log.reopen().unwrap())
            .spawn()
            .unwrap_or_else(|why| panic!("kustomize-controller: {why}"));
        Self { child, log }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.log.path()).unwrap()
    }
}

impl Drop for KustomizeController {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a source has to offer: one folder with the Deployment `api`, another with the ConfigMap `other`.
struct Source {
    folder: tempfile::TempDir,
    address: String,
}

impl Source {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let root = folder.path().to_owned();
        let file = async move |Path(name): Path<String>| std::fs::read(root.join(name)).unwrap();
        let router = Router::new().route("/{name}", get(file));
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { folder, address }
    }

    /// Makes this the newest revision of GitRepository `shop`.
    async fn push(&self, test: &Test, revision: &str, image: &str) {
        let tree = self.folder.path().join(revision);
        let map =
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "other"}, "data": {"from": "git"}});
        for (folder, object) in [("deploy", deployment("api", image, 2)), ("other", map)] {
            std::fs::create_dir_all(tree.join(folder)).unwrap();
            std::fs::write(tree.join(folder).join("object.yaml"), object.to_string()).unwrap();
        }
        let archive = format!("{revision}.tar.gz");
        let (tree, folder) = (tree.display(), self.folder.path().display());
        let pack = format!("tar -C '{tree}' -czf '{folder}/{archive}' . && sha256sum < '{folder}/{archive}'");
        let packed = typed(&pack).await;
        assert!(packed.success(), "{packed:?}");
        let digest = packed.stdout.split_whitespace().next().unwrap();
        let artifact = json!({
            "revision": format!("main@sha1:{revision}"), "path": archive, "url": format!("{}/{archive}", self.address),
            "digest": format!("sha256:{digest}"), "lastUpdateTime": "2026-01-01T00:00:00Z",
        });
        Kind::GitRepository.set_status(test, "shop", json!({"artifact": artifact})).await;
    }
}

fn kustomization(test: &Test, path: &str) -> Value {
    json!({
        "interval": "2s", "path": path, "prune": true, "force": false, "targetNamespace": test.namespace,
        "sourceRef": {"kind": "GitRepository", "name": "shop"},
    })
}

/// Waits until the object in the source is applied.
async fn wait_image(test: &Test, controller: &KustomizeController, image: &str) {
    wait::until(&format!("api to have {image}"), Duration::from_secs(60), async || {
        let found = test.api::<Deployment>().get_opt("api").await.unwrap();
        let pod = found.and_then(|found| found.spec?.template.spec);
        let found = pod.and_then(|pod| pod.containers.into_iter().next()?.image).unwrap_or_default();
        if found == image { Ok(()) } else { Err(format!("{found:?}; {}", controller.log())) }
    })
    .await;
}

/// The controller has applied the objects that are not suspended since: a manual change is reverted.
async fn wait_taken_back(test: &Test, controller: &KustomizeController) {
    test.change_map("other", json!({"from": "hand"})).await;
    wait::until("the ConfigMap to be as it is in the source", Duration::from_secs(60), async || {
        let map = test.api::<ConfigMap>().get("other").await.unwrap();
        let from = map.data.unwrap_or_default()["from"].clone();
        if from == "git" { Ok(()) } else { Err(controller.log()) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn flux_does_not_undo_the_rollback_and_continues_with_the_next_revision() {
    run("flux", async |test| {
        crds().await;
        let source = Source::start().await;
        Kind::GitRepository.create(test, "shop", json!({"interval": "1m", "url": "https://example.com/shop"})).await;
        source.push(test, "aaa", "shop/api:v1").await;
        let controller = KustomizeController::start(test).await;
        for (name, path) in [("storefront", "./deploy"), ("other", "./other")] {
            Kind::Kustomization.create(test, name, kustomization(test, path)).await;
        }
        wait_image(test, &controller, "shop/api:v1").await;
        test.wait_rolled_out("api").await;

        let role = Role::with(test, &["rbac.suspendGitOps=true"]).await;
        let _operator = Operator::start(test, Options::default().through(role.kubeconfig())).await;
        let suspends = json!({"spec": {"interval": "1s", "safety": {"gitOps": GitOps::Suspend}}});
        test.apply_policy(&policy("shop", &["api"], &suspends)).await;
        test.wait_known_good("shop", "api").await;
        source.push(test, "bbb", "shop/api:v2-crash").await;
        let healed = test.wait_remediation(Phase::Succeeded).await;
        assert_eq!(test.image("api").await, "shop/api:v1");
        let generation = test.generation("api").await;
        // It applies every 2 s. After two rounds that are seen to be whole, the rollback stands.
        for _ in 0..2 {
            wait_taken_back(test, &controller).await;
        }
        assert_eq!(test.image("api").await, "shop/api:v1");
        assert_eq!(test.generation("api").await, generation, "nobody has written to it");
        assert!(Kind::Kustomization.is_suspended(test, "storefront").await);

        source.push(test, "ccc", "shop/api:v3").await;
        wait_image(test, &controller, "shop/api:v3").await;
        test.wait_rolled_out("api").await;
        test.wait_event("GitOpsResumed", &healed.name_any(), "main@sha1:ccc").await;
        Kind::Kustomization.wait_spec(test, "storefront", &kustomization(test, "./deploy")).await;
    })
    .await;
}
