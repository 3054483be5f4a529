//! One stream of HTTP/2: reads of the request's body, writes of the answer, the clocks of both. As Pingora's proxy sees it: `session.rs`.
//!
//! Decides when a client has been silent in a body for too long, when it takes an answer too slowly, and with which code a stream is
//! given up. Does not decide which streams become requests: see `judge.rs`. Ours rather than Pingora's session of HTTP/2, because that
//! one has no read timeout, drops informational answers, and can be made only by an acceptor that refuses streams without a word in the log.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, HeaderName, Method, Response, StatusCode, header};
use pingora_core::protocols::http::body_buffer::FixedBuffer;
use pingora_core::protocols::http::date::get_cached_date;
use pingora_core::protocols::{Digest, SocketDigest};
use pingora_core::{Error, ErrorType, Result};
use pingora_http::{RequestHeader, ResponseHeader};

use super::super::alarm::Alarm;
use super::super::conn::ConnInfo;
use super::super::pace::{BODY_TOO_SLOW, Pace, READER_TOO_SLOW};
use super::super::stream::Demands;
use crate::clock;
use crate::relay::attempt::deadline::Overdue;

/// As much of a request's body as is kept for another attempt; what Pingora keeps of HTTP/1.
pub(super) const RETRY_BYTES: usize = 64 << 10;

/// A request and the way back to its client.
pub struct Stream {
    pub(super) head: RequestHeader,
    body: RecvStream,
    respond: SendResponse<Bytes>,
    writer: Option<SendStream<Bytes>>,
    pub(super) written: Option<Box<ResponseHeader>>,
    /// All of the body has been read, trailers included.
    is_read: bool,
    /// The last frame of the answer has been handed over.
    is_ended: bool,
    pub(super) body_read: usize,
    pub(super) body_sent: usize,
    pub(super) retry: Option<FixedBuffer>,
    pub(super) digest: Digest,
    conn: Arc<ConnInfo>,
    pub(super) demands: Demands,
    pub(super) drain_timeout: Option<Duration>,
    /// Rings when the upstream's answer is overdue: see `relay/attempt/deadline.rs`.
    overdue: Alarm,
    reading: Pace,
    writing: Pace,
    silence: Alarm,
    stuck: Alarm,
    reset: Reason,
}

// === impl Stream ===

impl Stream {
    /// `conn` is the stream's own.
    pub fn new(
        head: RequestHeader,
        body: RecvStream,
        respond: SendResponse<Bytes>,
        conn: Arc<ConnInfo>,
        socket: Arc<SocketDigest>,
        demands: Demands,
    ) -> Self {
        let digest = Digest { proxy_digest: conn.digest(), socket_digest: Some(socket), ..Digest::default() };
        Stream {
            head,
            is_read: body.is_end_stream(),
            body,
            respond,
            writer: None,
            written: None,
            is_ended: false,
            body_read: 0,
            body_sent: 0,
            retry: None,
            digest,
            conn,
            demands,
            drain_timeout: None,
            overdue: Alarm::default(),
            reading: Pace::default(),
            writing: Pace::default(),
            silence: Alarm::default(),
            stuck: Alarm::default(),
            reset: Reason::INTERNAL_ERROR,
        }
    }

    pub(super) fn has_no_body(&self) -> bool {
        let is_zero = || self.head.headers.get(header::CONTENT_LENGTH).is_some_and(|length| length.as_bytes() == b"0");
        self.body_read == 0 && (self.is_read || self.body.is_end_stream() || is_zero())
    }

    pub(super) fn is_all_read(&self) -> bool {
        self.is_read || self.body.is_end_stream() || self.has_no_body()
    }

