//! The echo's WebSocket side (RFC 6455): the handshake, then every frame back as it came.
//!
//! Does not check that text is UTF-8 (section 8.1), nor does it speak extensions: it is there to see whether a gateway tunnels.

use std::io;

use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::connection::Wire;

/// RFC 6455 section 1.3.
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// Sent as the reason of a close: 1002, protocol error.
const PROTOCOL_ERROR: [u8; 4] = [0x88, 2, 0x03, 0xea];

/// The head of a client's frame (section 5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FrameHead {
    fin: bool,
    opcode: u8,
    mask: [u8; 4],
    length: u64,
}

/// `Sec-WebSocket-Accept` for a key; `None` where the key is not 16 bytes in base64 (section 4.2.1).
pub(super) fn accept(key: &str) -> Option<String> {
    if STANDARD.decode(key).ok()?.len() != 16 {
        return None;
    }
    let mut sha1 = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    sha1.update(key.as_bytes());
    sha1.update(GUID.as_bytes());
    Some(STANDARD.encode(sha1.finish()))
}

/// Sends frames back until one of the sides closes. A frame's payload is passed on in pieces, whatever its length.
pub(super) async fn echo(wire: &mut Wire) -> io::Result<()> {
    loop {
        let Some(head) = FrameHead::read(wire).await? else {
            wire.stream.write_all(&PROTOCOL_ERROR).await?;
            return wire.stream.shutdown().await;
        };
        let opcode = if head.opcode == PING { PONG } else { head.opcode };
        let mut out = vec![u8::from(head.fin) << 7 | opcode];
        match head.length {
            n @ 0..=125 => out.push(n as u8),
            n @ 126..=0xffff => {
                out.push(126);
                out.extend_from_slice(&(n as u16).to_be_bytes());
            }
            n => {
                out.push(127);
                out.extend_from_slice(&n.to_be_bytes());
            }
        }
        // An unasked pong needs no answer (section 5.5.3); its payload is read all the same.
        let is_answered = head.opcode != PONG;
        let mut left = head.length;
        let mut at = 0usize;
        loop {
            while left > 0 && !wire.buffer.is_empty() {
                let n = wire.buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                out.extend(wire.buffer.split_to(n).iter().enumerate().map(|(i, byte)| byte ^ head.mask[(at + i) & 3]));
                at = (at + n) & 3;
                left -= n as u64;
            }
            if is_answered {
                wire.stream.write_all(&out).await?;
            }
            out.clear();
            if left == 0 {
                break;
            }
            wire.need().await?;
        }
        if head.opcode == CLOSE {
            return wire.stream.shutdown().await;
        }
    }
}

// === impl FrameHead ===

impl FrameHead {
    /// `None` for what a client must not send.
    async fn read(wire: &mut Wire) -> io::Result<Option<Self>> {
        loop {
            match FrameHead::parse(&wire.buffer) {
                Ok(Some((head, length))) => {
                    let _ = wire.buffer.split_to(length);
                    return Ok(Some(head));
                }
                Ok(None) => wire.need().await?,
                Err(()) => return Ok(None),
            }
        }
    }

    /// The head and its length in bytes, `None` while some are missing.
    fn parse(bytes: &[u8]) -> Result<Option<(Self, usize)>, ()> {
        let &[first, second, ref rest @ ..] = bytes else { return Ok(None) };
        let opcode = first & 0x0f;
        let fin = first & 0x80 != 0;
        let is_control = opcode >= 8;
        let short = second & 0x7f;
        // Reserved bits, unmasked frames, unknown opcodes, long or fragmented control frames (sections 5.1, 5.2, 5.5).
        if first & 0x70 != 0 || second & 0x80 == 0 || !matches!(opcode, 0..=2 | CLOSE..=PONG) || (is_control && (!fin || short > 125)) {
            return Err(());
        }
        let (length, used) = match short {
            126 => match rest.first_chunk::<2>() {
                Some(n) => (u64::from(u16::from_be_bytes(*n)), 2),
                None => return Ok(None),
            },
            127 => match rest.first_chunk::<8>() {
                Some(n) => (u64::from_be_bytes(*n), 8),
                None => return Ok(None),
            },
            n => (u64::from(n), 0),
        };
        if length >> 63 != 0 {
            return Err(());
        }
        let Some(mask) = rest.get(used..).and_then(|rest| rest.first_chunk::<4>()) else { return Ok(None) };
        Ok(Some((FrameHead { fin, opcode, mask: *mask, length }, 2 + used + 4)))
    }
}

impl Wire {
    /// Reads more; an end here is an error, since a frame is incomplete or a close was not said.
    async fn need(&mut self) -> io::Result<()> {
        match self.stream.read_buf(&mut self.buffer).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_accept_value_is_that_of_the_rfc() {
        assert_eq!(accept("dGhlIHNhbXBsZSBub25jZQ==").as_deref(), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
        assert_eq!(accept("c2hvcnQ="), None);
        assert_eq!(accept("???"), None);
    }

    #[test]
    fn a_frame_head_is_read_in_all_three_lengths_and_from_every_prefix() {
        for (bytes, length) in [
            (vec![0x81, 0x85, 1, 2, 3, 4], 5),
            (vec![0x02, 0xfe, 0x01, 0x00, 1, 2, 3, 4], 256),
            (vec![0x82, 0xff, 0, 0, 0, 0, 0, 1, 0, 0, 1, 2, 3, 4], 65536),
        ] {
            for prefix in 0..bytes.len() {
                assert_eq!(FrameHead::parse(&bytes[..prefix]), Ok(None));
            }
            let (head, used) = FrameHead::parse(&bytes).unwrap().unwrap();
            assert_eq!((head.length, head.mask, used), (length, [1, 2, 3, 4], bytes.len()));
        }
    }

    #[test]
    fn what_a_client_must_not_send_is_refused() {
        let unmasked = [0x81, 0x05];
        let reserved = [0xc1, 0x85];
        let unknown = [0x83, 0x85];
        let fragmented_ping = [0x09, 0x80];
        let long_ping = [0x89, 0xfe];
        for bytes in [unmasked, reserved, unknown, fragmented_ping, long_ping] {
            assert_eq!(FrameHead::parse(&bytes), Err(()), "{bytes:x?}");
        }
    }
}
