//! Where a listener listens: an IP address and port, or the path of a Unix socket.
//!
//! Decides how that is written. Does not bind it: see `accept.rs` and `socket_file.rs`.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::{self, Deserializer};

/// An address, such as `0.0.0.0:8080` or `unix:/run/sluice/public.sock`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub enum Address {
    Ip(SocketAddr),
    Unix(SocketPath),
}

/// A path, as long as the kernel lets that of a socket be.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SocketPath {
    bytes: [u8; MOST_BYTES],
    length: u8,
}

const MOST_BYTES: usize = 107;

/// Who is at the other end of a Unix socket, as long as nobody says more: a process of this machine.
pub const LOCAL: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

// === impl Address ===

impl Address {
    pub fn ip(&self) -> Option<SocketAddr> {
        match self {
            Address::Ip(address) => Some(*address),
            Address::Unix(_) => None,
        }
    }

    pub fn is_unix(&self) -> bool {
        self.ip().is_none()
    }
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some(path) = text.strip_prefix("unix:") else {
            // In the words of the standard library, which the reader of configurations knows.
            return text.parse().map(Address::Ip).map_err(|e: std::net::AddrParseError| e.to_string());
        };
        if !path.starts_with('/') || path.ends_with('/') || path.contains('\0') {
            return Err(format!(
                "`{text}` is not the path of a socket: expected one that begins with `/`, such as `unix:/run/sluice/public.sock`"
            ));
        }
        if path.len() > MOST_BYTES {
            return Err(format!("the path of a socket may have {MOST_BYTES} bytes; this one has {}", path.len()));
        }
        let mut bytes = [0; MOST_BYTES];
        bytes[..path.len()].copy_from_slice(path.as_bytes());
        Ok(Address::Unix(SocketPath { bytes, length: path.len() as u8 }))
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Address::Ip(address)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Ip(address) => address.fmt(f),
            Address::Unix(path) => write!(f, "unix:{}", path.path().display()),
        }
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Text;
        impl de::Visitor<'_> for Text {
            type Value = Address;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("socket address")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Address, E> {
                text.parse().map_err(E::custom)
            }
        }
        d.deserialize_str(Text)
    }
}

impl JsonSchema for Address {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Address".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string" })
    }
}

// === impl SocketPath ===

impl SocketPath {
    pub fn path(&self) -> &Path {
        let bytes = &self.bytes[..usize::from(self.length)];
        Path::new(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_read_as_they_are_written() {
        for text in ["0.0.0.0:8080", "[::]:8080", "unix:/run/sluice/public.sock"] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        let longest = format!("unix:/{}", "x".repeat(106));
        assert_eq!(longest.parse::<Address>().unwrap().to_string(), longest);
        for text in ["localhost:80", "unix:", "unix:run/x", "unix:/run/", "unix:/a\0b", &format!("{longest}x"), "/run/x.sock"] {
            assert!(text.parse::<Address>().is_err(), "{text:?}");
        }
    }
}
