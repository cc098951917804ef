//! Hostile bytes never cost more memory than a small multiple of themselves. One test alone in its process, so that
//! nothing else allocates meanwhile.

use aop::proto::message::{Beacon, Envelope, SyncAnswer, SyncFrame};
use aop::proto::record::SignedRecord;
use aop::proto::time::Timestamp;
use peak_alloc::PeakAlloc;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// What decoding may cost beyond its input, in multiples of the input and in bytes.
const TIMES_MAX: usize = 8;
const EXTRA_BYTES_MAX: usize = 64 * 1024;
/// Size of a hostile value: enough for the multiple to outweigh the fixed part, and small enough for a quick test.
const ROOM_BYTES: usize = 20_000;

fn head(major: u8, length: u64) -> Vec<u8> {
    [&[major << 5 | 27][..], &length.to_be_bytes()].concat()
}

fn text(text: &str) -> Vec<u8> {
    [&[0x60 | text.len() as u8][..], text.as_bytes()].concat()
}

fn object(pairs: &[(&str, &[u8])]) -> Vec<u8> {
    let count = pairs.len();
    let pairs: Vec<u8> = pairs.iter().flat_map(|(key, value)| [text(key), value.to_vec()].concat()).collect();
    [vec![0xa0 | count as u8], pairs].concat()
}

/// Values that are small on the wire and large in memory, each close to `room` bytes.
fn hostile(room: usize) -> Vec<Vec<u8>> {
    let mut values = Vec::new();
    for major in [2, 3, 4, 5] {
        for length in [1u64 << 12, 1 << 20, 1 << 40, u64::MAX] {
            values.push(head(major, length));
            values.push([head(major, length), vec![0x40; room / 2]].concat());
        }
    }
    for element in
        [&[0x00][..], &[0x40], &[0x60], &[0x80], &[0xa0], &[0xf6], &[0x61, 0x01], &[0x82, 0x03, 0x00]]
    {
        let count = room / element.len();
        values.push([head(4, count as u64), element.repeat(count)].concat());
        values.push([&[0x9f][..], &element.repeat(count), &[0xff]].concat());
        values.push([head(4, 1), head(4, count as u64), element.repeat(count)].concat());
        let pairs = count / 2;
        values.push([head(5, pairs as u64), element.repeat(pairs * 2)].concat());
    }
    for nesting in [&[0x81][..], &[0x9f], &[0xa1, 0x00], &[0xd8, 0x20], &[0x5f], &[0x7f], &[0xbf, 0x61, 0x61]]
    {
        values.push(nesting.repeat(room / nesting.len()));
    }
    for byte in [b'a', 0x01, 0x7f, b'"'] {
        values.push([head(3, room as u64), vec![byte; room]].concat());
        values.push([head(2, room as u64), vec![byte; room]].concat());
        let name = vec![byte; room];
        values.push([head(5, 1), head(3, room as u64), name, vec![0x00]].concat());
    }
    let wide: Vec<u8> = (0..room as u32 / 7)
        .flat_map(|at| [&[0x65][..], &format!("{at:05x}").as_bytes()[..5], &[0]].concat())
        .collect();
    values.push([head(5, u64::from(room as u32 / 7)), wide].concat());
    values
}

/// The lists of messages: a variant and its field.
const LISTS: [(&str, &str); 11] = [
    ("Items", "items"),
    ("Items", "leaves"),
    ("Records", "records"),
    ("Records", "keys"),
    ("Versions", "prefixes"),
    ("Versions", "authors"),
    ("Children", "prefixes"),
    ("Give", "records"),
    ("Open", "author"),
    ("Opened", "root"),
    ("Subtree", "prefix"),
];

/// Each hostile value in every place where a message has one.
fn messages(room: usize) -> Vec<Vec<u8>> {
    let (zone, time) = (text("."), vec![0x00]);
    let mut messages = hostile(room);
    for value in hostile(room - 200) {
        for (variant, field) in LISTS {
            let tagged = object(&[(variant, &object(&[(field, &value), ("next", &[0xf6])]))]);
            messages.push(object(&[("zone", &zone), ("as_of", &time), ("request", &tagged)]));
            messages.push(tagged);
        }
        for field in [
            "r", "b", "Children", "zone", "n", "z", "network", "kind", "name", "owner", "scope", "grants",
            "author",
        ] {
            messages.push(object(&[(field, &value)]));
        }
    }
    messages
}

fn check(what: &str, input: &[u8], decode: impl FnOnce(&[u8])) -> f64 {
    ALLOCATOR.reset_peak_usage();
    let before = ALLOCATOR.peak_usage();
    decode(input);
    let cost = ALLOCATOR.peak_usage() - before;
    let start: Vec<u8> = input.iter().take(60).copied().collect();
    assert!(
        cost <= TIMES_MAX * input.len() + EXTRA_BYTES_MAX,
        "{what}: {cost} bytes for {} bytes that begin with {start:x?}",
        input.len()
    );
    cost as f64 / input.len() as f64
}

#[test]
fn no_message_and_no_record_costs_more_memory_than_eight_times_its_size() {
    let mut worst: f64 = 0.0;
    for input in messages(ROOM_BYTES) {
        let costs = [
            check("envelope", &input, |bytes| drop(Envelope::decode(bytes))),
            check("beacon", &input, |bytes| drop(Beacon::read(bytes))),
            check("frame", &input, |bytes| drop(SyncFrame::decode(bytes))),
            check("answer", &input, |bytes| drop(SyncAnswer::decode(bytes))),
        ];
        if input.len() > ROOM_BYTES / 2 {
            worst = costs.into_iter().fold(worst, f64::max);
        }
    }
    println!("messages: at most {worst:.1} times the input where that is large");
    let now = Timestamp(1_700_000_000_000);
    for header in messages(ROOM_BYTES) {
        let Ok(length) = u16::try_from(header.len()) else { continue };
        let bytes = [&[1; 65][..], &length.to_be_bytes(), &header].concat();
        check("record", &bytes, |bytes| drop(SignedRecord::parse(bytes, "world").map(|it| it.verify(now))));
    }
}
