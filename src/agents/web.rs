//! Agents behind HTTP: requests with JSON. Redirects are followed within their origin, and answers are bounded.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use hyper::body::Bytes;
use reqwest::header::{CONTENT_TYPE, HeaderMap, LOCATION, RETRY_AFTER};
use reqwest::{Client, Response, StatusCode, Url, redirect};
use serde_json::Value;

use super::CALL_BYTES_MAX;
use super::command::{json_or_text, too_talkative};
use super::reach::Reach;
use super::secrets::{Secrets, logged, read_all};
use crate::document::run_config::GivenValue;
use crate::net::addresses::PublicAddresses;
use crate::proto::call::{CallFailure, Outcome};
use crate::proto::code::Code;

/// Longest wait for a connection; the call's deadline may be nearer.
const CONNECT: Duration = Duration::from_secs(10);
/// What is repeated of the body of an error, characters.
const ERROR_CHARS_MAX: usize = 300;
/// Longest wait that a server is believed to need: a typing error in it must not keep its callers away for days.
const WAIT_MAX: Duration = Duration::from_secs(3_600);
/// Redirects of one call: a slash at the end and a path that moved are two; more lead in a circle.
const REDIRECTS_MAX: usize = 5;

/// The clients of all agents of this host, made at the first call.
#[derive(Clone, Default)]
pub(super) struct Clients(Arc<Kinds>);

#[derive(Default)]
struct Kinds {
    direct: OnceLock<Client>,
    usual: OnceLock<Client>,
    public: OnceLock<Client>,
}

impl Clients {
    /// The client for this address: only what is not on this machine may be asked through a proxy.
    fn of(&self, url: &Url, reach: Reach) -> Result<&Client, CallFailure> {
        let place = match reach {
            Reach::Public => &self.0.public,
            Reach::Named if is_loopback(url) => &self.0.direct,
            Reach::Named => &self.0.usual,
        };
        if let Some(client) = place.get() {
            return Ok(client);
        }
        let settings = match reach {
            // A proxy would find the address by itself, and nobody would judge it.
            Reach::Public => Client::builder().no_proxy().dns_resolver(Arc::new(PublicAddresses)),
            Reach::Named => builder(url),
        };
        let built = settings
            // Followed by hand, because a library makes another request of a POST.
            .redirect(redirect::Policy::none())
            .connect_timeout(CONNECT)
            .user_agent(concat!("aop/", env!("CARGO_PKG_VERSION")))
            .build();
        let what = "this host cannot ask the agent's server";
        let client =
            built.map_err(|error| logged(Code::Internal, Outcome::NotStarted, what, chain(&error)))?;
        // Two first calls may both make one; the one that is kept is used by all.
        Ok(place.get_or_init(|| client))
    }
}

/// A client's settings for this address.
pub(crate) fn builder(url: &Url) -> reqwest::ClientBuilder {
    // What a proxy calls its own loopback is not this machine.
    if is_loopback(url) { Client::builder().no_proxy() } else { Client::builder() }
}

/// Whether it is on this machine. So is the address that stands for all of its own: some servers name it as theirs.
pub(super) fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    match host.trim_matches(['[', ']']).parse::<IpAddr>() {
        Ok(address) => address.is_loopback() || address.is_unspecified(),
        Err(_) => host == "localhost" || host.ends_with(".localhost"),
    }
}

/// One address that an agent is behind.
pub(super) struct Server<'a> {
    /// Where it is.
    pub(super) url: &'a str,
    /// Who named the address.
    pub(super) reach: Reach,
    /// What every request carries.
    pub(super) headers: &'a BTreeMap<String, GivenValue>,
    /// What it is told beside them.
    pub(super) told: Vec<(&'static str, String)>,
    /// The code of an answer other than 2xx. Only an agent that failed speaks to its callers; what a model's server says is
    /// about this host's account.
    pub(super) failed: Code,
    /// What no caller may read.
    pub(super) secrets: &'a Secrets,
}

