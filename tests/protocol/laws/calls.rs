//! The law of calls (promise P21): work runs at most once a call, nobody claims that it did not run when it did, and every
//! call has an end by its deadline.
//!
//! Caller and host are the machines of the protocol; what lies between them loses, repeats and delays what it carries for
//! as long as a host remembers ids, and loses all that is on its way to a process that dies. A client may give up at any
//! moment; a host may be started again at any moment.

use std::collections::BTreeMap;
use std::time::Duration;

use aop::proto::call::{
    Access, CallAttach, CallEnd, CallFailure, CallId, CallOffer, CallReply, Calls, InboundStream, Input,
    Loss, OutboundStream, Outcome, Output, Repeats, Replica, Wanted, Word,
};
use aop::proto::code::Code;
use aop::proto::identity::{AgentId, Identity, PeerKey};
use aop::proto::limits::CALL_ID_KEPT;
use aop::proto::liveness::Presence;
use proptest::prelude::*;

const CALLS: usize = 2;
const SIZE: usize = 7;
/// Time a caller gives its call.
const PATIENCE: Duration = Duration::from_secs(30);

/// What happens next; `pick` chooses among what it could happen to.
#[derive(Clone, Debug)]
enum Happening {
    /// A client calls, if it did not yet.
    Call {
        call: usize,
    },
    /// A client does not wait any more.
    GiveUp {
        call: usize,
    },
    /// A stream opens, or it does not.
    Open {
        pick: usize,
        fails: bool,
    },
    /// Something arrives at the host; a copy may stay on its way.
    ToHost {
        pick: usize,
        copy: bool,
    },
    /// Something arrives at the caller; a copy may stay on its way.
    ToCaller {
        pick: usize,
        copy: bool,
    },
    /// Something is lost.
    Lose {
        pick: usize,
    },
    /// Work ends: with an answer, or as the agent fails.
    Place {
        pick: usize,
        fails: bool,
    },
    WorkEnds {
        pick: usize,
        fails: bool,
    },
    /// The host notices that a stream is gone.
    HostNotices {
        pick: usize,
    },
    /// The caller notices that a stream is gone.
    CallerNotices {
        pick: usize,
    },
    /// The host dies and is started again; the caller may notice.
    Restart {
        noticed: bool,
    },
    /// Time passes.
    Wait {
        ms: u64,
    },
}

fn happening() -> impl Strategy<Value = Happening> {
    let (call, pick) = (0..CALLS, 0..64usize);
    let copy = prop::bool::weighted(0.2);
    prop_oneof![
        4 => call.clone().prop_map(|call| Happening::Call { call }),
        1 => call.prop_map(|call| Happening::GiveUp { call }),
        6 => (pick.clone(), prop::bool::weighted(0.1)).prop_map(|(pick, fails)| Happening::Open { pick, fails }),
        9 => (pick.clone(), copy).prop_map(|(pick, copy)| Happening::ToHost { pick, copy }),
        7 => (pick.clone(), copy).prop_map(|(pick, copy)| Happening::ToCaller { pick, copy }),
        1 => pick.clone().prop_map(|pick| Happening::Lose { pick }),
        2 => (pick.clone(), any::<bool>()).prop_map(|(pick, fails)| Happening::Place { pick, fails }),
        3 => (pick.clone(), any::<bool>()).prop_map(|(pick, fails)| Happening::WorkEnds { pick, fails }),
        1 => pick.clone().prop_map(|pick| Happening::HostNotices { pick }),
        1 => pick.prop_map(|pick| Happening::CallerNotices { pick }),
        2 => any::<bool>().prop_map(|noticed| Happening::Restart { noticed }),
        3 => (0..600u64).prop_map(|ms| Happening::Wait { ms }),
        1 => (0..40_000u64).prop_map(|ms| Happening::Wait { ms }),
    ]
}

#[derive(Clone, Debug)]
enum Frame {
    Offer(CallOffer),
    Attach(CallAttach),
    Cancel,
    Taken,
    Input,
    Reply(CallReply),
    Output,
}

