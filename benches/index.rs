//! Speed and size of the search index: `cargo bench --bench index --no-default-features`.
//!
//! Prints percentiles over queries drawn at random, as the index has promises for the slowest hundredth. Memory is the
//! growth of the resident set (Linux), allocator overhead included.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use aop::proto::identity::AgentId;
use aop::proto::name::FullName;
use aop::proto::search::{Entry, Index, Query};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

const WORDS: usize = 20_000;
const QUERIES: usize = 3000;
/// Where the common words are taken from: as a node meets them, most are known to the table of meanings.
const TEXTS: &str = include_str!("../tests/search/agents.json");
const QUESTIONS: &str = include_str!("../tests/search/queries.json");

struct Agent {
    id: AgentId,
    name: FullName,
    tags: Vec<String>,
    capabilities: Vec<String>,
    description: String,
}

impl Agent {
    fn entry(&self) -> Entry<'_> {
        Entry {
            id: self.id,
            name: &self.name,
            title: None,
            original_name: None,
            tags: &self.tags,
            capabilities: &self.capabilities,
            residency: None,
            description: &self.description,
            skills: None,
        }
    }
}

fn main() {
    for entries in [10_000, 100_000] {
        measure(entries);
    }
}

fn measure(entries: usize) {
    let rng = &mut ChaCha8Rng::seed_from_u64(7);
    let mut vocabulary = words_of(TEXTS);
    vocabulary.extend((vocabulary.len()..WORDS).map(|at| word(at, rng)));
    let agents: Vec<Agent> = (0..entries).map(|at| agent(at, &vocabulary, rng)).collect();
    println!("{entries} entries, descriptions of 300 bytes, 6 labels");

    let (before, start) = (resident_bytes(), Instant::now());
    let mut index = Index::new();
    let mut inserts: Vec<Duration> =
        agents.iter().map(|agent| time(|| index.insert(agent.entry()))).collect();
    let mean = start.elapsed() / entries as u32;
    println!("  memory {} bytes an entry", (resident_bytes() - before) / entries);
    report(&format!("insert (mean {mean:?})"), &mut inserts);

    let mut query = |name: &str, make: &mut dyn FnMut(&mut ChaCha8Rng) -> Query| {
        let mut times: Vec<Duration> = Vec::new();
        let mut hits = 0;
        for _ in 0..QUERIES {
            let query = make(rng);
            times.push(time(|| hits += index.search(&query, 10, None).hits.len()));
        }
        report(&format!("{name}, {:.1} hits", hits as f64 / QUERIES as f64), &mut times);
    };
    let text = |text: String| Query { text, ..Query::default() };
    query("tag and capability", &mut |rng| both(label("tag", rng), label("can", rng)));
    query("the most common tag and capability", &mut |_| both("tag0".into(), "can0".into()));
    query("two words", &mut |rng| text(format!("{} {}", pick(&vocabulary, rng), pick(&vocabulary, rng))));
    query("two words and a tag", &mut |rng| {
        let words = format!("{} {}", pick(&vocabulary, rng), pick(&vocabulary, rng));
        Query { text: words, tags: vec![label("tag", rng)], ..Query::default() }
    });
    query("the two most common words", &mut |_| text(format!("{} {}", vocabulary[0], vocabulary[1])));
    let questions: Vec<&str> =
        QUESTIONS.split("\"text\": \"").skip(1).filter_map(|it| it.split('"').next()).collect();
    query("what people ask", &mut |rng| text(questions[rng.random_range(0..questions.len())].into()));
    query("four words that nobody knows", &mut |rng| {
        text((0..4).map(|_| format!("{}qx{} ", word(99, rng), word(99, rng))).collect())
    });
    query("1,024 bytes of letters", &mut |rng| {
        text((0..1_024).map(|_| char::from(b'a' + rng.random_range(0..26))).collect())
    });
    query("1,024 bytes of words that are one slip from others", &mut |rng| {
        text((0..150).map(|_| format!("{}q ", pick(&vocabulary, rng))).collect())
    });
    query("the 32 most common words", &mut |_| text(vocabulary[..32].join(" ")));
    query("everything in a zone", &mut |_| Query { zone: "z1.org".parse().ok(), ..Query::default() });
    query("everything", &mut |_| Query::default());

    let mut similar: Vec<Duration> = agents
        .iter()
        .step_by(entries / 100)
        .map(|agent| time(|| index.similar_names(&agent.name.to_string()[1..], 5)))
        .collect();
    report("similar names", &mut similar);
    let mut renewals: Vec<Duration> =
        agents.iter().step_by(7).map(|agent| time(|| index.insert(agent.entry()))).collect();
    report("replace by the same", &mut renewals);
    let mut removals: Vec<Duration> =
        agents.iter().step_by(3).map(|agent| time(|| index.remove(&agent.id))).collect();
    report("remove", &mut removals);
    let mut again: Vec<Duration> =
        agents.iter().step_by(3).map(|agent| time(|| index.insert(agent.entry()))).collect();
    report("insert into reused slots", &mut again);
}

