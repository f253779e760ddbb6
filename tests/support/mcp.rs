//! The official SDK's client of the Model Context Protocol, against `panacea mcp` as a program of its own.

use std::{fs::File, path::Path, process::Stdio, time::Duration};

use rmcp::{
    ClientLifecycleMode, ClientServiceExt as _, RoleClient,
    model::{CallToolRequestParams, CallToolResult, ProtocolVersion},
    service::{ClientInitializeError, RunningService},
    transport::{StreamableHttpClientTransport, streamable_http_client::StreamableHttpClientTransportConfig},
};
use serde_json::Value;
use tokio::process::{Child, Command};

use super::{
    cluster::{Test, init_crypto},
    operator::{binary, free_port},
    wait,
};

/// With a handshake, as the revisions up to 2025-11-25 have it.
pub fn with_handshake() -> ClientLifecycleMode {
    ClientLifecycleMode::Initialize
}

/// Without one, as 2026-07-28 has it.
pub fn without_handshake() -> ClientLifecycleMode {
    ClientLifecycleMode::Discover { preferred_versions: vec![ProtocolVersion::V_2026_07_28] }
}

/// An assistant that speaks to a server.
pub struct Assistant {
    client: RunningService<RoleClient, ()>,
    _child: Option<Child>,
}

impl Assistant {
    /// Starts `panacea mcp` as an assistant does, with this kubeconfig.
    pub async fn on_stdio(test: &Test, kubeconfig: &Path, lifecycle: ClientLifecycleMode) -> Self {
        let mut child = Command::new(binary())
            .args(["mcp", "--namespace", &test.namespace])
            .env("KUBECONFIG", kubeconfig)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let transport = (child.stdout.take().unwrap(), child.stdin.take().unwrap());
        let client = ().serve_with_lifecycle(transport, lifecycle).await.unwrap();
        Self { client, _child: Some(child) }
    }

    /// Speaks HTTP, with this token in each request.
    pub async fn on_http(
        url: &str,
        token: Option<&str>,
        lifecycle: ClientLifecycleMode,
    ) -> Result<Self, Box<ClientInitializeError>> {
        init_crypto();
        let mut config = StreamableHttpClientTransportConfig::with_uri(url);
        if let Some(token) = token {
            config = config.auth_header(token);
        }
        let transport = StreamableHttpClientTransport::from_config(config);
        let client = ().serve_with_lifecycle(transport, lifecycle).await.map_err(Box::new)?;
        Ok(Self { client, _child: None })
    }

    pub async fn tools(&self) -> Vec<rmcp::model::Tool> {
        self.client.list_all_tools().await.unwrap()
    }

    pub async fn call(&self, tool: &'static str, arguments: Value) -> CallToolResult {
        let arguments = arguments.as_object().unwrap().clone();
        self.client.call_tool(CallToolRequestParams::new(tool).with_arguments(arguments)).await.unwrap()
    }

    /// The structured answer of a call that has to succeed.
    pub async fn answer(&self, tool: &'static str, arguments: Value) -> Value {
        let result = self.call(tool, arguments).await;
        assert_eq!(result.is_error, Some(false), "{tool}: {result:?}");
        result.structured_content.unwrap()
    }

    /// The words of a call that has to fail.
    pub async fn refusal(&self, tool: &'static str, arguments: Value) -> String {
        let result = self.call(tool, arguments).await;
        assert_eq!(result.is_error, Some(true), "{tool}: {result:?}");
        words(&result)
    }
}

/// What a person reads.
pub fn words(result: &CallToolResult) -> String {
    result.content.iter().filter_map(|block| block.as_text()).map(|text| text.text.as_str()).collect()
}

/// `panacea mcp --listen` with the operator's kubeconfig: an identity of which no caller may get anything.
pub struct McpOverHttp {
    _child: Child,
    pub url: String,
    log: tempfile::NamedTempFile,
}

impl McpOverHttp {
    pub async fn start(test: &Test, kubeconfig: &Path) -> Self {
        let log = tempfile::NamedTempFile::new().unwrap();
        let port = free_port();
        let child = Command::new(binary())
            .args(["mcp", "--namespace", &test.namespace, "--listen", &format!("127.0.0.1:{port}")])
            .env("KUBECONFIG", kubeconfig)
            .env("PANACEA_LOG", "trace")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(log.path()).unwrap())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let server = Self { _child: child, url: format!("http://127.0.0.1:{port}/mcp"), log };
        wait::until("panacea mcp to listen", Duration::from_secs(20), async || {
            reqwest::get(&server.url).await.map(drop).map_err(|why| format!("{why}; {}", server.log()))
        })
        .await;
        server
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log.path()).unwrap()
    }
}
