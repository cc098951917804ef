//! A task as its server streams it: each event changes what is known of it, and text goes to the caller as it comes.

use serde_json::Value;

use super::card::Binding;
use super::exchange::{ExchangeError, refusal};
use crate::a2a::{Artifact, Content, Event, Message, Part, Task, texts};
use crate::agents::CALL_BYTES_MAX;
use crate::agents::command::too_talkative;
use crate::agents::event_stream::{Events, StreamError};
use crate::agents::partial_output::PartialOutput;

/// What has come of a stream.
#[derive(Default)]
pub(super) struct TaskStream {
    events: Events,
    /// Bytes of all events.
    bytes: usize,
    pub(super) task: Option<Task>,
    /// The whole answer of an agent that makes no task.
    pub(super) message: Option<Message>,
}

impl From<StreamError> for ExchangeError {
    fn from(_: StreamError) -> ExchangeError {
        ExchangeError::Unanswered(too_talkative())
    }
}

impl TaskStream {
    /// Whether nothing more is to come.
    pub(super) fn is_over(&self) -> bool {
        self.message.is_some() || self.task.as_ref().is_some_and(|task| !task.status.state.is_going_on())
    }

    /// Takes a part of the stream.
    pub(super) fn push(
        &mut self,
        part: &[u8],
        binding: Binding,
        partial: &mut PartialOutput,
    ) -> Result<(), ExchangeError> {
        self.bytes += part.len();
        if self.bytes > CALL_BYTES_MAX {
            return Err(too_talkative().into());
        }
        let mut events = std::mem::take(&mut self.events);
        let pushed = events.push(part, |data| {
            let event: Value =
                serde_json::from_slice(data).map_err(|error| ExchangeError::NotA2a(error.to_string()))?;
            if let Some(error) = event.get("error").filter(|error| error["message"].is_string()) {
                return Err(refusal(error));
            }
            let event = if binding == Binding::JsonRpc { &event["result"] } else { &event };
            self.take(Event::read(event)?, partial);
            Ok(())
        });
        self.events = events;
        pushed
    }

    fn take(&mut self, event: Event, partial: &mut PartialOutput) {
        match (event, &mut self.task) {
            (Event::Task(task), known) => *known = Some(task),
            (Event::Message(message), _) => self.message = Some(message),
            (Event::Status { status, .. }, Some(task)) => task.status = status,
            (Event::Artifact { artifact, append, .. }, Some(task)) => {
                partial.push(&texts(&artifact.parts));
                add(&mut task.artifacts, artifact, append);
            }
            // Of a task that was never named nothing can be asked.
            (Event::Status { .. } | Event::Artifact { .. }, None) => {}
        }
    }
}

/// Adds what a task made, or more of it: a text that goes on is one text.
fn add(made: &mut Vec<Artifact>, artifact: Artifact, append: bool) {
    let known = made.iter_mut().find(|it| it.artifact_id == artifact.artifact_id);
    match known {
        Some(known) if append => {
            for part in artifact.parts {
                match (known.parts.last_mut().map(|last| &mut last.content), &part) {
                    (Some(Content::Text(text)), Part { content: Content::Text(more), .. }) => {
                        text.push_str(more)
                    }
                    _ => known.parts.push(part),
                }
            }
        }
        Some(known) => *known = artifact,
        None => made.push(artifact),
    }
}
