//! Renders a [`Problem`] as the client reads it: an RFC 9457 document, `application/problem+json`. Never HTML.
//!
//! Decides the members and headers. Does not decide what is refused, and never shows a problem's `reason`: that is for the log.

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, DATE};
use http::{HeaderName, HeaderValue, StatusCode};

use super::problem::{Kind, Problem};
use crate::report::civil::http_date;
use crate::report::json::{push_escaped, push_escaped_bounded};

/// RFC 9457 section 3.
pub static PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");
/// A refusal is about this one request: nobody may keep it (RFC 9111 section 5.2.2.5).
pub static NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
/// `type` is this and the code. It names the kind of problem and is not to be opened.
pub const TYPE: &str = "urn:sluice:problem:";
/// The header that carries the request id.
pub static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// At most so many bytes of a detail or a member are shown: both can repeat what a client sent.
const BOUND: usize = 512;

/// The document of a route that refuses by itself, with a code of the operator's.
pub fn fixed_body(code: &str, status: u16, request_id: &str) -> Bytes {
    let words = http::StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason()).unwrap_or("Refused");
    document(code, words, status, None, request_id, &[])
}

/// A complete response outside of Pingora.
#[derive(Clone, Copy, Debug)]
pub struct Http1<'a> {
    /// Empty where there is none yet.
    pub request_id: &'a str,
    /// For `Date`, in milliseconds since 1970.
    pub unix_ms: u64,
    /// Whether the connection closes after this answer.
    pub close: bool,
    /// Whether the request was HEAD: the same headers, no body.
    pub is_head: bool,
}

/// The document: `type`, `title`, `status`, `detail`, `code`, `error`, `request_id`, and the problem's own members.
pub fn body(problem: &Problem, request_id: &str) -> Bytes {
    let Problem { kind, status, detail, reason: _, members, headers: _ } = problem;
    let Kind { code, status: _, error, about: _ } = kind;
    document(code, error, *status, detail.as_deref(), request_id, members)
}

