//! One stream of HTTP/2 as Pingora's proxy sees it: reads of the request's body, writes of the answer, the clocks of both.
//!
//! Decides when a client has been silent in a body for too long, when it takes an answer too slowly, and with which code a stream is
//! given up. Does not decide which streams become requests: see `judge.rs`. Ours rather than Pingora's session of HTTP/2, because that
//! one has no read timeout, drops informational answers, and can be made only by an acceptor that refuses streams without a word in the log.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, HeaderName, Method, Response, StatusCode, header};
use pingora_core::protocols::http::HttpTask;
use pingora_core::protocols::http::body_buffer::FixedBuffer;
use pingora_core::protocols::http::custom::CustomMessageWrite;
use pingora_core::protocols::http::custom::server::Session;
use pingora_core::protocols::http::date::get_cached_date;
use pingora_core::protocols::l4::socket::SocketAddr;
use pingora_core::protocols::{Digest, SocketDigest};
use pingora_core::{Error, ErrorType, OrErr, Result};
use pingora_http::{RequestHeader, ResponseHeader};
use tokio::time::Instant;

use super::super::alarm::Alarm;
use super::super::conn::ConnInfo;
use crate::clock;

/// As much of a request's body as is kept for another attempt; what Pingora keeps of HTTP/1.
const RETRY_BYTES: usize = 64 << 10;
/// A client must take so much within the write deadline, however small the windows are that it opens.
const PIECE_BYTES: usize = 16 << 10;

/// A request and the way back to its client.
pub struct Stream {
    head: RequestHeader,
    body: RecvStream,
    respond: SendResponse<Bytes>,
    writer: Option<SendStream<Bytes>>,
    written: Option<Box<ResponseHeader>>,
    /// All of the body has been read, trailers included.
    is_read: bool,
    /// The last frame of the answer has been handed over.
    is_ended: bool,
    body_read: usize,
    body_sent: usize,
    retry: Option<FixedBuffer>,
    digest: Digest,
    conn: Arc<ConnInfo>,
    patience: Duration,
    read_timeout: Option<Duration>,
    drain_timeout: Option<Duration>,
    /// Rings when the upstream's answer is overdue: see `relay/deadline.rs`.
    overdue: Alarm,
    /// Since when the client has been silent in its body.
    silent: Option<Instant>,
    silence: Alarm,
    stuck: Alarm,
    reset: Reason,
}

// === impl Stream ===

