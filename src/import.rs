//! What other registries list, fetched over HTTP: registries of MCP servers, catalogues and registries of Agentic Resource
//! Discovery, directories of agents. This layer knows no node: it brings documents, and says where it stopped.
//!
//! A registry is read to its last page before anything is made of it: its pages lie in a [`Spool`] on disk until then, and one
//! page that fails lets all of them fall. Every page, list and wait is bounded. The address that the operator names may be
//! private; what it redirects to, or names, may not, but for its own origin (`fetch`).

mod catalog;
mod fetch;
mod pages;
mod spool;

use std::time::Duration;

use reqwest::Url;

pub use self::catalog::SkipReason;
use self::fetch::Fetcher;
pub use self::spool::{Spool, Spooled};
use crate::proto::import::ImportKind;
use crate::proto::time::Timestamp;

/// Pages of one reading: twice what the largest registry takes at a hundred documents a page.
pub const PAGES_MAX: usize = 4_000;
/// Documents of one reading: today's largest aggregators list 120,000 entries.
pub const DOCUMENTS_MAX: usize = 200_000;

/// What the operator named.
#[derive(Clone, Debug)]
pub struct Upstream {
    /// Where the registry is: its base, its list, or its catalogue.
    pub url: Url,
    /// What kind it is; none where its answers are to say.
    pub kind: Option<ImportKind>,
    /// Its list, as an earlier reading found it.
    pub list: Option<Url>,
    /// What each request to its origin carries: names and values.
    pub headers: Vec<(String, String)>,
    /// Only what changed since then is asked for, where the registry can tell.
    pub since: Option<Timestamp>,
}

/// What a reading has so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Pages that came.
    pub pages: usize,
    /// Documents that they brought.
    pub documents: usize,
}

/// A reading that ended well.
#[derive(Clone, Debug)]
pub struct Reading {
    /// What kind of registry it is.
    pub kind: ImportKind,
    /// Where its list is.
    pub list: Url,
    /// Pages and documents.
    pub progress: Progress,
    /// Entries that are no documents of agents, by reason.
    pub skipped: Vec<(SkipReason, usize)>,
}

/// Why a reading was given up. Nothing of it is used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failed {
    /// What, why, and what to do; no address and no header is in it.
    pub message: String,
    /// How long the registry asks to be left alone.
    pub retry_after: Option<Duration>,
    /// Whether another address of the registry may do.
    is_elsewhere: bool,
}

impl Failed {
    fn new(message: impl Into<String>) -> Failed {
        Failed { message: message.into(), retry_after: None, is_elsewhere: false }
    }

    fn elsewhere(self) -> Failed {
        Failed { is_elsewhere: true, ..self }
    }
}

/// Reads a registry to its end, into `spool`; `told` hears of each page.
///
/// # Errors
/// One page failed, or a limit was passed: nothing of what came is to be used.
pub async fn read(
    upstream: &Upstream,
    spool: &mut Spool,
    told: &(dyn Fn(Progress) + Sync),
) -> Result<Reading, Failed> {
    let fetcher = Fetcher::new(&upstream.url, &upstream.headers)?;
    let candidates = candidates(upstream);
    let mut tried = Vec::new();
    for (kind, list) in candidates {
        let read = match kind {
            ImportKind::Mcp => pages::read(&fetcher, &list, upstream.since, spool, told).await,
            ImportKind::Ard | ImportKind::Agents => catalog::read(&fetcher, kind, &list, spool, told).await,
        };
        match read {
            Ok((progress, skipped)) => return Ok(Reading { kind, list, progress, skipped }),
            Err(failed) if failed.is_elsewhere => tried.push((list, failed)),
            Err(failed) => return Err(failed),
        }
    }
    Err(match tried.pop() {
        Some((_, failed)) if tried.is_empty() => failed,
        _ => Failed::new(
            "nothing there answers as a registry of MCP servers (`/v0.1/servers`), a directory (`/v1/agents`), or a registry or \
             catalogue of ARD (`/agents`, `/.well-known/ard.json`); give the address of its list, or say its kind",
        ),
    })
}

/// Where a list may be, the likeliest first. An address that ends like one is one.
fn candidates(upstream: &Upstream) -> Vec<(ImportKind, Url)> {
    let Upstream { url, kind, list, .. } = upstream;
    if let (Some(kind), Some(list)) = (kind, list) {
        return vec![(*kind, list.clone())];
    }
    let path = url.path().trim_end_matches('/');
    let ends = |end: &str| path.ends_with(end);
    let exact = match () {
        () if ends("/servers") => Some(ImportKind::Mcp),
        () if ends("/v1/agents") => Some(ImportKind::Agents),
        () if ends("/agents") || ends(".json") => Some(ImportKind::Ard),
        () => None,
    };
    if let Some(exact) = exact {
        return vec![(kind.unwrap_or(exact), url.clone())];
    }
    let below = |kind, path: &str| {
        let mut base = url.clone();
        base.set_path(&format!("{}/{path}", url.path().trim_end_matches('/')));
        (kind, base)
    };
    let all = [
        below(ImportKind::Mcp, "v0.1/servers"),
        below(ImportKind::Mcp, "v0/servers"),
        below(ImportKind::Agents, "v1/agents"),
        below(ImportKind::Ard, "agents"),
        below(ImportKind::Ard, ".well-known/ard.json"),
        below(ImportKind::Ard, ".well-known/ai-catalog.json"),
    ];
    all.into_iter().filter(|(of, _)| kind.is_none_or(|kind| kind == *of)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_looked_for_below_the_address_unless_that_is_one() {
        let paths = |url: &str, kind| {
            let upstream =
                Upstream { url: url.parse().unwrap(), kind, list: None, headers: Vec::new(), since: None };
            let paths = candidates(&upstream).into_iter();
            paths.map(|(kind, url)| format!("{kind} {}", url.path())).collect::<Vec<_>>()
        };
        let all = paths("https://a.example/sub/", None);
        assert_eq!(all[0], "mcp /sub/v0.1/servers");
        assert_eq!(all.len(), 6);
        assert_eq!(paths("https://a.example", Some(ImportKind::Agents)), ["agents /v1/agents"]);
        for (url, found) in [
            ("https://a.example/v0.1/servers", "mcp /v0.1/servers"),
            ("https://a.example/v1/agents", "agents /v1/agents"),
            ("https://a.example/ard/agents", "ard /ard/agents"),
            ("https://a.example/.well-known/ard.json", "ard /.well-known/ard.json"),
        ] {
            assert_eq!(paths(url, None), [found]);
        }
        assert_eq!(paths("https://a.example/list.json", Some(ImportKind::Mcp)), ["mcp /list.json"]);
    }
}
