//! How much room the files of the store take. They are looked at beside the driver, for sled has many of them.

use std::path::PathBuf;
use std::time::Duration;

use super::Handle;
use crate::net::store::file_sizes;

/// Time between two looks.
const STEP: Duration = Duration::from_secs(60);

/// Measures until the node stops.
pub(super) async fn measure(handle: Handle, folder: PathBuf) {
    loop {
        let folder = folder.clone();
        let Ok(sizes) = tokio::task::spawn_blocking(move || file_sizes(&folder)).await else { return };
        sizes.into_iter().for_each(|(file, bytes)| handle.metrics.stored(file, bytes));
        tokio::select! {
            () = tokio::time::sleep(STEP) => {}
            () = handle.stopped() => return,
        }
    }
}
