//! The files of a data directory: private to the user, replaced whole or not at all, set aside and never overwritten.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::row::MAC_KEY_BYTES;
use super::{StoreError, StoreIncident};
use crate::private_file::{self, FolderError};
use crate::proto::code::Code;

/// Name of the file that one process holds locked.
pub(super) const LOCK: &str = "lock";
/// How long a lock may linger before another process counts as its holder.
const LOCK_WAIT: Duration = Duration::from_millis(300);
/// Name of the file with the MAC key.
const MAC_KEY: &str = "seal.key";
/// How many damaged copies of one file or folder are kept: enough to look at, and the disk stays bounded.
const ASIDE_MAX: usize = 2;

/// The bytes of the file or the folder at `path`, with the folders in it; none where nothing is or it cannot be read.
pub(super) fn size(path: &Path) -> u64 {
    // Not through links: nothing that was not written here counts.
    let Ok(found) = fs::symlink_metadata(path) else { return 0 };
    if !found.is_dir() {
        return found.len();
    }
    fs::read_dir(path).map_or(0, |entries| entries.flatten().map(|entry| size(&entry.path())).sum())
}

/// Creates `dir` for this user alone if it is missing, and locks it for this process until the file is dropped.
pub(super) fn claim_dir(dir: &Path) -> Result<File, StoreError> {
    let refused = |source| StoreError::NotWritable { dir: dir.to_owned(), source };
    private_file::make_folder(dir).map_err(|error| match error {
        FolderError::Unmakeable(_, source) => refused(source),
        FolderError::Exposed(..) => StoreError::Exposed(error),
    })?;
    // Not truncated: until the lock is ours the number in it is that of its holder.
    let lock = dir.join(LOCK);
    let opened = private_file::private().read(true).write(true).create(true).truncate(false).open(&lock);
    let mut file = opened.map_err(|error| match private_file::is_link(&error) {
        true => StoreError::Link { path: lock },
        false => refused(error),
    })?;
    match lock_patiently(&file) {
        // On a full disk the number is missing, which only a second process would be told.
        Ok(()) => _ = write_pid(&mut file),
        Err(TryLockError::WouldBlock) => {
            return Err(StoreError::InUse { dir: dir.to_owned(), pid: read_pid(&mut file) });
        }
        Err(TryLockError::Error(source)) => return Err(refused(source)),
    }
    Ok(file)
}

/// Who uses a data folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// No process.
    Nobody,
    /// A process, of this number as far as the lock file tells.
    Process(Option<u32>),
}

