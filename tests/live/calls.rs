//! Calls between real nodes over loopback: what the caller learns however the call ends.

mod kept;
mod processes;
mod queues;
mod raw_peer;
mod replicas;
mod residency;
mod surfaces;
mod tasks;

use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use aop::agents::{Agents, CALL_BYTES_MAX, HostedAgent};
use aop::api::{ApiError, CallAnswer, Outcome};
use aop::document::run_config::{Builtin, RunConfig, Runner};
use aop::host::{self, CallOptions, Handle, Options, Running};
use aop::proto::call::Report;
use aop::proto::card::{AgentCard, CallLimits, Endpoint, Offer, Scope};
use aop::proto::grant::{Grant, Reach};
use aop::proto::identity::Identity;
use aop::proto::name::ZoneName;
use aop::proto::record::RecordKind;
use aop::proto::time::Timestamp;
use libp2p::Multiaddr;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::time::timeout;

/// Longest wait for anything that has no bound of its own.
const PATIENCE: Duration = Duration::from_secs(30);
/// What a call may take beyond its deadline on a busy machine.
const SLACK: Duration = Duration::from_secs(2);

struct Node {
    running: Running,
    _folder: TempDir,
}

impl Node {
    async fn start(seed: u8, bootstrap: &[&Node], locals: Vec<HostedAgent>) -> Node {
        let bootstrap = bootstrap.iter().map(|node| node.running.listen[0].clone()).collect();
        Node::start_at(seed, bootstrap, locals).await
    }

    async fn start_at(seed: u8, bootstrap: Vec<Multiaddr>, locals: Vec<HostedAgent>) -> Node {
        Node::start_with(seed, locals, |options| Options { bootstrap, ..options }).await
    }

    async fn start_with(seed: u8, locals: Vec<HostedAgent>, with: impl FnOnce(Options) -> Options) -> Node {
        let folder = TempDir::new().unwrap();
        let agents = Agents::new(ZoneName::root());
        agents.replace(locals);
        let options =
            Options { agents, ..Options::new(Identity::from_seed([seed; 32]), "test", folder.path()) };
        Node { running: host::start(with(options)).await.unwrap(), _folder: folder }
    }

    fn handle(&self) -> &Handle {
        &self.running.handle
    }

    async fn call(&self, agent: &str, input: Value, seconds: f64) -> CallAnswer {
        self.try_call(agent, input, seconds).await.unwrap()
    }

    async fn try_call(&self, agent: &str, input: Value, seconds: f64) -> Result<CallAnswer, ApiError> {
        let time = Duration::from_secs_f64(seconds);
        timeout(PATIENCE, self.handle().call(agent, input, timed(time))).await.unwrap()
    }

    /// Waits until the node has heard of the agents, which come in any order.
    async fn knows(&self, agents: &[String]) {
        for agent in agents {
            self.knows_of(agent).await;
        }
    }

    async fn knows_of(&self, agent: &str) {
        let mut events = self.handle().events();
        let waiting = async {
            while self.handle().show(agent).await.is_err() {
                // A missed event only means that there is something to look at.
                let _event = events.recv().await;
            }
        };
        timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("never heard of {agent}"));
    }

    fn peer(&self) -> String {
        self.handle().key().to_string()
    }
}

fn timed(timeout: Duration) -> CallOptions {
    CallOptions { timeout: Some(timeout), ..CallOptions::default() }
}

fn agent(name: &str, builtin: Builtin) -> HostedAgent {
    let limits = CallLimits { timeout_s: 30, max_retries: 3, max_concurrency: 64, ..CallLimits::DEFAULT };
    let card = AgentCard { callable: true, limits: Some(limits), ..AgentCard::default() };
    let run_config = RunConfig::new(Runner::Builtin(builtin), Path::new("."));
    HostedAgent { offer: offer(name, card), run_config: Some(run_config) }
}

fn offer(name: &str, card: AgentCard) -> Offer {
    Offer { name: name.parse().unwrap(), zone: None, scope: Scope::Public, card, grants: Vec::new() }
}

/// By which the node of this seed offers agents on behalf of `owner`.
fn grant(owner: &Identity, host: u8) -> Vec<u8> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
    let grant = Grant {
        network: "test".into(),
        issuer: owner.key(),
        subject: Identity::from_seed([host; 32]).key(),
        zone: ZoneName::root(),
        reach: Reach::Zone,
        kinds: vec![RecordKind::Agent],
        may_delegate: false,
        issued_at: Timestamp(now),
        expires_at: Timestamp(now + 86_400_000),
        generation: 0,
        slots: None,
    };
    grant.sign(owner)
}

fn builtins() -> Vec<HostedAgent> {
    vec![agent("echo", Builtin::Echo), agent("sleep", Builtin::Sleep), agent("fail", Builtin::Fail)]
}

