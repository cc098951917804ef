//! The store after damage of its files (promise P2): whatever is broken in one part, opening ends, every durable row
//! comes back from the other part, nothing is returned that was not written, and the next start finds the own rows whole.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use aop::net::store::{Authenticated, JournalState, Loaded, Store, Write};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

const OWN: usize = 300;
const OTHERS: usize = 3_000;
/// sled is given up after 10 s without progress; the rest is work.
const OPEN_MAX: Duration = Duration::from_secs(25);

/// A whole folder that the tests copy: own rows and replicas, in two runs, some overwritten.
fn template() -> &'static Path {
    static TEMPLATE: OnceLock<tempfile::TempDir> = OnceLock::new();
    let dir = TEMPLATE.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        for round in 0..2 {
            let (mut store, _) = Store::open(dir.path()).unwrap();
            for batch in batches(round) {
                store.write(batch).unwrap();
            }
            store.close().unwrap();
        }
        dir
    });
    dir.path()
}

fn batches(round: usize) -> Vec<Vec<Write>> {
    let own = (0..OWN).filter(|index| round == 0 || index % 3 == 0);
    let own = own.map(|index| (format!("own {index:04}"), true, index));
    let others = (0..OTHERS).filter(|index| round == 0 || index % 3 == 0);
    let others = others.map(|index| (format!("other {index:04}"), false, index));
    let write = |(key, durable, index): (String, bool, usize)| Write {
        value: Some(value(&key, round, index).into()),
        key: key.into_bytes(),
        durable,
    };
    let all: Vec<_> = own.chain(others).map(write).collect();
    all.chunks(50).map(<[Write]>::to_vec).collect()
}

fn value(key: &str, round: usize, index: usize) -> Vec<u8> {
    let mut rng = ChaCha8Rng::seed_from_u64(index as u64);
    let mut value = format!("{key} {round} ").into_bytes();
    value.extend((0..500 + index % 1000).map(|_| rng.random::<u8>()));
    value
}

fn newest(key: &str, index: usize) -> Vec<u8> {
    value(key, usize::from(index.is_multiple_of(3)), index)
}

/// What a case found, for the table that is printed.
struct Outcome {
    codes: Vec<&'static str>,
    journal: JournalState,
    others: usize,
    authenticated: Authenticated,
}

/// Damages a copy of the template and opens it twice.
fn open_damaged(case: &str, damage: impl FnOnce(&Path)) -> Outcome {
    let dir = tempfile::tempdir().unwrap();
    copy(template(), dir.path());
    damage(dir.path());
    let started = Instant::now();
    let (mut store, loaded) = Store::open(dir.path()).unwrap_or_else(|error| panic!("{case}: {error}"));
    let took = started.elapsed();
    assert!(took < OPEN_MAX, "{case}: took {took:?}");
    let others = judge_rows(case, &loaded);
    let codes = loaded.incidents.iter().map(|incident| incident.code.text()).collect();
    println!("{case:45} {took:>9.0?} {:?} {codes:?} others {others}/{OTHERS}", loaded.journal);
    let authenticated = match loaded.rows.iter().all(|row| row.authenticated == Authenticated::Yes) {
        true => Authenticated::Yes,
        false => Authenticated::No,
    };
    let epoch = Write { key: b"epoch".to_vec(), value: Some(vec![1].into()), durable: true };
    store.write(vec![epoch]).unwrap_or_else(|error| panic!("{case}: {error}"));
    store.close().unwrap_or_else(|error| panic!("{case}: {error}"));
    judge_next_start(case, dir.path(), authenticated, others);
    Outcome { codes, journal: loaded.journal, others, authenticated }
}

/// Every own row is there with its newest value, and no row has a value that was never written to its key.
fn judge_rows(case: &str, loaded: &Loaded) -> usize {
    let mut rows = BTreeMap::<&[u8], Vec<&[u8]>>::new();
    for row in &loaded.rows {
        rows.entry(&row.key).or_default().push(&row.value);
    }
    for index in 0..OWN {
        let key = format!("own {index:04}");
        let values = rows.get(key.as_bytes()).unwrap_or_else(|| panic!("{case}: {key} is lost"));
        assert!(values.contains(&&newest(&key, index)[..]), "{case}: {key} is old");
    }
    let written = |key: &str, found: &[u8]| {
        let index = key[key.len() - 4..].parse().unwrap();
        (0..2).any(|round| value(key, round, index) == found)
    };
    for (key, values) in rows.iter().filter(|(key, _)| **key != &b"epoch"[..]) {
        let key = str::from_utf8(key).unwrap();
        assert!(values.iter().all(|found| written(key, found)), "{case}: {key} was never written so");
    }
    rows.keys().filter(|key| key.starts_with(b"other")).count()
}

