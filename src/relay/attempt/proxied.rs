//! What a target is told of the client by the PROXY protocol, before anything else on a connection.
//!
//! Decides which addresses are named, and how. Does not decide who the client is: see `entry/client_ip.rs`. A connection that names a client
//! serves one request: `peer.rs` sees to that.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use proxy_header::{ProxiedAddress, ProxyHeader};
use schemars::JsonSchema;
use serde::Deserialize;

/// A version of the PROXY protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ProxyVersion {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

/// On whose behalf a connection is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OnBehalf {
    /// Port 0 where only the address is known.
    pub client: SocketAddr,
    /// Where it came in; all zeros where that is no address.
    pub here: SocketAddr,
}

// === impl ProxyVersion ===

impl ProxyVersion {
    /// The bytes that come first. Nobody: the gateway itself asks, or a client that has no address.
    pub fn header(self, whom: Option<OnBehalf>) -> Vec<u8> {
        let header = match whom {
            None => ProxyHeader::with_local(),
            Some(OnBehalf { client, here }) => {
                let (client, here) = one_family(client, here);
                ProxyHeader::with_address(ProxiedAddress::stream(client, here))
            }
        };
        let mut bytes = Vec::with_capacity(108);
        let told = match self {
            ProxyVersion::V1 => header.encode_v1(&mut bytes),
            ProxyVersion::V2 => header.encode_v2(&mut bytes),
        };
        debug_assert!(told.is_ok(), "one family, and nothing beside the addresses");
        bytes
    }
}

impl fmt::Display for ProxyVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ProxyVersion::V1 => "v1",
            ProxyVersion::V2 => "v2",
        })
    }
}

/// A header has room for one: where only one of two is v6, the other is told in its clothes.
fn one_family(client: SocketAddr, here: SocketAddr) -> (SocketAddr, SocketAddr) {
    if client.is_ipv4() == here.is_ipv4() {
        return (client, here);
    }
    let mapped = |addr: SocketAddr| match addr.ip() {
        IpAddr::V4(v4) => SocketAddr::new(v4.to_ipv6_mapped().into(), addr.port()),
        IpAddr::V6(_) => addr,
    };
    (mapped(client), mapped(here))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proxy_header::ParseConfig;

    fn whom(client: &str, here: &str) -> Option<OnBehalf> {
        Some(OnBehalf { client: client.parse().unwrap(), here: here.parse().unwrap() })
    }

    #[test]
    fn version_1_is_a_line() {
        let line = |whom| String::from_utf8(ProxyVersion::V1.header(whom)).unwrap();
        assert_eq!(line(whom("192.0.2.1:1234", "10.0.0.1:80")), "PROXY TCP4 192.0.2.1 10.0.0.1 1234 80\r\n");
        assert_eq!(line(whom("[2001:db8::1]:0", "10.0.0.1:80")), "PROXY TCP6 2001:db8::1 ::ffff:10.0.0.1 0 80\r\n");
        assert_eq!(line(None), "PROXY UNKNOWN\r\n");
    }

    #[test]
    fn version_2_is_read_back_as_it_was_meant() {
        for told in [whom("192.0.2.1:1234", "10.0.0.1:80"), whom("[2001:db8::1]:9", "[::1]:443"), None] {
            let bytes = ProxyVersion::V2.header(told);
            let (header, length) = ProxyHeader::parse(&bytes, ParseConfig::default()).unwrap();
            assert_eq!(length, bytes.len());
            assert_eq!(header.proxied_address().map(|address| (address.source, address.destination)), told.map(|t| (t.client, t.here)));
        }
    }
}
