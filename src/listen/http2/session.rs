//! A stream as Pingora's proxy sees it: one more kind of session. Decides nothing: all is done in `stream.rs`.

use std::future::poll_fn;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::HeaderMap;
use pingora_core::protocols::Digest;
use pingora_core::protocols::http::HttpTask;
use pingora_core::protocols::http::body_buffer::FixedBuffer;
use pingora_core::protocols::http::custom::CustomMessageWrite;
use pingora_core::protocols::http::custom::server::Session;
use pingora_core::protocols::l4::socket::SocketAddr;
use pingora_core::{Error, ErrorType, OrErr, Result};
use pingora_http::{RequestHeader, ResponseHeader};

use super::super::pace::Demand;
use super::stream::{RETRY_BYTES, Stream};

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
        match timeout {
            Some(timeout) => self.demands.body.patience = timeout,
            None => self.demands.body = Demand::NONE,
        }
    }

    fn get_read_timeout(&self) -> Option<Duration> {
        Some(self.demands.body.patience)
    }

    fn set_write_timeout(&mut self, timeout: Option<Duration>) {
        if let Some(timeout) = timeout {
            self.demands.answer.patience = timeout;
        }
    }

    fn get_write_timeout(&self) -> Option<Duration> {
        Some(self.demands.answer.patience)
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
