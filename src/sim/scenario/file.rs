//! From the text of a file to the cells of its sweep, and from a flaw back to its line.

use std::collections::BTreeMap;
use std::ops::Range;

use serde::Deserialize;
use toml::de::{DeTable, DeValue};
use toml::{Table, Value};

use super::{Scenario, check};

/// Cells one sweep may make: more are a mistake.
const CELLS_MAX: usize = 1_000;

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
    /// Reads a file's text and sets keys of it, `("network.loss.rate", "0.3")`. Nothing is run.
    pub fn read(text: &str, settings: &[(String, String)]) -> Result<Document, Flaw> {
        let scenario: Scenario = toml::from_str(text).map_err(|error| from_toml(&error))?;
        let mut table: Table = toml::from_str(text).map_err(|error| from_toml(&error))?;
        let mut document = Document { text: text.into(), scenario, table: Table::new() };
        for (key, value) in settings {
            set(&mut table, key, value_of(value))?;
            // What is set is no longer swept.
            if let Some(Value::Table(sweep)) = table.get_mut("sweep") {
                sweep.remove(key);
            }
        }
        if !settings.is_empty() {
            document.scenario = scenario_of(&table)?;
        }
        document.table = table;
        document.cells()?;
        Ok(document)
    }

    /// Every combination of the swept values, the last key fastest; one cell without a sweep.
    pub fn cells(&self) -> Result<Vec<Cell>, Flaw> {
        let axes: Vec<(&String, &Vec<Value>)> = self.scenario.sweep.iter().collect();
        let many: usize = axes.iter().map(|(_, values)| values.len()).product();
        if many == 0 || many > CELLS_MAX {
            let message = format!("the sweep makes {many} cells: from 1 to {CELLS_MAX}");
            return Err(self.flaw(&["sweep"], message));
        }
        (0..many).map(|number| self.cell(&axes, number)).collect()
    }

    fn cell(&self, axes: &[(&String, &Vec<Value>)], number: usize) -> Result<Cell, Flaw> {
        let mut table = self.table.clone();
        table.remove("sweep");
        let mut parameters = BTreeMap::new();
        let mut rest = number;
        for (key, values) in axes.iter().rev() {
            let value = values[rest % values.len()].clone();
            rest /= values.len();
            set(&mut table, key, value.clone()).map_err(|flaw| self.flaw(&["sweep", key], flaw.message))?;
            parameters.insert((*key).clone(), value);
        }
        let scenario = scenario_of(&table).map_err(|flaw| self.flaw(&["sweep"], flaw.message))?;
        let known: Vec<&str> = self.scenario.sweep.keys().map(String::as_str).collect();
        check::check(&scenario, &known).map_err(|wrong| {
            let path: Vec<&str> = wrong.path.iter().map(String::as_str).collect();
            self.flaw(&path, wrong.message)
        })?;
        Ok(Cell { parameters, scenario })
    }

    /// A flaw at a path of keys and positions, as far as the file has it.
    fn flaw(&self, path: &[&str], message: String) -> Flaw {
        Flaw { message, span: span_of(&self.text, path) }
    }
}

fn from_toml(error: &toml::de::Error) -> Flaw {
    Flaw { message: with_suggestion(error.message()), span: error.span() }
}

fn scenario_of(table: &Table) -> Result<Scenario, Flaw> {
    Scenario::deserialize(table.clone()).map_err(|error| from_toml(&error))
}

/// "unknown field `fanot`, expected one of `kind`, `fanout`" gets "did you mean `fanout`?".
fn with_suggestion(message: &str) -> String {
    let message =
        message.trim().replace("unknown field", "unknown key").replace("missing field", "missing key");
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
fn value_of(text: &str) -> Value {
    let document: Result<Table, _> = toml::from_str(&format!("value = {text}"));
    document.ok().and_then(|mut table| table.remove("value")).unwrap_or_else(|| Value::String(text.into()))
}

/// Sets `a.b.c`; tables on the way are made. `fault.0.at` reaches into a list.
fn set(table: &mut Table, key: &str, value: Value) -> Result<(), Flaw> {
    let no_table = |part: &str| Flaw { message: format!("`{part}` of `{key}` is no table"), span: None };
    let mut parts: Vec<&str> = key.split('.').collect();
    let last = parts.pop().unwrap_or_default();
    let mut at = table;
    let mut parts = parts.into_iter().peekable();
    while let Some(part) = parts.next() {
        let mut next = at.entry(part).or_insert_with(|| Value::Table(Table::new()));
        if let Value::Array(items) = next {
            let number = parts.next().and_then(|number| number.parse::<usize>().ok());
            next = number.and_then(|number| items.get_mut(number)).ok_or_else(|| no_table(part))?;
        }
        at = match next {
            Value::Table(table) => table,
            // `loss = …` or `anti_entropy = false` gives way to a table.
            other @ Value::Boolean(_) => {
                *other = Value::Table(Table::new());
                other.as_table_mut().ok_or_else(|| no_table(part))?
            }
            _ => return Err(no_table(part)),
        };
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
    for part in path {
        if let Some(items) = list.take() {
            let items: &toml::de::DeArray<'_> = items;
            let item = items.get(part.parse::<usize>().ok()?)?;
            span = Some(item.span());
            (table, list) = below(item.get_ref());
            continue;
        }
        let Some((key, value)) = table?.iter().find(|(key, _)| key.get_ref() == part) else { break };
        span = Some(if matches!(value.get_ref(), DeValue::Table(_)) { key.span() } else { value.span() });
        (table, list) = below(value.get_ref());
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
