//! Identity headers: which the gateway sets for the upstream, from what, and that clients cannot set them.
//!
//! Decides how a claim becomes a header's value. Does not put headers on requests: the relay does.

use std::collections::BTreeMap;

use http::{HeaderName, HeaderValue};
use serde_json::Value;

use super::claims::ClaimPath;
use crate::config::diagnostic::Diagnostic;
use crate::config::types::At;

/// Headers from claims, compiled from `forward`.
#[derive(Debug, Default)]
pub struct Forward {
    headers: Vec<(HeaderName, ClaimPath)>,
}

/// The names of all identity headers, to be removed from what clients send, in every spelling.
#[derive(Clone, Debug, Default)]
pub struct IdentityHeaders {
    names: Vec<HeaderName>,
    /// Bit n: a name has n bytes. Most headers of a request are told apart by this alone.
    lengths: u64,
}

/// Fields that frame the message, carry credentials, or that the gateway writes itself.
const RESERVED: [&str; 28] = [
    "authorization",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "cookie",
    "date",
    "expect",
    "forwarded",
    "host",
    "http2-settings",
    "keep-alive",
    "origin",
    "proxy-authorization",
    "proxy-connection",
    "sec-websocket-key",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-real-ip",
    "x-request-id",
    "traceparent",
    "tracestate",
];

/// Reads the header names of a `forward`, in the order of their names. What a header is set from is left to the caller.
pub fn header_names<'a>(forward: &'a BTreeMap<String, At<String>>, wrong: &mut Vec<Diagnostic>) -> Vec<(HeaderName, &'a At<String>)> {
    let mut headers: Vec<(HeaderName, &At<String>)> = Vec::new();
    for (name, from) in forward {
        match HeaderName::from_bytes(name.as_bytes()) {
            Err(_) => wrong.push(Diagnostic::at(&from.place, "bad-header-name", format!("`{name}` is not a header name"))),
            Ok(header) if RESERVED.iter().any(|reserved| is_spelling_of(header.as_str(), reserved)) => wrong.push(
                Diagnostic::at(&from.place, "reserved-header", format!("`{name}` cannot carry an identity: it has a meaning of its own"))
                    .help("take a name of your own, such as `x-user-id`"),
            ),
            Ok(header) if headers.iter().any(|(other, _)| is_spelling_of(other.as_str(), header.as_str())) => {
                wrong.push(Diagnostic::at(&from.place, "duplicate-header", format!("`{name}` is set twice, in two spellings")));
            }
            Ok(header) => headers.push((header, from)),
        }
    }
    headers
}

/// Whether two header names are one for a server that folds case and takes `_` for `-`, as CGI and WSGI do.
fn is_spelling_of(a: &str, b: &str) -> bool {
    let fold = |byte: u8| if byte == b'_' { b'-' } else { byte.to_ascii_lowercase() };
    a.len() == b.len() && a.bytes().zip(b.bytes()).all(|(x, y)| fold(x) == fold(y))
}

// === impl Forward ===

impl Forward {
    /// Compiles `forward` of a token authenticator: each header from a claim.
    pub fn compile(settings: &BTreeMap<String, At<String>>) -> Result<Self, Vec<Diagnostic>> {
        let mut wrong = Vec::new();
        let mut headers = Vec::new();
        for (header, from) in header_names(settings, &mut wrong) {
            match ClaimPath::parse(from) {
                Some(path) => headers.push((header, path)),
                None => wrong.push(bad_claim(from)),
            }
        }
        if wrong.is_empty() { Ok(Forward { headers }) } else { Err(wrong) }
    }

    pub fn names(&self) -> impl Iterator<Item = &HeaderName> {
        self.headers.iter().map(|(name, _)| name)
    }

    /// Which header is set from which claim, as written.
    pub fn entries(&self) -> impl Iterator<Item = (&HeaderName, &str)> {
        self.headers.iter().map(|(name, path)| (name, path.as_str()))
    }

    /// The headers for one token. A claim that is missing or empty sets none; the error says which claim cannot be a header, and why.
    pub fn headers(&self, claims: &Value) -> Result<Vec<(HeaderName, HeaderValue)>, String> {
        let mut made = Vec::with_capacity(self.headers.len());
        for (name, path) in &self.headers {
            let Some(value) = path.find(claims) else { continue };
            let text = printed(value).map_err(|why| format!("claim `{}` {why}, and cannot become `{name}`", path.as_str()))?;
            if !text.is_empty() {
                let value =
                    HeaderValue::from_bytes(text.as_bytes()).map_err(|_| format!("claim `{}` cannot become `{name}`", path.as_str()))?;
                made.push((name.clone(), value));
            }
        }
        Ok(made)
    }
}

/// The diagnostic for a claim that is neither a name nor a JSON Pointer.
pub fn bad_claim(claim: &At<String>) -> Diagnostic {
    Diagnostic::at(&claim.place, "bad-claim", format!("`{}` is not a claim: expected a name or a JSON Pointer", claim.value))
        .help("such as `sub` or `/realm_access/roles`; in a pointer `~1` stands for `/` and `~0` for `~`")
}

/// A claim as the text of a header.
fn printed(value: &Value) -> Result<String, &'static str> {
    match value {
        Value::Array(list) => {
            let mut text = String::new();
            for member in list {
                let one = single(member)?;
                // Behind the comma would begin a member that the token does not have.
                if one.contains(',') {
                    return Err("has a comma in a member of its list");
                }
                if !text.is_empty() && !one.is_empty() {
                    text.push(',');
                }
                text.push_str(&one);
            }
            Ok(text)
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) => single(value),
    }
}

