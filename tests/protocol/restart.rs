//! A start reads its rows in parts, and indexes each before it is known what of it stands.

use std::sync::Arc;

use aop::proto::config::Config;
use aop::proto::io::{Command, Input, Output, Reply};
use aop::proto::node::Node;
use aop::proto::persistence::Stored;
use aop::proto::query::{Find, Found};
use aop::proto::record::Header;
use aop::proto::search::Query;

use crate::rules::cluster::{DAY, NOW, SECOND, identity, signed};
use crate::rules::{body, header};

type Row = (Vec<u8>, Arc<[u8]>);

fn row(header: Header, body: &[u8], author: usize) -> Row {
    let record = signed(header, body, author);
    ([&b"r"[..], &record.key().0].concat(), record.bytes().clone())
}

fn live(agent: &str, description: &str) -> Row {
    row(header(1, agent, NOW), &body(description), 1)
}

fn node(stored: Stored) -> Node {
    let config = Config { network: "world".into(), ..Config::default() };
    Node::new(identity(0), config, [0; 32], stored, NOW)
}

fn found(node: &mut Node, text: &str) -> Vec<Found> {
    let query = Query { text: text.into(), ..Query::default() };
    let find = Find { query, limit: 100, local: true, ..Find::default() };
    node.handle(NOW, Input::Command { id: 1, command: Command::Find(find) });
    let reply = std::iter::from_fn(|| node.poll_output()).find_map(|output| match output {
        Output::Reply { reply: Reply::Found(answer), .. } => Some(answer.found),
        _ => None,
    });
    reply.unwrap()
}

#[test]
fn a_node_finds_the_same_whether_its_rows_were_indexed_in_parts_or_when_it_was_asked() {
    let long_ago = NOW - 8 * DAY;
    let elsewhere = Header { zone: "else.org".parse().unwrap(), ..header(1, "elsewhere", NOW) };
    let older = row(header(1, "renewed", NOW - SECOND), &body("apples"), 1);
    let newer = row(Header { seq: 2, ..header(1, "renewed", NOW) }, &body("pears"), 1);
    let buried = row(header(1, "buried", NOW - SECOND), &body("apples"), 1);
    let tombstone =
        Header { seq: 2, expires_at: NOW + aop::proto::limits::TOMBSTONE_LIFE, ..header(1, "buried", NOW) };
    let parts = [
        vec![live("first", "apples and pears"), row(header(1, "ended", long_ago), &body("apples"), 1), older],
        vec![buried, newer, live("second", "pears")],
        vec![row(tombstone, b"", 1), row(elsewhere, &body("apples"), 1), live("third", "plums, no apples")],
    ];
    let (mut one_by_one, mut in_parts) = (Stored::default(), Stored::default());
    for part in &parts {
        let mut stored = Stored::default();
        for (key, value) in part {
            assert!(one_by_one.take_row(key, value, true, "world", NOW));
            assert!(stored.index_row(key, &std::sync::Arc::from(&value[..]), "world"));
        }
        in_parts.append(stored);
    }
    let (mut one_by_one, mut in_parts) = (node(one_by_one), node(in_parts));
    for (text, count) in [("", 4), ("apples", 2), ("pears", 3), ("buried", 0), ("elsewhere", 0), ("ended", 0)]
    {
        let expected = found(&mut one_by_one, text);
        assert_eq!(found(&mut in_parts, text), expected, "{text}");
        let by_words = expected.iter().filter(|found| !found.by_meaning).count();
        assert_eq!(by_words, count, "{text}: {expected:?}");
    }
}
