//! Decides whether a failed attempt is followed by another, and what a failure that stays is called.
//!
//! Pure: takes Pingora's error and what is known of the attempt. Does not choose the next target: see `balance.rs`.

use pingora_core::{Error, ErrorSource, ErrorType};

use super::connect::{OTHER_PROTOCOL, TLS_FAILED};
use super::h2_fault;
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

/// What decides about another attempt.
#[derive(Clone, Copy, Debug)]
pub struct Attempt {
    /// How many were made, this one included.
    pub number: u8,
    /// How many may be made in all: `retries.attempts`.
    pub limit: u8,
    /// RFC 9110 section 9.2.2, by method.
    pub is_idempotent: bool,
    /// The connection came from the pool.
    pub reused: bool,
    /// Something of an answer went to the client.
    pub answer_started: bool,
    /// The request body is empty or was kept whole for sending it again (64 KiB).
    pub body_replayable: bool,
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
    about: "The upstream took the request but sent no response head within `timeouts.response`, or stopped taking the request for `timeouts.idle`.",
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
        "client-gone" => super::deadline::kind_in(error).unwrap_or(kind),
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

// === impl Attempt ===

impl Attempt {
    /// After a connection could not be made: nothing was sent, so any method may go to another address, if one is left.
    pub fn may_connect_elsewhere(&self) -> bool {
        self.number < self.limit && !self.answer_started
    }

    /// After the target has said that it has not begun with the request: any method may be sent to another, or to the same one again.
    pub fn may_send_elsewhere(&self, error: &Error) -> bool {
        let is_untouched = *error.esource() == ErrorSource::Upstream && h2_fault::is_unprocessed(error);
        is_untouched && self.body_replayable && !self.answer_started && self.number < self.limit
    }

    /// After a connection broke that came from the pool: it had probably been closed at rest, so an idempotent request may be sent
    /// once more, to the same target too, but on a connection of its own (`peer(.., fresh: true)`).
    pub fn may_send_again(&self, error: &Error) -> bool {
        let died = *error.esource() == ErrorSource::Upstream
            && (h2_fault::is_dead(error)
                || matches!(error.etype(), ErrorType::ConnectionClosed | ErrorType::ReadError | ErrorType::WriteError));
        died && self.reused && self.is_idempotent && self.body_replayable && !self.answer_started && self.number < self.limit
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

    const REUSED_GET: Attempt =
        Attempt { number: 1, limit: 2, is_idempotent: true, reused: true, answer_started: false, body_replayable: true };

    #[test]
    fn a_failed_connect_goes_elsewhere_whatever_the_method() {
        let post = Attempt { is_idempotent: false, reused: false, ..REUSED_GET };
        assert!(post.may_connect_elsewhere());
        assert!(!Attempt { number: 2, ..post }.may_connect_elsewhere());
        assert!(Attempt { number: 2, limit: 3, ..post }.may_connect_elsewhere());
    }

    #[test]
    fn a_pooled_connection_that_died_is_replaced_for_idempotent_requests_only() {
        let closed = error(&ErrorSource::Upstream, &ConnectionClosed);
        assert!(REUSED_GET.may_send_again(&closed));
        for attempt in [
            Attempt { is_idempotent: false, ..REUSED_GET },
            Attempt { reused: false, ..REUSED_GET },
            Attempt { answer_started: true, ..REUSED_GET },
            Attempt { body_replayable: false, ..REUSED_GET },
            Attempt { number: 2, ..REUSED_GET },
        ] {
            assert!(!attempt.may_send_again(&closed), "{attempt:?}");
        }
    }

    #[test]
    fn what_a_live_upstream_or_a_client_did_is_not_tried_again() {
        for (source, etype) in [
            (ErrorSource::Upstream, ReadTimedout),
            (ErrorSource::Upstream, InvalidHTTPHeader),
            (ErrorSource::Downstream, ConnectionClosed),
            (ErrorSource::Internal, InternalError),
        ] {
            assert!(!REUSED_GET.may_send_again(&error(&source, &etype)), "{source:?} {etype:?}");
        }
    }
}
