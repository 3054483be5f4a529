//! What the tests of this chapter share: places, facts, request heads. Decides nothing; not in the binary.

use std::path::PathBuf;
use std::sync::Arc;

use http::request::Parts;

use super::{Policy, Request, Stop};
use crate::config::diagnostic::{Diagnostic, Place, Source};
use crate::config::types::At;
use crate::ctx::{Facts, Now, Scheme};
use crate::reply::problem::Problem;

/// 2025-01-01T00:00:00Z, so that figures in tests are readable.
pub const NOW: u64 = 1_735_689_600;

pub fn place() -> Place {
    place_in("test.yaml")
}

pub fn place_in(path: impl Into<PathBuf>) -> Place {
    Place { source: Arc::new(Source::new(path, "")), line: 1, column: 1, width: 1 }
}

pub fn at<T>(value: T) -> At<T> {
    At { value, place: place() }
}

pub fn at_text(text: &str) -> At<String> {
    at(text.to_owned())
}

pub fn facts() -> Facts {
    facts_at(NOW * 1000)
}

pub fn facts_at(unix_ms: u64) -> Facts {
    Facts::new(0, "192.0.2.1:4711".parse().unwrap(), Scheme::Https, Now { mono: 0, unix_ms })
}

/// A request head; `line` is `GET /path`.
pub fn head(line: &str, headers: &[(&str, &str)]) -> Parts {
    let (method, uri) = line.split_once(' ').unwrap();
    let mut request = http::Request::builder().method(method).uri(uri);
    for (name, value) in headers {
        request = request.header(*name, http::HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    request.body(()).unwrap().into_parts().0
}

/// Judges as the runner does; policies that wait for nothing are done at the first poll.
pub fn judge(policy: &impl Policy, head: &Parts, facts: &mut Facts) -> Result<(), Stop> {
    let request = Request { head };
    let mut future = std::pin::pin!(policy.judge(&request, facts));
    match future.as_mut().poll(&mut std::task::Context::from_waker(std::task::Waker::noop())) {
        std::task::Poll::Ready(verdict) => verdict,
        std::task::Poll::Pending => panic!("the policy waits"),
    }
}

/// The problem with which a policy refused.
pub fn refusal(verdict: Result<(), Stop>) -> Problem {
    match verdict {
        Err(Stop::Refuse(problem)) => *problem,
        Err(Stop::Answer(answer)) => panic!("answered: {answer:?}"),
        Ok(()) => panic!("passed"),
    }
}

/// The stable codes of mistakes, in order.
pub fn codes<T: std::fmt::Debug>(result: Result<T, Vec<Diagnostic>>) -> Vec<&'static str> {
    result.unwrap_err().iter().map(|mistake| mistake.code).collect()
}
