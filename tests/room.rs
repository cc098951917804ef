//! What a full zone costs in memory: a node that holds a zone of a sixteenth of the greatest weight, with registry, tables
//! and index, counted byte by byte. Alone in its process, so that nothing else allocates meanwhile.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::{Arc, Mutex};

use aop::proto::card::{AgentCard, Scope};
use aop::proto::codec;
use aop::proto::config::Config;
use aop::proto::identity::Identity;
use aop::proto::io::{Command, Input};
use aop::proto::limits::{CARD_LIFE, SLOTS, TOMBSTONE_LIFE, ZONE_WEIGHT_MAX};
use aop::proto::name::{AgentName, ZoneName};
use aop::proto::node::Node;
use aop::proto::persistence::Stored;
use aop::proto::query::Find;
use aop::proto::record::{Author, Header, Record, RecordKind, SignedRecord};
use aop::proto::search::{Entry, Index, Query};
use aop::proto::time::{Stamp, Timestamp};
use peak_alloc::PeakAlloc;
use serde_bytes::ByteBuf;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;
/// Held by the test that counts.
static ALONE: Mutex<()> = Mutex::new(());

const NOW: Timestamp = Timestamp(1_700_000_000_000);
/// What the zones of this test weigh: enough for what every node has to be nothing beside it, and signed in seconds.
const WEIGHT: usize = ZONE_WEIGHT_MAX / 16;
/// Most bytes of memory for a byte of weight.
const TIMES_MAX: f64 = 1.5;
/// What an index may take more after its texts were exchanged: a quarter of what is left, and the words it met last.
const EXCHANGED_TIMES_MAX: f64 = 1.25;
const EXCHANGED_BYTES: usize = 512 * 1024;
/// Records of one identity where a zone has few of them.
const OF_ONE_HOST: u64 = 5_000;

/// Records of one kind, as many as there is room for.
struct Fill {
    what: &'static str,
    /// Records that one identity writes.
    of_one_host: u64,
    shape: Shape,
}

/// What is made of a header, or of a number.
enum Shape {
    Record(fn(Header) -> (Header, Vec<u8>)),
    Card(fn(u64) -> AgentCard),
}

/// The longest label that begins with a number.
fn long(at: u64) -> AgentName {
    format!("{at:x<63}").parse().unwrap()
}

fn buried(header: Header) -> Header {
    Header { expires_at: NOW + TOMBSTONE_LIFE, ..header }
}

fn tombstone(header: Header) -> (Header, Vec<u8>) {
    (buried(header), Vec::new())
}

/// As many bytes as a tombstone can have without grants.
fn long_tombstone(header: Header) -> (Header, Vec<u8>) {
    let (kind, name) = (RecordKind::Unknown(long(0)), long(header.seq));
    (Header { kind, name, ..buried(header) }, Vec::new())
}

/// Grants are not looked at here: what they say costs nobody memory.
fn tombstone_with_grants(header: Header) -> (Header, Vec<u8>) {
    let grants = vec![ByteBuf::from(vec![7; 275]); 6];
    (Header { grants, ..buried(header) }, Vec::new())
}

fn other_record(header: Header) -> (Header, Vec<u8>) {
    (Header { kind: RecordKind::Unknown(long(0)), name: long(header.seq), ..header }, vec![0])
}

fn revocation(header: Header) -> (Header, Vec<u8>) {
    (Header { kind: RecordKind::Revocation, ..header }, vec![0])
}

fn named_card(header: Header) -> (Header, Vec<u8>) {
    let name = short_words(header.seq * 12, 12).trim_end().replace(' ', "-");
    (Header { name: name.parse().unwrap(), ..header }, codec::encode(&small_card(0)))
}

fn zoned(header: Header) -> Header {
    let zone = vec!["a".repeat(61); 4].join(".") + ".org";
    Header { zone: zone.parse().unwrap(), ..header }
}

fn card_of_a_long_zone(header: Header) -> (Header, Vec<u8>) {
    let body = codec::encode(&small_card(header.seq));
    (zoned(header), body)
}

fn long_named_card_of_a_long_zone(header: Header) -> (Header, Vec<u8>) {
    named_card(zoned(header))
}

fn small_card(at: u64) -> AgentCard {
    AgentCard { tags: vec![format!("tag{}", at % 60)], ..AgentCard::default() }
}

fn usual_card(at: u64) -> AgentCard {
    // Words of a small vocabulary, as prose has them: the schema is not searched.
    let word = |nth: u64| format!("word{} ", (nth * nth + at * 31) % 5_000);
    let input_schema = Some("x".repeat(1_280));
    AgentCard { description: (0..32).map(word).collect(), input_schema, ..small_card(at) }
}

