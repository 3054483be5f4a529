//! Keeps the time an upstream may take to its response head, and the silence it may keep after it, apart.
//!
//! Pingora has one read timeout per connection to an upstream, set when it is handed out, and no hook can change it when the
//! head has come; it also starts anew with every chunk that a client uploads, so a slow client would look like a slow upstream. While
//! an answer is awaited, Pingora polls the *client's* connection too, to see it close. So the deadline is put where that poll ends
//! up: the listener's connection asks [`Deadline::due`] in its `poll_read` and fails the read with [`Overdue`]; `retry.rs`
//! recognises it. Decides nothing about clients; the listener's timers are its own.
//!
//! Does not see silence while the client does not take what was sent (then the client is not polled, nor at fault is the upstream).
//!
//! While the upstream does not take what the client sent, Pingora asks the client for nothing either, and goes on so for ever. That time is
//! kept here, too; whoever runs the exchange looks at it from outside: see `listen/stall.rs`.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use pingora_core::Error;

use super::timeouts::TOTAL_TIMEOUT;
use super::tunnel::{WEBSOCKET_EXPIRED, WEBSOCKET_REVOKED};
use crate::clock;
use crate::exchange::DRAIN_ENDED;
use crate::relay::retry::{IDLE_TIMEOUT, RESPONSE_TIMEOUT};
use crate::relay::translate::grpc_timeout::GRPC_DEADLINE;
use crate::reply::problem::Kind;

/// One per connection of a client: shared by what reads the connection and the request that is on it.
#[derive(Debug, Default)]
pub struct Deadline {
    /// Nanoseconds on the clock of [`crate::ctx::Now::mono`], the lowest bit cut off and used for what is awaited; 0: nothing is.
    word: AtomicU64,
    /// When the exchange ends whatever happens, in the same way; the lowest bits say why. 0: never.
    end: AtomicU64,
    /// When the upstream has to have taken the piece of the request that is on its way. 0: the client is being asked for more, so it has.
    taking: AtomicU64,
    /// How long it may take for one.
    patience: AtomicU64,
}

/// In `taking`: it has not.
const STUCK: u64 = u64::MAX;

/// What was awaited in vain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overdue {
    Head,
    Bytes,
    /// The token that opened a tunnel has expired.
    Token,
    /// Who opened a tunnel has been revoked.
    Revoked,
    /// The caller's `grpc-timeout` is over.
    Call,
    /// `timeouts.total` is over.
    Total,
    /// The listener went with a reload, and the time for a drain is over.
    Drain,
}

// === impl Deadline ===

impl Deadline {
    /// The last byte of the request has gone to the upstream: its head is due within `timeouts.response`. For each attempt anew.
    pub fn await_head(&self, mono: u64, response: Duration) {
        self.set(mono, response, 0);
    }

    /// The head or a chunk of the answer has come: the next is due within `timeouts.idle`.
    pub fn await_bytes(&self, mono: u64, idle: Duration) {
        self.set(mono, idle, 1);
    }

    /// The tunnel ends then, however busy it is: the token that opened it expires.
    pub fn end_at(&self, mono: u64) {
        self.end.store(mono.max(4) & !3, Relaxed);
    }

    /// The call ends then, however busy it is: its caller waits no longer.
    pub fn end_call_at(&self, mono: u64) {
        self.end.store((mono & !3) | 1, Relaxed);
    }

    /// The exchange ends then, however often it was tried.
    pub fn end_all_at(&self, mono: u64) {
        self.end.store((mono & !3) | 2, Relaxed);
    }

    /// A tunnel goes on for as long as it likes.
    pub fn end_never(&self) {
        self.end.store(0, Relaxed);
    }

    /// An attempt has failed and another will follow: until then nothing is awaited of an upstream.
    pub fn await_nothing(&self) {
        self.word.store(0, Relaxed);
    }

    /// The answer is complete or given up, or the client has something to send first.
    pub fn clear(&self) {
        self.word.store(0, Relaxed);
        self.end.store(0, Relaxed);
        self.taken();
    }

