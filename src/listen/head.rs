//! Decides whether the bytes that a client sent are one complete, unambiguous request head (RFC 9112), and where it ends.
//!
//! Whatever two parsers could read differently is refused here, with a stable code, before any other parser sees it; what
//! is accepted is accepted by Pingora's parser with the same end. Framing and what concerns the connection is judged here
//! because a mistake in it concerns everybody on the connection. Does not judge what the path, query and host mean: see
//! `entry/canonical.rs`. The fields are judged in `fields` below, line by line, without allocating.

mod authority;
mod fields;

use memchr::memchr;

use crate::reply::problem::Kind;

use self::authority::authority;
use self::fields::Fields;
use super::request::{FieldMarks, Marks};

pub static REQUEST_LINE_INVALID: Kind = Kind {
    code: "request-line-invalid",
    status: 400,
    error: "Bad request",
    about: "The first line is not `METHOD target HTTP/1.1` with single spaces, or the target has bytes that must be percent-encoded (RFC 9112 section 3). Often TLS sent to a plain port.",
};
pub static METHOD_UNSUPPORTED: Kind = Kind {
    code: "method-unsupported",
    status: 501,
    error: "Not implemented",
    about: "The method is longer than 32 bytes (RFC 9112 section 3), or it is TRACE, whose answer would show what the gateway adds for upstreams alone (RFC 9110 section 9.3.8).",
};
pub static TARGET_REFUSED: Kind = Kind {
    code: "target-refused",
    status: 400,
    error: "Bad request",
    about: "The target is neither a path nor an http URL, or the method is CONNECT: the gateway is no forward proxy (RFC 9112 section 3.2).",
};
pub static TARGET_TOO_LONG: Kind = Kind {
    code: "target-too-long",
    status: 414,
    error: "URI too long",
    about: "The request line alone is longer than `heads.line` or `heads.bytes`, or longer than 65000 bytes.",
};
pub static VERSION_UNSUPPORTED: Kind = Kind {
    code: "version-unsupported",
    status: 505,
    error: "HTTP version not supported",
    about: "The version of HTTP is not one of 1.0, 1.1 and 2, or not one that the `protocols` of the listener have (RFC 9112 section 2.3).",
};
pub static LINE_ENDING_INVALID: Kind = Kind {
    code: "line-ending-invalid",
    status: 400,
    error: "Bad request",
    about: "A line of the head ends in a bare LF, or has a CR inside (RFC 9112 section 2.2); parsers disagree about where such lines end.",
};
pub static HEAD_TOO_LARGE: Kind = Kind {
    code: "head-too-large",
    status: 431,
    error: "Request header fields too large",
    about: "The request head is larger than `heads.bytes` of the listener. Often cookies that pile up.",
};
pub static FIELDS_TOO_MANY: Kind = Kind {
    code: "fields-too-many",
    status: 431,
    error: "Request header fields too large",
    about: "The request head has more fields than `heads.fields` of the listener.",
};
pub static FIELD_TOO_LONG: Kind = Kind {
    code: "field-too-long",
    status: 431,
    error: "Request header fields too large",
    about: "A field of the request head is longer than `heads.line` of the listener. Often one large cookie.",
};
pub static FIELD_NAME_INVALID: Kind = Kind {
    code: "field-name-invalid",
    status: 400,
    error: "Bad request",
    about: "A field line has no colon, an empty name, a space before the colon or a byte that names may not have (RFC 9112 section 5.1).",
};
pub static FIELD_VALUE_INVALID: Kind = Kind {
    code: "field-value-invalid",
    status: 400,
    error: "Bad request",
    about: "A field value has a NUL or another control character (RFC 9110 section 5.5).",
};
pub static FIELD_FOLDED: Kind = Kind {
    code: "field-folded",
    status: 400,
    error: "Bad request",
    about: "A field line begins with white space: folded lines are obsolete and read differently by different parsers (RFC 9112 section 5.2).",
};
pub static CONTENT_LENGTH_INVALID: Kind = Kind {
    code: "content-length-invalid",
    status: 400,
    error: "Bad request",
    about: "Content-Length is not one plain number, or is sent more than once (RFC 9112 section 6.3).",
};
pub static TRANSFER_ENCODING_INVALID: Kind = Kind {
    code: "transfer-encoding-invalid",
    status: 400,
    error: "Bad request",
    about: "Transfer-Encoding is anything but a single `chunked`, or comes with HTTP/1.0 (RFC 9112 section 6.1).",
};
pub static FRAMING_AMBIGUOUS: Kind = Kind {
    code: "framing-ambiguous",
    status: 400,
    error: "Bad request",
    about: "The length of the body is told in two ways, such as Content-Length with Transfer-Encoding: a sign of request smuggling (RFC 9112 section 6.1).",
};
pub static HOST_MISSING: Kind = Kind {
    code: "host-missing",
    status: 400,
    error: "Bad request",
    about: "An HTTP/1.1 request without a Host field (RFC 9112 section 3.2).",
};
pub static HOST_DUPLICATE: Kind = Kind {
    code: "host-duplicate",
    status: 400,
    error: "Bad request",
    about: "A request with more than one Host field (RFC 9112 section 3.2).",
};
pub static HOST_MISMATCH: Kind = Kind {
    code: "host-mismatch",
    status: 400,
    error: "Bad request",
    about: "The target is a whole URL and names another host than the Host field (RFC 9112 section 3.2.2).",
};
pub static HOST_INVALID: Kind = Kind {
    code: "host-invalid",
    status: 400,
    error: "Bad request",
    about: "Host, or the host in a target that is a whole URL, is not one host name or address with an optional port, or has user information (RFC 9110 section 4.2.4).",
};
pub static CONNECTION_HEADER_INVALID: Kind = Kind {
    code: "connection-header-invalid",
    status: 400,
    error: "Bad request",
    about: "Connection names more than 8 options, or a field that is not hop-by-hop: that would have it removed on the way (RFC 9110 section 7.6.1).",
};
pub static UPGRADE_INVALID: Kind = Kind {
    code: "upgrade-invalid",
    status: 400,
    error: "Bad request",
    about: "A WebSocket handshake with a body, without `Connection: upgrade`, not by GET, or not HTTP/1.1 (RFC 6455 section 4.1, RFC 9110 section 7.8).",
};

