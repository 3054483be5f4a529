//! Decides what a target's address is, as it is written: a literal or a name, and a port, or the path of a Unix socket.
//!
//! Does not resolve names: see `discovery.rs`.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::net::SocketAddr as SocketPath;
use std::path::Path;
use std::sync::Arc;

use http::HeaderValue;

/// Where a target listens. Two addresses are the same target if their texts are equal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// `host:port`, host names in lower case, IPv6 in brackets, or `unix:/path`: what logs and metrics show.
    pub text: Arc<str>,
    pub host: Host,
    /// 0 for a Unix socket.
    pub port: u16,
}

/// A literal address or a name that is resolved in the background.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    Ip(IpAddr),
    Name(Arc<str>),
    /// A Unix socket.
    Path(Arc<Path>),
}

/// One place that a target can be reached at, small enough to be passed about. Two are the same exactly where they are equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Spot {
    Ip(SocketAddr),
    /// The target's own socket; the number is its path's.
    Socket(u64),
}

// === impl Address ===

impl Address {
    /// `host:port`, `address:port`, `[v6]:port` or `unix:/path`; the reason where it is none of them.
    pub fn parse(text: &str) -> Result<Address, &'static str> {
        if let Some(path) = text.strip_prefix("unix:") {
            return Address::parse_path(path);
        }
        if text.contains("://") {
            return Err("a scheme does not belong here");
        }
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => rest.split_once("]:").ok_or("a v6 address in brackets needs `]:port`")?,
            None => text.rsplit_once(':').ok_or("the port is missing")?,
        };
        if port.is_empty() || !port.bytes().all(|b| b.is_ascii_digit()) {
            return Err("the port is not a number");
        }
        let port = port.parse::<u16>().ok().filter(|port| *port > 0).ok_or("the port is not between 1 and 65535")?;
        if text.starts_with('[') {
            let ip: std::net::Ipv6Addr = host.parse().map_err(|_| "what stands in brackets is not a v6 address")?;
            return Ok(Address::new(Host::Ip(IpAddr::V6(ip)), port));
        }
        if let Ok(ip) = host.parse::<std::net::Ipv4Addr>() {
            return Ok(Address::new(Host::Ip(IpAddr::V4(ip)), port));
        }
        if host.contains(':') {
            return Err("a v6 address needs brackets");
        }
        let name = host.to_ascii_lowercase();
        if !is_host_name(&name) {
            return Err("the host is neither an address nor a host name");
        }
        Ok(Address::new(Host::Name(name.into()), port))
    }

    fn parse_path(path: &str) -> Result<Address, &'static str> {
        if !path.starts_with('/') || path.ends_with('/') {
            return Err("the path of a socket begins with `/`, and does not end with it");
        }
        if path.chars().any(char::is_control) {
            return Err("a control character is in the path");
        }
        // The standard library knows how long one may be.
        SocketPath::from_pathname(path).map_err(|_| "the path is longer than that of a socket may be")?;
        Ok(Address::new(Host::Path(Path::new(path).into()), 0))
    }

    /// Where a Unix socket is; none for everything else.
    pub fn socket(&self) -> Option<(Spot, SocketPath)> {
        let Host::Path(path) = &self.host else { return None };
        let mut hasher = DefaultHasher::new();
        path.hash(&mut hasher);
        Some((Spot::Socket(hasher.finish()), SocketPath::from_pathname(path).ok()?))
    }

    fn new(host: Host, port: u16) -> Address {
        let text = match &host {
            Host::Ip(ip) => SocketAddr::new(*ip, port).to_string(),
            Host::Name(name) => format!("{name}:{port}"),
            Host::Path(path) => format!("unix:{}", path.display()),
        };
        Address { text: text.into(), host, port }
    }

    /// What `Host` says where a route asks for the target's own name (RFC 9110 section 7.2: without the default port). A Unix socket has none:
    /// `localhost`, as others say it.
    pub fn host_header(&self) -> HeaderValue {
        if matches!(self.host, Host::Path(_)) {
            return HeaderValue::from_static("localhost");
        }
        let shown = self.text.strip_suffix(":80").unwrap_or(&self.text);
        HeaderValue::from_str(shown).expect("addresses are made of visible ASCII only")
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// RFC 1123 section 2.1, and `_`, which container networks use. A name whose last label is a number would be read as an address by some.
pub(in crate::relay) fn is_host_name(name: &str) -> bool {
    let whole = name.strip_suffix('.').unwrap_or(name);
    let label_is_good = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    let last_is_number = whole.rsplit('.').next().is_none_or(|label| label.bytes().all(|b| b.is_ascii_digit()));
    whole.len() <= 253 && whole.split('.').all(label_is_good) && !last_is_number
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_name_or_a_literal_with_a_port() {
        for (text, shown) in [
            ("10.0.0.7:8080", "10.0.0.7:8080"),
            ("[::1]:80", "[::1]:80"),
            ("[2001:DB8:0::1]:80", "[2001:db8::1]:80"),
            ("Orders.Internal:8080", "orders.internal:8080"),
            ("localhost:1", "localhost:1"),
            ("my_service:65535", "my_service:65535"),
        ] {
            assert_eq!(&*Address::parse(text).unwrap().text, shown);
        }
        assert_eq!(Address::parse("[::1]:80").unwrap().host, Host::Ip("::1".parse().unwrap()));
        assert_eq!(Address::parse("A.b:80").unwrap().host, Host::Name("a.b".into()));
    }

    #[test]
    fn a_unix_socket_is_a_path() {
        let address = Address::parse("unix:/run/App one.sock").unwrap();
        assert_eq!((&*address.text, address.port), ("unix:/run/App one.sock", 0));
        assert_eq!(address.host_header(), "localhost");
        let spot = |text: &str| Address::parse(text).unwrap().socket().map(|(spot, _)| spot);
        assert_eq!(spot("unix:/run/a.sock"), spot("unix:/run/a.sock"));
        assert_ne!(spot("unix:/run/a.sock"), spot("unix:/run/b.sock"));
        assert_eq!(spot("a:80"), None);
        let long = format!("unix:/{}", "x".repeat(107));
        for text in ["unix:", "unix:run/a.sock", "unix:@a", "unix:/run/", "unix:/a\nb", "unix:/a\0b", "unix://run/", &long] {
            assert!(Address::parse(text).is_err(), "{text}");
        }
        assert!(Address::parse(&long[..long.len() - 1]).is_ok());
    }

    #[test]
    fn what_is_not_an_address_is_refused() {
        for text in [
            "",
            "orders",
            "orders:",
            ":80",
            "orders:0",
            "orders:65536",
            "orders:+80",
            "orders:80a",
            "::1:80",
            "[::1]",
            "[::1:80",
            "[10.0.0.7]:80",
            "http://orders:80",
            "orders/x:80",
            "or ders:80",
            "10.0.0:80",
            "10.0.0.256:80",
            "-a:80",
            "a..b:80",
            "127.1:80",
        ] {
            assert!(Address::parse(text).is_err(), "{text}");
        }
    }
}
