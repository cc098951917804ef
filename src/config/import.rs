//! Imports: registries of others that this node reads regularly, in tables `[[import]]` of the file.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::str::FromStr;
use std::time::Duration;

use reqwest::header::HeaderName;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::file::{File, unknown};
use super::{ConfigError, Origin};
use crate::net::addresses::registry_url;
use crate::proto::import::ImportKind;
use crate::proto::name::ZoneName;

/// The name of the tables.
pub const IMPORT: &str = "import";
/// What stands in one.
const FIELDS: [&str; 5] = ["import.url", "import.zone", "import.kind", "import.every", "import.header_env"];
/// What one looks like.
const FORM: &str = "write [[import]], and below it url = \"https://registry.example.org\"";
/// How often a registry is read where nothing is said: large ones ask for no more.
const EVERY_DEFAULT: Duration = Duration::from_secs(3_600);
/// The shortest and the longest time between two readings.
const EVERY_MIN: Duration = Duration::from_secs(60);
const EVERY_MAX: Duration = Duration::from_secs(7 * 86_400);

/// A registry that is imported.
#[derive(Clone, Debug)]
pub struct Import {
    /// Where it is: a URL of https or http, without user and parameters.
    pub url: String,
    /// Zones that share its documents out; the home zone if there is none.
    pub zones: Vec<ZoneName>,
    /// What kind it is; none to find out.
    pub kind: Option<ImportKind>,
    /// Time between two readings, a minute to a week.
    pub every: Duration,
    /// Names of headers that each request carries, and of the environment variables with their values.
    pub header_env: BTreeMap<String, String>,
    /// Where the table stands.
    pub origin: Origin,
}

/// The imports of a file, and what is wrong with them.
pub(super) fn read(file: &File, value: &Spanned<DeValue<'_>>) -> (Vec<Import>, Vec<ConfigError>) {
    let mut reader = Reader { file, errors: Vec::new() };
    let DeValue::Array(tables) = value.get_ref() else {
        reader.refuse("`import` is a list of tables", value.span());
        return (Vec::new(), reader.errors);
    };
    let mut imports: Vec<Import> = Vec::new();
    for table in tables.iter() {
        let DeValue::Table(fields) = table.get_ref() else {
            reader.refuse("`import` is a list of tables", table.span());
            continue;
        };
        if let Some(import) = reader.import(fields, table.span()) {
            match imports.iter().find(|other| other.url == import.url) {
                Some(other) => {
                    let why = format!("`import.url` {} is there already ({})", import.url, other.origin);
                    reader.refuse(&why, table.span());
                }
                None => imports.push(import),
            }
        }
    }
    (imports, reader.errors)
}

/// Reads tables and collects what is wrong with them.
struct Reader<'a> {
    file: &'a File,
    errors: Vec<ConfigError>,
}

