//! `make demo CLUSTER=current`: the demo on the cluster of the current kubectl context, in a namespace of its own. The operator
//! runs as a process of this machine with the rights of the context's user, and watches that namespace alone.

use std::{
    io::{BufRead as _, Write as _},
    process::{ExitCode, Stdio},
    time::Duration,
};

use futures::FutureExt as _;
use serde_json::json;
use tokio::process::{Child, Command};

use super::{kubectl, release, say, support};
use support::{
    cluster::{Test, init_crypto},
    objects::policy,
    operator::binary,
};

/// A real image that does nothing and is small.
const GOOD: &str = "registry.k8s.io/pause:3.10";
const CRDS: [&str; 2] = ["healingpolicies.panacea.dev", "remediations.panacea.dev"];
const CRD_FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/charts/panacea/crds/panacea.dev.yaml");

pub async fn demo() -> ExitCode {
    let Some(context) = output(&["config", "current-context"]).await else {
        eprintln!("kubectl has no current context; choose one with: kubectl config use-context NAME");
        return ExitCode::FAILURE;
    };
    if output(&["get", "crd", CRDS[0]]).await.is_some() {
        eprintln!(
            "Panacea is installed in the cluster of the context {context}: its operator would act beside the one of the demo.\n\
             Apply the policy of README.md to see Panacea at work there, or choose another context."
        );
        return ExitCode::FAILURE;
    }
    let namespace = format!("panacea-demo-{}", &uuid::Uuid::new_v4().simple().to_string()[..6]);
    if !agreed(&context, &namespace) {
        eprintln!("nothing was changed");
        return ExitCode::FAILURE;
    }
    let demo = async {
        run(&["create", "namespace", &namespace]).await?;
        run(&["apply", "--server-side", "-f", CRD_FILE]).await?;
        run(&["wait", "--for=condition=Established", "--timeout=30s", "-f", CRD_FILE]).await?;
        let data = tempfile::tempdir().map_err(|error| error.to_string())?;
        let mut operator =
            start(&namespace, data.path()).map_err(|error| format!("the operator did not start: {error}"))?;
        let times = tokio::select! {
            times = healings(&namespace) => Ok(times),
            status = operator.wait() => {
                let log = std::fs::read_to_string(log(data.path())).unwrap_or_default();
                Err(format!("the operator ended ({status:?}); its log:\n{log}"))
            }
        };
        let _ = operator.start_kill();
        let _ = operator.wait().await;
        times
    };
    // In a task: a failed expectation must not keep the clean-up from running.
    let result = tokio::select! {
        result = std::panic::AssertUnwindSafe(demo).catch_unwind() => result.unwrap_or_else(|_| Err("the demo failed".to_owned())),
        _ = tokio::signal::ctrl_c() => Err("interrupted".to_owned()),
    };
    let clean = clean_up(&namespace).await;
    match (result, clean) {
        (Ok((image, command)), Ok(())) => {
            println!(
                "\nhealed: missing image in {image:.1} s, crash in {command:.1} s; the namespace and the CRDs are removed"
            );
            ExitCode::SUCCESS
        }
        (Err(why), clean) => {
            eprintln!("{why}{}", clean.err().map(|left| format!("; {left}")).unwrap_or_default());
            ExitCode::FAILURE
        }
        (Ok(_), Err(left)) => {
            eprintln!("{left}");
            ExitCode::FAILURE
        }
    }
}

/// Whether the person wants the demo in this cluster. `YES=1` answers for scripts.
fn agreed(context: &str, namespace: &str) -> bool {
    print!(
        "The demo uses the cluster of the context {context}. It creates the CRDs of Panacea and the namespace {namespace} with\n\
         a Deployment of 3 pods ({GOOD}), and removes all of them at its end. Continue? [y/N] "
    );
    let _ = std::io::stdout().flush();
    if std::env::var("YES").is_ok_and(|yes| yes == "1") {
        println!("y");
        return true;
    }
    let mut answer = String::new();
    let _ = std::io::stdin().lock().read_line(&mut answer);
    matches!(answer.trim(), "y" | "Y" | "yes")
}

fn start(namespace: &str, data: &std::path::Path) -> std::io::Result<Child> {
    Command::new(binary())
        .arg("run")
        .env("PANACEA_WATCH_NAMESPACES", namespace)
        .env("PANACEA_LISTEN_ADDRESS", "127.0.0.1:0")
        .env("PANACEA_DATA_DIR", data)
        .env_remove("DATABASE_URL")
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(log(data))?)
        .kill_on_drop(true)
        .spawn()
}

fn log(data: &std::path::Path) -> std::path::PathBuf {
    data.join("operator.log")
}

/// The seconds that two bad releases took to heal.
async fn healings(namespace: &str) -> (f64, f64) {
    init_crypto();
    let client = kube::Client::try_default().await.expect("kubectl reaches the cluster of this context");
    let test = &Test { client, namespace: namespace.to_owned() };
    say("", "starts", &format!("3 pods of checkout, image {GOOD}; a policy that may act"));
    test.deploy("checkout", GOOD, 3).await;
    test.wait_rolled_out("checkout").await;
    test.apply_policy(&policy("shop", &["checkout"], &json!({}))).await;
    test.wait_known_good("shop", "checkout").await;
    let container = |patch: serde_json::Value| json!({"spec": {"template": {"spec": {"containers": [patch]}}}});
    let image = container(json!({"name": "app", "image": "registry.k8s.io/pause:v2-nopull"}));
    let image = release(test, &image, "an image that does not exist").await;
    let mut command = container(json!({"name": "app", "command": ["/v3-crash"]}));
    // Simulated pods crash by this annotation, real ones by the command.
    command["spec"]["template"]["metadata"] = json!({"annotations": {"panacea.dev/fault": "crash"}});
    let command = release(test, &command, "a command that does not exist").await;
    println!("\n$ kubectl get hp,rem");
    kubectl(test, &["get", "hp,rem"]).await;
    (image, command)
}

/// Removes what the demo created; what is left, with the command that removes it.
async fn clean_up(namespace: &str) -> Result<(), String> {
    // The operator is gone: nobody else removes the finalizers of its Remediations.
    if let Some(names) = output(&["-n", namespace, "get", "remediations", "-o", "name"]).await {
        for name in names.lines() {
            let _ = run(&["-n", namespace, "patch", name, "--type=merge", "-p", r#"{"metadata":{"finalizers":null}}"#])
                .await;
        }
    }
    let removed = async {
        run(&["delete", "namespace", namespace, "--ignore-not-found", "--timeout=120s"]).await?;
        run(&["delete", "crd", CRDS[0], CRDS[1], "--ignore-not-found", "--timeout=60s"]).await
    };
    removed.await.map_err(|why| {
        format!(
            "{why}; remove the rest with: kubectl delete namespace {namespace}; kubectl delete crd {}",
            CRDS.join(" ")
        )
    })
}

async fn output(arguments: &[&str]) -> Option<String> {
    let output = Command::new("kubectl").args(arguments).output().await.ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

async fn run(arguments: &[&str]) -> Result<(), String> {
    let output = Command::new("kubectl").args(arguments).output();
    let output = tokio::time::timeout(Duration::from_secs(180), output).await.map_err(|_| "kubectl took over 180 s")?;
    let output =
        output.map_err(|error| format!("kubectl: {error}; install it from https://kubernetes.io/docs/tasks/tools/"))?;
    let error = String::from_utf8_lossy(&output.stderr);
    output.status.success().then_some(()).ok_or_else(|| format!("kubectl {}: {}", arguments.join(" "), error.trim()))
}
