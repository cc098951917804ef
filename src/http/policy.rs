//! Who may ask at all: Host, Origin, token and content type, judged before any handler.
//!
//! A page of another site can make a browser send requests to this machine, by DNS rebinding (then Host names the
//! site) or directly (then Origin does). An IP address as Host cannot come from rebinding, so on a wildcard address
//! every IP address is accepted. A form cannot send JSON as its content type.

use std::convert::Infallible;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, Method, Request, header};
use subtle::ConstantTimeEq;

use super::failure::Failure;
use super::surface::{RegistryAccess, Surface};
use crate::private_file::{SecretError, read_secret};
use crate::proto::code::Code;

/// Shortest token that is read from a file, bytes: a word of a few letters is soon found by who asks a thousand times a second.
const TOKEN_BYTES_MIN: usize = 8;
/// Longest token, bytes: more is surely the wrong file.
const TOKEN_BYTES_MAX: usize = 4096;

/// What is served without the token: whether the node lives and is ready, which orchestrators ask without one, and the page,
/// which asks for the token itself.
const OPEN_PATHS: [&str; 3] = ["/", "/healthz", "/readyz"];

/// A bearer token; never shown.
#[derive(Clone)]
pub struct Token(String);

/// Why a file holds no token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The file cannot be read.
    #[error("cannot read the token file {0}: {1}; check the path and its permissions")]
    Unreadable(String, std::io::Error),
    /// Others may read it.
    #[error("others can read the token file {0} (mode {1:03o}): run `chmod 600 {0}`")]
    Exposed(String, u32),
    /// Empty, too long, or not one line of printable ASCII.
    #[error("{0} holds no token: write one line of printable ASCII, such as `openssl rand -hex 32 > {0}`")]
    Malformed(String),
    /// So short that it can be guessed.
    #[error(
        "the token in {0} has {1} bytes, and one below {TOKEN_BYTES_MIN} can be guessed: make one with \
         `openssl rand -hex 32 > {0}`"
    )]
    Short(String, usize),
}

impl Token {
    /// Reads a token from the one line of a file; refuses one that others can read or guess.
    pub fn read(path: &Path) -> Result<Token, TokenError> {
        let shown = path.display().to_string();
        let bytes = read_secret(path).map_err(|error| match error {
            SecretError::Unreadable(error) => TokenError::Unreadable(shown.clone(), error),
            SecretError::Exposed(mode) => TokenError::Exposed(shown.clone(), mode),
        })?;
        let text = String::from_utf8(bytes).map_err(|_| TokenError::Malformed(shown.clone()))?;
        match Token::parse(&text) {
            Some(token) if token.0.len() < TOKEN_BYTES_MIN => Err(TokenError::Short(shown, token.0.len())),
            Some(token) => Ok(token),
            None => Err(TokenError::Malformed(shown)),
        }
    }

    /// A token from text, white space around it left out; `None` unless it is one word of printable ASCII.
    pub fn parse(text: &str) -> Option<Token> {
        let text = text.trim();
        let fits = (1..=TOKEN_BYTES_MAX).contains(&text.len());
        (fits && text.bytes().all(|byte| byte.is_ascii_graphic())).then(|| Token(text.into()))
    }

    /// The token itself, to be sent.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asker {
    /// Whoever may use the node.
    Operator,
    /// Anybody: what he asks for is open to everybody.
    Anybody,
}

impl<S: Sync> FromRequestParts<S> for Asker {
    type Rejection = Infallible;

    async fn from_request_parts(head: &mut Parts, _: &S) -> Result<Asker, Infallible> {
        // The pipeline has judged every request.
        Ok(head.extensions.get().copied().unwrap_or(Asker::Anybody))
    }
}

/// The rules of one bound address.
#[derive(Debug)]
pub(super) struct RequestPolicy {
    bound: SocketAddr,
    names: Vec<String>,
    token: Option<Token>,
    registry: RegistryAccess,
}

impl RequestPolicy {
    /// `bound` is the real address; `names` are further host names.
    pub(super) fn new(
        bound: SocketAddr,
        names: Vec<String>,
        token: Option<Token>,
        registry: RegistryAccess,
    ) -> RequestPolicy {
        RequestPolicy { bound, names, token, registry }
    }

