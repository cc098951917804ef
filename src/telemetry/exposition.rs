//! Metrics as text: OpenMetrics 1.0, and the older text format 0.0.4 that most tools read.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::sync::atomic::AtomicU64;
use std::time::UNIX_EPOCH;

use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::encoding::{EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Metric, Registry};

use super::histogram::Histogram;
use super::metrics::{CALL_DURATION, Exemplar, Metrics};

type Labels = Vec<(&'static str, String)>;

/// Numbers that are read at the moment of the question.
#[derive(Debug, Default)]
pub(crate) struct Readings {
    registry: Registry,
    gauges: BTreeMap<&'static str, Family<Labels, Gauge<f64, AtomicU64>>>,
    counters: BTreeMap<&'static str, Family<Labels, Counter>>,
}

/// How metrics are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Prometheus text 0.0.4.
    Text,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

impl Format {
    /// What a client that accepts this is given.
    pub fn of(accept: &str) -> Format {
        if accept.contains("application/openmetrics-text") { Format::OpenMetrics } else { Format::Text }
    }

    /// Its content type.
    pub fn content_type(self) -> &'static str {
        match self {
            Format::Text => "text/plain; version=0.0.4; charset=utf-8",
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

impl Readings {
    /// A number that rises and falls; without labels it is told once.
    pub(crate) fn gauge(
        &mut self,
        name: &'static str,
        help: &str,
        labels: &[(&'static str, &str)],
        value: f64,
    ) {
        if labels.is_empty() {
            let gauge = Gauge::<f64, AtomicU64>::default();
            gauge.set(value);
            return self.registry.register(name, help, gauge);
        }
        let family = family(&mut self.registry, &mut self.gauges, name, help);
        family.get_or_create(&owned(labels)).set(value);
    }

    /// A number that only rises while the process runs; the exposition adds `_total` to its name. Without labels it is told
    /// once.
    pub(crate) fn counter(
        &mut self,
        name: &'static str,
        help: &str,
        labels: &[(&'static str, &str)],
        value: u64,
    ) {
        if labels.is_empty() {
            let counter = Counter::<u64>::default();
            counter.inc_by(value);
            return self.registry.register(name, help, counter);
        }
        let family = family(&mut self.registry, &mut self.counters, name, help);
        family.get_or_create(&owned(labels)).inc_by(value);
    }

    /// Histograms that somebody else counts, by the values of one label.
    pub(crate) fn histograms(
        &mut self,
        name: &'static str,
        help: &str,
        label: &'static str,
        of: Vec<(String, Histogram)>,
    ) {
        self.registry.register(name, help, Labelled { label, of });
    }

    /// A metric that somebody else counts.
    pub(crate) fn metric(&mut self, name: &'static str, help: &str, metric: impl Metric) {
        self.registry.register(name, help, metric);
    }

    /// These and what the node counted, as text.
    pub(crate) fn write(&self, counted: &Metrics, format: Format) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        _ = encode_registry(&mut text, &counted.registry);
        _ = encode_registry(&mut text, &self.registry);
        _ = encode_eof(&mut text);
        match format {
            Format::OpenMetrics => with_exemplars(text, counted.calls.exemplars()),
            Format::Text => older(&text),
        }
    }
}

/// Histograms with one label.
#[derive(Debug)]
struct Labelled {
    label: &'static str,
    of: Vec<(String, Histogram)>,
}

impl EncodeMetric for Labelled {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        for (value, histogram) in &self.of {
            let labels = [(self.label, value.as_str())];
            histogram.encode(encoder.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}

fn owned(labels: &[(&'static str, &str)]) -> Labels {
    labels.iter().map(|(name, value)| (*name, (*value).to_owned())).collect()
}

fn family<M: Metric + Default + Clone>(
    registry: &mut Registry,
    families: &mut BTreeMap<&'static str, M>,
    name: &'static str,
    help: &str,
) -> M {
    let make = || {
        let made = M::default();
        registry.register(name, help, made.clone());
        made
    };
    families.entry(name).or_insert_with(make).clone()
}

/// The same with calls that a collector knows, each at the bucket that it was counted in. The library lets nobody make one.
fn with_exemplars(text: String, mut exemplars: BTreeMap<String, Exemplar>) -> String {
    if exemplars.is_empty() {
        return text;
    }
    let begin = format!("{CALL_DURATION}_bucket{{le=\"");
    let mut lines = String::with_capacity(text.len());
    for line in text.lines() {
        lines.push_str(line);
        let bucket = line.strip_prefix(&begin).and_then(|rest| rest.split_once("\",")?.1.split_once('}'));
        let bound = line.strip_prefix(&begin).and_then(|rest| rest.split('"').next()?.parse::<f64>().ok());
        if let (Some((series, _)), Some(bound)) = (bucket, bound)
            && exemplars.get(series).is_some_and(|exemplar| exemplar.seconds <= bound)
            && let Some(Exemplar { trace, seconds, ended }) = exemplars.remove(series)
        {
            let ended = ended.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
            _ = write!(lines, " # {{trace_id=\"{trace}\"}} {seconds} {ended}");
        }
        lines.push('\n');
    }
    lines
}

/// The same in the format 0.0.4: there a counter is described under the name of its lines, and exemplars and the last line are
/// unknown.
fn older(text: &str) -> String {
    let mut lines = String::with_capacity(text.len());
    // The help of a metric whose type is in the next line.
    let mut help = "";
    for line in text.lines() {
        if line.starts_with("# HELP ") {
            help = line;
        } else if let Some(described) = line.strip_prefix("# TYPE ") {
            let (name, kind) = described.split_once(' ').unwrap_or((described, ""));
            let shown = if kind == "counter" { format!("{name}_total") } else { name.to_owned() };
            let told = help.strip_prefix("# HELP ").and_then(|it| it.strip_prefix(name)).unwrap_or_default();
            _ = writeln!(lines, "# HELP {shown}{told}\n# TYPE {shown} {kind}");
        } else if !line.starts_with('#') {
            let line = line.split(" # {").next().unwrap_or_default();
            // Most gauges are counts, and people and scripts read them as such.
            lines.push_str(line.strip_suffix(".0").unwrap_or(line));
            lines.push('\n');
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::proto::call::CallId;
    use crate::proto::time::Timestamp;
    use crate::telemetry::metrics::Side;
    use crate::telemetry::recent_calls::CallSubject;

    #[test]
    fn both_formats_say_the_same_in_their_own_way() {
        let metrics = Metrics::default();
        let agent = "a@.".parse().unwrap();
        let subject = CallSubject { call: CallId([1; 16]), agent, peer: None, trace: None };
        metrics.calls.begin(Side::Local, subject, Timestamp(0)).end(None);
        metrics.answered("GET", Some("/v1/find"), 200, Duration::from_millis(3));
        let mut readings = Readings::default();
        readings.gauge("aop_peers", "Connected peers", &[], 3.0);
        readings.counter("aop_refused", "Refused", &[("reason", "a\"b\n")], 7);
        let (text, open) =
            (readings.write(&metrics, Format::Text), readings.write(&metrics, Format::OpenMetrics));
        let calls = r#"aop_calls_total{side="local",outcome="ok",code=""} 1"#;
        let refused = r#"aop_refused_total{reason="a\"b\n"} 7"#;
        for told in [calls, refused, "aop_peers 3", "# TYPE aop_peers gauge"] {
            assert!(text.contains(told) && open.contains(told), "{told}\n{text}\n{open}");
        }
        assert!(open.ends_with("# EOF\n") && open.contains("# TYPE aop_calls counter"), "{open}");
        assert!(text.contains("aop_peers 3\n") && open.contains("aop_peers 3.0\n"), "{text}\n{open}");
        assert!(!text.contains("EOF") && text.contains("# TYPE aop_calls_total counter"), "{text}");
        assert!(text.contains("# HELP aop_calls_total Calls"), "{text}");
        // Without the last bucket no percentile can be taken of the others.
        for (bound, count) in [("0.001", 0), ("0.005", 1), ("+Inf", 1)] {
            let labels = r#"http_request_method="GET",http_route="/v1/find",http_response_status_code="200""#;
            assert!(text.contains(&format!("{{le=\"{bound}\",{labels}}} {count}\n")), "{bound}\n{text}");
        }
    }

    #[test]
    fn a_client_gets_the_format_that_it_asks_for() {
        let asked = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5";
        assert_eq!(Format::of(asked), Format::OpenMetrics);
        assert_eq!(Format::of("*/*"), Format::Text);
    }
}
