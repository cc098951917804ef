//! The gate every card passes, wherever it came from: the limits of the protocol and clean text.

use serde_json::Value;

use super::Refusal;
use super::field::{JsonPath, Violation, check_line, check_prose};
use crate::proto::card::AgentCard;
use crate::proto::limits::{
    DESCRIPTION_BYTES_MAX, ENDPOINTS_MAX, LABEL_TEXT_BYTES_MAX, LABELS_MAX, RECORD_BYTES_MAX,
    SCHEMA_BYTES_MAX, SHORT_TEXT_BYTES_MAX,
};

/// Largest encoded card, bytes: a record less 2 KiB for its key, signature and other fields. Grants come on top, but
/// owned agents are described by short files.
pub const CARD_BYTES_MAX: usize = RECORD_BYTES_MAX - 2 * 1024;
/// Longest address of an endpoint, bytes: what browsers and proxies accept as a URL.
pub const ADDRESS_BYTES_MAX: usize = 2 * 1024;

/// Checks all limits of a card and that its text is clean and its JSON parts are JSON objects.
///
/// # Errors
/// `too_large` or `bad_field`, with the field, what was found and the limit. The refusal bears the card's original
/// name, empty if it has none.
pub fn check(card: &AgentCard) -> Result<(), Refusal> {
    check_card(card)
        .map_err(|violation| Refusal::new(card.original_name.as_deref().unwrap_or_default(), &violation))
}

/// [`check`] with the place kept apart.
pub(super) fn check_card(card: &AgentCard) -> Result<(), Violation> {
    check_description(&card.description)?;
    check_short_texts(card)?;
    check_labels("tags", &card.tags)?;
    check_labels("capabilities", &card.capabilities)?;
    check_endpoints(card)?;
    check_schema("input_schema", card.input_schema.as_deref())?;
    check_schema("output_schema", card.output_schema.as_deref())?;
    check_json_object("original", card.original.as_deref())?;
    check_json_object("registry_meta", card.registry_meta.as_deref())?;
    // Last: encoding costs the most, and a message about one field helps more than one about the whole.
    check_size(card)
}

fn check_description(text: &str) -> Result<(), Violation> {
    let path = JsonPath::default().key("description");
    check_prose(path.clone(), text)?;
    limit(path, text.len(), DESCRIPTION_BYTES_MAX, "bytes", "shorten it")
}

fn check_short_texts(card: &AgentCard) -> Result<(), Violation> {
    let texts = [
        ("title", &card.title),
        ("role", &card.role),
        ("model", &card.model),
        ("version", &card.version),
        ("region", &card.region),
        ("residency", &card.residency),
        ("original_name", &card.original_name),
        ("deprecated", &card.deprecated),
    ];
    for (key, text) in texts {
        let Some(text) = text else { continue };
        check_line(JsonPath::default().key(key), text)?;
        limit(JsonPath::default().key(key), text.len(), SHORT_TEXT_BYTES_MAX, "bytes", "shorten it")?;
    }
    Ok(())
}

fn check_labels(key: &str, labels: &[String]) -> Result<(), Violation> {
    let path = JsonPath::default().key(key);
    limit(path.clone(), labels.len(), LABELS_MAX, "entries", "keep the most telling ones")?;
    for (index, label) in labels.iter().enumerate() {
        let path = path.index(index);
        if label.trim().is_empty() {
            return Err(Violation::bad(path, "is empty", "remove it"));
        }
        check_line(path.clone(), label)?;
        limit(path, label.len(), LABEL_TEXT_BYTES_MAX, "bytes", "shorten it")?;
    }
    Ok(())
}

fn check_endpoints(card: &AgentCard) -> Result<(), Violation> {
    let path = JsonPath::default().key("endpoints");
    limit(path.clone(), card.endpoints.len(), ENDPOINTS_MAX, "entries", "list fewer addresses")?;
    for (index, endpoint) in card.endpoints.iter().enumerate() {
        let (kind, address) = (path.index(index).key("kind"), path.index(index).key("address"));
        check_line(kind.clone(), &endpoint.kind)?;
        check_line(address.clone(), &endpoint.address)?;
        for (key, text) in [("protocol_version", &endpoint.protocol_version), ("tenant", &endpoint.tenant)] {
            let Some(text) = text else { continue };
            let path = path.index(index).key(key);
            check_line(path.clone(), text)?;
            limit(path, text.len(), SHORT_TEXT_BYTES_MAX, "bytes", "shorten it")?;
        }
        limit(kind, endpoint.kind.len(), LABEL_TEXT_BYTES_MAX, "bytes", "name the transport briefly")?;
        limit(address, endpoint.address.len(), ADDRESS_BYTES_MAX, "bytes", "use a shorter address")?;
    }
    Ok(())
}

