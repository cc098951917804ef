//! What other nodes answer is believed as far as it is signed, and asked for.

use std::time::Duration;

use aop::proto::ask::{Answer, Contact, Cover, Knowledge, Question, Referral};
use aop::proto::codec;
use aop::proto::config::Config;
use aop::proto::identity::{AgentId, Identity, PeerKey};
use aop::proto::io::{Command, ConversationId, Dialed, Input, Offence, Output, Protocol, Reply};
use aop::proto::limits::{DELEGATION_LIFE, REFERRED_ASKS_MAX};
use aop::proto::name::{FullName, ZoneName};
use aop::proto::node::Node;
use aop::proto::persistence::Stored;
use aop::proto::query::{Find, Resolution, ZoneStatus};
use aop::proto::record::{Delegation, Header, RecordKind};
use aop::proto::search::Query;
use aop::proto::time::Timestamp;
use serde_bytes::ByteBuf;

use crate::rules::cluster::{NOW, grant, identity, key, offer, signed};
use crate::rules::{body, header};

/// Whoever is asked.
const TOLD_BY: usize = 5;

/// A node of home.net that knows one peer of no zone of its own, whom it therefore asks.
struct Asker {
    node: Node,
    now: Timestamp,
    next_id: u64,
}

/// A question that the asker sent.
struct Sent {
    conversation: ConversationId,
    question: Question,
    to: PeerKey,
}

impl Asker {
    fn new() -> Asker {
        Asker::with(Config::default())
    }

    fn with(config: Config) -> Asker {
        let config = Config { zones: vec![zone("home.net")], expects_peers: true, ..config };
        let node = Node::new(identity(0), config, [0; 32], Stored::default(), NOW);
        let mut asker = Asker { node, now: NOW, next_id: 0 };
        asker.give(Input::Connected { peer: key(TOLD_BY), dialed: Dialed::ByUs });
        asker.outputs();
        asker
    }

    fn give(&mut self, input: Input) {
        self.node.handle(self.now, input);
    }

    fn outputs(&mut self) -> Vec<Output> {
        std::iter::from_fn(|| self.node.poll_output()).collect()
    }

    fn command(&mut self, command: Command) {
        self.next_id += 1;
        self.give(Input::Command { id: self.next_id, command });
    }

    fn find(&mut self, zone: Option<&str>) {
        let query = Query { zone: zone.map(|it| it.parse().unwrap()), ..Query::default() };
        self.command(Command::Find(Find { query, limit: 100, ..Find::default() }));
    }

    /// What it asks others since this was last called.
    fn sent(&mut self) -> Vec<Sent> {
        let asked = |output| match output {
            Output::Request { conversation, peer, protocol: Protocol::Ask, bytes } => {
                Some(Sent { conversation, question: Question::decode(&bytes).unwrap(), to: peer })
            }
            _ => None,
        };
        self.outputs().into_iter().filter_map(asked).collect()
    }

    /// Answers; what comes of it: a reply, and whether somebody is blamed.
    fn answer(&mut self, sent: &Sent, bytes: Vec<u8>) -> (Option<Reply>, Vec<Sent>, bool) {
        self.give(Input::Response { conversation: sent.conversation, bytes });
        let (mut reply, mut more, mut is_blamed) = (None, Vec::new(), false);
        for output in self.outputs() {
            match output {
                Output::Reply { reply: it, .. } => reply = Some(it),
                Output::Penalize { peer, offence: Offence::Answer } if peer == sent.to => is_blamed = true,
                Output::Request { conversation, peer, protocol: Protocol::Ask, bytes } => {
                    let question = Question::decode(&bytes).unwrap();
                    more.push(Sent { conversation, question, to: peer });
                }
                _ => {}
            }
        }
        (reply, more, is_blamed)
    }
}

fn zone(text: &str) -> ZoneName {
    text.parse().unwrap()
}

fn record_in(of: &str, agent: &str) -> (AgentId, Vec<u8>) {
    let header = Header { zone: zone(of), ..header(7, agent, NOW) };
    let record = signed(header, &body("text"), 7);
    let name = FullName { agent: agent.parse().unwrap(), zone: zone(of) };
    (AgentId::of(key(7), &name), record.bytes().to_vec())
}

fn found(records: Vec<Vec<u8>>, cover: Cover) -> Answer {
    Answer::Found {
        records: records.into_iter().map(ByteBuf::from).collect(),
        more: false,
        cover,
        alive: Vec::new(),
        proofs: Vec::new(),
    }
}

