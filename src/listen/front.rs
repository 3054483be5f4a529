//! Serves one connection: reads a head, has it judged, hands the request to Pingora, and again.
//!
//! Decides how long a client may take for a head, when an idle connection is closed, and that a refused connection is
//! answered before it ends. Does not decide what is refused in a head (`head.rs`), nor what an answer looks like ([`Refuse`]).
//!
//! The future of a request exists only while there is one: an idle connection is this loop and its stream.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use memchr::memchr;
use pingora_core::apps::HttpServerApp;
use pingora_core::protocols::http::ServerSession;
use pingora_core::server::ShutdownWatch;
use tokio::time::Instant;

use super::alarm::{Alarm, Known};
use super::conn::ConnInfo;
use super::head::{Judged, VERSION_UNSUPPORTED, has_begun, mark};
use super::heads::HEADS_FULL;
use super::http2::PREFACE;
use super::request::{Marks, Request};
use super::running::RunningListener;
use super::session::{Back, Http1, Returned, closing_answer};
use super::stall::unless_stuck;
use super::stream::{ClientStream, Demands, Socket};
use crate::reply::problem::Kind;
use crate::report::metrics::series::Dropped;

pub static HEADER_TIMEOUT: Kind = Kind {
    code: "header-timeout",
    status: 408,
    error: "Request timeout",
    about: "The request head was not complete within `deadlines.header`. A slow network, or a client that holds connections open on purpose.",
};

/// What the gateway does about connections and heads that never become a request.
pub trait Refuse: Send + Sync {
    /// Logs and counts the refusal, and renders it: the complete HTTP/1.1 response, with `Connection: close`. `head` is what has
    /// come so far of the head, up to a few KiB more than its bound; it may be anything. `took`: since its first bytes came.
    fn refuse(&self, conn: &ConnInfo, kind: &'static Kind, head: &[u8], took: Duration) -> Bytes;

    /// The same for one stream of HTTP/2: head and body of its answer.
    fn refuse_stream(&self, conn: &ConnInfo, kind: &'static Kind, asked: &Asked<'_>) -> (http::response::Parts, Bytes);

    /// Counts what is closed without an answer.
    fn dropped(&self, listener: &str, reason: Dropped);
}

/// What is known of a request that was refused before it became one; anything may be in it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Asked<'a> {
    pub method: &'a str,
    /// Path and query.
    pub target: &'a str,
    /// For the log only.
    pub reason: &'a str,
}

/// What serves the connections of one worker thread, whatever their listener.
pub struct Front<P> {
    proxy: Arc<P>,
    refuse: Arc<dyn Refuse>,
}

/// How waiting for a head ended.
enum Waited {
    Head(Request),
    /// The client speaks HTTP/2.
    Preface,
    /// Since when a part of it was there; none where all of it came at once.
    Refused(&'static Kind, Option<Instant>),
    /// Nothing to answer: why, where that is worth counting.
    Over(Option<Dropped>),
}

/// Ready once the time for a drain of a listener is over.
pub(super) type Cut = Pin<Box<dyn Future<Output = ()> + Send>>;

/// See [`Cut`].
pub(super) fn cut(conn: &ConnInfo) -> Cut {
    let mut cutting = conn.listener.cutting();
    Box::pin(async move {
        // An error means that the listener itself is gone.
        let _ = cutting.wait_for(|cut| *cut).await;
    })
}

/// What of the waiting outlives a request.
struct Waiting<'a, F> {
    alarm: Alarm,
    /// Ready once the gateway is stopping.
    closing: Pin<&'a mut F>,
    /// The same, for a look.
    watch: ShutdownWatch,
    known: Known,
    is_closing: bool,
    /// Ready once the time for a drain of its listener is over; made when that has begun.
    cut: Option<Cut>,
    /// When the first head must be complete; `None` for later ones.
    first: Option<Instant>,
}

// === impl Front ===

