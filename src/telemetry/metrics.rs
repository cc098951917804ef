//! What a node counts while it works. What it can look up when it is asked is read then ([`super::exposition`]), and counted
//! nowhere.
//!
//! One value of [`Metrics`] belongs to one node; every part of the node that counts has a share of it.

mod calls;

use std::fmt::{self, Debug};
use std::hash::Hash;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Metric, Registry};

pub(crate) use self::calls::{
    CallMetrics, CallStage, DURATION as CALL_DURATION, Exemplar, Side, WaitingCall,
};
use super::histogram::{CALL, FAST, Histogram, Reading, SPREAD};
use crate::proto::io::Via;

/// Sets of labels of the HTTP server and of the MCP server that are told apart; what comes beyond is one more. A client chooses
/// among the paths and methods that there are, and could have all of them.
const HTTP_SERIES_MAX: usize = 24;
const MCP_SERIES_MAX: usize = 12;
/// Ways of what is counted both ways.
const DIRECTION: (&str, [&str; 2]) = ("direction", ["in", "out"]);
/// What stands in the place of labels beyond those.
pub(crate) const OTHER: &str = "other";

/// Labels with values of this program.
type Labels<const N: usize> = [(&'static str, &'static str); N];
type Counters<const N: usize> = Family<Labels<N>, Counter>;
type Gauges<const N: usize> = Family<Labels<N>, Gauge>;
type Histograms<L> = Family<L, Histogram, fn() -> Histogram>;

/// The counted numbers of a node.
pub(crate) struct Metrics {
    pub(super) registry: Registry,
    pub(crate) calls: CallMetrics,
    find: Histograms<Labels<1>>,
    find_zones: ListedCounters,
    http: BoundedHistograms<Vec<(&'static str, String)>>,
    /// Requests of all of these.
    http_all: Histogram,
    mcp: BoundedHistograms<Labels<2>>,
    syncs: SyncMetrics,
    propagation: Histograms<Labels<1>>,
    pub(crate) rtt: Histogram,
    dials: ListedCounters,
    verdicts: ListedCounters,
    offences: ListedCounters,
    /// One turn of the driver without its wait: the one task that everything waits for.
    pub(crate) driver_turn: Histogram,
    pub(crate) store_write: Histogram,
    store_bytes: Gauges<1>,
    links: LinkMetrics,
    /// Events that watchers were too slow for.
    pub(crate) events_missed: Counter,
}

/// What is counted of comparisons with peers that this node began.
struct SyncMetrics {
    sessions: ListedCounters,
    records: ListedCounters,
    bytes: ListedCounters,
    took: Histogram,
}

/// What is counted of connections with peers.
struct LinkMetrics {
    open: Gauges<2>,
    bytes: Counters<2>,
}

/// What was counted until one moment.
pub(crate) struct Counted {
    pub(crate) calls: Reading,
    /// Calls that failed, and not by a mistake of their callers.
    pub(crate) failed: u64,
    pub(crate) in_flight: i64,
    pub(crate) finds: Reading,
    pub(crate) http: Reading,
    pub(crate) rtt: Reading,
    pub(crate) driver_turn: Reading,
    pub(crate) spread: Reading,
    pub(crate) received_bytes: u64,
    pub(crate) sent_bytes: u64,
}

/// What is counted of a connection with a peer, which is open until this is dropped.
pub(crate) struct ConnectionMetrics {
    /// Bytes that came in on its streams, and that left on them.
    pub(crate) received: Counter,
    pub(crate) sent: Counter,
    open: Gauge,
}

impl Drop for ConnectionMetrics {
    fn drop(&mut self) {
        self.open.dec();
    }
}

/// How bytes travel to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    Tcp,
    Quic,
    /// Through a relay, over one of the others.
    Relay,
}

impl Transport {
    const ALL: [Transport; 3] = [Transport::Tcp, Transport::Quic, Transport::Relay];

