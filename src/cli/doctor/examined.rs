//! What the checks look at: the settings, who uses the data folder, and what the node says of itself.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Instant;

use miette::{Diagnostic, SourceSpan};

use super::left;
use crate::api::{Diagnosis, ErrorBody, Finding, Ready, Status};
use crate::cli::args::{ClientArgs, DoctorArgs, NODE_URL};
use crate::cli::client::Client;
use crate::cli::failure::{Exit, Failure};
use crate::cli::settings::file;
use crate::config::{self, ConfigError, Effective, Flags, Origin, Settings};
use crate::host::{Holder, holder};
use crate::http::Token;
use crate::private_file::read_if_there;
use crate::proto::code::Code;

/// Longest `node.json` that is read, bytes: it has some addresses.
const READY_BYTES_MAX: u64 = 64 * 1024;

/// Settings of a node with where they came from, or everything that is wrong with them.
pub(super) type Layers = Result<(Settings, Vec<Effective>), Vec<ConfigError>>;

/// What the checks look at.
pub(super) struct Examined {
    pub(super) layers: Layers,
    /// Who uses the data folder, if there is one.
    pub(super) holder: io::Result<Option<Holder>>,
    /// `node.json`, which a node leaves there while it runs.
    pub(super) ready: Option<Ready>,
    pub(super) client: Client,
    pub(super) answer: Answer,
    pub(super) ends: Instant,
}

/// How a check is made. Nothing found is no check at all.
#[derive(Clone, Copy)]
pub(super) enum Look {
    /// Whatever there is.
    Always(fn(&Examined) -> Vec<Finding>),
    /// Where the settings are right.
    OfSettings(fn(&Examined, &Settings) -> Vec<Finding>),
    /// Where a node answers.
    OfNode(fn(&Examined, &Status) -> Vec<Finding>),
}

/// What came of asking the node.
pub(super) enum Answer {
    /// It told how it is, and found this; none of a version that makes no checks.
    Told { status: Box<Status>, theirs: Option<Diagnosis> },
    /// It wants a token, or another one.
    Refused(Finding),
    /// There is none.
    Nobody(Finding),
    /// Something else answers.
    Stranger(Finding),
}

impl Answer {
    /// Why the node makes no checks.
    pub(super) fn why_unmade(&self) -> &'static str {
        match self {
            Answer::Told { .. } => "the node is of a version that makes no checks",
            Answer::Refused(_) => "the node tells nothing without its token",
            Answer::Nobody(_) | Answer::Stranger(_) => "no node answers",
        }
    }
}

impl Examined {
    /// Looks, and asks the node until `asked_until`.
    ///
    /// # Errors
    /// The address of the node, or the token in the environment, cannot be one.
    pub(super) fn look(args: &DoctorArgs, asked_until: Instant, ends: Instant) -> Result<Examined, Failure> {
        let flags = args.settings.flags();
        let env = |variable: &str| std::env::var(variable).ok();
        let layers = config::load(&flags, &env, file(&args.settings).as_deref());
        let settings = layers.as_ref().ok().map(|(settings, _)| settings);
        let holder = settings.map_or(Ok(None), |settings| holder(&settings.data_dir));
        let ready = settings.and_then(|settings| {
            let text = read_if_there(&settings.data_dir.join("node.json"), READY_BYTES_MAX).ok()??;
            serde_json::from_slice::<Ready>(&text).ok()
        });
        let is_held = matches!(holder, Ok(Some(Holder::Process(_))));
        let of_folder = ready.as_ref().filter(|_| is_held).map(|ready| ready.http.clone());
        let of_settings = settings.and_then(|settings| url_of(settings.http_addr));
        let node = args.node.clone().or(of_folder).or(of_settings).unwrap_or_else(|| NODE_URL.into());
        // A file that is no token is told by a check of its own.
        let token_file = match settings {
            Some(settings) => settings.http_token_file.clone(),
            // What is wrong with other settings must not keep the node from being asked.
            None => given_token_file(&flags, &env),
        };
        let http_token_file = token_file.filter(|path| Token::read(path).is_ok());
        let client = Client::new(&ClientArgs { node, http_token_file, json: false })?;
        let answer = ask(&client, asked_until);
        Ok(Examined { layers, holder, ready, client, answer, ends })
    }

