//! Decides the headers of an upstream's answer on its way to the client.
//!
//! Takes plain data and changes the head in place. Does not write the gateway's own answers: see `problem.rs`; what all
//! answers have in common (request id, CORS, limits) is passed in. `Location` is translated in `location.rs`.
//!
//! `security: strict` puts, each unless the upstream set it: `X-Content-Type-Options: nosniff`, `X-Frame-Options: DENY`,
//! `Referrer-Policy: no-referrer`, `Content-Security-Policy: default-src 'none'; frame-ancestors 'none'`, and on TLS
//! `Strict-Transport-Security: max-age=31536000`.

use std::collections::BTreeMap;

use http::{HeaderMap, HeaderName, HeaderValue, header};
use pingora_http::ResponseHeader;
use schemars::JsonSchema;
use serde::Deserialize;
use smallvec::SmallVec;

use super::location;
use crate::config::diagnostic::Diagnostic;
use crate::config::types::At;
use crate::ctx::Scheme;
use crate::policy::limits::headers::is_own;
use crate::relay::message::edits::{Head, HeaderEdits, with_response_fields};
use crate::relay::message::head::X_REQUEST_ID;

/// Headers of the response set, added and removed, and the security headers.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ResponseHeadersSettings {
    /// `strict`: HSTS on TLS, nosniff, no framing, no referrer, `default-src 'none'`, each unless the upstream set it.
    pub security: Option<Security>,
    /// Headers that get exactly this value.
    #[serde(default)]
    pub set: BTreeMap<String, At<String>>,
    /// Headers that are added beside those that are there.
    #[serde(default)]
    pub add: BTreeMap<String, At<String>>,
    /// Headers that are removed.
    #[serde(default)]
    pub remove: Vec<At<String>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Security {
    Strict,
}

/// Compiled for one route; the default changes only what every answer has changed.
#[derive(Clone, Debug, Default)]
pub struct ResponseHeaders {
    pub security: Option<Security>,
    pub edits: HeaderEdits,
    /// Some edit is of a field in which limits tell where they stand.
    pub edits_limits: bool,
}

/// What is known when an upstream's answer comes back.
#[derive(Clone, Copy, Debug)]
pub struct Incoming<'a> {
    /// Of the client's connection, or what a trusted proxy said of its own.
    pub scheme: Scheme,
    pub request_id: &'a [u8],
    /// `Facts::cors`; they replace the upstream's. Where the route has no CORS policy: empty, and the upstream's stay.
    pub cors: &'a [(HeaderName, HeaderValue)],
    /// Whether the route has a CORS policy, so that headers of the upstream's own are removed even where `cors` is empty.
    pub has_cors_policy: bool,
    pub limits: Limits<'a>,
    /// How addresses in it are translated; needed only where it has one.
    pub location: Option<location::Way<'a>>,
}

/// `X-RateLimit-*` and `RateLimit-*`: in place of what the upstream says in them.
#[derive(Clone, Copy, Debug)]
pub enum Limits<'a> {
    Here(&'a [(HeaderName, HeaderValue)]),
    /// Told elsewhere: here nobody says them.
    Beside,
}

/// Fields that name a place, perhaps one that only the gateway can reach.
const LOCATIONS: [HeaderName; 2] = [header::LOCATION, header::CONTENT_LOCATION];

