//! Peers of earlier runs: dialed at once at the start, beside those of the configuration, and whenever few peers are connected;
//! entered as they say who they are; kept in a file that is replaced whole.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::FutureExt;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{ConnectionId, DialError};
use libp2p::{PeerId, Swarm};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::behaviour::Behaviour;
use crate::net::address_book::{AddressBook, TEXT_BYTES_MAX};
use crate::net::bootstrap::LASTED;
use crate::net::peers::{PEERS_LOW, Peer};
use crate::net::wall_clock;
use crate::private_file::unlinked;
use crate::proto::address_block::TrustedNets;

/// Peers dialed at the start, and in each second after while few are connected. What is dialed on the word of peers has a
/// budget of its own; these are peers that were met.
const AT_ONCE: usize = 16;
const PER_TICK: usize = 4;
/// How long lies between two writes of the file; a node that is killed forgets whom it met since.
const WRITE_INTERVAL: Duration = Duration::from_secs(10);
/// A peer that was connected for so long is proven.
const PROVEN_AFTER: Duration = Duration::from_secs(600);

/// The address book of this node, and the dials out of it.
pub(super) struct RememberedPeers {
    book: AddressBook,
    network: String,
    /// None: nothing is kept.
    file: Option<PathBuf>,
    dialing: BTreeMap<ConnectionId, PeerId>,
    is_started: bool,
    write_at: Instant,
    writing: Option<JoinHandle<io::Result<()>>>,
    /// Whether the last write failed: that is told once.
    is_failing: bool,
}

impl RememberedPeers {
    /// Those in the file, if there is one. What is no book of this network is left out with a note.
    pub(super) fn open(
        file: Option<PathBuf>,
        network: &str,
        trusted_nets: TrustedNets,
        now: Instant,
    ) -> RememberedPeers {
        let mut book = AddressBook::new(trusted_nets);
        if let Some(path) = &file {
            let text = read(path).unwrap_or_else(|error| {
                tracing::warn!(path = %path.display(), %error, "known peers were not read; the node finds them anew");
                None
            });
            if let Some(text) = text
                && let Err(error) = book.read(&text, network, wall_clock(), now)
            {
                tracing::warn!(path = %path.display(), %error, "known peers are not used; the node finds them anew");
            }
        }
        RememberedPeers {
            book,
            network: network.into(),
            file,
            dialing: BTreeMap::new(),
            is_started: false,
            write_at: now,
            writing: None,
            is_failing: false,
        }
    }

    /// A peer said who it is.
    pub(super) fn met(&mut self, id: PeerId, peer: &Peer) {
        let dialed = peer.seen_at.first().filter(|_| peer.outbound).cloned();
        self.book.met(id, dialed, &peer.seen_at, &peer.listens_at, wall_clock(), Instant::now());
    }

    /// The last connection with a peer is gone. One that never said who it is was not met.
    pub(super) fn left(&mut self, id: &PeerId, peer: &Peer, now: Instant) {
        let (age, wall) = (now.saturating_duration_since(peer.since), wall_clock());
        if !peer.identified {
            return;
        }
        if age > PROVEN_AFTER {
            self.book.prove(id, wall);
        }
        self.book.left(id, age >= LASTED, wall, now);
    }

    /// A dial failed, maybe one of these.
    pub(super) fn failed(&mut self, connection: ConnectionId, error: &DialError) {
        if let Some(peer) = self.dialing.remove(&connection)
            && let DialError::WrongPeerId { address, .. } = error
        {
            self.book.is_elsewhere(&peer, address);
        }
    }

    /// A connection was made, maybe by one of these dials.
    pub(super) fn connected(&mut self, connection: ConnectionId) {
        self.dialing.remove(&connection);
    }

    /// Everybody is due: the node was suspended.
    pub(super) fn retry_now(&mut self, now: Instant) {
        self.is_started = false;
        self.book.retry_now(now);
    }

    /// Dials some while few peers are connected; at the start at once.
    pub(super) fn dial(&mut self, swarm: &mut Swarm<Behaviour>, connected: usize, now: Instant) {
        let most = if self.is_started { PER_TICK } else { AT_ONCE };
        self.is_started = true;
        if connected >= PEERS_LOW {
            return;
        }
        for (peer, addresses) in self.book.take_due(most, now) {
            let options = DialOpts::peer_id(peer)
                .condition(PeerCondition::DisconnectedAndNotDialing)
                .addresses(addresses)
                .build();
            let connection = options.connection_id();
            // One that is connected, or dialed as a bootstrap peer, needs no second dial.
            if swarm.dial(options).is_ok() {
                self.dialing.insert(connection, peer);
            }
        }
    }

    /// Looks after the book and its file.
    pub(super) fn keep(&mut self, peers: &BTreeMap<PeerId, Peer>, now: Instant) {
        if now < self.write_at || self.is_writing() {
            return;
        }
        self.write_at = now + WRITE_INTERVAL;
        let wall = wall_clock();
        self.book.forget_old(wall);
        let long = |peer: &Peer| peer.identified && now.saturating_duration_since(peer.since) > PROVEN_AFTER;
        peers.iter().filter(|(_, peer)| long(peer)).for_each(|(id, _)| self.book.prove(id, wall));
        if let Some(path) = self.file.clone().filter(|_| self.book.is_changed()) {
            let text = self.book.text(&self.network, wall);
            let write = tokio::task::spawn_blocking(move || write(&path, &text));
            self.writing = Some(write);
        }
    }

    /// Whether a write is under way; one that failed is told, once, and made again.
    fn is_writing(&mut self) -> bool {
        let Some(writing) = &mut self.writing else { return false };
        let Some(written) = writing.now_or_never() else { return true };
        self.writing = None;
        let error = match written {
            Ok(written) => written.err(),
            Err(panicked) => Some(io::Error::other(panicked)),
        };
        if let Some(error) = &error {
            self.book.is_unkept();
            if !self.is_failing {
                tracing::warn!(%error, "known peers are not kept for the next start; it is tried again");
            }
        }
        self.is_failing = error.is_some();
        false
    }

    /// Writes the file for the last time.
    pub(super) async fn close(mut self) {
        if let Some(writing) = self.writing.take() {
            // Its outcome is that of the next one.
            _ = writing.await;
        }
        let Some(path) = self.file.take() else { return };
        if let Err(error) = write(&path, &self.book.text(&self.network, wall_clock())) {
            tracing::warn!(path = %path.display(), %error, "known peers were not kept for the next start");
        }
    }
}

/// The file's text; none where there is none.
fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let file = match unlinked().read(true).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    let mut text = Vec::new();
    // One byte more than any book has, so that a longer one shows.
    file.take(TEXT_BYTES_MAX as u64 + 1).read_to_end(&mut text)?;
    Ok(Some(text))
}

/// Replaces the file whole or not at all. What a lost power supply undoes is found again.
fn write(path: &Path, text: &str) -> io::Result<()> {
    let folder = path.parent().ok_or(io::ErrorKind::NotFound)?;
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(text.as_bytes())?;
    file.persist(path)?;
    Ok(())
}
