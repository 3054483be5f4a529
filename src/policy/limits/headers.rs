//! Tells the client where it stands, on allowed and refused answers: `X-RateLimit-*` of the tightest limit, and `RateLimit` and
//! `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers-10, sections 3 and 4) of all. Decides nothing but the spelling.
//!
//! In the draft's words: the quota `q` is the bucket's size and its window `w` the time in which an empty bucket fills, so that
//! `r` never exceeds `q` and `q/w` is never faster than the limit; `t` is the time until there is one more token, which is what
//! `Retry-After` says too where the request was refused.

use bytes::Bytes;
use http::{HeaderName, HeaderValue};

use super::label::COMMA;
use crate::policy::rate_limit::Charge;

pub static LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
pub static REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
pub static RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");
pub static POLICIES: HeaderName = HeaderName::from_static("ratelimit-policy");
pub static STATES: HeaderName = HeaderName::from_static("ratelimit");

/// What an answer says, field by field.
const FIELDS: usize = 5;

/// Gives `out` the headers for these charges, tightest first; none where there is no charge.
pub fn headers(charges: &[Charge], out: &mut impl FnMut(HeaderName, HeaderValue)) {
    let (mut text, mut ends) = (Vec::new(), [0; FIELDS]);
    write(charges, [""; FIELDS], "", &mut ends, &mut text);
    if text.is_empty() {
        return;
    }
    // They share one allocation.
    let text = Bytes::from(text);
    let mut start = 0;
    for (name, end) in [&LIMIT, &REMAINING, &RESET, &POLICIES, &STATES].into_iter().zip(ends) {
        if let Ok(value) = HeaderValue::from_maybe_shared(text.slice(start..end)) {
            out(name.clone(), value);
        }
        start = end;
    }
}

/// Appends the same as lines of an HTTP/1.1 head.
pub fn lines(charges: &[Charge], out: &mut Vec<u8>) {
    let names = ["x-ratelimit-limit: ", "x-ratelimit-remaining: ", "x-ratelimit-reset: ", "ratelimit-policy: ", "ratelimit: "];
    write(charges, names, "\r\n", &mut [0; FIELDS], out);
}

/// Whether it is one of these fields, by its name in lower case.
pub fn is_own(name: &str) -> bool {
    matches!(name, "x-ratelimit-limit" | "x-ratelimit-remaining" | "x-ratelimit-reset" | "ratelimit-policy" | "ratelimit")
}

/// Each field with what stands before and behind it, and where each ends.
fn write(charges: &[Charge], before: [&str; FIELDS], behind: &str, ends: &mut [usize; FIELDS], text: &mut Vec<u8>) {
    let Some(tightest) = charges.first() else { return };
    text.reserve(160 + charges.iter().map(|charge| 2 * charge.limit.state().len() + 60).sum::<usize>());
    for (index, name) in before.into_iter().enumerate() {
        text.extend_from_slice(name.as_bytes());
        match index {
            0 => number(text, u64::from(tightest.size)),
            1 => number(text, u64::from(tightest.remaining)),
            2 => number(text, tightest.reset),
            3 => policies(text, charges),
            _ => states(text, charges),
        }
        text.extend_from_slice(behind.as_bytes());
        ends[index] = text.len();
    }
}

fn number(text: &mut Vec<u8>, number: u64) {
    match u8::try_from(number) {
        Ok(digit @ 0..10) => text.push(b'0' + digit),
        Ok(_) | Err(_) => text.extend_from_slice(itoa::Buffer::new().format(number).as_bytes()),
    }
}

fn policies(text: &mut Vec<u8>, charges: &[Charge]) {
    let mut skipped = COMMA;
    for charge in charges {
        match charge.limit.whole(charge.size, charge.window) {
            Some(whole) => text.extend_from_slice(&whole[skipped..]),
            None => {
                text.extend_from_slice(&charge.limit.policy()[skipped..]);
                number(text, u64::from(charge.size));
                text.extend_from_slice(b";w=");
                number(text, charge.window);
            }
        }
        skipped = 0;
    }
}

fn states(text: &mut Vec<u8>, charges: &[Charge]) {
    let mut skipped = COMMA;
    for charge in charges {
        text.extend_from_slice(&charge.limit.state()[skipped..]);
        number(text, u64::from(charge.remaining));
        text.extend_from_slice(b";t=");
        number(text, charge.next);
        skipped = 0;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::label::Label;
    use super::super::pace::tests::pace;
    use super::*;

    fn charge(limit: &str, remaining: u32) -> Charge {
        let limit = Arc::new(Label::new(&limit.into(), &pace("100/m", 100)));
        Charge { limit, key_kind: "client_ip", size: 100, window: 60, remaining, reset: 8, next: 1, retry_after: 0, wait_ms: 0 }
    }

    fn told(charges: &[Charge]) -> Vec<String> {
        let mut lines = Vec::new();
        headers(charges, &mut |name, value| lines.push(format!("{name}: {}", value.to_str().unwrap())));
        lines
    }

    #[test]
    fn the_tightest_limit_is_told_plainly_and_all_of_them_in_structured_fields() {
        assert_eq!(
            told(&[charge("browse", 87), charge("write", 99)]),
            [
                "x-ratelimit-limit: 100",
                "x-ratelimit-remaining: 87",
                "x-ratelimit-reset: 8",
                r#"ratelimit-policy: "browse";q=100;w=60, "write";q=100;w=60"#,
                r#"ratelimit: "browse";r=87;t=1, "write";r=99;t=1"#,
            ]
        );
    }

    #[test]
    fn a_window_of_a_calendar_is_told_as_long_as_it_is() {
        let month = Charge { window: 31 * 86_400, ..charge("browse", 87) };
        let part = Charge { size: 34, ..charge("write", 5) };
        assert_eq!(told(&[month, part])[3], r#"ratelimit-policy: "browse";q=100;w=2678400, "write";q=34;w=60"#);
    }

    #[test]
    fn lines_of_a_head_say_the_same() {
        let charges = [charge("browse", 87), charge("a\"b", 99)];
        let mut lines = Vec::new();
        super::lines(&[], &mut lines);
        super::lines(&charges, &mut lines);
        let lines = String::from_utf8(lines).unwrap();
        assert_eq!(lines.split_terminator("\r\n").collect::<Vec<_>>(), told(&charges));
        assert!(told(&charges).iter().all(|line| is_own(line.split(':').next().unwrap())));
        assert!(!is_own("retry-after"));
    }

    #[test]
    fn a_request_without_limits_gets_no_headers() {
        assert_eq!(told(&[]), Vec::<String>::new());
    }

    #[test]
    fn any_name_makes_a_valid_string() {
        assert_eq!(told(&[charge("a\"b\\c\u{e9}\n", 1)])[4], r#"ratelimit: "a\"b\\c???";r=1;t=1"#);
        assert_eq!(told(&vec![charge(&"n".repeat(200), 1); 20]).len(), 5);
    }
}
