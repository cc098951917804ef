//! The card of an A2A agent: fetched when it is needed, kept for a while, and what of it says how the agent is asked.

use std::time::Duration;

use reqwest::Url;
use serde_json::Value;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use crate::a2a::Version;
use crate::agents::reach::Reach;
use crate::agents::secrets::{Secrets, logged};
use crate::agents::web::{self, Clients, cut};
use crate::document::a2a_endpoints;
use crate::document::run_config::Endpoint;
use crate::proto::call::{CallFailure, Outcome};
use crate::proto::code::Code;

/// How long a card is believed: an agent that moved is found again by then, or at the first call that fails.
const CARD_AGE_MAX: Duration = Duration::from_secs(600);
/// How long fetching it may take, all its places together.
const CARD_TIME_MAX: Duration = Duration::from_secs(10);
/// Interfaces of a card that are looked at.
const INTERFACES_MAX: usize = 32;
/// Where a card lies below an agent's own address, and where 0.3 had it before.
const WELL_KNOWN: [&str; 2] = [".well-known/agent-card.json", ".well-known/agent.json"];

/// How an agent's messages go over HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Binding {
    JsonRpc,
    /// `HTTP+JSON`: paths and methods of HTTP.
    Rest,
}

/// One way to ask an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Interface {
    pub(super) url: Url,
    pub(super) reach: Reach,
    pub(super) binding: Binding,
    pub(super) version: Version,
    /// Whom of several that share the address the agent is meant for.
    pub(super) tenant: Option<String>,
}

/// What is kept of a card.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Card {
    /// The best way that it names.
    pub(super) interface: Interface,
    /// The best of the other version of JSON-RPC that it names.
    other: Option<Interface>,
    /// Whether a task can be had as it goes on.
    pub(super) is_streaming: bool,
}

/// The card of one agent, if it was fetched.
#[derive(Default)]
pub(in crate::agents) struct CardCache(Mutex<Option<(Instant, Card)>>);

impl CardCache {
    /// The card. Calls that need it at once wait for one fetch.
    pub(super) async fn card(
        &self,
        agent: &Endpoint,
        clients: &Clients,
        secrets: &Secrets,
    ) -> Result<Card, CallFailure> {
        let mut kept = self.0.lock().await;
        if let Some((_, card)) = kept.as_ref().filter(|(fetched, _)| fetched.elapsed() < CARD_AGE_MAX) {
            return Ok(card.clone());
        }
        *kept = None;
        let unread = |why: String| {
            let what = "the agent's card cannot be read";
            logged(Code::StartFailed, Outcome::NotStarted, what, cut(&secrets.hide_keys(&why)))
        };
        let named = Url::parse(&agent.url).map_err(|error| unread(format!("its URL: {error}")))?;
        let fetched = timeout(CARD_TIME_MAX, fetch(agent, &named, clients, secrets)).await;
        let document = fetched.map_err(|_| unread(format!("it did not come in {CARD_TIME_MAX:?}")))??;
        let card = Card::read(&document, &named).map_err(unread)?;
        *kept = Some((Instant::now(), card.clone()));
        Ok(card)
    }

    /// Fetches it anew at the next call, unless that is being done.
    pub(super) fn forget(&self) {
        if let Ok(mut kept) = self.0.try_lock() {
            *kept = None;
        }
    }

    /// Asks in this way first, as long as the card is kept. Where it is being fetched the next call finds it out again.
    pub(super) fn prefer(&self, interface: Interface) {
        if let Ok(mut kept) = self.0.try_lock()
            && let Some((_, card)) = &mut *kept
            && card.interface != interface
        {
            card.other = Some(std::mem::replace(&mut card.interface, interface));
        }
    }
}

