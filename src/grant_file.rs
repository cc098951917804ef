//! Grant files: the lines that `aop keys grant` and `aop zone delegate` print, one signed grant in base64 each, in the order in
//! which they lead from whoever gives to whoever writes.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use data_encoding::BASE64;

use crate::proto::grant::{Grant, GrantError};
use crate::proto::limits::GRANTS_MAX;

/// Longest file that is read, bytes: a chain has a few KiB, and what is longer is the wrong file.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// Why a file holds no grants.
#[derive(Debug, thiserror::Error)]
pub enum NoGrants {
    /// It cannot be read.
    #[error("{0}")]
    Unreadable(#[from] io::Error),
    /// None, or more than a chain has.
    #[error("{0} grants, where 1 to {GRANTS_MAX} make a chain")]
    Count(usize),
    /// A line, from 1, that is no base64.
    #[error("line {0} is not base64")]
    NotBase64(usize),
    /// A line, from 1, that is none.
    #[error("line {0}: {1}")]
    NotGrant(usize, GrantError),
}

/// The signed grants of a file. What they carry is not judged.
pub fn read_grants(path: &Path) -> Result<Vec<Vec<u8>>, NoGrants> {
    let mut text = String::new();
    File::open(path)?.take(FILE_BYTES_MAX).read_to_string(&mut text)?;
    let lines = text.lines().map(str::trim).enumerate().filter(|(_, line)| !line.is_empty());
    let signed = lines.map(|(at, line)| {
        let signed = BASE64.decode(line.as_bytes()).map_err(|_| NoGrants::NotBase64(at + 1))?;
        // Read here, so that a damaged line is told with its file and not refused by the node.
        Grant::read(&signed).map_err(|error| NoGrants::NotGrant(at + 1, error))?;
        Ok(signed)
    });
    let signed = signed.collect::<Result<Vec<_>, NoGrants>>()?;
    match signed.len() {
        1..=GRANTS_MAX => Ok(signed),
        count => Err(NoGrants::Count(count)),
    }
}
