//! Server-sent events as servers stream their answers, each one line of JSON; and the answer of a model's server, whose text
//! comes piece by piece.

use serde_json::Value;

use super::CALL_BYTES_MAX;

/// Events, as far as they have come.
#[derive(Default)]
pub(super) struct Events {
    /// Of a line whose end has not come; at most [`CALL_BYTES_MAX`] bytes.
    line: Vec<u8>,
}

impl Events {
    /// Takes a part of the stream, and gives the data of each event to `take`; names of events, ids and comments say nothing.
    pub(super) fn push<E: From<StreamError>>(
        &mut self,
        part: &[u8],
        mut take: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        for piece in part.split_inclusive(|byte| *byte == b'\n') {
            if self.line.len() + piece.len() > CALL_BYTES_MAX {
                return Err(StreamError::TooLarge.into());
            }
            self.line.extend_from_slice(piece);
            if piece.ends_with(b"\n") {
                let line = std::mem::take(&mut self.line);
                line.strip_prefix(b"data:").map_or(Ok(()), |data| take(data.trim_ascii()))?;
            }
        }
        Ok(())
    }
}

/// The answer of a chat model, as far as it has come.
#[derive(Default)]
pub(super) struct ChatStream {
    events: Events,
    answer: ChatAnswer,
}

#[derive(Default)]
struct ChatAnswer {
    text: String,
    /// How much of the text was given out by [`ChatStream::added`].
    given: usize,
    is_complete: bool,
    usage: Option<Usage>,
}

/// Tokens that a model took, and that it gave.
pub(super) type Usage = (u64, u64);

/// What a server says of them, if it does.
pub(super) fn usage_of(answer: &Value) -> Option<Usage> {
    let of = |tokens: &str| answer["usage"][tokens].as_u64();
    Some((of("prompt_tokens")?, of("completion_tokens")?))
}

/// Why a stream is no answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum StreamError {
    /// The answer, or a line of it, has more bytes than an answer may have.
    TooLarge,
    /// The server says that it failed; its words, for the log.
    Failed(String),
    /// It ended before the answer did.
    Broken,
}

impl ChatStream {
    /// Takes a part of the stream.
    pub(super) fn push(&mut self, part: &[u8]) -> Result<(), StreamError> {
        let ChatStream { events, answer } = self;
        events.push(part, |data| answer.take(data))
    }

    /// The text that has come since this was asked last, also where the stream then failed.
    pub(super) fn added(&mut self) -> &str {
        let from = std::mem::replace(&mut self.answer.given, self.answer.text.len());
        &self.answer.text[from..]
    }

    /// What the server said by now of what it took.
    pub(super) fn usage(&self) -> Option<Usage> {
        self.answer.usage
    }

    /// The whole answer, once the stream has ended.
    pub(super) fn finish(self) -> Result<String, StreamError> {
        if self.answer.is_complete { Ok(self.answer.text) } else { Err(StreamError::Broken) }
    }
}

impl ChatAnswer {
    fn take(&mut self, data: &[u8]) -> Result<(), StreamError> {
        if data == b"[DONE]" {
            self.is_complete = true;
            return Ok(());
        }
        let Ok(event) = serde_json::from_slice::<Value>(data) else { return Ok(()) };
        if let Some(error) = event.get("error").filter(|error| !error.is_null()) {
            return Err(StreamError::Failed(error.to_string()));
        }
        self.usage = usage_of(&event).or(self.usage);
        let choice = &event["choices"][0];
        let pieces = ["delta", "message"].map(|key| choice[key]["content"].as_str().unwrap_or_default());
        let added: usize = pieces.iter().map(|piece| piece.len()).sum();
        if self.text.len() + added > CALL_BYTES_MAX {
            return Err(StreamError::TooLarge);
        }
        self.text.extend(pieces);
        // Some servers say no [DONE].
        self.is_complete |= choice["finish_reason"].is_string();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENTS: &str = ": hello\r\n\r\ndata: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\r\n\r\n\
                          data:{\"choices\":[{\"delta\":{\"content\":\"Grüße\"}}]}\n\n\
                          event: x\ndata: {\"choices\":[{\"delta\":{\"content\":\" all\"},\"finish_reason\":\"stop\"}]}\n\n\
                          data: {\"choices\":[],\"usage\":{}}\n\ndata: [DONE]\n\n";

    #[test]
    fn an_answer_is_the_text_of_its_events_however_they_are_cut() {
        for size in [1, 2, 7, 1_000] {
            let mut stream = ChatStream::default();
            let mut pieces = String::new();
            for part in EVENTS.as_bytes().chunks(size) {
                stream.push(part).unwrap();
                pieces += stream.added();
            }
            assert_eq!(
                (pieces.as_str(), stream.finish().as_deref()),
                ("Grüße all", Ok("Grüße all")),
                "{size}"
            );
        }
    }

    #[test]
    fn a_stream_that_ends_early_is_broken_and_one_that_tells_an_error_has_failed() {
        let mut stream = ChatStream::default();
        stream.push(&EVENTS.as_bytes()[..EVENTS.find("event: x").unwrap()]).unwrap();
        assert_eq!(stream.finish(), Err(StreamError::Broken));
        let mut stream = ChatStream::default();
        let well = "data: {\"choices\":[{\"delta\":{\"content\":\"Well\"}}]}\n";
        let told = stream.push(format!("{well}data: {{\"error\":{{\"message\":\"no ink\"}}}}\n").as_bytes());
        assert_eq!(stream.added(), "Well");
        assert!(matches!(told, Err(StreamError::Failed(words)) if words.contains("no ink")));
    }

    #[test]
    fn neither_a_line_nor_an_answer_grows_beyond_the_bound() {
        let mut stream = ChatStream::default();
        let part = vec![b'x'; CALL_BYTES_MAX];
        assert_eq!(stream.push(&part), Ok(()));
        assert_eq!(stream.push(b"x"), Err(StreamError::TooLarge));
        let mut stream = ChatStream::default();
        let event = format!(
            "data: {{\"choices\":[{{\"delta\":{{\"content\":\"{}\"}}}}]}}\n",
            "x".repeat(CALL_BYTES_MAX / 2)
        );
        stream.push(event.as_bytes()).unwrap();
        stream.push(event.as_bytes()).unwrap();
        assert_eq!(stream.push(event.as_bytes()), Err(StreamError::TooLarge));
    }
}
