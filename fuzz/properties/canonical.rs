//! Three lines, method, Host and target: what `entry/canonical.rs` yields is its own canonical form, and what is admitted has no
//! second reading that we know of.

use http::Request;
use http::request::Parts;
use sluice::entry::canonical::{Spelling, SpellingSet, Target, admit, canonicalise};
use sluice::entry::query;

pub fn hold(data: &[u8]) {
    let mut lines = data.splitn(3, |byte| *byte == b'\n');
    let (Some(method), Some(host), Some(raw)) = (lines.next(), lines.next(), lines.next()) else { return };
    let Some(head) = head(method, host) else { return };
    let Ok(target) = canonicalise(&head, raw) else { return };

    let again = self::head(method, target.authority().as_bytes()).expect("a canonical host is a header");
    let again = canonicalise(&again, target.path_and_query().as_bytes());
    assert!(again.as_ref().is_ok_and(|again| *again == target), "{target:?} has the canonical form {again:?}");
    assert_eq!(target.host(), target.host().to_lowercase());
    assert!(target.path() == "*" || target.path().starts_with('/'));
    assert!(target.path_and_query().bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#'));
    let sent_query = raw.splitn(2, |byte| *byte == b'?').nth(1);
    assert_eq!(target.query().map(str::as_bytes), sent_query, "a query stays as it was sent");

    has_one_reading(&target);
    cut_out(target);
}

fn head(method: &[u8], host: &[u8]) -> Option<Parts> {
    Request::builder().method(method).header("host", host).body(()).ok().map(|request| request.into_parts().0)
}

fn has_one_reading(target: &Target) {
    let path = target.path();
    let decoded = decode(path.as_bytes());
    // Whatever a route opts in to: no server, which takes what separates for a slash or cuts parameters off, finds dots.
    for segment in decoded.split(|byte| matches!(byte, b'/' | b'\\')) {
        let name = segment.split(|byte| *byte == b';').next().unwrap_or_default();
        assert!(!matches!(name, b"." | b".."), "{path} climbs");
    }
    assert!(!decoded.iter().any(u8::is_ascii_control), "{path} has a control character");
    assert!(std::str::from_utf8(&decoded).is_ok(), "{path} is not UTF-8");
    let found = |spelling: Spelling| match spelling {
        Spelling::EncodedSlash => path.contains("%2F"),
        Spelling::DoubleSlash => path.contains("//"),
        Spelling::Semicolon => path.contains(';'),
        Spelling::Backslash => path.contains("%5C"),
    };
    let all: SpellingSet = Spelling::ALL.into_iter().filter(|spelling| found(*spelling)).collect();
    assert_eq!(target.spellings(), all, "{path}");
    assert!(admit(target, all).is_ok());
    assert_eq!(admit(target, SpellingSet::default()).is_ok(), all.is_empty());
    for piece in path.split('%').skip(1) {
        let digits = &piece[..2];
        let byte = u8::from_str_radix(digits, 16).expect("two hex digits");
        assert!(!digits.bytes().any(|digit| digit.is_ascii_lowercase()), "{path}");
        assert!(!byte.is_ascii_alphanumeric() && !b"-._~".contains(&byte), "{path} escapes what needs none");
    }
}

fn decode(path: &[u8]) -> Vec<u8> {
    let (mut out, mut rest) = (Vec::with_capacity(path.len()), path);
    while let Some((byte, after)) = rest.split_first() {
        let escape = std::str::from_utf8(after.get(..2).unwrap_or_default()).ok().and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match (byte, escape) {
            (b'%', Some(decoded)) => {
                out.push(decoded);
                rest = &after[2..];
            }
            (byte, _) => {
                out.push(*byte);
                rest = after;
            }
        }
    }
    out
}

/// A credential in a parameter is neither logged nor sent on, in whatever spelling it came.
fn cut_out(mut target: Target) {
    let before = target.clone();
    let is_key = |piece: &str| query::means(piece.split('=').next().unwrap_or_default(), b"key");
    let had = before.query().is_some_and(|query| query.split('&').any(is_key));
    assert_eq!(target.cut_parameter("key"), had);
    assert_eq!(target.path(), before.path());
    let kept: Vec<&str> = before.query().into_iter().flat_map(|query| query.split('&')).filter(|piece| !is_key(piece)).collect();
    match target.query() {
        Some(query) => assert_eq!(query, kept.join("&")),
        None => assert!(kept.is_empty() || !had && before.query().is_none()),
    }
}
