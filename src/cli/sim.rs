//! `aop sim`: the simulation harness on the command line.
//!
//! `files` reads scenarios and shows their flaws, `run` plays them, `table` draws what they found, `compare`, `theory`,
//! `replay` and `list` are the other commands.

mod compare;
mod files;
mod list;
mod replay;
mod run;
mod table;
mod theory;

use super::args::SimCommand;
use super::failure::{Exit, Failure};
use super::output::Console;
use crate::lab::results::Results;

/// Runs one of the commands of `aop sim`.
pub(super) fn sim(command: &SimCommand, console: Console) -> Result<Exit, Failure> {
    match command {
        SimCommand::Run(args) => run::run(args, console),
        SimCommand::Compare(args) => compare::compare(args, console),
        SimCommand::Theory(args) => theory::theory(args, console),
        SimCommand::Replay(args) => replay::replay(args, console),
        SimCommand::List(args) => list::list(args, console),
    }
}

/// How results end a command: what must never happen goes before what did not come to pass, and that before what was
/// measured.
fn verdict(results: &Results) -> Exit {
    let mut broken = results.runs.iter().filter_map(|run| run.broken.as_ref());
    // Cloned, because `any` below has to see the first one as well.
    match broken.clone().next() {
        Some(_) if broken.any(|it| !it.progress) => Exit::Checker,
        Some(_) => Exit::Stalled,
        None if results.scenarios.iter().any(|it| !it.met) => Exit::Failure,
        None => Exit::Done,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::results::{Answered, BrokenRun, Run};

    /// Results whose runs broke so, and whose scenarios were met or not.
    fn results(broken: &[Option<bool>], met: &[bool]) -> Results {
        let run = |progress: &Option<bool>| Run {
            broken: progress.map(|progress| BrokenRun { progress, ..BrokenRun::default() }),
            ..Run::default()
        };
        let scenario = |met: &bool| Answered { met: *met, ..Answered::default() };
        Results {
            runs: broken.iter().map(run).collect(),
            scenarios: met.iter().map(scenario).collect(),
            ..Results::default()
        }
    }

    #[test]
    fn the_exit_code_tells_the_worst_that_happened() {
        assert_eq!(verdict(&results(&[None, None], &[true, true])), Exit::Done);
        assert_eq!(verdict(&results(&[None], &[true, false])), Exit::Failure);
        assert_eq!(verdict(&results(&[None, Some(true)], &[false])), Exit::Stalled);
        assert_eq!(verdict(&results(&[Some(true), Some(false)], &[false])), Exit::Checker);
        assert_eq!([Exit::Checker as u8, Exit::Stalled as u8, Exit::Interrupted as u8], [6, 7, 130]);
    }
}
