//! `aop completions` and `aop man`: the command line, as shells and readers of manuals want it.

use clap::CommandFactory;

use super::args::{Aop, CompletionsArgs, ManArgs};
use super::failure::{Exit, Failure};
use super::output::write;

/// `aop completions SHELL`, on stdout.
pub(super) fn completions(args: &CompletionsArgs) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Aop::command(), "aop", &mut script);
    write(&String::from_utf8_lossy(&script))?;
    Ok(Exit::Done)
}

/// `aop man --out DIR`: a page for each command.
pub(super) fn man(args: &ManArgs) -> Result<Exit, Failure> {
    clap_mangen::generate_to(Aop::command(), &args.out).map_err(|error| {
        let message = format!("cannot write manual pages to {}: {error}", args.out.display());
        Failure::new(Exit::Failure, message, "name a folder that is there")
    })?;
    Ok(Exit::Done)
}
