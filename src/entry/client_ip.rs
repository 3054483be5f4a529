//! Decides the client's address and scheme: what trusted proxies say of them. Does not judge the address: see `policy/ip_filter.rs`.
//!
//! `X-Forwarded-Host` is not read: the host that is routed is the one that goes upstream.

mod forwarded;

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use http::{HeaderMap, HeaderName};
use ipnet::{IpNet, Ipv4Net};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::diagnostic::Diagnostic;
use crate::config::types::At;
use crate::ctx::Scheme;
use crate::policy::ip_filter::Network;

pub const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
pub const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Who may say who the client is, and how.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClientsSettings {
    /// Networks of the proxies that are believed.
    pub trusted_proxies: At<Vec<At<Network>>>,
    /// `x-forwarded-for`, `forwarded`, or a header with one address such as `cf-connecting-ip`. Default `x-forwarded-for`.
    /// The scheme comes from `x-forwarded-proto`; with `forwarded` from its `proto`.
    pub header: Option<At<String>>,
}

/// How clients are found. The default trusts nobody.
#[derive(Clone, Debug)]
pub struct Clients {
    trusted: Vec<IpNet>,
    by: By,
}

/// Where a trusted proxy writes the client's address.
#[derive(Clone, Debug, PartialEq, Eq)]
enum By {
    /// A list of addresses, one added on the right by each proxy.
    XForwardedFor,
    /// RFC 7239.
    Forwarded,
    /// One address.
    Header(HeaderName),
}

/// Who the client is. IPv4 addresses written as IPv6 are IPv4 here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Client {
    pub address: IpAddr,
    /// The other end of the connection is a trusted proxy.
    pub peer_is_trusted: bool,
    /// The scheme between the client and the proxies, where a trusted peer says so.
    pub scheme: Option<Scheme>,
}

/// Headers that never hold the client's address.
const NO_ADDRESS: [&str; 8] =
    ["host", "x-forwarded-proto", "x-forwarded-host", "x-forwarded-port", "via", "connection", "content-length", "transfer-encoding"];

/// What can be wrong with `clients`.
pub const CODES: &[&str] = &["clients-without-proxies", "proxy-repeated", "clients-header-invalid"];

// === impl Clients ===

impl Default for Clients {
    fn default() -> Self {
        Clients { trusted: Vec::new(), by: By::XForwardedFor }
    }
}

impl Clients {
    /// Mistakes have the codes in [`CODES`].
    pub fn compile(settings: Option<&ClientsSettings>) -> Result<Self, Vec<Diagnostic>> {
        let Some(ClientsSettings { trusted_proxies, header }) = settings else { return Ok(Self::default()) };
        let mut wrong = Vec::new();
        if trusted_proxies.is_empty() {
            wrong.push(
                Diagnostic::at(
                    &trusted_proxies.place,
                    "clients-without-proxies",
                    "`trusted_proxies` is empty, so nothing under `clients` can take effect: expected at least one network",
                )
                .help("name the proxies that stand before the gateway, or leave out `clients`: then the client is the other end of the connection"),
            );
        }
        let mut trusted: Vec<IpNet> = Vec::with_capacity(trusted_proxies.len());
        for written in &trusted_proxies.value {
            let network = plain_network(written.0);
            if let Some(wider) = trusted.iter().find(|known| known.contains(&network)) {
                let message = format!("`{network}` is in `{wider}` already: expected each network once");
                wrong.push(Diagnostic::at(&written.place, "proxy-repeated", message));
            }
            trusted.push(network);
        }
        let by = match header {
            None => By::XForwardedFor,
            Some(name) => match HeaderName::from_bytes(name.as_bytes()) {
                Ok(name) if name == X_FORWARDED_FOR => By::XForwardedFor,
                Ok(name) if name == http::header::FORWARDED => By::Forwarded,
                Ok(name) if !NO_ADDRESS.contains(&name.as_str()) => By::Header(name),
                Ok(_) | Err(_) => {
                    let message = format!("`{}` is not a header with the client's address", name.value);
                    wrong.push(
                        Diagnostic::at(&name.place, "clients-header-invalid", message)
                            .help("expected `x-forwarded-for`, `forwarded`, or a header with one address such as `cf-connecting-ip`"),
                    );
                    By::XForwardedFor
                }
            },
        };
        if wrong.is_empty() { Ok(Clients { trusted, by }) } else { Err(wrong) }
    }

