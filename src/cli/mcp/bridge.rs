//! The bridge itself: each message of the host as a POST, each answer as a line.
//!
//! Requests of the newest revision stand alone; cancelling one drops its connection. Those of the older revisions
//! share a session: they are sent in order, and when the node no longer knows the session, it is opened again with the
//! host's own `initialize`, and the host is told that the lists may have changed. Where no node runs yet, the host is told
//! what every node has, and the session is opened once there is one.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use reqwest::header::{ACCEPT, CONTENT_TYPE};
use reqwest::{Client, RequestBuilder, Response, StatusCode, redirect};
use serde_json::{Value, json};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, timeout};

use super::answers::{Answers, INTERNAL, told};
use super::message::{Message, error};
use crate::cli::failure::{Exit, Failure};
use crate::http::Token;
use crate::mcp::absent;

/// Requests at work at once; a host sends a handful.
const AT_WORK_MAX: usize = 64;
/// How long connecting may take.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(5);
/// How long an answer may take: the longest call, and what the node needs besides.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(330);
/// A stream that is silent for longer is broken: the node says every 15 s that it is alive.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// How long a session may take to take a message, or to close.
const SESSION_TIME_MAX: Duration = Duration::from_secs(30);
const CLOSE_TIME_MAX: Duration = Duration::from_secs(2);
/// Pauses between two attempts to listen: doubled up to the longest.
const PAUSE: Duration = Duration::from_millis(250);
const PAUSE_MAX: Duration = Duration::from_secs(15);

/// One host's connection to one node.
pub(super) struct Bridge {
    http: Client,
    url: String,
    base: String,
    token: Option<Token>,
    lines: mpsc::Sender<String>,
    at_work: Arc<Semaphore>,
    requests: Mutex<JoinSet<()>>,
    streams: Mutex<JoinSet<()>>,
    /// Requests that end with their connection, by id.
    alone: Mutex<BTreeMap<String, AbortHandle>>,
    session: Mutex<Session>,
    // Many requests find a session lost at the same time, and one new session is enough.
    opening: tokio::sync::Mutex<()>,
    asked: AtomicBool,
    answered: AtomicBool,
}

/// The session of the older revisions.
#[derive(Clone, Default)]
struct Session {
    id: Option<String>,
    revision: Option<String>,
    /// The host's `initialize`, with which it is opened again.
    initialize: Option<Value>,
    /// Counts openings.
    count: u64,
}

/// How a request failed before there was an answer to relay.
enum Unanswered {
    Unreachable,
    Broken(String),
}

/// Why the command fails where no node answers.
pub(super) fn unreachable(base: &str) -> Failure {
    Failure::new(
        Exit::Unreachable,
        format!("no node answers at {base}"),
        "start one with `aop node` or give --node",
    )
}

impl Bridge {
    pub(super) fn new(
        base: &str,
        token: Option<Token>,
        lines: mpsc::Sender<String>,
    ) -> Result<Bridge, Failure> {
        let http = Client::builder()
            .no_proxy()
            // A redirect would take the token to another address.
            .redirect(redirect::Policy::none())
            .connect_timeout(CONNECT_TIME_MAX)
            .build()
            .map_err(|error| Failure::plain(Exit::Failure, &error))?;
        Ok(Bridge {
            http,
            url: format!("{base}/mcp"),
            base: base.to_owned(),
            token,
            lines,
            at_work: Arc::new(Semaphore::new(AT_WORK_MAX)),
            requests: Mutex::default(),
            streams: Mutex::default(),
            alone: Mutex::default(),
            session: Mutex::default(),
            opening: tokio::sync::Mutex::default(),
            asked: AtomicBool::new(false),
            answered: AtomicBool::new(false),
        })
    }

    /// Takes one line of the host.
    pub(super) async fn take(self: &Arc<Self>, line: &[u8]) {
        if line.trim_ascii().is_empty() {
            return;
        }
        let message = match Message::read(line) {
            Ok(message) => message,
            Err(answer) => return self.say(answer).await,
        };
        self.asked.store(true, Ordering::Relaxed);
        // The node gets no notice: for a request that stands alone the end of its connection is one.
        if let Some(handle) = message.cancels().and_then(|id| held(&self.alone).remove(&id.to_string())) {
            return handle.abort();
        }
        match (message.id().cloned(), message.revision().is_some()) {
            (Some(id), true) => self.ask_alone(message, id).await,
            (Some(id), false) => self.ask_in_session(message, id).await,
            (None, _) => self.tell(&message).await,
        }
    }