/// The card, from the first of its places that has one.
async fn fetch(
    agent: &Endpoint,
    named: &Url,
    clients: &Clients,
    secrets: &Secrets,
) -> Result<Value, CallFailure> {
    let mut missing = None;
    for place in places(named) {
        let server = web::Server {
            url: place.as_str(),
            reach: Reach::Named,
            headers: &agent.headers,
            told: Vec::new(),
            failed: Code::StartFailed,
            secrets,
        };
        let response = server.ask(clients, None).await?;
        let status = response.status();
        if let Some(busy) = web::busy_of(&response) {
            return Err(busy);
        }
        let body = server.read(response).await?;
        match serde_json::from_slice::<Value>(&body) {
            Ok(card) if status.is_success() && card.is_object() => return Ok(card),
            _ => missing = Some((status, body)),
        }
    }
    let what = "the agent's card cannot be read";
    let (status, body) = missing.unwrap_or_default();
    let begins = web::beginning(&body, secrets);
    let why = format!("its address answers {status} with what is no card: {begins:?}");
    Err(logged(Code::StartFailed, Outcome::NotStarted, what, why))
}

/// Where the card may lie: what ends with `.json` is the card itself, anything else the address of an agent, whose card lies at
/// a known path below it or at the top of its host.
fn places(named: &Url) -> Vec<Url> {
    if named.path().ends_with(".json") {
        return vec![named.clone()];
    }
    let mut places: Vec<Url> = Vec::new();
    for path in WELL_KNOWN {
        let own = format!("{}/{path}", named.path().trim_end_matches('/'));
        for path in [own, format!("/{path}")] {
            let mut place = named.clone();
            place.set_path(&path);
            if !places.contains(&place) {
                places.push(place);
            }
        }
    }
    places
}

impl Card {
    fn read(card: &Value, named: &Url) -> Result<Card, String> {
        let told = a2a_endpoints(card)?;
        let mut refused = None;
        let mut usable = Vec::new();
        for endpoint in told.iter().take(INTERFACES_MAX) {
            let Some((rank, binding, version)) = spoken(endpoint) else { continue };
            let url = named.join(&endpoint.address).map_err(|error| error.to_string());
            match url.and_then(|url| Ok((Reach::of(named, &url)?, url))) {
                Ok((reach, mut url)) => {
                    if reach == Reach::Named {
                        // A card names no user, and the operator's is the same on that machine.
                        let _of_http =
                            (url.set_username(named.username()), url.set_password(named.password()));
                    }
                    let tenant = endpoint.tenant.clone();
                    usable.push((rank, Interface { url, reach, binding, version, tenant }));
                }
                Err(why) => refused = Some(why),
            }
        }
        // Stable: of equal ones the card's order counts.
        usable.sort_by_key(|(rank, _)| *rank);
        let mut usable = usable.into_iter().map(|(_, interface)| interface);
        let Some(interface) = usable.next() else {
            let kinds: Vec<_> = told.iter().take(INTERFACES_MAX).map(|it| it.kind.as_str()).collect();
            let spoken = "this host speaks JSONRPC of 1.0 and 0.3, and HTTP+JSON of 1.0";
            return Err(refused.unwrap_or_else(|| format!("{spoken}; the card names {kinds:?}")));
        };
        let other = usable.find(|it| it.binding == Binding::JsonRpc && it.version != interface.version);
        let is_streaming = card["capabilities"]["streaming"] == true;
        Ok(Card { interface, other, is_streaming })
    }

    /// How the agent is asked if it does not speak the version that the card says; only JSON-RPC has two.
    pub(super) fn other_version(&self) -> Option<Interface> {
        if self.interface.binding != Binding::JsonRpc {
            return None;
        }
        let version = match self.interface.version {
            Version::V1 => Version::V03,
            Version::V03 => Version::V1,
        };
        Some(self.other.clone().unwrap_or_else(|| Interface { version, ..self.interface.clone() }))
    }
}

