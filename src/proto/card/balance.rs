//! Which replica of an agent its callers ask first (paper section 8.3, protocol section 5).

use std::str::FromStr;

use serde::{Deserialize, Serialize};

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
}
