//! The imports of this node in memory and on disk: which registries, under which keys, and how far each was read. What they offer
//! stands in the registries of their zones; what is done for them is the handle's.
//!
//! The file has the seeds of their keys, so it is for this user alone, and an import is in it before its first record is signed.

mod writer;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use reqwest::Url;
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex as AsyncMutex, Notify};
use tokio_util::sync::CancellationToken;

pub(super) use self::writer::{Batch, Change, Writer};
use crate::api::{self, ImportRun};
use crate::private_file::{read_if_there, replace};
use crate::proto::identity::PeerKey;
use crate::proto::import::{ImportAuthor, ImportKind};
use crate::proto::name::ZoneName;
use crate::proto::time::Timestamp;

/// The file of a data folder.
const FILE: &str = "imports.json";
/// Imports of one node: each has twelve keys, and all that it offers is looked at every hour.
pub(super) const IMPORTS_MAX: usize = 32;
/// Largest file, bytes: as many imports as there may be, whose last readings have all their examples, take half of it.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Why the imports are not known. The file is as it was.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot read the imports in {path}: {why}; mend it, or remove it: what they offer then ends within a week, and \
     `aop import` begins anew under other keys",
    path = path.display()
)]
pub struct UnreadableImports {
    path: PathBuf,
    why: String,
}

/// The imports of a node. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Imports(Arc<Inner>);

#[derive(Default)]
struct Inner {
    all: Mutex<BTreeMap<String, Arc<Import>>>,
    /// The data folder and the network; none where nothing is kept.
    home: OnceLock<(PathBuf, String)>,
    /// One writer at a time, so that the file says what the last one did.
    writer: AsyncMutex<()>,
}

/// One of them.
pub(super) struct Import {
    pub(super) url: Url,
    /// Never empty, each once.
    pub(super) zones: Vec<ZoneName>,
    seed: [u8; 32],
    /// All that it may use, the first first.
    pub(super) keys: Vec<PeerKey>,
    state: Mutex<State>,
    /// Held by whoever writes for it.
    pub(super) author: Arc<AsyncMutex<ImportAuthor>>,
    /// Something is wanted of it.
    pub(super) wake: Notify,
    /// A reading under way is to end.
    pub(super) interrupted: Notify,
    /// It is gone.
    pub(super) removed: CancellationToken,
}

/// What changes of an import.
#[derive(Clone, Debug, Default)]
pub(super) struct State {
    pub(super) kind: Option<ImportKind>,
    pub(super) list: Option<Url>,
    /// The last change that was seen at the registry.
    pub(super) seen: Option<Timestamp>,
    /// Documents offered at the end of the last reading.
    pub(super) held: usize,
    pub(super) last: Option<ImportRun>,
    /// Under way, or wanted.
    pub(super) run: Option<ImportRun>,
    /// Readings of this run of the process.
    pub(super) runs: u64,
    pub(super) schedule: Option<Schedule>,
    /// When it is read next.
    pub(super) next: Option<Timestamp>,
}

/// How an import is repeated.
#[derive(Clone, Debug)]
pub(super) struct Schedule {
    pub(super) every: Duration,
    /// Names of headers, and of the variables that hold their values.
    pub(super) header_env: BTreeMap<String, String>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    imports: Vec<Row>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    url: String,
    zones: Vec<ZoneName>,
    /// Hexadecimal.
    seed: String,
    kind: Option<ImportKind>,
    list: Option<String>,
    seen: Option<Timestamp>,
    held: usize,
    last: Option<ImportRun>,
}

impl State {
    /// It is of this kind, if one is said: where it was another, nothing is known of it any more.
    pub(super) fn set_kind(&mut self, kind: Option<ImportKind>) {
        if kind.is_some() && kind != self.kind {
            (self.kind, self.list, self.seen) = (kind, None, None);
        }
    }
}

