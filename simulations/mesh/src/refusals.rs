//! What live nodes cannot be asked: they have the settings they have, and streams lose nothing.

use std::ops::RangeInclusive;

use aop::lab::scenario::{Digest, LossMode, Protocol, Scenario};
use aop::proto::config::Config;

use crate::links::Links;
use crate::plan::Plan;

/// Gossip mesh peers a live node has: gossipsub's low and high mark. A file that other
/// tiers play too may name any of these.
const DEGREES: RangeInclusive<usize> = 5..=8;

/// Says what of a scenario cannot be played here, and what to do instead.
pub fn judge(scenario: &Scenario) -> Result<(), String> {
    let Protocol { degree, lazy, anti_entropy, digest, .. } = scenario.protocol;
    let (loss, every_s) = (scenario.network.loss, Config::default().sync_interval.as_secs());
    let refuse = |key: &str, why: &str| Err(format!("{key}: {why}"));
    if loss.rate > 0.0 && loss.mode == LossMode::Drop {
        return refuse(
            "network.loss",
            "mode = \"drop\" is not possible in the mesh tier: a stream loses nothing, what is lost below it comes later; \
             mode = \"retransmit\", or tier = \"core\"",
        );
    }
    if degree.is_some_and(|it| !DEGREES.contains(&it)) {
        let (least, most) = (DEGREES.start(), DEGREES.end());
        let why = format!(
            "a live node has {least} to {most} mesh peers, whatever is asked; leave it out, or tier = \"model\""
        );
        return refuse("protocol.degree", &why);
    }
    if !lazy {
        return refuse("protocol.lazy", "a live node tells what it has; leave it out, or tier = \"model\"");
    }
    if anti_entropy.every.is_some_and(|it| it.as_secs() != every_s) {
        return refuse(
            "protocol.anti_entropy",
            &format!("a live node reconciles every {every_s}s; leave it out, or tier = \"model\""),
        );
    }
    if digest != Digest::Prefix {
        return refuse("protocol.digest", "a live node says prefixes; leave it out, or tier = \"model\"");
    }
    if scenario.workload.withdrawn > 0.0 {
        return refuse("workload.withdrawn", "the mesh tier withdraws nothing; tier = \"core\" does");
    }
    Plan::new(scenario, &Links::new(&scenario.network, 0), 0).map(drop)
}
