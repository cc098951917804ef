//! How a command fails: failures that say what, why and what to do next.

use std::io::IsTerminal;

use miette::{Diagnostic, GraphicalReportHandler, GraphicalTheme};

use super::excerpt::Cut;
use super::output::clean;
use crate::api::ApiError;
pub use crate::proto::code::Exit;

/// Why a command did not do what was asked.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) exit: Exit,
    message: String,
    fix: String,
    suggestions: Vec<String>,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl Failure {
    pub(super) fn new(exit: Exit, message: impl Into<String>, fix: impl Into<String>) -> Failure {
        Failure { exit, message: message.into(), fix: fix.into(), suggestions: Vec::new() }
    }

    /// For errors whose one sentence already says what to do.
    pub(super) fn plain(exit: Exit, error: &dyn std::fmt::Display) -> Failure {
        Failure::new(exit, error.to_string(), "")
    }

    /// Everything was printed already.
    pub(super) fn already_reported(exit: Exit) -> Failure {
        Failure::new(exit, "", "")
    }

    /// An error that the node answered.
    pub(super) fn answered(error: ApiError) -> Failure {
        let message = format!("{} ({})", error.message, error.code);
        Failure { exit: error.code.exit(), message, fix: error.fix, suggestions: error.suggestions }
    }

    /// Prints it on stderr.
    pub(super) fn print(&self) {
        if self.message.is_empty() {
            return;
        }
        eprintln!("error: {}", clean(&self.message));
        if !self.suggestions.is_empty() {
            eprintln!("suggestions: {}", clean(&self.suggestions.join(", ")));
        }
        if !self.fix.is_empty() {
            eprintln!("  fix: {}", clean(&self.fix));
        }
    }
}

/// Prints a diagnostic with its excerpt on stderr; plain where colours are not wanted.
pub(super) fn report(diagnostic: &dyn Diagnostic) {
    let plain =
        std::env::var_os("NO_COLOR").is_some_and(|set| !set.is_empty()) || !std::io::stderr().is_terminal();
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
    let refused = std::env::var_os("NO_COLOR").is_some_and(|set| !set.is_empty());
    !refused && std::io::stderr().is_terminal()
}
