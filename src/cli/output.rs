//! Writing data: one JSON document, or rows as a table on a terminal and tab-separated elsewhere.

use std::fmt::Write as _;
use std::io::{self, ErrorKind, IsTerminal, Write};

use comfy_table::{Cell, Color, ContentArrangement, Table, presets};
use serde::Serialize;

use super::failure::{Exit, Failure};
pub(super) use crate::sanitize::clean;
use crate::sanitize::is_unseen;

/// Columns below which a terminal's width is not believed: some say 0.
const TABLE_WIDTH_MIN: u16 = 40;
/// Columns taken instead.
const TABLE_WIDTH_DEFAULT: u16 = 110;

/// Console on stderr, silent under `-q`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Console {
    pub(super) quiet: bool,
}

impl Console {
    /// One line for people.
    pub(super) fn print(self, line: &str) {
        if !self.quiet {
            eprintln!("{}", clean(line));
        }
    }

    /// One line that `-q` does not silence: something asked for is not done.
    pub(super) fn warn(self, line: &str) {
        eprintln!("{}", clean(line));
    }
}

/// The name of an agent as people read it: of the root zone's without the zone.
pub(super) fn shown_name(full: &str) -> &str {
    full.strip_suffix("@.").unwrap_or(full)
}

/// A sentence with names as people read them.
pub(super) fn shown_text(text: &str) -> String {
    let mut parts = text.split("@.");
    let mut shown = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        // No zone begins with a dot, so this one is the root; what goes on with a letter is something else.
        let is_name =
            shown.ends_with(|letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_'));
        let ends = !part.starts_with(|letter: char| letter.is_alphanumeric() || letter == '.');
        shown.push_str(if is_name && ends { "" } else { "@." });
        shown.push_str(part);
    }
    shown
}

/// Rows under their heads.
pub(super) struct Rows {
    heads: &'static [&'static str],
    rows: Vec<Vec<String>>,
    is_coloured: bool,
}

impl Rows {
    pub(super) fn new(heads: &'static [&'static str]) -> Rows {
        Rows { heads, rows: Vec::new(), is_coloured: false }
    }

    /// Rows of which cells that say how something is have its colour on a terminal, unless NO_COLOR is set.
    pub(super) fn coloured(heads: &'static [&'static str]) -> Rows {
        Rows { is_coloured: !refuses_colours(), ..Rows::new(heads) }
    }

    pub(super) fn push(&mut self, row: impl IntoIterator<Item = String>) {
        self.rows.push(row.into_iter().map(|cell| clean(&cell)).collect());
    }

    /// A table with heads on a terminal; otherwise one line a row, tab-separated, without heads.
    pub(super) fn print(self) -> Result<(), Failure> {
        if !io::stdout().is_terminal() {
            // No cell holds a tab or a line break: both became spaces when it was cleaned.
            let lines: String = self.rows.iter().map(|row| row.join("\t") + "\n").collect();
            return write(&lines);
        }
        // Heads with nothing below them would look like an answer.
        if self.rows.is_empty() {
            return Ok(());
        }
        write(&format!("{}\n", self.table().trim_fmt()))
    }

    /// A table with heads for people, beside the data that stdout has.
    pub(super) fn tell(self, console: Console) {
        if !console.quiet && !self.rows.is_empty() {
            eprintln!("{}", self.table().trim_fmt());
        }
    }

    fn cell(&self, text: &str) -> Cell {
        let colour = match text {
            "ok" => Color::Green,
            "warn" => Color::Yellow,
            "fail" => Color::Red,
            "skip" => Color::DarkGrey,
            _ => return Cell::new(indented(text)),
        };
        if self.is_coloured { Cell::new(text).fg(colour) } else { Cell::new(text) }
    }

    fn table(&self) -> Table {
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
        let rows = self.rows.iter().map(|row| row.iter().map(|cell| self.cell(cell)));
        table.set_header(self.heads.to_vec()).add_rows(rows);
        if table.width().is_none_or(|width| width < TABLE_WIDTH_MIN) {
            table.set_width(TABLE_WIDTH_DEFAULT);
        }
        table
    }
}

