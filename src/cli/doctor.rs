//! `aop doctor`: looks at a node and at what it stands on, and says of each thing whether it is well, by what that is seen, and
//! what to do.
//!
//! The checks are two tables: that of the node, which only it can make (`GET /v1/doctor`), and [`ROWS`], made here, also where no
//! node runs. Nothing is written. Each check has a thread of its own, so that a file system or a server that hangs costs the
//! others nothing; what has not answered in time is told as that.

mod answers;
mod examined;
mod files;

use std::io::{IsTerminal, stdout};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use self::examined::{Answer, Examined, Look};
use super::args::DoctorArgs;
use super::failure::{Exit, Failure};
use super::output::{Console, Rows, print_json};
use crate::api::{Check, CheckGroup, CheckStatus, Diagnosis, Finding};
use crate::host;

/// How long the node may take to tell its own half, and that together with the settings and the lock.
const ANSWER_TIME_MAX: Duration = Duration::from_millis(2_000);
const ASKING_TIME_MAX: Duration = Duration::from_millis(2_500);
/// How long everything may take; what runs this is promised 5 s.
const TIME_MAX: Duration = Duration::from_millis(4_500);

/// One check that is made here.
struct Row {
    group: CheckGroup,
    name: &'static str,
    look: Look,
}

const fn row(group: CheckGroup, name: &'static str, look: Look) -> Row {
    Row { group, name, look }
}

const ROWS: &[Row] = &[
    row(CheckGroup::Configuration, "settings", Look::Always(examined::settings)),
    row(CheckGroup::Files, "folder", Look::OfSettings(files::folder)),
    row(CheckGroup::Files, "free_space", Look::OfSettings(files::free_space)),
    row(CheckGroup::Files, "file_system", Look::OfSettings(files::file_system)),
    row(CheckGroup::Files, "key", Look::OfSettings(files::key)),
    row(CheckGroup::Files, "token", Look::OfSettings(files::token)),
    row(CheckGroup::Files, "lock", Look::OfSettings(files::lock)),
    row(CheckGroup::Files, "set_aside", Look::OfSettings(files::set_aside)),
    row(CheckGroup::Node, "answers", Look::Always(answers::answers)),
    row(CheckGroup::Node, "token", Look::Always(answers::token)),
    row(CheckGroup::Node, "version", Look::OfNode(answers::version)),
    row(CheckGroup::Mesh, "bootstrap", Look::OfSettings(answers::bootstrap)),
    row(CheckGroup::Agents, "files", Look::OfSettings(files::agents)),
    row(CheckGroup::Mcp, "handshake", Look::OfNode(answers::mcp_handshake)),
    row(CheckGroup::Mcp, "stateless", Look::OfNode(answers::mcp_stateless)),
    row(CheckGroup::Telemetry, "metrics", Look::OfNode(answers::metrics)),
];

/// Exits 0 where nothing fails, 4 where no node answers and nothing else does, else 5.
pub(super) fn doctor(args: &DoctorArgs, console: Console) -> Result<Exit, Failure> {
    let (began, args, json) = (Instant::now(), args.clone(), args.json);
    let (asked_until, ends) = (began + ASKING_TIME_MAX, began + TIME_MAX);
    let examined = start(move || Examined::look(&args, began + ANSWER_TIME_MAX, ends));
    let examined = examined.recv_timeout(left(asked_until)).map_err(|_| {
        let message = format!("the settings and the data folder gave no answer within {ASKING_TIME_MAX:?}");
        Failure::new(Exit::Failure, message, "look at the file systems that they lie on")
    })??;
    let examined = Arc::new(examined);
    let diagnosis = Diagnosis::of(all_checks(&examined, ends));
    let exit = exit(&diagnosis, &examined.answer);
    if json {
        print_json(&diagnosis)?;
    } else {
        print(&diagnosis)?;
        console.print(&summary(&diagnosis));
    }
    Ok(exit)
}

/// Runs `work` on a thread of its own, which is left behind where it hangs.
fn start<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Receiver<T> {
    let (done, result) = sync_channel(1);
    // Who asked may have stopped waiting.
    thread::spawn(move || _ = done.send(work()));
    result
}

fn left(until: Instant) -> Duration {
    until.saturating_duration_since(Instant::now())
}

