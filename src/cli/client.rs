//! The HTTP client: asks a node and turns every way of not getting an answer into an exit code.

use std::io::{BufReader, ErrorKind};
use std::path::Path;
use std::time::Duration;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use ureq::http::Response;
use ureq::typestate::WithBody;
use ureq::{Agent, Body};

use super::args::ClientArgs;
use super::failure::{Exit, Failure};
use crate::api::ErrorBody;
use crate::http::Token;
use crate::proto::code::Code;

/// How long connecting may take.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(5);
/// How long an answer to a question may take; the node gives up earlier and says so.
const READ_TIME_MAX: Duration = Duration::from_secs(65);
/// How long a registration or a call may take; the node gives up earlier and says so.
const WRITE_TIME_MAX: Duration = Duration::from_secs(370);
/// A stream that is silent for longer than this is broken: the node says every 15 s that it is alive.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// Largest answer read, bytes: 1000 agents with full records and more.
const ANSWER_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// What is escaped in a path segment; names keep their look.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'@');

/// An answer that comes line by line.
pub(super) type Events = BufReader<ureq::BodyReader<'static>>;
/// Parameters of a question.
pub(super) type Query<'a> = &'a [(&'a str, String)];

/// A client of one node. Cheap to clone.
#[derive(Clone)]
pub(super) struct Client {
    agent: Agent,
    base: String,
    token: Option<Token>,
    read_time_max: Duration,
}

impl Client {
    /// Judges the address and reads the token; connects to nothing yet.
    pub(super) fn new(args: &ClientArgs) -> Result<Client, Failure> {
        let config = Agent::config_builder()
            // The body of an error says what to do; as an error of the library it would be lost.
            .http_status_as_error(false)
            // A node never redirects; what does is a stranger, and would be sent the token.
            .max_redirects(0)
            // A proxy from the environment would see the token, which goes in clear.
            .proxy(None)
            .timeout_connect(Some(CONNECT_TIME_MAX))
            .build();
        Ok(Client {
            agent: config.new_agent(),
            base: base_url(&args.node)?,
            token: read_token(args.http_token_file.as_deref())?,
            read_time_max: READ_TIME_MAX,
        })
    }

    /// The same client, which waits for no answer to a question for longer than this.
    pub(super) fn within(&self, read_time_max: Duration) -> Client {
        Client { read_time_max, ..self.clone() }
    }

    /// Where the node is asked.
    pub(super) fn base(&self) -> &str {
        &self.base
    }

    /// The token that is sent.
    pub(super) fn token(&self) -> Option<&Token> {
        self.token.as_ref()
    }

    /// `GET`.
    pub(super) fn get<T: DeserializeOwned>(&self, path: &str, query: Query<'_>) -> Result<T, Failure> {
        let request = self.agent.get(format!("{}{path}", self.base)).query_pairs(pairs(query));
        let request = self.sign(request).config().timeout_global(Some(self.read_time_max)).build();
        self.read(request.call())
    }

    /// `GET` of what is no JSON.
    pub(super) fn get_text(&self, path: &str) -> Result<String, Failure> {
        let request = self.agent.get(format!("{}{path}", self.base));
        let request = self.sign(request).config().timeout_global(Some(self.read_time_max)).build();
        let body = self.read_body(request.call())?;
        String::from_utf8(body).map_err(|_| self.stranger())
    }

    /// `POST` of a JSON text.
    pub(super) fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        query: Query<'_>,
        body: &[u8],
    ) -> Result<T, Failure> {
        let request = self.agent.post(format!("{}{path}", self.base)).query_pairs(pairs(query));
        let request = self.sign(request).config().timeout_global(Some(WRITE_TIME_MAX)).build();
        self.read(request.content_type("application/json").send(body))
    }

    /// `POST` of a call's input. A call that an agent makes while it works on another says which that is.
    pub(super) fn call<T: DeserializeOwned>(
        &self,
        path: &str,
        query: Query<'_>,
        input: &[u8],
    ) -> Result<T, Failure> {
        let request = self.calling(path, query).config().timeout_global(Some(WRITE_TIME_MAX)).build();
        self.read(request.send(input))
    }

    /// As [`Client::call`]; how the call stands comes as events until its answer does.
    pub(super) fn call_events(&self, path: &str, query: Query<'_>, input: &[u8]) -> Result<Events, Failure> {
        let request = self.calling(path, query).header("Accept", "text/event-stream");
        // Only silence shows a break: the node says every 15 s that the call goes on.
        let request = request.config().timeout_per_read(Some(SILENCE_MAX)).build();
        self.events(request.send(input))
    }

    fn calling(&self, path: &str, query: Query<'_>) -> ureq::RequestBuilder<WithBody> {
        let request = self.agent.post(format!("{}{path}", self.base)).query_pairs(pairs(query));
        let request = self.sign(request).content_type("application/json");
        match std::env::var("AOP_CALL_ID") {
            Ok(call) if !call.is_empty() => request.header("Aop-Call-Id", call),
            _ => request,
        }
    }

    /// `PUT` of a JSON document.
    pub(super) fn put<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, Failure> {
        let request = self.agent.put(format!("{}{path}", self.base));
        let request = self.sign(request).config().timeout_global(Some(WRITE_TIME_MAX)).build();
        self.read(request.send_json(body))
    }

    /// `DELETE`.
    pub(super) fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        let request = self.agent.delete(format!("{}{path}", self.base));
        let request = self.sign(request).config().timeout_global(Some(WRITE_TIME_MAX)).build();
        self.read(request.call())
    }

    /// `GET` of an endless answer.
    pub(super) fn stream(&self, path: &str) -> Result<Events, Failure> {
        let request = self.agent.get(format!("{}{path}", self.base));
        // No deadline for the whole, which has no end; only silence shows a break.
        let request = self.sign(request).config().timeout_per_read(Some(SILENCE_MAX)).build();
        self.events(request.call())
    }

    fn events(&self, answer: Result<Response<Body>, ureq::Error>) -> Result<Events, Failure> {
        let response = answer.map_err(|error| self.unanswered(&error))?;
        if response.status().as_u16() != 200 {
            return Err(self
                .read::<serde_json::Value>(Ok(response))
                .err()
                .unwrap_or_else(|| self.stranger()));
        }
        Ok(BufReader::new(response.into_body().into_with_config().limit(u64::MAX).reader()))
    }

    fn sign<B>(&self, request: ureq::RequestBuilder<B>) -> ureq::RequestBuilder<B> {
        match &self.token {
            Some(token) => request.header("Authorization", format!("Bearer {}", token.as_str())),
            None => request,
        }
    }

    fn read<T: DeserializeOwned>(&self, answer: Result<Response<Body>, ureq::Error>) -> Result<T, Failure> {
        let body = self.read_body(answer)?;
        serde_json::from_slice(&body).map_err(|_| self.stranger())
    }

    fn read_body(&self, answer: Result<Response<Body>, ureq::Error>) -> Result<Vec<u8>, Failure> {
        let mut response = answer.map_err(|error| self.unanswered(&error))?;
        let body = response.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_vec();
        let body = body.map_err(|error| self.unanswered(&error))?;
        if response.status().is_success() {
            return Ok(body);
        }
        match serde_json::from_slice::<ErrorBody>(&body) {
            Ok(body) => Err(Failure::answered(body.error)),
            Err(_) => Err(self.stranger()),
        }
    }

    fn stranger(&self) -> Failure {
        let message = format!("what answers at {} is not a node of this version", self.base);
        Failure::new(Exit::Failure, message, "give the node's address with --node URL")
    }

    fn unanswered(&self, error: &ureq::Error) -> Failure {
        let start = "start one with `aop node` or give --node";
        match error {
            ureq::Error::Io(error) if error.kind() == ErrorKind::ConnectionRefused => {
                Failure::new(Exit::Unreachable, format!("no node answers at {}", self.base), start)
            }
            ureq::Error::ConnectionFailed | ureq::Error::HostNotFound => {
                Failure::new(Exit::Unreachable, format!("no node answers at {}", self.base), start)
            }
            ureq::Error::BadUri(_) | ureq::Error::Http(_) => bad_url(&self.base),
            ureq::Error::Timeout(_) => Failure::new(
                Exit::Unreachable,
                format!("{} did not answer in time; a write may still take effect", self.base),
                "look with `aop status`, then try again",
            )
            .coded(Code::TimedOut),
            other => {
                let message = format!("the connection to {} broke: {other}", self.base);
                Failure::new(Exit::Unreachable, message, "look with `aop status`, then try again")
            }
        }
    }
}