/// A frame on its way on a stream.
#[derive(Clone, Debug)]
struct InFlight {
    stream: OutboundStream,
    frame: Frame,
    sent: Duration,
}

/// What a client was told of its call.
#[derive(Default)]
struct Told {
    deadline: Option<Duration>,
    gave_up: bool,
    offers: u32,
    end: Option<CallEnd>,
}

struct World {
    now: Duration,
    peer: PeerKey,
    host_key: PeerKey,
    caller: Calls,
    told: BTreeMap<CallId, Told>,
    host: Calls,
    restarts: u64,
    opening: Vec<OutboundStream>,
    open: Vec<OutboundStream>,
    /// Streams at the host, and those they are at the caller.
    inbound: BTreeMap<InboundStream, OutboundStream>,
    inbound_streams: u64,
    /// Those that wait for a place.
    waiting: Vec<InboundStream>,
    /// Work, named by the stream on which it was accepted.
    working: Vec<InboundStream>,
    runs: BTreeMap<CallId, u32>,
    to_host: Vec<InFlight>,
    to_caller: Vec<InFlight>,
}

fn id(call: usize) -> CallId {
    CallId([call as u8; 16])
}

impl World {
    fn new() -> World {
        let [peer, host_key] = [1, 2].map(|seed| Identity::from_seed([seed; 32]).key());
        World {
            now: Duration::ZERO,
            peer,
            host_key,
            caller: Calls::new(1),
            told: BTreeMap::new(),
            host: Calls::new(0),
            restarts: 0,
            opening: Vec::new(),
            open: Vec::new(),
            inbound: BTreeMap::new(),
            inbound_streams: 0,
            waiting: Vec::new(),
            working: Vec::new(),
            runs: BTreeMap::new(),
            to_host: Vec::new(),
            to_caller: Vec::new(),
        }
    }

    fn happen(&mut self, what: Happening) {
        match what {
            Happening::Call { call } => self.call(id(call)),
            Happening::GiveUp { call } => {
                if let Some(told) = self.told.get_mut(&id(call)).filter(|told| told.end.is_none()) {
                    told.gave_up = true;
                    self.tell_caller(Input::GiveUp { call: id(call) });
                }
            }
            Happening::Open { pick, fails } => {
                if let Some(stream) = taken(&mut self.opening, pick) {
                    self.open(stream, fails);
                }
            }
            Happening::ToHost { pick, copy } => {
                if let Some(frame) = take(&mut self.to_host, pick, copy, self.now) {
                    self.at_host(frame);
                }
            }
            Happening::ToCaller { pick, copy } => {
                if let Some(frame) = take(&mut self.to_caller, pick, copy, self.now) {
                    self.at_caller(frame);
                }
            }
            Happening::Lose { pick } => {
                let from = if pick % 2 == 0 { &mut self.to_host } else { &mut self.to_caller };
                let _lost = take(from, pick, false, self.now);
            }
            Happening::Place { pick, fails } => {
                if let Some(stream) = taken(&mut self.waiting, pick) {
                    let failure = CallFailure::new(Code::Busy, Outcome::NotStarted, "full");
                    self.tell_host(match fails {
                        true => Input::NotPlaced { stream, failure },
                        false => Input::Placed { stream },
                    });
                }
            }
            Happening::WorkEnds { pick, fails } => {
                if let Some(stream) = taken(&mut self.working, pick) {
                    let failure = || CallFailure::new(Code::AgentFailed, Outcome::Done, "failed");
                    self.tell_host(Input::WorkEnded {
                        stream,
                        ended: if fails { Err(failure()) } else { Ok(SIZE) },
                    });
                }
            }
            Happening::HostNotices { pick } => {
                let streams: Vec<InboundStream> = self.inbound.keys().copied().collect();
                if let Some(at) = pick.checked_rem(streams.len()) {
                    self.gone(streams[at]);
                }
            }
            Happening::CallerNotices { pick } => {
                if let Some(stream) = taken(&mut self.open, pick) {
                    self.lost(stream);
                }
            }
            Happening::Restart { noticed } => self.restart(noticed),
            Happening::Wait { ms } => self.wait(Duration::from_millis(ms)),
        }
    }

