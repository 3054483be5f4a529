//! From the bytes of a head that was judged sound to the request head that the proxy works with.
//!
//! Decides nothing: names, values and target are cut out where the judgement has marked them, and share the memory in which they came.

use bytes::{Buf, Bytes, BytesMut};
use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue, Method, Uri, Version};
use pingora_http::RequestHeader;
use smallvec::SmallVec;

use super::head::{FIELD_NAME_INVALID, FIELD_VALUE_INVALID, Head, REQUEST_LINE_INVALID};
use crate::reply::problem::Kind;

/// Where in a head its parts lie. Made by `head.rs`, together with its judgement.
#[derive(Clone, Debug, Default)]
pub struct Marks {
    pub method: usize,
    /// Where the target ends; it begins one byte behind the method.
    pub target: usize,
    pub is_1_1: bool,
    /// The connection outlives the request: by version, and by what the client asks for (RFC 9112 section 9.3).
    pub is_kept: bool,
    /// There is an `Upgrade` field that counts.
    pub asks_upgrade: bool,
    pub fields: SmallVec<[FieldMarks; 24]>,
}

/// A field, by offsets from the beginning of the head.
#[derive(Clone, Copy, Debug)]
pub struct FieldMarks {
    pub name: u32,
    pub name_end: u32,
    pub value: u32,
    pub value_end: u32,
}

/// A request whose head has come.
#[derive(Debug)]
pub struct Request {
    pub head: Head,
    /// The bytes of the head.
    pub raw: Bytes,
    pub header: Box<RequestHeader>,
    /// The connection outlives the request, as far as version and client decide (RFC 9112 section 9.3).
    pub is_kept: bool,
    /// There is an `Upgrade` field that counts.
    pub asks_upgrade: bool,
}

// === impl Request ===

impl Request {
    /// Takes a head that was judged complete off what has come.
    ///
    /// # Errors
    /// The types that hold requests are stricter than the judgement: not known to happen, and no reason to fall over.
    pub fn cut(buf: &mut BytesMut, head: Head, marks: &Marks) -> Result<Request, &'static Kind> {
        buf.advance(head.leading);
        let rest = if buf.len() > head.len { buf.split_off(head.len) } else { BytesMut::new() };
        let raw = std::mem::replace(buf, rest).freeze();
        match header(&raw, marks) {
            Ok(header) => {
                Ok(Request { head, raw, header: Box::new(header), is_kept: marks.is_kept && !head.close, asks_upgrade: marks.asks_upgrade })
            }
            Err(kind) => {
                *buf = BytesMut::from(&raw[..]);
                Err(kind)
            }
        }
    }
}

fn header(head: &Bytes, marks: &Marks) -> Result<RequestHeader, &'static Kind> {
    let target = marks.method + 1..marks.target;
    let mut parts = http::Request::new(()).into_parts().0;
    parts.method = Method::from_bytes(&head[..marks.method]).map_err(|_| &REQUEST_LINE_INVALID)?;
    parts.version = if marks.is_1_1 { Version::HTTP_11 } else { Version::HTTP_10 };
    parts.headers.reserve(marks.fields.len());
    for field in &marks.fields {
        let name = HeaderName::from_bytes(&head[field.name as usize..field.name_end as usize]).map_err(|_| &FIELD_NAME_INVALID)?;
        let value = head.slice(field.value as usize..field.value_end as usize);
        let value = HeaderValue::from_maybe_shared(value).map_err(|_| &FIELD_VALUE_INVALID)?;
        // Fails only above 32,768 fields.
        parts.headers.try_append(name, value).map_err(|_| &FIELD_NAME_INVALID)?;
    }
    if head.get(target.start) == Some(&b'/') {
        // RFC 9112 section 3.2.1: origin-form, which comes out of a `Uri` as it went in.
        let path_and_query = PathAndQuery::from_maybe_shared(head.slice(target)).map_err(|_| &REQUEST_LINE_INVALID)?;
        parts.uri = Uri::from(path_and_query);
        return Ok(RequestHeader::from(parts));
    }
    let mut header = RequestHeader::from(parts);
    header.set_raw_path(&head[target]).map_err(|_| &REQUEST_LINE_INVALID)?;
    Ok(header)
}
