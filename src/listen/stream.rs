//! A client's connection as Pingora sees it: a stream that ends where the body of the current request ends.
//!
//! Decides when a body that drips is given up, and how a connection ends (so that the client reads the last answer instead of a
//! reset). Does not decide what a head is: see `head.rs`; nor what a chunk is: see `chunks.rs`.
//!
//! Bytes behind the body of the current request are kept here for the next one and never shown to Pingora: so pipelined
//! requests are judged like all others, and a client that sends early is told from one that has gone.
//! Nothing is allocated while the connection is idle: reads go over the stack, what is written is gathered in a buffer that
//! is given back when it is flushed. Without gathering, the head and the body of an answer would be two packets.

use std::io::{Error, ErrorKind, Result};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use pingora_core::protocols::SocketDigest;
use pingora_core::protocols::raw_connect::ProxyDigest;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::time::Sleep;

use self::tunnel::Tunnel;
use super::Listener;
use super::alarm::Alarm;
use super::caps::Permit;
use super::chunks::Chunks;
use super::conn::ConnInfo;
use super::head::{Body, Head};
use super::pace::{BODY_TOO_SLOW, Demand, Pace};
pub use super::wire::Socket;
use super::wire::Wire;
use crate::clock;

/// One client's connection.
#[derive(Debug)]
pub struct ClientStream<S: Socket> {
    /// `None` only once it has been dropped.
    wire: Option<Wire<S>>,
    conn: Arc<ConnInfo>,
    proxy: Option<Arc<ProxyDigest>>,
    socket: Arc<SocketDigest>,
    body: Rest,
    /// Read from the socket, but not part of what has been handed out so far.
    ahead: BytesMut,
    /// The client will send no more.
    is_ended: bool,
    /// Written by Pingora, but not yet to the socket.
    out: BytesMut,
    /// Exists only while a write is stuck.
    stuck: Option<Pin<Box<Sleep>>>,
    demands: Demands,
    reading: Pace,
    writing: Pace,
    /// Rings when the upstream's answer is overdue (see `relay/attempt/deadline.rs`), or the client too slow.
    overdue: Alarm,
    /// Since the upstream agreed to it.
    tunnel: Option<Box<Tunnel>>,
}

/// What clients must keep to, as of the current request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Demands {
    pub body: Demand,
    pub answer: Demand,
    ahead: usize,
}

/// What of the current request's body is still to come.
#[derive(Debug)]
enum Rest {
    Nothing,
    Length(u64),
    Chunked(Chunks),
    /// Whatever comes is handed on: a WebSocket handshake.
    Tunnel,
    /// The client's bytes make no sense any more.
    Broken,
}

/// Bytes that one read takes over the stack.
const SCRATCH_BYTES: usize = 8 << 10;

// === impl Demands ===

impl Demands {
    pub(super) fn of(listener: &Listener) -> Self {
        let Listener { deadlines, minimum_rates: rates, .. } = listener;
        Demands {
            body: Demand { patience: deadlines.body, rate: rates.body },
            answer: Demand { patience: deadlines.write, rate: rates.answer },
            ahead: listener.buffers.ahead,
        }
    }
}

// === impl ClientStream ===

impl<S: Socket> ClientStream<S> {
    pub fn new(socket: S, permit: Permit, conn: Arc<ConnInfo>) -> Box<Self> {
        let digest = SocketDigest::from_raw_fd(socket.fd());
        // Set here, so that nobody asks the kernel for it.
        let _ = digest.peer_addr.set(Some(pingora_core::protocols::l4::socket::SocketAddr::Inet(conn.peer)));
        Box::new(ClientStream {
            wire: Some(Wire::new(socket, permit)),
            proxy: conn.digest(),
            demands: Demands::of(&conn.listener.peek()),
            reading: Pace::default(),
            writing: Pace::default(),
            overdue: Alarm::default(),
            conn,
            socket: Arc::new(digest),
            body: Rest::Nothing,
            ahead: BytesMut::new(),
            is_ended: false,
            out: BytesMut::new(),
            stuck: None,
            tunnel: None,
        })
    }

    pub fn conn(&self) -> &Arc<ConnInfo> {
        &self.conn
    }

