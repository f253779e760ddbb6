//! A tool of an external MCP server, called once (<https://modelcontextprotocol.io/specification/2026-07-28>).
//!
//! Both eras of the protocol are supported: without a handshake (2026-07-28), and with one (2025-11-25 and before). All
//! requests before the call change nothing: only a call whose answer is lost has an unknown outcome.

mod unattended;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use reqwest::Client;
use rmcp::{
    ClientLifecycleMode, ClientServiceExt as _, RoleClient,
    model::{
        CallToolRequestParams, CallToolResponse, CallToolResult, ErrorCode, JsonObject, PaginatedRequestParams,
        ProtocolVersion, Tool,
    },
    service::{ClientInitializeError, RunningService, ServiceError},
    transport::{
        DynamicTransportError, StreamableHttpClientTransport,
        common::client_side_sse::NeverRetry,
        streamable_http_client::{StreamableHttpClientTransportConfig, StreamableHttpError},
    },
};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;
use url::Url;

use self::unattended::Unattended;
use super::{
    super::fetch::{MAX_BODY, cause, client, shown},
    in_flight::InFlight,
};
use crate::api::{McpRemedy, RemediationReason};

/// For a new connection.
const CONNECT_LIMIT: Duration = Duration::from_secs(3);
/// For all requests before the call. The SDK waits 10 s before it treats a silent server as one of the older era.
const BEFORE_LIMIT: Duration = Duration::from_secs(25);
/// Pages of `tools/list` that are read.
const MOST_PAGES: usize = 20;
/// Characters of a server's text that are shown.
const SAID: usize = 500;
/// The server did not start the call.
const REFUSALS: [ErrorCode; 5] = [
    ErrorCode::INVALID_PARAMS,
    ErrorCode::METHOD_NOT_FOUND,
    ErrorCode::INVALID_REQUEST,
    ErrorCode::PARSE_ERROR,
    ErrorCode::RESOURCE_NOT_FOUND,
];
/// For closing the connection.
const CLOSE_LIMIT: Duration = Duration::from_secs(2);

/// Why a tool had no effect. Only after [`Self::Lost`] the effect is unknown.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum McpError {
    #[error("the tool cannot be called: {0}")]
    Invalid(String),
    #[error("{at} could not be reached: {why}; nothing was called")]
    Unreachable { at: String, why: String },
    #[error("{at} refused the request: {why}; nothing was called")]
    Refused { at: String, why: String },
    #[error("{at} has no tool {tool:?}, only {there}; nothing was called")]
    NoSuchTool { at: String, tool: String, there: String },
    #[error("mcp.arguments do not fit the tool's inputSchema: {0}; nothing was called")]
    BadArguments(String),
    #[error("the tool reports a failure: {0}")]
    ToolFailed(String),
    #[error("the tool requests input{0}; the operator provides none")]
    WantsInput(String),
    #[error("the tool was called, and its outcome is unknown: {0}")]
    Lost(String),
}

impl McpError {
    pub fn reason(&self) -> RemediationReason {
        match self {
            Self::Invalid(_) => RemediationReason::McpInvalid,
            Self::Unreachable { .. } => RemediationReason::McpUnreachable,
            Self::Refused { .. } => RemediationReason::McpRefused,
            Self::NoSuchTool { .. } => RemediationReason::McpNoSuchTool,
            Self::BadArguments(_) => RemediationReason::McpBadArguments,
            Self::ToolFailed(_) => RemediationReason::McpToolFailed,
            Self::WantsInput(_) => RemediationReason::McpWantsInput,
            Self::Lost(_) => RemediationReason::OutcomeUnknown,
        }
    }
}

/// Calls tools. One for the whole operator.
#[derive(Default)]
pub struct Mcp {
    pub(super) client: McpClient,
    /// Preparations, by the Remediation's uid.
    pub(super) preparations: InFlight<Result<PreparedCall, McpError>>,
    /// Calls, by the Remediation's uid.
    pub(super) calls: InFlight<Result<String, McpError>>,
}

impl Mcp {
    /// See [`InFlight::drain`].
    pub async fn drain(&self, limit: Duration) -> bool {
        // A preparation has changed nothing, and is repeated.
        self.preparations.close();
        self.calls.drain(limit).await
    }
}

/// The HTTP client of MCP servers.
#[derive(Clone)]
pub(super) struct McpClient {
    http: Result<Client, String>,
}

impl Default for McpClient {
    fn default() -> Self {
        Self { http: client(|builder| builder.connect_timeout(CONNECT_LIMIT).pool_max_idle_per_host(0)) }
    }
}

