//! How a client's connection ends, so that the client learns what it can.
//!
//! Decides what is read and thrown away before a socket is closed, and that a tunnel that the gateway ends says goodbye. Does not
//! decide when: see `relay/deadline.rs`.

use std::io::{Error, IoSlice};
use std::task::{Context, Waker};

use super::tunnel::Tunnel;
use super::{ClientStream, Rest, Socket};
use crate::relay::deadline::Overdue;

impl<S: Socket> ClientStream<S> {
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