const STRICT: [(HeaderName, HeaderValue); 4] = [
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
    (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'")),
];

const HSTS: HeaderValue = HeaderValue::from_static("max-age=31536000");

// === impl ResponseHeaders ===

impl ResponseHeaders {
    pub fn compile(settings: &ResponseHeadersSettings) -> Result<ResponseHeaders, Vec<Diagnostic>> {
        let ResponseHeadersSettings { security, set, add, remove } = settings;
        let edits = HeaderEdits::compile(set, add, remove)?;
        let edits_limits = edits.names().any(|name| is_own(name.as_str()));
        Ok(ResponseHeaders { security: *security, edits, edits_limits })
    }

    /// What the operator has taken away.
    pub fn removed(&self) -> impl Iterator<Item = &HeaderName> {
        self.edits.remove.iter()
    }

    /// The part that the gateway's own answers have too: security headers and the operator's own.
    pub fn finish(&self, fields: &mut HeaderMap, scheme: Scheme) {
        match self.security {
            None => {}
            Some(Security::Strict) => {
                for (name, value) in STRICT {
                    put_if_absent(fields, name, value);
                }
                if scheme == Scheme::Https {
                    put_if_absent(fields, header::STRICT_TRANSPORT_SECURITY, HSTS);
                }
            }
        }
        self.edits.apply(fields);
    }
}

/// Makes the head that the client gets out of the one that the upstream sent. Also for interim answers (1xx), harmlessly.
pub fn client_head(headers: &ResponseHeaders, incoming: &Incoming<'_>, head: &mut ResponseHeader) {
    let is_switch = head.status == http::StatusCode::SWITCHING_PROTOCOLS;
    let is_empty = head.status.is_informational() || head.status == http::StatusCode::NO_CONTENT;
    with_response_fields(head, |fields| {
        let limits = match incoming.limits {
            Limits::Here(limits) => limits,
            Limits::Beside => &[],
        };
        if !limits.is_empty() {
            // Once for all; a field or two mostly fit where others were removed.
            fields.reserve(1 + limits.len() + headers.edits.set.len() + headers.edits.add.len());
        }
        remove_inner(is_switch, matches!(incoming.limits, Limits::Beside), fields);
        if is_empty {
            // RFC 9110 section 8.6, RFC 9112 section 6.1: such an answer has no content; a client could wait for it.
            fields.remove(header::CONTENT_LENGTH);
            fields.remove(header::TRANSFER_ENCODING);
        }
        if let Some(way) = &incoming.location {
            for name in LOCATIONS {
                // None where it stays as it is, which is nearly always.
                let translated = fields.get(&name).and_then(|value| value.to_str().ok()).and_then(|value| way.translate(value));
                if let Some(value) = translated.and_then(|text| HeaderValue::try_from(text).ok()) {
                    fields.put(&name, value);
                }
            }
        }
        if incoming.has_cors_policy {
            replace_cors(incoming.cors, fields);
        }
        for (name, value) in limits {
            fields.put(name, value.clone());
        }
        if let Ok(value) = HeaderValue::from_bytes(incoming.request_id) {
            fields.put(&X_REQUEST_ID, value);
        }
        headers.finish(fields, incoming.scheme);
    });
}

/// What says something of the inside, and hop-by-hop fields (RFC 9110 section 7.6.1). Framing and a switched protocol are
/// Pingora's to say: it needs `Transfer-Encoding`, and `Connection` and `Upgrade` of a 101, and writes `Connection` anew.
fn remove_inner(is_switch: bool, with_limits: bool, fields: &mut HeaderMap) {
    if !is_switch && fields.contains_key(header::CONNECTION) {
        let nominated: SmallVec<[HeaderName; 4]> = fields
            .get_all(header::CONNECTION)
            .iter()
            .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
            .filter_map(|token| HeaderName::from_bytes(token.trim_ascii()).ok())
            .filter(|name| !matches!(*name, header::TRANSFER_ENCODING | header::CONTENT_LENGTH | header::CONNECTION))
            .collect();
        for name in &nominated {
            fields.remove(name);
        }
        fields.remove(&header::CONNECTION);
        fields.remove(&header::UPGRADE);
    }
    // Told apart by their lengths first, unlike names that are compared one by one.
    let inner = |name: &HeaderName| {
        matches!(
            name.as_str(),
            "server"
                | "x-powered-by"
                | "via"
                | "trailer"
                | "proxy-authenticate"
                | "keep-alive"
                | "proxy-connection"
                | "x-aspnet-version"
                | "x-aspnetmvc-version"
        ) || (with_limits && is_own(name.as_str()))
    };
    // One at a time: there is seldom more than one.
    while let Some(found) = fields.keys().find(|name| inner(name)).cloned() {
        fields.remove(&found);
    }
}

/// One party decides who may read an answer. `Vary` is added to, not replaced: caches need both reasons.
fn replace_cors(cors: &[(HeaderName, HeaderValue)], fields: &mut HeaderMap) {
    let found: SmallVec<[HeaderName; 4]> = fields.keys().filter(|name| name.as_str().starts_with("access-control-")).cloned().collect();
    for name in &found {
        fields.remove(name);
    }
    for (name, value) in cors {
        match *name {
            header::VARY => fields.push(name, value.clone()),
            _ => fields.put(name, value.clone()),
        }
    }
}

fn put_if_absent(fields: &mut HeaderMap, name: HeaderName, value: HeaderValue) {
    if !fields.contains_key(&name) {
        fields.put(&name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relay::targets::address::Address;
    use crate::relay::targets::target::Target;

    fn incoming<'a>() -> Incoming<'a> {
        static TARGETS: std::sync::LazyLock<[std::sync::Arc<Target>; 1]> = std::sync::LazyLock::new(|| {
            [std::sync::Arc::new(Target::new("u".into(), Address::parse("10.0.0.7:8080").unwrap(), Default::default()))]
        });
        Incoming {
            scheme: Scheme::Http,
            request_id: b"r-1",
            cors: &[],
            has_cors_policy: false,
            limits: Limits::Here(&[]),
            location: Some(location::Way {
                scheme: Scheme::Http,
                host: "api.example.com",
                targets: &*TARGETS,
                sent_host: "api.example.com",
                rewrite: None,
            }),
        }
    }

    fn head(status: u16, fields: &[(&'static str, &str)]) -> ResponseHeader {
        let mut head = ResponseHeader::build(status, None).unwrap();
        for (name, value) in fields {
            head.append_header(*name, *value).unwrap();
        }
        head
    }

    fn run(headers: &ResponseHeaders, incoming: &Incoming<'_>, mut head: ResponseHeader) -> Vec<String> {
        client_head(headers, incoming, &mut head);
        let mut shown: Vec<_> = head.headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        shown.sort();
        shown
    }

    #[test]
    fn nothing_tells_what_runs_inside() {
        let fields = [
            ("server", "Werkzeug/3"),
            ("x-powered-by", "PHP/8"),
            ("via", "1.1 inner"),
            ("x-aspnet-version", "4"),
            ("keep-alive", "timeout=5"),
            ("content-type", "text/plain"),
        ];
        let shown = run(&ResponseHeaders::default(), &incoming(), head(200, &fields));
        assert_eq!(shown, ["content-type: text/plain", "x-request-id: r-1"]);
    }

    #[test]
    fn hop_by_hop_fields_end_here_but_a_switch_of_protocols_passes() {
        let fields =
            [("connection", "close, x-hop, content-length"), ("x-hop", "1"), ("content-length", "2"), ("transfer-encoding", "chunked")];
        let shown = run(&ResponseHeaders::default(), &incoming(), head(200, &fields));
        assert_eq!(shown, ["content-length: 2", "transfer-encoding: chunked", "x-request-id: r-1"]);
        let fields = [("connection", "Upgrade"), ("upgrade", "websocket"), ("sec-websocket-accept", "x")];
        let shown = run(&ResponseHeaders::default(), &incoming(), head(101, &fields));
        assert_eq!(shown, ["connection: Upgrade", "sec-websocket-accept: x", "upgrade: websocket", "x-request-id: r-1"]);
    }

    #[test]
    fn strict_security_fills_in_what_the_upstream_left_out() {
        let strict = ResponseHeaders { security: Some(Security::Strict), ..ResponseHeaders::default() };
        let shown = run(&strict, &incoming(), head(200, &[("content-security-policy", "default-src 'self'")]));
        let expected = [
            "content-security-policy: default-src 'self'",
            "referrer-policy: no-referrer",
            "x-content-type-options: nosniff",
            "x-frame-options: DENY",
            "x-request-id: r-1",
        ];
        assert_eq!(shown, expected);
        let tls = run(&strict, &Incoming { scheme: Scheme::Https, ..incoming() }, head(200, &[]));
        assert!(tls.contains(&"strict-transport-security: max-age=31536000".to_owned()));
        assert!(tls.contains(&"content-security-policy: default-src 'none'; frame-ancestors 'none'".to_owned()));
    }

    #[test]
    fn the_operators_own_headers_come_last() {
        let value = |text| HeaderValue::from_static(text);
        let edits = HeaderEdits {
            remove: vec![header::ETAG],
            set: vec![(header::X_FRAME_OPTIONS, value("SAMEORIGIN")), (header::SERVER, value("shop"))],
            add: vec![(header::VARY, value("accept"))],
        };
        let headers = ResponseHeaders { security: Some(Security::Strict), edits, edits_limits: false };
        let shown = run(&headers, &incoming(), head(200, &[("etag", "1"), ("vary", "cookie"), ("server", "inner")]));
        for expected in ["x-frame-options: SAMEORIGIN", "server: shop", "vary: accept", "vary: cookie"] {
            assert!(shown.contains(&expected.to_owned()), "{expected} in {shown:?}");
        }
        assert!(!shown.iter().any(|line| line.starts_with("etag") || line.contains("DENY")));
    }

    #[test]
    fn the_gateway_decides_about_other_sites_where_the_route_says_so() {
        let cors = [
            (header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("https://shop.example")),
            (header::VARY, HeaderValue::from_static("origin")),
        ];
        let fields = [("access-control-allow-origin", "*"), ("access-control-expose-headers", "x"), ("vary", "cookie")];
        let decided = Incoming { cors: &cors, has_cors_policy: true, ..incoming() };
        let shown = run(&ResponseHeaders::default(), &decided, head(200, &fields));
        assert_eq!(shown, ["access-control-allow-origin: https://shop.example", "vary: cookie", "vary: origin", "x-request-id: r-1"]);
        let refused = Incoming { has_cors_policy: true, ..incoming() };
        assert_eq!(run(&ResponseHeaders::default(), &refused, head(200, &fields)), ["vary: cookie", "x-request-id: r-1"]);
        assert_eq!(run(&ResponseHeaders::default(), &incoming(), head(200, &fields)).len(), 4);
    }

    #[test]
    fn limits_and_the_request_id_are_the_gateways() {
        let limits = [(HeaderName::from_static("x-ratelimit-limit"), HeaderValue::from_static("100"))];
        let theirs = [("x-ratelimit-limit", "7"), ("x-request-id", "theirs")];
        let told = Incoming { limits: Limits::Here(&limits), ..incoming() };
        assert_eq!(run(&ResponseHeaders::default(), &told, head(200, &theirs)), ["x-ratelimit-limit: 100", "x-request-id: r-1"]);
        let beside = Incoming { limits: Limits::Beside, ..incoming() };
        assert_eq!(run(&ResponseHeaders::default(), &beside, head(200, &theirs)), ["x-request-id: r-1"]);
    }

    #[test]
    fn a_location_inside_becomes_one_outside() {
        let fields = [("location", "http://10.0.0.7:8080/orders/2"), ("content-location", "/orders/2")];
        let shown = run(&ResponseHeaders::default(), &incoming(), head(201, &fields));
        assert_eq!(shown, ["content-location: /orders/2", "location: http://api.example.com/orders/2", "x-request-id: r-1"]);
    }
}
