//! From a chosen address to what Pingora connects to: timeouts, TCP options, whose connections may be reused.
//!
//! Decides nothing about which address: see `balance.rs`. Never hands a name to Pingora, which would look it up blocking.

use std::hash::{BuildHasher, RandomState};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use pingora_core::protocols::TcpKeepalive;
use pingora_core::protocols::l4::socket::SocketAddr as PingoraAddr;
use pingora_core::upstreams::peer::{HttpPeer, HttpUpstreamRequestPolicy};

use super::connect::Tls;
use super::pool::Pool;
use super::protocol::Protocol;
use super::target::Chosen;
use super::upstream::Upstream;

/// Below the 60 s after which many servers close an idle connection, so that they rarely close one that is being reused.
const POOLED: Duration = Duration::from_secs(55);

/// Keys of what connections with TLS are known by; of no meaning outside this process.
static KEYS: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// What all connections of an upstream have in common. The address is a placeholder.
pub(super) fn template(upstream: &Upstream) -> HttpPeer {
    let mut peer = HttpPeer::new(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)), false, String::new());
    let timeouts = upstream.timeouts;
    let options = &mut peer.options;
    options.connection_timeout = Some(timeouts.connect);
    options.total_connection_timeout = Some(timeouts.connect);
    // None of Pingora's own for reading: it takes one value when the connection is handed out and cannot change it when the head
    // has come, and it makes a timer for each read. `deadline.rs` keeps both.
    options.read_timeout = None;
    options.write_timeout = Some(timeouts.idle);
    options.idle_timeout = Some(POOLED);
    options.tcp_keepalive = Some(TcpKeepalive {
        idle: Duration::from_secs(60),
        interval: Duration::from_secs(15),
        count: 4,
        #[cfg(target_os = "linux")]
        user_timeout: Duration::ZERO,
    });
    // `hop_by_hop.rs` does that, and where it is needed.
    options.http_upstream_request_policy = HttpUpstreamRequestPolicy::preserve();
    match upstream.protocol {
        Protocol::Http1 | Protocol::Auto => {}
        Protocol::H2 => upstream.http2.apply(options),
    }
    if upstream.tls.is_some() {
        // `connect.rs` keeps a time for the connection and one for the handshake, and tells them apart.
        options.total_connection_timeout = None;
    }
    peer
}

/// The peer for one attempt. `fresh`: the previous attempt died on a pooled connection, so this one opens its own.
pub fn peer(pool: &Pool, chosen: &Chosen, fresh: bool, speaks: Protocol) -> Box<HttpPeer> {
    let mut peer = Box::new(pool.template.clone());
    peer._address = PingoraAddr::Inet(chosen.addr());
    peer.group_key = chosen.target().present_key();
    let upstream = &pool.upstream;
    if upstream.protocol == Protocol::Auto && speaks == Protocol::H2 {
        upstream.http2.apply(&mut peer.options);
    }
    if let Some(tls) = &upstream.tls {
        // What Pingora compares to the other end of a pooled connection, and what passes for any: the real address is in the key.
        peer._address = PingoraAddr::Inet(SocketAddr::from((Ipv4Addr::UNSPECIFIED, chosen.addr().port())));
        peer.group_key = KEYS.hash_one((peer.group_key, tls.identity, chosen.addr(), speaks == Protocol::H2));
        peer.options.custom_l4 = Some(Arc::new(Tls {
            tls: tls.clone(),
            target: chosen.target().clone(),
            addr: chosen.addr(),
            within: upstream.timeouts.connect,
            speaks,
        }));
    }
    if fresh {
        // Under another key nothing is pooled; without idle time nothing will be.
        peer.group_key = !peer.group_key;
        peer.options.idle_timeout = Some(Duration::ZERO);
    }
    peer
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::types::Period;
    use crate::relay::balance::choose;
    use crate::relay::pool::Pools;
    use crate::relay::upstream::TimeoutsSettings;
    use crate::relay::upstream::tests::{at, settings};
    use pingora_core::upstreams::peer::Peer;

    fn pool(name: &str) -> Arc<Pool> {
        let mut written = settings(&[("10.0.0.1:8080", 1)]);
        written.timeouts = Some(TimeoutsSettings {
            connect: Some(at(Period::seconds(2))),
            response: Some(at(Period::seconds(3))),
            idle: Some(at(Period::seconds(4))),
        });
        Pools::default().adopt(&Arc::new(Upstream::compile(name, &written).unwrap()))
    }

    #[test]
    fn a_peer_has_the_chosen_address_and_the_timeouts_that_are_not_kept_elsewhere() {
        let pool = pool("orders");
        let chosen = choose(&pool, Default::default(), || 0).unwrap();
        let peer = peer(&pool, &chosen, false, Protocol::Http1);
        assert_eq!(peer._address, PingoraAddr::Inet("10.0.0.1:8080".parse().unwrap()));
        assert_eq!(peer.options.connection_timeout, Some(Duration::from_secs(2)));
        assert_eq!(peer.options.total_connection_timeout, Some(Duration::from_secs(2)));
        assert_eq!(peer.options.read_timeout, None);
        assert_eq!(peer.options.write_timeout, Some(Duration::from_secs(4)));
        assert_eq!(peer.options.idle_timeout, Some(POOLED));
    }

    #[test]
    fn upstreams_with_the_same_address_never_share_connections() {
        let (orders, billing) = (pool("orders"), pool("billing"));
        let hash = |pool: &Pool, fresh| peer(pool, &choose(pool, Default::default(), || 0).unwrap(), fresh, Protocol::Http1).reuse_hash();
        assert_eq!(hash(&orders, false), hash(&orders, false));
        assert_ne!(hash(&orders, false), hash(&billing, false));
        assert_ne!(hash(&orders, false), hash(&orders, true));
    }
}
