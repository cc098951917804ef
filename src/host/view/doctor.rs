//! The node's half of a self-check: one table. What `/v1/status` has as a problem is told by the check that it belongs to; only
//! where there is none the check looks for itself, at what the node knows anyway.

use std::collections::BTreeMap;
use std::time::Duration;

use super::status::Snapshot;
use crate::agents::AgentState;
use crate::api::{Check, CheckGroup, Diagnosis, Finding, Problem};
use crate::host::is_dialable_by_all;
use crate::host::limits::limits;
use crate::net::swarm::{OwnReach, ReachState};
use crate::proto::code::Code;
use crate::proto::name::FullName;
use crate::proto::time::Timestamp;

/// Agents that a finding names; of more it says how many.
const NAMED_MAX: usize = 10;
/// A turn of the one task that decides lasts microseconds, or a write to the disk; whoever asks waits for it, seconds.
const TURN_MAX: f64 = 0.5;
/// An agent is written again days before its lease ends.
const LEASE_LEFT_MIN: Duration = Duration::from_secs(86_400);

/// What the checks look at.
pub(in crate::host) struct Examined {
    pub(in crate::host) snapshot: Snapshot,
    pub(in crate::host) problems: Vec<Problem>,
    pub(in crate::host) is_ready: bool,
    pub(in crate::host) expects_peers: bool,
    /// What 99 of 100 turns of the driver did not exceed, seconds.
    pub(in crate::host) turn_p99: Option<f64>,
    pub(in crate::host) agents: BTreeMap<FullName, AgentState>,
    /// Calls that ended since the start, and those of them that failed.
    pub(in crate::host) calls: (u64, u64),
    /// How many agents this node offers, and which lease ends first.
    pub(in crate::host) offered: usize,
    pub(in crate::host) first_end: Option<(FullName, Timestamp)>,
    /// Spans that no collector got, and whether it takes none now; none where no traces are made.
    pub(in crate::host) spans: Option<(u64, bool)>,
}

/// One check.
struct Row {
    group: CheckGroup,
    name: &'static str,
    /// The problems that it tells.
    codes: &'static [Code],
    /// What is found where there is none of them.
    look: fn(&Examined) -> Finding,
}

const fn row(
    group: CheckGroup,
    name: &'static str,
    codes: &'static [Code],
    look: fn(&Examined) -> Finding,
) -> Row {
    Row { group, name, codes, look }
}

const ROWS: &[Row] = &[
    row(CheckGroup::Files, "store", STORE, |_| Finding::ok("what is written is kept")),
    row(CheckGroup::Node, "ready", &[], ready),
    row(CheckGroup::Node, "driver", &[], driver),
    row(CheckGroup::Node, "identity", &[Code::DuplicateIdentity, Code::ForkedAuthor], |seen| {
        Finding::ok(format!("nobody else is heard with the key of {}", seen.snapshot.key))
    }),
    row(CheckGroup::Clock, "offset", &[Code::ClockOff, Code::ClockUnsafe, Code::StampedAhead], clock),
    row(CheckGroup::Mesh, "listening", &[Code::ListenerLost], listening),
    row(CheckGroup::Mesh, "bootstrap", &[Code::BootstrapUnreachable], bootstrap),
    row(CheckGroup::Mesh, "peers", &[Code::NoPeers], peers),
    row(CheckGroup::Mesh, "network", &[Code::OtherNetwork, Code::PeerBlocked], |seen| {
        Finding::ok(format!("no peer of another network than {:?} was met", seen.snapshot.network))
    }),
    row(CheckGroup::Mesh, "reach", &[Code::NotReachable], reach),
    row(CheckGroup::Registry, "sync", &[Code::SyncStale], sync),
    row(CheckGroup::Registry, "room", &[Code::ZoneFull], room),
    row(CheckGroup::Registry, "offers", &[Code::FewReplicas, Code::Revoked], offers),
    row(CheckGroup::Agents, "running", &[Code::AgentFailing], running),
    row(CheckGroup::Agents, "calls", &[Code::CallsFailing, Code::CallsSlow], calls),
    row(CheckGroup::Telemetry, "collector", &[], collector),
];

const STORE: &[Code] = &[
    Code::JournalDamaged,
    Code::JournalMissing,
    Code::RestoredBackup,
    Code::RestoredKey,
    Code::RowDamaged,
    Code::SealKeyLost,
    Code::SealWrong,
    Code::SledDamaged,
    Code::SledMissing,
    Code::SledRepaired,
    Code::StoreFailed,
    Code::StoreShort,
];

/// Makes every check.
pub(in crate::host) fn diagnosis(seen: &Examined) -> Diagnosis {
    let checks = ROWS.iter().flat_map(|row| row.checks(seen)).chain(limits());
    Diagnosis::of(checks.collect())
}

