//! The socket of a connection together with its place under the caps: they live and end together.
//!
//! Decides how long a client that was answered before it had sent all may go on sending. Does not decide which one is that:
//! see `stream.rs`.

use std::fmt::Debug;
use std::future::poll_fn;
use std::io::Result;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use pingora_core::protocols::UniqueIDType;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::timeout;

use super::caps::Permit;
use super::proxy_protocol::Peek;
use super::tls::stream::TlsStream;

/// What a client's connection may be under HTTP: a TCP socket, or TLS over one.
pub trait Socket: Peek + AsyncRead + AsyncWrite + Unpin + Send + Sync + Debug + 'static {
    fn fd(&self) -> UniqueIDType;

    /// From here on closing it is a reset, which the other side cannot take for an orderly end.
    fn reset_on_close(&self);

    /// What comes first, without taking it; nothing where that cannot be known.
    fn poll_peek(&self, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<Result<usize>> {
        Poll::Ready(Ok(0))
    }

    /// Pending where a read would be for certain. Costs less than a read.
    fn poll_readable(&self, _: &mut Context<'_>) -> Poll<Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[derive(Debug)]
pub struct Wire<S> {
    pub socket: S,
    _permit: Permit,
}

/// Enough for what is on its way when the answer is written; who sends more does not read.
const LINGER_BYTES: usize = 256 << 10;
const LINGER_TIME: Duration = Duration::from_secs(2);

// === impl Wire ===

impl<S: Socket> Wire<S> {
    pub fn new(socket: S, permit: Permit) -> Self {
        Wire { socket, _permit: permit }
    }

    /// Ends the writing side, then reads and drops until the client has closed, too much has come or the time is over.
    pub async fn linger(mut self) {
        let _ = timeout(LINGER_TIME, self.drain()).await;
    }

    async fn drain(&mut self) -> Result<()> {
        self.socket.shutdown().await?;
        let mut left = LINGER_BYTES;
        while left > 0 {
            let n = poll_fn(|cx| {
                let mut space = [MaybeUninit::<u8>::uninit(); 8 << 10];
                let mut buf = ReadBuf::uninit(&mut space);
                Pin::new(&mut self.socket).poll_read(cx, &mut buf).map_ok(|()| buf.filled().len())
            })
            .await?;
            if n == 0 {
                break;
            }
            left = left.saturating_sub(n);
        }
        Ok(())
    }
}

impl Socket for tokio::net::TcpStream {
    fn fd(&self) -> UniqueIDType {
        std::os::fd::AsRawFd::as_raw_fd(self)
    }

    fn reset_on_close(&self) {
        let _ = socket2::SockRef::from(self).set_linger(Some(Duration::ZERO));
    }

    fn poll_peek(&self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<Result<usize>> {
        tokio::net::TcpStream::poll_peek(self, cx, buf)
    }

    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.poll_read_ready(cx)
    }
}

impl<S: Socket> Socket for TlsStream<S> {
    fn fd(&self) -> UniqueIDType {
        self.socket().fd()
    }

    fn reset_on_close(&self) {
        self.socket().reset_on_close();
    }
}

#[cfg(test)]
impl Socket for tokio::io::DuplexStream {
    fn fd(&self) -> UniqueIDType {
        -1
    }

    fn reset_on_close(&self) {}
}
