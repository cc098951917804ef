//! Questions of clients in the simulated world: who is asked what, what each question costs, and whether its answer is right.
//!
//! Every search for all agents of a zone and every full name that is asked of an honest node is judged, whoever asks: the
//! world knows what was acknowledged when, who holds it, and who reaches whom (`judge`). Some are read page by page (`pages`).
//! What a question sets off is followed from node to node by the conversations it is asked in. Nothing is drawn here.

mod heard_of;
mod judge;
mod pages;

use std::collections::BTreeMap;

use self::heard_of::HeardOf;
use self::judge::{Case, Judgement};
pub use self::pages::Listing;
pub(super) use self::pages::Reading;
use super::checkers::{Check, ReferenceModel};
use super::fabric::Fabric;
use super::fault::Fault;
use super::queue::Due;
use crate::proto::ask::Question;
use crate::proto::io::{Command, ConversationId, Input, Output, Protocol, Reply, Role};
use crate::proto::name::{FullName, ZoneName};
use crate::proto::query::{Find, ZoneStatus};

/// Agents of one answer; a world whose answers are judged has fewer.
const LIMIT: usize = 1_000;
/// How long a question waits for its answer at most, milliseconds: what one may take, and what links may add.
const PATIENCE_MS: u64 = 15_000;
/// Messages of one question at most, beside two for each zone on the way up: those that it is referred to.
const MESSAGES_MAX: usize = 32;
/// How long what lies below may still be held by a node that is no gateway any more, milliseconds: that is looked for every
/// half minute.
const RELEASED_MS: u64 = 60_000;
/// How long a replica is shown after it was compared last, milliseconds, and how long that may go unnoticed.
const REPLICA_MS_MAX: u64 = 900_000 + 60_000;

/// What a client asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// All agents of a zone and those below it.
    Agents(ZoneName),
    /// The same a few at a time.
    Pages(Listing),
    /// One agent.
    Name(FullName),
}

/// What became of the questions of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AnswerCounts {
    /// Searches that were answered.
    pub searches: u64,
    /// Answers that called themselves complete.
    pub complete: u64,
    /// Those of them that lacked something; any ends the run, unless somebody lies.
    pub wrong: u64,
    /// Lists that were read page by page up to their end.
    pub lists: u64,
    /// Names that were asked for and answered.
    pub names: u64,
    /// Names that were found, or rightly denied.
    pub decided: u64,
    /// Messages of each question that was answered.
    pub messages: Vec<u32>,
    /// Milliseconds until each was answered.
    pub took_ms: Vec<u32>,
    /// Questions of other nodes that each node was asked, those that were passed on to it included.
    pub asked: Vec<u64>,
}

/// The questions of a world.
pub(super) struct Questions {
    open: BTreeMap<u64, Open>,
    /// Of those that ask for a page, what was read before it.
    readings: BTreeMap<u64, Reading>,
    /// The question that each conversation is about.
    conversations: BTreeMap<(usize, ConversationId), u64>,
    /// What the node that acts now acts for.
    work: Option<Work>,
    /// Of each node: questions that it was asked by others and passed on.
    passed_on: Vec<u64>,
    /// When something last went wrong or was put right.
    quiet_since: u64,
    /// When the last partition ended; none while there is one.
    united_since: Option<u64>,
    /// Since when a node that is no gateway is seen to hold what lies below.
    unreleased: BTreeMap<usize, u64>,
    counts: AnswerCounts,
}

struct Open {
    node: usize,
    asked: Asked,
    at_ms: u64,
    messages: usize,
}

#[derive(Clone, Copy)]
struct Work {
    question: u64,
    /// Whether the node acts for another.
    is_for_other: bool,
}

impl Asked {
    /// What a command asks, if the world can judge its answer.
    fn of(command: &Command) -> Option<Asked> {
        match command {
            Command::Find(find) => {
                let zone = find.query.zone.clone().unwrap_or_else(ZoneName::root);
                let mut all = all_of(zone.clone());
                (all.query.zone, all.limit) = (find.query.zone.clone(), find.limit);
                (*find == all).then_some(Asked::Agents(zone))
            }
            Command::Resolve(text) => text.parse().ok().map(Asked::Name),
            _ => None,
        }
    }

    /// How a node is asked this.
    pub(super) fn command(&self) -> Command {
        match self {
            Asked::Agents(zone) => Command::Find(all_of(zone.clone())),
            Asked::Pages(listing) => Reading::of(listing.clone(), 0).command(),
            Asked::Name(name) => Command::Resolve(name.to_string()),
        }
    }
}

fn all_of(zone: ZoneName) -> Find {
    let mut find = Find { limit: LIMIT, ..Find::default() };
    find.query.zone = Some(zone);
    find
}

