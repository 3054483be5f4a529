//! Opens the connections to upstreams of HTTP/1.1 and lets them rest between requests.
//!
//! Decides whether a connection may rest, and what Pingora is told of it. Does not decide where to and for how long (`peer.rs`), nor which of those
//! that rest is taken (`kept.rs`). HTTP/2 is connected to and kept by Pingora.
//!
//! Pingora's own pool makes a task for each connection that rests, and asks the kernel who is at the other end of each that it takes. So Pingora is
//! given a stream that says it has ended when it is asked whether it may be kept, whereupon Pingora lets go of it: see docs/decisions.

use std::any::Any;
use std::fmt;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::os::fd::AsRawFd;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use pingora_core::connectors::http::custom;
use pingora_core::protocols::l4::stream::Stream as PingoraStream;
use pingora_core::protocols::raw_connect::ProxyDigest;
use pingora_core::protocols::tls::CustomALPN;
use pingora_core::protocols::{
    ALPN, Digest, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, TimingDigest, UniqueID, UniqueIDType,
};
use pingora_core::upstreams::peer::{HttpPeer, Peer, Tracer};
use pingora_core::{Error, ErrorType, Result};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::task::unconstrained;

use super::kept::{Kept, Key, Rests};
use super::open::{Raw, dial};
use super::peer::NO_REST;

/// What a worker opens connections with, and where they rest.
pub struct Connector {
    kept: Arc<Kept<Connection>>,
}

/// What is between the gateway and a target.
#[derive(Debug)]
pub struct Connection {
    wire: Wire,
    /// Told when it is over.
    tracer: Option<Tracer>,
}

#[derive(Debug)]
enum Wire {
    Raw(Raw),
    /// Opened by `connect.rs`.
    Opened(Box<PingoraStream>),
}

/// A connection as long as a request has it.
struct Lent {
    connection: Option<Connection>,
    /// Where it may rest, and for how long.
    home: Option<(Arc<Kept<Connection>>, Key, Duration)>,
    is_reused: bool,
    /// Its answer is complete, and nothing followed.
    may_rest: bool,
}

/// The protocol by whose name Pingora comes to us; never said to a target.
const OURS: &[u8] = b"sluice";

/// What peers of HTTP/1.1 have to have.
pub(super) fn alpn() -> ALPN {
    ALPN::Custom(CustomALPN::new(OURS.to_vec()))
}

/// Whether a connection has carried a request before. Pingora knows of its own ones only.
pub fn is_reused(by_pingora: bool, digest: Option<&Digest>) -> bool {
    by_pingora || digest.is_some_and(|digest| digest.timing_digest.is_empty())
}

// === impl Connector ===

impl Connector {
    /// `most`: see [`Kept::new`].
    pub fn new(most: usize) -> Connector {
        Connector { kept: Arc::new(Kept::new(most)) }
    }

    /// Closes what rests too long; for ever.
    pub fn look_after(&self) -> impl Future<Output = ()> + Send + use<> {
        let kept = self.kept.clone();
        async move { kept.look_after().await }
    }

    async fn connect(peer: &HttpPeer) -> Result<Connection> {
        let wire = match &peer.options.custom_l4 {
            Some(opens) => Wire::Opened(Box::new(opens.connect(&peer._address).await?)),
            None => Wire::Raw(dial(&peer._address, peer.options.connection_timeout.unwrap_or(Duration::MAX), &[]).await?),
        };
        let tracer = peer.options.tracer.clone();
        if let Some(tracer) = &tracer {
            tracer.0.on_connected();
        }
        Ok(Connection { wire, tracer })
    }
}

#[async_trait]
impl custom::Connector for Connector {
    type Session = ();

