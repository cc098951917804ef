//! Agents that need nothing: echo, sleep, fail.

use std::time::Duration;

use serde_json::Value;

use super::Invocation;
use crate::document::run_config::Builtin;
use crate::proto::call::{CallFailure, Outcome, Progress, Report};
use crate::proto::code::Code;

/// Pause between two reports of the sleeper.
const REPORT_EVERY: Duration = Duration::from_millis(100);

pub(super) async fn run(builtin: Builtin, invocation: &Invocation) -> Result<Value, CallFailure> {
    let text = invocation.input.get("task").cloned().unwrap_or_else(|| invocation.input.clone());
    match builtin {
        Builtin::Echo => Ok(text),
        Builtin::Sleep => sleep(&text, invocation).await,
        Builtin::Fail => Err(CallFailure::new(Code::AgentFailed, Outcome::Done, "this agent always fails")),
    }
}

async fn sleep(text: &Value, invocation: &Invocation) -> Result<Value, CallFailure> {
    let asked = text.as_u64().or_else(|| text.as_str().and_then(|text| text.trim().parse().ok()));
    let total = Duration::from_millis(asked.unwrap_or(1_000));
    let started = tokio::time::Instant::now();
    while started.elapsed() < total {
        tokio::time::sleep(REPORT_EVERY.min(total.saturating_sub(started.elapsed()))).await;
        if let Some(reports) = &invocation.reports {
            let report = Progress {
                progress: started.elapsed().min(total).as_secs_f64(),
                total: Some(total.as_secs_f64()),
                message: None,
            };
            // Reports are only a hint.
            let _ = reports.try_send(Report::Progress(report));
        }
    }
    Ok(Value::String(format!("slept {} ms", total.as_millis())))
}
