//! What `balance: hash` tells requests apart by: the first of a list that a request has.
//!
//! Decides the key, not the target: see `maglev.rs`.

use std::fmt;

use http::header::COOKIE;
use http::{HeaderMap, HeaderName};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de};

use super::maglev;
use crate::config::plan::Route;
use crate::ctx::Facts;
use crate::decide::captures;
use crate::entry::query;

/// A key as it is written: `header:NAME`, `cookie:NAME`, `query:NAME`, `path:NAME`, `consumer` or `client_ip`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HashBy {
    Header(HeaderName),
    Cookie(Box<str>),
    Query(Box<str>),
    /// A name in the path pattern of the route.
    Path(Box<str>),
    Consumer,
    ClientIp,
}

/// The keys of an upstream, as one route has them: those that its requests can have.
#[derive(Clone, Debug, Default)]
pub struct HashKeys(Box<[Part]>);

#[derive(Clone, Debug)]
struct Part {
    by: HashBy,
    /// Which of the names of the route's pattern `by` is.
    capture: usize,
}

// === impl HashKeys ===

impl HashKeys {
    /// For a route whose pattern has these names, `rest` included.
    pub fn compile(by: &[HashBy], names: &[&str]) -> HashKeys {
        let part = |by: &HashBy| {
            let capture = match by {
                HashBy::Path(name) => names.iter().position(|known| *known == &**name)?,
                HashBy::Header(_) | HashBy::Cookie(_) | HashBy::Query(_) | HashBy::Consumer | HashBy::ClientIp => 0,
            };
            Some(Part { by: by.clone(), capture })
        };
        HashKeys(by.iter().filter_map(part).collect())
    }

    /// The key of a request of this route and what it was made of. None: it has nothing to be told apart by, and goes anywhere.
    pub fn key(&self, route: &Route, headers: &HeaderMap, facts: &Facts) -> Option<(u64, &HashBy)> {
        self.0.iter().find_map(|part| Some((part.hash(route, headers, facts)?, &part.by)))
    }
}

impl Part {
    /// An empty value says nothing.
    fn hash(&self, route: &Route, headers: &HeaderMap, facts: &Facts) -> Option<u64> {
        let of = |kind: &[u8], value: &[u8]| (!value.is_empty()).then(|| maglev::hash(&[kind, value]));
        match &self.by {
            HashBy::Header(name) => of(b"header", headers.get(name)?.as_bytes()),
            HashBy::Cookie(name) => of(b"cookie", cookie(headers, name)?),
            HashBy::Query(name) => {
                let sent = query::parameters(facts.target.query()?).find(|(sent, _)| query::means(sent, name.as_bytes()));
                of(b"query", sent?.1.as_bytes())
            }
            HashBy::Path(_) => of(b"path", captures(route, facts).get(self.capture)?.as_bytes()),
            HashBy::Consumer => of(b"consumer", facts.identity.as_deref()?.consumer.as_ref()?.name.as_bytes()),
            HashBy::ClientIp => match facts.client.to_canonical() {
                std::net::IpAddr::V4(v4) => of(b"v4", &v4.octets()),
                // The /64, as for limits: what lies below changes from hour to hour.
                std::net::IpAddr::V6(v6) => of(b"v6", &v6.octets()[..8]),
            },
        }
    }
}

/// The first value of a cookie.
pub(super) fn cookie<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h [u8]> {
    cookies(headers, name).next()
}

/// Every value of a cookie. RFC 6265 section 5.4: pairs between `; `.
pub fn cookies<'h>(headers: &'h HeaderMap, name: &str) -> impl Iterator<Item = &'h [u8]> {
    let pairs = headers.get_all(COOKIE).into_iter().flat_map(|line| line.as_bytes().split(|byte| *byte == b';'));
    pairs.map(|pair| pair.trim_ascii()).filter_map(move |pair| pair.strip_prefix(name.as_bytes())?.strip_prefix(b"="))
}

// === impl HashBy ===

impl fmt::Display for HashBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HashBy::Header(name) => write!(f, "header:{name}"),
            HashBy::Cookie(name) => write!(f, "cookie:{name}"),
            HashBy::Query(name) => write!(f, "query:{name}"),
            HashBy::Path(name) => write!(f, "path:{name}"),
            HashBy::Consumer => f.write_str("consumer"),
            HashBy::ClientIp => f.write_str("client_ip"),
        }
    }
}

impl HashBy {
    pub const EXPECTED: &str = "`header:NAME`, `cookie:NAME`, `query:NAME`, `path:NAME`, `consumer` or `client_ip`";

    /// As it is written.
    pub fn parse(text: &str) -> Option<HashBy> {
        let is_token = |name: &str| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic() && !b"=;,\"&%".contains(&byte));
        match text.split_once(':') {
            None if text == "consumer" => Some(HashBy::Consumer),
            None if text == "client_ip" => Some(HashBy::ClientIp),
            Some(("header", name)) => HeaderName::from_bytes(name.as_bytes()).ok().map(HashBy::Header),
            Some(("cookie", name)) if is_token(name) => Some(HashBy::Cookie(name.into())),
            Some(("query", name)) if is_token(name) => Some(HashBy::Query(name.into())),
            Some(("path", name)) if is_token(name) => Some(HashBy::Path(name.into())),
            Some(_) | None => None,
        }
    }
}

impl<'de> Deserialize<'de> for HashBy {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        let refuse = || de::Error::custom(format_args!("`{text}` tells no requests apart: expected {}", HashBy::EXPECTED));
        HashBy::parse(&text).ok_or_else(refuse)
    }
}

impl JsonSchema for HashBy {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "HashBy".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^(consumer|client_ip|(header|cookie|query|path):.+)$" })
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn a_cookie_is_found_among_others() {
        let mut headers = HeaderMap::new();
        headers.append(COOKIE, HeaderValue::from_static("xsid=1; sid=a=b;other=2"));
        headers.append(COOKIE, HeaderValue::from_static("late=3"));
        let found = |name| cookie(&headers, name).map(|value| std::str::from_utf8(value).unwrap());
        assert_eq!((found("sid"), found("late"), found("other"), found("si")), (Some("a=b"), Some("3"), Some("2"), None));
    }
}
