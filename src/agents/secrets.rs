//! What an agent's file keeps on its host: addresses, paths, prompts, and above all keys.
//!
//! What this host says of a failure names none of it; the reason stands in the host's log. Others may repeat what they were
//! asked with, an error or a report of progress for example, so their words are searched before they leave. The log may name
//! places, and never a key.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::Path;

use data_encoding::BASE64;
use reqwest::Url;

use crate::document::run_config::{Chat, Endpoint, GivenValue, McpServer, Program, RunConfig, Runner};
use crate::proto::call::{CallFailure, Outcome};
use crate::proto::code::Code;

/// Stands where something was hidden.
const HIDDEN: &str = "[hidden]";
/// Shortest key that is searched for, bytes: shorter ones stand in any text by chance.
const KEY_BYTES_MIN: usize = 4;
/// Shortest path, host or argument, bytes, for the same reason.
const PLACE_BYTES_MIN: usize = 6;

/// The texts of a configuration that must not leave this host, the longest first: a URL goes before its host.
#[derive(Debug, Default)]
pub(super) struct Secrets {
    keys: Vec<String>,
    places: Vec<String>,
}

impl Secrets {
    /// Those of an agent.
    pub(super) fn of(run_config: &RunConfig) -> Secrets {
        let mut secrets = Secrets::default();
        match &run_config.runner {
            Runner::Command(program) => secrets.add_program(program),
            Runner::Mcp { servers, .. } => servers.iter().for_each(|server| secrets.add_server(server)),
            Runner::Http(endpoint) | Runner::A2a(endpoint) => secrets.add_endpoint(endpoint),
            Runner::Chat(chat) => secrets.add_chat(chat),
            Runner::Builtin(_) => {}
        }
        secrets.finished(&run_config.folder)
    }

    /// Those of an MCP server whose agent lies in `folder`.
    pub(super) fn of_server(server: &McpServer, folder: &Path) -> Secrets {
        let mut secrets = Secrets::default();
        secrets.add_server(server);
        secrets.finished(folder)
    }

    /// Words of others as a caller may read them.
    pub(super) fn hide(&self, words: &str) -> String {
        self.keys.iter().chain(&self.places).fold(words.to_owned(), |words, secret| without(words, secret))
    }

    /// Words as the log of this host may have them.
    pub(super) fn hide_keys(&self, words: &str) -> String {
        self.keys.iter().fold(words.to_owned(), |words, key| without(words, key))
    }

    fn add_server(&mut self, server: &McpServer) {
        match server {
            McpServer::Command(program) => self.add_program(program),
            McpServer::Url(endpoint) => self.add_endpoint(endpoint),
        }
    }

    fn add_program(&mut self, program: &Program) {
        self.places.extend(program.command.iter().cloned());
        self.add_given(&program.env);
    }

    fn add_endpoint(&mut self, endpoint: &Endpoint) {
        self.add_given(&endpoint.headers);
        self.places.push(endpoint.url.clone());
        let Ok(url) = Url::parse(&endpoint.url) else { return };
        // Libraries write a URL in its normal form, servers often its path or host alone.
        self.places.extend([url.to_string(), url.path().to_owned()]);
        self.places.extend(url.path_segments().into_iter().flatten().map(str::to_owned));
        self.places.extend(url.host_str().map(str::to_owned));
        self.keys.extend(url.query().map(str::to_owned));
        self.keys.extend(url.query_pairs().map(|(_, value)| value.into_owned()));
        if let Some(password) = url.password() {
            // A URL's user goes as a header of this form.
            self.keys.push(BASE64.encode(format!("{}:{password}", url.username()).as_bytes()));
            self.keys.push(password.to_owned());
        }
        self.keys.push(url.username().to_owned());
    }

    fn add_chat(&mut self, chat: &Chat) {
        self.add_endpoint(&chat.base);
        self.keys.extend(chat.api_key_env.iter().filter_map(|name| std::env::var(name).ok()));
        self.places.extend(chat.system_prompt.clone());
    }

    fn add_given(&mut self, given: &BTreeMap<String, GivenValue>) {
        for (name, value) in given {
            self.places.push(name.clone());
            let Ok(value) = read(value) else { continue };
            // `Bearer KEY` is often repeated without its first word.
            self.keys.extend(value.split_whitespace().map(str::to_owned));
            self.keys.push(value);
        }
    }