impl Stream {
    /// `conn` is the stream's own; `write` is how long the client may take for a piece of the answer, `read` how long it may be silent.
    pub fn new(
        head: RequestHeader,
        body: RecvStream,
        respond: SendResponse<Bytes>,
        conn: Arc<ConnInfo>,
        socket: Arc<SocketDigest>,
        write: Duration,
        read: Duration,
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
            patience: write,
            read_timeout: Some(read),
            drain_timeout: None,
            overdue: Alarm::default(),
            silent: None,
            silence: Alarm::default(),
            stuck: Alarm::default(),
            reset: Reason::INTERNAL_ERROR,
        }
    }

    fn has_no_body(&self) -> bool {
        let is_zero = || self.head.headers.get(header::CONTENT_LENGTH).is_some_and(|length| length.as_bytes() == b"0");
        self.body_read == 0 && (self.is_read || self.body.is_end_stream() || is_zero())
    }

    fn is_all_read(&self) -> bool {
        self.is_read || self.body.is_end_stream() || self.has_no_body()
    }

    /// The next piece of the body, `None` at its end.
    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>>> {
        loop {
            if self.is_read {
                return Poll::Ready(Ok(None));
            }
            match self.body.poll_data(cx) {
                Poll::Ready(Some(Ok(data))) => {
                    self.silent = None;
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
                    if let Some(patience) = self.read_timeout {
                        let since = *self.silent.get_or_insert_with(Instant::now);
                        if self.silence.poll_past(cx, since + patience).is_ready() {
                            self.reset = Reason::CANCEL;
                            return Poll::Ready(Err(
                                Error::explain(ErrorType::ReadTimedout, "the client is silent in its body").into_down()
                            ));
                        }
                    }
                    return self.poll_overdue(cx);
                }
            }
        }
    }

    /// Ends with an error when the client resets the stream or goes away.
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>>> {
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
        let Some((at, overdue)) = self.conn.deadline.due() else { return Poll::Pending };
        ready!(self.overdue.poll_past(cx, clock::instant(at)));
        Poll::Ready(Err(Error::because(ErrorType::ReadError, "waiting for the upstream", io::Error::from(overdue)).into_down()))
    }

    /// Waits for room for something of `wanted` bytes; says for how much there is some.
    fn poll_room(&mut self, cx: &mut Context<'_>, wanted: usize, until: &mut Option<Instant>) -> Poll<Result<usize>> {
        let Some(writer) = &mut self.writer else { return Poll::Ready(Err(no_head())) };
        loop {
            let room = writer.capacity().min(wanted);
            if room > 0 {
                return Poll::Ready(Ok(room));
            }
            match writer.poll_capacity(cx) {
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(write_error(error))),
                Poll::Ready(None) => {
                    return Poll::Ready(Err(Error::explain(ErrorType::WriteError, "the client reset the stream").into_down()));
                }
                Poll::Pending => {
                    let at = *until.get_or_insert_with(|| Instant::now() + self.patience);
                    ready!(self.stuck.poll_past(cx, at));
                    self.reset = Reason::CANCEL;
                    return Poll::Ready(Err(Error::explain(ErrorType::WriteTimedout, "the client does not read").into_down()));
                }
            }
        }
    }

    async fn send(&mut self, mut data: Bytes, end: bool) -> Result<()> {
        if self.is_ended {
            return Ok(());
        }
        if data.is_empty() {
            return if end { self.end() } else { Ok(()) };
        }
        while !data.is_empty() {
            let mut piece = data.split_to(data.len().min(PIECE_BYTES));
            let mut until = None;
            while !piece.is_empty() {
                let Some(writer) = &mut self.writer else { return Err(no_head()) };
                writer.reserve_capacity(piece.len() + data.len());
                let room = poll_fn(|cx| self.poll_room(cx, piece.len(), &mut until)).await?;
                let part = piece.split_to(room);
                let is_last = end && piece.is_empty() && data.is_empty();
                let Some(writer) = &mut self.writer else { return Err(no_head()) };
                writer.send_data(part, is_last).map_err(write_error)?;
                self.body_sent += room;
                self.is_ended |= is_last;
            }
        }
        Ok(())
    }

    /// Ends an answer that is complete.
    fn end(&mut self) -> Result<()> {
        if let Some(writer) = &mut self.writer
            && !self.is_ended
        {
            self.is_ended = true;
            writer.send_data(Bytes::new(), true).map_err(write_error)?;
        }
        Ok(())
    }

    fn send_head(&mut self, mut head: Box<ResponseHeader>, end: bool) -> Result<()> {
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
        self.is_ended = end;
        Ok(())
    }

    fn send_trailers(&mut self, mut trailers: HeaderMap) -> Result<()> {
        if self.is_ended {
            return Ok(());
        }
        let Some(writer) = &mut self.writer else { return Err(no_head()) };
        for name in HOP_BY_HOP {
            trailers.remove(&name);
        }
        self.is_ended = true;
        writer.send_trailers(trailers).map_err(write_error)
    }

    /// Gives the stream up, so that the client does not take what it has for the whole.
    fn give_up(&mut self) {
        if !self.is_ended {
            self.is_ended = true;
            self.respond.send_reset(self.reset);
        }
    }

    async fn drain(&mut self) -> Result<()> {
        while poll_fn(|cx| self.poll_body(cx)).await?.is_some() {}
        Ok(())
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

#[async_trait]
impl Session for Stream {
    fn req_header(&self) -> &RequestHeader {
        &self.head
    }

    fn req_header_mut(&mut self) -> &mut RequestHeader {
        &mut self.head
    }

    async fn read_body_bytes(&mut self) -> Result<Option<Bytes>> {
        poll_fn(|cx| self.poll_body(cx)).await
    }

    async fn read_body_or_idle(&mut self, no_body_expected: bool) -> Result<Option<Bytes>> {
        let is_read = no_body_expected || self.is_all_read();
        poll_fn(|cx| if is_read { self.poll_gone(cx) } else { self.poll_body(cx) }).await
    }

    async fn drain_request_body(&mut self) -> Result<()> {
        if self.is_all_read() {
            return Ok(());
        }
        match self.drain_timeout {
            Some(most) => tokio::time::timeout(most, self.drain()).await.or_err(ErrorType::ReadTimedout, "draining a body")?,
            None => self.drain().await,
        }
    }

    async fn write_response_header(&mut self, head: Box<ResponseHeader>, end: bool) -> Result<()> {
        self.send_head(head, end)
    }

    async fn write_response_header_ref(&mut self, head: &ResponseHeader, end: bool) -> Result<()> {
        self.send_head(Box::new(head.clone()), end)
    }

    async fn write_body(&mut self, data: Bytes, end: bool) -> Result<()> {
        self.send(data, end).await
    }

    async fn write_trailers(&mut self, trailers: HeaderMap) -> Result<()> {
        self.send_trailers(trailers)
    }

    async fn response_duplex_vec(&mut self, tasks: Vec<HttpTask>) -> Result<bool> {
        let mut is_done = false;
        for task in tasks {
            is_done |= task.is_end();
            match task {
                HttpTask::Header(head, end) => self.send_head(head, end)?,
                HttpTask::Body(data, end) => self.send(data.unwrap_or_default(), end).await?,
                HttpTask::Trailer(Some(trailers)) => self.send_trailers(*trailers)?,
                HttpTask::Trailer(None) | HttpTask::Done => {}
                HttpTask::UpgradedBody(..) => return Err(Error::explain(ErrorType::InternalError, "a tunnel over HTTP/2")),
                HttpTask::Failed(error) => return Err(error),
            }
        }
        if is_done {
            self.end()?;
        }
        Ok(is_done)
    }

    fn set_read_timeout(&mut self, timeout: Option<Duration>) {
        self.read_timeout = timeout;
    }

    fn get_read_timeout(&self) -> Option<Duration> {
        self.read_timeout
    }

    fn set_write_timeout(&mut self, timeout: Option<Duration>) {
        if let Some(timeout) = timeout {
            self.patience = timeout;
        }
    }

    fn get_write_timeout(&self) -> Option<Duration> {
        Some(self.patience)
    }

    fn set_total_drain_timeout(&mut self, timeout: Option<Duration>) {
        self.drain_timeout = timeout;
    }

    fn get_total_drain_timeout(&self) -> Option<Duration> {
        self.drain_timeout
    }

    /// Never holds a path: credentials may be in it.
    fn request_summary(&self) -> String {
        format!("{} over HTTP/2", self.head.method)
    }

    fn response_written(&self) -> Option<&ResponseHeader> {
        self.written.as_deref()
    }

    async fn shutdown(&mut self, _code: u32, _ctx: &str) {
        self.give_up();
    }

    async fn abandon(&mut self, _ctx: &str) {
        self.give_up();
    }

    fn is_body_done(&mut self) -> bool {
        self.is_all_read()
    }

    async fn finish(&mut self) -> Result<()> {
        self.end()
    }

    fn is_body_empty(&mut self) -> bool {
        self.has_no_body()
    }

    fn body_bytes_sent(&self) -> usize {
        self.body_sent
    }

    fn body_bytes_read(&self) -> usize {
        self.body_read
    }

    fn digest(&self) -> Option<&Digest> {
        Some(&self.digest)
    }

    fn digest_mut(&mut self) -> Option<&mut Digest> {
        Some(&mut self.digest)
    }

    fn client_addr(&self) -> Option<&SocketAddr> {
        self.digest.socket_digest.as_ref()?.peer_addr()
    }

    fn server_addr(&self) -> Option<&SocketAddr> {
        self.digest.socket_digest.as_ref()?.local_addr()
    }

    /// Only sub-requests would read it, and there are none.
    fn pseudo_raw_h1_request_header(&self) -> Bytes {
        Bytes::new()
    }

    fn enable_retry_buffering(&mut self) {
        // Where there is no body, an attempt without a buffer is one with an empty body.
        if self.retry.is_none() && !self.has_no_body() {
            self.retry = Some(FixedBuffer::new(RETRY_BYTES));
        }
    }

    fn retry_buffer_truncated(&self) -> bool {
        self.retry.as_ref().is_some_and(FixedBuffer::is_truncated)
    }

    fn get_retry_buffer(&self) -> Option<Bytes> {
        self.retry.as_ref().filter(|retry| !retry.is_truncated())?.get_buffer()
    }

    async fn finish_custom(&mut self) -> Result<()> {
        Ok(())
    }

    fn take_custom_message_reader(
        &mut self,
    ) -> Option<Box<dyn futures_core::Stream<Item = Result<Bytes>> + Unpin + Send + Sync + 'static>> {
        None
    }

    fn restore_custom_message_reader(
        &mut self,
        _reader: Box<dyn futures_core::Stream<Item = Result<Bytes>> + Unpin + Send + Sync + 'static>,
    ) -> Result<()> {
        Ok(())
    }

    fn take_custom_message_writer(&mut self) -> Option<Box<dyn CustomMessageWrite>> {
        None
    }

    fn restore_custom_message_writer(&mut self, _writer: Box<dyn CustomMessageWrite>) -> Result<()> {
        Ok(())
    }
}
