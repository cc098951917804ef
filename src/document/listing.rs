//! What all imported documents share: the mapped name, derived labels, the kept original.

use std::borrow::Cow;
use std::collections::BTreeSet;

use serde_json::Value;

use super::Offer;
use super::check::check_card;
use super::field::{JsonPath, Violation, bad_name, compact};
use super::name::{agent_name, agent_name_at};
use crate::proto::card::{AgentCard, Endpoint, Origin, Scope, canonical_address};
use crate::proto::limits::{LABEL_TEXT_BYTES_MAX, LABELS_MAX, SHORT_TEXT_BYTES_MAX, SKILLS_BYTES_MAX};

/// Longest capability made from a skill's name, bytes: a longer one is a sentence, of no use as a filter.
const CAPABILITY_BYTES_MAX: usize = 64;

/// What was read from an imported document.
pub(super) struct Listing<'a> {
    pub(super) origin: Origin,
    pub(super) name: Cow<'a, str>,
    pub(super) title: Option<Cow<'a, str>>,
    pub(super) description: Option<Cow<'a, str>>,
    pub(super) version: Option<Cow<'a, str>>,
    /// Its registry advises against it: why.
    pub(super) deprecated: Option<String>,
    pub(super) tags: Labels,
    pub(super) capabilities: Labels,
    pub(super) endpoints: Vec<Endpoint>,
    /// Where the document stood in what was sent.
    pub(super) path: JsonPath,
    /// The document without any wrapper, so that it makes the same card with and without one.
    pub(super) document: &'a Value,
}

/// Makes the card of a listing, which nobody can call through the mesh.
pub(super) fn register(listing: Listing<'_>) -> Result<Offer, Violation> {
    let address = listing.endpoints.first().map(|endpoint| canonical_address(&endpoint.address));
    let name = match (listing.origin, address) {
        // Anybody may give his card any name, so its address tells it from others.
        (Origin::A2a, Some(address)) => agent_name_at(&listing.name, &address),
        _ => agent_name(&listing.name),
    };
    let name = name.map_err(|error| bad_name(listing.path.key("name"), &error, "write the agent's name"))?;
    // `check_card` would speak of `original_name`, a field that the document does not have.
    if listing.name.len() > SHORT_TEXT_BYTES_MAX {
        let path = listing.path.key("name");
        return Err(Violation::too_large(
            path,
            listing.name.len(),
            SHORT_TEXT_BYTES_MAX,
            "bytes",
            "shorten it",
        ));
    }
    // Where the two are equal a second copy would only fill the record.
    let original_name = (name.as_str() != listing.name).then(|| listing.name.into_owned());
    let mut card = AgentCard {
        skills: words(skill_texts(listing.document)),
        description: listing.description.unwrap_or_default().into_owned(),
        title: listing
            .title
            .filter(|title| !title.is_empty() && *title != name.as_str())
            .map(Cow::into_owned),
        tags: listing.tags.words,
        capabilities: listing.capabilities.words,
        version: listing.version.filter(|version| !version.is_empty()).map(Cow::into_owned),
        deprecated: listing.deprecated,
        endpoints: listing.endpoints,
        origin: listing.origin,
        original_name,
        original: Some(compact(listing.document)),
        ..AgentCard::default()
    };
    // A document that fills its record is found by less, and not refused for it.
    if card.skills.is_some() && check_card(&card).is_err() {
        card.skills = None;
    }
    // Paths of a card start at the card; the document may stand inside of a wrapper.
    check_card(&card).map_err(|violation| Violation {
        path: JsonPath([listing.path.0, violation.path.0].concat()),
        ..violation
    })?;
    // No zone: a document from elsewhere has no say in where it is registered.
    Ok(Offer { name, zone: None, scope: Scope::Public, card, grants: Vec::new() })
}

/// What the skills of a document are called, do, and are asked for. Whatever has another shape is passed over: who reads the
/// document refuses what it must.
fn skill_texts(document: &Value) -> impl Iterator<Item = &str> {
    let skills = document.get("skills").and_then(Value::as_array).into_iter().flatten();
    let of_skill =
        |skill| ["name", "id", "description", "tags", "examples"].map(|key| Value::get(skill, key));
    let values = skills.flat_map(of_skill).flatten();
    values
        .flat_map(|value| value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice))
        .filter_map(Value::as_str)
}

