//! Decides what a failure that stays is called.
//!
//! Pure: takes Pingora's error and how far the request had come. Does not decide whether there is another attempt: see `retries/verdict.rs`.

use pingora_core::{Error, ErrorSource, ErrorType};

use crate::relay::attempt::connect::{OTHER_PROTOCOL, TLS_FAILED};
use crate::relay::attempt::h2_fault;
use crate::reply::problem::Kind;

/// How far a request had come when it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// No connection to the target yet; nothing was sent.
    Connect,
    /// The request is being sent, or its answer awaited.
    Head,
    /// The head of the answer has arrived.
    Body,
}

pub static CONNECT_FAILED: Kind = Kind {
    code: "upstream-connect-failed",
    status: 502,
    error: "Bad gateway",
    about: "No target accepted a connection. The log names the target and the system's reason.",
};

pub static PROTOCOL_ERROR: Kind = Kind {
    code: "upstream-protocol-error",
    status: 502,
    error: "Bad gateway",
    about: "The upstream's answer is not HTTP, has too many or too large headers, or frames its body wrongly.",
};

pub static CLOSED: Kind = Kind {
    code: "upstream-closed",
    status: 502,
    error: "Bad gateway",
    about: "The upstream closed or reset the connection before its answer was complete.",
};

pub static CONNECT_TIMEOUT: Kind = Kind {
    code: "upstream-connect-timeout",
    status: 504,
    error: "Gateway timeout",
    about: "No target accepted a connection within `timeouts.connect`.",
};

pub static RESPONSE_TIMEOUT: Kind = Kind {
    code: "upstream-response-timeout",
    status: 504,
    error: "Gateway timeout",
    about: "The upstream took the request but sent no response head within `timeouts.response` (or `retries.attempt_timeout`), or stopped taking the request for `timeouts.idle`.",
};

pub static IDLE_TIMEOUT: Kind = Kind {
    code: "upstream-idle-timeout",
    status: 504,
    error: "Gateway timeout",
    about: "The upstream fell silent for `timeouts.idle` in the middle of its answer, which was cut off.",
};

pub static CLIENT_GONE: Kind = Kind {
    code: "client-gone",
    status: 499,
    error: "Client closed request",
    about: "The client closed the connection before the answer was complete. Only in the log: nobody is left to read it.",
};

pub static BODY_TIMEOUT: Kind = Kind {
    code: "body-timeout",
    status: 408,
    error: "Request timeout",
    about: "The client stopped sending its request body for `deadlines.body`.",
};

pub static BODY_MALFORMED: Kind = Kind {
    code: "body-malformed",
    status: 400,
    error: "Bad request",
    about: "The request body broke its framing after forwarding began, such as a bad chunk; the upstream never saw it complete.",
};

pub static INTERNAL_ERROR: Kind = Kind {
    code: "internal-error",
    status: 500,
    error: "Internal server error",
    about: "A fault of the gateway's own. The log has the error; please report it.",
};

/// What a failed attempt is called where no further attempt is made.
///
/// `phase` tells response and idle timeouts apart, which Pingora does not.
pub fn kind_of(error: &Error, phase: Phase) -> &'static Kind {
    let kind = match error.esource() {
        ErrorSource::Downstream => from_client(error.etype()),
        ErrorSource::Upstream => h2_fault::kind_of(error).unwrap_or_else(|| from_upstream(error.etype(), phase)),
        // Connection errors reach `fail_to_connect` with no source, those of filters are ours.
        ErrorSource::Unset | ErrorSource::Internal => match phase {
            Phase::Connect => from_upstream(error.etype(), phase),
            Phase::Head | Phase::Body => &INTERNAL_ERROR,
        },
    };
    match kind.code {
        // A deadline of ours speaks through the client's connection; see `deadline.rs`.
        "client-gone" => crate::relay::attempt::deadline::kind_in(error).unwrap_or(kind),
        _ => kind,
    }
}

fn from_client(etype: &ErrorType) -> &'static Kind {
    match etype {
        ErrorType::ReadTimedout => &BODY_TIMEOUT,
        ErrorType::InvalidHTTPHeader | ErrorType::H1Error | ErrorType::InvalidH2 => &BODY_MALFORMED,
        // Pingora's own names for bad chunks, trailers and bodies that end early with the connection still open.
        ErrorType::Custom("InvalidChunk" | "InvalidTrailerEnd" | "PrematureBodyEnd") => &BODY_MALFORMED,
        // Data after the end of the body, while the answer is awaited: a second request that nobody asked for yet.
        ErrorType::ConnectError => &BODY_MALFORMED,
        ErrorType::InternalError => &INTERNAL_ERROR,
        _ => &CLIENT_GONE,
    }
}

