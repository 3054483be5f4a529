//! How a limit that is used up refuses: the code, what the client reads, and what the operator does.

use std::borrow::Cow;

use http::HeaderValue;
use http::header::RETRY_AFTER;

use super::limit::{Limit, What};
use super::pace;
use super::places::CONCURRENCY_LIMITED;
use super::quota::QUOTA_EXCEEDED;
use crate::reply::problem::{Kind, Problem};
use crate::report::metrics::series::AtUpstream;

pub static KIND: Kind = Kind {
    code: "rate-limited",
    status: 429,
    error: "Too many requests",
    about: "The caller has used up a limit or its plan. Members `limit` and `key` say which one and what it counts by; wait as long as `Retry-After` says.",
};

/// Whether a refusal is a limit's.
pub fn is_own(kind: &Kind) -> bool {
    kind.code == KIND.code || [QUOTA_EXCEEDED.code, CONCURRENCY_LIMITED.code].contains(&kind.code)
}

/// The client is not told the names of upstreams.
pub fn refusal(limit: &Limit, at: Option<&AtUpstream>, key_kind: &'static str, retry_after: u64, is_overflow: bool) -> Problem {
    let what = match (limit.what(), limit.is_quota()) {
        (What::Limit, false) => "limit",
        (What::Plan, false) => "plan",
        (What::Limit | What::Plan, true) => "quota",
    };
    let (name, rate, size) = (limit.name(), limit.rate(), limit.pace().size());
    let kind = if limit.is_quota() { &QUOTA_EXCEEDED } else { &KIND };
    let detail = format!("{what} `{name}` of {rate} by {key_kind}; try again in {retry_after} s");
    let table = if is_overflow { ", in the bucket that new keys share while the table is full" } else { "" };
    let to = at.map(|at| format!(" to `{}`", at.upstream)).unwrap_or_default();
    let reason = match limit.pace().kind() {
        pace::Kind::Bucket => {
            format!("{what} `{name}` of {rate}, burst {size}, by {key_kind}{to}: no token for {retry_after} s{table}")
        }
        pace::Kind::Fixed => {
            format!("{what} `{name}` of {rate} by {key_kind}{to}: used up, the next window begins in {retry_after} s{table}")
        }
        pace::Kind::Sliding => format!("{what} `{name}` of {rate} by {key_kind}{to}: used up, the next fits in {retry_after} s{table}"),
    };
    Problem::new(kind)
        .reason(reason)
        .detail(Cow::Owned(detail))
        .member("limit", &**name)
        .member("key", key_kind)
        .header(RETRY_AFTER, HeaderValue::from(retry_after))
}
