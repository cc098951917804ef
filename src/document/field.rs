//! Reading fields out of a JSON document, each with its place, so that every refusal can say where and what to do.
//!
//! `null` counts as absent everywhere: published documents write it for "not given".

use std::fmt;
use std::ops::RangeInclusive;

use serde_json::{Map, Value};

use crate::proto::code::Code;
use crate::proto::name::NameError;

/// How alike two words must be (Jaro-Winkler, 0 … 1) before one is offered for the other. At 0.8 `descripton` finds
/// `description`, and `foo` finds nothing.
const LIKENESS_MIN: f64 = 0.8;
/// Longest quotation of what was found, characters: enough to recognise it in the document.
const QUOTE_CHARS_MAX: usize = 60;

/// One step into a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum PathStep {
    /// Into an object.
    Key(String),
    /// Into an array.
    Index(usize),
}

/// A place in a document; shown as `agent.run.command[0]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct JsonPath(pub(super) Vec<PathStep>);

impl JsonPath {
    /// The member `key` of the object here.
    pub(super) fn key(&self, key: &str) -> JsonPath {
        self.with(PathStep::Key(key.to_owned()))
    }

    /// The element `index` of the array here.
    pub(super) fn index(&self, index: usize) -> JsonPath {
        self.with(PathStep::Index(index))
    }

    /// This place, seen from one object further out.
    pub(super) fn within(mut self, key: &str) -> JsonPath {
        self.0.insert(0, PathStep::Key(key.to_owned()));
        self
    }

    fn with(&self, step: PathStep) -> JsonPath {
        let mut steps = self.0.clone();
        steps.push(step);
        JsonPath(steps)
    }
}

impl fmt::Display for JsonPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, step) in self.0.iter().enumerate() {
            match step {
                PathStep::Key(key) if position == 0 => write!(f, "{}", shortened(key))?,
                PathStep::Key(key) => write!(f, ".{}", shortened(key))?,
                PathStep::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

/// Whether a violation lies in a key or in its value; an editor underlines the right one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MemberPart {
    /// The key itself is wrong.
    Key,
    /// What it holds is wrong or absent.
    Value,
}

/// Why a document is not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Violation {
    /// Where.
    pub(super) path: JsonPath,
    /// Key or value.
    pub(super) part: MemberPart,
    /// A refusal code of the parent module.
    pub(super) code: Code,
    /// What was found and why it is refused.
    pub(super) problem: String,
    /// What to do.
    pub(super) fix: String,
}

impl Violation {
    /// A value of the wrong kind, shape or range.
    pub(super) fn bad(path: JsonPath, problem: impl Into<String>, fix: impl Into<String>) -> Violation {
        Violation {
            path,
            part: MemberPart::Value,
            code: Code::BadField,
            problem: problem.into(),
            fix: fix.into(),
        }
    }

    /// A field that must be there.
    pub(super) fn missing(path: JsonPath, fix: impl Into<String>) -> Violation {
        Violation {
            path,
            part: MemberPart::Value,
            code: Code::MissingField,
            problem: "is missing".into(),
            fix: fix.into(),
        }
    }

    /// More than a limit; the message carries both numbers.
    pub(super) fn too_large(path: JsonPath, found: usize, limit: usize, unit: &str, fix: &str) -> Violation {
        let problem = format!("has {found} {unit}, more than the {limit} that are allowed");
        Violation { path, part: MemberPart::Value, code: Code::TooLarge, problem, fix: fix.into() }
    }

    /// The same violation, seen from one object further out.
    pub(super) fn within(mut self, key: &str) -> Violation {
        self.path = self.path.within(key);
        self
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.0.is_empty() {
            return write!(f, "the document {}; {}", self.problem, self.fix);
        }
        write!(f, "`{}` {}; {}", self.path, self.problem, self.fix)
    }
}

/// An object of a document and where it stands.
#[derive(Clone, Debug)]
pub(super) struct Fields<'a> {
    path: JsonPath,
    map: &'a Map<String, Value>,
}

