//! What is answered in the place of a node that does not run yet: who it will be, the tools that every node has, and in the
//! answer of each that nobody is there. A host that started its servers before the node finds them all the same.

use rmcp::ServerHandler;
use rmcp::model::{
    DiscoverResult, InitializeResult, ListResourceTemplatesResult, ListResourcesResult, ListToolsResult,
    ProtocolVersion, ServerConfig,
};
use serde::Serialize;
use serde_json::{Value, json};

use super::{calls, config, discovery};
use crate::proto::call::{CallFailure, Outcome};
use crate::proto::code::Code;

/// A server without a node.
struct Absent;

impl ServerHandler for Absent {
    fn get_info(&self) -> ServerConfig {
        config()
    }
}

/// The result of a request, in words of `why` where a tool is called; none where there is nothing to say without a node.
pub fn answer(method: &str, params: &Value, why: &str) -> Option<Value> {
    match method {
        "initialize" => result(&initialized(params)),
        "ping" => Some(json!({})),
        "server/discover" => {
            let versions = Absent.supported_protocol_versions().into_owned();
            result(&DiscoverResult::from_server_info(versions, config()))
        }
        "tools/list" => result(&ListToolsResult::with_all_items(discovery::TOOLS.clone())),
        "tools/call" => {
            result(&calls::failed(&CallFailure::new(Code::Unavailable, Outcome::NotStarted, why)))
        }
        "resources/list" => result(&ListResourcesResult::with_all_items(Vec::new())),
        "resources/templates/list" => result(&ListResourceTemplatesResult::with_all_items(Vec::new())),
        _ => None,
    }
}

/// In the revision that is asked for where a node has it, as a node would.
fn initialized(params: &Value) -> InitializeResult {
    let asked = params.get("protocolVersion").and_then(Value::as_str).unwrap_or_default();
    let known = Absent.supported_protocol_versions();
    let version = known.iter().find(|version| version.has_initialize() && version.as_str() == asked).cloned();
    let config = config();
    let mut answer = InitializeResult::new(config.capabilities);
    answer.protocol_version = version.unwrap_or(ProtocolVersion::LATEST_WITH_INITIALIZE);
    answer.server_info = config.server_info;
    answer.instructions = config.instructions;
    answer
}

fn result(result: &impl Serialize) -> Option<Value> {
    serde_json::to_value(result).ok()
}
