//! What an operator should know, and what watchers are told.

use super::agent::shown;
use crate::api::{self, Removal, ReplicaState};
use crate::net::bootstrap::Trouble;
use crate::net::driver::{Event, Trend};
use crate::net::store::StoreIncident;
use crate::net::swarm::NetworkAlert;
use crate::net::wall_clock;
use crate::proto::code::Code;
use crate::proto::io::{self, NodeAlert, Via};
use crate::proto::record::{NoRoom, Record};
use crate::proto::time::Timestamp;

/// Every code that a problem of a node can have.
pub(super) const PROBLEM_CODES: &[Code] = &[
    Code::AgentFailing,
    Code::BootstrapUnreachable,
    Code::CallsFailing,
    Code::CallsSlow,
    Code::ClockOff,
    Code::ClockUnsafe,
    Code::DuplicateIdentity,
    Code::FewReplicas,
    Code::ForkedAuthor,
    Code::JournalDamaged,
    Code::JournalMissing,
    Code::ListenerLost,
    Code::NoPeers,
    Code::NotReachable,
    Code::OtherNetwork,
    Code::PeerBlocked,
    Code::RestoredBackup,
    Code::RestoredKey,
    Code::Revoked,
    Code::RowDamaged,
    Code::SealKeyLost,
    Code::SealWrong,
    Code::SledDamaged,
    Code::SledMissing,
    Code::SledRepaired,
    Code::StampedAhead,
    Code::StoreFailed,
    Code::StoreShort,
    Code::SyncStale,
    Code::ZoneFull,
];

/// An event for watchers.
pub(in crate::host) fn event(event: &Event) -> api::Event {
    match event {
        Event::Connected(peer) => api::Event::PeerConnected { peer: peer.to_string() },
        Event::Disconnected(peer) => api::Event::PeerDisconnected { peer: peer.to_string() },
        Event::Node(event) => node_event(event),
        Event::Alert(alert) => api::Event::Problem(network_problem(alert, wall_clock())),
        Event::Noticed(trend) => api::Event::Problem(trend_problem(trend, wall_clock())),
        Event::AgentState(name, state) => {
            let state = shown(*state).unwrap_or(ReplicaState::Active);
            api::Event::AgentState { agent: name.to_string(), state }
        }
    }
}

fn node_event(event: &io::Event) -> api::Event {
    let named =
        |record: &Record| (record.name.to_string(), record.agent_id().to_string(), record.host.to_string());
    match event {
        io::Event::AgentChanged { record, via } => {
            let (agent, id, host) = named(record);
            let via = match via {
                Via::Local => api::Via::Local,
                Via::Gossip => api::Via::Gossip,
                Via::Sync => api::Via::Sync,
                Via::Store => api::Via::Store,
            };
            api::Event::AgentChanged { agent, id, host, via }
        }
        io::Event::AgentRemoved { record, reason } => {
            let (agent, id, host) = named(record);
            let reason = match reason {
                io::Removal::Deleted => Removal::Deleted,
                io::Removal::Expired => Removal::Expired,
                io::Removal::Revoked => Removal::Revoked,
                io::Removal::NoRoom(NoRoom::SlotTaken) => Removal::SlotTaken,
                io::Removal::NoRoom(NoRoom::ZoneFull) => Removal::ZoneFull,
            };
            api::Event::AgentRemoved { agent, id, host, reason }
        }
        io::Event::Synced { peer, zone, received, sent } => api::Event::Synced {
            peer: peer.to_string(),
            zone: zone.to_string(),
            received: *received,
            sent: *sent,
        },
        io::Event::Alert(known) => api::Event::Problem(problem(known, wall_clock())),
    }
}

/// What the node noticed, and since when it is so.
pub(super) fn problem(known: &NodeAlert, since: Timestamp) -> api::Problem {
    let (code, message, fix) = (code_of(known), message_of(known), fix_of(known).into());
    api::Problem { code, message, fix, since: since.0, degrades: known.degrades() }
}

fn code_of(known: &NodeAlert) -> Code {
    match known {
        NodeAlert::ClockUnsafe(_) => Code::ClockUnsafe,
        NodeAlert::ClockOff(_) => Code::ClockOff,
        NodeAlert::StampedAhead => Code::StampedAhead,
        NodeAlert::KeyInUse | NodeAlert::DuplicateIdentity(_) => Code::DuplicateIdentity,
        NodeAlert::ForkedAuthor(_) => Code::ForkedAuthor,
        NodeAlert::StoreFailed(_) => Code::StoreFailed,
        NodeAlert::StoreShort(_) => Code::StoreShort,
        NodeAlert::RestoredBackup | NodeAlert::ClaimedHead => Code::RestoredBackup,
        NodeAlert::RestoredKey => Code::RestoredKey,
        NodeAlert::Revoked(_) => Code::Revoked,
        NodeAlert::ZoneFull(_) => Code::ZoneFull,
        NodeAlert::FewReplicas(..) => Code::FewReplicas,
    }
}

