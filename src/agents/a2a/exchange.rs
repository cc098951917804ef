//! One question to an A2A server and its answer, over JSON-RPC or over the paths of HTTP+JSON.

use std::collections::BTreeMap;
use std::sync::Arc;

use hyper::body::Bytes;
use reqwest::{Response, Url};
use serde_json::{Value, json};

use super::card::{Binding, Interface};
use crate::a2a::{Event, Malformed, Message, Method, Task, Version};
use crate::agents::Invocation;
use crate::agents::correlation::labels;
use crate::agents::reach::Reach;
use crate::agents::secrets::{Secrets, logged};
use crate::agents::web::{self, Clients, cut};
use crate::document::run_config::{CallLabel, Endpoint, GivenValue};
use crate::proto::call::{CallFailure, Outcome};
use crate::proto::code::Code;

/// Codes of JSON-RPC by which a server says that it does not speak a version: it knows no such method, or says so.
const OTHER_VERSION: [i64; 2] = [-32_601, -32_009];

/// An agent's server, asked in one way on behalf of one call.
#[derive(Clone)]
pub(super) struct Server {
    interface: Interface,
    headers: BTreeMap<String, GivenValue>,
    told: Vec<(&'static str, String)>,
    secrets: Arc<Secrets>,
    clients: Clients,
}

/// What comes of a message.
pub(super) enum Sent {
    /// All that there is just now.
    Event(Event),
    /// A stream of events.
    Stream(Response),
}

/// Why a question has no answer.
#[derive(Debug)]
pub(super) enum ExchangeError {
    /// The server speaks another version, so it did nothing.
    OtherVersion,
    /// The server says what is wrong.
    Refused(String),
    /// The answer is none of A2A; for the log.
    NotA2a(String),
    /// It was not asked, or did not answer.
    Unanswered(CallFailure),
}

impl From<CallFailure> for ExchangeError {
    fn from(failure: CallFailure) -> ExchangeError {
        ExchangeError::Unanswered(failure)
    }
}

impl From<Malformed> for ExchangeError {
    fn from(malformed: Malformed) -> ExchangeError {
        ExchangeError::NotA2a(malformed.to_string())
    }
}

impl Server {
    pub(super) fn new(
        interface: Interface,
        agent: &Endpoint,
        secrets: &Arc<Secrets>,
        clients: &Clients,
        invocation: &Invocation,
    ) -> Server {
        // It is told which call it is, so that a circle of calls is found, and nothing of who calls.
        let is_told = |label: &CallLabel| matches!(label, CallLabel::CallId | CallLabel::Trace);
        let labels = labels(invocation).into_iter().filter(|(label, _)| is_told(label));
        let mut told: Vec<_> = labels.map(|(label, value)| (label.header(), value)).collect();
        told.push(("a2a-version", interface.version.header().to_owned()));
        let headers = match interface.reach {
            Reach::Named => agent.headers.clone(),
            Reach::Public => BTreeMap::new(),
        };
        Server { interface, headers, told, secrets: secrets.clone(), clients: clients.clone() }
    }

    pub(super) fn binding(&self) -> Binding {
        self.interface.binding
    }

    pub(super) fn version(&self) -> Version {
        self.interface.version
    }

    pub(super) fn secrets(&self) -> &Secrets {
        &self.secrets
    }

    /// Sends a message, and does not wait for the task that it becomes; or asks for it as it goes on.
    pub(super) async fn send(&self, message: &Message, is_streamed: bool) -> Result<Sent, ExchangeError> {
        let version = self.interface.version;
        let configuration = match version {
            Version::V1 => json!({"returnImmediately": true}),
            Version::V03 => json!({"blocking": false}),
        };
        let params = json!({"message": message.write(version), "configuration": configuration});
        let method = if is_streamed { Method::Stream } else { Method::Send };
        let response = self.ask(method, params).await?;
        // A server that cannot stream just then answers as to any message.
        if is_streamed && response.status().is_success() && web::is_event_stream(response.headers()) {
            return Ok(Sent::Stream(response));
        }
        Ok(Sent::Event(Event::read(&self.read(response).await?)?))
    }

    /// The next part of a stream; none at its end.
    pub(super) async fn part(&self, stream: &mut Response) -> Result<Option<Bytes>, ExchangeError> {
        Ok(self.web(&self.interface.url, Vec::new()).part(stream).await?)
    }

    /// A task as it stands, without what was said in it.
    pub(super) async fn task(&self, id: &str) -> Result<Task, ExchangeError> {
        let response = self.ask(Method::GetTask, json!({"id": id, "historyLength": 0})).await?;
        Ok(Task::read(&self.read(response).await?)?)
    }

    /// Takes a task back.
    pub(super) async fn cancel(&self, id: &str) -> Result<(), ExchangeError> {
        self.ask(Method::CancelTask, json!({"id": id})).await.map(drop)
    }

