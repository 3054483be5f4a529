//! Serves one connection of HTTP/2: streams become requests for the same proxy that serves HTTP/1.
//!
//! Decides how long such a connection lives: until its client has been idle for too long, until it harms, until the gateway stops and
//! its streams have ended. Does not decide which bytes are HTTP/2 at all (`front.rs` has seen the preface), what a
//! request is (`judge.rs`), nor how one is answered (`stream.rs`). Frames are the `h2` crate's.

mod frames;
mod judge;
pub mod kinds;
mod session;
pub mod settings;
mod stream;
mod watch;

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker, ready};

use bytes::{Bytes, BytesMut};
use h2::server::{Connection, SendResponse};
use h2::{Reason, RecvStream};
use http::{Request, Response};
use parking_lot::Mutex;
use pingora_core::apps::HttpServerApp;
use pingora_core::protocols::http::ServerSession;
use pingora_core::protocols::{GetSocketDigest, SocketDigest};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use self::judge::judge;
use self::kinds::{FRAMES_TOO_MANY, HTTP2_INVALID, STREAMS_TOO_MANY};
use self::stream::Stream;
use self::watch::{Watch, Watched};
use super::alarm::Alarm;
use super::conn::ConnInfo;
use super::front::{Asked, Front, HEADER_TIMEOUT, cut};
use super::stall::unless_stuck;
use super::stream::{ClientStream, Demands, Socket};
use crate::exchange::DRAIN_ENDED;
use crate::reply::problem::Kind;
use crate::report::metrics::series::Dropped;

/// RFC 9113 section 3.4: what a client of HTTP/2 begins with.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The requests that are being worked on. More than the streams that are open, where clients reset streams.
#[derive(Default)]
struct Live {
    count: AtomicUsize,
    /// The connection, where it wants to know that the last one has ended.
    waker: Mutex<Option<Waker>>,
}

/// One of them.
struct Guard(Arc<Live>);

/// What ends the waiting for a stream.
#[expect(clippy::large_enum_variant, reason = "lives on the stack, and is a stream nearly always")]
enum Event {
    Stream(Request<RecvStream>, SendResponse<Bytes>),
    /// Nobody has asked for anything for too long.
    Idle,
    /// It has been open for as long as it may be, or has had as many requests.
    Old,
    /// The time for a drain of its listener is over.
    Cut,
    /// The client does what it may not: see [`Watch::fault`].
    Harm,
    Over(Option<h2::Error>),
}

// === impl Guard ===

impl Guard {
    fn of(live: &Arc<Live>) -> Self {
        live.count.fetch_add(1, Ordering::AcqRel);
        Guard(live.clone())
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if self.0.count.fetch_sub(1, Ordering::AcqRel) == 1
            && let Some(waker) = self.0.waker.lock().take()
        {
            waker.wake();
        }
    }
}

// === impl Front ===

impl<P> Front<P>
where
    P: HttpServerApp + Send + Sync + 'static,
{
    /// Serves a connection whose first bytes, `read`, begin with the preface, until it ends.
    pub(super) async fn serve_http2<S: Socket>(self: Arc<Self>, mut stream: Box<ClientStream<S>>, read: BytesMut) {
        let conn = stream.conn().clone();
        let settings = conn.listener.settings();
        let Some(socket) = stream.get_socket_digest() else { return };
        stream.begin_frames(read, Demands::of(&settings));

        let watch = Watch::new(&settings.http2);
        let shake = settings.http2.options(&settings.heads).handshake::<_, Bytes>(Watched::new(stream, watch.clone()));
        let Ok(Ok(h2)) = tokio::time::timeout(settings.deadlines.header, shake).await else {
            return self.dropped(&conn.listener.name, Dropped::Cut);
        };
        let served = Served { front: &self, conn: &conn, socket, live: Arc::default(), watch };
        served.run(h2).await;
    }
}

/// A connection that is being served.
struct Served<'a, P> {
    front: &'a Arc<Front<P>>,
    conn: &'a Arc<ConnInfo>,
    socket: Arc<SocketDigest>,
    live: Arc<Live>,
    watch: Arc<Watch>,
}