/// What this file can refuse.
pub static KINDS: [&Kind; 21] = [
    &REQUEST_LINE_INVALID,
    &METHOD_UNSUPPORTED,
    &TARGET_REFUSED,
    &TARGET_TOO_LONG,
    &VERSION_UNSUPPORTED,
    &LINE_ENDING_INVALID,
    &HEAD_TOO_LARGE,
    &FIELDS_TOO_MANY,
    &FIELD_TOO_LONG,
    &FIELD_NAME_INVALID,
    &FIELD_VALUE_INVALID,
    &FIELD_FOLDED,
    &CONTENT_LENGTH_INVALID,
    &TRANSFER_ENCODING_INVALID,
    &FRAMING_AMBIGUOUS,
    &HOST_MISSING,
    &HOST_DUPLICATE,
    &HOST_MISMATCH,
    &HOST_INVALID,
    &CONNECTION_HEADER_INVALID,
    &UPGRADE_INVALID,
];

/// How large heads may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadBounds {
    /// From the first byte of the request line to the empty line.
    pub bytes: usize,
    pub fields: usize,
    /// Of one line, without its end.
    pub line: usize,
}

/// What the bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judged {
    /// A beginning of a head in which nothing is wrong yet.
    Incomplete,
    Complete(Head),
    Bad(&'static Kind),
}

/// A complete head: where it lies and what follows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Bytes of an empty line before the head, to be skipped: 0 or 2 (RFC 9112 section 2.2).
    pub leading: usize,
    /// Bytes of the head, without `leading`.
    pub len: usize,
    pub body: Body,
    /// The client says that this is its last request on this connection.
    pub close: bool,
    /// A WebSocket handshake: after a 101 the connection is a tunnel.
    pub upgrade: bool,
    pub expect_continue: bool,
}

/// What follows the head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    None,
    Length(u64),
    Chunked,
}

