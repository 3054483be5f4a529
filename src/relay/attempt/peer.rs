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

use super::connect::{Plain, Tls};
use super::connector;
use super::protocol::Protocol;
use super::proxied::OnBehalf;
use crate::relay::room::Key;
use crate::relay::targets::address::Spot;
use crate::relay::targets::pool::Pool;
use crate::relay::targets::target::Chosen;
use crate::relay::upstream::Upstream;

/// What one attempt wants of its connection.
#[derive(Clone, Copy, Debug)]
pub struct Want {
    /// The previous attempt died on a pooled connection, so this one opens its own.
    pub fresh: bool,
    pub speaks: Protocol,
    /// On the monotonic clock.
    pub now: u64,
    /// For an upstream that is told.
    pub client: Option<OnBehalf>,
    /// How long it may take to be made.
    pub within: Duration,
}

/// Pingora's timers make nothing of none at all.
pub(super) const NO_REST: Duration = Duration::from_millis(1);

/// Keys of what connections with TLS are known by; of no meaning outside this process.
static KEYS: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// What all connections of an upstream have in common. The address is a placeholder.
pub(in crate::relay) fn template(upstream: &Upstream) -> HttpPeer {
    let mut peer = HttpPeer::new(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)), false, String::new());
    let timeouts = upstream.timeouts;
    let options = &mut peer.options;
    options.connection_timeout = Some(timeouts.connect);
    options.total_connection_timeout = Some(timeouts.connect);
    // None of Pingora's own for reading: it takes one value when the connection is handed out and cannot change it when the head
    // has come, and it makes a timer for each read. `deadline.rs` keeps both.
    options.read_timeout = None;
    options.write_timeout = Some(timeouts.idle);
    options.idle_timeout = Some(upstream.reuse.idle);
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
        Protocol::Http1 | Protocol::Auto => options.alpn = connector::alpn(),
        Protocol::H2 => upstream.http2.apply(options),
    }
    if upstream.tls.is_some() {
        // `connect.rs` keeps a time for the connection and one for the handshake, and tells them apart.
        options.total_connection_timeout = None;
    }
    peer
}

/// What connections to the chosen address are found again by.
pub fn connection_key(pool: &Pool, chosen: &Chosen, now: u64) -> Key {
    let (key, reuse) = (chosen.present_key(), &pool.upstream.reuse);
    let key = if reuse.age.is_some() { KEYS.hash_one((key, reuse.generation(key, now))) } else { key };
    (key, chosen.addr())
}

