//! Decides whether a request's body may be this large. Does not read it: the relay counts what passes.

use http::header::CONTENT_LENGTH;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{Policy, Request, Stop};
use crate::config::diagnostic::Diagnostic;
use crate::config::types::{At, Size};
use crate::ctx::Facts;
use crate::reply::problem::{Kind, Problem};

pub static BODY_TOO_LARGE: Kind = Kind {
    code: "body-too-large",
    status: 413,
    error: "Content too large",
    about: "The request's body is larger than the route's `body.limit`. Where the length is declared, nothing was sent to the upstream.",
};

/// What a request's body may be.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BodySettings {
    /// How large it may be; more gets 413.
    pub limit: At<Size>,
}

/// The compiled limit, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodyLimit {
    limit: u64,
}

/// Counts the bytes of one body as they pass.
#[derive(Clone, Copy, Debug)]
pub struct BodyCount {
    limit: BodyLimit,
    seen: u64,
}

// === impl BodyLimit ===

impl BodyLimit {
    /// # Errors
    /// None today: the size itself is checked where it is read.
    pub fn compile(settings: &BodySettings) -> Result<Self, Vec<Diagnostic>> {
        let BodySettings { limit } = settings;
        Ok(BodyLimit { limit: limit.0 })
    }

    pub fn bytes(self) -> u64 {
        self.limit
    }

    /// A count for one body that is about to come.
    pub fn count(self) -> BodyCount {
        BodyCount { limit: self, seen: 0 }
    }

    fn refuse(self, what: std::fmt::Arguments<'_>) -> Problem {
        let limit = Size(self.limit);
        Problem::new(&BODY_TOO_LARGE).detail(format!("A body may have {limit} at most.")).reason(format!("{what}, limit {limit}"))
    }
}

impl Policy for BodyLimit {
    /// Judges the declared length; a body without one is counted as it passes.
    async fn judge(&self, request: &Request<'_>, _: &mut Facts) -> Result<(), Stop> {
        for value in request.head.headers.get_all(CONTENT_LENGTH) {
            let digits = value.as_bytes();
            if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
                continue; // not a length; the framing is judged before policies
            }
            let declared = digits.iter().try_fold(0_u64, |sum, digit| sum.checked_mul(10)?.checked_add(u64::from(digit - b'0')));
            match declared {
                Some(declared) if declared <= self.limit => {}
                Some(declared) => return Err(self.refuse(format_args!("{declared} bytes declared")).into()),
                None => return Err(self.refuse(format_args!("more bytes declared than can be counted")).into()),
            }
        }
        Ok(())
    }
}

// === impl BodyCount ===

impl BodyCount {
    /// Counts `n` more bytes; refuses where they make the body too large. The bytes that made it so must not be sent on.
    pub fn count(&mut self, n: usize) -> Result<(), Box<Problem>> {
        self.seen = self.seen.saturating_add(n as u64);
        if self.seen <= self.limit.limit {
            Ok(())
        } else {
            Err(Box::new(self.limit.refuse(format_args!("at least {} bytes came", self.seen))))
        }
    }

    /// How many bytes have been counted.
    pub fn seen(&self) -> u64 {
        self.seen
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::fixtures::{at, facts, head, judge, refusal};

    fn limit(bytes: u64) -> BodyLimit {
        BodyLimit::compile(&BodySettings { limit: at(Size(bytes)) }).unwrap()
    }

    #[test]
    fn a_declared_length_over_the_limit_is_refused_before_the_body_comes() {
        let judged = |length: &str| judge(&limit(1024), &head("POST /", &[("content-length", length)]), &mut facts());
        assert!(judged("0").is_ok());
        assert!(judged("1024").is_ok());
        let problem = refusal(judged("1025"));
        assert_eq!((problem.kind.code, problem.kind.status), ("body-too-large", 413));
        assert_eq!(problem.detail.unwrap(), "A body may have 1KiB at most.");
        assert_eq!(problem.reason.unwrap(), "1025 bytes declared, limit 1KiB");
        assert_eq!(refusal(judged("99999999999999999999999")).kind.code, "body-too-large");
    }

    #[test]
    fn a_body_without_a_declared_length_is_counted() {
        let mut count = limit(10).count();
        assert!(judge(&limit(10), &head("POST /", &[("transfer-encoding", "chunked")]), &mut facts()).is_ok());
        assert!(count.count(4).is_ok());
        assert!(count.count(6).is_ok());
        assert_eq!(count.seen(), 10);
        assert_eq!(count.count(1).unwrap_err().reason.unwrap(), "at least 11 bytes came, limit 10B");
        assert!(count.count(usize::MAX).is_err());
        assert!(count.count(1).is_err());
    }

    #[test]
    fn a_limit_of_nothing_lets_only_empty_bodies_pass() {
        assert!(limit(0).count().count(0).is_ok());
        assert!(limit(0).count().count(1).is_err());
    }
}
