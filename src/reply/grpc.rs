//! How a caller of gRPC is told what happened: a status and a message beside HTTP's, which its library does not read.
//!
//! Decides which requests are gRPC's, which status stands for a refusal, and how the answer is spelt. Does not decide whether to refuse,
//! nor translate bodies: see `relay/translate/grpc_web.rs`.

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Version};
use smallvec::SmallVec;

use super::problem::{Kind, Problem};

/// How a request speaks gRPC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speech {
    /// Over HTTP/2, with trailers.
    Native,
    /// For browsers: the trailers are a frame at the end of the body.
    Web,
    /// The same in base64.
    WebText,
}

/// The status of a call; the numbers are gRPC's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status(u8);

pub const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
pub const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
/// Where a refusal says its code, which has no place in gRPC's own.
pub const PROBLEM_CODE: HeaderName = HeaderName::from_static("x-problem-code");

/// In the order of their numbers.
const NAMES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// As many bytes of a message as a client is sent.
const MESSAGE_BYTES: usize = 256;

// === impl Speech ===

impl Speech {
    /// How this request speaks gRPC, if it does. `web`: whether its route translates for browsers.
    pub fn of(head: &Parts, web: bool) -> Option<Speech> {
        let kind = head.headers.get(CONTENT_TYPE)?.as_bytes();
        let rest = strip(kind, b"application/grpc")?;
        if let Some(text) = strip(rest, b"-web-text") {
            return (web && is_end(text)).then_some(Speech::WebText);
        }
        if let Some(binary) = strip(rest, b"-web") {
            return (web && is_end(binary)).then_some(Speech::Web);
        }
        (head.version == Version::HTTP_2 && is_end(rest)).then_some(Speech::Native)
    }

    /// The media type of its answers, with the codec of the request's, such as `+proto`.
    pub fn content_type(self, asked: Option<&HeaderValue>) -> HeaderValue {
        let (of_answers, of_requests) = match self {
            Speech::Native => ("application/grpc", "application/grpc"),
            Speech::Web => ("application/grpc-web", "application/grpc-web"),
            Speech::WebText => ("application/grpc-web-text", "application/grpc-web-text"),
        };
        with_codec(of_answers, of_requests, asked)
    }

    /// The media type with which a request goes to an upstream, which speaks gRPC itself.
    pub fn content_type_upstream(self, asked: Option<&HeaderValue>) -> HeaderValue {
        let of_requests = match self {
            Speech::Native => "application/grpc",
            Speech::Web => "application/grpc-web",
            Speech::WebText => "application/grpc-web-text",
        };
        with_codec("application/grpc", of_requests, asked)
    }
}

fn with_codec(media_type: &'static str, of_requests: &str, asked: Option<&HeaderValue>) -> HeaderValue {
    let codec = asked.and_then(|asked| strip(asked.as_bytes(), of_requests.as_bytes())).filter(|codec| codec.first() == Some(&b'+'));
    let codec = codec.map(|codec| codec.split(|byte| matches!(byte, b';' | b' ')).next().unwrap_or_default());
    match codec {
        None => HeaderValue::from_static(media_type),
        Some(codec) => HeaderValue::from_bytes(&[media_type.as_bytes(), codec].concat()).unwrap_or(HeaderValue::from_static(media_type)),
    }
}

/// What follows this, whatever its case.
fn strip<'a>(text: &'a [u8], start: &[u8]) -> Option<&'a [u8]> {
    let (head, rest) = text.split_at_checked(start.len())?;
    head.eq_ignore_ascii_case(start).then_some(rest)
}

/// Whether the name of a media type ends here, but for a codec or parameters.
fn is_end(rest: &[u8]) -> bool {
    matches!(rest.first(), None | Some(b'+' | b';' | b' '))
}

// === impl Status ===

impl Status {
    pub const UNKNOWN: Status = Status(2);
    pub const ALL: usize = NAMES.len();

    /// What stands for a refusal with this status of HTTP's (gRPC's own mapping, but that limits and deadlines are told as what they are).
    pub fn of_http(status: u16) -> Status {
        Status(match status {
            400 | 500 => 13,
            401 => 16,
            403 => 7,
            404 | 405 => 12,
            408 | 504 => 4,
            413 | 429 | 431 => 8,
            499 => 1,
            502 | 503 => 14,
            _ => 2,
        })
    }

    /// What it says of the server that ended the call, as a status of HTTP's: from 500 on, it has failed. Envoy's mapping, but for
    /// UNIMPLEMENTED, which says that the caller has asked for something that is not there.
    pub fn as_http(self) -> u16 {
        match self.0 {
            0 => 200,
            1 => 499,
            3 | 9 | 11 => 400,
            4 => 504,
            5 | 12 => 404,
            6 | 10 => 409,
            7 => 403,
            8 => 429,
            14 => 503,
            16 => 401,
            // UNKNOWN, INTERNAL, DATA_LOSS.
            _ => 500,
        }
    }

