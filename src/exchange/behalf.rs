//! Decides who an upstream is told that a request is from, where it is told before anything else.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use pingora_proxy::Session;

use crate::listen::address::LOCAL;
use crate::listen::conn::ConnInfo;
use crate::relay::attempt::proxied::OnBehalf;

/// Who the upstream is told that the request is from. Nobody: a process of this machine that has no address.
pub fn on_behalf(session: &Session, conn: Option<&ConnInfo>, client: IpAddr) -> Option<OnBehalf> {
    let peer = conn?.peer;
    if peer == LOCAL && client == peer.ip() {
        return None;
    }
    let here = session.server_addr().and_then(|addr| addr.as_inet()).copied();
    let here = here
        .unwrap_or_else(|| SocketAddr::new(if client.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() }, 0));
    // Behind a proxy that is trusted the address is that of its client, whose port nobody says.
    let port = if client == peer.ip() { peer.port() } else { 0 };
    Some(OnBehalf { client: SocketAddr::new(client, port), here: SocketAddr::new(here.ip().to_canonical(), here.port()) })
}
