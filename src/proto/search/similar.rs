//! "Did you mean": names near a text that is no name.
//!
//! Nearest first: the same agent elsewhere, then few slips of the keyboard, then names that begin alike, then names
//! with a word in common.

use std::collections::BTreeSet;

use super::order::Key;
use super::slips::{letters, may_be_within, slips};
use super::{Index, token};
use crate::proto::identity::AgentId;
use crate::proto::name::{AgentName, FullName, LABEL_BYTES_MAX, ZoneName};

/// Names compared. Half of them stand around the place of the text in the order and begin like it; the others have most
/// letters in common with it.
const COMPARED_MAX: usize = 64;
/// Letters one slip may fall on: a text of 8 letters may have two, none may have more than [`SLIPS_MAX`].
const LETTERS_PER_SLIP: usize = 4;
/// Most slips that are forgiven.
const SLIPS_MAX: usize = 3;
/// Fewest letters in which names begin alike.
const PREFIX_MIN: usize = 3;
/// A longer text begins like a name only if the name is at least this part of it: `sum` is not meant by `summarizer-of-pdfs`.
const PREFIX_PART: usize = 2;

/// How a name is near; less is nearer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Nearness {
    Slips(usize),
    SamePrefix,
    SameWord,
}

/// Distinct names near `text` (`agent` or `agent@zone`), nearest first, in the named zone before others.
pub(super) fn similar_names(index: &Index, text: &str, limit: usize) -> Vec<FullName> {
    let folded = token::label(&text[..text.floor_char_boundary(super::QUERY_BYTES_MAX)]);
    let (agent, zone) = folded.split_once('@').unwrap_or((&folded, ""));
    let agent = &agent[..agent.floor_char_boundary(2 * LABEL_BYTES_MAX)];
    let (start, asked) = (start(agent), words(agent));
    let around = index.names_around(start.as_ref(), COMPARED_MAX / 2);
    let alike = index.grams.nearest(agent, COMPARED_MAX / 2);
    let alike = alike.into_iter().filter_map(|entry_id| index.key(entry_id)).map(|key| &key.name);
    let mut near: Vec<(Nearness, bool, &FullName)> = around
        .chain(alike)
        .filter_map(|name| Some((nearness(agent, name.agent.as_str(), &asked)?, name)))
        .map(|(nearness, name)| (nearness, name.zone.as_str() != zone, name))
        .collect();
    near.sort_unstable();
    let mut seen = BTreeSet::new();
    let fresh = near.into_iter().map(|(_, _, name)| name).filter(|name| seen.insert(*name));
    fresh.take(limit).cloned().collect()
}

/// Where the part of `agent` that can stand in a name would be in the order.
fn start(agent: &str) -> Option<Key> {
    let usable = agent.find(|letter: char| !matches!(letter, 'a'..='z' | '0'..='9' | '-' | '_'));
    let usable = &agent[..usable.unwrap_or(agent.len()).min(LABEL_BYTES_MAX)];
    let agent: AgentName = usable.parse().ok()?;
    Some(Key { name: FullName { agent, zone: ZoneName::root() }, id: AgentId([0; 20]) })
}

fn nearness(text: &str, name: &str, asked: &BTreeSet<String>) -> Option<Nearness> {
    let slips_allowed = (text.len() / LETTERS_PER_SLIP).min(SLIPS_MAX);
    if text.len().abs_diff(name.len()) <= slips_allowed
        && may_be_within(slips_allowed, letters(text), letters(name))
        && let Some(slips) = slips(text, name, slips_allowed)
    {
        return Some(Nearness::Slips(slips));
    }
    let begins = name.starts_with(text) || (text.starts_with(name) && name.len() >= text.len() / PREFIX_PART);
    if begins && text.len().min(name.len()) >= PREFIX_MIN {
        return Some(Nearness::SamePrefix);
    }
    // One of several words that many names have (`ai`, `mcp`) would suggest at random.
    let mut common = BTreeSet::new();
    token::each_word(name, |word| common.extend(asked.get(word)));
    (2 * common.len() > asked.len()).then_some(Nearness::SameWord)
}

fn words(name: &str) -> BTreeSet<String> {
    let mut words = BTreeSet::new();
    token::each_word(name, |word| {
        words.insert(word.to_owned());
    });
    words
}

#[cfg(test)]
mod tests {
    use super::super::tests::{index_of, name};
    use super::*;

    fn similar(index: &Index, text: &str) -> Vec<String> {
        index.similar_names(text, 3).into_iter().map(String::from).collect()
    }

