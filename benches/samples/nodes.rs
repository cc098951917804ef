//! Live nodes of the benches.

use std::path::Path;

use aop::agents::Agents;
use aop::host::{Options, Running};
use aop::proto::address_block::TrustedNets;
use aop::proto::identity::Identity;
use aop::proto::name::ZoneName;

use crate::agents::NETWORK;

/// A node of the benches: its key, its folder, whom it knows.
pub(crate) fn options(seed: u8, dir: &Path, bootstrap: &[&Running]) -> Options {
    Options {
        identity: Identity::from_seed([seed; 32]),
        network: NETWORK.into(),
        zones: vec![ZoneName::root()],
        follows: Vec::new(),
        bootstrap: bootstrap.iter().map(|node| node.listen[0].clone()).collect(),
        listen: vec!["/ip4/127.0.0.1/tcp/0".parse().expect("an address")],
        trusted_nets: TrustedNets::default(),
        data_dir: dir.to_path_buf(),
        agents: Agents::new(ZoneName::root()),
    }
}
