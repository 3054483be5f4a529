//! From a socket to a request head: accept, caps, header deadline, one strict reading of the head.

use std::net::SocketAddr;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::types::{At, Period, Size};

/// An address on which requests arrive.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListenerSettings {
    /// Address and port, such as `0.0.0.0:8080` or `[::]:8080`.
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
    /// Bytes in all, request line included; more gets 431. Default 64KiB.
    pub bytes: Option<At<Size>>,
    /// Number of fields; more gets 431. Default 100, at most 200.
    pub fields: Option<At<u16>>,
}