impl McpClient {
    /// Greets the server, and checks that it has the tool, and that the arguments fit. Changes nothing; takes 25 s at most.
    /// The error is never `Lost`.
    pub async fn prepare(
        self,
        remedy: McpRemedy,
        token: Option<SecretString>,
        arguments: JsonObject,
    ) -> Result<PreparedCall, McpError> {
        let McpRemedy { url, tool, .. } = remedy;
        let http = self.http.map_err(McpError::Invalid)?;
        let parsed = Url::parse(&url).map_err(|why| McpError::Invalid(format!("{url:?}: {why}")))?;
        let words = Words { at: shown(&parsed), token };
        if words.token.as_ref().is_some_and(|token| token.expose_secret().trim().is_empty()) {
            return Err(McpError::Invalid("the token is empty".to_owned()));
        }
        let prepared = async {
            let unattended = Unattended::default();
            let client = greet(&http, &url, &words, &unattended).await?;
            let found = find(&client, &tool, &words).await?;
            check_arguments(&found.input_schema, &arguments).map_err(McpError::BadArguments)?;
            let call = CallToolRequestParams::new(tool).with_arguments(arguments);
            Ok(PreparedCall { client, call, asked: unattended.asked, words: words.clone() })
        };
        tokio::time::timeout(BEFORE_LIMIT, prepared)
            .await
            .unwrap_or_else(|_| Err(words.unreachable(&format!("no response within {} s", BEFORE_LIMIT.as_secs()))))
    }
}

/// The server's name in messages, and the secret that no message holds.
#[derive(Clone)]
struct Words {
    at: String,
    token: Option<SecretString>,
}

impl Words {
    /// The beginning of a server's text, without the token that the server may have repeated.
    fn said(&self, text: &str) -> String {
        let token = self.token.as_ref().map(|token| token.expose_secret().trim());
        let text = token.map_or_else(|| text.to_owned(), |token| text.replace(token, "[the token]"));
        match text.char_indices().nth(SAID) {
            Some((end, _)) => format!("{}…", &text[..end]),
            None => text,
        }
    }

    fn refused(&self, why: &str) -> McpError {
        McpError::Refused { at: self.at.clone(), why: self.said(why) }
    }

    fn unreachable(&self, why: &str) -> McpError {
        McpError::Unreachable { at: self.at.clone(), why: self.said(why) }
    }
}

type Connection = RunningService<RoleClient, Unattended>;

async fn greet(http: &Client, url: &str, words: &Words, unattended: &Unattended) -> Result<Connection, McpError> {
    let connect = |lifecycle| {
        let mut config = StreamableHttpClientTransportConfig::with_uri(url)
            .max_sse_event_size(MAX_BODY)
            // The SDK would repeat a call after an expired session.
            .reinit_on_expired_session(false);
        config.retry_config = Arc::new(NeverRetry::default());
        if let Some(token) = &words.token {
            config = config.auth_header(token.expose_secret().trim());
        }
        let transport = StreamableHttpClientTransport::with_client(http.clone(), config);
        unattended.clone().serve_with_lifecycle(transport, lifecycle)
    };
    let auto = ClientLifecycleMode::Auto {
        preferred_versions: vec![ProtocolVersion::V_2026_07_28],
        legacy_version: Some(ProtocolVersion::V_2025_11_25),
    };
    let greeted = match connect(auto).await.map_err(|error| before(&error, words)) {
        // Servers of the older era refuse an unknown request in many ways; a greeting is safe to repeat.
        Err(McpError::Refused { .. }) => connect(ClientLifecycleMode::Initialize).await,
        greeted => return greeted,
    };
    greeted.map_err(|error| before(&error, words))
}

async fn find(client: &Connection, tool: &str, words: &Words) -> Result<Tool, McpError> {
    let (mut names, mut cursor) = (Vec::new(), None);
    for _ in 0..MOST_PAGES {
        let page = PaginatedRequestParams::default().with_cursor(cursor);
        let page = client.list_tools(Some(page)).await.map_err(|error| match &error {
            ServiceError::TransportSend(error) => of_transport(error, words).0,
            other => words.refused(&other.to_string()),
        })?;
        for found in page.tools {
            if found.name == tool {
                return Ok(found);
            }
            names.push(found.name.into_owned());
        }
        cursor = page.next_cursor;
        if cursor.is_none() {
            break;
        }
    }
    let there = if names.is_empty() { "none".to_owned() } else { words.said(&names.join(", ")) };
    Err(McpError::NoSuchTool { at: words.at.clone(), tool: tool.to_owned(), there })
}

