//! The thread that writes to sled, and the bounded queue before it.
//!
//! sled pays a segment of its log for every flush, however little it holds. So what is queued waits in the queue until a
//! flush is worth it, and is written and flushed as one.
//!
//! The queue is a map: of several writes of one key only the last reaches sled. Everything that was queued at one
//! time is written before anything queued later.

use std::collections::BTreeMap;
use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::StoreError;
use super::tree::{SledTree, panic_text};
use crate::proto::io::UNFLUSHED_MAX;

/// Rows that may wait: a second of what sled takes on a slow machine.
const WAITING_ROWS_MAX: usize = 8_192;
/// Bytes that may wait: small beside the records a node holds in memory.
const WAITING_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Bytes that are flushed before their time: eight segments of sled's log, of which the last is not full. What was durable is in
/// the journal, too; of the rest so much is to come again from peers after a crash.
const FLUSH_BYTES: usize = 4 * 1024 * 1024;
/// Rows that are flushed before their time. The journal keeps removals until then: these are small beside the length from which
/// it is compacted.
const FLUSH_ROWS: usize = 2_048;
/// A thread that shows no progress for so long will show none: no disk that works needs it for 8,192 rows.
const STALLED_AFTER: Duration = Duration::from_secs(30);
/// How long closing waits for the queue to drain: what supervisors grant a process that ends is 5 to 10 s.
const CLOSE_WAIT: Duration = Duration::from_secs(3);

/// A row for sled; `None` removes.
pub(super) type TreeWrite = (Vec<u8>, Option<Vec<u8>>);

/// The writing end of the queue, and the thread at its other end.
pub(super) struct Writer {
    queue: Arc<WriteQueue>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct WriteQueue {
    state: Mutex<QueueState>,
    /// A flush is due at another time than before, or the queue was closed.
    filled: Condvar,
    /// The thread took what was queued, or ended.
    drained: Condvar,
}

#[derive(Default)]
struct QueueState {
    rows: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    bytes: usize,
    /// When the oldest of them was queued.
    since: Option<Instant>,
    /// Highest sequence number that was queued, and that was flushed.
    queued_seq: u64,
    flushed_seq: u64,
    /// Since when the thread is in sled.
    busy_since: Option<Instant>,
    phase: Phase,
}

#[derive(Default)]
enum Phase {
    #[default]
    Open,
    Closing,
    /// The thread has ended; with the reason if it failed.
    Ended(Option<String>),
}

impl Writer {
    /// Starts the thread on a tree in which everything up to number `flushed_seq` is flushed. It holds `lock` until it
    /// ends, so that no other store uses the folder while it still writes.
    pub(super) fn start(tree: SledTree, lock: Arc<File>, flushed_seq: u64) -> Result<Writer, StoreError> {
        let queue = Arc::new(WriteQueue::default());
        queue.lock().flushed_seq = flushed_seq;
        let thread = std::thread::Builder::new().name("store-writer".into()).spawn({
            let queue = queue.clone();
            move || run(&queue, tree, lock)
        });
        let thread = thread.map_err(|source| StoreError::Thread { source })?;
        Ok(Writer { queue, thread: Some(thread) })
    }

    /// Whether sled still takes rows.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        self.queue.lock().check()
    }

    /// Queues rows, of which `seq` is the highest number. Blocks while the queue is full.
    pub(super) fn push(&self, rows: Vec<TreeWrite>, seq: u64) -> Result<(), StoreError> {
        let mut state = self.queue.lock();
        for (key, row) in rows {
            while state.is_full() {
                // Asked at every turn: a thread that has stalled or ended never makes room.
                state.check()?;
                state = self.queue.wait(&self.queue.drained, state, Duration::from_secs(1));
            }
            state.put(key, row);
            // The first of them sets the time of the flush.
            if state.rows.len() == 1 || state.is_worth_a_flush() {
                self.queue.filled.notify_one();
            }
        }
        // Raised when all rows are in: flushing the first part of a batch must not count as flushing it.
        state.queued_seq = state.queued_seq.max(seq);
        state.check()
    }

    /// The highest number up to which everything has reached sled's file.
    pub(super) fn flushed_seq(&self) -> u64 {
        self.queue.lock().flushed_seq
    }

