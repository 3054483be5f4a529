//! Tells the client where it stands, on allowed and refused answers: `X-RateLimit-*` of the tightest limit, and `RateLimit` and
//! `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers-10, sections 3 and 4) of all. Decides nothing but the spelling.
//!
//! In the draft's words: the quota `q` is the bucket's size and its window `w` the time in which an empty bucket fills, so that
//! `r` never exceeds `q` and `q/w` is never faster than the limit; `t` is the time until there is one more token, which is what
//! `Retry-After` says too where the request was refused.

use bytes::Bytes;
use http::{HeaderName, HeaderValue};

use super::spelling::{NUMBER, Number, Pen};
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
    let mut text = vec![0; room(charges)];
    let (values, end) = write(charges, &mut text);
    if end == 0 {
        return;
    }
    // They share one allocation.
    let text = Bytes::from(text);
    for (name, (start, end)) in [&LIMIT, &REMAINING, &RESET, &POLICIES, &STATES].into_iter().zip(values) {
        if let Ok(value) = HeaderValue::from_maybe_shared(text.slice(start..end)) {
            out(name.clone(), value);
        }
    }
}

/// Writes the same as lines of an HTTP/1.1 head into [`room`] for them, and says where they end.
pub fn lines(charges: &[Charge], room: &mut [u8]) -> usize {
    write(charges, room).1
}

/// The most that is written, and touched: the lines of one limit, and what each has in the lists.
pub fn room(charges: &[Charge]) -> usize {
    if charges.is_empty() { 0 } else { 192 + charges.iter().map(|charge| charge.limit.room() + 4 * NUMBER + 6).sum::<usize>() }
}

/// Whether it is one of these fields, by its name in lower case.
pub fn is_own(name: &str) -> bool {
    matches!(name, "x-ratelimit-limit" | "x-ratelimit-remaining" | "x-ratelimit-reset" | "ratelimit-policy" | "ratelimit")
}

const LIMIT_IS: &[u8; 19] = b"x-ratelimit-limit: ";
const REMAINING_IS: &[u8; 25] = b"\r\nx-ratelimit-remaining: ";

/// Each field as a line: where their values begin and end, and where the last line ends.
#[inline]
fn write(charges: &[Charge], room: &mut [u8]) -> ([(usize, usize); FIELDS], usize) {
    let Some((tightest, others)) = charges.split_first() else { return ([(0, 0); FIELDS], 0) };
    let mut pen = Pen::new(room);
    let mut values = [(0, 0); FIELDS];
    match tightest.limit.head(tightest.size) {
        Some(head) => pen.piece(head),
        None => {
            pen.text(LIMIT_IS);
            pen.number(u64::from(tightest.size));
            pen.text(REMAINING_IS);
        }
    }
    values[0] = (LIMIT_IS.len(), pen.end().saturating_sub(REMAINING_IS.len()));
    values[1].0 = pen.end();
    let remaining = Number::new(u64::from(tightest.remaining));
    pen.known(remaining);
    values[1].1 = pen.end();
    pen.text(b"\r\nx-ratelimit-reset: ");
    values[2].0 = pen.end();
    let reset = Number::new(tightest.reset);
    pen.known(reset);
    values[2].1 = pen.end();
    pen.text(b"\r\nratelimit-policy: ");
    values[3].0 = pen.end();
    policy(&mut pen, tightest, true);
    for charge in others {
        policy(&mut pen, charge, false);
    }
    values[3].1 = pen.end();
    pen.text(b"\r\nratelimit: ");
    values[4].0 = pen.end();
    pen.piece(tightest.limit.state().place(true));
    pen.known(remaining);
    match tightest.next == tightest.reset {
        // Of a window.
        true => {
            pen.text(b";t=");
            pen.known(reset);
        }
        false => time(&mut pen, tightest.next),
    }
    for charge in others {
        pen.piece(charge.limit.state().place(false));
        pen.number(u64::from(charge.remaining));
        time(&mut pen, charge.next);
    }
    values[4].1 = pen.end();
    pen.text(b"\r\n");
    (values, pen.end())
}

#[inline(always)]
fn policy(pen: &mut Pen<'_>, charge: &Charge, is_first: bool) {
    match charge.limit.whole(charge.size, charge.window) {
        Some(whole) => pen.piece(whole.place(is_first)),
        None => {
            pen.piece(charge.limit.policy().place(is_first));
            pen.number(u64::from(charge.size));
            pen.text(b";w=");
            pen.number(charge.window);
        }
    }
}

#[inline(always)]
fn time(pen: &mut Pen<'_>, next: u64) {
    match next {
        0..10 => pen.text(&[b';', b't', b'=', b'0' + next as u8]),
        _ => {
            pen.text(b";t=");
            pen.number(next);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::label::Label;
    use super::super::pace::tests::pace;
    use super::*;

    fn charge(limit: &str, remaining: u32) -> Charge {
        let limit = Arc::new(Label::new(&limit.into(), &pace("100/m", 100), &[30 * 86_400, 31 * 86_400]));
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
        assert_eq!(told(&[month.clone(), part])[3], r#"ratelimit-policy: "browse";q=100;w=2678400, "write";q=34;w=60"#);
        let other = Charge { size: 34, ..month.clone() };
        let odd = Charge { window: 31 * 86_400 - 3_600, ..month };
        assert_eq!(told(&[other, odd])[3], r#"ratelimit-policy: "browse";q=34;w=2678400, "browse";q=100;w=2674800"#);
    }

    #[test]
    fn lines_of_a_head_say_the_same() {
        let charges = [charge("browse", 87), charge("a\"b", 99)];
        let mut written = vec![b'?'; room(&vec![charge(&"n".repeat(99), u32::MAX); 9])];
        assert_eq!(super::lines(&[], &mut written), 0);
        let end = super::lines(&charges, &mut written);
        let lines = std::str::from_utf8(&written[..end]).unwrap();
        assert_eq!(lines.split_terminator("\r\n").collect::<Vec<_>>(), told(&charges));
        assert!(told(&charges).iter().all(|line| is_own(line.split(':').next().unwrap())));
        assert!(!is_own("retry-after"));
    }

    #[test]
    fn a_request_without_limits_gets_no_headers() {
        assert_eq!(told(&[]), Vec::<String>::new());
    }

    #[test]
    fn the_longest_numbers_have_room() {
        let most =
            |len: usize| Charge { size: u32::MAX, window: u64::MAX, reset: u64::MAX, next: u64::MAX, ..charge(&"n".repeat(len), u32::MAX) };
        for len in 0..70 {
            let charges = [most(len), most(len), most(len)];
            let told = told(&charges);
            assert_eq!(told.iter().map(|line| line.matches(&u64::MAX.to_string()).count()).collect::<Vec<_>>(), [0, 0, 1, 3, 3]);
            let mut lines = vec![0; room(&charges)];
            let end = super::lines(&charges, &mut lines);
            assert_eq!(end, told.iter().map(|line| line.len() + 2).sum::<usize>());
        }
    }

    #[test]
    fn any_name_makes_a_valid_string() {
        assert_eq!(told(&[charge("a\"b\\c\u{e9}\n", 1)])[4], r#"ratelimit: "a\"b\\c???";r=1;t=1"#);
        assert_eq!(told(&vec![charge(&"n".repeat(200), 1); 20]).len(), 5);
    }
}