impl Server<'_> {
    /// Posts the input and takes the answer's body, JSON or text.
    pub(super) async fn post(&self, clients: &Clients, input: &Value) -> Result<Value, CallFailure> {
        let response = self.open(clients, input).await?;
        self.document(response).await
    }

    /// Posts the input: an answer of success, of which only the head is here.
    pub(super) async fn open(&self, clients: &Clients, input: &Value) -> Result<Response, CallFailure> {
        let response = self.ask(clients, Some(input)).await?;
        if response.status().is_success() { Ok(response) } else { Err(self.refused(response).await) }
    }

    /// Posts a document, or gets one where there is none to post: an answer of any status, of which only the head is here.
    pub(super) async fn ask(
        &self,
        clients: &Clients,
        document: Option<&Value>,
    ) -> Result<Response, CallFailure> {
        let unusable = |why: &str| {
            logged(Code::StartFailed, Outcome::NotStarted, "the agent's server cannot be asked", why)
        };
        let mut url = Url::parse(self.url).map_err(|error| unusable(&format!("its URL: {error}")))?;
        let headers = read_all(self.headers).map_err(|why| unusable(&why))?;
        let (client, body) = (clients.of(&url, self.reach)?, document.map(Value::to_string));
        for _ in 0..=REDIRECTS_MAX {
            let request = match &body {
                Some(body) => {
                    client.post(url.clone()).header(CONTENT_TYPE, "application/json").body(body.clone())
                }
                None => client.get(url.clone()),
            };
            let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, value));
            let request =
                self.told.iter().fold(request, |request, (name, value)| request.header(*name, value));
            let response = request.send().await.map_err(|error| self.unsent(error))?;
            if !response.status().is_redirection() {
                return Ok(response);
            }
            url = moved(&url, response.headers()).map_err(|why| {
                logged(self.failed, Outcome::Done, "the agent's server sends its callers elsewhere", why)
            })?;
        }
        let why = format!("it redirects more than {REDIRECTS_MAX} times");
        Err(logged(self.failed, Outcome::Done, "the agent's server sends its callers elsewhere", why))
    }

    fn unsent(&self, error: reqwest::Error) -> CallFailure {
        let (code, outcome, what) = match error.is_connect() || error.is_builder() {
            // Only then the server surely saw nothing; after that the work may have been done.
            true => (Code::StartFailed, Outcome::NotStarted, "the agent's server cannot be reached"),
            false => (Code::UpstreamFailed, Outcome::Unknown, "the agent's server broke off"),
        };
        // The agent's file has the address; its query may be a key.
        logged(code, outcome, what, self.secrets.hide_keys(&chain(&error.without_url())))
    }

    /// The body of an answer, JSON or text.
    pub(super) async fn document(&self, response: Response) -> Result<Value, CallFailure> {
        let text = String::from_utf8(self.read(response).await?)
            .map_err(|_| CallFailure::new(Code::BadOutput, Outcome::Done, "the answer is not UTF-8 text"))?;
        Ok(json_or_text(&text))
    }

    /// The next part of a body; none at its end.
    pub(super) async fn part(&self, response: &mut Response) -> Result<Option<Bytes>, CallFailure> {
        response.chunk().await.map_err(|error| self.unsent(error))
    }

    async fn refused(&self, response: Response) -> CallFailure {
        if let Some(busy) = busy_of(&response) {
            return busy;
        }
        let status = response.status();
        match self.read(response).await {
            Ok(body) => self.failure(status, &body),
            Err(failure) => failure,
        }
    }

    /// The failure that an answer other than 2xx is.
    pub(super) fn failure(&self, status: StatusCode, body: &[u8]) -> CallFailure {
        let reason = reason(body);
        if self.failed != Code::AgentFailed {
            let (what, said) =
                (format!("the agent's server answered {status}"), self.secrets.hide_keys(&reason));
            return logged(self.failed, Outcome::Done, &what, cut(&said));
        }
        // Cut last, or the half of a secret would be left.
        let said = cut(&self.secrets.hide(&reason));
        let said = if said.is_empty() { said } else { format!(": {said}") };
        CallFailure::new(self.failed, Outcome::Done, format!("the server answered {status}{said}"))
    }

    /// The body of an answer, as it is.
    pub(super) async fn read(&self, mut response: Response) -> Result<Vec<u8>, CallFailure> {
        let mut body = Vec::new();
        while let Some(part) = self.part(&mut response).await? {
            // Counted as it comes: an announced length may be wrong or missing.
            if body.len() + part.len() > CALL_BYTES_MAX {
                return Err(too_talkative());
            }
            body.extend_from_slice(&part);
        }
        Ok(body)
    }
}

/// Where a redirect leads, within the origin.
///
/// # Errors
/// The place that it names instead, for the log.
fn moved(from: &Url, headers: &HeaderMap) -> Result<Url, String> {
    let target = headers.get(LOCATION).and_then(|target| target.to_str().ok());
    let target = target.ok_or("it redirects and does not say where to")?;
    let mut to = from.join(target).map_err(|error| format!("it redirects to no address: {error}"))?;
    is_within(from, &to)?;
    // A redirect seldom repeats the user, and within the origin it is the same.
    let _of_http = (to.set_username(from.username()), to.set_password(from.password()));
    Ok(to)
}

