//! A request on a client's HTTP/1 connection, as Pingora sees it: a session of our own in place of Pingora's.
//!
//! Decides whether the connection can serve another request afterwards. Does not decide what a head is (`head.rs`), how a request's body is read
//! (`session/reading.rs`) nor how an answer is framed (`session/writing.rs`).
//!
//! Pingora's session would parse the head again, keep a second map of names as they were spelt, and answer in steps that allocate. This one
//! has the head from `front.rs`, and gives the stream back to it when it is dropped.

mod reading;
mod writing;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_core::Stream;
use http::HeaderMap;
use parking_lot::Mutex;
use pingora_core::protocols::http::HttpTask;
use pingora_core::protocols::http::custom::CustomMessageWrite;
use pingora_core::protocols::http::custom::server::Session;
use pingora_core::protocols::l4::socket::SocketAddr;
use pingora_core::protocols::{Digest, GetProxyDigest, GetSocketDigest, Ssl};
use pingora_core::{Error, ErrorType, Result};
use pingora_http::{RequestHeader, ResponseHeader};

use super::conn::ConnInfo;
use super::request::Request;
use super::stream::{ClientStream, Socket};

use self::reading::Reading;
use self::writing::Writing;
pub use self::writing::closing_answer;

/// One request and its answer.
pub struct Http1<S: Socket> {
    /// `None` only once it has been dropped.
    stream: Option<Box<ClientStream<S>>>,
    conn: Arc<ConnInfo>,
    back: Arc<Back<S>>,
    digest: Digest,
    request: Request,
    reading: Reading,
    writing: Writing,
    /// The connection is to serve another request.
    keep: bool,
    /// Both sides have agreed to switch protocols.
    is_tunnel: bool,
    /// For how long an unread body is read and thrown away, so that the connection can be kept. `None`: it is closed instead.
    drain: Option<Duration>,
}

/// Where the stream goes when its request is done, to be found by `front.rs`.
pub struct Back<S: Socket>(Mutex<Option<Returned<S>>>);

/// A stream on which an answer was completed.
pub enum Returned<S: Socket> {
    /// The next request may come, once the rest of the body has been read within this time.
    Kept(Box<ClientStream<S>>, Option<Duration>),
    /// It was given up before anything was answered.
    Unanswered(Box<ClientStream<S>>),
    /// It was the last one.
    Ended(Box<ClientStream<S>>),
}

// === impl Back ===

impl<S: Socket> Back<S> {
    pub fn new() -> Arc<Self> {
        Arc::new(Back(Mutex::new(None)))
    }

    /// `None` where the answer was not completed: then the connection is closed already.
    pub fn take(&self) -> Option<Returned<S>> {
        self.0.lock().take()
    }
}

// === impl Http1 ===

impl<S: Socket> Http1<S> {
    /// `patience` is how long a pause in the body may be.
    pub fn new(stream: Box<ClientStream<S>>, back: Arc<Back<S>>, request: Request, patience: Duration) -> Box<Self> {
        let digest = Digest {
            ssl_digest: stream.get_ssl_digest(),
            timing_digest: Vec::new(),
            proxy_digest: stream.get_proxy_digest(),
            socket_digest: stream.get_socket_digest(),
        };
        Box::new(Http1 {
            conn: stream.conn().clone(),
            stream: Some(stream),
            back,
            digest,
            reading: Reading::new(request.head.body, patience),
            writing: Writing::default(),
            keep: request.is_kept,
            is_tunnel: false,
            drain: None,
            request,
        })
    }

    fn stream(&mut self) -> Result<&mut ClientStream<S>> {
        self.stream.as_deref_mut().ok_or_else(|| Error::explain(ErrorType::InternalError, "the stream is gone"))
    }
}

impl<S: Socket> Drop for Http1<S> {
    /// An answer that is complete gives the stream back. Any other ends the connection, and so does a panic.
    fn drop(&mut self) {
        let Some(stream) = self.stream.take() else { return };
        if self.conn.deadline.is_stuck() && !std::thread::panicking() {
            if !self.writing.has_begun() {
                *self.back.0.lock() = Some(Returned::Unanswered(stream));
            } else if self.writing.ends_with_connection() {
                self.conn.break_off();
            }
            return;
        }
        if !self.writing.is_done() || std::thread::panicking() {
            return;
        }
        let is_read = self.reading.is_done();
        let is_kept = self.keep && !self.conn.is_last();
        *self.back.0.lock() = Some(match is_kept && (is_read || self.drain.is_some()) {
            true => Returned::Kept(stream, self.drain.filter(|_| !is_read)),
            false => Returned::Ended(stream),
        });
    }
}