fn message_of(known: &NodeAlert) -> String {
    match known {
        NodeAlert::ClockUnsafe(offset) => {
            format!("the bootstrap peers' clocks are {offset} ms from ours; own writes are refused")
        }
        NodeAlert::ClockOff(offset) => {
            format!(
                "the connected peers' clocks are {offset} ms from ours, and no bootstrap peer tells its own"
            )
        }
        NodeAlert::StampedAhead => {
            "some own agents were written while the clock of this machine was ahead; no peer \
             takes them before they are written again"
                .into()
        }
        NodeAlert::KeyInUse => {
            "another process runs with this node's key; registrations and deletions are refused at \
             both, for each would undo the other's"
                .into()
        }
        NodeAlert::DuplicateIdentity(name) => format!("another process writes {name} under this node's key"),
        NodeAlert::ForkedAuthor(author) => {
            format!("{author} signed two different records with one version")
        }
        NodeAlert::StoreFailed(reason) => format!(
            "the store takes no writes ({reason}); what is held is served, and registrations are refused"
        ),
        NodeAlert::StoreShort(room) => {
            format!(
                "the disk is nearly full: {room}; until then they come again from peers at the next start"
            )
        }
        NodeAlert::RestoredBackup => {
            "the data folder was behind what peers know of it; a new epoch was taken".into()
        }
        NodeAlert::ClaimedHead => {
            "a peer says that this node wrote more than its data folder holds; a new epoch was taken".into()
        }
        NodeAlert::RestoredKey => {
            "an earlier data folder offered agents with this node's key: they are held, and not renewed"
                .into()
        }
        NodeAlert::Revoked(name) => format!("the owner of {name} took it back from this host"),
        NodeAlert::FewReplicas(name, min) => {
            format!("{name} asks for {min} hosts (`min_replicas`), and fewer offer it and are there")
        }
        NodeAlert::ZoneFull(zone) => {
            format!("the zone {zone} is full: what its hosts keep in their later slots has no room")
        }
    }
}

fn fix_of(known: &NodeAlert) -> &'static str {
    match known {
        NodeAlert::ClockUnsafe(_) => "set the clock of this machine, for example with an NTP service",
        NodeAlert::ClockOff(_) => {
            "set the clock of this machine, for example with an NTP service; if it is right, theirs are wrong"
        }
        NodeAlert::StampedAhead => {
            "nothing, if the clock is right now: that happens by itself, a minute after the first comparison with peers; \
             what is offered by an owner's grant needs one of a higher generation (`aop keys grant --generation N`)"
        }
        NodeAlert::KeyInUse => {
            "stop one of the two (a copied data folder, a cloned machine), or give it a new key and an empty data \
             folder; three minutes later writes are taken again"
        }
        NodeAlert::DuplicateIdentity(_) => "stop it, or give one of the two a new key and data folder",
        NodeAlert::ForkedAuthor(_) => {
            "tell its operator: a data folder was copied, or its key is in the wrong hands"
        }
        NodeAlert::StoreFailed(_) => {
            "free disk space, check the disk or put the data folder back: the store is tried again by itself, at \
             least once a minute"
        }
        NodeAlert::StoreShort(_) => "free disk space, or move the data directory to a larger disk",
        NodeAlert::RestoredBackup => "nothing: agents registered after the backup come back from peers",
        NodeAlert::ClaimedHead => "nothing: if it is so, agents registered later come back from peers",
        NodeAlert::RestoredKey => {
            "offer them again with `aop agents adopt AGENT` or `aop register`, or end them with `aop deregister`"
        }
        NodeAlert::Revoked(_) => "ask the owner for a grant of a higher generation, or deregister the agent",
        NodeAlert::FewReplicas(..) => {
            "start it at another host under the same owner, or lower `min_replicas`; `aop show` names its hosts"
        }
        NodeAlert::ZoneFull(_) => {
            "nothing is lost for good: own agents without room are tried again; use a zone with a key of your own"
        }
    }
}