impl Import {
    fn new(url: Url, zones: Vec<ZoneName>, seed: [u8; 32], network: &str, state: State) -> Import {
        let author = ImportAuthor::new(network, seed, rand::random());
        Import {
            url,
            zones,
            seed,
            keys: author.keys().collect(),
            state: Mutex::new(state),
            author: Arc::new(AsyncMutex::new(author)),
            wake: Notify::new(),
            interrupted: Notify::new(),
            removed: CancellationToken::new(),
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        // Nobody leaves it half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the reading under way.
    pub(super) fn note(&self, change: impl FnOnce(&mut ImportRun)) {
        if let Some(run) = &mut self.state().run {
            change(run);
        }
    }

    /// As clients see it.
    pub(super) fn shown(&self) -> api::Import {
        let state = self.state().clone();
        api::Import {
            url: self.url.to_string(),
            zones: self.zones.iter().map(ToString::to_string).collect(),
            kind: state.kind,
            owner: self.keys[0].to_string(),
            every_s: state.schedule.map(|schedule| schedule.every.as_secs()),
            next_ms: state.next.map(|at| at.0),
            held: state.held,
            seen_ms: state.seen.map(|at| at.0),
            run: state.run,
            last: state.last,
        }
    }
}

impl Imports {
    /// Reads the imports of earlier runs, which are kept in this data folder from now on.
    pub(super) fn open(&self, folder: &Path, network: &str) -> Result<(), UnreadableImports> {
        let path = folder.join(FILE);
        let unreadable = |why: String| UnreadableImports { path: path.clone(), why };
        let text = read_if_there(&path, FILE_BYTES_MAX).map_err(|error| unreadable(error.to_string()))?;
        let Text { imports } = match text {
            None => Text::default(),
            Some(text) => serde_json::from_slice(&text).map_err(|error| unreadable(error.to_string()))?,
        };
        if imports.len() > IMPORTS_MAX {
            return Err(unreadable(format!("{} imports are more than {IMPORTS_MAX}", imports.len())));
        }
        for row in imports {
            let seed = data_encoding::HEXLOWER.decode(row.seed.as_bytes()).ok();
            let seed = seed.and_then(|seed| <[u8; 32]>::try_from(seed).ok());
            let seed = seed.ok_or_else(|| unreadable(format!("`seed` of {} is no key", row.url)))?;
            if row.zones.is_empty() {
                return Err(unreadable(format!("{} has no zone", row.url)));
            }
            let parse = |url: &str| Url::parse(url).map_err(|error| unreadable(format!("{url}: {error}")));
            let (url, list) = (parse(&row.url)?, row.list.as_deref().map(parse).transpose()?);
            let state = State {
                kind: row.kind,
                list,
                seen: row.seen,
                held: row.held,
                last: row.last,
                ..State::default()
            };
            let import = Import::new(url, row.zones, seed, network, state);
            self.all().insert(import.url.to_string(), Arc::new(import));
        }
        // A folder is opened once: at a second time it would be this one.
        _ = self.0.home.set((folder.to_path_buf(), network.to_owned()));
        Ok(())
    }

    /// Where its files lie; none where nothing is kept.
    pub(super) fn folder(&self) -> Option<&Path> {
        self.0.home.get().map(|(folder, _)| folder.as_path())
    }

    /// All of them, by address.
    pub(super) fn list(&self) -> Vec<Arc<Import>> {
        self.all().values().cloned().collect()
    }

    /// The import of a registry.
    pub(super) fn get(&self, url: &Url) -> Option<Arc<Import>> {
        self.all().get(url.as_str()).cloned()
    }

    /// A new import, whose keys are on disk when this returns.
    ///
    /// # Errors
    /// The disk, or nothing is kept; there is no import then.
    pub(super) async fn add(&self, url: Url, zones: Vec<ZoneName>) -> io::Result<Arc<Import>> {
        let no_folder = || io::Error::other("this node has no data folder");
        let (_, network) = self.0.home.get().ok_or_else(no_folder)?;
        let import = Arc::new(Import::new(url, zones, rand::random(), network, State::default()));
        let name = import.url.to_string();
        self.all().insert(name.clone(), import.clone());
        match self.keep().await {
            Ok(()) => Ok(import),
            Err(error) => {
                self.all().remove(&name);
                Err(error)
            }
        }
    }

    /// Forgets an import and its keys.
    ///
    /// # Errors
    /// The disk: the next start would know it again.
    pub(super) async fn remove(&self, import: &Import) -> io::Result<()> {
        self.all().remove(import.url.as_str());
        self.keep().await
    }

    /// Keeps all of them as they are now.
    ///
    /// # Errors
    /// The disk.
    pub(super) async fn keep(&self) -> io::Result<()> {
        let Some(folder) = self.folder() else { return Ok(()) };
        let _writer = self.0.writer.lock().await;
        let row = |import: Arc<Import>| {
            let state = import.state().clone();
            Row {
                url: import.url.to_string(),
                zones: import.zones.clone(),
                seed: data_encoding::HEXLOWER.encode(&import.seed),
                kind: state.kind,
                list: state.list.map(|list| list.to_string()),
                seen: state.seen,
                held: state.held,
                last: state.last,
            }
        };
        let text = Text { imports: self.list().into_iter().map(row).collect() };
        let text = serde_json::to_string(&text)? + "\n";
        let path = folder.join(FILE);
        tokio::task::spawn_blocking(move || replace(&path, text.as_bytes()))
            .await
            .map_err(io::Error::other)?
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Import>>> {
        self.0.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
