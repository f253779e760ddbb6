//! Panacea's own server of the Model Context Protocol: an assistant can look, and a person's Kubernetes rights decide.
//!
//! All that it says is read from the API server, with the identity of whoever calls, and nothing from an operator's
//! memory: it needs no operator beside it, and shows nobody what `kubectl` would not. It speaks the revisions with a
//! handshake (2025-11-25 and before) and the one without (2026-07-28).

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
    schemars::JsonSchema,
    service::RequestContext,
    transport::stdio,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use strum::IntoEnumIterator as _;

use crate::api::Decision;
pub use cluster::Cluster;
use cluster::Trouble;
pub use http::{Door, check_names, serve_http};

/// The tools, by the names that they have in the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::EnumIter, strum::EnumString, strum::IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum McpTool {
    ListComponents,
    GetHealth,
    Forecast,
    ListRemediations,
    ExplainRemediation,
    ApproveRemediation,
    RejectRemediation,
}

/// What an assistant is told of the whole.
const INSTRUCTIONS: &str = "Panacea watches components of a Kubernetes cluster, foresees failures and heals them. \
    Begin with list_components; list_remediations with open: true tells what is being done or waits for a person. \
    Before a decision call explain_remediation, show a person what it says, and decide with the plan that it gave: \
    a decision cannot be taken back. What was not measured is Unknown: never call it healthy. All that you may see \
    and decide is what the Kubernetes rights of the person you work for allow.";

impl McpTool {
    fn description(self) -> &'static str {
        match self {
            Self::ListComponents => {
                "The components that HealingPolicies watch: how each is, its score from 0 (dead) to 100 (fine), and what was seen."
            }
            Self::GetHealth => {
                "One policy: its conditions, and of each component how it is and since when, the open incident, the release that runs, and why nothing is done although something is wrong."
            }
            Self::Forecast => {
                "What is foreseen for a policy's components: the probability of a failure within 24 hours, when, why, and how sure that is. measured: false means that nothing can be said, not that nothing will happen."
            }
            Self::ListRemediations => {
                "Healing actions, the newest first: what is being done, waits for a person, or was done and whether it helped."
            }
            Self::ExplainRemediation => {
                "One healing action: what was seen and why, what it would do, what holds it back, what has happened so far, and the plan that a decision has to name."
            }
            Self::ApproveRemediation => {
                "A person's yes to a healing action that waits: it is then done to the running system. Only as the person whom you asked; needs the right to patch remediations. Cannot be taken back."
            }
            Self::RejectRemediation => {
                "A person's no to a healing action that waits: it is not done. Only as the person whom you asked; needs the right to patch remediations. Cannot be taken back."
            }
        }
    }

    fn annotations(self) -> ToolAnnotations {
        let reads = !matches!(self, Self::ApproveRemediation | Self::RejectRemediation);
        // The same decision again changes nothing.
        ToolAnnotations::new().read_only(reads).destructive(!reads).idempotent(true).open_world(false)
    }

    /// As `tools/list` tells it.
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
        Tool::new(name, self.description(), input).with_raw_output_schema(output).with_annotations(self.annotations())
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

/// An answer for a program, and the same in a few words for a person.
trait Answer: Serialize + JsonSchema {
    fn in_words(&self) -> String;
}

fn answer(answer: impl Answer) -> Result<CallToolResult, Trouble> {
    let value = serde_json::to_value(&answer).map_err(|why| Trouble(format!("the answer cannot be written: {why}")))?;
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
        Trouble(format!("{place}{}; tools/list tells the arguments", error.inner()))
    })
}

fn schemas<I: JsonSchema + 'static, O: JsonSchema + 'static>() -> (Arc<JsonObject>, Arc<JsonObject>) {
    // An argument type that is no object is a mistake of ours, which the test of the page sees.
    let (input, output) = (schema_for_input::<I>().unwrap_or_default(), schema_for_output::<O>());
    (without_numeric_formats(&input), without_numeric_formats(&output))
}

/// JSON Schema has no formats of numbers (`uint8`, `double`): clients warn of each at every start. `minimum` and `maximum` stand
/// beside them and say the same.
fn without_numeric_formats(schema: &JsonObject) -> Arc<JsonObject> {
    fn strip(value: &mut Value) {
        match value {
            Value::Object(fields) => {
                let numeric =
                    |format: &str| ["uint", "int", "double", "float"].iter().any(|kind| format.starts_with(kind));
                if fields.get("format").and_then(Value::as_str).is_some_and(numeric) {
                    fields.remove("format");
                }
                fields.values_mut().for_each(strip);
            }
            Value::Array(items) => items.iter_mut().for_each(strip),
            _ => {}
        }
    }
    let mut schema = schema.clone();
    schema.values_mut().for_each(strip);
    Arc::new(schema)
}

/// All tools, made once.
static TOOLS: LazyLock<Vec<Tool>> = LazyLock::new(|| McpTool::iter().map(McpTool::tool).collect());

/// Whose identity a call has.
#[derive(Clone)]
enum Access {
    /// That of the kubeconfig of whoever started the program.
    Own(Cluster),
    /// That of the token that came with the request; there is no other.
    OfRequest,
}

/// The server, for one connection or for one request.
#[derive(Clone)]
pub struct McpServer {
    access: Access,
}

impl McpServer {
    fn cluster(&self, context: &RequestContext<RoleServer>) -> Option<Cluster> {
        match &self.access {
            Access::Own(cluster) => Some(cluster.clone()),
            Access::OfRequest => {
                context.extensions.get::<axum::http::request::Parts>()?.extensions.get::<Cluster>().cloned()
            }
        }
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
///
/// # Errors
/// When the handshake or the streams fail.
pub async fn serve_stdio(cluster: Cluster) -> anyhow::Result<()> {
    let server = McpServer { access: Access::Own(cluster) }.serve(stdio()).await?;
    server.waiting().await?;
    Ok(())
}