    async fn get_http_session<P: Peer + Send + Sync + 'static>(&self, peer: &P) -> Result<(custom::Connection<()>, bool)> {
        let Some(peer) = (peer as &dyn Any).downcast_ref::<HttpPeer>() else {
            return Err(Error::explain(ErrorType::InternalError, "a peer that is not ours"));
        };
        let idle = peer.options.idle_timeout.filter(|idle| *idle != NO_REST);
        let key = (peer.group_key, peer._address.as_inet().copied());
        let rested = idle.and_then(|_| self.kept.take(key, Instant::now()));
        let is_reused = rested.is_some();
        let connection = match rested {
            Some(connection) => connection,
            // Boxed: hardly any request comes here, and all would have to make room for it.
            None => Box::pin(Connector::connect(peer)).await?,
        };
        let home = idle.map(|idle| (self.kept.clone(), key, idle));
        Ok((custom::Connection::Stream(Box::new(Lent { connection: Some(connection), home, is_reused, may_rest: false })), is_reused))
    }

    /// There are none: what we give is a stream, of which Pingora makes a session of HTTP/1.1.
    async fn reused_http_session<P: Peer + Send + Sync + 'static>(&self, _: &P) -> Option<()> {
        None
    }

    async fn release_http_session<P: Peer + Send + Sync + 'static>(&self, (): (), _: &P, _: Option<Duration>) {}
}

// === impl Connection ===

impl Rests for Connection {
    fn is_good(&mut self) -> bool {
        let (wire, mut byte) = (&mut self.wire, [0]);
        let read = poll_fn(|cx| Pin::new(&mut *wire).poll_read(cx, &mut ReadBuf::new(&mut byte)));
        // A task that has read much is told to wait, even where there is something to be read.
        pin!(unconstrained(read)).poll(&mut Context::from_waker(Waker::noop())).is_pending()
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if let Some(tracer) = &self.tracer {
            tracer.0.on_disconnected();
        }
    }
}