    pub fn of(kind: &Kind) -> Status {
        Status::of_http(kind.status)
    }

    /// What an upstream says in its head or its trailers.
    pub fn told(fields: &HeaderMap) -> Option<Status> {
        let told = fields.get(GRPC_STATUS)?.to_str().ok()?;
        // What is no number that gRPC knows is UNKNOWN to its clients too.
        Some(told.parse().ok().filter(|number| usize::from(*number) < NAMES.len()).map_or(Status::UNKNOWN, Status))
    }

    pub fn number(self) -> u8 {
        self.0
    }

    pub fn name(self) -> &'static str {
        NAMES.get(usize::from(self.0)).copied().unwrap_or("UNKNOWN")
    }

    /// As it is written, such as `resource-exhausted`.
    pub fn named(written: &str) -> Option<Status> {
        let is_it = |name: &str| {
            name.len() == written.len()
                && name.bytes().zip(written.bytes()).all(|(name, written)| match name {
                    b'_' => written == b'-',
                    name => name.to_ascii_lowercase() == written,
                })
        };
        Status::all().find(|status| is_it(status.name()))
    }

    /// In the order of their numbers.
    pub fn all() -> impl Iterator<Item = Status> {
        (0..).map(Status).take(NAMES.len())
    }

    /// By number.
    pub fn names() -> &'static [&'static str] {
        &NAMES
    }

    fn value(self) -> HeaderValue {
        HeaderValue::from(u16::from(self.0))
    }
}

/// What a refusal's answer has beside what every answer of the gateway's own has; status 200 over HTTP.
pub struct Refusal {
    pub headers: SmallVec<[(HeaderName, HeaderValue); 4]>,
    /// Empty for [`Speech::Native`], whose answer is its head.
    pub body: Bytes,
}

/// A refusal as a caller of gRPC reads it.
pub fn refusal(speech: Speech, asked: Option<&HeaderValue>, status: Status, code: &str, message: &str) -> Refusal {
    let mut headers: SmallVec<[(HeaderName, HeaderValue); 4]> = SmallVec::new();
    headers.push((CONTENT_TYPE, speech.content_type(asked)));
    if let Ok(code) = HeaderValue::from_str(code) {
        headers.push((PROBLEM_CODE, code));
    }
    let told = [(GRPC_STATUS, status.value()), (GRPC_MESSAGE, encode(message))];
    let body = match speech {
        Speech::Native => {
            headers.extend(told);
            Bytes::new()
        }
        Speech::Web => trailer_frame(&told.into_iter().collect()),
        Speech::WebText => base64(&trailer_frame(&told.into_iter().collect())),
    };
    Refusal { headers, body }
}

/// The trailers with which a call ends that breaks in the middle.
pub fn trailers(problem: &Problem) -> HeaderMap {
    let code = HeaderValue::from_static(problem.kind.code);
    let message = encode(message(problem));
    [(GRPC_STATUS, Status::of(problem.kind).value()), (GRPC_MESSAGE, message), (PROBLEM_CODE, code)].into_iter().collect()
}

/// What a caller is told in words.
pub fn message(problem: &Problem) -> &str {
    problem.detail.as_deref().unwrap_or(problem.kind.error)
}

/// Percent-encoded, as gRPC has it: all but visible ASCII and spaces, and `%` itself.
fn encode(text: &str) -> HeaderValue {
    let mut encoded = Vec::with_capacity(text.len());
    for byte in text.bytes() {
        if encoded.len() + 3 > MESSAGE_BYTES {
            break;
        }
        match byte {
            b'%' | ..=0x1f | 0x7f.. => encoded.extend_from_slice(format!("%{byte:02X}").as_bytes()),
            0x20..=0x7e => encoded.push(byte),
        }
    }
    HeaderValue::from_bytes(&encoded).unwrap_or(HeaderValue::from_static(""))
}

/// Trailers as the last frame of a body: how gRPC-Web sends them.
pub fn trailer_frame(trailers: &HeaderMap) -> Bytes {
    let mut frame = vec![0x80, 0, 0, 0, 0];
    for (name, value) in trailers {
        frame.extend_from_slice(name.as_str().as_bytes());
        frame.extend_from_slice(b": ");
        frame.extend_from_slice(value.as_bytes());
        frame.extend_from_slice(b"\r\n");
    }
    let length = u32::try_from(frame.len() - 5).unwrap_or(u32::MAX);
    frame[1..5].copy_from_slice(&length.to_be_bytes());
    Bytes::from(frame)
}

