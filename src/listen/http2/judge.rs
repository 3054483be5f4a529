//! Decides whether a stream's header block is one sound request (RFC 9113 section 8), and gives it the form that requests of HTTP/1 have.
//!
//! What the frame layer lets through and HTTP/1 would read otherwise is refused here with the codes of `head.rs`. Upper-case names,
//! connection-specific fields, `TE` other than `trailers`, doubled, unknown and misplaced pseudo-header fields, and a `:path` that is
//! empty are refused by the frame layer itself. Does not judge what path and host mean, nor whether Host and `:authority` agree:
//! see `entry/canonical.rs`.

use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Uri, header};
use pingora_http::RequestHeader;

use super::super::head::{
    CONTENT_LENGTH_INVALID, FIELD_NAME_INVALID, FIELD_TOO_LONG, FIELD_VALUE_INVALID, FIELDS_TOO_MANY, FRAMING_AMBIGUOUS, HEAD_TOO_LARGE,
    HOST_DUPLICATE, HOST_INVALID, HOST_MISSING, HeadBounds, METHOD_UNSUPPORTED, REQUEST_LINE_INVALID, TARGET_REFUSED, TARGET_TOO_LONG,
    is_target_byte, is_tchar,
};
use crate::reply::problem::Kind;

/// What RFC 9113 section 6.5.2 counts for each field beside its name and value.
const FIELD_OVERHEAD: usize = 32;
/// As in HTTP/1.
const METHOD_BYTES: usize = 32;

/// The head of a request, with Host for `:authority` and one Cookie for its crumbs, or why it is none.
pub fn judge(mut parts: Parts, bounds: &HeadBounds) -> Result<RequestHeader, &'static Kind> {
    if parts.method.as_str().len() > METHOD_BYTES || parts.method == Method::TRACE {
        return Err(&METHOD_UNSUPPORTED);
    }
    if parts.method == Method::CONNECT || parts.uri.scheme_str().is_some_and(|scheme| !matches!(scheme, "http" | "https")) {
        return Err(&TARGET_REFUSED);
    }
    let target = parts.uri.path_and_query().map_or("", |target| target.as_str());
    match target.as_bytes() {
        [b'/', ..] => {}
        b"*" if parts.method == Method::OPTIONS => {}
        _ => return Err(&TARGET_REFUSED),
    }
    if target.len() > bounds.line {
        return Err(&TARGET_TOO_LONG);
    }
    if !target.bytes().all(is_target_byte) {
        return Err(&REQUEST_LINE_INVALID);
    }
    judge_fields(&parts.headers, bounds, target.len() + parts.uri.authority().map_or(0, |authority| authority.as_str().len()))?;
    name_host(&mut parts)?;
    join_cookies(&mut parts.headers);
    Ok(parts.into())
}

fn judge_fields(fields: &HeaderMap, bounds: &HeadBounds, before: usize) -> Result<(), &'static Kind> {
    if fields.len() > bounds.fields {
        return Err(&FIELDS_TOO_MANY);
    }
    let mut size = before;
    for (name, value) in fields {
        let line = name.as_str().len() + value.len();
        if line > bounds.line {
            return Err(&FIELD_TOO_LONG);
        }
        size += line + FIELD_OVERHEAD;
        if !name.as_str().bytes().all(is_tchar) {
            return Err(&FIELD_NAME_INVALID);
        }
        // RFC 9113 section 8.2.1: what a parser of HTTP/1 would cut off is not part of a value.
        if let [b' ' | b'\t', ..] | [.., b' ' | b'\t'] = value.as_bytes() {
            return Err(&FIELD_VALUE_INVALID);
        }
        match name.as_str() {
            // CGI and its heirs read `_` as `-`.
            "content_length" | "transfer_encoding" => return Err(&FRAMING_AMBIGUOUS),
            _ => {}
        }
    }
    if size > bounds.bytes {
        return Err(&HEAD_TOO_LARGE);
    }
    let mut lengths = fields.get_all(header::CONTENT_LENGTH).iter();
    if let Some(length) = lengths.next() {
        let is_number = !length.is_empty() && length.as_bytes().iter().all(u8::is_ascii_digit) && length.len() <= 18;
        if !is_number || lengths.next().is_some() {
            return Err(&CONTENT_LENGTH_INVALID);
        }
    }
    Ok(())
}