impl<P> Front<P>
where
    P: HttpServerApp + Send + Sync + 'static,
{
    pub fn new(proxy: Arc<P>, refuse: Arc<dyn Refuse>) -> Arc<Self> {
        Arc::new(Front { proxy, refuse })
    }

    pub(super) fn proxy(&self) -> &Arc<P> {
        &self.proxy
    }

    pub(super) fn refuse_stream(&self, conn: &ConnInfo, kind: &'static Kind, asked: &Asked<'_>) -> (http::response::Parts, Bytes) {
        self.refuse.refuse_stream(conn, kind, asked)
    }

    /// Counts a connection that was closed without a word.
    pub(super) fn dropped(&self, listener: &str, reason: Dropped) {
        self.refuse.dropped(listener, reason);
    }

    /// Serves requests until the connection ends. PROXY protocol and TLS come before: they make the stream.
    pub async fn serve<S: Socket>(self: Arc<Self>, mut stream: Box<ClientStream<S>>) {
        let conn = stream.conn().clone();
        let closing = pin!(async {
            let mut closing = conn.closing.clone();
            // An error means that the listener itself is gone.
            let _ = closing.wait_for(|closing| *closing).await;
        });
        let mut waiting = Waiting {
            alarm: Alarm::default(),
            closing,
            watch: conn.closing.clone(),
            known: Known::default(),
            is_closing: false,
            cut: None,
            first: Some(Instant::now() + conn.listener.peek().deadlines.header),
        };
        let back = Back::new();
        loop {
            let mut buf = BytesMut::new();
            let request = match waiting.next_head(&mut stream, &mut buf, &conn.listener).await {
                Waited::Head(request) => request,
                // Boxed, as all that is not HTTP/1: most connections never make the room.
                Waited::Preface => return Box::pin(self.clone().serve_http2(stream, buf)).await,
                Waited::Refused(kind, since) => {
                    let took = since.map(|since| since.elapsed()).unwrap_or_default();
                    return self.refuse(stream, kind, &buf, took).await;
                }
                Waited::Over(reason) => {
                    if let Some(reason) = reason {
                        self.dropped(&conn.listener.name, reason);
                    }
                    return;
                }
            };
            // Asked for with each request, because a reload may have changed them since.
            let (deadlines, bounds) = {
                let settings = conn.listener.peek();
                stream.begin(&request.head, buf, Demands::of(&settings));
                (settings.deadlines, settings.connections)
            };
            conn.begin_request(&request.head, bounds);
            let session = Http1::new(stream, back.clone(), request, deadlines.body);
            let exchange = self.proxy.process_new_http(ServerSession::new_custom(session), &conn.closing);
            unless_stuck(&conn.deadline, exchange, |cx| waiting.poll_cut(cx, &conn)).await;
            stream = match back.take() {
                Some(Returned::Kept(stream, None)) => stream,
                Some(Returned::Kept(mut stream, Some(limit))) => match Box::pin(stream.skip_body(limit)).await {
                    true => stream,
                    false => return,
                },
                Some(Returned::Ended(mut stream)) => return Box::pin(stream.close()).await,
                Some(Returned::Unanswered(mut stream)) => {
                    let Some(words) = conn.take_words() else { return };
                    let answer = closing_answer(&words.0, &words.1);
                    return Box::pin(async move { stream.finish_with(&answer).await }).await;
                }
                None => return,
            };
        }
    }

    /// Answers what is no request, and ends the connection. Boxed: hardly any connection comes here, and all would have to make room for it.
    pub(super) fn refuse<S: Socket>(
        &self,
        mut stream: Box<ClientStream<S>>,
        kind: &'static Kind,
        head: &[u8],
        took: Duration,
    ) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let answer = self.refuse.refuse(stream.conn(), kind, head, took);
        Box::pin(async move { stream.finish_with(&answer).await })
    }
}

// === impl Waiting ===