    /// Reads more of a head to the end of `head`: first what was read ahead, then the socket, at most 8 KiB.
    /// 0 means that the client will send no more.
    pub(super) fn poll_head(&mut self, cx: &mut Context<'_>, head: &mut BytesMut) -> Poll<Result<usize>> {
        if !self.ahead.is_empty() {
            let ahead = self.ahead.split();
            let n = ahead.len();
            if head.is_empty() {
                *head = ahead;
            } else {
                head.extend_from_slice(&ahead);
            }
            return Poll::Ready(Ok(n));
        }
        self.poll_append(cx, head)
    }

    /// From here on reads give the body that follows `head`; `rest` is what has been read behind the head.
    pub(super) fn begin(&mut self, head: &Head, rest: BytesMut, demands: Demands) {
        self.ahead = rest;
        self.demands = demands;
        (self.reading, self.writing) = (Pace::default(), Pace::default());
        self.body = match head.body {
            _ if head.upgrade => Rest::Tunnel,
            Body::None => Rest::Nothing,
            Body::Length(length) => Rest::Length(length),
            Body::Chunked => Rest::Chunked(Chunks::default()),
        };
    }

    /// From here on reads give whatever comes, `read` first: frames of HTTP/2, which know their own end.
    pub(super) fn begin_frames(&mut self, read: BytesMut, demands: Demands) {
        self.ahead = read;
        self.demands = demands;
        self.body = Rest::Tunnel;
    }

    /// What comes from now on is of no interest: read on for a while when dropped, so that the client sees what it was told.
    pub(super) fn break_frames(&mut self) {
        self.body = Rest::Broken;
    }

    /// Whether the current request has been read to its end, so that the next may begin.
    pub(super) fn is_at_rest(&self) -> bool {
        match self.body {
            // A handshake that was refused: after a 101 nobody asks, for Pingora never gives a tunnel back.
            Rest::Nothing | Rest::Tunnel => true,
            Rest::Length(_) | Rest::Chunked(_) | Rest::Broken => false,
        }
    }

    fn wire(&mut self) -> &mut S {
        &mut self.wire.as_mut().expect("the wire is taken only in drop").socket
    }

    /// Reads from the socket to the end of `to`, over the stack.
    fn poll_append(&mut self, cx: &mut Context<'_>, to: &mut BytesMut) -> Poll<Result<usize>> {
        if self.is_ended {
            return Poll::Ready(Ok(0));
        }
        let mut space = [MaybeUninit::<u8>::uninit(); SCRATCH_BYTES];
        let mut buf = ReadBuf::uninit(&mut space);
        ready!(Pin::new(self.wire()).poll_read(cx, &mut buf))?;
        let n = buf.filled().len();
        self.is_ended = n == 0;
        self.conn.count_received(n);
        to.extend_from_slice(buf.filled());
        Poll::Ready(Ok(n))
    }

    /// The request has been read: waits for the client to go away, and keeps what it sends early.
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        loop {
            if self.is_ended && self.ahead.is_empty() {
                return Poll::Ready(Ok(()));
            }
            // Nobody needs to be woken: the requests that are here already are served whatever comes.
            if self.is_ended || self.ahead.len() >= self.demands.ahead {
                return Poll::Pending;
            }
            let mut ahead = std::mem::take(&mut self.ahead);
            let read = self.poll_append(cx, &mut ahead);
            self.ahead = ahead;
            ready!(read)?;
        }
    }

    /// At most `most` bytes, from what was read ahead or from the socket, into `buf`. Says how many.
    fn poll_some(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>, most: usize) -> Poll<Result<usize>> {
        let before = buf.filled().len();
        // Pingora never asks for more than the body still has; whoever does gets it over `ahead`, to be cut.
        if self.ahead.is_empty() && buf.remaining() > most {
            let mut ahead = BytesMut::new();
            ready!(self.poll_append(cx, &mut ahead))?;
            self.ahead = ahead;
        }
        if !self.ahead.is_empty() {
            let n = most.min(buf.remaining()).min(self.ahead.len());
            buf.put_slice(&self.ahead[..n]);
            self.ahead.advance(n);
        } else if !self.is_ended {
            ready!(Pin::new(self.wire()).poll_read(cx, buf))?;
            let n = buf.filled().len() - before;
            self.is_ended = n == 0;
            self.conn.count_received(n);
        }
        Poll::Ready(Ok(buf.filled().len() - before))
    }

    /// Looks for the end of a chunked body in what has just been read, and takes back what lies behind it.
    fn cut_chunks(&mut self, buf: &mut ReadBuf<'_>, before: usize) -> Result<()> {
        let Rest::Chunked(chunks) = &mut self.body else { return Ok(()) };
        let fresh = &buf.filled()[before..];
        let used = match chunks.feed(fresh) {
            Ok(used) => used,
            Err(kind) => {
                self.body = Rest::Broken;
                self.conn.set_fault(kind);
                buf.set_filled(before);
                return Err(Error::new(ErrorKind::InvalidData, kind.code));
            }
        };
        if chunks.is_done() {
            self.body = Rest::Nothing;
            if used < fresh.len() {
                let mut ahead = BytesMut::from(&fresh[used..]);
                ahead.unsplit(std::mem::take(&mut self.ahead));
                self.ahead = ahead;
                buf.set_filled(before + used);
            }
        }
        Ok(())
    }
}