    fn call(&mut self, call: CallId) {
        let told = self.told.entry(call).or_default();
        if told.deadline.is_some() {
            return;
        }
        let deadline = self.now + PATIENCE;
        told.deadline = Some(deadline);
        let replica = |host, presence| Replica { host, presence, weight: 1 };
        let replicas = vec![replica(self.host_key, Presence::Unreachable)];
        let (agent, name) = (AgentId([0; 20]), "a@.".parse().unwrap());
        self.tell_caller(Input::Call {
            call,
            wanted: Wanted {
                is_detached: call == id(1),
                repeats: Repeats { max: 1, is_idempotent: false },
                ..Wanted::new(agent, name, replicas, SIZE, deadline)
            },
        });
    }

    fn open(&mut self, stream: OutboundStream, fails: bool) {
        if fails {
            return self.tell_caller(Input::NotOpened { stream, why: "no way".into() });
        }
        self.open.push(stream);
        self.tell_caller(Input::Opened(stream));
    }

    fn at_host(&mut self, InFlight { stream, frame, .. }: InFlight) {
        match frame {
            Frame::Offer(offer) => {
                let inbound = self.arrived(stream);
                let (peer, access) = (self.peer, Access::Granted);
                self.tell_host(Input::Offered { stream: inbound, peer, source: None, offer, access });
            }
            Frame::Attach(attach) => {
                let inbound = self.arrived(stream);
                self.tell_host(Input::Attached { stream: inbound, peer: self.peer, attach });
            }
            Frame::Cancel => self.say_of(stream, Input::Cancelled),
            Frame::Taken => self.say_of(stream, Input::Delivered),
            Frame::Input => self.say_of(stream, |stream| Input::InputArrived { stream, size: SIZE }),
            Frame::Reply(_) | Frame::Output => unreachable!("hosts reply to callers"),
        }
    }

    /// A stream arrives at the host, with the first frame on it.
    fn arrived(&mut self, stream: OutboundStream) -> InboundStream {
        self.inbound_streams += 1;
        let inbound = InboundStream(self.inbound_streams);
        self.inbound.insert(inbound, stream);
        inbound
    }

    /// Something arrives on all that the host takes for this stream.
    fn say_of(&mut self, stream: OutboundStream, input: impl Fn(InboundStream) -> Input) {
        let of = self.inbound.iter().filter(|(_, at)| **at == stream);
        let all: Vec<InboundStream> = of.map(|(inbound, _)| *inbound).collect();
        all.into_iter().for_each(|inbound| self.tell_host(input(inbound)));
    }

    fn close(&mut self, stream: OutboundStream) {
        self.open.retain(|it| *it != stream);
        self.opening.retain(|it| *it != stream);
    }

    fn at_caller(&mut self, InFlight { stream, frame, .. }: InFlight) {
        // What comes on a stream that is closed reaches nobody.
        if !self.open.contains(&stream) {
            return;
        }
        match frame {
            Frame::Reply(reply) => self.tell_caller(Input::Reply { stream, reply }),
            Frame::Output => self.tell_caller(Input::OutputTaken(stream)),
            other => unreachable!("callers get replies: {other:?}"),
        }
    }

    fn lost(&mut self, stream: OutboundStream) {
        self.tell_caller(Input::Lost { stream, loss: Loss::Closed("gone".into()) });
    }

    fn gone(&mut self, stream: InboundStream) {
        self.inbound.remove(&stream);
        self.waiting.retain(|it| *it != stream);
        self.tell_host(Input::Gone(stream));
    }

