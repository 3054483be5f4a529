//! Decides the canonical form of an authority: host in lower case, without a final dot; port as a number.

use std::io::Write;
use std::net::Ipv6Addr;

use smallvec::SmallVec;

/// `host[:port]` in canonical form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Authority {
    pub text: SmallVec<[u8; 40]>,
    /// How much of `text` is the host.
    pub host_len: usize,
    pub port: Option<u16>,
}

/// The longest name (RFC 1035 section 2.3.4). Also keeps the search for wildcard hosts short.
const LONGEST: usize = 253;

// === impl Authority ===

impl Authority {
    /// Reads `uri-host [ ":" port ]` (RFC 9110 section 7.2). The error says what is wrong, for the client.
    pub fn parse(raw: &[u8]) -> Result<Self, &'static str> {
        let mut text = SmallVec::new();
        let after = if raw.first() == Some(&b'[') {
            let end = raw.iter().position(|byte| *byte == b']').ok_or("The host has an open bracket.")?;
            let inner = std::str::from_utf8(&raw[1..end]).ok().and_then(|inner| inner.parse::<Ipv6Addr>().ok());
            let address = inner.ok_or("The host in brackets is not an IPv6 address.")?;
            // Written again, because an address has many spellings.
            let mut buffer = [0; 48];
            let mut unused = &mut buffer[..];
            write!(unused, "[{address}]").expect("the longest IPv6 address has 45 characters");
            let written = 48 - unused.len();
            text.extend_from_slice(&buffer[..written]);
            &raw[end + 1..]
        } else {
            let end = raw.iter().position(|byte| *byte == b':').unwrap_or(raw.len());
            push_name(&raw[..end], &mut text)?;
            &raw[end..]
        };
        let host_len = text.len();
        let port = read_port(after)?;
        if let Some(port) = port {
            text.push(b':');
            text.extend_from_slice(itoa::Buffer::new().format(port).as_bytes());
        }
        Ok(Authority { text, host_len, port })
    }

    pub fn host(&self) -> &[u8] {
        &self.text[..self.host_len]
    }
}

/// Letters, digits, `-`, `_` (not in the letter of RFC 952, but in use) and single dots between. RFC 3986 would let more
/// through in a registered name; none of it names a host, and each has a second reading somewhere.
fn push_name(name: &[u8], text: &mut SmallVec<[u8; 40]>) -> Result<(), &'static str> {
    let name = name.strip_suffix(b".").unwrap_or(name);
    if name.is_empty() {
        return Err("The host is empty.");
    }
    if name.len() > LONGEST {
        return Err("The host is longer than 253 characters.");
    }
    let mut previous = b'.';
    for byte in name {
        match byte {
            b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' => {}
            b'A'..=b'Z' => {}
            b'.' if previous != b'.' => {}
            b'.' => return Err("The host has an empty label."),
            b'@' => return Err("The host has user information before it."),
            _ => return Err("The host has a character that no host name has."),
        }
        text.push(byte.to_ascii_lowercase());
        previous = *byte;
    }
    if previous == b'.' { Err("The host has an empty label.") } else { Ok(()) }
}

/// RFC 3986 section 3.2.3: digits; none after the colon is no port.
fn read_port(after: &[u8]) -> Result<Option<u16>, &'static str> {
    const WRONG: &str = "The port is not a number from 1 to 65535.";
    let digits = match after.split_first() {
        None => return Ok(None),
        Some((b':', digits)) => digits,
        Some(_) => return Err("The host has characters behind its bracket."),
    };
    if digits.is_empty() {
        return Ok(None);
    }
    if digits.len() > 5 {
        return Err(WRONG);
    }
    let mut port: u32 = 0;
    for digit in digits {
        if !digit.is_ascii_digit() {
            return Err(WRONG);
        }
        port = port * 10 + u32::from(digit - b'0');
    }
    u16::try_from(port).ok().filter(|port| *port > 0).map(Some).ok_or(WRONG)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_have_one_spelling() {
        for (sent, canonical, host, port) in [
            ("api.example.com", "api.example.com", "api.example.com", None),
            ("API.Example.COM:8080", "api.example.com:8080", "api.example.com", Some(8080)),
            ("api.example.com.", "api.example.com", "api.example.com", None),
            ("api.example.com.:80", "api.example.com:80", "api.example.com", Some(80)),
            ("a:", "a", "a", None),
            ("a:080", "a:80", "a", Some(80)),
            ("a_b-c.d", "a_b-c.d", "a_b-c.d", None),
            ("127.0.0.1:1", "127.0.0.1:1", "127.0.0.1", Some(1)),
            ("[2001:DB8:0:0::1]:443", "[2001:db8::1]:443", "[2001:db8::1]", Some(443)),
            ("[::1]", "[::1]", "[::1]", None),
            ("[::1]:", "[::1]", "[::1]", None),
        ] {
            let authority = Authority::parse(sent.as_bytes()).unwrap_or_else(|why| panic!("{sent}: {why}"));
            assert_eq!(std::str::from_utf8(&authority.text), Ok(canonical));
            assert_eq!(std::str::from_utf8(authority.host()), Ok(host));
            assert_eq!(authority.port, port, "{sent}");
            assert_eq!(Authority::parse(canonical.as_bytes()), Ok(authority), "{canonical} is not canonical");
        }
    }

    #[test]
    fn what_is_no_host_is_refused() {
        let long = "a".repeat(254);
        for bad in [
            "",
            ".",
            "..",
            ".a",
            "a..b",
            "a..",
            "a b",
            " a",
            "a\t",
            "a/b",
            "a?b",
            "a#b",
            "a\\b",
            "a@b",
            "user:pw@a",
            "a,b",
            "a%2eb",
            "*.a",
            "a:b",
            "a:0",
            "a:65536",
            "a:99999999999999999999",
            "a:-1",
            "a:+1",
            "a:1:2",
            "::1",
            "[::1",
            "[::1]a",
            "[::1]:x",
            "[]",
            "[fe80::1%25eth0]",
            "[v1.x]",
            "[127.0.0.1]",
            "caf\u{e9}",
            "a\u{0}",
            &long,
        ] {
            assert!(Authority::parse(bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(Authority::parse("a".repeat(253).as_bytes()).is_ok());
    }
}
