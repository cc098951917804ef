//! From the text of a file to the cells of its sweep, and from a flaw back to its line.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use serde::Deserialize;
use toml::de::{DeTable, DeValue};
use toml::{Table, Value};

use super::check::{self, Wrong};
use super::{Scenario, label, plain};

/// Cells one sweep may make: more are a mistake.
const CELLS_MAX: usize = 1_000;
/// What a sweep may change: the world, and not what is asked of it.
const SWEPT: [&str; 8] = ["network", "protocol", "zone", "workload", "questions", "calls", "fault", "until"];

/// Keys that are lists themselves.
const LISTS: [&str; 4] = ["zone", "fault", "claims", "expect"];

/// What is wrong with a scenario.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Flaw {
    /// What, and what was meant.
    pub message: String,
    /// Bytes of the file, if the flaw is in it and not in a `--set`.
    pub span: Option<Range<usize>>,
}

/// A scenario's file after `--set`: its text is kept to point into.
#[derive(Clone, Debug)]
pub struct Document {
    /// The text.
    pub text: String,
    /// The scenario with its sweep.
    pub scenario: Scenario,
    table: Table,
    settings: Vec<(String, String)>,
}

/// One combination of the values of a sweep.
#[derive(Clone, Debug)]
pub struct Cell {
    /// The swept keys and their values here.
    pub parameters: BTreeMap<String, Value>,
    /// The scenario with these values and without a sweep.
    pub scenario: Scenario,
}

impl Document {
    /// Reads a file's text and sets keys of it, `("network.loss.rate", "0.3")`. Nothing is run. The first flaw is told.
    pub fn read(text: &str, settings: &[(String, String)]) -> Result<Document, Flaw> {
        Document::examine(text, settings).map_err(|mut flaws| flaws.swap_remove(0))
    }

    /// As [`Document::read`], and tells every flaw: an unknown key or a wrong type ends the reading, what a tier cannot do
    /// does not. There is at least one.
    pub fn examine(text: &str, settings: &[(String, String)]) -> Result<Document, Vec<Flaw>> {
        // Read from the text as well as from a table: only so an error has its place in the file.
        let scenario: Scenario = toml::from_str(text).map_err(|error| vec![from_toml(&error)])?;
        let table: Table = toml::from_str(text).map_err(|error| vec![from_toml(&error)])?;
        let original = scenario.clone();
        let mut document = Document { text: text.into(), scenario, table, settings: settings.to_vec() };
        document.apply(settings).map_err(|flaw| vec![flaw])?;
        let flaws = document.flaws(&original);
        if flaws.is_empty() { Ok(document) } else { Err(flaws) }
    }

    /// Every combination of the swept values, the last key fastest; one cell without a sweep.
    pub fn cells(&self) -> Result<Vec<Cell>, Flaw> {
        (0..self.many()).map(|number| self.cell(number)).collect()
    }

    /// The file after `--set`, as TOML: its own text if nothing was set.
    pub fn source(&self) -> String {
        if self.settings.is_empty() { self.text.clone() } else { self.table.to_string() }
    }

    /// How many cells the sweep makes.
    fn many(&self) -> usize {
        self.scenario.sweep.values().fold(1, |many: usize, values| many.saturating_mul(values.len()))
    }

    /// Two settings may need each other, so only the last reading has to succeed; the first that failed is blamed.
    fn apply(&mut self, settings: &[(String, String)]) -> Result<(), Flaw> {
        let mut failed = None;
        for (key, text) in settings {
            let blame = |flaw: Flaw| Flaw { message: format!("--set {key}={text}: {flaw}"), span: None };
            self.set(key, value_of(text)).map_err(blame)?;
            match scenario_of(&self.table) {
                Ok(scenario) => {
                    self.scenario = scenario;
                    failed = None;
                }
                Err(flaw) => failed = failed.or(Some(blame(flaw))),
            }
        }
        failed.map_or(Ok(()), Err)
    }

    /// Sets a key: one that is swept is swept over this value alone, and a list sweeps any key but those that are lists.
    fn set(&mut self, key: &str, value: Value) -> Result<(), Flaw> {
        let first = key.split('.').next().unwrap_or_default();
        if first == "sweep" {
            let message = "a list sweeps the key itself: --set \"network.loss.rate=[0, 0.1]\"".into();
            return Err(Flaw { message, span: None });
        }
        let values = match value {
            Value::Array(values) if !LISTS.contains(&key) => values,
            value if self.scenario.sweep.contains_key(key) => vec![value],
            value => return set(&mut self.table, key, value),
        };
        let mut sweep: Table =
            self.scenario.sweep.iter().map(|(key, values)| (key.clone(), values.clone().into())).collect();
        sweep.insert(key.into(), values.into());
        self.table.insert("sweep".into(), sweep.into());
        Ok(())
    }

