//! Spans on their way to a collector: OTLP over HTTP, on where the standard variables name one.
//!
//! The sampler follows what began here; what peers and clients wish is decided by the share alone, or each of them could make
//! this node send everything. Nothing waits for the collector: spans that it does not take are counted and gone.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use opentelemetry::trace::TracerProvider as _;
use opentelemetry::{Context, InstrumentationScope, KeyValue};
use opentelemetry_otlp::SpanExporter as OtlpExporter;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, ParentBasedSampler, Sampler, SdkTracerProvider, Span, SpanData,
    SpanExporter, SpanProcessor,
};
use tracing::Subscriber;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::registry::LookupSpan;

use super::names;

/// How long a stop waits for the last spans; the whole node has 5 s.
const STOP_TIME_MAX: Duration = Duration::from_millis(500);
/// Spans that wait for the collector, if OTEL_BSP_MAX_QUEUE_SIZE says no other number.
const WAITING_MAX: usize = 2_048;
/// The share of all traces that is sent, if OTEL_TRACES_SAMPLER_ARG says no other.
const SHARE: f64 = 0.1;

/// What became of the spans of this process; none where it makes no traces.
static COUNTS: OnceLock<Arc<Counts>> = OnceLock::new();

#[derive(Debug, Default)]
struct Counts {
    waiting: AtomicUsize,
    dropped: AtomicU64,
}

/// Spans that no collector got; none where this process makes no traces.
pub(crate) fn dropped() -> Option<u64> {
    COUNTS.get().map(|counts| counts.dropped.load(Relaxed))
}

/// Why there are no traces though somebody asked for them.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{variable} {why}")]
pub struct SettingError {
    variable: &'static str,
    why: String,
}

fn wrong<T>(variable: &'static str, why: impl Into<String>) -> Result<T, SettingError> {
    Err(SettingError { variable, why: why.into() })
}

/// What the variables say.
#[derive(Debug, PartialEq)]
struct Settings {
    /// Of the traces, from 0 to 1.
    share: f64,
    /// Whether a decision that was made here or elsewhere counts.
    follows_parent: bool,
    waiting_max: usize,
}

impl Settings {
    /// None where nobody asked for traces.
    fn read(env: &dyn Fn(&str) -> Option<String>) -> Result<Option<Settings>, SettingError> {
        let text = |name: &str| env(name).map(|it| it.trim().to_owned()).filter(|it| !it.is_empty());
        let endpoints = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];
        let is_disabled = text("OTEL_SDK_DISABLED").is_some_and(|it| it.eq_ignore_ascii_case("true"));
        let is_off = text("OTEL_TRACES_EXPORTER").is_some_and(|it| it == "none");
        let Some(endpoint) = endpoints.into_iter().find(|name| text(name).is_some()) else { return Ok(None) };
        if is_disabled || is_off {
            return Ok(None);
        }
        // Its value may hold a secret.
        if !text(endpoint).is_some_and(|it| it.starts_with("http://") || it.starts_with("https://")) {
            return wrong(endpoint, "is no address such as http://127.0.0.1:4318");
        }
        for name in ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"] {
            if let Some(other) = text(name).filter(|it| it != "http/protobuf") {
                return wrong(name, format!("is `{other}`: this node speaks `http/protobuf`"));
            }
        }
        let argument = "OTEL_TRACES_SAMPLER_ARG";
        let ratio = match text(argument).map(|it| it.parse::<f64>()) {
            None => SHARE,
            Some(Ok(ratio)) if (0.0..=1.0).contains(&ratio) => ratio,
            Some(_) => return wrong(argument, "is no share from 0 to 1"),
        };
        let named = text("OTEL_TRACES_SAMPLER").unwrap_or_else(|| "parentbased_traceidratio".into());
        let share = match named.strip_prefix("parentbased_").unwrap_or(&named) {
            "always_on" => 1.0,
            "always_off" => 0.0,
            "traceidratio" => ratio,
            _ => return wrong("OTEL_TRACES_SAMPLER", format!("names no sampler of this node: `{named}`")),
        };
        let mut numbers = Vec::new();
        for name in ["OTEL_BSP_MAX_QUEUE_SIZE", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "OTEL_BSP_SCHEDULE_DELAY"] {
            match text(name).map(|it| it.parse::<usize>()) {
                None => numbers.push(None),
                Some(Ok(number)) if number > 0 => numbers.push(Some(number)),
                Some(_) => return wrong(name, "is no whole number above 0"),
            }
        }
        let waiting_max = numbers[0].unwrap_or(WAITING_MAX);
        Ok(Some(Settings { share, follows_parent: named.starts_with("parentbased_"), waiting_max }))
    }

    fn sampler(&self) -> ParentBasedSampler {
        let root = || Sampler::TraceIdRatioBased(self.share);
        let sampler = Sampler::parent_based(root()).with_remote_parent_sampled(root());
        if self.follows_parent {
            return sampler;
        }
        let sampler = sampler.with_remote_parent_not_sampled(root());
        sampler.with_local_parent_sampled(root()).with_local_parent_not_sampled(root())
    }
}

