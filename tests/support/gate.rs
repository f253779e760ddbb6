//! A door between an operator and its API server. Everything passes, watches too, until a test holds one request: before
//! it is forwarded, or when its answer is there. So a test knows the instant, and can end the operator at it. What watches
//! tell can be made to come late.

use parking_lot::Mutex;
use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use axum::{
    body::{Body, to_bytes},
    http::{HeaderName, Method, Request, Response, header},
};
use futures::StreamExt as _;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle, time::timeout};

use super::cluster::init_crypto;

/// Where a request is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The API server has not seen it.
    Request,
    /// The API server has done it; who asked does not know.
    Answer,
}

/// What a rule decides on.
pub struct Seen<'a> {
    pub method: &'a Method,
    pub path: &'a str,
    pub query: &'a str,
    pub body: &'a str,
}

impl Seen<'_> {
    /// The write that heals: a PATCH of a Deployment.
    pub fn is_deployment_patch(&self) -> bool {
        *self.method == Method::PATCH && self.path.contains("/deployments/")
    }

    /// A write to a Rollout, or to its status.
    pub fn is_rollout_patch(&self) -> bool {
        *self.method == Method::PATCH && self.path.contains("/rollouts/")
    }

    /// The deletion of a pod.
    pub fn is_pod_deletion(&self) -> bool {
        *self.method == Method::DELETE && self.path.contains("/pods/")
    }

    /// The eviction of a pod, not the question whether it could be.
    pub fn is_eviction(&self) -> bool {
        *self.method == Method::POST && self.path.ends_with("/eviction") && !self.query.contains("dryRun")
    }

    /// The change of a ConfigMap.
    pub fn is_config_patch(&self) -> bool {
        *self.method == Method::PATCH && self.path.contains("/configmaps/")
    }

    /// The creation of a Job, not the question whether it could be.
    pub fn is_job_post(&self) -> bool {
        *self.method == Method::POST && self.path.ends_with("/jobs") && !self.query.contains("dryRun")
    }

    /// Whatever is asked of Secrets.
    pub fn is_about_secrets(&self) -> bool {
        self.path.ends_with("/secrets") || self.path.contains("/secrets/")
    }

    /// The creation of a copy of a good state.
    pub fn is_revision_post(&self) -> bool {
        *self.method == Method::POST && self.path.ends_with("/controllerrevisions")
    }

    /// The creation of a Remediation.
    pub fn is_remediation_post(&self) -> bool {
        *self.method == Method::POST && self.path.ends_with("/remediations")
    }
}

struct Rule {
    side: Side,
    wanted: Box<dyn Fn(&Seen<'_>) -> bool + Send>,
    reached: oneshot::Sender<()>,
    go: oneshot::Receiver<()>,
}

/// One request that is held, or will be. Dropped, its connection is broken off: what was not forwarded never is.
pub struct Held {
    reached: Option<oneshot::Receiver<()>>,
    go: oneshot::Sender<()>,
}

impl Held {
    /// Waits until the request is there.
    pub async fn reached(&mut self) {
        let reached = self.reached.take().expect("waited for once");
        timeout(Duration::from_secs(90), reached).await.expect("waited 90 s for the request to hold").unwrap();
    }

    /// Lets it go on.
    pub fn pass(self) {
        let _ = self.go.send(());
    }
}

/// What the gate does with what passes.
#[derive(Default)]
struct Ways {
    rule: Mutex<Option<Rule>>,
    lag: Mutex<Duration>,
}

pub struct Gate {
    ways: Arc<Ways>,
    server: JoinHandle<()>,
    folder: tempfile::TempDir,
}

impl Gate {
    /// A door to the API server of this kubeconfig, with its credentials.
    pub async fn start(kubeconfig: &Path) -> Self {
        init_crypto();
        let kubeconfig = Kubeconfig::read_from(kubeconfig).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let mut through = kubeconfig.clone();
        through.clusters[0].cluster.as_mut().unwrap().server = Some(url);
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("kubeconfig"), serde_json::to_string(&through).unwrap()).unwrap();

