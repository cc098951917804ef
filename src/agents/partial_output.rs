//! Output of an agent that is passed on before its work ends.
//!
//! The work is never delayed: what finds no room waits and goes with the next piece. What still waits at the end is not sent, for
//! the output follows whole.

use tokio::sync::mpsc::Sender;
use tokio::sync::mpsc::error::TrySendError;

use super::Invocation;
use crate::proto::call::Report;

/// Where the output of one call goes as it comes.
pub(super) struct PartialOutput {
    /// None where nobody wants it, or what came is no text.
    reports: Option<Sender<Report>>,
    /// Text that found no room; never more than the output may have.
    kept: String,
    /// The beginning of a character whose rest has not come, at most three bytes.
    split: Vec<u8>,
}

impl PartialOutput {
    /// Of a call whose caller may want it.
    pub(super) fn of(invocation: &Invocation) -> PartialOutput {
        let reports = invocation.reports.clone().filter(|_| invocation.stream);
        PartialOutput { reports, kept: String::new(), split: Vec::new() }
    }

    /// That of a call whose output is of no use before it is whole.
    pub(super) fn none() -> PartialOutput {
        PartialOutput { reports: None, kept: String::new(), split: Vec::new() }
    }

    /// Whether anybody wants it.
    pub(super) fn is_wanted(&self) -> bool {
        self.reports.is_some()
    }

    /// Passes bytes on as far as they are whole characters. What is no UTF-8 ends the stream, and the call fails for it later.
    pub(super) fn push_bytes(&mut self, bytes: &[u8]) {
        if !self.is_wanted() {
            return;
        }
        self.split.extend_from_slice(bytes);
        let (valid, is_text) = match std::str::from_utf8(&self.split) {
            Ok(text) => (text.len(), true),
            Err(error) => (error.valid_up_to(), error.error_len().is_none()),
        };
        let rest = self.split.split_off(valid);
        let whole = std::mem::replace(&mut self.split, rest);
        self.push(&String::from_utf8(whole).unwrap_or_default());
        if !is_text {
            self.reports = None;
        }
    }

    /// Passes text on.
    pub(super) fn push(&mut self, text: &str) {
        let Some(reports) = &self.reports else { return };
        self.kept.push_str(text);
        if self.kept.is_empty() {
            return;
        }
        match reports.try_send(Report::Partial(std::mem::take(&mut self.kept))) {
            Err(TrySendError::Full(Report::Partial(text))) => self.kept = text,
            Err(_) => self.reports = None,
            Ok(()) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;
    use tokio::sync::mpsc;
    use tokio::time::Instant;

    use super::*;
    use crate::proto::call::CallId;

    fn streamed(room: usize) -> (PartialOutput, mpsc::Receiver<Report>) {
        let (reports, told) = mpsc::channel(room);
        let invocation = Invocation::new(CallId([7; 16]), Value::Null, Instant::now());
        let invocation = Invocation { reports: Some(reports), stream: true, ..invocation };
        (PartialOutput::of(&invocation), told)
    }

    fn pieces(told: &mut mpsc::Receiver<Report>) -> Vec<String> {
        std::iter::from_fn(|| told.try_recv().ok())
            .map(|report| match report {
                Report::Partial(text) => text,
                report => panic!("{report:?}"),
            })
            .collect()
    }

    #[test]
    fn a_character_that_is_split_waits_for_its_rest() {
        let (mut output, mut told) = streamed(8);
        let text = "a€b";
        for byte in text.as_bytes() {
            output.push_bytes(&[*byte]);
        }
        assert_eq!(pieces(&mut told), ["a", "€", "b"]);
        output.push_bytes(b"c\xffd");
        output.push_bytes(b"e");
        assert_eq!(pieces(&mut told), ["c"], "what is no text ends it");
    }

    #[test]
    fn what_finds_no_room_goes_with_the_next_piece_and_nothing_is_lost() {
        let (mut output, mut told) = streamed(1);
        for text in ["one ", "two ", "three "] {
            output.push(text);
        }
        assert_eq!(pieces(&mut told), ["one "]);
        output.push("four");
        assert_eq!(pieces(&mut told), ["two three four"]);
        drop(told);
        output.push("five");
        assert!(!output.is_wanted());
    }

    #[test]
    fn nothing_is_passed_on_unasked() {
        let (reports, mut told) = mpsc::channel(8);
        let invocation = Invocation::new(CallId([7; 16]), Value::Null, Instant::now());
        PartialOutput::of(&Invocation { reports: Some(reports), ..invocation }).push("text");
        assert!(told.try_recv().is_err());
    }
}
