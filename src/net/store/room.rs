//! How much room the disk has, and which failures mean that it has none.

use std::io::ErrorKind;
use std::path::Path;

/// Free bytes below which sled is told nothing and rows of others are not kept: what waits for sled (32 MiB) still fits, and
/// as much again is left for own writes and for what the next start writes before it can read.
pub const FLOOR_BYTES: u64 = 64 * 1024 * 1024;
/// Free bytes above the floor from which on room counts as ample again: writing what was put off must not end it at once.
const SLACK_BYTES: u64 = 16 * 1024 * 1024;

/// What the file system of a folder has free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Room {
    /// Bytes, as far as the system tells.
    free: Option<u64>,
    short: bool,
}

impl Room {
    /// Looks.
    pub(super) fn of(folder: &Path) -> Room {
        let free = free_bytes(folder);
        Room { free, short: free.is_some_and(|free| free < FLOOR_BYTES) }
    }

    /// Looks again.
    pub(super) fn look(&mut self, folder: &Path) {
        let free = free_bytes(folder);
        *self = self.after(free);
    }

    fn after(self, free: Option<u64>) -> Room {
        let floor = if self.short { FLOOR_BYTES + SLACK_BYTES } else { FLOOR_BYTES };
        Room { free, short: free.is_some_and(|free| free < floor) }
    }

    /// Whether what is left is kept for own writes.
    pub(super) fn is_short(self) -> bool {
        self.short
    }
}

impl std::fmt::Display for Room {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mib = |bytes: u64| bytes / (1024 * 1024);
        let free = mib(self.free.unwrap_or_default());
        write!(
            f,
            "{free} MiB are free, and records of others are kept from {} MiB on",
            mib(FLOOR_BYTES + SLACK_BYTES)
        )
    }
}

/// Whether a failure means that there is no room, and not that something is damaged.
pub(super) fn is_no_room(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::StorageFull
            | ErrorKind::QuotaExceeded
            | ErrorKind::FileTooLarge
            | ErrorKind::ReadOnlyFilesystem
    )
}

/// What everybody may write where `folder` lies, bytes; none where the system does not tell.
#[cfg(unix)]
pub fn free_bytes(folder: &Path) -> Option<u64> {
    let told = rustix::fs::statvfs(folder).ok()?;
    // The rest is for the administrator alone.
    Some(told.f_bavail.saturating_mul(told.f_frsize))
}

/// Elsewhere room counts as ample until a write fails.
#[cfg(not(unix))]
pub fn free_bytes(_folder: &Path) -> Option<u64> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_short_below_the_floor_and_ample_again_only_with_some_slack() {
        let ample = Room { free: None, short: false };
        let at = |room: Room, free: u64| room.after(Some(free));
        assert!(!ample.after(None).is_short(), "where nothing is told nothing is held back");
        assert!(!at(ample, FLOOR_BYTES).is_short());
        let short = at(ample, FLOOR_BYTES - 1);
        assert!(short.is_short());
        assert!(at(short, FLOOR_BYTES + SLACK_BYTES - 1).is_short());
        assert!(!at(short, FLOOR_BYTES + SLACK_BYTES).is_short());
        assert_eq!(short.to_string(), "63 MiB are free, and records of others are kept from 80 MiB on");
    }

    #[test]
    fn the_room_of_a_folder_is_what_its_file_system_tells() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Room::of(dir.path()).free.is_some(), cfg!(unix));
    }
}
