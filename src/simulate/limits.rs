//! A limit before there is one: what it would have refused of the requests in an access log, and which figure would fit.
//!
//! Requests are judged by the code that judges them in the gateway, at the moments that the log says, in their order. Decides which lines
//! are requests that a limit would have seen, and what is proposed. Does not read the command line: see `cli/limits.rs`.

use std::collections::HashMap;
use std::io::{self, BufRead};
use std::net::IpAddr;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::ctx::Now;
use crate::policy::buckets::{Asking, Buckets};
use crate::policy::limits::key::Key;
use crate::policy::limits::limit::Limit;
use crate::policy::limits::pace::Kind;
use crate::policy::rate_limit::{self, By};
use crate::reply::problem::KINDS;

/// The requests of a log, by caller.
#[derive(Debug, Default)]
pub struct Log {
    /// Milliseconds since 1970, and the caller.
    requests: Vec<(u64, u32)>,
    callers: Vec<Caller>,
    known: HashMap<(u8, String), u32>,
    /// Refused before a limit would have seen it.
    pub unseen: u64,
    /// No line of an access log, or without what is counted by.
    pub unusable: u64,
    /// Lines that stand for others, which were left out.
    pub sampled: u64,
}

#[derive(Debug)]
struct Caller {
    /// As it is shown.
    name: String,
    address: Option<IpAddr>,
    by: By,
}

/// What one caller did, and would have met.
#[derive(Debug, Default, Clone)]
struct Told {
    requests: u64,
    refused: u64,
    /// In each window in which it came, sorted.
    windows: Vec<u32>,
    /// The smallest figure with which nothing would have been refused.
    need: u32,
}

/// What is read of a line.
#[derive(Deserialize)]
struct Line<'a> {
    time: &'a str,
    client: Option<IpAddr>,
    #[serde(borrow)]
    consumer: Option<std::borrow::Cow<'a, str>>,
    #[serde(borrow)]
    subject: Option<std::borrow::Cow<'a, str>>,
    #[serde(borrow)]
    route: Option<std::borrow::Cow<'a, str>>,
    #[serde(borrow)]
    code: Option<std::borrow::Cow<'a, str>>,
    sample: Option<f64>,
}

/// A caller who needs more than so many times what the one in the middle does is not who the limit is for.
const OUTLIER: u32 = 10;

/// What refuses only after the limits of a route have been asked, and they themselves.
const AFTER: [&str; 6] = ["limits", "body", "request_body", "grpc", "relay", "respond"];

// === impl Log ===