    /// What is on its way to a process dies with it; what it has sent may still arrive.
    fn restart(&mut self, noticed: bool) {
        self.restarts += 1;
        self.host = Calls::new(self.restarts);
        self.inbound.clear();
        self.waiting.clear();
        self.working.clear();
        self.to_host.clear();
        if noticed {
            std::mem::take(&mut self.open).into_iter().for_each(|stream| self.lost(stream));
        }
    }

    fn wait(&mut self, time: Duration) {
        let until = self.now + time;
        while let Some(due) = self.next_due().filter(|due| *due <= until) {
            self.now = self.now.max(due);
            self.caller.handle_timeout(self.now);
            self.perform_caller();
            self.host.handle_timeout(self.now);
            self.perform_host();
        }
        self.now = until;
    }

    fn next_due(&self) -> Option<Duration> {
        [self.caller.poll_timeout(), self.host.poll_timeout()].into_iter().flatten().min()
    }

    fn tell_caller(&mut self, input: Input) {
        self.caller.handle(self.now, input);
        self.perform_caller();
    }

    fn tell_host(&mut self, input: Input) {
        self.host.handle(self.now, input);
        self.perform_host();
    }

    fn perform_caller(&mut self) {
        while let Some(output) = self.caller.poll_output() {
            match output {
                Output::Open { stream, host } => {
                    assert_eq!(host, self.host_key, "the only other host");
                    self.opening.push(stream);
                }
                Output::Offer { stream, offer } => {
                    self.told.get_mut(&stream.call).unwrap().offers += 1;
                    self.send_to_host(stream, Frame::Offer(offer));
                }
                Output::SendInput { stream, .. } => self.send_to_host(stream, Frame::Input),
                Output::Attach { stream, attach } => self.send_to_host(stream, Frame::Attach(attach)),
                Output::Close(stream) => self.close(stream),
                Output::Cancel(stream) => {
                    self.send_to_host(stream, Frame::Cancel);
                    self.close(stream);
                }
                Output::Taken(stream) => {
                    self.send_to_host(stream, Frame::Taken);
                    self.close(stream);
                }
                Output::Search { call, .. } => self.caller.handle(self.now, Input::Searched { call }),
                Output::Ended { call, end } => {
                    let told = self.told.get_mut(&call).unwrap();
                    assert!(
                        !told.gave_up && told.end.is_none(),
                        "{call} ended twice, or after it was given up"
                    );
                    assert_eq!(end.attempts, told.offers);
                    told.end = Some(end);
                }
                Output::TakeOutput { .. }
                | Output::Report { .. }
                | Output::Listen(_)
                | Output::LookFor { .. } => {}
                other => panic!("no business of a caller: {other:?}"),
            }
        }
    }

    fn perform_host(&mut self) {
        while let Some(output) = self.host.poll_output() {
            match output {
                Output::Accept { stream, incarnation, .. } => {
                    self.send_to_caller(
                        stream,
                        Frame::Reply(CallReply::Accepted {
                            incarnation,
                            word: Word::default(),
                            keeps: false,
                        }),
                    );
                }
                Output::Run { stream, .. } => {
                    self.working.push(stream);
                    *self.runs.entry(self.inbound[&stream].call).or_default() += 1;
                }
                // Whether it arrives is told later, or never.
                Output::Answer { stream, size, .. } => {
                    self.send_to_caller(stream, Frame::Reply(CallReply::Answered { size: size as u64 }));
                    self.send_to_caller(stream, Frame::Output);
                }
                Output::Refuse { stream, failure } => {
                    self.send_to_caller(stream, Frame::Reply(CallReply::Failed(failure)));
                }
                Output::Resume { stream, .. } => {
                    self.send_to_caller(stream, Frame::Reply(CallReply::Alive));
                }
                Output::Stop { work } => self.working.retain(|it| *it != work),
                Output::Forget { .. } => {}
                // Of three calls one waits for a place.
                Output::WantPlace { stream, .. } if !stream.0.is_multiple_of(3) => {
                    self.host.handle(self.now, Input::Placed { stream });
                }
                Output::WantPlace { stream, .. } => {
                    self.waiting.push(stream);
                    self.host.handle(self.now, Input::Waits { stream, ahead: 3 });
                }
                Output::SayQueued { stream, ahead } => {
                    let reply = CallReply::Queued { ahead: ahead as u32, word: Word::default() };
                    self.send_to_caller(stream, Frame::Reply(reply));
                }
                Output::SayAlive(stream) => self.send_to_caller(stream, Frame::Reply(CallReply::Alive)),
                Output::Drop(stream) => {
                    self.inbound.remove(&stream);
                }
                other => panic!("no business of a host: {other:?}"),
            }
        }
    }

