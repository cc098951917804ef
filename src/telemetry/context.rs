//! The trace that work is part of: taken from where a call came from, and passed on to where it goes.

use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;

use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState};
use tracing::Span;
use tracing::dispatcher::{self, Dispatch};
use tracing_opentelemetry::{OpenTelemetrySpanExt as _, get_otel_context};
use tracing_subscriber::Registry;
use tracing_subscriber::registry::LookupSpan as _;

use crate::proto::call::TraceParent;

/// Whether this process makes traces.
static IS_ON: AtomicBool = AtomicBool::new(false);
/// Spans around a moment that are looked through for one of a trace: more are never within each other.
const DEPTH_MAX: usize = 32;

/// As the log names a span.
pub(crate) struct Ids {
    /// 32 digits.
    pub(crate) trace_id: String,
    /// 16 digits.
    pub(crate) span_id: String,
    /// 2 digits.
    pub(crate) flags: String,
}

/// The span in which the program is now.
pub(crate) fn current_ids(dispatch: &Dispatch) -> Option<Ids> {
    let current = current(dispatch)?;
    Some(Ids {
        trace_id: current.trace_id().to_string(),
        span_id: current.span_id().to_string(),
        flags: format!("{:02x}", current.trace_flags().to_u8()),
    })
}

/// Spans of this process may be part of traces from now on.
pub(super) fn begin() {
    IS_ON.store(true, Relaxed);
}

/// The trace that the program is in now, if it is sent to a collector. Costs nothing where this process makes no traces.
pub(crate) fn sampled_trace() -> Option<String> {
    if !IS_ON.load(Relaxed) {
        return None;
    }
    let current = dispatcher::get_default(current).filter(SpanContext::is_sampled)?;
    Some(current.trace_id().to_string())
}

/// The innermost span of a trace. Between it and the moment may be spans that only the log knows.
fn current(dispatch: &Dispatch) -> Option<SpanContext> {
    let registry = dispatch.downcast_ref::<Registry>()?;
    let innermost = dispatch.current_span();
    let around = std::iter::successors(registry.span(innermost.id()?), |span| span.parent());
    around.take(DEPTH_MAX).find_map(|span| {
        let context = get_otel_context(&span.id(), dispatch)?.span().span_context().clone();
        context.is_valid().then_some(context)
    })
}

/// The span is part of what `trace` names, if that is said. Where the program is within a span of the same trace already, that is
/// nearer.
pub(crate) fn adopt(span: &Span, trace: Option<&TraceParent>) {
    let Some(parent) = trace.filter(|_| !span.is_disabled()).and_then(read) else { return };
    let around = dispatcher::get_default(current);
    if around.is_none_or(|around| around.trace_id() != parent.trace_id()) {
        // Only a span that is known elsewhere already cannot be given another parent, and this one is new.
        let _started = span.set_parent(opentelemetry::Context::new().with_remote_span_context(parent));
    }
}

/// The span is part of another one, which may be anywhere.
pub(crate) fn nest(span: &Span, within: &Span) {
    if !span.is_disabled() && !within.is_disabled() {
        // As in `adopt`.
        let _started = span.set_parent(within.context());
    }
}

/// The span has another name than it began with. To record one does nothing once its context was asked for.
pub(crate) fn rename(span: &Span, name: String) {
    if !span.is_disabled() {
        span.context().span().update_name(name);
    }
}

/// The span has to do with another one that is not its parent.
pub(crate) fn link(span: &Span, other: &Span) {
    if !span.is_disabled() {
        span.add_link(other.context().span().span_context().clone());
    }
}

/// What is told of the trace to those who work for the span: the span itself where it is kept; else they belong to whatever it
/// belongs to.
pub(crate) fn pass_on(span: &Span, trace: &mut Option<TraceParent>) {
    if span.is_disabled() {
        return;
    }
    let own = span.context().span().span_context().clone();
    if own.is_valid() && (own.is_sampled() || trace.is_none()) {
        *trace = written(&own);
    }
}

fn written(context: &SpanContext) -> Option<TraceParent> {
    let (trace, span) = (context.trace_id(), context.span_id());
    format!("00-{trace}-{span}-{:02x}", context.trace_flags().to_u8()).parse().ok()
}

fn read(trace: &TraceParent) -> Option<SpanContext> {
    let parts: Vec<&str> = trace.as_str().split('-').collect();
    let [_, trace, span, flags] = parts[..] else { return None };
    let flags = TraceFlags::new(u8::from_str_radix(flags, 16).ok()?);
    let (trace, span) = (TraceId::from_hex(trace).ok()?, SpanId::from_hex(span).ok()?);
    Some(SpanContext::new(trace, span, flags, true, TraceState::NONE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_is_written_again() {
        for text in [
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00",
        ] {
            let trace: TraceParent = text.parse().unwrap();
            let context = read(&trace).unwrap();
            assert!(context.is_remote());
            assert_eq!(written(&context), Some(trace));
        }
    }
}
