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
pub mod alarm;
pub mod caps;
pub mod chunks;
pub mod conn;
mod frames;
pub mod front;
pub mod head;
mod open;
pub mod running;
pub mod stream;
pub mod tls;
mod wire;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::diagnostic::Diagnostic;
use crate::config::types::{At, Period, Size};

use self::head::HeadBounds;
use self::tls::tickets::TicketKeys;
use self::tls::{Tls, TlsSettings};

/// An address on which requests arrive.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListenerSettings {
    /// Address and port, such as `0.0.0.0:8080` or `[::]:8080`. The latter is IPv6 only, so that both may be written.
    pub address: At<SocketAddr>,
    /// Limits judged before routing, which also count what matches no route; only by `client_ip` or `global`.
    #[serde(default)]
    pub limits: Vec<At<String>>,
    /// How many connections may be open.
    pub connections: Option<ConnectionsSettings>,
    /// How long clients may take.
    pub deadlines: Option<DeadlinesSettings>,
    /// How large request heads may be.
    pub heads: Option<HeadsSettings>,
    /// TLS: clients connect with `https://`.
    pub tls: Option<TlsSettings>,
}

/// How many connections may be open; more are closed at once and counted.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ConnectionsSettings {
    /// In total on this listener. Default 20000.
    pub max: Option<At<u32>>,
    /// From one client address (v6 by /64). Default: no cap of its own.
    pub per_address: Option<At<u32>>,
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
    /// Silence while a body is read. Default 60s.
    pub body: Option<At<Period>>,
    /// How long one write to the client may be stuck. Default 60s.
    pub write: Option<At<Period>>,
}

/// How large request heads may be.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HeadsSettings {
    /// Bytes in all, request line included; more gets 431. Default 64KiB, from 1KiB to 256KiB.
    pub bytes: Option<At<Size>>,
    /// Number of fields; more gets 431. Default 100, at most 200.
    pub fields: Option<At<u16>>,
}

/// One listener as it runs. Its `limits` are not here: names are resolved where limits are compiled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    pub address: SocketAddr,
    pub connections: ConnectionBounds,
    pub deadlines: Deadlines,
    pub heads: HeadBounds,
    pub tls: Option<Arc<Tls>>,
}

/// How many connections may be open at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionBounds {
    pub max: u32,
    pub per_address: Option<u32>,
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
        let ListenerSettings { address, limits: _, connections, deadlines, heads, tls } = settings;
        let mut mistakes = Vec::new();
        if let (Some(handshake), None) = (deadlines.as_ref().and_then(|deadlines| deadlines.handshake.as_ref()), tls) {
            let message = "`handshake` is without effect: nothing stands before the first request on a listener without `tls`";
            mistakes.push(Diagnostic::at(&handshake.place, "inert", message).help("remove it, or give the listener `tls`"));
        }
        let tls = tls.as_ref().and_then(|tls| Tls::compile(tls, tickets).map_err(|more| mistakes.extend(more)).ok().map(Arc::new));
        let connections = ConnectionBounds::compile(connections.as_ref(), &mut mistakes);
        let deadlines = Deadlines::compile(deadlines.as_ref(), &mut mistakes);
        let heads = HeadBounds::compile(heads.as_ref(), &mut mistakes);
        if mistakes.is_empty() { Ok(Listener { address: address.value, connections, deadlines, heads, tls }) } else { Err(mistakes) }
    }

    /// Whether HTTP begins with the first byte: nothing stands before it, see `open.rs`.
    pub(crate) fn is_plain(&self) -> bool {
        self.tls.is_none()
    }
}

// === impl ConnectionBounds ===