    /// Waits for what is at work, closes the session; whether the node ever answered.
    pub(super) async fn finish(&self) -> bool {
        // Taken out, so that no lock is held while this waits.
        let mut requests = std::mem::take(&mut *held(&self.requests));
        tokio::select! {
            () = async { while requests.join_next().await.is_some() {} } => {}
            // Nobody reads the answers any more.
            () = self.lines.closed() => {}
        }
        // These have no end of their own.
        held(&self.streams).abort_all();
        let session = held(&self.session).clone();
        if session.id.is_some() {
            let delete = self.signed(self.http.delete(&self.url), &session);
            // The node closes idle sessions by itself.
            let _closed = delete.timeout(CLOSE_TIME_MAX).send().await;
        }
        // A host that asked nothing did not need the node.
        self.answered.load(Ordering::Relaxed) || !self.asked.load(Ordering::Relaxed)
    }

    async fn say(&self, line: String) {
        // A host that has gone is noticed by the loop that reads it.
        let _gone = self.lines.send(line).await;
    }

    /// A request of the newest revision: it needs no order and ends with its connection.
    async fn ask_alone(self: &Arc<Self>, message: Message, id: Value) {
        let Ok(place) = self.at_work.clone().try_acquire_owned() else { return self.busy(&id).await };
        let (bridge, key, listens) = (self.clone(), id.to_string(), message.listens());
        let work = async move {
            let _place = place;
            bridge.relay(bridge.send_alone(&message).await, &message, &id).await;
            held(&bridge.alone).remove(&id.to_string());
        };
        let set = if listens { &self.streams } else { &self.requests };
        // Registered before it can end.
        let mut alone = held(&self.alone);
        let handle = spawn(set, work);
        alone.insert(key, handle);
    }

    /// A request of an older revision: the node has it before the next line is read, its answer comes when it comes.
    async fn ask_in_session(self: &Arc<Self>, message: Message, id: Value) {
        if message.method() == Some("initialize") {
            return self.initialize(&message, &id).await;
        }
        let Ok(place) = self.at_work.clone().try_acquire_owned() else { return self.busy(&id).await };
        let sent = self.send_in_session(&message).await;
        let bridge = self.clone();
        spawn(&self.requests, async move {
            let _place = place;
            bridge.relay(sent, &message, &id).await;
        });
    }

    /// A host listens once, so this waits for a node; anything else is answered at once.
    async fn send_alone(&self, message: &Message) -> Result<Response, Unanswered> {
        let mut pause = PAUSE;
        loop {
            match self.send(message, &Session::default()).await {
                Err(Unanswered::Unreachable) if message.listens() => {
                    sleep(pause).await;
                    pause = (pause * 2).min(PAUSE_MAX);
                }
                sent => return sent,
            }
        }
    }

    async fn busy(&self, id: &Value) {
        let told = format!("{AT_WORK_MAX} requests are at work already: try again in a moment");
        self.say(error(id, INTERNAL, &told)).await;
    }

    /// A notification or a response. Without a session there is nobody to tell.
    async fn tell(self: &Arc<Self>, message: &Message) {
        if held(&self.session).id.is_none() {
            return;
        }
        // There is no answer in which a failure could be told; the next request meets it, too.
        let _told = self.send_in_session(message).await;
        if message.method() == Some("notifications/initialized") {
            self.listen();
        }
    }

    async fn initialize(self: &Arc<Self>, message: &Message, id: &Value) {
        match self.open(&message.document).await {
            Ok(answer) => self.say(answer).await,
            Err(unanswered) => {
                if matches!(unanswered, Unanswered::Unreachable) {
                    self.wait_for_node(message.document.clone());
                }
                self.relay(Err(unanswered), message, id).await;
            }
        }
    }

    /// Opens the session that the host was told of as soon as there is a node.
    fn wait_for_node(self: &Arc<Self>, initialize: Value) {
        let waiting = {
            let mut session = held(&self.session);
            let count = session.count + 1;
            *session = Session { initialize: Some(initialize), count, ..Session::default() };
            session.clone()
        };
        let bridge = self.clone();
        spawn(&self.streams, async move {
            let mut pause = PAUSE;
            while bridge.reopen(&waiting).await.is_err() {
                sleep(pause).await;
                pause = (pause * 2).min(PAUSE_MAX);
            }
        });
    }

