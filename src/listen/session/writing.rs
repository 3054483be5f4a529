//! Writes an answer: its head, and its body as the head has framed it.
//!
//! Decides what the head says of the connection, and where an answer ends (RFC 9112 section 6). What is written is gathered in the stream, so that
//! a small answer is one packet.

use bytes::BytesMut;
use http::{HeaderName, Method, StatusCode, Version, header};
use pingora_core::ErrorType::{Custom, InternalError, WriteError};
use pingora_core::protocols::http::HttpTask;
use pingora_core::{Error, OrErr, Result};
use pingora_http::ResponseHeader;
use tokio::io::AsyncWriteExt;

use super::super::beside::Beside;
use super::super::stream::Socket;
use super::Http1;
use crate::clock;

/// The answer, and what has been written of it.
#[derive(Default)]
pub struct Writing {
    frame: Frame,
    head: Option<Box<ResponseHeader>>,
    /// Bytes of the body, without framing.
    pub sent: usize,
    /// All of it has gone out.
    is_done: bool,
    /// It broke off, and will not be complete.
    is_given_up: bool,
}

/// How the body ends.
#[derive(Clone, Copy, Default)]
enum Frame {
    /// No final head has been written.
    #[default]
    Unknown,
    Length(u64),
    Chunked,
    /// With the connection.
    ToClose,
    Ended,
}

// === impl Writing ===

impl Writing {
    pub fn written(&self) -> Option<&ResponseHeader> {
        self.head.as_deref()
    }

    pub fn is_done(&self) -> bool {
        self.is_done && !self.is_given_up
    }

    /// The client has some of a final answer.
    pub fn has_begun(&self) -> bool {
        !matches!(self.frame, Frame::Unknown)
    }

    /// Nothing but the end of the connection would tell the client that the answer is whole.
    pub fn ends_with_connection(&self) -> bool {
        matches!(self.frame, Frame::ToClose)
    }

    pub fn give_up(&mut self) {
        self.is_given_up = true;
    }

    /// Nothing of the body is to come.
    fn is_ended(&self) -> bool {
        matches!(self.frame, Frame::Ended | Frame::Length(0))
    }

    /// Whether a head goes out at once: nothing follows it, or nobody knows when something will.
    pub fn flushes_head(&self) -> bool {
        match self.frame {
            Frame::Length(length) => length == 0,
            Frame::Unknown | Frame::Chunked | Frame::ToClose | Frame::Ended => true,
        }
    }
}

impl Frame {
    /// Of a final head, for a client that asked by this method.
    fn of(head: &ResponseHeader, method: &Method) -> Frame {
        if *method == Method::HEAD || matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
            return Frame::Length(0);
        }
        if head.headers.contains_key(header::TRANSFER_ENCODING) {
            return Frame::Chunked;
        }
        let length = head.headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        length.map_or(Frame::ToClose, Frame::Length)
    }
}

impl<S: Socket> Http1<S> {
    /// Puts a head into what is gathered. A second final one is dropped, as Pingora does.
    pub(super) async fn write_head(&mut self, head: Box<ResponseHeader>) -> Result<()> {
        if self.writing.head.as_ref().is_some_and(|head| !head.status.is_informational() || self.is_tunnel) {
            return Ok(());
        }
        let is_switch = head.status == StatusCode::SWITCHING_PROTOCOLS;
        if is_switch {
            self.keep = false;
            if self.request.asks_upgrade && head.version == Version::HTTP_11 {
                self.is_tunnel = true;
                self.reading.open_tunnel();
            }
            self.writing.frame = Frame::ToClose;
        } else if !head.status.is_informational() {
            self.writing.frame = Frame::of(&head, &self.request.header.method);
            self.keep &= (self.reading.is_done() || self.drain.is_some())
                && !self.conn.is_closing()
                && !matches!(self.writing.frame, Frame::ToClose);
        }
        let connection = (!head.status.is_informational()).then_some(if self.keep { &b"keep-alive"[..] } else { b"close" });
        let beside = if connection.is_some() { self.conn.take_beside() } else { Beside::default() };
        let stream = self.stream()?;
        match is_switch {
            // In one piece, and not together with what follows: that is no HTTP any more.
            true => {
                let mut text = BytesMut::with_capacity(256);
                put_head(&head, connection, &[], &mut text);
                stream.write_all(&text).await.or_err(WriteError, "writing a head")?;
            }
            false => put_head(&head, connection, beside.text(), stream.gathered()),
        }
        self.conn.return_beside(beside);
        self.writing.head = Some(head);
        Ok(())
    }

    /// Writes a piece of the body; more than the head has said is cut off.
    pub(super) async fn write_piece(&mut self, mut piece: &[u8]) -> Result<()> {
        let frame = self.writing.frame;
        if let Frame::Length(left) = frame {
            let most = usize::try_from(left).unwrap_or(usize::MAX);
            piece = &piece[..piece.len().min(most)];
            self.writing.frame = Frame::Length(left - piece.len() as u64);
        }
        if piece.is_empty() {
            return Ok(());
        }
        let stream = self.stream()?;
        match frame {
            Frame::Unknown | Frame::Ended => return Ok(()),
            Frame::Length(_) | Frame::ToClose => stream.write_all(piece).await.or_err(WriteError, "writing a body")?,
            Frame::Chunked => {
                put_size(piece.len(), stream.gathered());
                stream.write_all(piece).await.or_err(WriteError, "writing a body")?;
                stream.gathered().extend_from_slice(b"\r\n");
            }
        }
        self.writing.sent += piece.len();
        Ok(())
    }

