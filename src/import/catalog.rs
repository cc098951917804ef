//! Catalogues whose entries carry or name documents: a manifest (`ard.json`, `ai-catalog.json`) or the list of a registry of
//! Agentic Resource Discovery, and the list of a directory of agents.
//!
//! An entry has its document as `data`, or names it as `url`. Entries of other kinds, such as catalogues within, are counted.

use std::collections::{BTreeMap, BTreeSet};

use futures::StreamExt;
use futures::stream;
use reqwest::Url;
use serde_json::{Map, Value};

use super::fetch::Fetcher;
use super::pages::{put, within};
use super::{Failed, Progress, Spool, Spooled};
use crate::proto::import::ImportKind;

/// Largest document that an entry names, bytes: a record has no room for more than a twentieth.
const DOCUMENT_BYTES_MAX: usize = 1024 * 1024;
/// Documents of one reading that are fetched one by one.
const FETCHES_MAX: usize = 2_000;
/// And at once.
const FETCHES_AT_ONCE: usize = 8;
/// Kinds of documents that are read, as media types name them.
const READ: [&str; 4] = ["mcp-server", "a2a-agent-card", "agent-card", "oasf"];

/// Why an entry of a catalogue brought no document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SkipReason {
    /// It is of another kind, such as a catalogue or a skill.
    OtherType,
    /// It has neither a document nor a usable address of one.
    NoDocument,
    /// Its document could not be fetched.
    NotFetched,
    /// It is one of more than are fetched.
    TooMany,
}

impl SkipReason {
    /// As it is told.
    pub fn text(self) -> &'static str {
        match self {
            SkipReason::OtherType => "other_type",
            SkipReason::NoDocument => "no_document",
            SkipReason::NotFetched => "not_fetched",
            SkipReason::TooMany => "too_many",
        }
    }
}

/// What an entry is.
enum Entry {
    Document(Spooled),
    At(Url, Option<String>),
    Skipped(SkipReason),
}

pub(super) async fn read(
    fetcher: &Fetcher,
    kind: ImportKind,
    list: &Url,
    spool: &mut Spool,
    told: &(dyn Fn(Progress) + Sync),
) -> Result<(Progress, Vec<(SkipReason, usize)>), Failed> {
    let (size, token) = match kind {
        ImportKind::Agents => ("page_size", "page_token"),
        ImportKind::Ard | ImportKind::Mcp => ("pageSize", "pageToken"),
    };
    let is_file = list.path().ends_with(".json");
    let (mut progress, mut tokens, mut next) = (Progress::default(), BTreeSet::new(), None::<String>);
    let (mut skipped, mut fetches) = (BTreeMap::new(), FETCHES_MAX);
    loop {
        let mut url = list.clone();
        if !is_file {
            url.query_pairs_mut().append_pair(size, "100");
        }
        if let Some(next) = &next {
            url.query_pairs_mut().append_pair(token, next);
        }
        let page = fetcher.json(&url).await.map_err(|failed| within(failed, progress.pages))?;
        let (entries, following) = taken_apart(page).map_err(|failed| within(failed, progress.pages))?;
        let documents = documents(fetcher, list, &entries, &mut skipped, &mut fetches).await;
        put(spool, &documents, &mut progress)?;
        told(progress);
        let Some(following) = following.filter(|_| !is_file) else {
            return Ok((progress, skipped.into_iter().collect()));
        };
        if !tokens.insert(following.clone()) {
            return Err(Failed::new(
                "its pages lead in a circle: a token came twice; nothing of them is used",
            ));
        }
        next = Some(following);
    }
}

/// The entries of a page, and the token of the next.
fn taken_apart(page: Value) -> Result<(Vec<Value>, Option<String>), Failed> {
    let no_page =
        || Failed::new("it is no catalogue, which has an array `entries`, `items` or `results`").elsewhere();
    let Value::Object(mut page) = page else { return Err(no_page()) };
    let token = ["pageToken", "nextPageToken", "next_page_token"].into_iter().find_map(|key| page.get(key));
    let token = token.and_then(Value::as_str).filter(|token| !token.is_empty()).map(str::to_owned);
    let entries = ["entries", "items", "results"].into_iter().find_map(|key| page.remove(key));
    match entries {
        // Lists of other kinds look alike but for what is in them.
        Some(Value::Array(entries))
            if entries.is_empty() || entries.iter().any(|entry| entry.get("identifier").is_some()) =>
        {
            Ok((entries, token))
        }
        _ => Err(no_page()),
    }
}

/// The documents of entries, those that they name fetched.
async fn documents(
    fetcher: &Fetcher,
    list: &Url,
    entries: &[Value],
    skipped: &mut BTreeMap<SkipReason, usize>,
    fetches: &mut usize,
) -> Vec<Spooled> {
    let (mut documents, mut named) = (Vec::new(), Vec::new());
    for entry in entries {
        match Entry::read(entry, list) {
            Entry::Document(document) => documents.push(document),
            Entry::At(..) if *fetches == 0 => *skipped.entry(SkipReason::TooMany).or_default() += 1,
            Entry::At(url, agent) => {
                *fetches -= 1;
                named.push((url, agent));
            }
            Entry::Skipped(reason) => *skipped.entry(reason).or_default() += 1,
        }
    }
    let fetch = async |(url, agent): (Url, Option<String>)| {
        let fetched = fetcher.json_within(&url, DOCUMENT_BYTES_MAX).await;
        fetched.ok().map(|document| Spooled { document, agent })
    };
    let fetched: Vec<_> = stream::iter(named).map(fetch).buffered(FETCHES_AT_ONCE).collect().await;
    for fetched in fetched {
        match fetched {
            Some(document) => documents.push(document),
            None => *skipped.entry(SkipReason::NotFetched).or_default() += 1,
        }
    }
    documents
}

impl Entry {
    fn read(entry: &Value, list: &Url) -> Entry {
        let Value::Object(entry) = entry else { return Entry::Skipped(SkipReason::NoDocument) };
        let text = |key: &str| entry.get(key).and_then(Value::as_str);
        let media_type = ["type", "mediaType", "media_type"].into_iter().find_map(text).unwrap_or_default();
        if !READ.iter().any(|kind| media_type.contains(kind)) {
            return Entry::Skipped(SkipReason::OtherType);
        }
        let agent = entry.get("metadata").and_then(|metadata| metadata.get("aopId")).and_then(Value::as_str);
        let agent = agent.map(str::to_owned);
        match (entry.get("data"), text("url")) {
            (Some(document @ Value::Object(_)), _) => {
                Entry::Document(Spooled { document: document.clone(), agent })
            }
            (_, Some(url)) => match list.join(url) {
                Ok(url) => Entry::At(url, agent),
                Err(_) => Entry::Skipped(SkipReason::NoDocument),
            },
            (_, None) => exported(entry, list)
                .map_or(Entry::Skipped(SkipReason::NoDocument), |url| Entry::At(url, agent)),
        }
    }
}

/// Where a directory gives the whole record of an entry.
fn exported(entry: &Map<String, Value>, list: &Url) -> Option<Url> {
    let cid = entry.get("cid").or_else(|| entry.get("metadata")?.get("cid"))?.as_str()?;
    let mut url = list.clone();
    url.path_segments_mut().ok()?.pop_if_empty().extend([cid, "export"]);
    url.set_query(Some("format=oasf"));
    Some(url)
}
