//! Style is a test: layers, sizes, banned names, module heads, paths named in the docs, version floors.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Lines of a file before its tests.
const FILE_LINES_MAX: usize = 500;
/// Lines of plain comments for a hundred of code. The codebases that are read with pleasure have 3 to 7.
const COMMENTS_PERCENT_MIN: usize = 2;
/// Methods of a type, over all files of its folder.
const METHODS_MAX: usize = 40;
/// Lines of a function.
const FUNCTION_LINES_MAX: usize = 70;
/// Characters of a line.
const LINE_CHARS_MAX: usize = 130;

/// Days after which the list of advisories is said to be old.
const ADVISORIES_DAYS_MAX: u64 = 183;

/// Modules of `src` that belong together, and which rows above its own they may use.
struct Row {
    name: &'static str,
    /// Each with all below it, but for what another row names.
    holds: &'static [&'static str],
    uses: &'static [&'static str],
}

/// Which way `use` may point, lowest first. A row uses itself and rows above it alone, so no circle can form between rows.
const ARROWS: &[Row] = &[
    Row {
        name: "values",
        holds: &[
            "proto::address_block",
            "proto::ahead",
            "proto::card",
            "proto::code",
            "proto::codec",
            "proto::config",
            "proto::fingerprint",
            "proto::grant",
            "proto::identity",
            "proto::import",
            "proto::limits",
            "proto::verification_cache",
            "proto::message",
            "proto::name",
            "proto::node_name",
            "proto::record",
            "proto::signature",
            "proto::agenda",
            "proto::sorted",
            "proto::time",
            "proto::version",
        ],
        uses: &[],
    },
    Row { name: "search", holds: &["proto::search"], uses: &["values"] },
    Row { name: "registry", holds: &["proto::registry"], uses: &["values"] },
    Row { name: "liveness", holds: &["proto::liveness"], uses: &["values"] },
    Row {
        name: "seam",
        holds: &[
            "proto::alert",
            "proto::arrival",
            "proto::ask",
            "proto::io",
            "proto::persistence",
            "proto::query",
            "proto::registration",
        ],
        uses: &["values", "search", "liveness"],
    },
    Row { name: "calls", holds: &["proto::call", "proto::task"], uses: &["values", "liveness"] },
    Row { name: "sync", holds: &["proto::sync"], uses: &["values", "registry"] },
    Row {
        name: "machines",
        holds: &[
            "proto::backlog",
            "proto::clock",
            "proto::context",
            "proto::directory",
            "proto::forks",
            "proto::links",
            "proto::overlay",
            "proto::own_records",
            "proto::owners",
            "proto::resolver",
            "proto::zone",
        ],
        uses: &["values", "search", "registry", "liveness", "sync", "seam"],
    },
    Row { name: "node", holds: &["proto"], uses: &["values", "search", "sync", "seam", "machines"] },
    Row { name: "sim", holds: &["sim"], uses: &["values", "registry", "seam", "calls", "machines", "node"] },
    Row { name: "lab", holds: &["lab"], uses: &["values", "registry", "seam", "machines", "sim"] },
    Row { name: "sanitize", holds: &["sanitize"], uses: &[] },
    Row { name: "telemetry", holds: &["telemetry"], uses: &["sanitize", "values", "seam", "calls"] },
    Row { name: "text", holds: &["api"], uses: &["values", "calls"] },
    Row { name: "files", holds: &["private_file"], uses: &[] },
    Row { name: "keys", holds: &["grant_file", "key_file"], uses: &["values", "files"] },
    Row { name: "addresses", holds: &["net::addresses"], uses: &["values"] },
    Row { name: "settings", holds: &["config"], uses: &["values", "keys", "addresses"] },
    Row { name: "documents", holds: &["document"], uses: &["sanitize", "values"] },
    Row { name: "a2a", holds: &["a2a"], uses: &[] },
    Row {
        name: "agents",
        holds: &["agents"],
        uses: &["values", "seam", "calls", "keys", "addresses", "documents", "a2a", "telemetry"],
    },
    Row { name: "import", holds: &["import"], uses: &["values", "addresses", "documents", "agents"] },
    Row {
        name: "net",
        holds: &["net"],
        uses: &[
            "sanitize",
            "telemetry",
            "values",
            "search",
            "liveness",
            "seam",
            "calls",
            "machines",
            "node",
            "files",
            "addresses",
            "documents",
            "agents",
        ],
    },
    Row {
        name: "host",
        holds: &["host"],
        uses: &[
            "telemetry",
            "values",
            "search",
            "liveness",
            "seam",
            "calls",
            "machines",
            "node",
            "text",
            "files",
            "addresses",
            "documents",
            "agents",
            "import",
            "net",
        ],
    },
    Row {
        name: "mcp",
        holds: &["mcp"],
        uses: &["sanitize", "values", "calls", "search", "text", "documents", "telemetry", "agents", "host"],
    },
    Row {
        name: "http",
        holds: &["http"],
        uses: &["values", "calls", "text", "files", "documents", "a2a", "telemetry", "agents", "host", "mcp"],
    },
    Row {
        name: "cli",
        holds: &["cli"],
        uses: &[
            "sanitize",
            "values",
            "lab",
            "text",
            "files",
            "keys",
            "settings",
            "documents",
            "telemetry",
            "agents",
            "host",
            "mcp",
            "http",
        ],
    },
];