    /// Judges the head of a request; the body is not touched.
    pub(super) fn judge<B>(&self, request: &Request<B>) -> Result<Asker, Failure> {
        let headers = request.headers();
        // Host before Origin, which is compared with it.
        let host = self.judge_host(headers, request.uri().authority().map(|named| named.as_str()))?;
        let path = request.uri().path();
        let surface = Surface::of(path);
        let is_reading = surface.is_reading(request.method());
        let is_public = is_reading && self.registry == RegistryAccess::Public;
        // No page has the editor's origin; what it asks for over the network is for the operator to open.
        let is_editor =
            is_reading && self.bound.ip().to_canonical().is_loopback() && surface.is_asked_by_editor(headers);
        if !is_public && !is_editor {
            self.judge_origin(headers, host)?;
        }
        // A browser asks what a page may send before it sends the token.
        let is_open = is_public || OPEN_PATHS.contains(&path) || request.method() == Method::OPTIONS;
        let judged = self.judge_token(headers);
        let asker = match judged {
            Ok(()) if !is_public => Asker::Operator,
            // Behind a proxy everybody comes from this machine: only the token tells them apart.
            Ok(()) if self.token.is_some() => Asker::Operator,
            Err(failure) if !is_open => return Err(failure),
            _ => Asker::Anybody,
        };
        judge_content(request.method(), surface, headers)?;
        Ok(asker)
    }

    fn judge_host<'a>(&self, headers: &'a HeaderMap, in_uri: Option<&str>) -> Result<&'a str, Failure> {
        let host = single(headers, header::HOST)?.unwrap_or_default();
        // Where the request line names a host too, a proxy in between may go by that one.
        let same = in_uri.is_none_or(|in_uri| in_uri.eq_ignore_ascii_case(host));
        let known = split_authority(host).is_some_and(|(name, _)| self.is_our_name(name));
        if same && known {
            return Ok(host);
        }
        Err(Failure::new(
            Code::Forbidden,
            format!("Host `{}` is not a name of this node", host.escape_debug()),
            "ask 127.0.0.1, localhost or the bound address; other names go into `http.names` of the configuration",
        ))
    }

    fn is_our_name(&self, name: &str) -> bool {
        match parse_ip(name) {
            Some(ip) => ip.is_loopback() || ip == self.bound.ip() || self.bound.ip().is_unspecified(),
            None => {
                name.eq_ignore_ascii_case("localhost")
                    || self.names.iter().any(|ours| ours.eq_ignore_ascii_case(name))
            }
        }
    }

    fn judge_origin(&self, headers: &HeaderMap, host: &str) -> Result<(), Failure> {
        let Some(origin) = single(headers, header::ORIGIN)? else { return Ok(()) };
        if self.is_our_origin(origin, host) {
            return Ok(());
        }
        Err(Failure::new(
            Code::Forbidden,
            format!("pages of `{}` may not use this node", origin.escape_debug()),
            "open the page of the node itself, or ask without a browser",
        ))
    }

    fn is_our_origin(&self, origin: &str, host: &str) -> bool {
        let Some((scheme, authority)) = origin.split_once("://") else { return false };
        // A browser leaves out the port that goes with the scheme.
        let default_port = match scheme {
            "http" => 80,
            "https" => 443,
            _ => return false,
        };
        let (Some((name, port)), Some((host_name, host_port))) =
            (split_authority(authority), split_authority(host))
        else {
            return false;
        };
        let port = port.unwrap_or(default_port);
        let same = name.eq_ignore_ascii_case(host_name) && port == host_port.unwrap_or(default_port);
        let loopback =
            name.eq_ignore_ascii_case("localhost") || parse_ip(name).is_some_and(|ip| ip.is_loopback());
        // The node's own page under another loopback name; another port would be another program's page.
        same || (loopback && port == self.bound.port())
    }

    fn judge_token(&self, headers: &HeaderMap) -> Result<(), Failure> {
        let Some(token) = &self.token else { return Ok(()) };
        let Some(given) = single(headers, header::AUTHORIZATION)? else {
            return Err(Failure::new(
                Code::Unauthorized,
                "this node asks for its token, and none was sent",
                "send `Authorization: Bearer TOKEN`; with aop: AOP_TOKEN or --http-token-file FILE",
            ));
        };
        // What is no bearer token compares as an empty one, which no file can hold.
        let given = bearer(given).unwrap_or_default();
        // In constant time: an early end would tell how many of the first bytes are right.
        if bool::from(given.as_bytes().ct_eq(token.0.as_bytes())) {
            return Ok(());
        }
        Err(Failure::new(
            Code::Unauthorized,
            "the token that was sent is not the one of this node",
            "send `Authorization: Bearer TOKEN` with that of the node's `http.token_file`; with aop: AOP_TOKEN or \
             --http-token-file FILE",
        ))
    }
}