impl<F: Future<Output = ()>> Waiting<'_, F> {
    /// Waits for a complete head, and longer than the deadlines allow for nothing. What came behind it is left in `buf`, or what is refused.
    async fn next_head<S: Socket>(&mut self, stream: &mut ClientStream<S>, buf: &mut BytesMut, listener: &RunningListener) -> Waited {
        let first = self.first.take();
        let mut until = first;
        let mut linger = None;
        let mut since = None;
        let mut share = listener.heads.share();
        poll_fn(|cx| {
            loop {
                let old = buf.len();
                match stream.poll_head(cx, buf) {
                    Poll::Ready(Ok(n)) if n > 0 => {}
                    // The client has closed, or broken off.
                    Poll::Ready(_) => return Poll::Ready(Waited::Over(has_begun(buf).then_some(Dropped::Cut))),
                    Poll::Pending => {
                        let deadlines = &listener.peek().deadlines;
                        let mut at = *until.get_or_insert_with(|| Instant::now() + deadlines.keep_alive);
                        if since.is_none() && self.is_closing(cx) {
                            at = at.min(*linger.get_or_insert_with(|| Instant::now() + deadlines.linger));
                        }
                        ready!(self.alarm.poll_past(cx, at));
                        let silent = first.is_some() && linger.is_none();
                        return Poll::Ready(if since.is_some() {
                            Waited::Refused(&HEADER_TIMEOUT, since)
                        } else {
                            Waited::Over(silent.then_some(Dropped::HeaderDeadline))
                        });
                    }
                }
                // Judging begins at the first byte each time, so it waits for something that can end a head: a client
                // that sends single bytes would otherwise cost the square of them.
                let settings = listener.peek();
                if first.is_some() && buf.first() == Some(&b'P') && settings.protocols.http2 {
                    if buf.starts_with(PREFACE) {
                        return Poll::Ready(Waited::Preface);
                    }
                    // At most three bytes of any method but PRI.
                    if PREFACE.starts_with(buf) {
                        since.get_or_insert_with(Instant::now);
                        continue;
                    }
                }
                if old == 0 || memchr(b'\n', &buf[old..]).is_some() || buf.len() > settings.heads.bytes {
                    let mut marks = Marks::default();
                    match mark(buf, &settings.heads, &mut marks) {
                        Judged::Complete(_) if !settings.protocols.http1 => {
                            return Poll::Ready(Waited::Refused(&VERSION_UNSUPPORTED, since));
                        }
                        Judged::Complete(head) => {
                            let request = Request::cut(buf, head, &marks);
                            return Poll::Ready(request.map_or_else(|kind| Waited::Refused(kind, since), Waited::Head));
                        }
                        Judged::Bad(kind) => return Poll::Ready(Waited::Refused(kind, since)),
                        Judged::Incomplete => {}
                    }
                }
                if !share.covers(buf.len(), settings.buffers.memory) {
                    return Poll::Ready(Waited::Refused(&HEADS_FULL, since));
                }
                if since.is_none() && has_begun(buf) {
                    let now = Instant::now();
                    since = Some(now);
                    if first.is_none() {
                        until = Some(now + settings.deadlines.header);
                    }
                }
            }
        })
        .await
    }

    /// Ready where what is being answered may go on no longer. A tunnel ends by itself then, with a word to its client.
    fn poll_cut(&mut self, cx: &mut Context<'_>, conn: &ConnInfo) -> Poll<()> {
        // The usual case: nobody has said anything, and whoever does will wake this task.
        if !self.is_closing {
            let is_known = self.known.has(cx);
            if is_known && matches!(self.watch.has_changed(), Ok(false)) {
                return Poll::Pending;
            }
            self.is_closing = *self.watch.borrow() || (!is_known && self.closing.as_mut().poll(cx).is_ready());
        }
        if !self.is_closing || conn.is_tunnel() {
            return Poll::Pending;
        }
        self.cut.get_or_insert_with(|| cut(conn)).as_mut().poll(cx)
    }

    fn is_closing(&mut self, cx: &mut Context<'_>) -> bool {
        // Once the task is told to be woken, a look is enough.
        if !self.is_closing {
            self.is_closing = *self.watch.borrow() || (!self.known.has(cx) && self.closing.as_mut().poll(cx).is_ready());
        }
        self.is_closing
    }
}

#[cfg(test)]
mod tests;