    fn label(self) -> (&'static str, &'static str) {
        let text = match self {
            Transport::Tcp => "tcp",
            Transport::Quic => "quic",
            Transport::Relay => "relay",
        };
        ("transport", text)
    }
}

/// Histograms of labels among which whoever asks may choose.
struct BoundedHistograms<L> {
    family: Histograms<L>,
    left: AtomicUsize,
}

impl<L: Clone + Eq + Hash> BoundedHistograms<L> {
    /// Whether these labels have a series, or may have one now.
    fn admits(&self, labels: &L) -> bool {
        self.family.get(labels).is_some()
            || self.left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_ok()
    }

    fn observe(&self, labels: &L, took: Duration) {
        self.family.get_or_create(labels).observe(took);
    }
}

/// Counters by the values of one label, all of which are there from the start.
struct ListedCounters {
    label: &'static str,
    family: Counters<1>,
}

impl ListedCounters {
    fn inc(&self, value: &'static str) {
        self.inc_by(value, 1);
    }

    fn inc_by(&self, value: &'static str, count: usize) {
        let labels = [(self.label, value)];
        debug_assert!(self.family.get(&labels).is_some(), "{value} is not listed as a {}", self.label);
        self.family.get_or_create(&labels).inc_by(count as u64);
    }
}

/// Registers what it makes.
#[derive(Default)]
struct Maker(Registry);

impl Maker {
    fn add<M: Metric + Clone>(&mut self, name: &str, help: &str, metric: M) -> M {
        self.0.register(name, help, metric.clone());
        metric
    }

    fn counters<const N: usize>(&mut self, name: &str, help: &str) -> Counters<N> {
        self.add(name, help, Counters::default())
    }

    fn listed<const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        (label, values): (&'static str, [&'static str; N]),
    ) -> ListedCounters {
        let family = begun(self.counters(name, help), values.map(|value| [(label, value)]));
        ListedCounters { label, family }
    }

    fn gauges<const N: usize>(&mut self, name: &str, help: &str) -> Gauges<N> {
        self.add(name, help, Gauges::default())
    }

    fn histogram(&mut self, name: &str, help: &str, bounds: &'static [f64]) -> Histogram {
        self.add(name, help, Histogram::new(bounds))
    }

    fn bounded<L>(
        &mut self,
        most: usize,
        name: &str,
        help: &str,
        make: fn() -> Histogram,
    ) -> BoundedHistograms<L>
    where
        L: EncodeLabelSet + Clone + Eq + Hash + Debug + Send + Sync + 'static,
    {
        BoundedHistograms { family: self.histograms(name, help, make), left: AtomicUsize::new(most) }
    }

    fn histograms<L>(&mut self, name: &str, help: &str, make: fn() -> Histogram) -> Histograms<L>
    where
        L: EncodeLabelSet + Clone + Eq + Hash + Debug + Send + Sync + 'static,
    {
        self.add(name, help, Family::new_with_constructor(make))
    }
}

/// The same, with what has these labels there from the start, so that the rate of each has its first event.
fn begun<const N: usize, M, C: MetricConstructor<M>>(
    family: Family<Labels<N>, M, C>,
    all: impl IntoIterator<Item = Labels<N>>,
) -> Family<Labels<N>, M, C> {
    all.into_iter().for_each(|labels| drop(family.get_or_create(&labels)));
    family
}

