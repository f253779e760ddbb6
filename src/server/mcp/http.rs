//! Streamable HTTP: each request brings its own identity, and the server has none.
//!
//! A request's token is removed here, before the protocol's own code reads (and may log) the headers, and is sent only
//! to the API server.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{Request, State},
    http::{
        HeaderMap, StatusCode,
        header::{AUTHORIZATION, WWW_AUTHENTICATE},
    },
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use kube::{
    Client,
    config::{AuthInfo, Config},
};
use rmcp::transport::streamable_http_server::{
    StreamableHttpServerConfig, StreamableHttpService, session::local::LocalSessionManager,
};
use secrecy::SecretString;
use tokio::{net::TcpListener, sync::Semaphore};
use tokio_util::sync::CancellationToken;
use tower_http::timeout::TimeoutLayer;

use super::{Cluster, McpServer, cluster::who_am_i};

const PATH: &str = "/mcp";
/// A request's body, in bytes: the longest is a decision with its reason.
const MOST_BYTES: usize = 64 * 1024;
/// No request is served longer.
const LIMIT: Duration = Duration::from_secs(30);
/// Requests at a time; each holds a connection to the API server.
const AT_A_TIME: usize = 32;

/// Which requests are served, and with which connection to the API server.
pub struct Door {
    /// The API server's address and certificate, without an identity: each request adds its own.
    anonymous: Config,
    namespace: String,
    places: Semaphore,
    allowed_hosts: Vec<String>,
    allowed_origins: Vec<String>,
}

impl Door {
    /// Of `config` only the API server's address, certificate and time limits are used. `namespace` serves calls that
    /// name none. `allowed_hosts` are added to the loopback names; with `allowed_origins` left empty no web page may call.
    pub fn new(config: &Config, namespace: String, allowed_hosts: Vec<String>, allowed_origins: Vec<String>) -> Self {
        let mut anonymous = Config::new(config.cluster_url.clone());
        anonymous.root_cert = config.root_cert.clone();
        anonymous.tls_server_name = config.tls_server_name.clone();
        anonymous.accept_invalid_certs = config.accept_invalid_certs;
        anonymous.proxy_url = config.proxy_url.clone();
        anonymous.connect_timeout = config.connect_timeout;
        anonymous.default_retry = config.default_retry;
        Self { anonymous, namespace, places: Semaphore::new(AT_A_TIME), allowed_hosts, allowed_origins }
    }

    fn config(&self, stop: CancellationToken) -> StreamableHttpServerConfig {
        let loopback = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
        StreamableHttpServerConfig::default()
            .with_legacy_session_mode(false)
            .with_json_response(true)
            .with_max_request_body_bytes(MOST_BYTES)
            .with_allowed_hosts(loopback.into_iter().chain(self.allowed_hosts.iter().cloned()))
            .with_allowed_origins(self.allowed_origins.iter().cloned())
            .enforce_origin_validation()
            .with_cancellation_token(stop)
    }

    /// The API server with the identity of this token.
    async fn enter(&self, token: SecretString) -> Result<Cluster, Response> {
        let mut config = self.anonymous.clone();
        config.auth_info = AuthInfo { token: Some(token), ..AuthInfo::default() };
        let client = Client::try_from(config).map_err(|error| {
            tracing::error!(%error, "the client for the API server cannot be created");
            (StatusCode::INTERNAL_SERVER_ERROR, "the client for the API server cannot be created").into_response()
        })?;
        match who_am_i(&client).await {
            Ok(user) => Ok(Cluster::new(client, self.namespace.clone(), user)),
            Err(kube::Error::Api(status)) if status.code == 401 => {
                Err(unknown("the API server does not accept this token; get a new one"))
            }
            Err(error) => {
                tracing::warn!(%error, "the API server cannot identify the caller");
                Err((StatusCode::SERVICE_UNAVAILABLE, "the API server cannot identify the caller").into_response())
            }
        }
    }
}

