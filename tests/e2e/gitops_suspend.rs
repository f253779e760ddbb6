//! With `safety.gitOps: Suspend`, the Flux or Argo CD object that would undo a rollback is suspended before it, and resumed
//! when its source has a newer revision or a person asks. On the real CRDs of both.

use std::{path::Path, time::Duration};

use kube::{
    Api, ResourceExt as _,
    api::{ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, PostParams},
};
use panacea::api::{GitOps, Phase, Remediation};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use crate::support::{
    cluster::{Test, run},
    gate::{Gate, Seen, Side},
    objects::policy,
    operator::{Operator, Options},
    role::Role,
    shell::{directory_of, typed},
    wait,
};

/// The kinds of Flux and Argo CD that these tests write.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Kustomization,
    HelmRelease,
    Application,
    GitRepository,
    OCIRepository,
}

impl Kind {
    fn resource(self) -> ApiResource {
        let (group, version, kind, plural) = match self {
            Self::Kustomization => ("kustomize.toolkit.fluxcd.io", "v1", "Kustomization", "kustomizations"),
            Self::HelmRelease => ("helm.toolkit.fluxcd.io", "v2", "HelmRelease", "helmreleases"),
            Self::Application => ("argoproj.io", "v1alpha1", "Application", "applications"),
            Self::GitRepository => ("source.toolkit.fluxcd.io", "v1", "GitRepository", "gitrepositories"),
            Self::OCIRepository => ("source.toolkit.fluxcd.io", "v1", "OCIRepository", "ocirepositories"),
        };
        ApiResource {
            group: group.into(),
            version: version.into(),
            api_version: format!("{group}/{version}"),
            kind: kind.into(),
            plural: plural.into(),
        }
    }

    fn api(self, test: &Test) -> Api<DynamicObject> {
        Api::namespaced_with(test.client.clone(), &test.namespace, &self.resource())
    }

    pub async fn create(self, test: &Test, name: &str, spec: Value) {
        let resource = self.resource();
        let object = json!({"apiVersion": resource.api_version, "kind": resource.kind, "metadata": {"name": name}, "spec": spec});
        let object = serde_json::from_value(object).unwrap();
        self.api(test).create(&PostParams::default(), &object).await.unwrap();
    }

    /// As its controller does.
    pub async fn set_status(self, test: &Test, name: &str, status: Value) {
        let patch = Patch::Merge(json!({"status": status}));
        let (api, params) = (self.api(test), PatchParams::default());
        match self {
            // An Application has no subresource for it.
            Self::Application => api.patch(name, &params, &patch).await.unwrap(),
            _ => api.patch_status(name, &params, &patch).await.unwrap(),
        };
    }

    /// The revision of a source.
    async fn set_artifact(self, test: &Test, name: &str, revision: &str) {
        let artifact = json!({
            "revision": revision, "path": "shop.tar.gz", "url": "http://source-controller/shop.tar.gz",
            "digest": format!("sha256:{}", "0".repeat(64)), "lastUpdateTime": "2026-01-01T00:00:00Z",
        });
        self.set_status(test, name, json!({"artifact": artifact})).await;
    }

    async fn patch(self, test: &Test, name: &str, patch: Value) {
        self.api(test).patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    }

    /// Waits until its spec is this one.
    pub async fn wait_spec(self, test: &Test, name: &str, wanted: &Value) {
        let what = format!("{} {name} to have the spec {wanted}", self.resource().kind);
        wait::until(&what, Duration::from_secs(60), async || {
            let found = self.api(test).get(name).await.unwrap();
            if found.data["spec"] == *wanted {
                Ok(())
            } else {
                Err(format!("{} {:?}", found.data["spec"], found.annotations()))
            }
        })
        .await;
    }

    pub async fn is_suspended(self, test: &Test, name: &str) -> bool {
        self.api(test).get(name).await.unwrap().data["spec"]["suspend"] == true
    }
}

