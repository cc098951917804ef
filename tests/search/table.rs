//! The script that makes a table of meanings, on a list of this project's own making.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::installed::{python, run};

const REQUIREMENTS: &str = "numpy==2.4.6\nscipy==1.17.1\nPyStemmer==3.1.0\n";
const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/search/make_table.py");
const LIST: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/search/list.py");
const WORDS: usize = 400;
const DIMENSIONS: usize = 16;
const HEAD_BYTES: usize = 16;
/// Of the rarities and words of the table of that list. The rows are sums of floats, which another processor may round
/// otherwise in a few places: of them their sense is tested.
const WORDS_HASH: &str = "887f8acb1eb39c7efa1d3ef142355c96ffabee0c52490111e7db7b0023f2d167";

/// A table as it lies in its file.
struct Table {
    bytes: Vec<u8>,
}

impl Table {
    fn rows(&self) -> BTreeMap<&str, Vec<f64>> {
        let rows = self.bytes[HEAD_BYTES..].chunks(DIMENSIONS).take(WORDS);
        let rows = rows.map(|row| row.iter().map(|byte| f64::from(*byte as i8)).collect());
        let text = std::str::from_utf8(&self.bytes[HEAD_BYTES + WORDS * (DIMENSIONS + 1)..]).unwrap();
        text.lines().zip(rows).collect()
    }

    /// The words nearest to one.
    fn nearest(&self, word: &str, count: usize) -> Vec<&str> {
        let rows = self.rows();
        let cosine = |one: &[f64], other: &[f64]| {
            let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
            dot(one, other) / (dot(one, one) * dot(other, other)).sqrt()
        };
        let of = rows[word].clone();
        let mut others: Vec<(f64, &str)> =
            rows.iter().filter(|(it, _)| **it != word).map(|(it, row)| (cosine(&of, row), *it)).collect();
        others.sort_by(|one, other| other.0.total_cmp(&one.0));
        others.into_iter().take(count).map(|(_, word)| word).collect()
    }
}

fn make(python: &Path, folder: &Path, arguments: &[&str]) -> Result<Table, String> {
    let out = folder.join("table.bin");
    let mut command = Command::new(python);
    command.arg(SCRIPT).arg(&out).args(arguments).current_dir(folder);
    let ended = run(&mut command, Duration::from_secs(120));
    if !ended.success {
        return Err(ended.stderr);
    }
    Ok(Table { bytes: fs::read(&out).unwrap() })
}

#[test]
fn the_script_makes_a_table_of_any_list_and_says_what_is_wrong_with_one() {
    let Some(python) = python("search-table", REQUIREMENTS) else { return };
    let folder = tempfile::tempdir().unwrap();
    let listed = run(
        Command::new(&python).arg(LIST).arg("list.tsv").current_dir(folder.path()),
        Duration::from_secs(60),
    );
    assert!(listed.success, "{}", listed.stderr);
    let sized = ["list.tsv", "--words", "400", "--dimensions", "16"];
    let table = make(&python, folder.path(), &sized).unwrap();
    let head = [&b"AOPW\x01\x10\0\0"[..], &(WORDS as u32).to_le_bytes()].concat();
    assert_eq!(table.bytes[..12], head);
    let words = &table.bytes[HEAD_BYTES + WORDS * DIMENSIONS..];
    assert_eq!(data_encoding::HEXLOWER.encode(&Sha256::digest(words)), WORDS_HASH);
    assert_eq!(table.rows().len(), WORDS);
    for (word, trade) in [
        (
            "oven",
            [
                "dough", "flour", "yeast", "crust", "loaf", "sugar", "butter", "knead", "bread", "pastri",
                "cake",
            ],
        ),
        (
            "nurs",
            [
                "patient", "vaccin", "fever", "bandag", "surgeri", "ward", "therapi", "pharmaci", "clinic",
                "puls", "dosag",
            ],
        ),
    ] {
        let near = table.nearest(word, 5);
        assert!(near.iter().filter(|it| trade.contains(it)).count() >= 3, "{word}: {near:?}");
    }
    assert!(
        make(&python, folder.path(), &sized).unwrap().bytes == table.bytes,
        "the same list, the same table"
    );
    for (arguments, said) in [
        (&["nothing.tsv"][..], "cannot read nothing.tsv"),
        (&["list.tsv", "--words", "4000"], "lower --words, or add lists"),
        (&["list.tsv", "--stemmer", "klingon"], "no stemmer is called 'klingon'"),
    ] {
        let error = make(&python, folder.path(), arguments).err().unwrap();
        assert!(error.contains(said), "{error}");
    }
}