// === impl Wire ===

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Wire::Raw(raw) => Pin::new(raw).poll_read(cx, buf),
            Wire::Opened(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Wire::Raw(raw) => Pin::new(raw).poll_write(cx, buf),
            Wire::Opened(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(self: Pin<&mut Self>, cx: &mut Context<'_>, parts: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Wire::Raw(raw) => Pin::new(raw).poll_write_vectored(cx, parts),
            Wire::Opened(stream) => Pin::new(stream).poll_write_vectored(cx, parts),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Wire::Raw(raw) => Pin::new(raw).poll_flush(cx),
            Wire::Opened(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Wire::Raw(raw) => Pin::new(raw).poll_shutdown(cx),
            Wire::Opened(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

// === impl Lent ===

impl Lent {
    /// There until it is dropped.
    fn wire(&mut self) -> io::Result<Pin<&mut Wire>> {
        self.connection.as_mut().map(|connection| Pin::new(&mut connection.wire)).ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// Whether Pingora asks if it may be kept: only then does it read into one byte that it has set to zero. A head or a body is read into more.
    fn is_asked(buf: &ReadBuf<'_>) -> bool {
        buf.capacity() == 1 && buf.initialized().len() == 1
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let (true, Some(connection), Some((kept, key, idle))) = (self.may_rest, self.connection.take(), self.home.take()) {
            kept.put(key, connection, Instant::now() + idle);
        }
    }
}

impl AsyncRead for Lent {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let lent = self.get_mut();
        let read = lent.wire()?.poll_read(cx, buf);
        if read.is_pending() && Lent::is_asked(buf) {
            lent.may_rest = true;
            // An end of the stream: Pingora drops it.
            return Poll::Ready(Ok(()));
        }
        read
    }
}

impl AsyncWrite for Lent {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.get_mut().wire()?.poll_write(cx, buf)
    }

    fn poll_write_vectored(self: Pin<&mut Self>, cx: &mut Context<'_>, parts: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        self.get_mut().wire()?.poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().wire()?.poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().wire()?.poll_shutdown(cx)
    }
}

#[async_trait]
impl Shutdown for Lent {
    async fn shutdown(&mut self) {
        // It is closed, whatever the target says to that.
        let _ = AsyncWriteExt::shutdown(self).await;
    }
}

impl UniqueID for Lent {
    fn id(&self) -> UniqueIDType {
        match self.connection.as_ref().map(|connection| &connection.wire) {
            Some(Wire::Raw(raw)) => raw.as_raw_fd(),
            Some(Wire::Opened(stream)) => stream.as_raw_fd(),
            None => -1,
        }
    }
}

impl GetTimingDigest for Lent {
    /// What had to be established for this request: see [`is_reused`].
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        if self.is_reused { Vec::new() } else { vec![None] }
    }
}

impl GetProxyDigest for Lent {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        None
    }
}

impl GetSocketDigest for Lent {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        None
    }
}

impl Ssl for Lent {}
impl Peek for Lent {}

impl fmt::Debug for Lent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lent").field("connection", &self.connection).field("is_reused", &self.is_reused).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::BytesMut;
    use tokio::io::AsyncReadExt;
    use tokio::net::UnixStream;

    const KEY: Key = (1, None);

    fn lent(kept: &Arc<Kept<Connection>>) -> (Lent, UnixStream) {
        let (ours, target) = UnixStream::pair().unwrap();
        let connection = Connection { wire: Wire::Raw(Raw::Unix(ours)), tracer: None };
        let home = Some((kept.clone(), KEY, Duration::from_secs(60)));
        (Lent { connection: Some(connection), home, is_reused: false, may_rest: false }, target)
    }

    /// As Pingora does before it keeps a connection.
    async fn asked_and_dropped(mut lent: Lent) -> Option<io::Result<usize>> {
        let mut byte = [0];
        let mut read = Box::pin(lent.read(&mut byte));
        poll_fn(|cx| {
            Poll::Ready(match read.as_mut().poll(cx) {
                Poll::Ready(read) => Some(read),
                Poll::Pending => None,
            })
        })
        .await
    }

    fn rests(kept: &Kept<Connection>) -> bool {
        kept.take(KEY, Instant::now()).is_some()
    }

    #[tokio::test]
    async fn one_that_is_asked_for_rests_when_it_is_dropped() {
        let kept = Arc::new(Kept::new(4));
        let (lent, mut target) = lent(&kept);
        assert!(asked_and_dropped(lent).await.is_some_and(|read| read.is_ok_and(|count| count == 0)), "Pingora lets go of it");
        let connection = kept.take(KEY, Instant::now()).expect("it rests");
        let mut again = Lent { connection: Some(connection), home: None, is_reused: true, may_rest: false };
        again.write_all(b"ask").await.unwrap();
        assert_eq!(target.read(&mut [0; 8]).await.unwrap(), 3);
        asked_and_dropped(again).await;
        assert!(!rests(&kept) && target.read(&mut [0; 8]).await.unwrap() == 0, "one without a home is closed");
    }

    #[tokio::test]
    async fn one_on_which_something_came_or_that_is_not_asked_for_is_closed() {
        let kept = Arc::new(Kept::new(4));
        let (unasked, mut target) = lent(&kept);
        drop(unasked);
        assert_eq!(target.read(&mut [0; 8]).await.unwrap(), 0);
        let (chatty, mut target) = lent(&kept);
        target.write_all(b"more").await.unwrap();
        // Until the reactor knows.
        if let Wire::Raw(Raw::Unix(ours)) = &chatty.connection.as_ref().unwrap().wire {
            ours.readable().await.unwrap();
        }
        assert!(asked_and_dropped(chatty).await.is_some_and(|read| read.is_ok_and(|count| count == 1)));
        assert!(!rests(&kept));
    }

    #[tokio::test]
    async fn none_of_very_many_that_their_target_has_closed_is_taken() {
        let kept = Arc::new(Kept::new(400));
        for _ in 0..300 {
            let (mut lent, target) = lent(&kept);
            drop(target);
            let connection = lent.connection.take().unwrap();
            if let Wire::Raw(Raw::Unix(ours)) = &connection.wire {
                ours.readable().await.unwrap();
            }
            kept.put(KEY, connection, Instant::now() + Duration::from_secs(60));
        }
        assert!(!rests(&kept));
    }

    #[tokio::test]
    async fn a_read_into_what_room_is_left_is_no_question() {
        let kept = Arc::new(Kept::new(4));
        let (mut lent, mut target) = lent(&kept);
        let mut room = BytesMut::with_capacity(1);
        let read = tokio::join!(lent.read_buf(&mut room), async {
            tokio::task::yield_now().await;
            target.write_all(b"x").await.unwrap();
        });
        assert!(read.0.unwrap() == 1 && !lent.may_rest);
    }
}