    fn flaws(&self, original: &Scenario) -> Vec<Flaw> {
        // Cells are made of a sound sweep alone: a list may be empty, or cells be millions.
        let flaws = self.sweep_flaws();
        if !flaws.is_empty() {
            return flaws;
        }
        let mut told = BTreeSet::new();
        let mut flaws = Vec::new();
        let mut tell = |flaw: Flaw, message: &str| {
            let place = flaw.span.as_ref().map(|span| (span.start, span.end));
            // All cells share most flaws, and each is told once.
            if told.insert((place, message.to_owned())) {
                flaws.push(flaw);
            }
        };
        for number in 0..self.many() {
            match self.cell(number) {
                Err(flaw) => tell(flaw.clone(), &flaw.message),
                Ok(cell) => {
                    for wrong in check::check(&cell.scenario, &cell.parameters) {
                        tell(self.flaw_of_cell(&wrong, number), &wrong.message);
                    }
                }
            }
        }
        for wrong in check::check_places(original) {
            tell(self.flaw(&path_of(&wrong), wrong.message.clone()), &wrong.message);
        }
        flaws
    }

    fn sweep_flaws(&self) -> Vec<Flaw> {
        let mut flaws = Vec::new();
        for (key, values) in &self.scenario.sweep {
            let at = ["sweep", key.as_str()];
            let mut seen = Vec::new();
            let twice = values.iter().find(|value| {
                let again = seen.contains(&plain(value));
                seen.push(plain(value));
                again
            });
            if values.is_empty() {
                flaws.push(self.flaw(&at, format!("`{key}` sweeps over nothing: give it values")));
            } else if !SWEPT.contains(&key.split('.').next().unwrap_or_default()) {
                let message = format!("`{key}` cannot be swept; keys of {} can", SWEPT.join(", "));
                flaws.push(self.flaw(&at, message));
            } else if let Some(twice) = twice {
                flaws.push(self.flaw(&at, format!("`{key}` takes {} twice", plain(twice))));
            }
        }
        if flaws.is_empty() && self.many() > CELLS_MAX {
            let message = format!("the sweep makes {} cells: at most {CELLS_MAX}", self.many());
            flaws.push(self.flaw(&["sweep"], message));
        }
        flaws
    }

    /// Positions in the lists of the sweep that make a cell.
    fn positions(&self, number: usize) -> BTreeMap<&str, usize> {
        let mut rest = number;
        let axes = self.scenario.sweep.iter().rev();
        let positions = axes.map(|(key, values)| {
            // An empty list was refused before.
            let position = rest % values.len();
            rest /= values.len();
            (key.as_str(), position)
        });
        positions.collect()
    }

    fn cell(&self, number: usize) -> Result<Cell, Flaw> {
        let mut table = self.table.clone();
        table.remove("sweep");
        let mut parameters = BTreeMap::new();
        // Read after each value, so that the one that fails is known; the last reading decides.
        let mut read = scenario_of(&table);
        let mut failed = None;
        for (key, position) in self.positions(number) {
            let value = self.scenario.sweep[key][position].clone();
            let position = position.to_string();
            let blame = |flaw: Flaw| {
                // For a key that does not exist its values are not to blame.
                if flaw.message.starts_with("unknown key") {
                    self.flaw(&["sweep", key], flaw.message)
                } else {
                    self.flaw(&["sweep", key, &position], flaw.message)
                }
            };
            set(&mut table, key, value.clone()).map_err(blame)?;
            parameters.insert(key.to_owned(), value);
            read = scenario_of(&table);
            if let Err(flaw) = &read {
                failed = failed.or_else(|| Some(blame(flaw.clone())));
            }
        }
        let scenario = read.map_err(|flaw| failed.unwrap_or(flaw))?;
        Ok(Cell { parameters, scenario })
    }

    /// What is wrong in a cell lies in its `--set`, in a value of the sweep, or in the file.
    fn flaw_of_cell(&self, wrong: &Wrong, number: usize) -> Flaw {
        let dotted = wrong.path.join(".");
        let positions = self.positions(number);
        if let Some((key, text)) = self.settings.iter().find(|(key, _)| is_within(&dotted, key)) {
            return Flaw { message: format!("--set {key}={text}: {}", wrong.message), span: None };
        }
        if let Some((key, position)) = positions.iter().find(|(key, _)| is_within(&dotted, key)) {
            return self.flaw(&["sweep", key, &position.to_string()], wrong.message.clone());
        }
        let parameters = positions.iter().map(|(key, position)| {
            let value = &self.scenario.sweep[*key][*position];
            ((*key).to_owned(), plain(value))
        });
        let parameters: BTreeMap<_, _> = parameters.collect();
        let message = if parameters.is_empty() {
            wrong.message.clone()
        } else {
            format!("{} (where {})", wrong.message, label(&parameters))
        };
        self.flaw(&path_of(wrong), message)
    }

    /// A flaw at a path of keys and positions, as far as the file has it.
    fn flaw(&self, path: &[&str], message: String) -> Flaw {
        Flaw { message, span: span_of(&self.text, path) }
    }
}

fn path_of(wrong: &Wrong) -> Vec<&str> {
    wrong.path.iter().map(String::as_str).collect()
}