    /// The next piece of the body, `None` at its end.
    pub(super) fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>>> {
        self.conn.deadline.taken();
        loop {
            if self.is_read {
                return Poll::Ready(Ok(None));
            }
            if let Some(over) = self.conn.deadline.over() {
                // However busy the client is.
                return Poll::Ready(Err(overdue(over)));
            }
            match self.body.poll_data(cx) {
                Poll::Ready(Some(Ok(data))) => {
                    self.reading.progress(data.len(), self.demands.body);
                    self.body_read += data.len();
                    // Fails only where the stream is gone, which the next read tells.
                    let _ = self.body.flow_control().release_capacity(data.len());
                    if data.is_empty() && !self.body.is_end_stream() {
                        continue;
                    }
                    if let Some(retry) = &mut self.retry {
                        retry.write_to_buffer(&data);
                    }
                    return Poll::Ready(Ok(Some(data)));
                }
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(read_error(error))),
                Poll::Ready(None) => {
                    // Trailers of a request go nowhere: an upstream of HTTP/1 does not get them, so none does.
                    ready!(self.body.poll_trailers(cx)).map_err(read_error)?;
                    self.is_read = true;
                }
                Poll::Pending => {
                    let until = self.reading.wait(self.demands.body);
                    if self.silence.poll_past(cx, until).is_ready() {
                        if self.reading.is_behind() {
                            self.conn.set_fault(&BODY_TOO_SLOW);
                        }
                        self.reset = Reason::CANCEL;
                        return Poll::Ready(Err(Error::explain(ErrorType::ReadTimedout, "the client is slow in its body").into_down()));
                    }
                    return self.poll_overdue(cx);
                }
            }
        }
    }

    /// Ends with an error when the client resets the stream or goes away.
    pub(super) fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>>> {
        self.conn.deadline.taken();
        let reset = match &mut self.writer {
            Some(writer) => writer.poll_reset(cx),
            None => self.respond.poll_reset(cx),
        };
        match reset {
            Poll::Ready(Ok(reason)) => {
                Poll::Ready(Err(Error::explain(ErrorType::H2Error, format!("the client reset the stream: {reason}")).into_down()))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(read_error(error))),
            Poll::Pending => self.poll_overdue(cx),
        }
    }

    fn poll_overdue<T>(&mut self, cx: &mut Context<'_>) -> Poll<Result<T>> {
        let Some((at, what)) = self.conn.deadline.due() else { return Poll::Pending };
        ready!(self.overdue.poll_past(cx, clock::instant(at)));
        Poll::Ready(Err(overdue(what)))
    }

    /// Waits for room for something of `wanted` bytes; says for how much there is some.
    fn poll_room(&mut self, cx: &mut Context<'_>, wanted: usize) -> Poll<Result<usize>> {
        let Some(writer) = &mut self.writer else { return Poll::Ready(Err(no_head())) };
        loop {
            let room = writer.capacity().min(wanted);
            if room > 0 {
                self.writing.progress(room, self.demands.answer);
                return Poll::Ready(Ok(room));
            }
            match writer.poll_capacity(cx) {
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(write_error(error))),
                Poll::Ready(None) => {
                    return Poll::Ready(Err(Error::explain(ErrorType::WriteError, "the client reset the stream").into_down()));
                }
                Poll::Pending => {
                    let until = self.writing.wait(self.demands.answer);
                    self.conn.deadline.put_off(clock::mono_of(until));
                    if self.stuck.poll_past(cx, until).is_pending() {
                        let Some((at, what)) = self.conn.deadline.end() else { return Poll::Pending };
                        ready!(self.overdue.poll_past(cx, clock::instant(at)));
                        self.reset = Reason::CANCEL;
                        return Poll::Ready(Err(overdue(what)));
                    }
                    self.conn.set_fault(&READER_TOO_SLOW);
                    self.reset = Reason::CANCEL;
                    return Poll::Ready(Err(Error::explain(ErrorType::WriteTimedout, "the client does not read").into_down()));
                }
            }
        }
    }

    pub(super) async fn send(&mut self, mut data: Bytes, end: bool) -> Result<()> {
        if self.is_ended {
            return Ok(());
        }
        if data.is_empty() {
            return if end { self.end() } else { Ok(()) };
        }
        while !data.is_empty() {
            let Some(writer) = &mut self.writer else { return Err(no_head()) };
            writer.reserve_capacity(data.len());
            let room = poll_fn(|cx| self.poll_room(cx, data.len())).await?;
            let part = data.split_to(room);
            let is_last = end && data.is_empty();
            let Some(writer) = &mut self.writer else { return Err(no_head()) };
            writer.send_data(part, is_last).map_err(write_error)?;
            self.body_sent += room;
            if is_last {
                self.note_end();
            }
        }
        Ok(())
    }

    /// Ends an answer that is complete.
    pub(super) fn end(&mut self) -> Result<()> {
        if let Some(writer) = &mut self.writer
            && !self.is_ended
        {
            self.is_ended = true;
            writer.send_data(Bytes::new(), true).map_err(write_error)?;
            self.conn.note_answered();
        }
        Ok(())
    }

    /// The last frame of a whole answer has been handed over.
    fn note_end(&mut self) {
        self.is_ended = true;
        self.conn.note_answered();
    }

    pub(super) fn send_head(&mut self, mut head: Box<ResponseHeader>, end: bool) -> Result<()> {
        if self.is_ended || self.written.is_some() {
            return Ok(());
        }
        for name in HOP_BY_HOP {
            head.remove_header(&name);
        }
        if head.status.is_informational() {
            if head.status == StatusCode::SWITCHING_PROTOCOLS {
                return Err(Error::explain(ErrorType::InvalidHTTPHeader, "a 101 over HTTP/2").into_up());
            }
            let told = Response::from_parts(head.as_owned_parts(), ());
            return self.respond.send_informational(told).map_err(write_error);
        }
        if !head.headers.contains_key(header::DATE) {
            head.insert_header(header::DATE, get_cached_date())?;
        }
        let is_bare = self.head.method == Method::HEAD || matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        let end = end || is_bare;
        let writer = self.respond.send_response(Response::from_parts(head.as_owned_parts(), ()), end).map_err(write_error)?;
        self.written = Some(head);
        self.writer = Some(writer);
        if end {
            self.note_end();
        }
        Ok(())
    }

    pub(super) fn send_trailers(&mut self, mut trailers: HeaderMap) -> Result<()> {
        if self.is_ended {
            return Ok(());
        }
        let Some(writer) = &mut self.writer else { return Err(no_head()) };
        for name in HOP_BY_HOP {
            trailers.remove(&name);
        }
        self.is_ended = true;
        writer.send_trailers(trailers).map_err(write_error)?;
        self.conn.note_answered();
        Ok(())
    }

    /// Gives the stream up, so that the client does not take what it has for the whole.
    pub(super) fn give_up(&mut self) {
        if !self.is_ended {
            self.is_ended = true;
            self.respond.send_reset(self.reset);
        }
    }

    pub(super) async fn drain(&mut self) -> Result<()> {
        while poll_fn(|cx| self.poll_body(cx)).await?.is_some() {}
        Ok(())
    }
}