impl Questions {
    pub(super) fn new(nodes: usize) -> Questions {
        let counts = AnswerCounts { asked: vec![0; nodes], ..AnswerCounts::default() };
        Questions {
            open: BTreeMap::new(),
            readings: BTreeMap::new(),
            conversations: BTreeMap::new(),
            work: None,
            passed_on: vec![0; nodes],
            quiet_since: 0,
            united_since: Some(0),
            unreleased: BTreeMap::new(),
            counts,
        }
    }

    /// A command is about to ask for a page, after these.
    pub(super) fn note_reading(&mut self, id: u64, reading: Reading) {
        self.readings.insert(id, reading);
    }

    /// What became of them so far.
    pub(super) fn counts(&self) -> &AnswerCounts {
        &self.counts
    }

    /// Something goes wrong.
    pub(super) fn note_fault(&mut self, fault: &Fault, now: u64) {
        self.quiet_since = now;
        if let Fault::Part(groups) = fault {
            let is_over = groups.windows(2).all(|pair| pair[0] == pair[1]);
            self.united_since = is_over.then_some(now);
        }
    }

    /// A node starts, or goes on after a pause.
    pub(super) fn note_start(&mut self, now: u64) {
        self.quiet_since = now;
    }

    /// A node stopped: who asked it has no answer, and what it asked is over.
    pub(super) fn crash(&mut self, at: usize, now: u64) {
        self.quiet_since = now;
        self.open.retain(|_, open| open.node != at);
        self.readings.retain(|id, _| self.open.contains_key(id));
        self.conversations.retain(|(node, _), _| *node != at);
        self.unreleased.remove(&at);
    }

    /// A node is about to be told something: what it does next it does for a question, or for none.
    pub(super) fn begin(&mut self, at: usize, input: &Input, fabric: &Fabric) {
        let of = |conversation: &ConversationId| self.conversations.get(&(at, *conversation)).copied();
        let question = match input {
            Input::Command { id, command } if fabric.nodes.is_honest(at) => {
                let now = fabric.kernel.now();
                let open = |asked| Open { node: at, asked, at_ms: now, messages: 0 };
                let page = self.readings.get(id).map(Reading::asked);
                self.open.extend(page.or_else(|| Asked::of(command)).map(|asked| (*id, open(asked))));
                if matches!(command, Command::JoinZone { .. } | Command::LeaveZone(_)) {
                    self.quiet_since = now;
                }
                Some(*id)
            }
            Input::Request { id, protocol: Protocol::Ask, bytes, .. } if is_question(bytes) => {
                self.counts.asked[at] += 1;
                fabric.network.asked_in(*id).and_then(|asked_in| self.conversations.get(&asked_in).copied())
            }
            Input::Response { conversation, .. } | Input::RequestFailed { conversation } => of(conversation),
            _ => None,
        };
        let open = question.and_then(|question| Some((question, self.open.get(&question)?)));
        self.work = open.map(|(question, open)| Work { question, is_for_other: open.node != at });
    }

    /// What the node was told is done with.
    pub(super) fn end(&mut self) {
        self.work = None;
    }

    /// A node wants something done.
    pub(super) fn note_output(&mut self, at: usize, output: &Output, fabric: &mut Fabric) {
        let Output::Request { conversation, protocol: Protocol::Ask, bytes, .. } = output else { return };
        let Some(Work { question, is_for_other }) = self.work.filter(|_| is_question(bytes)) else { return };
        let Some(open) = self.open.get_mut(&question) else { return };
        self.conversations.insert((at, *conversation), question);
        open.messages += 1;
        let height = 1 + fabric.nodes[open.node].home_zone().ancestors().count();
        if open.messages > 2 * height + MESSAGES_MAX {
            let detail = format!("{:?} of node {} takes {} messages", open.asked, open.node, open.messages);
            fabric.kernel.fail(Check::QuestionsBounded, detail);
        }
        self.passed_on[at] += u64::from(is_for_other);
        if self.passed_on[at] > self.counts.asked[at] {
            let detail = format!(
                "node {at} was asked {} times and asks {}",
                self.counts.asked[at], self.passed_on[at]
            );
            fabric.kernel.fail(Check::QuestionsBounded, detail);
        }
    }