fn unknown(why: &'static str) -> Response {
    (StatusCode::UNAUTHORIZED, [(WWW_AUTHENTICATE, r#"Bearer realm="kubernetes""#)], why).into_response()
}

/// The one token of the request (RFC 6750, section 2.1).
fn bearer(headers: &HeaderMap) -> Option<SecretString> {
    let mut all = headers.get_all(AUTHORIZATION).iter();
    let (Some(only), None) = (all.next(), all.next()) else { return None };
    let (scheme, token) = only.to_str().ok()?.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then(|| token.into())
}

async fn identify(State(door): State<Arc<Door>>, mut request: Request, next: Next) -> Response {
    let Ok(_place) = door.places.try_acquire() else {
        return (StatusCode::SERVICE_UNAVAILABLE, "too many requests at a time; try again").into_response();
    };
    let Some(token) = bearer(request.headers()) else {
        return unknown("Authorization: Bearer TOKEN is missing; give a token of the Kubernetes API server");
    };
    request.headers_mut().remove(AUTHORIZATION);
    match door.enter(token).await {
        Ok(cluster) => {
            request.extensions_mut().insert(cluster);
            next.run(request).await
        }
        Err(refused) => refused,
    }
}

/// Serves until `stop`.
pub async fn serve_http(door: Door, listener: TcpListener, stop: CancellationToken) -> std::io::Result<()> {
    let service = StreamableHttpService::new(
        || Ok(McpServer { own: None }),
        Arc::<LocalSessionManager>::default(),
        door.config(stop.clone()),
    );
    let router = Router::new()
        .route_service(PATH, service)
        .layer(middleware::from_fn_with_state(Arc::new(door), identify))
        .layer(TimeoutLayer::with_status_code(StatusCode::SERVICE_UNAVAILABLE, LIMIT));
    axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()).await
}

/// Only a loopback address needs no allowed host.
pub fn check_names(listen: SocketAddr, allowed_hosts: &[String]) -> Result<(), String> {
    if listen.ip().is_loopback() || !allowed_hosts.is_empty() {
        return Ok(());
    }
    Err(format!(
        "--listen {listen} can be reached from other machines, and tokens would be sent in clear text: listen on 127.0.0.1, or put a proxy with TLS in front and name it with --allowed-host"
    ))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use secrecy::ExposeSecret as _;

    use super::*;

    #[test]
    fn a_token_is_read_from_one_bearer_header_only() {
        let of = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            values.iter().for_each(|value| {
                headers.append(AUTHORIZATION, HeaderValue::from_static(value));
            });
            bearer(&headers).map(|token| token.expose_secret().to_owned())
        };
        assert_eq!(of(&["Bearer abc"]).as_deref(), Some("abc"));
        assert_eq!(of(&["bearer  abc "]).as_deref(), Some("abc"));
        for none in [&[][..], &["abc"], &["Bearer "], &["Basic abc"], &["Bearer abc", "Bearer def"]] {
            assert_eq!(of(none), None, "{none:?}");
        }
    }

    #[test]
    fn an_address_that_other_machines_reach_needs_an_allowed_host() {
        assert!(check_names("127.0.0.1:8082".parse().unwrap(), &[]).is_ok());
        assert!(check_names("[::1]:8082".parse().unwrap(), &[]).is_ok());
        let why = check_names("0.0.0.0:8082".parse().unwrap(), &[]).unwrap_err();
        assert!(why.contains("--listen 0.0.0.0:8082") && why.contains("--allowed-host"), "{why}");
        assert!(check_names("0.0.0.0:8082".parse().unwrap(), &["mcp.example.com".into()]).is_ok());
    }

    #[test]
    fn the_servers_own_identity_is_not_kept() {
        let mut config = Config::new("https://127.0.0.1:6443".parse().unwrap());
        config.auth_info = AuthInfo {
            token: Some("ours".into()),
            username: Some("admin".into()),
            client_key: Some("key".into()),
            impersonate: Some("admin".into()),
            ..AuthInfo::default()
        };
        let door = Door::new(&config, "default".into(), vec![], vec![]);
        let kept = serde_json::to_value(&door.anonymous.auth_info).unwrap();
        assert_eq!(kept, serde_json::to_value(AuthInfo::default()).unwrap());
    }
}
