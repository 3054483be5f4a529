//! The writing side of a client's connection: gathers what belongs together, and writes it as fast as the client takes it.
//!
//! Decides when a stuck write is given up. Does not decide how slow a client may be: see `pace.rs`.

use std::io::{Error, ErrorKind, IoSlice, Result};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::AsyncWrite;
use tokio::time::sleep_until;

use super::{ClientStream, Rest, Socket};
use crate::clock;
use crate::listen::pace::{Demand, READER_TOO_SLOW};

/// Bytes of an answer that are gathered before they are written.
const OUT_BYTES: usize = 4 << 10;

impl<S: Socket> ClientStream<S> {
    /// What has been gathered to be written, to be added to. Goes out with the next flush, or before the next large write.
    pub(in super::super) fn gathered(&mut self) -> &mut BytesMut {
        if self.out.capacity() == 0 {
            self.out.reserve(OUT_BYTES);
        }
        &mut self.out
    }

    /// A tunnel may be quiet for as long as it likes.
    fn answer_demand(&self) -> Demand {
        match self.body {
            Rest::Tunnel => Demand { rate: 0, ..self.demands.answer },
            Rest::Nothing | Rest::Length(_) | Rest::Chunked(_) | Rest::Broken => self.demands.answer,
        }
    }

    /// Has what was written leave. A plain socket holds nothing back; TLS may have records for which the socket had no room.
    pub(super) fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        match Pin::new(self.wire()).poll_flush(cx) {
            Poll::Ready(done) => {
                self.stuck = None;
                Poll::Ready(done)
            }
            Poll::Pending => self.poll_stuck(cx).map(Err),
        }
    }

    /// The client takes nothing at the moment: for how long it may.
    fn poll_stuck(&mut self, cx: &mut Context<'_>) -> Poll<Error> {
        let until = self.writing.wait(self.answer_demand());
        self.conn.deadline.put_off(clock::mono_of(until));
        let stuck = self.stuck.get_or_insert_with(|| Box::pin(sleep_until(until)));
        if stuck.as_mut().poll(cx).is_pending() {
            let Some((at, overdue)) = self.conn.deadline.end() else { return Poll::Pending };
            ready!(self.overdue.poll_past(cx, clock::instant(at)));
            self.body = Rest::Broken;
            return Poll::Ready(overdue.into());
        }
        self.stuck = None;
        self.body = Rest::Broken;
        self.conn.set_fault(&READER_TOO_SLOW);
        Poll::Ready(Error::new(ErrorKind::TimedOut, "the client does not read"))
    }

    /// Writes out what was gathered, then as much of `more` as the socket takes; says how much that was.
    pub(super) fn poll_out(&mut self, cx: &mut Context<'_>, more: &[IoSlice<'_>]) -> Poll<Result<usize>> {
        loop {
            let Some(wire) = &mut self.wire else { return Poll::Ready(Err(ErrorKind::NotConnected.into())) };
            let socket = Pin::new(&mut wire.socket);
            // The kernel has less to do where there is one piece.
            let written = match (self.out.is_empty(), more) {
                (true, [one]) => socket.poll_write(cx, one),
                (false, []) => socket.poll_write(cx, &self.out),
                (true, _) => socket.poll_write_vectored(cx, more),
                (false, _) => {
                    let mut all = [IoSlice::new(&[]); 8];
                    all[0] = IoSlice::new(&self.out);
                    let count = more.len().min(all.len() - 1);
                    all[1..=count].copy_from_slice(&more[..count]);
                    socket.poll_write_vectored(cx, &all[..=count])
                }
            };
            let n = match written {
                Poll::Ready(n) => {
                    self.stuck = None;
                    let n = n?;
                    self.writing.progress(n, self.answer_demand());
                    n
                }
                Poll::Pending => return self.poll_stuck(cx).map(Err),
            };
            self.conn.count_sent(n);
            let gathered = n.min(self.out.len());
            if gathered == self.out.len() {
                // Given back, not kept: an idle connection needs none.
                self.out = BytesMut::new();
                if n > gathered || more.iter().all(|slice| slice.is_empty()) {
                    return Poll::Ready(Ok(n - gathered));
                }
                if n == 0 {
                    return Poll::Ready(Ok(0));
                }
            } else {
                if n == 0 {
                    return Poll::Ready(Err(ErrorKind::WriteZero.into()));
                }
                self.out.advance(gathered);
            }
        }
    }
}

impl<S: Socket> AsyncWrite for ClientStream<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<Result<usize>> {
        let size: usize = bufs.iter().map(|slice| slice.len()).sum();
        if self.out.len() + size > OUT_BYTES {
            let count = ready!(self.poll_out(cx, bufs))?;
            if matches!(self.body, Rest::Tunnel) {
                self.note_sent(bufs, count);
            }
            return Poll::Ready(Ok(count));
        }
        let out = self.gathered();
        for slice in bufs {
            out.extend_from_slice(slice);
        }
        if matches!(self.body, Rest::Tunnel) {
            self.note_sent(bufs, size);
        }
        Poll::Ready(Ok(size))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        if !self.out.is_empty() {
            ready!(self.poll_out(cx, &[]))?;
        }
        self.poll_drain(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        ready!(self.as_mut().poll_flush(cx))?;
        if self.conn.is_broken_off() {
            // An orderly end comes before the reset otherwise.
            return Poll::Ready(Ok(()));
        }
        Pin::new(self.wire()).poll_shutdown(cx)
    }
}
