//! A tool of an external MCP server, called once (<https://modelcontextprotocol.io/specification/2026-07-28>).
//!
//! Both eras of the protocol are spoken: without a handshake (2026-07-28), and with one (2025-11-25 and before). What
//! comes before the call changes nothing and is told apart from it: only a call whose answer is lost has an unknown outcome.

mod unattended;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use reqwest::{Client, redirect};
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
    super::fetch::{MAX_BODY, USER_AGENT, cause, shown},
    in_flight::InFlight,
};
use crate::api::{RemediationReason, Retry};

/// For a connection to be made.
const CONNECT_LIMIT: Duration = Duration::from_secs(3);
/// For all that comes before the call. The SDK waits 10 s before it takes a silent server for one of the older era.
const BEFORE_LIMIT: Duration = Duration::from_secs(25);
/// Pages of `tools/list` that are read.
const MOST_PAGES: usize = 20;
/// Characters of a server's own words that are shown.
const SAID: usize = 500;
/// For taking leave of the server.
const LEAVE_LIMIT: Duration = Duration::from_secs(2);

/// Why a tool did not do it. Only with [`Self::Lost`] it may have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum McpError {
    #[error("the tool cannot be called: {0}")]
    Invalid(String),
    #[error("{at} could not be reached: {why}; nothing was called")]
    Unreachable { at: String, why: String },
    #[error("{at} refused it: {why}; nothing was called")]
    Refused { at: String, why: String },
    #[error("{at} has no tool {tool:?}, only {there}; nothing was called")]
    NoSuchTool { at: String, tool: String, there: String },
    #[error("mcp.arguments do not fit the tool's inputSchema: {0}; nothing was called")]
    BadArguments(String),
    #[error("the tool says that it failed: {0}")]
    ToolFailed(String),
    #[error("the tool wants input{0}; nobody is there to give it")]
    WantsInput(String),
    /// Whether it did anything is not known.
    #[error("the tool was called, and what came of it is not known: {0}")]
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

    /// When the same call is worth another attempt, in another action: within one the tool is called at most once.
    pub fn retry(&self) -> Retry {
        match self {
            Self::Unreachable { .. } => Retry::Backoff,
            Self::Refused { .. } | Self::NoSuchTool { .. } => Retry::OnChange,
            Self::Invalid(_) | Self::BadArguments(_) | Self::ToolFailed(_) | Self::WantsInput(_) | Self::Lost(_) => {
                Retry::Never
            }
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
    /// Starts no call any more, and waits for those that run; whether every answer was read.
    pub async fn drain(&self, limit: Duration) -> bool {
        // What is only prepared has changed nothing, and is prepared again.
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
        // A redirect would take the token and the call somewhere that the policy does not name.
        let client = Client::builder()
            .user_agent(USER_AGENT)
            .redirect(redirect::Policy::none())
            .connect_timeout(CONNECT_LIMIT)
            .pool_max_idle_per_host(0);
        Self { http: client.build().map_err(|error| cause(&error)) }
    }
}

impl McpClient {
    /// Greets the server, and checks that it has the tool, and takes these arguments. Changes nothing; takes 25 s at most.
    ///
    /// # Errors
    /// See [`McpError`]; never `Lost`.
    pub async fn prepare(
        &self,
        url: &str,
        token: Option<SecretString>,
        tool: &str,
        arguments: JsonObject,
    ) -> Result<PreparedCall, McpError> {
        let http = self.http.as_ref().map_err(|why| McpError::Invalid(why.clone()))?;
        let parsed = Url::parse(url).map_err(|why| McpError::Invalid(format!("{url:?}: {why}")))?;
        let words = Words { at: shown(&parsed), token };
        if words.token.as_ref().is_some_and(|token| token.expose_secret().trim().is_empty()) {
            return Err(McpError::Invalid("the token is empty".to_owned()));
        }
        let prepared = async {
            let unattended = Unattended::default();
            let client = greet(http, url, &words, &unattended).await?;
            let found = find(&client, tool, &words).await?;
            check_arguments(&found.input_schema, &arguments).map_err(McpError::BadArguments)?;
            let call = CallToolRequestParams::new(tool.to_owned()).with_arguments(arguments);
            Ok(PreparedCall { client, call, asked: unattended.asked, words: words.clone() })
        };
        match tokio::time::timeout(BEFORE_LIMIT, prepared).await {
            Ok(prepared) => prepared,
            Err(_) => {
                let why = format!("no answer within {} s", BEFORE_LIMIT.as_secs());
                Err(McpError::Unreachable { at: words.at, why })
            }
        }
    }
}

/// How the server is spoken of, and what must not be repeated.
#[derive(Clone)]
struct Words {
    at: String,
    token: Option<SecretString>,
}

impl Words {
    /// The beginning of what a server said, without the token that it may have repeated.
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
            // A call that met an expired session would be made again.
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
    let failed = match connect(auto).await {
        Ok(client) => return Ok(client),
        Err(error) => before(&error, words),
    };
    // Servers of the older era answer what they do not know in many ways; a greeting is safe to repeat.
    match failed {
        McpError::Refused { .. } => {
            connect(ClientLifecycleMode::Initialize).await.map_err(|error| before(&error, words))
        }
        other => Err(other),
    }
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

/// What went wrong before the call.
fn before(error: &ClientInitializeError, words: &Words) -> McpError {
    match error {
        ClientInitializeError::TransportError { error, .. } => of_transport(error, words).0,
        ClientInitializeError::LegacyFallbackFailed { fallback, .. } => before(fallback, words),
        ClientInitializeError::ConnectionClosed(why) => words.unreachable(&format!("the connection ended: {why}")),
        other => words.refused(&other.to_string()),
    }
}

/// What a transport's error says, and whether the request surely was not taken.
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

/// A call that can be made.
pub struct PreparedCall {
    client: Connection,
    call: CallToolRequestParams,
    asked: Arc<AtomicBool>,
    words: Words,
}

impl PreparedCall {
    /// Calls the tool, once; what it said, shortened.
    ///
    /// # Errors
    /// See [`McpError`].
    pub async fn make(self, limit: Duration) -> Result<String, McpError> {
        let Self { client, call, asked, words } = self;
        let answer = tokio::time::timeout(limit, client.call_tool_once(call)).await;
        let asked = asked.load(Ordering::SeqCst);
        let outcome = match answer {
            Err(_) => Err(McpError::Lost(format!("no answer within {limit:?}"))),
            Ok(answer) => judged(answer, asked, &words),
        };
        let _ = tokio::time::timeout(LEAVE_LIMIT, client.cancel()).await;
        outcome
    }
}

/// `asked`: the server wanted something of a person or a model meanwhile.
fn judged(answer: Result<CallToolResponse, ServiceError>, asked: bool, words: &Words) -> Result<String, McpError> {
    match answer {
        Ok(CallToolResponse::InputRequired(_)) => Err(McpError::WantsInput(String::new())),
        Ok(CallToolResponse::Complete(result)) => {
            let said = words.said(&text_of(&result));
            match result.is_error {
                _ if asked => Err(McpError::WantsInput(format!(" and then said {said:?}"))),
                Some(true) if said.is_empty() => Err(McpError::ToolFailed("without a word why".to_owned())),
                Some(true) => Err(McpError::ToolFailed(said)),
                _ => Ok(said),
            }
        }
        Ok(_) => Err(McpError::Lost("it goes on as a task, which is not followed".to_owned())),
        Err(ServiceError::McpError(error)) if asked => {
            Err(McpError::WantsInput(format!(" and then said {:?}", words.said(&error.message))))
        }
        // It was not even begun.
        Err(ServiceError::McpError(error)) if is_refusal(error.code) => Err(words.refused(&error.message)),
        Err(ServiceError::McpError(error)) => Err(McpError::Lost(words.said(&error.message))),
        Err(ServiceError::TransportSend(error)) => match of_transport(&error, words) {
            (why, true) => Err(why),
            (McpError::Unreachable { why, .. } | McpError::Refused { why, .. }, false) => Err(McpError::Lost(why)),
            (why, false) => Err(McpError::Lost(why.to_string())),
        },
        Err(error) => Err(McpError::Lost(words.said(&error.to_string()))),
    }
}

fn is_refusal(code: ErrorCode) -> bool {
    [
        ErrorCode::INVALID_PARAMS,
        ErrorCode::METHOD_NOT_FOUND,
        ErrorCode::INVALID_REQUEST,
        ErrorCode::PARSE_ERROR,
        ErrorCode::RESOURCE_NOT_FOUND,
    ]
    .contains(&code)
}

fn text_of(result: &CallToolResult) -> String {
    let texts = result.content.iter().filter_map(|block| block.as_text()).map(|text| text.text.trim());
    let texts: Vec<&str> = texts.filter(|text| !text.is_empty()).collect();
    texts.join(" ")
}

/// The mistakes that people make: a field that is missing, misspelt, or of another kind. The server checks the rest.
fn check_arguments(schema: &JsonObject, arguments: &JsonObject) -> Result<(), String> {
    let properties = schema.get("properties").and_then(Value::as_object);
    let known = |name: &str| properties.and_then(|properties| properties.get(name));
    let required = schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    for name in required {
        if !arguments.contains_key(name) {
            return Err(format!("{name} is missing"));
        }
    }
    for (name, value) in arguments {
        match known(name) {
            None if schema.get("additionalProperties") == Some(&Value::Bool(false)) => {
                return Err(format!("{name} is no argument of it; check the spelling"));
            }
            Some(property) if !fits(property, value) => {
                let wanted = property.get("type").cloned().unwrap_or_default();
                return Err(format!("{name} must be of type {wanted}"));
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
            (json!({"service": "api", "forse": true}), "forse is no argument of it"),
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
    fn what_a_tool_says_is_short_and_without_the_token() {
        let words = Words { at: "https://a/mcp".into(), token: Some("hunter2".to_owned().into()) };
        let failed = CallToolResult::error(vec![ContentBlock::text(format!("no, hunter2! {}", "x".repeat(900)))]);
        let why = judged(Ok(failed.into()), false, &words).unwrap_err();
        let text = why.to_string();
        assert_eq!(why.reason(), RemediationReason::McpToolFailed);
        assert!(text.contains("no, [the token]!") && !text.contains("hunter2") && text.len() < 600, "{text}");
        let asked = judged(Ok(CallToolResult::success(vec![]).into()), true, &words).unwrap_err();
        assert_eq!(asked.reason(), RemediationReason::McpWantsInput);
        for (code, reason) in [
            (ErrorCode::INVALID_PARAMS, RemediationReason::McpRefused),
            (ErrorCode::INTERNAL_ERROR, RemediationReason::OutcomeUnknown),
        ] {
            let error = ServiceError::McpError(ErrorData::new(code, "no", None));
            assert_eq!(judged(Err(error), false, &words).unwrap_err().reason(), reason);
        }
        assert_eq!(
            judged(Err(ServiceError::TransportClosed), false, &words).unwrap_err().reason(),
            RemediationReason::OutcomeUnknown
        );
    }
}
