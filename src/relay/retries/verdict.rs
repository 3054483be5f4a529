//! Decides whether a failed attempt is followed by another.
//!
//! Pure: takes what is known of the attempt. Does not choose the next target (`balance.rs`), nor ask the budget (`budget.rs`): both come last.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderName, Method, header};
use pingora_core::{Error, ErrorSource, ErrorType};

use super::Retries;
use super::condition::Condition;
use crate::relay::attempt::h2_fault;
use crate::relay::retry::RESPONSE_TIMEOUT;
use crate::relay::targets::target::Target;
use crate::reply::grpc::Status;
use crate::reply::problem::Kind;

/// Why an attempt failed, as far as that bears on another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// No connection: nothing was sent.
    Connect,
    /// The target has said that it has not begun with the request.
    Unprocessed,
    /// The connection came from the pool and had probably been closed at rest.
    Stale,
    /// It broke before an answer.
    Reset,
    /// No head of an answer in time.
    Timeout,
    /// This one was answered.
    Status(u16),
    /// Of gRPC, in an answer that is nothing but a head.
    Grpc(Status),
}

/// An attempt that failed; for the log.
#[derive(Clone, Debug)]
pub struct Failed {
    pub target: Arc<Target>,
    pub cause: Cause,
}

/// Why there is no further attempt, where one was to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GivenUp {
    /// All of `retries.attempts` were made.
    Attempts,
    /// It must not be sent twice.
    NotIdempotent,
    /// Its body was not kept: it is larger than `retries.body`.
    Body,
    /// The upstream wants to be left alone for longer than `retries.retry_after`.
    RetryAfter,
    /// Nothing would be left of the time that it may take in all.
    Deadline,
    /// There is no target that was not tried.
    NoTarget,
    /// The budget is used up.
    Budget,
}

/// What decides about another attempt.
#[derive(Clone, Copy, Debug)]
pub struct Attempt {
    /// How many were made, this one included.
    pub number: u8,
    /// Whether it may be sent twice.
    pub is_idempotent: bool,
    /// Something of an answer went to the client.
    pub answer_started: bool,
    /// All of the request's body that was read is still there.
    pub is_kept: bool,
    /// How long the upstream wants to be left alone; where it says so in a way that is not understood, for ever.
    pub pushback: Option<Duration>,
    /// What is left of the time that it may take in all.
    pub left: Option<Duration>,
    pub random: u64,
}

/// Clients that send this know that their request may be sent twice.
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const PUSHBACK: HeaderName = HeaderName::from_static("grpc-retry-pushback-ms");

// === impl Cause ===

impl Cause {
    /// Of an attempt whose connection was made. None: nothing that another attempt could mend.
    pub fn of(error: &Error, kind: &Kind, is_reused: bool) -> Option<Cause> {
        if kind.code == RESPONSE_TIMEOUT.code {
            return Some(Cause::Timeout);
        }
        if *error.esource() != ErrorSource::Upstream {
            return None;
        }
        if h2_fault::is_unprocessed(error) {
            return Some(Cause::Unprocessed);
        }
        let died =
            h2_fault::is_dead(error) || matches!(error.etype(), ErrorType::ConnectionClosed | ErrorType::ReadError | ErrorType::WriteError);
        died.then_some(if is_reused { Cause::Stale } else { Cause::Reset })
    }

    /// Whether a target may have begun with the request.
    pub fn may_have_begun(self) -> bool {
        match self {
            Cause::Connect | Cause::Unprocessed => false,
            Cause::Stale | Cause::Reset | Cause::Timeout | Cause::Status(_) | Cause::Grpc(_) => true,
        }
    }

    /// Whether the same target may be the next one, on a connection of its own.
    pub fn may_stay(self) -> bool {
        match self {
            Cause::Unprocessed | Cause::Stale => true,
            Cause::Connect | Cause::Reset | Cause::Timeout | Cause::Status(_) | Cause::Grpc(_) => false,
        }
    }

    pub const NAMES: [&str; 7] = ["connect", "unprocessed", "stale", "reset", "timeout", "status", "grpc"];