    /// Writes what is queued, flushes, and ends the thread; waits at most 3 s.
    pub(super) fn close(&mut self) -> Result<(), StoreError> {
        let Some(thread) = self.thread.take() else { return Ok(()) };
        let deadline = Instant::now() + CLOSE_WAIT;
        let mut state = self.queue.lock();
        // A thread that failed before keeps its reason.
        if matches!(state.phase, Phase::Open) {
            state.phase = Phase::Closing;
        }
        self.queue.filled.notify_one();
        loop {
            match &state.phase {
                Phase::Ended(None) => break,
                Phase::Ended(Some(reason)) => return Err(StoreError::Sled { reason: reason.clone() }),
                Phase::Open | Phase::Closing => {}
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                // The thread is left behind with the lock, so nobody opens the folder while it still writes.
                return Err(StoreError::NotDrained { rows: state.rows.len() });
            }
            state = self.queue.wait(&self.queue.drained, state, left);
        }
        drop(state);
        let _ = thread.join(); // it has nothing left to do but to release the lock
        Ok(())
    }
}

impl WriteQueue {
    /// A panic of a thread that holds the lock is impossible to see from here, and changes nothing: every change of
    /// the state is whole.
    fn lock(&self) -> MutexGuard<'_, QueueState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(
        &self,
        event: &Condvar,
        state: MutexGuard<'a, QueueState>,
        most: Duration,
    ) -> MutexGuard<'a, QueueState> {
        event.wait_timeout(state, most).unwrap_or_else(PoisonError::into_inner).0
    }
}

impl QueueState {
    fn is_full(&self) -> bool {
        self.rows.len() >= WAITING_ROWS_MAX || self.bytes >= WAITING_BYTES_MAX
    }

    fn put(&mut self, key: Vec<u8>, row: Option<Vec<u8>>) {
        self.since.get_or_insert_with(Instant::now);
        self.bytes += key.len() + row.as_ref().map_or(0, Vec::len);
        let key_bytes = key.len();
        // The old row is part of the sum that was just added to, so this never falls below zero.
        if let Some(old) = self.rows.insert(key, row) {
            self.bytes -= key_bytes + old.map_or(0, |old| old.len());
        }
    }

    fn check(&self) -> Result<(), StoreError> {
        if let Phase::Ended(reason) = &self.phase {
            let reason = reason.clone().unwrap_or_else(|| "its thread has ended".into());
            return Err(StoreError::Sled { reason });
        }
        match self.busy_since {
            Some(since) if since.elapsed() > STALLED_AFTER => {
                let reason = format!("it shows no progress since {} s", since.elapsed().as_secs());
                Err(StoreError::Sled { reason })
            }
            _ => Ok(()),
        }
    }
}

/// The thread. A tree that failed may hang when it is dropped, so the failure is told first; one that works is
/// closed first, so that the folder is free when [`Writer::close`] returns.
fn run(queue: &WriteQueue, tree: SledTree, lock: Arc<File>) {
    let drained = catch_unwind(AssertUnwindSafe(|| drain(queue, &tree)));
    let drained = drained.unwrap_or_else(|panic| Err(panic_text(panic.as_ref())));
    let (tree, reason) = match drained {
        Ok(()) => (catch_unwind(AssertUnwindSafe(|| drop(tree))).ok().and(None), None),
        Err(reason) => (Some(tree), Some(reason)),
    };
    queue.lock().phase = Phase::Ended(reason);
    queue.drained.notify_all();
    drop(tree);
    drop(lock);
}

/// What the thread takes from the queue at once.
struct Taken {
    rows: Vec<TreeWrite>,
    /// The highest number that was queued.
    seq: u64,
    /// Whether nothing follows.
    is_last: bool,
}

/// Writes and flushes what is queued whenever that is due.
fn drain(queue: &WriteQueue, tree: &SledTree) -> Result<(), String> {
    loop {
        let Taken { rows, seq, is_last } = take(queue);
        tree.write(rows)?;
        tree.flush()?;
        let mut state = queue.lock();
        // Only after the flush: the journal forgets removals up to this number.
        state.flushed_seq = seq;
        state.busy_since = None;
        if is_last {
            return Ok(());
        }
    }
}

/// Waits until a flush is due.
fn take(queue: &WriteQueue) -> Taken {
    let mut state = queue.lock();
    loop {
        if let Some(is_last) = state.due() {
            state.busy_since = Some(Instant::now());
            queue.drained.notify_all();
            return state.take(is_last);
        }
        let left = state.left();
        state = queue.wait(&queue.filled, state, left);
    }
}

impl QueueState {
    /// Whether everything is to be flushed now, and if so whether nothing follows.
    fn due(&self) -> Option<bool> {
        let is_last = matches!(self.phase, Phase::Closing);
        (is_last || self.is_worth_a_flush() || self.left().is_zero()).then_some(is_last)
    }