    /// A piece of the request is on its way to the upstream, which may take so long for it, and a little more: Pingora keeps the same time
    /// for some writes, and goes on with an answer that has come meanwhile.
    pub fn await_taken(&self, mono: u64, within: Duration) {
        let within = u64::try_from((within + within / 8).as_nanos()).unwrap_or(u64::MAX);
        self.patience.store(within, Relaxed);
        self.taking.store(mono.saturating_add(within).clamp(1, STUCK - 1), Relaxed);
    }

    /// The client is asked for more, or the exchange is over.
    pub fn taken(&self) {
        if self.taking.load(Relaxed) != 0 {
            self.taking.store(0, Relaxed);
        }
    }

    /// Something else has happened by `mono`, or will have: the time for the piece on its way, if there is one, begins anew.
    pub fn put_off(&self, mono: u64) {
        if !matches!(self.taking.load(Relaxed), 0 | STUCK) {
            self.taking.store(mono.saturating_add(self.patience.load(Relaxed)).clamp(1, STUCK - 1), Relaxed);
        }
    }

    /// When the piece on its way is overdue; none where none is on its way.
    pub fn taken_by(&self) -> Option<u64> {
        Some(self.taking.load(Relaxed)).filter(|at| *at != 0)
    }

    /// It is: the exchange is given up.
    pub fn note_stuck(&self) {
        self.taking.store(STUCK, Relaxed);
    }

    /// Whether the exchange was given up for that.
    pub fn is_stuck(&self) -> bool {
        self.taking.load(Relaxed) == STUCK
    }

    /// What has ended the exchange by now, even where neither side is silent.
    pub fn over(&self) -> Option<Overdue> {
        match self.end.load(Relaxed) {
            0 => None,
            end => (end <= clock::mono()).then(|| ended(end)),
        }
    }

    /// When it ends whatever happens, and why.
    pub fn end(&self) -> Option<(u64, Overdue)> {
        match self.end.load(Relaxed) {
            0 => None,
            end => Some((end, ended(end))),
        }
    }

    /// When something is overdue, and what.
    pub fn due(&self) -> Option<(u64, Overdue)> {
        let word = self.word.load(Relaxed);
        let silence = match (word, word & 1) {
            (0, _) => None,
            (_, 0) => Some((word, Overdue::Head)),
            _ => Some((word & !1, Overdue::Bytes)),
        };
        match (silence, self.end()) {
            (Some(silence), Some(end)) => Some(if end.0 < silence.0 { end } else { silence }),
            (silence, end) => silence.or(end),
        }
    }

    fn set(&self, mono: u64, within: Duration, bit: u64) {
        let within = u64::try_from(within.as_nanos()).unwrap_or(u64::MAX);
        // Two, so that a deadline is never taken for none.
        self.word.store((mono.saturating_add(within).max(2) & !1) | bit, Relaxed);
    }
}

/// Whose the end is, by its lowest bits.
fn ended(end: u64) -> Overdue {
    match end & 3 {
        0 => Overdue::Token,
        1 => Overdue::Call,
        _ => Overdue::Total,
    }
}

// === impl Overdue ===

impl From<Overdue> for io::Error {
    fn from(overdue: Overdue) -> Self {
        io::Error::new(io::ErrorKind::TimedOut, overdue)
    }
}

impl fmt::Display for Overdue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Overdue::Head => "the upstream sent no response head in time",
            Overdue::Bytes => "the upstream fell silent in the middle of its answer",
            Overdue::Token => "the token that opened the tunnel has expired",
            Overdue::Revoked => "what opened the tunnel has been revoked",
            Overdue::Call => "the caller waits no longer",
            Overdue::Total => "the time for all attempts is over",
            Overdue::Drain => "the time for a drain is over",
        })
    }
}

impl StdError for Overdue {}

