use super::*;
use crate::{
    api::Suspension,
    targets::kubernetes::{
        Owner, OwnerKind,
        act::suspend::{Followed, Held},
        fake_server::post,
        gitops::object::Item,
    },
};

const KUSTOMIZATION: &str = "/apis/kustomize.toolkit.fluxcd.io/v1/namespaces/flux-system/kustomizations/shop";
const APPLICATION: &str = "/apis/argoproj.io/v1alpha1/namespaces/argocd/applications/shop";
const SOURCE: &str = "/apis/source.toolkit.fluxcd.io/v1/namespaces/flux-system/gitrepositories/shop";
const REVIEW: &str = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
const BY: &str = "shop/rem";

/// What is to be rolled back.
fn api() -> Item {
    Item { group: "apps", kind: "Deployment".into(), namespace: NS.into(), name: NAME.into() }
}

/// As a Kustomization lists it.
fn inventory() -> Value {
    json!({"entries": [{"id": "shop_web_apps_Deployment", "v": "v1"}, {"id": "shop_api_apps_Deployment", "v": "v1"}]})
}

fn flux() -> Owner {
    Owner::Named { kind: OwnerKind::Kustomization, namespace: Some("flux-system".into()), name: "shop".into() }
}

fn argo() -> Owner {
    Owner::Named { kind: OwnerKind::Application, namespace: None, name: "shop".into() }
}

/// The Kustomization with this `spec.suspend` and these annotations.
fn kustomization(suspend: bool, annotations: Value) -> Value {
    json!({
        "apiVersion": "kustomize.toolkit.fluxcd.io/v1", "kind": "Kustomization",
        "metadata": {"name": "shop", "namespace": "flux-system", "resourceVersion": "7", "generation": 3, "annotations": annotations},
        "spec": {"suspend": suspend, "sourceRef": {"kind": "GitRepository", "name": "shop"}},
        "status": {"lastAttemptedRevision": "main@1", "inventory": inventory()},
    })
}

fn at(revision: &str) -> Exchange {
    get(
        SOURCE,
        200,
        json!({"apiVersion": "source.toolkit.fluxcd.io/v1", "kind": "GitRepository", "metadata": {"name": "shop"}, "status": {"artifact": {"revision": revision}}}),
    )
}

fn allowed(allowed: bool) -> Exchange {
    post(REVIEW, 201, json!({"spec": {}, "status": {"allowed": allowed}}))
}

fn missing(path: &str) -> Exchange {
    get(path, 404, failure(404, "NotFound", "not found"))
}

fn suspension() -> Suspension {
    Suspension {
        kind: "Kustomization".into(),
        namespace: "flux-system".into(),
        name: "shop".into(),
        revision: Some("main@1".into()),
        ..Suspension::default()
    }
}

async fn plan(owner: &Owner, script: Vec<Exchange>) -> Result<Suspension, ActError> {
    let (client, task) = server(script);
    let planned = Kubernetes::new(client).plan_suspension(owner, &api()).await;
    task.await.unwrap();
    planned
}

async fn suspend(script: Vec<Exchange>) -> (Result<Held, ActError>, Vec<Seen>) {
    let (client, task) = server(script);
    let held = Kubernetes::new(client).suspend(&suspension(), BY).await;
    (held, task.await.unwrap())
}

async fn follow(at_once: bool, script: Vec<Exchange>) -> (Result<Followed, ActError>, Vec<Seen>) {
    let (client, task) = server(script);
    let followed = Kubernetes::new(client).follow(&suspension(), BY, at_once).await;
    (followed, task.await.unwrap())
}

#[tokio::test]
async fn the_preflight_detects_whether_an_owner_can_be_suspended() {
    let live = || get(KUSTOMIZATION, 200, kustomization(false, json!({})));
    let planned = plan(&flux(), vec![live(), allowed(true)]).await.unwrap();
    assert_eq!((planned.kind.as_str(), planned.revision.as_deref()), ("Kustomization", Some("main@1")));

    let error = plan(&flux(), vec![live(), allowed(false)]).await.unwrap_err();
    assert!(error.to_string().contains("not allowed to patch kustomizations"), "{error}");
    let forbidden = get(KUSTOMIZATION, 403, failure(403, "Forbidden", "no"));
    let error = plan(&flux(), vec![forbidden]).await.unwrap_err();
    assert!(error.to_string().contains("not allowed to get kustomizations"), "{error}");

    // Its CRD is not installed.
    let no_such_kind = get(KUSTOMIZATION, 404, json!("404 page not found"));
    assert_eq!(plan(&flux(), vec![no_such_kind]).await.unwrap_err().reason().name(), "GitOpsOwned");
    let error = plan(&argo(), vec![missing(APPLICATION)]).await.unwrap_err();
    assert_eq!(error.reason().name(), "GitOpsOwned");
    assert!(error.to_string().contains("not found in namespace argocd (see --argocd-namespace)"), "{error}");

    let busy = json!({
        "metadata": {"name": "shop"}, "operation": {"sync": {}}, "spec": {"syncPolicy": {"automated": {}}},
        "status": {"resources": [{"group": "apps", "version": "v1", "kind": "Deployment", "namespace": NS, "name": NAME}]},
    });
    let error = plan(&argo(), vec![get(APPLICATION, 200, busy)]).await.unwrap_err();
    assert_eq!((error.reason().name(), error.retryable()), ("OwnerBusy", true));

    // Anybody can label a workload.
    let mut foreign = kustomization(false, json!({}));
    foreign["status"]["inventory"]["entries"] = json!([{"id": "shop_web_apps_Deployment", "v": "v1"}]);
    let error = plan(&flux(), vec![get(KUSTOMIZATION, 200, foreign)]).await.unwrap_err();
    assert_eq!(error.reason().name(), "GitOpsOwned");
    assert!(error.to_string().contains("does not report that it applies Deployment shop/api"), "{error}");

    let nameless = Owner::Applied { kind: OwnerKind::Application, manager: "argocd-controller".into() };
    assert_eq!(plan(&nameless, vec![]).await.unwrap_err().reason().name(), "GitOpsOwned");
}

