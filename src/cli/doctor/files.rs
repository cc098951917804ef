//! Checks of the data folder, of the files in it, and of agents' files.

use std::fmt::Display;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use super::examined::{Answer, Examined, advice};
use crate::agents::command::missing_programs;
use crate::agents::files::list;
use crate::api::Finding;
use crate::config::Settings;
use crate::document::AgentFile;
use crate::host::{FLOOR_BYTES, Holder, free_bytes};
use crate::http::Token;
use crate::key_file::{KeyError, read_key};
use crate::private_file::check_folder;

/// Free bytes below which it is told before it is felt: a full zone and its journal take as much.
const FREE_BYTES_MIN: u64 = 256 * 1024 * 1024;
/// Findings of agents' files that are told; of more, how many.
const AGENT_FINDINGS_MAX: usize = 20;

/// Whether the folder is there, and its user's alone.
pub(super) fn folder(_: &Examined, settings: &Settings) -> Vec<Finding> {
    let path = &settings.data_dir;
    vec![match fs::metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => absent(path),
        Err(error) => Finding::fail(
            format!("cannot look at {}: {error}", path.display()),
            "run this as the user of the node, or correct the modes of the folders above",
        ),
        Ok(folder) if !folder.is_dir() => {
            Finding::fail(format!("{} is no folder", path.display()), "give another with --data-dir DIR")
        }
        Ok(folder) => match (check_folder(path, &folder), is_writable(path)) {
            (Err(error), _) => advised(&error),
            (Ok(()), false) => Finding::fail(
                format!("this user cannot write to {}", path.display()),
                "run the node, and this, as the owner of the folder, or give another with --data-dir DIR",
            ),
            (Ok(()), true) => Finding::ok(format!("nobody else can write to {}", path.display())),
        },
    }]
}

/// Whether there is room.
pub(super) fn free_space(_: &Examined, settings: &Settings) -> Vec<Finding> {
    let Some(free) = free_bytes(&settings.data_dir) else { return vec![absent(&settings.data_dir)] };
    let evidence = format!("{} MiB are free", free >> 20);
    let fix = "make room, or move the data folder to a larger disk";
    vec![match free {
        ..FLOOR_BYTES => Finding::fail(format!("{evidence}: records of others are not kept"), fix),
        FLOOR_BYTES..FREE_BYTES_MIN => Finding::warn(evidence, fix),
        _ => Finding::ok(evidence),
    }]
}

/// Whether what is written there stays.
#[cfg(target_os = "linux")]
pub(super) fn file_system(_: &Examined, settings: &Settings) -> Vec<Finding> {
    /// Those that are known to be none for a data folder, by their magic number, with what they lack.
    const UNFIT: &[(i128, &str, &str)] = &[
        (0x0102_1994, "tmpfs", "what is written is gone at the next boot"),
        (0x8584_58f6, "ramfs", "what is written is gone at the next boot"),
        (0x6969, "NFS", "locks and writes of a network are not those of a disk"),
        (0xff53_4d42, "CIFS", "locks and writes of a network are not those of a disk"),
        (0xfe53_4d42, "SMB", "locks and writes of a network are not those of a disk"),
    ];
    let Ok(told) = rustix::fs::statfs(&settings.data_dir) else { return vec![absent(&settings.data_dir)] };
    // The type differs by architecture, and some are signed.
    let kind = i128::from(told.f_type) & 0xffff_ffff;
    vec![match UNFIT.iter().find(|(magic, ..)| *magic == kind) {
        Some((_, name, why)) => Finding::warn(
            format!("{} lies on {name}: {why}", settings.data_dir.display()),
            "give a folder on a disk of this machine with --data-dir DIR",
        ),
        None => Finding::ok("neither in memory nor on a network"),
    }]
}

#[cfg(not(target_os = "linux"))]
pub(super) fn file_system(_: &Examined, _: &Settings) -> Vec<Finding> {
    vec![Finding::skip("this system is not asked")]
}

