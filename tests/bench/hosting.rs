//! How many services one key of Render serves: looks every 60 s, with 20 keys at once that have ever more services, against
//! the stand-in at Render's own rate limits. Fails when any 60 s of any key hold a call more than its limit. Prints a
//! Markdown table for docs/targets/render.md.
//!
//! `LOOKS` sets how many looks are counted (default 10000), after two minutes in which the keys' services become known.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use panacea::{
    analyze::observation::Measured,
    api::{Access, RenderService},
    targets::{
        Target as _,
        kubernetes::Kubernetes,
        providers::common::ProviderConfig,
        providers::render::{Render, RenderServiceTarget},
    },
};
use secrecy::SecretString;
use tokio::{task::JoinSet, time::Instant};

use crate::support::render::FakeRender;

const INTERVAL: Duration = Duration::from_secs(60);
const KEYS: usize = 20;
/// An operator that starts reads everything once; looks before this are not counted, their calls are.
const WARM_UP: Duration = Duration::from_secs(120);
/// Calls a minute that Render lets a key make to read.
const READS: usize = 400;
/// Metrics that a web service has without a policy's queries.
const METRICS: usize = 4;

fn services(key: usize) -> usize {
    40 + 5 * key
}

#[derive(Default)]
struct Looks {
    whole: AtomicUsize,
    /// The service itself is known, and a metric is not.
    partly: AtomicUsize,
    /// Why not even that, and how often.
    unmeasured: std::sync::Mutex<BTreeMap<String, usize>>,
}

pub async fn measure() {
    let wanted: usize = std::env::var("LOOKS").ok().and_then(|looks| looks.parse().ok()).unwrap_or(10_000);
    let fake = FakeRender::start().await;
    // No Secret is read: each key is the operator's own.
    let nowhere = kube::Config::new("http://127.0.0.1:1".parse().unwrap());
    let kubernetes = Kubernetes::new(kube::Client::try_from(nowhere).unwrap());
    let total = Arc::new(AtomicUsize::new(0));
    let (started, mut tasks, mut keys) = (Instant::now(), JoinSet::new(), Vec::new());
    let all: usize = (0..KEYS).map(services).sum();
    println!("{KEYS} keys with {all} services in all; {wanted} looks take about {} s", wanted * 60 / all + 180);
    for key in 0..KEYS {
        let token = format!("rnd_key{key:02}");
        fake.accept(&token);
        let config =
            ProviderConfig { base_url: fake.url().parse().unwrap(), key: Some(SecretString::from(token.clone())) };
        let (render, looks) = (Arc::new(Render::new(config, &kubernetes)), Arc::<Looks>::default());
        for place in 0..services(key) {
            let id = format!("srv-k{key}s{place}");
            fake.add(&id, "web_service");
            let (render, looks, total) = (render.clone(), looks.clone(), total.clone());
            let offset = INTERVAL.mul_f64(place as f64 / services(key) as f64);
            tasks.spawn(async move {
                let access = Access { key: None, failure_threshold: 5, recovery_timeout: Duration::from_secs(60) };
                let service = RenderService { service_id: id, env_vars: false, access };
                tokio::time::sleep(offset).await;
                loop {
                    let counted = started.elapsed() >= WARM_UP;
                    if counted && total.fetch_add(1, Ordering::Relaxed) >= wanted {
                        return;
                    }
                    let look = RenderServiceTarget { render: &render, service: &service }.observe("shop").await;
                    let known = |metric: &(_, panacea::analyze::observation::Reading)| {
                        matches!(metric.1.value, Measured::Known(_))
                    };
                    match look.target {
                        _ if !counted => {}
                        Measured::Known(_) if look.metrics.iter().filter(|metric| known(metric)).count() == METRICS => {
                            looks.whole.fetch_add(1, Ordering::Relaxed);
                        }
                        Measured::Known(_) => {
                            looks.partly.fetch_add(1, Ordering::Relaxed);
                        }
                        Measured::Unknown(why) => {
                            *looks.unmeasured.lock().unwrap().entry(why.reason.to_string()).or_default() += 1;
                        }
                    }
                    tokio::time::sleep(INTERVAL).await;
                }
            });
        }
        keys.push((token, looks));
    }
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap();
    }
    let seconds = started.elapsed().as_secs();
    let fullest = fake.fullest_minutes("get");
    println!("| Services of one key | Looks | Whole | Without a metric | Unmeasured | Calls in its fullest 60 s |");
    println!("|---:|---:|---:|---:|---|---:|");
    let mut enough = 0;
    for (key, (token, looks)) in keys.iter().enumerate() {
        let (whole, partly) = (looks.whole.load(Ordering::Relaxed), looks.partly.load(Ordering::Relaxed));
        let unmeasured = looks.unmeasured.lock().unwrap().clone();
        let others: usize = unmeasured.values().sum();
        if partly + others == 0 && enough == key {
            enough = key + 1;
        }
        let why: Vec<String> = unmeasured.iter().map(|(reason, times)| format!("{times} {reason}")).collect();
        let why = if why.is_empty() { "0".to_owned() } else { why.join(", ") };
        let most = fullest.get(token).copied().unwrap_or_default();
        println!("| {} | {} | {whole} | {partly} | {why} | {most} |", services(key), whole + partly + others);
        assert!(most <= READS, "{most} calls within 60 s; Render lets a key make {READS}");
    }
    assert_eq!(fake.refused_by_limit(), 0, "answers 429");
    match enough.checked_sub(1) {
        Some(key) => println!("each look was whole for keys of up to {} services; {seconds} s", services(key)),
        None => println!("no key was enough for its services; {seconds} s"),
    }
}
