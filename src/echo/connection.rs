//! One connection of the echo: HTTP/1.1 requests in turn (RFC 9112), each described or answered as the file of answers says.
//!
//! Reads strictly, so that what a gateway forwards wrongly is refused here and not guessed at. Does not choose answers: see `answers.rs`.

use std::sync::Arc;

use aws_lc_rs::digest;
use bytes::{Buf, BytesMut};
use http::{Method, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;

use super::answers::{Answer, Content, End};
use super::head::{Framing, Head, Stop};
use super::{Recorded, Shared, websocket};

/// Larger than what a gateway lets through, so that the gateway's bound is the one that is met.
const HEAD_LIMIT: usize = 1 << 20;
/// How much of a body is shown.
pub(super) const SHOWN: usize = 1024;
/// A chunk's head, or a line of a trailer.
const LINE_LIMIT: usize = 8192;

/// A socket and what was read from it and not used yet.
pub(super) struct Wire {
    pub(super) stream: TcpStream,
    pub(super) buffer: BytesMut,
}

/// What has been learnt of a body while it passed.
pub(super) struct Body {
    pub(super) bytes: u64,
    pub(super) sha256: digest::Context,
    pub(super) shown: Vec<u8>,
    /// As on the wire, and its content; only where requests are recorded.
    recorded: Option<(Vec<u8>, Vec<u8>)>,
}

/// Serves a connection until one side closes it or `stop` turns true between requests.
pub(super) async fn serve(stream: TcpStream, number: u64, shared: Arc<Shared>, mut stop: watch::Receiver<bool>) {
    // Only slower without it.
    let _ = stream.set_nodelay(true);
    let mut wire = Wire { stream, buffer: BytesMut::with_capacity(8192) };
    loop {
        match wire.answer_one(number, &shared, &mut stop).await {
            Ok(true) => {}
            Ok(false) => break,
            Err(Stop::Io) => return,
            Err(Stop::Refuse(status, why)) => {
                let text = format!("{why}\n");
                let head = format!(
                    "HTTP/1.1 {status}\r\ncontent-type: text/plain\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{text}",
                    text.len()
                );
                let _ = wire.stream.write_all(head.as_bytes()).await;
                let _ = wire.stream.shutdown().await;
                // What was not read yet would turn the close into a reset and could cut off the answer at the client.
                wire.drain().await;
                return;
            }
        }
    }
    let _ = wire.stream.shutdown().await;
}

// === impl Wire ===

impl Wire {
    /// Whether another request may follow.
    async fn answer_one(&mut self, number: u64, shared: &Shared, stop: &mut watch::Receiver<bool>) -> Result<bool, Stop> {
        if self.buffer.is_empty() {
            tokio::select! {
                biased;
                n = self.stream.read_buf(&mut self.buffer) => if n? == 0 { return Ok(false) },
                _ = stop.wait_for(|stopped| *stopped) => return Ok(false),
            }
        }
        let Some(head) = self.read_head().await? else { return Ok(false) };
        if head.field("expect").is_some_and(|value| value.eq_ignore_ascii_case(b"100-continue")) {
            self.stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
        }
        let body = self.read_body(head.framing, shared.recorded.is_some()).await?;
        if let (Some(recorded), Some((raw, content))) = (&shared.recorded, &body.recorded) {
            recorded.lock().push(Recorded { connection: number, head: head.raw.clone(), body: raw.clone(), content: content.clone() });
        }
        let found = shared.answers.find(&head.method, &head.path);
        if found.is_none_or(|answer| answer.content == Content::Description) && head.wants_websocket() {
            if !found.is_none_or(|answer| answer.delay.is_zero()) {
                tokio::time::sleep(found.map(|answer| answer.delay).unwrap_or_default()).await;
            }
            return self.upgrade(&head).await;
        }
        let default;
        let answer = match found {
            Some(answer) => answer,
            None => {
                default = Answer::default();
                &default
            }
        };
        if !answer.delay.is_zero() {
            tokio::time::sleep(answer.delay).await;
        }
        if answer.end == End::Reset {
            self.stream.set_zero_linger()?;
            return Err(Stop::Io);
        }
        let may_go_on = !head.is_last && answer.end == End::KeepAlive && !*stop.borrow();
        self.write_answer(answer, &head, body, &shared.name, may_go_on).await?;
        Ok(may_go_on)
    }

    /// `None` where the other side closed instead of asking.
    async fn read_head(&mut self) -> Result<Option<Head>, Stop> {
        loop {
            // RFC 9112 section 2.2: an empty line before a request is skipped.
            while self.buffer.starts_with(b"\r\n") {
                self.buffer.advance(2);
            }
            if !self.buffer.is_empty()
                && let Some((head, length)) = Head::parse(&self.buffer)?
            {
                self.buffer.advance(length);
                return Ok(Some(head));
            }
            if self.buffer.len() > HEAD_LIMIT {
                return Err(Stop::Refuse(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "the head is larger than 1 MiB"));
            }
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return if self.buffer.is_empty() { Ok(None) } else { Err(Stop::Io) };
            }
        }
    }

    async fn read_body(&mut self, framing: Framing, is_recorded: bool) -> Result<Body, Stop> {
        let mut body = Body {
            bytes: 0,
            sha256: digest::Context::new(&digest::SHA256),
            shown: Vec::new(),
            recorded: is_recorded.then(Default::default),
        };
        match framing {
            Framing::Length(length) => self.read_exactly(length, &mut body).await?,
            Framing::Chunked => loop {
                let line = self.read_line(&mut body).await?;
                let size = line.split(|byte| *byte == b';').next().unwrap_or_default();
                let size = std::str::from_utf8(size).unwrap_or_default().trim_end_matches([' ', '\t']);
                if size.is_empty() || size.len() > 15 || !size.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                    return Err(Stop::Refuse(StatusCode::BAD_REQUEST, "the size of a chunk is not a hexadecimal number"));
                }
                let size = u64::from_str_radix(size, 16).unwrap_or(u64::MAX);
                if size == 0 {
                    while !self.read_line(&mut body).await?.is_empty() {}
                    break;
                }
                self.read_exactly(size, &mut body).await?;
                if !self.read_line(&mut body).await?.is_empty() {
                    return Err(Stop::Refuse(StatusCode::BAD_REQUEST, "a chunk is longer than it said"));
                }
            },
        }
        Ok(body)
    }

    async fn read_exactly(&mut self, length: u64, body: &mut Body) -> Result<(), Stop> {
        let mut left = length;
        while left > 0 {
            if self.buffer.is_empty() && self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(Stop::Io);
            }
            let n = self.buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            body.take(&self.buffer[..n]);
            self.buffer.advance(n);
            left -= n as u64;
        }
        Ok(())
    }

    /// A line that ends with CRLF, without it.
    async fn read_line(&mut self, body: &mut Body) -> Result<Vec<u8>, Stop> {
        loop {
            if let Some(end) = memchr::memchr(b'\n', &self.buffer) {
                let line = self.buffer.split_to(end + 1);
                if let Some((raw, _)) = &mut body.recorded {
                    raw.extend_from_slice(&line);
                }
                return match line.strip_suffix(b"\r\n") {
                    Some(line) if !line.contains(&b'\r') => Ok(line.to_vec()),
                    _ => Err(Stop::Refuse(StatusCode::BAD_REQUEST, "a line of the body does not end with CR LF")),
                };
            }
            if self.buffer.len() > LINE_LIMIT {
                return Err(Stop::Refuse(StatusCode::BAD_REQUEST, "a line of the body is too long"));
            }
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(Stop::Io);
            }
        }
    }

    async fn write_answer(&mut self, answer: &Answer, head: &Head, body: Body, name: &str, may_go_on: bool) -> Result<(), Stop> {
        let (fixed, length) = match &answer.content {
            Content::Description => {
                let text = head.describe(body, name);
                let length = text.len() as u64;
                (text, length)
            }
            Content::Fixed(bytes) => (bytes.to_vec(), bytes.len() as u64),
            Content::Filler(length) => (Vec::new(), *length),
        };
        let mut out = format!("HTTP/1.1 {}\r\n", answer.status).into_bytes();
        for (name, value) in &answer.headers {
            out.extend_from_slice(name.as_str().as_bytes());
            out.extend_from_slice(b": ");
            out.extend_from_slice(value.as_bytes());
            out.extend_from_slice(b"\r\n");
        }
        let has_no_body = answer.status == StatusCode::NO_CONTENT || answer.status == StatusCode::NOT_MODIFIED;
        let is_chunked = answer.chunked && head.minor == 1 && !has_no_body;
        if answer.content == Content::Description && !has_no_body {
            out.extend_from_slice(b"content-type: application/json\r\n");
        }
        if is_chunked {
            out.extend_from_slice(b"transfer-encoding: chunked\r\n");
        } else if !has_no_body {
            out.extend_from_slice(format!("content-length: {length}\r\n").as_bytes());
        }
        if !may_go_on {
            out.extend_from_slice(b"connection: close\r\n");
        }
        out.extend_from_slice(b"\r\n");
        if has_no_body || head.method == Method::HEAD {
            return Ok(self.stream.write_all(&out).await?);
        }
        match &answer.content {
            Content::Description | Content::Fixed(_) => {
                push(&mut out, &fixed, is_chunked);
                if is_chunked {
                    out.extend_from_slice(b"0\r\n\r\n");
                }
                self.stream.write_all(&out).await?;
            }
            Content::Filler(length) => {
                // 26 x 2520 letters: every piece begins with `a`.
                let piece: Vec<u8> = (b'a'..=b'z').cycle().take(65_520).collect();
                let mut left = *length;
                while left > 0 {
                    let n = left.min(piece.len() as u64);
                    push(&mut out, &piece[..n as usize], is_chunked);
                    self.stream.write_all(&out).await?;
                    out.clear();
                    left -= n;
                }
                if is_chunked {
                    out.extend_from_slice(b"0\r\n\r\n");
                }
                self.stream.write_all(&out).await?;
            }
        }
        Ok(())
    }

    /// RFC 6455 section 4.2.2.
    async fn upgrade(&mut self, head: &Head) -> Result<bool, Stop> {
        if head.field("sec-websocket-version") != Some(b"13") {
            self.stream
                .write_all(b"HTTP/1.1 426 Upgrade Required\r\nsec-websocket-version: 13\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
                .await?;
            return Ok(false);
        }
        let key = head.field("sec-websocket-key").and_then(|key| std::str::from_utf8(key).ok()).and_then(websocket::accept);
        let Some(accept) = key else {
            return Err(Stop::Refuse(StatusCode::BAD_REQUEST, "Sec-WebSocket-Key is not 16 bytes in base64"));
        };
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\nsec-websocket-accept: {accept}\r\n\r\n"
        );
        self.stream.write_all(answer.as_bytes()).await?;
        websocket::echo(self).await?;
        Ok(false)
    }

    /// Reads for a moment what still comes.
    async fn drain(&mut self) {
        let rest = async {
            let mut left = 1 << 20;
            let mut trash = [0; 4096];
            while let Ok(n @ 1..) = self.stream.read(&mut trash).await {
                left -= n.min(left);
                if left == 0 {
                    break;
                }
            }
        };
        let _ = tokio::time::timeout(std::time::Duration::from_millis(500), rest).await;
    }
}

fn push(out: &mut Vec<u8>, bytes: &[u8], is_chunked: bool) {
    if !is_chunked {
        return out.extend_from_slice(bytes);
    }
    if !bytes.is_empty() {
        out.extend_from_slice(format!("{:x}\r\n", bytes.len()).as_bytes());
        out.extend_from_slice(bytes);
        out.extend_from_slice(b"\r\n");
    }
}

// === impl Body ===

impl Body {
    fn take(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        self.sha256.update(bytes);
        let room = SHOWN - self.shown.len();
        self.shown.extend_from_slice(&bytes[..bytes.len().min(room)]);
        if let Some((raw, content)) = &mut self.recorded {
            raw.extend_from_slice(bytes);
            content.extend_from_slice(bytes);
        }
    }
}
