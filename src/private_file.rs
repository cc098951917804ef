//! Files and folders that are for one user alone: how they are made, and refused where others have a hand in them.
//!
//! No link is followed where this program chose the name: whoever could plant one would have it read, or cut off, another file.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// Longest secret that is read, bytes: keys and tokens are far shorter, and what is longer is the wrong file.
const SECRET_BYTES_MAX: u64 = 64 * 1024;

/// Why a secret was not read.
#[derive(Debug)]
pub(crate) enum SecretError {
    /// The system does not let us.
    Unreadable(io::Error),
    /// Others can read it; these are its permission bits.
    Exposed(u32),
}

/// Why a folder is no place for what must not be changed by others. Nothing was changed but that it may have been made.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// It cannot be made or looked at.
    #[error("cannot make the data folder {path}: {1}; give another with --data-dir DIR", path = .0.display())]
    Unmakeable(PathBuf, io::Error),
    /// Others can write to it.
    #[error("others can write to the data folder {path} (mode {1:03o}): run `chmod 700 {path}`", path = .0.display())]
    Exposed(PathBuf, u32),
}

/// The bytes of a file that only its owner may read; of one that root gave to a group of this process, too.
pub(crate) fn read_secret(path: &Path) -> Result<Vec<u8>, SecretError> {
    // Opened once: what is judged is what is read. Links are followed: the operator chose the name.
    let file = File::open(path).map_err(SecretError::Unreadable)?;
    // The mode before the content: a secret that others may have read is refused unread.
    let metadata = file.metadata().map_err(SecretError::Unreadable)?;
    if let Some(mode) = mode_within(&metadata, bits_of_others(&metadata)) {
        return Err(SecretError::Exposed(mode));
    }
    let mut bytes = Vec::new();
    file.take(SECRET_BYTES_MAX).read_to_end(&mut bytes).map_err(SecretError::Unreadable)?;
    Ok(bytes)
}

/// Makes a folder for this user alone, if it is missing; refuses one that others can write to.
pub(crate) fn make_folder(path: &Path) -> Result<(), FolderError> {
    let unmakeable = |error| FolderError::Unmakeable(path.into(), error);
    private_folder().recursive(true).create(path).map_err(unmakeable)?;
    check_folder(path, &fs::metadata(path).map_err(unmakeable)?)
}

/// Refuses a folder that others can write to.
pub(crate) fn check_folder(path: &Path, folder: &Metadata) -> Result<(), FolderError> {
    match mode_within(folder, 0o022) {
        Some(mode) => Err(FolderError::Exposed(path.into(), mode)),
        None => Ok(()),
    }
}

/// The permission bits that a secret must not have.
#[cfg(unix)]
fn bits_of_others(metadata: &Metadata) -> u32 {
    use std::os::unix::fs::MetadataExt;
    forbidden_bits(metadata.uid(), rustix::process::geteuid().as_raw())
}

#[cfg(not(unix))]
fn bits_of_others(_: &Metadata) -> u32 {
    0
}

/// The same by who owns the file and who reads it. Secrets of systemd and Kubernetes are root's, and a group's to read: no other
/// way leads to the user that they are for.
#[cfg(unix)]
fn forbidden_bits(owner: u32, reader: u32) -> u32 {
    if owner == 0 && reader != 0 { 0o037 } else { 0o077 }
}

/// The permission bits, if they have some of these.
#[cfg(unix)]
fn mode_within(metadata: &Metadata, bits: u32) -> Option<u32> {
    let mode = std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o777;
    (mode & bits != 0).then_some(mode)
}

/// Elsewhere access is judged by lists that this program does not read.
#[cfg(not(unix))]
fn mode_within(_: &Metadata, _: u32) -> Option<u32> {
    None
}

#[cfg(unix)]
fn private_folder() -> DirBuilder {
    let mut builder = DirBuilder::new();
    // Private from the start: a folder that is narrowed afterwards was open for a moment.
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder
}

#[cfg(not(unix))]
fn private_folder() -> DirBuilder {
    DirBuilder::new()
}

