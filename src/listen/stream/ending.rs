//! How a client's connection ends, so that the client learns what it can.
//!
//! Decides what is read and thrown away before a socket is closed, and that a tunnel that the gateway ends says goodbye. Does not
//! decide when: see `relay/attempt/deadline.rs`.

use std::future::poll_fn;
use std::io::{Error, IoSlice};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Waker};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf};
use tokio::time::timeout;

use super::tunnel::Tunnel;
use super::{ClientStream, Rest, SCRATCH_BYTES, Socket};
use crate::relay::attempt::deadline::Overdue;

impl<S: Socket> ClientStream<S> {
    /// Writes a last answer. Dropped afterwards, it reads on for a while, so that the client sees the answer.
    pub(in super::super) async fn finish_with(&mut self, answer: &[u8]) {
        self.body = Rest::Broken;
        if self.write_all(answer).await.is_ok() {
            self.close().await;
        }
    }

    /// Reads the rest of a body and throws it away. False: it did not come within the time, or makes no sense.
    pub(in super::super) async fn skip_body(&mut self, limit: Duration) -> bool {
        let skip = async {
            while !self.is_at_rest() {
                let n = poll_fn(|cx| {
                    let mut space = [MaybeUninit::<u8>::uninit(); SCRATCH_BYTES];
                    let mut buf = ReadBuf::uninit(&mut space);
                    Pin::new(&mut *self).poll_read(cx, &mut buf).map_ok(|()| buf.filled().len())
                });
                if !matches!(n.await, Ok(1..)) {
                    return false;
                }
            }
            true
        };
        timeout(limit, skip).await.unwrap_or(false)
    }

    /// Writes out what was gathered, and tells the client that nothing follows.
    pub(in super::super) async fn close(&mut self) {
        let _ = AsyncWriteExt::shutdown(self).await;
    }

    /// The exchange is overdue: a tunnel remembers why, so that its client can be told.
    pub(super) fn end(&mut self, why: Overdue) -> Error {
        if let Some(tunnel) = &mut self.tunnel {
            tunnel.end(why);
        }
        why.into()
    }

    /// What was sent through a tunnel.
    pub(super) fn note_sent(&mut self, bufs: &[IoSlice<'_>], count: usize) {
        if self.tunnel.is_none() && self.conn.is_tunnel() {
            self.tunnel = Some(Tunnel::begin(&self.conn));
        }
        if let Some(tunnel) = &mut self.tunnel {
            tunnel.sent(bufs, count);
        }
    }
}

impl<S: Socket> Drop for ClientStream<S> {
    /// Closing a socket with unread bytes in it resets the connection, and the reset overtakes the answer: a client whose
    /// upload is refused would never learn why. So what is still to come is read and dropped for a while.
    fn drop(&mut self) {
        let goodbye = self.tunnel.as_ref().and_then(|tunnel| tunnel.goodbye(self.conn.listener.is_cut()));
        let is_unread = match self.body {
            Rest::Nothing => !self.ahead.is_empty(),
            Rest::Length(_) | Rest::Chunked(_) | Rest::Broken => true,
            // What the client sends until it has read the goodbye must not reset the connection under it.
            Rest::Tunnel => goodbye.is_some(),
        };
        if let Some(frame) = goodbye {
            self.out.extend_from_slice(&frame);
        }
        if !self.out.is_empty() {
            // What the client got of an answer that broke off tells it that there was one. What the socket does not take now is lost.
            let _ = self.poll_out(&mut Context::from_waker(Waker::noop()), &[]);
        }
        let Some(wire) = self.wire.take() else { return };
        if self.conn.is_broken_off() {
            return wire.socket.reset_on_close();
        }
        if is_unread
            && !self.is_ended
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(wire.linger());
        }
    }
}