impl Default for Metrics {
    fn default() -> Metrics {
        let mut maker = Maker::default();
        let [call, fast, spread]: [fn() -> Histogram; 3] =
            [|| Histogram::new(CALL), || Histogram::new(FAST), || Histogram::new(SPREAD)];
        Metrics {
            calls: CallMetrics::new(&mut maker, call),
            find: begun(
                maker.histograms("aop_find_duration_seconds", "How long searches took", fast),
                [[("complete", "true")], [("complete", "false")]],
            ),
            find_zones: maker.listed(
                "aop_find_zones",
                "Zones that searches asked for, by how each answered",
                ("status", ["held", "answered", "cached", "stale", "unreachable", "skipped"]),
            ),
            http: maker.bounded(
                HTTP_SERIES_MAX,
                "http_server_request_duration_seconds",
                "How long HTTP requests took, event streams to their begin",
                fast,
            ),
            http_all: fast(),
            mcp: maker.bounded(
                MCP_SERIES_MAX,
                "mcp_server_operation_duration_seconds",
                "How long requests of MCP clients took",
                call,
            ),
            syncs: SyncMetrics::new(&mut maker),
            propagation: begun(
                maker.histograms(
                    "aop_record_propagation_seconds",
                    "Time from the writing of a new record to its coming here, errors of both clocks included",
                    spread,
                ),
                [[("via", Via::Gossip.text())], [("via", Via::Sync.text())]],
            ),
            rtt: maker.histogram("aop_peer_rtt_seconds", "Round trips of pings to connected peers", FAST),
            dials: maker.listed(
                "aop_dials",
                "Connections that this node tried to open, by how that ended",
                ("result", ["ok", "failed", "refused", "self"]),
            ),
            verdicts: maker.listed(
                "aop_gossip_verdicts",
                "Messages of gossip, by what was made of them",
                ("verdict", ["accept", "ignore", "reject"]),
            ),
            offences: maker.listed(
                "aop_offences",
                "Breaches of the protocol by peers",
                ("kind", ["record", "request", "sync", "answer", "greedy"]),
            ),
            driver_turn: maker.histogram(
                "aop_driver_turn_seconds",
                "Turns of the one task that decides, without its waits",
                FAST,
            ),
            store_write: maker.histogram("aop_store_write_duration_seconds", "Writes to the store", FAST),
            store_bytes: maker
                .gauges("aop_store_bytes", "Size of the store's files, looked at once a minute"),
            links: LinkMetrics::new(&mut maker),
            events_missed: maker.add(
                "aop_events_missed",
                "Events that watchers did not get because they read too slowly",
                Counter::default(),
            ),
            registry: maker.0,
        }
    }
}

impl SyncMetrics {
    fn new(maker: &mut Maker) -> SyncMetrics {
        SyncMetrics {
            sessions: maker.listed(
                "aop_sync_sessions",
                "Comparisons with peers that this node began",
                ("result", ["equal", "repaired", "failed"]),
            ),
            records: maker.listed("aop_sync_records", "Records exchanged in them", DIRECTION),
            bytes: maker.listed("aop_sync_bytes", "Bytes of their questions and answers", DIRECTION),
            took: maker.histogram("aop_sync_duration_seconds", "How long they took", SPREAD),
        }
    }
}

impl LinkMetrics {
    fn new(maker: &mut Maker) -> LinkMetrics {
        let (label, directions) = DIRECTION;
        let all = || {
            let of = move |way| Transport::ALL.map(|transport| [(label, way), transport.label()]);
            directions.into_iter().flat_map(of)
        };
        LinkMetrics {
            open: begun(
                maker.gauges("aop_connections", "Open connections, by who opened them and how bytes travel"),
                all(),
            ),
            bytes: begun(
                maker.counters(
                    "aop_network_bytes",
                    "Bytes of streams with peers, without what encryption and the transport add",
                ),
                all(),
            ),
        }
    }

    fn opened(&self, is_inbound: bool, transport: Transport) -> ConnectionMetrics {
        let bytes = |way| self.bytes.get_or_create_owned(&[("direction", way), transport.label()]);
        let way = if is_inbound { "in" } else { "out" };
        let open = self.open.get_or_create_owned(&[("direction", way), transport.label()]);
        open.inc();
        ConnectionMetrics { received: bytes("in"), sent: bytes("out"), open }
    }

    /// By all transports.
    fn bytes(&self, way: &'static str) -> u64 {
        let of =
            |transport: Transport| self.bytes.get_or_create(&[("direction", way), transport.label()]).get();
        Transport::ALL.map(of).iter().sum()
    }
}