/// The checks that only a node can make, none of them made.
pub fn unmade_checks(why: &str) -> impl Iterator<Item = Check> {
    ROWS.iter().map(move |row| Finding::skip(why).of(row.group, row.name))
}

impl Row {
    fn checks(&self, seen: &Examined) -> Vec<Check> {
        let problems = seen.problems.iter().filter(|problem| self.codes.contains(&problem.code));
        let mut found: Vec<Finding> = problems.map(told).collect();
        if found.is_empty() {
            found.push((self.look)(seen));
        }
        found.into_iter().map(|finding| finding.of(self.group, self.name)).collect()
    }
}

fn told(problem: &Problem) -> Finding {
    let evidence = format!("{}: {}", problem.code, problem.message);
    match problem.degrades {
        true => Finding::fail(evidence, &problem.fix),
        false => Finding::warn(evidence, &problem.fix),
    }
}

fn span(time: Duration) -> String {
    humantime::format_duration(Duration::from_secs(time.as_secs())).to_string()
}

/// The first few of many names.
fn named<'a>(names: impl ExactSizeIterator<Item = &'a FullName>) -> String {
    let more = names.len().saturating_sub(NAMED_MAX);
    let shown: Vec<String> = names.take(NAMED_MAX).map(ToString::to_string).collect();
    if more > 0 { format!("{} and {more} more", shown.join(", ")) } else { shown.join(", ") }
}

fn ready(seen: &Examined) -> Finding {
    if seen.is_ready {
        return Finding::ok(format!("up for {}", span(seen.snapshot.uptime)));
    }
    Finding::warn("the first comparison with a peer is not done", "wait: it takes 5 s at most")
}

fn driver(seen: &Examined) -> Finding {
    let Some(p99) = seen.turn_p99 else { return Finding::skip("nothing was measured yet") };
    let evidence = format!("99 of 100 turns took {:.1} ms or less, at worst", p99 * 1_000.0);
    if p99 > TURN_MAX {
        let fix =
            "the disk is slow or the processor busy: see `aop_store_write_duration_seconds` in `/metrics`";
        return Finding::warn(evidence, fix);
    }
    Finding::ok(evidence)
}

fn clock(seen: &Examined) -> Finding {
    let Snapshot { clock_offset_ms, traffic, .. } = &seen.snapshot;
    if traffic.peers == 0 {
        return Finding::skip("no peer is connected whose clock could be compared");
    }
    Finding::ok(format!("{clock_offset_ms} ms from the clocks of the peers"))
}

fn listening(seen: &Examined) -> Finding {
    let listen = &seen.snapshot.listen;
    if listen.is_empty() {
        return Finding::fail(
            "no socket of the mesh is open: nobody can connect to this node",
            "give an address with --listen",
        );
    }
    let kinds = [("/ip4/", "IPv4"), ("/ip6/", "IPv6"), ("/tcp/", "TCP"), ("/quic-v1", "QUIC")];
    let has = |part: &str| listen.iter().any(|address| address.contains(part));
    let kinds: Vec<&str> = kinds.into_iter().filter(|(part, _)| has(part)).map(|(_, name)| name).collect();
    Finding::ok(format!("addresses: {}, by {}", listen.len(), kinds.join(", ")))
}

fn bootstrap(seen: &Examined) -> Finding {
    let states = &seen.snapshot.traffic.bootstrap;
    let count = |state| states.get(state).copied().unwrap_or(0);
    let (all, waiting) = (states.values().sum::<usize>(), count("waiting"));
    match (all, waiting) {
        (0, _) => Finding::skip("no bootstrap peer is configured"),
        (_, 0) if count("self") > 0 => {
            Finding::ok(format!("{} connected, {} of this node itself", count("connected"), count("self")))
        }
        (_, 0) => Finding::ok(format!("{all} connected")),
        _ => Finding::warn(
            format!("{waiting} of {all} are being dialed"),
            "wait: what stands in the way is told in a moment",
        ),
    }
}

fn peers(seen: &Examined) -> Finding {
    match (seen.snapshot.traffic.peers, seen.expects_peers) {
        (0, true) => Finding::warn("no peer is connected", "check the bootstrap addresses and the network"),
        (0, false) => Finding::skip("no peer is connected, and none is configured"),
        (count, _) => Finding::ok(format!("{count} connected")),
    }
}