/// The spans of this process.
pub struct Traces {
    provider: SdkTracerProvider,
    resource: Arc<Mutex<Option<Resource>>>,
}

impl Traces {
    /// Spans go to the collector that the environment names; none where it names none.
    ///
    /// # Errors
    /// A variable is wrong; nothing was started.
    pub fn start() -> Result<Option<Traces>, SettingError> {
        let Some(settings) = Settings::read(&|name| std::env::var(name).ok())? else { return Ok(None) };
        let Ok(collector) = OtlpExporter::builder().with_http().build() else {
            return wrong("OTEL_EXPORTER_OTLP_ENDPOINT", "or another variable of the exporter is wrong");
        };
        let counts = COUNTS.get_or_init(Arc::default).clone();
        let resource = Arc::new(Mutex::new(None));
        let is_told = AtomicBool::new(false);
        let exporter = CountedExporter {
            collector: collector.into(),
            counts: counts.clone(),
            resource: resource.clone(),
            is_told,
        };
        let batches = BatchConfigBuilder::default().with_max_queue_size(settings.waiting_max).build();
        let batched = BatchSpanProcessor::builder(exporter).with_batch_config(batches).build();
        let provider = SdkTracerProvider::builder()
            .with_span_processor(BoundedQueue { batched, counts, waiting_max: settings.waiting_max })
            .with_sampler(settings.sampler())
            .with_resource(described(&[]))
            .build();
        Ok(Some(Traces { provider, resource }))
    }

    /// What makes spans of those of the program. It has a filter of its own: what is logged decides nothing here.
    pub fn layer<S>(&self) -> impl Layer<S> + use<S>
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        let scope = InstrumentationScope::builder("aop")
            .with_version(env!("CARGO_PKG_VERSION"))
            .with_schema_url(names::SCHEMA_URL);
        tracing_opentelemetry::layer()
            .with_tracer(self.provider.tracer_with_scope(scope.build()))
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_level(false)
            .with_tracked_inactivity(false)
            .with_filter(Targets::new().with_target(names::TARGET, LevelFilter::INFO))
    }

    /// Spans name from now on the node that they are of.
    pub fn identify(&self, node: &str, network: &str) {
        let attributes = [
            KeyValue::new("service.instance.id", node.to_owned()),
            KeyValue::new("aop.network", network.to_owned()),
        ];
        *self.resource.lock().unwrap_or_else(PoisonError::into_inner) = Some(described(&attributes));
    }

    /// Sends what waits, as far as half a second suffices. Blocks.
    pub fn stop(&self) {
        // What was not sent is counted, and nobody will ask any more.
        let _unsent = self.provider.shutdown_with_timeout(STOP_TIME_MAX);
    }
}

/// Who sends the spans; OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES say more of it, or other things.
fn described(attributes: &[KeyValue]) -> Resource {
    let builder =
        Resource::builder().with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")));
    let named = std::env::var("OTEL_SERVICE_NAME").is_ok_and(|name| !name.trim().is_empty())
        || std::env::var("OTEL_RESOURCE_ATTRIBUTES").is_ok_and(|text| text.contains("service.name="));
    let builder = if named { builder } else { builder.with_service_name("aop") };
    builder.with_attributes(attributes.iter().cloned()).build()
}