    async fn ask(&self, method: Method, mut params: Value) -> Result<Response, ExchangeError> {
        if let Some(tenant) = &self.interface.tenant {
            params["tenant"] = json!(tenant);
        }
        let (url, document) = match self.interface.binding {
            Binding::JsonRpc => {
                let name = method.name(self.interface.version);
                let request = json!({"jsonrpc": "2.0", "id": 1, "method": name, "params": params});
                (self.interface.url.clone(), Some(request))
            }
            Binding::Rest => self.rest(method, params),
        };
        let mut told = self.told.clone();
        if method == Method::Stream {
            told.push(("accept", "text/event-stream".into()));
        }
        let response = self.web(&url, told).ask(&self.clients, document.as_ref()).await?;
        web::busy_of(&response).map_or(Ok(response), |busy| Err(busy.into()))
    }

    fn web<'a>(&'a self, url: &'a Url, told: Vec<(&'static str, String)>) -> web::Server<'a> {
        let (reach, failed) = (self.interface.reach, Code::UpstreamFailed);
        web::Server { url: url.as_str(), reach, headers: &self.headers, told, failed, secrets: &self.secrets }
    }

    /// What an answer says that is no stream.
    async fn read(&self, response: Response) -> Result<Value, ExchangeError> {
        let server = self.web(&self.interface.url, Vec::new());
        let status = response.status();
        let body = server.read(response).await?;
        let mut answer = serde_json::from_slice::<Value>(&body).unwrap_or_default();
        // Servers differ in the status of an answer that is an error. What is said of this host's keys is for its log.
        let is_denied = matches!(status.as_u16(), 401 | 403);
        if let Some(error) = answer.get("error").filter(|error| error["message"].is_string() && !is_denied) {
            return Err(refusal(error));
        }
        if !status.is_success() {
            return Err(server.failure(status, &body).into());
        }
        let result = match self.interface.binding {
            Binding::JsonRpc => answer.get_mut("result").map(Value::take),
            Binding::Rest => Some(answer).filter(Value::is_object),
        };
        let begins = || format!("its answer begins with {:?}", web::beginning(&body, &self.secrets));
        result.ok_or_else(|| ExchangeError::NotA2a(begins()))
    }

    /// The path of a method, and what is posted there.
    fn rest(&self, method: Method, params: Value) -> (Url, Option<Value>) {
        let id = params["id"].as_str().unwrap_or_default();
        let last = match method {
            Method::GetTask => vec!["tasks".to_owned(), id.to_owned()],
            Method::CancelTask => vec!["tasks".to_owned(), format!("{id}:cancel")],
            Method::Stream => vec!["message:stream".to_owned()],
            _ => vec!["message:send".to_owned()],
        };
        let mut url = self.interface.url.clone();
        // An address with a host can always be extended; a segment is escaped as it is put there.
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(self.interface.tenant.iter()).extend(last);
        }
        match method {
            Method::GetTask => {
                url.query_pairs_mut().append_pair("historyLength", "0");
                (url, None)
            }
            Method::CancelTask => (url, Some(json!({}))),
            _ => (url, Some(params)),
        }
    }

    /// The failure of a message that has no answer.
    pub(super) fn failure(&self, error: ExchangeError) -> CallFailure {
        match error {
            ExchangeError::OtherVersion => {
                let why = "its server speaks neither 1.0 nor 0.3 of A2A";
                let what = "the agent's server cannot be asked";
                logged(Code::StartFailed, Outcome::NotStarted, what, why)
            }
            ExchangeError::Refused(said) => {
                // Cut last, or the half of a secret would be left.
                let said = cut(&self.secrets.hide(&said));
                let message = format!("the agent refuses the message: {said}");
                CallFailure::new(Code::AgentFailed, Outcome::Done, message)
            }
            ExchangeError::NotA2a(why) => {
                let what = "the agent's server gives no answer of A2A";
                logged(Code::BadOutput, Outcome::Unknown, what, why)
            }
            ExchangeError::Unanswered(failure) => failure,
        }
    }

    /// The failure of a call whose task is asked after in vain.
    pub(super) fn lost(&self, error: ExchangeError) -> CallFailure {
        let failure = self.failure(error);
        CallFailure {
            code: Code::UpstreamFailed,
            // Whatever became of the question, the task may go on.
            outcome: Outcome::Unknown,
            message: format!(
                "the agent took the task and does not say what became of it: {}",
                failure.message
            ),
            retry_after_ms: None,
        }
    }
}

/// What a server's error says.
pub(super) fn refusal(error: &Value) -> ExchangeError {
    if error["code"].as_i64().is_some_and(|code| OTHER_VERSION.contains(&code)) {
        return ExchangeError::OtherVersion;
    }
    ExchangeError::Refused(error["message"].as_str().unwrap_or_default().to_owned())
}