impl Drop for Stream {
    /// Where the exchange was given up from outside before it was answered, this is all that is left to answer with.
    fn drop(&mut self) {
        let Some(words) = self.conn.take_words().filter(|_| self.written.is_none()) else { return };
        let (head, body) = *words;
        if self.send_head(Box::new(head), body.is_empty()).is_ok()
            && let Some(writer) = &mut self.writer
            && !body.is_empty()
        {
            // Fails only where the client has reset the stream.
            let _ = writer.send_data(body, true);
        }
    }
}

/// RFC 9113 section 8.2.2: what only a connection of HTTP/1 has.
const HOP_BY_HOP: [HeaderName; 5] = [
    header::CONNECTION,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

fn overdue(what: Overdue) -> Box<Error> {
    Error::because(ErrorType::ReadError, "waiting for the upstream", io::Error::from(what)).into_down()
}

fn no_head() -> Box<Error> {
    Error::explain(ErrorType::InternalError, "a body before its head")
}

/// What a read that failed says of the client: a body that broke its framing is its fault, a reset is its right.
fn read_error(error: h2::Error) -> Box<Error> {
    let kind = if error.is_reset() && error.is_library() { ErrorType::InvalidH2 } else { ErrorType::H2Error };
    Error::because(kind, "reading a stream", error).into_down()
}

fn write_error(error: h2::Error) -> Box<Error> {
    Error::because(ErrorType::WriteError, "writing to a stream", error).into_down()
}