/// The peer for one attempt.
pub fn peer(pool: &Pool, chosen: &Chosen, want: Want) -> Box<HttpPeer> {
    let Want { fresh, speaks, now, client, within } = want;
    let mut peer = Box::new(pool.template.clone());
    let (target, spot, upstream) = (chosen.target(), chosen.addr(), &pool.upstream);
    match (spot, &target.socket) {
        (Spot::Ip(addr), _) => peer._address = PingoraAddr::Inet(addr),
        (Spot::Socket(_), Some(path)) => peer._address = PingoraAddr::Unix(path.clone()),
        // Only targets that have a socket have such a spot.
        (Spot::Socket(_), None) => {}
    }
    if within != upstream.timeouts.connect {
        peer.options.connection_timeout = Some(within);
        peer.options.total_connection_timeout = peer.options.total_connection_timeout.and(Some(within));
    }
    (peer.group_key, _) = connection_key(pool, chosen, now);
    if upstream.protocol == Protocol::Auto && speaks == Protocol::H2 {
        upstream.http2.apply(&mut peer.options);
    }
    let first = upstream.proxy_protocol.map(|version| version.header(client)).unwrap_or_default();
    let is_own = !pool.keeps_connections();
    if let Some(tls) = &upstream.tls {
        // What Pingora compares to the other end of a pooled connection, and what passes for any: the real address is in the key.
        peer._address = PingoraAddr::Inet(SocketAddr::from((Ipv4Addr::UNSPECIFIED, target.address.port)));
        peer.group_key = KEYS.hash_one((peer.group_key, tls.identity, spot, speaks == Protocol::H2));
        let target = target.clone();
        peer.options.custom_l4 = Some(Arc::new(Tls { tls: tls.clone(), target, spot, within, speaks, first }));
    } else if !first.is_empty() {
        peer.options.custom_l4 = Some(Arc::new(Plain { target: target.clone(), spot, within, first }));
    }
    if fresh || is_own {
        // Under a key that nobody else has nothing is pooled; without idle time nothing will be.
        peer.group_key = fastrand::u64(..);
        peer.options.idle_timeout = Some(NO_REST);
    }
    peer
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::types::Period;
    use crate::relay::attempt::timeouts::TimeoutsSettings;
    use crate::relay::balance::{Wanted, choose};
    use crate::relay::targets::pool::Pools;
    use crate::relay::upstream::tests::{at, settings};
    use pingora_core::upstreams::peer::Peer;

    fn pool(name: &str) -> Arc<Pool> {
        let mut written = settings(&[("10.0.0.1:8080", 1)]);
        written.timeouts = Some(TimeoutsSettings {
            connect: Some(at(Period::seconds(2))),
            response: Some(at(Period::seconds(3))),
            idle: Some(at(Period::seconds(4))),
            total: None,
            header: None,
        });
        Pools::default().adopt(&Arc::new(Upstream::compile(name, &written).unwrap()))
    }

    const WANT: Want = Want { fresh: false, speaks: Protocol::Http1, now: 0, client: None, within: Duration::from_secs(2) };

    fn first(pool: &Pool, want: Want) -> Box<HttpPeer> {
        peer(pool, &choose(pool, Default::default(), || 0).unwrap(), want)
    }

    fn with(more: impl FnOnce(&mut crate::relay::upstream::UpstreamSettings)) -> Arc<Pool> {
        let mut written = settings(&[("unix:/run/a.sock", 1)]);
        more(&mut written);
        Pools::default().adopt(&Arc::new(Upstream::compile("orders", &written).unwrap()))
    }

    #[test]
    fn a_peer_has_the_chosen_address_and_the_timeouts_that_are_not_kept_elsewhere() {
        let peer = first(&pool("orders"), WANT);
        assert_eq!(peer._address, PingoraAddr::Inet("10.0.0.1:8080".parse().unwrap()));
        assert_eq!(peer.options.connection_timeout, Some(Duration::from_secs(2)));
        assert_eq!(peer.options.total_connection_timeout, Some(Duration::from_secs(2)));
        assert_eq!(peer.options.read_timeout, None);
        assert_eq!(peer.options.write_timeout, Some(Duration::from_secs(4)));
        assert_eq!(peer.options.idle_timeout, Some(Duration::from_secs(55)));
        assert!(peer.options.custom_l4.is_none());
    }

    #[test]
    fn upstreams_with_the_same_address_never_share_connections() {
        let (orders, billing) = (pool("orders"), pool("billing"));
        let hash = |pool: &Pool, fresh| first(pool, Want { fresh, ..WANT }).reuse_hash();
        assert_eq!(hash(&orders, false), hash(&orders, false));
        assert_ne!(hash(&orders, false), hash(&billing, false));
        assert_ne!(hash(&orders, false), hash(&orders, true));
    }

    #[test]
    fn a_unix_socket_is_a_peer_and_two_never_share_connections() {
        let written = settings(&[("unix:/run/a.sock", 1), ("unix:/run/b.sock", 1)]);
        let pool = Pools::default().adopt(&Arc::new(Upstream::compile("orders", &written).unwrap()));
        let both = |turn: u64| {
            // Whoever has failed at a goes to b.
            let chosen = choose(&pool, Wanted { tried: &[pool.targets()[1].endpoints()[0].addr], ..Wanted::default() }, || 0).unwrap();
            peer(
                &pool,
                &if turn == 0 { chosen } else { choose(&pool, Wanted { tried: &[chosen.addr()], ..Wanted::default() }, || 0).unwrap() },
                WANT,
            )
        };
        let (a, b) = (both(0), both(1));
        assert_eq!([&a, &b].map(|peer| peer._address.to_string()), ["/run/a.sock", "/run/b.sock"]);
        assert_ne!(a.reuse_hash(), b.reuse_hash());
        assert_eq!(a.reuse_hash(), both(0).reuse_hash());
    }

    #[test]
    fn a_connection_that_names_a_client_or_may_not_rest_is_nobody_elses() {
        use crate::relay::attempt::proxied::ProxyVersion;
        use crate::relay::attempt::reuse::PoolSettings;
        let named = with(|written| written.proxy_protocol = Some(at(ProxyVersion::V2)));
        let hasty = with(|written| written.pool = Some(at(PoolSettings { idle: Some(at(Period::seconds(0))), age: None })));
        for (pool, is_opened_here) in [(named, true), (hasty, false)] {
            let (one, other) = (first(&pool, WANT), first(&pool, WANT));
            assert_ne!(one.reuse_hash(), other.reuse_hash());
            assert_eq!(one.options.idle_timeout, Some(NO_REST));
            assert_eq!(one.options.custom_l4.is_some(), is_opened_here);
        }
    }

    #[test]
    fn a_connection_is_found_until_it_is_too_old() {
        use crate::relay::attempt::reuse::PoolSettings;
        let pool = with(|written| written.pool = Some(at(PoolSettings { idle: None, age: Some(at(Period::seconds(10))) })));
        let at = |seconds: u64| first(&pool, Want { now: seconds * 1_000_000_000, ..WANT }).reuse_hash();
        let changes = (0..40).filter(|second| at(*second) != at(second + 1)).count();
        assert_eq!(changes, 4, "once in ten seconds");
    }
}
