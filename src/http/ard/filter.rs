//! Filters and facets (ARD v0.91 section 6): values at term paths of an entry.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::entry::Entry;
use crate::http::failure::Failure;
use crate::proto::code::Code;

/// Term paths of one request.
const PATHS_MAX: usize = 32;
/// Longest of them, bytes.
const PATH_BYTES_MAX: usize = 256;
/// Values of one term that are asked for.
const VALUES_MAX: usize = 1_000;
/// Buckets of a facet where nothing is said, and at most.
const BUCKETS: usize = 20;
const BUCKETS_MAX: usize = 1_000;
/// Longest value that is counted, bytes; longer ones are prose.
const VALUE_BYTES_MAX: usize = 512;
/// Different values of one facet that are counted; of more the rest is counted as others.
const COUNTED_MAX: usize = 10_000;

/// A place in an entry.
#[derive(Debug, PartialEq)]
struct TermPath(String);

impl TermPath {
    fn read(text: &str) -> Result<TermPath, Failure> {
        let is_plain = !text.is_empty()
            && text.len() <= PATH_BYTES_MAX
            && text.split('.').all(|part| !part.is_empty() && !part.contains([':', '[', ']', '*']));
        if is_plain {
            return Ok(TermPath(text.to_owned()));
        }
        let shown: String = text.chars().take(64).collect();
        let message = format!("`{}` is no path that this registry knows", shown.escape_debug());
        Err(bad(message, "name fields separated by dots, such as `metadata.aopOwner`"))
    }

    /// Whether it leads into what an entry is of.
    fn is_in_data(&self) -> bool {
        self.0 == "data" || self.0.starts_with("data.")
    }

    /// What stands there: the values of an array one by one, on the way and at the end.
    fn values(&self, entry: &Entry) -> Vec<String> {
        if self.0 == "publisher" {
            let identifier = entry.get("identifier").and_then(Value::as_str).unwrap_or_default();
            return identifier.split(':').nth(2).map(str::to_owned).into_iter().collect();
        }
        let mut parts = self.0.split('.');
        let first = parts.next().unwrap_or_default();
        let mut here: Vec<&Value> = entry.get(first).map(elements).into_iter().flatten().collect();
        for part in parts {
            here = here.into_iter().filter_map(|value| value.get(part)).flat_map(elements).collect();
        }
        here.into_iter().filter_map(scalar).collect()
    }
}