/// How far the end of a connection has come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// It serves.
    No,
    /// No new stream is welcome; those that there are end in peace.
    Graceful,
    /// It is over as soon as the client has been told.
    Now,
}

// === impl Served ===

impl<P> Served<'_, P>
where
    P: HttpServerApp + Send + Sync + 'static,
{
    async fn run<T>(&self, mut h2: Connection<T, Bytes>)
    where
        T: AsyncRead + AsyncWrite + Unpin,
    {
        let mut closing = pin!(async {
            let mut closing = self.conn.closing.clone();
            // An error means that the listener itself is gone.
            let _ = closing.wait_for(|closing| *closing).await;
        });
        let mut alarm = Alarm::default();
        let mut cutting = None;
        let mut end = End::No;
        // Since when nothing has been worked on, or the client has been told to go.
        let mut idle: Option<Instant> = None;
        loop {
            let event = poll_fn(|cx| {
                if end == End::No && closing.as_mut().poll(cx).is_ready() {
                    (end, idle) = (End::Graceful, None);
                    cutting = Some(cut(self.conn));
                    h2.graceful_shutdown();
                }
                if end == End::Graceful && cutting.as_mut().is_some_and(|cut| cut.as_mut().poll(cx).is_ready()) {
                    cutting = None;
                    return Poll::Ready(Event::Cut);
                }
                let polled = h2.poll_accept(cx);
                for kind in self.watch.refused() {
                    self.log(kind, "");
                }
                if end != End::Now && self.watch.fault().is_some() {
                    return Poll::Ready(Event::Harm);
                }
                match polled {
                    Poll::Ready(Some(Ok((request, respond)))) => return Poll::Ready(Event::Stream(request, respond)),
                    Poll::Ready(Some(Err(error))) => return Poll::Ready(Event::Over(Some(error))),
                    Poll::Ready(None) => return Poll::Ready(Event::Over(None)),
                    Poll::Pending => {}
                }
                self.poll_late(cx, end, &mut idle, &mut alarm)
            })
            .await;
            match event {
                Event::Stream(request, respond) => {
                    self.begin(request, respond);
                    if end == End::No && self.conn.requests() >= self.conn.listener.peek().connections.requests {
                        (end, idle) = (End::Graceful, None);
                        h2.graceful_shutdown();
                    }
                }
                // Told that no stream of its will be served any more, the client has a moment to close.
                Event::Idle | Event::Old if end == End::No => {
                    (end, idle) = (End::Graceful, None);
                    h2.graceful_shutdown();
                }
                Event::Idle | Event::Old => return,
                Event::Cut => {
                    self.conn.set_fault(&DRAIN_ENDED);
                    (end, idle) = (End::Now, None);
                    h2.abrupt_shutdown(Reason::NO_ERROR);
                }
                Event::Harm => {
                    let kind = self.watch.fault().unwrap_or(&HTTP2_INVALID);
                    self.log(kind, "");
                    self.conn.set_fault(kind);
                    (end, idle) = (End::Now, None);
                    h2.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
                }
                Event::Over(error) => return self.judge_end(end, error.as_ref()),
            }
        }
    }

    /// Waits for what ends a connection beside its client: that it owes the rest of a header block for too long, or that it is idle.
    fn poll_late(&self, cx: &mut Context<'_>, end: End, idle: &mut Option<Instant>, alarm: &mut Alarm) -> Poll<Event> {
        let (deadlines, bounds) = {
            let settings = self.conn.listener.peek();
            (settings.deadlines, settings.connections)
        };
        let owed = self.watch.owed().filter(|_| end != End::Now).map(|since| since + deadlines.header);
        let rest = if end == End::Now || self.is_idle(cx) {
            let patience = if end == End::No { deadlines.keep_alive } else { deadlines.linger };
            Some(*idle.get_or_insert_with(Instant::now) + patience)
        } else {
            *idle = None;
            None
        };
        let old = (end == End::No).then(|| self.conn.old_at(bounds.age)).flatten();
        let Some(at) = owed.into_iter().chain(rest).chain(old).min() else { return Poll::Pending };
        ready!(alarm.poll_past(cx, at));
        if owed == Some(at) {
            self.watch.blame(&HEADER_TIMEOUT);
            return Poll::Ready(Event::Harm);
        }
        Poll::Ready(if old == Some(at) { Event::Old } else { Event::Idle })
    }

    /// The connection has ended: whether by a fault of the client's that the frame layer has found.
    fn judge_end(&self, end: End, error: Option<&h2::Error>) {
        let Some(reason) = error.filter(|error| error.is_go_away() && error.is_library()).and_then(h2::Error::reason) else { return };
        if end == End::Now || reason == Reason::NO_ERROR {
            return;
        }
        let kind = if reason == Reason::ENHANCE_YOUR_CALM { &FRAMES_TOO_MANY } else { &HTTP2_INVALID };
        self.log(kind, reason.description());
        self.conn.set_fault(kind);
        self.watch.blame(kind);
    }

    /// What concerns no request that is known.
    fn log(&self, kind: &'static Kind, reason: &str) {
        self.front.refuse_stream(self.conn, kind, &Asked { method: "", target: "", reason });
    }

    /// Whether nothing is being worked on; if not, this task is woken when that changes.
    fn is_idle(&self, cx: &Context<'_>) -> bool {
        if self.live.count.load(Ordering::Acquire) == 0 {
            return true;
        }
        let mut waker = self.live.waker.lock();
        match &*waker {
            Some(known) if known.will_wake(cx.waker()) => {}
            _ => *waker = Some(cx.waker().clone()),
        }
        drop(waker);
        // The last one may have ended in between.
        self.live.count.load(Ordering::Acquire) == 0
    }

    /// One stream has come: a task of its own, or a refusal.
    fn begin(&self, request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
        self.watch.saw(respond.stream_id().as_u32());
        let (parts, body) = request.into_parts();
        let settings = self.conn.listener.peek();
        // Requests whose streams were reset live on for a moment: they may not become more and more.
        if self.live.count.load(Ordering::Acquire) >= usize::from(settings.http2.streams) {
            respond.send_reset(Reason::REFUSED_STREAM);
            return self.log(&STREAMS_TOO_MANY, "");
        }
        let asked = (parts.method.clone(), parts.uri.path_and_query().map(|target| target.as_str().to_owned()));
        match judge(parts, &settings.heads) {
            Err(kind) => {
                let asked = Asked { method: asked.0.as_str(), target: asked.1.as_deref().unwrap_or_default(), reason: "" };
                self.refuse(kind, &asked, respond);
            }
            Ok(head) => {
                let conn = self.conn.stream();
                let stream = Stream::new(head, body, respond, conn.clone(), self.socket.clone(), Demands::of(&settings));
                let proxy: Arc<P> = self.front.proxy().clone();
                let guard = Guard::of(&self.live);
                tokio::spawn(async move {
                    let _guard = guard;
                    let exchange = proxy.process_new_http(ServerSession::new_custom(Box::new(stream)), &conn.closing);
                    // The connection as a whole is cut: see `Served::run`.
                    unless_stuck(&conn.deadline, exchange, |_| Poll::Pending).await;
                });
            }
        }
    }

    fn refuse(&self, kind: &'static Kind, asked: &Asked<'_>, mut respond: SendResponse<Bytes>) {
        let (head, document) = self.front.refuse_stream(self.conn, kind, asked);
        let is_bare = asked.method == "HEAD";
        let response: Response<()> = Response::from_parts(head, ());
        match respond.send_response(response, is_bare) {
            Ok(mut writer) if !is_bare => {
                // Fails only where the client has reset the stream.
                let _ = writer.send_data(document, true);
            }
            Ok(_) => {}
            Err(_) => respond.send_reset(Reason::PROTOCOL_ERROR),
        }
    }
}