    /// A client has its answer, which is judged.
    pub(super) fn note_reply(
        &mut self,
        id: u64,
        reply: &Reply,
        reference: &ReferenceModel,
        fabric: &mut Fabric,
    ) {
        let Some(open) = self.open.remove(&id) else { return };
        self.conversations.retain(|_, question| *question != id);
        let now = fabric.kernel.now();
        self.counts.messages.push(open.messages as u32);
        self.counts.took_ms.push((now - open.at_ms) as u32);
        let mut reading = self.readings.remove(&id);
        let at_ms = reading.as_ref().map_or(open.at_ms, |reading| reading.begun_ms);
        let mut case = Case {
            asker: open.node,
            at_ms,
            is_read: reading.is_some(),
            quiet_ms: at_ms.saturating_sub(self.quiet_since),
            united_ms: self.united_since.map(|since| at_ms.saturating_sub(since)),
            heard_of: HeardOf::by(open.node, fabric),
            reference,
            fabric,
        };
        let judgement = match (&open.asked, reply) {
            (Asked::Agents(scope), Reply::Found(answer)) => {
                self.counts.searches += 1;
                self.counts.complete += u64::from(answer.is_complete());
                case.judge_answer(scope, answer)
            }
            (Asked::Pages(_), Reply::Found(page)) => {
                let is_last = reading.as_mut().is_none_or(|reading| reading.turn(page.clone()));
                self.counts.lists += u64::from(is_last);
                let judgement = reading.as_ref().map(|reading| reading.judge(&mut case));
                reading = reading.filter(|_| !is_last);
                judgement.unwrap_or(Judgement::Right)
            }
            (Asked::Name(name), Reply::Resolved(resolution)) => {
                self.counts.names += 1;
                let judgement = case.judge_resolution(name, resolution);
                let is_right = judgement == Judgement::Right;
                self.counts.decided += u64::from(is_right && judge::is_decided(resolution));
                judgement
            }
            _ => Judgement::Right,
        };
        if let Judgement::Wrong(check, detail) = judgement {
            self.counts.wrong += u64::from(check == Check::AnswerIsComplete);
            let detail = format!("node {} asks for {:?}: {detail}", open.node, open.asked);
            // A liar is believed: that is counted, and prevented by zones with keys alone.
            match fabric.nodes.honest().len() == fabric.nodes.count() {
                true => fabric.kernel.fail(check, detail),
                false => fabric.kernel.log.misled(now, &detail),
            }
        }
        if let Some(reading) = reading {
            let at = if reading.moves() { next_asked(open.node, fabric) } else { open.node };
            fabric.kernel.schedule(pages::LOOK_MS, Due::Page(at, Box::new(reading)));
        }
    }

    /// What must hold at any time: every question is answered by and by, and only gateways hold what lies below.
    pub(super) fn check(&mut self, fabric: &mut Fabric) {
        let now = fabric.kernel.now();
        let is_late = |open: &&Open| {
            now - open.at_ms > PATIENCE_MS && fabric.nodes[open.node].suspended_until <= open.at_ms
        };
        if let Some(late) = self.open.values().find(is_late) {
            let detail = format!("node {} has no answer to {:?}", late.node, late.asked);
            fabric.kernel.fail(Check::QuestionsBounded, detail);
        }
        if !fabric.nodes.are_dialable {
            return;
        }
        for at in fabric.nodes.honest() {
            self.check_below(at, fabric);
        }
    }

    fn check_below(&mut self, at: usize, fabric: &mut Fabric) {
        let now = fabric.kernel.now();
        let Some((node, time)) = fabric.read(at) else { return };
        let tree = node.tree(time);
        let below = || tree.iter().filter(|zone| zone.role == Some(Role::Below));
        if tree.iter().any(|zone| zone.is_gateway) || below().next().is_none() {
            self.unreleased.remove(&at);
        } else if now - *self.unreleased.entry(at).or_insert(now) > RELEASED_MS {
            let detail = format!("node {at} is no gateway and holds {:?}", below().next());
            fabric.kernel.fail(Check::GatewaysAlone, detail);
        }
        let is_old = |age: std::time::Duration| age.as_millis() as u64 > REPLICA_MS_MAX;
        let old = below().find(|zone| zone.status == ZoneStatus::Stale && zone.age.is_some_and(is_old));
        if let Some(old) = old {
            fabric.kernel.fail(Check::GatewaysAlone, format!("node {at} holds {old:?} for too long"));
        }
    }
}

/// Whom a client asks after a node: the next that is up and that this one reaches.
fn next_asked(at: usize, fabric: &Fabric) -> usize {
    let Fabric { nodes, network, .. } = fabric;
    let mut turn = (1..nodes.count()).map(|step| (at + step) % nodes.count());
    let is_asked =
        |other: &usize| fabric.is_up(*other) && nodes.is_honest(*other) && !network.is_parted(at, *other);
    turn.find(is_asked).unwrap_or(at)
}

/// Whether a node that is asked this asks for a client, and not its way.
fn is_question(bytes: &[u8]) -> bool {
    Question::decode(bytes).is_ok_and(|question| !matches!(question, Question::Walk { .. }))
}
