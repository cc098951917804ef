//! Signatures of A2A cards (specification of 1.0, section 8.4): JWS over the card in JCS (RFC 8785), by EdDSA or ES256.
//!
//! Only keys that the operator named prove anything: a card's own `jku` may lead to any key. What is signed are the fields that
//! version 1.0 knows. Of those that are empty its SDKs leave out all, its specification the optional ones: either form is taken,
//! and so is the card as it stands.

use data_encoding::BASE64URL_NOPAD;
use ring::signature::{ECDSA_P256_SHA256_FIXED, ED25519, UnparsedPublicKey, VerificationAlgorithm};
use serde::Deserialize;
use serde_json::{Map, Value};

/// Signatures of one card that are looked at.
const SIGNATURES_MAX: usize = 16;
/// Keys that an operator names.
const KEYS_MAX: usize = 1_000;

/// Whether somebody who is known signed a card.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CardSignature {
    /// Nobody signed it.
    Unsigned,
    /// It is signed, and no key that is known here did so.
    Unverified,
    /// This key did.
    Verified {
        /// Its `kid`.
        key: String,
        /// Whether the addresses outside of `supportedInterfaces` are signed, too.
        covers_all: bool,
    },
}

/// Public keys by which cards are verified.
#[derive(Clone, Debug, Default)]
pub struct CardKeys(Vec<CardKey>);

#[derive(Clone, Debug)]
struct CardKey {
    id: String,
    algorithm: Algorithm,
    public: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Algorithm {
    EdDsa,
    Es256,
}

/// A key of RFC 7517 and 8037.
#[derive(Deserialize)]
struct Jwk {
    kid: String,
    kty: String,
    crv: String,
    x: String,
    #[serde(default)]
    y: Option<String>,
}

#[derive(Deserialize)]
struct JwkSet {
    keys: Vec<Jwk>,
}

#[derive(Deserialize)]
struct Jws {
    protected: String,
    signature: String,
}

#[derive(Deserialize)]
struct ProtectedHeader {
    alg: String,
    kid: String,
}

impl Algorithm {
    fn of(name: &str) -> Option<Algorithm> {
        match name {
            "EdDSA" => Some(Algorithm::EdDsa),
            "ES256" => Some(Algorithm::Es256),
            _ => None,
        }
    }

    fn verification(self) -> &'static dyn VerificationAlgorithm {
        match self {
            Algorithm::EdDsa => &ED25519,
            Algorithm::Es256 => &ECDSA_P256_SHA256_FIXED,
        }
    }
}

impl CardKeys {
    /// Reads a JSON Web Key Set.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(text: &str) -> Result<CardKeys, String> {
        let set: JwkSet =
            serde_json::from_str(text).map_err(|error| format!("no JSON Web Key Set: {error}"))?;
        set.keys.into_iter().map(CardKey::of).collect::<Result<_, _>>().map(CardKeys)
    }

    /// Takes more keys.
    ///
    /// # Errors
    /// They are too many.
    pub fn add(&mut self, more: CardKeys) -> Result<(), String> {
        if self.0.len() + more.0.len() > KEYS_MAX {
            return Err(format!("more than {KEYS_MAX} keys"));
        }
        self.0.extend(more.0);
        Ok(())
    }

    /// Looks for a signature of a known key.
    pub fn verify(&self, card: &Value) -> CardSignature {
        let Some(fields) = card.as_object() else { return CardSignature::Unsigned };
        let signatures = fields.get("signatures").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        if signatures.is_empty() {
            return CardSignature::Unsigned;
        }
        let mut whole = fields.clone();
        whole.remove("signatures");
        let known = |keeps_required| known_fields(fields, CARD, keeps_required);
        let is_known = whole.keys().all(|field| CARD.iter().any(|(name, ..)| name == field));
        let payloads = [(whole, true), (known(false), is_known), (known(true), is_known)];
        let payloads = payloads.map(|(payload, covers_all)| {
            let canonical = serde_json_canonicalizer::to_vec(&Value::Object(payload)).unwrap_or_default();
            (BASE64URL_NOPAD.encode(&canonical), covers_all)
        });
        let verified =
            signatures.iter().take(SIGNATURES_MAX).find_map(|signature| self.signer(signature, &payloads));
        verified.map_or(CardSignature::Unverified, |(key, covers_all)| CardSignature::Verified {
            key,
            covers_all,
        })
    }

    fn signer(&self, signature: &Value, payloads: &[(String, bool)]) -> Option<(String, bool)> {
        let jws = Jws::deserialize(signature).ok()?;
        let header = BASE64URL_NOPAD.decode(jws.protected.as_bytes()).ok()?;
        let header: ProtectedHeader = serde_json::from_slice(&header).ok()?;
        let algorithm = Algorithm::of(&header.alg)?;
        let signature = BASE64URL_NOPAD.decode(jws.signature.as_bytes()).ok()?;
        // Several keys may have one name, of which the algorithm is one.
        let keys = self.0.iter().filter(|key| key.id == header.kid && key.algorithm == algorithm);
        keys.into_iter().find_map(|key| {
            let public = UnparsedPublicKey::new(algorithm.verification(), &key.public);
            let signs = |payload: &str| {
                public.verify(format!("{}.{payload}", jws.protected).as_bytes(), &signature).is_ok()
            };
            let signed = payloads.iter().find(|(payload, _)| signs(payload));
            signed.map(|(_, covers_all)| (key.id.clone(), *covers_all))
        })
    }
}

