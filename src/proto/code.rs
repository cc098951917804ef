//! Every code that leaves this node, and what it means to whoever reads it: one table.
//!
//! A code is the stable part of an error, a refusal, a failed call or an alert; the sentence beside it may change. HTTP
//! status, exit code and advice follow from the row, so that no new code can become a 500 by being forgotten.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// How the program ends: exit codes, a contract with scripts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Done = 0,
    /// It failed.
    Failure = 1,
    /// Wrong usage or configuration.
    Usage = 2,
    /// The asked thing does not exist.
    NotFound = 3,
    /// No answer, or none in time.
    Unreachable = 4,
    /// The node works, but not well.
    Degraded = 5,
    /// A checker of the simulation failed: a promise that must hold at any time did not.
    Checker = 6,
    /// A simulated world did not come to agree after everything was healed.
    Stalled = 7,
    /// A terminal that closed ended it before it was done, as shells say it.
    HungUp = 129,
    /// The same of ctrl-c.
    Interrupted = 130,
    /// The same of SIGTERM.
    Terminated = 143,
}

/// Whether the same request may be made again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// It fails again until something else is changed.
    Never,
    /// Nothing was done, and it may work later.
    Later,
    /// It may work later, but some or all of it may have been done already.
    Unsure,
}

/// Who is to blame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Whoever sent it: a client or a peer.
    Sender,
    /// This node, or its operator.
    Node,
    /// The host that was called.
    Host,
    /// The agent, or what it calls in turn.
    Agent,
    /// Load, time or the network.
    Nobody,
}

/// Makes the enum and its table out of one list, so that neither can have what the other lacks.
macro_rules! codes {
    ($($name:ident $text:literal $status:literal $exit:ident $retry:ident $fault:ident $meaning:literal;)+) => {
        /// A stable code. Codes are ordered as their texts are.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Code {
            $(#[doc = $meaning] $name,)+
        }

        impl Code {
            /// Every code, in the order of the table.
            pub const ALL: &[Code] = &[$(Code::$name),+];

            fn row(self) -> Row {
                match self {
                    $(Code::$name => Row {
                        text: $text,
                        status: $status,
                        exit: Exit::$exit,
                        retry: Retry::$retry,
                        fault: Fault::$fault,
                        meaning: $meaning,
                    },)+
                }
            }
        }
    };
}

struct Row {
    text: &'static str,
    status: u16,
    exit: Exit,
    retry: Retry,
    fault: Fault,
    meaning: &'static str,
}

