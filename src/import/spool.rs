//! What a reading brought, on disk until its last page came: the memory of an import does not grow with its registry. The file
//! has no name, so nothing is left of it whatever becomes of the process.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Seek, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Bytes of one reading: 200,000 documents of 5 KiB. Documents of registries have 3 KiB in the mean.
const SPOOL_BYTES_MAX: u64 = 1024 * 1024 * 1024;

/// Documents in the order in which they came.
pub struct Spool {
    file: BufWriter<File>,
    bytes: u64,
}

/// One of them.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Spooled {
    /// The document.
    #[serde(rename = "d")]
    pub document: Value,
    /// The id under which another node of this kind lists it.
    #[serde(rename = "a", default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
}

impl Spool {
    /// An empty one on the disk of `folder`.
    ///
    /// # Errors
    /// The disk.
    pub fn new(folder: &Path) -> io::Result<Spool> {
        Ok(Spool { file: BufWriter::new(tempfile::tempfile_in(folder)?), bytes: 0 })
    }

    /// Puts documents behind the others.
    ///
    /// # Errors
    /// The disk, or there are more than fit.
    pub(super) fn put(&mut self, documents: &[Spooled]) -> io::Result<()> {
        for document in documents {
            let line = serde_json::to_vec(document)?;
            self.bytes += line.len() as u64 + 1;
            if self.bytes > SPOOL_BYTES_MAX {
                let why = format!("its documents have more than {} MiB", SPOOL_BYTES_MAX >> 20);
                return Err(io::Error::other(why));
            }
            self.file.write_all(&line)?;
            self.file.write_all(b"\n")?;
        }
        Ok(())
    }

    /// Takes the documents out again.
    ///
    /// # Errors
    /// The disk.
    pub fn drain(self) -> io::Result<impl Iterator<Item = io::Result<Spooled>>> {
        let mut file = self.file.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.rewind()?;
        let lines = BufReader::new(file).lines();
        Ok(lines.map(|line| Ok(serde_json::from_str(&line?)?)))
    }
}