/// Names and port of an authority without user information; an IPv6 address keeps its brackets.
fn split_authority(authority: &str) -> Option<(&str, Option<u16>)> {
    let after_name = if authority.starts_with('[') {
        authority.find(']')? + 1
    } else {
        authority.find(':').unwrap_or(authority.len())
    };
    let (name, rest) = authority.split_at(after_name);
    // No `@`: what stands before it could pass for a name of ours.
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_[]:".contains(&byte);
    if name.is_empty() || !name.bytes().all(plain) {
        return None;
    }
    match rest.strip_prefix(':') {
        None => rest.is_empty().then_some((name, None)),
        Some(port) if port.bytes().all(|byte| byte.is_ascii_digit()) => {
            Some((name, Some(port.parse().ok()?)))
        }
        Some(_) => None,
    }
}

fn parse_ip(name: &str) -> Option<IpAddr> {
    let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
    match bare {
        Some(six) => six.parse().ok().map(|ip: std::net::Ipv6Addr| IpAddr::V6(ip).to_canonical()),
        // Without brackets it can only be IPv4: an IPv6 address would have been cut at its first colon.
        None => name.parse().ok().map(IpAddr::V4),
    }
}

fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

fn is_writing(method: &Method) -> bool {
    matches!(*method, Method::POST | Method::PUT | Method::PATCH)
}

fn judge_content(method: &Method, surface: Surface, headers: &HeaderMap) -> Result<(), Failure> {
    // A page can send a POST unasked. For DELETE its browser asks first, and GET changes nothing.
    if !is_writing(method) {
        return Ok(());
    }
    let given = single(headers, header::CONTENT_TYPE)?.unwrap_or_default();
    let essence = given.split(';').next().unwrap_or_default().trim();
    match surface.takes(essence) {
        true => Ok(()),
        false => Err(Failure::not_json()),
    }
}

