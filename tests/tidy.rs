//! Style is a test: layers, sizes, banned names, module heads, paths named in the docs, version floors.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};

/// Lines of a file before its tests.
const FILE_LINES_MAX: usize = 600;
/// Lines of a function.
const FUNCTION_LINES_MAX: usize = 70;
/// Characters of a line.
const LINE_CHARS_MAX: usize = 130;

/// The lowest versions without a known remote crash or memory exhaustion. An advisory database does not list all of
/// these, so an audit alone would stay green on a node that one message can stop.
const VERSION_FLOORS: &[(&str, [u64; 3])] = &[
    ("libp2p", [0, 57, 1]),
    ("libp2p-gossipsub", [0, 50, 1]),
    ("libp2p-quic", [0, 13, 1]),
    ("quinn-proto", [0, 11, 15]),
    ("yamux", [0, 14, 1]),
    ("ed25519-dalek", [3, 0, 0]),
    ("sled", [0, 34, 7]),
    ("idna", [1, 0, 3]),
    ("rmcp", [3, 11, 0]),
];

/// What a layer must not name: folder or file, then the forbidden texts.
const LAYERS: &[(&str, &[&str])] = &[
    (
        "src/proto",
        &[
            "tokio",
            "libp2p::",
            "sled",
            "std::fs",
            "std::net",
            "std::thread",
            "SystemTime",
            "Instant",
            "async ",
            "HashMap",
            "rand::rng()",
            "thread_rng",
            "crate::net",
            "crate::sim",
            "crate::lab",
            "crate::api",
            "crate::http",
            "crate::mcp",
            "crate::agents",
            "crate::cli",
        ],
    ),
    (
        "src/sim",
        &[
            "tokio",
            "libp2p::",
            "sled",
            "std::net",
            "SystemTime",
            "HashMap",
            "crate::net",
            "crate::api",
            "crate::lab",
        ],
    ),
    (
        "src/lab",
        &["tokio", "libp2p::", "sled", "std::net", "SystemTime", "HashMap", "crate::net", "crate::api"],
    ),
    ("src/net", &["crate::sim", "crate::lab", "crate::http", "crate::mcp", "crate::cli"]),
    (
        "src/document",
        &["crate::net", "crate::agents", "crate::sim", "crate::http", "crate::cli", "tokio", "libp2p::"],
    ),
    ("src/agents", &["crate::net", "crate::sim", "crate::http", "crate::mcp", "crate::cli", "libp2p::"]),
    ("src/http", &["proto::node", "net::swarm", "net::store", "net::driver", "crate::sim"]),
    (
        "src/mcp",
        &[
            "proto::node",
            "net::swarm",
            "net::store",
            "net::driver",
            "crate::sim",
            "crate::http",
            "crate::cli",
        ],
    ),
    ("src/cli", &["proto::node", "net::swarm", "net::store", "net::driver"]),
    ("src/api.rs", &["crate::"]),
];

