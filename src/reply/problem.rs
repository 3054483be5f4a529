//! The answers that the gateway itself makes when it refuses: one table of kinds, one type.
//!
//! Decides what a refusal is called and which status it has. Does not decide whether to refuse: each kind is declared
//! beside the code that raises it and only collected here. Rendering is in `render.rs`.

use std::borrow::Cow;
use std::sync::LazyLock;

use http::{HeaderName, HeaderValue};
use smallvec::SmallVec;

use crate::{admin, entry, exchange, listen, policy, relay, reply};

/// Every kind beside the name of what raises it (a policy's key in the configuration, or a chapter), sorted by code.
/// Positions in it are slots of the counters in `report/metrics`.
pub static KINDS: LazyLock<Vec<(&'static str, &'static Kind)>> = LazyLock::new(|| {
    let mut all = [OTHERS, policy::KINDS].concat();
    all.sort_unstable_by_key(|(_, kind)| kind.code);
    all
});

/// Those that no policy raises.
static OTHERS: &[(&str, &Kind)] = &[
    ("admin", &admin::ADMIN_METHOD_REFUSED),
    ("admin", &admin::ADMIN_PAGE_UNKNOWN),
    ("admin", &admin::ADMIN_REQUEST_MALFORMED),
    ("relay", &relay::retry::BODY_MALFORMED),
    ("relay", &relay::retry::BODY_TIMEOUT),
    ("request_body", &listen::pace::BODY_TOO_SLOW),
    ("tls", &listen::tls::misdirected::CERTIFICATE_OUTDATED),
    ("request_body", &listen::chunks::CHUNK_INVALID),
    ("relay", &relay::circuit::CIRCUIT_OPEN),
    ("relay", &relay::retry::CLIENT_GONE),
    ("head", &listen::head::CONNECTION_HEADER_INVALID),
    ("head", &listen::head::CONTENT_LENGTH_INVALID),
    ("relay", &exchange::DRAIN_ENDED),
    ("head", &listen::head::FIELD_FOLDED),
    ("head", &listen::head::FIELD_NAME_INVALID),
    ("head", &listen::head::FIELD_TOO_LONG),
    ("head", &listen::head::FIELD_VALUE_INVALID),
    ("head", &listen::head::FIELDS_TOO_MANY),
    ("respond", &reply::fixed::FIXED_ANSWER),
    ("http2", &listen::http2::kinds::FRAMES_TOO_MANY),
    ("head", &listen::head::FRAMING_AMBIGUOUS),
    ("relay", &relay::translate::grpc_timeout::GRPC_DEADLINE),
    ("grpc", &relay::translate::grpc_web::GRPC_WEB_MALFORMED),
    ("head", &listen::head::HEAD_TOO_LARGE),
    ("head", &listen::front::HEADER_TIMEOUT),
    ("head", &listen::heads::HEADS_FULL),
    ("head", &listen::head::HOST_DUPLICATE),
    ("head", &listen::head::HOST_INVALID),
    ("head", &listen::head::HOST_MISMATCH),
    ("head", &listen::head::HOST_MISSING),
    ("http2", &listen::http2::kinds::HTTP2_INVALID),
    ("relay", &relay::retry::INTERNAL_ERROR),
    ("head", &listen::head::LINE_ENDING_INVALID),
    ("route", &entry::METHOD_NOT_ALLOWED),
    ("head", &listen::head::METHOD_UNSUPPORTED),
    ("tls", &listen::tls::misdirected::MISDIRECTED),
    ("relay", &relay::balance::NO_HEALTHY_TARGET),
    ("admin", &admin::NOT_READY),
    ("canonical", &entry::canonical::PATH_BACKSLASH),
    ("canonical", &entry::canonical::PATH_CONTROL),
    ("canonical", &entry::canonical::PATH_DOT_SEGMENT),
    ("canonical", &entry::canonical::PATH_EMPTY_SEGMENT),
    ("canonical", &entry::canonical::PATH_ENCODED_SLASH),
    ("canonical", &entry::canonical::PATH_ESCAPE_INVALID),
    ("canonical", &entry::canonical::PATH_SEMICOLON),
    ("relay", &listen::pace::READER_TOO_SLOW),
    ("head", &listen::head::REQUEST_LINE_INVALID),
    ("http2", &listen::http2::kinds::RESETS_TOO_MANY),
    ("route", &entry::ROUTE_NOT_FOUND),
    ("http2", &listen::http2::kinds::STREAM_MALFORMED),
    ("http2", &listen::http2::kinds::STREAMS_TOO_MANY),
    ("head", &listen::head::TARGET_REFUSED),
    ("head", &listen::head::TARGET_TOO_LONG),
    ("tls", &listen::tls::handshake::TLS_EXPECTED),
    ("head", &listen::head::TRANSFER_ENCODING_INVALID),
    ("head", &listen::head::UPGRADE_INVALID),
    ("relay", &relay::attempt::protocol::UPGRADE_UNSUPPORTED),
    ("relay", &relay::retry::CLOSED),
    ("relay", &relay::retry::CONNECT_FAILED),
    ("relay", &relay::retry::CONNECT_TIMEOUT),
    ("relay", &relay::retry::IDLE_TIMEOUT),
    ("relay", &relay::retry::PROTOCOL_ERROR),
    ("relay", &relay::retry::RESPONSE_TIMEOUT),
    ("relay", &relay::attempt::connect::TLS_FAILED),
    ("relay", &relay::attempt::timeouts::TOTAL_TIMEOUT),
    ("relay", &relay::admit::UPSTREAM_OVERLOADED),
    ("relay", &relay::adaptive::UPSTREAM_SATURATED),
    ("overload", &policy::overload::GATEWAY_OVERLOADED),
    ("head", &listen::head::VERSION_UNSUPPORTED),
    ("relay", &relay::attempt::tunnel::WEBSOCKET_EXPIRED),
    ("relay", &relay::attempt::tunnel::WEBSOCKET_REVOKED),
    ("relay", &relay::attempt::tunnel::WEBSOCKET_IDLE),
];

