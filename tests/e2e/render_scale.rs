//! More or fewer instances of services that Render hosts: within bounds, once, and never against its autoscaling.

use std::time::Duration;

use kube::ResourceExt as _;
use panacea::api::{ActionKind, HealthStatus, Phase};
use serde_json::{Value, json};

use crate::{
    render::options,
    support::{
        cluster::{env, run},
        door::Fault,
        gate::{Gate, Seen, Side},
        objects::over,
        operator::Operator,
        render::FakeRender,
        wait,
    },
};

const LONG: Duration = Duration::from_secs(150);
const SCALE: &str = "POST /services/{id}/scale";

/// Two more at most, up to four.
fn component(service: &str) -> Value {
    let scale = json!({"action": "Scale", "scale": {"by": "+2", "max": 4}});
    let name = service.trim_start_matches("srv-");
    json!({"name": name, "target": {"render": {"serviceId": service}}, "remedies": [scale]})
}

fn needs(fake: &FakeRender, service: &str, instances: u32) {
    fake.with(|world| world.services.get_mut(service).unwrap().needs_instances = instances);
}

fn instances(fake: &FakeRender, service: &str) -> (u32, usize) {
    fake.with(|world| (world.services[service].num_instances, world.services[service].instances.len()))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_too_few_instances_gets_more_within_its_bounds() {
    run("render-scale", async |test| {
        let fake = FakeRender::start().await;
        fake.add("srv-shop", "web_service");
        let operator = Operator::start(test, options(&fake)).await;
        test.apply_policy(&over(&[component("srv-shop")])).await;
        test.wait_known_good("shop", "shop").await;
        needs(&fake, "srv-shop", 3);
        let healed = test.wait_remediation_within(Phase::Succeeded, LONG).await;
        let scaling = healed.spec.plan.intent.scaling().unwrap();
        assert_eq!((healed.spec.plan.action, scaling.from, scaling.to), (ActionKind::Scale, 2, 4));
        assert_eq!((instances(&fake, "srv-shop"), fake.calls(SCALE)), ((4, 4), 1));
        let status = healed.status.clone().unwrap();
        assert_eq!(
            status
                .progress
                .as_ref()
                .and_then(|progress| progress.provider())
                .map(|hosted| (hosted.attempts, hosted.status_code)),
            Some((1, Some(202)))
        );
        test.wait_event("Verifying", &healed.name_any(), "running instances: 4, as desired").await;
        test.wait_recorded(&healed.name_any(), Duration::from_secs(20)).await;
        assert_eq!(operator.action_rows().await, [("service_scaled".to_owned(), true, healed.name_any())]);
        assert_eq!(operator.action_outputs().await.remove(0)["replicas"], json!({"from": 2, "to": 4}));

        // At the bound there is nothing left to do.
        needs(&fake, "srv-shop", 9);
        test.wait_refusal("shop", "shop", panacea::plan::guard::Guard::NoRemedy).await;
        assert_eq!((instances(&fake, "srv-shop"), fake.calls(SCALE)), ((4, 4), 1));
        assert_eq!(fake.refused_by_limit(), 0);
    })
    .await;
}

/// Killed when it is stored and not sent, and when it is done and not answered: the number is the same.
#[tokio::test(flavor = "multi_thread")]
async fn killed_around_the_call_it_is_scaled_once() {
    run("render-scale-killed", async |test| {
        let fake = FakeRender::start().await;
        fake.add("srv-shop", "web_service");
        let gate = Gate::start(env("PANACEA_KUBECONFIG").as_ref()).await;
        let mut operator = Operator::start(test, options(&fake).through(gate.kubeconfig())).await;
        test.apply_policy(&over(&[component("srv-shop")])).await;
        test.wait_known_good("shop", "shop").await;
        let sent = |seen: &Seen<'_>| seen.path.ends_with("/status") && seen.body.contains("sentAt");
        let mut held = gate.hold(Side::Answer, sent);
        needs(&fake, "srv-shop", 3);
        held.reached().await;
        operator.kill9();
        drop(held);
        assert_eq!(fake.calls(SCALE), 0);
        fake.fault("POST /services/srv-shop/scale", 1, Fault::DoneAndHang);
        operator.spawn();
        fake.wait_calls(SCALE, 1, LONG).await;
        operator.kill9();
        operator.spawn();
        test.wait_remediation_within(Phase::Succeeded, LONG).await;
        assert_eq!((instances(&fake, "srv-shop"), fake.calls(SCALE)), ((4, 4), 1));
        assert_eq!(test.remediations().await.len(), 1);
    })
    .await;
}

/// Services that are not scaled: autoscaled, without instances, or with another number that somebody else has set.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_ours_to_scale_is_left() {
    run("render-scale-refused", async |test| {
        let fake = FakeRender::start().await;
        for (service, kind) in [("srv-auto", "web_service"), ("srv-other", "web_service"), ("srv-nightly", "cron_job")]
        {
            fake.add(service, kind);
        }
        fake.with(|world| world.services.get_mut("srv-auto").unwrap().autoscaling = true);
        let _operator = Operator::start(test, options(&fake)).await;
        let mut wanted = over(&["srv-auto", "srv-other", "srv-nightly"].map(component));
        wanted["spec"]["safety"]["cooldown"] = json!("1h");
        wanted["spec"]["mode"] = json!("Approve");
        test.apply_policy(&wanted).await;
        for name in ["auto", "other", "nightly"] {
            test.wait_known_good("shop", name).await;
        }
        needs(&fake, "srv-auto", 3);
        needs(&fake, "srv-other", 3);
        for _ in 0..3 {
            fake.with(|world| world.crash("srv-nightly"));
        }
        let of = async |name: &str, phase: Phase| {
            wait::until(&format!("{name} to be {phase}"), LONG, async || {
                let found = test.of_component(name).await;
                let is = |status: &panacea::api::RemediationStatus| status.phase == phase;
                let in_it = found.clone().filter(|one| one.status.as_ref().is_some_and(is));
                in_it.ok_or_else(|| format!("{:?}", found.and_then(|one| one.status)))
            })
            .await
        };
        let other = of("other", Phase::AwaitingApproval).await;
        test.wait_refusal("shop", "nightly", panacea::plan::guard::Guard::NoRemedy).await;
        // Nobody is asked for what cannot be done.
        let auto = of("auto", Phase::Blocked).await.status.unwrap();
        assert!(auto.message.contains("Render scales srv-auto automatically"), "{}", auto.message);
        fake.with(|world| world.scale("srv-other", 1));
        test.approve(&other.name_any()).await;
        let failed = test.wait_component_ended("other").await.status.unwrap();
        assert_eq!((failed.phase, failed.reason.as_str()), (Phase::Failed, "Rescaled"), "{}", failed.message);
        assert_eq!(fake.calls(SCALE), 0);
        test.wait_status("shop", "auto", HealthStatus::Unhealthy).await;
    })
    .await;
}
