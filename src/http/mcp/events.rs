//! Events of a stream as every client can read them.

/// Passes events on, whole.
pub(super) struct EventFilter {
    begun: Vec<u8>,
    /// Clients of the revisions before 2025-11-25 take an event without data for a message that they cannot read.
    drops_empty: bool,
}

/// Line separators that JSON has in texts alone: readers that cut at them would cut an event.
const SEPARATORS: [(&str, &str); 2] = [("\u{2028}", "\\u2028"), ("\u{2029}", "\\u2029")];

impl EventFilter {
    /// Of a client that knows events without data, or not.
    pub(super) fn new(drops_empty: bool) -> EventFilter {
        EventFilter { begun: Vec::new(), drops_empty }
    }

    /// Takes what comes; gives the events that are whole by now.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.begun.extend_from_slice(bytes);
        let mut whole = Vec::new();
        while let Some(end) = self.begun.windows(2).position(|pair| pair == b"\n\n") {
            let event: Vec<u8> = self.begun.drain(..end + 2).collect();
            whole.extend(self.passed(&event));
        }
        whole
    }

    /// What is left at the end of the stream.
    pub(super) fn end(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.begun)
    }

    fn passed(&self, event: &[u8]) -> Vec<u8> {
        let text = String::from_utf8_lossy(event);
        let mut data = text.lines().filter_map(|line| line.strip_prefix("data:")).peekable();
        if self.drops_empty && data.peek().is_some() && data.all(|data| data.trim().is_empty()) {
            return Vec::new();
        }
        let escaped = SEPARATORS.iter().fold(text.into_owned(), |text, (raw, code)| text.replace(raw, code));
        escaped.into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &str = "id: 0\nretry: 3000\ndata:\n\n: ping\n\ndata: {\"a\":\"x\u{2028}y\"}\n\n";

    #[test]
    fn events_are_passed_on_whole_however_they_come() {
        for size in 1..STREAM.len() {
            let mut filter = EventFilter::new(true);
            let mut passed: Vec<u8> =
                STREAM.as_bytes().chunks(size).flat_map(|part| filter.feed(part)).collect();
            passed.extend(filter.end());
            assert_eq!(String::from_utf8(passed).unwrap(), ": ping\n\ndata: {\"a\":\"x\\u2028y\"}\n\n");
        }
    }

    #[test]
    fn a_client_of_a_later_revision_gets_events_without_data() {
        let passed = EventFilter::new(false).feed(STREAM.as_bytes());
        assert!(passed.starts_with(b"id: 0"));
    }
}
