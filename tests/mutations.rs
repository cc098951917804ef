//! The checkers are tested themselves: known bugs are planted one after the other, and each must be caught by a checker
//! within the default seeds.
//!
//! `cargo test --test mutations -- --ignored --nocapture` plants them in a copy of the sources and plays `tests/sim/faults.rs`,
//! `tests/sim/hostile.rs`, `tests/sim/calls.rs` or `tests/sim/judged.rs`; it takes minutes. `AOP_MUTATION=max` plays those with
//! such a name alone, `AOP_MUTATIONS=16` a sixteenth of them, another one each day.
//! The copy is kept below the target folder, so that a second run compiles less. What always runs is the test that every bug
//! still finds its place.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

/// A bug: what it is, the module of `tests/sim` that must notice it, and texts that take the place of others.
struct Mutation {
    name: &'static str,
    test: &'static str,
    edits: &'static [Edit],
}

/// A file, a text that stands in it exactly once, and what is written in its place.
struct Edit(&'static str, &'static str, &'static str);

const MUTATIONS: &[Mutation] = &[
    Mutation {
        name: "the vector is the maximum of eq. 9",
        test: "faults",
        edits: &[Edit(
            "src/proto/version.rs",
            "if seq == self.prefix.saturating_add(1) {",
            "if seq > self.prefix {",
        )],
    },
    Mutation {
        name: "acknowledged before it is flushed",
        test: "faults",
        edits: &[Edit(
            "src/proto/persistence.rs",
            "Write { key: row(b'o', record.key()), value: Some(record.bytes().clone()), durable: true }",
            "Write { key: row(b'o', record.key()), value: Some(record.bytes().clone()), durable: false }",
        )],
    },
    Mutation {
        name: "acknowledged before it is written",
        test: "faults",
        edits: &[
            Edit(
                "src/proto/node/turn.rs",
                "self.finish();\n        self.ctx.out.push(Output::Reply { id, reply });",
                "self.ctx.out.push(Output::Reply { id, reply });",
            ),
            Edit(
                "src/proto/context.rs",
                "self.outputs.push_front(Output::Persist(writes))",
                "self.outputs.push_back(Output::Persist(writes))",
            ),
        ],
    },
    Mutation {
        name: "published before it is written",
        test: "faults",
        edits: &[
            Edit("src/proto/node/turn.rs", "self.ctx.out.persist();\n        let ctx", "let ctx"),
            Edit(
                "src/proto/node/turn.rs",
                "self.directory.keep_up(self.zones, self.ctx.config.unindexed_max);",
                "self.directory.keep_up(self.zones, self.ctx.config.unindexed_max);\n        self.ctx.out.persist();",
            ),
            Edit(
                "src/proto/context.rs",
                "self.outputs.push_front(Output::Persist(writes))",
                "self.outputs.push_back(Output::Persist(writes))",
            ),
        ],
    },
    Mutation {
        name: "acknowledged although the disk was full",
        test: "faults",
        edits: &[Edit(
            "src/proto/io.rs",
            "Output::Reply { id, reply } => Some(Output::Reply { id, reply: reply.unwritten(reason) }),",
            "Output::Reply { id, reply } => { let _ = reply.clone().unwritten(reason); Some(Output::Reply { id, reply }) }",
        )],
    },
    Mutation {
        name: "what a full disk did not keep stays in memory",
        test: "faults",
        edits: &[Edit(
            "src/proto/node/turn.rs",
            "let ahead = own.take_back(ctx, zones, writes);",
            "let ahead = { let _ = zones; writes };",
        )],
    },
    Mutation {
        name: "no bound on stamps ahead",
        test: "faults",
        edits: &[Edit(
            "src/proto/record/signed.rs",
            "if header.stamp.wall > now + STAMP_AHEAD_MAX {",
            "if false {",
        )],
    },
    Mutation {
        name: "tombstones are dropped after an hour",
        test: "faults",
        edits: &[
            Edit(
                "src/proto/registry/place.rs",
                "End(record.expires_at, record.key())",
                "End(ends_of(record), record.key())",
            ),
            Edit(
                "src/proto/registry/place.rs",
                "impl Place for End {",
                "pub(super) fn ends_of(record: &Record) -> Timestamp {
                    let hour = record.stamp.wall + std::time::Duration::from_secs(3_600);
                    if record.is_tombstone() { hour } else { record.expires_at }
                }
                impl Place for End {",
            ),
            Edit(
                "src/proto/registry.rs",
                "self.live.first().filter(|first| first.is_expired(now))",
                "self.live.first().filter(|first| place::ends_of(first) <= now)",
            ),
            Edit(
                "src/proto/registry.rs",
                "self.lapsed.last().filter(|last| !last.is_expired(now))",
                "self.lapsed.last().filter(|last| place::ends_of(last) > now)",
            ),
            Edit(
                "src/proto/registry.rs",
                "first.expires_at + EXPIRED_KEPT <= now;",
                "place::ends_of(first) + EXPIRED_KEPT <= now;",
            ),
        ],
    },
    Mutation {
        name: "lapsed leases are remembered",
        test: "faults",
        edits: &[
            Edit(
                "src/proto/registry.rs",
                "    weight: usize,\n    weight_max: usize,\n}",
                "    weight: usize,\n    weight_max: usize,\n    gone: BTreeSet<crate::proto::record::RecordHash>,\n}",
            ),
            Edit(
                "src/proto/registry.rs",
                "            weight: 0,\n            weight_max,",
                "            weight: 0,\n            gone: BTreeSet::new(),\n            weight_max,",
            ),
            Edit(
                "src/proto/registry.rs",
                "        if let Some(reason) = self.room_for(&record, now) {",
                "        if self.gone.contains(&record.hash()) {\n            return Merge::Stale;\n        }\n        \
                 if let Some(reason) = self.room_for(&record, now) {",
            ),
            Edit(
                "src/proto/registry.rs",
                "        for gone in &expirations.dropped {",
                "        for gone in &expirations.dropped {\n            self.gone.insert(gone.hash());",
            ),
        ],
    },
    Mutation {
        name: "the fingerprint is an XOR",
        test: "hostile",
        edits: &[
            Edit(
                "src/proto/fingerprint.rs",
                "    hash: Sha256,\n    count",
                "    hash: [u8; 32],\n    count",
            ),
            Edit(
                "src/proto/fingerprint.rs",
                "self.hash.update(record.hash().0);",
                "self.hash.iter_mut().zip(record.hash().0).for_each(|(sum, byte)| *sum ^= byte);",
            ),
            Edit("src/proto/fingerprint.rs", "hash: Sha256::new(), count", "hash: [0; 32], count"),
            Edit(
                "src/proto/fingerprint.rs",
                "let hash = self.hash.finalize_reset();",
                "let hash = self.hash;",
            ),
            Edit(
                "src/proto/fingerprint.rs",
                "let mut hash = Sha256::new_with_prefix(b\"aop-tree-v1\\0\");",
                "let mut sum = [0u8; 32];",
            ),
            Edit(
                "src/proto/fingerprint.rs",
                "hash.update(child.digest.0);",
                "sum.iter_mut().zip(child.digest.0).for_each(|(sum, byte)| *sum ^= byte);",
            ),
            Edit(
                "src/proto/fingerprint.rs",
                "Cached { digest: Digest(hash.finalize().into()), from, until }",
                "Cached { digest: Digest(sum), from, until }",
            ),
        ],
    },
    Mutation {
        name: "a slot keeps what came first",
        test: "hostile",
        edits: &[Edit(
            "src/proto/registry.rs",
            "if other.is_some_and(|other| !other.is_expired(now) && other.key() < record.key()) {",
            "if other.is_some() {",
        )],
    },
    Mutation {
        name: "a full zone keeps what came first",
        test: "hostile",
        edits: &[Edit(
            "src/proto/registry.rs",
            "if self.can_free(excess, &Rank::of(record), &gone) { None }",
            "if excess == 0 { None }",
        )],
    },
    Mutation {
        name: "nothing leaves a full zone",
        test: "hostile",
        edits: &[Edit(
            "src/proto/registry.rs",
            "while self.weight > self.weight_max {",
            "while self.weight == usize::MAX {",
        )],
    },
    Mutation {
        name: "the last to arrive wins",
        test: "faults",
        edits: &[Edit("src/proto/registry.rs", "if held.precedence() > record.precedence() {", "if false {")],
    },
    Mutation {
        name: "prefixes are adopted without equal roots",
        test: "calls",
        edits: &[Edit(
            "src/proto/sync.rs",
            "if registry.digest(Prefix::ROOT, self.as_of) == root {\n                    step.adopt",
            "if root == root {\n                    step.adopt",
        )],
    },
    Mutation {
        name: "nobody guards own keys",
        test: "faults",
        edits: &[Edit(
            "src/proto/own_records/guard.rs",
            "let Some(registry) = zones.get(zone).map(|zone| zone.registry()) else { return };",
            "if ctx.now > Timestamp::default() { return; }
            let Some(registry) = zones.get(zone).map(|zone| zone.registry()) else { return };",
        )],
    },
    Mutation {
        name: "signatures are not checked",
        test: "hostile",
        edits: &[Edit(
            "src/proto/zone/ingest.rs",
            "let record = signed.verify_with(ctx.now, &mut ctx.cache.keys)?;",
            "let record = match signed.verify_with(ctx.now, &mut ctx.cache.keys) {
                Err(Refusal::BadSignature) => signed.clone().trust_sealed(),
                verified => verified?,
            };",
        )],
    },
    Mutation {
        name: "forks are not told",
        test: "hostile",
        edits: &[Edit(
            "src/proto/registry.rs",
            "held.any(|held| held.hash() != record.hash())",
            "held.any(|_| false)",
        )],
    },
    Mutation {
        name: "peers are blamed for time",
        test: "faults",
        edits: &[
            Edit(
                "src/proto/record/refusal.rs",
                "Refusal::UnknownFormat | Refusal::Expired | Refusal::Future | Refusal::ForeignZone => Blame::None,",
                "Refusal::UnknownFormat | Refusal::Expired | Refusal::ForeignZone => Blame::None,",
            ),
            Edit(
                "src/proto/record/refusal.rs",
                "Refusal::TooLarge\n            | Refusal::Malformed",
                "Refusal::TooLarge\n            | Refusal::Future\n            | Refusal::Malformed",
            ),
        ],
    },
    Mutation {
        name: "a lost disk goes on in the old epoch",
        test: "faults",
        edits: &[Edit(
            "src/proto/own_records/epoch.rs",
            "self.author.epoch = ctx.rng.random();",
            "self.author.epoch = 1;",
        )],
    },
    Mutation {
        name: "leases are renewed before others were heard",
        test: "faults",
        edits: &[Edit(
            "src/proto/own_records.rs",
            "zone.first_synced_at()? + RENEWAL_PATIENCE",
            "zone.first_synced_at().unwrap_or_default()",
        )],
    },
    Mutation {
        name: "a node that heard nobody calls its answers complete",
        test: "faults",
        edits: &[Edit(
            "src/proto/zone/completeness.rs",
            "None => (ZoneStatus::Unreachable, None)",
            "None => (ZoneStatus::Held, None)",
        )],
    },
    Mutation {
        name: "whoever sends a beacon is a member",
        test: "hostile",
        edits: &[Edit(
            "src/proto/zone.rs",
            "self.records.standing(peer, &self.peers) == Standing::Member",
            "matches!(self.records.standing(peer, &self.peers), Standing::Member | Standing::Stranger)",
        )],
    },
    Mutation {
        name: "a lost call was not started",
        test: "calls",
        edits: &[Edit(
            "src/proto/call/attempts.rs",
            "self.in_doubt |= self.sent_to.take().is_some();",
            "self.sent_to = None;",
        )],
    },
    Mutation {
        name: "what left before a restart of its caller was not started",
        test: "calls",
        edits: &[Edit(
            "src/proto/call/attempts.rs",
            "Attempts { sent_to: Some(host), spoke_to, ..Attempts::new(id) }",
            "Attempts { spoke_to, ..Attempts::new(id) }",
        )],
    },
    Mutation {
        name: "a call whose stream is lost is done",
        test: "calls",
        edits: &[Edit(
            "src/proto/call/attempts.rs",
            "CallFailure::new(code, self.judge(Outcome::NotStarted), message)",
            "CallFailure::new(code, if self.in_doubt { Outcome::Done } else { Outcome::NotStarted }, message)",
        )],
    },
    Mutation {
        name: "an accepted call outlives its deadline",
        test: "calls",
        edits: &[Edit(
            "src/proto/call/outbound.rs",
            "chain([self.wanted.deadline]).min()",
            "chain([self.wanted.deadline * 1_000]).min()",
        )],
    },
    Mutation {
        name: "a call runs before its input is there",
        test: "calls",
        edits: &[
            Edit(
                "src/proto/call/host.rs",
                "outputs.push_back(Output::Accept { stream, incarnation, size });",
                "outputs.push_back(Output::Accept { stream, incarnation, size });
                self.handle_input(stream, size, outputs);",
            ),
            Edit(
                "src/proto/call/host.rs",
                "if call.stage != Stage::Input || size > call.size {",
                "if call.stage != Stage::Input {
                    return;
                }
                if size > call.size {",
            ),
        ],
    },
    Mutation {
        name: "a host voids what runs when it is asked for it again",
        test: "calls",
        edits: &[Edit(
            "src/proto/call/registry.rs",
            "            if work.begun {",
            "            if work.begun && work.is_done {",
        )],
    },
    Mutation {
        name: "another run of a host says that a call has not begun",
        test: "calls",
        edits: &[Edit(
            "src/proto/call/registry.rs",
            "if attach.incarnation != self.incarnation {",
            "if attach.incarnation == Incarnation(0) {",
        )],
    },
    Mutation {
        name: "nobody asks the way again",
        test: "judged",
        edits: &[Edit(
            "src/proto/overlay/walk.rs",
            "walker.next = ctx.now + ctx.jitter(ctx.config.walk_interval);",
            "walker.next = ctx.now + ctx.jitter(ctx.config.walk_interval) * 10_000;",
        )],
    },
    Mutation {
        name: "whole is only who compared itself with a whole one",
        test: "judged",
        edits: &[Edit(
            "src/proto/zone/completeness.rs",
            "was_whole || now.since(*self.none_whole_since.get_or_insert(now)) >= config.company_after",
            "was_whole && now.since(*self.none_whole_since.get_or_insert(now)) >= config.company_after",
        )],
    },
    Mutation {
        name: "a question goes on twice",
        test: "judged",
        edits: &[Edit(
            "src/proto/node/ask.rs",
            "Origin::Peer { id }, question, vec![parent], left);",
            "Origin::Peer { id }, question, vec![parent.clone(), parent], left);",
        )],
    },
    Mutation {
        name: "what was answered before does not age",
        test: "judged",
        edits: &[Edit(
            "src/proto/resolver/heard.rs",
            "now.since(self.asked_at)",
            "now.since(now.max(self.asked_at))",
        )],
    },
    Mutation {
        name: "who is no gateway any more holds what lies below",
        test: "judged",
        edits: &[Edit(
            "src/proto/overlay/below.rs",
            ".filter(|(id, followed)| !is_there(id, followed) || is_over(followed))",
            ".filter(|(id, followed)| named.contains_key(id) && is_over(followed))",
        )],
    },
    Mutation {
        name: "a cursor without its id",
        test: "judged",
        edits: &[Edit(
            "src/proto/search/pages.rs",
            "Key { name: cursor.name.clone(), id: cursor.id }",
            "Key { name: cursor.name.clone(), id: crate::proto::identity::AgentId([0xff; 20]) }",
        )],
    },
    Mutation {
        name: "a score that depends on what else is held",
        test: "judged",
        edits: &[Edit(
            "src/proto/search/pages.rs",
            "count: asked.terms.len() as f32",
            "count: (asked.terms.len() + self.len()) as f32",
        )],
    },
    Mutation {
        name: "what lies below is fetched and nothing is given there",
        test: "judged",
        edits: &[
            Edit(
                "src/proto/zone/conversation.rs",
                "        while let Some(frame) = conversation.sync.poll(",
                "        if self.role == Role::Below {
            conversation.sync.give_nothing();
        }
        while let Some(frame) = conversation.sync.poll(",
            ),
            Edit(
                "src/proto/sync.rs",
                "    /// When a peer that was busy is asked again.",
                "    /// Nothing is given.
                pub fn give_nothing(&mut self) {
                    self.pushes = Pushes::default();
                }
                /// When a peer that was busy is asked again.",
            ),
        ],
    },
    Mutation {
        name: "who speaks for a zone no longer is remembered for a week",
        test: "judged",
        edits: &[Edit(
            "src/proto/limits.rs",
            "pub const DELEGATION_TOMBSTONE_LIFE: Duration = Duration::from_secs(3_600 + 300);",
            "pub const DELEGATION_TOMBSTONE_LIFE: Duration = Duration::from_secs(7 * 86_400 + 300);",
        )],
    },
    Mutation {
        name: "whoever leaves a zone below its own says nothing of it",
        test: "judged",
        edits: &[Edit("src/proto/node/turn.rs", "self.overlay.note_left(self.ctx.now);", "")],
    },
    Mutation {
        name: "a replica that was never compared is fresh",
        test: "judged",
        edits: &[Edit(
            "src/proto/overlay/below.rs",
            "            None => (ZoneStatus::Unreachable, None),",
            "            None => (ZoneStatus::Held, Some(Duration::ZERO)),",
        )],
    },
    Mutation {
        name: "a question goes down",
        test: "judged",
        edits: &[
            Edit(
                "src/proto/node/ask.rs",
                ".find(|it| it.peer != peer && it.peer != self.ctx.key());",
                ".find(|it| it.peer != peer && it.peer != self.ctx.key())
            .or_else(|| {
                let below = self.overlay.below();
                let mut gateways = below.ids().flat_map(|id| below.gateways(id));
                gateways.find(|it| it.peer != peer).cloned()
            });",
            ),
            Edit(
                "src/proto/node/ask.rs",
                "parent.filter(|_| above.is_some() && is_mate)",
                "parent.filter(|_| is_mate)",
            ),
        ],
    },
];