impl<S: Socket> AsyncRead for ClientStream<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        let me = &mut *self;
        me.conn.deadline.taken();
        if let Some(over) = me.conn.deadline.over() {
            return Poll::Ready(Err(me.end(over)));
        }
        if let Some(tunnel) = &mut me.tunnel
            && let Poll::Ready(why) = tunnel.poll_cut(cx)
        {
            // However busy it is.
            return Poll::Ready(Err(me.end(why)));
        }
        let before = buf.filled().len();
        let is_body = matches!(me.body, Rest::Length(_) | Rest::Chunked(_));
        let polled = me.poll_body(cx, buf);
        if is_body {
            ready!(me.poll_pace(cx, polled.is_ready(), buf.filled().len() - before))?;
        }
        if polled.is_pending() && !me.out.is_empty() {
            // Pingora flushes a body of a known length only at its end; when it waits for more, the client shall have what there is.
            ready!(me.poll_out(cx, &[]))?;
            // What TLS has made of it may not have left yet.
            ready!(me.poll_drain(cx))?;
        }
        if polled.is_pending()
            && let Some((at, overdue)) = me.conn.deadline.due()
            && me.overdue.poll_past(cx, clock::instant(at)).is_ready()
        {
            return Poll::Ready(Err(me.end(overdue)));
        }
        polled
    }
}

impl<S: Socket> ClientStream<S> {
    /// Whether the client sends its body fast enough: an error where it does not.
    fn poll_pace(&mut self, cx: &mut Context<'_>, has_read: bool, bytes: usize) -> Poll<Result<()>> {
        let demand = self.demands.body;
        if has_read {
            self.reading.progress(bytes, demand);
            return Poll::Ready(Ok(()));
        }
        let until = self.reading.wait(demand);
        // As long as it is not behind, the deadline of a single read, which Pingora keeps, is the nearer one.
        if demand.rate == 0 || !self.reading.is_behind() || self.overdue.poll_past(cx, until).is_pending() {
            return Poll::Ready(Ok(()));
        }
        self.body = Rest::Broken;
        self.conn.set_fault(&BODY_TOO_SLOW);
        Poll::Ready(Err(Error::new(ErrorKind::TimedOut, BODY_TOO_SLOW.code)))
    }

    /// Reads what the framing of the current request allows.
    fn poll_body(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        let me = self;
        let before = buf.filled().len();
        match &mut me.body {
            Rest::Nothing => me.poll_gone(cx),
            Rest::Broken => Poll::Ready(Err(ErrorKind::InvalidData.into())),
            Rest::Tunnel => me.poll_some(cx, buf, usize::MAX).map_ok(|_| ()),
            Rest::Chunked(_) => {
                ready!(me.poll_some(cx, buf, usize::MAX))?;
                Poll::Ready(me.cut_chunks(buf, before))
            }
            Rest::Length(left) => {
                let most = usize::try_from(*left).unwrap_or(usize::MAX);
                let n = ready!(me.poll_some(cx, buf, most))? as u64;
                if let Rest::Length(left) = &mut me.body {
                    *left -= n;
                    if *left == 0 {
                        me.body = Rest::Nothing;
                    }
                }
                Poll::Ready(Ok(()))
            }
        }
    }
}

mod digests;
mod ending;
mod out;
mod tunnel;

#[cfg(test)]
mod tests;