    fn send_to_host(&mut self, stream: OutboundStream, frame: Frame) {
        self.to_host.push(InFlight { stream, frame, sent: self.now });
    }

    fn send_to_caller(&mut self, stream: InboundStream, frame: Frame) {
        if let Some(outbound) = self.inbound.get(&stream) {
            self.to_caller.push(InFlight { stream: *outbound, frame, sent: self.now });
        }
    }

    fn check(&self) {
        for (call, told) in &self.told {
            let runs = self.runs.get(call).copied().unwrap_or_default();
            assert!(runs <= 1, "{call} ran {runs} times");
            let Some(end) = &told.end else {
                assert!(told.gave_up || told.deadline > Some(self.now), "{call} has no end at its deadline");
                continue;
            };
            match &end.failure {
                None => assert_eq!(runs, 1, "an answer without work"),
                Some(failure) => match failure.outcome {
                    Outcome::NotStarted => assert_eq!(runs, 0, "{call} ran, and {failure}"),
                    Outcome::Done => assert_eq!(runs, 1, "{call} did not run, and {failure}"),
                    Outcome::Unknown => {}
                },
            }
        }
    }

    /// Everything that is still on its way arrives, while the calls come to their deadlines and after.
    fn settle(&mut self) {
        self.wait(PATIENCE);
        self.check();
        while let Some(frame) = take(&mut self.to_host, 0, false, self.now) {
            self.at_host(frame);
        }
        self.check();
        assert!(self.caller.poll_timeout().is_none(), "a call that is over has no timer");
    }
}

fn taken<T>(from: &mut Vec<T>, pick: usize) -> Option<T> {
    let at = pick.checked_rem(from.len())?;
    Some(from.remove(at))
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
        happenings in prop::collection::vec(happening(), 0..160)
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
fn calls_of_an_undisturbed_world_are_answered_at_their_first_offer() {
    let mut world = World::new();
    for call in 0..CALLS {
        world.happen(Happening::Call { call });
        world.happen(Happening::Open { pick: 0, fails: false });
        world.happen(Happening::ToHost { pick: 0, copy: false });
        world.happen(Happening::ToCaller { pick: 0, copy: false });
        world.happen(Happening::ToHost { pick: 0, copy: false });
        world.happen(Happening::WorkEnds { pick: 0, fails: false });
        world.happen(Happening::ToCaller { pick: 0, copy: false });
        world.happen(Happening::ToCaller { pick: 0, copy: false });
        // That the answer is taken.
        world.happen(Happening::ToHost { pick: 0, copy: false });
        world.check();
        let end = CallEnd { host: Some(world.host_key), attempts: 1, failure: None };
        assert_eq!(world.told[&id(call)].end, Some(end));
    }
}

/// A host that stands still is offered the call three times, and none of the offers runs once it goes on.
#[test]
fn a_host_that_does_not_answer_is_left_after_three_offers() {
    let mut world = World::new();
    world.happen(Happening::Call { call: 0 });
    for _ in 0..3 {
        world.happen(Happening::Open { pick: 0, fails: false });
        let due = world.next_due().expect("the end of a patience");
        world.wait(due - world.now);
    }
    let end = world.told[&id(0)].end.clone().expect("an end before the deadline");
    let failure = end.failure.expect("no answer");
    assert_eq!((failure.code.text(), failure.outcome, end.attempts), ("unreachable", Outcome::NotStarted, 3));
    world.settle();
}
