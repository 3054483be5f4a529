//! An address and lines of headers: `entry/client_ip.rs` believes nobody but trusted proxies, and a client cannot put words before
//! what they said.

use std::net::{IpAddr, SocketAddr};
use std::sync::LazyLock;

use http::header::FORWARDED;
use http::{HeaderMap, HeaderName, HeaderValue};
use sluice::entry::client_ip::{Clients, X_FORWARDED_FOR};

/// Each with the header that it reads.
static KINDS: LazyLock<[(HeaderName, Clients); 3]> = LazyLock::new(|| {
    [X_FORWARDED_FOR, FORWARDED, HeaderName::from_static("cf-connecting-ip")].map(|name| {
        let header = format!("trusted_proxies: [10.0.0.0/8, \"2001:db8:1::/48\"]\n  header: {name}");
        let text = include_str!("gateway.yaml").replace("trusted_proxies: [10.0.0.0/8, \"2001:db8:1::/48\"]", &header);
        (name, super::load(&text).clients)
    })
});

pub fn hold(data: &[u8]) {
    let mut lines = data.split(|byte| *byte == b'\n');
    let said = lines.next().and_then(|line| std::str::from_utf8(line).ok()).and_then(|line| line.parse::<IpAddr>().ok());
    let headers = super::headers(lines);
    for (name, clients) in &*KINDS {
        for peer in [Some([192, 0, 2, 1].into()), Some([10, 0, 0, 1].into()), said].into_iter().flatten() {
            find(name, clients, peer, &headers);
        }
    }
}

fn find(name: &HeaderName, clients: &Clients, peer: IpAddr, headers: &HeaderMap) {
    let ask = |headers: &HeaderMap| clients.find(SocketAddr::new(peer, 1), headers);
    let client = ask(headers);
    assert_eq!(client.address, client.address.to_canonical(), "an IPv4 address has two spellings");
    assert_eq!(client.peer_is_trusted, clients.trusts(peer.to_canonical()));
    if !client.peer_is_trusted {
        assert_eq!((client.address, client.scheme), (peer.to_canonical(), None));
        return;
    }
    // What stands before the word of a proxy that is not ours is only what its client said.
    for lie in ["198.51.100.9", "for=198.51.100.9;proto=https", "for=\"", ",,;=\\\""] {
        let mut more = HeaderMap::new();
        more.append(name, HeaderValue::from_static(lie));
        for value in headers.get_all(name) {
            more.append(name, value.clone());
        }
        let found = ask(&more);
        if is_list(name) && !clients.trusts(client.address) {
            assert_eq!(found.address, client.address, "{lie} counts");
        }
        if !is_list(name) && headers.contains_key(name) {
            assert_eq!(found.address, peer.to_canonical(), "of two single addresses one is believed");
        }
    }
}

fn is_list(name: &HeaderName) -> bool {
    [X_FORWARDED_FOR, FORWARDED].contains(name)
}