    /// Where its name stands among [`Cause::NAMES`].
    pub fn index(self) -> usize {
        match self {
            Cause::Connect => 0,
            Cause::Unprocessed => 1,
            Cause::Stale => 2,
            Cause::Reset => 3,
            Cause::Timeout => 4,
            Cause::Status(_) => 5,
            Cause::Grpc(_) => 6,
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cause::Status(status) => write!(f, "{status}"),
            Cause::Grpc(status) => Condition::Grpc(*status).fmt(f),
            Cause::Connect | Cause::Unprocessed | Cause::Stale | Cause::Reset | Cause::Timeout => f.write_str(Cause::NAMES[self.index()]),
        }
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.target.address.text, self.cause)
    }
}

// === impl GivenUp ===

impl GivenUp {
    pub const ALL: [GivenUp; 7] = [
        GivenUp::Attempts,
        GivenUp::NotIdempotent,
        GivenUp::Body,
        GivenUp::RetryAfter,
        GivenUp::Deadline,
        GivenUp::NoTarget,
        GivenUp::Budget,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            GivenUp::Attempts => "attempts",
            GivenUp::NotIdempotent => "not_idempotent",
            GivenUp::Body => "body",
            GivenUp::RetryAfter => "retry_after",
            GivenUp::Deadline => "deadline",
            GivenUp::NoTarget => "no_target",
            GivenUp::Budget => "budget",
        }
    }
}

/// How long to wait before the next attempt, or why there is none. No reason: none was to be made.
pub fn judge(retries: &Retries, cause: Cause, attempt: &Attempt) -> Result<Duration, Option<GivenUp>> {
    let Attempt { number, is_idempotent, answer_started, is_kept, pushback, left, random } = *attempt;
    if answer_started || retries.attempts == 1 || !retries.on.has(cause) {
        return Err(None);
    }
    if cause.may_have_begun() && !is_idempotent {
        return Err(Some(GivenUp::NotIdempotent));
    }
    if number >= retries.attempts {
        return Err(Some(GivenUp::Attempts));
    }
    if cause != Cause::Connect && !is_kept {
        return Err(Some(GivenUp::Body));
    }
    if pushback.is_some_and(|pushback| pushback > retries.retry_after) {
        return Err(Some(GivenUp::RetryAfter));
    }
    let backoff = match &retries.backoff {
        Some(backoff) if cause.may_have_begun() && cause != Cause::Stale => backoff.wait(number, random),
        Some(_) | None => Duration::ZERO,
    };
    // What is waited is the upstream's wish and a little more, so that not all come back in the same moment.
    let wait = pushback.unwrap_or_default() + backoff;
    if left.is_some_and(|left| left <= wait) {
        return Err(Some(GivenUp::Deadline));
    }
    Ok(wait)
}

/// Whether a request may be sent twice. `route`: what its route says.
pub fn is_idempotent(route: Option<bool>, method: &Method, headers: &HeaderMap) -> bool {
    route.unwrap_or_else(|| method.is_idempotent() || headers.get(IDEMPOTENCY_KEY).is_some_and(|key| !key.is_empty()))
}