codes! {
    // What a request can come to.
    BadRequest "bad_request" 400 Usage Never Sender "A parameter or the body cannot be read.";
    Unauthorized "unauthorized" 401 Failure Never Sender "The token is missing or wrong.";
    Forbidden "forbidden" 403 Failure Never Sender "Requests from there are not answered.";
    NotYours "not_yours" 403 Failure Never Sender "Only the host or the owner of the agent may do it.";
    NotFound "not_found" 404 NotFound Never Sender "No such agent is known or run here.";
    UnknownRoute "unknown_route" 404 Failure Never Sender "The API has no such path.";
    BadMethod "bad_method" 405 Failure Never Sender "The path does not take this method.";
    Ambiguous "ambiguous" 409 Failure Never Sender "The name means several agents.";
    Conflict "conflict" 409 Failure Never Sender "Something else here has the name.";
    TooLarge "too_large" 413 Failure Never Sender "It exceeds a limit; the message has both numbers.";
    Busy "busy" 429 Failure Later Nobody "As much is at work as there is room for.";
    RateLimited "rate_limited" 429 Failure Later Sender "More calls or requests of one kind than one client may make.";
    TimedOut "timed_out" 503 Unreachable Unsure Node "The node did not answer in time.";
    Unavailable "unavailable" 503 Unreachable Later Node "The node starts, stops or has no peer to ask yet.";
    Failed "failed" 503 Failure Unsure Node "A command did not do what was asked; the message says why.";
    Internal "internal" 500 Failure Unsure Node "A bug, or a code that this version does not know.";

    // What a document can be refused for.
    BadFile "bad_file" 400 Failure Never Sender "The file cannot be read.";
    UnknownFormat "unknown_format" 400 Failure Never Sender "The kind of document or record is not known.";
    UnknownKey "unknown_key" 400 Failure Never Sender "The document has a key that means nothing.";
    MissingField "missing_field" 400 Failure Never Sender "The document lacks a field.";
    BadField "bad_field" 400 Failure Never Sender "A field has the wrong kind, shape or range.";
    BadName "bad_name" 400 Failure Never Sender "The name cannot be one of an agent or zone.";
    DuplicateName "duplicate_name" 409 Failure Never Sender "Another document of the request has the name.";
    Deleted "deleted" 409 Failure Never Sender "The registry that the document comes from has deleted it.";
    OlderVersion "older_version" 409 Failure Never Sender "A greater version is in the same request.";

    // What a write, or a record from elsewhere, can be refused for.
    Malformed "malformed" 400 Failure Never Sender "The bytes are none of the protocol.";
    BadCard "bad_card" 400 Failure Never Sender "The card breaks a limit.";
    BadSlot "bad_slot" 400 Failure Never Sender "The slot is not one of a shelf.";
    BadRevocation "bad_revocation" 400 Failure Never Sender "It does not take back what its name says.";
    BadDelegation "bad_delegation" 400 Failure Never Sender "It does not name a zone below its own, as its name says.";
    BadScope "bad_scope" 400 Failure Never Sender "The scope forbids it here.";
    ForeignNetwork "foreign_network" 400 Failure Never Sender "It belongs to another network.";
    ForeignZone "foreign_zone" 409 Failure Never Sender "It belongs to a zone that is not held here.";
    ZoneNotServed "zone_not_served" 409 Failure Never Sender "This node does not serve the zone.";
    BadAuthor "bad_author" 403 Failure Never Sender "The author may not write it.";
    BadSignature "bad_signature" 403 Failure Never Sender "The author did not sign it.";
    BadGrant "bad_grant" 403 Failure Never Sender "The grants do not carry it.";
    BadLease "bad_lease" 403 Failure Never Sender "It would last longer than it may, or than its grants.";
    BadGeneration "bad_generation" 403 Failure Never Sender "Its owner signed another generation.";
    Expired "expired" 409 Failure Never Sender "Its lease has ended.";
    Superseded "superseded" 409 Failure Never Sender "A greater record or a newer version is held.";
    QuotaExceeded "quota_exceeded" 429 Failure Never Sender "All slots of this node in the zone are taken.";
    SlotTaken "slot_taken" 409 Failure Never Sender "Another record of its host stands in its slot.";
    ZoneFull "zone_full" 429 Failure Later Nobody "The zone is full, and others' first slots come before it.";
    Revoked "revoked" 403 Failure Never Sender "Its owner took it back from this host.";
    Pending "pending" 503 Failure Later Node "This node does not know yet what stands under its key.";
    DuplicateIdentity "duplicate_identity" 409 Failure Never Node "Another process writes under the key of this node.";
    StoreFailed "store_failed" 503 Failure Unsure Node "The store of this node takes no writes: the disk is full or fails.";
    ClockUnsafe "clock_unsafe" 503 Failure Later Node "The clock of this node cannot be trusted.";
    ExcessBeacon "excess_beacon" 429 Failure Later Sender "More beacons than one author, or strangers, may send.";
    Future "future" 503 Failure Later Node "It is stamped ahead of the clock.";

    // How a call can end without a result.
    BadInput "bad_input" 400 Failure Never Sender "The input is not what the agent takes.";
    NotAllowed "not_allowed" 403 Failure Never Sender "The agent names its callers, and not this one.";
    NotCallable "not_callable" 409 Failure Never Sender "The agent is a listing, served outside the mesh.";
    AnswerLost "answer_lost" 503 Failure Never Host "The agent ended, and its answer is not kept any more.";
    CallChain "call_chain" 409 Failure Never Sender "The chain of calls that leads to it is a circle, or too long.";
    DuplicateCall "duplicate_call" 409 Failure Never Sender "The call was offered before, or may have been.";
    Cancelled "cancelled" 409 Failure Never Sender "Whoever asked for it took it back, or its host's operator ended what waited.";
    HostRestarted "host_restarted" 503 Failure Unsure Host "The host forgot whether it ran the call.";
    Unreachable "unreachable" 503 Unreachable Unsure Host "The host cannot be reached, or was lost.";
    CircuitOpen "circuit_open" 503 Unreachable Later Host "No host was reached lately; the message says when one is tried.";
    Deadline "deadline" 503 Unreachable Unsure Nobody "The call was not done in time.";
    StartFailed "start_failed" 503 Failure Later Agent "The agent could not be started.";
    UpstreamFailed "upstream_failed" 503 Failure Unsure Agent "What the agent is made of gave no answer.";
    AgentFailed "agent_failed" 503 Failure Unsure Agent "The agent says that it failed.";
    NeedsInput "needs_input" 409 Failure Never Sender "The agent asks a question, and goes on only when it is answered.";
    TooHungry "too_hungry" 503 Failure Never Agent "The agent took more memory or processes than its host lets it.";
    BadOutput "bad_output" 503 Failure Unsure Agent "The agent's output cannot be used.";

    // What an operator should know.
    CallsFailing "calls_failing" 503 Degraded Later Nobody "More than one in twenty calls of the last ten minutes failed.";
    CallsSlow "calls_slow" 503 Degraded Later Nobody "Calls take three times as long as during the last day.";
    SyncStale "sync_stale" 503 Degraded Later Nobody "A zone was compared with no peer for minutes, though peers are connected.";
    AgentFailing "agent_failing" 503 Degraded Later Agent "More than one in ten runs of an own agent failed.";
    NoPeers "no_peers" 503 Degraded Later Nobody "No peer is connected.";
    BootstrapUnreachable "bootstrap_unreachable" 503 Degraded Later Nobody "A bootstrap peer cannot be reached.";
    OtherNetwork "other_network" 503 Degraded Never Sender "A peer belongs to another network.";
    PeerBlocked "peer_blocked" 503 Degraded Never Sender "A peer broke the protocol and is blocked.";
    ForkedAuthor "forked_author" 503 Degraded Never Sender "An author signed two records with one version.";
    NotReachable "not_reachable" 503 Degraded Later Nobody "Only its own network reaches the node.";
    ListenerLost "listener_lost" 503 Degraded Never Node "A listening socket was lost.";
    FewReplicas "few_replicas" 503 Degraded Later Nobody "An own agent has fewer hosts than its `min_replicas`.";
    Suspended "suspended" 503 Degraded Never Node "The process stood still for a while.";
    StampedAhead "stamped_ahead" 503 Failure Never Node "Own records are stamped by a clock that was ahead.";
    ClockOff "clock_off" 503 Degraded Never Node "The clock is off from those of the peers.";
    RestoredKey "restored_key" 503 Degraded Never Node "Agents of this key wait for a word of the operator.";
    RestoredBackup "restored_backup" 503 Degraded Never Node "The data folder was behind what peers know of it.";
    StoreShort "store_short" 503 Degraded Never Node "The disk is nearly full: records of others are not kept on it.";
    JournalMissing "journal_missing" 503 Degraded Never Node "The journal of the data folder is gone.";
    JournalDamaged "journal_damaged" 503 Degraded Never Node "The journal of the data folder is damaged.";
    SealKeyLost "seal_key_lost" 503 Degraded Never Node "The key that authenticates stored rows is gone.";
    SealWrong "seal_wrong" 503 Degraded Never Node "Stored rows were sealed with another key.";
    RowDamaged "row_damaged" 503 Degraded Never Node "Stored rows cannot be read.";
    SledDamaged "sled_damaged" 503 Degraded Never Node "The store cannot be opened and was set aside.";
    SledMissing "sled_missing" 503 Degraded Never Node "The store is gone.";
    SledRepaired "sled_repaired" 503 Degraded Never Node "The store was opened without its snapshot and settings.";
}

