//! Panacea's own server of the Model Context Protocol: an assistant reads and decides with a person's Kubernetes rights.
//!
//! All data come from the API server, read with the caller's identity, and none from an operator's memory: the server
//! runs without an operator, and shows no more than `kubectl` would. It speaks the revisions with a handshake
//! (2025-11-25 and before) and the one without (2026-07-28).

mod arguments;
mod cluster;
mod decide;
mod explain;
mod http;
mod read;

use std::sync::{Arc, LazyLock};

use rmcp::{
    RoleServer, ServerHandler, ServiceExt as _,
    handler::server::tool::{schema_for_input, schema_for_output},
    model::{
        CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, ErrorData, Implementation, JsonObject,
        ListToolsResult, PaginatedRequestParams, ServerCapabilities, ServerConfig, Tool, ToolAnnotations,
    },
    schemars::{
        JsonSchema, Schema,
        transform::{RecursiveTransform, Transform as _},
    },
    service::RequestContext,
    transport::stdio,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use strum::{EnumMessage as _, IntoEnumIterator as _};

use crate::api::Decision;
pub use cluster::Cluster;
use cluster::Trouble;
pub use http::{Door, check_names, serve_http};

/// The tools, by the names that they have in the protocol. The doc comments are their descriptions.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, strum::EnumIter, strum::EnumString, strum::IntoStaticStr, strum::EnumMessage,
)]
#[strum(serialize_all = "snake_case")]
pub enum McpTool {
    /// The components that HealingPolicies watch: the health of each, its score from 0 (dead) to 100 (fine), and the
    /// observations behind it.
    ListComponents,
    /// One policy: its conditions, and of each component its health and since when, the open incident, the running
    /// release, and why no action is taken although something is wrong.
    GetHealth,
    /// The forecast for a policy's components: the probability of a failure within 24 hours, when, why, and with which
    /// confidence. measured: false means that nothing can be said, not that nothing will happen.
    Forecast,
    /// Healing actions, the newest first: running ones, ones that wait for a person, and ended ones with their outcome.
    ListRemediations,
    /// One healing action: the observation and the cause, what the action would do, what holds it back, the events so
    /// far, and the plan that a decision has to name.
    ExplainRemediation,
    /// A person's approval of a waiting healing action, which then changes the running system. Only on behalf of the
    /// person whom you asked; needs the right to patch remediations. Cannot be taken back.
    ApproveRemediation,
    /// A person's rejection of a waiting healing action, which is then not carried out. Only on behalf of the person
    /// whom you asked; needs the right to patch remediations. Cannot be taken back.
    RejectRemediation,
}

/// The whole server, for an assistant.
const INSTRUCTIONS: &str = "Panacea watches components of a Kubernetes cluster, forecasts failures and heals them. \
    Begin with list_components; list_remediations with open: true shows the actions that run or wait for a person. \
    Before a decision call explain_remediation, show the result to a person, and decide with the plan in it: \
    a decision cannot be taken back. A component that was not measured is Unknown: never call it healthy. You may \
    see and decide only what the Kubernetes rights of the person you work for allow.";

impl McpTool {
    fn annotations(self) -> ToolAnnotations {
        let reads = !matches!(self, Self::ApproveRemediation | Self::RejectRemediation);
        // The same decision again changes nothing.
        ToolAnnotations::new().read_only(reads).destructive(!reads).idempotent(true).open_world(false)
    }

    /// As in the result of `tools/list`.
    pub fn tool(self) -> Tool {
        let (input, output) = match self {
            Self::ListComponents => schemas::<arguments::ListComponents, read::Components>(),
            Self::GetHealth => schemas::<arguments::OfPolicy, read::Health>(),
            Self::Forecast => schemas::<arguments::OfPolicy, read::Forecasts>(),
            Self::ListRemediations => schemas::<arguments::ListRemediations, read::Remediations>(),
            Self::ExplainRemediation => schemas::<arguments::OfRemediation, explain::Explanation>(),
            Self::ApproveRemediation | Self::RejectRemediation => schemas::<arguments::Decide, decide::Decided>(),
        };
        let name: &'static str = self.into();
        let description = self.get_documentation().unwrap_or_default();
        Tool::new(name, description, input).with_raw_output_schema(output).with_annotations(self.annotations())
    }

