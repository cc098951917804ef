//! Which replica of an agent a call is offered to first (paper section 8.3, protocol section 5).

use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::Conversation;
use crate::proto::identity::PeerKey;

/// In which order the hosts of an agent are asked. Those that cannot be reached, or whose agent fails, come last under each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Balance {
    /// The fewest calls a place, as the host said last, with the calls of this node since.
    #[default]
    Load,
    /// Who was asked longest ago.
    RoundRobin,
    /// The fewest calls of this node.
    LeastConnections,
    /// By chance, in proportion to the weights that the hosts give themselves.
    Weighted,
    /// Of two drawn by chance the one that answered this node faster in the mean.
    Latency,
}

/// Why a text names no order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not one of `load`, `round_robin`, `least_connections`, `weighted` and `latency`")]
pub struct NotABalance;

impl Balance {
    /// Every order, the default first.
    pub const ALL: [Balance; 5] =
        [Balance::Load, Balance::RoundRobin, Balance::LeastConnections, Balance::Weighted, Balance::Latency];

    /// As it is written in files and requests.
    pub fn text(self) -> &'static str {
        match self {
            Balance::Load => "load",
            Balance::RoundRobin => "round_robin",
            Balance::LeastConnections => "least_connections",
            Balance::Weighted => "weighted",
            Balance::Latency => "latency",
        }
    }
}

impl FromStr for Balance {
    type Err = NotABalance;

    fn from_str(text: &str) -> Result<Balance, NotABalance> {
        Balance::ALL.into_iter().find(|balance| balance.text() == text).ok_or(NotABalance)
    }
}

/// Where a host stands in the order of a conversation, the first least: by rendezvous hash, so that a host that goes moves only
/// its own conversations.
pub(super) fn rendezvous(conversation: &Conversation, host: &PeerKey) -> u64 {
    let hash = Sha256::new().chain_update(host.0).chain_update(conversation.as_str()).finalize();
    u64::from_le_bytes(std::array::from_fn(|at| hash[at]))
}

/// A place in an order by chance in which who weighs more comes first more often, the first least: of a number drawn evenly.
pub(super) fn weighted(draw: u32, weight: u32) -> u64 {
    // Exponential races: the least of -ln(u)/w falls to each in proportion to its weight.
    let even = (f64::from(draw) + 1.0) / (f64::from(u32::MAX) + 2.0);
    (-even.ln() / f64::from(weight.max(1)) * 1e12) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_order_has_a_name_that_means_it() {
        for balance in Balance::ALL {
            assert_eq!(balance.text().parse(), Ok(balance));
            assert_eq!(serde_json::to_value(balance).unwrap(), balance.text());
        }
        assert_eq!("fastest".parse::<Balance>(), Err(NotABalance));
    }

    #[test]
    fn who_weighs_three_times_as_much_comes_first_three_times_as_often() {
        let mut draw = 12_345_u32;
        let mut next = || {
            draw = draw.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            draw
        };
        let firsts = (0..10_000).filter(|_| weighted(next(), 3) < weighted(next(), 1)).count();
        assert!((7_300..7_700).contains(&firsts), "{firsts}");
    }

    #[test]
    fn a_host_that_goes_moves_only_its_own_conversations() {
        let hosts: Vec<PeerKey> = (1..=4).map(|number| PeerKey([number; 32])).collect();
        let first = |hosts: &[PeerKey], number: u32| {
            let conversation: Conversation = format!("c{number}").parse().unwrap();
            *hosts.iter().min_by_key(|host| rendezvous(&conversation, host)).unwrap()
        };
        let before: Vec<PeerKey> = (0..400).map(|number| first(&hosts, number)).collect();
        for (number, host) in before.iter().enumerate() {
            let after = first(&hosts[1..], number as u32);
            assert!(*host == hosts[0] || after == *host);
        }
        for host in hosts {
            assert!(before.iter().filter(|it| **it == host).count() > 60);
        }
    }
}