/// The distinct words of texts, in their order, as many as a card may have.
fn words<'a>(texts: impl Iterator<Item = &'a str>) -> Option<String> {
    let (mut words, mut seen) = (String::new(), BTreeSet::new());
    for word in
        texts.flat_map(|text| text.split(|letter: char| letter.is_whitespace() || letter.is_control()))
    {
        if !word.is_empty() && words.len() + word.len() < SKILLS_BYTES_MAX && seen.insert(word) {
            words.push_str(if words.is_empty() { "" } else { " " });
            words.push_str(word);
        }
    }
    (!words.is_empty()).then_some(words)
}

/// Labels derived from a document: each once, in order. What is too long, unclean or beyond the limit is left out,
/// for the original keeps it and the document is none the worse.
pub(super) struct Labels {
    words: Vec<String>,
    seen: BTreeSet<String>,
    style: Style,
}

#[derive(Clone, Copy)]
enum Style {
    /// As published.
    Tag,
    /// Lower case, blanks as `-`; `_`, `-` and blank count as one letter when repetitions are found.
    Capability,
}

impl Labels {
    /// Tags, the first of them naming the format.
    pub(super) fn tags(format: &str) -> Labels {
        let mut tags = Labels { words: Vec::new(), seen: BTreeSet::new(), style: Style::Tag };
        tags.add(format);
        tags
    }

    /// Capabilities, none yet.
    pub(super) fn capabilities() -> Labels {
        Labels { words: Vec::new(), seen: BTreeSet::new(), style: Style::Capability }
    }

    /// Adds a label if it is new and fits.
    pub(super) fn add(&mut self, text: &str) {
        let (word, same_as, bytes_max) = match self.style {
            Style::Tag => (text.trim().to_owned(), text.trim().to_owned(), LABEL_TEXT_BYTES_MAX),
            Style::Capability => {
                let word = text.split_whitespace().collect::<Vec<_>>().join("-").to_lowercase();
                let same_as = word.replace('_', "-");
                (word, same_as, CAPABILITY_BYTES_MAX)
            }
        };
        let fits = !word.is_empty() && word.len() <= bytes_max && !word.contains(char::is_control);
        // `insert` last, because it remembers: only a label that is kept may shut out a later one.
        if fits && self.words.len() < LABELS_MAX && self.seen.insert(same_as) {
            self.words.push(word);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::document::read_documents;
    use crate::proto::limits::SKILLS_BYTES_MAX;

    fn skills_of(skills: Value) -> Option<String> {
        let document =
            json!({"name": "A", "protocolVersion": "0.3.0", "url": "https://a.example", "skills": skills});
        read_documents(document).remove(0).unwrap().card.skills
    }

    #[test]
    fn a_card_is_found_by_every_word_of_all_its_skills_and_holds_each_once() {
        let skill =
            |at: u32| json!({"id": "s", "name": format!("step{at}"), "description": "does a step\n twice"});
        let skills = skills_of((0..100).map(skill).collect()).unwrap();
        assert!(
            skills.starts_with("step0 s does a step twice step1 step2 ") && skills.ends_with("step99"),
            "{skills}"
        );
        let examples = json!([{"id": "x", "name": "getRates", "examples": ["of the euro", "of the yen"]}]);
        assert_eq!(skills_of(examples).as_deref(), Some("getRates x of the euro yen"));
        assert_eq!(skills_of(json!([])), None);
    }

    #[test]
    fn words_of_skills_are_as_many_as_fit_and_a_full_record_has_none() {
        let many = |count: u32| (0..count).map(|at| format!("word{at} ")).collect::<String>();
        let skills = skills_of(json!([{"id": "s", "description": many(2_000)}])).unwrap();
        assert!((SKILLS_BYTES_MAX - 16..=SKILLS_BYTES_MAX).contains(&skills.len()), "{}", skills.len());
        assert_eq!(skills_of(json!([{"id": "s", "description": many(5_100)}])), None);
    }
}
