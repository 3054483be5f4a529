//! Decides which pages may open a WebSocket, how long a tunnel may be silent, and whether it outlives the token that opened it.
//!
//! Looks at the handshake only, never into messages. Does not close anything: see `relay/attempt/tunnel.rs`.

use std::fmt;
use std::time::Duration;

use http::header::{ORIGIN, UPGRADE, VARY};
use http::request::Parts;
use http::{HeaderValue, Version};
use schemars::JsonSchema;
use serde::Deserialize;

use super::cors::read_origin;
use super::{Policy, Request, Stop};
use crate::config::diagnostic::Diagnostic;
use crate::config::types::{At, Period};
use crate::ctx::Facts;
use crate::reply::problem::{Kind, Problem};

pub static ORIGIN_REFUSED: Kind = Kind {
    code: "origin-refused",
    status: 403,
    error: "Forbidden",
    about: "A WebSocket handshake from a page whose origin is not in the route's `websocket.origins`, or without an `Origin` where `none` is not in the list.",
};

/// WebSockets (RFC 6455) over HTTP/1.1. Without this key they pass like any other request, and the tunnel may be silent for `timeouts.idle`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WebSocketSettings {
    /// How long a tunnel may be silent both ways before it is closed. Pings count. Default: `timeouts.idle`.
    pub idle: Option<At<Period>>,
    /// Origins of the pages that may open one, such as `https://shop.example`, and `none` for clients that say no origin, which are no
    /// browsers. Others get 403, code `origin-refused`. Default: anybody whom the route admits.
    pub origins: Option<At<Vec<At<String>>>>,
    /// Whether the tunnel is closed when the token or key that opened it expires, or the first certificate of the chain.
    #[serde(default)]
    pub close_at_expiry: bool,
}

/// The compiled policy.
#[derive(Debug)]
pub struct WebSocket {
    pub idle: Option<Duration>,
    origins: Option<Origins>,
    pub close_at_expiry: bool,
}

#[derive(Debug)]
struct Origins {
    listed: Vec<HeaderValue>,
    /// Whether a client may say none.
    none: bool,
}

const BY_ORIGIN: HeaderValue = HeaderValue::from_static("Origin");

/// Longer than anybody waits for a word.
const LONGEST_IDLE: Duration = Duration::from_secs(7 * 24 * 3600);

// === impl WebSocket ===

impl WebSocket {
    /// `expires`: whether what opens the route can expire, or need not.
    pub fn compile(settings: &At<WebSocketSettings>, expires: bool) -> Result<Self, Vec<Diagnostic>> {
        let WebSocketSettings { idle, origins, close_at_expiry } = &settings.value;
        let mut wrong = Vec::new();
        if idle.is_none() && origins.is_none() && !close_at_expiry {
            let message = "this changes nothing: expected `idle`, `origins` or `close_at_expiry: true`";
            wrong.push(Diagnostic::at(&settings.place, "inert", message));
        }
        if let Some(idle) = idle.as_ref().filter(|idle| idle.0 < Duration::from_millis(1) || idle.0 > LONGEST_IDLE) {
            let message = format!("`{}` is out of range: expected 1ms to {}", idle.value, Period(LONGEST_IDLE));
            wrong.push(Diagnostic::at(&idle.place, "out-of-range", message));
        }
        if *close_at_expiry && !expires {
            let message =
                "`close_at_expiry` has no effect here: the route takes neither tokens nor certificates, and no key has an `expires`";
            wrong.push(Diagnostic::at(&settings.place, "inert", message).help(
                "remove it, give a consumer's key an `expires`, or name an authenticator of kind `jwt` or `client_certificate` in `auth`",
            ));
        }
        let origins = origins.as_ref().map(|origins| Origins::compile(origins, &mut wrong));
        if !wrong.is_empty() {
            return Err(wrong);
        }
        Ok(WebSocket { idle: idle.as_ref().map(|idle| idle.0), origins, close_at_expiry: *close_at_expiry })
    }

    /// Judges a handshake by the page that it came from.
    fn decide(&self, head: &Parts) -> Result<(), Stop> {
        let Some(origins) = &self.origins else { return Ok(()) };
        let mut sent = head.headers.get_all(ORIGIN).iter();
        let reason = match (sent.next(), sent.next()) {
            (None, _) if origins.none => return Ok(()),
            (None, _) => "no `Origin`, and `none` is not listed".to_owned(),
            (Some(origin), None) if origins.listed.contains(origin) => return Ok(()),
            (Some(origin), None) => {
                let shown: String = String::from_utf8_lossy(origin.as_bytes()).chars().take(100).flat_map(char::escape_default).collect();
                format!("origin `{shown}` is not listed")
            }
            (Some(_), Some(_)) => "more than one `Origin`".to_owned(),
        };
        let problem = Problem::new(&ORIGIN_REFUSED).detail("Pages of this origin may not open a WebSocket here.");
        Err(problem.reason(reason).header(VARY, BY_ORIGIN).into())
    }
}

impl Policy for WebSocket {
    async fn judge(&self, request: &Request<'_>, _: &mut Facts) -> Result<(), Stop> {
        self.decide(request.head)
    }
}

impl fmt::Display for WebSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(idle) = self.idle {
            write!(f, "idle {}", Period(idle))?;
        }
        match (self.close_at_expiry, self.idle) {
            (true, Some(_)) => f.write_str(", closed when the credential expires"),
            (true, None) => f.write_str("closed when the credential expires"),
            (false, _) => Ok(()),
        }
    }
}

// === impl Origins ===