/// How a file is opened, or made for this user alone, where no link is followed.
#[cfg(unix)]
pub(crate) fn private() -> OpenOptions {
    let mut options = unlinked();
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

/// Where files have no modes, the folder protects them.
#[cfg(not(unix))]
pub(crate) fn private() -> OpenOptions {
    unlinked()
}

/// How a file is opened, or made for everybody to read, where no link is followed.
#[cfg(unix)]
pub(crate) fn unlinked() -> OpenOptions {
    let mut options = OpenOptions::new();
    let no_link = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
    std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, no_link);
    options
}

#[cfg(not(unix))]
pub(crate) fn unlinked() -> OpenOptions {
    OpenOptions::new()
}

/// Replaces a file whole or not at all; it is on the disk under its name when this returns.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().ok_or(io::ErrorKind::NotFound)?;
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(bytes)?;
    // The content before the name, and the name before anybody is told.
    file.as_file().sync_all()?;
    file.persist(path)?;
    sync_folder(folder)
}

#[cfg(unix)]
fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Where folders cannot be opened, names are the system's to keep.
#[cfg(not(unix))]
fn sync_folder(_: &Path) -> io::Result<()> {
    Ok(())
}

/// Whether a file was not opened because it is a link.
#[cfg(unix)]
pub(crate) fn is_link(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error())
}

#[cfg(not(unix))]
pub(crate) fn is_link(_: &io::Error) -> bool {
    false
}

/// At most `bytes_max` bytes of a file that is no link; none where there is none.
///
/// # Errors
/// It cannot be read.
pub(crate) fn read_if_there(path: &Path, bytes_max: u64) -> io::Result<Option<Vec<u8>>> {
    let file = match unlinked().read(true).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    let mut text = Vec::new();
    file.take(bytes_max).read_to_end(&mut text)?;
    Ok(Some(text))
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("an own file");
    }

    #[test]
    fn a_secret_is_read_only_where_nobody_else_can_read_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        fs::write(&path, "abc").unwrap();
        for (mode, refused) in [(0o600, false), (0o400, false), (0o640, true), (0o604, true), (0o620, true)] {
            set_mode(&path, mode);
            match read_secret(&path) {
                Ok(bytes) => assert!(!refused && bytes == b"abc", "{mode:o}"),
                Err(SecretError::Exposed(told)) => assert!(refused && told == mode, "{mode:o}"),
                Err(SecretError::Unreadable(error)) => panic!("{error}"),
            }
        }
    }

    #[test]
    fn what_root_gave_to_a_group_is_read_and_nothing_else_that_a_group_reads() {
        let (root, node, other) = (0, 65_532, 1_000);
        assert_eq!(forbidden_bits(root, node) & 0o440, 0);
        for bit in [0o020, 0o004, 0o002, 0o001] {
            assert_ne!(forbidden_bits(root, node) & bit, 0, "{bit:o}");
        }
        for (owner, reader) in [(root, root), (node, node), (other, node), (other, root)] {
            assert_eq!(forbidden_bits(owner, reader), 0o077, "{owner} {reader}");
        }
    }

    #[test]
    fn a_folder_that_others_can_write_to_is_refused_with_the_command_that_helps() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/data");
        make_folder(&path).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o700);
        for (mode, refused) in [(0o755, false), (0o750, false), (0o775, true), (0o702, true), (0o777, true)] {
            set_mode(&path, mode);
            let made = make_folder(&path);
            assert_eq!(made.is_err(), refused, "{mode:o}");
            if let Err(error) = made {
                assert!(error.to_string().contains(&format!("chmod 700 {}", path.display())), "{error}");
            }
        }
    }

    #[test]
    fn no_link_is_opened_cut_off_or_written_through() {
        let folder = tempfile::tempdir().unwrap();
        let (precious, link) = (folder.path().join("precious"), folder.path().join("link"));
        fs::write(&precious, "precious").unwrap();
        symlink(&precious, &link).unwrap();
        for options in [private(), unlinked()] {
            let mut options = options;
            let opened = options.read(true).write(true).create(true).truncate(true).open(&link);
            assert!(is_link(&opened.unwrap_err()));
        }
        assert_eq!(fs::read(&precious).unwrap(), b"precious");
    }
}