    /// Who the client is. What an untrusted peer says is not read.
    pub fn find(&self, peer: SocketAddr, headers: &HeaderMap) -> Client {
        let address = plain(peer.ip());
        if !self.trusts(address) {
            return Client { address, peer_is_trusted: false, scheme: None };
        }
        let (address, scheme) = match &self.by {
            By::XForwardedFor => (self.walk_x_forwarded_for(address, headers), forwarded_proto(headers)),
            By::Forwarded => self.walk_forwarded(address, headers),
            By::Header(name) => {
                let mut lines = headers.get_all(name).iter();
                let said = match (lines.next(), lines.next()) {
                    (Some(only), None) => read_address(only.as_bytes()),
                    (Some(_), Some(_)) | (None, _) => None,
                };
                (said.unwrap_or(address), forwarded_proto(headers))
            }
        };
        Client { address, peer_is_trusted: true, scheme }
    }

    pub fn trusts(&self, address: IpAddr) -> bool {
        self.trusted.iter().any(|network| network.contains(&address))
    }

    /// From right to left: each trusted proxy vouches for the entry before its own, and for nothing further left.
    fn walk_x_forwarded_for(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut client = peer;
        let lines = headers.get_all(&X_FORWARDED_FOR).iter().rev();
        for entry in lines.flat_map(|line| line.as_bytes().rsplit(|byte| *byte == b',')) {
            // RFC 9110 section 5.6.1.2: empty elements do not count.
            if entry.trim_ascii().is_empty() {
                continue;
            }
            let Some(address) = read_address(entry) else { return client };
            client = address;
            if !self.trusts(address) {
                return client;
            }
        }
        client
    }

    /// As above; the scheme is that of the element that names the client.
    fn walk_forwarded(&self, peer: IpAddr, headers: &HeaderMap) -> (IpAddr, Option<Scheme>) {
        let (mut client, mut scheme) = (peer, None);
        for line in headers.get_all(http::header::FORWARDED).iter().rev() {
            // Read as a whole, from the left: only so is a quoted comma told from one between elements.
            let Some(elements) = forwarded::parse(line.as_bytes()) else { return (client, scheme) };
            for element in elements.iter().rev() {
                let Some(address) = element.client else { return (client, scheme) };
                (client, scheme) = (address, element.scheme);
                if !self.trusts(address) {
                    return (client, scheme);
                }
            }
        }
        (client, scheme)
    }
}

/// `X-Forwarded-Proto` of a trusted peer. Of several the last counts: the one that the peer itself wrote.
fn forwarded_proto(headers: &HeaderMap) -> Option<Scheme> {
    let line = headers.get_all(&X_FORWARDED_PROTO).iter().next_back()?;
    read_scheme(line.as_bytes().rsplit(|byte| *byte == b',').next()?)
}

fn read_scheme(text: &[u8]) -> Option<Scheme> {
    let text = text.trim_ascii();
    if text.eq_ignore_ascii_case(b"https") {
        Some(Scheme::Https)
    } else if text.eq_ignore_ascii_case(b"http") {
        Some(Scheme::Http)
    } else {
        None
    }
}

/// `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]`, `[2001:db8::1]:80`; blanks around it.
fn read_address(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?.trim_matches([' ', '\t']);
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(plain(address));
    }
    let (address, port) = if let Some(rest) = text.strip_prefix('[') {
        let (address, after) = rest.split_once(']')?;
        (IpAddr::V6(address.parse::<Ipv6Addr>().ok()?), after.strip_prefix(':').or(after.is_empty().then_some("0"))?)
    } else {
        let (address, port) = text.split_once(':')?;
        (IpAddr::V4(address.parse().ok()?), port)
    };
    // RFC 7239 section 6.3: a port may be obfuscated; only the address matters here.
    let is_number = (1..=5).contains(&port.len()) && port.bytes().all(|byte| byte.is_ascii_digit());
    let is_hidden = port.len() > 1 && port.starts_with('_') && port.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
    (is_number || is_hidden).then(|| plain(address))
}

