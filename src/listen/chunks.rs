//! Decides whether the bytes of a chunked body are sound (RFC 9112 section 7.1), and where it ends.
//!
//! Stricter than Pingora, which also reads the body: spaces around sizes, control characters in extensions and extensions
//! without end are refused, and trailer fields must look like fields. The bytes go on as they are; who reads the body is told where its data lies.

use std::ops::Range;

use crate::reply::problem::Kind;

use super::head::is_tchar;

pub static CHUNK_INVALID: Kind = Kind {
    code: "chunk-invalid",
    status: 400,
    error: "Bad request",
    about: "The chunked body is malformed: a size that is not hexadecimal, a missing CRLF, an oversized extension or trailer (RFC 9112 section 7.1).",
};

/// Where in a chunked body the next byte stands.
#[derive(Debug, Default)]
pub struct Chunks {
    state: State,
    /// The size being read, then what is left of the chunk's data.
    size: u64,
    /// Digits of the size, or bytes of the extension, read so far.
    count: u32,
    /// Bytes of all extensions.
    extensions: u32,
    /// Bytes of all trailer fields.
    trailers: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Size,
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    /// Beginning of a trailer line, or of the empty line.
    Line,
    Name,
    Value,
    ValueLf,
    EndLf,
    Done,
}

/// 15 hexadecimal digits are far below what an `i64` holds and far above any body.
const SIZE_DIGITS: u32 = 15;
const EXTENSION_BYTES: u32 = 256;
/// All extensions of one body: they carry nothing that anybody reads, only load.
const EXTENSIONS_BYTES: u32 = 16 << 10;
const TRAILERS_BYTES: u32 = 8 << 10;

// === impl Chunks ===

impl Chunks {
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Reads on. Says how many of the bytes belong to this body; fewer than given only when it has ended.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<usize, &'static Kind> {
        self.walk(bytes, |_| {})
    }

    /// Likewise, and says where in the bytes data lies.
    pub fn walk(&mut self, bytes: &[u8], mut data: impl FnMut(Range<usize>)) -> Result<usize, &'static Kind> {
        let mut at = 0;
        while at < bytes.len() && self.state != State::Done {
            if self.state == State::Data {
                let take = usize::try_from(self.size).unwrap_or(usize::MAX).min(bytes.len() - at);
                self.size -= take as u64;
                data(at..at + take);
                at += take;
                if self.size == 0 {
                    self.state = State::DataCr;
                }
                continue;
            }
            self.state = self.step(bytes[at]).ok_or(&CHUNK_INVALID)?;
            at += 1;
        }
        Ok(at)
    }

    /// The state after one byte outside of data.
    fn step(&mut self, byte: u8) -> Option<State> {
        match (self.state, byte) {
            (State::Size, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                self.count += 1;
                let digit = char::from(byte).to_digit(16)?;
                self.size = self.size * 16 + u64::from(digit);
                (self.count <= SIZE_DIGITS).then_some(State::Size)
            }
            (State::Size, b';') if self.count > 0 => {
                self.count = 0;
                Some(State::Extension)
            }
            (State::Size, b'\r') if self.count > 0 => Some(State::SizeLf),
            (State::Extension, b'\r') => Some(State::SizeLf),
            (State::Extension, _) => {
                self.count += 1;
                self.extensions += 1;
                (is_text(byte) && self.count <= EXTENSION_BYTES && self.extensions <= EXTENSIONS_BYTES).then_some(State::Extension)
            }
            (State::SizeLf, b'\n') => {
                self.count = 0;
                Some(if self.size == 0 { State::Line } else { State::Data })
            }
            (State::DataCr, b'\r') => Some(State::DataLf),
            (State::DataLf, b'\n') => Some(State::Size),
            (State::Line, b'\r') => Some(State::EndLf),
            (State::Line | State::Name, _) if is_tchar(byte) => self.trailer(State::Name),
            (State::Name, b':') => self.trailer(State::Value),
            (State::Value, b'\r') => Some(State::ValueLf),
            (State::Value, _) if is_text(byte) => self.trailer(State::Value),
            (State::ValueLf, b'\n') => Some(State::Line),
            (State::EndLf, b'\n') => Some(State::Done),
            (
                State::Size
                | State::SizeLf
                | State::Data
                | State::DataCr
                | State::DataLf
                | State::Line
                | State::Name
                | State::Value
                | State::ValueLf
                | State::EndLf
                | State::Done,
                _,
            ) => None,
        }
    }

    fn trailer(&mut self, next: State) -> Option<State> {
        self.trailers += 1;
        (self.trailers <= TRAILERS_BYTES).then_some(next)
    }
}