/// Whether there is a key, and nobody else can read it.
pub(super) fn key(_: &Examined, settings: &Settings) -> Vec<Finding> {
    vec![match read_key(&settings.identity) {
        Ok(identity) => Finding::ok(format!("{} is of {}", settings.identity.display(), identity.key())),
        Err(KeyError::Missing(path)) => absent(&path),
        Err(KeyError::Unreadable(path, error)) if error.kind() == ErrorKind::NotADirectory => absent(&path),
        Err(error) => advised(&error),
    }]
}

/// Whether the token of the HTTP API can be read, and by nobody else.
pub(super) fn token(_: &Examined, settings: &Settings) -> Vec<Finding> {
    let Some(path) = &settings.http_token_file else {
        return vec![Finding::skip("the HTTP API asks for no token")];
    };
    vec![match Token::read(path) {
        Ok(_) => Finding::ok(format!("{} holds one, and nobody else can read it", path.display())),
        Err(error) => advised(&error),
    }]
}

/// Who uses the folder.
pub(super) fn lock(examined: &Examined, settings: &Settings) -> Vec<Finding> {
    let (folder, url) = (settings.data_dir.display(), examined.client.base());
    let pid = match &examined.holder {
        Err(error) if error.kind() == ErrorKind::NotADirectory => return vec![absent(&settings.data_dir)],
        Err(error) => {
            return vec![Finding::fail(
                format!("cannot look at the lock in {folder}: {error}"),
                "run this as the user of the node",
            )];
        }
        Ok(None) => return vec![Finding::skip(format!("no node has used {folder} yet"))],
        Ok(Some(Holder::Nobody)) => return vec![unheld(examined, &folder)],
        Ok(Some(Holder::Process(pid))) => *pid,
    };
    let process = pid.map_or_else(|| "a process".into(), |pid| format!("process {pid}"));
    let ready = examined.ready.as_ref();
    let finding = match (&examined.answer, ready) {
        _ if pid.is_some_and(|pid| !is_alive(pid)) => Finding::fail(
            format!("{folder} is locked, though {process} of its lock file has ended: another one has it"),
            format!("find it with `fuser {folder}/lock` and end it: no node starts with this folder before"),
        ),
        (Answer::Told { status, .. }, Some(ready)) if status.peer_id == ready.peer_id => {
            Finding::ok(format!("{process} uses {folder}: the node that answers"))
        }
        (Answer::Told { .. }, Some(ready)) => Finding::warn(
            format!("{process} uses {folder}, and the node that answers at {url} is another one"),
            format!("`aop doctor --node {}` asks that of the folder", ready.http),
        ),
        (Answer::Refused(_), Some(ready)) if ready.http == url => {
            Finding::ok(format!("{process} uses {folder}: the node that answers"))
        }
        (Answer::Told { .. } | Answer::Refused(_), None) => Finding::skip(format!(
            "{process} uses {folder}; whether it is the node that answers, `node.json` would tell, which is not there"
        )),
        _ => Finding::fail(
            format!("{process} uses {folder}, and no node of it answers at {url}"),
            "see with `ps` what it is, and end it: no node starts with this folder before",
        ),
    };
    vec![finding]
}

fn unheld(examined: &Examined, folder: &dyn Display) -> Finding {
    match (&examined.answer, &examined.ready) {
        (Answer::Told { .. } | Answer::Refused(_), _) => Finding::skip(format!(
            "the node that answers at {} uses another folder than {folder}: name it with --data-dir DIR",
            examined.client.base()
        )),
        (_, Some(ready)) => {
            let process = ready.pid.map_or_else(|| "a process".into(), |pid| format!("process {pid}"));
            Finding::warn(
                format!("no process uses {folder}, and {process} ended without a goodbye"),
                "start the node: nothing durable is lost; the system's log may say why it ended",
            )
        }
        (_, None) => Finding::ok(format!("no process uses {folder}")),
    }
}

