//! The open connections: a bounded number, shared out by address and block, of which those that do nothing make room.
//!
//! Whoever connects gets a place, and takes it from the one that has been idle longest where there is none: of its own address
//! or block when that has its share, else of all. A connection is idle while no request of it is at work: silent, between two
//! requests, or with a body that does not come. So silent connections keep nobody out, and only where every place is at work
//! is a newcomer turned away.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::host::{Reason, Refusals};
use crate::proto::address_block::{Share, Shares, Source};

/// Open connections; 1024 leaves file descriptors for the mesh.
pub(super) const CONNECTIONS_MAX: usize = 1024;
/// Of these, those of one address and of one block: the desktops of an office behind one address.
const SHARE: Share = Share { per_address: 128, per_block: 256 };

/// All open connections. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Connections {
    table: Arc<Mutex<Table>>,
    refusals: Refusals,
}

#[derive(Debug)]
struct Table {
    next: u64,
    open: BTreeMap<u64, Open>,
    shares: Shares,
}

#[derive(Debug)]
struct Open {
    source: Option<Source>,
    activity: Arc<Activity>,
    /// Dropped to close it.
    _evict: oneshot::Sender<()>,
}

/// What a connection does. Beside the table's lock, for which the requests of all connections would wait.
#[derive(Debug)]
struct Activity {
    entered: Instant,
    /// Requests at work.
    at_work: AtomicUsize,
    /// Since when it has done nothing, where none is: nanoseconds after it entered.
    idle_since: AtomicU64,
}

/// The place of a connection; dropping it frees the place.
#[derive(Debug)]
pub(super) struct Place {
    connections: Connections,
    activity: Arc<Activity>,
    number: u64,
}

/// A request at work, until it is dropped.
#[derive(Debug)]
pub(super) struct Work(Arc<Place>);

impl Connections {
    pub(super) fn new(refusals: Refusals) -> Connections {
        let table = Table { next: 0, open: BTreeMap::new(), shares: Shares::new(SHARE) };
        Connections { table: Arc::new(Mutex::new(table)), refusals }
    }

    /// A place for a connection, and what resolves when it has to make room; none where every place is at work.
    pub(super) fn enter(&self, source: Option<Source>) -> Option<(Place, oneshot::Receiver<()>)> {
        let mut table = self.lock();
        while let Some(reason) = table.shortage(source) {
            let share_of = source.filter(|_| reason == Reason::ConnectionShare);
            let Some(idle) = table.longest_idle(share_of) else {
                self.refusals.count(reason);
                return None;
            };
            table.remove(idle);
            self.refusals.count(Reason::ConnectionReplaced);
        }
        let number = table.next;
        table.next += 1;
        let (evict, evicted) = oneshot::channel();
        table.shares.add(source, 1);
        let activity = Arc::new(Activity::new());
        table.open.insert(number, Open { source, activity: activity.clone(), _evict: evict });
        drop(table);
        Some((Place { connections: self.clone(), activity, number }, evicted))
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        // Every change is one step, so a panic elsewhere leaves nothing half done.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn shortage(&self, source: Option<Source>) -> Option<Reason> {
        if !self.shares.has_room(source, 1) {
            Some(Reason::ConnectionShare)
        } else if self.open.len() >= CONNECTIONS_MAX {
            Some(Reason::ConnectionPlaces)
        } else {
            None
        }
    }

    fn longest_idle(&self, share_of: Option<Source>) -> Option<u64> {
        let longest = |of: &dyn Fn(&Open) -> bool| {
            let idle = self.open.iter().filter(|(_, open)| of(open));
            let idle = idle.filter_map(|(number, open)| Some((open.activity.idle_since()?, *number)));
            idle.min().map(|(_, number)| number)
        };
        let Some(source) = share_of else { return longest(&|_| true) };
        let own = longest(&|open| open.source.is_some_and(|it| it.address == source.address));
        own.or_else(|| longest(&|open| open.source.is_some_and(|it| it.block == source.block)))
    }

    fn remove(&mut self, number: u64) {
        if let Some(open) = self.open.remove(&number) {
            self.shares.remove(open.source, 1);
        }
    }
}

impl Activity {
    fn new() -> Activity {
        Activity { entered: Instant::now(), at_work: AtomicUsize::new(0), idle_since: AtomicU64::new(0) }
    }

    fn touch(&self) {
        let since = u64::try_from(self.entered.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.idle_since.store(since, Ordering::Relaxed);
    }

    /// Since when it has done nothing; none where a request is at work.
    fn idle_since(&self) -> Option<Instant> {
        let is_idle = self.at_work.load(Ordering::Acquire) == 0;
        is_idle.then(|| self.entered + Duration::from_nanos(self.idle_since.load(Ordering::Relaxed)))
    }
}

impl Place {
    /// Something came.
    pub(super) fn touch(&self) {
        self.activity.touch();
    }

    /// A request is at work.
    pub(super) fn work(self: &Arc<Place>) -> Work {
        self.activity.at_work.fetch_add(1, Ordering::Relaxed);
        Work(self.clone())
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        let activity = &self.0.activity;
        // First: at work or idle since now, never idle since long ago.
        activity.touch();
        activity.at_work.fetch_sub(1, Ordering::Release);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connections.lock().remove(self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Entered = (Arc<Place>, oneshot::Receiver<()>);

    fn enter(connections: &Connections, ip: Option<&str>) -> Option<Entered> {
        let source = ip.map(|ip| Source::of(ip.parse().unwrap()));
        connections.enter(source).map(|(place, evicted)| (Arc::new(place), evicted))
    }

    fn is_closed(entered: &mut Entered) -> bool {
        entered.1.try_recv() == Err(oneshot::error::TryRecvError::Closed)
    }

    #[test]
    fn the_connection_that_was_idle_longest_makes_room_and_none_at_work_does() {
        let connections = Connections::new(Refusals::default());
        let mut open = Vec::new();
        for _ in 0..CONNECTIONS_MAX {
            open.push(enter(&connections, None).unwrap());
        }
        let first = open[0].0.work();
        open[1].0.touch();
        open.push(enter(&connections, None).unwrap());
        let closed = |open: &mut Vec<Entered>| {
            (0..open.len()).filter(|at| is_closed(&mut open[*at])).collect::<Vec<_>>()
        };
        assert_eq!(closed(&mut open), [2]);
        let _work: Vec<Work> = open.iter().map(|(place, _)| place.work()).collect();
        assert!(enter(&connections, None).is_none(), "all of them are at work");
        drop(first);
        assert!(enter(&connections, None).is_none(), "its second request is at work still");
    }

    #[tokio::test]
    async fn an_address_with_its_share_closes_its_own() {
        let connections = Connections::new(Refusals::default());
        let mut other = enter(&connections, Some("198.51.100.1")).unwrap();
        let mut own = Vec::new();
        for _ in 0..SHARE.per_address + 5 {
            own.push(enter(&connections, Some("192.0.2.1")).unwrap());
        }
        assert!(!is_closed(&mut other));
        assert_eq!(own.iter_mut().filter_map(|it| is_closed(it).then_some(())).count(), 5);
        drop((own, other));
        let table = connections.lock();
        assert!(table.open.is_empty() && table.shares.is_empty());
    }
}