/// The checks of both tables.
fn all_checks(examined: &Arc<Examined>, ends: Instant) -> Vec<Check> {
    let begin = |row: &'static Row| {
        let examined = examined.clone();
        (row, start(move || examined.made(row.look)))
    };
    let made_here: Vec<(&Row, Receiver<Vec<Finding>>)> = ROWS.iter().map(begin).collect();
    let mut checks = Vec::new();
    for (row, findings) in made_here {
        let findings = findings.recv_timeout(left(ends)).unwrap_or_else(|_| {
            let fix = "look at what it waits for: a file system or a server that hangs";
            vec![Finding::fail(format!("gave no answer within {TIME_MAX:?}"), fix)]
        });
        checks.extend(findings.into_iter().map(|finding| finding.of(row.group, row.name)));
    }
    match &examined.answer {
        Answer::Told { theirs: Some(theirs), .. } => checks.extend(theirs.checks.iter().cloned()),
        other => {
            let is_made = |check: &Check| {
                checks.iter().any(|made| (made.group, &made.check) == (check.group, &check.check))
            };
            let unmade: Vec<Check> =
                host::unmade_checks(other.why_unmade()).filter(|check| !is_made(check)).collect();
            checks.extend(unmade);
            // Those of the node itself would say more.
            checks.extend(host::limits());
        }
    }
    checks
}

fn exit(diagnosis: &Diagnosis, answer: &Answer) -> Exit {
    let mut failed = diagnosis.checks.iter().filter(|check| check.finding.status == CheckStatus::Fail);
    let is_of_absence = |check: &Check| (check.group, check.check.as_str()) == (CheckGroup::Node, "answers");
    match (diagnosis.verdict, answer) {
        (CheckStatus::Fail, Answer::Nobody(_)) if failed.all(is_of_absence) => Exit::Unreachable,
        (CheckStatus::Fail, _) => Exit::Degraded,
        _ => Exit::Done,
    }
}

/// On a terminal the fix stands below what it mends; for programs each check is one line.
fn print(diagnosis: &Diagnosis) -> Result<(), Failure> {
    let is_terminal = stdout().is_terminal();
    let heads: &[&str] = &["CHECK", "STATUS", "FOUND"];
    let mut rows = Rows::coloured(heads);
    for Check { group, check, finding } in &diagnosis.checks {
        let Finding { status, evidence, fix } = finding;
        let fix = fix.as_deref().unwrap_or_default();
        if is_terminal {
            rows.push([format!("{group} {check}"), status.to_string(), evidence.clone()]);
            if !fix.is_empty() {
                rows.push([String::new(), "fix".into(), fix.to_owned()]);
            }
        } else {
            let cells = [status.text(), group.text(), check, evidence, fix];
            rows.push(cells.map(str::to_owned));
        }
    }
    rows.print()
}

fn summary(diagnosis: &Diagnosis) -> String {
    let count = |status| diagnosis.checks.iter().filter(|check| check.finding.status == status).count();
    let [ok, warn, fail, skip] =
        [CheckStatus::Ok, CheckStatus::Warn, CheckStatus::Fail, CheckStatus::Skip].map(count);
    format!("{}: {fail} failed, {warn} warnings, {ok} ok, {skip} not made", diagnosis.verdict)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_node_is_told_by_its_own_code_only_where_nothing_else_fails() {
        let diagnosis = |failed: &[(CheckGroup, &str)]| {
            let failed = failed.iter().map(|(group, name)| Finding::fail("a", "b").of(*group, name));
            Diagnosis::of(failed.chain([Finding::warn("a", "b").of(CheckGroup::Files, "lock")]).collect())
        };
        let nobody = Answer::Nobody(Finding::fail("a", "b"));
        let (absent, exposed) = ((CheckGroup::Node, "answers"), (CheckGroup::Files, "key"));
        assert_eq!(exit(&diagnosis(&[]), &nobody), Exit::Done);
        assert_eq!(exit(&diagnosis(&[absent]), &nobody), Exit::Unreachable);
        assert_eq!(exit(&diagnosis(&[absent, exposed]), &nobody), Exit::Degraded);
        assert_eq!(exit(&diagnosis(&[absent]), &Answer::Stranger(Finding::fail("a", "b"))), Exit::Degraded);
    }

    #[test]
    fn what_hangs_is_left_behind() {
        let (_never, waits) = sync_channel::<()>(1);
        let result = start(move || waits.recv());
        assert!(result.recv_timeout(Duration::from_millis(10)).is_err());
    }
}
