//! Agents of the benches that are built in.

use std::path::Path;

use aop::agents::HostedAgent;
use aop::document::run_config::{Builtin, RunConfig, Runner};
use aop::proto::card::{AgentCard, CallLimits, Offer, Scope};

/// One of which 64 calls run at once.
pub(crate) fn hosted(name: &str, builtin: Builtin) -> HostedAgent {
    let limits = CallLimits { timeout_s: 30, max_retries: 0, max_concurrency: 64, ..CallLimits::DEFAULT };
    let card = AgentCard {
        description: format!("The sample {name}"),
        callable: true,
        limits: Some(limits),
        ..AgentCard::default()
    };
    let name = name.parse().expect("a label");
    let offer = Offer { name, zone: None, scope: Scope::Public, card, grants: Vec::new() };
    HostedAgent { offer, run_config: Some(RunConfig::new(Runner::Builtin(builtin), Path::new("."))) }
}
