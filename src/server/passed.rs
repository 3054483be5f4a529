//! Listening sockets that a service manager has opened and passed to this process (`LISTEN_FDS`), as `sluice.socket` of systemd does.
//!
//! Decides that a listener takes the one that is bound to its address, and that one that nobody wants is told of, and kept for a
//! later reload. Does not bind anything: see `sockets.rs`. A process that takes over in an upgrade gets them from the one before.

use std::net::{SocketAddr, TcpListener};

use listenfd::ListenFd;

/// What was passed and is not taken yet.
#[derive(Debug, Default)]
pub struct Passed(Vec<(SocketAddr, TcpListener)>);

// === impl Passed ===

impl Passed {
    /// Takes them from the environment, so that no child of this process takes them for its own. To be called before there are threads.
    pub fn from_env() -> Passed {
        let mut found = ListenFd::from_env();
        let mut passed = Vec::new();
        for index in 0..found.len() {
            let taken = found.take_tcp_listener(index).and_then(|socket| {
                let Some(socket) = socket else { return Ok(None) };
                if !rustix::net::sockopt::socket_acceptconn(&socket)? {
                    return Err(std::io::Error::other("it does not listen (`Accept=yes`?)"));
                }
                socket.local_addr().map(|address| Some((address, socket)))
            });
            match taken {
                Ok(Some(found)) => passed.push(found),
                Ok(None) => {}
                Err(e) => {
                    log::warn!("the service manager has passed something that is no listening TCP socket, descriptor {}: {e}", 3 + index)
                }
            }
        }
        Passed(passed)
    }

    /// The socket that is bound to exactly this address.
    pub fn take(&mut self, address: SocketAddr) -> Option<TcpListener> {
        let at = self.0.iter().position(|(bound, _)| *bound == address)?;
        log::info!("{address}: the socket that the service manager has passed");
        Some(self.0.swap_remove(at).1)
    }

    /// Warns of those that no listener has taken: their clients would wait for ever.
    pub fn tell_unused(&self) {
        for (address, _) in &self.0 {
            log::warn!("the service manager has passed a socket for {address}, but no listener has this address");
        }
    }
}
