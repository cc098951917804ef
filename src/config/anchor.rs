//! Anchors: the keys of zones as the operator names them, in tables `[[anchor]]` of the file. An anchor of a zone that this node
//! serves may name the grants by which the node delegates it in the zone above.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use toml::Spanned;
use toml::de::DeValue;

use super::file::{File, unknown};
use super::{ConfigError, Origin};
use crate::grant_file::read_grants;
use crate::proto::grant::{Claim, Grant, verify_chain};
use crate::proto::identity::PeerKey;
use crate::proto::name::{AgentName, ZoneName};
use crate::proto::record::RecordKind;
use crate::proto::time::Timestamp;

/// The name of the tables.
pub const ANCHOR: &str = "anchor";
/// What stands in one.
const FIELDS: [&str; 3] = ["anchor.zone", "anchor.key", "anchor.grant"];
/// What one looks like.
const FORM: &str =
    "write [[anchor]], and below it zone = \"acme.org\" and key = \"12D3…\", as `aop zone init` prints them";

/// The key of a zone, as the operator names it.
#[derive(Clone, Debug)]
pub struct Anchor {
    /// The zone.
    pub zone: ZoneName,
    /// Its key: without a grant of it nobody writes there.
    pub key: PeerKey,
    /// The file of the grants by which this node delegates the zone.
    pub grant_file: Option<PathBuf>,
    /// What is in it: a chain that leads from the zone's key, or from whoever vouches for that, to one node.
    pub grants: Vec<Vec<u8>>,
    /// Where the anchor stands.
    pub origin: Origin,
}

/// A text of the file and its place.
type Field = (String, Range<usize>);

/// One table as it is written.
#[derive(Debug)]
pub(super) struct AnchorTable {
    span: Range<usize>,
    /// By the names of [`FIELDS`].
    fields: BTreeMap<&'static str, Field>,
}

impl AnchorTable {
    /// The tables of a file, and what is wrong with their form.
    pub(super) fn read(file: &File, value: &Spanned<DeValue<'_>>) -> (Vec<AnchorTable>, Vec<ConfigError>) {
        let DeValue::Array(tables) = value.get_ref() else {
            let wrong = ConfigError::new("`anchor` is a list of tables", FORM);
            return (Vec::new(), vec![wrong.at(file, value.span())]);
        };
        let (mut read, mut errors) = (Vec::new(), Vec::new());
        for table in tables.iter() {
            match AnchorTable::read_one(file, table) {
                Ok(table) => read.push(table),
                // Nothing is said of what a table lacks where a name in it is misspelt.
                Err(mut wrong) => errors.append(&mut wrong),
            }
        }
        (read, errors)
    }

    fn read_one(file: &File, value: &Spanned<DeValue<'_>>) -> Result<AnchorTable, Vec<ConfigError>> {
        let DeValue::Table(table) = value.get_ref() else {
            return Err(vec![ConfigError::new("`anchor` is a list of tables", FORM).at(file, value.span())]);
        };
        let mut read = AnchorTable { span: value.span(), fields: BTreeMap::new() };
        let mut errors = Vec::new();
        for (name, value) in table.iter() {
            let dotted = format!("{ANCHOR}.{}", name.get_ref());
            let known = FIELDS.into_iter().find(|field| *field == dotted);
            match (known, value.get_ref().as_str()) {
                (Some(field), Some(text)) => drop(read.fields.insert(field, (text.to_owned(), value.span()))),
                (Some(field), None) => {
                    let found = value.get_ref().type_str();
                    let wrong =
                        ConfigError::new(format!("`{field}` takes a text in quotes, not {found}"), FORM);
                    errors.push(wrong.at(file, value.span()));
                }
                (None, _) => errors.push(unknown(&dotted, &FIELDS).at(file, name.span())),
            }
        }
        if errors.is_empty() { Ok(read) } else { Err(errors) }
    }
}

/// The anchors of a file, and what is wrong with them.
pub(super) fn judge(file: &File, network: &str) -> (Vec<Anchor>, Vec<ConfigError>) {
    let (mut anchors, mut errors) = (Vec::<Anchor>::new(), Vec::new());
    for table in &file.anchors {
        let mut judge = Judge { file, table, network, errors: Vec::new() };
        let anchor = judge.anchor(&anchors);
        errors.append(&mut judge.errors);
        anchors.extend(anchor);
    }
    (anchors, errors)
}