/// Looks who uses the data folder `dir`, without making or keeping anything; none where there is no lock file.
///
/// # Errors
/// The lock file cannot be read.
pub fn holder(dir: &Path) -> io::Result<Option<Holder>> {
    let mut lock = match private_file::unlinked().read(true).open(dir.join(LOCK)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    // Shared, and let go at once: a node that starts at this moment waits for longer.
    match lock.try_lock_shared() {
        Ok(()) => Ok(Some(Holder::Nobody)),
        Err(TryLockError::WouldBlock) => Ok(Some(Holder::Process(read_pid(&mut lock)))),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Whether `file` is what lies at `path`: it was not removed, moved or replaced since it was opened.
#[cfg(unix)]
pub(super) fn is_named(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let place = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
    match (file.metadata(), fs::symlink_metadata(path)) {
        (Ok(open), Ok(named)) => place(open) == place(named),
        (_, Err(error)) => !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory),
        // A disk that does not answer is told by what is written to it.
        (Err(_), Ok(_)) => true,
    }
}

/// Elsewhere an open file keeps its name.
#[cfg(not(unix))]
pub(super) fn is_named(_file: &File, _path: &Path) -> bool {
    true
}

/// A program that this process is just starting holds a copy of the lock until it is a program of its own.
fn lock_patiently(file: &File) -> Result<(), TryLockError> {
    let started = Instant::now();
    loop {
        match file.try_lock() {
            Err(TryLockError::WouldBlock) if started.elapsed() < LOCK_WAIT => {
                std::thread::sleep(Duration::from_millis(10)); // the system offers no wait with an end
            }
            result => return result,
        }
    }
}

fn write_pid(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    writeln!(file, "{}", std::process::id())
}

fn read_pid(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.rewind().ok()?;
    // A number has ten digits at most; whatever else lies there is not read.
    file.take(16).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

/// What became of the MAC key.
pub(super) enum MacKey {
    /// Read from its file.
    Kept([u8; MAC_KEY_BYTES]),
    /// Made now, because there was none or it had a wrong size; not yet in its file.
    Made([u8; MAC_KEY_BYTES]),
}

/// Reads the MAC key, or makes one.
pub(super) fn load_mac_key(dir: &Path) -> Result<MacKey, StoreError> {
    match read_if_there(&dir.join(MAC_KEY))?.map(<[u8; MAC_KEY_BYTES]>::try_from) {
        Some(Ok(key)) => Ok(MacKey::Kept(key)),
        Some(Err(_)) | None => Ok(MacKey::Made(rand::random())),
    }
}

/// Whether the folder has a MAC key file of whatever content.
pub(super) fn has_mac_key(dir: &Path) -> bool {
    dir.join(MAC_KEY).exists()
}

/// Writes the MAC key to its file.
pub(super) fn save_mac_key(dir: &Path, key: &[u8; MAC_KEY_BYTES]) -> Result<(), StoreError> {
    let path = dir.join(MAC_KEY);
    let (mut file, new) = create_beside(&path)?;
    file.write_all(key).map_err(StoreError::io("write", &new))?;
    rename_synced(&file, &new, &path)?;
    sync_parent(&path)
}

/// The bytes of a file; `None` if there is none.
pub(super) fn read_if_there(path: &Path) -> Result<Option<Vec<u8>>, StoreError> {
    let read = private_file::private().read(true).open(path).and_then(|mut file| {
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map(|_| bytes)
    });
    match read {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(StoreError::io("read", path)(error)),
    }
}

/// Creates `PATH.new`, which will take the place of `path`. One left over by a crash is overwritten: it was never
/// read by anybody.
pub(super) fn create_beside(path: &Path) -> Result<(File, PathBuf), StoreError> {
    let new = beside(path);
    let file = private_file::private().write(true).create(true).truncate(true).open(&new);
    Ok((file.map_err(StoreError::io("create", &new))?, new))
}

/// Removes what [`create_beside`] made, if it can be.
pub(super) fn discard_beside(path: &Path) {
    let _ = fs::remove_file(beside(path)); // the next attempt overwrites it
}

fn beside(path: &Path) -> PathBuf {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    PathBuf::from(new)
}

/// Makes `new` durable and then the one under the name `path`: after a crash `path` is the old file or the new one. After
/// an error it is the old one.
pub(super) fn rename_synced(file: &File, new: &Path, path: &Path) -> Result<(), StoreError> {
    // Content before name: a rename that is durable first leaves an empty file after a crash.
    let renamed = file.sync_all().map_err(StoreError::io("sync", new));
    renamed.and_then(|()| fs::rename(new, path).map_err(StoreError::io("rename", new)))
}

/// Creates an empty file, durably.
pub(super) fn put_marker(path: &Path) -> Result<(), StoreError> {
    let file = private_file::private().write(true).create(true).truncate(true).open(path);
    file.and_then(|file| file.sync_all()).map_err(StoreError::io("create", path))?;
    sync_parent(path)
}

/// Removes a file, durably; none is fine.
pub(super) fn remove(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Ok(()) => sync_parent(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(StoreError::io("remove", path)(error)),
    }
}

/// Keeps a second name `NAME.damaged-N` of a file that will be replaced.
pub(super) fn keep_copy(path: &Path) -> Result<PathBuf, StoreError> {
    let aside = next_aside(path)?;
    // A link takes no space, and it keeps its content: the
    // file is replaced by a rename and never written to.
    let linked = fs::hard_link(path, &aside).or_else(|_| fs::copy(path, &aside).map(drop));
    linked.map_err(StoreError::io("copy", path))?;
    Ok(aside)
}

/// Moves a folder to `NAME.damaged-N`.
pub(super) fn set_aside(path: &Path) -> Result<PathBuf, StoreError> {
    let aside = next_aside(path)?;
    fs::rename(path, &aside).map_err(StoreError::io("rename", path))?;
    // Before a new folder takes the name, or a crash could leave the damaged one under it.
    sync_parent(path)?;
    Ok(aside)
}

/// The next free name, after the oldest are removed so that [`ASIDE_MAX`] remain with the new one.
fn next_aside(path: &Path) -> Result<PathBuf, StoreError> {
    let dir = path.parent().unwrap_or(path);
    let prefix = format!("{}.damaged-", path.file_name().unwrap_or_default().to_string_lossy());
    let mut taken: Vec<u64> = fs::read_dir(dir)
        .map_err(StoreError::io("read", dir))?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.strip_prefix(&prefix)?.parse().ok())
        .collect();
    taken.sort_unstable();
    // After the greatest and not into a gap, so that numbers tell which copy is the latest.
    let next = taken.last().map_or(1, |last| last.saturating_add(1));
    for old in taken.iter().rev().skip(ASIDE_MAX - 1) {
        let old = dir.join(format!("{prefix}{old}"));
        let removed = if old.is_dir() { fs::remove_dir_all(&old) } else { fs::remove_file(&old) };
        removed.map_err(StoreError::io("remove", &old))?;
    }
    Ok(dir.join(format!("{prefix}{next}")))
}

pub(super) fn sync_parent(path: &Path) -> Result<(), StoreError> {
    let dir = path.parent().unwrap_or(path);
    sync_dir(dir).map_err(StoreError::io("sync", dir))
}

/// A rename is durable once its directory is.
#[cfg(unix)]
fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Elsewhere directories cannot be opened as files; the file system orders renames itself.
#[cfg(not(unix))]
fn sync_dir(_dir: &Path) -> io::Result<()> {
    Ok(())
}

/// The incident of a lost MAC key.
pub(super) fn mac_key_lost(dir: &Path) -> StoreIncident {
    StoreIncident {
        code: Code::SealKeyLost,
        message: format!(
            "{} was missing or had a wrong size; a new key was made",
            dir.join(MAC_KEY).display()
        ),
        fix: "Nothing to do: every record is verified again by its signature; this start takes longer."
            .into(),
    }
}