/// Whether the user has asked for no colours.
pub(super) fn refuses_colours() -> bool {
    std::env::var_os("NO_COLOR").is_some_and(|set| !set.is_empty())
}

/// A cell that keeps its indentation where it is wrapped: a table takes spaces for places to break at.
fn indented(cell: &str) -> String {
    let rest = cell.trim_start_matches(' ');
    format!("{}{rest}", "\u{a0}".repeat(cell.len() - rest.len()))
}

/// Prints one JSON document, indented on a terminal.
pub(super) fn print_json(document: &impl Serialize) -> Result<(), Failure> {
    let text = match io::stdout().is_terminal() {
        true => serde_json::to_string_pretty(document),
        false => serde_json::to_string(document),
    };
    let text = text.map_err(|error| Failure::plain(Exit::Failure, &error))?;
    write(&(escape_unsafe(&text) + "\n"))
}

/// Prints one JSON document on one line.
pub(super) fn print_json_line(document: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string(document).map_err(|error| Failure::plain(Exit::Failure, &error))?;
    write(&(escape_unsafe(&text) + "\n"))
}

/// Prints text of another host as it is, but for what would move the cursor or reorder what is read.
pub(super) fn print_text(text: &str) -> Result<(), Failure> {
    print_part(&format!("{text}\n"))
}

/// As [`print_text`], of a piece of text that goes on.
pub(super) fn print_part(text: &str) -> Result<(), Failure> {
    let kept = |character: &char| matches!(character, '\n' | '\t') || !is_unseen(*character);
    write(&text.chars().filter(kept).collect::<String>())
}

/// Prints one JSON document, indented.
pub(super) fn print_json_indented(document: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(document);
    let text = text.map_err(|error| Failure::plain(Exit::Failure, &error))?;
    write(&(escape_unsafe(&text) + "\n"))
}

/// Writes data; a reader that went away, as `head` does, ends the command quietly and well.
pub(super) fn write(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    // Flushed here, where a failure still has an exit code.
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Err(Failure::already_reported(Exit::Done)),
        Err(error) => Err(Failure::plain(Exit::Failure, &format!("cannot write to stdout: {error}"))),
    }
}

/// The same JSON with unsafe characters as `\u` escapes: they can only stand inside of its strings.
fn escape_unsafe(json: &str) -> String {
    let mut escaped = String::with_capacity(json.len());
    for character in json.chars() {
        // Line ends stand between the parts of indented JSON; inside of texts they are escaped already.
        if character == '\n' || !is_unseen(character) {
            escaped.push(character);
            continue;
        }
        // Escapes of JSON are UTF-16, so a character beyond U+FFFF takes two.
        for unit in character.encode_utf16(&mut [0; 2]) {
            // Writing to a String cannot fail.
            let _ = write!(escaped, "\\u{unit:04x}");
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_zone_is_not_shown_to_people() {
        assert_eq!((shown_name("a@."), shown_name("a@acme.org")), ("a", "a@acme.org"));
        for (text, shown) in [
            ("no agent `a-b@.` is known", "no agent `a-b` is known"),
            ("did you mean a@.? Or b@.", "did you mean a? Or b"),
            ("a@acme.org, a@.", "a@acme.org, a"),
            ("mail x@.org, @. and `@.`", "mail x@.org, @. and `@.`"),
        ] {
            assert_eq!(shown_text(text), shown);
        }
    }

    #[test]
    fn foreign_text_cannot_move_the_cursor() {
        assert_eq!(clean("a\u{1b}[2Jb\u{202e}c\nd\u{9b}e"), "a[2Jbc de");
    }

    #[test]
    fn escaped_json_reads_back_as_the_same_document() {
        let document = serde_json::json!({"text": "a\u{1b}b\u{202e}c\u{9b}\u{e0041}\né"});
        let escaped = escape_unsafe(&serde_json::to_string(&document).unwrap());
        assert!(!escaped.chars().any(is_unseen), "{escaped}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&escaped).unwrap(), document);
    }
}