const BANNED_NAMES: &[&str] = &["utils", "util", "common", "helpers", "helper", "manager", "misc", "mod"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn files(folder: &str, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![root().join(folder)];
    while let Some(folder) = open.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for entry in entries {
            let path = entry.unwrap().path();
            if path.is_dir() && path.file_name().is_none_or(|name| name != "target") {
                open.push(path);
            } else if path.extension().is_some_and(|it| it == extension) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn sources() -> Vec<(String, String)> {
    ["src", "tests", "benches", "simulations"]
        .into_iter()
        .flat_map(|folder| files(folder, "rs"))
        .map(|path| {
            (path.strip_prefix(root()).unwrap().display().to_string(), fs::read_to_string(&path).unwrap())
        })
        .collect()
}

/// The part of a file before its unit tests.
fn before_tests(text: &str) -> &str {
    text.split("#[cfg(test)]").next().unwrap_or(text)
}

fn report(problems: Vec<String>) {
    assert!(problems.is_empty(), "\n{}\n", problems.join("\n"));
}

#[test]
fn every_file_says_what_it_is() {
    let silent = sources().into_iter().filter(|(_, text)| !text.starts_with("//!"));
    report(silent.map(|(path, _)| format!("{path}: begins without //!")).collect());
}

#[test]
fn files_and_functions_stay_small() {
    let mut problems = Vec::new();
    for (path, text) in sources() {
        let lines = before_tests(&text).lines().count();
        if path.contains("src/") && lines > FILE_LINES_MAX {
            problems.push(format!("{path}: {lines} lines before its tests, at most {FILE_LINES_MAX}"));
        }
        for (number, length) in long_functions(&text) {
            problems
                .push(format!("{path}:{number}: a function of {length} lines, at most {FUNCTION_LINES_MAX}"));
        }
        for (number, line) in text
            .lines()
            .enumerate()
            .filter(|(_, line)| line.chars().count() > LINE_CHARS_MAX && !line.starts_with("//! |"))
        {
            problems.push(format!("{path}:{}: {} characters", number + 1, line.chars().count()));
        }
    }
    report(problems);
}

/// Line and length of each function that is too long. Formatted code closes a function at its own indentation.
fn long_functions(text: &str) -> Vec<(usize, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut long = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        let code = line.trim_start();
        let indent = line.len() - code.len();
        let head = code.trim_start_matches("pub ").trim_start_matches("async ").trim_start_matches("const ");
        let head =
            head.split_once(") ").filter(|(it, _)| it.starts_with("pub(")).map_or(head, |(_, rest)| rest);
        if !head.trim_start_matches("async ").starts_with("fn ") || line.ends_with(';') {
            continue;
        }
        let close = format!("{}}}", " ".repeat(indent));
        let length = lines[start..].iter().position(|line| **line == close).unwrap_or(0);
        if length > FUNCTION_LINES_MAX {
            long.push((start + 1, length));
        }
    }
    long
}

#[test]
fn layers_use_only_what_lies_below() {
    let mut problems = Vec::new();
    for (path, text) in sources() {
        for (layer, forbidden) in LAYERS {
            if !(path.starts_with(&format!("{layer}/")) || path == format!("{layer}.rs") || path == *layer) {
                continue;
            }
            let code = before_tests(&text).lines().enumerate().filter(|(_, line)| !is_comment(line));
            for (number, line) in code {
                for word in forbidden.iter().filter(|word| line.contains(**word)) {
                    problems.push(format!("{path}:{}: {layer} must not use `{word}`", number + 1));
                }
            }
        }
    }
    report(problems);
}

fn is_comment(line: &str) -> bool {
    line.trim_start().starts_with("//")
}

#[test]
fn names_say_what_a_file_holds() {
    let banned = |path: &String| {
        Path::new(path)
            .file_stem()
            .and_then(|stem| stem.to_str())
            .is_some_and(|stem| BANNED_NAMES.contains(&stem))
    };
    let banned = sources().into_iter().map(|(path, _)| path).filter(banned);
    report(banned.map(|path| format!("{path}: a name that says nothing")).collect());
}

#[test]
fn nothing_is_silenced_left_open_or_bound_to_one_machine() {
    let silenced = format!("#[{}(", "allow");
    let open = ["TODO", "FIXME", "XXX"].map(|mark| format!("{mark}:"));
    let elsewhere = [format!("/{}/main", "work"), format!("../{}/", "shared")];
    let mut problems = Vec::new();
    for (path, text) in sources() {
        for (number, line) in text.lines().enumerate() {
            let marks = std::iter::once(&silenced).chain(&open).chain(&elsewhere);
            for mark in marks.filter(|mark| line.contains(*mark)) {
                problems.push(format!("{path}:{}: {mark}", number + 1));
            }
        }
    }
    report(problems);
}

#[test]
fn paths_named_in_docs_and_help_texts_exist() {
    let mut problems = Vec::new();
    let pages =
        [("docs", "md"), ("simulations", "md"), ("src/cli/args", "rs"), ("simulations/mesh/src", "rs")];
    let pages = pages.into_iter().flat_map(|(folder, extension)| files(folder, extension));
    for page in pages.chain([root().join("README.md")]) {
        let text = fs::read_to_string(&page).unwrap();
        for word in text.split(['`', '(', ')', ' ', '\n', '\\', '"', ',']) {
            let word = word.trim_end_matches(['.', ':', ';']);
            let names_a_file = ["src/", "tests/", "docs/", "benches/", "simulations/"]
                .iter()
                .any(|top| word.starts_with(top))
                && !word.contains(['*', '{', '…']);
            let file = word.split('#').next().unwrap_or(word);
            if names_a_file && !root().join(file).exists() && !page.with_file_name(file).exists() {
                problems.push(format!("{}: names {word}, which does not exist", page.display()));
            }
        }
    }
    report(problems);
}

#[test]
fn dependencies_are_not_older_than_their_last_known_holes() {
    let lock = fs::read_to_string(root().join("Cargo.lock")).unwrap();
    let mut problems = Vec::new();
    for (name, floor) in VERSION_FLOORS {
        let entries =
            lock.split("[[package]]").filter(|entry| entry.contains(&format!("name = \"{name}\"\n")));
        for entry in entries {
            let version = entry.split("version = \"").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
            let numbers: Vec<u64> =
                version.split(['.', '-']).take(3).map(|part| part.parse().unwrap_or(0)).collect();
            if numbers.as_slice() < floor.as_slice() {
                problems.push(format!("{name} {version} is below {floor:?}"));
            }
        }
    }
    report(problems);
}