/// Bytes that a field value or an extension may have.
fn is_text(byte: u8) -> bool {
    byte == b'\t' || (byte >= 0x20 && byte != 0x7f)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds in pieces of `step` bytes; says how many belong to the body once it is done.
    fn end(bytes: &[u8], step: usize) -> Result<Option<usize>, &'static Kind> {
        let (mut chunks, mut used) = (Chunks::default(), 0);
        for piece in bytes.chunks(step) {
            used += chunks.feed(piece)?;
            if chunks.is_done() {
                return Ok(Some(used));
            }
        }
        Ok(None)
    }

    #[test]
    fn a_body_ends_behind_its_last_chunk_however_it_is_cut() {
        let long = format!("2710\r\n{}\r\n0\r\n\r\n", "x".repeat(10_000));
        for body in [
            "0\r\n\r\n",
            "5\r\nhello\r\n0\r\n\r\n",
            "1;a=b\r\nx\r\nA\r\n0123456789\r\n0;q=\"1\"\r\nx-sum: 1\r\ny:\r\n\r\n",
            "000\r\n\r\n",
            &long,
        ] {
            let with_next = format!("{body}GET / HTTP/1.1\r\n");
            for step in [1, 2, 3, 7, 64, 1 << 20] {
                assert_eq!(end(with_next.as_bytes(), step), Ok(Some(body.len())), "{body:?} by {step}");
            }
            assert_eq!(end(&body.as_bytes()[..body.len() - 1], 3), Ok(None), "{body:?} without its end");
        }
    }

    #[test]
    fn a_malformed_body_is_refused_however_it_is_cut() {
        let long = "a".repeat(257);
        let many: String = (0..100).map(|_| format!("1;{}\r\nx\r\n", "e".repeat(200))).collect();
        for (body, why) in [
            ("\r\n", "7.1: no size"),
            (";a\r\n", "7.1: no size before the extension"),
            ("x\r\n", "7.1: not hexadecimal"),
            ("-1\r\n", "7.1: a sign"),
            ("0x5\r\nhello\r\n", "7.1: a prefix"),
            ("5 \r\nhello\r\n", "7.1: a space behind the size"),
            (" 5\r\nhello\r\n", "7.1: a space before the size"),
            ("5 ;a\r\nhello\r\n", "7.1.1: bad white space"),
            ("5\nhello\r\n", "2.2: bare LF behind the size"),
            ("5\rhello\r\n", "2.2: bare CR behind the size"),
            ("5\r\nhello\n0\r\n\r\n", "7.1: bare LF behind the data"),
            ("5\r\nhello0\r\n\r\n", "7.1: no CRLF behind the data"),
            ("5\r\nhello world\r\n", "7.1: more data than told"),
            ("5;a\nb\r\nhello\r\n", "7.1.1: a bare LF inside an extension"),
            ("5;a\0b\r\nhello\r\n", "7.1.1: NUL inside an extension"),
            ("ffffffffffffffff\r\n", "7.1: a size that overflows"),
            ("0000000000000005\r\n", "7.1: a size without end"),
            (&format!("1;{long}\r\n"), "7.1.1: a long extension"),
            (&many, "7.1.1: many extensions"),
            ("0\r\n x: 1\r\n\r\n", "7.1.2: a folded trailer"),
            ("0\r\nx\r\n\r\n", "7.1.2: a trailer without a colon"),
            ("0\r\nx : 1\r\n\r\n", "7.1.2: a space before the colon"),
            ("0\r\nx: 1\n\r\n", "2.2: bare LF behind a trailer"),
            ("0\r\nx: a\0\r\n\r\n", "7.1.2: NUL in a trailer"),
            ("0\r\n\n", "2.2: bare LF as the end"),
            (&format!("0\r\nx: {}\r\n\r\n", "v".repeat(9000)), "7.1.2: oversized trailers"),
        ] {
            for step in [1, 5, 1 << 20] {
                assert_eq!(end(body.as_bytes(), step), Err(&CHUNK_INVALID), "RFC 9112 {why}: {:?}", &body[..body.len().min(40)]);
            }
        }
    }
}