impl Code {
    /// The code of this text, if there is one.
    pub fn parse(text: &str) -> Option<Code> {
        Code::ALL.iter().copied().find(|code| code.text() == text)
    }

    /// As it is written everywhere.
    pub fn text(self) -> &'static str {
        self.row().text
    }

    /// The HTTP status of an answer that is this error. The answer of a call is 200 however the call ended.
    pub fn http_status(self) -> u16 {
        self.row().status
    }

    /// How a command ends that met this error.
    pub fn exit(self) -> Exit {
        self.row().exit
    }

    /// Whether the same may be asked again.
    pub fn retry(self) -> Retry {
        self.row().retry
    }

    /// Who is to blame.
    pub fn fault(self) -> Fault {
        self.row().fault
    }

    /// What it means, in a sentence.
    pub fn meaning(self) -> &'static str {
        self.row().meaning
    }
}

/// An error that names no code is a bug.
impl Default for Code {
    fn default() -> Code {
        Code::Internal
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Padded where a width is given, so that codes line up in tables.
        f.pad(self.text())
    }
}

impl PartialOrd for Code {
    fn partial_cmp(&self, other: &Code) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Code {
    fn cmp(&self, other: &Code) -> std::cmp::Ordering {
        // Not by row: rows move from one version to the next, and sorted lists must not.
        self.text().cmp(other.text())
    }
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.text())
    }
}