    /// Opens a session with the host's `initialize`; gives the node's answer to it.
    async fn open(&self, initialize: &Value) -> Result<String, Unanswered> {
        let message = Message { document: initialize.clone() };
        // Without the headers of a session, because this asks for a new one.
        let response = self.send(&message, &Session::default()).await?;
        let id = response.headers().get("mcp-session-id").and_then(|id| id.to_str().ok()).map(str::to_owned);
        let wanted = initialize.get("id").cloned().unwrap_or_default();
        let mut answers = Answers::of(response);
        let mut last = None;
        // Notices may come before the answer, which is the last message.
        while let Some(answer) = answers.next().await.map_err(Unanswered::Broken)? {
            last = Some(answer);
        }
        let answer = last.ok_or_else(|| Unanswered::Broken("the node ended the connection".into()))?;
        let document: Value = serde_json::from_str(&answer).unwrap_or_default();
        // Without an id the node keeps no session, or refuses one: its answer goes to the host as it is.
        if let (Some(id), Some(result)) = (id, document.get("result")) {
            let revision = result.get("protocolVersion").and_then(Value::as_str).map(str::to_owned);
            let mut session = held(&self.session);
            // Counted, so that whoever still holds the old one sees that it has changed.
            let count = session.count + 1;
            *session = Session { id: Some(id), revision, initialize: Some(initialize.clone()), count };
            return Ok(answer);
        }
        Ok(told(&document, answers.status, &wanted).unwrap_or(answer))
    }

    /// Opens the session again where it is still the one that `lost` was.
    async fn reopen(self: &Arc<Self>, lost: &Session) -> Result<(), Unanswered> {
        let _one = self.opening.lock().await;
        // Another request has opened it while this one waited.
        if held(&self.session).count != lost.count {
            return Ok(());
        }
        let Some(initialize) = lost.initialize.clone() else { return Ok(()) };
        self.open(&initialize).await?;
        // `open` gives a refusal as an answer, too, so only the count says whether there is a session.
        if held(&self.session).count == lost.count {
            return Err(Unanswered::Broken("the node opens no session".into()));
        }
        let initialized = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
        let session = held(&self.session).clone();
        self.send(&Message { document: initialized }, &session).await?;
        self.listen();
        // The node may have come back with other agents, and the host knows the old lists.
        for list in ["tools", "resources"] {
            let method = format!("notifications/{list}/list_changed");
            self.say(json!({"jsonrpc": "2.0", "method": method}).to_string()).await;
        }
        Ok(())
    }

    async fn send_in_session(self: &Arc<Self>, message: &Message) -> Result<Response, Unanswered> {
        let mut session = held(&self.session).clone();
        // A node may be there by now, sooner than it is looked for again.
        if session.id.is_none() && session.initialize.is_some() {
            self.reopen(&session).await?;
            session = held(&self.session).clone();
        }
        let sent = self.send_in_time(message, &session).await?;
        // 404 is how a node says that it does not know the session; anything else is an answer.
        if sent.status() != StatusCode::NOT_FOUND || session.id.is_none() {
            return Ok(sent);
        }
        self.reopen(&session).await?;
        // Once only: a node that keeps no session would be asked for ever.
        let session = held(&self.session).clone();
        self.send_in_time(message, &session).await
    }

    /// A session gives the head of its answer as soon as it has the message.
    async fn send_in_time(&self, message: &Message, session: &Session) -> Result<Response, Unanswered> {
        let sent = timeout(SESSION_TIME_MAX, self.send(message, session)).await;
        sent.unwrap_or_else(|_| Err(Unanswered::Broken("the node did not take the message in time".into())))
    }

    async fn send(&self, message: &Message, session: &Session) -> Result<Response, Unanswered> {
        let post = self.http.post(&self.url).header(CONTENT_TYPE, "application/json");
        let post = self.signed(post, session).header(ACCEPT, "application/json, text/event-stream");
        let post = message.headers().into_iter().fold(post, |post, (name, value)| post.header(name, value));
        // A deadline would cut a stream that is meant to stay.
        let post = if message.listens() { post } else { post.timeout(ANSWER_TIME_MAX) };
        self.receive(post.body(message.document.to_string())).await
    }

    async fn receive(&self, request: RequestBuilder) -> Result<Response, Unanswered> {
        let received = request.send().await.map_err(|error| match error.is_connect() {
            true => Unanswered::Unreachable,
            false => Unanswered::Broken(error.to_string()),
        })?;
        // Whatever the status: somebody is there.
        self.answered.store(true, Ordering::Relaxed);
        Ok(received)
    }

