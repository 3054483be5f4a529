//! Addresses as text, for headers and log lines: a quarter of the work of the formatter, once or twice a request. Decides nothing.

use std::io::Write;
use std::net::IpAddr;
use std::ops::Deref;

/// An address as `Display` writes it, without the heap.
#[derive(Clone, Copy, Debug)]
pub struct AddressText {
    bytes: [u8; LONGEST],
    len: usize,
}

/// Of a v6 address with a v4 one inside.
const LONGEST: usize = 45;

// === impl AddressText ===

impl AddressText {
    pub fn of(address: IpAddr) -> AddressText {
        let mut text = AddressText { bytes: [0; LONGEST], len: 0 };
        match address {
            IpAddr::V4(v4) => {
                for (place, octet) in v4.octets().into_iter().enumerate() {
                    if place > 0 {
                        text.push(b'.');
                    }
                    if octet >= 100 {
                        text.push(b'0' + octet / 100);
                    }
                    if octet >= 10 {
                        text.push(b'0' + octet / 10 % 10);
                    }
                    text.push(b'0' + octet % 10);
                }
            }
            IpAddr::V6(v6) => {
                let mut free = &mut text.bytes[..];
                // No address is longer than the room there is.
                let _ = write!(free, "{v6}");
                text.len = LONGEST - free.len();
            }
        }
        text
    }

    fn push(&mut self, byte: u8) {
        self.bytes[self.len] = byte;
        self.len += 1;
    }
}

impl Deref for AddressText {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_read_as_their_display() {
        for written in [
            "0.0.0.0",
            "9.10.99.100",
            "127.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "2001:db8::7",
            "::ffff:192.0.2.1",
            "2001:db8:aaaa:bbbb:cccc:dddd:eeee:ffff",
        ] {
            let address: IpAddr = written.parse().unwrap();
            assert_eq!(*AddressText::of(address), *written.as_bytes());
        }
    }
}
