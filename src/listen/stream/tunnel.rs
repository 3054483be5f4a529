//! A client's connection once it is a tunnel: how it ends where the gateway ends it.
//!
//! Decides which goodbye a WebSocket is said, between two frames or not at all. Does not decide when: see `relay/attempt/deadline.rs`.

use std::fmt;
use std::future::Future;
use std::io::IoSlice;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::super::conn::ConnInfo;
use super::super::frames::{Frames, close_frame};
use crate::relay::attempt::deadline::Overdue;

/// What a tunnel needs beside the stream; made when the upstream agrees to it.
pub(super) struct Tunnel {
    frames: Frames,
    /// Ready when the time for a drain of its listener is over, or who opened it is revoked.
    cut: Pin<Box<dyn Future<Output = Overdue> + Send + Sync>>,
    ended: Option<Overdue>,
}

// === impl Tunnel ===

impl Tunnel {
    pub(super) fn begin(conn: &ConnInfo) -> Box<Self> {
        let mut cutting = conn.listener.cutting();
        let watched = conn.take_watched();
        let revoked = async move {
            match watched {
                Some(watched) => watched.revoked().await,
                None => std::future::pending().await,
            }
        };
        let cut = Box::pin(async move {
            tokio::select! {
                _ = cutting.wait_for(|cut| *cut) => Overdue::Drain,
                () = revoked => Overdue::Revoked,
            }
        });
        Box::new(Tunnel { frames: Frames::behind_a_head(), cut, ended: None })
    }

    /// Takes note of the first `count` bytes of what was sent to the client.
    pub(super) fn sent(&mut self, bufs: &[IoSlice<'_>], mut count: usize) {
        for buf in bufs {
            let taken = count.min(buf.len());
            self.frames.feed(&buf[..taken]);
            count -= taken;
        }
    }

    /// Why it ends, whatever passes through it.
    pub(super) fn poll_cut(&mut self, cx: &mut Context<'_>) -> Poll<Overdue> {
        self.cut.as_mut().poll(cx)
    }

    pub(super) fn end(&mut self, why: Overdue) {
        self.ended = Some(why);
    }

    /// The Close frame for a tunnel that the gateway ends, where one may stand now (RFC 6455 section 7.4.1).
    pub(super) fn goodbye(&self, is_cut: bool) -> Option<Vec<u8>> {
        let (code, reason) = match self.ended {
            Some(Overdue::Token) => (1008, "token expired"),
            Some(Overdue::Revoked) => (1008, "credential revoked"),
            Some(Overdue::Head | Overdue::Bytes | Overdue::Call | Overdue::Total) => (1001, "idle"),
            Some(Overdue::Drain) => (1001, "going away"),
            None if is_cut => (1001, "going away"),
            None => return None,
        };
        self.frames.is_between().then(|| close_frame(code, reason))
    }
}

impl fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tunnel").field("frames", &self.frames).field("ended", &self.ended).finish_non_exhaustive()
    }
}
