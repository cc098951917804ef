//! Fields of documents from elsewhere. What has another shape than its format says and is not needed is read as it is
//! meant, or passed over, with a note; only what makes a document useless is a violation.
//!
//! A field may be spelt in camel case or, as Protocol Buffers have it, in snake case.

use std::borrow::Cow;
use std::cell::RefCell;

use serde_json::Value;

use super::field::{Fields, JsonPath, Violation, check_line, check_prose, quoted};

/// Notes of one document; more would hide what they say. How many there are beyond is told.
const NOTES_MAX: usize = 16;

/// What was read otherwise than it is written; shared by all objects of one document.
#[derive(Default)]
pub(super) struct Notes {
    texts: RefCell<Vec<String>>,
    more: std::cell::Cell<usize>,
}

impl Notes {
    /// Notes that the value at `path` is none of what it should be, and what became of it.
    pub(super) fn add(&self, path: &JsonPath, what: &str) {
        let mut texts = self.texts.borrow_mut();
        if texts.len() < NOTES_MAX {
            texts.push(format!("`{path}` {what}"));
        } else {
            self.more.set(self.more.get() + 1);
        }
    }

    /// All notes, one sentence each.
    pub(super) fn into_texts(self) -> Vec<String> {
        let mut texts = self.texts.into_inner();
        if self.more.get() > 0 {
            texts.push(format!("and {} more of this kind", self.more.get()));
        }
        texts
    }
}

/// An object of an imported document.
#[derive(Clone)]
pub(super) struct Imported<'a> {
    fields: Fields<'a>,
    notes: &'a Notes,
}

impl<'a> Imported<'a> {
    /// The object `fields`, whose oddities go into `notes`.
    pub(super) fn new(fields: Fields<'a>, notes: &'a Notes) -> Imported<'a> {
        Imported { fields, notes }
    }

    /// The place of this object.
    pub(super) fn path(&self) -> JsonPath {
        self.fields.path()
    }

    /// The place of a member, present or not.
    pub(super) fn path_of(&self, key: &str) -> JsonPath {
        self.fields.path_of(&self.spelt(key))
    }

    /// Notes what was odd about a member.
    pub(super) fn note(&self, key: &str, what: &str) {
        self.notes.add(&self.path_of(key), what);
    }

    /// A member; `None` if absent or null.
    pub(super) fn value(&self, key: &str) -> Option<&'a Value> {
        self.fields.value(&self.spelt(key))
    }

    /// The first of `keys` that is present: formats have renamed fields.
    pub(super) fn first_of(&self, keys: &[&'static str]) -> Option<&'static str> {
        keys.iter().copied().find(|key| self.value(key).is_some())
    }

    /// A text without control characters, which nothing depends on: a number is taken for its digits, anything else
    /// passed over.
    pub(super) fn text(&self, key: &str) -> Result<Option<Cow<'a, str>>, Violation> {
        let Some(text) = self.value(key).and_then(|value| self.as_text(&self.path_of(key), value)) else {
            return Ok(None);
        };
        check_line(self.path_of(key), &text)?;
        Ok(Some(text))
    }

    /// A text that must be there and not be blank.
    pub(super) fn required_text(&self, key: &str, fix: &str) -> Result<Cow<'a, str>, Violation> {
        match self.value(key) {
            Some(Value::Number(_)) => Ok(self.text(key)?.unwrap_or_default()),
            _ => self.fields.required_text(&self.spelt(key), fix).map(Cow::Borrowed),
        }
    }

    /// An address: as it is, or none of the document's.
    pub(super) fn address(&self, key: &str, fix: &str) -> Result<&'a str, Violation> {
        self.fields.required_text(&self.spelt(key), fix)
    }

    /// A text of several lines.
    pub(super) fn prose(&self, key: &str) -> Result<Option<Cow<'a, str>>, Violation> {
        let text = self.value(key).and_then(|value| self.as_text(&self.path_of(key), value));
        text.iter().try_for_each(|text| check_prose(self.path_of(key), text))?;
        Ok(text)
    }

    /// A list of texts; a lone text is a list with commas.
    pub(super) fn texts(&self, key: &str) -> Vec<Cow<'a, str>> {
        let path = self.path_of(key);
        match self.value(key) {
            None => Vec::new(),
            Some(Value::Array(items)) => {
                let items = items.iter().enumerate();
                items.filter_map(|(index, item)| self.as_text(&path.index(index), item)).collect()
            }
            Some(Value::String(text)) => {
                self.notes.add(&path, "is a text; its words between commas are taken for a list");
                text.split(',').map(|word| Cow::Borrowed(word.trim())).collect()
            }
            Some(other) => {
                self.passed_over(&path, other, "a list of texts");
                Vec::new()
            }
        }
    }

    /// An object.
    pub(super) fn object(&self, key: &str) -> Option<Imported<'a>> {
        self.as_object(&self.path_of(key), self.value(key)?)
    }

    /// A list of objects; a lone object is a list of one.
    pub(super) fn objects(&self, key: &str) -> Vec<Imported<'a>> {
        let path = self.path_of(key);
        match self.value(key) {
            None => Vec::new(),
            Some(Value::Array(items)) => {
                let items = items.iter().enumerate();
                items.filter_map(|(index, item)| self.as_object(&path.index(index), item)).collect()
            }
            Some(lone @ Value::Object(_)) => {
                self.notes.add(&path, "is an object; it is taken for a list of one");
                self.as_object(&path, lone).into_iter().collect()
            }
            Some(other) => {
                self.passed_over(&path, other, "a list of objects");
                Vec::new()
            }
        }
    }

    /// The key as it is written here: Protocol Buffers say `supported_interfaces` for `supportedInterfaces`.
    fn spelt<'k>(&self, key: &'k str) -> Cow<'k, str> {
        if self.fields.value(key).is_none() && key.contains(|c: char| c.is_ascii_uppercase()) {
            let snake = snake_case(key);
            if self.fields.value(&snake).is_some() {
                return Cow::Owned(snake);
            }
        }
        Cow::Borrowed(key)
    }

    fn as_text(&self, path: &JsonPath, value: &'a Value) -> Option<Cow<'a, str>> {
        match value {
            Value::Null => None,
            Value::String(text) => Some(Cow::Borrowed(text)),
            Value::Number(number) => {
                self.notes.add(path, &format!("is the number {number}; its digits are taken for a text"));
                Some(Cow::Owned(number.to_string()))
            }
            other => {
                self.passed_over(path, other, "a text");
                None
            }
        }
    }

    fn as_object(&self, path: &JsonPath, value: &'a Value) -> Option<Imported<'a>> {
        match value {
            Value::Null => None,
            Value::Object(map) => Some(Imported::new(Fields::new(map, path.clone()), self.notes)),
            other => {
                self.passed_over(path, other, "an object");
                None
            }
        }
    }

    fn passed_over(&self, path: &JsonPath, value: &Value, wanted: &str) {
        self.notes.add(path, &format!("is {} and not {wanted}; it is passed over", quoted(value)));
    }
}

fn snake_case(key: &str) -> String {
    let mut snake = String::with_capacity(key.len() + 4);
    for letter in key.chars() {
        if letter.is_ascii_uppercase() {
            snake.push('_');
        }
        snake.push(letter.to_ascii_lowercase());
    }
    snake
}
