//! How a world begins.

use super::calls::CallConditions;
use super::network::{Conditions, Graph};
use super::regions::Regions;
use crate::proto::config::Config;
use crate::proto::registry::Quota;

/// How a world begins.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Number of nodes.
    pub nodes: usize,
    /// Settings of every node; `bootstrap_peers` are set by [`Setup::bootstrapped`].
    pub config: Config,
    /// Constant clock errors are drawn from plus or minus this, milliseconds.
    pub skew_ms_max: i64,
    /// Whether the clocks of the nodes it may be linked with judge a node's own.
    pub bootstrapped: bool,
    /// The network at the start.
    pub conditions: Conditions,
    /// Who may be linked with whom.
    pub graph: Graph,
    /// Where nodes are; then latency is that between regions.
    pub regions: Option<Regions>,
    /// What a zone may hold at every node.
    pub quota: Quota,
    /// How calls go; none if nobody calls.
    pub calls: Option<CallConditions>,
}

impl Default for Setup {
    fn default() -> Setup {
        Setup {
            nodes: 5,
            config: Config { expects_peers: true, ..Config::default() },
            skew_ms_max: 0,
            bootstrapped: false,
            conditions: Conditions::default(),
            graph: Graph::Random(Graph::DEGREE),
            regions: None,
            quota: Quota::default(),
            calls: None,
        }
    }
}
