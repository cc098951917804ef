//! The sentence that answers a scenario's question, with places for figures.
//!
//! `{coverage}` is the mean over all runs, `{coverage:%}` the same in percent (`ms` and `B` choose a time or a size that
//! reads well), `{coverage @ network.loss.rate = 0.3}` the mean of the cells with that value; several conditions are
//! separated by commas.

use std::collections::BTreeMap;

use toml::Value;

use super::file::value_of;
use crate::lab::measure::Unit;

/// A sentence with places.
#[derive(Clone, Debug, PartialEq)]
pub struct Template(Vec<Part>);

#[derive(Clone, Debug, PartialEq)]
enum Part {
    Text(String),
    Figure(Figure),
}

/// A place for a figure.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    /// Of which metric.
    pub metric: String,
    /// How it is written.
    pub unit: Unit,
    /// In which cells; in all if empty.
    pub at: BTreeMap<String, Value>,
}

impl Template {
    /// Reads a template; an error says what is wrong with it.
    pub fn parse(text: &str) -> Result<Template, String> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            let (place, after) =
                after.split_once('}').ok_or_else(|| format!("`{{{after}` has no closing brace"))?;
            parts.push(Part::Text(before.into()));
            parts.push(Part::Figure(Figure::parse(place)?));
            rest = after;
        }
        parts.push(Part::Text(rest.into()));
        Ok(Template(parts))
    }

    /// Its places.
    pub fn figures(&self) -> impl Iterator<Item = &Figure> {
        self.0.iter().filter_map(|part| match part {
            Part::Figure(figure) => Some(figure),
            Part::Text(_) => None,
        })
    }

    /// The sentence with these values; a place without one says so.
    pub fn fill(&self, value: impl Fn(&Figure) -> Option<f64>) -> String {
        let words = self.0.iter().map(|part| match part {
            Part::Text(text) => text.clone(),
            Part::Figure(figure) => {
                value(figure).map_or_else(|| "(not measured)".into(), |it| figure.unit.show(it))
            }
        });
        words.collect()
    }
}

impl Figure {
    fn parse(text: &str) -> Result<Figure, String> {
        let (figure, conditions) = text.split_once('@').unwrap_or((text, ""));
        let (metric, hint) = match figure.split_once(':') {
            Some((metric, hint)) => (metric.trim(), Some(hint.trim())),
            None => (figure.trim(), None),
        };
        let unit = match hint {
            None => Unit::Number,
            Some(hint) => Unit::hinted(hint)
                .ok_or_else(|| format!("`{hint}` is no way to write a figure: `%`, `ms` or `B`"))?,
        };
        let mut at = BTreeMap::new();
        for condition in conditions.split(',').filter(|it| !it.trim().is_empty()) {
            let (key, value) = condition
                .split_once('=')
                .ok_or_else(|| format!("`{}` is no condition: key = value", condition.trim()))?;
            // TOML wants quotes around a dotted key, so they are taken here, too.
            at.insert(key.trim().trim_matches('"').into(), value_of(value.trim()));
        }
        Ok(Figure { metric: metric.into(), unit, at })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_takes_metrics_cells_and_hints() {
        let text =
            "{coverage:%} of nodes after {rounds} rounds, {coverage:% @ network.loss.rate = 0.3, a = \"b\"}.";
        let template = Template::parse(text).unwrap();
        let figures: Vec<&Figure> = template.figures().collect();
        assert_eq!(figures[2].at["network.loss.rate"], Value::Float(0.3));
        assert_eq!(figures[2].at["a"], Value::String("b".into()));
        let filled = template.fill(|it| match it.metric.as_str() {
            "coverage" => Some(if it.at.is_empty() { 0.9408 } else { 0.5 }),
            _ => None,
        });
        assert_eq!(filled, "94.08 % of nodes after (not measured) rounds, 50 %.");
    }

    #[test]
    fn what_a_template_cannot_mean_is_said() {
        for (text, says) in [
            ("{coverage", "no closing brace"),
            ("{coverage:pct}", "`pct` is no way to write a figure"),
            ("{coverage @ loss}", "`loss` is no condition"),
        ] {
            assert!(Template::parse(text).unwrap_err().contains(says), "{text}");
        }
    }
}
