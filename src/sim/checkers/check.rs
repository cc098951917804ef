//! The promises that are checked, and how a broken one is told.

use std::fmt;

/// A promise of the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Check {
    /// After healing all hold the same.
    Agreement,
    /// A deleted agent stays deleted.
    NoZombie,
    /// An acknowledged offer of a host that kept its disk is served everywhere.
    NoLostWrite,
    /// A version vector claims only what is held, superseded or ended.
    VectorIsTrue,
    /// Nothing stamped more than a minute ahead of its own clock is taken by a node.
    TimeBound,
    /// Held records carry the right signature.
    Verified,
    /// What is acknowledged is on disk.
    Durable,
    /// Own records are on disk before they are published.
    PersistFirst,
    /// A run of a node never holds a smaller record of a key than before, unless a lease ended.
    NoStepBack,
    /// While a node holds a record of an author, its versions of that author only grow.
    MonotoneVersions,
    /// Everything was healed, and after a bounded time all agree.
    LivenessAfterHeal,
    /// Outputs end, timers do not spin, nothing waits for ever.
    QueuesBounded,
    /// Sent is delivered, dropped by plan or on its way.
    MessagesConserved,
    /// An author writes each version once, unless its disk went back.
    VersionsUnique,
    /// Nobody honest is blamed by anybody honest.
    NobodyBlamed,
    /// What is held weighs no more than a zone has room for, one record in a slot.
    WithinRoom,
    /// Who holds two records of one version has told of the fork.
    ForksShown,
    /// What stands in the name of a host is what it offers.
    HostSpeaks,
    /// What a node holds and tells of lies in the zones that it serves, and it is in the meshes of just these.
    WithinZone,
    /// An answer calls itself complete only after its node compared the zone with somebody.
    AnswerIsHonest,
    /// Who counts as a member has a live record or a connection.
    MembersAreReal,
    /// The work of a call runs at most once.
    CallRunsOnce,
    /// What a client is told of its call is so: that it was not started, that it ended, how often it was offered.
    CallClaims,
    /// Who waits for a call has an outcome by the deadline.
    CallEnds,
    /// An answer that calls itself complete lacks nothing that was acknowledged long before it and that somebody holds.
    AnswerIsComplete,
    /// Nothing is shown that was deleted or replaced long before, or that nobody asked for; nobody is denied who is there.
    AnswerIsTrue,
    /// When nothing went wrong for a while everybody finds everything.
    FoundEverywhere,
    /// Pages that are read one after the other end, and show every agent that did not change meanwhile once.
    PagesAreExact,
    /// A question has an answer, for a bounded number of messages, of which no node sends more than it is asked for.
    QuestionsBounded,
    /// What lies below a zone only its gateways hold, and not for longer than somebody speaks for it.
    GatewaysAlone,
}

/// A broken promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which.
    pub check: Check,
    /// Seed of the run.
    pub seed: u64,
    /// When, virtual milliseconds.
    pub at_ms: u64,
    /// What was seen.
    pub detail: String,
}

impl Check {
    /// Its name, kebab-case.
    pub fn name(self) -> &'static str {
        match self {
            Check::Agreement => "agreement",
            Check::NoZombie => "no-zombie",
            Check::NoLostWrite => "no-lost-write",
            Check::VectorIsTrue => "vector-is-true",
            Check::TimeBound => "time-bound",
            Check::Verified => "verified",
            Check::Durable => "durable",
            Check::PersistFirst => "persist-first",
            Check::NoStepBack => "no-step-back",
            Check::MonotoneVersions => "monotone-versions",
            Check::LivenessAfterHeal => "liveness-after-heal",
            Check::QueuesBounded => "queues-bounded",
            Check::MessagesConserved => "messages-conserved",
            Check::VersionsUnique => "versions-unique",
            Check::NobodyBlamed => "nobody-blamed",
            Check::WithinRoom => "within-room",
            Check::ForksShown => "forks-shown",
            Check::HostSpeaks => "host-speaks",
            Check::WithinZone => "within-zone",
            Check::AnswerIsHonest => "answer-is-honest",
            Check::MembersAreReal => "members-are-real",
            Check::CallRunsOnce => "call-runs-once",
            Check::CallClaims => "call-claims",
            Check::CallEnds => "call-ends",
            Check::AnswerIsComplete => "answer-is-complete",
            Check::AnswerIsTrue => "answer-is-true",
            Check::FoundEverywhere => "found-everywhere",
            Check::PagesAreExact => "pages-are-exact",
            Check::QuestionsBounded => "questions-bounded",
            Check::GatewaysAlone => "gateways-alone",
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Violation { check, seed, at_ms, detail } = self;
        write!(f, "{check:?} broken by seed {seed} at {at_ms} ms: {detail}")
    }
}
