//! The name of a limit, and how answers spell it: made once, told with every request. Decides nothing.

use std::ops::Deref;
use std::sync::Arc;

use super::pace::Pace;

/// What logs and metrics call a limit, or a plan, and the texts about it that hardly ever change.
#[derive(Clone, Debug)]
pub struct Label {
    name: Arc<str>,
    /// The size of the bucket, and the seconds in which it fills: as they are in `whole`.
    counts: (u32, u64),
    whole: Box<[u8]>,
    /// The name as the next String of a List of structured fields (RFC 9651 sections 4.1.1 and 4.1.6), up to the value of `q` and `r`.
    policy: Box<[u8]>,
    state: Box<[u8]>,
}

/// Before every member of a List but the first.
pub const COMMA: usize = 2;

// === impl Label ===

impl Label {
    pub fn new(name: &Arc<str>, pace: &Pace) -> Label {
        let mut quoted = b", \"".to_vec();
        for byte in name.bytes() {
            match byte {
                b'"' | b'\\' => quoted.extend([b'\\', byte]),
                0x20..=0x7e => quoted.push(byte),
                // Strings are ASCII; names of limits hardly ever are not.
                _ => quoted.push(b'?'),
            }
        }
        let before = |parameter: &[u8]| [&quoted, parameter].concat();
        let (size, window) = (pace.size(), pace.window());
        Label {
            name: name.clone(),
            counts: (size, window),
            whole: before(format!("\";q={size};w={window}").as_bytes()).into(),
            policy: before(b"\";q=").into(),
            state: before(b"\";r=").into(),
        }
    }

    /// All that is said of it once and for all, after a [`COMMA`]; none where it counts otherwise now, as windows of a calendar do.
    pub fn whole(&self, size: u32, window: u64) -> Option<&[u8]> {
        (self.counts == (size, window)).then_some(&*self.whole)
    }

    /// Up to its size.
    pub fn policy(&self) -> &[u8] {
        &self.policy
    }

    /// Up to what is left.
    pub fn state(&self) -> &[u8] {
        &self.state
    }
}

impl Deref for Label {
    type Target = str;

    fn deref(&self) -> &str {
        &self.name
    }
}
