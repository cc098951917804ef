//! In which order hosts are asked where that is no matter of what is known of them.

use sha2::{Digest, Sha256};

use super::Conversation;
use crate::proto::identity::PeerKey;

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