/// Whether a dotted path is a key or lies below it.
fn is_within(path: &str, key: &str) -> bool {
    path.strip_prefix(key).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

fn from_toml(error: &toml::de::Error) -> Flaw {
    Flaw { message: with_suggestion(error.message()), span: error.span() }
}

fn scenario_of(table: &Table) -> Result<Scenario, Flaw> {
    let scenario = Scenario::deserialize(table.clone()).map_err(|error| from_toml(&error))?;
    Ok(scenario.dealt())
}

/// "unknown field `fanot`, expected one of `kind`, `fanout`" gets "did you mean `fanout`?".
fn with_suggestion(message: &str) -> String {
    let message = message
        .trim()
        .replace("unknown field", "unknown key")
        .replace("unknown variant", "unknown value")
        .replace("missing field", "missing key")
        .replace("expected a sequence", "expected a list");
    // Every second piece stands in backticks: what was given, then what would have been right.
    let mut words = message.split('`').skip(1).step_by(2);
    let Some(given) = words.next().filter(|_| message.starts_with("unknown")) else { return message };
    match nearest(given, words) {
        Some(meant) => format!("{message}; did you mean `{meant}`?"),
        None => message,
    }
}

/// The word most like a given one, if one is alike.
pub(super) fn nearest<'a>(given: &str, words: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    /// Likeness below which a suggestion is a guess.
    const ALIKE: f64 = 0.75;
    let alike = words.map(|word| (strsim::jaro_winkler(given, word), word));
    alike.filter(|(score, _)| *score >= ALIKE).max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, word)| word)
}

/// A value as it would stand in a file; a word without quotes is a text.
pub(super) fn value_of(text: &str) -> Value {
    // The parser reads documents and no lone values, so it gets one with a single key.
    let document: Result<Table, _> = toml::from_str(&format!("value = {text}"));
    document.ok().and_then(|mut table| table.remove("value")).unwrap_or_else(|| Value::String(text.into()))
}

/// Sets `a.b.c`; tables on the way are made. `fault.0.at` reaches into a list.
fn set(table: &mut Table, key: &str, value: Value) -> Result<(), Flaw> {
    let flaw = |message: String| Flaw { message, span: None };
    let no_table = |part: &str| flaw(format!("`{part}` is no table here, so it has no keys"));
    let mut parts: Vec<&str> = key.split('.').collect();
    let last = parts.pop().filter(|last| !last.is_empty()).ok_or_else(|| flaw("which key?".into()))?;
    let mut at = table;
    let mut parts = parts.into_iter().peekable();
    while let Some(part) = parts.next() {
        // Tables made here would have the keys `0` and `1`, where the file means a list.
        if !at.contains_key(part) && parts.peek().is_some_and(|next| next.parse::<usize>().is_ok()) {
            return Err(flaw(format!("the file has no `{part}`")));
        }
        let mut next = at.entry(part).or_insert_with(|| Value::Table(Table::new()));
        if let Value::Array(items) = next {
            let many = items.len();
            let number = parts.next().and_then(|number| number.parse::<usize>().ok());
            next = number.and_then(|number| items.get_mut(number)).ok_or_else(|| {
                flaw(format!("`{part}` is a list of {many}: {part}.0.{last} is a key of the first"))
            })?;
        }
        // `anti_entropy = false` gives way to a table.
        if next.is_bool() {
            *next = Value::Table(Table::new());
        }
        at = next.as_table_mut().ok_or_else(|| no_table(part))?;
    }
    at.insert(last.into(), value);
    Ok(())
}

/// Where a path lies in a text: the deepest part of it that is there.
fn span_of(text: &str, path: &[&str]) -> Option<Range<usize>> {
    let document = DeTable::parse(text).ok()?;
    let mut span = None;
    let mut table = Some(document.get_ref());
    let mut list = None;
    let mut rest: Vec<&str> = path.iter().rev().copied().collect();
    while let Some(part) = rest.pop() {
        if let Some(items) = list.take() {
            let items: &toml::de::DeArray<'_> = items;
            let Some(item) = part.parse::<usize>().ok().and_then(|at| items.get(at)) else { break };
            span = Some(item.span());
            (table, list) = below(item.get_ref());
            continue;
        }
        let Some(here) = table else { break };
        match here.iter().find(|(key, _)| key.get_ref() == part) {
            Some((key, value)) => {
                // A whole table would be marked over many lines.
                let is_long = matches!(value.get_ref(), DeValue::Table(_) | DeValue::Array(_));
                span = Some(if is_long { key.span() } else { value.span() });
                (table, list) = below(value.get_ref());
            }
            // A dotted key may be written with or without quotes.
            None if part.contains('.') => rest.extend(part.split('.').rev()),
            None => break,
        }
    }
    span
}

type Below<'a, 'b> = (Option<&'a DeTable<'b>>, Option<&'a toml::de::DeArray<'b>>);

fn below<'a, 'b>(value: &'a DeValue<'b>) -> Below<'a, 'b> {
    match value {
        DeValue::Table(table) => (Some(table), None),
        DeValue::Array(items) => (None, Some(items)),
        _ => (None, None),
    }
}

#[cfg(test)]
mod tests;
