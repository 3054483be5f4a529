//! From a socket to a request head: accept, caps, PROXY protocol, TLS, header deadline, one strict reading of the head. In this
//! order.
//!
//! Decides which connections are kept, how long clients may take and which bytes are a request head and a request body at
//! all. Does not decide what a request means: see `entry`. The accept loops are ours, on one current-thread runtime per
//! worker thread, rather than those of Pingora's `Server`: sockets must be handed to a new binary, an idle connection must
//! not hold the future of a whole request, and every refused head must get our answer and our log line. Pingora sees a
//! request only when its head is complete and sound (`front.rs`), through a stream that knows where its body ends
//! (`stream.rs`).

pub mod accept;
pub mod address;
pub mod alarm;
pub mod beside;
pub mod caps;
pub mod chunks;
pub mod conn;
mod connections;
pub mod descriptors;
mod frames;
pub mod front;
pub mod head;
pub mod heads;
pub mod http2;
pub mod https;
pub mod newcomers;
mod open;
pub mod pace;
pub mod protocols;
pub mod proxy_protocol;
pub mod request;
pub mod running;
pub mod session;
pub mod socket_file;
mod stall;
pub mod stream;
pub mod tls;
mod wire;

use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::diagnostic::Diagnostic;
use crate::config::types::{At, Period};

use self::address::Address;
pub use self::connections::{ConnectionBounds, ConnectionsSettings};
use self::head::HeadBounds;
pub use self::heads::{Buffers, HeadsSettings};
use self::http2::settings::{Http2, Http2Settings};
use self::https::ToHttps;
pub use self::pace::{MinimumRates, MinimumRatesSettings};
use self::protocols::{Protocol, Protocols};
use self::proxy_protocol::{ProxyProtocol, ProxyProtocolSettings};
use self::socket_file::Access;
use self::tls::tickets::TicketKeys;
use self::tls::{Tls, TlsSettings};

/// An address on which requests arrive.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListenerSettings {
    /// Address and port, such as `0.0.0.0:8080` or `[::]:8080`; the latter is IPv6 only, so that both may be written. Or a Unix socket, such as `unix:/run/sluice/public.sock`.
    pub address: At<Address>,
    /// Who may connect to a Unix socket, as four octal digits. Default `"0660"`.
    pub mode: Option<At<String>>,
    /// The user whose a Unix socket is, by name or number. Default: that of the process.
    pub owner: Option<At<String>>,
    /// The group whose a Unix socket is, by name or number. Default: that of the process.
    pub group: Option<At<String>>,
    /// Limits judged before routing, which also count what matches no route; only by `client_ip` or `global`.
    #[serde(default)]
    pub limits: Vec<At<String>>,
    /// Load balancers that say who their client is with the PROXY protocol, version 1 or 2, before anything else.
    pub proxy_protocol: Option<ProxyProtocolSettings>,
    /// How many connections may be open.
    pub connections: Option<ConnectionsSettings>,
    /// How long clients may take.
    pub deadlines: Option<DeadlinesSettings>,
    /// How fast clients must be: who falls behind by the deadline is cut off.
    pub minimum_rates: Option<MinimumRatesSettings>,
    /// How large request heads may be.
    pub heads: Option<HeadsSettings>,
    /// Versions of HTTP that are spoken: `http1`, `http2`. Default: both; a client of HTTP/2 says so with its first bytes.
    pub protocols: Option<At<Vec<At<Protocol>>>>,
    /// What connections of HTTP/2 may do.
    pub http2: Option<At<Http2Settings>>,
    /// TLS: clients connect with `https://`.
    pub tls: Option<TlsSettings>,
    /// Plain requests are answered with 308 to the same URL with `https://` and this port, such as 443; none gets further, unless a trusted
    /// proxy says that it came to it by `https://`.
    pub redirect_https: Option<At<u16>>,
}

/// How long clients may take.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DeadlinesSettings {
    /// What stands before the first request: the TLS handshake. Default 10s.
    pub handshake: Option<At<Period>>,
    /// From the first byte of a request head (the opening of the connection for the first one) to its last. Default 10s.
    pub header: Option<At<Period>>,
    /// Idle time between requests. Default 60s.
    pub keep_alive: Option<At<Period>>,
    /// Silence while a body is read; also how far a client may fall behind `minimum_rates.body` in all. Default 60s.
    pub body: Option<At<Period>>,
    /// How long one write to the client may be stuck; also how far it may fall behind `minimum_rates.answer` in all. Default 60s.
    pub write: Option<At<Period>>,
}

