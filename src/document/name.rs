//! Names of imported documents: from the content alone, so that one document has one name on every node.
//!
//! The plain form is the original in lower case with `/` as `_` and every other foreign character as `-`. It is the
//! name when **reading it back gives the original**; then no other original can have it. To read back: the first `_`
//! is `/`; before it every `-` is `.` (a reverse domain), except that after `io-github-` a `-` is itself, for GitHub
//! logins have no dots; behind it, and without any `_`, everything is itself. So `ai.exa/exa` is `ai-exa_exa` and
//! `io.github.a-b/c-d` is `io-github-a-b_c-d`, while `ai-exa/exa`, `AI.exa/exa` and `ai.exa/e.xa` are ambiguous.
//! An ambiguous or too long form loses each `-` that it begins with, is cut to 56 bytes, and gets `-` and 6 base32
//! characters of the SHA-256 of the original. A2A cards of several providers often have one name: their hash is of the name
//! and the address. These 30 bits keep honest names apart; they are no defence against a made collision, which an open zone
//! could not prevent anyway: the owner tells agents of one name apart.

use data_encoding::BASE32_NOPAD;
use sha2::{Digest, Sha256};
use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;

use crate::proto::name::{AgentName, LABEL_BYTES_MAX, NameError};

/// Characters of the hash behind an ambiguous name.
const HASH_CHARS: usize = 6;
/// Letters that are no others with an accent.
const SPELT: [(char, &str); 8] =
    [('ß', "ss"), ('æ', "ae"), ('œ', "oe"), ('ø', "o"), ('đ', "d"), ('ł', "l"), ('ı', "i"), ('þ', "th")];
/// Stands before the hash where no letter of the original is one of names.
const NAMELESS: &str = "agent";

/// The name under which an imported document called `original` is registered: lower case, `/` as `_`, every other
/// foreign character as `-` (`ai.exa/exa` is `ai-exa_exa`).
///
/// If that is longer than 63 bytes or begins with `-`, or reading it back (first `_` as `/`, each `-` before it as `.`,
/// but not behind `io-github-`) does not give the original, it is cut to 56 bytes and gets `-` and 6 base32 characters of the
/// original's SHA-256. Depends on nothing else, so it also finds what is registered under an original name.
///
/// # Errors
/// [`NameError::Empty`] for an empty original; everything else has a name.
pub fn agent_name(original: &str) -> Result<AgentName, NameError> {
    named(original, original)
}

/// The name of a document whose own name anybody may give, and which its address tells from others of that name: where
/// [`agent_name`] needs a hash, it is of the name, a line end and the address.
///
/// # Errors
/// As [`agent_name`].
pub(super) fn agent_name_at(original: &str, address: &str) -> Result<AgentName, NameError> {
    named(original, &format!("{original}\n{address}"))
}

/// `identity` is what is hashed where the name alone is ambiguous.
fn named(original: &str, identity: &str) -> Result<AgentName, NameError> {
    let plain = plain_form(original);
    // The length first: what is too long is hashed anyway, and reading it back would copy it. A name that begins with `-`
    // would be taken for an option wherever it is typed.
    if plain.len() <= LABEL_BYTES_MAX && !plain.starts_with('-') && read_back(&plain) == original {
        return plain.parse();
    }
    if original.is_empty() {
        return plain.parse();
    }
    hashed(identity, &plain)
}

/// The name of a tool of an agent, as an agent of its own: `time` and `convert_time` give `time_convert_time`. What is
/// no name as it stands gets a hash of it, as [`agent_name`] does.
///
/// # Errors
/// As [`agent_name`]; there is none for a name and any tool.
pub fn tool_name(agent: &AgentName, tool: &str) -> Result<AgentName, NameError> {
    let original = format!("{}_{tool}", agent.as_str());
    original.parse().or_else(|_| hashed(&original, &plain_form(&original)))
}

fn hashed(original: &str, plain: &str) -> Result<AgentName, NameError> {
    // Of a name in another script nothing is left.
    let plain = match plain.trim_start_matches('-') {
        "" => NAMELESS,
        plain => plain,
    };
    // The 1 is the `-` before the hash.
    let cut = plain.len().min(LABEL_BYTES_MAX - 1 - HASH_CHARS);
    // Of the original and not of its plain form, which several originals share.
    let hash = BASE32_NOPAD.encode(&Sha256::digest(original.as_bytes())).to_ascii_lowercase();
    format!("{}-{}", &plain[..cut], &hash[..HASH_CHARS]).parse()
}

/// The original in the alphabet of names, of any length, not unique. ASCII only, so it can be cut at any byte.
fn plain_form(original: &str) -> String {
    let letter = |c: char| match c {
        'a'..='z' | '0'..='9' | '_' | '-' => c,
        '/' => '_',
        _ => '-',
    };
    original.to_lowercase().chars().map(letter).collect()
}

