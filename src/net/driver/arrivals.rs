//! What the network tells, on its way to the driver: records in it are judged ahead on another thread while the driver is at
//! what came before. All that came meanwhile is judged together next, and everything keeps its order. Of a zone that was left
//! meanwhile something may still be told: the node ignores what is of no zone of its own.

use std::collections::VecDeque;

use futures::FutureExt;
use tokio::task::{JoinHandle, spawn_blocking};

use crate::net::streams::InboundRequest;
use crate::net::swarm::{Network, NetworkEvent};
use crate::net::verifier::{Judged, Verifier, finish, has_threads};
use crate::proto::identity::PeerKey;
use crate::proto::io::Protocol;

/// Events that are gathered while others are judged, at most, and that wait for the driver before more are judged: some
/// milliseconds of work where all carry one record.
const GATHERED_MAX: usize = 64;
/// Bytes of messages among them, at most: as much judging where they carry many.
const GATHERED_BYTES_MAX: usize = 512 * 1024;

/// Something that the network tells, and its records as they were judged.
pub(super) type Arrival = (NetworkEvent, Judged);

/// Events on their way.
pub(super) struct Arrivals {
    verifier: Verifier,
    gathered: Vec<NetworkEvent>,
    gathered_bytes: usize,
    judging: Option<JoinHandle<Vec<Arrival>>>,
    ready: VecDeque<Arrival>,
}

impl Arrivals {
    pub(super) fn new(verifier: Verifier) -> Arrivals {
        Arrivals { verifier, gathered: Vec::new(), gathered_bytes: 0, judging: None, ready: VecDeque::new() }
    }

    /// The next event. May be dropped while it waits; nothing is lost.
    pub(super) async fn next(&mut self, network: &mut Network) -> Arrival {
        loop {
            while self.has_room()
                && let Some(event) = network.next().now_or_never()
            {
                self.gather(event);
            }
            self.judge();
            if let Some(arrival) = self.ready.pop_front() {
                return arrival;
            }
            let has_room = self.has_room();
            tokio::select! {
                judged = judged(&mut self.judging), if self.judging.is_some() => {
                    self.judging = None;
                    self.ready.extend(judged);
                }
                event = network.next(), if has_room => self.gather(event),
            }
        }
    }

    fn has_room(&self) -> bool {
        // One request at a time: what it takes of the driver is charged before the next is read.
        let is_request = matches!(self.gathered.last(), Some(NetworkEvent::Request(_)));
        !is_request && self.gathered.len() < GATHERED_MAX && self.gathered_bytes < GATHERED_BYTES_MAX
    }

    fn gather(&mut self, event: NetworkEvent) {
        self.gathered_bytes += sent(&event).map_or(0, |(_, bytes)| bytes.len());
        self.gathered.push(event);
    }

    /// Has what was gathered judged, if nothing else is. What there is nothing to judge of is ready where nothing is before it.
    fn judge(&mut self) {
        if self.gathered.is_empty() || self.judging.is_some() || self.ready.len() >= GATHERED_MAX {
            return;
        }
        let events = std::mem::take(&mut self.gathered);
        self.gathered_bytes = 0;
        if events.iter().all(|event| sent(event).is_none()) {
            self.ready.extend(events.into_iter().map(|event| (event, Judged::default())));
            return;
        }
        let verifier = self.verifier.clone();
        if has_threads() {
            self.judging = Some(spawn_blocking(move || judge_all(&verifier, events)));
        } else {
            self.ready.extend(judge_all(&verifier, events));
        }
    }
}

/// Of what is judged on another thread.
async fn judged(judging: &mut Option<JoinHandle<Vec<Arrival>>>) -> Vec<Arrival> {
    match judging {
        Some(judging) => finish(judging).await,
        None => Vec::new(),
    }
}

/// The bytes of an event that may carry records, and who sent them.
fn sent(event: &NetworkEvent) -> Option<(PeerKey, &[u8])> {
    match event {
        NetworkEvent::Gossip { peer, bytes, .. }
        | NetworkEvent::Request(InboundRequest { peer, protocol: Protocol::Sync, bytes, .. }) => {
            Some((*peer, bytes))
        }
        _ => None,
    }
}

fn judge_all(verifier: &Verifier, events: Vec<NetworkEvent>) -> Vec<Arrival> {
    let records_of = |event: &NetworkEvent| match event {
        NetworkEvent::Gossip { bytes, .. } => verifier.of_gossip(bytes),
        NetworkEvent::Request(request) => verifier.of_request(&request.bytes),
        _ => Vec::new(),
    };
    let carried = events.iter().filter_map(|event| Some((sent(event)?.0, records_of(event))));
    let mut judged = verifier.judge(carried.collect()).into_iter();
    let judged_of = |event: &NetworkEvent| sent(event).and_then(|_| judged.next()).unwrap_or_default();
    let arrived: Vec<Judged> = events.iter().map(judged_of).collect();
    events.into_iter().zip(arrived).collect()
}