/// A host with the three builtin agents, and a caller that knows them.
async fn pair() -> (Node, Node) {
    with_host(builtins()).await
}

async fn with_host(locals: Vec<HostedAgent>) -> (Node, Node) {
    let names: Vec<String> = locals.iter().map(|local| local.offer.name.to_string()).collect();
    let host = Node::start(1, &[], locals).await;
    let caller = Node::start(2, &[&host], Vec::new()).await;
    caller.knows(&names).await;
    (host, caller)
}

fn task(text: impl ToString) -> Value {
    json!({"task": text.to_string()})
}

fn failure(answer: &CallAnswer) -> (&str, &str) {
    assert!(!answer.success && answer.result.is_null(), "{answer:?}");
    let outcome = match answer.outcome.unwrap() {
        Outcome::NotStarted => "not_started",
        Outcome::Unknown => "unknown",
        Outcome::Done => "done",
    };
    (answer.error.as_ref().unwrap().code.text(), outcome)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_answers_here_and_from_another_node_alike() {
    let (host, caller) = pair().await;
    for node in [&host, &caller] {
        for name in ["echo", "echo@."] {
            let answer = node.call(name, task("hello"), 10.0).await;
            assert!(answer.success && answer.error.is_none() && answer.outcome.is_none(), "{answer:?}");
            assert_eq!((&answer.result, answer.attempts), (&json!("hello"), 1));
            assert_eq!(answer.served_by, Some(host.peer()));
            assert_eq!(answer.task_id.len(), 32);
        }
        assert_eq!(failure(&node.call("fail", task("x"), 10.0).await), ("agent_failed", "done"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_agent_and_a_wrong_timeout_are_errors_and_no_answers() {
    let node = Node::start(1, &[], builtins()).await;
    assert_eq!(node.try_call("ekko", json!({}), 1.0).await.unwrap_err().code.text(), "not_found");
    for seconds in [0.0, 300.1] {
        let refused = node.try_call("echo", json!({}), seconds).await.unwrap_err();
        assert_eq!(refused.code.text(), "bad_request", "{seconds}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listing_is_not_called_and_says_where_it_is_served() {
    let endpoint =
        Endpoint { kind: "sse".into(), address: "https://example.org/mcp".into(), ..Endpoint::default() };
    let card = AgentCard { endpoints: vec![endpoint], ..AgentCard::default() };
    let (_host, caller) =
        with_host(vec![HostedAgent { offer: offer("listed", card), run_config: None }]).await;
    let answer = caller.call("listed", json!({}), 1.0).await;
    assert_eq!(failure(&answer), ("not_callable", "not_started"));
    assert_eq!(answer.error.unwrap().endpoints[0].address, "https://example.org/mcp");
    assert_eq!((answer.served_by, answer.attempts), (None, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_ends_at_its_deadline_and_nobody_claims_that_it_did_not_run() {
    let (_host, caller) = pair().await;
    let started = Instant::now();
    let answer = caller.call("sleep", task(20_000), 0.5).await;
    assert_eq!(failure(&answer), ("deadline", "unknown"));
    // The time left travels in whole milliseconds, so the host may end the work a little earlier than its caller would.
    let took = started.elapsed();
    assert!(took > Duration::from_millis(450) && took < Duration::from_millis(500) + SLACK, "{took:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_limits_of_an_agent_bound_a_call_without_a_timeout() {
    let mut short = agent("short", Builtin::Sleep);
    short.offer.card.limits =
        Some(CallLimits { timeout_s: 1, max_retries: 0, max_concurrency: 1, ..CallLimits::DEFAULT });
    let (host, caller) = with_host(vec![short]).await;
    for node in [&host, &caller] {
        let call = node.handle().call("short@.", task(20_000), CallOptions::default());
        let answer = timeout(Duration::from_secs(1) + SLACK, call).await.unwrap().unwrap();
        assert_eq!(failure(&answer), ("deadline", "unknown"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_named_callers_are_let_in() {
    let caller_key = Identity::from_seed([2; 32]).key().to_string();
    let other_key = Identity::from_seed([3; 32]).key().to_string();
    let allows = |name: &str, callers: &[&String]| {
        let mut local = agent(name, Builtin::Echo);
        local.run_config.as_mut().unwrap().callers = callers.iter().map(ToString::to_string).collect();
        local
    };
    let (root, elsewhere) = (".".to_owned(), "acme.org".to_owned());
    let locals = vec![
        allows("closed", &[&other_key, &elsewhere]),
        allows("open", &[&other_key, &caller_key]),
        allows("zonal", &[&elsewhere, &root]),
    ];
    let (host, caller) = with_host(locals).await;
    let refused = caller.call("closed", task("x"), 10.0).await;
    assert_eq!(failure(&refused), ("not_allowed", "not_started"));
    assert!(caller.call("open", task("x"), 10.0).await.success);
    assert!(caller.call("zonal", task("x"), 10.0).await.success, "it serves the root zone");
    assert!(host.call("closed", task("x"), 10.0).await.success, "its own host may always");
}

/// What a host offers on behalf of an owner makes it a caller of that owner's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_among_the_callers_means_its_hosts() {
    let owner = Identity::from_seed([7; 32]);
    let mut owned = agent("owned", Builtin::Echo);
    owned.offer.grants = vec![grant(&owner, 2)];
    let mut closed = agent("closed", Builtin::Echo);
    closed.run_config.as_mut().unwrap().callers = vec![owner.key().to_string()];
    let host = Node::start(1, &[], vec![closed]).await;
    let caller = Node::start(2, &[&host], vec![owned]).await;
    let stranger = Node::start(3, &[&host], Vec::new()).await;
    host.knows_of("owned").await;
    for (node, allowed) in [(&stranger, false), (&caller, true)] {
        node.knows_of("closed").await;
        let answer = node.call("closed", task("x"), 10.0).await;
        assert_eq!(answer.success, allowed, "{answer:?}");
    }
    let answer = host.call("owned", task("x"), 10.0).await;
    assert_eq!((answer.success, answer.served_by), (true, Some(caller.peer())), "{:?}", answer.error);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_four_calls_at_once_all_come_back_with_their_own_answer() {
    let (_host, caller) = pair().await;
    let calls = (0..64).map(|number| {
        let caller = &caller;
        async move {
            let name = if number % 2 == 0 { "echo" } else { "sleep" };
            let answer = caller.call(name, task(number), 20.0).await;
            let expected =
                if number % 2 == 0 { json!(number.to_string()) } else { json!(format!("slept {number} ms")) };
            assert_eq!(answer.result, expected, "{answer:?}");
        }
    });
    futures::future::join_all(calls).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn progress_comes_from_the_other_node() {
    let (_host, caller) = pair().await;
    let (progress, mut reports) = mpsc::channel(64);
    let options = CallOptions { reports: Some(progress), ..CallOptions::default() };
    let answer = caller.handle().call("sleep", task(450), options).await.unwrap();
    assert_eq!(answer.result, "slept 450 ms");
    let mut seen = Vec::new();
    while let Some(report) = reports.recv().await {
        // How the call stands is told, too.
        let Report::Progress(report) = report else { continue };
        assert_eq!(report.total, Some(0.45));
        seen.push(report.progress);
    }
    assert!(seen.len() >= 2 && seen.is_sorted(), "{seen:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn documents_of_full_size_pass_and_larger_ones_do_not_leave_the_caller() {
    let (_host, caller) = pair().await;
    let text = "x".repeat(CALL_BYTES_MAX - task("").to_string().len());
    let answer = caller.call("echo", task(&text), 20.0).await;
    assert!(answer.result == json!(text), "{:?}", answer.error);
    let answer = caller.call("echo", task(text + "x"), 20.0).await;
    assert_eq!(failure(&answer), ("too_large", "not_started"));
    assert_eq!((answer.attempts, answer.served_by), (0, None));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_calls_than_one_connection_carries_wait_for_each_other() {
    let (_host, caller) = pair().await;
    let calls = (0..200).map(|_| caller.call("sleep", task(50), 20.0));
    for answer in futures::future::join_all(calls).await {
        assert!(answer.success, "{answer:?}");
    }
}

/// Two nodes that know a third: the caller has just come and never heard an address of the host.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_is_not_connected_is_found() {
    let hub = Node::start(3, &[], Vec::new()).await;
    let host = Node::start(1, &[&hub], builtins()).await;
    hub.knows_of("echo").await;
    let caller = Node::start(2, &[&hub], Vec::new()).await;
    caller.knows_of("echo").await;
    let answer = caller.call("echo", task("found"), 10.0).await;
    assert_eq!(
        (answer.result.as_str(), answer.served_by),
        (Some("found"), Some(host.peer())),
        "{:?}",
        answer.error
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_input_that_does_not_fit_the_schema_starts_nothing_here_and_there() {
    let mut resize = agent("resize", Builtin::Echo);
    let schema =
        json!({"type": "object", "properties": {"width": {"type": "integer"}}, "required": ["width"]});
    resize.offer.card.input_schema = Some(schema.to_string());
    let (host, caller) = with_host([builtins(), vec![resize]].concat()).await;
    for node in [&host, &caller] {
        for (name, input) in
            [("echo", json!({"text": "x"})), ("echo", json!(7)), ("resize", json!({"width": "x"}))]
        {
            let answer = node.call(name, input, 10.0).await;
            assert_eq!(failure(&answer), ("bad_input", "not_started"));
        }
        assert_eq!(node.call("resize", json!({"width": 7}), 10.0).await.result, json!({"width": 7}));
    }
}
