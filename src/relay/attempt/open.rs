//! Opens a bare connection to a target, over TCP or a Unix socket, and says first what has to come first.
//!
//! Decides how a failure is called. Does not decide where to (`balance.rs`) nor what is spoken afterwards (`connect.rs`, Pingora).

use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, RawFd};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use pingora_core::protocols::l4::socket::SocketAddr;
use pingora_core::protocols::l4::stream::Stream;
use pingora_core::{Error, ErrorType, Result};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use crate::relay::targets::address::Spot;
use crate::relay::targets::target::Target;

/// A connection on which nothing of HTTP or TLS has been said.
#[derive(Debug)]
pub enum Raw {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// Connects to a target's address within a time; `first` is what a PROXY protocol says, or nothing.
///
/// # Errors
/// As Pingora names its own.
pub async fn open(target: &Target, spot: Spot, within: Duration, first: &[u8]) -> Result<Raw> {
    let address = match (spot, &target.socket) {
        (Spot::Ip(addr), _) => SocketAddr::Inet(addr),
        (Spot::Socket(_), Some(socket)) => SocketAddr::Unix(socket.clone()),
        (Spot::Socket(_), None) => return Err(Error::explain(ErrorType::ConnectError, "a target without a socket")),
    };
    dial(&address, within, first).await
}

/// See [`open`].
pub async fn dial(address: &SocketAddr, within: Duration, first: &[u8]) -> Result<Raw> {
    let opening = async {
        let mut raw = match address {
            SocketAddr::Inet(addr) => Raw::Tcp(TcpStream::connect(addr).await?),
            SocketAddr::Unix(socket) => {
                let path = socket.as_pathname().ok_or(io::ErrorKind::InvalidInput)?;
                Raw::Unix(UnixStream::connect(path).await?)
            }
        };
        if let Raw::Tcp(tcp) = &raw {
            let _ = tcp.set_nodelay(true);
            let _ = socket2::SockRef::from(tcp).set_tcp_keepalive(
                &socket2::TcpKeepalive::new().with_time(Duration::from_secs(60)).with_interval(Duration::from_secs(15)).with_retries(4),
            );
        }
        if !first.is_empty() {
            raw.write_all(first).await?;
        }
        Ok::<_, io::Error>(raw)
    };
    match timeout(within, opening).await {
        Err(_) => Err(Error::explain(ErrorType::ConnectTimedout, "connecting")),
        Ok(Err(error)) => {
            let kind = match error.kind() {
                io::ErrorKind::ConnectionRefused => ErrorType::ConnectRefused,
                io::ErrorKind::NetworkUnreachable | io::ErrorKind::HostUnreachable => ErrorType::ConnectNoRoute,
                _ => ErrorType::ConnectError,
            };
            Err(Error::because(kind, "connecting", error))
        }
        Ok(Ok(raw)) => Ok(raw),
    }
}

// === impl Raw ===

impl From<Raw> for Stream {
    fn from(raw: Raw) -> Stream {
        match raw {
            Raw::Tcp(tcp) => tcp.into(),
            Raw::Unix(unix) => unix.into(),
        }
    }
}

impl AsRawFd for Raw {
    fn as_raw_fd(&self) -> RawFd {
        match self {
            Raw::Tcp(tcp) => tcp.as_raw_fd(),
            Raw::Unix(unix) => unix.as_raw_fd(),
        }
    }
}

impl AsyncRead for Raw {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Raw::Tcp(tcp) => Pin::new(tcp).poll_read(cx, buf),
            Raw::Unix(unix) => Pin::new(unix).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Raw {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Raw::Tcp(tcp) => Pin::new(tcp).poll_write(cx, buf),
            Raw::Unix(unix) => Pin::new(unix).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Raw::Tcp(tcp) => Pin::new(tcp).poll_write_vectored(cx, bufs),
            Raw::Unix(unix) => Pin::new(unix).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Raw::Tcp(tcp) => Pin::new(tcp).poll_flush(cx),
            Raw::Unix(unix) => Pin::new(unix).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Raw::Tcp(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Raw::Unix(unix) => Pin::new(unix).poll_shutdown(cx),
        }
    }
}