/// Forks of those on whom nothing here depends, in one line: anybody can make them.
pub(super) fn forked_strangers(count: usize, since: Timestamp) -> api::Problem {
    let message = match count {
        1 => "an author of whom nothing is used here signed two different records with one version".into(),
        _ => format!(
            "{count} authors of whom nothing is used here signed two different records with one version"
        ),
    };
    let fix = "nothing; whoever called a data folder or a key theirs has a copy of it in use".into();
    api::Problem { code: Code::ForkedAuthor, message, fix, since: since.0, degrades: false }
}

/// What the network layer noticed, and since when it is so.
pub(super) fn network_problem(alert: &NetworkAlert, since: Timestamp) -> api::Problem {
    let fix = match alert {
        NetworkAlert::BootstrapUnreachable { trouble: Trouble::OtherPeer(peer), .. } => {
            format!(
                "end the address with `/p2p/{peer}` if that is the node you mean; it is dialed again by itself"
            )
        }
        NetworkAlert::BootstrapUnreachable { trouble: Trouble::OtherNetwork(speaks), .. } => {
            let theirs = speaks.strip_prefix("/aop/").and_then(|rest| rest.rsplit_once('/'));
            match theirs {
                Some((network, _)) => format!("start with `--network {network}`, or correct the address"),
                None => "correct the address: no node of this program is there".into(),
            }
        }
        NetworkAlert::BootstrapUnreachable { .. } => "check the address; it is dialed again by itself".into(),
        NetworkAlert::OtherNetwork { .. } => "check `--network` and the bootstrap addresses".into(),
        NetworkAlert::Blocked { .. } => "nothing; tell its operator".into(),
        NetworkAlert::ListenerLost { .. } => "restart the node if peers cannot reach it".into(),
        NetworkAlert::Suspended { .. } => "nothing".into(),
        NetworkAlert::NotReachable => {
            "forward port 7401 and give the outer address with `--announce`, or name a bootstrap peer with a public address: it \
             relays unless it has `relay = \"no\"`"
                .into()
        }
    };
    let degrades = match alert {
        NetworkAlert::BootstrapUnreachable { .. } | NetworkAlert::ListenerLost { .. } => true,
        // Any stranger can be of another network, or break the protocol; the last is over when it is told.
        NetworkAlert::OtherNetwork { .. } | NetworkAlert::Blocked { .. } | NetworkAlert::Suspended { .. } => {
            false
        }
        // It finds and calls; whether it need be called is for its operator to know.
        NetworkAlert::NotReachable => false,
    };
    let (code, message) = (alert.code(), alert.to_string());
    api::Problem { code, message, fix, since: since.0, degrades }
}

/// What the last minutes show, and since when.
pub(in crate::host) fn trend_problem(trend: &Trend, since: Timestamp) -> api::Problem {
    let (code, message, fix) = match trend {
        Trend::CallsFailing { share } => (
            Code::CallsFailing,
            format!("{share:.0} % of the calls of the last ten minutes failed"),
            "`aop_calls_total` in `/metrics` has them by code, and the log has each with its reason",
        ),
        Trend::CallsSlow { seconds, usual } => (
            Code::CallsSlow,
            format!(
                "one in twenty calls of the last quarter of an hour took {seconds:.3} s or more, on the last day {usual:.3} s"
            ),
            "look at the agents that are called: `aop queue list` shows which of them are busy",
        ),
        Trend::SyncStale { zone, seconds } => (
            Code::SyncStale,
            format!(
                "the zone {zone} was compared with no peer for {seconds} s, though peers of it are connected"
            ),
            "`aop peers` shows who is connected; restart the node if it goes on",
        ),
        Trend::AgentFailing { agent, failed, runs } => (
            Code::AgentFailing,
            format!("{failed} of the last {runs} runs of {agent} failed within a quarter of an hour"),
            "the log of this host has the reason of each failure",
        ),
    };
    let degrades = !matches!(trend, Trend::CallsSlow { .. });
    api::Problem { code, message, fix: fix.into(), since: since.0, degrades }
}

pub(super) fn no_peers(since: Timestamp) -> api::Problem {
    api::Problem {
        code: Code::NoPeers,
        since: since.0,
        degrades: true,
        message: "no peer is connected; answers come from what this node holds".into(),
        fix: "check the bootstrap addresses and the network; they are dialed again by themselves".into(),
    }
}

/// What was found in the data folder at the start.
pub(super) fn store_problem(incident: &StoreIncident, started_at: Timestamp) -> api::Problem {
    api::Problem {
        code: incident.code,
        message: incident.message.clone(),
        fix: incident.fix.clone(),
        since: started_at.0,
        degrades: true,
    }
}
