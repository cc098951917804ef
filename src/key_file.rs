//! Key files: the hex seed of an Ed25519 key, readable by its owner only.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER_PERMISSIVE;

use crate::private_file::{SecretError, read_secret};
use crate::proto::identity::Identity;

/// Why there is no key. Unless the variant says otherwise nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// There is no such file.
    #[error("there is no key {path}: check the path, or make one with `aop keys new --out {path}`", path = .0.display())]
    Missing(PathBuf),
    /// The file cannot be read.
    #[error(
        "cannot read the key {path}: {1}; run `chmod 600 {path}` as its owner, or give another",
        path = .0.display()
    )]
    Unreadable(PathBuf, io::Error),
    /// Others may read it.
    #[error("others can read the key {path} (mode {1:03o}): run `chmod 600 {path}`", path = .0.display())]
    Exposed(PathBuf, u32),
    /// It is no key.
    #[error(
        "{path} holds no key: expected 64 hex digits; put the right file there, or move it away to become a new node",
        path = .0.display()
    )]
    Malformed(PathBuf),
    /// A key must not be overwritten: whoever loses it loses its names.
    #[error("{path} exists already: choose another file with --out", path = .0.display())]
    Exists(PathBuf),
    /// The file cannot be written.
    #[error("cannot write the key {path}: {1}; check that the folder exists and has room", path = .0.display())]
    Unwritable(PathBuf, io::Error),
}

/// Reads a key file; refuses one that others can read.
pub fn read_key(path: &Path) -> Result<Identity, KeyError> {
    let malformed = || KeyError::Malformed(path.into());
    let bytes = read_secret(path).map_err(|error| match error {
        SecretError::Unreadable(error) if error.kind() == io::ErrorKind::NotFound => {
            KeyError::Missing(path.into())
        }
        SecretError::Unreadable(error) => KeyError::Unreadable(path.into(), error),
        SecretError::Exposed(mode) => KeyError::Exposed(path.into(), mode),
    })?;
    // Editors end a file with a line break; nothing else is forgiven.
    let seed = HEXLOWER_PERMISSIVE.decode(bytes.trim_ascii()).map_err(|_| malformed())?;
    Ok(Identity::from_seed(seed.try_into().map_err(|_| malformed())?))
}

/// Makes a new key and its file; fails if the file exists.
pub fn create_key(path: &Path) -> Result<Identity, KeyError> {
    let identity = Identity::from_seed(rand::random());
    let unwritable = |error: io::Error| match error.kind() {
        io::ErrorKind::AlreadyExists => KeyError::Exists(path.into()),
        _ => KeyError::Unwritable(path.into(), error),
    };
    // Made beside its target, because a rename does not cross file systems.
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // Whole or not at all: a crash must not leave half a key. Such files have mode 0600 from the start.
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(unwritable)?;
    let line = format!("{}\n", HEXLOWER_PERMISSIVE.encode(&identity.seed()));
    // On the disk before it has its name: a key that peers have seen must not be lost with the power.
    file.write_all(line.as_bytes()).and_then(|()| file.as_file().sync_all()).map_err(unwritable)?;
    // Refused even in a race: two starts at once must not replace each other's key.
    file.persist_noclobber(path).map_err(|refused| unwritable(refused.error))?;
    Ok(identity)
}

/// The key in `path`, made at the first use, and whether this was that.
pub fn read_or_create_key(path: &Path) -> Result<(Identity, bool), KeyError> {
    match read_key(path) {
        // Only where there is no file: a damaged or exposed key must not turn into a new node in silence.
        Err(KeyError::Missing(_)) => create_key(path).map(|identity| (identity, true)),
        read => read.map(|identity| (identity, false)),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_key_is_made_once_and_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("node.key");
        let (made, is_new) = read_or_create_key(&path).unwrap();
        let (read, is_new_again) = read_or_create_key(&path).unwrap();
        assert_eq!((read.key(), is_new, is_new_again), (made.key(), true, false));
        let made = made.key();
        assert!(matches!(create_key(&path), Err(KeyError::Exists(_))));
        assert_eq!(read_key(&path).unwrap().key(), made, "a refused overwrite leaves the key");
    }

    #[cfg(unix)]
    #[test]
    fn a_key_that_others_can_read_is_refused_with_the_command_that_helps() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("node.key");
        create_key(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        for mode in [0o640, 0o604, 0o644] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let message = read_or_create_key(&path).unwrap_err().to_string();
            assert!(message.contains(&format!("chmod 600 {}", path.display())), "{message}");
        }
    }

    #[test]
    fn half_a_key_is_refused_and_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("node.key");
        create_key(&path).unwrap();
        fs::write(&path, "abcd").unwrap();
        assert!(matches!(read_or_create_key(&path), Err(KeyError::Malformed(_))));
        assert_eq!(fs::read(&path).unwrap(), b"abcd");
    }
}