fn large_card(_: u64) -> AgentCard {
    AgentCard { original: Some("x".repeat(47 * 1024)), ..AgentCard::default() }
}

/// Word `at` of those of four letters or digits, of which there are as many as a zone has room for; near ones are nothing like
/// each other.
fn short(at: u64) -> String {
    let mixed = at.wrapping_mul(1_000_003) % 36_u64.pow(4);
    let digit = |place: u32| char::from_digit((mixed / 36_u64.pow(place) % 36) as u32, 36).unwrap();
    (0..4).map(digit).collect()
}

fn short_words(first: u64, count: u64) -> String {
    (first..first + count).map(|at| short(at) + " ").collect()
}

/// Word `at` of those of one letter or digit, then of those of two.
fn shortest(at: u64) -> String {
    let digit = |at: u64| char::from_digit((at % 36) as u32, 36).unwrap();
    (at / 36).checked_sub(1).map(digit).into_iter().chain([digit(at)]).collect()
}

fn letter(first: u32, count: u64, at: u64) -> char {
    char::from_u32(first + (at % count) as u32).unwrap()
}

fn described(description: String) -> AgentCard {
    AgentCard { description, ..AgentCard::default() }
}

fn labelled(label: impl Fn(u64) -> String) -> AgentCard {
    let (tags, capabilities) = ((0..64).map(&label).collect(), (64..128).map(&label).collect());
    AgentCard { tags, capabilities, ..AgentCard::default() }
}

fn own_words(at: u64) -> AgentCard {
    described(short_words(at * 816, 816))
}

fn own_words_in_order(at: u64) -> AgentCard {
    described((at * 680..at * 680 + 680).map(|at| format!("{at:05x} ")).collect())
}

fn words_of_two(at: u64) -> AgentCard {
    own_words(at / 2)
}

fn words_of_three(at: u64) -> AgentCard {
    own_words(at / 3)
}

fn words_of_ten(at: u64) -> AgentCard {
    own_words(at / 10)
}

fn shortest_words(_: u64) -> AgentCard {
    described((0..36 * 37).map(|at| shortest(at) + " ").collect())
}

fn han(at: u64) -> AgentCard {
    described((at * 1_365..at * 1_365 + 1_365).map(|at| letter(0x4e00, 20_900, at)).collect())
}

fn rare_letters(at: u64) -> AgentCard {
    described((at * 1_024..at * 1_024 + 1_024).map(|at| letter(0x2_0000, 42_700, at)).collect())
}

fn hangul(at: u64) -> AgentCard {
    let syllable = |at: u64| letter(0xac00, 11_172, at);
    let word = |at: u64| [syllable(at), syllable(at / 11_172 + at * 7), ' '];
    described((at * 585..at * 585 + 585).flat_map(word).collect())
}

fn long_words(at: u64) -> AgentCard {
    described((at * 62..at * 62 + 62).map(|at| format!("{}{:x>60} ", short(at), "")).collect())
}

/// Words of four letters or digits of which two or three stand together, told apart by capitals alone.
fn camel_words(at: u64) -> AgentCard {
    let word = |at: u64| {
        let word = short(at);
        let end = if at.is_multiple_of(3) { " " } else { "" };
        word[..1].to_uppercase() + &word[1..] + end
    };
    described((at * 900..at * 900 + 900).map(word).collect())
}

fn skill_words(at: u64) -> AgentCard {
    AgentCard { skills: Some(short_words(at * 816, 816)), ..AgentCard::default() }
}

fn thai(at: u64) -> AgentCard {
    let mixed = |at: u64| at.wrapping_mul(1_000_003) / 46;
    described((at * 1_365..at * 1_365 + 1_365).map(|at| letter(0xe01, 46, mixed(at))).collect())
}

fn titles(at: u64) -> AgentCard {
    let words = |from: u64| Some(short_words(at * 408 + from, 204));
    AgentCard { title: words(0), original_name: words(204), ..AgentCard::default() }
}

fn everything(at: u64) -> AgentCard {
    let labels = labelled(|label| short(at * 1_352 + 1_224 + label));
    let AgentCard { tags, capabilities, .. } = labels;
    let titles = titles(at * 3);
    AgentCard {
        tags,
        capabilities,
        ..AgentCard { description: short_words(at * 1_352 + 408, 816), ..titles }
    }
}

fn own_labels(at: u64) -> AgentCard {
    labelled(|label| short(at * 128 + label))
}