impl<'a> Fields<'a> {
    /// The object `map`, found at `path`.
    pub(super) fn new(map: &'a Map<String, Value>, path: JsonPath) -> Fields<'a> {
        Fields { path, map }
    }

    /// The place of a member, present or not.
    pub(super) fn path_of(&self, key: &str) -> JsonPath {
        self.path.key(key)
    }

    /// The place of this object.
    pub(super) fn path(&self) -> JsonPath {
        self.path.clone()
    }

    /// A member; `None` if absent or null.
    pub(super) fn value(&self, key: &str) -> Option<&'a Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    /// The names of its members, present or null.
    pub(super) fn keys(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        self.map.keys().map(String::as_str)
    }

    /// The first of `keys` that is present: formats have renamed fields.
    pub(super) fn first_of(&self, keys: &[&'static str]) -> Option<&'static str> {
        keys.iter().copied().find(|key| self.value(key).is_some())
    }

    /// A text without control characters.
    pub(super) fn text(&self, key: &str) -> Result<Option<&'a str>, Violation> {
        let Some(value) = self.value(key) else { return Ok(None) };
        one_line(self.path_of(key), value).map(Some)
    }

    /// A text that must be there and not be blank.
    pub(super) fn required_text(&self, key: &str, fix: &str) -> Result<&'a str, Violation> {
        match self.text(key)? {
            None => Err(Violation::missing(self.path_of(key), fix)),
            Some(text) if text.trim().is_empty() => Err(Violation::bad(self.path_of(key), "is empty", fix)),
            Some(text) => Ok(text),
        }
    }

    /// A text of several lines.
    pub(super) fn prose(&self, key: &str) -> Result<Option<&'a str>, Violation> {
        let Some(value) = self.value(key) else { return Ok(None) };
        let text = value.as_str().ok_or_else(|| wrong_kind(self.path_of(key), value, "a text"))?;
        check_prose(self.path_of(key), text)?;
        Ok(Some(text))
    }

    /// An array of texts; empty if absent.
    pub(super) fn texts(&self, key: &str) -> Result<Vec<&'a str>, Violation> {
        let path = self.path_of(key);
        if let Some(Value::String(text)) = self.value(key) {
            let fix = format!("write an array: `{key} = [{}]`", quoted_text(text));
            return Err(Violation::bad(path, format!("is {}", quoted_text(text)), fix));
        }
        let items = self.array(key)?.iter().enumerate();
        items.map(|(index, item)| one_line(path.index(index), item)).collect()
    }

    /// An object.
    pub(super) fn object(&self, key: &str) -> Result<Option<Fields<'a>>, Violation> {
        let Some(value) = self.value(key) else { return Ok(None) };
        Ok(Some(as_object(self.path_of(key), value)?))
    }

    /// An array of objects; empty if absent.
    pub(super) fn objects(&self, key: &str) -> Result<Vec<Fields<'a>>, Violation> {
        let path = self.path_of(key);
        self.array(key)?.iter().enumerate().map(|(index, item)| as_object(path.index(index), item)).collect()
    }

    /// An array; empty if absent.
    pub(super) fn array(&self, key: &str) -> Result<&'a [Value], Violation> {
        let Some(value) = self.value(key) else { return Ok(&[]) };
        let array = value.as_array().ok_or_else(|| wrong_kind(self.path_of(key), value, "an array"))?;
        Ok(array)
    }

    /// A whole number within `range`.
    pub(super) fn count(&self, key: &str, range: RangeInclusive<u32>) -> Result<Option<u32>, Violation> {
        let Some(value) = self.value(key) else { return Ok(None) };
        let count = value.as_u64().and_then(|count| u32::try_from(count).ok());
        match count.filter(|count| range.contains(count)) {
            Some(count) => Ok(Some(count)),
            None => {
                let fix = format!("write a whole number from {} to {}", range.start(), range.end());
                Err(Violation::bad(self.path_of(key), format!("is {}", quoted(value)), fix))
            }
        }
    }

    /// `true` or `false`.
    pub(super) fn flag(&self, key: &str) -> Result<Option<bool>, Violation> {
        let Some(value) = self.value(key) else { return Ok(None) };
        value.as_bool().map(Some).ok_or_else(|| wrong_kind(self.path_of(key), value, "true or false"))
    }

    /// One of `choices`.
    pub(super) fn choice(&self, key: &str, choices: &[&str]) -> Result<Option<&'a str>, Violation> {
        match self.text(key)? {
            Some(text) if !choices.contains(&text) => {
                let fix = format!("write one of {}{}", listed(choices), did_you_mean(text, choices));
                Err(Violation::bad(self.path_of(key), format!("is {}", quoted_text(text)), fix))
            }
            text => Ok(text),
        }
    }

    /// Refuses every key outside `known`, with the closest known one.
    pub(super) fn only(&self, known: &[&str]) -> Result<(), Violation> {
        let Some(key) = self.map.keys().find(|key| !known.contains(&key.as_str())) else { return Ok(()) };
        let fix = match did_you_mean(key, known) {
            hint if hint.is_empty() => format!("remove it; known here: {}", listed(known)),
            hint => format!("remove or rename it{hint}"),
        };
        let problem = "is not a known key".into();
        Err(Violation {
            path: self.path_of(key),
            part: MemberPart::Key,
            code: Code::UnknownKey,
            problem,
            fix,
        })
    }
}

