//! JSON as bytes. The library that parses it also writes it, but looks at the bytes of a text one by one; nearly all stand for
//! themselves, which is seen of many at once.

use std::io::{self, Write};

use serde_json::Value;

/// Bytes that are looked at together.
const CHUNK: usize = 32;

/// A document as it travels.
pub(crate) fn bytes(document: &Value) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(128);
    // Memory takes all that is written to it.
    let _infallible = write(&mut bytes, document);
    bytes
}

/// How many bytes that are.
pub(crate) fn length(document: &Value) -> usize {
    struct Count(usize);
    impl Write for Count {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    let _infallible = write(&mut count, document);
    count.0
}

fn write(to: &mut impl Write, document: &Value) -> io::Result<()> {
    match document {
        Value::String(text) => write_text(to, text),
        Value::Array(items) => {
            to.write_all(b"[")?;
            for (at, item) in items.iter().enumerate() {
                to.write_all(if at > 0 { b"," } else { b"" })?;
                write(to, item)?;
            }
            to.write_all(b"]")
        }
        Value::Object(fields) => {
            to.write_all(b"{")?;
            for (at, (name, value)) in fields.iter().enumerate() {
                to.write_all(if at > 0 { b"," } else { b"" })?;
                write_text(to, name)?;
                to.write_all(b":")?;
                write(to, value)?;
            }
            to.write_all(b"}")
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => Ok(serde_json::to_writer(to, document)?),
    }
}

fn write_text(to: &mut impl Write, text: &str) -> io::Result<()> {
    to.write_all(b"\"")?;
    let mut left = text.as_bytes();
    loop {
        let (plain, rest) = left.split_at(plain_bytes(left));
        to.write_all(plain)?;
        let Some((escaped, rest)) = rest.split_first() else { return to.write_all(b"\"") };
        match escaped {
            b'"' => to.write_all(b"\\\"")?,
            b'\\' => to.write_all(b"\\\\")?,
            b'\n' => to.write_all(b"\\n")?,
            b'\r' => to.write_all(b"\\r")?,
            b'\t' => to.write_all(b"\\t")?,
            0x08 => to.write_all(b"\\b")?,
            0x0c => to.write_all(b"\\f")?,
            control => write!(to, "\\u{control:04x}")?,
        }
        left = rest;
    }
}

/// How many bytes stand for themselves, up to the first that does not.
fn plain_bytes(text: &[u8]) -> usize {
    let is_escaped = |byte: &u8| *byte < 0x20 || matches!(byte, b'"' | b'\\');
    // Without a way out of the chunk, so that the processor compares all of it at once.
    let is_plain = |chunk: &[u8]| !chunk.iter().fold(false, |found, byte| found | is_escaped(byte));
    let whole = text.chunks_exact(CHUNK).take_while(|chunk| is_plain(chunk)).count() * CHUNK;
    whole + text[whole..].iter().take_while(|byte| !is_escaped(byte)).count()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_document_is_written_as_the_library_writes_it() {
        let controls: String = (0..128_u8).map(char::from).collect();
        let long = format!("{}\"{}\n", "x".repeat(CHUNK * 3 + 5), "€".repeat(CHUNK));
        for document in [
            json!(null),
            json!([]),
            json!({}),
            json!(""),
            json!([true, false, null, 0, -7, 1.5e300, u64::MAX, [[]], {"": {}}]),
            json!({"a\"b": controls, "c": [long, {"d": "e"}], "ü": "\u{7f}\u{2028}😀"}),
            json!("x".repeat(CHUNK)),
        ] {
            let expected = serde_json::to_vec(&document).unwrap();
            assert_eq!(String::from_utf8(bytes(&document)).unwrap(), String::from_utf8(expected).unwrap());
            assert_eq!(length(&document), bytes(&document).len());
        }
    }
}