/// sled may open a damaged data file, yield every row, and notice at the next start; nothing else comes late.
fn judge_next_start(case: &str, dir: &Path, authenticated: Authenticated, others: usize) {
    let (store, loaded) = Store::open(dir).unwrap_or_else(|error| panic!("{case}, next start: {error}"));
    assert_eq!(loaded.journal, JournalState::Whole, "{case}, next start");
    let found = judge_rows(case, &loaded);
    let is_late = |code: &str| case.starts_with("db ") && code.starts_with("sled_");
    if loaded.incidents.is_empty() || !loaded.incidents.iter().all(|incident| is_late(incident.code.text())) {
        assert!(
            loaded.incidents.is_empty() || authenticated == Authenticated::No,
            "{case}: {:?}",
            loaded.incidents
        );
        assert_eq!(found, others, "{case}, next start");
    }
    store.close().unwrap();
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn change(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
}

fn snapshot(dir: &Path) -> PathBuf {
    let names = fs::read_dir(dir.join("sled")).unwrap().map(|entry| entry.unwrap().path());
    names.into_iter().find(|path| path.file_name().unwrap().to_string_lossy().starts_with("snap.")).unwrap()
}

fn per_mille(bytes: &[u8], part: usize) -> usize {
    bytes.len() * part / 1000
}

#[test]
fn an_undamaged_copy_is_whole() {
    let outcome = open_damaged("nothing", |_| {});
    assert_eq!((outcome.codes, outcome.journal, outcome.others), (vec![], JournalState::Whole, OTHERS));
    assert_eq!(outcome.authenticated, Authenticated::Yes);
}

#[test]
fn a_cut_data_file_of_sled_costs_no_own_row() {
    for part in [0, 1, 10, 130, 333, 500, 750, 900, 990, 999] {
        let outcome = open_damaged(&format!("db cut to {part} of 1000"), |dir| {
            change(&dir.join("sled/db"), |bytes| bytes.truncate(per_mille(bytes, part)));
        });
        assert_eq!(outcome.journal, JournalState::Whole);
        assert!(!outcome.codes.is_empty() || outcome.others == OTHERS, "db cut to {part}: noticed");
    }
}

#[test]
fn zeroed_pages_of_sled_cost_no_own_row() {
    for part in [0, 50, 200, 400, 600, 800, 950] {
        let outcome = open_damaged(&format!("db zeroed 4 KiB at {part} of 1000"), |dir| {
            change(&dir.join("sled/db"), |bytes| {
                let at = per_mille(bytes, part) / 4096 * 4096;
                let end = (at + 4096).min(bytes.len());
                bytes[at..end].fill(0);
            });
        });
        assert_eq!(outcome.journal, JournalState::Whole);
        assert!(!outcome.codes.is_empty() || outcome.others == OTHERS, "db zeroed at {part}: noticed");
    }
}

#[test]
fn flipped_bytes_of_sled_cost_no_own_row() {
    for seed in 0..12 {
        let outcome = open_damaged(&format!("db 8 bytes flipped, seed {seed}"), |dir| {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            change(&dir.join("sled/db"), |bytes| {
                for _ in 0..8 {
                    let at = rng.random_range(0..bytes.len());
                    bytes[at] ^= 0x55;
                }
            });
        });
        assert_eq!(outcome.journal, JournalState::Whole);
        assert!(!outcome.codes.is_empty() || outcome.others == OTHERS, "db flipped, seed {seed}: noticed");
    }
}

#[test]
fn a_broken_snapshot_of_sled_costs_no_row_at_all() {
    let torn = |part: usize| move |bytes: &mut Vec<u8>| bytes.truncate(per_mille(bytes, part));
    for part in [0, 5, 500, 990] {
        let outcome =
            open_damaged(&format!("snap cut to {part} of 1000"), |dir| change(&snapshot(dir), torn(part)));
        assert_eq!((outcome.codes, outcome.others), (vec!["sled_repaired"], OTHERS));
    }
    let outcome = open_damaged("snap flipped", |dir| change(&snapshot(dir), |bytes| bytes[20] ^= 1));
    assert_eq!((outcome.codes, outcome.others), (vec!["sled_repaired"], OTHERS));
    let outcome = open_damaged("snap missing", |dir| fs::remove_file(snapshot(dir)).unwrap());
    assert_eq!((outcome.codes, outcome.others), (vec![], OTHERS));
    let outcome = open_damaged("stray half-written snap", |dir| {
        fs::write(dir.join("sled/snap.00000000FFFFFFFF.generating"), "half").unwrap();
    });
    assert_eq!((outcome.codes, outcome.others), (vec!["sled_repaired"], OTHERS));
}

#[test]
fn missing_files_of_sled_cost_no_own_row_and_are_noticed() {
    let missing =
        |name: &'static str| move |dir: &Path| fs::remove_file(dir.join("sled").join(name)).unwrap();
    let outcome = open_damaged("conf missing", missing("conf"));
    assert_eq!((outcome.codes, outcome.others), (vec![], OTHERS));
    let outcome = open_damaged("conf empty", |dir| fs::write(dir.join("sled/conf"), "").unwrap());
    assert_eq!((outcome.journal, outcome.others), (JournalState::Whole, OTHERS));
    let outcome = open_damaged("conf garbage", |dir| fs::write(dir.join("sled/conf"), [0xff; 64]).unwrap());
    assert_eq!((outcome.codes, outcome.others), (vec!["sled_repaired"], OTHERS));
    assert!(open_damaged("db missing", missing("db")).codes.contains(&"sled_missing"));
    let outcome = open_damaged("db and snap missing", |dir| {
        fs::remove_file(snapshot(dir)).unwrap();
        missing("db")(dir);
    });
    assert!(outcome.codes.contains(&"sled_missing"));
    let outcome = open_damaged("sled folder missing", |dir| fs::remove_dir_all(dir.join("sled")).unwrap());
    assert!(outcome.codes.contains(&"sled_missing"));
    let outcome = open_damaged("sled is a file", |dir| {
        fs::remove_dir_all(dir.join("sled")).unwrap();
        fs::write(dir.join("sled"), "x").unwrap();
    });
    assert!(outcome.codes.contains(&"sled_damaged"));
}

#[test]
fn whatever_happens_to_the_journal_own_rows_come_back_from_sled_and_it_is_noticed() {
    let journal = |dir: &Path| dir.join("journal");
    let noticed = |case: &str, damage: &dyn Fn(&mut Vec<u8>)| {
        let outcome = open_damaged(case, |dir| change(&journal(dir), damage));
        assert_eq!(
            (outcome.codes, outcome.journal),
            (vec!["journal_damaged"], JournalState::Damaged),
            "{case}"
        );
        assert_eq!(outcome.others, OTHERS, "{case}");
    };
    for part in [0, 1, 300, 700, 990, 999] {
        let cut = |bytes: &mut Vec<u8>| bytes.truncate(per_mille(bytes, part));
        noticed(&format!("journal cut to {part} of 1000"), &cut);
    }
    for part in [0, 1, 500, 999] {
        let flip = |bytes: &mut Vec<u8>| {
            let at = per_mille(bytes, part);
            bytes[at] ^= 0x80;
        };
        noticed(&format!("journal flipped at {part} of 1000"), &flip);
        let zero = |bytes: &mut Vec<u8>| {
            let at = per_mille(bytes, part);
            let end = (at + 4096).min(bytes.len());
            bytes[at..end].fill(0);
        };
        noticed(&format!("journal zeroed 4 KiB at {part} of 1000"), &zero);
    }
    let outcome = open_damaged("journal missing", |dir| fs::remove_file(journal(dir)).unwrap());
    assert_eq!((outcome.codes, outcome.journal), (vec!["journal_missing"], JournalState::Damaged));
}

#[test]
fn a_lost_seal_key_costs_no_row_and_no_row_is_trusted() {
    for (case, key) in [("seal key missing", None), ("seal key short", Some("short"))] {
        let outcome = open_damaged(case, |dir| {
            fs::remove_file(dir.join("seal.key")).unwrap();
            key.map(|key| fs::write(dir.join("seal.key"), key).unwrap()).unwrap_or_default();
        });
        assert_eq!((outcome.codes, outcome.journal), (vec!["seal_key_lost"], JournalState::Whole));
        assert_eq!((outcome.others, outcome.authenticated), (OTHERS, Authenticated::No));
    }
}

/// A pipe in the place of its settings makes sled wait for ever.
#[cfg(unix)]
#[test]
fn a_sled_that_hangs_is_given_up_after_ten_seconds() {
    let outcome = open_damaged("sled hangs", |dir| {
        fs::remove_file(dir.join("sled/conf")).unwrap();
        let made = std::process::Command::new("mkfifo").arg(dir.join("sled/conf")).status().unwrap();
        assert!(made.success());
    });
    assert_eq!((outcome.codes, outcome.journal), (vec!["sled_damaged"], JournalState::Whole));
}

#[test]
fn what_is_set_aside_is_bounded() {
    let dir = tempfile::tempdir().unwrap();
    copy(template(), dir.path());
    for _ in 0..4 {
        change(&dir.path().join("journal"), |bytes| bytes[100] ^= 1);
        fs::remove_dir_all(dir.path().join("sled")).unwrap();
        fs::write(dir.path().join("sled"), "no folder").unwrap();
        Store::open(dir.path()).unwrap().0.close().unwrap();
    }
    let names =
        fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut aside: Vec<_> = names.filter(|name| name.contains("damaged")).collect();
    aside.sort();
    assert_eq!(aside, ["journal.damaged-3", "journal.damaged-4", "sled.damaged-3", "sled.damaged-4"]);
}
