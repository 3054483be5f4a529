//! A request as a person, a test or a file describes it: by URL and headers, or by the bytes of its head.
//!
//! Decides what such a description may leave out. Judges no request.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::NoRequest;
use crate::ctx::Scheme;
use crate::listen::tls::facts::ClientCertificate;
use crate::policy::client_certificate::facts::described;

/// A request without a connection.
#[derive(Clone, Debug)]
pub struct Asked {
    pub said: Said,
    /// The name of the listener; the first one where none is named.
    pub listener: Option<String>,
    pub from: IpAddr,
    /// Stand for a verified token.
    pub claims: Option<Value>,
    /// What the client shows when it connects.
    pub certificate: Option<Shown>,
    /// Stands for a key of this consumer.
    pub consumer: Option<String>,
    /// Whether the list of what was revoked is asked.
    pub revocable: bool,
}

/// A certificate of a client's.
#[derive(Clone, Debug)]
pub enum Shown {
    /// It was verified, and says this.
    Described(Arc<ClientCertificate>),
    /// To be verified as the listener does it.
    Chain(Vec<CertificateDer<'static>>),
}

/// How the request itself is described.
#[derive(Clone, Debug)]
pub enum Said {
    Described {
        method: String,
        /// Such as `https://host/path?query`.
        url: String,
        headers: Vec<(String, String)>,
    },
    /// Byte for byte as it would come over the wire, wrong ones too.
    Head { scheme: Scheme, bytes: Vec<u8> },
}

/// The address of a client that nobody names (RFC 5737).
pub const SOMEBODY: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

/// One line of a file of requests.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    method: Option<String>,
    url: Option<String>,
    headers: Option<Headers>,
    /// Instead of these three: the head as it comes over the wire.
    head: Option<String>,
    /// Of the connection on which `head` comes.
    scheme: Option<String>,
    listener: Option<String>,
    from: Option<IpAddr>,
    claims: Option<Map<String, Value>>,
    certificate: Option<Value>,
    consumer: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Headers {
    Named(Map<String, Value>),
    Pairs(Vec<(String, String)>),
}

// === impl Asked ===

impl Asked {
    /// A request from somebody, to the first listener.
    pub fn of(said: Said) -> Asked {
        Asked { said, listener: None, from: SOMEBODY, claims: None, certificate: None, consumer: None, revocable: true }
    }

    /// One line of a file of requests, a JSON object: `url`, and optionally `method`, `headers` (a mapping, or a list of pairs where a
    /// name occurs twice), `listener`, `from`, `claims`, `certificate`, `consumer`; or `head`, the bytes as text, with `scheme`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn from_json(text: &str) -> Result<Asked, NoRequest> {
        let Line { method, url, headers, head, scheme, listener, from, claims, certificate, consumer } =
            serde_json::from_str(text).map_err(|e| e.to_string())?;
        let said = match (head, url) {
            (Some(head), None) if method.is_none() && headers.is_none() => {
                let scheme = match scheme.as_deref() {
                    None | Some("http") => Scheme::Http,
                    Some("https") => Scheme::Https,
                    Some(other) => return Err(format!("`{other}` is not a scheme: expected http or https")),
                };
                Said::Head { scheme, bytes: head.into_bytes() }
            }
            (None, Some(url)) if scheme.is_none() => {
                Said::Described { method: method.unwrap_or_else(|| "GET".to_owned()), url, headers: pairs(headers)? }
            }
            _ => return Err("expected either `url`, with `method` and `headers`, or `head`, with `scheme`".to_owned()),
        };
        let certificate = match certificate {
            None => None,
            Some(told) => Some(Shown::Described(described(&told)?.into())),
        };
        Ok(Asked {
            said,
            listener,
            from: from.unwrap_or(SOMEBODY),
            claims: claims.map(Value::Object),
            certificate,
            consumer,
            revocable: true,
        })
    }
}

fn pairs(headers: Option<Headers>) -> Result<Vec<(String, String)>, NoRequest> {
    match headers {
        None => Ok(Vec::new()),
        Some(Headers::Pairs(pairs)) => Ok(pairs),
        Some(Headers::Named(named)) => named
            .into_iter()
            .map(|(name, value)| match value {
                Value::String(value) => Ok((name, value)),
                _ => Err(format!("header `{name}` is not text")),
            })
            .collect(),
    }
}

// === impl Said ===

impl Said {
    /// The head as it comes over the wire.
    ///
    /// # Errors
    /// Where the URL is none, or a line break would make two lines of one.
    pub fn to_head(&self) -> Result<(Scheme, Vec<u8>), NoRequest> {
        let (method, url, headers) = match self {
            Said::Head { scheme, bytes } => return Ok((*scheme, bytes.clone())),
            Said::Described { method, url, headers } => (method, url, headers),
        };
        let (scheme, rest) = match url.split_once("://") {
            Some(("http", rest)) => (Scheme::Http, rest),
            Some(("https", rest)) => (Scheme::Https, rest),
            Some((other, _)) => return Err(format!("`{other}` is not a scheme: expected http or https")),
            None => return Err(format!("`{url}` is not a URL: expected one such as http://localhost/path")),
        };
        let is_whole = |text: &str| !text.contains(['\r', '\n']);
        if !is_whole(method) || !is_whole(url) || !headers.iter().all(|(name, value)| is_whole(name) && is_whole(value)) {
            return Err("a line break in method, URL or header".to_owned());
        }
        let (host, target) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let slash = if target.starts_with('/') { "" } else { "/" };
        let mut raw = format!("{method} {slash}{target} HTTP/1.1\r\n").into_bytes();
        if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            raw.extend_from_slice(format!("Host: {host}\r\n").as_bytes());
        }
        for (name, value) in headers {
            raw.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
        raw.extend_from_slice(b"\r\n");
        Ok((scheme, raw))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(line: &str) -> Result<String, NoRequest> {
        Ok(String::from_utf8(Asked::from_json(line)?.said.to_head()?.1).unwrap())
    }

    #[test]
    fn a_url_becomes_a_head_with_its_host() {
        assert_eq!(head(r#"{"url":"https://a.example?x"}"#).unwrap(), "GET /?x HTTP/1.1\r\nHost: a.example\r\n\r\n");
        assert_eq!(
            head(r#"{"method":"PUT","url":"http://a:81/b","headers":[["host","c"],["x","1"],["x","2"]]}"#).unwrap(),
            "PUT /b HTTP/1.1\r\nhost: c\r\nx: 1\r\nx: 2\r\n\r\n"
        );
    }

    #[test]
    fn a_head_stays_as_it_is() {
        assert_eq!(head(r#"{"head":"GET  / HTTP/1.1\r\n\r\n","scheme":"https"}"#).unwrap(), "GET  / HTTP/1.1\r\n\r\n");
    }

    #[test]
    fn what_describes_no_request_is_told() {
        for (line, why) in [
            ("{}", "expected either `url`"),
            (r#"{"url":"http://a","head":"x"}"#, "expected either `url`"),
            (r#"{"url":"a.example/x"}"#, "not a URL"),
            (r#"{"url":"ftp://a"}"#, "not a scheme"),
            (r#"{"url":"http://a","headers":{"x":1}}"#, "`x` is not text"),
            (r#"{"url":"http://a","headers":{"x":"1\r\ny: 2"}}"#, "line break"),
            (r#"{"uri":"http://a"}"#, "unknown field `uri`"),
        ] {
            let told = head(line).unwrap_err();
            assert!(told.contains(why), "{line}: {told}");
        }
    }
}