/// Longest method that is looked at; the longest registered one has 17 bytes.
const METHOD_BYTES: usize = 32;
/// Pingora keeps targets in a type with 16-bit offsets.
const REQUEST_LINE_BYTES: usize = 65_000;

/// The request line, taken apart.
struct Line<'a> {
    /// Where the method and the target end.
    method: usize,
    target: usize,
    is_get: bool,
    /// Host and port of an absolute-form target.
    authority: Option<&'a [u8]>,
    /// HTTP/1.1 rather than HTTP/1.0.
    is_1_1: bool,
}

/// Judges the bytes that have arrived so far. Never says `Complete` twice with different ends when more bytes are added.
pub fn judge(buf: &[u8], bounds: &HeadBounds) -> Judged {
    mark(buf, bounds, &mut Marks::default())
}

/// Likewise; a head that is complete has its parts marked, from its first byte that is not of an empty line.
pub fn mark(buf: &[u8], bounds: &HeadBounds, marks: &mut Marks) -> Judged {
    // RFC 9112 section 2.2: one empty line before the request line is forgiven. More are not: they would be a head that
    // never begins.
    let leading = match buf {
        [b'\r', b'\n', ..] => 2,
        [b'\r'] => return Judged::Incomplete,
        _ => 0,
    };
    marks.fields.clear();
    match read(&buf[leading..], bounds, marks) {
        Ok(Some(head)) => Judged::Complete(Head { leading, ..head }),
        Ok(None) => Judged::Incomplete,
        Err(kind) => Judged::Bad(kind),
    }
}

/// Whether anything of a head has come; an empty line may also be left over from the request before.
pub fn has_begun(buf: &[u8]) -> bool {
    !matches!(buf, [] | [b'\r'] | [b'\r', b'\n'])
}

fn read(buf: &[u8], bounds: &HeadBounds, marks: &mut Marks) -> Result<Option<Head>, &'static Kind> {
    let whole = buf.len() <= bounds.bytes;
    let mut rest = if whole { buf } else { &buf[..bounds.bytes] };
    let size = rest.len();

    let Some(line) = next_line(&mut rest)? else {
        // The CR behind the line may be here already; its LF is what is missed.
        if !whole || size - usize::from(rest.ends_with(b"\r")) > REQUEST_LINE_BYTES.min(bounds.line) {
            return Err(&TARGET_TOO_LONG);
        }
        // What cannot become a request line is refused at once, not when the deadline is over.
        return method(rest).map(|_| None);
    };
    let line = Line::parse(line, bounds)?;

    let mut fields = Fields::default();
    let mut count = 0;
    loop {
        let start = size - rest.len();
        let Some(field) = next_line(&mut rest)? else {
            return match (whole, rest.len() - usize::from(rest.ends_with(b"\r")) > bounds.line) {
                (_, true) => Err(&FIELD_TOO_LONG),
                (true, false) => Ok(None),
                (false, false) => Err(&HEAD_TOO_LARGE),
            };
        };
        if field.is_empty() {
            break;
        }
        count += 1;
        if count > bounds.fields {
            return Err(&FIELDS_TOO_MANY);
        }
        if field.len() > bounds.line {
            return Err(&FIELD_TOO_LONG);
        }
        let (name, value) = fields.see(field)?;
        // Offsets fit: a head has at most 256 KiB.
        let at = |from: usize| (start + from) as u32;
        marks.fields.push(FieldMarks { name: at(0), name_end: at(name), value: at(value.start), value_end: at(value.end) });
    }
    let (body, upgrade) = fields.conclude(&line)?;
    marks.method = line.method;
    marks.target = line.target;
    marks.is_1_1 = line.is_1_1;
    marks.is_kept = line.is_1_1 || fields.keep_alive;
    marks.asks_upgrade = line.is_1_1 && fields.upgrades > 0;
    let len = size - rest.len();
    Ok(Some(Head { leading: 0, len, body, close: fields.close, upgrade, expect_continue: fields.expect_continue }))
}

