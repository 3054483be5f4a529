//! Decides whether a request belongs on its connection: its host must lead to the certificate that the client was shown, and what the
//! client has shown must still be believed (RFC 9110 section 15.5.20).
//!
//! Otherwise the name that a handshake was judged by and the host that a request is routed by could be two.

use super::Tls;
use crate::ctx::Facts;
use crate::reply::problem::{Kind, Problem};

pub static MISDIRECTED: Kind = Kind {
    code: "misdirected",
    status: 421,
    error: "Misdirected request",
    about: "The request is for a host that the certificate of its TLS connection does not stand for. A client that is right connects anew, with that host's name.",
};

pub static CERTIFICATE_OUTDATED: Kind = Kind {
    code: "certificate-outdated",
    status: 421,
    error: "Misdirected request",
    about: "The CAs or revocation lists of the listener have changed since the connection began, and the client's certificate does not hold any more. The connection ends.",
};

impl Tls {
    /// Whether the request may go on.
    ///
    /// # Errors
    /// It belongs on another connection.
    pub fn admit(&self, facts: &Facts) -> Result<(), Box<Problem>> {
        let Some(tls) = &facts.tls else { return Ok(()) };
        let host = facts.target.host();
        // One who names no host claims none.
        if host.is_empty() || self.choice.covers(tls.server_name.as_deref(), host) {
            return Ok(());
        }
        let reason = match &tls.server_name {
            Some(name) => format!("connected to {name}"),
            None => "connected without a name".to_owned(),
        };
        Err(Box::new(Problem::new(&MISDIRECTED).reason(reason)))
    }
}
