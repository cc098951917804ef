//! What an agent is told of its call beside the input.

use aop::agents::Invocation;
use aop::proto::call::{CallContext, CallId};
use aop::proto::identity::Identity;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::PATIENCE;
use super::folder::Folder;
use super::node::Node;
use super::server::Server;

const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const PRINT: &str =
    "command = [\"sh\", \"-c\", \"echo $AOP_CALLER $AOP_CALL_ID $AOP_CONVERSATION $TRACEPARENT\"]";

fn in_a_conversation(peer: bool) -> Invocation {
    let mut context = CallContext::default();
    context.conversation = Some("talk-7".parse().unwrap());
    context.trace = Some(TRACE.parse().unwrap());
    let caller = peer.then(|| Identity::from_seed([1; 32]).key());
    let deadline = Instant::now() + PATIENCE;
    Invocation { context, caller, ..Invocation::new(CallId([7; 16]), json!({"task": ""}), deadline) }
}

#[tokio::test]
async fn a_program_finds_caller_call_conversation_and_trace_in_fixed_variables() {
    let folder = Folder::new();
    folder.agent("print", PRINT);
    // Set and empty is not the same as not set.
    folder.agent("unset", "command = [\"sh\", \"-c\", \"echo ${AOP_CONVERSATION-no} ${TRACEPARENT-no}\"]");
    let agents = folder.agents();
    let name = "print@.".parse().unwrap();
    let id = "07".repeat(16);
    let told = agents.call(&name, in_a_conversation(true)).await.unwrap();
    let peer = Identity::from_seed([1; 32]).key();
    assert_eq!(told, format!("{peer} {id} talk-7 {TRACE}"));
    let told = agents.call(&name, in_a_conversation(false)).await.unwrap();
    assert_eq!(told, format!("local {id} talk-7 {TRACE}"));
    assert_eq!(super::call(&agents, "unset", json!({"task": ""})).await.unwrap(), "no no");
}

#[tokio::test]
async fn a_server_of_an_agent_finds_them_in_headers_and_a_models_server_does_not() {
    let answer = json!({"choices": [{"message": {"content": "well"}}]}).to_string();
    let server = Server::start(move |_| (200, answer.clone())).await;
    let folder = Folder::new();
    folder.agent("run", &format!("http = {{ url = \"{}/run\" }}", server.url()));
    folder.agent("chat", &format!("chat = {{ base_url = \"{}\", model = \"m\" }}", server.url()));
    let agents = folder.agents();
    for name in ["run@.", "chat@."] {
        agents.call(&name.parse().unwrap(), in_a_conversation(true)).await.unwrap();
    }
    super::call(&agents, "run", json!({"task": ""})).await.unwrap();
    let requests = server.requests();
    let told = |at: usize| {
        let names = ["aop-caller", "aop-call-id", "aop-conversation", "traceparent"];
        names.map(|name| requests[at].headers.get(name).cloned().unwrap_or_default())
    };
    let (peer, id) = (Identity::from_seed([1; 32]).key().to_string(), "07".repeat(16));
    assert_eq!(told(0), [&peer, &id, "talk-7", TRACE]);
    assert_eq!(told(1), [""; 4]);
    assert_eq!(told(2), ["local", &id, "", ""]);
}

#[test]
fn a_call_of_another_node_has_one_id_at_its_caller_its_agent_and_in_both_logs() {
    let folder = Folder::new();
    folder.agent("print", PRINT);
    folder.agent("crash", "command = [\"sh\", \"-c\", \"exit 3\"]");
    let host = Node::start(&[folder.path()], None);
    let other = Node::start(&[], Some(&host));
    other.until("print@.", "/callable", &json!(true));
    other.until("crash@.", "/callable", &json!(true));
    let answer = other.post("/v1/call/print@.", &json!({"task": ""}));
    let id = answer["task_id"].as_str().unwrap();
    assert_eq!(answer["result"], Value::String(format!("{} {id}", other.ready.peer_id)), "{answer}");
    for node in [&host, &other] {
        node.until_told(id);
    }
    let answer = other.post("/v1/call/crash@.", &json!({"task": ""}));
    for node in [&host, &other] {
        node.until_told(answer["task_id"].as_str().unwrap());
    }
}