impl ConnectionBounds {
    fn compile(settings: Option<&ConnectionsSettings>, mistakes: &mut Vec<Diagnostic>) -> Self {
        let Some(ConnectionsSettings { max, per_address }) = settings else {
            return ConnectionBounds { max: 20_000, per_address: None };
        };
        for count in [max, per_address].into_iter().flatten().filter(|count| count.value == 0) {
            mistakes.push(
                Diagnostic::at(&count.place, "out-of-range", "`0` connections would refuse everyone: expected at least 1")
                    .help("to serve nothing on this address, remove the listener"),
            );
        }
        let all = max.as_ref().map_or(20_000, |max| max.value);
        if let Some(each) = per_address.as_ref().filter(|each| each.value > all) {
            let message = format!("`{}` connections from one address can never be open: `max` is {all}", each.value);
            mistakes.push(Diagnostic::at(&each.place, "inert", message).help("raise `max`, or lower `per_address`"));
        }
        ConnectionBounds { max: all, per_address: per_address.as_ref().map(|each| each.value) }
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

// === impl HeadBounds ===

impl HeadBounds {
    fn compile(settings: Option<&HeadsSettings>, mistakes: &mut Vec<Diagnostic>) -> Self {
        let mut bounds = HeadBounds::default();
        let Some(HeadsSettings { bytes, fields }) = settings else { return bounds };
        if let Some(bytes) = bytes {
            if !(1 << 10..=256 << 10).contains(&bytes.0) {
                let message = format!("`{}` is out of range for request heads: expected `1KiB` to `256KiB`", bytes.value);
                mistakes.push(Diagnostic::at(&bytes.place, "out-of-range", message));
            }
            bounds.bytes = usize::try_from(bytes.0).unwrap_or(usize::MAX);
        }
        if let Some(fields) = fields {
            if !(1..=200).contains(&fields.value) {
                let message = format!("`{}` is out of range for the number of fields: expected 1 to 200", fields.value);
                mistakes.push(Diagnostic::at(&fields.place, "out-of-range", message));
            }
            bounds.fields = usize::from(fields.value);
        }
        bounds
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::diagnostic::{Place, Source};

    fn at<T>(value: T) -> At<T> {
        let source = Arc::new(Source::new("t.yaml", ""));
        At { value, place: Place { source, line: 1, column: 1, width: 1 } }
    }

    fn settings() -> ListenerSettings {
        ListenerSettings {
            address: at("127.0.0.1:0".parse().unwrap()),
            limits: vec![],
            connections: None,
            deadlines: None,
            heads: None,
            tls: None,
        }
    }

    #[test]
    fn a_listener_without_keys_has_the_documented_defaults() {
        let listener = Listener::compile(&settings(), &Arc::default()).unwrap();
        assert_eq!(listener.connections, ConnectionBounds { max: 20_000, per_address: None });
        let d = listener.deadlines;
        assert_eq!([d.header, d.keep_alive, d.body, d.write].map(|d| d.as_secs()), [10, 60, 60, 60]);
        assert_eq!(listener.heads, HeadBounds { bytes: 64 << 10, fields: 100 });
    }

    #[test]
    fn what_is_written_is_what_runs() {
        let mut written = settings();
        written.connections = Some(ConnectionsSettings { max: Some(at(7)), per_address: Some(at(3)) });
        written.deadlines = Some(DeadlinesSettings {
            handshake: None,
            header: Some(at(Period::seconds(1))),
            keep_alive: Some(at(Period::seconds(2))),
            body: Some(at(Period::seconds(3))),
            write: Some(at(Period::seconds(4))),
        });
        written.heads = Some(HeadsSettings { bytes: Some(at(Size::kib(2))), fields: Some(at(5)) });
        let listener = Listener::compile(&written, &Arc::default()).unwrap();
        assert_eq!(listener.connections, ConnectionBounds { max: 7, per_address: Some(3) });
        let d = listener.deadlines;
        assert_eq!([d.header, d.keep_alive, d.body, d.write].map(|d| d.as_secs()), [1, 2, 3, 4]);
        assert_eq!(listener.heads, HeadBounds { bytes: 2048, fields: 5 });
    }

    #[test]
    fn every_value_out_of_range_is_told_at_once() {
        let mut written = settings();
        written.connections = Some(ConnectionsSettings { max: Some(at(0)), per_address: Some(at(9)) });
        written.deadlines = Some(DeadlinesSettings {
            handshake: None,
            header: Some(at(Period::seconds(0))),
            keep_alive: None,
            body: None,
            write: Some(at(Period::seconds(0))),
        });
        written.heads = Some(HeadsSettings { bytes: Some(at(Size::kib(257))), fields: Some(at(201)) });
        let codes: Vec<_> = Listener::compile(&written, &Arc::default()).unwrap_err().iter().map(|d| d.code).collect();
        assert_eq!(codes, ["out-of-range", "inert", "out-of-range", "out-of-range", "out-of-range", "out-of-range"]);
    }
}