impl Reader<'_> {
    fn import(&mut self, fields: &DeTable<'_>, span: Range<usize>) -> Option<Import> {
        let before = self.errors.len();
        let mut import = Import {
            url: String::new(),
            zones: Vec::new(),
            kind: None,
            every: EVERY_DEFAULT,
            header_env: BTreeMap::new(),
            origin: self.file.origin(span.start),
        };
        for (name, value) in fields.iter() {
            match &**name.get_ref() {
                "url" => import.url = self.url(value).unwrap_or_default(),
                "zone" => import.zones = self.zones(value),
                "kind" => import.kind = self.parsed("import.kind", value),
                "every" => import.every = self.every(value).unwrap_or(EVERY_DEFAULT),
                "header_env" => import.header_env = self.header_env(value),
                other => {
                    let dotted = format!("{IMPORT}.{other}");
                    self.errors.push(unknown(&dotted, &FIELDS).at(self.file, name.span()));
                }
            }
        }
        if self.errors.len() == before && import.url.is_empty() {
            self.refuse("an import has no `import.url`", span);
        }
        (self.errors.len() == before).then_some(import)
    }

    fn url(&mut self, value: &Spanned<DeValue<'_>>) -> Option<String> {
        let text = self.text("import.url", value)?;
        match registry_url(&text) {
            Ok(url) => Some(url.to_string()),
            Err(why) => {
                self.refuse(&format!("import.url = {text:?} is refused: {why}"), value.span());
                None
            }
        }
    }

    /// One zone, or a list of them.
    fn zones(&mut self, value: &Spanned<DeValue<'_>>) -> Vec<ZoneName> {
        let mut zones = match value.get_ref() {
            DeValue::Array(zones) => {
                zones.iter().filter_map(|zone| self.parsed("import.zone", zone)).collect()
            }
            _ => Vec::from_iter(self.parsed("import.zone", value)),
        };
        zones.sort();
        zones.dedup();
        zones
    }

    fn every(&mut self, value: &Spanned<DeValue<'_>>) -> Option<Duration> {
        let text = self.text("import.every", value)?;
        let every = humantime::parse_duration(&text).ok();
        let every = every.filter(|every| (EVERY_MIN..=EVERY_MAX).contains(every));
        if every.is_none() {
            let why = format!("import.every = {text:?} is no time from a minute to a week, such as `1h`");
            self.refuse(&why, value.span());
        }
        every
    }

    fn header_env(&mut self, value: &Spanned<DeValue<'_>>) -> BTreeMap<String, String> {
        let DeValue::Table(headers) = value.get_ref() else {
            let form = "`import.header_env` is a table, such as { Authorization = \"REGISTRY_TOKEN\" }";
            self.refuse(form, value.span());
            return BTreeMap::new();
        };
        let mut read = BTreeMap::new();
        for (name, variable) in headers.iter() {
            if HeaderName::from_str(name.get_ref()).is_err() {
                self.refuse(&format!("`{}` is no name of a header", name.get_ref()), name.span());
            } else if let Some(variable) = self.text("import.header_env", variable) {
                read.insert(name.get_ref().to_string(), variable);
            }
        }
        read
    }

    fn parsed<T: FromStr<Err: fmt::Display>>(
        &mut self,
        field: &str,
        value: &Spanned<DeValue<'_>>,
    ) -> Option<T> {
        let text = self.text(field, value)?;
        let parsed = text.parse();
        parsed
            .map_err(|error| {
                self.refuse(&format!("{field} = {text:?} is refused: {error}"), value.span());
            })
            .ok()
    }

    fn text(&mut self, field: &str, value: &Spanned<DeValue<'_>>) -> Option<String> {
        let text = value.get_ref().as_str().map(str::to_owned);
        if text.is_none() {
            let found = value.get_ref().type_str();
            self.refuse(&format!("`{field}` takes a text in quotes, not {found}"), value.span());
        }
        text
    }

    fn refuse(&mut self, why: &str, span: Range<usize>) {
        self.errors.push(ConfigError::new(why, FORM).at(self.file, span));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Flags, load};

    fn settings(text: &str) -> Result<Vec<Import>, Vec<String>> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("aop.toml");
        std::fs::write(&path, text).unwrap();
        let flags = Flags::from([("data_dir", vec!["/x".to_string()])]);
        let loaded = load(&flags, &|_| None, Some(&path));
        loaded
            .map(|(settings, _)| settings.imports)
            .map_err(|errors| errors.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn an_import_says_what_is_read_and_how_often() {
        let imports = settings(
            "[[import]]\nurl = 'https://a.example'\n[[import]]\nurl = 'http://10.0.0.1/v0.1/servers'\nzone = ['b.org', 'a.org']\n\
             kind = 'mcp'\nevery = '2h 30m'\nheader_env = { Authorization = 'TOKEN' }\n",
        )
        .unwrap();
        assert_eq!((imports[0].url.as_str(), imports[0].every), ("https://a.example/", EVERY_DEFAULT));
        assert_eq!(imports[1].zones.iter().map(ZoneName::as_str).collect::<Vec<_>>(), ["a.org", "b.org"]);
        assert_eq!((imports[1].kind, imports[1].every.as_secs()), (Some(ImportKind::Mcp), 9_000));
        assert_eq!(imports[1].header_env["Authorization"], "TOKEN");
        assert_eq!(
            settings("[[import]]\nurl = 'https://a.example'\nzone = '.'\n").unwrap()[0].zones.len(),
            1
        );
    }

    #[test]
    fn what_is_wrong_with_an_import_is_told() {
        for (text, why) in [
            ("import = 7", "a list of tables"),
            ("[[import]]", "has no `import.url`"),
            ("[[import]]\nurl = 'a.example'", "is refused"),
            ("[[import]]\nurl = 'https://me:key@a.example'", "header_env"),
            ("[[import]]\nurl = 7", "takes a text"),
            ("[[import]]\nurl = 'https://a.example'\nurls = 'x'", "there is no setting `import.urls`"),
            ("[[import]]\nurl = 'https://a.example'\nzone = 'A B'", "import.zone"),
            ("[[import]]\nurl = 'https://a.example'\nkind = 'dns'", "none of mcp, ard and agents"),
            ("[[import]]\nurl = 'https://a.example'\nevery = '1s'", "from a minute to a week"),
            ("[[import]]\nurl = 'https://a.example'\nheader_env = { 'a b' = 'X' }", "no name of a header"),
            (
                "[[import]]\nurl = 'https://a.example'\n[[import]]\nurl = 'https://A.example/'",
                "is there already",
            ),
        ] {
            let errors = settings(text).unwrap_err();
            assert!(errors.len() == 1 && errors[0].contains(why), "{text}: {errors:?}");
        }
    }
}
