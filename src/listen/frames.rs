//! Follows the frames that go to a client through a WebSocket, so that the gateway can say goodbye between two of them.
//!
//! Decides where one frame ends and the next begins (RFC 6455 section 5.2), and what a Close frame looks like (section 5.5.1). Looks at
//! headers of frames only; messages and extensions are nobody's business here. A control frame may stand between the fragments of a
//! message (section 5.4), so the end of a frame is enough.

/// Where in the stream of frames the next byte stands.
#[derive(Debug, Default)]
pub struct Frames {
    state: State,
    /// What there is of a frame's header.
    header: [u8; 14],
}

#[derive(Debug, Default)]
enum State {
    /// In the head of the answer that switches protocols; so many bytes of the empty line at its end have come.
    Head(u8),
    /// Between two frames.
    #[default]
    Between,
    /// In a frame's header, of which so many bytes have come.
    Header(usize),
    /// In a payload that has so many bytes left.
    Payload(u64),
    /// The server has closed: nothing may follow.
    Closed,
}

const CLOSE: u8 = 0x8;
const FIN: u8 = 0x80;

// === impl Frames ===

impl Frames {
    /// Begins at the head of an answer with status 101.
    pub fn behind_a_head() -> Self {
        Frames { state: State::Head(0), header: [0; 14] }
    }

    /// Whether a frame may be put in here.
    pub fn is_between(&self) -> bool {
        matches!(self.state, State::Between)
    }

    /// Takes note of what was sent.
    pub fn feed(&mut self, mut bytes: &[u8]) {
        while let [first, rest @ ..] = bytes {
            match &mut self.state {
                State::Closed => return,
                State::Payload(left) => {
                    let skipped = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                    *left -= skipped as u64;
                    bytes = &bytes[skipped..];
                    if *left == 0 {
                        self.end_frame();
                    }
                    continue;
                }
                State::Head(matched) => {
                    *matched = match (*matched, first) {
                        (0 | 2, b'\r') | (1 | 3, b'\n') => *matched + 1,
                        (_, b'\r') => 1,
                        (_, _) => 0,
                    };
                    if *matched == 4 {
                        self.state = State::Between;
                    }
                }
                State::Between => self.header(0, *first),
                State::Header(count) => {
                    let count = *count;
                    self.header(count, *first);
                }
            }
            bytes = rest;
        }
    }

    fn header(&mut self, count: usize, byte: u8) {
        self.header[count] = byte;
        let count = count + 1;
        self.state = State::Header(count);
        let [_, second, ..] = self.header;
        if count < 2 {
            return;
        }
        let extended = match second & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let mask = if second & 0x80 == 0 { 0 } else { 4 };
        if count < 2 + extended + mask {
            return;
        }
        let length = match extended {
            0 => u64::from(second & 0x7f),
            _ => self.header[2..2 + extended].iter().fold(0, |length, byte| length << 8 | u64::from(*byte)),
        };
        self.state = State::Payload(length);
        if length == 0 {
            self.end_frame();
        }
    }

    fn end_frame(&mut self) {
        self.state = if self.header[0] & 0x0f == CLOSE { State::Closed } else { State::Between };
    }
}

/// A Close frame of a server's (RFC 6455 sections 5.5.1 and 7.4).
pub fn close_frame(code: u16, reason: &'static str) -> Vec<u8> {
    let mut frame = vec![FIN | CLOSE, u8::try_from(2 + reason.len()).unwrap_or(2)];
    frame.extend_from_slice(&code.to_be_bytes());
    if reason.len() <= 123 {
        frame.extend_from_slice(reason.as_bytes());
    }
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    /// For each byte, whether a frame may be put in behind it.
    fn places(bytes: &[u8], step: usize) -> Vec<bool> {
        let mut frames = Frames::behind_a_head();
        let mut places = Vec::new();
        for piece in bytes.chunks(step) {
            frames.feed(piece);
            places.push(frames.is_between());
        }
        places
    }

    #[test]
    fn the_ends_of_frames_are_found_however_they_are_cut() {
        let head = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n".to_vec();
        let mut all = head.clone();
        let mut ends = vec![all.len()];
        for frame in [
            [&[0x81, 5][..], b"hello"].concat(),
            [&[0x01, 0][..]].concat(),
            [&[0xc2, 126, 1, 0][..], &[0x88; 256]].concat(),
            [&[0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0][..], &[0; 65_536]].concat(),
            [&[0x89, 0x81, 1, 2, 3, 4][..], b"x"].concat(),
        ] {
            all.extend(frame);
            ends.push(all.len());
        }
        let found: Vec<usize> = places(&all, 1).iter().enumerate().filter(|(_, is_end)| **is_end).map(|(at, _)| at + 1).collect();
        assert_eq!(found, ends);
        for step in [2, 3, 7, 1000, 1 << 20] {
            let expected: Vec<bool> = (0..all.len().div_ceil(step)).map(|n| ends.contains(&((n + 1) * step).min(all.len()))).collect();
            assert_eq!(places(&all, step), expected, "by {step}");
        }
    }

    #[test]
    fn nothing_follows_a_close_frame() {
        let mut frames = Frames::default();
        frames.feed(&[0x81, 1, b'a']);
        assert!(frames.is_between());
        frames.feed(&close_frame(1000, "bye"));
        assert!(!frames.is_between());
        frames.feed(&[0x81, 1, b'a']);
        assert!(!frames.is_between());
    }

    #[test]
    fn a_close_frame_says_its_code_and_reason() {
        assert_eq!(close_frame(1008, "token expired"), [&[0x88, 15, 0x03, 0xf0][..], b"token expired"].concat());
    }
}