/// Installs the CRDs once for all tests.
pub async fn crds() {
    static INSTALLED: OnceCell<()> = OnceCell::const_new();
    INSTALLED
        .get_or_init(async || {
            let folder = directory_of("gitops-crds", &[]).await;
            let folder = folder.display();
            let install = format!(
                "kubectl apply --server-side --force-conflicts -f '{folder}' && kubectl wait --for=condition=Established --timeout=60s -f '{folder}'"
            );
            let installed = typed(&install).await;
            assert!(installed.success(), "{installed:?}");
        })
        .await;
}

/// What the chart gives with `rbac.suspendGitOps`, and an operator with it.
struct Scene<'a> {
    test: &'a Test,
    role: Role,
}

impl<'a> Scene<'a> {
    async fn new(test: &'a Test) -> Self {
        crds().await;
        Self { test, role: Role::with(test, &["rbac.suspendGitOps=true"]).await }
    }

    async fn operator(&self) -> Operator {
        start(self.test, &self.role.kubeconfig()).await
    }

    /// The Kustomization `storefront` of the GitRepository `shop`, at main@sha1:aaa, and the Deployment `api` of it.
    async fn kustomization(&self) {
        let test = self.test;
        kustomization(test).await;
    }

    /// Successful writes of the operator to objects of this resource.
    fn writes(&self, resource: &str) -> usize {
        let user = self.role.user(self.test);
        let writes = self.test.writes().into_iter().filter(|write| write.user == user && write.code == 200);
        writes.filter(|write| write.resource == resource).count()
    }

    /// The bad release is rolled back, after `suspended` (a resource) was.
    async fn rolled_back(&self, suspended: &str) -> Remediation {
        let ended = self.test.wait_remediation(Phase::Succeeded).await;
        assert_eq!(self.test.image("api").await, "shop/api:v1");
        let (user, writes) = (self.role.user(self.test), self.test.writes());
        let order: Vec<&str> = writes
            .iter()
            .filter(|write| write.user == user && write.verb == "patch" && write.code == 200)
            .map(|write| write.resource.as_str())
            .filter(|resource| *resource == suspended || *resource == "deployments")
            .collect();
        assert_eq!(order, [suspended, "deployments"]);
        ended
    }

    /// Waits until the Remediation says that what it suspended is resumed, or left, and is let go.
    async fn let_go(&self, name: &str, words: &str) {
        let ended = self.test.wait_recorded(name, Duration::from_secs(30)).await;
        let suspended = ended.status.unwrap().suspended.unwrap();
        assert!(suspended.resumed_at.is_some() && suspended.message.contains(words), "{suspended:?}");
    }
}

async fn start(test: &Test, kubeconfig: &Path) -> Operator {
    let options = Options::default().through(kubeconfig).with("PANACEA_ARGOCD_NAMESPACE", &test.namespace);
    Operator::start(test, options).await
}

async fn kustomization(test: &Test) {
    Kind::GitRepository.create(test, "shop", json!({"interval": "1m", "url": "https://example.com/shop"})).await;
    Kind::GitRepository.set_artifact(test, "shop", "main@sha1:aaa").await;
    Kind::Kustomization.create(test, "storefront", kustomization_spec()).await;
    let id = format!("{}_api_apps_Deployment", test.namespace);
    let status = json!({
        "lastAttemptedRevision": "main@sha1:aaa", "lastAppliedRevision": "main@sha1:aaa",
        "inventory": {"entries": [{"id": id, "v": "v1"}]},
    });
    Kind::Kustomization.set_status(test, "storefront", status).await;
    let labels = json!({"kustomize.toolkit.fluxcd.io/name": "storefront", "kustomize.toolkit.fluxcd.io/namespace": test.namespace});
    deploy(test, json!({"labels": labels})).await;
}

fn kustomization_spec() -> Value {
    json!({"interval": "10m", "path": "./deploy", "prune": true, "force": false, "sourceRef": {"kind": "GitRepository", "name": "shop"}})
}

/// The Deployment `api` at v1 with these marks.
async fn deploy(test: &Test, metadata: Value) {
    test.deploy("api", "shop/api:v1", 2).await;
    test.patch_deployment("api", json!({"metadata": metadata})).await;
}

/// A bad release of what was seen healthy.
async fn bad_release(test: &Test) {
    let suspends = json!({"spec": {"interval": "1s", "safety": {"gitOps": GitOps::Suspend}}});
    test.apply_policy(&policy("shop", &["api"], &suspends)).await;
    test.wait_known_good("shop", "api").await;
    test.release("api", "shop/api:v2-crash").await;
}