#[tokio::test]
async fn an_unreadable_source_does_not_prevent_the_suspension() {
    let mut live = kustomization(false, json!({}));
    live["status"] = json!({"inventory": inventory()});
    let planned = plan(&flux(), vec![get(KUSTOMIZATION, 200, live), allowed(true), missing(SOURCE)]).await.unwrap();
    assert!(planned.revision.is_none() && planned.message.contains("not found"), "{planned:?}");
}

#[tokio::test]
async fn an_owner_is_suspended_once_under_the_version_read() {
    let on = || get(KUSTOMIZATION, 200, kustomization(false, json!({})));
    let off = |by: &str| get(KUSTOMIZATION, 200, kustomization(true, json!({"panacea.dev/suspended-by": by})));
    let lost = patch(KUSTOMIZATION, 409, failure(409, "Conflict", "changed"));
    let written = patch(KUSTOMIZATION, 200, kustomization(true, json!({})));
    let (held, seen) = suspend(vec![on(), lost, on(), written]).await;
    assert_eq!(held, Ok(Held::Ours { generation: Some(3) }));
    assert_eq!(seen[3].body["spec"], json!({"suspend": true}));
    assert_eq!(seen[3].body["metadata"]["resourceVersion"], "7");
    assert_eq!(seen[3].body["metadata"]["annotations"]["panacea.dev/suspended-previous"], "false");

    assert_eq!(suspend(vec![off(BY)]).await.0, Ok(Held::Ours { generation: Some(3) }), "before a crash");
    assert_eq!(suspend(vec![off("shop/other")]).await.0, Ok(Held::Already { by: Some("shop/other".into()) }));
    let manual = get(KUSTOMIZATION, 200, kustomization(true, json!({})));
    assert_eq!(suspend(vec![manual]).await.0, Ok(Held::Already { by: None }));
}

#[tokio::test]
async fn an_owner_is_resumed_only_with_another_revision_or_on_request() {
    let ours = || {
        get(
            KUSTOMIZATION,
            200,
            kustomization(true, json!({"panacea.dev/suspended-by": BY, "panacea.dev/suspended-previous": "false"})),
        )
    };
    let written = || patch(KUSTOMIZATION, 200, kustomization(false, json!({})));
    let (followed, seen) = follow(false, vec![ours(), at("main@2"), written()]).await;
    assert_eq!(followed, Ok(Followed::Resumed(Some("main@2".into()))));
    assert_eq!(seen[2].body["spec"], json!({"suspend": false}));
    assert_eq!(follow(true, vec![ours(), written()]).await.0, Ok(Followed::Resumed(None)));

    assert_eq!(follow(false, vec![ours(), at("main@1")]).await.0, Ok(Followed::Waits(None)));
    let (followed, _) = follow(false, vec![ours(), missing(SOURCE)]).await;
    assert!(matches!(&followed, Ok(Followed::Waits(Some(why))) if why.contains("not found")), "{followed:?}");

    let taken_over = get(KUSTOMIZATION, 200, kustomization(true, json!({})));
    assert!(matches!(follow(true, vec![taken_over]).await.0, Ok(Followed::Left(_))));
    assert!(matches!(follow(true, vec![missing(KUSTOMIZATION)]).await.0, Ok(Followed::Over(_))));
    // A person has resumed it: only our marks are taken away.
    let resumed = get(KUSTOMIZATION, 200, kustomization(false, json!({"panacea.dev/suspended-by": BY})));
    let (followed, seen) = follow(false, vec![resumed, written()]).await;
    assert!(matches!(followed, Ok(Followed::Over(_))));
    assert!(seen[1].body.get("spec").is_none(), "{}", seen[1].body);
}

#[tokio::test]
async fn only_objects_of_a_suspended_owner_are_rolled_back() {
    let of = |name: &str| {
        let labels =
            json!({"kustomize.toolkit.fluxcd.io/name": name, "kustomize.toolkit.fluxcd.io/namespace": "flux-system"});
        read(with(deployment(2, "v2", 3), "/metadata/labels", labels))
    };
    let (client, task) = server(vec![of("shop"), both(), written()]);
    let kubernetes = Kubernetes::new(client).beside(&suspension());
    assert_eq!(kubernetes.on(API).rollback(&bad(), &good()).await, Ok(Outcome::Done { generation: 7 }));
    drop(kubernetes);
    task.await.unwrap();
    let (client, task) = server(vec![of("other")]);
    let kubernetes = Kubernetes::new(client).beside(&suspension());
    refused(kubernetes.on(API).rollback(&bad(), &good()).await, "GitOpsOwned", false);
    drop(kubernetes);
    task.await.unwrap();
}