/// One listener as it runs. Its `limits` are not here: names are resolved where limits are compiled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    pub address: Address,
    /// Of a Unix socket.
    pub access: Access,
    /// `None` where nobody speaks for others.
    pub proxy_protocol: Option<Arc<ProxyProtocol>>,
    pub connections: ConnectionBounds,
    pub deadlines: Deadlines,
    pub minimum_rates: MinimumRates,
    pub heads: HeadBounds,
    pub buffers: Buffers,
    pub protocols: Protocols,
    pub http2: Http2,
    pub tls: Option<Arc<Tls>>,
    pub https: Option<ToHttps>,
}

/// How long clients may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadlines {
    pub handshake: Duration,
    pub header: Duration,
    pub keep_alive: Duration,
    pub body: Duration,
    pub write: Duration,
    /// How long an idle connection stays open after the gateway has begun to stop: a client that sends in this time is
    /// answered and told `Connection: close`, instead of finding its connection gone. Not a setting.
    pub linger: Duration,
}

// === impl Listener ===

impl Listener {
    /// Compiles what the user wrote; all mistakes at once.
    pub fn compile(settings: &ListenerSettings, tickets: &Arc<TicketKeys>) -> Result<Listener, Vec<Diagnostic>> {
        let ListenerSettings {
            address,
            mode,
            owner,
            group,
            limits: _,
            proxy_protocol,
            connections,
            deadlines,
            minimum_rates,
            heads,
            protocols,
            http2,
            tls,
            redirect_https,
        } = settings;
        let mut mistakes = Vec::new();
        let access = Access::compile(address.is_unix(), mode.as_ref(), owner.as_ref(), group.as_ref(), &mut mistakes);
        local_without_addresses(settings, &mut mistakes);
        let proxy_protocol = ProxyProtocol::compile(proxy_protocol.as_ref(), &mut mistakes);
        if let (Some(handshake), None) = (deadlines.as_ref().and_then(|deadlines| deadlines.handshake.as_ref()), tls) {
            let message = "`handshake` is without effect: nothing stands before the first request on a listener without `tls`";
            mistakes.push(Diagnostic::at(&handshake.place, "inert", message).help("remove it, or give the listener `tls`"));
        }
        let connections = ConnectionBounds::compile(connections.as_ref(), &mut mistakes);
        let deadlines = Deadlines::compile(deadlines.as_ref(), &mut mistakes);
        let minimum_rates = MinimumRates::compile(minimum_rates.as_ref());
        let (heads, buffers) = heads::compile(heads.as_ref(), &mut mistakes);
        let protocols = Protocols::compile(protocols.as_ref());
        let tls =
            tls.as_ref().and_then(|tls| Tls::compile(tls, &protocols, tickets).map_err(|more| mistakes.extend(more)).ok().map(Arc::new));
        let https = redirect_https.as_ref().map(|port| ToHttps(port.value));
        let http2 = Http2::compile(http2.as_ref().map(|http2| &http2.value));
        let listener = Listener {
            address: address.value,
            access,
            proxy_protocol,
            connections,
            deadlines,
            minimum_rates,
            heads,
            buffers,
            protocols,
            http2,
            tls,
            https,
        };
        if mistakes.is_empty() { Ok(listener) } else { Err(mistakes) }
    }

    /// Whether HTTP begins with the first byte: nothing stands before it, see `open.rs`.
    pub(crate) fn is_plain(&self) -> bool {
        self.tls.is_none() && self.proxy_protocol.is_none()
    }
}

/// Who comes over a Unix socket has no address that could be counted by, unless a load balancer says so.
fn local_without_addresses(settings: &ListenerSettings, mistakes: &mut Vec<Diagnostic>) {
    if !settings.address.is_unix() || settings.proxy_protocol.is_some() {
        return;
    }
    let connections = settings.connections.as_ref();
    let per_address = connections.and_then(|all| all.per_address.as_ref()).map(|written| ("per_address", &written.place));
    let rate = connections.and_then(|all| all.rate_per_address.as_ref()).map(|written| ("rate_per_address", &written.place));
    let handshakes = settings.tls.as_ref().and_then(|tls| tls.handshakes_per_address.as_ref());
    let handshakes = handshakes.map(|written| ("handshakes_per_address", &written.place));
    for (key, place) in [per_address, rate, handshakes].into_iter().flatten() {
        let message = format!("`{key}` has no effect: who comes over a Unix socket has no address");
        mistakes.push(Diagnostic::at(place, "inert", message).help("a load balancer can say who its clients are: `proxy_protocol`"));
    }
}

// === impl Deadlines ===

