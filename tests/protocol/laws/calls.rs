//! The law of calls (promise P21): work runs at most once a call, and nobody claims that it did not run when it did.
//!
//! Callers and hosts are the machines of the protocol; what lies between them loses, repeats and delays what it carries
//! for as long as a host remembers ids, and loses all that is on its way to a process that dies. A caller may give up at
//! any moment and offer its call again; a host may be started again at any moment.

use std::collections::BTreeMap;
use std::time::Duration;

use aop::proto::call::{
    Call, CallFailure, CallId, CallOffer, CallReply, Incarnation, Ledger, Outcome, Step, Ticket,
};
use aop::proto::config::CALL_ID_KEPT;
use aop::proto::identity::{AgentId, Identity, PeerKey};
use proptest::prelude::*;

const CALLS: usize = 2;
const SIZE: usize = 7;
/// Time a caller gives its call.
const PATIENCE: Duration = Duration::from_secs(30);

/// What happens next; `pick` chooses among what it could happen to.
#[derive(Clone, Debug)]
enum Happening {
    /// A caller offers its call, again if the last offer ended.
    Offer { call: usize },
    /// A caller gives its offer up.
    GiveUp { call: usize },
    /// Something arrives at the host; a copy may stay on its way.
    ToHost { pick: usize, copy: bool },
    /// Something arrives at a caller; a copy may stay on its way.
    ToCaller { pick: usize, copy: bool },
    /// Something is lost.
    Lose { pick: usize },
    /// Work ends: with an answer, or as the agent fails.
    WorkEnds { pick: usize, fails: bool },
    /// The host notices that a stream is gone.
    Notice { pick: usize },
    /// The host dies and is started again; callers may notice.
    Restart { noticed: bool },
    /// Time passes.
    Wait { seconds: u64 },
}

fn happening() -> impl Strategy<Value = Happening> {
    let (call, pick) = (0..CALLS, 0..64usize);
    let copy = prop::bool::weighted(0.2);
    prop_oneof![
        6 => call.clone().prop_map(|call| Happening::Offer { call }),
        2 => call.prop_map(|call| Happening::GiveUp { call }),
        9 => (pick.clone(), copy).prop_map(|(pick, copy)| Happening::ToHost { pick, copy }),
        7 => (pick.clone(), copy).prop_map(|(pick, copy)| Happening::ToCaller { pick, copy }),
        1 => pick.clone().prop_map(|pick| Happening::Lose { pick }),
        3 => (pick.clone(), any::<bool>()).prop_map(|(pick, fails)| Happening::WorkEnds { pick, fails }),
        2 => pick.prop_map(|pick| Happening::Notice { pick }),
        2 => any::<bool>().prop_map(|noticed| Happening::Restart { noticed }),
        1 => (0..40u64).prop_map(|seconds| Happening::Wait { seconds }),
    ]
}

#[derive(Clone, Debug)]
enum Frame {
    Offer(CallOffer),
    Input(CallId),
    Reply(CallReply),
}

/// A frame on its way on a stream.
#[derive(Clone, Debug)]
struct InFlight {
    stream: usize,
    frame: Frame,
    sent: Duration,
}

/// A caller and what it knows.
struct Caller {
    call: Call,
    id: CallId,
    deadline: Duration,
    /// The stream of the present offer.
    stream: Option<usize>,
    /// How the latest offer ended; `Ok` is an answer.
    ended: Option<Result<(), CallFailure>>,
}

struct World {
    now: Duration,
    peer: PeerKey,
    callers: Vec<Caller>,
    ledger: Ledger,
    restarts: u64,
    /// Calls that were admitted, by the stream they came on.
    places: Vec<(usize, CallId, Ticket)>,
    /// Those of them that work.
    working: Vec<Ticket>,
    runs: BTreeMap<CallId, u32>,
    to_host: Vec<InFlight>,
    to_callers: Vec<InFlight>,
    streams: usize,
}

