//! What a tunnel (RFC 6455) that the gateway ends is said to have ended of, and who ended it.
//!
//! Decides names only. When a tunnel is too silent or too old is kept in `deadline.rs`; how its connection ends is in `listen/stream.rs`.

use crate::relay::retry::{CLIENT_GONE, CLOSED, IDLE_TIMEOUT};
use crate::reply::problem::Kind;

pub static WEBSOCKET_IDLE: Kind = Kind {
    code: "websocket-idle",
    status: 101,
    error: "Switching protocols",
    about: "A WebSocket was silent both ways for `websocket.idle`, or for `timeouts.idle` where the route does not say, and was closed (close code 1001). In the log only.",
};

pub static WEBSOCKET_EXPIRED: Kind = Kind {
    code: "websocket-expired",
    status: 101,
    error: "Switching protocols",
    about: "The token or key that had opened a WebSocket expired, or the first certificate of the chain, and the route says `websocket.close_at_expiry`: it was closed (close code 1008). In the log only.",
};

pub static WEBSOCKET_REVOKED: Kind = Kind {
    code: "websocket-revoked",
    status: 101,
    error: "Switching protocols",
    about: "The token, key, certificate or consumer that had opened a WebSocket is in the list of `revocation` by now, and it was closed (close code 1008). In the log only.",
};

/// Who ended a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClosedBy {
    Client,
    Upstream,
    Gateway,
}

// === impl ClosedBy ===

impl ClosedBy {
    pub const ALL: [ClosedBy; 3] = [ClosedBy::Client, ClosedBy::Upstream, ClosedBy::Gateway];

    pub fn as_str(self) -> &'static str {
        match self {
            ClosedBy::Client => "client",
            ClosedBy::Upstream => "upstream",
            ClosedBy::Gateway => "gateway",
        }
    }

    /// Who ended a tunnel that ended with this.
    pub fn of(kind: &Kind) -> ClosedBy {
        if kind.code == CLIENT_GONE.code {
            ClosedBy::Client
        } else if kind.code == CLOSED.code {
            ClosedBy::Upstream
        } else {
            ClosedBy::Gateway
        }
    }
}

/// What a failure is called where it ended a tunnel: silence is nobody's fault there.
pub fn in_tunnel(kind: &'static Kind) -> &'static Kind {
    if kind.code == IDLE_TIMEOUT.code { &WEBSOCKET_IDLE } else { kind }
}