fn from_upstream(etype: &ErrorType, phase: Phase) -> &'static Kind {
    match (etype, phase) {
        (ErrorType::ConnectTimedout | ErrorType::TLSHandshakeTimedout, _) => &CONNECT_TIMEOUT,
        (
            ErrorType::ConnectRefused
            | ErrorType::ConnectNoRoute
            | ErrorType::ConnectError
            | ErrorType::ConnectProxyFailure
            | ErrorType::BindError
            | ErrorType::SocketError
            | ErrorType::TLSWantX509Lookup
            | ErrorType::InvalidCert
            | ErrorType::HandshakeError,
            _,
        ) => &CONNECT_FAILED,
        (ErrorType::TLSHandshakeFailure, _) => &TLS_FAILED,
        (other, _) if *other == OTHER_PROTOCOL => &TLS_FAILED,
        (ErrorType::ReadTimedout | ErrorType::WriteTimedout, Phase::Connect | Phase::Head) => &RESPONSE_TIMEOUT,
        (ErrorType::ReadTimedout | ErrorType::WriteTimedout, Phase::Body) => &IDLE_TIMEOUT,
        (ErrorType::ConnectionClosed | ErrorType::ReadError | ErrorType::WriteError, _) => &CLOSED,
        (ErrorType::Custom("PrematureBodyEnd"), _) => &CLOSED,
        (ErrorType::InvalidHTTPHeader | ErrorType::H1Error | ErrorType::H2Error | ErrorType::InvalidH2 | ErrorType::H2Downgrade, _) => {
            &PROTOCOL_ERROR
        }
        (ErrorType::Custom(_) | ErrorType::CustomCode(..), _) => &PROTOCOL_ERROR,
        (ErrorType::InternalError, _) => &INTERNAL_ERROR,
        (_, Phase::Connect) => &CONNECT_FAILED,
        (_, Phase::Head | Phase::Body) => &PROTOCOL_ERROR,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ErrorType::*;

    fn error(source: &ErrorSource, etype: &ErrorType) -> Box<Error> {
        Error::create(etype.clone(), source.clone(), None, None)
    }

    #[test]
    fn every_failure_has_its_name() {
        use ErrorSource::{Downstream, Internal, Unset, Upstream};
        use Phase::{Body, Connect, Head};
        for (source, etype, phase, code) in [
            (Unset, ConnectTimedout, Connect, "upstream-connect-timeout"),
            (Upstream, ConnectTimedout, Connect, "upstream-connect-timeout"),
            (Unset, ConnectRefused, Connect, "upstream-connect-failed"),
            (Upstream, ConnectNoRoute, Connect, "upstream-connect-failed"),
            (Upstream, ConnectError, Connect, "upstream-connect-failed"),
            (Upstream, SocketError, Connect, "upstream-connect-failed"),
            (Upstream, BindError, Connect, "upstream-connect-failed"),
            (Upstream, InvalidHTTPHeader, Head, "upstream-protocol-error"),
            (Upstream, H1Error, Head, "upstream-protocol-error"),
            (Upstream, ErrorType::new("InvalidChunk"), Body, "upstream-protocol-error"),
            (Upstream, ErrorType::new("InvalidTrailerEnd"), Body, "upstream-protocol-error"),
            (Upstream, ErrorType::new("PrematureBodyEnd"), Body, "upstream-closed"),
            (Upstream, ConnectionClosed, Head, "upstream-closed"),
            (Upstream, ConnectionClosed, Body, "upstream-closed"),
            (Upstream, ReadError, Head, "upstream-closed"),
            (Upstream, WriteError, Head, "upstream-closed"),
            (Upstream, ReadTimedout, Head, "upstream-response-timeout"),
            (Upstream, WriteTimedout, Head, "upstream-response-timeout"),
            (Upstream, ReadTimedout, Body, "upstream-idle-timeout"),
            (Upstream, InternalError, Head, "internal-error"),
            (Downstream, ConnectionClosed, Head, "client-gone"),
            (Downstream, ReadError, Body, "client-gone"),
            (Downstream, WriteError, Body, "client-gone"),
            (Downstream, WriteTimedout, Body, "client-gone"),
            (Downstream, ReadTimedout, Head, "body-timeout"),
            (Downstream, ErrorType::new("InvalidChunk"), Head, "body-malformed"),
            (Downstream, InvalidHTTPHeader, Head, "body-malformed"),
            (Downstream, ConnectError, Head, "body-malformed"),
            (Internal, InternalError, Head, "internal-error"),
            (Unset, UnknownError, Body, "internal-error"),
        ] {
            assert_eq!(kind_of(&error(&source, &etype), phase).code, code, "{source:?} {etype:?} {phase:?}");
        }
    }
}