/// RFC 9113 section 8.3.1: `:authority` becomes Host. Where both are there and differ, both are left, to be refused.
fn name_host(parts: &mut Parts) -> Result<(), &'static Kind> {
    let mut hosts = parts.headers.get_all(header::HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(&HOST_DUPLICATE);
    }
    let Some(authority) = parts.uri.authority() else {
        return match host {
            None => Err(&HOST_MISSING),
            Some(host) if host.as_bytes().contains(&b'@') => Err(&HOST_INVALID),
            Some(_) => Ok(()),
        };
    };
    if authority.as_str().contains('@') {
        return Err(&HOST_INVALID);
    }
    match host {
        Some(host) if host.as_bytes() != authority.as_str().as_bytes() => return Ok(()),
        Some(_) => {}
        None => {
            let host = HeaderValue::from_str(authority.as_str()).map_err(|_| &HOST_INVALID)?;
            parts.headers.insert(header::HOST, host);
        }
    }
    let mut uri = std::mem::take(&mut parts.uri).into_parts();
    (uri.scheme, uri.authority) = (None, None);
    parts.uri = Uri::from_parts(uri).map_err(|_| &TARGET_REFUSED)?;
    Ok(())
}

/// RFC 9113 section 8.2.3: a cookie in crumbs is one field again before anybody else sees it.
fn join_cookies(fields: &mut HeaderMap) {
    let mut crumbs = fields.get_all(header::COOKIE).iter();
    if crumbs.next().is_none() || crumbs.next().is_none() {
        return;
    }
    let crumbs: Vec<&[u8]> = fields.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    // Made of values with a separator that values may have: it is one.
    if let Ok(whole) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..])) {
        fields.insert(header::COOKIE, whole);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    fn judged(method: &str, uri: &str, fields: &[(&str, &str)]) -> Result<RequestHeader, &'static str> {
        let mut request = Request::builder().method(method).uri(uri).version(http::Version::HTTP_2);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        judge(request.body(()).unwrap().into_parts().0, &HeadBounds { bytes: 1024, fields: 5, line: 500 }).map_err(|kind| kind.code)
    }

    #[test]
    fn the_authority_becomes_the_host_and_the_target_a_path() {
        let head = judged("GET", "http://a.example:81/b?c", &[]).unwrap();
        assert_eq!((head.uri.to_string(), head.headers["host"].to_str().unwrap()), ("/b?c".to_owned(), "a.example:81"));
        let same = judged("GET", "http://a.example/b", &[("host", "a.example")]).unwrap();
        assert_eq!((same.uri.to_string(), same.headers.get_all("host").iter().count()), ("/b".to_owned(), 1));
        let only_host = judged("GET", "/b", &[("host", "a.example")]).unwrap();
        assert_eq!(only_host.headers["host"], "a.example");
        // Left for the canonical form, which refuses it with a name.
        let other = judged("GET", "http://a.example/b", &[("host", "b.example")]).unwrap();
        assert_eq!(other.uri.authority().unwrap(), "a.example");
    }

    #[test]
    fn a_cookie_in_crumbs_is_one_field() {
        let head = judged("GET", "http://a/", &[("cookie", "a=1"), ("x", "y"), ("cookie", "b=2"), ("cookie", "c=3; d=4")]).unwrap();
        let cookies: Vec<_> = head.headers.get_all("cookie").iter().collect();
        assert_eq!(cookies, ["a=1; b=2; c=3; d=4"]);
    }

    #[test]
    fn what_has_two_readings_or_none_is_refused() {
        let (large, long) = ("v".repeat(490), format!("http://a/{}", "v".repeat(500)));
        for (method, uri, fields, code) in [
            ("CONNECT", "a.example:443", &[][..], "target-refused"),
            ("GET", "ftp://a/b", &[], "target-refused"),
            ("GET", "http://a/b^\"c", &[], "request-line-invalid"),
            ("GET", "http://u:p@a/", &[], "host-invalid"),
            ("GET", "/", &[("host", "u@a")], "host-invalid"),
            ("GET", "/", &[], "host-missing"),
            ("GET", "/", &[("host", "a"), ("host", "a")], "host-duplicate"),
            ("GET", "http://a/", &[("x", "1"), ("y", "1"), ("z", "1"), ("x", "2"), ("y", "2"), ("z", "2")], "fields-too-many"),
            ("GET", "http://a/", &[("x", &large), ("y", &large)], "head-too-large"),
            ("GET", "http://a/", &[("x", &long)], "field-too-long"),
            ("GET", &long, &[], "target-too-long"),
            ("GET", "http://a/", &[("x", " padded")], "field-value-invalid"),
            ("GET", "http://a/", &[("x", "padded\t")], "field-value-invalid"),
            ("GET", "http://a/", &[("content_length", "3")], "framing-ambiguous"),
            ("POST", "http://a/", &[("content-length", "3"), ("content-length", "3")], "content-length-invalid"),
            ("POST", "http://a/", &[("content-length", "+3")], "content-length-invalid"),
            ("POST", "http://a/", &[("content-length", "")], "content-length-invalid"),
            ("AMETHODTHATISLONGERTHANTHIRTYTWOBYTES", "http://a/", &[], "method-unsupported"),
        ] {
            assert_eq!(judged(method, uri, fields).err(), Some(code), "{method} {uri} {fields:?}");
        }
        assert!(judged("OPTIONS", "/b", &[("host", "a")]).is_ok());
    }
}
