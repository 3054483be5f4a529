//! Cuts one direction of a connection of HTTP/2 into frames (RFC 9113 section 4.1). Decides nothing: see `watch.rs`.

/// The header of a frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Head {
    pub length: u32,
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
}

/// What there is of the frame that is on its way.
#[derive(Debug, Default)]
pub struct Frames {
    header: [u8; HEADER],
    /// So many bytes of it have come.
    have: usize,
    head: Head,
    /// So many bytes of its payload are to come.
    left: u32,
    /// The first bytes of the payload: the reason of a reset.
    word: [u8; 4],
}

/// A moment in a frame's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// Its header is complete.
    Begun(Head),
    /// Its payload is complete, which begins with these bytes.
    Ended(Head, [u8; 4]),
}

const HEADER: usize = 9;

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const ACK: u8 = 1;
pub const END_HEADERS: u8 = 4;

// === impl Frames ===

impl Frames {
    /// Tells what is in the next bytes.
    pub fn feed(&mut self, mut bytes: &[u8], mut tell: impl FnMut(Moment)) {
        while !bytes.is_empty() {
            if self.have < HEADER {
                let taken = bytes.len().min(HEADER - self.have);
                self.header[self.have..self.have + taken].copy_from_slice(&bytes[..taken]);
                self.have += taken;
                bytes = &bytes[taken..];
                if self.have < HEADER {
                    return;
                }
                let [a, b, c, kind, flags, stream @ ..] = self.header;
                let length = u32::from_be_bytes([0, a, b, c]);
                self.head = Head { length, kind, flags, stream: u32::from_be_bytes(stream) & (u32::MAX >> 1) };
                self.left = length;
                tell(Moment::Begun(self.head));
            } else {
                let at = (self.head.length - self.left) as usize;
                let taken = bytes.len().min(self.left as usize);
                for (slot, byte) in self.word.iter_mut().skip(at).zip(&bytes[..taken]) {
                    *slot = *byte;
                }
                self.left -= u32::try_from(taken).unwrap_or(self.left);
                bytes = &bytes[taken..];
            }
            if self.left == 0 {
                self.have = 0;
                tell(Moment::Ended(self.head, self.word));
            }
        }
    }

    /// Whether a frame has begun that is not complete; of DATA only the header counts.
    pub fn is_owed(&self) -> bool {
        self.have > 0 && (self.have < HEADER || self.head.kind != DATA)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_found_however_they_are_cut() {
        let reset = [&[0, 0, 4, RST_STREAM, 0, 0x80, 0, 0, 5][..], &[0, 0, 0, 8]].concat();
        let data = [&[0, 1, 0, DATA, END_STREAM, 0, 0, 0, 7][..], &[9; 256]].concat();
        let empty = vec![0, 0, 0, SETTINGS, 1, 0, 0, 0, 0];
        let all = [reset, data, empty].concat();
        let heads = [
            Head { length: 4, kind: RST_STREAM, flags: 0, stream: 5 },
            Head { length: 256, kind: DATA, flags: END_STREAM, stream: 7 },
            Head { length: 0, kind: SETTINGS, flags: 1, stream: 0 },
        ];
        for step in [1, 2, 5, 9, 10, 13, 14, 100, 1000] {
            let mut frames = Frames::default();
            let mut told = Vec::new();
            for piece in all.chunks(step) {
                frames.feed(piece, |moment| told.push(moment));
            }
            let begun: Vec<_> =
                told.iter().filter_map(|moment| if let Moment::Begun(head) = moment { Some(*head) } else { None }).collect();
            assert_eq!(begun, heads, "by {step}");
            assert_eq!(told[1], Moment::Ended(heads[0], [0, 0, 0, 8]), "by {step}");
            assert_eq!((told.len(), frames.is_owed()), (6, false), "by {step}");
        }
    }

    #[test]
    fn a_frame_is_owed_until_it_is_complete() {
        let mut frames = Frames::default();
        let mut owed = |bytes: &[u8]| {
            frames.feed(bytes, |_| {});
            frames.is_owed()
        };
        assert!(!owed(&[]));
        assert!(owed(&[0, 0]));
        assert!(owed(&[2, HEADERS, 0, 0, 0, 0, 1]));
        assert!(owed(&[1]));
        assert!(!owed(&[1]));
        assert!(!owed(&[0, 0, 2, DATA, 0, 0, 0, 0, 1, 7]), "a body has a deadline of its own");
        assert!(owed(&[7, 0]));
    }
}
