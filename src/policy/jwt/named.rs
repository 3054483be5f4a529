//! Reads of which issuer a token says that it is, before anything is verified.
//!
//! It is good for choosing who verifies the token, and for nothing else (RFC 8725 section 3.8): who is chosen reads all of it again, `iss` included.

use std::borrow::Cow;
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::{self, Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use smallvec::SmallVec;

use super::json;
use super::kinds::{CLAIMS, MALFORMED};
use super::token::segments;
use crate::policy::Stop;

/// What `find` makes of the token's `iss`. Allocates nothing where the claims are of the usual size.
///
/// # Errors
/// It is no signed token, or there is no `iss` that could be read in one way only.
pub fn by_issuer<T>(token: &[u8], find: impl FnOnce(&str) -> T) -> Result<T, Stop> {
    let [_, payload, _] = segments(token)?;
    let mut claims: SmallVec<[u8; 1536]> = SmallVec::from_elem(0, base64::decoded_len_estimate(payload.len()));
    let len =
        URL_SAFE_NO_PAD.decode_slice(payload, &mut claims).map_err(|_| MALFORMED.because("payload is not base64url without padding"))?;
    claims.truncate(len);
    match serde_json::from_slice::<Named<'_>>(&claims) {
        Ok(Named(Some(issuer))) => Ok(find(&issuer)),
        Ok(Named(None)) | Err(_) => Err(why_not(&claims)),
    }
}

/// Why there is no `iss`, in the words of those who judge claims.
fn why_not(claims: &[u8]) -> Stop {
    match json::object(claims) {
        Err(why) => MALFORMED.because(format!("payload {why}")),
        Ok(members) if members.contains_key("iss") => CLAIMS.because("`iss` is not text"),
        Ok(_) => CLAIMS.because("has no `iss`"),
    }
}

/// The value of `iss`, where there is one; what else the claims hold is passed over.
struct Named<'a>(Option<Cow<'a, str>>);

/// Borrowed wherever it is written without escapes.
#[derive(serde::Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de> Deserialize<'de> for Named<'de> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_map(Claims)
    }
}

struct Claims;

impl<'de> Visitor<'de> for Claims {
    type Value = Named<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("claims")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Named<'de>, A::Error> {
        let mut found = None;
        while let Some(Text(name)) = map.next_key()? {
            if name != "iss" {
                map.next_value::<IgnoredAny>()?;
            } else if found.is_none() {
                found = Some(map.next_value::<Text<'de>>()?.0);
            } else {
                return Err(de::Error::custom("`iss` stands twice"));
            }
        }
        Ok(Named(found))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::fixtures::refusal;
    use crate::policy::jwt::token::LONGEST;

    fn named(payload: impl AsRef<[u8]>) -> String {
        read(&format!("e30.{}.", URL_SAFE_NO_PAD.encode(payload)))
    }

    fn read(token: &str) -> String {
        match by_issuer(token.as_bytes(), str::to_owned) {
            Ok(issuer) => issuer,
            Err(stop) => {
                let problem = refusal(Err(stop));
                format!("{}: {}", problem.kind.code, problem.reason.unwrap())
            }
        }
    }

    #[test]
    fn the_issuer_is_read_wherever_it_stands_and_however_it_is_spelt() {
        assert_eq!(named(r#"{"iss":"https://a"}"#), "https://a");
        assert_eq!(named(r#" {"sub":{"iss":"b"},"x":["iss",{"iss":"c"}],"\u0069ss":"https:\/\/\u0061"} "#), "https://a");
        assert_eq!(named(r#"{"iss":""}"#), "");
        let long = format!(r#"{{"pad":"{}","iss":"a"}}"#, "x".repeat(8000));
        assert_eq!(named(long), "a");
    }

    #[test]
    fn an_issuer_that_is_not_there_once_as_text_is_none() {
        for (payload, expected) in [
            ("{}", "token-claims: has no `iss`"),
            (r#"{"ISS":"a","claims":{"iss":"a"}}"#, "token-claims: has no `iss`"),
            (r#"{"iss":null}"#, "token-claims: `iss` is not text"),
            (r#"{"iss":["a"]}"#, "token-claims: `iss` is not text"),
            (r#"{"iss":{"iss":"a"}}"#, "token-claims: `iss` is not text"),
            (r#"{"iss":1e999}"#, "token-malformed: payload is not JSON"),
            (r#"{"iss":"a","iss":"b"}"#, "token-malformed: payload names a member twice"),
            (r#"{"iss":"a","\u0069ss":"a"}"#, "token-malformed: payload names a member twice"),
            (r#"["iss","a"]"#, "token-malformed: payload is not a JSON object"),
            (r#""iss""#, "token-malformed: payload is not a JSON object"),
            (r#"{"iss":"a"} {}"#, "token-malformed: payload is not JSON"),
            (r#"{"iss":"a""#, "token-malformed: payload is not JSON"),
            ("", "token-malformed: payload is not JSON"),
        ] {
            assert_eq!(named(payload), expected, "{payload}");
        }
        assert_eq!(named(b"{\"iss\":\"\xff\"}"), "token-malformed: payload is not JSON");
        let deep = "{\"a\":".repeat(LONGEST / 8);
        assert_eq!(named(deep), "token-malformed: payload is not JSON");
    }

    #[test]
    fn what_is_no_signed_token_names_nobody() {
        for (token, expected) in [
            ("", "token-malformed: is empty"),
            ("opaque", "token-malformed: has 1 segments, expected 3"),
            ("a.b", "token-malformed: has 2 segments, expected 3"),
            ("a.b.c.d", "token-malformed: has 4 segments, expected 3"),
            ("a.b.c.d.e", "token-malformed: has five segments: encrypted tokens are not accepted"),
            ("a.b=.c", "token-malformed: payload is not base64url without padding"),
            ("a.\u{e9}.c", "token-malformed: is not ASCII"),
        ] {
            assert_eq!(read(token), expected, "{token}");
        }
    }
}
