//! deploy/kustomize is the rendered chart, and the API server accepts it.

use std::path::Path;

use tokio::process::Command;

use crate::support::cluster::env;

async fn output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env("KUBECONFIG", env("KUBECONFIG"))
        .output()
        .await
        .unwrap_or_else(|why| panic!("{program}: {why}; run `make test`, which builds {program}"));
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test]
async fn the_manifests_are_the_rendered_chart() {
    let chart = output("helm", &["template", "panacea", "charts/panacea", "--namespace", "panacea-system"]).await;
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/kustomize/panacea.yaml");
    let manifests = std::fs::read_to_string(path).unwrap();
    assert_eq!(manifests, chart, "deploy/kustomize/panacea.yaml differs from the chart; run `make manifests`");
}

#[tokio::test]
async fn the_api_server_accepts_the_manifests() {
    let accepted = output(
        "kubectl",
        &["apply", "--server-side", "--force-conflicts", "--dry-run=server", "-k", "deploy/kustomize"],
    )
    .await;
    for object in
        ["namespace/panacea-system", "deployment.apps/panacea", "clusterrole.rbac.authorization.k8s.io/panacea"]
    {
        assert!(accepted.contains(&format!("{object} serverside-applied (server dry run)")), "{object}: {accepted}");
    }
}