/// A name as a segment of a path.
pub(super) fn segment(name: &str) -> Result<String, Failure> {
    if name.trim().is_empty() {
        let fix = "give a name or an id: `aop find WORDS` and `aop agents` list them";
        return Err(Failure::new(Exit::Usage, "the name of the agent is empty", fix));
    }
    Ok(utf8_percent_encode(name, SEGMENT).to_string())
}

fn pairs<'a>(query: Query<'a>) -> impl Iterator<Item = (&'a str, &'a str)> {
    query.iter().map(|(name, value)| (*name, value.as_str()))
}

/// The address of a node as it may be typed.
pub(super) fn base_url(given: &str) -> Result<String, Failure> {
    let given = given.trim();
    let (scheme, rest) = given.split_once("://").unwrap_or(("http", given));
    match (scheme, rest.trim_end_matches('/')) {
        // `https` is refused here, because this client has no TLS.
        ("http", rest) if !rest.is_empty() => Ok(format!("http://{rest}")),
        _ => Err(bad_url(given)),
    }
}

fn bad_url(given: &str) -> Failure {
    Failure::new(
        Exit::Usage,
        format!("`{given}` is not the address of a node"),
        "write `http://127.0.0.1:7400`; for a node behind TLS use a local tunnel",
    )
}

/// The token from the file, else from the environment.
pub(super) fn read_token(file: Option<&Path>) -> Result<Option<Token>, Failure> {
    if let Some(path) = file {
        return Token::read(path).map(Some).map_err(|error| Failure::plain(Exit::Usage, &error));
    }
    match std::env::var("AOP_TOKEN") {
        Ok(text) if !text.trim().is_empty() => match Token::parse(&text) {
            Some(token) => Ok(Some(token)),
            None => {
                Err(Failure::new(Exit::Usage, "AOP_TOKEN is not one word of printable ASCII", "set it again"))
            }
        },
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_may_leave_out_what_is_clear() {
        assert_eq!(base_url("127.0.0.1:7400").ok().as_deref(), Some("http://127.0.0.1:7400"));
        assert_eq!(base_url("http://localhost:1/").ok().as_deref(), Some("http://localhost:1"));
        assert!(
            base_url("https://example.org").is_err() && base_url("").is_err() && base_url("http://").is_err()
        );
    }

    #[test]
    fn a_name_becomes_one_path_segment() {
        let segment = |name| segment(name).ok();
        assert_eq!(segment("a@acme.org").as_deref(), Some("a@acme.org"));
        assert_eq!(segment("ai.exa/exa ?#%").as_deref(), Some("ai.exa%2Fexa%20%3F%23%25"));
        assert_eq!((segment(""), segment(" ")), (None, None));
    }
}