/// Takes the next line off, without its CRLF. `None` where its end has not come yet.
fn next_line<'a>(rest: &mut &'a [u8]) -> Result<Option<&'a [u8]>, &'static Kind> {
    let Some(lf) = memchr(b'\n', rest) else { return Ok(None) };
    let Some(line) = rest[..lf].strip_suffix(b"\r") else { return Err(&LINE_ENDING_INVALID) };
    *rest = &rest[lf + 1..];
    Ok(Some(line))
}

/// The method at the beginning of a request line, complete or not.
fn method(line: &[u8]) -> Result<&[u8], &'static Kind> {
    let end = line.iter().take(METHOD_BYTES + 1).position(|&byte| !is_tchar(byte));
    match end {
        None if line.len() > METHOD_BYTES => Err(&METHOD_UNSUPPORTED),
        None => Ok(line),
        Some(0) => Err(&REQUEST_LINE_INVALID),
        Some(end) if line[end] == b' ' && line[..end] == *b"TRACE" => Err(&METHOD_UNSUPPORTED),
        Some(end) if line[end] == b' ' => Ok(&line[..end]),
        Some(_) => Err(&REQUEST_LINE_INVALID),
    }
}

/// RFC 9110 section 5.6.2: bytes of a token.
pub fn is_tchar(byte: u8) -> bool {
    TCHAR[usize::from(byte)]
}

/// Whether a target may have this byte at all.
pub(super) fn is_target_byte(byte: u8) -> bool {
    TARGET[usize::from(byte)]
}

static TCHAR: [bool; 256] = table(b"!#$%&'*+-.^_`|~");
/// Bytes of a target: visible ASCII but for what RFC 3986 excludes and parsers re-encode or cut off at. `{`, `}`, `|`, `^`,
/// `[`, `]` and `\` are left to the canonical form, which knows path from query.
static TARGET: [bool; 256] = table(b"!$%&'()*+,-./:;=?@[\\]^_{|}~");

/// Letters, digits and `more`.
const fn table(more: &[u8]) -> [bool; 256] {
    let mut all = [false; 256];
    let mut byte = 0u8;
    while byte < 128 {
        all[byte as usize] = byte.is_ascii_alphanumeric();
        byte += 1;
    }
    let mut i = 0;
    while i < more.len() {
        all[more[i] as usize] = true;
        i += 1;
    }
    all
}

// === impl Line ===

impl<'a> Line<'a> {
    /// RFC 9112 section 3: method, one space, target, one space, version.
    fn parse(line: &'a [u8], bounds: &HeadBounds) -> Result<Self, &'static Kind> {
        if line.len() > REQUEST_LINE_BYTES.min(bounds.line) {
            return Err(&TARGET_TOO_LONG);
        }
        let method = method(line)?;
        let after = line.get(method.len() + 1..).ok_or(&REQUEST_LINE_INVALID)?;
        let Some(space) = memchr(b' ', after) else {
            // `GET /path` and nothing more is how HTTP/0.9 asked.
            return Err(if line.contains(&b'\r') { &LINE_ENDING_INVALID } else { &VERSION_UNSUPPORTED });
        };
        let (target, version) = (&after[..space], &after[space + 1..]);
        if !target.iter().all(|&byte| TARGET[usize::from(byte)]) {
            return Err(if target.contains(&b'\r') { &LINE_ENDING_INVALID } else { &REQUEST_LINE_INVALID });
        }
        let is_1_1 = match version {
            b"HTTP/1.1" => true,
            b"HTTP/1.0" => false,
            [b'H', b'T', b'T', b'P', b'/', major] | [b'H', b'T', b'T', b'P', b'/', major, b'.', _] if major.is_ascii_digit() => {
                return Err(&VERSION_UNSUPPORTED);
            }
            _ => return Err(&REQUEST_LINE_INVALID),
        };
        if method == b"CONNECT" {
            return Err(&TARGET_REFUSED);
        }
        let authority = match target {
            [] => return Err(&REQUEST_LINE_INVALID),
            [b'/', ..] => None,
            b"*" if method == b"OPTIONS" => None,
            _ => Some(authority(target)?),
        };
        let end = method.len() + 1 + space;
        Ok(Line { method: method.len(), target: end, is_get: method == b"GET", authority, is_1_1 })
    }
}

#[cfg(test)]
mod tests;