/// What the copy consists of, apart from the sources.
const PARTS: &[&str] = &[
    "Cargo.toml",
    "Cargo.lock",
    "src",
    "benches",
    // The manifest names a test, and all that it names must be there.
    "tests",
];
/// The tests that must notice bugs, and pass without any.
const TESTS: &[&str] = &["faults", "hostile", "calls", "judged"];

#[test]
fn every_bug_still_finds_its_place_in_the_sources() {
    let lost: Vec<String> = MUTATIONS
        .iter()
        .flat_map(|mutation| mutation.edits.iter().map(move |edit| (mutation.name, edit)))
        .filter_map(|(name, Edit(file, anchor, instead))| {
            let found = read(&root().join(file)).matches(anchor).count();
            (found != 1 || anchor == instead)
                .then(|| format!("{name}: {found} times in {file}, not once: {anchor}"))
        })
        .collect();
    assert!(lost.is_empty(), "{}", lost.join("\n"));
    let names: BTreeSet<&str> = MUTATIONS.iter().map(|mutation| mutation.name).collect();
    assert!(names.len() == MUTATIONS.len() && names.len() >= 10, "{} names", names.len());
}

#[test]
#[ignore = "takes minutes: cargo test --test mutations -- --ignored --nocapture"]
fn every_planted_bug_is_caught_within_the_default_seeds() {
    let begun = Instant::now();
    let copy = copied();
    let wanted = std::env::var("AOP_MUTATION").unwrap_or_default();
    let parts: Option<usize> = std::env::var("AOP_MUTATIONS").ok().and_then(|parts| parts.parse().ok());
    // Where a part is played, the tests are played elsewhere without any bug.
    for test in TESTS.iter().filter(|_| wanted.is_empty() && parts.is_none()) {
        let played = play(&copy, test);
        assert!(played.passed, "{test} fails without any bug:\n{}", played.output);
        println!("{:<40} {:>4} s  {test} passes", "no bug", played.seconds);
    }
    let mut missed = Vec::new();
    let named = MUTATIONS.iter().filter(|mutation| mutation.name.contains(&wanted)).enumerate();
    let drawn = named.filter(|(number, _)| parts.is_none_or(|parts| number % parts == today() % parts));
    for (_, mutation) in drawn {
        let since = Instant::now();
        mutation.plant(&copy);
        let caught = caught(&play(&copy, mutation.test));
        mutation.uproot(&copy);
        let seconds = since.elapsed().as_secs();
        println!("{:<40} {seconds:>4} s  {}", mutation.name, caught.as_deref().unwrap_or("NOT CAUGHT"));
        if caught.is_none() {
            missed.push(mutation.name);
        }
    }
    println!("{} s in all", begun.elapsed().as_secs());
    assert!(missed.is_empty(), "not caught: {missed:?}");
}