/// What a layer must not name anywhere: folder or file, then the forbidden texts.
const FORBIDDEN: &[(&str, &[&str])] = &[
    (
        "src/proto",
        &[
            "tokio",
            "libp2p::",
            "sled::",
            "std::fs",
            "std::net",
            "std::thread",
            "SystemTime",
            "Instant",
            "async ",
            "HashMap",
            "rand::rng()",
            "thread_rng",
        ],
    ),
    ("src/sim", &["tokio", "libp2p::", "sled::", "std::net", "SystemTime", "HashMap"]),
    ("src/lab", &["tokio", "libp2p::", "sled::", "std::net", "SystemTime", "HashMap"]),
    ("src/document", &["tokio", "libp2p::"]),
    ("src/agents", &["libp2p::"]),
];

/// What lies at the top of the repository, beside what a build and git keep there. Everything else has a folder.
const TOP: &[&str] = &[
    ".ci",
    ".clippy.toml",
    ".gitignore",
    ".rustfmt.toml",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "README.md",
    "benches",
    "docs",
    "examples",
    "simulations",
    "src",
    "tests",
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
    ["src", "tests", "benches", "examples", "simulations"]
        .into_iter()
        .flat_map(|folder| files(folder, "rs"))
        .map(|path| {
            (path.strip_prefix(root()).unwrap().display().to_string(), fs::read_to_string(&path).unwrap())
        })
        .collect()
}

