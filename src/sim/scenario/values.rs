//! How values are written in a scenario: times with units, whole numbers that may be written `1e6`, and the values that
//! have two forms.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::de::Error;
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "LatencyText")]
pub struct Latency {
    /// Shortest.
    pub least: Duration,
    /// Longest.
    pub most: Duration,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "a time with a unit such as \"25ms\", or { least = \"5ms\", most = \"50ms\" }")]
enum LatencyText {
    Fixed(String),
    Between(Between),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Between {
    #[serde(deserialize_with = "duration")]
    least: Duration,
    #[serde(deserialize_with = "duration")]
    most: Duration,
}

impl TryFrom<LatencyText> for Latency {
    type Error = String;

    fn try_from(text: LatencyText) -> Result<Latency, String> {
        let (least, most) = match text {
            LatencyText::Fixed(text) => (parse_duration(&text)?, parse_duration(&text)?),
            LatencyText::Between(Between { least, most }) => (least, most),
        };
        if least > most {
            return Err("the least latency is above the most; swap them".into());
        }
        Ok(Latency { least, most })
    }
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "false, or { every = \"30s\", on_join = true }")]
pub(super) enum AntiEntropyText {
    Switch(bool),
    Table(AntiEntropyTable),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AntiEntropyTable {
    #[serde(deserialize_with = "duration")]
    every: Duration,
    #[serde(default)]
    on_join: bool,
}

impl TryFrom<AntiEntropyText> for AntiEntropy {
    type Error = String;

    fn try_from(text: AntiEntropyText) -> Result<AntiEntropy, String> {
        match text {
            AntiEntropyText::Switch(false) => Ok(AntiEntropy::default()),
            AntiEntropyText::Switch(true) => {
                Err("say how often: anti_entropy = { every = \"30s\", on_join = true }".into())
            }
            AntiEntropyText::Table(AntiEntropyTable { every, .. }) if every.is_zero() => {
                Err("`every` must be longer than nothing, for example \"30s\"".into())
            }
            AntiEntropyText::Table(AntiEntropyTable { every, on_join }) => {
                Ok(AntiEntropy { every: Some(every), on_join })
            }
        }
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
    #[serde(default)]
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
        Ok(Expectation { metric, wanted, of, at })
    }
}

/// A time with a unit.
pub(super) fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    struct Text;
    impl serde::de::Visitor<'_> for Text {
        type Value = Duration;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a time with a unit, such as \"30s\"")
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<Duration, E> {
            parse_duration(text).map_err(E::custom)
        }

        fn visit_i64<E: Error>(self, number: i64) -> Result<Duration, E> {
            Err(E::custom(format!("a time needs a unit: write \"{number}s\" or \"{number}ms\"")))
        }

        fn visit_f64<E: Error>(self, number: f64) -> Result<Duration, E> {
            Err(E::custom(format!("a time needs a unit and a whole number: \"{}ms\"", (number * 1e3) as i64)))
        }
    }
    deserializer.deserialize_any(Text)
}

/// As [`duration`], for a key that may be missing.
pub(super) fn optional_duration<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Duration>, D::Error> {
    duration(deserializer).map(Some)
}

/// `"30s"`, `"250ms"`, `"60d"`, `"1h 30m"`.
pub(super) fn parse_duration(text: &str) -> Result<Duration, String> {
    if let Ok(number) = text.trim().parse::<f64>() {
        return Err(format!("a time needs a unit: write \"{number}s\" or \"{number}ms\""));
    }
    humantime::parse_duration(text).map_err(|error| {
        format!("`{text}` is no time ({error}); write for example \"30s\", \"250ms\" or \"2h\"")
    })
}

/// A whole number above zero, which may be written `1e6`.
pub(super) fn count<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    let number = f64::deserialize(deserializer)?;
    if number.fract() != 0.0 || !(1.0..=COUNT_MAX).contains(&number) {
        return Err(D::Error::custom(format!(
            "{number} is no count: a whole number from 1 to {COUNT_MAX:e}"
        )));
    }
    Ok(number as usize)
}

/// As [`count`], for a key that may be missing.
pub(super) fn optional_count<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<usize>, D::Error> {
    count(deserializer).map(Some)
}
