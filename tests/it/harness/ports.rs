//! Ports that are a test's own: nobody listens there but whom the test tells to.
//!
//! A port that was found free and given back is anybody's a moment later, such as the upstream's of another test, which answers where nobody
//! should. Here each is bound, and not listened on, until the test's process ends: who connects is refused, the system gives it to nobody
//! else, and whoever is told the number can listen on it, since servers bind with SO_REUSEADDR.

use std::net::SocketAddr;
use std::sync::Mutex;

use socket2::{Domain, Socket, Type};

static HELD: Mutex<Vec<Socket>> = Mutex::new(Vec::new());

/// An address where nobody listens.
pub fn nobody() -> SocketAddr {
    let socket = bound(SocketAddr::from(([127, 0, 0, 1], 0))).expect("there is a free port");
    let address = socket.local_addr().ok().and_then(|address| address.as_socket()).expect("a bound socket has an address");
    hold(socket);
    address
}

/// A port for a server that the test starts.
pub fn free_port() -> u16 {
    nobody().port()
}

/// Holds an address that somebody may listen on; says whether it can be had.
pub fn keep(address: SocketAddr) -> bool {
    bound(address).map(hold).is_ok()
}

fn bound(address: SocketAddr) -> std::io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

fn hold(socket: Socket) {
    HELD.lock().expect("nobody panics with it").push(socket);
}
