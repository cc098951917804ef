//! How values are written in a scenario: times with units, whole numbers that may be written `1e6`, and the values that
//! have two forms.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::{AntiEntropy, Expectation, Of, Op, Wanted};

/// Most of anything that is counted: more than any tier plays.
const COUNT_MAX: f64 = 1e9;

/// In how many rounds a node sends an update.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "RoundsText")]
pub enum Rounds {
    /// This many, then never again.
    Times(u32),
    /// As long as the run lasts.
    #[default]
    Forever,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "a number of rounds, or \"forever\"")]
enum RoundsText {
    Times(u32),
    Word(String),
}

impl TryFrom<RoundsText> for Rounds {
    type Error = String;

    fn try_from(text: RoundsText) -> Result<Rounds, String> {
        match text {
            RoundsText::Times(0) => Err("a node must send at least once: rounds = 1 or more".into()),
            RoundsText::Times(times) => Ok(Rounds::Times(times)),
            RoundsText::Word(word) if word == "forever" => Ok(Rounds::Forever),
            RoundsText::Word(word) => {
                Err(format!("`{word}` is no number of rounds; write 3, or \"forever\""))
            }
        }
    }
}

/// One-way latency of a link: `"25ms"`, or `{ least = "5ms", most = "50ms" }`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Latency {
    /// Shortest.
    pub least: Duration,
    /// Longest.
    pub most: Duration,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Between {
    #[serde(deserialize_with = "duration")]
    least: Duration,
    #[serde(deserialize_with = "duration")]
    most: Duration,
}

impl<'de> Deserialize<'de> for Latency {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Latency, D::Error> {
        // An untagged enum would only say that nothing fits, not that a number lacks its unit.
        struct Text;
        impl<'de> Visitor<'de> for Text {
            type Value = Latency;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a time with a unit such as \"25ms\", or { least = \"5ms\", most = \"50ms\" }")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Latency, E> {
                let fixed = parse_duration(text).map_err(E::custom)?;
                Ok(Latency { least: fixed, most: fixed })
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<Latency, E> {
                Err(E::custom(without_unit(number as f64)))
            }

            fn visit_f64<E: Error>(self, number: f64) -> Result<Latency, E> {
                Err(E::custom(without_unit(number)))
            }

            fn visit_map<M: MapAccess<'de>>(self, map: M) -> Result<Latency, M::Error> {
                let Between { least, most } = Between::deserialize(MapAccessDeserializer::new(map))?;
                if least <= most {
                    Ok(Latency { least, most })
                } else {
                    Err(M::Error::custom("the least latency is above the most; swap them"))
                }
            }
        }
        deserializer.deserialize_any(Text)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AntiEntropyTable {
    #[serde(deserialize_with = "duration")]
    every: Duration,
    #[serde(default)]
    on_join: bool,
}

impl<'de> Deserialize<'de> for AntiEntropy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<AntiEntropy, D::Error> {
        struct Text;
        impl<'de> Visitor<'de> for Text {
            type Value = AntiEntropy;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("false, or { every = \"30s\", on_join = true }")
            }

            fn visit_bool<E: Error>(self, is_on: bool) -> Result<AntiEntropy, E> {
                if is_on {
                    Err(E::custom("say how often: anti_entropy = { every = \"30s\", on_join = true }"))
                } else {
                    Ok(AntiEntropy::default())
                }
            }

            fn visit_map<M: MapAccess<'de>>(self, map: M) -> Result<AntiEntropy, M::Error> {
                let AntiEntropyTable { every, on_join } =
                    AntiEntropyTable::deserialize(MapAccessDeserializer::new(map))?;
                if every.is_zero() {
                    Err(M::Error::custom("`every` must be longer than nothing, for example \"30s\""))
                } else {
                    Ok(AntiEntropy { every: Some(every), on_join })
                }
            }
        }
        deserializer.deserialize_any(Text)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ExpectationText {
    metric: String,
    #[serde(default)]
    op: Option<Op>,
    #[serde(default)]
    value: Option<f64>,
    #[serde(default)]
    within: Option<f64>,
    #[serde(default)]
    of: Option<String>,
    #[serde(default, deserialize_with = "dotted")]
    at: BTreeMap<String, toml::Value>,
}

impl TryFrom<ExpectationText> for Expectation {
    type Error = String;

    fn try_from(text: ExpectationText) -> Result<Expectation, String> {
        let ExpectationText { metric, op, value, within, of, at } = text;
        let (wanted, of) = match (op, value, within, of.as_deref()) {
            (Some(op), Some(value), None, None | Some("every")) => (Wanted::Than(op, value), Of::Every),
            (Some(op), Some(value), None, Some("mean")) => (Wanted::Than(op, value), Of::Mean),
            (None, None, Some(within), Some("theory")) => (Wanted::WithinOfTheory(within), Of::Mean),
            _ => {
                return Err("an expectation is { metric, op, value } with of = \"every\" or \"mean\", or \
                            { metric, within, of = \"theory\" }"
                    .into());
            }
        };
        let (Wanted::Than(_, number) | Wanted::WithinOfTheory(number)) = wanted;
        if !number.is_finite() {
            return Err(format!("{number} cannot be compared with"));
        }
        if matches!(wanted, Wanted::WithinOfTheory(within) if within < 0.0) {
            return Err(format!("within = {number}: at least 0"));
        }
        Ok(Expectation { metric, wanted, of, at })
    }
}

