//! Custom remedies: Jobs and webhooks, on a plain HTTP service that nothing else can heal.

use std::{
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::IntoResponse,
    routing::{get, post},
};
use k8s_openapi::api::{
    batch::v1::Job,
    core::v1::{ConfigMap, Secret},
};
use kube::{
    ResourceExt as _,
    api::{ListParams, PostParams},
};
use panacea::api::{ActionKind, Phase, Remediation};
use serde_json::{Value, json};

use crate::support::{
    cluster::{Test, env, run},
    gate::{Gate, Side},
    objects::policy,
    operator::{Operator, Options},
    role::Role,
    wait,
};

/// A delivery: its headers and body.
type Delivered = (HeaderMap, String);

/// A broken site, and endpoints that heal it.
#[derive(Clone, Default)]
struct Site {
    well: Arc<AtomicBool>,
    /// Until it is set, `/hangs` does not answer.
    answers: Arc<AtomicBool>,
    polls: Arc<AtomicU32>,
    delivered: Arc<Mutex<Vec<Delivered>>>,
    address: String,
}

async fn health(State(site): State<Site>) -> StatusCode {
    if site.well.load(Ordering::SeqCst) { StatusCode::OK } else { StatusCode::INTERNAL_SERVER_ERROR }
}

/// Says 202 at first, 202 once more when it is asked, and then that it is done.
async fn heal(State(site): State<Site>, headers: HeaderMap, body: Bytes) -> impl IntoResponse {
    site.note(headers, &body);
    (StatusCode::ACCEPTED, [("location", "/runs/7"), ("retry-after", "1")])
}

async fn runs(State(site): State<Site>) -> StatusCode {
    if site.polls.fetch_add(1, Ordering::SeqCst) == 0 {
        return StatusCode::ACCEPTED;
    }
    site.well.store(true, Ordering::SeqCst);
    StatusCode::OK
}

async fn forever(State(site): State<Site>, headers: HeaderMap, body: Bytes) -> impl IntoResponse {
    site.note(headers, &body);
    (StatusCode::ACCEPTED, [("location", "/forever/7")])
}

async fn hangs(State(site): State<Site>, headers: HeaderMap, body: Bytes) -> StatusCode {
    site.note(headers, &body);
    if !site.answers.load(Ordering::SeqCst) {
        std::future::pending::<()>().await;
    }
    site.well.store(true, Ordering::SeqCst);
    StatusCode::NO_CONTENT
}

async fn at_once(State(site): State<Site>, headers: HeaderMap, body: Bytes) -> StatusCode {
    site.note(headers, &body);
    site.well.store(true, Ordering::SeqCst);
    StatusCode::NO_CONTENT
}

impl Site {
    async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let site = Self { address: format!("http://{}", listener.local_addr().unwrap()), ..Self::default() };
        let router = Router::new()
            .route("/health", get(health))
            .route("/heal", post(heal))
            .route("/runs/7", get(runs))
            .route("/forever", post(forever))
            .route("/forever/7", get(async || StatusCode::ACCEPTED))
            .route("/broken", post(async || (StatusCode::UNPROCESSABLE_ENTITY, "no such site")))
            .route("/hangs", post(hangs))
            .route("/at-once", post(at_once))
            .with_state(site.clone());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        site
    }

    fn note(&self, headers: HeaderMap, body: &[u8]) {
        self.delivered.lock().unwrap().push((headers, String::from_utf8(body.to_vec()).unwrap()));
    }

    fn keys(&self) -> Vec<String> {
        let delivered = self.delivered.lock().unwrap();
        delivered.iter().map(|(headers, _)| headers["idempotency-key"].to_str().unwrap().to_owned()).collect()
    }

    fn policy(&self, remedies: &Value) -> Value {
        let mut wanted = policy("shop", &["site"], &json!({"spec": {"interval": "1s"}}));
        wanted["spec"]["components"][0]["target"] = json!({"http": {"url": format!("{}/health", self.address)}});
        wanted["spec"]["components"][0]["remedies"] = remedies.clone();
        wanted["spec"]["detection"] = json!({"confirmAfter": "200ms"});
        wanted
    }

    fn webhook(&self, path: &str, more: &Value) -> Value {
        let mut webhook = json!({"url": format!("{}{path}", self.address)});
        crate::support::objects::merge(&mut webhook, more);
        json!({"action": "Webhook", "webhook": webhook})
    }
}

