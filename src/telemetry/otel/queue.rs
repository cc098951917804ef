//! The way of a span from its end to the collector: so many wait, and what is lost is counted.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use opentelemetry::Context;
use opentelemetry_otlp::SpanExporter as OtlpExporter;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::trace::{BatchSpanProcessor, Span, SpanData, SpanExporter, SpanProcessor};

/// What became of spans.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) waiting: AtomicUsize,
    pub(super) dropped: AtomicU64,
    /// Whether the collector took none of the last batch, which is told when it begins and when it ends.
    pub(super) is_lost: AtomicBool,
}

/// Takes no more spans than may wait.
#[derive(Debug)]
pub(super) struct BoundedQueue {
    pub(super) batched: BatchSpanProcessor,
    pub(super) counts: Arc<Counts>,
    pub(super) waiting_max: usize,
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
pub(super) struct CountedExporter {
    pub(super) collector: tokio::sync::Mutex<OtlpExporter>,
    pub(super) counts: Arc<Counts>,
    /// What is known of the node since the last batch.
    pub(super) resource: Arc<Mutex<Option<Resource>>>,
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
        if self.counts.is_lost.swap(failure.is_some(), Relaxed) == failure.is_some() {
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
