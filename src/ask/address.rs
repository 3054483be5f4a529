//! Reads the URL of a server that the gateway asks itself.
//!
//! Decides what may stand in one: no credentials, no fragment. Does not decide whom the gateway may ask in plain text: see [`Address::is_safe`].

use std::fmt;
use std::net::IpAddr;

/// Such as `https://idp.example/keys`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Address {
    pub is_https: bool,
    /// Without brackets.
    pub host: String,
    pub port: u16,
    /// Path and query.
    pub target: String,
}

// === impl Address ===

impl Address {
    /// # Errors
    /// What is wrong with it, in words that follow the URL.
    pub fn parse(text: &str) -> Result<Address, &'static str> {
        if !text.is_ascii() || text.bytes().any(|byte| byte <= b' ' || byte == 0x7f || byte == b'\\') {
            return Err("holds a character that no URL has");
        }
        if text.contains('#') {
            return Err("has a fragment, which no server sees");
        }
        let uri: http::Uri = text.parse().map_err(|_| "is not a URL: expected one such as `https://idp.example/keys`")?;
        let is_https = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            Some(_) | None => return Err("is neither an http nor an https URL"),
        };
        let authority = uri.authority().ok_or("names no host")?;
        if authority.as_str().contains('@') {
            return Err("holds a user name, which would be shown in logs");
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
        if host.is_empty() {
            return Err("names no host");
        }
        let port = match authority.port() {
            Some(port) => port.as_u16(),
            None if authority.as_str().len() > authority.host().len() => return Err("has a port that is none"),
            None => {
                if is_https {
                    443
                } else {
                    80
                }
            }
        };
        let target = uri.path_and_query().map_or("/", |target| target.as_str()).to_owned();
        Ok(Address { is_https, host, port, target })
    }

    /// Whether nobody on the way can read or change what is said: by TLS, or because nothing leaves the machine.
    pub fn is_safe(&self) -> bool {
        let is_loopback = |ip: IpAddr| ip.is_loopback();
        self.is_https || self.host == "localhost" || self.host.parse().is_ok_and(is_loopback)
    }

    /// Whether both lead to the same server in the same way.
    pub fn is_same_server(&self, other: &Address) -> bool {
        (self.is_https, &self.host, self.port) == (other.is_https, &other.host, other.port)
    }

    /// Host and port, as a connection needs them and as `Host` names them.
    pub fn authority(&self) -> String {
        let host = self.bracketed();
        if self.port == self.usual_port() { host } else { format!("{host}:{}", self.port) }
    }

    /// With the port, always.
    pub fn endpoint(&self) -> String {
        format!("{}:{}", self.bracketed(), self.port)
    }

    fn bracketed(&self) -> String {
        if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() }
    }

    fn usual_port(&self) -> u16 {
        if self.is_https { 443 } else { 80 }
    }

    /// Where a `Location` of an answer from here leads.
    pub fn follow(&self, location: &str) -> Result<Address, &'static str> {
        if location.starts_with('/') && !location.starts_with("//") {
            let scheme = if self.is_https { "https" } else { "http" };
            return Address::parse(&format!("{scheme}://{}{location}", self.endpoint()));
        }
        Address::parse(location)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_https { "https" } else { "http" };
        // A query could hold what is nobody's business.
        let path = self.target.split('?').next().unwrap_or_default();
        write!(f, "{scheme}://{}{path}", self.authority())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Address {
        Address::parse(text).unwrap_or_else(|why| panic!("{text} {why}"))
    }

    #[test]
    fn a_url_is_taken_apart() {
        let one = address("https://IDP.example/keys?x=1");
        assert_eq!((one.is_https, &*one.host, one.port, &*one.target), (true, "idp.example", 443, "/keys?x=1"));
        assert_eq!(
            (one.authority(), one.endpoint(), one.to_string()),
            ("idp.example".into(), "idp.example:443".into(), "https://idp.example/keys".into())
        );
        let six = address("http://[::1]:8080");
        assert_eq!((&*six.host, six.authority(), &*six.target), ("::1", "[::1]:8080".into(), "/"));
    }

    #[test]
    fn what_is_no_url_or_too_much_of_one_is_refused() {
        for text in [
            "idp.example/keys",
            "ftp://a/b",
            "https://",
            "https://a:b@c/",
            "https://a/#b",
            "https://a/ b",
            "https://a:99999/",
            "https://a:/",
            "",
        ] {
            assert!(Address::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn plain_text_is_safe_only_on_this_machine() {
        assert!(["https://a/", "http://localhost/", "http://127.0.0.9:1/", "http://[::1]/"].iter().all(|text| address(text).is_safe()));
        assert!(["http://a/", "http://10.0.0.1/", "http://localhost.example/"].iter().all(|text| !address(text).is_safe()));
    }

    #[test]
    fn a_location_is_read_from_where_it_was_given() {
        let from = address("https://a:8443/x");
        assert_eq!(from.follow("/y?z").unwrap(), address("https://a:8443/y?z"));
        assert!(from.follow("/y").unwrap().is_same_server(&from));
        for other in ["https://a/y", "http://a:8443/y", "https://b:8443/y"] {
            assert!(!from.follow(other).unwrap().is_same_server(&from), "{other}");
        }
        assert!(from.follow("//b/y").is_err() && from.follow("y").is_err());
    }
}