/// A kind of refusal. Its `code` is stable: clients, logs, metrics and alerts all use it.
#[derive(Debug, PartialEq, Eq)]
pub struct Kind {
    /// Such as `rate-limited`.
    pub code: &'static str,
    pub status: u16,
    /// The plain words that clients look for, such as `Too many requests`; member `error` of the problem document.
    pub error: &'static str,
    /// What it means and what to do about it; a row of `docs/problems.md`.
    pub about: &'static str,
}

/// One refusal of one request (RFC 9457 section 3).
#[derive(Debug, Clone)]
pub struct Problem {
    pub kind: &'static Kind,
    /// That of its kind, but for a kind whose status the configuration says.
    pub status: u16,
    /// For the client: what exactly was wrong. Never holds a credential nor a detail of an upstream.
    pub detail: Option<Cow<'static, str>>,
    /// For the log and `explain` only, such as `expired 3 s ago, leeway 0 s`.
    pub reason: Option<String>,
    /// Further members of the document, such as `limit` and `key`.
    pub members: SmallVec<[(&'static str, String); 2]>,
    /// Such as `WWW-Authenticate`, `Allow`, `Retry-After`.
    pub headers: SmallVec<[(HeaderName, HeaderValue); 2]>,
}

// === impl Kind ===

impl Kind {
    /// Where the kind stands in [`KINDS`].
    pub fn position(&self) -> Option<usize> {
        position(self.code)
    }
}

/// Where the kind with this code stands in [`KINDS`].
pub fn position(code: &str) -> Option<usize> {
    KINDS.binary_search_by(|(_, kind)| kind.code.cmp(code)).ok()
}

// === impl Problem ===

impl Problem {
    pub fn new(kind: &'static Kind) -> Self {
        Problem { kind, status: kind.status, detail: None, reason: None, members: SmallVec::new(), headers: SmallVec::new() }
    }

    /// Of the same class as that of its kind, so that it is counted rightly.
    #[must_use]
    pub fn status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    #[must_use]
    pub fn detail(mut self, detail: impl Into<Cow<'static, str>>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    #[must_use]
    pub fn reason(mut self, reason: impl Into<String>) -> Self {
        self.reason = Some(reason.into());
        self
    }

    #[must_use]
    pub fn member(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.members.push((name, value.into()));
        self
    }

    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_kebab_case_and_unique() {
        for (_, kind) in KINDS.iter() {
            let is_kebab = kind.code.split('-').all(|part| {
                part.starts_with(|first: char| first.is_ascii_lowercase())
                    && part.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
            });
            assert!(is_kebab, "`{}` is not kebab-case", kind.code);
        }
        for pair in KINDS.windows(2) {
            assert!(pair[0].1.code < pair[1].1.code, "`{}` is there twice", pair[0].1.code);
        }
    }

    #[test]
    fn a_kind_is_found_by_its_code_and_an_unknown_one_is_not() {
        for (at, (_, kind)) in KINDS.iter().enumerate() {
            assert_eq!(kind.position(), Some(at));
        }
        assert_eq!(position("no-such-code"), None);
    }

    #[test]
    fn every_kind_has_an_error_status_plain_words_and_advice() {
        for (raised_by, kind) in KINDS.iter() {
            // What ends a tunnel has been answered already.
            let is_tunnels = kind.status == 101 && kind.code.starts_with("websocket-");
            assert!((400..600).contains(&kind.status) || is_tunnels, "`{}`", kind.code);
            assert!(!kind.error.is_empty() && !raised_by.is_empty(), "`{}`", kind.code);
            assert!(kind.about.ends_with('.'), "`{}`: what it means is a sentence", kind.code);
        }
    }

    /// `docs/problems.md` as the table makes it.
    fn document() -> String {
        let mut text = String::from(
            "# Problems\n\n\
            Every answer that the gateway itself makes when it refuses has a stable code. The client reads it in an RFC 9457 problem\n\
            document (`application/problem+json`, member `code`; `type` is `urn:sluice:problem:` and the code), the operator in the access\n\
            log (field `code`), the alert in a metric (label `code` of `sluice_requests_total` and `sluice_refusals_total`; label `policy` is\n\
            the column *raised by*). Not in these metrics: those that `admin` raises, for they answer no request of a client's; and\n\
            `fixed-answer`, which is no refusal and stands in `sluice_requests_total` alone.\n\n\
            This page is generated from the table in `src/reply/problem.rs`: `UPDATE=1 cargo test --lib problem` rewrites it.\n\n\
            | code | status | error | raised by | what it means and what to do |\n|---|---|---|---|---|\n",
        );
        let cell = |text: &str| text.replace('|', "\\|").replace('\n', " ");
        for (raised_by, kind) in KINDS.iter() {
            let Kind { code, status, error, about } = kind;
            text += &format!("| `{code}` | {status} | {} | `{raised_by}` | {} |\n", cell(error), cell(about));
        }
        text
    }

    #[test]
    fn the_document_of_problems_is_current() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/problems.md");
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(path, document()).unwrap();
        }
        let found = std::fs::read_to_string(path).unwrap_or_default();
        assert!(found == document(), "docs/problems.md is not what the table says: run `UPDATE=1 cargo test --lib problem`");
    }
}