/// The part of a file before its unit tests, which stand last.
fn before_tests(text: &str) -> &str {
    let starts = ["mod tests {", "pub(super) mod tests {"].map(|head| format!("\n#[cfg(test)]\n{head}"));
    let end = starts.iter().filter_map(|start| text.find(start)).min();
    &text[..end.unwrap_or(text.len())]
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
        if !is_function(code) || line.ends_with(';') {
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

/// Where order matters, a number was chosen or a simpler way fails, a sentence says why. Documentation does not count.
#[test]
fn comments_say_why() {
    let sources: String = sources()
        .iter()
        .filter(|(path, _)| path.starts_with("src/"))
        .map(|(_, text)| before_tests(text).to_owned() + "\n")
        .collect();
    let is_documentation = |line: &str| line.starts_with("///") || line.starts_with("//!");
    let lines =
        sources.lines().map(str::trim_start).filter(|line| !line.is_empty() && !is_documentation(line));
    let (comments, code): (Vec<&str>, Vec<&str>) = lines.partition(|line| line.starts_with("//"));
    let least = code.len() * COMMENTS_PERCENT_MIN / 100;
    assert!(
        comments.len() >= least,
        "{} lines of comments for {} of code, fewer than {least}",
        comments.len(),
        code.len()
    );
}

/// Whether a line without its indentation is the head of a function.
fn is_function(code: &str) -> bool {
    let head = code.trim_start_matches("pub ").trim_start_matches("async ").trim_start_matches("const ");
    let head = head.split_once(") ").filter(|(it, _)| it.starts_with("pub(")).map_or(head, |(_, rest)| rest);
    head.trim_start_matches("async ").starts_with("fn ")
}

#[test]
fn no_type_does_everything() {
    let mut methods: BTreeMap<(String, String), usize> = BTreeMap::new();
    for (path, text) in sources() {
        let folder = path.trim_end_matches(".rs").split('/').take(3).collect::<Vec<_>>().join("/");
        let mut of = None;
        for line in before_tests(&text).lines() {
            match line {
                "}" => of = None,
                _ if line.starts_with("impl") => of = implemented(line).map(str::to_owned),
                _ => {}
            }
            let code = line.strip_prefix("    ").filter(|code| !code.starts_with(' '));
            let is_method = code.is_some_and(is_function);
            if let Some(name) = of.as_ref().filter(|_| is_method) {
                *methods.entry((folder.clone(), name.clone())).or_default() += 1;
            }
        }
    }
    let large = methods.into_iter().filter(|(_, count)| *count > METHODS_MAX);
    report(
        large
            .map(|((at, name), count)| format!("{at}: {name} has {count} methods, at most {METHODS_MAX}"))
            .collect(),
    );
}

/// The type that the first line of an `impl` speaks of; none where it is of a trait.
fn implemented(line: &str) -> Option<&str> {
    let line = line.trim_start_matches("impl");
    let line = if line.starts_with('<') { line.split_once("> ")?.1 } else { line.trim_start() };
    (!line.contains(" for ")).then(|| line.split(['<', ' ']).next().unwrap_or(line))
}

#[test]
fn layers_use_only_what_lies_below() {
    let mut problems = Vec::new();
    for (at, row) in ARROWS.iter().enumerate() {
        let above = |name: &&&str| ARROWS[..at].iter().any(|row| row.name == **name);
        let wrong = row.uses.iter().filter(|name| !above(name));
        problems.extend(wrong.map(|name| format!("{} cannot use {name}, which is not above it", row.name)));
    }
    for (path, text) in sources() {
        let Some(module) = module_of(&path) else { continue };
        let Some(row) = row_of(&module.join("::")) else {
            problems.push(format!("{path}: no row of ARROWS holds it"));
            continue;
        };
        for (number, target) in references(&module, &text) {
            match row_of(&target) {
                Some(used) if used.name == row.name || row.uses.contains(&used.name) => {}
                Some(used) => problems.push(format!(
                    "{path}:{number}: {} must not use {}, which {target} belongs to",
                    row.name, used.name
                )),
                None => problems.push(format!("{path}:{number}: no row of ARROWS holds {target}")),
            }
        }
    }
    report(problems);
}

/// Folders of one folder that need each other all the same: what a scenario may ask for is what is measured and computed,
/// and both speak of the scenario.
const KNIT: &[(&str, &[&str])] = &[("lab", &["measure", "scenario", "theory"])];

#[test]
fn no_two_folders_of_a_folder_need_each_other() {
    let sources = sources();
    let modules: Vec<(Vec<&str>, &String)> =
        sources.iter().filter_map(|(path, text)| module_of(path).map(|module| (module, text))).collect();
    let is_folder =
        |module: &[&str]| modules.iter().any(|(it, _)| it.len() > module.len() && it.starts_with(module));
    let mut needs: BTreeMap<Vec<&str>, BTreeSet<Vec<&str>>> = BTreeMap::new();
    for (module, text) in &modules {
        for (_, target) in references(module, before_tests(text)) {
            let target: Vec<&str> = target.split("::").collect();
            // From the child of a folder to another child of the same, where both are folders themselves.
            let shared = module.iter().zip(&target).take_while(|(a, b)| a == b).count();
            if shared == 0 || module.len() == shared || target.len() == shared {
                continue;
            }
            let (from, to) = (&module[..=shared], &target[..=shared]);
            if let Some((to, _)) =
                modules.iter().find(|(it, _)| it == to).filter(|_| is_folder(from) && is_folder(to))
            {
                needs.entry(from.to_vec()).or_default().insert(to.clone());
            }
        }
    }
    let mut problems = Vec::new();
    for (from, direct) in &needs {
        let (folder, name) = (from[..from.len() - 1].join("::"), from[from.len() - 1]);
        let mut open: Vec<&Vec<&str>> = direct.iter().collect();
        let mut reached = BTreeSet::new();
        while let Some(next) =
            open.pop().filter(|_| !KNIT.iter().any(|(of, who)| *of == folder && who.contains(&name)))
        {
            if reached.insert(next) {
                open.extend(needs.get(next).into_iter().flatten());
            }
        }
        if reached.contains(from) {
            problems.push(format!("src/{}: needs itself by way of its neighbours", from.join("/")));
        }
    }
    report(problems);
}

#[test]
fn layers_name_nothing_of_the_world_outside() {
    let mut problems = Vec::new();
    for (path, text) in sources() {
        for (layer, forbidden) in FORBIDDEN {
            if !(path.starts_with(&format!("{layer}/")) || path == format!("{layer}.rs")) {
                continue;
            }
            for (number, line) in text.lines().enumerate().filter(|(_, line)| !is_comment(line)) {
                for word in forbidden.iter().filter(|word| line.contains(**word)) {
                    problems.push(format!("{path}:{}: {layer} must not use `{word}`", number + 1));
                }
            }
        }
    }
    report(problems);
}

/// The module that a file of `src` is; none for the crate's roots, which name everything.
fn module_of(path: &str) -> Option<Vec<&str>> {
    let module = path.strip_prefix("src/")?.strip_suffix(".rs")?;
    (module != "lib" && module != "main").then(|| module.split('/').collect())
}

/// The row that a module belongs to: the one that names the most of its path.
fn row_of(module: &str) -> Option<&'static Row> {
    let holds = |held: &&&str| module == **held || module.starts_with(&format!("{held}::"));
    let most = |row: &&Row| row.holds.iter().filter(holds).map(|held| held.len()).max();
    ARROWS.iter().filter(|row| most(row).is_some()).max_by_key(most)
}

/// Lines of a file that name something of the crate, and what: whole paths, however they are written.
fn references(module: &[&str], text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    // Within the tests of a file, `super` is the file.
    let mut inner = Vec::new();
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !is_comment(line)) {
        match line {
            "}" => inner.clear(),
            _ if line.ends_with("mod tests {") => inner = vec!["tests"],
            _ => {}
        }
        let mut rest = line;
        while let Some(start) = rest.find("crate::").into_iter().chain(rest.find("super::")).min() {
            let is_visibility = rest[..start].ends_with("pub(in ");
            let written = &rest[start..];
            let end = written.find(|it: char| !(it.is_alphanumeric() || "_:".contains(it)));
            let (written, after) = written.split_at(end.unwrap_or(written.len()));
            rest = after;
            if is_visibility {
                continue;
            }
            let here: Vec<&str> = module.iter().copied().chain(inner.iter().copied()).collect();
            let supers = written.matches("super::").count();
            let from_root = written.starts_with("crate::");
            let base = if from_root { &[][..] } else { &here[..here.len().saturating_sub(supers)] };
            let named = written.trim_start_matches("crate::").replace("super::", "");
            let named = named.split("::").filter(|part| !part.is_empty());
            let target = base.iter().copied().chain(named).collect::<Vec<_>>().join("::");
            found.push((number + 1, target));
        }
    }
    found
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
            let names_a_file = ["src/", "tests/", "docs/", "benches/", "examples/", "simulations/"]
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
fn sections_that_comments_cite_exist() {
    let protocol = fs::read_to_string(root().join("docs/protocol.md")).unwrap();
    let words = format!("{} section ", "protocol");
    let mut problems = Vec::new();
    for (path, text) in sources() {
        for (number, line) in text.lines().enumerate() {
            for cited in line.split(&words).skip(1) {
                let section: String = cited.chars().take_while(char::is_ascii_digit).collect();
                if !protocol.contains(&format!("\n## {section}. ")) {
                    problems
                        .push(format!("{path}:{}: docs/protocol.md has no section {section}", number + 1));
                }
            }
        }
    }
    report(problems);
}

#[test]
fn the_top_of_the_repository_holds_what_belongs_there() {
    let found = fs::read_dir(root()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let found: BTreeSet<String> = found.filter(|name| name != ".git" && name != "target").collect();
    let meant: BTreeSet<String> = TOP.iter().map(|name| (*name).to_owned()).collect();
    let beyond = found.difference(&meant).map(|name| format!("{name} does not belong there"));
    report(beyond.chain(meant.difference(&found).map(|name| format!("{name} is missing"))).collect());
}

/// The lines of `tests/data/advisories.txt` that say something, in their fields.
fn advisories() -> Vec<Vec<String>> {
    let text = fs::read_to_string(root().join("tests/data/advisories.txt")).unwrap();
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(|line| line.split('|').map(|field| field.trim().to_owned()).collect()).collect()
}

/// Every version of a crate in Cargo.lock.
fn locked(lock: &str, name: &str) -> Vec<String> {
    let entries = lock.split("[[package]]").filter(|entry| entry.contains(&format!("name = \"{name}\"\n")));
    let version = |entry: &str| entry.split("version = \"").nth(1)?.split('"').next().map(str::to_owned);
    entries.map(|entry| version(entry).unwrap()).collect()
}

fn numbers(version: &str) -> Vec<u64> {
    version.split(['.', '-', '+']).take(3).map(|part| part.parse().unwrap_or(0)).collect()
}

#[test]
fn dependencies_are_not_older_than_their_last_known_holes() {
    let lock = fs::read_to_string(root().join("Cargo.lock")).unwrap();
    let mut problems = Vec::new();
    for fields in advisories() {
        match &fields.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            ["unmaintained", name, _, _] if locked(&lock, name).is_empty() => {
                problems.push(format!("{name} is gone from Cargo.lock: take it off the list of advisories"));
            }
            ["unmaintained", ..] => {}
            [name, patched, told, what] => {
                let versions = locked(&lock, name);
                if versions.is_empty() {
                    problems
                        .push(format!("{name} is gone from Cargo.lock: take it off the list of advisories"));
                }
                for version in versions.iter().filter(|version| numbers(version) < numbers(patched)) {
                    problems.push(format!("{name} {version} is below {patched} ({told}): {what}"));
                }
            }
            [checked] if checked.starts_with("checked ") => tell_age(checked.trim_start_matches("checked ")),
            other => problems.push(format!("tests/data/advisories.txt: cannot be read: {other:?}")),
        }
    }
    report(problems);
}

/// A list that nobody has looked through for long fails nothing: the day on which it is old is no day on which code got worse.
fn tell_age(checked: &str) {
    let date = numbers(checked);
    let [year, month, day] = date[..] else { panic!("`{checked}` is no date") };
    let days = days_since_1970(year, month, day);
    let today =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() / 86_400;
    let age = today.saturating_sub(days);
    if age > ADVISORIES_DAYS_MAX {
        println!(
            "tests/data/advisories.txt was checked {age} days ago: look through the advisory databases again"
        );
    }
}

/// By the days of each month; a century's leap years matter to nobody here.
fn days_since_1970(year: u64, month: u64, day: u64) -> u64 {
    assert!((2026..2100).contains(&year) && (1..=12).contains(&month) && (1..=31).contains(&day));
    let leap = u64::from(year.is_multiple_of(4));
    let months = [31, 28 + leap, 31, 30, 31, 30, 31, 31, 30, 31, 30];
    let whole_years = (year - 1970) * 365 + (year - 1969) / 4;
    whole_years + months.iter().take(month as usize - 1).sum::<u64>() + day - 1
}

#[test]
fn days_are_counted_as_calendars_do() {
    assert_eq!(days_since_1970(2026, 11, 28), 20_785);
    assert_eq!(days_since_1970(2028, 3, 1) - days_since_1970(2028, 2, 28), 2);
    assert_eq!(days_since_1970(2027, 1, 1) - days_since_1970(2026, 1, 1), 365);
}