/// Takes no more spans than may wait.
#[derive(Debug)]
struct BoundedQueue {
    batched: BatchSpanProcessor,
    counts: Arc<Counts>,
    waiting_max: usize,
}

impl SpanProcessor for BoundedQueue {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        if !span.span_context.is_sampled() {
            return;
        }
        // Judged here, because the queue behind it counts what it drops for itself alone.
        if self.counts.waiting.fetch_add(1, Relaxed) >= self.waiting_max {
            self.counts.waiting.fetch_sub(1, Relaxed);
            self.counts.dropped.fetch_add(1, Relaxed);
            return;
        }
        self.batched.on_end(span);
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.batched.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.batched.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.batched.set_resource(resource);
    }
}

/// Counts what the collector does not take, and tells when that begins and ends.
#[derive(Debug)]
struct CountedExporter {
    collector: tokio::sync::Mutex<OtlpExporter>,
    counts: Arc<Counts>,
    /// What is known of the node since the last batch.
    resource: Arc<Mutex<Option<Resource>>>,
    is_told: AtomicBool,
}

impl SpanExporter for CountedExporter {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let count = batch.len();
        let mut collector = self.collector.lock().await;
        let resource = self.resource.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(resource) = resource {
            collector.set_resource(&resource);
        }
        let sent = collector.export(batch).await;
        self.counts.waiting.fetch_sub(count, Relaxed);
        if sent.is_err() {
            self.counts.dropped.fetch_add(count as u64, Relaxed);
        }
        self.tell(sent.as_ref().err());
        sent
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.collector.get_mut().set_resource(resource);
    }
}

impl CountedExporter {
    fn tell(&self, failure: Option<&OTelSdkError>) {
        if self.is_told.swap(failure.is_some(), Relaxed) == failure.is_some() {
            return;
        }
        match failure {
            // Not its words: they hold the collector's address, in which there may be a secret.
            Some(_) => tracing::warn!(
                event = "collector_lost",
                "the collector takes no spans, which are dropped; see OTEL_EXPORTER_OTLP_ENDPOINT"
            ),
            None => tracing::info!(event = "collector_back", "the collector takes spans again"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Option<Settings>, SettingError> {
        Settings::read(&|name| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        })
    }

    const ON: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318");

    #[test]
    fn traces_are_on_where_a_collector_is_named_and_nobody_switched_them_off() {
        assert_eq!(read(&[]), Ok(None));
        assert_eq!(read(&[("OTEL_EXPORTER_OTLP_ENDPOINT", " ")]), Ok(None), "blank is unset");
        assert_eq!(read(&[ON, ("OTEL_SDK_DISABLED", "true")]), Ok(None));
        assert_eq!(read(&[ON, ("OTEL_TRACES_EXPORTER", "none")]), Ok(None));
        let by_default = Settings { share: SHARE, follows_parent: true, waiting_max: WAITING_MAX };
        assert_eq!(read(&[ON]), Ok(Some(by_default)));
        let all = read(&[ON, ("OTEL_TRACES_SAMPLER", "always_on"), ("OTEL_BSP_MAX_QUEUE_SIZE", "7")]);
        let expected = Settings { share: 1.0, follows_parent: false, waiting_max: 7 };
        assert_eq!(all, Ok(Some(expected)));
    }

    #[test]
    fn a_wrong_variable_is_named_and_an_address_is_not_repeated() {
        for (name, value) in [
            ("OTEL_TRACES_SAMPLER", "jaeger_remote"),
            ("OTEL_TRACES_SAMPLER_ARG", "7"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
            ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/json"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "-1"),
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "user:secret@collector"),
        ] {
            let told = read(&[ON, (name, value)]).unwrap_err().to_string();
            assert!(told.starts_with(name) && !told.contains("secret"), "{told}");
        }
    }
}
