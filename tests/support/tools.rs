//! A stand-in for a team's MCP server, by the official SDK's server side: tools that heal a site, or do not. It speaks the era
//! without a handshake at `/mcp`, and only the older one, with sessions, at `/older`; it counts what was called.

use std::{
    borrow::Cow,
    convert::Infallible,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    http::{HeaderMap, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Redirect, Response},
    routing::{any, get},
};
use rmcp::{
    RoleServer, ServerHandler,
    model::{
        CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, ElicitRequest, ErrorData,
        InputRequiredResult, ListToolsResult, PaginatedRequestParams, ProtocolVersion, ServerCapabilities,
        ServerConfig, ServerRequest, Tool,
    },
    service::RequestContext,
    transport::streamable_http_server::{
        StreamableHttpServerConfig, StreamableHttpService, session::local::LocalSessionManager,
    },
};
use serde_json::{Value, json};

/// One call: the tool, and what it was given.
pub type Called = (String, Value);

#[derive(Clone, Default)]
pub struct Tools {
    pub well: Arc<AtomicBool>,
    /// Until it is set, `hangs` does not answer.
    pub answers: Arc<AtomicBool>,
    calls: Arc<Mutex<Vec<Called>>>,
    /// Requests that came to where a redirect points.
    elsewhere: Arc<Mutex<Vec<HeaderMap>>>,
    /// Without it there is no way in, where one is set.
    token: Option<String>,
    pub address: String,
}

#[derive(Clone)]
struct Handler {
    tools: Tools,
    older: bool,
}

const NAMES: [&str; 7] = ["restart_service", "looks_away", "fails", "asks", "hangs", "breaks", "chatters"];

impl ServerHandler for Handler {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
    }

    fn supported_protocol_versions(&self) -> Cow<'static, [ProtocolVersion]> {
        if self.older {
            Cow::Borrowed(&[ProtocolVersion::V_2025_06_18, ProtocolVersion::V_2025_11_25])
        } else {
            Cow::Borrowed(&[ProtocolVersion::V_2026_07_28])
        }
    }

    async fn list_tools(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        let schema = json!({
            "type": "object", "required": ["service"], "additionalProperties": false,
            "properties": {"service": {"type": "string"}, "why": {"type": "string"}, "key": {"type": "string"}},
        });
        let schema = Arc::new(schema.as_object().unwrap().clone());
        Ok(ListToolsResult::with_all_items(NAMES.map(|name| Tool::new(name, "heals", schema.clone())).to_vec()))
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let tools = &self.tools;
        tools.note(&request.name, json!(request.arguments));
        let said = |text: &str| CallToolResult::success(vec![ContentBlock::text(text)]);
        Ok(match request.name.as_ref() {
            "restart_service" => {
                tools.well.store(true, Ordering::SeqCst);
                said("restarted").into()
            }
            "fails" => {
                let echoed = format!("no such service; you sent {}", tools.token.as_deref().unwrap_or("nothing"));
                CallToolResult::error(vec![ContentBlock::text(echoed)]).into()
            }
            "asks" if self.older => {
                let asked = json!({"mode": "form", "message": "sure?", "requestedSchema": {"type": "object", "properties": {}}});
                let asked = ServerRequest::ElicitRequest(ElicitRequest::new(serde_json::from_value(asked).unwrap()));
                let answer = context.peer.send_request(asked).await;
                said(&format!("nothing was done: {answer:?}")).into()
            }
            "asks" => InputRequiredResult::from_request_state("are you sure?").into(),
            "chatters" => said(&"x".repeat(20 * 1024 * 1024)).into(),
            "hangs" => {
                while !tools.answers.load(Ordering::SeqCst) {
                    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
                }
                said("done").into()
            }
            _ => said("looked away").into(),
        })
    }
}

async fn door(State(tools): State<Tools>, request: Request, next: Next) -> Response {
    let sent = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let wanted = tools.token.as_ref().map(|token| format!("Bearer {token}"));
    if wanted.is_some() && sent != wanted.as_deref() {
        return (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, "Bearer")]).into_response();
    }
    // It has taken the call, does it, and its answer breaks off.
    if request.headers().get("mcp-name").is_some_and(|name| name == "breaks") {
        tools.note("breaks", Value::Null);
        tools.well.store(true, Ordering::SeqCst);
        let broken = futures::stream::iter([Ok("data: {\"jsonrpc\""), Err(std::io::Error::other("broken"))]);
        return ([(header::CONTENT_TYPE, "text/event-stream")], Body::from_stream(broken)).into_response();
    }
    next.run(request).await
}

impl Tools {
    /// Behind this token, or open to all.
    pub async fn start(token: Option<&str>) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let tools = Self { token: token.map(str::to_owned), address: address.clone(), ..Self::default() };
        let service = |older: bool| {
            let handler = Handler { tools: tools.clone(), older };
            let config =
                StreamableHttpServerConfig::default().with_legacy_session_mode(older).with_json_response(!older);
            StreamableHttpService::new(
                move || Ok::<_, std::io::Error>(handler.clone()),
                Arc::<LocalSessionManager>::default(),
                config,
            )
        };
        let protocol = Router::new()
            .route_service("/mcp", service(false))
            .route_service("/older", service(true))
            .layer(middleware::from_fn_with_state(tools.clone(), door));
        let away = address.replace("127.0.0.1", "localhost");
        let elsewhere = tools.elsewhere.clone();
        let router = Router::new()
            .route("/health", get(health))
            .route("/moved", any(async move || Redirect::temporary(&format!("{away}/elsewhere"))))
            .route(
                "/elsewhere",
                any(async move |headers: HeaderMap| {
                    elsewhere.lock().unwrap().push(headers);
                    Ok::<_, Infallible>(StatusCode::OK)
                }),
            )
            .with_state(tools.clone())
            .merge(protocol);
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        tools
    }

    fn note(&self, tool: &str, arguments: Value) {
        self.calls.lock().unwrap().push((tool.to_owned(), arguments));
    }

    pub fn calls(&self) -> Vec<Called> {
        self.calls.lock().unwrap().clone()
    }

    /// The names of the tools that were called, in order.
    pub fn called(&self) -> Vec<String> {
        self.calls().into_iter().map(|(tool, _)| tool).collect()
    }

    /// How many requests followed a redirect.
    pub fn went_elsewhere(&self) -> usize {
        self.elsewhere.lock().unwrap().len()
    }
}

async fn health(State(tools): State<Tools>) -> StatusCode {
    if tools.well.load(Ordering::SeqCst) { StatusCode::OK } else { StatusCode::INTERNAL_SERVER_ERROR }
}
