//! docs/mcp.md names every tool of `panacea mcp`, each of its arguments, and each field of its result.

use panacea::server::mcp::McpTool;
use serde_json::Value;
use strum::IntoEnumIterator as _;

const PAGE: &str = include_str!("../../docs/mcp.md");

#[test]
fn every_tool_and_each_of_its_arguments_and_answers_is_on_the_page() {
    for tool in McpTool::iter().map(McpTool::tool) {
        let heading = format!("### `{}`\n", tool.name);
        let section = PAGE.split(&heading).nth(1).unwrap_or_else(|| panic!("docs/mcp.md has no {heading}"));
        let section = section.split("\n### ").next().unwrap().split("\n## ").next().unwrap();
        for schema in [&tool.input_schema, tool.output_schema.as_ref().unwrap()] {
            let properties = schema["properties"].as_object().unwrap();
            assert!(!properties.is_empty(), "{}: {schema:?}", tool.name);
            for name in properties.keys() {
                assert!(section.contains(&format!("`{name}`")), "docs/mcp.md does not name `{name}` of {}", tool.name);
            }
            assert_eq!(schema["type"], "object", "{}", tool.name);
        }
        for required in tool.input_schema.get("required").and_then(Value::as_array).into_iter().flatten() {
            let required = required.as_str().unwrap();
            assert!(section.contains(&format!("**`{required}`**")), "`{required}` of {} is not bold", tool.name);
        }
    }
}
