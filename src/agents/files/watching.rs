//! Changes in folders, as the system tells them: one watcher with one thread that sleeps until something happens.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use miette::Diagnostic;
use notify::event::{AccessKind, AccessMode, ModifyKind};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout, timeout_at};

use super::PathFlaw;

/// Events that wait to be looked at; beyond them the watcher waits, and the system keeps some thousand more.
const EVENTS_MAX: usize = 256;
/// A save is over when nothing happens for this long: editors write, rename and remove in a few milliseconds.
const QUIET: Duration = Duration::from_millis(100);
/// What changes all the time is read this often.
const BUSY_MAX: Duration = Duration::from_secs(1);

pub(super) struct Watching {
    /// None where the system has no watches left.
    watcher: Option<RecommendedWatcher>,
    events: mpsc::Receiver<Event>,
    folders: BTreeSet<PathBuf>,
}

impl Watching {
    pub(super) fn new(tell: &dyn Fn(&dyn Diagnostic)) -> Watching {
        let (sender, events) = mpsc::channel(EVENTS_MAX);
        let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            // A watcher that broke tells so by errors; a look at the folders then is all that can be done.
            let event = event.unwrap_or_else(|_| Event::new(EventKind::Other));
            if is_change(event.kind) {
                // Nobody listens after the end.
                let _ended = sender.blocking_send(event);
            }
        });
        let watcher = watcher.inspect_err(|error| tell(&not_watched(Path::new("."), error))).ok();
        Watching { watcher, events, folders: BTreeSet::new() }
    }

    /// Watches these folders and no others; whether one of them is new.
    pub(super) fn watch(&mut self, folders: &BTreeSet<PathBuf>) -> bool {
        let Some(watcher) = &mut self.watcher else { return false };
        for gone in self.folders.difference(folders) {
            // A folder that is gone is not watched any more.
            let _gone = watcher.unwatch(gone);
        }
        self.folders.retain(|folder| folders.contains(folder));
        let mut is_new = false;
        for folder in folders {
            if self.folders.contains(folder) {
                continue;
            }
            match watcher.watch(folder, RecursiveMode::NonRecursive) {
                Ok(()) => is_new = self.folders.insert(folder.clone()),
                Err(error) => tracing::warn!("{}", not_watched(folder, &error)),
            }
        }
        is_new
    }

    /// Waits for a change that matters to be over; false when there will be none.
    pub(super) async fn changed(&mut self, matters: impl Fn(&Path) -> bool) -> bool {
        loop {
            match self.events.recv().await {
                None => return false,
                Some(event) if self.take(&event, &matters) => break,
                Some(_) => {}
            }
        }
        let latest = Instant::now() + BUSY_MAX;
        while let Ok(Ok(Some(event))) = timeout_at(latest, timeout(QUIET, self.events.recv())).await {
            self.take(&event, &matters);
        }
        true
    }

    /// A folder that was removed or renamed must be watched anew, even if one of its name is there again.
    fn take(&mut self, event: &Event, matters: &impl Fn(&Path) -> bool) -> bool {
        if matches!(event.kind, EventKind::Remove(_) | EventKind::Modify(ModifyKind::Name(_))) {
            for path in &event.paths {
                if self.folders.remove(path)
                    && let Some(watcher) = &mut self.watcher
                {
                    let _gone = watcher.unwatch(path);
                }
            }
        }
        event.need_rescan() || event.paths.is_empty() || event.paths.iter().any(|path| matters(path))
    }
}

/// Reading is no change, and the end of writing is one.
fn is_change(kind: EventKind) -> bool {
    !matches!(kind, EventKind::Access(access) if access != AccessKind::Close(AccessMode::Write))
}

fn not_watched(path: &Path, error: &notify::Error) -> PathFlaw {
    let fix = "changes of agents' files take effect at the next start; raise the system's limit of watches \
               (`fs.inotify.max_user_watches`)";
    PathFlaw { path: path.into(), problem: format!("cannot be watched: {error}"), fix: fix.into() }
}