/// Turns one table into an anchor and collects what is wrong with it.
struct Judge<'a> {
    file: &'a File,
    table: &'a AnchorTable,
    network: &'a str,
    errors: Vec<ConfigError>,
}

impl Judge<'_> {
    fn anchor(&mut self, earlier: &[Anchor]) -> Option<Anchor> {
        let zone = self.parsed::<ZoneName>("anchor.zone", "write `acme.org`, or `.` for the root");
        let key = self.parsed::<PeerKey>("anchor.key", "write the PeerId that `aop zone init` printed");
        let (zone, key) = (zone?, key?);
        if let Some(other) = earlier.iter().find(|other| other.zone == zone) {
            let why = format!("has an anchor already ({})", other.origin);
            self.refuse("anchor.zone", &why, "a zone has one key here: take one of the two out");
            return None;
        }
        let grant_file =
            self.table.fields.get("anchor.grant").map(|(path, _)| PathBuf::from(self.file.beside(path)));
        let grants = match &grant_file {
            None => Vec::new(),
            Some(path) => match self.grants(path, &zone, key) {
                Ok(grants) => grants,
                Err((why, fix)) => {
                    self.refuse("anchor.grant", &format!("is refused: {why}"), &fix);
                    return None;
                }
            },
        };
        Some(Anchor { zone, key, grant_file, grants, origin: self.file.origin(self.table.span.start) })
    }

    fn parsed<T: std::str::FromStr<Err: fmt::Display>>(
        &mut self,
        field: &'static str,
        fix: &str,
    ) -> Option<T> {
        let Some((text, _)) = self.table.fields.get(field) else {
            let origin = self.file.origin(self.table.span.start);
            let wrong = ConfigError::new(format!("an anchor ({origin}) has no `{field}`"), FORM);
            self.errors.push(wrong.at(self.file, self.table.span.clone()));
            return None;
        };
        let parsed = text.parse();
        parsed.map_err(|error| self.refuse(field, &format!("is refused: {error}"), fix)).ok()
    }

    /// The grants of a file, if they lead from the zone's key to somebody; else what is wrong and what to do.
    fn grants(&self, path: &Path, zone: &ZoneName, key: PeerKey) -> Result<Vec<Vec<u8>>, (String, String)> {
        let grant = format!("aop keys grant --key FILE --to PEERID --zone {zone} --kind delegation");
        let lines = format!(
            "name a file of what `{grant}` prints, FILE being the key of the zone and PEERID this node"
        );
        let signed = read_grants(path).map_err(|why| (why.to_string(), lines.clone()))?;
        let nothing_above =
            || ("nothing lies above the root, so nobody delegates it".into(), "leave it out".into());
        let name = zone.parent().and_then(|above| zone.delegated_in(&above)).ok_or_else(nothing_above)?;
        let grants: Vec<Grant> = signed.iter().filter_map(|signed| Grant::read(signed).ok()).collect();
        if let Some(foreign) = grants.iter().find(|grant| grant.network != self.network) {
            let why = format!(
                "its grants are for the network `{}`, and this node is of `{}`",
                foreign.network, self.network
            );
            return Err((why, format!("make them with `--network {}`", self.network)));
        }
        let last = grants.last().ok_or_else(|| ("it is empty".into(), lines.clone()))?;
        let claim = claim(self.network, key, last.subject, zone, &name);
        verify_chain(&signed, &claim).map_err(|error| (error.to_string(), lines))?;
        Ok(signed)
    }

    fn refuse(&mut self, field: &'static str, why: &str, fix: &str) {
        let (text, span) = self.table.fields.get(field).cloned().unwrap_or_default();
        let origin = self.file.origin(span.start);
        let error = ConfigError::new(format!("{field} = {text:?} ({origin}) {why}"), fix);
        self.errors.push(error.at(self.file, span));
    }
}

/// What the grants of a delegation are to carry, if it were made now.
fn claim<'a>(
    network: &'a str,
    owner: PeerKey,
    author: PeerKey,
    zone: &'a ZoneName,
    name: &'a AgentName,
) -> Claim<'a> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let stamped_at = Timestamp(since.as_millis() as u64);
    Claim { network, owner, author, zone, name, kind: &RecordKind::Delegation, stamped_at }
}
