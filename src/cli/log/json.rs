//! The log for programs: one object a line, flat.
//!
//! Beside what an event says of itself a line has the fields of the spans that it happened in, each once, and the ids of the
//! trace that it is part of (OpenTelemetry, "Trace Context in non-OTLP Log Formats").

use std::fmt::{Debug, Display};
use std::io::Write as _;
use std::sync::OnceLock;
use std::time::SystemTime;

use serde::Serializer as _;
use serde_json::{Value, json};
use tracing::dispatcher::{Dispatch, WeakDispatch};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use super::FIELD_BYTES_MAX;
use crate::sanitize::clean_short;
use crate::telemetry::context;

/// The node of this process, once it is known; a process with several has none.
static NODE: OnceLock<String> = OnceLock::new();

/// Each line says from now on which node wrote it.
pub(crate) fn name_node(node: &impl Display) {
    // Told once: a process has one node or none.
    let _told_before = NODE.set(node.to_string());
}

/// Prints events as objects.
pub(super) struct JsonLines<W> {
    writer: W,
    /// Of which it is a part; knows the trace of a span.
    dispatch: OnceLock<WeakDispatch>,
}

impl<W> JsonLines<W> {
    pub(super) fn new(writer: W) -> JsonLines<W> {
        JsonLines { writer, dispatch: OnceLock::new() }
    }
}

/// Fields in the order in which they were given; the last word of a name counts.
#[derive(Clone, Default)]
struct Fields(Vec<(&'static str, Value)>);

impl Fields {
    fn set(&mut self, name: &'static str, value: Value) {
        match self.0.iter_mut().find(|(known, _)| *known == name) {
            Some((_, known)) => *known = value,
            None => self.0.push((name, value)),
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.set(field.name(), json!(clean_short(&format!("{value:?}"), FIELD_BYTES_MAX)));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.set(field.name(), json!(clean_short(value, FIELD_BYTES_MAX)));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.set(field.name(), json!(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.set(field.name(), json!(value));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.set(field.name(), json!(value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.set(field.name(), json!(value));
    }
}

impl<S, W> Layer<S> for JsonLines<W>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'a> MakeWriter<'a> + 'static,
{
    fn on_register_dispatch(&self, dispatch: &Dispatch) {
        // A layer has one subscriber.
        let _told_before = self.dispatch.set(dispatch.downgrade());
    }

    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, cx: Context<'_, S>) {
        let Some(span) = cx.span(id) else { return };
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        span.extensions_mut().insert(fields);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, cx: Context<'_, S>) {
        if let Some(span) = cx.span(id)
            && let Some(fields) = span.extensions_mut().get_mut::<Fields>()
        {
            values.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, cx: Context<'_, S>) {
        let mut fields = Fields::default();
        let at = event.metadata();
        fields.set("timestamp", json!(humantime::format_rfc3339_micros(SystemTime::now()).to_string()));
        fields.set("level", json!(at.level().as_str()));
        fields.set("target", json!(at.target()));
        for span in cx.event_scope(event).into_iter().flat_map(|scope| scope.from_root()) {
            if let Some(of_span) = span.extensions().get::<Fields>() {
                of_span.0.iter().for_each(|(name, value)| fields.set(name, value.clone()));
            }
        }
        event.record(&mut fields);
        if let Some(node) = NODE.get() {
            fields.set("node", json!(node));
        }
        let dispatch = self.dispatch.get().and_then(WeakDispatch::upgrade);
        if let Some(ids) = dispatch.as_ref().and_then(context::current_ids) {
            fields.set("trace_id", json!(ids.trace_id));
            fields.set("span_id", json!(ids.span_id));
            fields.set("trace_flags", json!(ids.flags));
        }
        let mut line = Vec::new();
        let object = fields.0.iter().map(|(name, value)| (name, value));
        if serde_json::Serializer::new(&mut line).collect_map(object).is_ok() {
            line.push(b'\n');
            // Nobody reads any more, and there is nowhere else to say so.
            let _unread = self.writer.make_writer_for(at).write_all(&line);
        }
    }
}
