//! Reading the configuration file: TOML to values with their places, unknown keys refused with a suggestion.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use miette::NamedSource;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::anchor::{ANCHOR, AnchorTable};
use super::import::{self, IMPORT, Import};
use super::{ConfigError, Given, KEYS, Key, Origin, Shape};

/// Largest file, bytes: it is written by hand.
const FILE_BYTES_MAX: u64 = 1024 * 1024;
/// Least similarity (Jaro-Winkler) of a suggestion to what was written.
const SIMILAR: f64 = 0.75;

/// A file and what it sets.
#[derive(Debug)]
pub(super) struct File {
    path: PathBuf,
    text: String,
    /// Values by [`Key::name`].
    pub(super) given: BTreeMap<&'static str, Given>,
    /// Its tables `[[anchor]]`.
    pub(super) anchors: Vec<AnchorTable>,
    /// Its tables `[[import]]`.
    pub(super) imports: Vec<Import>,
}

impl File {
    /// Reads the file and reports every key that is not one; only an unreadable file or bad TOML ends it at once.
    pub(super) fn read(path: &Path) -> Result<(File, Vec<ConfigError>), Box<ConfigError>> {
        let text = read_text(path)?;
        let mut file = File {
            path: path.to_path_buf(),
            text: text.clone(),
            given: BTreeMap::new(),
            anchors: Vec::new(),
            imports: Vec::new(),
        };
        let table = DeTable::parse(&text).map_err(|error| {
            let wrong = ConfigError::new(error.message(), "the file must be TOML: `key = \"value\"`");
            Box::new(wrong.at(&file, error.span().unwrap_or_default()))
        })?;
        let mut errors = Vec::new();
        file.take_table("", table.get_ref(), &mut errors);
        Ok((file, errors))
    }

    /// The text under its name, for a diagnostic.
    pub(super) fn source(&self) -> NamedSource<String> {
        NamedSource::new(self.path.display().to_string(), self.text.clone())
    }

    fn take_table(&mut self, prefix: &str, table: &DeTable<'_>, errors: &mut Vec<ConfigError>) {
        for (name, value) in table.iter() {
            let dotted = format!("{prefix}{}", name.get_ref());
            // The head of a section is no setting; it is looked into only because settings lie below it.
            let is_section = KEYS.iter().any(|key| key.name.starts_with(&format!("{dotted}.")));
            let known = KEYS.iter().find(|key| key.name == dotted);
            match (known, value.get_ref()) {
                (Some(key), _) => match self.take_value(key, value) {
                    Ok(given) => {
                        self.given.insert(key.name, given);
                    }
                    // Kept and passed over, so that one run shows everything that is wrong.
                    Err(error) => errors.push(*error),
                },
                (None, DeValue::Table(inner)) if is_section => {
                    self.take_table(&format!("{dotted}."), inner, errors);
                }
                (None, _) if dotted == ANCHOR => {
                    let (anchors, mut wrong) = AnchorTable::read(self, value);
                    self.anchors = anchors;
                    errors.append(&mut wrong);
                }
                (None, _) if dotted == IMPORT => {
                    let (imports, mut wrong) = import::read(self, value);
                    self.imports = imports;
                    errors.append(&mut wrong);
                }
                (None, _) => errors.push(unknown(&dotted, &setting_names()).at(self, name.span())),
            }
        }
    }

    fn take_value(&self, key: &Key, value: &Spanned<DeValue<'_>>) -> Result<Given, Box<ConfigError>> {
        let values = match (key.shape, value.get_ref()) {
            (Shape::Texts | Shape::Paths, DeValue::Array(array)) => {
                array.iter().map(|item| self.take_text(key, item)).collect::<Result<_, _>>()?
            }
            // A lone text where a list may stand is a list of one; anything else is refused there.
            _ => vec![self.take_text(key, value)?],
        };
        Ok(Given { origin: self.origin(value.span().start), values })
    }

    /// The place of an offset, to be shown.
    pub(super) fn origin(&self, offset: usize) -> Origin {
        Origin::File(self.path.clone(), self.line(offset))
    }

    fn take_text(
        &self,
        key: &Key,
        value: &Spanned<DeValue<'_>>,
    ) -> Result<(String, Option<Range<usize>>), Box<ConfigError>> {
        let wanted = match key.shape {
            Shape::Text | Shape::Path => "a text in quotes",
            Shape::Texts | Shape::Paths => "a list of texts in quotes",
        };
        let Some(text) = value.get_ref().as_str() else {
            let found = value.get_ref().type_str();
            let wrong = ConfigError::new(format!("`{}` takes {wanted}, not {found}", key.name), key.meaning);
            return Err(Box::new(wrong.at(self, value.span())));
        };
        let text = match key.shape {
            // From the folder of the file, because a service starts in any other.
            Shape::Path | Shape::Paths => self.beside(text),
            Shape::Text | Shape::Texts => text.to_string(),
        };
        Ok((text, Some(value.span())))
    }

    /// A path as seen from the folder of this file.
    pub(super) fn beside(&self, path: &str) -> String {
        let folder = self.path.parent().unwrap_or(Path::new(""));
        folder.join(path).display().to_string()
    }

    fn line(&self, offset: usize) -> usize {
        // TOML counts bytes, and in UTF-8 a line end is always one.
        self.text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1
    }
}

fn read_text(path: &Path) -> Result<String, Box<ConfigError>> {
    let unreadable = |why: String| {
        let message = format!("cannot read {}: {why}", path.display());
        Box::new(ConfigError::new(
            message,
            "check its path and permissions, or name another with --config FILE",
        ))
    };
    // Asked before it is read, so that a wrong path, such as that of a log, does not fill the memory.
    let size = std::fs::metadata(path).map_err(|error| unreadable(error.to_string()))?.len();
    if size > FILE_BYTES_MAX {
        return Err(unreadable(format!("{size} bytes are more than {FILE_BYTES_MAX}")));
    }
    std::fs::read_to_string(path).map_err(|error| unreadable(error.to_string()))
}

/// What may stand in a file.
fn setting_names() -> Vec<&'static str> {
    KEYS.iter().map(|key| key.name).chain([ANCHOR, IMPORT]).collect()
}

/// There is no such name among those that may stand there.
pub(super) fn unknown(dotted: &str, names: &[&'static str]) -> ConfigError {
    let similarity = |name: &&&str| strsim::jaro_winkler(dotted, name);
    let nearest = names.iter().max_by(|a, b| similarity(a).total_cmp(&similarity(b)));
    let fix = match nearest.filter(|name| similarity(name) >= SIMILAR) {
        Some(name) => format!("did you mean `{name}`?"),
        None => format!("there are {}", names.join(", ")),
    };
    ConfigError::new(format!("there is no setting `{dotted}`"), fix)
}
