//! The address book: where peers were met, kept over restarts, so that a node finds its mesh again when a bootstrap peer is
//! gone or has moved.
//!
//! A pure table and its text; `swarm::remembered` dials from it and keeps it in a file. An address is entered where this node
//! dialed it and its peer answered, and where a connected peer says that it listens there, at the very IP address at which
//! it was met: so nobody enters the door of somebody else, nor an address of this host who was not met on it. A peer has few
//! addresses here, an IP address and a block outside of the trusted nets their share. When the book is full, who comes takes
//! the place of one that is worth less, in the block with the most; so a crowd pushes out nobody that this node dialed, that
//! stayed for long, or that is connected.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::Duration;

use libp2p::{Multiaddr, PeerId};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::net::addresses::{check_dialable, ip_of, without_peer};
use crate::proto::address_block::{AddressBlock, Share, Shares, Source, TrustedNets};
use crate::proto::time::Timestamp;

/// Addresses that are kept: many times what a node needs to find its mesh, and a file of 30 KB.
pub(crate) const ADDRESSES_MAX: usize = 256;
/// Of these, those of one peer: both transports over both IP versions.
const PER_PEER_MAX: usize = 4;
/// And those of one IP address and of one block, outside of the trusted nets: sixteen blocks at least are in a full book.
const SHARE: Share = Share { per_address: 8, per_block: 16 };
/// Bytes of a text that are read at most; the longest book is a tenth of it.
pub(crate) const TEXT_BYTES_MAX: usize = 512 * 1024;
/// Bytes of an address: an IP address or a DNS name of any length, with its port.
const ADDRESS_BYTES_MAX: usize = 300;
/// A peer that was not met for so long is forgotten: as long as what it wrote counts at most.
const KEPT_FOR: Duration = Duration::from_secs(7 * 86_400);
/// The first and the longest wait before a peer is dialed again. It doubles: a peer that is restarted together with this
/// node is found within seconds, and one that is gone costs a dial in five minutes.
const AGAIN_AFTER: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(300));
/// The form of the text; another one is not read.
const VERSION: u32 = 1;

/// Where peers were met.
#[derive(Debug)]
pub(crate) struct AddressBook {
    trusted_nets: TrustedNets,
    peers: BTreeMap<PeerId, Entry>,
    shares: Shares,
    is_changed: bool,
}

/// One peer.
#[derive(Clone, Debug)]
struct Entry {
    addresses: Vec<Multiaddr>,
    standing: Standing,
    is_connected: bool,
    /// When it was last connected, wall clock.
    met_at: Timestamp,
    /// When it is dialed again, and the wait after that.
    again: (Instant, Duration),
}

/// What speaks for a peer's addresses. The order is that of their worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Standing {
    /// Its own word, from where it says that it listens.
    Told,
    /// It was dialed there and answered, or was connected for long.
    Proven,
}

/// The text of a book.
#[derive(Debug, Serialize, Deserialize)]
struct Text {
    version: u32,
    network: String,
    peers: Vec<PeerText>,
}

#[derive(Debug, Serialize, Deserialize)]
struct PeerText {
    peer: String,
    addresses: Vec<String>,
    standing: Standing,
    met_at: Timestamp,
}

/// Why a text is no book of this network.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoBook {
    /// It is longer than any book.
    #[error("it is longer than {TEXT_BYTES_MAX} bytes")]
    TooLong,
    /// It is none.
    #[error("it cannot be read: {0}")]
    Unreadable(#[from] serde_json::Error),
    /// It is one of another version.
    #[error("its version is {0}, and this program reads {VERSION}")]
    Version(u32),
    /// It is one of another network.
    #[error("it is of the network `{0}`")]
    Network(String),
}

impl AddressBook {
    /// An empty one.
    pub(crate) fn new(trusted_nets: TrustedNets) -> AddressBook {
        AddressBook { trusted_nets, peers: BTreeMap::new(), shares: Shares::new(SHARE), is_changed: false }
    }