impl Deadlines {
    fn compile(settings: Option<&DeadlinesSettings>, mistakes: &mut Vec<Diagnostic>) -> Self {
        let mut or = |period: &Option<At<Period>>, default: u64| match period {
            None => Duration::from_secs(default),
            Some(period) => {
                if period.0.is_zero() {
                    mistakes.push(Diagnostic::at(
                        &period.place,
                        "out-of-range",
                        format!("`{}` leaves clients no time: expected more than 0", period.value),
                    ));
                }
                period.0
            }
        };
        let none = DeadlinesSettings { handshake: None, header: None, keep_alive: None, body: None, write: None };
        let DeadlinesSettings { handshake, header, keep_alive, body, write } = settings.unwrap_or(&none);
        Deadlines {
            handshake: or(handshake, 10),
            header: or(header, 10),
            keep_alive: or(keep_alive, 60),
            body: or(body, 60),
            write: or(write, 60),
            linger: Duration::from_millis(1500),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::diagnostic::{Place, Source};
    use crate::config::types::Size;

    fn at<T>(value: T) -> At<T> {
        let source = Arc::new(Source::new("t.yaml", ""));
        At { value, place: Place { source, line: 1, column: 1, width: 1 } }
    }

    fn settings() -> ListenerSettings {
        ListenerSettings {
            address: at("127.0.0.1:0".parse().unwrap()),
            mode: None,
            owner: None,
            group: None,
            limits: vec![],
            proxy_protocol: None,
            connections: None,
            deadlines: None,
            minimum_rates: None,
            heads: None,
            protocols: None,
            http2: None,
            tls: None,
            redirect_https: None,
        }
    }

    #[test]
    fn a_listener_without_keys_has_the_documented_defaults() {
        let listener = Listener::compile(&settings(), &Arc::default()).unwrap();
        assert_eq!(listener.connections, ConnectionBounds::default());
        let d = listener.deadlines;
        assert_eq!([d.header, d.keep_alive, d.body, d.write].map(|d| d.as_secs()), [10, 60, 60, 60]);
        assert_eq!(listener.heads, HeadBounds { bytes: 64 << 10, fields: 100, line: 32 << 10 });
        assert_eq!(
            (listener.minimum_rates, listener.buffers),
            (MinimumRates { body: 256, answer: 256 }, Buffers { ahead: 16 << 10, memory: 64 << 20 })
        );
    }

    #[test]
    fn what_is_written_is_what_runs() {
        let mut written = settings();
        written.connections =
            Some(ConnectionsSettings { max: Some(at(7)), per_address: Some(at(3)), rate_per_address: None, requests: None, age: None });
        written.deadlines = Some(DeadlinesSettings {
            handshake: None,
            header: Some(at(Period::seconds(1))),
            keep_alive: Some(at(Period::seconds(2))),
            body: Some(at(Period::seconds(3))),
            write: Some(at(Period::seconds(4))),
        });
        written.heads = Some(HeadsSettings {
            bytes: Some(at(Size::kib(2))),
            fields: Some(at(5)),
            line: Some(at(Size::kib(1))),
            ahead: Some(at(Size::kib(3))),
            memory: Some(at(Size::mib(4))),
        });
        written.minimum_rates = Some(MinimumRatesSettings { body: Some(at(Size(0))), answer: Some(at(Size(9))) });
        let listener = Listener::compile(&written, &Arc::default()).unwrap();
        assert_eq!(listener.connections, ConnectionBounds { max: 7, per_address: 3, ..ConnectionBounds::default() });
        let d = listener.deadlines;
        assert_eq!([d.header, d.keep_alive, d.body, d.write].map(|d| d.as_secs()), [1, 2, 3, 4]);
        assert_eq!(listener.heads, HeadBounds { bytes: 2048, fields: 5, line: 1024 });
        assert_eq!(
            (listener.minimum_rates, listener.buffers),
            (MinimumRates { body: 0, answer: 9 }, Buffers { ahead: 3 << 10, memory: 4 << 20 })
        );
    }

    #[test]
    fn every_value_out_of_range_is_told_at_once() {
        let mut written = settings();
        written.connections =
            Some(ConnectionsSettings { max: Some(at(0)), per_address: Some(at(9)), rate_per_address: None, requests: None, age: None });
        written.deadlines = Some(DeadlinesSettings {
            handshake: None,
            header: Some(at(Period::seconds(0))),
            keep_alive: None,
            body: None,
            write: Some(at(Period::seconds(0))),
        });
        written.heads = Some(HeadsSettings {
            bytes: Some(at(Size::kib(257))),
            fields: Some(at(201)),
            line: Some(at(Size(255))),
            ahead: Some(at(Size(1023))),
            memory: Some(at(Size::kib(1))),
        });
        let codes: Vec<_> = Listener::compile(&written, &Arc::default()).unwrap_err().iter().map(|d| d.code).collect();
        assert_eq!(
            codes,
            [
                "out-of-range",
                "inert",
                "out-of-range",
                "out-of-range",
                "out-of-range",
                "out-of-range",
                "out-of-range",
                "out-of-range",
                "out-of-range"
            ]
        );
    }
}