/// The kind of an error that began as an [`Overdue`] read; None for all others.
pub(in crate::relay) fn kind_in(error: &Error) -> Option<&'static Kind> {
    let mut cause: Option<&(dyn StdError + 'static)> = error.cause.as_deref().map(|e| e as _);
    while let Some(error) = cause {
        // Pingora boxes its own errors as causes, and an `io::Error` does not name what it wraps as its source.
        let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref).map(|e| e as &(dyn StdError + 'static));
        match wrapped.unwrap_or(error).downcast_ref::<Overdue>() {
            Some(Overdue::Head) => return Some(&RESPONSE_TIMEOUT),
            Some(Overdue::Bytes) => return Some(&IDLE_TIMEOUT),
            Some(Overdue::Token) => return Some(&WEBSOCKET_EXPIRED),
            Some(Overdue::Revoked) => return Some(&WEBSOCKET_REVOKED),
            Some(Overdue::Call) => return Some(&GRPC_DEADLINE),
            Some(Overdue::Total) => return Some(&TOTAL_TIMEOUT),
            Some(Overdue::Drain) => return Some(&DRAIN_ENDED),
            None => {}
        }
        cause = match error.downcast_ref::<Box<Error>>() {
            Some(error) => error.cause.as_deref().map(|e| e as _),
            None => error.source(),
        };
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relay::retry::{Phase, kind_of};
    use pingora_core::ErrorType::ReadError;

    #[test]
    fn head_and_bytes_are_told_apart() {
        let deadline = Deadline::default();
        assert_eq!(deadline.due(), None);
        deadline.await_head(1_001, Duration::from_nanos(100));
        assert_eq!(deadline.due(), Some((1_100, Overdue::Head)));
        deadline.await_bytes(2_001, Duration::from_nanos(100));
        assert_eq!(deadline.due(), Some((2_100, Overdue::Bytes)));
        deadline.clear();
        assert_eq!(deadline.due(), None);
        deadline.await_head(0, Duration::ZERO);
        assert!(deadline.due().is_some());
    }

    #[test]
    fn a_piece_on_its_way_is_due_until_more_is_asked_for() {
        let deadline = Deadline::default();
        deadline.put_off(5);
        assert_eq!((deadline.taken_by(), deadline.is_stuck()), (None, false), "nothing is on its way");
        deadline.await_taken(1_000, Duration::from_nanos(800));
        assert_eq!(deadline.taken_by(), Some(1_900));
        deadline.put_off(3_000);
        assert_eq!((deadline.taken_by(), deadline.due()), (Some(3_900), None));
        deadline.taken();
        assert_eq!(deadline.taken_by(), None);
        deadline.await_taken(1_000, Duration::from_secs(1));
        deadline.note_stuck();
        deadline.put_off(1);
        assert!(deadline.is_stuck());
        deadline.clear();
        assert!(!deadline.is_stuck());
    }

    #[test]
    fn an_end_holds_however_busy_both_sides_are() {
        let deadline = Deadline::default();
        assert_eq!((deadline.over(), deadline.end()), (None, None));
        // The last bit of a moment says what ends then.
        let now = clock::mono() & !3;
        let hour = Duration::from_secs(3600);
        deadline.end_at(now + 2 * 3_600_000_000_000);
        deadline.await_bytes(now, hour);
        assert_eq!(deadline.due().map(|(_, what)| what), Some(Overdue::Bytes));
        deadline.await_bytes(now, 3 * hour);
        assert_eq!(deadline.due(), Some((now + 2 * 3_600_000_000_000, Overdue::Token)));
        assert_eq!(deadline.over(), None);
        deadline.end_at(0);
        assert_eq!(deadline.over(), Some(Overdue::Token));
        deadline.end_call_at(0);
        assert_eq!(deadline.over(), Some(Overdue::Call));
        deadline.end_all_at(7);
        assert_eq!((deadline.over(), deadline.end()), (Some(Overdue::Total), Some((6, Overdue::Total))));
        deadline.await_nothing();
        assert_eq!(deadline.due(), deadline.end());
        deadline.end_never();
        assert_eq!((deadline.over(), deadline.due()), (None, None));
        deadline.clear();
        assert_eq!((deadline.over(), deadline.due()), (None, None));
    }

    #[test]
    fn an_overdue_upstream_is_not_taken_for_a_client_that_left() {
        for (overdue, code) in [(Overdue::Head, "upstream-response-timeout"), (Overdue::Bytes, "upstream-idle-timeout")] {
            let read = Error::because(ReadError, "during HTTP body-or-idle state", io::Error::from(overdue)).into_down();
            assert_eq!(kind_of(&read, Phase::Head).code, code);
            let told_again = Error::because(ReadError, "Peer: 10.0.0.1:80", read).into_down();
            assert_eq!(kind_of(&told_again, Phase::Head).code, code);
        }
        let reset = Error::because(ReadError, "reset", io::Error::from(io::ErrorKind::ConnectionReset)).into_down();
        assert_eq!(kind_of(&reset, Phase::Head).code, "client-gone");
    }

    /// A gateway and its client's connection in memory, an upstream on loopback: that Pingora asks the client's connection while it
    /// awaits an answer, and that an answer can still be written after such a read failed.
    mod in_pingora {
        use super::*;
        use crate::relay::attempt::peer::{Want, peer};
        use crate::relay::attempt::protocol::Protocol;
        use crate::relay::balance::choose;
        use crate::relay::targets::pool::{Pool, Pools};
        use crate::relay::upstream::Upstream;
        use crate::relay::upstream::tests::settings;
        use async_trait::async_trait;
        use bytes::Bytes;
        use parking_lot::Mutex;
        use pingora_core::apps::ServerApp;
        use pingora_core::protocols::raw_connect::ProxyDigest;
        use pingora_core::protocols::{
            GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, TimingDigest, UniqueID,
        };
        use pingora_core::server::configuration::ServerConf;
        use pingora_core::upstreams::peer::HttpPeer;
        use pingora_http::ResponseHeader;
        use pingora_proxy::{FailToProxy, HttpProxy, ProxyHttp, Session};
        use std::future::Future;
        use std::pin::Pin;
        use std::sync::Arc;
        use std::task::{Context, Poll};
        use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf};
        use tokio::net::TcpListener;
        use tokio::time::{Instant, Sleep, sleep_until};

        #[derive(Debug)]
        struct Guarded {
            inner: DuplexStream,
            deadline: Arc<Deadline>,
            start: Instant,
            alarm: Option<Pin<Box<Sleep>>>,
        }

        impl AsyncRead for Guarded {
            fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
                if let Poll::Ready(done) = Pin::new(&mut self.inner).poll_read(cx, buf) {
                    return Poll::Ready(done);
                }
                let Some((at, overdue)) = self.deadline.due() else { return Poll::Pending };
                let mut alarm = Box::pin(sleep_until(self.start + Duration::from_nanos(at)));
                if alarm.as_mut().poll(cx).is_pending() {
                    self.alarm = Some(alarm);
                    return Poll::Pending;
                }
                Poll::Ready(Err(overdue.into()))
            }
        }

        impl AsyncWrite for Guarded {
            fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
                Pin::new(&mut self.inner).poll_write(cx, buf)
            }
            fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                Pin::new(&mut self.inner).poll_flush(cx)
            }
            fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                Pin::new(&mut self.inner).poll_shutdown(cx)
            }
        }

        #[async_trait]
        impl Shutdown for Guarded {
            async fn shutdown(&mut self) {}
        }
        impl UniqueID for Guarded {
            fn id(&self) -> i32 {
                0
            }
        }
        impl Ssl for Guarded {}
        impl Peek for Guarded {}
        impl GetTimingDigest for Guarded {
            fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
                Vec::new()
            }
        }
        impl GetProxyDigest for Guarded {
            fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
                None
            }
        }
        impl GetSocketDigest for Guarded {
            fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
                None
            }
        }

        struct Gateway {
            pool: Arc<Pool>,
            deadline: Arc<Deadline>,
            start: Instant,
            response: Duration,
            idle: Duration,
            failed: Arc<Mutex<Option<&'static str>>>,
        }

        impl Gateway {
            fn mono(&self) -> u64 {
                self.start.elapsed().as_nanos() as u64
            }
        }

        #[async_trait]
        impl ProxyHttp for Gateway {
            type CTX = ();
            fn new_ctx(&self) {}
            async fn upstream_peer(&self, _: &mut Session, (): &mut ()) -> pingora_core::Result<Box<HttpPeer>> {
                let want =
                    Want { fresh: false, speaks: Protocol::Http1, now: 0, client: None, within: self.pool.upstream.timeouts.connect };
                let mut peer = peer(&self.pool, &choose(&self.pool, Default::default(), || 0).unwrap(), want);
                // This proxy has no connector of ours.
                peer.options.set_http_version(1, 1);
                Ok(peer)
            }
            async fn request_body_filter(
                &self,
                _: &mut Session,
                _: &mut Option<Bytes>,
                end: bool,
                (): &mut (),
            ) -> pingora_core::Result<()> {
                if end {
                    self.deadline.await_head(self.mono(), self.response);
                }
                Ok(())
            }
            async fn upstream_response_filter(&self, _: &mut Session, _: &mut ResponseHeader, (): &mut ()) -> pingora_core::Result<()> {
                self.deadline.await_bytes(self.mono(), self.idle);
                Ok(())
            }
            fn upstream_response_body_filter(
                &self,
                _: &mut Session,
                _: &mut Option<Bytes>,
                end: bool,
                (): &mut (),
            ) -> pingora_core::Result<Option<Duration>> {
                if end {
                    self.deadline.clear()
                } else {
                    self.deadline.await_bytes(self.mono(), self.idle)
                }
                Ok(None)
            }
            async fn fail_to_proxy(&self, session: &mut Session, e: &Error, (): &mut ()) -> FailToProxy {
                let phase = if session.response_written().is_some() { Phase::Body } else { Phase::Head };
                let kind = kind_of(e, phase);
                *self.failed.lock() = Some(kind.code);
                session.set_keepalive(None);
                if phase == Phase::Head {
                    let mut head = ResponseHeader::build(kind.status, None).unwrap();
                    head.insert_header("content-length", "0").unwrap();
                    session.write_response_header(Box::new(head), true).await.unwrap();
                }
                FailToProxy { error_code: kind.status, can_reuse_downstream: false }
            }
        }

        /// Sends a GET through a gateway to an upstream that says `answer` and then nothing more. What the client got, and the code.
        async fn exchange(answer: &'static str, response: Duration, idle: Duration) -> (String, Option<&'static str>) {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap().to_string();
            let upstream = tokio::spawn(async move {
                let (mut stream, _) = listener.accept().await.unwrap();
                let _ = stream.read(&mut [0; 1024]).await.unwrap();
                stream.write_all(answer.as_bytes()).await.unwrap();
                stream
            });
            let pool = Pools::default().adopt(&Arc::new(Upstream::compile("orders", &settings(&[(&address, 1)])).unwrap()));
            let (deadline, start, failed) = (Arc::new(Deadline::default()), Instant::now(), Arc::new(Mutex::new(None)));
            let gateway = Gateway { pool, deadline: deadline.clone(), start, response, idle, failed: failed.clone() };
            let mut proxy = HttpProxy::new(gateway, Arc::new(ServerConf::default()));
            proxy.handle_init_modules();
            let (mut client, inner) = tokio::io::duplex(4096);
            let served = tokio::spawn(async move {
                let (_stop, stopped) = tokio::sync::watch::channel(false);
                let stream = Box::new(Guarded { inner, deadline, start, alarm: None });
                Arc::new(proxy).process_new(stream, &stopped).await;
            });
            client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.unwrap();
            let mut got = Vec::new();
            client.read_to_end(&mut got).await.unwrap();
            served.await.unwrap();
            // Until here the upstream kept its connection open.
            drop(upstream.await.unwrap());
            let code = *failed.lock();
            (String::from_utf8(got).unwrap(), code)
        }

        const SOON: Duration = Duration::from_millis(50);
        const NEVER: Duration = Duration::from_secs(3600);

        #[tokio::test]
        async fn a_head_that_does_not_come_in_time_is_a_504() {
            let (got, code) = exchange("", SOON, NEVER).await;
            assert_eq!(code, Some("upstream-response-timeout"));
            assert!(got.starts_with("HTTP/1.1 504 "), "{got}");
        }

        #[tokio::test]
        async fn silence_in_the_middle_of_an_answer_cuts_it() {
            let (got, code) = exchange("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", NEVER, SOON).await;
            assert_eq!(code, Some("upstream-idle-timeout"));
            assert!(got.starts_with("HTTP/1.1 200 ") && got.ends_with("\r\n\r\nabc"), "{got}");
        }

        #[tokio::test]
        async fn an_answer_in_time_is_left_alone() {
            let (got, code) = exchange("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", NEVER, NEVER).await;
            assert_eq!(code, None);
            assert!(got.starts_with("HTTP/1.1 200 ") && got.ends_with("\r\n\r\nabc"), "{got}");
        }
    }
}