    /// Reads a text that [`AddressBook::text`] made. Whoever may have written it, what it holds is within the limits of a book.
    ///
    /// # Errors
    /// It is no book of this network. Nothing was entered.
    pub(crate) fn read(
        &mut self,
        text: &[u8],
        network: &str,
        now: Timestamp,
        due: Instant,
    ) -> Result<(), NoBook> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(NoBook::TooLong);
        }
        let text: Text = serde_json::from_slice(text)?;
        if text.version != VERSION {
            return Err(NoBook::Version(text.version));
        }
        if text.network != network {
            return Err(NoBook::Network(text.network));
        }
        for PeerText { peer, addresses, standing, met_at } in text.peers {
            let Ok(peer) = peer.parse() else { continue };
            // A clock that was ahead must not keep a peer for ever.
            let met_at = met_at.min(now);
            let addresses = addresses.iter().filter_map(|it| it.parse().ok()).collect();
            self.enter(peer, addresses, standing, met_at, due);
            self.left(&peer, true, met_at, due);
        }
        self.forget_old(now);
        self.is_changed = false;
        Ok(())
    }

    /// The book as a text.
    pub(crate) fn text(&mut self, network: &str, now: Timestamp) -> String {
        self.is_changed = false;
        let peers = self.peers.iter().map(|(peer, entry)| PeerText {
            peer: peer.to_string(),
            addresses: entry.addresses.iter().map(ToString::to_string).collect(),
            standing: entry.standing,
            met_at: if entry.is_connected { now } else { entry.met_at },
        });
        let text = Text { version: VERSION, network: network.into(), peers: peers.collect() };
        // Texts and numbers alone: that cannot fail.
        serde_json::to_string(&text).unwrap_or_default()
    }

    /// Whether it holds something that the last text did not.
    pub(crate) fn is_changed(&self) -> bool {
        self.is_changed
    }

    /// The last text was not kept.
    pub(crate) fn is_unkept(&mut self) {
        self.is_changed = true;
    }

    /// A peer is connected that was dialed at `dialed`, if it was, and that says that it listens at `told`; it was seen at
    /// `seen_at`.
    pub(crate) fn met(
        &mut self,
        peer: PeerId,
        dialed: Option<Multiaddr>,
        seen_at: &[Multiaddr],
        told: &[Multiaddr],
        now: Timestamp,
        due: Instant,
    ) {
        let was_met = |address: &&Multiaddr| {
            ip_of(address).is_some_and(|ip| seen_at.iter().any(|seen| ip_of(seen) == Some(ip)))
        };
        let standing = if dialed.is_some() { Standing::Proven } else { Standing::Told };
        let addresses = dialed.into_iter().chain(told.iter().filter(was_met).cloned()).collect();
        self.enter(peer, addresses, standing, now, due);
    }

    /// A peer has been connected for long.
    pub(crate) fn prove(&mut self, peer: &PeerId, now: Timestamp) {
        if let Some(entry) = self.peers.get_mut(peer) {
            self.is_changed |= entry.standing != Standing::Proven;
            (entry.standing, entry.met_at) = (Standing::Proven, now);
        }
    }

    /// A peer is no longer connected. One that stayed is due at once; one that left soon, or threw this node out, is due
    /// after ever longer waits, as one that does not answer.
    pub(crate) fn left(&mut self, peer: &PeerId, has_lasted: bool, now: Timestamp, due: Instant) {
        let Some(entry) = self.peers.get_mut(peer) else { return };
        (entry.is_connected, entry.met_at) = (false, now);
        match has_lasted {
            true => entry.again = (due, AGAIN_AFTER.0),
            false => entry.wait_longer(due),
        }
    }

    /// At most `most` peers to dial now, spread over blocks, the best first, and where. Each is due again later.
    pub(crate) fn take_due(&mut self, most: usize, now: Instant) -> Vec<(PeerId, Vec<Multiaddr>)> {
        let is_due = |entry: &&mut Entry| !entry.is_connected && entry.again.0 <= now;
        let mut due: Vec<(&PeerId, &mut Entry)> = Vec::new();
        due.extend(self.peers.iter_mut().filter(|(_, entry)| is_due(entry)));
        due.sort_by_key(|(_, entry)| Reverse((entry.standing, entry.met_at)));
        let mut taken: BTreeMap<Option<AddressBlock>, usize> = BTreeMap::new();
        let mut turns: Vec<(usize, usize)> = Vec::new();
        for (at, (_, entry)) in due.iter().enumerate() {
            let turn = taken.entry(entry.block()).or_default();
            turns.push((*turn, at));
            *turn += 1;
        }
        // One of each block, then the second of each: nobody's many addresses stand before everybody else's.
        turns.sort_unstable();
        let mut dialed = Vec::new();
        for (_, at) in turns.into_iter().take(most) {
            let (peer, entry) = &mut due[at];
            entry.wait_longer(now);
            dialed.push((**peer, entry.addresses.clone()));
        }
        dialed
    }

    /// Everybody is due: the node was suspended.
    pub(crate) fn retry_now(&mut self, now: Instant) {
        self.peers.values_mut().for_each(|entry| entry.again = (now, AGAIN_AFTER.0));
    }

    /// Another peer answered there.
    pub(crate) fn is_elsewhere(&mut self, peer: &PeerId, address: &Multiaddr) {
        let Some(mut entry) = self.remove(peer) else { return };
        entry.addresses.retain(|it| *it != without_peer(address));
        entry.addresses.iter().for_each(|address| self.count(address, true));
        if !entry.addresses.is_empty() {
            self.peers.insert(*peer, entry);
        }
    }

    /// Forgets who was not met for long.
    pub(crate) fn forget_old(&mut self, now: Timestamp) {
        let is_old = |entry: &Entry| !entry.is_connected && now.since(entry.met_at) > KEPT_FOR;
        let old: Vec<PeerId> =
            self.peers.iter().filter(|(_, entry)| is_old(entry)).map(|(peer, _)| *peer).collect();
        for peer in old {
            self.remove(&peer);
        }
    }

    /// Enters a connected peer with those of these addresses that can be dialed and find room. They are all it has now, but
    /// for one that names none: it was still met where it was met before.
    fn enter(
        &mut self,
        peer: PeerId,
        addresses: Vec<Multiaddr>,
        standing: Standing,
        now: Timestamp,
        due: Instant,
    ) {
        let (was_changed, held) = (self.is_changed, self.remove(&peer));
        self.is_changed = was_changed;
        let before = held.as_ref().map(|held| (held.addresses.clone(), held.standing));
        let again = held.as_ref().map_or((due, AGAIN_AFTER.0), |held| held.again);
        let mut entry = Entry {
            addresses: Vec::new(),
            standing: held.map_or(standing, |held| held.standing.max(standing)),
            is_connected: true,
            met_at: now,
            again,
        };
        let named = addresses.into_iter().map(|address| without_peer(&address)).filter(is_kept);
        let mut named: Vec<Multiaddr> = named.collect();
        if let Some((before, _)) = before.as_ref().filter(|_| named.is_empty()) {
            named = before.clone();
        }
        for address in named {
            let is_new = !entry.addresses.contains(&address);
            if is_new && entry.addresses.len() < PER_PEER_MAX && self.make_room(&entry, &address) {
                self.count(&address, true);
                entry.addresses.push(address);
            }
        }
        self.is_changed |= before.as_ref() != Some(&(entry.addresses.clone(), entry.standing));
        if !entry.addresses.is_empty() {
            self.peers.insert(peer, entry);
        }
    }

    /// Whether there is room for one more address of a peer, maybe after one that is worth less made room.
    fn make_room(&mut self, entry: &Entry, address: &Multiaddr) -> bool {
        let source = ip_of(address).and_then(|ip| self.trusted_nets.source(ip));
        let is_own = |held: &Entry| held.sources().any(|it| Some(it.address) == source.map(|it| it.address));
        let is_near = |held: &Entry| held.sources().any(|it| Some(it.block) == source.map(|it| it.block));
        loop {
            let has_share = self.shares.has_room(source, 1);
            if has_share && self.len() + entry.addresses.len() < ADDRESSES_MAX {
                return true;
            }
            let victim = match has_share {
                true => self.least(&|_| true),
                // The own address first: neighbours in the block pay only where the block has too many.
                false => self.least(&is_own).or_else(|| self.least(&is_near)),
            };
            match victim {
                Some((worth, peer)) if worth < entry.worth() => drop(self.remove(&peer)),
                _ => return false,
            }
        }
    }

    /// The peer that is worth least among some; of equals one of the block with the most, met the longest ago.
    fn least(&self, of: &dyn Fn(&Entry) -> bool) -> Option<(u8, PeerId)> {
        let mut blocks: BTreeMap<Option<AddressBlock>, usize> = BTreeMap::new();
        self.peers.values().for_each(|entry| *blocks.entry(entry.block()).or_default() += 1);
        let crowd = |entry: &Entry| Reverse(blocks.get(&entry.block()).copied());
        let some = self.peers.iter().filter(|(_, entry)| of(entry));
        let least = some.min_by_key(|(_, entry)| (entry.worth(), crowd(entry), entry.met_at));
        least.map(|(peer, entry)| (entry.worth(), *peer))
    }

    /// Addresses held.
    pub(crate) fn len(&self) -> usize {
        self.peers.values().map(|entry| entry.addresses.len()).sum()
    }

    fn remove(&mut self, peer: &PeerId) -> Option<Entry> {
        let entry = self.peers.remove(peer)?;
        entry.addresses.iter().for_each(|address| self.count(address, false));
        self.is_changed = true;
        Some(entry)
    }

    fn count(&mut self, address: &Multiaddr, is_held: bool) {
        let source = ip_of(address).and_then(|ip| self.trusted_nets.source(ip));
        match is_held {
            true => self.shares.add(source, 1),
            false => self.shares.remove(source, 1),
        }
    }
}