#[async_trait]
impl<S: Socket> Session for Http1<S> {
    fn req_header(&self) -> &RequestHeader {
        &self.request.header
    }

    fn req_header_mut(&mut self) -> &mut RequestHeader {
        &mut self.request.header
    }

    async fn read_body_bytes(&mut self) -> Result<Option<Bytes>> {
        self.read().await
    }

    async fn drain_request_body(&mut self) -> Result<()> {
        while self.read().await?.is_some() {}
        Ok(())
    }

    async fn write_response_header(&mut self, head: Box<ResponseHeader>, end: bool) -> Result<()> {
        self.write_head(head).await?;
        match end || self.writing.flushes_head() {
            true => self.flush().await,
            false => Ok(()),
        }
    }

    async fn write_response_header_ref(&mut self, head: &ResponseHeader, end: bool) -> Result<()> {
        self.write_response_header(Box::new(head.clone()), end).await
    }

    async fn write_body(&mut self, data: Bytes, end: bool) -> Result<()> {
        self.write_piece(&data).await?;
        match end {
            true => self.end().await,
            false => self.flush().await,
        }
    }

    /// Not to HTTP/1 clients: they have been told of none.
    async fn write_trailers(&mut self, _: HeaderMap) -> Result<()> {
        self.end().await
    }

    async fn response_duplex_vec(&mut self, tasks: Vec<HttpTask>) -> Result<bool> {
        self.write_tasks(tasks).await
    }

    fn set_read_timeout(&mut self, timeout: Option<Duration>) {
        self.reading.patience = timeout;
    }

    fn get_read_timeout(&self) -> Option<Duration> {
        self.reading.patience
    }

    /// The stream has one of its own.
    fn set_write_timeout(&mut self, _: Option<Duration>) {}

    fn get_write_timeout(&self) -> Option<Duration> {
        None
    }

    fn set_total_drain_timeout(&mut self, timeout: Option<Duration>) {
        self.drain = timeout;
    }

    fn get_total_drain_timeout(&self) -> Option<Duration> {
        self.drain
    }

    /// Nothing of what the client said: it may hold credentials.
    fn request_summary(&self) -> String {
        self.request.header.method.to_string()
    }

    fn response_written(&self) -> Option<&ResponseHeader> {
        self.writing.written()
    }

    async fn shutdown(&mut self, _: u32, _: &str) {
        self.keep = false;
        self.writing.give_up();
        if let Some(stream) = &mut self.stream {
            stream.close().await;
        }
    }

    fn is_body_done(&mut self) -> bool {
        self.reading.is_done()
    }

    async fn finish(&mut self) -> Result<()> {
        self.end().await
    }

    fn is_body_empty(&mut self) -> bool {
        self.reading.is_empty()
    }

    async fn read_body_or_idle(&mut self, no_body_expected: bool) -> Result<Option<Bytes>> {
        match no_body_expected || self.reading.is_done() {
            true => self.wait_for_end().await,
            false => self.read().await,
        }
    }

    fn body_bytes_sent(&self) -> usize {
        self.writing.sent
    }

    fn body_bytes_read(&self) -> usize {
        self.reading.count
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

    fn pseudo_raw_h1_request_header(&self) -> Bytes {
        self.request.raw.clone()
    }

    fn enable_retry_buffering(&mut self) {
        self.reading.keep();
    }

    fn retry_buffer_truncated(&self) -> bool {
        self.reading.is_too_long_to_keep()
    }

    fn get_retry_buffer(&self) -> Option<Bytes> {
        self.reading.kept()
    }

    async fn finish_custom(&mut self) -> Result<()> {
        Ok(())
    }

    fn take_custom_message_reader(&mut self) -> Option<Box<dyn Stream<Item = Result<Bytes>> + Unpin + Send + Sync + 'static>> {
        None
    }

    fn restore_custom_message_reader(&mut self, _: Box<dyn Stream<Item = Result<Bytes>> + Unpin + Send + Sync + 'static>) -> Result<()> {
        Ok(())
    }

    fn take_custom_message_writer(&mut self) -> Option<Box<dyn CustomMessageWrite>> {
        None
    }

    fn restore_custom_message_writer(&mut self, _: Box<dyn CustomMessageWrite>) -> Result<()> {
        Ok(())
    }

    fn is_upgrade_req(&self) -> bool {
        self.request.asks_upgrade
    }

    fn was_upgraded(&self) -> bool {
        self.is_tunnel
    }
}

#[cfg(test)]
mod tests;