/// Whether a redirect stays within its origin.
///
/// # Errors
/// The place, for the log.
pub(super) fn is_within(from: &Url, to: &Url) -> Result<(), String> {
    if from.origin() == to.origin() {
        return Ok(());
    }
    // An address that a server chooses may lie in this host's own network, and the input would go there.
    let place = format!("{}{}", to.origin().ascii_serialization(), to.path());
    Err(format!("it redirects to {}, which is another origin; write that URL into the file", cut(&place)))
}

/// Whether an answer comes as events.
pub(super) fn is_event_stream(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("text/event-stream")
}

/// The failure of a call whose server takes none for now.
pub(super) fn busy_of(response: &Response) -> Option<CallFailure> {
    let after = response.headers().get(RETRY_AFTER).and_then(|after| after.to_str().ok());
    refuses_for_now(response.status().as_u16(), after)
        .then(|| busy("the agent's server", after.and_then(wait_asked)))
}

/// 429, and 503 of a server that says when it will be back.
pub(super) fn refuses_for_now(status: u16, retry_after: Option<&str>) -> bool {
    status == 429 || status == 503 && retry_after.is_some()
}

/// How long a `Retry-After` asks to wait, in seconds or until a date; none where it is neither.
pub(crate) fn wait_asked(retry_after: &str) -> Option<Duration> {
    let text = retry_after.trim();
    let wait = match text.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        // One that has passed asks to wait no more.
        Err(_) => httpdate::parse_http_date(text).ok()?.duration_since(SystemTime::now()).unwrap_or_default(),
    };
    Some(wait.min(WAIT_MAX))
}

/// A call that a server did not take.
pub(super) fn busy(server: &str, wait: Option<Duration>) -> CallFailure {
    let failure = |when: &str| {
        let message = format!("{server} takes no more calls now; call again {when}");
        CallFailure::new(Code::Busy, Outcome::NotStarted, message)
    };
    match wait {
        Some(wait) => failure(&format!("in {} s", wait.as_secs_f64().ceil())).with_retry(wait),
        None => failure("later"),
    }
}

/// What an error's body says, in the shape of most APIs or as it is.
fn reason(body: &[u8]) -> String {
    let parsed = serde_json::from_slice::<Value>(body).unwrap_or_default();
    let message = ["/error/message", "/error", "/message", "/detail"]
        .iter()
        .find_map(|pointer| parsed.pointer(pointer).and_then(Value::as_str));
    message.map_or_else(|| String::from_utf8_lossy(body).trim().to_owned(), |it| it.trim().to_owned())
}

/// How a body begins that is not what was to come; for the log.
pub(super) fn beginning(body: &[u8], secrets: &Secrets) -> String {
    // Far more than is kept, so that no secret is searched for in halves.
    let head = &body[..body.len().min(8 * ERROR_CHARS_MAX)];
    cut(&secrets.hide_keys(&String::from_utf8_lossy(head)))
}

pub(super) fn cut(text: &str) -> String {
    // These words of a stranger end in logs and terminals.
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(ERROR_CHARS_MAX).collect()
}

/// An error with its causes: the outermost alone says little.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    let mut words: Vec<String> = causes.map(ToString::to_string).collect();
    // Layers often repeat the words of the one below.
    words.dedup();
    words.join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_seconds_or_a_date_and_never_longer_than_an_hour() {
        for (text, seconds) in [("0", 0), (" 7 ", 7), ("3600", 3_600), ("86400", 3_600)] {
            assert_eq!(wait_asked(text), Some(Duration::from_secs(seconds)), "{text}");
        }
        let at = |time: SystemTime| wait_asked(&httpdate::fmt_http_date(time)).unwrap();
        let soon = at(SystemTime::now() + Duration::from_secs(60));
        assert!((Duration::from_secs(50)..=Duration::from_secs(60)).contains(&soon), "{soon:?}");
        assert_eq!(at(SystemTime::now() - Duration::from_secs(60)), Duration::ZERO);
        assert_eq!(at(SystemTime::now() + Duration::from_secs(86_400)), WAIT_MAX);
        for text in ["", "-1", "1.5", "soon", "99999999999999999999999"] {
            assert_eq!(wait_asked(text), None, "{text:?}");
        }
        assert_eq!(busy("it", Some(Duration::from_millis(1_500))).retry_after_ms, Some(1_500));
        assert_eq!(busy("it", None).retry_after_ms, None);
    }
}
