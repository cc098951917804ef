//! The scores of peers for offences outside of gossip: points that fade, a lower score while they last, a block when there
//! are too many.
//!
//! A pure table; gossip offences have their own penalty in the mesh score.

use std::collections::BTreeMap;
use std::time::Duration;

use libp2p::PeerId;
use tokio::time::Instant;

use crate::proto::io::Offence;
use crate::proto::record::Refusal;

/// Points at which a peer is blocked: four forgeries or floods, or ten other offences within a minute.
pub(super) const BLOCKED_AT: f64 = 94.0;
/// How long a block lasts. Long enough to make an attack pointless, short enough to heal a bad release.
pub(super) const BLOCKED_FOR: Duration = Duration::from_secs(600);
/// Points that fade in a second: one that is no forgery is forgotten after 100 s.
const FADING: f64 = 0.1;
/// Peers remembered; beyond it the one with the fewest points is forgotten.
const OFFENDERS_MAX: usize = 1_024;

/// Peers blocked at once; beyond it the block that would end first is lifted. A new key costs an attacker nothing, so
/// a longer list would not keep him out either.
const BLOCKED_MAX: usize = 4_096;

/// What follows for the peer.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Penalty {
    /// Its application score is this now, at most 0.
    Scored(f64),
    /// It is to be blocked.
    Blocked,
}

#[derive(Debug, Default)]
pub(super) struct PeerScores {
    points: BTreeMap<PeerId, (f64, Instant)>,
    blocked: BTreeMap<PeerId, Instant>,
}

impl PeerScores {
    /// Adds the points of an offence.
    pub(super) fn add(&mut self, peer: PeerId, offence: Offence, now: Instant) -> Penalty {
        let (points, at) = self.points.get(&peer).copied().unwrap_or((0.0, now));
        let points = faded(points, at, now) + weight(offence);
        // Four forgeries or ten others make 100, of which 6 fade within the minute that they may take.
        if points >= BLOCKED_AT {
            // After its block a peer begins anew: it may be an honest one with a mended release.
            self.points.remove(&peer);
            // The bound is kept at the next tick, which also tells the swarm to unblock.
            self.blocked.insert(peer, now + BLOCKED_FOR);
            return Penalty::Blocked;
        }
        self.points.insert(peer, (points, now));
        self.forget_least();
        Penalty::Scored(-points)
    }

    /// The score of a peer.
    pub(super) fn score(&self, peer: &PeerId, now: Instant) -> f64 {
        self.points.get(peer).map_or(0.0, |(points, at)| -faded(*points, *at, now))
    }

    /// The scores of all offenders, faded to `now`; those with none left are forgotten after this.
    pub(super) fn fade(&mut self, now: Instant) -> Vec<(PeerId, f64)> {
        let score = |(peer, (points, at)): (&PeerId, &(f64, Instant))| (*peer, -faded(*points, *at, now));
        let scores = self.points.iter().map(score).collect();
        self.points.retain(|_, (points, at)| faded(*points, *at, now) > 0.0);
        scores
    }

    /// The peers that are blocked, and since when.
    pub(super) fn blocked(&self) -> impl Iterator<Item = (PeerId, Instant)> {
        self.blocked.iter().map(|(peer, until)| (*peer, *until - BLOCKED_FOR))
    }

    /// The peers whose block is over.
    pub(super) fn released(&mut self, now: Instant) -> Vec<PeerId> {
        let mut blocked: Vec<(Instant, PeerId)> =
            self.blocked.iter().map(|(peer, until)| (*until, *peer)).collect();
        blocked.sort_unstable();
        // Both counts begin at the block that ends first, so the greater one covers the other.
        let excess = blocked.len().saturating_sub(BLOCKED_MAX);
        let ended = blocked.iter().filter(|(until, _)| *until <= now).count();
        let over: Vec<PeerId> = blocked.into_iter().take(excess.max(ended)).map(|(_, peer)| peer).collect();
        for peer in &over {
            self.blocked.remove(peer);
        }
        over
    }

    fn forget_least(&mut self) {
        if self.points.len() <= OFFENDERS_MAX {
            return;
        }
        // Fresh keys with one offence each push each other out, never a peer that is near its block.
        let least = self.points.iter().min_by(|a, b| a.1.0.total_cmp(&b.1.0)).map(|(peer, _)| *peer);
        least.map(|peer| self.points.remove(&peer));
    }
}

/// A forgery is never an accident, nor is a flood; what does not decode or breaks a rule is a bug or an attack.
fn weight(offence: Offence) -> f64 {
    match offence {
        Offence::Record(Refusal::BadSignature | Refusal::BadAuthor | Refusal::BadGrant) | Offence::Greedy => {
            25.0
        }
        Offence::Record(_) | Offence::Request | Offence::Sync | Offence::Answer => 10.0,
    }
}

fn faded(points: f64, at: Instant, now: Instant) -> f64 {
    // Linear, so that it reaches zero and the peer can be forgotten; a half-life would keep every offender.
    (points - FADING * now.saturating_duration_since(at).as_secs_f64()).max(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORGED: Offence = Offence::Record(Refusal::BadSignature);

    #[test]
    fn four_forgeries_block_and_the_block_ends() {
        let (mut scores, peer, now) = (PeerScores::default(), PeerId::random(), Instant::now());
        for points in [25.0, 50.0, 75.0] {
            assert_eq!(scores.add(peer, FORGED, now), Penalty::Scored(-points));
        }
        assert_eq!(scores.add(peer, FORGED, now), Penalty::Blocked);
        assert!(scores.released(now).is_empty());
        assert_eq!(scores.released(now + BLOCKED_FOR), [peer]);
    }

    #[test]
    fn the_table_of_blocks_is_bounded() {
        let (mut scores, now) = (PeerScores::default(), Instant::now());
        for _ in 0..BLOCKED_MAX + 5 {
            let peer = PeerId::random();
            for _ in 0..4 {
                scores.add(peer, FORGED, now);
            }
        }
        assert_eq!(scores.released(now).len(), 5);
        assert!(scores.released(now).is_empty());
    }

    #[test]
    fn offences_fade_and_are_forgotten() {
        let (mut scores, peer, now) = (PeerScores::default(), PeerId::random(), Instant::now());
        scores.add(peer, Offence::Request, now);
        let later = now + Duration::from_secs(50);
        assert_eq!(scores.fade(later), [(peer, -5.0)]);
        assert_eq!(scores.fade(now + Duration::from_secs(101)), [(peer, 0.0)]);
        assert!(scores.fade(now + Duration::from_secs(102)).is_empty());
    }

    #[test]
    fn the_table_of_offenders_is_bounded() {
        let (mut scores, now) = (PeerScores::default(), Instant::now());
        for _ in 0..OFFENDERS_MAX + 50 {
            scores.add(PeerId::random(), Offence::Sync, now);
        }
        assert_eq!(scores.points.len(), OFFENDERS_MAX);
    }
}
