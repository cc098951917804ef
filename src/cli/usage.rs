//! What was typed: parsed, or refused with what to type instead.

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Command, CommandFactory, Error, Parser};

use super::args::Aop;
use super::failure::{Exit, Failure};
use super::output::print_json;

/// Slips of the keyboard within which a flag is offered for another.
const SLIPS_MAX: usize = 2;

/// Parses what was typed. Help and version are printed, and so is what is wrong; the error is the exit code then.
pub(super) fn parse(typed: &[OsString]) -> Result<Aop, Exit> {
    Aop::try_parse_from(typed).map_err(|error| {
        let error = with_near_flag(error, typed);
        if error.use_stderr() && error.kind() != ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
            tell(&error, typed);
            return Exit::Usage;
        }
        // Help goes to stdout; that of a command that was typed without any arguments to stderr.
        let _gone = error.print();
        if error.use_stderr() { Exit::Usage } else { Exit::Done }
    })
}

/// Prints a failure as the document that a node answers for it, on stdout.
pub(super) fn print_error(failure: Failure) {
    if let Some(body) = failure.into_body() {
        // Where stdout is gone nobody is left to be told.
        let _gone = print_json(&body);
    }
}

/// Whether errors are read by a program.
pub(super) fn wants_json(typed: &[OsString]) -> bool {
    let flags = typed.iter().take_while(|it| *it != "--");
    flags.into_iter().any(|it| it == "--json" || it == "--jsonl")
}

fn tell(error: &Error, typed: &[OsString]) {
    if !wants_json(typed) {
        let _gone = error.print();
        return;
    }
    // Its first paragraph says what is wrong; the tips and the usage below it say what to do.
    let text = error.render().to_string();
    let mut parts = text.split("\n\n").map(|part| part.split_whitespace().collect::<Vec<_>>().join(" "));
    let message = parts.next().unwrap_or_default();
    let message = message.strip_prefix("error: ").unwrap_or(&message);
    let fix: Vec<String> = parts.filter(|part| !part.is_empty()).collect();
    print_error(Failure::new(Exit::Usage, message, fix.join("; ")));
}

/// For an unknown flag that is nearly one of the command: the parser offers to take it as a value where it finds none alike.
fn with_near_flag(mut error: Error, typed: &[OsString]) -> Error {
    let Some(ContextValue::String(unknown)) = error.get(ContextKind::InvalidArg) else { return error };
    if error.kind() != ErrorKind::UnknownArgument || error.get(ContextKind::SuggestedArg).is_some() {
        return error;
    }
    let flags = flags(typed);
    let slips = |flag: &String| strsim::osa_distance(flag, unknown);
    let near = flags
        .iter()
        .filter(|flag| slips(flag) <= SLIPS_MAX.min(unknown.len() / 2 - 1))
        .min_by_key(|flag| slips(flag));
    if let Some(near) = near.cloned() {
        error.insert(ContextKind::SuggestedArg, ContextValue::String(near));
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(Vec::new()));
    }
    error
}

/// The long flags of the command that was typed.
fn flags(typed: &[OsString]) -> Vec<String> {
    let aop = Aop::command();
    let mut command: &Command = &aop;
    for word in typed.iter().skip(1).filter_map(|word| word.to_str()) {
        command = command.find_subcommand(word).unwrap_or(command);
    }
    command.get_arguments().filter_map(|it| it.get_long()).map(|long| format!("--{long}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(line: &str) -> Vec<OsString> {
        line.split(' ').map(OsString::from).collect()
    }

    fn refused(line: &str) -> String {
        let typed = typed(line);
        with_near_flag(Aop::try_parse_from(&typed).unwrap_err(), &typed).to_string()
    }

    #[test]
    fn a_slip_in_a_flag_is_told_and_not_taken_for_a_value() {
        for (line, flag) in [
            ("aop find --tga x", "'--tag'"),
            ("aop find x --zoen acme.org", "'--zone'"),
            ("aop call x --taks y", "'--task'"),
            ("aop status --jsno", "'--json'"),
        ] {
            let told = refused(line);
            assert!(told.contains(flag) && !told.contains("as a value"), "{told}");
        }
        assert!(!refused("aop find --xyzzy").contains("similar"), "{}", refused("aop find --xyzzy"));
    }

    #[test]
    fn json_is_wanted_where_it_is_a_flag() {
        assert!(wants_json(&typed("aop find x --json")) && wants_json(&typed("aop watch --jsonl")));
        assert!(!wants_json(&typed("aop find -- --json")) && !wants_json(&typed("aop find json")));
    }
}