    /// The answer is complete, or has to be: what its framing still needs is written.
    pub(super) async fn end(&mut self) -> Result<()> {
        let frame = std::mem::replace(&mut self.writing.frame, Frame::Ended);
        match frame {
            Frame::Unknown => {
                self.writing.frame = Frame::Unknown;
                return self.flush().await;
            }
            Frame::Length(left) if left > 0 => {
                self.writing.give_up();
                return Error::e_explain(Custom("PrematureBodyEnd"), format!("{left} bytes are missing"));
            }
            Frame::Length(_) | Frame::ToClose | Frame::Ended => {}
            Frame::Chunked => self.stream()?.gathered().extend_from_slice(b"0\r\n\r\n"),
        }
        if self.is_tunnel {
            self.reading.close_tunnel();
        }
        self.flush().await?;
        self.writing.is_done = true;
        self.conn.note_answered();
        Ok(())
    }

    pub(super) async fn flush(&mut self) -> Result<()> {
        self.stream()?.flush().await.or_err(WriteError, "flushing an answer")
    }

    /// Writes what has come of an answer. True: that was all of it.
    pub(super) async fn write_tasks(&mut self, tasks: Vec<HttpTask>) -> Result<bool> {
        let mut is_end = false;
        for task in tasks {
            is_end = match task {
                HttpTask::Header(head, end) => {
                    self.write_head(head).await.map_err(|e| e.into_down())?;
                    end
                }
                HttpTask::Body(piece, end) => {
                    self.write_part(piece.as_deref(), false).await?;
                    end
                }
                HttpTask::UpgradedBody(piece, end) => {
                    self.write_part(piece.as_deref(), true).await?;
                    end
                }
                HttpTask::Trailer(_) | HttpTask::Done => true,
                HttpTask::Failed(e) => {
                    // What there is goes out: it tells the client that there was an answer.
                    self.flush().await.map_err(|e| e.into_down())?;
                    return Err(e);
                }
            };
        }
        let done = match is_end {
            true => self.end().await,
            false => self.flush().await,
        };
        done.map_err(|e| e.into_down())?;
        Ok(is_end || self.writing.is_ended())
    }

    async fn write_part(&mut self, piece: Option<&[u8]>, is_tunnel: bool) -> Result<()> {
        if is_tunnel != self.is_tunnel {
            return Error::e_explain(InternalError, "only one side has switched protocols");
        }
        self.write_piece(piece.unwrap_or_default()).await.map_err(|e| e.into_down())
    }
}

/// A whole answer, after which the connection ends.
pub fn closing_answer(head: &ResponseHeader, body: &[u8]) -> BytesMut {
    let mut text = BytesMut::with_capacity(512 + body.len());
    put_head(head, Some(b"close"), &[], &mut text);
    text.extend_from_slice(body);
    text
}

/// RFC 9112 section 4. `connection` is what the head says of it; `None` for 1xx, whose own fields stay. `beside`: whole lines that it has, too.
fn put_head(head: &ResponseHeader, connection: Option<&[u8]>, beside: &[u8], out: &mut BytesMut) {
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(head.status.as_str().as_bytes());
    out.extend_from_slice(b" ");
    out.extend_from_slice(head.get_reason_phrase().unwrap_or_default().as_bytes());
    out.extend_from_slice(b"\r\n");
    for (name, value) in &head.headers {
        if connection.is_some() && (*name == header::CONNECTION || *name == header::DATE) {
            continue;
        }
        put_field(spelt(name).as_bytes(), value.as_bytes(), out);
    }
    out.extend_from_slice(beside);
    if let Some(connection) = connection {
        out.extend_from_slice(b"Date: ");
        clock::append_date(out);
        out.extend_from_slice(b"\r\nConnection: ");
        out.extend_from_slice(connection);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"\r\n");
}

fn put_field(name: &[u8], value: &[u8], out: &mut BytesMut) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// RFC 9112 section 7.1: the line before the data of a chunk.
fn put_size(size: usize, out: &mut BytesMut) {
    let digits = (usize::BITS - size.leading_zeros()).div_ceil(4).max(1);
    for digit in (0..digits).rev() {
        out.extend_from_slice(&[b"0123456789ABCDEF"[size >> (4 * digit) & 15]]);
    }
    out.extend_from_slice(b"\r\n");
}

/// Common names as they are usually written; the others stay in lower case (RFC 9110 section 5.1 makes no difference).
fn spelt(name: &HeaderName) -> &str {
    match *name {
        header::ACCEPT_RANGES => "Accept-Ranges",
        header::AGE => "Age",
        header::CACHE_CONTROL => "Cache-Control",
        header::CONNECTION => "Connection",
        header::CONTENT_ENCODING => "Content-Encoding",
        header::CONTENT_LENGTH => "Content-Length",
        header::CONTENT_TYPE => "Content-Type",
        header::DATE => "Date",
        header::SERVER => "Server",
        header::SET_COOKIE => "Set-Cookie",
        header::TRANSFER_ENCODING => "Transfer-Encoding",
        _ => name.as_str(),
    }
}