impl Origins {
    fn compile(list: &At<Vec<At<String>>>, wrong: &mut Vec<Diagnostic>) -> Self {
        let mut origins = Origins { listed: Vec::new(), none: false };
        if list.is_empty() {
            let message = "the list is empty: expected at least one origin, such as `https://shop.example`, or `none`";
            wrong.push(Diagnostic::at(&list.place, "empty-list", message));
        }
        for origin in &list.value {
            if origin.value == "none" {
                if origins.none {
                    wrong.push(Diagnostic::at(&origin.place, "listed-twice", "this stands in the list already"));
                }
                origins.none = true;
                continue;
            }
            match read_origin(&origin.value) {
                Ok(value) if origins.listed.contains(&value) => {
                    wrong.push(Diagnostic::at(&origin.place, "listed-twice", "this stands in the list already"));
                }
                Ok(value) => origins.listed.push(value),
                Err(help) => {
                    let message = format!(
                        "`{}` is not an origin: expected `scheme://host` or `scheme://host:port`, lower case, or `none`",
                        origin.value
                    );
                    wrong.push(Diagnostic::at(&origin.place, "bad-origin", message).help(help));
                }
            }
        }
        origins
    }
}

/// Whether a request asks for a WebSocket: every request that an upstream could take for one (RFC 6455 section 4.1).
pub fn is_handshake(head: &Parts) -> bool {
    head.version == Version::HTTP_11
        && head.headers.get_all(UPGRADE).iter().any(|line| {
            let mut protocols = line.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
            protocols.any(|protocol| protocol.len() >= 9 && protocol[..9].eq_ignore_ascii_case(b"websocket"))
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::fixtures::{at, at_text, codes, facts, head, judge, refusal};

    fn settings(origins: Option<&[&str]>) -> WebSocketSettings {
        WebSocketSettings {
            idle: None,
            origins: origins.map(|list| at(list.iter().map(|text| at_text(text)).collect())),
            close_at_expiry: false,
        }
    }

    fn compile(settings: WebSocketSettings) -> Result<WebSocket, Vec<Diagnostic>> {
        WebSocket::compile(&at(settings), false)
    }

    const UPGRADE: (&str, &str) = ("upgrade", "websocket");

    #[test]
    fn pages_of_listed_origins_may_open_one_and_no_others() {
        let listed = compile(settings(Some(&["https://shop.example", "http://localhost:3000"]))).unwrap();
        let reason = |headers: &[(&str, &str)]| {
            let headers = [&[UPGRADE], headers].concat();
            judge(&listed, &head("GET /", &headers), &mut facts()).err().map(|stop| refusal(Err(stop)).reason.unwrap())
        };
        assert_eq!(reason(&[("origin", "https://shop.example")]), None);
        assert_eq!(reason(&[("origin", "http://localhost:3000")]), None);
        for (other, why) in [
            ("https://evil.example", "origin `https://evil.example` is not listed"),
            ("http://shop.example", "origin `http://shop.example` is not listed"),
            ("https://shop.example.evil.example", "origin `https://shop.example.evil.example` is not listed"),
            ("null", "origin `null` is not listed"),
            ("", "origin `` is not listed"),
        ] {
            assert_eq!(reason(&[("origin", other)]).as_deref(), Some(why));
        }
        let twice = [("origin", "https://shop.example"), ("origin", "https://evil.example")];
        assert_eq!(reason(&twice).as_deref(), Some("more than one `Origin`"));
        assert_eq!(reason(&[]).as_deref(), Some("no `Origin`, and `none` is not listed"));
    }

    #[test]
    fn clients_without_an_origin_may_where_none_is_listed() {
        let listed = compile(settings(Some(&["none"]))).unwrap();
        assert!(judge(&listed, &head("GET /", &[UPGRADE]), &mut facts()).is_ok());
        let problem = refusal(judge(&listed, &head("GET /", &[UPGRADE, ("origin", "none")]), &mut facts()));
        assert_eq!((problem.kind.code, problem.kind.status), ("origin-refused", 403));
    }

    #[test]
    fn whatever_an_upstream_could_take_for_a_handshake_is_one() {
        for (value, is_one) in
            [("websocket", true), ("WebSocket", true), ("h2c, websocket", true), ("websocket/13", true), ("h2c", false), ("web", false)]
        {
            let mut asked = head("GET /", &[("upgrade", value)]);
            asked.version = Version::HTTP_11;
            assert_eq!(is_handshake(&asked), is_one, "{value}");
        }
        assert!(!is_handshake(&head("GET /", &[])));
    }

    #[test]
    fn what_cannot_take_effect_is_a_mistake() {
        assert_eq!(codes(compile(settings(None))), ["inert"]);
        assert_eq!(codes(compile(settings(Some(&[])))), ["empty-list"]);
        assert_eq!(codes(compile(settings(Some(&["none", "none", "https://a", "https://a"])))), ["listed-twice", "listed-twice"]);
        assert_eq!(codes(compile(settings(Some(&["*", "https://a/"])))), ["bad-origin", "bad-origin"]);
        assert_eq!(codes(compile(WebSocketSettings { close_at_expiry: true, ..settings(None) })), ["inert"]);
        assert_eq!(codes(compile(WebSocketSettings { idle: Some(at(Period::seconds(0))), ..settings(None) })), ["out-of-range"]);
        let told = WebSocket::compile(&at(WebSocketSettings { close_at_expiry: true, ..settings(None) }), true).unwrap();
        assert_eq!(told.to_string(), "closed when the credential expires");
    }
}