/// What a damaged store left.
pub(super) fn set_aside(_: &Examined, settings: &Settings) -> Vec<Finding> {
    let Ok(entries) = fs::read_dir(&settings.data_dir) else { return vec![absent(&settings.data_dir)] };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut aside: Vec<String> = names.filter(|name| is_set_aside(name)).collect();
    aside.sort();
    if aside.is_empty() {
        return vec![Finding::ok("nothing damaged was ever found")];
    }
    vec![Finding::warn(
        format!("was found damaged and set aside: {}", aside.join(", ")),
        "check the disk; then remove them, for nothing reads them again",
    )]
}

fn is_set_aside(name: &str) -> bool {
    name.rsplit_once(".damaged-").is_some_and(|(_, number)| number.parse::<u64>().is_ok())
}

/// Whether agents' files say what they should, and what they start is there.
pub(super) fn agents(_: &Examined, settings: &Settings) -> Vec<Finding> {
    if settings.agents.is_empty() {
        return vec![Finding::skip("no agents' files are configured")];
    }
    let (mut count, mut findings) = (0, Vec::new());
    for path in &settings.agents {
        let files = match list(path) {
            Ok(files) => files,
            Err(error) => {
                let evidence = format!("cannot look at {}: {error}", path.display());
                findings
                    .push(Finding::fail(evidence, "correct its mode, or run this as the user of the node"));
                continue;
            }
        };
        if !path.exists() {
            let evidence = format!("{} does not exist", path.display());
            findings.push(Finding::warn(
                evidence,
                "check the name; its agents are offered as soon as it is there",
            ));
        }
        count += files.len();
        findings.extend(files.iter().flat_map(|file| judge(file)));
    }
    let more = findings.len().saturating_sub(AGENT_FINDINGS_MAX);
    if more > 0 {
        findings.truncate(AGENT_FINDINGS_MAX);
        findings.push(Finding::fail(format!("{more} more are wrong"), "`aop config check FILE…` tells all"));
    }
    if findings.is_empty() {
        findings.push(Finding::ok(format!("files: {count}, and the programs that they start are there")));
    }
    findings
}

/// What is wrong with a file. Those of listings start nothing.
fn judge(file: &Path) -> Vec<Finding> {
    if file.extension().is_none_or(|kind| kind != "toml") {
        return Vec::new();
    }
    match AgentFile::read(file) {
        Err(error) => vec![Finding::fail(error.to_string(), advice(&error))],
        Ok(AgentFile { run_config: Some(run_config), .. }) => missing_programs(&run_config)
            .into_iter()
            .map(|missing| {
                Finding::fail(format!("{}: {missing}", file.display()), "install it, or correct the path")
            })
            .collect(),
        Ok(_) => Vec::new(),
    }
}

fn absent(path: &Path) -> Finding {
    Finding::skip(format!("{} is not there yet: the first start makes it", path.display()))
}

/// An error whose one sentence says last what to do.
fn advised(error: &dyn Display) -> Finding {
    let sentence = error.to_string();
    let parts = sentence.rsplit_once("; ").or_else(|| sentence.rsplit_once(": "));
    let (evidence, fix) = parts.unwrap_or((&sentence, "see what it says"));
    Finding::fail(evidence, fix)
}

#[cfg(unix)]
fn is_writable(folder: &Path) -> bool {
    rustix::fs::access(folder, rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK).is_ok()
}

#[cfg(not(unix))]
fn is_writable(_: &Path) -> bool {
    true
}

#[cfg(unix)]
fn is_alive(pid: u32) -> bool {
    let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
    // One of another user cannot be sent a signal, and lives.
    pid.is_none_or(|pid| rustix::process::test_kill_process(pid) != Err(rustix::io::Errno::SRCH))
}

#[cfg(not(unix))]
fn is_alive(_: u32) -> bool {
    true
}