/// Days since 1970.
fn today() -> usize {
    let since =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a clock that is set");
    (since.as_secs() / 86_400) as usize
}

/// How a test of the copy went.
struct Played {
    passed: bool,
    output: String,
    seconds: u64,
}

/// The checkers that noticed something, and in which tests; none if every test passed.
fn caught(played: &Played) -> Option<String> {
    if played.passed {
        return None;
    }
    let lines = || played.output.lines();
    let failed: Vec<&str> =
        lines().filter_map(|line| line.strip_prefix("test ")?.strip_suffix(" ... FAILED")).collect();
    let broken: BTreeSet<&str> =
        lines().filter_map(|line| line.split_once(" broken by seed ")?.0.rsplit(' ').next()).collect();
    assert!(!broken.is_empty(), "no checker is named by {failed:?}:\n{}", played.output);
    let checkers = broken.into_iter().collect::<Vec<_>>().join(" ");
    let more = failed.len().saturating_sub(1);
    let first = failed.first()?;
    Some(format!(
        "{checkers} in {first}{}",
        if more > 0 { format!(" and {more} more") } else { String::new() }
    ))
}

fn play(copy: &Path, test: &str) -> Played {
    let begun = Instant::now();
    let output = Command::new(env!("CARGO"))
        .args(["test", "--offline", "--locked", "--no-default-features", "--test", "sim"])
        .arg(format!("{test}::"))
        .current_dir(copy)
        .env("CARGO_TARGET_DIR", copy.with_file_name("target"))
        .env("AOP_SIM_FAIL_FAST", "1")
        .env("RUST_BACKTRACE", "0")
        .env_remove("AOP_SIM_SEEDS")
        .env_remove("AOP_SIM_SEED")
        .output()
        .expect("cargo starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let stdout = text(&output.stdout);
    assert!(stdout.contains("test result: "), "{test} does not run:\n{stdout}{}", text(&output.stderr));
    Played { passed: output.status.success(), output: stdout, seconds: begun.elapsed().as_secs() }
}

/// A fresh copy of what the tests are made from.
fn copied() -> PathBuf {
    let copy = Path::new(env!("CARGO_TARGET_TMPDIR")).join("mutations").join("copy");
    if copy.exists() {
        fs::remove_dir_all(&copy).expect("the old copy goes");
    }
    for part in PARTS {
        copy_all(&root().join(part), &copy.join(part));
    }
    // The folder above has a manifest too; the copy is a package of its own.
    let manifest = copy.join("Cargo.toml");
    let text = read(&manifest);
    if !text.contains("\n[workspace]") {
        write(&manifest, &format!("{text}\n[workspace]\n"));
    }
    copy
}

fn copy_all(from: &Path, to: &Path) {
    if from.is_dir() {
        fs::create_dir_all(to).expect("a folder");
        for entry in fs::read_dir(from).expect("a folder") {
            let entry = entry.expect("an entry");
            copy_all(&entry.path(), &to.join(entry.file_name()));
        }
    } else {
        fs::create_dir_all(to.parent().expect("a folder above")).expect("a folder");
        fs::copy(from, to).expect("a file");
    }
}

impl Mutation {
    fn plant(&self, copy: &Path) {
        for Edit(file, anchor, instead) in self.edits {
            let path = copy.join(file);
            write(&path, &read(&path).replace(anchor, instead));
        }
    }

    fn uproot(&self, copy: &Path) {
        for Edit(file, ..) in self.edits {
            write(&copy.join(file), &read(&root().join(file)));
        }
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn write(path: &Path, text: &str) {
    fs::write(path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}