fn time<T>(run: impl FnOnce() -> T) -> Duration {
    let start = Instant::now();
    std::hint::black_box(run());
    start.elapsed()
}

fn report(name: &str, times: &mut [Duration]) {
    times.sort_unstable();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_nanos() as f64 / 1e3;
    println!("  {name}: p50 {:.1} µs, p99 {:.1} µs, max {:.1} µs", at(0.5), at(0.99), at(1.0));
}

/// The distinct words of a text, the most common first.
fn words_of(text: &str) -> Vec<String> {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for word in text.split(|letter: char| !letter.is_ascii_alphabetic()).filter(|word| word.len() > 2) {
        *counts.entry(word.to_ascii_lowercase()).or_default() += 1;
    }
    let mut words: Vec<(usize, String)> = counts.into_iter().map(|(word, count)| (count, word)).collect();
    words.sort_by(|one, other| other.cmp(one));
    words.into_iter().map(|(_, word)| word).collect()
}

/// A made-up word, the common ones short as in a language; 300 bytes hold about 42, as in English.
fn word(at: usize, rng: &mut ChaCha8Rng) -> String {
    const SYLLABLES: [&str; 12] =
        ["ka", "ter", "min", "so", "ling", "re", "ab", "und", "pro", "tic", "ve", "er"];
    let count = 1 + usize::from(at > 10) + usize::from(at > 60) + rng.random_range(0..2);
    (0..count).map(|_| SYLLABLES[rng.random_range(0..SYLLABLES.len())]).collect()
}

/// The n-th word about as often as 1/n.
fn pick<'a>(vocabulary: &'a [String], rng: &mut ChaCha8Rng) -> &'a str {
    &vocabulary[zipf(vocabulary.len(), rng)]
}

fn zipf(count: usize, rng: &mut ChaCha8Rng) -> usize {
    ((count as f64 + 1.0).powf(rng.random::<f64>()) as usize - 1).min(count - 1)
}

fn label(kind: &str, rng: &mut ChaCha8Rng) -> String {
    format!("{kind}{}", zipf(60, rng))
}

fn both(tag: String, capability: String) -> Query {
    Query { tags: vec![tag], capabilities: vec![capability], ..Query::default() }
}

fn agent(at: usize, vocabulary: &[String], rng: &mut ChaCha8Rng) -> Agent {
    let mut id = [0; 20];
    rng.fill(&mut id);
    let word = vocabulary[rng.random_range(0..WORDS)].clone();
    let zone = ["z1.org", "a.z1.org", "b.z2.org", "."][rng.random_range(0..4)];
    let mut description = String::new();
    while description.len() < 300 {
        description.push_str(pick(vocabulary, rng));
        description.push(' ');
    }
    Agent {
        id: AgentId(id),
        name: format!("{word}-{at}@{zone}").parse().expect("made of letters and digits"),
        tags: (0..3).map(|_| label("tag", rng)).collect(),
        capabilities: (0..3).map(|_| label("can", rng)).collect(),
        description,
    }
}

/// Resident memory of this process, bytes; 0 where the system does not say.
fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).unwrap_or(0) * 4096
}