impl Entry {
    /// What the peer is worth to this node: 2 if it is proven, 1 if it is connected, 0 if neither or it never answers.
    fn worth(&self) -> u8 {
        let is_silent = !self.is_connected && self.again.1 >= AGAIN_AFTER.1;
        match self.standing {
            Standing::Proven if !is_silent => 2,
            _ => self.is_connected.into(),
        }
    }

    fn wait_longer(&mut self, now: Instant) {
        let (_, wait) = self.again;
        self.again = (now + wait, (2 * wait).min(AGAIN_AFTER.1));
    }

    fn block(&self) -> Option<AddressBlock> {
        self.sources().next().map(|source| source.block)
    }

    fn sources(&self) -> impl Iterator<Item = Source> {
        self.addresses.iter().filter_map(ip_of).map(Source::of)
    }
}

/// Whether an address has a place in a book: it can be dialed, and is no longer than it must be.
fn is_kept(address: &Multiaddr) -> bool {
    address.len() <= ADDRESS_BYTES_MAX && check_dialable(address).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_000_000_000_000);

    fn book() -> AddressBook {
        AddressBook::new(TrustedNets::default())
    }

    fn at(text: &str) -> Multiaddr {
        text.parse().unwrap()
    }

    /// A peer is connected from an IP address, and tells these addresses.
    fn tell(book: &mut AddressBook, from: &str, told: &[&str]) -> PeerId {
        let (peer, seen) = (PeerId::random(), [at(&format!("/ip4/{from}/tcp/40000"))]);
        let told: Vec<Multiaddr> = told.iter().map(|text| at(text)).collect();
        book.met(peer, None, &seen, &told, NOW, Instant::now());
        peer
    }

    fn dial(book: &mut AddressBook, address: &str) -> PeerId {
        let peer = PeerId::random();
        book.met(peer, Some(at(address)), &[at(address)], &[], NOW, Instant::now());
        peer
    }

    fn leave(book: &mut AddressBook, peer: PeerId) {
        book.left(&peer, true, NOW, Instant::now());
    }

    fn held(book: &AddressBook, peer: PeerId) -> Vec<String> {
        let addresses = book.peers.get(&peer).map(|entry| entry.addresses.clone()).unwrap_or_default();
        addresses.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_peer_is_remembered_only_where_it_was_met() {
        let mut book = book();
        let told = [
            "/ip4/127.0.0.1/tcp/1",
            "/ip4/9.9.9.9/tcp/1",
            "/dns4/victim.example/tcp/1",
            "/ip4/5.6.7.8/tcp/1",
        ];
        let peer = tell(&mut book, "5.6.7.8", &told);
        assert_eq!(held(&book, peer), ["/ip4/5.6.7.8/tcp/1"]);
        let silent = tell(&mut book, "5.6.7.9", &told);
        assert!(held(&book, silent).is_empty());
        let near = tell(&mut book, "127.0.0.1", &told);
        assert_eq!(held(&book, near), ["/ip4/127.0.0.1/tcp/1"]);
    }

    #[test]
    fn what_no_node_can_dial_is_not_entered() {
        let mut book = book();
        let told = ["/ip4/5.6.7.8/tcp/0", "/ip4/5.6.7.8/tcp/1/ws", "/ip4/5.6.7.8/udp/1", "/ip4/5.6.7.8"];
        let peer = tell(&mut book, "5.6.7.8", &told);
        assert!(held(&book, peer).is_empty());
    }

    #[test]
    fn a_peer_that_moved_leaves_its_old_address_and_one_that_names_none_keeps_it() {
        let (mut book, due) = (book(), Instant::now());
        let peer = dial(&mut book, "/ip4/5.6.7.8/tcp/1");
        let seen = [at("/ip4/5.6.7.8/tcp/40000")];
        book.met(peer, None, &seen, &[at("/ip4/5.6.7.8/tcp/2")], NOW, due);
        assert_eq!(held(&book, peer), ["/ip4/5.6.7.8/tcp/2"]);
        book.met(peer, None, &seen, &[], NOW, due);
        assert_eq!(held(&book, peer), ["/ip4/5.6.7.8/tcp/2"]);
    }

    #[test]
    fn a_peer_with_many_addresses_has_few_here() {
        let mut book = book();
        let many: Vec<String> = (1..200).map(|port| format!("/ip4/127.0.0.1/tcp/{port}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let peer = tell(&mut book, "127.0.0.1", &many);
        assert_eq!(held(&book, peer).len(), PER_PEER_MAX);
    }

    #[test]
    fn a_crowd_of_one_block_has_its_share_and_pushes_out_nobody_else() {
        let mut book = book();
        let honest = tell(&mut book, "198.51.100.1", &["/ip4/198.51.100.1/tcp/1"]);
        leave(&mut book, honest);
        for n in 1..250 {
            let address = format!("/ip4/192.0.2.{n}/tcp/1");
            tell(&mut book, &format!("192.0.2.{n}"), &[&address]);
        }
        for _ in 0..50 {
            tell(&mut book, "203.0.113.7", &["/ip4/203.0.113.7/tcp/1"]);
        }
        assert_eq!(book.len(), 1 + SHARE.per_block + SHARE.per_address);
        assert_eq!(held(&book, honest).len(), 1);
    }

    #[test]
    fn a_crowd_of_a_hundred_blocks_pushes_out_nobody_who_was_dialed_stayed_or_is_connected() {
        let mut book = book();
        let dialed = dial(&mut book, "/ip4/198.51.100.1/tcp/1");
        let stayed = tell(&mut book, "198.51.100.2", &["/ip4/198.51.100.2/tcp/1"]);
        book.prove(&stayed, NOW);
        let connected = tell(&mut book, "198.51.100.3", &["/ip4/198.51.100.3/tcp/1"]);
        [dialed, stayed].into_iter().for_each(|peer| leave(&mut book, peer));
        for block in 0..100 {
            for n in 1..10 {
                let address = format!("/ip4/10.{block}.0.{n}/tcp/1");
                let peer = tell(&mut book, &format!("10.{block}.0.{n}"), &[&address]);
                leave(&mut book, peer);
            }
        }
        assert_eq!(book.len(), ADDRESSES_MAX);
        assert!([dialed, stayed, connected].into_iter().all(|peer| held(&book, peer).len() == 1));
    }

    #[test]
    fn who_is_dialed_finds_room_in_a_book_full_of_told_ones() {
        let mut book = book();
        for n in 0..300 {
            let ip = format!("10.{}.{}.1", n / 200, n % 200);
            tell(&mut book, &ip, &[&format!("/ip4/{ip}/tcp/1")]);
        }
        let seed = dial(&mut book, "/dns4/seed.example.org/tcp/7401");
        assert_eq!((held(&book, seed).len(), book.len()), (1, ADDRESSES_MAX));
    }

    #[test]
    fn peers_are_dialed_block_by_block_and_again_after_ever_longer_waits() {
        let (mut book, now) = (book(), Instant::now());
        for n in 1..=8 {
            let peer = dial(&mut book, &format!("/ip4/192.0.2.{n}/tcp/1"));
            leave(&mut book, peer);
        }
        let other = tell(&mut book, "198.51.100.1", &["/ip4/198.51.100.1/tcp/1"]);
        leave(&mut book, other);
        let now = now + Duration::from_secs(1);
        let first = book.take_due(2, now);
        assert!(first.iter().any(|(peer, _)| *peer == other), "{first:?}");
        assert_eq!(book.take_due(100, now).len(), 7, "each once");
        let mut waits = Vec::new();
        let mut last = now;
        for second in 1..700 {
            let at = now + Duration::from_secs(second);
            if book.take_due(100, at).iter().any(|(peer, _)| *peer == other) {
                waits.push((at - last).as_secs());
                last = at;
            }
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 64, 128, 256]);
    }

    #[test]
    fn a_peer_that_throws_us_out_is_dialed_less_and_less_often_until_it_keeps_us() {
        let (mut book, start) = (book(), Instant::now());
        let peer = dial(&mut book, "/ip4/5.6.7.8/tcp/1");
        book.left(&peer, true, NOW, start);
        let mut dials = |seconds: std::ops::Range<u64>, has_lasted| {
            let mut dial = |second: &u64| {
                let (now, place) = (start + Duration::from_secs(*second), at("/ip4/5.6.7.8/tcp/1"));
                let is_dialed = !book.take_due(1, now).is_empty();
                if is_dialed {
                    book.met(peer, Some(place.clone()), &[place], &[], NOW, now);
                    book.left(&peer, has_lasted, NOW, now);
                }
                is_dialed
            };
            seconds.filter(|second| dial(second)).count()
        };
        assert!((2..=4).contains(&dials(0..60, false)));
        assert!(dials(60..400, true) > 200, "it is due again as soon as it was kept once");
    }

    #[test]
    fn a_book_is_read_as_it_was_written_and_says_when_it_has_changed() {
        let (mut written, due) = (book(), Instant::now());
        let dialed = dial(&mut written, "/dns4/seed.example.org/tcp/7401");
        let told = tell(&mut written, "127.0.0.1", &["/ip4/127.0.0.1/udp/1/quic-v1"]);
        assert!(written.is_changed());
        let text = written.text("test", NOW);
        assert!(!written.is_changed());
        let (seen, same) = ([at("/ip4/127.0.0.1/udp/2/quic-v1")], [at("/ip4/127.0.0.1/udp/1/quic-v1")]);
        written.met(told, None, &seen, &same, NOW, due);
        assert!(!written.is_changed(), "it was told the same again");
        let mut read = book();
        read.read(text.as_bytes(), "test", NOW, due).unwrap();
        assert!(!read.is_changed());
        for peer in [dialed, told] {
            assert_eq!(held(&read, peer), held(&written, peer));
            assert_eq!(read.peers[&peer].standing, written.peers[&peer].standing);
        }
        assert_eq!(read.take_due(10, due).len(), 2);
    }

    #[test]
    fn what_is_no_book_of_this_network_is_not_read() {
        let (mut book, due) = (book(), Instant::now());
        let peer = PeerId::random();
        let text = |version: u32, network: &str, address: &str| {
            let peer = PeerText {
                peer: peer.to_string(),
                addresses: vec![address.into()],
                standing: Standing::Told,
                met_at: Timestamp(u64::MAX),
            };
            let text = Text { version, network: network.into(), peers: vec![peer] };
            serde_json::to_string(&text).unwrap()
        };
        let good = "/ip4/5.6.7.8/tcp/1";
        let long = text(VERSION, "test", &"x".repeat(TEXT_BYTES_MAX));
        for bad in ["", "[]", "{}", "\0\0", &text(2, "test", good), &text(VERSION, "other", good), &long] {
            assert!(book.read(bad.as_bytes(), "test", NOW, due).is_err(), "{bad:.80}");
        }
        for useless in
            ["x", "/ip4/0.0.0.0/tcp/1", "/ip4/5.6.7.8/tcp/1/ws", &format!("/dns4/{}/tcp/1", "x".repeat(400))]
        {
            book.read(text(VERSION, "test", useless).as_bytes(), "test", NOW, due).unwrap();
        }
        assert_eq!(book.len(), 0);
        book.read(text(VERSION, "test", good).as_bytes(), "test", NOW, due).unwrap();
        assert_eq!((book.len(), book.peers[&peer].met_at), (1, NOW), "no date lies in the future");
    }

    #[test]
    fn a_text_of_many_peers_fills_no_more_than_a_book() {
        let peer = |n: u32| PeerText {
            peer: PeerId::random().to_string(),
            addresses: vec![format!("/ip4/10.{}.{}.1/tcp/1", n / 250, n % 250)],
            standing: Standing::Proven,
            met_at: NOW,
        };
        let text = Text { version: VERSION, network: "test".into(), peers: (0..2_000).map(peer).collect() };
        let mut book = book();
        book.read(&serde_json::to_vec(&text).unwrap(), "test", NOW, Instant::now()).unwrap();
        assert_eq!(book.len(), ADDRESSES_MAX);
    }

    #[test]
    fn who_was_away_for_a_week_is_forgotten_and_where_another_peer_answers_is_not_dialed_again() {
        let mut book = book();
        let (old, moved) = (dial(&mut book, "/ip4/5.6.7.8/tcp/1"), dial(&mut book, "/ip4/5.6.7.8/tcp/2"));
        [old, moved].into_iter().for_each(|peer| leave(&mut book, peer));
        book.is_elsewhere(&moved, &at("/ip4/5.6.7.8/tcp/2"));
        assert!(held(&book, moved).is_empty());
        book.forget_old(NOW + KEPT_FOR);
        assert_eq!(book.len(), 1);
        book.forget_old(NOW + KEPT_FOR + Duration::from_millis(1));
        assert!(book.peers.is_empty() && book.shares.is_empty());
    }
}