impl Log {
    /// Reads an access log; may be called for several. `by` is in order of preference.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn read(&mut self, mut from: impl BufRead, by: &[By], routes: &[String]) -> io::Result<()> {
        let mut bytes = Vec::new();
        loop {
            bytes.clear();
            if from.read_until(b'\n', &mut bytes)? == 0 {
                return Ok(());
            }
            if bytes.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            let Some((line, at)) = serde_json::from_slice::<Line<'_>>(&bytes)
                .ok()
                .and_then(|line| Some((unix_ms(line.time)?, line)))
                .map(|(at, line)| (line, at))
            else {
                self.unusable += 1;
                continue;
            };
            self.sampled += u64::from(line.sample.is_some());
            if !routes.is_empty() && !line.route.as_deref().is_some_and(|route| routes.iter().any(|wanted| wanted == route)) {
                continue;
            }
            if line.code.as_deref().is_some_and(is_unseen) {
                self.unseen += 1;
                continue;
            }
            match by.iter().find_map(|by| self.caller(by, &line)) {
                Some(caller) => self.requests.push((at, caller)),
                None => self.unusable += 1,
            }
        }
    }

    fn caller(&mut self, by: &By, line: &Line<'_>) -> Option<u32> {
        let (kind, name, address) = match by {
            By::Consumer => (0, line.consumer.as_deref()?.to_owned(), None),
            By::Subject => (1, line.subject.as_deref()?.to_owned(), None),
            By::ClientIp => {
                let address = line.client?;
                (2, Key::address(address).to_string(), Some(address))
            }
            By::Global => (3, "all".to_owned(), None),
            // The log does not say: told when the command line is read.
            _ => return None,
        };
        let next = u32::try_from(self.callers.len()).ok()?;
        let callers = &mut self.callers;
        Some(*self.known.entry((kind, name.clone())).or_insert_with(|| {
            let name = name.strip_prefix("client_ip ").map(str::to_owned).unwrap_or(name);
            callers.push(Caller { name, address, by: by.clone() });
            next
        }))
    }

    /// What a limit would have done, as JSON; those who were refused most first, at most `top` callers.
    pub fn simulate(&mut self, limit: &Limit, written: &str, memory: u64, top: usize) -> Value {
        self.requests.sort_by_key(|(at, _)| *at);
        let buckets = Buckets::new(memory);
        let identity = rate_limit::identity_of(limit);
        let keys: Vec<u128> = self.callers.iter().map(|caller| caller.key().bucket(&buckets, identity)).collect();
        let mut told = vec![Told::default(); self.callers.len()];
        let mut moments: Vec<Vec<u64>> = vec![Vec::new(); self.callers.len()];
        let begin = self.requests.first().map_or(0, |(at, _)| *at);
        for (at, caller) in &self.requests {
            let now = Now { mono: (at - begin).saturating_mul(1_000_000) + 1, unix_ms: *at };
            let key = keys[*caller as usize];
            let asking = Asking { identity, key, pace: limit.pace(), bounds: limit.bounds(now), patience: 0 };
            let one = &mut told[*caller as usize];
            one.requests += 1;
            one.refused += u64::from(!buckets.charge(now.mono, &[asking]).is_admitted);
            moments[*caller as usize].push(*at);
        }
        let window = (limit.pace().per() / 1_000_000).max(1);
        for (one, moments) in told.iter_mut().zip(&moments) {
            one.windows = windows(moments, window);
            one.need = match limit.pace().kind() {
                Kind::Bucket => need(moments, window),
                Kind::Fixed | Kind::Sliding => one.windows.last().copied().unwrap_or(0),
            };
        }
        let mut order: Vec<usize> = (0..told.len()).collect();
        order.sort_by_key(|at| {
            (std::cmp::Reverse(told[*at].refused), std::cmp::Reverse(told[*at].requests), self.callers[*at].name.clone())
        });
        let (figure, outliers) = propose(&told);
        let unit = written.split_once('/').map_or("", |(_, unit)| unit);
        let outliers: Vec<&str> = outliers.iter().map(|at| &*self.callers[*at].name).collect();
        json!({
            "limit": written,
            "requests": self.requests.len(),
            "callers": told.len(),
            "seconds": self.requests.last().map_or(0, |(at, _)| (at - begin).div_ceil(1_000)),
            "unseen": self.unseen,
            "unusable": self.unusable,
            "refused": told.iter().map(|one| one.refused).sum::<u64>(),
            "refused_callers": told.iter().filter(|one| one.refused > 0).count(),
            "overflowed": buckets.figures().overflowed,
            "proposed": (figure > 0).then(|| format!("{figure}/{unit}")),
            "outliers": outliers.len(),
            "outlier_names": outliers.iter().take(top).collect::<Vec<_>>(),
            "per": unit,
            "top": order.iter().take(top).map(|at| {
                let (one, caller) = (&told[*at], &self.callers[*at]);
                json!({
                    "caller": caller.name, "requests": one.requests, "refused": one.refused,
                    "p50": percentile(&one.windows, 50), "p95": percentile(&one.windows, 95), "p99": percentile(&one.windows, 99),
                    "max": one.windows.last(), "needs": one.need,
                })
            }).collect::<Vec<_>>(),
        })
    }
}

// === impl Caller ===

impl Caller {
    fn key(&self) -> Key<'_> {
        match (&self.by, self.address) {
            (_, Some(address)) => Key::address(address),
            (By::Subject, None) => Key::Subject { authenticator: "", subject: &self.name },
            (By::Global, None) => Key::Global,
            (_, None) => Key::Consumer(&self.name),
        }
    }
}

/// What a log says was refused before a limit was asked is no request to it. What a limit refused is.
fn is_unseen(code: &str) -> bool {
    KINDS.iter().find(|(_, kind)| kind.code == code).is_some_and(|(policy, _)| !AFTER.contains(policy))
}

fn unix_ms(text: &str) -> Option<u64> {
    text.parse::<jiff::Timestamp>().ok().and_then(|at| u64::try_from(at.as_millisecond()).ok())
}

/// How many there were in each window in which there were any, sorted.
fn windows(moments: &[u64], window: u64) -> Vec<u32> {
    let mut counts: Vec<u32> = moments.chunk_by(|one, other| one / window == other / window).map(|chunk| chunk.len() as u32).collect();
    counts.sort_unstable();
    counts
}

/// The smallest count with which a bucket of that size, filled in one window, would have refused nothing.
fn need(moments: &[u64], window: u64) -> u32 {
    let fits = |count: u32| {
        let (mut tokens, mut last) = (f64::from(count), moments.first().copied().unwrap_or(0));
        moments.iter().all(|at| {
            tokens = (tokens + (at - last) as f64 * f64::from(count) / window as f64).min(f64::from(count));
            last = *at;
            tokens -= 1.0;
            // A millionth of a request is the floating point's.
            tokens >= -1e-6
        })
    };
    let (mut low, mut high) = (0, u32::try_from(moments.len()).unwrap_or(u32::MAX));
    while low < high {
        let middle = low + (high - low) / 2;
        if fits(middle) { high = middle } else { low = middle + 1 }
    }
    low
}