    /// What a check finds.
    pub(super) fn made(&self, look: Look) -> Vec<Finding> {
        match (look, &self.layers, &self.answer) {
            (Look::Always(look), ..) => look(self),
            (Look::OfSettings(look), Ok((settings, _)), _) => look(self, settings),
            (Look::OfSettings(_), Err(_), _) => vec![Finding::skip("the settings are wrong")],
            (Look::OfNode(look), _, Answer::Told { status, .. }) => look(self, status),
            (Look::OfNode(_), _, answer) => vec![Finding::skip(answer.why_unmade())],
        }
    }
}

/// The token file of a flag or of the environment.
fn given_token_file(flags: &Flags, env: &dyn Fn(&str) -> Option<String>) -> Option<PathBuf> {
    let flag = flags.get("http.token_file").and_then(|values| values.first().cloned());
    flag.or_else(|| env("AOP_HTTP_TOKEN_FILE")).map(PathBuf::from)
}

/// Where the node of these settings answers this machine; none where that is not known before it runs.
fn url_of(addr: SocketAddr) -> Option<String> {
    let ip = match addr.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    (addr.port() != 0).then(|| format!("http://{}", SocketAddr::new(ip, addr.port())))
}

fn ask(client: &Client, until: Instant) -> Answer {
    let theirs = match client.within(left(until)).get::<Diagnosis>("/v1/doctor", &[]) {
        Ok(theirs) => Some(theirs),
        Err(failure) if failure.code() == Code::UnknownRoute => None,
        Err(failure) => return unanswered(failure, client),
    };
    match client.within(left(until)).get::<Status>("/v1/status", &[]) {
        Ok(status) => Answer::Told { status: Box::new(status), theirs },
        Err(failure) => unanswered(failure, client),
    }
}

fn unanswered(failure: Failure, client: &Client) -> Answer {
    let (exit, code) = (failure.exit, failure.code());
    let Some(ErrorBody { error }) = failure.into_body() else {
        return Answer::Stranger(Finding::fail("the node gave no reason", "look with `aop status`"));
    };
    let finding = match code {
        Code::TimedOut => Finding::fail(
            format!("{} takes connections and gives no answer", client.base()),
            "the node hangs, or another program has the port: `ss -ltnp` shows which",
        ),
        _ => Finding::fail(error.message, error.fix),
    };
    match exit {
        _ if code == Code::Unauthorized => Answer::Refused(finding),
        Exit::Unreachable => Answer::Nobody(finding),
        _ => Answer::Stranger(finding),
    }
}

/// Whether the settings are right, and which somebody made.
pub(super) fn settings(examined: &Examined) -> Vec<Finding> {
    let effective = match &examined.layers {
        Err(errors) => return errors.iter().map(misset).collect(),
        Ok((_, effective)) => effective,
    };
    let made = effective.iter().filter(|effective| effective.origin != Origin::Default);
    let made: Vec<String> = made.map(|made| format!("{} ({})", made.key, made.origin)).collect();
    vec![Finding::ok(if made.is_empty() { "all are defaults".into() } else { made.join(", ") })]
}

/// What is wrong with a setting, with its line if it stands in the file.
fn misset(error: &ConfigError) -> Finding {
    let line = || {
        let span: SourceSpan = *error.labels()?.next()?.inner();
        let contents = error.source_code()?.read_span(&span, 0, 0).ok()?;
        Some(format!("{}:{}: ", contents.name()?, contents.line() + 1))
    };
    Finding::fail(format!("{}{error}", line().unwrap_or_default()), advice(error))
}

/// What a diagnostic says that is to be done.
pub(super) fn advice(error: &dyn Diagnostic) -> String {
    error.help().map(|help| help.to_string()).unwrap_or_else(|| "correct it there".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_listens_everywhere_is_asked_at_this_machine() {
        let url = |addr: &str| url_of(addr.parse().unwrap());
        assert_eq!(url("0.0.0.0:7400").as_deref(), Some("http://127.0.0.1:7400"));
        assert_eq!(url("[::]:7400").as_deref(), Some("http://[::1]:7400"));
        assert_eq!(url("192.0.2.1:80").as_deref(), Some("http://192.0.2.1:80"));
        assert_eq!(url("127.0.0.1:0"), None, "any free port");
    }
}