async fn annotate(test: &Test, remediation: &str) {
    test.kubectl_succeeds(&["annotate", "rem", remediation, "panacea.dev/resume=true"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kustomization_is_suspended_for_a_rollback_and_resumed_with_a_newer_revision() {
    run("suspend-flux", async |test| {
        let scene = Scene::new(test).await;
        scene.kustomization().await;
        let operator = scene.operator().await;
        bad_release(test).await;
        let name = scene.rolled_back("kustomizations").await.name_any();

        let owner = Kind::Kustomization.api(test).get("storefront").await.unwrap();
        assert_eq!(owner.data["spec"]["suspend"], true);
        assert_eq!(owner.annotations()["panacea.dev/suspended-by"], format!("{}/{name}", test.namespace));
        assert_eq!(owner.annotations()["panacea.dev/suspended-at-revision"], "main@sha1:aaa");
        for about in ["storefront", "api", &name] {
            test.wait_event("GitOpsSuspended", about, "newer revision than main@sha1:aaa").await;
        }
        operator.wait_checks(4).await;
        assert!(Kind::Kustomization.is_suspended(test, "storefront").await, "its source is where it was");
        let kept = test.api::<Remediation>().get(&name).await.unwrap();
        assert!(!kept.finalizers().is_empty(), "it stays until it is resumed");

        Kind::GitRepository.set_artifact(test, "shop", "main@sha1:bbb").await;
        Kind::Kustomization.wait_spec(test, "storefront", &kustomization_spec()).await;
        assert!(Kind::Kustomization.api(test).get("storefront").await.unwrap().annotations().is_empty());
        scene.let_go(&name, "newer revision: main@sha1:bbb").await;
        for about in ["storefront", "api", &name] {
            test.wait_event("GitOpsResumed", about, "main@sha1:bbb").await;
        }
        assert_eq!((scene.writes("kustomizations"), scene.writes("deployments")), (2, 1));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn automated_sync_of_an_application_comes_back_exactly_as_it_was_when_a_person_asks() {
    run("suspend-argo", async |test| {
        let scene = Scene::new(test).await;
        let spec = |automated: Option<Value>| {
            let mut sync = json!({"retry": {"limit": 3}});
            if let Some(automated) = automated {
                sync["automated"] = automated;
            }
            json!({
                "project": "default", "destination": {"namespace": test.namespace, "server": "https://kubernetes.default.svc"},
                "source": {"repoURL": "https://example.com/shop", "path": "deploy", "targetRevision": "HEAD"}, "syncPolicy": sync,
            })
        };
        let automated = || Some(json!({"prune": true, "selfHeal": true, "allowEmpty": false}));
        Kind::Application.create(test, "storefront", spec(automated())).await;
        let compared = json!({"comparedTo": {"source": {"repoURL": "https://example.com/shop"}, "destination": {}}, "status": "Synced", "revision": "aaa"});
        let applied = json!({"group": "apps", "version": "v1", "kind": "Deployment", "namespace": test.namespace, "name": "api"});
        Kind::Application.set_status(test, "storefront", json!({"sync": compared, "resources": [applied]})).await;
        let id = format!("storefront:apps/Deployment:{}/api", test.namespace);
        deploy(test, json!({"annotations": {"argocd.argoproj.io/tracking-id": id}})).await;
        let operator = scene.operator().await;
        bad_release(test).await;
        let name = scene.rolled_back("applications").await.name_any();
        Kind::Application.wait_spec(test, "storefront", &spec(None)).await;
        test.wait_event("GitOpsSuspended", "storefront", "newer revision than aaa").await;
        operator.wait_checks(4).await;
        Kind::Application.wait_spec(test, "storefront", &spec(None)).await;

        annotate(test, &name).await;
        Kind::Application.wait_spec(test, "storefront", &spec(automated())).await;
        scene.let_go(&name, "a person requested it").await;
        assert_eq!((scene.writes("applications"), scene.writes("deployments")), (2, 1));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_helm_release_is_suspended_and_resumed_with_new_values() {
    run("suspend-helm", async |test| {
        let scene = Scene::new(test).await;
        Kind::OCIRepository.create(test, "chart", json!({"interval": "1m", "url": "oci://example.com/api"})).await;
        Kind::OCIRepository.set_artifact(test, "chart", "1.2.3@sha256:aaa").await;
        let spec = |values: Value| json!({"interval": "10m", "chartRef": {"kind": "OCIRepository", "name": "chart"}, "values": values});
        Kind::HelmRelease.create(test, "api", spec(json!({"tag": "v2-crash"}))).await;
        let labels = json!({"helm.toolkit.fluxcd.io/name": "api", "helm.toolkit.fluxcd.io/namespace": test.namespace});
        deploy(test, json!({"labels": labels})).await;
        let operator = scene.operator().await;
        bad_release(test).await;
        let name = scene.rolled_back("helmreleases").await.name_any();
        operator.wait_checks(4).await;
        assert!(Kind::HelmRelease.is_suspended(test, "api").await);

        Kind::HelmRelease.patch(test, "api", json!({"spec": {"values": {"tag": "v3"}}})).await;
        Kind::HelmRelease.wait_spec(test, "api", &spec(json!({"tag": "v3"}))).await;
        scene.let_go(&name, "changed values").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_person_suspended_is_never_resumed_by_panacea() {
    run("suspend-person", async |test| {
        let scene = Scene::new(test).await;
        scene.kustomization().await;
        Kind::Kustomization.patch(test, "storefront", json!({"spec": {"suspend": true}})).await;
        let operator = scene.operator().await;
        bad_release(test).await;
        let name = test.wait_remediation(Phase::Succeeded).await.name_any();
        assert_eq!(test.image("api").await, "shop/api:v1");
        let ended = test.wait_recorded(&name, Duration::from_secs(30)).await;
        assert!(ended.status.unwrap().suspended.unwrap().already);

        Kind::GitRepository.set_artifact(test, "shop", "main@sha1:bbb").await;
        annotate(test, &name).await;
        operator.wait_checks(4).await;
        assert!(Kind::Kustomization.is_suspended(test, "storefront").await);
        assert_eq!((scene.writes("kustomizations"), scene.writes("deployments")), (0, 1));
    })
    .await;
}

/// Who may label a workload must not have anything of others suspended.
#[tokio::test(flavor = "multi_thread")]
async fn marks_alone_suspend_nothing() {
    run("suspend-marks", async |test| {
        let scene = Scene::new(test).await;
        scene.kustomization().await;
        Kind::Kustomization.set_status(test, "storefront", json!({"inventory": {"entries": []}})).await;
        let _operator = scene.operator().await;
        bad_release(test).await;
        let blocked = test.wait_remediation(Phase::Blocked).await.status.unwrap();
        assert_eq!(blocked.reason, "GitOpsOwned");
        assert!(blocked.message.contains("does not report that it applies Deployment"), "{}", blocked.message);
        assert!(!Kind::Kustomization.is_suspended(test, "storefront").await);
        assert_eq!((scene.writes("kustomizations"), scene.writes("deployments")), (0, 0));
    })
    .await;
}

/// Killed at the request or answer that `wanted` finds, it rolls back once and resumes what it suspended.
async fn killed(name: &str, side: Side, wanted: fn(&Seen<'_>) -> bool) {
    run(name, async |test| {
        let scene = Scene::new(test).await;
        scene.kustomization().await;
        let gate = Gate::start(&scene.role.kubeconfig()).await;
        let mut operator = start(test, &gate.kubeconfig()).await;
        let mut held = gate.hold(side, wanted);
        bad_release(test).await;
        held.reached().await;
        operator.kill9();
        assert!(Kind::Kustomization.is_suspended(test, "storefront").await);
        assert_eq!(test.image("api").await, "shop/api:v2-crash", "it was killed between the two");

        operator.spawn();
        operator.wait_ready().await;
        let name = scene.rolled_back("kustomizations").await.name_any();
        assert_eq!(test.remediations().await.len(), 1);
        Kind::GitRepository.set_artifact(test, "shop", "main@sha1:bbb").await;
        Kind::Kustomization.wait_spec(test, "storefront", &kustomization_spec()).await;
        scene.let_go(&name, "main@sha1:bbb").await;
        assert_eq!((scene.writes("kustomizations"), scene.writes("deployments")), (2, 1));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_before_it_knows_that_it_has_suspended_it_continues_and_resumes() {
    let wanted = |seen: &Seen<'_>| seen.method.as_str() == "PATCH" && seen.path.contains("/kustomizations/");
    killed("suspend-kill-early", Side::Answer, wanted).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_between_suspending_and_rolling_back_it_rolls_back_once_and_resumes() {
    killed("suspend-kill", Side::Request, |seen| seen.is_deployment_patch()).await;
}

/// There is nothing to undo, so nothing is held back for it.
#[tokio::test(flavor = "multi_thread")]
async fn when_a_newer_release_comes_before_the_rollback_it_resumes_at_once() {
    run("suspend-superseded", async |test| {
        let scene = Scene::new(test).await;
        scene.kustomization().await;
        let gate = Gate::start(&scene.role.kubeconfig()).await;
        let _operator = start(test, &gate.kubeconfig()).await;
        let mut held = gate.hold(Side::Request, |seen| seen.is_deployment_patch());
        bad_release(test).await;
        held.reached().await;
        assert!(Kind::Kustomization.is_suspended(test, "storefront").await);
        test.release("api", "shop/api:v3").await;
        held.pass();
        let name = test.wait_remediation(Phase::Expired).await.name_any();
        Kind::Kustomization.wait_spec(test, "storefront", &kustomization_spec()).await;
        scene.let_go(&name, "the rollback was not carried out").await;
        assert_eq!((scene.writes("kustomizations"), scene.writes("deployments")), (2, 0));
        assert_eq!(test.image("api").await, "shop/api:v3");
    })
    .await;
}

/// As `flux resume` does.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_person_has_resumed_is_theirs() {
    run("suspend-resumed", async |test| {
        let scene = Scene::new(test).await;
        scene.kustomization().await;
        let _operator = scene.operator().await;
        bad_release(test).await;
        let name = scene.rolled_back("kustomizations").await.name_any();
        Kind::Kustomization.patch(test, "storefront", json!({"spec": {"suspend": false}})).await;
        scene.let_go(&name, "it is not suspended any more").await;
        let owner = Kind::Kustomization.api(test).get("storefront").await.unwrap();
        assert!(owner.data["spec"]["suspend"] == false && owner.annotations().is_empty(), "{owner:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_right_to_it_nothing_is_suspended_and_nothing_rolled_back() {
    run("suspend-forbidden", async |test| {
        crds().await;
        kustomization(test).await;
        let _operator = Operator::start(test, Options::default()).await;
        bad_release(test).await;
        let blocked = test.wait_remediation(Phase::Blocked).await.status.unwrap();
        assert_eq!(blocked.reason, "Forbidden", "{}", blocked.message);
        assert!(blocked.message.contains("not allowed to get kustomizations"), "{}", blocked.message);
        let touched = test.operator_writes_to_workloads();
        assert!(touched.is_empty(), "{touched:?}");
        assert!(!Kind::Kustomization.is_suspended(test, "storefront").await);
        assert_eq!(test.image("api").await, "shop/api:v2-crash");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn when_its_remediation_is_deleted_a_kustomization_stays_suspended_and_says_how_to_resume_it() {
    run("suspend-deleted", async |test| {
        let scene = Scene::new(test).await;
        scene.kustomization().await;
        let _operator = scene.operator().await;
        bad_release(test).await;
        let name = scene.rolled_back("kustomizations").await.name_any();
        test.api::<Remediation>().delete(&name, &DeleteParams::default()).await.unwrap();
        let resume = format!("flux resume kustomization storefront -n {}", test.namespace);
        test.wait_event("GitOpsLeft", "storefront", &resume).await;
        wait::until("the Remediation to be gone", Duration::from_secs(30), async || {
            let left = test.api::<Remediation>().get_opt(&name).await.unwrap();
            left.map_or(Ok(()), |left| Err(format!("{:?}", left.metadata)))
        })
        .await;
        assert!(Kind::Kustomization.is_suspended(test, "storefront").await);
    })
    .await;
}