/// How an endpoint is spoken to, the best first: JSON-RPC of 1.0, of 0.3 or no version, then HTTP of 1.0.
fn spoken(endpoint: &crate::proto::card::Endpoint) -> Option<(u8, Binding, Version)> {
    let version = match endpoint.protocol_version.as_deref().map(|version| version.split('.').next()) {
        None | Some(Some("0")) => Version::V03,
        Some(Some("1")) => Version::V1,
        Some(_) => return None,
    };
    match (endpoint.kind.to_ascii_uppercase().as_str(), version) {
        ("JSONRPC", Version::V1) => Some((0, Binding::JsonRpc, version)),
        ("JSONRPC", Version::V03) => Some((1, Binding::JsonRpc, version)),
        ("HTTP+JSON", Version::V1) => Some((2, Binding::Rest, version)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn card(interfaces: &[(&str, &str, Option<&str>)]) -> Result<Card, String> {
        let interfaces: Vec<Value> = interfaces
            .iter()
            .map(|(url, binding, version)| {
                json!({"url": url, "protocolBinding": binding, "protocolVersion": version})
            })
            .collect();
        let named = Url::parse("https://a.example/agents/echo/card.json").unwrap();
        Card::read(&json!({"name": "Echo", "supportedInterfaces": interfaces}), &named)
    }

    fn chosen(interfaces: &[(&str, &str, Option<&str>)]) -> (String, Binding, Version) {
        let Interface { url, binding, version, .. } = card(interfaces).unwrap().interface;
        (url.to_string(), binding, version)
    }

    #[test]
    fn json_rpc_of_1_0_comes_first_then_0_3_then_http() {
        let (rpc, old, rest) = ("https://a.example/rpc", "https://a.example/old", "https://a.example/rest");
        let all = [
            ("https://a.example/grpc", "GRPC", Some("1.0")),
            (rest, "HTTP+JSON", Some("1.0")),
            (old, "JSONRPC", Some("0.3.0")),
            (rpc, "JSONRPC", Some("1.0")),
        ];
        assert_eq!(chosen(&all), (rpc.into(), Binding::JsonRpc, Version::V1));
        assert_eq!(card(&all).unwrap().other_version().unwrap().url.as_str(), old);
        assert_eq!(chosen(&all[..3]), (old.into(), Binding::JsonRpc, Version::V03));
        assert_eq!(card(&all[..3]).unwrap().other_version().unwrap().version, Version::V1);
        assert_eq!(chosen(&all[..2]), (rest.into(), Binding::Rest, Version::V1));
        assert_eq!(card(&all[..2]).unwrap().other_version(), None);
        assert!(card(&all[..1]).unwrap_err().contains("GRPC"));
        assert!(card(&[(rpc, "JSONRPC", Some("2.0"))]).is_err());
        assert_eq!(chosen(&[(rpc, "JSONRPC", None)]).2, Version::V03);
        assert_eq!(chosen(&[("../rpc", "jsonrpc", Some("1.0"))]).0, "https://a.example/agents/rpc");
    }

    #[test]
    fn a_card_of_0_3_is_asked_at_its_url() {
        let named = Url::parse("http://a.example/.well-known/agent-card.json").unwrap();
        let card = Card::read(&json!({"name": "Echo", "url": "http://a.example/"}), &named).unwrap();
        assert_eq!(
            (card.interface.version, card.interface.url.as_str()),
            (Version::V03, "http://a.example/")
        );
        for bad in [json!([]), json!({}), json!({"name": "Echo", "url": "file:///etc/passwd"})] {
            Card::read(&bad, &named).unwrap_err();
        }
    }

    #[test]
    fn an_interface_in_somebodys_own_network_is_passed_over() {
        let (own, other) = ("http://192.168.0.1/rpc", "https://b.example/rpc");
        assert!(card(&[(own, "JSONRPC", Some("1.0"))]).unwrap_err().contains("192.168.0.1"));
        let interface =
            card(&[(own, "JSONRPC", Some("1.0")), (other, "JSONRPC", Some("0.3"))]).unwrap().interface;
        assert_eq!((interface.url.as_str(), interface.reach), (other, Reach::Public));
    }

    #[test]
    fn a_card_lies_where_it_is_named_or_at_a_known_path_below_it() {
        let places = |named: &str| -> Vec<String> {
            places(&named.parse().unwrap()).iter().map(|it| it.path().to_owned()).collect()
        };
        assert_eq!(places("http://a.example/x/card.json?v=1"), ["/x/card.json"]);
        let top = ["/.well-known/agent-card.json", "/.well-known/agent.json"];
        assert_eq!(places("http://a.example"), top);
        let below = ["/x/.well-known/agent-card.json", top[0], "/x/.well-known/agent.json", top[1]];
        assert_eq!(places("http://a.example/x/?key=1"), below);
    }
}