fn elements(value: &Value) -> &[Value] {
    match value {
        Value::Array(values) => values,
        value => std::slice::from_ref(value),
    }
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// What entries must have: of each term one of the values.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Filter(Vec<(TermPath, Vec<String>)>);

impl Filter {
    pub(super) fn read(filter: &Map<String, Value>) -> Result<Filter, Failure> {
        if filter.len() > PATHS_MAX {
            return Err(bad(format!("`query.filter` has more than {PATHS_MAX} terms"), "ask with fewer"));
        }
        let term = |(path, wanted): (&String, &Value)| {
            let (path, wanted) = (TermPath::read(path)?, elements(wanted));
            let values: Vec<String> = wanted.iter().filter_map(scalar).collect();
            if values.len() < wanted.len() || values.len() > VALUES_MAX {
                let message = format!("the term `{}` of `query.filter` is no list of values", path.0);
                return Err(bad(message, format!("give it texts, at most {VALUES_MAX}")));
            }
            Ok((path, values))
        };
        filter.iter().map(term).collect::<Result<_, _>>().map(Filter)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether it looks at what an entry is of.
    pub(super) fn reads_data(&self) -> bool {
        self.0.iter().any(|(path, _)| path.is_in_data())
    }

    pub(super) fn matches(&self, entry: &Entry) -> bool {
        self.0.iter().all(|(path, wanted)| path.values(entry).iter().any(|value| wanted.contains(value)))
    }
}

/// A facet that is asked for.
#[derive(Debug, Deserialize)]
pub(super) struct FacetQuestion {
    field: String,
    #[serde(default)]
    limit: Option<usize>,
    #[serde(default, rename = "minCount")]
    min_count: Option<u64>,
}

/// How often each value stands at a path.
pub(super) struct Facets(Vec<Facet>);

struct Facet {
    path: TermPath,
    limit: usize,
    min_count: u64,
    counts: BTreeMap<String, u64>,
    uncounted: u64,
}

impl Facets {
    pub(super) fn read(questions: Vec<FacetQuestion>) -> Result<Facets, Failure> {
        if questions.is_empty() || questions.len() > PATHS_MAX {
            return Err(bad(format!("`resultType.facets` names no field, or more than {PATHS_MAX}"), ""));
        }
        let facet = |question: FacetQuestion| {
            Ok(Facet {
                path: TermPath::read(&question.field)?,
                limit: question.limit.unwrap_or(BUCKETS).min(BUCKETS_MAX),
                min_count: question.min_count.unwrap_or(1),
                counts: BTreeMap::new(),
                uncounted: 0,
            })
        };
        questions.into_iter().map(facet).collect::<Result<_, _>>().map(Facets)
    }

    pub(super) fn reads_data(&self) -> bool {
        self.0.iter().any(|facet| facet.path.is_in_data())
    }

    pub(super) fn count(&mut self, entry: &Entry) {
        for facet in &mut self.0 {
            let mut values = facet.path.values(entry);
            values.retain(|value| value.len() <= VALUE_BYTES_MAX);
            values.sort_unstable();
            values.dedup();
            for value in values {
                let has_room = facet.counts.len() < COUNTED_MAX || facet.counts.contains_key(&value);
                let count =
                    if has_room { facet.counts.entry(value).or_default() } else { &mut facet.uncounted };
                *count += 1;
            }
        }
    }

    /// The most frequent values first.
    pub(super) fn told(self) -> Value {
        let facets = self.0.into_iter().map(|facet| (facet.path.0.clone(), facet.told()));
        Value::Object(facets.collect())
    }
}

impl Facet {
    fn told(self) -> Value {
        let mut counts: Vec<(String, u64)> =
            self.counts.into_iter().filter(|(_, count)| *count >= self.min_count).collect();
        counts.sort_by(|(one, of_one), (other, of_other)| of_other.cmp(of_one).then_with(|| one.cmp(other)));
        let shown = counts.len().min(self.limit);
        let others: u64 = counts[shown..].iter().map(|(_, count)| count).sum();
        let buckets: Vec<Value> =
            counts[..shown].iter().map(|(value, count)| json!({"value": value, "count": count})).collect();
        json!({"buckets": buckets, "otherCount": others + self.uncounted})
    }
}

pub(super) fn bad(message: impl Into<String>, fix: impl Into<String>) -> Failure {
    Failure::new(Code::BadRequest, message, fix)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> Entry {
        let entry = json!({
            "identifier": "urn:air:acme.org:root:a", "type": "x", "tags": ["text", "web"],
            "metadata": {"callable": true}, "data": {"remotes": [{"type": "sse"}, {"type": "http"}]},
        });
        let Value::Object(entry) = entry else { unreachable!() };
        entry
    }

    fn filter(filter: &Value) -> Result<Filter, Failure> {
        Filter::read(filter.as_object().unwrap())
    }

    #[test]
    fn one_value_of_each_term_is_enough_and_every_term_is_needed() {
        let table = [
            (json!({}), true),
            (json!({"type": "x"}), true),
            (json!({"type": ["y", "x"]}), true),
            (json!({"type": ["y"]}), false),
            (json!({"type": []}), false),
            (json!({"tags": ["web"], "type": ["x"]}), true),
            (json!({"tags": ["web"], "type": ["y"]}), false),
            (json!({"publisher": ["acme.org"]}), true),
            (json!({"metadata.callable": [true]}), true),
            (json!({"metadata.callable": ["true"]}), true),
            (json!({"data.remotes.type": ["http"]}), true),
            (json!({"data.remotes": ["http"]}), false),
            (json!({"unknown.path": ["x"]}), false),
        ];
        for (asked, expected) in table {
            assert_eq!(filter(&asked).unwrap().matches(&entry()), expected, "{asked}");
        }
    }

    #[test]
    fn what_is_no_filter_is_refused() {
        for asked in
            [json!({"": "x"}), json!({"a..b": "x"}), json!({"schema:name": "x"}), json!({"a": {"b": 1}})]
        {
            filter(&asked).unwrap_err();
        }
        let many: Map<String, Value> = (0..=PATHS_MAX).map(|at| (format!("a{at}"), json!("x"))).collect();
        Filter::read(&many).unwrap_err();
    }

    #[test]
    fn a_facet_counts_each_value_once_an_entry_and_says_how_many_it_leaves_out() {
        let question = |field: &str, limit| FacetQuestion { field: field.into(), limit, min_count: None };
        let mut facets = Facets::read(vec![question("tags", Some(1)), question("type", None)]).unwrap();
        for tags in [json!(["b", "a", "a"]), json!(["a"]), json!([])] {
            let mut entry = entry();
            entry.insert("tags".into(), tags);
            facets.count(&entry);
        }
        let expected = json!({
            "tags": {"buckets": [{"value": "a", "count": 2}], "otherCount": 1},
            "type": {"buckets": [{"value": "x", "count": 3}], "otherCount": 0},
        });
        assert_eq!(facets.told(), expected);
    }
}