    fn finished(mut self, folder: &Path) -> Secrets {
        self.places.push(folder.display().to_string());
        self.places.extend(std::path::absolute(folder).map(|folder| folder.display().to_string()));
        self.keys.retain(|key| key.len() >= KEY_BYTES_MIN && !key.eq_ignore_ascii_case("bearer"));
        self.places.retain(|place| place.len() >= PLACE_BYTES_MIN);
        for secrets in [&mut self.keys, &mut self.places] {
            secrets.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
            secrets.dedup();
        }
        self
    }
}

/// What the file gives under these names.
///
/// # Errors
/// Which variable is not set, for the log.
pub(super) fn read_all(given: &BTreeMap<String, GivenValue>) -> Result<Vec<(&str, String)>, String> {
    given.iter().map(|(name, value)| Ok((name.as_str(), read(value)?))).collect()
}

/// The value itself.
///
/// # Errors
/// As [`read_all`].
pub(super) fn read(value: &GivenValue) -> Result<String, String> {
    match value {
        GivenValue::Literal(text) => Ok(text.clone()),
        GivenValue::Variable(name) => std::env::var(name)
            .map_err(|_| format!("the environment variable `{name}` is not set; start the node with it")),
    }
}

/// A failure whose reason is for this host's log alone.
pub(super) fn logged(code: Code, outcome: Outcome, what: &str, why: impl Display) -> CallFailure {
    tracing::warn!(code = %code, "{what}: {why}");
    CallFailure::new(code, outcome, format!("{what}; the log of its host says why"))
}

/// The text with `[hidden]` for every `secret`, in any case: names of hosts and headers change theirs on the way.
fn without(text: String, secret: &str) -> String {
    // Of ASCII alone, so that no length changes and places in one text are places in the other.
    let (lower, secret) = (text.to_ascii_lowercase(), secret.to_ascii_lowercase());
    let (mut shown, mut end) = (String::new(), 0);
    for (start, found) in lower.match_indices(&secret) {
        shown.push_str(&text[end..start]);
        shown.push_str(HIDDEN);
        end = start + found.len();
    }
    if end == 0 {
        return text;
    }
    shown.push_str(&text[end..]);
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(url: &str, headers: &[(&str, &str)]) -> Secrets {
        let headers = headers
            .iter()
            .map(|(name, value)| ((*name).to_owned(), GivenValue::Literal((*value).to_owned())))
            .collect();
        let server = McpServer::Url(Endpoint { url: url.into(), headers });
        Secrets::of_server(&server, Path::new("/srv/agents"))
    }

    #[test]
    fn no_part_of_an_address_and_no_header_is_repeated_to_a_caller() {
        let url = "http://Carol:open-sesame@Box.Test:81/hidden-path/run?key=query-key";
        let secrets = endpoint(url, &[("X-Api-Key", "Bearer header-key")]);
        for words in [
            "box.test refused carol",
            "POST /hidden-path/run",
            "http://carol:open-sesame@box.test:81/hidden-path/run?key=query-key is down",
            "not for query-key",
            "Basic Q2Fyb2w6b3Blbi1zZXNhbWU=",
            "x-api-key: bearer header-key",
            "in /srv/agents/x.py",
        ] {
            let shown = secrets.hide(words);
            assert!(shown.contains(HIDDEN), "{shown}");
            for secret in
                ["carol", "sesame", "box.test", "hidden-path", "query-key", "header-key", "Q2Fy", "/srv"]
            {
                assert!(!shown.to_lowercase().contains(&secret.to_lowercase()), "{shown}");
            }
        }
        assert_eq!(secrets.hide("no ink"), "no ink");
    }

    #[test]
    fn the_log_names_places_and_no_key() {
        let secrets =
            endpoint("http://box.test/run?key=query-key", &[("Authorization", "Bearer header-key")]);
        assert_eq!(
            secrets.hide_keys("http://box.test/run?key=query-key wants Bearer header-key"),
            format!("http://box.test/run?{HIDDEN} wants {HIDDEN}")
        );
    }

    #[test]
    fn what_is_short_stays_because_it_stands_in_any_text() {
        let secrets = endpoint("http://a.b/x", &[("A", "1")]);
        assert_eq!(secrets.hide("a 1 in x is not b"), "a 1 in x is not b");
    }
}