    async fn call(self, cluster: &Cluster, arguments: JsonObject) -> Result<CallToolResult, Trouble> {
        match self {
            Self::ListComponents => answer(read::components(cluster, parse(arguments)?).await?),
            Self::GetHealth => answer(read::health(cluster, parse(arguments)?).await?),
            Self::Forecast => answer(read::forecasts(cluster, parse(arguments)?).await?),
            Self::ListRemediations => answer(read::remediations(cluster, parse(arguments)?).await?),
            Self::ExplainRemediation => answer(explain::explain(cluster, parse(arguments)?).await?),
            Self::ApproveRemediation => answer(decide::decide(cluster, parse(arguments)?, Decision::Approved).await?),
            Self::RejectRemediation => answer(decide::decide(cluster, parse(arguments)?, Decision::Rejected).await?),
        }
    }
}

/// A result for a program, and a short text of it for a person.
trait Answer: Serialize + JsonSchema {
    fn in_words(&self) -> String;
}

fn answer(answer: impl Answer) -> Result<CallToolResult, Trouble> {
    let value =
        serde_json::to_value(&answer).map_err(|why| Trouble(format!("the result cannot be serialized: {why}")))?;
    let mut result = CallToolResult::structured(value);
    result.content = vec![ContentBlock::text(answer.in_words())];
    Ok(result)
}

fn parse<T: DeserializeOwned>(arguments: JsonObject) -> Result<T, Trouble> {
    serde_path_to_error::deserialize(Value::Object(arguments)).map_err(|error| {
        let place = match error.path().to_string() {
            path if path == "." => String::new(),
            path => format!("{path}: "),
        };
        Trouble(format!("{place}{}; tools/list shows the arguments", error.inner()))
    })
}

fn schemas<I: JsonSchema + 'static, O: JsonSchema + 'static>() -> (Arc<JsonObject>, Arc<JsonObject>) {
    // The test of docs/mcp.md finds an argument type that is no object.
    let (input, output) = (schema_for_input::<I>().unwrap_or_default(), schema_for_output::<O>());
    (without_numeric_formats(&input), without_numeric_formats(&output))
}

/// JSON Schema has no formats of numbers (`uint8`, `double`): clients warn of each at every start. `minimum` and
/// `maximum` say the same.
fn without_numeric_formats(schema: &JsonObject) -> Arc<JsonObject> {
    let mut schema = Schema::from(schema.clone());
    RecursiveTransform(|schema: &mut Schema| {
        let numeric = |format: &str| ["uint", "int", "double", "float"].iter().any(|kind| format.starts_with(kind));
        if schema.get("format").and_then(Value::as_str).is_some_and(numeric) {
            schema.remove("format");
        }
    })
    .transform(&mut schema);
    Arc::new(schema.ensure_object().clone())
}

static TOOLS: LazyLock<Vec<Tool>> = LazyLock::new(|| McpTool::iter().map(McpTool::tool).collect());

/// The server, for one connection or for one request.
#[derive(Clone)]
pub struct McpServer {
    /// With the identity of the kubeconfig; none: each request brings its own, and there is no other.
    own: Option<Cluster>,
}

impl McpServer {
    fn cluster(&self, context: &RequestContext<RoleServer>) -> Option<Cluster> {
        let of_request = || context.extensions.get::<axum::http::request::Parts>()?.extensions.get::<Cluster>();
        self.own.as_ref().or_else(of_request).cloned()
    }
}

impl ServerHandler for McpServer {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
            .with_server_info(Implementation::new("panacea", env!("CARGO_PKG_VERSION")))
            .with_instructions(INSTRUCTIONS)
    }

    async fn list_tools(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        Ok(ListToolsResult::with_all_items(TOOLS.clone()))
    }

    fn get_tool(&self, name: &str) -> Option<Tool> {
        TOOLS.iter().find(|tool| tool.name == name).cloned()
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let Ok(tool) = request.name.parse::<McpTool>() else {
            let names: Vec<&'static str> = McpTool::iter().map(Into::into).collect();
            let why = format!("there is no tool {:?}; there are {}", request.name, names.join(", "));
            return Err(ErrorData::invalid_params(why, None));
        };
        let Some(cluster) = self.cluster(&context) else {
            return Err(ErrorData::internal_error("the request came without an identity", None));
        };
        let result = tool.call(&cluster, request.arguments.unwrap_or_default()).await;
        Ok(result.unwrap_or_else(|Trouble(why)| CallToolResult::error(vec![ContentBlock::text(why)])).into())
    }
}

/// Serves one client on standard input and output until it closes them, with the identity of `cluster`.
pub async fn serve_stdio(cluster: Cluster) -> anyhow::Result<()> {
    McpServer { own: Some(cluster) }.serve(stdio()).await?.waiting().await?;
    Ok(())
}