fn fine(zones: u32) -> Cover {
    Cover { fine: zones, age_ms: 1_000, ..Cover::default() }
}

fn names(reply: &Option<Reply>) -> (Vec<String>, bool) {
    match reply {
        Some(Reply::Found(answer)) => {
            let names = answer.found.iter().map(|found| found.record.name.to_string()).collect();
            (names, answer.is_complete())
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_answer_of_which_anything_is_not_what_it_claims_to_be_is_refused_whole() {
    let good = record_in("other.net", "good").1;
    let mut torn = record_in("other.net", "torn").1;
    *torn.last_mut().unwrap() ^= 1;
    let sibling = record_in("sibling.net", "sibling").1;
    let named = Answer::Named {
        records: Vec::new(),
        zones: vec![Knowledge::Whole],
        gateways: Vec::new(),
        hosts: Vec::new(),
        alive: Vec::new(),
        proofs: Vec::new(),
    };
    let bad = [
        b"garbage".to_vec(),
        found(vec![good.clone(), torn], fine(2)).encode(),
        found(vec![good.clone(), sibling], fine(2)).encode(),
        named.encode(),
    ];
    for bytes in bad {
        let mut asker = Asker::new();
        asker.find(Some("other.net"));
        let [sent] = asker.sent().try_into().ok().unwrap();
        let (reply, _, is_blamed) = asker.answer(&sent, bytes);
        assert!(is_blamed, "whoever sent it");
        assert_eq!(names(&reply), (Vec::new(), false));
        // Nothing of it is kept for who asks again.
        asker.find(Some("other.net"));
        let [again] = asker.sent().try_into().ok().unwrap();
        let (reply, _, is_blamed) =
            asker.answer(&again, found(vec![good.clone(), b"of a later form".to_vec()], fine(1)).encode());
        assert!(!is_blamed);
        assert_eq!(names(&reply), (vec!["good@other.net".into()], true));
    }
}

#[test]
fn what_has_ended_since_is_shown_no_more_though_it_was_answered() {
    let mut asker = Asker::new();
    let header = Header {
        zone: zone("other.net"),
        expires_at: NOW + Duration::from_secs(3),
        ..header(7, "brief", NOW)
    };
    let brief = signed(header, &body("text"), 7).bytes().to_vec();
    let ask = |asker: &mut Asker| {
        let query = Query { zone: Some(zone("other.net")), ..Query::default() };
        let max_age = Duration::from_secs(60);
        asker.command(Command::Find(Find { query, limit: 100, max_age, ..Find::default() }));
    };
    ask(&mut asker);
    let [sent] = asker.sent().try_into().ok().unwrap();
    let (reply, ..) = asker.answer(&sent, found(vec![brief], fine(1)).encode());
    assert_eq!(names(&reply).0, ["brief@other.net"]);
    asker.now = NOW + Duration::from_secs(4);
    ask(&mut asker);
    let outputs = asker.outputs();
    let reply = outputs.into_iter().find_map(|output| match output {
        Output::Reply { reply, .. } => Some(reply),
        _ => None,
    });
    assert_eq!(names(&reply), (Vec::new(), true), "it was answered from what was kept");
}

#[test]
fn who_holds_a_zone_and_not_what_may_lie_below_asks_others_whom_it_is_referred_to() {
    let mut asker = Asker::new();
    asker.find(None);
    let [sent] = asker.sent().try_into().ok().unwrap();
    let gateways = vec![Contact { peer: key(20), addresses: Vec::new() }];
    let refer = vec![Referral { zone: zone("home.net"), gateways }];
    let told = Cover { refer, rest: vec![(zone("home.net"), None)], ..fine(1) };
    let (reply, more, _) = asker.answer(&sent, found(Vec::new(), told).encode());
    assert!(reply.is_none());
    let [below] = more.try_into().ok().unwrap();
    assert!(matches!(&below.question, Question::Find(search) if search.zone == zone("home.net")));
    assert_eq!(below.to, key(20));
    let (reply, ..) = asker.answer(&below, found(vec![record_in("x.home.net", "deep").1], fine(2)).encode());
    assert_eq!(names(&reply).0, ["deep@x.home.net"]);
}

#[test]
fn who_holds_a_zone_whole_still_needs_somebody_who_speaks_for_what_lies_below() {
    let ask = |told: Cover| {
        let mut asker = Asker::new();
        // Alone in its zone for so long, among others: it holds all of it.
        asker.now = NOW + Duration::from_secs(60);
        asker.find(Some("home.net"));
        let [sent] = asker.sent().try_into().ok().unwrap();
        let (Some(Reply::Found(answer)), ..) = asker.answer(&sent, found(Vec::new(), told).encode()) else {
            panic!("no answer")
        };
        let own = answer.zones.iter().find(|it| it.zone == zone("home.net") && it.by.is_none());
        assert_eq!(own.map(|it| it.status), Some(ZoneStatus::Held));
        answer.is_complete()
    };
    let unknown = |of: &str| vec![(zone(of), None)];
    assert!(ask(fine(1)));
    assert!(ask(Cover { rest: unknown("other.net"), ..fine(1) }), "that lies beside it");
    // A stranger, a member that nobody told what lies below, and a gateway that cannot name all of it.
    assert!(!ask(Cover { rest: unknown("home.net"), ..fine(0) }));
    assert!(!ask(Cover { rest: unknown("home.net"), ..fine(1) }));
    assert!(!ask(Cover { rest: unknown("."), ..fine(1) }));
    assert!(!ask(Cover { more: 3, ..fine(1) }));
}

#[test]
fn whom_an_asker_is_referred_to_is_asked_within_the_scope_and_so_often_at_most() {
    let refer = |zones: &[String]| {
        let contact = |number: u8| Contact { peer: key(usize::from(number)), addresses: Vec::new() };
        let gateways: Vec<Contact> = (20..23).map(contact).collect();
        let refer = zones.iter().map(|it| Referral { zone: zone(it), gateways: gateways.clone() }).collect();
        let rest = zones.iter().map(|it| (zone(it), None)).collect();
        Cover { refer, rest, ..fine(1) }
    };
    // Two of each of two zones; what lies outside of what was asked for is none of it.
    let mut asker = Asker::new();
    asker.find(Some("net"));
    let [sent] = asker.sent().try_into().ok().unwrap();
    let told = refer(&["a.net".into(), "b.net".into(), "x.org".into()]);
    let (reply, more, _) = asker.answer(&sent, found(Vec::new(), told).encode());
    assert!(reply.is_none());
    let asked: Vec<ZoneName> = more
        .iter()
        .map(|sent| match &sent.question {
            Question::Find(search) => search.zone.clone(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(asked, ["a.net", "a.net", "b.net", "b.net"].map(zone));
    // One of a.net answers, nobody of b.net: that is still missing.
    let a = found(vec![record_in("a.net", "one").1], fine(1)).encode();
    assert!(asker.answer(&more[0], a).0.is_none(), "others are waited for");
    for sent in &more[1..3] {
        asker.give(Input::RequestFailed { conversation: sent.conversation });
    }
    let (reply, ..) = asker.answer(&more[3], Answer::Refused.encode());
    let Some(Reply::Found(answer)) = &reply else { panic!("{reply:?}") };
    let status = |name: &str| answer.zones.iter().find(|it| it.zone == zone(name)).map(|it| it.status);
    assert_eq!(answer.found.len(), 1);
    assert_eq!(status("a.net"), Some(ZoneStatus::Answered));
    assert_eq!(status("b.net"), Some(ZoneStatus::Unreachable));
    assert!(!answer.is_complete());
    // Of more than there is room for some are not asked, and named.
    let mut asker = Asker::new();
    asker.find(None);
    let [sent] = asker.sent().try_into().ok().unwrap();
    let many: Vec<String> = (0..32).map(|number| format!("z{number}.org")).collect();
    let (_, more, _) = asker.answer(&sent, found(Vec::new(), refer(&many)).encode());
    assert_eq!(more.len(), REFERRED_ASKS_MAX);
}

#[test]
fn who_is_asked_for_names_or_an_agent_speaks_of_those_alone() {
    let (id, good) = record_in("other.net", "good");
    let (_, another) = record_in("other.net", "another");
    let named = |records: Vec<Vec<u8>>| Answer::Named {
        records: records.into_iter().map(ByteBuf::from).collect(),
        zones: vec![Knowledge::Whole],
        gateways: Vec::new(),
        hosts: Vec::new(),
        alive: Vec::new(),
        proofs: Vec::new(),
    };
    for text in ["good@other.net".to_owned(), id.to_string()] {
        for (records, is_right) in [(vec![good.clone()], true), (vec![good.clone(), another.clone()], false)]
        {
            let mut asker = Asker::new();
            asker.command(Command::Resolve(text.clone()));
            let [sent] = asker.sent().try_into().ok().unwrap();
            let (reply, _, is_blamed) = asker.answer(&sent, named(records).encode());
            assert_eq!(is_blamed, !is_right);
            let is_known = matches!(&reply, Some(Reply::Resolved(Resolution::One(found))) if found.id == id);
            assert_eq!(is_known, is_right, "{text}: {reply:?}");
        }
    }
}

#[test]
fn equal_questions_under_way_are_one_and_each_is_answered() {
    let mut asker = Asker::new();
    for text in ["whales and ships", "Whales  AND ships", "whales", "find whales and ships"] {
        let query = Query { text: text.into(), ..Query::default() };
        asker.command(Command::Find(Find { query, limit: 10, ..Find::default() }));
    }
    let sent = asker.sent();
    assert_eq!(sent.len(), 2, "two questions were meant");
    asker.give(Input::Response {
        conversation: sent[0].conversation,
        bytes: found(vec![record_in("other.net", "good").1], fine(1)).encode(),
    });
    let replies = asker.outputs().into_iter().filter(|output| matches!(output, Output::Reply { .. }));
    assert_eq!(replies.count(), 3);
}

/// Of a zone with a key, signed on behalf of whoever a grant of it names.
fn granted_record(of: &str, by: &Identity, agent: &str) -> Vec<u8> {
    let grant = grant(by, key(7), zone(of), RecordKind::Agent).sign(by);
    let header =
        Header { zone: zone(of), slot: 0, grants: vec![ByteBuf::from(grant)], ..header(7, agent, NOW) };
    signed(header, &body("text"), 7).bytes().to_vec()
}

/// A delegation of a zone with a key in one above, for which another key vouches.
fn proof(of: &str, its: &Identity, found_in: &str, by: &Identity) -> Vec<u8> {
    let first = grant(by, its.key(), zone(of), RecordKind::Delegation).sign(by);
    let second = grant(its, key(8), zone(of), RecordKind::Delegation).sign(its);
    let body = Delegation { zone: zone(of), addresses: Vec::new() };
    let header = Header {
        zone: zone(found_in),
        kind: RecordKind::Delegation,
        name: zone(of).delegated_in(&zone(found_in)).unwrap(),
        owner: its.key(),
        seq: 0,
        expires_at: NOW + DELEGATION_LIFE,
        slot: 0,
        grants: vec![ByteBuf::from(first), ByteBuf::from(second)],
        ..header(8, "a", NOW)
    };
    signed(header, &codec::encode(&body), 8).bytes().to_vec()
}

#[test]
fn below_a_zone_whose_key_is_known_only_what_that_key_vouches_for_is_shown() {
    let [acme, research, lab, stranger] = [99, 98, 97, 96].map(|seed| Identity::from_seed([seed; 32]));
    let anchored = || Config { zone_keys: [(zone("acme.org"), acme.key())].into(), ..Config::default() };
    let told = |config: Config, records: Vec<Vec<u8>>, proofs: Vec<Vec<u8>>| {
        let mut asker = Asker::with(config);
        asker.find(Some("acme.org"));
        let [sent] = asker.sent().try_into().ok().unwrap();
        let mut answer = found(records, fine(2));
        if let Answer::Found { proofs: of, .. } = &mut answer {
            *of = proofs.into_iter().map(ByteBuf::from).collect();
        }
        let (reply, _, is_blamed) = asker.answer(&sent, answer.encode());
        (names(&reply).0, is_blamed)
    };
    let of_research = granted_record("research.acme.org", &research, "good");
    let good = || vec![of_research.clone()];
    let right = proof("research.acme.org", &research, "acme.org", &acme);
    let shown = (vec!["good@research.acme.org".to_owned()], false);
    assert_eq!(told(Config::default(), good(), Vec::new()), shown, "who named no key has nothing to go by");
    assert_eq!(told(anchored(), good(), vec![right.clone()]), shown);
    let nothing = (Vec::new(), false);
    assert_eq!(told(anchored(), good(), Vec::new()), nothing);
    let wrong = proof("research.acme.org", &research, "acme.org", &stranger);
    assert_eq!(told(anchored(), good(), vec![wrong]), nothing, "another key vouches");
    // A claim at the root counts with the key's word alone, too.
    let at_root = |by: &Identity| proof("research.acme.org", &research, ".", by);
    assert_eq!(told(anchored(), good(), vec![at_root(&acme)]), shown);
    assert_eq!(told(anchored(), good(), vec![at_root(&stranger)]), nothing);
    for other in [record_in("research.acme.org", "open").1, granted_record("acme.org", &stranger, "own")] {
        assert_eq!(told(anchored(), vec![other], vec![right.clone()]), nothing);
    }
    // Two steps: a department vouches for its laboratory.
    let of_lab = granted_record("lab.research.acme.org", &lab, "deep");
    let step = proof("lab.research.acme.org", &lab, "research.acme.org", &research);
    let deep = (vec!["deep@lab.research.acme.org".to_owned()], false);
    assert_eq!(told(anchored(), vec![of_lab.clone()], vec![step.clone(), right]), deep);
    assert_eq!(told(anchored(), vec![of_lab], vec![step]), nothing);
    let mut torn = at_root(&acme);
    *torn.last_mut().unwrap() ^= 1;
    assert!(told(anchored(), good(), vec![torn]).1, "what is no delegation is nobody's word");
}

#[test]
fn a_page_ends_where_an_answer_was_cut() {
    let mut asker = Asker::new();
    let offers = ["a-own", "z-own"].map(|agent| offer(agent, "text"));
    asker.command(Command::Register(offers.to_vec()));
    asker.outputs();
    asker.find(None);
    let [sent] = asker.sent().try_into().ok().unwrap();
    let mut answer = found(vec![record_in("other.net", "m").1], fine(2));
    if let Answer::Found { more, .. } = &mut answer {
        *more = true;
    }
    let (reply, ..) = asker.answer(&sent, answer.encode());
    let Some(Reply::Found(answer)) = &reply else { panic!("{reply:?}") };
    let shown: Vec<String> = answer.found.iter().map(|found| found.record.name.to_string()).collect();
    assert_eq!(shown, ["a-own@home.net", "m@other.net"], "n@other.net may come before what is held here");
    assert!(answer.next.is_some());
}

#[test]
fn the_hosts_of_an_agent_that_is_called_are_dialed_where_others_say_that_they_are() {
    let host = Contact { peer: key(7), addresses: vec![ByteBuf::from(b"there".to_vec())] };
    let stranger = Contact { peer: key(9), ..host.clone() };
    let answer = Answer::Named {
        records: vec![ByteBuf::from(record_in("other.net", "good").1)],
        zones: vec![Knowledge::Lately],
        gateways: Vec::new(),
        hosts: vec![stranger, host.clone()],
        alive: Vec::new(),
        proofs: Vec::new(),
    };
    for (command, is_call) in [
        (Command::Resolve as fn(String) -> Command, false),
        (Command::ResolveForCall as fn(String) -> Command, true),
    ] {
        let mut asker = Asker::new();
        asker.command(command("good@other.net".into()));
        let [sent] = asker.sent().try_into().ok().unwrap();
        asker.give(Input::Response { conversation: sent.conversation, bytes: answer.encode() });
        let outputs = asker.outputs();
        let reached = outputs.iter().filter_map(|output| match output {
            Output::Reach(contact) => Some(contact.clone()),
            _ => None,
        });
        assert_eq!(reached.collect::<Vec<_>>(), if is_call { vec![host.clone()] } else { Vec::new() });
        assert!(matches!(outputs.last(), Some(Output::Reply { .. })), "it is dialed before it is called");
    }
}

#[test]
fn whoever_knows_no_answer_and_names_others_is_passed_by_once() {
    let mut asker = Asker::new();
    asker.find(None);
    let [sent] = asker.sent().try_into().ok().unwrap();
    let elsewhere =
        |to: usize| Answer::Elsewhere { gateways: vec![Contact { peer: key(to), addresses: Vec::new() }] };
    let (reply, mut more, _) = asker.answer(&sent, elsewhere(20).encode());
    assert!(reply.is_none());
    for to in [21, 22] {
        let [next] = more.try_into().ok().unwrap();
        let (reply, after, _) = asker.answer(&next, elsewhere(to).encode());
        more = after;
        if to == 22 {
            assert_eq!((names(&reply), more.len()), ((Vec::new(), false), 0));
            return;
        }
    }
}
