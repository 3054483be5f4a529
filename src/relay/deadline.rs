//! Keeps the time an upstream may take to its response head, and the silence it may keep after it, apart.
//!
//! Pingora has one read timeout per connection to an upstream, set when it is handed out, and no hook can change it when the
//! head has come; it also starts anew with every chunk that a client uploads, so a slow client would look like a slow upstream. While
//! an answer is awaited, Pingora polls the *client's* connection too, to see it close. So the deadline is put where that poll ends
//! up: the listener's connection asks [`Deadline::due`] in its `poll_read` and fails the read with [`Overdue`]; `retry.rs`
//! recognises it. Decides nothing about clients; the listener's timers are its own.
//!
//! Does not see silence while the client does not take what was sent (then the client is not polled, nor at fault is the upstream).

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use pingora_core::Error;

use super::retry::{IDLE_TIMEOUT, RESPONSE_TIMEOUT};
use crate::reply::problem::Kind;

/// One per connection of a client: shared by what reads the connection and the request that is on it.
#[derive(Debug, Default)]
pub struct Deadline {
    /// Nanoseconds on the clock of [`crate::ctx::Now::mono`], the lowest bit cut off and used for what is awaited; 0: nothing is.
    word: AtomicU64,
}

/// What was awaited in vain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overdue {
    Head,
    Bytes,
}

// === impl Deadline ===

impl Deadline {
    /// The last byte of the request has gone to the upstream: its head is due within `timeouts.response`. For each attempt anew.
    pub fn await_head(&self, mono: u64, response: Duration) {
        self.set(mono, response, 0);
    }

    /// The head or a chunk of the answer has come: the next is due within `timeouts.idle`.
    pub fn await_bytes(&self, mono: u64, idle: Duration) {
        self.set(mono, idle, 1);
    }

    /// The answer is complete or given up, or the client has something to send first.
    pub fn clear(&self) {
        self.word.store(0, Relaxed);
    }

    /// When something is overdue, and what.
    pub fn due(&self) -> Option<(u64, Overdue)> {
        let word = self.word.load(Relaxed);
        match (word, word & 1) {
            (0, _) => None,
            (_, 0) => Some((word, Overdue::Head)),
            _ => Some((word & !1, Overdue::Bytes)),
        }
    }

    fn set(&self, mono: u64, within: Duration, bit: u64) {
        let within = u64::try_from(within.as_nanos()).unwrap_or(u64::MAX);
        // Two, so that a deadline is never taken for none.
        self.word.store((mono.saturating_add(within).max(2) & !1) | bit, Relaxed);
    }
}

// === impl Overdue ===

impl From<Overdue> for io::Error {
    fn from(overdue: Overdue) -> Self {
        io::Error::new(io::ErrorKind::TimedOut, overdue)
    }
}

impl fmt::Display for Overdue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Overdue::Head => "the upstream sent no response head in time",
            Overdue::Bytes => "the upstream fell silent in the middle of its answer",
        })
    }
}

impl StdError for Overdue {}

/// The kind of an error that began as an [`Overdue`] read; None for all others.
pub(super) fn kind_in(error: &Error) -> Option<&'static Kind> {
    let mut cause: Option<&(dyn StdError + 'static)> = error.cause.as_deref().map(|e| e as _);
    while let Some(error) = cause {
        // Pingora boxes its own errors as causes, and an `io::Error` does not name what it wraps as its source.
        let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref).map(|e| e as &(dyn StdError + 'static));
        match wrapped.unwrap_or(error).downcast_ref::<Overdue>() {
            Some(Overdue::Head) => return Some(&RESPONSE_TIMEOUT),
            Some(Overdue::Bytes) => return Some(&IDLE_TIMEOUT),
            None => {}
        }
        cause = match error.downcast_ref::<Box<Error>>() {
            Some(error) => error.cause.as_deref().map(|e| e as _),
            None => error.source(),
        };
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relay::retry::{Phase, kind_of};
    use pingora_core::ErrorType::ReadError;

    #[test]
    fn head_and_bytes_are_told_apart() {
        let deadline = Deadline::default();
        assert_eq!(deadline.due(), None);
        deadline.await_head(1_001, Duration::from_nanos(100));
        assert_eq!(deadline.due(), Some((1_100, Overdue::Head)));
        deadline.await_bytes(2_001, Duration::from_nanos(100));
        assert_eq!(deadline.due(), Some((2_100, Overdue::Bytes)));
        deadline.clear();
        assert_eq!(deadline.due(), None);
        deadline.await_head(0, Duration::ZERO);
        assert!(deadline.due().is_some());
    }

    #[test]
    fn an_overdue_upstream_is_not_taken_for_a_client_that_left() {
        for (overdue, code) in [(Overdue::Head, "upstream-response-timeout"), (Overdue::Bytes, "upstream-idle-timeout")] {
            let read = Error::because(ReadError, "during HTTP body-or-idle state", io::Error::from(overdue)).into_down();
            assert_eq!(kind_of(&read, Phase::Head).code, code);
            let told_again = Error::because(ReadError, "Peer: 10.0.0.1:80", read).into_down();
            assert_eq!(kind_of(&told_again, Phase::Head).code, code);
        }
        let reset = Error::because(ReadError, "reset", io::Error::from(io::ErrorKind::ConnectionReset)).into_down();
        assert_eq!(kind_of(&reset, Phase::Head).code, "client-gone");
    }
}
