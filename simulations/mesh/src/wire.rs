//! The network below the transports: ports, connections and the time a chunk of bytes is on its way.
//!
//! A connection is two lanes, one in each direction. A chunk is dated when it is written, and its reader is woken when
//! it is due: by one carrier for all lanes, in the order of dates and then of writing, so that a run is a function of
//! its seed. A lane keeps its order and loses nothing, as TCP and QUIC do: what the network below them loses comes
//! later. Times are whole milliseconds, the finest that tokio's timers tell apart.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures::channel::mpsc;
use futures::{AsyncRead, AsyncWrite};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use tokio::sync::Notify;
use tokio::time::sleep;

use crate::entropy;
use crate::links::{Links, within};

/// Bytes a lane holds before its writer waits: more than a yamux window.
const LANE_BYTES_MAX: usize = 1024 * 1024;
/// How long a call into a partition rings: the time QUIC gives a handshake.
const DIAL_PATIENCE: Duration = Duration::from_secs(5);
/// Most times in a row that a chunk is lost; then it comes through, so that no draw stops a lane for ever.
const LOST_MAX: u32 = 16;

/// The network of one run. Clones are the same.
#[derive(Clone)]
pub struct Wire {
    state: Arc<Mutex<State>>,
    posted: Arc<Notify>,
}

/// A connection's end.
pub struct Link {
    wire: Wire,
    /// The lane read from.
    inbound: usize,
    /// The lane written to.
    outbound: usize,
}

struct State {
    links: Links,
    /// Share of chunks that are sent again.
    loss: f64,
    chance: ChaCha8Rng,
    ports: BTreeMap<u64, Port>,
    /// By number; none once nobody reads it.
    lanes: Vec<Option<Lane>>,
    /// Lanes with a chunk that is due at a time, in the order of writing.
    due: BinaryHeap<Reverse<(u64, u64, usize)>>,
    next_chunk: u64,
    /// The parts of every node in each partition under way.
    partitions: BTreeMap<usize, Vec<u8>>,
    bytes: u64,
    /// When the carrier looks again.
    wakes_at: u64,
}

struct Port {
    node: usize,
    calls: mpsc::UnboundedSender<Link>,
}

struct Lane {
    from: usize,
    to: usize,
    /// Date and content; an empty one is the end. [`HELD`] is the date of what a partition keeps back.
    chunks: VecDeque<(u64, Vec<u8>)>,
    /// Bytes of the first chunk that were read.
    read: usize,
    bytes: usize,
    /// Date of the last chunk.
    last: u64,
    reader: Option<Waker>,
    writer: Option<Waker>,
    end: End,
}

/// What became of a lane.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Open,
    /// The writer is done: what is on its way arrives.
    Closed,
    /// A partition lasted too long for it.
    Broken,
}

/// The date of what is not on its way.
const HELD: u64 = u64::MAX;

impl Wire {
    /// A network with these links, which loses this share of the chunks.
    pub fn new(links: Links, loss: f64, seed: u64) -> Wire {
        let state = State {
            links,
            loss,
            chance: ChaCha8Rng::seed_from_u64(seed),
            ports: BTreeMap::new(),
            lanes: Vec::new(),
            due: BinaryHeap::new(),
            next_chunk: 0,
            partitions: BTreeMap::new(),
            bytes: 0,
            wakes_at: 0,
        };
        Wire { state: Arc::new(Mutex::new(state)), posted: Arc::default() }
    }

    /// Carries chunks to their readers; never ends.
    pub async fn carry(self) {
        loop {
            let (woken, next) = self.state().deliver(now_ms());
            woken.into_iter().for_each(Waker::wake);
            match next {
                Some(due) => tokio::select! {
                    biased;
                    () = self.posted.notified() => {}
                    () = sleep(Duration::from_millis(due.saturating_sub(now_ms()))) => {}
                },
                None => self.posted.notified().await,
            }
        }
    }

    /// Opens a port: whoever calls there from now on comes out of the receiver.
    pub fn open(&self, node: usize, port: u64) -> mpsc::UnboundedReceiver<Link> {
        let (calls, called) = mpsc::unbounded();
        self.state().ports.insert(port, Port { node, calls });
        called
    }

