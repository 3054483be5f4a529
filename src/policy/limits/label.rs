//! The name of a limit, and how answers spell it: made once, told with every request. Decides nothing.

use std::ops::Deref;
use std::sync::Arc;

/// What logs and metrics call a limit, or a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    name: Arc<str>,
    /// As a String of structured fields (RFC 9651 section 4.1.6).
    quoted: Box<[u8]>,
}

// === impl Label ===

impl Label {
    pub fn new(name: &Arc<str>) -> Label {
        let mut quoted = vec![b'"'];
        for byte in name.bytes() {
            match byte {
                b'"' | b'\\' => quoted.extend([b'\\', byte]),
                0x20..=0x7e => quoted.push(byte),
                // Strings are ASCII; names of limits hardly ever are not.
                _ => quoted.push(b'?'),
            }
        }
        quoted.push(b'"');
        Label { name: name.clone(), quoted: quoted.into() }
    }

    pub fn quoted(&self) -> &[u8] {
        &self.quoted
    }
}

impl Deref for Label {
    type Target = str;

    fn deref(&self) -> &str {
        &self.name
    }
}