impl World {
    fn new() -> World {
        let caller = |at| {
            let id = CallId([at as u8; 16]);
            Caller { call: Call::new(id), id, deadline: PATIENCE, stream: None, ended: None }
        };
        World {
            now: Duration::ZERO,
            peer: Identity::from_seed([1; 32]).key(),
            callers: (0..CALLS).map(caller).collect(),
            ledger: Ledger::new(Incarnation(0)),
            restarts: 0,
            places: Vec::new(),
            working: Vec::new(),
            runs: BTreeMap::new(),
            to_host: Vec::new(),
            to_callers: Vec::new(),
            streams: 0,
        }
    }

    fn happen(&mut self, what: Happening) {
        match what {
            Happening::Offer { call } => self.offer(call),
            Happening::GiveUp { call } => self.give_up(call),
            Happening::ToHost { pick, copy } => {
                if let Some(frame) = take(&mut self.to_host, pick, copy, self.now) {
                    self.at_host(frame);
                }
            }
            Happening::ToCaller { pick, copy } => {
                if let Some(frame) = take(&mut self.to_callers, pick, copy, self.now) {
                    self.at_caller(frame);
                }
            }
            Happening::Lose { pick } => {
                let from = if pick % 2 == 0 { &mut self.to_host } else { &mut self.to_callers };
                let _lost = take(from, pick, false, self.now);
            }
            Happening::WorkEnds { pick, fails } => self.end_work(pick, fails),
            Happening::Notice { pick } if !self.places.is_empty() => {
                let (_, _, ticket) = self.places.remove(pick % self.places.len());
                self.working.retain(|it| *it != ticket);
                self.ledger.end(ticket);
            }
            Happening::Notice { .. } => {}
            Happening::Restart { noticed } => {
                self.restart();
                (0..CALLS).filter(|_| noticed).for_each(|call| self.give_up(call));
            }
            Happening::Wait { seconds } => self.now += Duration::from_secs(seconds),
        }
    }

    fn offer(&mut self, at: usize) {
        let caller = &mut self.callers[at];
        let answered = matches!(caller.ended, Some(Ok(())));
        if caller.stream.is_some() || answered || self.now >= caller.deadline {
            return;
        }
        self.streams += 1;
        caller.stream = Some(self.streams);
        let left = caller.deadline - self.now;
        let offer = caller.call.offer(AgentId([0; 20]), "a@.".parse().unwrap(), SIZE, left);
        self.send_to_host(self.streams, Frame::Offer(offer));
    }

    fn give_up(&mut self, at: usize) {
        let caller = &mut self.callers[at];
        if caller.stream.take().is_some() {
            caller.ended = Some(Err(caller.call.lose("deadline", "given up")));
        }
    }

    fn at_host(&mut self, InFlight { stream, frame, .. }: InFlight) {
        match frame {
            Frame::Offer(offer) => {
                let reply = match self.ledger.admit(self.now, self.peer, &offer) {
                    Err(failure) => CallReply::Failed(failure),
                    Ok((ticket, _)) => {
                        self.places.push((stream, offer.call, ticket));
                        CallReply::Accepted { incarnation: self.ledger.incarnation() }
                    }
                };
                self.send_to_caller(stream, reply);
            }
            Frame::Input(call) => {
                let place = self.places.iter().find(|it| (it.0, it.1) == (stream, call));
                if let Some((_, _, ticket)) = place
                    && self.ledger.begin(*ticket)
                {
                    self.working.push(*ticket);
                    *self.runs.entry(call).or_default() += 1;
                }
            }
            Frame::Reply(_) => unreachable!("hosts reply to callers"),
        }
    }

    fn at_caller(&mut self, InFlight { stream, frame, .. }: InFlight) {
        let (Frame::Reply(reply), now) = (frame, self.now) else { unreachable!("callers get replies") };
        // What comes on a stream that was given up reaches nobody.
        let Some(caller) = self.callers.iter_mut().find(|it| it.stream == Some(stream)) else { return };
        match caller.call.handle(reply) {
            Step::SendInput => {
                let frame = Frame::Input(caller.id);
                self.to_host.push(InFlight { stream, frame, sent: now });
            }
            Step::Progress(_) => {}
            Step::TakeOutput(_) => (caller.stream, caller.ended) = (None, Some(Ok(()))),
            Step::End(failure) => (caller.stream, caller.ended) = (None, Some(Err(failure))),
        }
    }