    #[test]
    fn the_same_agent_in_another_zone_comes_first() {
        let index = index_of(&["summarizer@research.acme.org", "summarize@acme.org", "weather@acme.org"]);
        assert_eq!(
            similar(&index, "summarizer@acme.org"),
            ["summarizer@research.acme.org", "summarize@acme.org"]
        );
    }

    #[test]
    fn a_slip_is_forgiven_wherever_it_is() {
        let index = index_of(&["summarizer@.", "translator@.", "zebra@."]);
        for text in
            ["sumarizer", "ummarizer", "Summarizer", "sumamrizer", "xummarizer@acme.org", "summarizerr"]
        {
            assert_eq!(similar(&index, text), ["summarizer@."], "{text}");
        }
        assert_eq!(similar(&index, "quicksort"), Vec::<String>::new());
    }

    #[test]
    fn of_equal_names_that_in_the_named_zone_comes_first() {
        let index = index_of(&["weather@acme.org", "weather@zoo.org"]);
        assert_eq!(similar(&index, "wether@zoo.org"), ["weather@zoo.org", "weather@acme.org"]);
    }

    #[test]
    fn names_that_begin_alike_come_before_names_with_a_common_word() {
        let index = index_of(&["weather-hourly@.", "hourly-weather@.", "other@."]);
        assert_eq!(similar(&index, "weather"), ["weather-hourly@.", "hourly-weather@."]);
    }

    #[test]
    fn what_has_little_in_common_is_not_suggested() {
        let mut index =
            index_of(&["ai-explorium_mcp-explorium@.", "sum@.", "ai-exa_exa@.", "io-trunk_mcp-server@."]);
        let trunk = name("io-trunk_mcp-server@.");
        let described = super::super::Entry {
            id: AgentId([9; 20]),
            description: "Finds failing tests",
            ..super::super::tests::bare(&trunk)
        };
        index.insert(described);
        for text in ["failing", "ai.other/other", "summarizer-of-pdfs", "mcp-nothing-alike"] {
            assert_eq!(similar(&index, text), Vec::<String>::new(), "{text}");
        }
        assert_eq!(similar(&index, "ai.exa/exaa"), ["ai-exa_exa@."]);
    }

    #[test]
    fn a_name_with_several_owners_is_named_once_and_the_limit_holds() {
        let mut index = index_of(&["weather@.", "weather@org", "weather@com", "weather@net"]);
        let again = name("weather@.");
        index.insert(super::super::Entry { id: AgentId([99; 20]), ..super::super::tests::bare(&again) });
        assert_eq!(similar(&index, "weather"), ["weather@.", "weather@com", "weather@net"]);
        assert_eq!(index.similar_names("weather", 0), []);
    }

    /// Whoever fills a registry with names that are alike makes no question after others dearer.
    #[test]
    fn among_thousands_of_names_few_are_compared_and_what_is_meant_is_among_them() {
        let workers: Vec<String> = (0..5_000).map(|number| format!("worker-{number}@.")).collect();
        let ground = (0..500).map(|number| format!("{}{number:03}@.", "a".repeat(60)));
        let single = ('a'..='z').map(|letter| format!("{letter}@."));
        let meant = ["summarizer@.", "translator@acme.org", "weather-hourly@."].map(str::to_owned);
        let names: Vec<String> = workers.into_iter().chain(ground).chain(single).chain(meant).collect();
        let mut index = Index::new();
        for (at, text) in names.iter().enumerate() {
            let mut id = [0; 20];
            id[..8].copy_from_slice(&at.to_le_bytes());
            index.insert(super::super::Entry { id: AgentId(id), ..super::super::tests::bare(&name(text)) });
        }
        for text in ["worker-xyz", &"a".repeat(63), "q", "zzz"] {
            assert!(index.grams.nearest(text, usize::MAX).len() <= super::super::grams::READ_MAX, "{text}");
        }
        for (text, meant) in [
            ("sumarizer", "summarizer@."),
            ("ranslator", "translator@acme.org"),
            ("hourly-weather", "weather-hourly@."),
        ] {
            assert_eq!(similar(&index, text).first().map(String::as_str), Some(meant), "{text}");
        }
        assert_eq!(similar(&index, "worker-xyz"), Vec::<String>::new());
        assert!(similar(&index, "worker-49999").iter().all(|name| name.starts_with("worker-")));
    }

    #[test]
    fn no_text_panics() {
        let index = index_of(&["weather@."]);
        let long = "ü".repeat(100_000);
        for text in
            ["", "@", "@@", " ", "\0", "é@", &long, "weather@weather@", "\u{fdfa}\u{fdfa}", "a\u{301}"]
        {
            index.similar_names(text, 10);
        }
    }
}
