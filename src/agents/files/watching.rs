//! Changes in folders, as the system tells them: one watcher with one thread that sleeps until something happens.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use miette::Diagnostic;
use notify::event::{AccessKind, AccessMode, ModifyKind};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout, timeout_at};

use super::PathDiagnostic;

/// Events that wait to be looked at; of more only that there were some is known, and everything is looked at. The watcher
/// must not wait: it answers whoever watches a folder anew.
const EVENTS_MAX: usize = 256;
/// A save is over when nothing happens for this long: editors write, rename and remove in a few milliseconds.
const QUIET: Duration = Duration::from_millis(100);
/// What changes all the time is read this often.
const BUSY_MAX: Duration = Duration::from_secs(1);

pub(super) struct Watching {
    /// None where the system has no watches left.
    watcher: Option<RecommendedWatcher>,
    events: mpsc::Receiver<Event>,
    missed: Arc<AtomicBool>,
    folders: BTreeSet<PathBuf>,
}

impl Watching {
    pub(super) fn new(report: &dyn Fn(&dyn Diagnostic)) -> Watching {
        let (sender, events) = mpsc::channel(EVENTS_MAX);
        let missed = Arc::new(AtomicBool::new(false));
        let misses = missed.clone();
        let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            // A watcher that broke tells so by errors; a look at the folders then is all that can be done.
            let event = event.unwrap_or_else(|_| Event::new(EventKind::Other));
            if is_change(event.kind) && sender.try_send(event).is_err() {
                // The channel is full, so an event that leads to a look at this is still to be taken.
                misses.store(true, Ordering::Release);
            }
        });
        let watcher = watcher.inspect_err(|error| report(&not_watched(Path::new("."), error))).ok();
        Watching { watcher, events, missed, folders: BTreeSet::new() }
    }

    /// Watches these folders and no others; whether one of them is new.
    pub(super) fn watch(&mut self, folders: &BTreeSet<PathBuf>) -> bool {
        self.leave(|folder| !folders.contains(folder));
        let Some(watcher) = &mut self.watcher else { return false };
        let mut is_new = false;
        for folder in folders {
            if self.folders.contains(folder) {
                continue;
            }
            match watcher.watch(folder, RecursiveMode::NonRecursive) {
                Ok(()) => is_new = self.folders.insert(folder.clone()),
                // Not entered, so that it is tried again at the next look.
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
        // A save is several events; reading at the first would find half a file.
        let latest = Instant::now() + BUSY_MAX;
        while let Ok(Ok(Some(event))) = timeout_at(latest, timeout(QUIET, self.events.recv())).await {
            self.take(&event, &matters);
        }
        true
    }

    /// A folder that was removed or renamed must be watched anew, even if one of its name is there again. After events
    /// that were missed, that may be any.
    fn take(&mut self, event: &Event, matters: &impl Fn(&Path) -> bool) -> bool {
        let missed = self.missed.swap(false, Ordering::AcqRel);
        if missed {
            self.leave(|_| true);
        } else if matches!(event.kind, EventKind::Remove(_) | EventKind::Modify(ModifyKind::Name(_))) {
            self.leave(|folder| event.paths.contains(folder));
        }
        missed
            || event.need_rescan()
            || event.paths.is_empty()
            || event.paths.iter().any(|path| matters(path))
    }

    fn leave(&mut self, which: impl Fn(&PathBuf) -> bool) {
        let left: Vec<PathBuf> = self.folders.extract_if(.., |folder| which(folder)).collect();
        let Some(watcher) = &mut self.watcher else { return };
        for folder in left {
            // A folder that is gone is not watched any more.
            let _ = watcher.unwatch(&folder);
        }
    }
}

/// Reading is no change, and the end of writing is one.
fn is_change(kind: EventKind) -> bool {
    !matches!(kind, EventKind::Access(access) if access != AccessKind::Close(AccessMode::Write))
}

fn not_watched(path: &Path, error: &notify::Error) -> PathDiagnostic {
    let fix = "changes of agents' files take effect at the next start; raise the system's limit of watches \
               (`fs.inotify.max_user_watches`)";
    PathDiagnostic { path: path.into(), problem: format!("cannot be watched: {error}"), fix: fix.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_flood_of_changes_holds_up_nobody_and_has_everything_looked_at() {
        let (flooded, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut watching = Watching::new(&|diagnostic| panic!("{diagnostic}"));
        let mut folders = BTreeSet::from([flooded.path().to_path_buf()]);
        assert!(watching.watch(&folders));
        let mut written = 0;
        while !watching.missed.load(Ordering::Acquire) {
            std::fs::write(flooded.path().join(written.to_string()), "x").unwrap();
            written += 1;
            assert!(written < 100_000, "no event was missed");
        }
        folders.insert(other.path().into());
        let watched = tokio::task::spawn_blocking(move || (watching.watch(&folders), watching));
        let (is_new, mut watching) = timeout(Duration::from_secs(30), watched).await.unwrap().unwrap();
        assert!(is_new);
        assert!(watching.changed(|_| false).await, "nothing that is known of matters, but some is not known");
        assert!(watching.watch(&BTreeSet::from([flooded.path().into()])), "watched anew");
    }
}