fn single(value: &Value) -> Result<String, &'static str> {
    match value {
        Value::String(text) if text.chars().any(is_invisible) => Err("has control or invisible characters"),
        // Servers trim field values, some of them of every space that Unicode has: ` admin` would be read as `admin`.
        Value::String(text) if text.trim() != text => Err("begins or ends with a space"),
        Value::String(text) => Ok(text.clone()),
        Value::Number(number) => Ok(number.to_string()),
        Value::Bool(truth) => Ok(truth.to_string()),
        Value::Null => Ok(String::new()),
        Value::Array(_) | Value::Object(_) => Err("has an object or a list within a list"),
    }
}

/// Controls, and what has no width or turns the direction of reading.
fn is_invisible(c: char) -> bool {
    c.is_control() || matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

// === impl IdentityHeaders ===

impl IdentityHeaders {
    pub fn add(&mut self, name: &HeaderName) {
        if !self.matches(name) {
            self.lengths |= 1 << (name.as_str().len() & 63);
            self.names.push(name.clone());
        }
    }

    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// In the order in which they were added, lower case.
    pub fn names(&self) -> &[HeaderName] {
        &self.names
    }

    /// Whether a header of a client's request is one of them, also with `_` for `-`.
    pub fn matches(&self, name: &HeaderName) -> bool {
        let name = name.as_str();
        self.lengths & (1 << (name.len() & 63)) != 0 && self.names.iter().any(|own| is_spelling_of(own.as_str(), name))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::policy::fixtures::at;

    fn forward(pairs: &[(&str, &str)]) -> Result<Forward, Vec<Diagnostic>> {
        Forward::compile(&pairs.iter().map(|(name, from)| ((*name).to_owned(), at((*from).to_owned()))).collect())
    }

    fn value(claim: Value) -> Result<Option<String>, String> {
        let headers = forward(&[("x-it", "it")]).unwrap().headers(&json!({ "it": claim }))?;
        Ok(headers.first().map(|(_, value)| String::from_utf8(value.as_bytes().to_vec()).unwrap()))
    }

    #[test]
    fn claims_are_printed_and_lists_joined() {
        for (claim, expected) in [
            (json!("u1"), Some("u1")),
            (json!(["a", "b", 3]), Some("a,b,3")),
            (json!(42), Some("42")),
            (json!(true), Some("true")),
            (json!("José"), Some("José")),
            (json!("a,b"), Some("a,b")),
            (json!(null), None),
            (json!(""), None),
            (json!([]), None),
        ] {
            assert_eq!(value(claim.clone()).unwrap().as_deref(), expected, "{claim}");
        }
    }

    #[test]
    fn what_an_upstream_could_read_differently_is_refused() {
        for claim in [
            json!("a\r\nx-admin: 1"),
            json!("a\tb"),
            json!("a\u{0}"),
            json!("a\u{7f}"),
            json!("a\u{200b}b"),
            json!("\u{202e}nimda"),
            json!(" admin"),
            json!("admin "),
            json!("admin\u{a0}"),
            json!(["user,admin"]),
            json!([["a"]]),
            json!({ "a": 1 }),
        ] {
            assert!(value(claim.clone()).is_err(), "{claim}");
        }
        assert_eq!(value(json!("a\nb")).unwrap_err(), "claim `it` has control or invisible characters, and cannot become `x-it`");
    }

    #[test]
    fn a_missing_claim_sets_no_header() {
        let headers = forward(&[("x-user-id", "sub"), ("x-role", "/realm/role")]).unwrap().headers(&json!({ "sub": "u" })).unwrap();
        assert_eq!(headers, [(HeaderName::from_static("x-user-id"), HeaderValue::from_static("u"))]);
    }

    #[test]
    fn headers_with_a_meaning_of_their_own_and_double_names_are_refused() {
        let codes = |pairs: &[(&str, &str)]| forward(pairs).unwrap_err().iter().map(|d| d.code).collect::<Vec<_>>();
        assert_eq!(codes(&[("Host", "sub")]), ["reserved-header"]);
        assert_eq!(codes(&[("Transfer_Encoding", "sub")]), ["reserved-header"]);
        assert_eq!(codes(&[("X-User", "sub"), ("x_user", "sub")]), ["duplicate-header"]);
        assert_eq!(codes(&[("x user", "sub"), ("x-role", "/a~")]), ["bad-header-name", "bad-claim"]);
    }

    #[test]
    fn a_client_cannot_send_an_identity_header_in_another_spelling() {
        let mut headers = IdentityHeaders::default();
        headers.add(&HeaderName::from_static("x-user-id"));
        headers.add(&HeaderName::from_static("x_user_id"));
        assert_eq!(headers.names().len(), 1);
        for name in ["x-user-id", "X-User-Id", "x_user_id", "X_USER-ID"] {
            assert!(headers.matches(&HeaderName::from_bytes(name.as_bytes()).unwrap()), "{name}");
        }
        for name in ["x-user-i", "x-user-ids", "xxuser-id", "user-id"] {
            assert!(!headers.matches(&HeaderName::from_bytes(name.as_bytes()).unwrap()), "{name}");
        }
    }
}
