//! Where a request carries a credential: the Authorization header, another header, a query parameter.
//!
//! Decides whether one is there, and cuts it out of a query. Does not judge it: see `jwt/` and `api_key.rs`.

use std::borrow::Cow;

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName};
use smallvec::SmallVec;

/// What was found in one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found<T> {
    Missing,
    One(T),
    /// More than one, so that two readers could take two different ones.
    Ambiguous,
}

/// The decoded value of a parameter; keys are short, so this rarely leaves the stack.
pub type Decoded = SmallVec<[u8; 128]>;

const SCHEME: &[u8] = b"bearer";

/// The token of `Authorization: Bearer` (RFC 6750 section 2.1); the scheme in any case (RFC 9110 section 11.1).
/// Another scheme is no token, a scheme without a token is an empty one.
pub fn bearer(headers: &HeaderMap) -> Found<&[u8]> {
    let value = match header(headers, &AUTHORIZATION) {
        Found::One(value) => value,
        Found::Missing => return Found::Missing,
        Found::Ambiguous => return Found::Ambiguous,
    };
    // As nearly all clients write it.
    if let Some(token) = value.strip_prefix(b"Bearer ") {
        return Found::One(token.trim_ascii());
    }
    // A scheme ends where the first space is.
    let (scheme, token) = value.split_at(value.len().min(SCHEME.len()));
    let is_whole = token.first().is_none_or(|byte| *byte == b' ');
    if is_whole && scheme.eq_ignore_ascii_case(SCHEME) { Found::One(token.trim_ascii()) } else { Found::Missing }
}

/// The value of a header that may be sent once.
pub fn header<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Found<&'a [u8]> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Found::Missing,
        (Some(value), None) => Found::One(value.as_bytes()),
        (Some(_), Some(_)) => Found::Ambiguous,
    }
}

/// The value of a query parameter that may be sent once. Its name counts in every percent-encoding of it.
pub fn parameter(query: Option<&str>, name: &str) -> Found<Decoded> {
    let mut values = query.unwrap_or_default().split('&').filter_map(|pair| {
        let (own, value) = pair.split_once('=').unwrap_or((pair, ""));
        decode(own).eq(name.bytes()).then_some(value)
    });
    match (values.next(), values.next()) {
        (None, _) => Found::Missing,
        (Some(value), None) => Found::One(decode(value).collect()),
        (Some(_), Some(_)) => Found::Ambiguous,
    }
}

/// A query without the parameters of these names. What is left is kept byte for byte.
pub fn cut<'a>(query: &'a str, names: &[impl AsRef<str>]) -> Cow<'a, str> {
    let is_named = |pair: &str| {
        let own = pair.split_once('=').map_or(pair, |(own, _)| own);
        names.iter().any(|name| decode(own).eq(name.as_ref().bytes()))
    };
    if names.is_empty() || !query.split('&').any(is_named) {
        return Cow::Borrowed(query);
    }
    let mut left = String::with_capacity(query.len());
    for pair in query.split('&').filter(|pair| !is_named(pair)) {
        if !left.is_empty() {
            left.push('&');
        }
        left.push_str(pair);
    }
    Cow::Owned(left)
}

/// A query in which the values of the parameters of these names are replaced.
pub fn hide(query: &str, names: &[impl AsRef<str>], by: &str) -> String {
    let hide = |pair: &str| match pair.split_once('=') {
        Some((own, _)) if names.iter().any(|name| decode(own).eq(name.as_ref().bytes())) => format!("{own}={by}"),
        Some(_) | None => pair.to_owned(),
    };
    query.split('&').map(hide).collect::<Vec<_>>().join("&")
}

/// application/x-www-form-urlencoded: `+` is a space, `%41` is `A`; what is no escape stands for itself.
fn decode(text: &str) -> impl Iterator<Item = u8> + '_ {
    let hex = |byte: Option<&u8>| byte.and_then(|byte| char::from(*byte).to_digit(16));
    let mut rest = text.as_bytes();
    std::iter::from_fn(move || {
        let (first, after) = rest.split_first()?;
        if *first == b'%'
            && let (Some(high), Some(low)) = (hex(after.first()), hex(after.get(1)))
        {
            rest = &after[2..];
            return u8::try_from(high * 16 + low).ok();
        }
        rest = after;
        Some(if *first == b'+' { b' ' } else { *first })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::fixtures::head;

    fn token_of(values: &[&str]) -> Found<String> {
        let headers: Vec<_> = values.iter().map(|value| ("authorization", *value)).collect();
        match bearer(&head("GET /", &headers).headers) {
            Found::One(token) => Found::One(String::from_utf8(token.to_vec()).unwrap()),
            Found::Missing => Found::Missing,
            Found::Ambiguous => Found::Ambiguous,
        }
    }

    #[test]
    fn the_scheme_is_read_in_any_case() {
        for value in ["Bearer abc", "bearer abc", "BEARER abc", "bEaReR   abc"] {
            assert_eq!(token_of(&[value]), Found::One("abc".into()), "{value}");
        }
        for value in ["Bearer", "Bearer "] {
            assert_eq!(token_of(&[value]), Found::One(String::new()), "{value}");
        }
        for value in ["Basic abc", "abc", "Bearerabc", "", "Bearer\tabc"] {
            assert_eq!(token_of(&[value]), Found::Missing, "{value}");
        }
    }

    #[test]
    fn two_authorization_headers_are_ambiguous_whatever_they_say() {
        assert_eq!(token_of(&["Bearer a", "Bearer a"]), Found::Ambiguous);
        assert_eq!(token_of(&["Basic a", "Bearer a"]), Found::Ambiguous);
    }

    #[test]
    fn a_parameter_is_found_in_every_spelling() {
        let found = |query| parameter(Some(query), "api_key");
        let one = |text: &str| Found::One(Decoded::from_slice(text.as_bytes()));
        assert_eq!(found("api_key=k1"), one("k1"));
        assert_eq!(found("a=1&api%5Fkey=%6b1&b"), one("k1"));
        assert_eq!(found("api_key=a+b%zz%2"), one("a b%zz%2"));
        assert_eq!(found("api_key"), one(""));
        assert_eq!(found("api_keys=k1&apikey=2&API_KEY=3"), Found::Missing);
        assert_eq!(found("api_key=k1&api%5fkey=k2"), Found::Ambiguous);
        assert_eq!(parameter(None, "api_key"), Found::Missing);
    }

    #[test]
    fn a_credential_is_cut_and_the_rest_kept_byte_for_byte() {
        for (query, left) in [
            ("api_key=k", ""),
            ("a=%7e&api_key=k&b=+", "a=%7e&b=+"),
            ("api%5Fkey=k&a=1", "a=1"),
            ("a=1&api_key", "a=1"),
            ("a=1&&b", "a=1&&b"),
        ] {
            assert_eq!(cut(query, &["api_key"]), left, "{query}");
        }
        assert!(matches!(cut("a=1", &["api_key"]), Cow::Borrowed("a=1")));
        assert_eq!(hide("a=1&api%5Fkey=k&api_key&b=", &["api_key"], "*"), "a=1&api%5Fkey=*&api_key&b=");
    }
}