/// An error before the call.
fn before(error: &ClientInitializeError, words: &Words) -> McpError {
    match error {
        ClientInitializeError::TransportError { error, .. } => of_transport(error, words).0,
        ClientInitializeError::LegacyFallbackFailed { fallback, .. } => before(fallback, words),
        ClientInitializeError::ConnectionClosed(why) => words.unreachable(&format!("the connection ended: {why}")),
        other => words.refused(&other.to_string()),
    }
}

/// The error of a transport, and whether the server certainly did not accept the request.
fn of_transport(error: &DynamicTransportError, words: &Words) -> (McpError, bool) {
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error.error.as_ref());
    while let Some(current) = next {
        if let Some(error) = current.downcast_ref::<StreamableHttpError<reqwest::Error>>() {
            return of_http(error, words);
        }
        next = current.source();
    }
    (words.refused(&error.error.to_string()), false)
}

fn of_http(error: &StreamableHttpError<reqwest::Error>, words: &Words) -> (McpError, bool) {
    let token = "the token is missing, wrong or too weak: see mcp.tokenSecretRef";
    match error {
        StreamableHttpError::Client(error) => (words.unreachable(&cause(error)), error.is_connect()),
        StreamableHttpError::AuthRequired(_) => (words.refused(&format!("401 Unauthorized: {token}")), true),
        StreamableHttpError::InsufficientScope(_) => (words.refused(&format!("403 Forbidden: {token}")), true),
        StreamableHttpError::HttpStatus(error) if error.status == 429 => (words.refused("429 Too Many Requests"), true),
        StreamableHttpError::SessionExpired => (words.refused("404 Not Found: is mcp.url right?"), true),
        StreamableHttpError::UnexpectedServerResponse(text) => {
            let refused = ["HTTP 3", "HTTP 4"].iter().any(|status| text.starts_with(status));
            (words.refused(text), refused)
        }
        other => (words.refused(&other.to_string()), false),
    }
}

/// A call that is ready to be made.
pub struct PreparedCall {
    client: Connection,
    call: CallToolRequestParams,
    asked: Arc<AtomicBool>,
    words: Words,
}

impl PreparedCall {
    /// Calls the tool, once, and returns its text, shortened.
    pub async fn make(self, limit: Duration) -> Result<String, McpError> {
        let Self { client, call, asked, words } = self;
        let answer = tokio::time::timeout(limit, client.call_tool_once(call)).await;
        let asked = asked.load(Ordering::SeqCst);
        let outcome = match answer {
            Err(_) => Err(McpError::Lost(format!("no response within {limit:?}"))),
            Ok(answer) => outcome(answer, asked, &words),
        };
        let _ = tokio::time::timeout(CLOSE_LIMIT, client.cancel()).await;
        outcome
    }
}

/// `asked`: in the meantime the server requested input from a person or a model.
fn outcome(answer: Result<CallToolResponse, ServiceError>, asked: bool, words: &Words) -> Result<String, McpError> {
    match answer {
        Ok(CallToolResponse::InputRequired(_)) => Err(McpError::WantsInput(String::new())),
        Ok(CallToolResponse::Complete(result)) => {
            let said = words.said(&text_of(&result));
            match result.is_error {
                _ if asked => Err(McpError::WantsInput(format!(" and then said {said:?}"))),
                Some(true) if said.is_empty() => Err(McpError::ToolFailed("no reason given".to_owned())),
                Some(true) => Err(McpError::ToolFailed(said)),
                _ => Ok(said),
            }
        }
        Ok(_) => Err(McpError::Lost("it continues as a task, which is not followed".to_owned())),
        Err(ServiceError::McpError(error)) if asked => {
            Err(McpError::WantsInput(format!(" and then said {:?}", words.said(&error.message))))
        }
        Err(ServiceError::McpError(error)) if REFUSALS.contains(&error.code) => Err(words.refused(&error.message)),
        Err(ServiceError::McpError(error)) => Err(McpError::Lost(words.said(&error.message))),
        Err(ServiceError::TransportSend(error)) => match of_transport(&error, words) {
            (why, true) => Err(why),
            (McpError::Unreachable { why, .. } | McpError::Refused { why, .. }, false) => Err(McpError::Lost(why)),
            (why, false) => Err(McpError::Lost(why.to_string())),
        },
        Err(error) => Err(McpError::Lost(words.said(&error.to_string()))),
    }
}