        let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
        config.default_retry = false;
        let upstream = Client::try_from(config).unwrap();
        let ways = Arc::new(Ways::default());
        let server = tokio::spawn(serve(listener, upstream, ways.clone()));
        Self { ways, server, folder }
    }

    /// What an operator is given to go through this door.
    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.path().join("kubeconfig")
    }

    /// Holds the first request that `wanted` says yes to; later ones pass.
    pub fn hold(&self, side: Side, wanted: impl Fn(&Seen<'_>) -> bool + Send + 'static) -> Held {
        let (say_reached, reached) = oneshot::channel();
        let (say_go, go) = oneshot::channel();
        *self.ways.rule.lock() = Some(Rule { side, wanted: Box::new(wanted), reached: say_reached, go });
        Held { reached: Some(reached), go: say_go }
    }

    /// From now on, each event of a watch that is opened comes so much later.
    pub fn lag(&self, by: Duration) {
        *self.ways.lag.lock() = by;
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn serve(listener: TcpListener, upstream: Client, ways: Arc<Ways>) {
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let (upstream, ways) = (upstream.clone(), ways.clone());
        connections.spawn(async move {
            let service = service_fn(|request| forward(request, &upstream, &ways));
            // An error of the service closes the connection without an answer, as a dead server would.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
        while connections.try_join_next().is_some() {}
    }
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

async fn forward(request: Request<Incoming>, upstream: &Client, ways: &Ways) -> Result<Response<Body>, BoxError> {
    // The client of the gate sets these.
    const OWN: [HeaderName; 4] = [header::HOST, header::AUTHORIZATION, header::CONNECTION, header::TRANSFER_ENCODING];
    let (mut parts, body) = request.into_parts();
    let body = to_bytes(Body::new(body), 16 << 20).await?;
    for name in OWN {
        parts.headers.remove(name);
    }
    parts.uri = parts.uri.path_and_query().map(ToString::to_string).unwrap_or_default().parse()?;
    let held = {
        let text = String::from_utf8_lossy(&body);
        let seen = Seen {
            method: &parts.method,
            path: parts.uri.path(),
            query: parts.uri.query().unwrap_or_default(),
            body: &text,
        };
        let mut rule = ways.rule.lock();
        rule.take_if(|rule| (rule.wanted)(&seen))
    };
    let (before, after) = match held {
        Some(held) if held.side == Side::Request => (Some(held), None),
        held => (None, held),
    };
    wait_for_pass(before).await?;
    let is_watch = parts.uri.query().is_some_and(|query| query.contains("watch=true"));
    let lag = *ways.lag.lock();
    // A task of its own: what was forwarded is done even when who asked is dead by then.
    let upstream = upstream.clone();
    let request = Request::from_parts(parts, kube::client::Body::from(body.to_vec()));
    let mut answer = tokio::spawn(async move { upstream.send(request).await }).await??;
    answer.headers_mut().remove(header::CONNECTION);
    answer.headers_mut().remove(header::TRANSFER_ENCODING);
    wait_for_pass(after).await?;
    let answer = answer.map(Body::new);
    Ok(if is_watch && !lag.is_zero() { answer.map(|body| late(body, lag)) } else { answer })
}

fn late(body: Body, lag: Duration) -> Body {
    const UNDERWAY: usize = 4096;
    let frames = body.into_data_stream().map(move |frame| async move {
        tokio::time::sleep(lag).await;
        frame
    });
    Body::from_stream(frames.buffered(UNDERWAY))
}

async fn wait_for_pass(held: Option<Rule>) -> Result<(), BoxError> {
    let Some(held) = held else { return Ok(()) };
    let _ = held.reached.send(());
    Ok(held.go.await?)
}