/// The value of a header that may come once at most; two values could be read differently by two programs.
fn single(headers: &HeaderMap, name: HeaderName) -> Result<Option<&str>, Failure> {
    let mut values = headers.get_all(&name).iter();
    let first = values.next();
    let text = first.map(|value| value.to_str()).transpose();
    match (text, values.next()) {
        (Ok(text), None) => Ok(text),
        _ => Err(Failure::new(
            Code::BadRequest,
            format!("the header `{name}` comes twice or is not ASCII"),
            "send it once",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(bound: &str) -> RequestPolicy {
        RequestPolicy::new(
            bound.parse().unwrap(),
            vec!["registry.example.org".into()],
            None,
            RegistryAccess::Own,
        )
    }

    fn passes(policy: &RequestPolicy, headers: &[(&str, &str)]) -> bool {
        let mut request = Request::get("/v1/find");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        policy.judge(&request.body(()).unwrap()).is_ok()
    }

    #[test]
    fn only_our_own_names_pass_as_host() {
        let policy = policy("127.0.0.1:7400");
        for good in
            ["127.0.0.1:7400", "localhost", "LOCALHOST:1", "127.9.9.9", "[::1]:7400", "registry.example.org"]
        {
            assert!(passes(&policy, &[("host", good)]), "{good}");
        }
        for bad in [
            "",
            "evil.example",
            "localhost.evil.example",
            "10.0.0.5",
            "0.0.0.0:7400",
            "evil@localhost",
            "[::2]",
            "localhost:x",
            "localhost:99999",
            "127.0.0.1.evil.example",
            "[::1",
            "[::1]x",
            "localhost:",
        ] {
            assert!(!passes(&policy, &[("host", bad)]), "{bad}");
        }
        assert!(!passes(&policy, &[]), "no Host at all");
        assert!(!passes(&policy, &[("host", "localhost"), ("host", "localhost")]), "two Hosts");
    }

    #[test]
    fn a_wildcard_address_takes_ip_addresses_but_no_foreign_names() {
        let policy = policy("0.0.0.0:7400");
        assert!(passes(&policy, &[("host", "10.0.0.5:7400")]));
        assert!(!passes(&policy, &[("host", "evil.example:7400")]));
    }

    #[test]
    fn only_pages_of_the_node_itself_pass_as_origin() {
        let policy = policy("127.0.0.1:7400");
        let asked = |host: &str, origin: &str| passes(&policy, &[("host", host), ("origin", origin)]);
        assert!(asked("127.0.0.1:7400", "http://127.0.0.1:7400"));
        assert!(asked("127.0.0.1:7400", "http://localhost:7400"));
        assert!(asked("registry.example.org", "https://registry.example.org"));
        assert!(!asked("127.0.0.1:7400", "http://localhost:8080"));
        assert!(!asked("127.0.0.1:7400", "http://evil.example:7400"));
        assert!(!asked("127.0.0.1:7400", "null"));
        assert!(!asked("127.0.0.1:7400", "file://"));
        assert!(!asked("registry.example.org", "https://registry.example.org:8443"));
    }

    #[test]
    fn an_absolute_target_must_name_the_same_host() {
        let request =
            Request::get("http://evil.example/v1/find").header("host", "localhost").body(()).unwrap();
        assert!(policy("127.0.0.1:7400").judge(&request).is_err());
    }

    #[test]
    fn the_token_is_asked_everywhere_but_for_the_page_and_the_health_of_the_process() {
        let policy = RequestPolicy { token: Token::parse(" s3cret\n"), ..policy("127.0.0.1:7400") };
        let asked =
            |authorization: &str| passes(&policy, &[("host", "localhost"), ("authorization", authorization)]);
        assert!(asked("Bearer s3cret") && asked("bearer s3cret"));
        assert!(!asked("Bearer s3cre") && !asked("Bearer ") && !asked("Basic s3cret") && !asked("s3cret"));
        let open = |path: &str, host: &str| {
            policy.judge(&Request::get(path).header("host", host).body(()).unwrap()).is_ok()
        };
        assert!(["/healthz", "/readyz", "/"].iter().all(|path| open(path, "localhost")));
        assert!(!open("/", "evil.example"), "Host is judged all the same");
        assert!(["//", "/index.html", "/metrics"].iter().all(|path| !open(path, "localhost")));
    }

    #[test]
    fn no_token_and_a_wrong_one_are_told_apart() {
        let policy = RequestPolicy { token: Token::parse("s3cret"), ..policy("127.0.0.1:7400") };
        let refused = |authorization: Option<&str>| {
            let mut request = Request::get("/v1/find").header("host", "localhost");
            if let Some(value) = authorization {
                request = request.header("authorization", value);
            }
            format!("{:?}", policy.judge(&request.body(()).unwrap()).unwrap_err())
        };
        assert!(refused(None).contains("none was sent"), "{}", refused(None));
        for wrong in ["Bearer s3cres", "Bearer ", "Basic s3cret", "s3cret"] {
            let told = refused(Some(wrong));
            assert!(told.contains("is not the one of this node") && !told.contains("s3cret"), "{told}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_token_that_can_be_guessed_is_refused_with_how_to_make_one() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let read = |text: &str| {
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
            Token::read(&path)
        };
        assert_eq!(read("01234567\n").unwrap().as_str(), "01234567");
        for short in ["abc", " 0123456 \n"] {
            let told = read(short).unwrap_err().to_string();
            assert!(told.contains("can be guessed") && told.contains("openssl rand"), "{told}");
            assert!(!told.contains(short.trim()), "{told}");
        }
    }

    #[test]
    fn a_token_is_one_printable_word() {
        assert!(
            Token::parse("").is_none() && Token::parse("two words").is_none() && Token::parse("ü").is_none()
        );
        assert_eq!(format!("{:?}", Token::parse("secret")), "Some(Token(…))");
    }
}