/// A name of our own like a text that is none: without accents, and foreign letters as people write them in ASCII.
pub fn similar_name(text: &str) -> String {
    let unaccented = text.nfkd().filter(|letter| !is_combining_mark(*letter)).collect::<String>();
    let spelt =
        SPELT.iter().fold(unaccented.to_lowercase(), |text, (letter, ascii)| text.replace(*letter, ascii));
    let plain = plain_form(&spelt);
    let mut words: Vec<&str> = plain.split(['-', ' ']).filter(|word| !word.is_empty()).collect();
    if words.is_empty() {
        words = vec!["my", NAMELESS];
    }
    let mut name = words.join("-");
    name.truncate(LABEL_BYTES_MAX);
    name
}

fn read_back(plain: &str) -> String {
    let Some((space, rest)) = plain.split_once('_') else { return plain.to_owned() };
    match space.strip_prefix("io-github-") {
        Some(user) => format!("io.github.{user}/{rest}"),
        None => format!("{}/{rest}", space.replace('-', ".")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn name(original: &str) -> String {
        agent_name(original).unwrap().to_string()
    }

    fn is_hashed(original: &str, head: &str) -> bool {
        let name = name(original);
        name.strip_prefix(head).is_some_and(|tail| tail.starts_with('-') && tail.len() == 1 + HASH_CHARS)
    }

    #[test]
    fn what_can_be_read_back_keeps_its_plain_form() {
        assert_eq!(name("ai.exa/exa"), "ai-exa_exa");
        assert_eq!(name("com.postman/postman-mcp-server"), "com-postman_postman-mcp-server");
        assert_eq!(
            name("io.github.mongodb-js/mongodb-mcp-server"),
            "io-github-mongodb-js_mongodb-mcp-server"
        );
        assert_eq!(name("io.github.vinur1992/testing_repo"), "io-github-vinur1992_testing_repo");
        assert_eq!(name("weather-agent"), "weather-agent");
    }

    #[test]
    fn what_another_name_could_also_give_gets_a_hash() {
        assert!(is_hashed("ai-exa/exa", "ai-exa_exa"));
        assert!(is_hashed("AI.exa/exa", "ai-exa_exa"));
        assert!(is_hashed("com.monday/monday.com", "com-monday_monday-com"));
        assert!(is_hashed("weather_agent", "weather_agent"));
        assert!(is_hashed("Ven&Co", "ven-co"));
        assert!(is_hashed("全", "agent") && is_hashed("-x", "x") && is_hashed("날씨 2", "2"));
        assert_eq!(name("Hello World Agent"), "hello-world-agent-rats3a");
    }

    #[test]
    fn cards_of_one_name_at_two_addresses_have_two_names() {
        let at = |address: &str| agent_name_at("Weather Agent", address).unwrap().to_string();
        assert_ne!(at("https://one.example"), at("https://two.example"));
        assert_eq!(at("https://one.example"), at("https://one.example"));
        assert!(at("https://one.example").starts_with("weather-agent-"));
        assert_eq!(agent_name_at("weather", "https://one.example").unwrap().as_str(), "weather");
        assert!(agent_name_at("", "https://one.example").is_err());
    }

    #[test]
    fn a_name_like_a_wrong_one_is_readable() {
        for (text, similar) in [
            ("größe", "grosse"),
            ("Sum", "sum"),
            ("-x  y-", "x-y"),
            ("Ångström Ærø", "angstrom-aero"),
            ("날씨", "my-agent"),
        ] {
            assert_eq!(similar_name(text), similar);
        }
    }

    #[test]
    fn a_tool_is_named_after_its_agent() {
        let agent = "time".parse().unwrap();
        let named = |tool: &str| tool_name(&agent, tool).unwrap().to_string();
        assert_eq!(named("convert_time"), "time_convert_time");
        assert!(named("Convert.Time").starts_with("time_convert-time-"));
        assert_ne!(named("Convert.Time"), named("convert.time"));
        assert_eq!(named(&"x".repeat(100)).len(), LABEL_BYTES_MAX);
    }

    #[test]
    fn a_name_is_cut_only_beyond_63_bytes() {
        let fits = format!("ai.x/{}", "a".repeat(58));
        assert_eq!(name(&fits), fits.replace('.', "-").replace('/', "_"));
        let long = format!("ai.x/{}", "a".repeat(59));
        assert_eq!(name(&long).len(), 63);
        assert!(is_hashed(&long, &format!("ai-x_{}", "a".repeat(51))));
        assert_eq!(agent_name(""), Err(NameError::Empty(String::new())));
    }

    /// Originals that lie close together, where a careless mapping would merge them.
    fn close_originals() -> impl Strategy<Value = String> {
        prop_oneof!["[abA._/ -]{1,6}", "io\\.github\\.[ab.-]{1,3}/[ab._-]{1,3}", "[a-c]{60,64}", "\\PC{1,80}"]
    }

    proptest! {
        #[test]
        fn every_original_has_a_valid_name(original in "\\PC{1,200}") {
            let mapped = agent_name(&original).unwrap();
            prop_assert!(!mapped.as_str().starts_with('-'));
            prop_assert_eq!(mapped.to_string().parse::<AgentName>().unwrap(), mapped);
        }

        #[test]
        fn different_originals_have_different_names(a in close_originals(), b in close_originals()) {
            prop_assert_eq!(a == b, agent_name(&a).unwrap() == agent_name(&b).unwrap());
        }
    }
}