    /// Connects to a port, in a round trip.
    pub async fn dial(self, from: usize, port: u64) -> io::Result<Link> {
        let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
        let Some(to) = self.state().ports.get(&port).map(|port| port.node) else { return Err(refused()) };
        let latency = Duration::from_millis(self.state().links.latency_ms(from, to));
        if self.state().are_apart(from, to) {
            sleep(DIAL_PATIENCE).await;
            return Err(io::ErrorKind::TimedOut.into());
        }
        sleep(latency).await;
        let calls = self.state().ports.get(&port).map(|port| port.calls.clone());
        let (near, far) = self.connect(from, to);
        let heard = calls.is_some_and(|calls| calls.unbounded_send(far).is_ok());
        sleep(latency).await;
        if heard { Ok(near) } else { Err(refused()) }
    }

    fn connect(&self, from: usize, to: usize) -> (Link, Link) {
        let mut state = self.state();
        let there = state.new_lane(from, to);
        let back = state.new_lane(to, from);
        let near = Link { wire: self.clone(), inbound: back, outbound: there };
        let far = Link { wire: self.clone(), inbound: there, outbound: back };
        (near, far)
    }

    /// Parts the nodes: what is written across waits. `number` names the partition.
    pub fn part(&self, number: usize, groups: Vec<u8>) {
        self.state().partitions.insert(number, groups);
    }

    /// Breaks the connections that reach across a partition.
    pub fn break_across(&self) {
        let woken = self.state().break_across();
        woken.into_iter().for_each(Waker::wake);
    }

    /// Ends a partition: what waited sets out.
    pub fn heal(&self, number: usize) {
        self.state().heal(number, &self.posted);
    }