/// How long the upstream wants to be left alone, from this moment on: seconds, or until a date (RFC 9110 section 10.2.3). What is neither is for ever.
pub fn pushback(fields: &HeaderMap, unix_ms: u64) -> Option<Duration> {
    let (value, unit) = match fields.get(PUSHBACK) {
        Some(value) => (value, Duration::from_millis(1)),
        None => (fields.get(header::RETRY_AFTER)?, Duration::from_secs(1)),
    };
    if unit == Duration::from_secs(1)
        && let Some(until) = value.to_str().ok().and_then(|text| httpdate::parse_http_date(text).ok())
    {
        // One that is over asks for nothing.
        return Some(until.duration_since(SystemTime::UNIX_EPOCH + Duration::from_millis(unix_ms)).unwrap_or_default());
    }
    let count = value.to_str().ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit())).and_then(|text| text.parse::<u32>().ok());
    Some(count.map_or(Duration::MAX, |count| unit * count))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::types::Period;
    use crate::relay::attempt::protocol::Protocol;
    use crate::relay::retries::RetriesSettings;
    use crate::relay::retries::backoff::BackoffSettings;
    use crate::relay::retries::condition::Condition;
    use crate::relay::upstream::tests::at;

    const GET: Attempt =
        Attempt { number: 1, is_idempotent: true, answer_started: false, is_kept: true, pushback: None, left: None, random: u64::MAX };

    fn retries(attempts: u8, on: &[&str], backoff_ms: Option<u64>) -> Retries {
        let settings = RetriesSettings {
            attempts: Some(at(attempts)),
            conditions: Some(at(on.iter().map(|one| at(Condition::parse(one).unwrap())).collect())),
            backoff: backoff_ms.map(|ms| at(BackoffSettings { base: at(Period(Duration::from_millis(ms))), max: None })),
            ..Default::default()
        };
        Retries::compile(Some(&at(settings)), Protocol::Http1, &mut Vec::new())
    }

    #[test]
    fn what_no_target_has_begun_with_goes_elsewhere_whatever_the_method() {
        let all = retries(2, &["connect"], None);
        let post = Attempt { is_idempotent: false, ..GET };
        assert_eq!(judge(&all, Cause::Connect, &post), Ok(Duration::ZERO));
        assert_eq!(judge(&all, Cause::Unprocessed, &post), Ok(Duration::ZERO));
        assert_eq!(judge(&all, Cause::Connect, &Attempt { number: 2, ..post }), Err(Some(GivenUp::Attempts)));
        // Where the connection failed, nothing of the body was read for it.
        assert_eq!(judge(&all, Cause::Connect, &Attempt { is_kept: false, ..post }), Ok(Duration::ZERO));
        assert_eq!(judge(&all, Cause::Unprocessed, &Attempt { is_kept: false, ..post }), Err(Some(GivenUp::Body)));
        assert_eq!(judge(&retries(2, &["503"], None), Cause::Connect, &post), Err(None));
    }

    #[test]
    fn the_rest_is_sent_again_only_where_it_is_asked_for_and_may_be() {
        let all = retries(3, &["reset", "timeout", "503"], None);
        for cause in [Cause::Stale, Cause::Reset, Cause::Timeout, Cause::Status(503)] {
            assert_eq!(judge(&all, cause, &GET), Ok(Duration::ZERO), "{cause:?}");
            for (attempt, why) in [
                (Attempt { is_idempotent: false, ..GET }, Some(GivenUp::NotIdempotent)),
                (Attempt { answer_started: true, ..GET }, None),
                (Attempt { is_kept: false, ..GET }, Some(GivenUp::Body)),
                (Attempt { number: 3, ..GET }, Some(GivenUp::Attempts)),
                (Attempt { left: Some(Duration::ZERO), ..GET }, Some(GivenUp::Deadline)),
            ] {
                assert_eq!(judge(&all, cause, &attempt), Err(why), "{cause:?} {attempt:?}");
            }
        }
        for cause in [Cause::Reset, Cause::Timeout, Cause::Status(503)] {
            assert_eq!(judge(&retries(3, &["502"], None), cause, &GET), Err(None), "{cause:?}");
            assert_eq!(judge(&retries(1, &["reset", "timeout", "503"], None), cause, &GET), Err(None), "{cause:?}");
        }
    }

    #[test]
    fn a_wait_is_the_upstreams_wish_and_the_backoff_and_counts_in_the_deadline() {
        let all = retries(3, &["503", "reset"], Some(100));
        let second = Duration::from_secs(1);
        let asked = |pushback| Attempt { pushback: Some(pushback), ..GET };
        assert_eq!(judge(&all, Cause::Status(503), &GET), Ok(Duration::from_millis(100)));
        assert_eq!(judge(&all, Cause::Status(503), &Attempt { number: 2, ..GET }), Ok(Duration::from_millis(200)));
        assert_eq!(judge(&all, Cause::Status(503), &asked(second)), Ok(Duration::from_millis(1_100)));
        assert_eq!(judge(&all, Cause::Status(503), &asked(second * 2)), Err(Some(GivenUp::RetryAfter)));
        let left = |left| Attempt { left: Some(left), ..GET };
        assert_eq!(judge(&all, Cause::Status(503), &left(Duration::from_millis(100))), Err(Some(GivenUp::Deadline)));
        assert!(judge(&all, Cause::Status(503), &left(Duration::from_millis(101))).is_ok());
        assert_eq!(judge(&all, Cause::Stale, &GET), Ok(Duration::ZERO), "nobody was overloaded");
    }

    #[test]
    fn a_request_may_be_sent_twice_by_its_method_its_key_or_its_route() {
        let key: HeaderMap = [(IDEMPOTENCY_KEY, "a".parse().unwrap())].into_iter().collect();
        let empty: HeaderMap = [(IDEMPOTENCY_KEY, "".parse().unwrap())].into_iter().collect();
        let none = HeaderMap::new();
        assert!(is_idempotent(None, &Method::PUT, &none) && !is_idempotent(None, &Method::POST, &none));
        assert!(is_idempotent(None, &Method::POST, &key) && !is_idempotent(None, &Method::POST, &empty));
        assert!(is_idempotent(Some(true), &Method::POST, &none));
        assert!(!is_idempotent(Some(false), &Method::GET, &key));
    }

    #[test]
    fn an_upstream_says_how_long_it_wants_to_be_left_alone() {
        // Sun, 06 Nov 1994 08:49:37 GMT.
        const NOW: u64 = 784_111_777_000;
        let of = |name: HeaderName, value: &str| pushback(&[(name, value.parse().unwrap())].into_iter().collect(), NOW);
        assert_eq!(of(header::RETRY_AFTER, "2"), Some(Duration::from_secs(2)));
        assert_eq!(of(PUSHBACK, "250"), Some(Duration::from_millis(250)));
        // The date of RFC 9110, as it is written now and as it once was.
        for date in ["Sun, 06 Nov 1994 08:49:40 GMT", "Sunday, 06-Nov-94 08:49:40 GMT", "Sun Nov  6 08:49:40 1994"] {
            assert_eq!(of(header::RETRY_AFTER, date), Some(Duration::from_secs(3)), "{date}");
        }
        assert_eq!(of(header::RETRY_AFTER, "Sun, 06 Nov 1994 08:49:30 GMT"), Some(Duration::ZERO), "it is over");
        for (name, value) in [
            (header::RETRY_AFTER, "Sun, 06 Nov 1994"),
            (PUSHBACK, "Sun, 06 Nov 1994 08:49:40 GMT"),
            (PUSHBACK, "-1"),
            (header::RETRY_AFTER, ""),
        ] {
            assert_eq!(of(name, value), Some(Duration::MAX), "{value}");
        }
        assert_eq!(pushback(&HeaderMap::new(), NOW), None);
    }

    #[test]
    fn what_a_live_upstream_or_a_client_did_is_not_mended_by_another_attempt() {
        use crate::relay::retry::{CLIENT_GONE, CLOSED, PROTOCOL_ERROR};
        let of = |source: ErrorSource, etype: ErrorType, kind, reused| Cause::of(&Error::create(etype, source, None, None), kind, reused);
        assert_eq!(of(ErrorSource::Upstream, ErrorType::InvalidHTTPHeader, &PROTOCOL_ERROR, true), None);
        assert_eq!(of(ErrorSource::Downstream, ErrorType::ConnectionClosed, &CLIENT_GONE, true), None);
        assert_eq!(of(ErrorSource::Upstream, ErrorType::ConnectionClosed, &CLOSED, true), Some(Cause::Stale));
        assert_eq!(of(ErrorSource::Upstream, ErrorType::ReadError, &CLOSED, false), Some(Cause::Reset));
        assert_eq!(of(ErrorSource::Downstream, ErrorType::ReadError, &RESPONSE_TIMEOUT, false), Some(Cause::Timeout));
    }
}
