//! The name of a limit, and how answers spell it: made once, told with every request. Decides nothing.

use std::ops::Deref;
use std::sync::Arc;

use super::pace::Pace;
use super::spelling::Piece;

/// What logs and metrics call a limit, or a plan, and the texts about it that hardly ever change.
#[derive(Clone, Debug)]
pub struct Label {
    name: Arc<str>,
    /// The size of the bucket, and the seconds in which it fills: as they are in `head` and `whole`.
    counts: (u32, u64),
    /// The fields of a tightest limit, up to what is left.
    head: Piece,
    whole: Member,
    /// The same of other windows, by their seconds.
    windows: Box<[(u64, Member)]>,
    /// The name as a String of a List of structured fields (RFC 9651 sections 4.1.1 and 4.1.6), up to the value of `q` and `r`.
    policy: Member,
    state: Member,
    room: usize,
}

/// A member of a List, or the beginning of one.
#[derive(Clone, Debug)]
pub struct Member {
    first: Piece,
    /// Behind a comma.
    next: Piece,
}

// === impl Label ===

impl Label {
    /// `lengths` are those that windows have beside the usual one, in seconds.
    pub fn new(name: &Arc<str>, pace: &Pace, lengths: &[u64]) -> Label {
        let mut quoted = b"\"".to_vec();
        for byte in name.bytes() {
            match byte {
                b'"' | b'\\' => quoted.extend([b'\\', byte]),
                0x20..=0x7e => quoted.push(byte),
                // Strings are ASCII; names of limits hardly ever are not.
                _ => quoted.push(b'?'),
            }
        }
        let before = |parameter: &str| Member::new(&[&quoted, parameter.as_bytes()].concat());
        let (size, window) = (pace.size(), pace.window());
        let of_window = |window: u64| before(&format!("\";q={size};w={window}"));
        let (whole, policy, state) = (of_window(window), before("\";q="), before("\";r="));
        let windows: Box<[_]> = lengths.iter().map(|length| (*length, of_window(*length))).collect();
        let members = windows.iter().map(|(_, member)| member).chain([&whole, &policy]);
        let room = members.map(|member| member.next.room()).max().unwrap_or(0) + state.next.room();
        let head = Piece::new(format!("x-ratelimit-limit: {size}\r\nx-ratelimit-remaining: ").as_bytes());
        Label { name: name.clone(), counts: (size, window), head, whole, windows, policy, state, room }
    }

    /// The lines of a tightest limit up to what is left, and where its size stands in them; none where it has another size now.
    #[inline]
    pub fn head(&self, size: u32) -> Option<&Piece> {
        (self.counts.0 == size).then_some(&self.head)
    }

    /// All that is said of it once and for all; none where it counts otherwise now, as a part of a limit does.
    #[inline]
    pub fn whole(&self, size: u32, window: u64) -> Option<&Member> {
        match self.counts.0 == size {
            true if self.counts.1 == window => Some(&self.whole),
            true => self.windows.iter().find(|(length, _)| *length == window).map(|(_, member)| member),
            false => None,
        }
    }

    /// The seconds in which the bucket fills.
    #[inline]
    pub fn window(&self) -> u64 {
        self.counts.1
    }

    /// Up to its size.
    #[inline]
    pub fn policy(&self) -> &Member {
        &self.policy
    }

    /// Up to what is left.
    #[inline]
    pub fn state(&self) -> &Member {
        &self.state
    }

    /// The most that the pieces of [`whole`](Label::whole) or [`policy`](Label::policy), and of [`state`](Label::state) take.
    #[inline]
    pub fn room(&self) -> usize {
        self.room
    }
}

// === impl Member ===

impl Member {
    fn new(text: &[u8]) -> Member {
        Member { first: Piece::new(text), next: Piece::new(&[b", ", text].concat()) }
    }

    #[inline]
    pub fn place(&self, is_first: bool) -> &Piece {
        if is_first { &self.first } else { &self.next }
    }
}

impl Deref for Label {
    type Target = str;

    fn deref(&self) -> &str {
        &self.name
    }
}