/// `fails`, `nopull` or none: how its pod ends.
fn job(tag: &str, more: &Value) -> Value {
    let mut job = json!({"template": {
        "metadata": {"labels": {"team": "shop"}},
        "spec": {"backoffLimit": 0, "template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "fix", "image": format!("shop/fix:{tag}")}]}}},
    }});
    crate::support::objects::merge(&mut job, more);
    json!({"action": "Job", "job": job})
}

async fn with_role(test: &Test, values: &[&str]) -> (Role, Options) {
    let role = Role::with(test, values).await;
    let options = Options::default().through(role.kubeconfig());
    (role, options)
}

impl Test {
    async fn jobs(&self) -> Vec<Job> {
        self.api::<Job>().list(&ListParams::default()).await.unwrap().items
    }

    async fn signing_secret(&self, value: &str) {
        let secret =
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "ops"}, "stringData": {"key": value}});
        let secret: Secret = serde_json::from_value(secret).unwrap();
        self.api().create(&PostParams::default(), &secret).await.unwrap();
    }
}

fn message(remediation: &Remediation) -> &str {
    &remediation.status.as_ref().unwrap().message
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_run_once_with_the_facts_and_helps_only_when_the_site_is_healthy() {
    run("own-job", async |test| {
        let site = Site::start().await;
        let (_role, options) = with_role(test, &["rbac.runJobs=true"]).await;
        let operator = Operator::start(test, options).await;
        test.apply_policy(&site.policy(&json!([job("v1", &json!({}))]))).await;
        let verified = test.wait_remediation(Phase::Verifying).await;
        let [made] = &test.jobs().await[..] else { panic!("one job") };
        let status = made.status.as_ref().unwrap();
        assert!(
            status.conditions.iter().flatten().any(|one| one.type_ == "Complete" && one.status == "True"),
            "{status:?}"
        );
        assert_eq!(made.owner_references()[0].uid, verified.uid().unwrap());
        assert_eq!((made.labels()["team"].as_str(), made.labels()["panacea.dev/component"].as_str()), ("shop", "site"));
        let pod = made.spec.as_ref().unwrap().template.spec.as_ref().unwrap();
        let told = |name: &str| {
            let env = pod.containers[0].env.as_ref().unwrap().iter();
            env.clone().find(|one| one.name == name).unwrap().value.clone().unwrap()
        };
        assert_eq!(told("PANACEA_REMEDIATION"), verified.name_any());
        assert_eq!(
            [told("PANACEA_COMPONENT"), told("PANACEA_TARGET_KIND"), told("PANACEA_CAUSE")],
            ["site", "Http", "Errors"]
        );
        assert!(told("PANACEA_WHY").contains("500"), "{}", told("PANACEA_WHY"));
        test.wait_event("Acting", &verified.name_any(), &format!("Job {} runs", made.name_any())).await;

        // The Job is complete, and nothing is claimed.
        assert!(message(&verified).contains("is complete; watching whether it helps"), "{}", message(&verified));
        site.well.store(true, Ordering::SeqCst);
        let healed = test.wait_remediation(Phase::Succeeded).await;
        test.wait_recorded(&healed.name_any(), Duration::from_secs(20)).await;
        assert_eq!(operator.action_rows().await, [("custom_remedy".to_owned(), true, healed.name_any())]);
        assert_eq!(operator.action_outputs().await[0]["job"], json!(made.name_any()));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_or_takes_too_long_says_so_and_a_signed_webhook_is_followed_to_its_end() {
    run("own-ladder", async |test| {
        let site = Site::start().await;
        let (_role, options) = with_role(test, &["rbac.runJobs=true", "rbac.signWebhooks=true"]).await;
        let operator = Operator::start(test, options).await;
        test.signing_secret("whsec_plJ3nmyCDGBKInavdOK15jsl").await;
        let remedies = json!([
            job("v1-fail", &json!({})),
            job("v1-nopull", &json!({"deadline": "2s"})),
            site.webhook("/broken", &json!({})),
            site.webhook("/forever", &json!({"deadline": "3s"})),
            site.webhook("/heal", &json!({"secretRef": {"name": "ops", "key": "key"}})),
        ]);
        test.apply_policy(&site.policy(&remedies)).await;
        let healed = test.wait_remediation_within(Phase::Succeeded, Duration::from_secs(120)).await;
        let outcomes = test.outcomes().await;
        let failed = |action, reason: &str| (action, Phase::Failed, reason.to_owned());
        assert_eq!(
            outcomes[..4],
            [
                failed(ActionKind::Job, "JobFailed"),
                failed(ActionKind::Job, "JobFailed"),
                failed(ActionKind::Webhook, "HookRefused"),
                failed(ActionKind::Webhook, "DeadlineExceeded"),
            ]
        );
        let all = test.remediations().await;
        for (place, words) in
            [(0, "BackoffLimitExceeded"), (1, "DeadlineExceeded"), (2, "no such site"), (3, "within its deadline, 3s")]
        {
            assert!(message(&all[place]).contains(words), "{}", message(&all[place]));
        }
        assert!(message(&all[0]).contains("kubectl logs job/site-"), "{}", message(&all[0]));

        // Polled twice, called once, and signed: its receiver can verify the sender.
        assert_eq!(site.polls.load(Ordering::SeqCst), 2);
        let (headers, body) = site.delivered.lock().unwrap().last().unwrap().clone();
        let header = |name: &str| headers[name].to_str().unwrap().to_owned();
        assert_eq!([header("webhook-id"), header("idempotency-key")], [healed.uid().unwrap(), healed.uid().unwrap()]);
        let signed = format!("{}.{}.{body}", header("webhook-id"), header("webhook-timestamp"));
        let signature = openssl_hmac("a652779e6c820c604a2276af74e2b5e63b25", &signed).await;
        assert_eq!(header("webhook-signature"), format!("v1,{signature}"));
        let told: Value = serde_json::from_str(&body).unwrap();
        assert_eq!((&told["data"]["component"], &told["data"]["cause"]), (&json!("site"), &json!("Errors")));
        test.wait_recorded(&healed.name_any(), Duration::from_secs(20)).await;
        let kinds: Vec<(String, bool)> = operator.action_rows().await.into_iter().map(|row| (row.0, row.1)).collect();
        assert_eq!(kinds[3..], [("custom_remedy_failed".to_owned(), false), ("custom_remedy".to_owned(), true)]);
        assert!(!operator.log().contains("plJ3nmyCDGBKInavdOK15jsl"), "the secret is in the log");
    })
    .await;
}

/// Base64 of the HMAC-SHA256, by another program.
async fn openssl_hmac(hex_key: &str, text: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("text");
    std::fs::write(&path, text).unwrap();
    let line = format!(
        "openssl dgst -sha256 -mac HMAC -macopt hexkey:{hex_key} -binary '{}' | base64 | tr -d '\\n'",
        path.display()
    );
    let ended = crate::support::shell::typed(&line).await;
    assert!(ended.success(), "{ended:?}");
    ended.stdout
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_rights_it_says_which_one_is_missing_and_the_next_remedy_is_tried() {
    run("own-role", async |test| {
        let site = Site::start().await;
        let (role, options) = with_role(test, &[]).await;
        let _operator = Operator::start(test, options).await;
        let remedies = json!([
            job("v1", &json!({})),
            site.webhook("/heal", &json!({"secretRef": {"name": "ops", "key": "key"}})),
            site.webhook("/heal", &json!({})),
        ]);
        test.apply_policy(&site.policy(&remedies)).await;
        let healed = test.wait_remediation_within(Phase::Succeeded, Duration::from_secs(120)).await;
        let outcomes = test.outcomes().await;
        assert_eq!(
            outcomes[..2],
            [
                (ActionKind::Job, Phase::Expired, "Forbidden".to_owned()),
                (ActionKind::Webhook, Phase::Expired, "Forbidden".to_owned())
            ]
        );
        let all = test.remediations().await;
        assert!(message(&all[0]).contains("not allowed to get jobs"), "{}", message(&all[0]));
        assert!(message(&all[1]).contains("not allowed to get secrets"), "{}", message(&all[1]));
        test.wait_event("Blocked", &all[0].name_any(), "the chart's value rbac.runJobs does").await;
        assert_eq!(site.keys(), [healed.uid().unwrap()]);
        let (headers, _) = site.delivered.lock().unwrap()[0].clone();
        assert!(!headers.contains_key("webhook-signature"));
        assert!(
            !test.writes().into_iter().any(|write| write.user == role.user(test) && write.code == 403),
            "it knew before it tried"
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_template_that_cannot_be_used_is_named_and_one_in_a_configmap_can() {
    run("own-template", async |test| {
        let site = Site::start().await;
        let (_role, options) = with_role(test, &["rbac.runJobs=true"]).await;
        let _operator = Operator::start(test, options).await;
        let good = "apiVersion: batch/v1\nkind: Job\nspec:\n  template:\n    spec:\n      restartPolicy: Never\n      containers:\n      - {name: fix, image: 'shop/fix:v1'}\n";
        let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "remedies"}, "data": {
            "good.yaml": good, "misspelt.yaml": good.replace("image", "imag"), "refused.yaml": good.replace("Never", "Always"),
        }});
        let map: ConfigMap = serde_json::from_value(map).unwrap();
        test.api().create(&PostParams::default(), &map).await.unwrap();
        let of = |name: &str, key: &str| json!({"action": "Job", "job": {"templateRef": {"name": name, "key": key}}});
        let remedies = json!([
            of("other", "good.yaml"),
            of("remedies", "missing.yaml"),
            of("remedies", "misspelt.yaml"),
            of("remedies", "refused.yaml"),
            of("remedies", "good.yaml"),
        ]);
        test.apply_policy(&site.policy(&remedies)).await;
        let done = test.wait_remediation_within(Phase::Verifying, Duration::from_secs(120)).await;
        let all = test.remediations().await;
        for (place, words) in [
            (0, "ConfigMap other: does not exist"),
            (1, "ConfigMap remedies: has no key missing.yaml"),
            (2, "spec.template.spec.containers.0.imag is no field of a Job"),
            (3, "the Job would be refused"),
        ] {
            let status = all[place].status.as_ref().unwrap();
            assert_eq!((status.phase, status.reason.as_str()), (Phase::Expired, "BadRemedy"), "{}", status.message);
            assert!(status.message.contains(words), "{}", status.message);
        }
        assert_eq!((all.len(), test.jobs().await.len()), (5, 1));
        site.well.store(true, Ordering::SeqCst);
        test.wait_ended(&done.name_any()).await;
    })
    .await;
}

/// Killed before the Job is made, when it was made and not answered, and while it is verified; and in the middle of a
/// delivery.
#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_moment_there_is_one_job_and_one_delivery_key() {
    run("own-killed", async |test| {
        let site = Site::start().await;
        let role = Role::with(test, &["rbac.runJobs=true"]).await;
        let gate = Gate::start(Path::new(&role.kubeconfig())).await;
        let options = Options::default().through(gate.kubeconfig());
        let mut operator = Operator::start(test, options).await;
        let mut held = gate.hold(Side::Request, |seen| seen.is_job_post());
        let remedies = json!([job("v1", &json!({})), site.webhook("/hangs", &json!({"timeout": "60s"}))]);
        let mut wanted = site.policy(&remedies);
        wanted["spec"]["verification"] = json!({"stabilization": "1s", "timeout": "4s"});
        test.apply_policy(&wanted).await;
        held.reached().await;
        operator.kill9();
        drop(held);
        assert!(test.jobs().await.is_empty());
        assert_eq!(test.outcomes().await[0].1, Phase::Running, "the intent is there before the write");

        let mut held = gate.hold(Side::Answer, |seen| seen.is_job_post());
        operator.spawn();
        held.reached().await;
        operator.kill9();
        drop(held);
        let made: Vec<String> = test.jobs().await.iter().filter_map(|job| job.uid()).collect();
        assert_eq!(made.len(), 1);
        operator.spawn();
        test.wait_remediation(Phase::Verifying).await;
        operator.kill9();
        operator.spawn();

        // It did not help; the webhook is next.
        wait::until("a delivery", Duration::from_secs(90), async || match site.keys().len() {
            0 => Err(format!("{:?}", test.outcomes().await)),
            _ => Ok(()),
        })
        .await;
        operator.kill9();
        site.answers.store(true, Ordering::SeqCst);
        operator.spawn();
        let healed = test.wait_remediation_within(Phase::Succeeded, Duration::from_secs(90)).await;
        let uid = healed.uid().unwrap();
        assert_eq!(site.keys(), [uid.clone(), uid]);
        let bodies: Vec<String> = site.delivered.lock().unwrap().iter().map(|(_, body)| body.clone()).collect();
        assert_eq!(bodies[0], bodies[1], "the same words");
        let outcomes = test.outcomes().await;
        assert_eq!((outcomes.len(), outcomes[0].1, outcomes[1].1), (2, Phase::Ineffective, Phase::Succeeded));
        let jobs: Vec<String> = test.jobs().await.iter().filter_map(|job| job.uid()).collect();
        assert_eq!(jobs, made, "one Job, whatever died");
        test.wait_recorded(&healed.name_any(), Duration::from_secs(20)).await;
        let rows: Vec<(String, bool)> = operator.action_rows().await.into_iter().map(|row| (row.0, row.1)).collect();
        assert_eq!(rows, [("custom_remedy_failed".to_owned(), false), ("custom_remedy".to_owned(), true)]);
    })
    .await;
}

/// What the operator writes is long in coming back to it: no step is made from the view before.
#[tokio::test(flavor = "multi_thread")]
async fn a_watch_that_is_behind_repeats_nothing() {
    run("own-behind", async |test| {
        let site = Site::start().await;
        let gate = Gate::start(env("PANACEA_KUBECONFIG").as_ref()).await;
        gate.lag(Duration::from_millis(1500));
        let _operator = Operator::start(test, Options::default().through(gate.kubeconfig())).await;
        test.apply_policy(&site.policy(&json!([site.webhook("/at-once", &json!({}))]))).await;
        let healed = test.wait_remediation_within(Phase::Succeeded, Duration::from_secs(90)).await;
        assert_eq!(site.keys(), [healed.uid().unwrap()]);
        test.wait_recorded(&healed.name_any(), Duration::from_secs(20)).await;
        for told in ["Acting", "Verifying", "Succeeded"] {
            assert_eq!(test.events(told, &healed.name_any()).await.len(), 1, "{told}");
        }
    })
    .await;
}

/// The first delivery of a policy that stops wanting it is not made.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_policy_does_not_want_any_more_is_not_begun() {
    run("own-withdrawn", async |test| {
        let site = Site::start().await;
        let gate = Gate::start(env("PANACEA_KUBECONFIG").as_ref()).await;
        let options = Options::default().through(gate.kubeconfig());
        let mut operator = Operator::start(test, options).await;
        let remedy = |approval: &str| {
            let mut remedy = site.webhook("/heal", &json!({}));
            remedy["approval"] = json!(approval);
            json!([remedy])
        };
        test.apply_policy(&site.policy(&remedy("Required"))).await;
        let waiting = test.wait_remediation(Phase::AwaitingApproval).await;
        test.patch_policy("shop", json!({"spec": {"suspend": true}})).await;
        test.kubectl_succeeds(&[
            "patch", "rem", &waiting.name_any(), "--type=merge", "--patch", r#"{"spec":{"approval":{"decision":"Approved"}}}"#,
        ])
        .await;
        let blocked = test.wait_remediation(Phase::Blocked).await;
        assert_eq!(blocked.status.as_ref().unwrap().reason, "Suspended");
        assert!(site.keys().is_empty());
        // Taken out of the policy, it has no future.
        test.patch_policy("shop", json!({"spec": {"components": [{"name": "site", "target": {"http": {"url": format!("{}/health", site.address)}}, "remedies": []}]}})).await;
        let ended = test.wait_ended(&blocked.name_any()).await;
        assert_eq!(ended.status.as_ref().unwrap().phase, Phase::Expired);
        assert!(site.keys().is_empty() && operator.is_running());
    })
    .await;
}