    /// How long it may wait yet. Without rows the wait ends by a notification; the bound costs a wake-up in some minutes.
    fn left(&self) -> Duration {
        self.since.map_or(UNFLUSHED_MAX, |since| UNFLUSHED_MAX.saturating_sub(since.elapsed()))
    }

    fn is_worth_a_flush(&self) -> bool {
        self.rows.len() >= FLUSH_ROWS || self.bytes >= FLUSH_BYTES
    }

    fn take(&mut self, is_last: bool) -> Taken {
        (self.bytes, self.since) = (0, None);
        // All at once: whatever is queued from here on is newer and is written later.
        Taken { rows: std::mem::take(&mut self.rows).into_iter().collect(), seq: self.queued_seq, is_last }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn without_thread() -> Writer {
        Writer { queue: Arc::new(WriteQueue::default()), thread: None }
    }

    fn rows(count: usize) -> Vec<TreeWrite> {
        (0..count).map(|index| (index.to_be_bytes().to_vec(), Some(vec![0; 10]))).collect()
    }

    #[test]
    fn a_full_queue_blocks_until_the_thread_takes_what_waits() {
        let writer = without_thread();
        writer.push(rows(WAITING_ROWS_MAX), 1).unwrap();
        let (queue, started) = (writer.queue.clone(), Instant::now());
        std::thread::scope(|scope| {
            let pushed = scope.spawn(|| writer.push(vec![(vec![1], None)], 2));
            assert_eq!(take(&queue).rows.len(), WAITING_ROWS_MAX);
            pushed.join().unwrap().unwrap();
        });
        assert!(started.elapsed() < STALLED_AFTER);
        assert_eq!(queue.lock().rows.len(), 1);
    }

    #[test]
    fn a_full_queue_before_a_stalled_thread_is_an_error() {
        let writer = without_thread();
        writer.push(rows(WAITING_ROWS_MAX), 1).unwrap();
        writer.queue.lock().busy_since = Instant::now().checked_sub(STALLED_AFTER + Duration::from_secs(1));
        let refused = writer.push(vec![(vec![1], None)], 2).unwrap_err();
        assert!(
            matches!(&refused, StoreError::Sled { reason } if reason.contains("no progress")),
            "{refused}"
        );
        assert_eq!(writer.queue.lock().rows.len(), WAITING_ROWS_MAX, "nothing was queued beyond the limit");
    }

    #[test]
    fn a_flush_is_due_by_time_by_count_by_bytes_and_at_the_end_and_never_else() {
        let due = |change: &dyn Fn(&Writer)| {
            let writer = without_thread();
            writer.push(rows(1), 1).unwrap();
            change(&writer);
            let mut state = writer.queue.lock();
            state.due().map(|is_last| (state.take(is_last).rows.len(), is_last))
        };
        let queued_at = |writer: &Writer, ago: Duration| {
            writer.queue.lock().since = Instant::now().checked_sub(ago);
        };
        assert_eq!(due(&|_| {}), None);
        assert_eq!(due(&|writer| queued_at(writer, UNFLUSHED_MAX / 2)), None);
        assert_eq!(due(&|writer| queued_at(writer, UNFLUSHED_MAX)), Some((1, false)));
        assert_eq!(due(&|writer| writer.push(rows(FLUSH_ROWS - 1), 2).unwrap()), None);
        assert_eq!(due(&|writer| writer.push(rows(FLUSH_ROWS), 2).unwrap()), Some((FLUSH_ROWS, false)));
        let long = || vec![(vec![9], Some(vec![0; FLUSH_BYTES]))];
        assert_eq!(due(&|writer| writer.push(long(), 2).unwrap()), Some((2, false)));
        assert_eq!(due(&|writer| writer.queue.lock().phase = Phase::Closing), Some((1, true)));
    }

    #[test]
    fn of_two_writes_of_a_key_the_later_waits_and_its_bytes_are_counted_once() {
        let writer = without_thread();
        writer.push(vec![(vec![1], Some(vec![0; 100])), (vec![1], Some(vec![9; 7]))], 2).unwrap();
        let mut state = writer.queue.lock();
        assert_eq!(state.bytes, 8);
        let Taken { rows, seq: 2, .. } = state.take(false) else { panic!("two numbers were queued") };
        assert_eq!(rows, [(vec![1], Some(vec![9; 7]))]);
    }
}