/// What the busiest caller needs who is not far from the others, in two figures; and who is far.
fn propose(told: &[Told]) -> (u32, Vec<usize>) {
    let mut needs: Vec<u32> = told.iter().map(|one| one.need).collect();
    needs.sort_unstable();
    let middle = needs.get(needs.len() / 2).copied().unwrap_or(0).max(1);
    let most = middle.saturating_mul(OUTLIER);
    let outliers = (0..told.len()).filter(|at| told[*at].need > most).collect();
    let busiest = needs.iter().rev().find(|need| **need <= most).copied().unwrap_or(0);
    (rounded_up(busiest), outliers)
}

fn rounded_up(figure: u32) -> u32 {
    let mut step = 1u32;
    while figure / step >= 100 {
        step = step.saturating_mul(10);
    }
    figure.div_ceil(step).saturating_mul(step)
}

/// Of sorted counts: the smallest that so many of a hundred do not exceed.
fn percentile(sorted: &[u32], of_hundred: usize) -> u32 {
    let rank = (sorted.len() * of_hundred).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(rate: &str) -> Limit {
        let rate = crate::config::types::Rate::parse(rate);
        Limit::of_command_line(rate, None, None, None, None, vec![By::Consumer]).unwrap()
    }

    fn line(ms: u64, consumer: &str, more: &str) -> String {
        let time = String::from_utf8_lossy(&crate::report::civil::rfc3339(1_800_000_000_000 + ms)).into_owned();
        format!("{{\"time\":\"{time}\",\"client\":\"192.0.2.1\",\"consumer\":\"{consumer}\",\"route\":\"r\"{more}}}\n")
    }

    fn log(text: &str) -> Log {
        let mut log = Log::default();
        log.read(text.as_bytes(), &[By::Consumer], &[]).unwrap();
        log
    }

    #[test]
    fn what_a_limit_would_have_refused_is_counted_by_caller_and_a_figure_is_proposed() {
        let mut text = String::new();
        // Ten callers with 30 in a minute each for three minutes, of whom one comes all at once, and one with 2000.
        for minute in 0..3 {
            for caller in 0..10 {
                for n in 0..30 {
                    let at = if caller == 0 { 0 } else { n * 2_000 };
                    text += &line(minute * 60_000 + at, &format!("c{caller}"), "");
                }
            }
            for n in 0..2_000 {
                text += &line(minute * 60_000 + n * 30, "mallory", "");
            }
        }
        let told = log(&text).simulate(&limit("100/m"), "100/m", 1 << 20, 2);
        // A full bucket and three minutes, less the last token that comes at their end.
        assert_eq!((&told["requests"], &told["callers"], &told["refused_callers"]), (&json!(6_900), &json!(11), &json!(1)));
        assert_eq!(told["refused"], json!(6_000 - 100 - 299));
        let top = &told["top"][0];
        assert_eq!((&top["caller"], &top["p50"], &top["max"]), (&json!("mallory"), &json!(2_000), &json!(2_000)));
        assert_eq!((&told["proposed"], &told["outlier_names"]), (&json!("30/m"), &json!(["mallory"])));
        // With the figure that is proposed nobody is refused but mallory.
        let told = log(&text).simulate(&limit("30/m"), "30/m", 1 << 20, 99);
        assert_eq!(told["refused_callers"], json!(1));
    }

    #[test]
    fn what_was_refused_before_limits_and_what_is_no_line_is_left_out_and_told() {
        let text = line(5, "a", "")
            + &line(1, "a", ",\"code\":\"token-expired\"")
            + &line(2, "a", ",\"code\":\"rate-limited\"")
            + "{\"time\":1}\nno\n\n";
        let mut log = log(&text);
        let told = log.simulate(&limit("1/h"), "1/h", 1 << 20, 9);
        assert_eq!((&told["requests"], &told["refused"], &told["unseen"], &told["unusable"]), (&json!(2), &json!(1), &json!(1), &json!(2)));
    }

    #[test]
    fn every_policy_that_is_asked_after_limits_is_one_that_there_is() {
        let policies: Vec<&str> = KINDS.iter().map(|(policy, _)| *policy).collect();
        let unknown: Vec<_> = AFTER.iter().filter(|name| !policies.contains(name)).collect();
        assert!(unknown.is_empty(), "{unknown:?}");
    }

    #[test]
    fn the_need_of_a_caller_is_the_smallest_figure_that_refuses_nothing() {
        assert_eq!(need(&[0; 7], 60_000), 7);
        assert_eq!(need(&[0, 60_000, 120_000], 60_000), 1);
        assert_eq!(need(&[], 60_000), 0);
        assert_eq!((rounded_up(0), rounded_up(99), rounded_up(101), rounded_up(12_345)), (0, 99, 110, 13_000));
        assert_eq!([50, 95, 99].map(|p| percentile(&[1, 2, 3, 4], p)), [2, 4, 4]);
    }
}