impl CardKey {
    fn of(key: Jwk) -> Result<CardKey, String> {
        let part = |text: &str| {
            let bytes = BASE64URL_NOPAD.decode(text.as_bytes()).ok().filter(|bytes| bytes.len() == 32);
            bytes.ok_or_else(|| format!("the key `{}` has a part that is not 32 bytes of base64url", key.kid))
        };
        match (key.kty.as_str(), key.crv.as_str(), &key.y) {
            ("OKP", "Ed25519", _) => Ok((Algorithm::EdDsa, part(&key.x)?)),
            // A point of the curve as SEC 1 writes it.
            ("EC", "P-256", Some(y)) => Ok((Algorithm::Es256, [vec![4], part(&key.x)?, part(y)?].concat())),
            _ => Err(format!("the key `{}` is neither Ed25519 nor P-256", key.kid)),
        }
        .map(|(algorithm, public)| CardKey { id: key.kid.clone(), algorithm, public })
    }
}

/// What version 1.0 knows of a card.
enum Shape {
    /// A text, a number, a truth value, or a document that it does not look into.
    Plain,
    /// An object with these fields; the specification requires those with `true`.
    Object(Fields),
    /// Any number of these, in order.
    List(&'static Shape),
    /// Any number of these, by names.
    Map(&'static Shape),
}

type Fields = &'static [(&'static str, bool, &'static Shape)];

const P: &Shape = &Shape::Plain;
const TEXTS: &Shape = &Shape::List(P);
const SCOPES: &Shape = &Shape::Map(P);
const CARD: Fields = &[
    ("name", true, P),
    ("description", true, P),
    ("supportedInterfaces", true, &Shape::List(&Shape::Object(INTERFACE))),
    ("provider", false, &Shape::Object(&[("url", true, P), ("organization", true, P)])),
    ("version", true, P),
    ("documentationUrl", false, P),
    ("capabilities", true, &Shape::Object(CAPABILITIES)),
    ("securitySchemes", false, &Shape::Map(&Shape::Object(SCHEME))),
    ("securityRequirements", false, &Shape::List(&Shape::Object(REQUIREMENT))),
    ("defaultInputModes", true, TEXTS),
    ("defaultOutputModes", true, TEXTS),
    ("skills", true, &Shape::List(&Shape::Object(SKILL))),
    ("iconUrl", false, P),
];
const INTERFACE: Fields =
    &[("url", true, P), ("protocolBinding", true, P), ("protocolVersion", true, P), ("tenant", false, P)];
const CAPABILITIES: Fields = &[
    ("streaming", false, P),
    ("pushNotifications", false, P),
    ("extensions", false, &Shape::List(&Shape::Object(EXTENSION))),
    ("extendedAgentCard", false, P),
];
const EXTENSION: Fields =
    &[("uri", false, P), ("description", false, P), ("required", false, P), ("params", false, P)];
const SKILL: Fields = &[
    ("id", true, P),
    ("name", true, P),
    ("description", true, P),
    ("tags", true, TEXTS),
    ("examples", false, TEXTS),
    ("inputModes", false, TEXTS),
    ("outputModes", false, TEXTS),
    ("securityRequirements", false, &Shape::List(&Shape::Object(REQUIREMENT))),
];
const REQUIREMENT: Fields = &[("schemes", false, &Shape::Map(&Shape::Object(&[("list", false, TEXTS)])))];
const SCHEME: Fields = &[
    (
        "apiKeySecurityScheme",
        false,
        &Shape::Object(&[("description", false, P), ("location", true, P), ("name", true, P)]),
    ),
    (
        "httpAuthSecurityScheme",
        false,
        &Shape::Object(&[("description", false, P), ("scheme", true, P), ("bearerFormat", false, P)]),
    ),
    (
        "oauth2SecurityScheme",
        false,
        &Shape::Object(&[
            ("description", false, P),
            ("flows", true, &Shape::Object(FLOWS)),
            ("oauth2MetadataUrl", false, P),
        ]),
    ),
    (
        "openIdConnectSecurityScheme",
        false,
        &Shape::Object(&[("description", false, P), ("openIdConnectUrl", true, P)]),
    ),
    ("mtlsSecurityScheme", false, &Shape::Object(&[("description", false, P)])),
];
const FLOW: Fields = &[
    ("authorizationUrl", false, P),
    ("deviceAuthorizationUrl", false, P),
    ("tokenUrl", false, P),
    ("refreshUrl", false, P),
    ("scopes", false, SCOPES),
    ("pkceRequired", false, P),
];
const FLOWS: Fields = &[
    ("authorizationCode", false, &Shape::Object(FLOW)),
    ("clientCredentials", false, &Shape::Object(FLOW)),
    ("implicit", false, &Shape::Object(FLOW)),
    ("password", false, &Shape::Object(FLOW)),
    ("deviceCode", false, &Shape::Object(FLOW)),
];

/// The fields that are known, without those that are empty; `keeps_required` keeps the ones that the specification requires.
fn known_fields(object: &Map<String, Value>, fields: Fields, keeps_required: bool) -> Map<String, Value> {
    let known = fields.iter().filter_map(|(name, is_required, shape)| {
        let value = shape.known(object.get(*name)?, keeps_required);
        let is_kept = !is_empty(&value) || keeps_required && *is_required;
        is_kept.then(|| ((*name).to_owned(), value))
    });
    known.collect()
}

impl Shape {
    fn known(&self, value: &Value, keeps_required: bool) -> Value {
        match (self, value) {
            (Shape::Object(fields), Value::Object(object)) => {
                Value::Object(known_fields(object, fields, keeps_required))
            }
            (Shape::List(of), Value::Array(items)) => {
                Value::Array(items.iter().map(|item| of.known(item, keeps_required)).collect())
            }
            (Shape::Map(of), Value::Object(items)) => {
                let known = |(name, item): (&String, &Value)| (name.clone(), of.known(item, keeps_required));
                Value::Object(items.iter().map(known).collect())
            }
            _ => value.clone(),
        }
    }
}

/// An explicit `false` or 0 is something.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::{Signer, SigningKey};
    use serde_json::json;

    use super::*;

    const SEED: [u8; 32] = [7; 32];

    fn keys() -> CardKeys {
        let x = BASE64URL_NOPAD.encode(SigningKey::from_bytes(&SEED).verifying_key().as_bytes());
        let set = json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "ours", "x": x}]});
        CardKeys::read(&set.to_string()).unwrap()
    }

    fn card() -> Value {
        json!({
            "name": "Wetter – Agent", "description": "", "version": "1.0.0", "documentationUrl": "",
            "supportedInterfaces": [{"url": "https://a.example/x", "protocolBinding": "JSONRPC", "protocolVersion": "1.0"}],
            "capabilities": {"streaming": false, "extensions": []}, "defaultInputModes": ["text/plain"],
            "defaultOutputModes": [], "skills": [{"id": "s", "name": "s", "description": "d", "tags": [], "examples": []}],
        })
    }

    /// The card with a signature over a payload.
    fn signed(card: &Value, payload: &str, header: &Value) -> Value {
        let protected = BASE64URL_NOPAD.encode(header.to_string().as_bytes());
        let input = format!("{protected}.{}", BASE64URL_NOPAD.encode(payload.as_bytes()));
        let signature = SigningKey::from_bytes(&SEED).sign(input.as_bytes()).to_bytes();
        let mut card = card.clone();
        card["signatures"] =
            json!([{"protected": protected, "signature": BASE64URL_NOPAD.encode(&signature)}]);
        card
    }

    fn header() -> Value {
        json!({"alg": "EdDSA", "kid": "ours", "typ": "JOSE", "jku": "https://evil.example/keys"})
    }

    /// As the SDKs write it, by hand.
    const OF_SDK: &str = concat!(
        r#"{"capabilities":{"streaming":false},"defaultInputModes":["text/plain"],"name":"Wetter – Agent","#,
        r#""skills":[{"description":"d","id":"s","name":"s"}],"supportedInterfaces":[{"protocolBinding":"JSONRPC","#,
        r#""protocolVersion":"1.0","url":"https://a.example/x"}],"version":"1.0.0"}"#
    );
    const OF_SPECIFICATION: &str = concat!(
        r#"{"capabilities":{"streaming":false},"defaultInputModes":["text/plain"],"defaultOutputModes":[],"#,
        r#""description":"","name":"Wetter – Agent","skills":[{"description":"d","id":"s","name":"s","tags":[]}],"#,
        r#""supportedInterfaces":[{"protocolBinding":"JSONRPC","protocolVersion":"1.0","url":"https://a.example/x"}],"#,
        r#""version":"1.0.0"}"#
    );

    #[test]
    fn both_forms_of_what_is_empty_are_taken_and_what_is_not_covered_is_told() {
        let verified = |covers_all| CardSignature::Verified { key: "ours".into(), covers_all };
        // Of this card 1.0 knows every field.
        for payload in [OF_SDK, OF_SPECIFICATION] {
            let card = signed(&card(), payload, &header());
            assert_eq!(keys().verify(&card), verified(true), "{payload}");
            // Whoever adds what 1.0 does not know changes nothing that was signed.
            let mut old = card;
            old["url"] = json!("https://evil.example/a2a");
            assert_eq!(keys().verify(&old), verified(false));
        }
        let whole = serde_json_canonicalizer::to_string(&card()).unwrap();
        assert_eq!(keys().verify(&signed(&card(), &whole, &header())), verified(true));
    }

    #[test]
    fn what_was_changed_or_signed_by_others_is_not_verified() {
        let good = signed(&card(), OF_SDK, &header());
        let changed = |at: &str, value: Value| {
            let mut card = good.clone();
            *card.pointer_mut(at).unwrap() = value;
            keys().verify(&card)
        };
        assert_eq!(changed("/name", json!("x")), CardSignature::Unverified);
        assert_eq!(
            changed("/supportedInterfaces/0/url", json!("https://evil.example")),
            CardSignature::Unverified
        );
        assert_eq!(
            changed("/capabilities", json!({})),
            CardSignature::Unverified,
            "an explicit false is signed"
        );
        assert_eq!(CardKeys::default().verify(&good), CardSignature::Unverified, "no key is known");
        for header in [
            json!({"alg": "none", "kid": "ours"}),
            json!({"alg": "HS256", "kid": "ours"}),
            json!({"kid": "ours"}),
        ] {
            assert_eq!(
                keys().verify(&signed(&card(), OF_SDK, &header)),
                CardSignature::Unverified,
                "{header}"
            );
        }
        let by_another_name = json!({"alg": "EdDSA", "kid": "theirs"});
        assert_eq!(keys().verify(&signed(&card(), OF_SDK, &by_another_name)), CardSignature::Unverified);
        // One that is broken does not spoil one that is good.
        let mut both = good.clone();
        let one = both["signatures"][0].clone();
        both["signatures"] = json!([{"protected": "x", "signature": "y"}, 7, one]);
        assert!(matches!(keys().verify(&both), CardSignature::Verified { .. }));
        assert_eq!(keys().verify(&card()), CardSignature::Unsigned);
        assert_eq!(keys().verify(&json!([])), CardSignature::Unsigned);
    }

    #[test]
    fn a_key_of_the_curve_signs_as_well_and_none_stands_in_for_one_of_the_other_kind() {
        use ring::rand::SystemRandom;
        use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};

        let (kind, random) = (&ECDSA_P256_SHA256_FIXED_SIGNING, SystemRandom::new());
        let pair = EcdsaKeyPair::generate_pkcs8(kind, &random).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(kind, pair.as_ref(), &random).unwrap();
        let (x, y) = pair.public_key().as_ref()[1..].split_at(32);
        let part = |bytes: &[u8]| BASE64URL_NOPAD.encode(bytes);
        let key = json!({"kty": "EC", "crv": "P-256", "kid": "ours", "x": part(x), "y": part(y)});
        let mut known = keys();
        known.add(CardKeys::read(&json!({ "keys": [key] }).to_string()).unwrap()).unwrap();

        let protected = part(json!({"alg": "ES256", "kid": "ours"}).to_string().as_bytes());
        let input = format!("{protected}.{}", part(OF_SDK.as_bytes()));
        let signature = part(pair.sign(&random, input.as_bytes()).unwrap().as_ref());
        let mut by_curve = card();
        by_curve["signatures"] = json!([{"protected": protected, "signature": signature}]);
        let verified = CardSignature::Verified { key: "ours".into(), covers_all: true };
        // Both have one name, and each signs by its own algorithm.
        assert_eq!(known.verify(&by_curve), verified);
        assert_eq!(known.verify(&signed(&card(), OF_SDK, &header())), verified);
        assert_eq!(keys().verify(&by_curve), CardSignature::Unverified);
        let as_curve = json!({"alg": "ES256", "kid": "ours"});
        assert_eq!(known.verify(&signed(&card(), OF_SDK, &as_curve)), CardSignature::Unverified);
        by_curve["name"] = json!("x");
        assert_eq!(known.verify(&by_curve), CardSignature::Unverified);
    }

    #[test]
    fn what_is_no_key_set_is_refused() {
        let key =
            |kty: &str, crv: &str, x: &str| json!({"keys": [{"kty": kty, "crv": crv, "kid": "k", "x": x}]});
        for bad in
            [json!({}), key("OKP", "X25519", "AA"), key("EC", "P-256", "AA"), key("OKP", "Ed25519", "AA")]
        {
            CardKeys::read(&bad.to_string()).unwrap_err();
        }
    }
}
