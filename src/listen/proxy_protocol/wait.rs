//! Waits for the header: looks at what is in the socket, and takes out exactly the header.
//!
//! Decides nothing about it. Does not look at the clock: whoever waits bounds the time.

use std::io::{Error, ErrorKind, Result};
use std::net::SocketAddr;

use rustix::net::{RecvFlags, recv};
use tokio::io::Interest;
use tokio::net::TcpStream;

use super::{MOST_BYTES, ProxyProtocol, Read, Said, read};
use crate::listen::tls::stream::TlsStream;
use crate::report::metrics::series::Dropped;

/// A socket in which one can look ahead.
pub trait Peek {
    /// Waits until there is something to read; `again`: something new since the last look. False: nothing more will come.
    fn readable(&self, again: bool) -> impl Future<Output = Result<bool>> + Send;
    /// What can be read now, without taking it.
    fn peek(&self, bytes: &mut [u8]) -> Result<usize>;
    /// Takes so many bytes that have been seen.
    fn take(&self, count: usize) -> Result<()>;
}

/// Who a connection speaks for, once its header is here; `None`: for itself.
pub async fn spoken_for<S: Peek>(socket: &S, peer: SocketAddr, how: &ProxyProtocol) -> std::result::Result<Option<Said>, Option<Dropped>> {
    let mut again = false;
    loop {
        let may_grow = socket.readable(again).await.map_err(|_| Dropped::Cut)?;
        let (length, found) = look(socket).map_err(|_| Dropped::Cut)?;
        if found == Read::Incomplete && may_grow && length < MOST_BYTES {
            again = true;
            continue;
        }
        if length == 0 {
            // It has said nothing, and will not.
            return Err(None);
        }
        let said = how.judge(peer, found)?;
        if let Some(said) = &said {
            socket.take(said.length).map_err(|_| Dropped::Cut)?;
        }
        return Ok(said);
    }
}

fn look<S: Peek>(socket: &S) -> Result<(usize, Read)> {
    let mut bytes = [0; MOST_BYTES];
    match socket.peek(&mut bytes) {
        Ok(length) => Ok((length, read(&bytes[..length]))),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok((0, Read::Incomplete)),
        Err(error) => Err(error),
    }
}

impl Peek for TcpStream {
    async fn readable(&self, again: bool) -> Result<bool> {
        if again {
            // What has been seen is still there, and would make the socket readable for ever: only what comes now shall.
            let _ = self.try_io(Interest::READABLE, || Err::<(), _>(Error::from(ErrorKind::WouldBlock)));
        }
        let ready = self.ready(Interest::READABLE).await?;
        Ok(!ready.is_read_closed())
    }

    fn peek(&self, bytes: &mut [u8]) -> Result<usize> {
        let (length, _) = recv(self, bytes, RecvFlags::PEEK)?;
        Ok(length)
    }

    fn take(&self, mut count: usize) -> Result<()> {
        let mut space = [0; MOST_BYTES];
        while count > 0 {
            match self.try_read(&mut space[..count.min(MOST_BYTES)])? {
                0 => return Err(ErrorKind::UnexpectedEof.into()),
                n => count -= n,
            }
        }
        Ok(())
    }
}

/// Nobody speaks the PROXY protocol inside of TLS.
impl<S: Sync> Peek for TlsStream<S> {
    async fn readable(&self, _: bool) -> Result<bool> {
        Err(ErrorKind::Unsupported.into())
    }

    fn peek(&self, _: &mut [u8]) -> Result<usize> {
        Err(ErrorKind::Unsupported.into())
    }

    fn take(&self, _: usize) -> Result<()> {
        Err(ErrorKind::Unsupported.into())
    }
}

#[cfg(test)]
impl Peek for tokio::io::DuplexStream {
    async fn readable(&self, _: bool) -> Result<bool> {
        Err(ErrorKind::Unsupported.into())
    }
    fn peek(&self, _: &mut [u8]) -> Result<usize> {
        Err(ErrorKind::Unsupported.into())
    }
    fn take(&self, _: usize) -> Result<()> {
        Err(ErrorKind::Unsupported.into())
    }
}