impl Metrics {
    /// What was counted until now.
    pub(crate) fn read(&self) -> Counted {
        let of = |one: &Histograms<Labels<1>>, label, values: [&'static str; 2]| {
            let [first, second] = values.map(|value| one.get_or_create(&[(label, value)]).read());
            first.and(&second)
        };
        Counted {
            calls: self.calls.all(),
            failed: self.calls.failed(),
            in_flight: self.calls.in_flight(),
            finds: of(&self.find, "complete", ["true", "false"]),
            http: self.http_all.read(),
            rtt: self.rtt.read(),
            driver_turn: self.driver_turn.read(),
            spread: of(&self.propagation, "via", [Via::Gossip.text(), Via::Sync.text()]),
            received_bytes: self.links.bytes("in"),
            sent_bytes: self.links.bytes("out"),
        }
    }

    /// A connection with a peer opened.
    pub(crate) fn connected(&self, is_inbound: bool, transport: Transport) -> ConnectionMetrics {
        self.links.opened(is_inbound, transport)
    }

    /// So much room these files of the store take.
    pub(crate) fn stored(&self, file: &'static str, bytes: u64) {
        self.store_bytes.get_or_create(&[("file", file)]).set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// A search ended.
    pub(crate) fn found<'a>(
        &self,
        took: Duration,
        is_complete: bool,
        zones: impl Iterator<Item = &'static str> + 'a,
    ) {
        let complete = if is_complete { "true" } else { "false" };
        self.find.get_or_create(&[("complete", complete)]).observe(took);
        for status in zones {
            self.find_zones.inc(status);
        }
    }

    /// The HTTP server answered. `route` is the template of the path, none where there is no such.
    pub(crate) fn answered(&self, method: &str, route: Option<&str>, status: u16, took: Duration) {
        let labels = |method: &str, route: &str, status: u16| {
            vec![
                ("http_request_method", method.to_owned()),
                ("http_route", route.to_owned()),
                ("http_response_status_code", status.to_string()),
            ]
        };
        let known = route.map(|route| labels(method, route, status)).filter(|it| self.http.admits(it));
        self.http_all.observe(took);
        self.http.observe(&known.unwrap_or_else(|| labels("_OTHER", OTHER, status / 100 * 100)), took);
    }

    /// The MCP server answered a request; `error` says how it failed.
    pub(crate) fn operated(&self, method: &'static str, error: &'static str, took: Duration) {
        let labels = [("mcp_method_name", method), ("error_type", error)];
        let other = [("mcp_method_name", "_OTHER"), ("error_type", "_OTHER")];
        self.mcp.observe(if self.mcp.admits(&labels) { &labels } else { &other }, took);
    }

    /// A comparison that this node began came to an end.
    pub(crate) fn synced(&self, result: &'static str, received: usize, sent: usize) {
        self.syncs.sessions.inc(result);
        self.syncs.records.inc_by("in", received);
        self.syncs.records.inc_by("out", sent);
    }

    /// A comparison that this node began took so long.
    pub(crate) fn sync_took(&self, took: Duration) {
        self.syncs.took.observe(took);
    }

    /// A question or an answer of a comparison that this node began went this way.
    pub(crate) fn exchanged(&self, direction: &'static str, bytes: usize) {
        self.syncs.bytes.inc_by(direction, bytes);
    }

    /// A record came that was written so long ago.
    pub(crate) fn propagated(&self, via: Via, age: Duration) {
        // What was written here did not come from elsewhere, and what was stored came long ago.
        if via.is_foreign() {
            self.propagation.get_or_create(&[("via", via.text())]).observe(age);
        }
    }

    pub(crate) fn dialed(&self, result: &'static str) {
        self.dials.inc(result);
    }

    pub(crate) fn judged(&self, verdict: &'static str) {
        self.verdicts.inc(verdict);
    }

    pub(crate) fn offended(&self, kind: &'static str) {
        self.offences.inc(kind);
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}