/// With padding, so that pieces can stand behind one another.
pub fn base64(bytes: &[u8]) -> Bytes {
    use base64::Engine;
    Bytes::from(base64::engine::general_purpose::STANDARD.encode(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    static LIMITED: Kind = Kind { code: "rate-limited", status: 429, error: "Too many requests", about: "Called too often." };

    fn request(version: Version, kind: &str) -> Parts {
        let request = http::Request::builder().method("POST").uri("/a.B/C").version(version).header("content-type", kind);
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn only_what_a_library_of_grpc_sends_is_answered_in_its_way() {
        use Speech::{Native, Web, WebText};
        for (version, kind, web, expected) in [
            (Version::HTTP_2, "application/grpc", false, Some(Native)),
            (Version::HTTP_2, "application/grpc+proto", false, Some(Native)),
            (Version::HTTP_2, "Application/GRPC;charset=utf-8", false, Some(Native)),
            (Version::HTTP_11, "application/grpc", true, None),
            (Version::HTTP_2, "application/grpcx", true, None),
            (Version::HTTP_2, "application/json", true, None),
            (Version::HTTP_11, "application/grpc-web", false, None),
            (Version::HTTP_11, "application/grpc-web+proto", true, Some(Web)),
            (Version::HTTP_2, "application/grpc-web", true, Some(Web)),
            (Version::HTTP_2, "application/grpc-web", false, None),
            (Version::HTTP_11, "application/grpc-web-text+proto", true, Some(WebText)),
            (Version::HTTP_11, "application/grpc-web-textual", true, None),
        ] {
            assert_eq!(Speech::of(&request(version, kind), web), expected, "{version:?} {kind} {web}");
        }
    }

    #[test]
    fn the_codec_of_a_request_is_that_of_its_answer() {
        let asked = |text: &'static str| HeaderValue::from_static(text);
        let web = asked("application/grpc-web-text+json; charset=utf-8");
        assert_eq!(Speech::WebText.content_type(Some(&web)), "application/grpc-web-text+json");
        assert_eq!(Speech::WebText.content_type_upstream(Some(&web)), "application/grpc+json");
        assert_eq!(Speech::Web.content_type_upstream(Some(&asked("application/grpc-web"))), "application/grpc");
        assert_eq!(Speech::Native.content_type(None), "application/grpc");
    }

    #[test]
    fn every_status_of_a_refusal_has_its_counterpart() {
        for (http, name) in [
            (400, "INTERNAL"),
            (401, "UNAUTHENTICATED"),
            (403, "PERMISSION_DENIED"),
            (404, "UNIMPLEMENTED"),
            (405, "UNIMPLEMENTED"),
            (408, "DEADLINE_EXCEEDED"),
            (413, "RESOURCE_EXHAUSTED"),
            (421, "UNKNOWN"),
            (429, "RESOURCE_EXHAUSTED"),
            (499, "CANCELLED"),
            (500, "INTERNAL"),
            (502, "UNAVAILABLE"),
            (503, "UNAVAILABLE"),
            (504, "DEADLINE_EXCEEDED"),
        ] {
            assert_eq!(Status::of_http(http).name(), name, "{http}");
        }
    }

    #[test]
    fn what_an_upstream_says_is_a_status_or_unknown() {
        let told = |text: &'static str| Status::told(&[(GRPC_STATUS, HeaderValue::from_static(text))].into_iter().collect()).unwrap();
        assert_eq!(
            (told("0").name(), told("16").name(), told("17").name(), told("x").name()),
            ("OK", "UNAUTHENTICATED", "UNKNOWN", "UNKNOWN")
        );
        assert_eq!(Status::told(&HeaderMap::new()), None);
    }

    fn lines(refusal: &Refusal) -> Vec<String> {
        refusal.headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect()
    }

    #[test]
    fn a_refusal_is_a_head_or_the_last_frame_of_a_body() {
        let status = Status::of_http(429);
        let native = refusal(Speech::Native, None, status, "rate-limited", "100 % of `ä`\n");
        let expected =
            ["content-type: application/grpc", "x-problem-code: rate-limited", "grpc-status: 8", "grpc-message: 100 %25 of `%C3%A4`%0A"];
        assert_eq!((lines(&native), native.body.len()), (expected.map(str::to_owned).to_vec(), 0));
        let asked = HeaderValue::from_static("application/grpc-web+proto");
        let web = refusal(Speech::Web, Some(&asked), status, "rate-limited", "Too many requests");
        assert_eq!(lines(&web), ["content-type: application/grpc-web+proto", "x-problem-code: rate-limited"]);
        let text = b"grpc-status: 8\r\ngrpc-message: Too many requests\r\n";
        assert_eq!(web.body, [&[0x80, 0, 0, 0, 49][..], text].concat());
        let text = refusal(Speech::WebText, None, status, "rate-limited", "Too many requests");
        assert_eq!(text.body, base64(&web.body));
    }

    #[test]
    fn a_call_that_breaks_says_why() {
        let told = trailers(&Problem::new(&LIMITED).detail("wait"));
        let shown: Vec<_> = told.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        assert_eq!(shown, ["grpc-status: 8", "grpc-message: wait", "x-problem-code: rate-limited"]);
    }

    #[test]
    fn a_message_is_bounded() {
        assert!(encode(&"ä".repeat(1000)).len() <= MESSAGE_BYTES);
    }
}
