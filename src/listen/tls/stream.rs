//! A client's connection under TLS, once hands are shaken: what is read is opened, what is written is sealed.
//!
//! Decides how much is read and sealed at a time, and that an end without `close_notify` is an error. Does not decide anything about
//! handshakes (`handshake.rs`), nor how long anything may take (`listen/stream.rs`, which is over this).
//!
//! `tokio-rustls` does the same for any socket and for both sides. It asks the socket once more after each read and goes the whole way into
//! rustls to learn that nothing is there, which costs as much as the opening itself where requests are small: see docs/decisions/0052.

use std::io::{self, BufRead, ErrorKind, IoSlice, Read, Write};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustls::ServerConnection;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::listen::stream::Socket;

/// A socket and its session.
#[derive(Debug)]
pub struct TlsStream<S> {
    socket: S,
    session: ServerConnection,
    /// `close_notify` is among what has been sealed.
    is_shut: bool,
}

/// The socket as rustls wants it: what would wait is [`ErrorKind::WouldBlock`].
struct Now<'a, 'b, S> {
    socket: &'a mut S,
    cx: &'a mut Context<'b>,
}

// === impl TlsStream ===

impl<S: Socket> TlsStream<S> {
    /// Hands have been shaken, and nothing of that is left to be written.
    pub(super) fn new(socket: S, session: ServerConnection) -> Self {
        TlsStream { socket, session, is_shut: false }
    }

    pub(in crate::listen) fn socket(&self) -> &S {
        &self.socket
    }

    /// Reads from the socket once and opens what that completes. 0: the client has closed.
    fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        // Most looks find nothing: then this is all they cost.
        ready!(self.socket.poll_readable(cx))?;
        let n = match self.session.read_tls(&mut Now { socket: &mut self.socket, cx }) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Poll::Pending,
            read => read?,
        };
        if let Err(error) = self.session.process_new_packets() {
            // The client may learn why, if its socket takes the alert now.
            let _ = self.poll_sealed(cx);
            return Poll::Ready(Err(io::Error::new(ErrorKind::InvalidData, error)));
        }
        Poll::Ready(Ok(n))
    }

    /// Writes to the socket what has been sealed.
    fn poll_sealed(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.session.wants_write() {
            match self.session.write_tls(&mut Now { socket: &mut self.socket, cx }) {
                Ok(0) => return Poll::Ready(Err(ErrorKind::WriteZero.into())),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Poll::Pending,
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Seals what `seal` takes, which is bounded by what the socket has not taken yet, and writes. Nothing is taken where there is no room.
    fn poll_seal(
        &mut self,
        cx: &mut Context<'_>,
        mut seal: impl FnMut(&mut ServerConnection) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            let is_behind = self.session.wants_write();
            let n = seal(&mut self.session)?;
            match self.poll_sealed(cx)? {
                // What is sealed is taken: it is bounded, and goes out with the next write or flush.
                Poll::Ready(()) | Poll::Pending if n > 0 => return Poll::Ready(Ok(n)),
                Poll::Ready(()) if is_behind => {}
                Poll::Ready(()) => return Poll::Ready(Err(ErrorKind::WriteZero.into())),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

impl<S: Socket> AsyncRead for TlsStream<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let me = self.get_mut();
        while me.session.wants_read() {
            if ready!(me.poll_open(cx))? == 0 {
                break;
            }
        }
        loop {
            let chunk = me.session.reader().into_first_chunk()?;
            let n = chunk.len().min(buf.remaining());
            buf.put_slice(&chunk[..n]);
            me.session.reader().consume(n);
            // A read may have brought many records.
            if n == 0 || buf.remaining() == 0 || me.session.wants_read() {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<S: Socket> AsyncWrite for TlsStream<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        self.get_mut().poll_seal(cx, |session| session.writer().write(buf))
    }

    fn poll_write_vectored(self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        if bufs.iter().all(|buf| buf.is_empty()) {
            return Poll::Ready(Ok(0));
        }
        self.get_mut().poll_seal(cx, |session| session.writer().write_vectored(bufs))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let me = self.get_mut();
        me.session.writer().flush()?;
        ready!(me.poll_sealed(cx))?;
        Pin::new(&mut me.socket).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let me = self.get_mut();
        if !me.is_shut {
            me.session.send_close_notify();
            me.is_shut = true;
        }
        ready!(me.poll_sealed(cx))?;
        match ready!(Pin::new(&mut me.socket).poll_shutdown(cx)) {
            Err(error) if error.kind() != ErrorKind::NotConnected => Poll::Ready(Err(error)),
            _ => Poll::Ready(Ok(())),
        }
    }
}

// === impl Now ===

impl<S: Socket> Read for Now<'_, '_, S> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let mut buf = ReadBuf::new(buf);
        match Pin::new(&mut *self.socket).poll_read(self.cx, &mut buf) {
            Poll::Ready(read) => read.map(|()| buf.filled().len()),
            Poll::Pending => Err(ErrorKind::WouldBlock.into()),
        }
    }
}

impl<S: Socket> Write for Now<'_, '_, S> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match Pin::new(&mut *self.socket).poll_write(self.cx, buf) {
            Poll::Ready(written) => written,
            Poll::Pending => Err(ErrorKind::WouldBlock.into()),
        }
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        // The usual case: one record. The kernel has less to do for a plain write.
        if let [one] = bufs {
            return self.write(one);
        }
        match Pin::new(&mut *self.socket).poll_write_vectored(self.cx, bufs) {
            Poll::Ready(written) => written,
            Poll::Pending => Err(ErrorKind::WouldBlock.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