fn one_own_label(at: u64) -> AgentCard {
    AgentCard { tags: vec![short(at)], ..AgentCard::default() }
}

fn own_residency(at: u64) -> AgentCard {
    AgentCard { residency: Some(short(at)), ..AgentCard::default() }
}

fn labels_of_two(at: u64) -> AgentCard {
    own_labels(at / 2)
}

fn labels_of_seventy(at: u64) -> AgentCard {
    own_labels(at / 70)
}

fn labels_of_letters(at: u64) -> AgentCard {
    labelled(|label| letter(0x2_0000, 42_700, at * 128 + label).to_string())
}

fn shortest_labels(_: u64) -> AgentCard {
    labelled(shortest)
}

fn long_labels(at: u64) -> AgentCard {
    labelled(|label| short(at * 128 + label) + &" xyz".repeat(31))
}

fn labels_that_unfold(at: u64) -> AgentCard {
    labelled(|label| short(at * 128 + label) + &"\u{fdfa}".repeat(41))
}

fn labels_of_own_words(at: u64) -> AgentCard {
    labelled(|label| short_words((at * 128 + label) * 25, 25))
}

fn signed(host: &Identity, number: u64, shape: &Shape) -> Arc<Record> {
    let header = Header {
        network: "world".into(),
        zone: ZoneName::root(),
        kind: RecordKind::Agent,
        name: format!("a{number}").parse().unwrap(),
        owner: host.key(),
        host: host.key(),
        author: Author { key: host.key(), epoch: 1 },
        seq: number + 1,
        stamp: Stamp { wall: NOW, counter: 0 },
        generation: 0,
        expires_at: NOW + CARD_LIFE,
        scope: Scope::Public,
        slot: (number % u64::from(SLOTS)) as u16,
        grants: Vec::new(),
    };
    let (header, body) = match shape {
        Shape::Record(record) => record(header),
        Shape::Card(card) => (header, codec::encode(&card(number))),
    };
    SignedRecord::sign(header, &body, host).unwrap().trust_sealed()
}

fn host(number: u64) -> Identity {
    let mut seed = [7; 32];
    seed[..8].copy_from_slice(&number.to_le_bytes());
    Identity::from_seed(seed)
}

/// As many records as there is room for.
fn full(fill: &Fill) -> Vec<Arc<Record>> {
    let (mut records, mut weight) = (Vec::new(), 0);
    let mut writer = host(0);
    for number in 0.. {
        if number % fill.of_one_host == 0 {
            writer = host(number);
        }
        let record = signed(&writer, number, &fill.shape);
        weight += record.weight();
        if weight > WEIGHT {
            break;
        }
        records.push(record);
    }
    records
}

/// Memory of a node that holds such records and was asked for them, and what they weigh, how many they are, their bytes.
fn measure(fill: &Fill) -> (usize, usize, usize, usize) {
    let before = ALLOCATOR.current_usage();
    let stored = Stored { others: full(fill), ..Stored::default() };
    let count = stored.others.len();
    let weight = stored.others.iter().map(|record| record.weight()).sum();
    let bytes = stored.others.iter().map(|record| record.bytes().len()).sum();
    let zone = stored.others[0].name.zone.clone();
    let config = Config { network: "world".into(), zones: vec![zone], ..Config::default() };
    let mut node = Node::new(Identity::from_seed([1; 32]), config, [3; 32], stored, NOW);
    let query = Query { text: "word1".into(), ..Query::default() };
    let command = Command::Find(Find { query, limit: 1, local: true, ..Find::default() });
    node.handle(NOW, Input::Command { id: 1, command });
    while node.poll_output().is_some() {}
    let memory = ALLOCATOR.current_usage() - before;
    drop(node);
    (memory, weight, count, bytes)
}