    fn signed(&self, request: RequestBuilder, session: &Session) -> RequestBuilder {
        let request = match &self.token {
            Some(token) => request.bearer_auth(token.as_str()),
            None => request,
        };
        let named = [("mcp-session-id", &session.id), ("mcp-protocol-version", &session.revision)];
        named.into_iter().fold(request, |request, (name, value)| match value {
            Some(value) => request.header(name, value),
            None => request,
        })
    }

    /// Says what the node answered to the request `id`, or why it did not.
    async fn relay(&self, sent: Result<Response, Unanswered>, message: &Message, id: &Value) {
        let failure = match sent {
            Ok(response) => self.relay_answers(response, id).await,
            Err(unanswered) => Err(unanswered),
        };
        let told = match failure {
            Ok(()) => return,
            Err(Unanswered::Unreachable) => {
                let why =
                    format!("no node answers at {}: start one with `aop node`, or give --node", self.base);
                if let Some(result) = self.in_place_of_node(message, &why) {
                    return self.say(json!({"jsonrpc": "2.0", "id": id, "result": result}).to_string()).await;
                }
                why
            }
            Err(Unanswered::Broken(cause)) => {
                format!("the node at {} gave no answer: {cause}; look with `aop status`", self.base)
            }
        };
        self.say(error(id, INTERNAL, &told)).await;
    }

    /// What is said where no node is: of a node that was there once the host knows more than this.
    fn in_place_of_node(&self, message: &Message, why: &str) -> Option<Value> {
        let method = message.method()?;
        if method != "tools/call" && self.answered.load(Ordering::Relaxed) {
            return None;
        }
        absent::answer(method, message.document.get("params").unwrap_or(&Value::Null), why)
    }

    async fn relay_answers(&self, response: Response, id: &Value) -> Result<(), Unanswered> {
        let mut answers = Answers::of(response);
        let mut is_answered = false;
        while let Some(answer) = answers.next().await.map_err(Unanswered::Broken)? {
            let document: Value = serde_json::from_str(&answer).unwrap_or_default();
            // What the node asks the host has an id as well, but also a method.
            is_answered |= document.get("id") == Some(id) && document.get("method").is_none();
            match told(&document, answers.status, id) {
                Some(error) => {
                    is_answered = true;
                    self.say(error).await;
                }
                None => self.say(answer).await,
            }
        }
        // A stream that broke off would leave the host waiting for ever.
        match is_answered {
            true => Ok(()),
            false => Err(Unanswered::Broken("the connection ended before".into())),
        }
    }

    /// Relays what the node says by itself in the present session.
    fn listen(self: &Arc<Self>) {
        let (bridge, session) = (self.clone(), held(&self.session).clone());
        spawn(&self.streams, bridge.listen_on(session));
    }

    async fn listen_on(self: Arc<Self>, session: Session) {
        let mut pause = PAUSE;
        // Ends with its session, because the next one has a listener of its own.
        while held(&self.session).count == session.count {
            let get = self.signed(self.http.get(&self.url), &session).header(ACCEPT, "text/event-stream");
            match self.receive(get).await {
                Ok(response) if response.status().is_success() => {
                    pause = PAUSE;
                    self.relay_stream(Answers::of(response)).await;
                }
                // A later attempt opens it, if the node does not now.
                Ok(response) if response.status() == StatusCode::NOT_FOUND => {
                    // Boxed, because reopening a session starts this function again.
                    drop(Box::pin(self.reopen(&session)).await);
                }
                // It has no such stream.
                Ok(response) if response.status() == StatusCode::METHOD_NOT_ALLOWED => return,
                _ => {}
            }
            sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    async fn relay_stream(&self, mut answers: Answers) {
        while let Ok(Ok(Some(message))) = timeout(SILENCE_MAX, answers.next()).await {
            self.say(message).await;
        }
    }
}

fn held<T>(value: &Mutex<T>) -> MutexGuard<'_, T> {
    // What the locks hold is changed in single steps, so a panic leaves it whole.
    value.lock().unwrap_or_else(PoisonError::into_inner)
}

fn spawn(set: &Mutex<JoinSet<()>>, work: impl Future<Output = ()> + Send + 'static) -> AbortHandle {
    let mut set = held(set);
    // What has ended stays in the set until it is taken out, and a host may live for weeks.
    while set.try_join_next().is_some() {}
    set.spawn(work)
}