impl<'de> Deserialize<'de> for Code {
    /// A text that this version does not know, from a later one or a liar, is read as [`Code::Internal`].
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Code, D::Error> {
        let text = String::deserialize(deserializer)?;
        Ok(Code::parse(&text).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::proto::codec;

    #[test]
    fn every_code_has_a_text_of_its_own_and_a_status_that_says_what_to_expect() {
        let texts: BTreeSet<&str> = Code::ALL.iter().map(|code| code.text()).collect();
        assert_eq!(texts.len(), Code::ALL.len());
        for code in Code::ALL {
            let (text, status) = (code.text(), code.http_status());
            assert!(text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{text}");
            assert!([400, 401, 403, 404, 405, 409, 413, 429, 500, 503].contains(&status), "{text}: {status}");
            assert_eq!(status == 500, *code == Code::Internal, "{text}");
            assert_eq!(Code::parse(text), Some(*code));
        }
    }

    #[test]
    fn a_code_travels_as_its_text_and_an_unknown_one_is_internal() {
        assert_eq!(codec::encode(&Code::AgentFailed), codec::encode(&"agent_failed"));
        assert_eq!(codec::decode(&codec::encode(&"agent_failed")), Ok(Code::AgentFailed));
        for text in ["", "Bad", "agent_lost", "\u{1b}[2J"] {
            assert_eq!(codec::decode(&codec::encode(&text)), Ok(Code::Internal), "{text:?}");
        }
    }

    /// A page for people holds the same table; when this fails it prints the rows that the page should have.
    #[test]
    fn the_page_of_codes_says_what_the_table_says() {
        let page = include_str!("../../docs/codes.md");
        let rows: Vec<String> = Code::ALL
            .iter()
            .map(|code| {
                let retry = match code.retry() {
                    Retry::Never => "no",
                    Retry::Later => "later",
                    Retry::Unsure => "after a look",
                };
                let fault = format!("{:?}", code.fault()).to_lowercase();
                let (status, exit) = (code.http_status(), code.exit() as u8);
                format!("| `{code}` | {status} | {exit} | {retry} | {fault} | {} |", code.meaning())
            })
            .collect();
        let written: Vec<&str> = page.lines().filter(|line| line.starts_with("| `")).collect();
        assert_eq!(written, rows, "\n{}\n", rows.join("\n"));
    }
}