fn reach(seen: &Examined) -> Finding {
    let OwnReach { state, addresses, relays, .. } = &seen.snapshot.reach;
    match state {
        ReachState::Public => Finding::ok(format!(
            "everybody reaches it, at {} addresses that were announced or tried",
            addresses.len()
        )),
        ReachState::Relayed => Finding::ok(format!(
            "it is reached through {} relays; peers that cannot come closer call through them",
            relays.len()
        )),
        ReachState::Private => Finding::warn(
            "only its own network reaches it; it looks for a relay",
            "wait half a minute; then forward port 7401 and give the outer address with `--announce`",
        ),
        ReachState::Unknown => {
            let listen = &seen.snapshot.listen;
            let count = listen.iter().filter(|address| is_dialable_by_all(address)).count();
            if count == 0 {
                return Finding::skip("only addresses of own networks are known, and no peer says more");
            }
            Finding::ok(format!(
                "{count} addresses are of networks that hosts elsewhere reach, if no firewall is between"
            ))
        }
    }
}

fn sync(seen: &Examined) -> Finding {
    let (zones, now) = (&seen.snapshot.zones, seen.snapshot.now);
    let behind = zones.iter().filter_map(|zone| Some(now.since(zone.state.lagging_since?))).max();
    let compared = zones.iter().filter_map(|zone| Some(now.since(zone.state.synced_at?))).max();
    match (behind, compared) {
        (None, None) => Finding::skip("no zone was compared with a peer yet"),
        (None, Some(ago)) => {
            Finding::ok(format!("no zone is behind; each was compared within {}", span(ago)))
        }
        (Some(lag), _) => Finding::warn(
            format!("a member is known to have written more, for {} by now", span(lag)),
            "wait: it is asked again by itself; where it goes on, `aop peers` shows who is connected",
        ),
    }
}

fn room(seen: &Examined) -> Finding {
    let sum = |of: fn(&crate::proto::zone::ZoneState) -> usize| {
        seen.snapshot.zones.iter().map(|zone| of(&zone.state)).sum::<usize>()
    };
    let (records, agents) = (sum(|zone| zone.records), sum(|zone| zone.agents));
    Finding::ok(format!("zones: {}, agents: {agents}, records: {records}", seen.snapshot.zones.len()))
}

fn offers(seen: &Examined) -> Finding {
    let Some((name, end)) = &seen.first_end else { return Finding::skip("this node offers no agent") };
    let left = end.since(seen.snapshot.now);
    if left < LEASE_LEFT_MIN {
        return Finding::warn(
            format!("the lease of {name} ends in {}, and was not renewed", span(left)),
            "where it is offered by an owner's grant that ends, get a new one (`aop keys grant`)",
        );
    }
    Finding::ok(format!("agents: {}, and the first lease has {} left", seen.offered, span(left)))
}

fn running(seen: &Examined) -> Finding {
    if seen.agents.is_empty() {
        return Finding::skip("no agent runs here");
    }
    let in_error = |state: &AgentState| *state == AgentState::Error;
    let failed: Vec<&FullName> =
        seen.agents.iter().filter(|(_, state)| in_error(state)).map(|(name, _)| name).collect();
    if failed.is_empty() {
        return Finding::ok(format!("agents: {}, and the last call of none failed", seen.agents.len()));
    }
    // It takes calls, and one that fails again and again is a problem of its own.
    Finding::warn(
        format!("the last call of {} failed", named(failed.into_iter())),
        "the log of this host has the reason; `aop call` tries it again",
    )
}

fn calls(seen: &Examined) -> Finding {
    match seen.calls {
        (0, _) => Finding::skip("nothing was called since the start"),
        (ended, failed) => Finding::ok(format!("{failed} of {ended} failed since the start")),
    }
}

fn collector(seen: &Examined) -> Finding {
    match seen.spans {
        None => Finding::skip("no traces are made"),
        Some((dropped, true)) => Finding::fail(
            format!("the collector takes no spans: {dropped} were dropped"),
            "start it, or correct OTEL_EXPORTER_OTLP_ENDPOINT of the node; calls are not affected",
        ),
        Some((0, false)) => Finding::ok("no span was dropped"),
        Some((dropped, false)) => Finding::warn(
            format!("{dropped} spans were dropped since the start"),
            "nothing, if the collector was away; else sample fewer, or raise OTEL_BSP_MAX_QUEUE_SIZE of the node",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::problem::PROBLEM_CODES;
    use super::*;

    #[test]
    fn every_problem_is_told_by_one_check() {
        for code in PROBLEM_CODES {
            let rows = ROWS.iter().filter(|row| row.codes.contains(code)).count();
            assert_eq!(rows, 1, "{code}");
        }
        assert_eq!(ROWS.iter().map(|row| row.codes.len()).sum::<usize>(), PROBLEM_CODES.len());
    }

    #[test]
    fn what_degrades_fails_and_a_notice_warns() {
        let problem = |degrades| Problem {
            code: Code::StoreShort,
            message: "little room".into(),
            fix: "make some".into(),
            since: 0,
            degrades,
        };
        assert_eq!(told(&problem(true)), Finding::fail("store_short: little room", "make some"));
        assert_eq!(told(&problem(false)), Finding::warn("store_short: little room", "make some"));
    }
}
