//! Reads one field line of `Forwarded` (RFC 7239 section 4). Does not decide which element to believe.

use std::net::IpAddr;

use smallvec::SmallVec;

use super::{read_address, read_scheme};
use crate::ctx::Scheme;

/// What one proxy says of the connection that it got.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Element {
    /// None where it is missing, `unknown` or hidden (`_name`).
    pub client: Option<IpAddr>,
    pub scheme: Option<Scheme>,
}

/// The elements from left to right. `None` where the line is malformed or an element repeats a parameter: then nothing in it
/// can be told apart safely, because what a client began may swallow what a proxy added.
pub(super) fn parse(line: &[u8]) -> Option<SmallVec<[Element; 4]>> {
    let mut elements = SmallVec::new();
    let mut rest = line;
    loop {
        // RFC 9110 section 5.6.1.2: empty elements do not count.
        rest = rest.trim_ascii_start();
        if let Some(after) = rest.strip_prefix(b",") {
            rest = after;
            continue;
        }
        if rest.is_empty() {
            return Some(elements);
        }
        let (element, after) = parse_element(rest)?;
        elements.push(element);
        rest = after;
    }
}

/// One `pair *( ";" pair )`, and what follows its comma.
fn parse_element(mut rest: &[u8]) -> Option<(Element, &[u8])> {
    let (mut client, mut scheme) = (None, None);
    loop {
        let (name, after) = token(rest)?;
        let (value, after) = value(after.strip_prefix(b"=")?)?;
        if name.eq_ignore_ascii_case(b"for") {
            set_once(&mut client, read_node(&value))?;
        } else if name.eq_ignore_ascii_case(b"proto") {
            set_once(&mut scheme, read_scheme(&value))?;
        }
        rest = after.trim_ascii_start();
        match rest.split_first() {
            None => break,
            Some((b',', after)) => {
                rest = after;
                break;
            }
            Some((b';', after)) => rest = after.trim_ascii_start(),
            Some(_) => return None,
        }
    }
    Some((Element { client: client.flatten(), scheme: scheme.flatten() }, rest))
}

/// Section 4: "Each parameter MUST NOT occur more than once per field-value" element.
fn set_once<T>(slot: &mut Option<T>, value: T) -> Option<()> {
    if slot.is_some() {
        return None;
    }
    *slot = Some(value);
    Some(())
}

/// Section 6: `192.0.2.1`, `192.0.2.1:port`, `[2001:db8::1]`, `[2001:db8::1]:port`; an IPv6 address needs its brackets.
fn read_node(text: &[u8]) -> Option<IpAddr> {
    read_address(text).filter(|address| address.is_ipv4() || text.starts_with(b"["))
}

fn token(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = text.iter().position(|byte| !is_token(*byte)).unwrap_or(text.len());
    (end > 0).then(|| text.split_at(end))
}

/// A token or a quoted string, unquoted. Colons and brackets need quotes (section 4).
fn value(text: &[u8]) -> Option<(SmallVec<[u8; 48]>, &[u8])> {
    let Some(mut rest) = text.strip_prefix(b"\"") else {
        return token(text).map(|(value, after)| (SmallVec::from_slice(value), after));
    };
    let mut plain = SmallVec::new();
    loop {
        match rest {
            [b'"', after @ ..] => return Some((plain, after)),
            [b'\\', escaped, after @ ..] => {
                plain.push(*escaped);
                rest = after;
            }
            [byte, after @ ..] => {
                plain.push(*byte);
                rest = after;
            }
            [] => return None,
        }
    }
}

/// RFC 9110 section 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}