/// Refuses control characters.
pub(super) fn check_line(path: JsonPath, text: &str) -> Result<(), Violation> {
    refuse_characters(path, text, char::is_control)
}

/// Refuses control characters other than line ends and tabs.
pub(super) fn check_prose(path: JsonPath, text: &str) -> Result<(), Violation> {
    // Line ends and tabs are how prose is written; anything else could drive a reader's terminal.
    refuse_characters(path, text, |c| c.is_control() && !matches!(c, '\n' | '\r' | '\t'))
}

/// A name or zone that does not parse. The parser's message quotes the whole text, so only a short one is repeated.
pub(super) fn bad_name(path: JsonPath, error: &NameError, fix: &str) -> Violation {
    let (NameError::Empty(text)
    | NameError::TooLong(text)
    | NameError::TooDeep(text)
    | NameError::Punycode(text)
    | NameError::BadLabel(text)) = error;
    let problem = if text.chars().count() > QUOTE_CHARS_MAX {
        format!("is {}, which is {} bytes long", quoted_text(text), text.len())
    } else {
        format!("is refused: {error}")
    };
    Violation { code: Code::BadName, ..Violation::bad(path, problem, fix) }
}

/// Compact JSON text. Control characters, which JSON allows raw from U+007F on, are escaped: the content is the same,
/// and no terminal that shows the text obeys it.
pub(crate) fn compact(value: &Value) -> String {
    let text = value.to_string();
    // Nearly every document is clean, and its text is not copied then.
    if !text.contains(char::is_control) {
        return text;
    }
    // All control characters lie below U+00A0, so four digits are enough.
    let escaped = |c: char| if c.is_control() { format!("\\u{:04x}", u32::from(c)) } else { c.to_string() };
    text.chars().map(escaped).collect()
}

/// A found value as a short quotation for a message, without control characters.
pub(super) fn quoted(value: &Value) -> String {
    match value {
        Value::String(text) => quoted_text(text),
        Value::Array(items) => format!("an array of {}", items.len()),
        Value::Object(_) => "an object".into(),
        other => other.to_string(),
    }
}

/// A text in quotes, cut to a readable length.
pub(super) fn quoted_text(text: &str) -> String {
    // The debug form escapes quotes, so a text cannot seem to end before it does.
    format!("{:?}", shortened(text))
}

/// A text as one short printable line.
pub(super) fn shortened(text: &str) -> String {
    // One more than fits shows that something was left out, without a walk through megabytes.
    let mut line: String = text.chars().filter(|c| !c.is_control()).take(QUOTE_CHARS_MAX + 1).collect();
    if line.chars().count() > QUOTE_CHARS_MAX {
        line.pop();
        line.push('…');
    }
    line
}

fn refuse_characters(path: JsonPath, text: &str, refused: impl Fn(char) -> bool) -> Result<(), Violation> {
    let Some(found) = text.chars().find(|c| refused(*c)) else { return Ok(()) };
    Err(Violation::bad(
        path,
        format!("contains the control character U+{:04X}", u32::from(found)),
        "remove it",
    ))
}

fn one_line(path: JsonPath, value: &Value) -> Result<&str, Violation> {
    let text = value.as_str().ok_or_else(|| wrong_kind(path.clone(), value, "a text"))?;
    check_line(path, text)?;
    Ok(text)
}

fn as_object(path: JsonPath, value: &Value) -> Result<Fields<'_>, Violation> {
    let map = value.as_object().ok_or_else(|| wrong_kind(path.clone(), value, "an object"))?;
    Ok(Fields::new(map, path))
}

fn wrong_kind(path: JsonPath, value: &Value, wanted: &str) -> Violation {
    Violation::bad(path, format!("is {}", quoted(value)), format!("write {wanted}"))
}

fn listed(words: &[&str]) -> String {
    words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}

fn did_you_mean(word: &str, known: &[&str]) -> String {
    // The comparison is quadratic in length; no known word is near this long.
    if word.len() > QUOTE_CHARS_MAX {
        return String::new();
    }
    // Known keys are in lower case, and `Name` should find `name`.
    let likeness = |other: &str| strsim::jaro_winkler(&word.to_lowercase(), other);
    let best = known.iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
    match best {
        Some(best) if likeness(best) >= LIKENESS_MIN => format!(": did you mean `{best}`?"),
        _ => String::new(),
    }
}