fn check_schema(key: &str, text: Option<&str>) -> Result<(), Violation> {
    let length = text.map_or(0, str::len);
    // Length before content: nothing longer than the limit is parsed.
    limit(
        JsonPath::default().key(key),
        length,
        SCHEMA_BYTES_MAX,
        "bytes",
        "leave out what callers do not need",
    )?;
    check_json_object(key, text)
}

fn check_json_object(key: &str, text: Option<&str>) -> Result<(), Violation> {
    let Some(text) = text else { return Ok(()) };
    // JSON may hold U+007F and above as they are, and a terminal that shows the text would obey them.
    check_prose(JsonPath::default().key(key), text)?;
    match serde_json::from_str::<Value>(text) {
        Ok(Value::Object(_)) => Ok(()),
        Ok(_) => Err(Violation::bad(
            JsonPath::default().key(key),
            "is not a JSON object",
            "write one, `{}` takes anything",
        )),
        Err(error) => Err(Violation::bad(
            JsonPath::default().key(key),
            format!("is not JSON: {error}"),
            "correct the text",
        )),
    }
}

fn check_size(card: &AgentCard) -> Result<(), Violation> {
    let mut bytes = Vec::new();
    // Writing to memory fails only if a type refuses to be encoded, and none of a card does.
    if let Err(error) = ciborium::into_writer(card, &mut bytes) {
        return Err(Violation::bad(
            JsonPath::default(),
            format!("cannot be encoded: {error}"),
            "report this as a bug",
        ));
    }
    let fix = "leave out long parts, such as extension data under `_meta` or long examples";
    limit(JsonPath::default(), bytes.len(), CARD_BYTES_MAX, "bytes as a card", fix)
}

fn limit(path: JsonPath, found: usize, limit: usize, unit: &str, fix: &str) -> Result<(), Violation> {
    if found > limit { Err(Violation::too_large(path, found, limit, unit, fix)) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::card::Endpoint;

    fn refused(change: impl FnOnce(&mut AgentCard)) -> (&'static str, String) {
        let mut card = AgentCard::default();
        check(&card).unwrap();
        change(&mut card);
        let refusal = check(&card).unwrap_err();
        (refusal.code.text(), refusal.message)
    }

    #[test]
    fn each_limit_is_enforced_and_named_with_its_numbers() {
        let (code, message) = refused(|card| card.description = "x".repeat(4097));
        assert_eq!(code, "too_large");
        assert_eq!(message, "`description` has 4097 bytes, more than the 4096 that are allowed; shorten it");
        assert!(refused(|card| card.tags = vec!["x".into(); 65]).1.contains("`tags` has 65 entries"));
        assert!(
            refused(|card| card.capabilities = vec!["x".repeat(129)]).1.contains("`capabilities[0]` has 129")
        );
        let schema = format!("{{\"a\":\"{}\"}}", "x".repeat(16 * 1024));
        assert!(refused(|card| card.output_schema = Some(schema)).1.contains("16384"));
        let endpoint = Endpoint { kind: "sse".into(), address: "x".repeat(2049), ..Endpoint::default() };
        assert!(
            refused(|card| card.endpoints = vec![endpoint]).1.contains("`endpoints[0].address` has 2049")
        );
        let original = format!("{{\"a\":\"{}\"}}", "x".repeat(CARD_BYTES_MAX));
        assert!(refused(|card| card.original = Some(original)).1.contains("more than the 47104"));
    }

    #[test]
    fn text_with_control_characters_is_refused() {
        assert_eq!(refused(|card| card.title = Some("a\u{1b}[2Jb".into())).0, "bad_field");
        assert!(refused(|card| card.tags = vec!["a\nb".into()]).1.contains("`tags[0]`"));
        assert!(refused(|card| card.description = "a\u{0}".into()).1.contains("U+0000"));
        let prose = AgentCard { description: "two\n\tlines".into(), ..AgentCard::default() };
        check(&prose).unwrap();
    }

    #[test]
    fn a_schema_is_a_json_object() {
        assert!(refused(|card| card.input_schema = Some("[]".into())).1.contains("not a JSON object"));
        assert!(
            refused(|card| card.input_schema = Some("{".into())).1.contains("`input_schema` is not JSON")
        );
    }
}