/// A time with a unit.
pub(super) fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    struct Text;
    impl Visitor<'_> for Text {
        type Value = Duration;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a time with a unit, such as \"30s\"")
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<Duration, E> {
            parse_duration(text).map_err(E::custom)
        }

        fn visit_i64<E: Error>(self, number: i64) -> Result<Duration, E> {
            Err(E::custom(without_unit(number as f64)))
        }

        fn visit_f64<E: Error>(self, number: f64) -> Result<Duration, E> {
            Err(E::custom(without_unit(number)))
        }
    }
    deserializer.deserialize_any(Text)
}

fn without_unit(number: f64) -> String {
    if number.fract() == 0.0 {
        format!("a time needs a unit: write \"{number}s\" or \"{number}ms\"")
    } else {
        format!("a time needs a unit and a whole number: \"{}ms\"", (number * 1e3).round())
    }
}

/// As [`duration`], for a key that may be missing.
pub(super) fn optional_duration<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Duration>, D::Error> {
    duration(deserializer).map(Some)
}

/// `"30s"`, `"250ms"`, `"60d"`, `"1h 30m"`.
pub(super) fn parse_duration(text: &str) -> Result<Duration, String> {
    // A number in quotes most likely lacks its unit, and is told so.
    if let Ok(number) = text.trim().parse::<f64>() {
        return Err(without_unit(number));
    }
    humantime::parse_duration(text).map_err(|error| {
        format!("`{text}` is no time ({error}); write for example \"30s\", \"250ms\" or \"2h\"")
    })
}

/// A whole number above zero, which may be written `1e6`.
pub(super) fn count<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    struct Number;
    impl Visitor<'_> for Number {
        type Value = usize;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "a whole number from 1 to {COUNT_MAX:e}")
        }

        fn visit_i64<E: Error>(self, number: i64) -> Result<usize, E> {
            // Counts end far below 2^53, so none is rounded on this way.
            self.visit_f64(number as f64)
        }

        fn visit_f64<E: Error>(self, number: f64) -> Result<usize, E> {
            if number.fract() != 0.0 || !(1.0..=COUNT_MAX).contains(&number) {
                return Err(E::custom(format!(
                    "{number} is no count: a whole number from 1 to {COUNT_MAX:e}"
                )));
            }
            Ok(number as usize)
        }
    }
    deserializer.deserialize_any(Number)
}

/// As [`count`], for a key that may be missing.
pub(super) fn optional_count<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<usize>, D::Error> {
    count(deserializer).map(Some)
}

/// Keys that may be written `"network.nodes" = …` or `network.nodes = …`, which TOML reads as tables in tables.
pub(super) fn dotted<'de, D, T>(deserializer: D) -> Result<BTreeMap<String, T>, D::Error>
where
    D: Deserializer<'de>,
    T: serde::de::DeserializeOwned,
{
    let mut flat = BTreeMap::new();
    let mut open: Vec<(String, toml::Value)> =
        BTreeMap::<String, toml::Value>::deserialize(deserializer)?.into_iter().collect();
    while let Some((key, value)) = open.pop() {
        match value {
            toml::Value::Table(table) => {
                open.extend(table.into_iter().map(|(below, value)| (format!("{key}.{below}"), value)));
            }
            value => {
                let read = T::deserialize(value);
                let value =
                    read.map_err(|error| D::Error::custom(format!("`{key}`: {}", error.message())))?;
                flat.insert(key, value);
            }
        }
    }
    Ok(flat)
}

/// A value as it stands in results: equal numbers are equal, `1e3` and `1000` among them.
pub fn plain(value: &toml::Value) -> serde_json::Value {
    /// Whole numbers up to this are exact as a float.
    const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
    match value {
        toml::Value::Float(number) if number.fract() == 0.0 && number.abs() < EXACT_MAX => {
            (*number as i64).into()
        }
        toml::Value::Float(number) => (*number).into(),
        toml::Value::Integer(number) => (*number).into(),
        toml::Value::Boolean(is) => (*is).into(),
        toml::Value::String(text) => text.as_str().into(),
        toml::Value::Datetime(time) => time.to_string().into(),
        toml::Value::Array(values) => values.iter().map(plain).collect(),
        toml::Value::Table(table) => table
            .iter()
            .map(|(key, value)| (key.clone(), plain(value)))
            .collect::<serde_json::Map<_, _>>()
            .into(),
    }
}

/// `network.loss.rate = 0.3, network.nodes = 1000`; empty without parameters.
pub fn label(parameters: &BTreeMap<String, serde_json::Value>) -> String {
    let texts: Vec<String> = parameters.iter().map(|(key, value)| format!("{key} = {value}")).collect();
    texts.join(", ")
}