/// `::ffff:192.0.2.1` is 192.0.2.1: else a rule for the one could be passed by writing the other.
fn plain(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

/// A network of v4 addresses in v6 clothes as one of v4.
pub fn plain_network(network: IpNet) -> IpNet {
    match network {
        IpNet::V4(_) => network,
        IpNet::V6(v6) => match v6.addr().to_ipv4_mapped() {
            Some(v4) if v6.prefix_len() >= 96 => Ipv4Net::new(v4, v6.prefix_len() - 96).map_or(network, IpNet::V4),
            Some(_) | None => network,
        },
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;
    use crate::entry::testing::{Prng, at};

    fn settings(networks: &[&str], header: Option<&str>) -> ClientsSettings {
        let network = |text: &&str| at(Network(text.parse().unwrap()));
        ClientsSettings { trusted_proxies: at(networks.iter().map(network).collect()), header: header.map(|h| at(h.to_owned())) }
    }

    fn clients(header: &str) -> Clients {
        Clients::compile(Some(&settings(&["10.0.0.0/8", "2001:db8:1::/48"], Some(header)))).unwrap()
    }

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        lines.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_bytes(value.as_bytes()).unwrap())).collect()
    }

    fn codes(settings: &ClientsSettings) -> Vec<&'static str> {
        Clients::compile(Some(settings)).unwrap_err().into_iter().map(|wrong| wrong.code).collect()
    }

    #[test]
    fn x_forwarded_for_is_read_from_right_to_left_as_far_as_it_is_trusted() {
        let clients = clients("X-Forwarded-For");
        for (lines, expected) in [
            (&[][..], "10.0.0.1"),
            (&["192.0.2.7"], "192.0.2.7"),
            (&["203.0.113.9, 192.0.2.7"], "192.0.2.7"),
            (&["203.0.113.9, 192.0.2.7, 10.1.1.1"], "192.0.2.7"),
            (&["192.0.2.7,10.1.1.1 ,\t10.2.2.2"], "192.0.2.7"),
            (&["203.0.113.9", "192.0.2.7", "10.1.1.1"], "192.0.2.7"),
            (&["10.3.3.3, 10.2.2.2"], "10.3.3.3"),
            (&["192.0.2.7, , 10.2.2.2,"], "192.0.2.7"),
            (&["192.0.2.7, nonsense, 10.2.2.2"], "10.2.2.2"),
            (&["192.0.2.7, unknown"], "10.0.0.1"),
            (&["192.0.2.7, \u{e9}"], "10.0.0.1"),
            (&["192.0.2.7:4711"], "192.0.2.7"),
            (&["192.0.2.7:"], "10.0.0.1"),
            (&["192.0.2.7:123456"], "10.0.0.1"),
            (&["192.0.2.7:x"], "10.0.0.1"),
            (&["192.0.2.007"], "10.0.0.1"),
            (&["[2001:db8::5]:443"], "2001:db8::5"),
            (&["[2001:db8::5]"], "2001:db8::5"),
            (&["[2001:db8::5"], "10.0.0.1"),
            (&["[2001:db8::5]443"], "10.0.0.1"),
            (&["2001:db8::5"], "2001:db8::5"),
            (&["192.0.2.7, 2001:db8:1::9"], "192.0.2.7"),
            (&["::ffff:192.0.2.7"], "192.0.2.7"),
            (&["192.0.2.7, ::ffff:10.2.2.2"], "192.0.2.7"),
        ] {
            let lines: Vec<_> = lines.iter().map(|line| ("x-forwarded-for", *line)).collect();
            let found = clients.find("10.0.0.1:9".parse().unwrap(), &headers(&lines));
            assert_eq!(found.address, expected.parse::<IpAddr>().unwrap(), "{lines:?}");
            assert!(found.peer_is_trusted);
        }
    }

    #[test]
    fn forwarded_is_read_from_right_to_left_as_far_as_it_is_trusted() {
        let clients = clients("forwarded");
        let (http, https) = (Some(Scheme::Http), Some(Scheme::Https));
        for (lines, address, scheme) in [
            (&[][..], "10.0.0.1", None),
            (&["for=192.0.2.7"], "192.0.2.7", None),
            (&["For=192.0.2.7;Proto=HTTPS;by=10.0.0.1"], "192.0.2.7", https),
            (&["for=203.0.113.9;proto=https, for=192.0.2.7;proto=http"], "192.0.2.7", http),
            (&["for=192.0.2.7;proto=https, for=10.1.1.1;proto=http"], "192.0.2.7", https),
            (&["for=192.0.2.7;proto=https", "for=10.1.1.1;proto=http"], "192.0.2.7", https),
            (&["for=\"[2001:db8::5]:47011\";proto=https"], "2001:db8::5", https),
            (&["for=\"192.0.2.7:_port\""], "192.0.2.7", None),
            (&["for=\"\\192.0.2.7\""], "192.0.2.7", None),
            (&["for=203.0.113.9, for=unknown"], "10.0.0.1", None),
            (&["for=203.0.113.9, for=_hidden, for=10.1.1.1;proto=https"], "10.1.1.1", https),
            (&["for=203.0.113.9, proto=https"], "10.0.0.1", None),
            (&["for=203.0.113.9;for=203.0.113.10"], "10.0.0.1", None),
            (&["for=203.0.113.9, for=\"10.1.1.1"], "10.0.0.1", None),
            (&["x=\", for=192.0.2.7"], "10.0.0.1", None),
            (&["x=\", for=\"[2001:db8::5]\""], "10.0.0.1", None),
            (&["x=\"a, for=192.0.2.9\", for=10.1.1.1"], "10.1.1.1", None),
            (&["x=\"a, for=192.0.2.9\";for=192.0.2.7"], "192.0.2.7", None),
            (&["for=192.0.2.7 for=203.0.113.9"], "10.0.0.1", None),
            (&["for = 192.0.2.7"], "10.0.0.1", None),
            (&[", for=192.0.2.7 ; proto=http ,"], "192.0.2.7", http),
            (&["for=[2001:db8::5]"], "10.0.0.1", None),
        ] {
            let lines: Vec<_> = lines.iter().map(|line| ("forwarded", *line)).collect();
            let found = clients.find("10.0.0.1:9".parse().unwrap(), &headers(&lines));
            assert_eq!((found.address, found.scheme), (address.parse().unwrap(), scheme), "{lines:?}");
        }
    }

    #[test]
    fn any_other_header_holds_exactly_one_address() {
        let clients = clients("CF-Connecting-IP");
        let find = |values: &[&str]| {
            let lines: Vec<_> = values.iter().map(|value| ("cf-connecting-ip", *value)).collect();
            clients.find("10.0.0.1:9".parse().unwrap(), &headers(&lines)).address.to_string()
        };
        assert_eq!(find(&["192.0.2.7"]), "192.0.2.7");
        assert_eq!(find(&["10.9.9.9"]), "10.9.9.9");
        assert_eq!(find(&["192.0.2.7", "192.0.2.7"]), "10.0.0.1");
        assert_eq!(find(&["192.0.2.7, 192.0.2.8"]), "10.0.0.1");
        assert_eq!(find(&["nobody"]), "10.0.0.1");
        assert_eq!(find(&[]), "10.0.0.1");
    }

    #[test]
    fn an_untrusted_peer_says_nothing() {
        let lies =
            headers(&[("x-forwarded-for", "203.0.113.1"), ("x-forwarded-proto", "https"), ("forwarded", "for=203.0.113.1;proto=https")]);
        for clients in [clients("x-forwarded-for"), clients("forwarded"), Clients::default(), Clients::compile(None).unwrap()] {
            let found = clients.find("192.0.2.50:9".parse().unwrap(), &lies);
            assert_eq!(found, Client { address: "192.0.2.50".parse().unwrap(), peer_is_trusted: false, scheme: None });
        }
    }

    #[test]
    fn a_peer_written_as_ipv6_is_its_ipv4_self() {
        let found = clients("x-forwarded-for").find("[::ffff:10.0.0.1]:9".parse().unwrap(), &headers(&[("x-forwarded-for", "192.0.2.7")]));
        assert_eq!(found.address, "192.0.2.7".parse::<IpAddr>().unwrap());
        let found = Clients::default().find("[::ffff:10.0.0.1]:9".parse().unwrap(), &HeaderMap::new());
        assert_eq!(found.address, "10.0.0.1".parse::<IpAddr>().unwrap());
        let mapped = Clients::compile(Some(&settings(&["::ffff:10.0.0.0/104"], None))).unwrap();
        assert!(mapped.trusts("10.200.0.1".parse().unwrap()));
    }

    #[test]
    fn the_scheme_is_the_last_that_the_trusted_peer_wrote() {
        let clients = clients("x-forwarded-for");
        for (lines, expected) in [
            (&["https"][..], Some(Scheme::Https)),
            (&["HTTP"], Some(Scheme::Http)),
            (&["https, http"], Some(Scheme::Http)),
            (&["http", "https"], Some(Scheme::Https)),
            (&["wss"], None),
            (&[""], None),
            (&[], None),
        ] {
            let lines: Vec<_> = lines.iter().map(|line| ("x-forwarded-proto", *line)).collect();
            assert_eq!(clients.find("10.0.0.1:9".parse().unwrap(), &headers(&lines)).scheme, expected, "{lines:?}");
        }
    }

    #[test]
    fn whatever_a_client_writes_before_a_proxy_s_own_words_never_makes_another_address() {
        let mut random = Prng::new(13);
        let pieces =
            ["for=", "203.0.113.9", "\"", ",", ";", "=", "[", "]", ":", "\\", " ", "_x", "unknown", "proto=https", "by", "a\u{e9}"];
        let (lists, elements) = (clients("x-forwarded-for"), clients("forwarded"));
        for _ in 0..20_000 {
            let lie: String = (0..random.below(7)).map(|_| pieces[random.below(pieces.len())]).collect();
            let said = format!("{lie}, 192.0.2.7");
            let found = lists.find("10.0.0.1:9".parse().unwrap(), &headers(&[("x-forwarded-for", &said)]));
            assert_eq!(found.address.to_string(), "192.0.2.7", "{said}");
            for own in ["for=192.0.2.7", "for=\"192.0.2.7\"", "by=x;for=192.0.2.7;proto=http", "for=\"192.0.2.7:80\";host=\"a,b\""] {
                let said = format!("{lie}, {own}");
                let found = elements.find("10.0.0.1:9".parse().unwrap(), &headers(&[("forwarded", &said)]));
                assert!(["192.0.2.7", "10.0.0.1"].contains(&found.address.to_string().as_str()), "{said}: {}", found.address);
            }
        }
    }

    #[test]
    fn settings_that_cannot_take_effect_are_mistakes() {
        assert_eq!(codes(&settings(&[], None)), ["clients-without-proxies"]);
        assert_eq!(codes(&settings(&["10.0.0.0/8", "10.1.0.0/16"], None)), ["proxy-repeated"]);
        assert_eq!(codes(&settings(&["10.0.0.0/8", "::ffff:10.1.0.0/112"], None)), ["proxy-repeated"]);
        for header in ["", "x forwarded", "Host", "via", "X-Forwarded-Proto"] {
            assert_eq!(codes(&settings(&["10.0.0.0/8"], Some(header))), ["clients-header-invalid"], "{header}");
        }
        assert_eq!(codes(&settings(&[], Some("a b"))), ["clients-without-proxies", "clients-header-invalid"]);
    }
}
