//! Decides whether the field lines of a head are sound, one by one and together: framing, Host, Connection, Upgrade.
//!
//! Every other field is only looked at for its bytes. Does not keep fields: see `request.rs`.

use std::ops::Range;

use memchr::memchr;

use super::{
    Body, CONNECTION_HEADER_INVALID, CONTENT_LENGTH_INVALID, FIELD_FOLDED, FIELD_NAME_INVALID, FIELD_VALUE_INVALID, FRAMING_AMBIGUOUS,
    HOST_DUPLICATE, HOST_INVALID, HOST_MISMATCH, HOST_MISSING, LINE_ENDING_INVALID, Line, TRANSFER_ENCODING_INVALID, UPGRADE_INVALID,
    is_tchar,
};
use crate::reply::problem::Kind;

/// What has been seen in the fields so far.
#[derive(Default)]
pub struct Fields<'a> {
    host: Option<&'a [u8]>,
    length: Option<u64>,
    chunked: bool,
    pub upgrades: u8,
    websocket: bool,
    /// Options that all Connection fields have named together.
    options: u8,
    connection_upgrade: bool,
    pub close: bool,
    /// What keeps a connection open in HTTP/1.0.
    pub keep_alive: bool,
    pub expect_continue: bool,
}

/// Most options in Connection; Pingora gives up at 10, browsers send at most 2.
const MOST_OPTIONS: u8 = 8;

// === impl Fields ===

impl<'a> Fields<'a> {
    /// Judges one field line, given without its CRLF and not empty. Says where in it the name ends, and where the value lies.
    pub fn see(&mut self, line: &'a [u8]) -> Result<(usize, Range<usize>), &'static Kind> {
        if matches!(line[0], b' ' | b'\t') {
            return Err(&FIELD_FOLDED);
        }
        // The first byte that names do not have must be the colon.
        let end = line.iter().position(|&byte| !is_tchar(byte)).unwrap_or(line.len());
        if end == 0 || line.get(end) != Some(&b':') {
            return Err(bad_name(line));
        }
        let (name, value) = (&line[..end], &line[end + 1..]);
        // A fold without early exit: compilers turn it into a few wide instructions.
        if value.iter().fold(false, |bad, &byte| bad | ((byte < 0x20) & (byte != b'\t')) | (byte == 0x7f)) {
            return Err(if value.contains(&b'\r') { &LINE_ENDING_INVALID } else { &FIELD_VALUE_INVALID });
        }
        let place = trimmed(line, end + 1);
        let value = &line[place.clone()];
        match name.len() {
            4 if name.eq_ignore_ascii_case(b"host") && self.host.replace(value).is_some() => return Err(&HOST_DUPLICATE),
            6 if name.eq_ignore_ascii_case(b"expect") => self.expect_continue |= value.eq_ignore_ascii_case(b"100-continue"),
            7 if name.eq_ignore_ascii_case(b"upgrade") => {
                self.upgrades = self.upgrades.saturating_add(1);
                // Alone, as every client sends it (RFC 6455 section 4.1). Of a list, no protocol goes upstream: see `relay/message/hop_by_hop.rs`.
                self.websocket |= value.eq_ignore_ascii_case(b"websocket");
            }
            10 if name.eq_ignore_ascii_case(b"connection") => self.connection(value)?,
            14 if name.eq_ignore_ascii_case(b"content-length") => {
                let length = number(value).ok_or(&CONTENT_LENGTH_INVALID)?;
                if self.length.replace(length).is_some() {
                    return Err(&CONTENT_LENGTH_INVALID);
                }
            }
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                if self.chunked || !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(&TRANSFER_ENCODING_INVALID);
                }
                self.chunked = true;
            }
            // CGI and its heirs read `_` as `-`.
            14 | 17 if name.eq_ignore_ascii_case(b"content_length") || name.eq_ignore_ascii_case(b"transfer_encoding") => {
                return Err(&FRAMING_AMBIGUOUS);
            }
            _ => {}
        }
        Ok((end, place))
    }

    /// RFC 9110 section 7.6.1. Intermediaries remove the fields that Connection names, so naming `Authorization`, `Host` or an
    /// identity header would take it away between us and the upstream. Only what is hop-by-hop anyway may be named.
    fn connection(&mut self, value: &[u8]) -> Result<(), &'static Kind> {
        for option in options(value) {
            self.options = self.options.saturating_add(1);
            if self.options > MOST_OPTIONS {
                return Err(&CONNECTION_HEADER_INVALID);
            }
            let is = |word: &[u8]| option.eq_ignore_ascii_case(word);
            if is(b"close") {
                self.close = true;
            } else if is(b"upgrade") {
                self.connection_upgrade = true;
            } else if is(b"keep-alive") {
                self.keep_alive = true;
            } else if !(is(b"te") || is(b"trailer") || is(b"http2-settings") || is(b"proxy-connection")) {
                return Err(&CONNECTION_HEADER_INVALID);
            }
        }
        Ok(())
    }

    /// Judges the fields together, and with the request line. Says what follows the head, and whether it is a WebSocket handshake.
    pub fn conclude(&self, line: &Line<'_>) -> Result<(Body, bool), &'static Kind> {
        let body = match (self.chunked, self.length) {
            (true, Some(_)) => return Err(&FRAMING_AMBIGUOUS),
            (true, None) if !line.is_1_1 => return Err(&TRANSFER_ENCODING_INVALID),
            (true, None) => Body::Chunked,
            (false, Some(0)) | (false, None) => Body::None,
            (false, Some(length)) => Body::Length(length),
        };
        match (self.host, line.authority) {
            (None, _) if line.is_1_1 => return Err(&HOST_MISSING),
            (Some(host), _) if host.contains(&b'@') => return Err(&HOST_INVALID),
            (Some(host), Some(authority)) if host != authority => return Err(&HOST_MISMATCH),
            _ => {}
        }
        if self.websocket && (!line.is_1_1 || !line.is_get || !self.connection_upgrade || self.upgrades > 1 || body != Body::None) {
            return Err(&UPGRADE_INVALID);
        }
        Ok((body, self.websocket))
    }
}

fn bad_name(line: &[u8]) -> &'static Kind {
    let name = &line[..memchr(b':', line).unwrap_or(line.len())];
    if name.contains(&b'\r') { &LINE_ENDING_INVALID } else { &FIELD_NAME_INVALID }
}

/// Where the value of a field lies that begins at `start` of its line. RFC 9112 section 5: spaces and tabs around it are not part of it.
fn trimmed(line: &[u8], mut start: usize) -> Range<usize> {
    let mut end = line.len();
    while start < end && matches!(line[start], b' ' | b'\t') {
        start += 1;
    }
    while start < end && matches!(line[end - 1], b' ' | b'\t') {
        end -= 1;
    }
    start..end
}

fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = value {
        value = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// The elements of a comma-separated list; empty ones are ignored (RFC 9110 section 5.6.1).
fn options(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&byte| byte == b',').map(trim).filter(|option| !option.is_empty())
}

/// Digits and nothing else, at most what an `i64` holds.
fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u64, |sum, &byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        sum.checked_mul(10)?.checked_add(digit).filter(|sum| *sum <= i64::MAX as u64)
    })
}