fn fills() -> Vec<Fill> {
    let record = |what, of_one_host, record| Fill { what, of_one_host, shape: Shape::Record(record) };
    let card = |what, card| Fill { what, of_one_host: OF_ONE_HOST, shape: Shape::Card(card) };
    vec![
        record("smallest tombstones", OF_ONE_HOST, tombstone),
        record("smallest tombstones, one of a host", 1, tombstone),
        record("longest tombstones without grants, one of a host", 1, long_tombstone),
        record("tombstones of 2 KiB, one of a host", 1, tombstone_with_grants),
        record("records of an unknown kind, one of a host", 1, other_record),
        record("revocations, one of a host", 1, revocation),
        card("smallest cards", small_card),
        Fill { of_one_host: 1, ..card("smallest cards, one of a host", small_card) },
        record("smallest cards in a long zone, one of a host", 1, card_of_a_long_zone),
        record("small cards named by many words, one of a host", 1, named_card),
        record("such cards in a long zone, one of a host", 1, long_named_card_of_a_long_zone),
        card("cards of 2 KiB", usual_card),
        card("records of 48 KiB", large_card),
        card("cards of their own words", own_words),
        card("cards of their own words in order", own_words_in_order),
        card("cards of words of two", words_of_two),
        card("cards of words of three", words_of_three),
        card("cards of words of ten", words_of_ten),
        card("cards of the shortest words", shortest_words),
        card("cards of Han", han),
        card("cards of rare letters", rare_letters),
        card("cards of Hangul", hangul),
        card("cards of Thai", thai),
        card("cards of words in camelCase", camel_words),
        card("cards of the words of skills", skill_words),
        card("cards of long words", long_words),
        card("cards of titles", titles),
        card("cards of everything", everything),
        card("cards of their own labels", own_labels),
        card("cards of one label of their own", one_own_label),
        card("cards of their own residency", own_residency),
        card("cards of labels of two", labels_of_two),
        card("cards of labels of seventy", labels_of_seventy),
        card("cards of labels of one letter", labels_of_letters),
        card("cards of the shortest labels", shortest_labels),
        card("cards of long labels", long_labels),
        card("cards of labels that unfold", labels_that_unfold),
        card("cards of labels of own words", labels_of_own_words),
    ]
}

#[test]
#[cfg_attr(
    debug_assertions,
    ignore = "signs and indexes for minutes without optimisation; CI runs it with it"
)]
fn a_full_zone_takes_no_more_memory_than_the_operators_are_told() {
    let _alone = ALONE.lock().unwrap();
    let mut beyond = Vec::new();
    for fill in fills() {
        let (memory, weight, count, bytes) = measure(&fill);
        let times = memory as f64 / weight as f64;
        let (bytes, each) = (bytes / count, memory / count);
        println!(
            "{}: {count} of {bytes} bytes, {each} bytes of memory each, {times:.2} of the weight",
            fill.what
        );
        if times > TIMES_MAX {
            beyond.push((fill.what, times));
        }
    }
    assert!(beyond.is_empty(), "{beyond:?}");
}

/// Memory of an index that held the first cards, then the second ones.
fn index_of(first: &[(Arc<Record>, AgentCard)], then: &[(Arc<Record>, AgentCard)]) -> usize {
    let before = ALLOCATOR.current_usage();
    let mut index = Index::new();
    for (record, card) in first.iter().chain(then) {
        index.insert(Entry {
            id: record.agent_id(),
            name: &record.name,
            title: card.title.as_deref(),
            original_name: card.original_name.as_deref(),
            tags: &card.tags,
            capabilities: &card.capabilities,
            residency: card.residency.as_deref(),
            description: &card.description,
            skills: card.skills.as_deref(),
        });
    }
    ALLOCATOR.current_usage() - before
}

#[test]
#[cfg_attr(debug_assertions, ignore = "indexes for minutes without optimisation; CI runs it with it")]
fn an_index_whose_texts_were_exchanged_takes_little_more_than_a_new_one() {
    let _alone = ALONE.lock().unwrap();
    for (what, card) in [
        ("own words", own_words as fn(u64) -> AgentCard),
        ("words of two", words_of_two),
        ("labels", own_labels),
        ("labels of two", labels_of_two),
    ] {
        let fill = Fill { what, of_one_host: OF_ONE_HOST, shape: Shape::Card(card) };
        let first: Vec<_> =
            full(&fill).into_iter().map(|record| (record.clone(), record.card().unwrap())).collect();
        // What is made once in a process is no part of an index.
        index_of(&first, &[]);
        // All others, then but every second one.
        for left in [0, 2] {
            let plain = |at: usize, card: &AgentCard| match at % 2 + 1 == left {
                true => card.clone(),
                false => small_card(0),
            };
            let then: Vec<_> = first
                .iter()
                .enumerate()
                .map(|(at, (record, card))| (record.clone(), plain(at, card)))
                .collect();
            let (exchanged, fresh) = (index_of(&first, &then), index_of(&[], &then));
            println!("{what}: {exchanged} bytes, {fresh} if new");
            let most = fresh as f64 * EXCHANGED_TIMES_MAX + EXCHANGED_BYTES as f64;
            assert!(exchanged as f64 <= most, "{what}: {exchanged} bytes instead of {fresh}");
        }
    }
}
