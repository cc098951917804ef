//! Spans on their way to a collector: OTLP over HTTP, on where the standard variables name one.
//!
//! The sampler follows what began here; what peers and clients wish is decided by the share alone, or each of them could make
//! this node send everything. Nothing waits for the collector: spans that it does not take are counted and gone.

mod queue;
mod settings;

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use opentelemetry::trace::TracerProvider as _;
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_otlp::SpanExporter as OtlpExporter;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{BatchConfigBuilder, BatchSpanProcessor, SdkTracerProvider};
use tracing::Subscriber;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::registry::LookupSpan;

use self::queue::{BoundedQueue, CountedExporter, Counts};
pub(crate) use self::settings::SettingError;
use self::settings::{Settings, wrong};
use super::{context, names};

/// How long a stop waits for the last spans; the whole node has 5 s.
const STOP_TIME_MAX: Duration = Duration::from_millis(500);
/// What became of the spans of this process; none where it makes no traces.
static COUNTS: OnceLock<Arc<Counts>> = OnceLock::new();

/// Spans that no collector got; none where this process makes no traces.
pub(crate) fn dropped() -> Option<u64> {
    COUNTS.get().map(|counts| counts.dropped.load(Relaxed))
}

/// Whether the collector took nothing when it was last given spans; none where this process makes no traces.
pub(crate) fn is_collector_lost() -> Option<bool> {
    COUNTS.get().map(|counts| counts.is_lost.load(Relaxed))
}

/// The spans of this process.
pub(crate) struct Traces {
    provider: SdkTracerProvider,
    resource: Arc<Mutex<Option<Resource>>>,
}

impl Traces {
    /// Spans go to the collector that the environment names; none where it names none.
    ///
    /// # Errors
    /// A variable is wrong; nothing was started.
    pub(crate) fn start() -> Result<Option<Traces>, SettingError> {
        let Some(settings) = Settings::read(&|name| std::env::var(name).ok())? else { return Ok(None) };
        let Ok(collector) = OtlpExporter::builder().with_http().build() else {
            return wrong("OTEL_EXPORTER_OTLP_ENDPOINT", "or another variable of the exporter is wrong");
        };
        let counts = COUNTS.get_or_init(Arc::default).clone();
        let resource = Arc::new(Mutex::new(None));
        let exporter = CountedExporter {
            collector: collector.into(),
            counts: counts.clone(),
            resource: resource.clone(),
        };
        let batches = BatchConfigBuilder::default().with_max_queue_size(settings.waiting_max).build();
        let batched = BatchSpanProcessor::builder(exporter).with_batch_config(batches).build();
        let provider = SdkTracerProvider::builder()
            .with_span_processor(BoundedQueue { batched, counts, waiting_max: settings.waiting_max })
            .with_sampler(settings.sampler())
            .with_resource(described(&[]))
            .build();
        context::begin();
        Ok(Some(Traces { provider, resource }))
    }

    /// What makes spans of those of the program. It has a filter of its own: what is logged decides nothing here.
    pub(crate) fn layer<S>(&self) -> impl Layer<S> + use<S>
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
    pub(crate) fn identify(&self, node: &str, network: &str) {
        let attributes = [
            KeyValue::new("service.instance.id", node.to_owned()),
            KeyValue::new("aop.network", network.to_owned()),
        ];
        *self.resource.lock().unwrap_or_else(PoisonError::into_inner) = Some(described(&attributes));
    }

    /// Sends what waits, as far as half a second suffices. Blocks.
    pub(crate) fn stop(&self) {
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
