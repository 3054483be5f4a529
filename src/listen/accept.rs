//! Binds sockets and accepts connections.
//!
//! Decides that the accept loop never ends by itself: an error costs a moment, not the listener. Does not serve
//! connections: see `front.rs`. Every worker thread runs one loop per listener, all on the same listening socket; a
//! connection stays on the thread that accepted it.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use pingora_core::apps::HttpServerApp;
use rustix::io::Errno;
use socket2::{Domain, Protocol, Socket as RawSocket, Type};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::time::sleep;

use super::address::LOCAL;
use super::caps::Full;
use super::descriptors;
use super::front::Front;
use super::open::{Admitted, open};
use super::running::RunningListener;
use super::stream::Socket;
use crate::report::metrics::series::Dropped;

/// How long to wait where there are no descriptors or no memory left: connections that end make room.
const BACK_OFF: Duration = Duration::from_millis(50);

/// As much as there can be; the kernel cuts it to `net.core.somaxconn`.
pub(super) const BACKLOG: i32 = 65_535;

/// A listening socket, non-blocking and ready for [`accept`]. `SO_REUSEADDR`, so that a restart need not wait for old
/// connections; IPv6 sockets take IPv6 only, so that `0.0.0.0:80` and `[::]:80` are two listeners and an address never
/// comes in two spellings.
pub fn bind(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = RawSocket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Accepts until [`RunningListener::stop_accepting`], serving each connection in a task of this thread's runtime; then
/// takes who is queued already (unless another process will), and closes this copy of the socket. The caller gives each thread a `try_clone` of what [`bind`] made.
///
/// # Errors
///
/// Only where the socket cannot be registered with the runtime at all.
pub async fn accept<P>(socket: std::net::TcpListener, listener: Arc<RunningListener>, front: Arc<Front<P>>) -> io::Result<()>
where
    P: HttpServerApp + Send + Sync + 'static,
{
    socket.set_nonblocking(true)?;
    if listener.settings().address.is_unix() {
        return accept_local(socket.into(), listener, front).await;
    }
    let socket = TcpListener::from_std(socket)?;
    accept_from(|cx| socket.poll_accept(cx), &listener, &front).await;
    if listener.leaves_queue() {
        return Ok(());
    }
    // The kernel has answered for us to whoever is still queued: closing the socket now would reset them.
    let socket = socket.into_std()?;
    for _ in 0..BACKLOG {
        let Ok((queued, peer)) = socket.accept() else { break };
        queued.set_nonblocking(true)?;
        admit(TcpStream::from_std(queued)?, peer, &listener, &front);
    }
    Ok(())
}

/// Likewise from a Unix socket.
async fn accept_local<P>(socket: OwnedFd, listener: Arc<RunningListener>, front: Arc<Front<P>>) -> io::Result<()>
where
    P: HttpServerApp + Send + Sync + 'static,
{
    let socket = UnixListener::from_std(socket.into())?;
    accept_from(|cx| socket.poll_accept(cx).map(|accepted| Ok((plain(accepted?.0.into_std()?)?, LOCAL))), &listener, &front).await;
    if listener.leaves_queue() {
        return Ok(());
    }
    let socket = socket.into_std()?;
    for _ in 0..BACKLOG {
        let Ok((queued, _)) = socket.accept() else { break };
        queued.set_nonblocking(true)?;
        admit(plain(queued)?, LOCAL, &listener, &front);
    }
    Ok(())
}

/// A connection over a Unix socket in the clothes of one over TCP. Reading, writing, shutting and waiting are the same calls, so one type
/// serves both; what only TCP knows (`set_nodelay`) fails without harm.
fn plain(stream: UnixStream) -> io::Result<TcpStream> {
    TcpStream::from_std(std::net::TcpStream::from(OwnedFd::from(stream)))
}

/// What [`accept`] does, wherever connections come from.
async fn accept_from<S, P>(
    mut next: impl FnMut(&mut Context<'_>) -> Poll<io::Result<(S, SocketAddr)>>,
    listener: &Arc<RunningListener>,
    front: &Arc<Front<P>>,
) where
    S: Accepted,
    P: HttpServerApp + Send + Sync + 'static,
{
    let mut accepting = listener.accepting();
    let mut stop = std::pin::pin!(async move {
        let _ = accepting.wait_for(|accepting| !*accepting).await;
    });
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut stop => return,
            accepted = poll_fn(&mut next) => accepted,
        };
        match accepted {
            Ok((socket, peer)) => {
                admit(socket, peer, listener, front);
                // Other threads wait on the same socket, and connections on this thread wait too.
                tokio::task::yield_now().await;
            }
            Err(error) if is_exhausted(&error) => {
                front.dropped(&listener.name, Dropped::NoDescriptors);
                tokio::select! {
                    () = &mut stop => return,
                    () = sleep(BACK_OFF) => {}
                }
            }
            // A connection that broke before it was accepted, and the like: the next one is another.
            Err(error) => {
                log::debug!("accept on listener {}: {error}", listener.name);
                tokio::task::yield_now().await;
            }
        }
    }
}

/// What can be accepted: a socket that is made ready for answers first.
trait Accepted: Socket {
    fn prepare(&self) {}
}

impl Accepted for TcpStream {
    fn prepare(&self) {
        // Answers are gathered in `stream.rs`; the kernel would only hold them up. Fails on broken connections only.
        let _ = self.set_nodelay(true);
    }
}

fn admit<S, P>(socket: S, peer: SocketAddr, listener: &Arc<RunningListener>, front: &Arc<Front<P>>)
where
    S: Accepted,
    P: HttpServerApp + Send + Sync + 'static,
{
    listener.caps.note_accepted();
    let bounds = listener.peek().connections;
    if !descriptors::is_spare(socket.fd()) {
        return front.dropped(&listener.name, Dropped::NoDescriptors);
    }
    // Where somebody may speak for others, `open.rs` counts for the address once it is known.
    // Who comes over a Unix socket has none.
    let is_known = { listener.peek() }.proxy_protocol.is_none() && !listener.peek().address.is_unix();
    let entered = listener.caps.enter(bounds, &listener.open).map_err(Full::reason);
    match entered.and_then(|permit| if is_known { listener.admit(peer.ip(), permit) } else { Ok(permit) }) {
        Ok(permit) => {
            socket.prepare();
            open(Admitted { socket, permit, peer, listener: listener.clone() }, front);
        }
        Err(reason) => front.dropped(&listener.name, reason),
    }
}

/// Whether the process or the machine has run out of something, so that trying again at once is no use.
fn is_exhausted(error: &io::Error) -> bool {
    let exhausted = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM];
    error.raw_os_error().is_some_and(|code| exhausted.iter().any(|errno| errno.raw_os_error() == code))
}

#[cfg(test)]
mod tests;