    fn end_work(&mut self, pick: usize, fails: bool) {
        let Some(at) = pick.checked_rem(self.working.len()) else { return };
        let ended = self.working.remove(at);
        let Some(at) = self.places.iter().position(|(_, _, ticket)| *ticket == ended) else { return };
        let (stream, _, ticket) = self.places.remove(at);
        self.ledger.end(ticket);
        let failure = || CallFailure::new("agent_failed", Outcome::Done, "failed");
        let answer = CallReply::Answered { size: SIZE as u64 };
        self.send_to_caller(stream, if fails { CallReply::Failed(failure()) } else { answer });
    }

    /// What is on its way to a process dies with it; what it has sent may still arrive.
    fn restart(&mut self) {
        self.restarts += 1;
        self.ledger = Ledger::new(Incarnation(self.restarts));
        self.places.clear();
        self.working.clear();
        self.to_host.clear();
    }

    fn send_to_host(&mut self, stream: usize, frame: Frame) {
        self.to_host.push(InFlight { stream, frame, sent: self.now });
    }

    fn send_to_caller(&mut self, stream: usize, reply: CallReply) {
        self.to_callers.push(InFlight { stream, frame: Frame::Reply(reply), sent: self.now });
    }

    fn check(&self) {
        for caller in &self.callers {
            let runs = self.runs.get(&caller.id).copied().unwrap_or_default();
            assert!(runs <= 1, "{:?} ran {runs} times", caller.id);
            match &caller.ended {
                Some(Ok(())) => assert_eq!(runs, 1, "an answer without work"),
                Some(Err(failure)) if caller.stream.is_none() && failure.outcome == Outcome::NotStarted => {
                    assert_eq!(runs, 0, "{:?} ran, and {failure}", caller.id);
                }
                Some(Err(failure)) if failure.outcome == Outcome::Done => assert_eq!(runs, 1),
                _ => {}
            }
        }
    }

    /// Everybody gives up, and everything that is still on its way arrives.
    fn settle(&mut self) {
        (0..CALLS).for_each(|call| self.give_up(call));
        self.check();
        while let Some(frame) = take(&mut self.to_host, 0, false, self.now) {
            self.at_host(frame);
        }
        self.check();
    }
}

/// One of the frames on their way, a copy of it if asked; too old ones are lost.
fn take(from: &mut Vec<InFlight>, pick: usize, copy: bool, now: Duration) -> Option<InFlight> {
    from.retain(|frame| now < frame.sent + CALL_ID_KEPT);
    let at = pick.checked_rem(from.len())?;
    Some(if copy { from[at].clone() } else { from.remove(at) })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10_000, ..ProptestConfig::default() })]

    #[test]
    fn a_call_runs_at_most_once_and_nobody_claims_that_it_did_not_run_when_it_did(
        happenings in prop::collection::vec(happening(), 0..120)
    ) {
        let mut world = World::new();
        for what in happenings {
            world.happen(what);
            world.check();
        }
        world.settle();
    }
}

/// The law would hold in a world where nothing ever runs.
#[test]
fn calls_of_an_undisturbed_world_are_answered() {
    let mut world = World::new();
    for call in 0..CALLS {
        world.offer(call);
        world.happen(Happening::ToHost { pick: 0, copy: false });
        world.happen(Happening::ToCaller { pick: 0, copy: false });
        world.happen(Happening::ToHost { pick: 0, copy: false });
        world.happen(Happening::WorkEnds { pick: 0, fails: false });
        world.happen(Happening::ToCaller { pick: 0, copy: false });
        world.check();
        assert!(matches!(world.callers[call].ended, Some(Ok(()))));
    }
}