fn text_of(result: &CallToolResult) -> String {
    let texts = result.content.iter().filter_map(|block| block.as_text()).map(|text| text.text.trim());
    let texts: Vec<&str> = texts.filter(|text| !text.is_empty()).collect();
    texts.join(" ")
}

/// Checks for common mistakes: an argument that is missing, misspelt, or of another type. The server checks the rest.
fn check_arguments(schema: &JsonObject, arguments: &JsonObject) -> Result<(), String> {
    let properties = schema.get("properties").and_then(Value::as_object);
    let known = |name: &str| properties.and_then(|properties| properties.get(name));
    let required = schema.get("required").and_then(Value::as_array).into_iter().flatten();
    if let Some(name) = required.filter_map(Value::as_str).find(|name| !arguments.contains_key(*name)) {
        return Err(format!("{name} is missing"));
    }
    for (name, value) in arguments {
        match known(name) {
            None if schema.get("additionalProperties") == Some(&Value::Bool(false)) => {
                return Err(format!("{name} is not an argument of the tool; check the spelling"));
            }
            Some(property) if !fits(property, value) => {
                let expected = property.get("type").cloned().unwrap_or_default();
                return Err(format!("{name} must be of type {expected}"));
            }
            _ => {}
        }
    }
    Ok(())
}

/// By `type` alone, a name or a list of names.
fn fits(property: &Value, value: &Value) -> bool {
    let is = |name: &str| match name {
        "string" => value.is_string(),
        "number" => value.is_number(),
        "integer" => value.as_f64().is_some_and(|number| number.fract() == 0.0),
        "boolean" => value.is_boolean(),
        "object" => value.is_object(),
        "array" => value.is_array(),
        "null" => value.is_null(),
        _ => true,
    };
    match property.get("type") {
        Some(Value::String(name)) => is(name),
        Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).any(is),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use rmcp::model::{ContentBlock, ErrorData};
    use serde_json::json;

    use super::*;

    fn object(value: Value) -> JsonObject {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn arguments_are_checked_by_name_and_type() {
        let schema = object(json!({
            "type": "object", "required": ["service"], "additionalProperties": false,
            "properties": {"service": {"type": "string"}, "force": {"type": ["boolean", "null"]}, "count": {"type": "integer"}},
        }));
        let check = |arguments: Value| check_arguments(&schema, &object(arguments));
        assert_eq!(check(json!({"service": "api", "force": null, "count": 2})), Ok(()));
        for (arguments, words) in [
            (json!({}), "service is missing"),
            (json!({"service": "api", "forse": true}), "forse is not an argument of the tool"),
            (json!({"service": 7}), "service must be of type \"string\""),
            (json!({"service": "api", "count": 1.5}), "count must be of type \"integer\""),
        ] {
            let why = check(arguments.clone()).unwrap_err();
            assert!(why.contains(words), "{arguments}: {why}");
        }
        let open = object(json!({"type": "object"}));
        assert_eq!(check_arguments(&open, &object(json!({"anything": 1}))), Ok(()));
    }

    #[test]
    fn the_text_of_a_tool_is_short_and_without_the_token() {
        let words = Words { at: "https://a/mcp".into(), token: Some("hunter2".to_owned().into()) };
        let failed = CallToolResult::error(vec![ContentBlock::text(format!("no, hunter2! {}", "x".repeat(900)))]);
        let why = outcome(Ok(failed.into()), false, &words).unwrap_err();
        let text = why.to_string();
        assert_eq!(why.reason(), RemediationReason::McpToolFailed);
        assert!(text.contains("no, [the token]!") && !text.contains("hunter2") && text.len() < 600, "{text}");
        let asked = outcome(Ok(CallToolResult::success(vec![]).into()), true, &words).unwrap_err();
        assert_eq!(asked.reason(), RemediationReason::McpWantsInput);
        for (code, reason) in [
            (ErrorCode::INVALID_PARAMS, RemediationReason::McpRefused),
            (ErrorCode::INTERNAL_ERROR, RemediationReason::OutcomeUnknown),
        ] {
            let error = ServiceError::McpError(ErrorData::new(code, "no", None));
            assert_eq!(outcome(Err(error), false, &words).unwrap_err().reason(), reason);
        }
        assert_eq!(
            outcome(Err(ServiceError::TransportClosed), false, &words).unwrap_err().reason(),
            RemediationReason::OutcomeUnknown
        );
    }
}
