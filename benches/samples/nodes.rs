//! Live nodes of the benches.

use std::path::Path;

use aop::host::{Options, Running};
use aop::proto::identity::Identity;

use crate::agents::NETWORK;

/// A node of the benches: its key, its folder, whom it knows.
pub(crate) fn options(seed: u8, dir: &Path, bootstrap: &[&Running]) -> Options {
    Options {
        bootstrap: bootstrap.iter().map(|node| node.listen[0].clone()).collect(),
        ..Options::new(Identity::from_seed([seed; 32]), NETWORK, dir)
    }
}
