//! Reads a request's head strictly (RFC 9112 sections 2 to 6) and describes a request as JSON.
//!
//! Refuses what has two readings; does not decide what is answered.

use std::io;

use http::{Method, StatusCode};
use serde_json::json;

use super::connection::{Body, SHOWN};

const FIELDS_LIMIT: usize = 1000;

/// A request's head.
pub(super) struct Head {
    pub(super) raw: Vec<u8>,
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) query: Option<String>,
    pub(super) minor: u8,
    /// In order and spelling as they came.
    pub(super) fields: Vec<(String, Vec<u8>)>,
    pub(super) framing: Framing,
    pub(super) is_last: bool,
}

/// Where the request's body ends (RFC 9112 section 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    Length(u64),
    Chunked,
}

/// Why a connection ends early.
pub(super) enum Stop {
    Io,
    /// 400 or 431, then close.
    Refuse(StatusCode, &'static str),
}

impl From<io::Error> for Stop {
    fn from(_: io::Error) -> Self {
        Stop::Io
    }
}

// === impl Head ===

impl Head {
    /// The head and its length in bytes, `None` while some are missing.
    pub(super) fn parse(bytes: &[u8]) -> Result<Option<(Self, usize)>, Stop> {
        let bad = |why| Err(Stop::Refuse(StatusCode::BAD_REQUEST, why));
        let mut room = vec![httparse::EMPTY_HEADER; FIELDS_LIMIT];
        let mut request = httparse::Request::new(&mut room);
        let length = match request.parse(bytes) {
            Ok(httparse::Status::Complete(length)) => length,
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(httparse::Error::TooManyHeaders) => {
                return Err(Stop::Refuse(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "more than 1000 header fields"));
            }
            Err(_) => return bad("the head is not HTTP/1.1"),
        };
        let (Some(method), Some(target), Some(minor)) = (request.method, request.path, request.version) else {
            return bad("the head is not HTTP/1.1");
        };
        let Ok(method) = Method::from_bytes(method.as_bytes()) else { return bad("the method is not a token") };
        let fields: Vec<(String, Vec<u8>)> = request.headers.iter().map(|field| (field.name.to_owned(), field.value.to_vec())).collect();
        let all =
            |name: &str| fields.iter().filter(|(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_slice()).collect::<Vec<_>>();
        let hosts = all("host").len();
        if hosts > 1 || (hosts == 0 && minor == 1) {
            return bad("there is not exactly one Host");
        }
        let framing = match (all("content-length").as_slice(), all("transfer-encoding").as_slice()) {
            ([], []) => Framing::Length(0),
            ([length], []) => match std::str::from_utf8(length) {
                Ok(text) if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) => match text.parse() {
                    Ok(length) => Framing::Length(length),
                    Err(_) => return bad("Content-Length is too large"),
                },
                _ => return bad("Content-Length is not a number"),
            },
            ([], [coding]) if coding.eq_ignore_ascii_case(b"chunked") && minor == 1 => Framing::Chunked,
            ([_, _, ..], []) => return bad("there is more than one Content-Length"),
            ([], _) => return bad("Transfer-Encoding is not `chunked`"),
            _ => return bad("there are both Content-Length and Transfer-Encoding"),
        };
        let is_last = minor == 0 || listed(&fields, "connection", "close");
        // Absolute form (RFC 9112 section 3.2.2): only path and query are of interest here.
        let origin = match target.split_once("://") {
            Some((_, rest)) if !target.starts_with('/') => rest.find('/').map_or("/", |slash| &rest[slash..]),
            _ => target,
        };
        let (path, query) = match origin.split_once('?') {
            Some((path, query)) => (path.to_owned(), Some(query.to_owned())),
            None => (origin.to_owned(), None),
        };
        Ok(Some((Head { raw: bytes[..length].to_vec(), method, path, query, minor, fields, framing, is_last }, length)))
    }

    pub(super) fn field(&self, name: &str) -> Option<&[u8]> {
        self.fields.iter().find(|(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_slice())
    }

    pub(super) fn wants_websocket(&self) -> bool {
        self.method == Method::GET && listed(&self.fields, "connection", "upgrade") && listed(&self.fields, "upgrade", "websocket")
    }

    /// The request as JSON.
    pub(super) fn describe(&self, body: Body, name: &str) -> Vec<u8> {
        let headers: Vec<_> = self.fields.iter().map(|(name, value)| json!([name, String::from_utf8_lossy(value)])).collect();
        let sha256: String = body.sha256.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        let mut shown = json!({ "bytes": body.bytes, "sha256": sha256 });
        // A character may be cut in two at the end of what is shown.
        match std::str::from_utf8(&body.shown) {
            Ok(text) => shown["text"] = text.into(),
            Err(error) if error.error_len().is_none() && body.bytes > SHOWN as u64 => {
                shown["text"] = String::from_utf8_lossy(&body.shown[..error.valid_up_to()]).into();
            }
            Err(_) => {}
        }
        let described = json!({
            "name": name,
            "method": self.method.as_str(),
            "path": self.path,
            "query": self.query,
            "version": format!("HTTP/1.{}", self.minor),
            "headers": headers,
            "body": shown,
        });
        let mut text = described.to_string().into_bytes();
        text.push(b'\n');
        text
    }
}

/// Whether a field that is a list of tokens holds one, in any case.
fn listed(fields: &[(String, Vec<u8>)], name: &str, token: &str) -> bool {
    fields
        .iter()
        .filter(|(own, _)| own.eq_ignore_ascii_case(name))
        .flat_map(|(_, value)| value.split(|byte| *byte == b','))
        .any(|item| item.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
}