    /// Bytes that were put on the way so far, encrypted and framed.
    pub fn bytes(&self) -> u64 {
        self.state().bytes
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn new_lane(&mut self, from: usize, to: usize) -> usize {
        let lane = Lane {
            from,
            to,
            chunks: VecDeque::new(),
            read: 0,
            bytes: 0,
            last: 0,
            reader: None,
            writer: None,
            end: End::Open,
        };
        self.lanes.push(Some(lane));
        self.lanes.len() - 1
    }

    fn lane(&mut self, number: usize) -> Option<&mut Lane> {
        self.lanes.get_mut(number)?.as_mut()
    }

    /// Numbers of the lanes that are so.
    fn lanes_where(&self, wanted: impl Fn(&Lane) -> bool) -> Vec<usize> {
        let lanes = self.lanes.iter().enumerate();
        lanes.filter(|(_, lane)| lane.as_ref().is_some_and(&wanted)).map(|(number, _)| number).collect()
    }

    fn are_apart(&self, a: usize, b: usize) -> bool {
        self.partitions.values().any(|groups| groups[a] != groups[b])
    }

    /// Readers whose first chunk is due, and when the next one is.
    fn deliver(&mut self, now: u64) -> (Vec<Waker>, Option<u64>) {
        let mut woken = Vec::new();
        self.wakes_at = u64::MAX;
        while let Some(Reverse((due, _, lane))) = self.due.peek().copied() {
            if due > now {
                self.wakes_at = due;
                return (woken, Some(due));
            }
            self.due.pop();
            woken.extend(self.lane(lane).and_then(|lane| lane.reader.take()));
        }
        (woken, None)
    }

    /// Puts a chunk at the end of a lane and dates it.
    fn send(&mut self, number: usize, now: u64, bytes: &[u8], posted: &Notify) {
        let Some((from, to)) = self.lane(number).map(|lane| (lane.from, lane.to)) else { return };
        let arrival = if self.are_apart(from, to) { HELD } else { self.arrival(now, from, to) };
        let Some(lane) = self.lane(number) else { return };
        lane.last = lane.last.max(arrival);
        lane.bytes += bytes.len();
        lane.chunks.push_back((lane.last, bytes.to_vec()));
        let due = lane.last;
        self.bytes += bytes.len() as u64;
        self.post(due, number, posted);
    }

    fn post(&mut self, due: u64, lane: usize, posted: &Notify) {
        if due == HELD {
            return;
        }
        self.next_chunk += 1;
        self.due.push(Reverse((due, self.next_chunk, lane)));
        if due < self.wakes_at {
            self.wakes_at = due;
            posted.notify_one();
        }
    }

    /// When a chunk that sets out now arrives: each loss costs a retransmission timeout, which doubles.
    fn arrival(&mut self, now: u64, from: usize, to: usize) -> u64 {
        let mut due = now + self.links.latency_ms(from, to);
        let jitter = self.links.jitter_ms(from, to);
        if jitter > 0 {
            due += within(0, jitter, unit(self.chance.next_u64()));
        }
        if self.loss > 0.0 {
            let mut timeout = self.links.retransmit_ms(from, to);
            for _ in 0..LOST_MAX {
                if unit(self.chance.next_u64()) >= self.loss {
                    break;
                }
                due += timeout;
                timeout *= 2;
            }
        }
        due
    }

    /// None if the lane is full. What is written for a reader who left is lost: its end of the other lane says so.
    fn write(&mut self, number: usize, now: u64, bytes: &[u8], posted: &Notify) -> Option<io::Result<usize>> {
        let Some(lane) = self.lane(number) else { return Some(Ok(bytes.len())) };
        if lane.end != End::Open {
            return Some(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let taken = bytes.len().min(LANE_BYTES_MAX.saturating_sub(lane.bytes));
        if taken == 0 {
            return None;
        }
        self.send(number, now, &bytes[..taken], posted);
        Some(Ok(taken))
    }

    fn read(&mut self, number: usize, now: u64, buffer: &mut [u8]) -> Option<io::Result<usize>> {
        let lane = self.lane(number)?;
        if lane.end == End::Broken {
            return Some(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let mut copied = 0;
        while let Some((due, chunk)) = lane.chunks.front() {
            let is_end = chunk.is_empty();
            if *due > now || copied == buffer.len() || (is_end && copied > 0) {
                break;
            }
            if is_end {
                return Some(Ok(0));
            }
            let part = &chunk[lane.read..];
            let length = part.len().min(buffer.len() - copied);
            buffer[copied..copied + length].copy_from_slice(&part[..length]);
            copied += length;
            lane.read += length;
            lane.bytes -= length;
            if lane.read == chunk.len() {
                lane.chunks.pop_front();
                lane.read = 0;
            }
        }
        (copied > 0).then_some(Ok(copied))
    }

    /// The writer is done.
    fn close(&mut self, number: usize, now: u64, posted: &Notify) {
        if let Some(lane) = self.lane(number)
            && lane.end == End::Open
        {
            lane.end = End::Closed;
            self.send(number, now, &[], posted);
        }
    }

    /// The reader is gone.
    fn abandon(&mut self, number: usize) -> Option<Waker> {
        let mut lane = self.lanes.get_mut(number)?.take()?;
        lane.writer.take()
    }

    fn break_across(&mut self) -> Vec<Waker> {
        let across = self.lanes_where(|lane| self.are_apart(lane.from, lane.to));
        let mut woken = Vec::new();
        for number in across {
            let Some(lane) = self.lane(number) else { continue };
            lane.end = End::Broken;
            lane.chunks.clear();
            woken.extend(lane.reader.take());
            woken.extend(lane.writer.take());
        }
        woken
    }

    fn heal(&mut self, number: usize, posted: &Notify) {
        self.partitions.remove(&number);
        let free = self.lanes_where(|lane| lane.last == HELD && !self.are_apart(lane.from, lane.to));
        let now = now_ms();
        for number in free {
            let Some((from, to)) = self.lane(number).map(|lane| (lane.from, lane.to)) else { continue };
            let arrival = self.arrival(now, from, to);
            let Some(lane) = self.lane(number) else { continue };
            lane.chunks.iter_mut().filter(|(due, _)| *due == HELD).for_each(|(due, _)| *due = arrival);
            lane.last = arrival;
            self.post(arrival, number, posted);
        }
    }
}

impl AsyncRead for Link {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let (mut woken, mut state) = (None, self.wire.state());
        let result = state.read(self.inbound, now_ms(), buffer);
        if let Some(lane) = state.lane(self.inbound) {
            match &result {
                Some(_) => woken = lane.writer.take(),
                None => lane.reader = Some(context.waker().clone()),
            }
        }
        drop(state);
        woken.into_iter().for_each(Waker::wake);
        result.map_or(Poll::Pending, Poll::Ready)
    }
}

impl AsyncWrite for Link {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut state = self.wire.state();
        let result = state.write(self.outbound, now_ms(), bytes, &self.wire.posted);
        if result.is_none()
            && let Some(lane) = state.lane(self.outbound)
        {
            lane.writer = Some(context.waker().clone());
        }
        result.map_or(Poll::Pending, Poll::Ready)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.wire.state().close(self.outbound, now_ms(), &self.wire.posted);
        Poll::Ready(Ok(()))
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        let mut state = self.wire.state();
        state.close(self.outbound, now_ms(), &self.wire.posted);
        let woken = state.abandon(self.inbound);
        drop(state);
        woken.into_iter().for_each(Waker::wake);
    }
}

/// A draw as a share, 0 to below 1.
pub fn unit(draw: u64) -> f64 {
    (draw >> 11) as f64 / (1u64 << 53) as f64
}

fn now_ms() -> u64 {
    entropy::elapsed().as_millis() as u64
}
