//! What becomes of connections and heads that never become a request: a log line, a figure, a problem document.
//!
//! Decides nothing: the front has refused.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;

use crate::clock;
use crate::config::plan::Gateway;
use crate::entry::request_id::RequestId;
use crate::exchange::{Refusal, Refused, report_refusal};
use crate::listen::conn::ConnInfo;
use crate::listen::front::{Asked, Refuse};
use crate::reply::problem::{Kind, Problem};
use crate::reply::render::{Http1, http1, http2};
use crate::report::metrics::series::Dropped;
use crate::report::writer::Sink;

/// Answers for the newest snapshot.
pub struct Refusals {
    pub gateway: Arc<ArcSwap<Gateway>>,
    pub sink: Arc<Sink>,
}

impl Refuse for Refusals {
    fn refuse(&self, conn: &ConnInfo, kind: &'static Kind, head: &[u8], took: Duration) -> Bytes {
        let now = clock::now();
        let request_id = RequestId::make();
        let how = Http1 { request_id: request_id.as_str(), unix_ms: now.unix_ms, close: true, is_head: head.starts_with(b"HEAD ") };
        let answer = http1(&Problem::new(kind), how);
        // As for requests: what follows the answer's head.
        let body = memchr::memmem::find(&answer, b"\r\n\r\n").map_or(0, |at| answer.len() - at - 4);
        let asked = Refused::head(head);
        let refusal = Refusal { conn, kind, asked, request_id: &request_id, now, took, sent: body };
        report_refusal(&self.gateway.load(), &self.sink, &refusal);
        answer
    }

    fn refuse_stream(&self, conn: &ConnInfo, kind: &'static Kind, asked: &Asked<'_>) -> (http::response::Parts, Bytes) {
        let now = clock::now();
        let request_id = RequestId::make();
        let (head, body) = http2(&Problem::new(kind), request_id.as_str(), now.unix_ms);
        let asked = Refused::stream(asked);
        let refusal = Refusal { conn, kind, asked, request_id: &request_id, now, took: Duration::ZERO, sent: body.len() };
        report_refusal(&self.gateway.load(), &self.sink, &refusal);
        (head, body)
    }

    fn dropped(&self, listener: &str, reason: Dropped) {
        let gateway = self.gateway.load();
        let Some((_, listener)) = gateway.listener(usize::MAX, listener) else { return };
        listener.series.dropped(reason);
    }
}
