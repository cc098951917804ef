//! Server-sent events as far as MCP uses them: the data of one event after the other.

use std::collections::VecDeque;

/// Largest event, bytes: the largest answer of an agent many times over.
const EVENT_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Cuts a stream of bytes into events.
#[derive(Default)]
pub(super) struct Events {
    line: Vec<u8>,
    data: Vec<u8>,
    done: VecDeque<Vec<u8>>,
}

/// An event is larger than anything a node sends.
#[derive(Debug)]
pub(super) struct TooLarge;

impl Events {
    /// Takes what came.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Result<(), TooLarge> {
        for byte in bytes {
            match byte {
                b'\n' => self.end_line(),
                // Of CRLF only the LF counts; a lone CR could end a line, too, but no node sends one.
                b'\r' => {}
                other => self.line.push(*other),
            }
            // Both together, because either could be made to grow.
            if self.line.len() + self.data.len() > EVENT_BYTES_MAX {
                return Err(TooLarge);
            }
        }
        Ok(())
    }

    /// The data of the next whole event; events without data are left out.
    pub(super) fn next(&mut self) -> Option<Vec<u8>> {
        self.done.pop_front()
    }

    fn end_line(&mut self) {
        let line = std::mem::take(&mut self.line);
        if line.is_empty() {
            let data = std::mem::take(&mut self.data);
            self.done.extend((!data.is_empty()).then_some(data));
        } else if let Some(value) = line.strip_prefix(b"data:") {
            if !self.data.is_empty() {
                self.data.push(b'\n');
            }
            self.data.extend_from_slice(value.strip_prefix(b" ").unwrap_or(value));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_whole_however_the_bytes_are_cut() {
        let stream = b"id: 0\nretry: 3000\ndata:\n\n: ping\n\ndata: {\"a\":1}\r\n\r\nid: 1\ndata: {\ndata: }\n\ndata: half";
        for size in 1..stream.len() {
            let mut events = Events::default();
            stream.chunks(size).for_each(|part| events.feed(part).unwrap());
            assert_eq!(events.next().as_deref(), Some(&b"{\"a\":1}"[..]));
            assert_eq!(events.next().as_deref(), Some(&b"{\n}"[..]));
            assert!(events.next().is_none());
        }
    }

    #[test]
    fn an_endless_event_is_refused() {
        let mut events = Events::default();
        let part = vec![b'x'; 1024 * 1024];
        assert!((0..40).any(|_| events.feed(&part).is_err()));
    }
}
