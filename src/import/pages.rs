//! A registry of MCP servers, page by page (<https://github.com/modelcontextprotocol/registry>, the reading API v0.1).
//!
//! All is asked for at first, of each server its latest version; then what changed since the last reading, deletions included.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use reqwest::Url;
use serde_json::Value;

use super::catalog::SkipReason;
use super::fetch::Fetcher;
use super::{DOCUMENTS_MAX, Failed, PAGES_MAX, Progress, Spool, Spooled};
use crate::proto::time::Timestamp;

/// Documents of a page: as many as registries give.
const PAGE: &str = "100";
/// So much earlier than the last change seen the next reading begins: clocks of a registry's machines differ.
const SINCE_MARGIN: Duration = Duration::from_secs(60);

pub(super) async fn read(
    fetcher: &Fetcher,
    list: &Url,
    since: Option<Timestamp>,
    spool: &mut Spool,
    told: &(dyn Fn(Progress) + Sync),
) -> Result<(Progress, Vec<(SkipReason, usize)>), Failed> {
    let mut question = list.clone();
    question.query_pairs_mut().append_pair("limit", PAGE);
    match since {
        Some(since) => question.query_pairs_mut().append_pair("updated_since", &date(since - SINCE_MARGIN)),
        None => question.query_pairs_mut().append_pair("version", "latest"),
    };
    let (mut progress, mut cursors, mut next) = (Progress::default(), BTreeSet::new(), None::<String>);
    loop {
        let mut url = question.clone();
        if let Some(cursor) = &next {
            url.query_pairs_mut().append_pair("cursor", cursor);
        }
        let page = fetcher.json(&url).await.map_err(|failed| within(failed, progress.pages))?;
        let (servers, cursor) = taken_apart(page).map_err(|failed| within(failed, progress.pages))?;
        put(spool, &servers, &mut progress)?;
        told(progress);
        let Some(cursor) = cursor else { return Ok((progress, Vec::new())) };
        if !cursors.insert(cursor.clone()) {
            return Err(Failed::new(
                "its pages lead in a circle: a cursor came twice; nothing of them is used",
            ));
        }
        next = Some(cursor);
    }
}

/// Keeps the documents of a page, within the limits of a reading.
pub(super) fn put(spool: &mut Spool, page: &[Spooled], progress: &mut Progress) -> Result<(), Failed> {
    progress.pages += 1;
    progress.documents += page.len();
    if progress.pages > PAGES_MAX || progress.documents > DOCUMENTS_MAX {
        return Err(Failed::new(format!(
            "it lists more than {DOCUMENTS_MAX} documents or {PAGES_MAX} pages, as many as are read; nothing of them is used"
        )));
    }
    spool.put(page).map_err(|error| Failed::new(format!("its pages cannot be kept: {error}")))
}

/// Another address is tried at the first page alone.
pub(super) fn within(failed: Failed, pages: usize) -> Failed {
    Failed {
        is_elsewhere: failed.is_elsewhere && pages == 0,
        message: format!("page {}: {}", pages + 1, failed.message),
        ..failed
    }
}

/// The servers of a page, and the cursor of the next.
fn taken_apart(page: Value) -> Result<(Vec<Spooled>, Option<String>), Failed> {
    let is_page = page.get("servers").is_some_and(Value::is_array);
    let Value::Object(mut page) = page else { return Err(no_page()) };
    let cursor = page.get("metadata").and_then(|metadata| {
        let cursor = metadata.get("nextCursor").or_else(|| metadata.get("next_cursor"));
        cursor.and_then(Value::as_str).filter(|cursor| !cursor.is_empty()).map(str::to_owned)
    });
    match page.remove("servers") {
        Some(Value::Array(servers)) if is_page => {
            Ok((servers.into_iter().map(|document| Spooled { document, agent: None }).collect(), cursor))
        }
        _ => Err(no_page()),
    }
}

fn no_page() -> Failed {
    Failed::new("it is no page of a registry of MCP servers, which has an array `servers`").elsewhere()
}

fn date(at: Timestamp) -> String {
    humantime::format_rfc3339_millis(SystemTime::UNIX_EPOCH + Duration::from_millis(at.0)).to_string()
}
