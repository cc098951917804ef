//! How a command fails: failures that say what, why and what to do next.

use std::io::IsTerminal;

use miette::{Diagnostic, GraphicalReportHandler, GraphicalTheme};

use super::excerpt::Cut;
use super::output::{clean, refuses_colours, shown_text};
use crate::api::{ApiError, ErrorBody};
use crate::proto::code::Code;
pub use crate::proto::code::Exit;

/// Why a command did not do what was asked.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) exit: Exit,
    code: Code,
    message: String,
    fix: String,
    suggestions: Vec<String>,
    /// Whether people were told already.
    is_told: bool,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl Failure {
    pub(super) fn new(exit: Exit, message: impl Into<String>, fix: impl Into<String>) -> Failure {
        let code = match exit {
            Exit::Usage => Code::BadRequest,
            Exit::NotFound => Code::NotFound,
            Exit::Unreachable => Code::Unavailable,
            _ => Code::Failed,
        };
        let (message, fix) = (message.into(), fix.into());
        Failure { exit, code, message, fix, suggestions: Vec::new(), is_told: false }
    }

    /// The same failure under a code that says more than its exit code.
    pub(super) fn coded(self, code: Code) -> Failure {
        Failure { code, ..self }
    }

    /// Its stable code.
    pub(super) fn code(&self) -> Code {
        self.code
    }

    /// For errors whose one sentence already says what to do.
    pub(super) fn plain(exit: Exit, error: &dyn std::fmt::Display) -> Failure {
        Failure::new(exit, error.to_string(), "")
    }

    /// Everything was printed already.
    pub(super) fn already_reported(exit: Exit) -> Failure {
        Failure { is_told: true, ..Failure::new(exit, "", "") }
    }

    /// Something wrong in a file, of which people see the excerpt at once.
    pub(super) fn reported(exit: Exit, diagnostic: &dyn Diagnostic) -> Failure {
        report(diagnostic);
        let fix = diagnostic.help().map(|help| help.to_string()).unwrap_or_default();
        Failure { is_told: true, ..Failure::new(exit, diagnostic.to_string(), fix) }
    }

    /// An error that the node answered.
    pub(super) fn answered(error: ApiError) -> Failure {
        let ApiError { code, message, fix, suggestions } = error;
        Failure { exit: code.exit(), code, message, fix, suggestions, is_told: false }
    }

    /// As a node answers it; none where it says nothing.
    pub(super) fn into_body(self) -> Option<ErrorBody> {
        let Failure { code, message, fix, suggestions, .. } = self;
        (!message.is_empty()).then_some(ErrorBody { error: ApiError { code, message, fix, suggestions } })
    }

    /// Tells people, on stderr.
    pub(super) fn print(&self) {
        if self.is_told {
            return;
        }
        // These say no more than the exit code does.
        let is_plain = matches!(self.code, Code::BadRequest | Code::Unavailable | Code::Failed);
        let code = if is_plain { String::new() } else { format!(" ({})", self.code) };
        eprintln!("error: {}{code}", shown_text(&clean(&self.message)));
        if !self.fix.is_empty() {
            eprintln!("  fix: {}", shown_text(&clean(&self.fix)));
        }
        // The advice names the first.
        if let [_, others @ ..] = self.suggestions.as_slice()
            && !others.is_empty()
        {
            eprintln!("  or: {}", shown_text(&clean(&others.join(", "))));
        }
    }
}

/// Prints a diagnostic with its excerpt on stderr; plain where colours are not wanted.
pub(super) fn report(diagnostic: &dyn Diagnostic) {
    let plain = !wants_colours();
    let theme = if plain { GraphicalTheme::none() } else { GraphicalTheme::unicode() };
    let handler = GraphicalReportHandler::new_themed(theme).with_links(false).with_width(110);
    let mut text = String::new();
    // A report that cannot be drawn is still worth its first line.
    if handler.render_report(&mut text, &Cut::new(diagnostic)).is_err() {
        text = diagnostic.to_string();
    }
    eprintln!("{}", text.trim_end());
}

/// Whether stderr is a terminal whose user has not asked for no colours.
pub(super) fn wants_colours() -> bool {
    !refuses_colours() && std::io::stderr().is_terminal()
}