fn document(code: &str, error: &str, status: u16, detail: Option<&str>, request_id: &str, members: &[(&'static str, String)]) -> Bytes {
    let text: usize = members.iter().map(|(name, value)| name.len() + value.len() + 6).sum();
    let text = text + TYPE.len() + 2 * (code.len() + error.len()) + detail.map_or(0, str::len) + request_id.len();
    let mut out = Vec::with_capacity(text + 128);
    out.extend_from_slice(b"{\"type\":\"");
    out.extend_from_slice(TYPE.as_bytes());
    push_escaped(&mut out, code.as_bytes());
    out.extend_from_slice(b"\",\"title\":\"");
    push_escaped(&mut out, error.as_bytes());
    out.extend_from_slice(b"\",\"status\":");
    out.extend_from_slice(itoa::Buffer::new().format(status).as_bytes());
    if let Some(detail) = detail {
        member(&mut out, "detail", detail);
    }
    member(&mut out, "code", code);
    member(&mut out, "error", error);
    if !request_id.is_empty() {
        member(&mut out, "request_id", request_id);
    }
    for (name, value) in members {
        member(&mut out, name, value);
    }
    out.extend_from_slice(b"}\n");
    Bytes::from(out)
}

/// The headers of the answer, but for `content-length` and what the server adds to every answer: the document's own, then the problem's.
pub fn headers(problem: &Problem) -> impl Iterator<Item = (HeaderName, HeaderValue)> + '_ {
    let own = [(CONTENT_TYPE, PROBLEM_JSON.clone()), (CACHE_CONTROL, NO_STORE.clone())];
    own.into_iter().chain(problem.headers.iter().cloned())
}

/// The whole answer as bytes of HTTP/1.1, for what is refused before Pingora sees it.
pub fn http1(problem: &Problem, how: Http1<'_>) -> Bytes {
    let Http1 { request_id, unix_ms, close, is_head } = how;
    let document = body(problem, request_id);
    let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut out = Vec::with_capacity(document.len() + 320);
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(status.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(status.canonical_reason().unwrap_or_default().as_bytes());
    out.extend_from_slice(b"\r\n");
    header(&mut out, &DATE, &http_date(unix_ms));
    for (name, value) in headers(problem) {
        header(&mut out, &name, value.as_bytes());
    }
    header(&mut out, &CONTENT_LENGTH, itoa::Buffer::new().format(document.len()).as_bytes());
    if !request_id.is_empty() && request_id.bytes().all(|byte| byte.is_ascii_graphic()) {
        header(&mut out, &REQUEST_ID, request_id.as_bytes());
    }
    if close {
        header(&mut out, &CONNECTION, b"close");
    }
    out.extend_from_slice(b"\r\n");
    if !is_head {
        out.extend_from_slice(&document);
    }
    Bytes::from(out)
}

/// The same for a stream of HTTP/2: its head and its body.
pub fn http2(problem: &Problem, request_id: &str, unix_ms: u64) -> (http::response::Parts, Bytes) {
    let document = body(problem, request_id);
    let mut head = http::Response::new(()).into_parts().0;
    head.status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    head.headers.extend(headers(problem));
    head.headers.insert(CONTENT_LENGTH, HeaderValue::from(document.len()));
    if let Ok(date) = HeaderValue::from_bytes(&http_date(unix_ms)) {
        head.headers.insert(DATE, date);
    }
    if let Ok(request_id) = HeaderValue::from_str(request_id)
        && !request_id.is_empty()
    {
        head.headers.insert(REQUEST_ID.clone(), request_id);
    }
    (head, document)
}

fn member(out: &mut Vec<u8>, name: &str, value: &str) {
    out.extend_from_slice(b",\"");
    push_escaped(out, name.as_bytes());
    out.extend_from_slice(b"\":\"");
    push_escaped_bounded(out, value.as_bytes(), BOUND);
    out.push(b'"');
}

fn header(out: &mut Vec<u8>, name: &HeaderName, value: &[u8]) {
    out.extend_from_slice(name.as_str().as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    static LIMITED: Kind = Kind { code: "rate-limited", status: 429, error: "Too many requests", about: "Called too often." };

    const HOW: Http1<'_> = Http1 { request_id: "01hf", unix_ms: 784_111_777_000, close: false, is_head: false };

    fn document(problem: &Problem, request_id: &str) -> Value {
        serde_json::from_slice(&body(problem, request_id)).unwrap()
    }

    #[test]
    fn a_problem_says_everything_the_client_needs_and_its_reason_to_nobody() {
        let problem = Problem::new(&LIMITED)
            .detail("the limit `browse` allows 100 requests a minute")
            .reason("key 10.0.0.7: 100 of 100 used")
            .member("limit", "browse")
            .member("key", "client_ip");
        assert_eq!(
            document(&problem, "01hf"),
            json!({
                "type": "urn:sluice:problem:rate-limited", "title": "Too many requests", "status": 429,
                "detail": "the limit `browse` allows 100 requests a minute", "code": "rate-limited", "error": "Too many requests",
                "request_id": "01hf", "limit": "browse", "key": "client_ip"
            })
        );
    }

    #[test]
    fn what_a_problem_lacks_its_document_lacks() {
        let value = document(&Problem::new(&LIMITED), "");
        let names: Vec<_> = value.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(names, ["type", "title", "status", "code", "error"]);
    }

    #[test]
    fn hostile_text_stays_inside_its_member_and_is_bounded() {
        let hostile = "\"},<script>\u{0}\r\n\\é".to_owned();
        let value = document(&Problem::new(&LIMITED).detail(hostile.clone()).member("key", "x".repeat(10_000)), &hostile);
        assert_eq!(value["detail"], hostile);
        assert_eq!(value["request_id"], hostile);
        assert!(value["key"].as_str().unwrap().len() < 600);
    }

    #[test]
    fn an_answer_outside_of_pingora_is_complete() {
        let retry = (HeaderName::from_static("retry-after"), HeaderValue::from_static("7"));
        let problem = Problem::new(&LIMITED).header(retry.0, retry.1);
        let answer = http1(&problem, HOW);
        let text = std::str::from_utf8(&answer).unwrap();
        let (head, sent) = text.split_once("\r\n\r\n").unwrap();
        assert_eq!(
            head,
            format!(
                "HTTP/1.1 429 Too Many Requests\r\ndate: Sun, 06 Nov 1994 08:49:37 GMT\r\ncontent-type: application/problem+json\r\n\
                 cache-control: no-store\r\nretry-after: 7\r\ncontent-length: {}\r\nx-request-id: 01hf",
                sent.len()
            )
        );
        assert_eq!(sent.as_bytes(), body(&problem, "01hf"));
    }

    #[test]
    fn a_closing_answer_says_so() {
        let answer = http1(&Problem::new(&LIMITED), Http1 { close: true, ..HOW });
        assert!(std::str::from_utf8(&answer).unwrap().contains("\r\nconnection: close\r\n"));
        let answer = http1(&Problem::new(&LIMITED), HOW);
        assert!(!std::str::from_utf8(&answer).unwrap().contains("connection:"));
    }

    #[test]
    fn the_answer_to_head_has_the_length_but_not_the_body() {
        let get = http1(&Problem::new(&LIMITED), HOW);
        let head = http1(&Problem::new(&LIMITED), Http1 { is_head: true, ..HOW });
        assert!(head.ends_with(b"\r\n\r\n"));
        assert_eq!(head, &get[..head.len()]);
    }

    #[test]
    fn a_request_id_that_is_no_header_value_is_not_written_as_a_header() {
        let answer = http1(&Problem::new(&LIMITED), Http1 { request_id: "a\r\nset-cookie: x=y", ..HOW });
        assert!(!std::str::from_utf8(&answer).unwrap().contains("\r\nset-cookie"));
    }
}
