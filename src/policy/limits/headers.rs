//! Tells the client where it stands, on allowed and refused answers: `X-RateLimit-*` of the tightest limit, and `RateLimit` and
//! `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers-10, sections 3 and 4) of all. Decides nothing but the spelling.
//!
//! In the draft's words: the quota `q` is the bucket's size and its window `w` the time in which an empty bucket fills, so that
//! `r` never exceeds `q` and `q/w` is never faster than the limit; `t` is the time until there is one more token, which is what
//! `Retry-After` says too where the request was refused.

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use smallvec::SmallVec;

use crate::policy::rate_limit::Charge;

pub static LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
pub static REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
pub static RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");
pub static POLICIES: HeaderName = HeaderName::from_static("ratelimit-policy");
pub static STATES: HeaderName = HeaderName::from_static("ratelimit");

/// The values of one answer, one after the other; they share one allocation.
type Text = SmallVec<[u8; 384]>;

/// Gives `out` the headers for these charges, tightest first; none where there is no charge.
pub fn headers(charges: &[Charge], out: &mut impl FnMut(HeaderName, HeaderValue)) {
    let Some(tightest) = charges.first() else { return };
    let mut text = Text::new();
    let mut ends = [0; 5];
    number(&mut text, u64::from(tightest.size));
    ends[0] = text.len();
    number(&mut text, u64::from(tightest.remaining));
    ends[1] = text.len();
    number(&mut text, tightest.reset);
    ends[2] = text.len();
    list(&mut text, charges, |charge| [(b";q=", u64::from(charge.size)), (b";w=", charge.window)]);
    ends[3] = text.len();
    list(&mut text, charges, |charge| [(b";r=", u64::from(charge.remaining)), (b";t=", charge.next)]);
    ends[4] = text.len();
    let text = Bytes::copy_from_slice(&text);
    let mut start = 0;
    for (name, end) in [&LIMIT, &REMAINING, &RESET, &POLICIES, &STATES].into_iter().zip(ends) {
        if let Ok(value) = HeaderValue::from_maybe_shared(text.slice(start..end)) {
            out(name.clone(), value);
        }
        start = end;
    }
}

fn number(text: &mut Text, number: u64) {
    text.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// A List of Strings with Integer parameters (RFC 9651 sections 4.1.1 and 4.1.6).
fn list(text: &mut Text, charges: &[Charge], parameters: impl Fn(&Charge) -> [(&'static [u8; 3], u64); 2]) {
    for (index, charge) in charges.iter().enumerate() {
        if index > 0 {
            text.extend_from_slice(b", ");
        }
        text.push(b'"');
        for byte in charge.limit.bytes() {
            match byte {
                b'"' | b'\\' => text.extend_from_slice(&[b'\\', byte]),
                0x20..=0x7e => text.push(byte),
                // Strings are ASCII; names of limits hardly ever are not.
                _ => text.push(b'?'),
            }
        }
        text.push(b'"');
        for (name, value) in parameters(charge) {
            text.extend_from_slice(name);
            number(text, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn charge(limit: &str, remaining: u32) -> Charge {
        let limit = limit.into();
        Charge { limit, key_kind: "client_ip", size: 100, window: 60, remaining, reset: 8, next: 1, retry_after: 0, wait_ms: 0 }
    }

    fn lines(charges: &[Charge]) -> Vec<String> {
        let mut lines = Vec::new();
        headers(charges, &mut |name, value| lines.push(format!("{name}: {}", value.to_str().unwrap())));
        lines
    }

    #[test]
    fn the_tightest_limit_is_told_plainly_and_all_of_them_in_structured_fields() {
        assert_eq!(
            lines(&[charge("browse", 87), charge("write", 99)]),
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
    fn a_request_without_limits_gets_no_headers() {
        assert_eq!(lines(&[]), Vec::<String>::new());
    }

    #[test]
    fn any_name_makes_a_valid_string() {
        assert_eq!(lines(&[charge("a\"b\\c\u{e9}\n", 1)])[4], r#"ratelimit: "a\"b\\c???";r=1;t=1"#);
        assert_eq!(lines(&vec![charge(&"n".repeat(200), 1); 20]).len(), 5);
    }
}
