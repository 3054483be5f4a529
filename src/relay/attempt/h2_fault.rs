//! Decides what an error on an HTTP/2 connection to an upstream means: whose fault it is, and whether the request was looked at.
//!
//! Does not decide whether it is sent again: see `retry.rs`.

use h2::Reason;
use pingora_core::{Error, ErrorType, Result};
use pingora_http::ResponseHeader;

use crate::relay::retry::{CLOSED, PROTOCOL_ERROR};
use crate::reply::problem::Kind;

/// Pingora closes a connection that does not answer pings; its streams end with this.
const PING_TIMED_OUT: &str = "PingTimedout";

/// What an error of the `h2` crate, or Pingora's word for one, is called. None for all other errors.
pub(in crate::relay) fn kind_of(error: &Error) -> Option<&'static Kind> {
    if matches!(error.etype(), ErrorType::Custom(PING_TIMED_OUT)) {
        return Some(&CLOSED);
    }
    let fault = fault_in(error)?;
    // What the peer or the network ended was sound until then; what our side could not read was not.
    Some(if fault.is_remote() || fault.is_io() { &CLOSED } else { &PROTOCOL_ERROR })
}

/// The target has certainly not begun with the request, so that it may be sent again whatever its method (RFC 9113 section 8.7):
/// the stream was refused, or lies beyond the last one that a GOAWAY names.
///
/// `h2` ends only such streams with a GOAWAY of the peer's; those that the peer still works on end with the connection.
pub(in crate::relay) fn is_unprocessed(error: &Error) -> bool {
    fault_in(error).is_some_and(|fault| {
        let is_refused = fault.is_reset() && fault.reason() == Some(Reason::REFUSED_STREAM);
        fault.is_remote() && (is_refused || fault.is_go_away())
    })
}

/// The connection is gone: an idempotent request on one from the pool may be sent again on another.
pub(in crate::relay) fn is_dead(error: &Error) -> bool {
    matches!(error.etype(), ErrorType::Custom(PING_TIMED_OUT)) || fault_in(error).is_some_and(h2::Error::is_io)
}

/// Refuses a head that would be too large in HTTP/1 as well; there Pingora keeps the same bounds while it reads.
///
/// # Errors
/// The upstream's fault.
pub fn bounded(head: &ResponseHeader) -> Result<()> {
    let bytes: usize = head.headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    if head.headers.len() > MOST_FIELDS || bytes > MOST_BYTES {
        return Err(Error::explain(ErrorType::InvalidHTTPHeader, "a head with too many or too large fields").into_up());
    }
    Ok(())
}

/// Fields of an answer's head.
const MOST_FIELDS: usize = 256;
/// Their names and values.
const MOST_BYTES: usize = 1 << 20;

fn fault_in(error: &Error) -> Option<&h2::Error> {
    error.root_cause().downcast_ref()
}
