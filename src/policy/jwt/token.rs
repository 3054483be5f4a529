//! Takes a token apart and reads its header strictly, before anything is verified (RFC 7515 section 5.2, RFC 8725 section 3).
//!
//! Decides whether it has exactly one reading and asks for an algorithm that the configuration lists. Does not verify.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::algorithm::JwtAlgorithm;
use super::json;
use super::kinds::{ALGORITHM, MALFORMED, TOO_LARGE, shown};
use crate::policy::Stop;

/// Longer ones are refused unread: no issuer makes them, and hashing them would be work for nothing.
pub const LONGEST: usize = 16 * 1024;

/// A token whose header is acceptable; nothing is verified yet.
#[derive(Debug)]
pub struct Token<'a> {
    pub algorithm: JwtAlgorithm,
    pub kid: Option<String>,
    /// What the signature signs: header and payload as they came.
    pub signed: &'a [u8],
    pub signature: &'a str,
    payload: Vec<u8>,
}

/// Header parameters that bring a key, or change how the token is to be read. None of them is ours to follow.
const REFUSED: [&str; 7] = ["crit", "jwk", "jku", "x5u", "x5c", "b64", "zip"];

/// Refuses what is too long to be looked at.
pub fn check_size(token: &[u8]) -> Result<(), Stop> {
    if token.len() > LONGEST { Err(TOO_LARGE.because(format!("{} bytes, at most {LONGEST}", token.len()))) } else { Ok(()) }
}

/// The three parts of a signed token (RFC 7515 section 3.1), still encoded.
pub(super) fn segments(token: &[u8]) -> Result<[&str; 3], Stop> {
    let malformed = |reason: &str| MALFORMED.because(reason);
    if token.is_empty() {
        return Err(malformed("is empty"));
    }
    let text = std::str::from_utf8(token).ok().filter(|text| text.is_ascii()).ok_or_else(|| malformed("is not ASCII"))?;
    let mut parts = text.splitn(6, '.');
    match (parts.next(), parts.next(), parts.next(), parts.count()) {
        (Some(header), Some(payload), Some(signature), 0) => Ok([header, payload, signature]),
        (Some(_), Some(_), Some(_), 2) => Err(malformed("has five segments: encrypted tokens are not accepted")),
        (_, second, third, more) => {
            let count = 1 + usize::from(second.is_some()) + usize::from(third.is_some()) + more;
            Err(malformed(&format!("has {count} segments, expected 3")))
        }
    }
}

// === impl Token ===

impl<'a> Token<'a> {
    /// Reads the header; `accepted` are the algorithms of the configuration.
    pub fn read(token: &'a [u8], accepted: &[JwtAlgorithm]) -> Result<Self, Stop> {
        let [header, payload, signature] = segments(token)?;
        let decode = |what: &str, segment: &str| {
            URL_SAFE_NO_PAD.decode(segment).map_err(|_| MALFORMED.because(format!("{what} is not base64url without padding")))
        };
        let members = json::object(&decode("header", header)?).map_err(|why| MALFORMED.because(format!("header {why}")))?;
        let algorithm = read_algorithm(&members, accepted)?;
        let kid = read_header(&members)?;
        let payload = decode("payload", payload)?;
        decode("signature", signature)?;
        let signed = &token[..token.len() - signature.len() - 1];
        Ok(Token { algorithm, kid, signed, signature, payload })
    }

    /// The claims; to be read only once the signature has been verified.
    pub fn claims(&self) -> Result<Map<String, Value>, Stop> {
        json::object(&self.payload).map_err(|why| MALFORMED.because(format!("payload {why}")))
    }
}

fn read_algorithm(header: &Map<String, Value>, accepted: &[JwtAlgorithm]) -> Result<JwtAlgorithm, Stop> {
    let name = match header.get("alg") {
        Some(Value::String(name)) => name,
        Some(_) => return Err(MALFORMED.because("`alg` is not text")),
        None => return Err(MALFORMED.because("header has no `alg`")),
    };
    JwtAlgorithm::parse(name).filter(|algorithm| accepted.contains(algorithm)).ok_or_else(|| {
        let list = accepted.iter().map(|algorithm| algorithm.as_str()).collect::<Vec<_>>().join(", ");
        ALGORITHM.because(format!("`alg` is `{}`, accepted are {list}", shown(name)))
    })
}

/// Checks what the header may hold, and returns `kid`.
fn read_header(header: &Map<String, Value>) -> Result<Option<String>, Stop> {
    if let Some(name) = REFUSED.into_iter().find(|name| header.contains_key(*name)) {
        return Err(MALFORMED.because(format!("header has `{name}`, which is never followed")));
    }
    match header.get("typ") {
        None => {}
        Some(Value::String(typ)) if is_token_type(typ) => {}
        Some(Value::String(typ)) => return Err(MALFORMED.because(format!("`typ` is `{}`, expected `JWT` or `at+jwt`", shown(typ)))),
        Some(_) => return Err(MALFORMED.because("`typ` is not text")),
    }
    match header.get("kid") {
        None => Ok(None),
        Some(Value::String(kid)) => Ok(Some(kid.clone())),
        Some(_) => Err(MALFORMED.because("`kid` is not text")),
    }
}

/// RFC 7515 section 4.1.9: a media type, of which `application/` may be left out; RFC 9068 section 2.1.
fn is_token_type(typ: &str) -> bool {
    let short = match typ.get(..12) {
        Some(start) if start.eq_ignore_ascii_case("application/") => &typ[12..],
        Some(_) | None => typ,
    };
    short.eq_ignore_ascii_case("jwt") || short.eq_ignore_ascii_case("at+jwt")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::fixtures::refusal;

    fn token(header: &str) -> String {
        format!("{}.{}.c2ln", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode("{}"))
    }

    fn read(token: &str) -> Result<Token<'_>, Stop> {
        Token::read(token.as_bytes(), &[JwtAlgorithm::ES256, JwtAlgorithm::RS256])
    }

    fn refused(token: &str) -> String {
        let problem = refusal(read(token).map(drop));
        format!("{}: {}", problem.kind.code, problem.reason.unwrap())
    }

    #[test]
    fn a_plain_header_is_read() {
        let text = token(r#"{"typ":"JWT","alg":"RS256","kid":"k1","x5t":"ignored"}"#);
        let read = read(&text).unwrap();
        assert_eq!((read.algorithm, read.kid.as_deref(), read.signature), (JwtAlgorithm::RS256, Some("k1"), "c2ln"));
        assert_eq!(read.signed, text.strip_suffix(".c2ln").unwrap().as_bytes());
        for typ in ["jwt", "at+jwt", "AT+JWT", "application/at+jwt", "application/JWT"] {
            assert!(
                super::Token::read(token(&format!(r#"{{"typ":"{typ}","alg":"ES256"}}"#)).as_bytes(), &[JwtAlgorithm::ES256]).is_ok(),
                "{typ}"
            );
        }
    }

    #[test]
    fn headers_with_two_readings_or_with_orders_are_refused() {
        for (header, expected) in [
            (r#"{"alg":"none"}"#, "token-algorithm: `alg` is `none`, accepted are ES256, RS256"),
            (r#"{"alg":"HS256"}"#, "token-algorithm: `alg` is `HS256`, accepted are ES256, RS256"),
            (r#"{"alg":"rs256"}"#, "token-algorithm: `alg` is `rs256`, accepted are ES256, RS256"),
            (r#"{"alg":"\n\u0000"}"#, "token-algorithm: `alg` is `\\n\\u{0}`, accepted are ES256, RS256"),
            (r#"{"alg":["RS256"]}"#, "token-malformed: `alg` is not text"),
            (r#"{}"#, "token-malformed: header has no `alg`"),
            (r#"{"alg":"RS256","alg":"ES256"}"#, "token-malformed: header names a member twice"),
            (r#"{"alg":"RS256","\u0061lg":"ES256"}"#, "token-malformed: header names a member twice"),
            (r#"{"alg":"RS256","crit":["exp"]}"#, "token-malformed: header has `crit`, which is never followed"),
            (r#"{"alg":"RS256","crit":[]}"#, "token-malformed: header has `crit`, which is never followed"),
            (r#"{"alg":"RS256","jwk":{}}"#, "token-malformed: header has `jwk`, which is never followed"),
            (r#"{"alg":"RS256","jku":"https://x"}"#, "token-malformed: header has `jku`, which is never followed"),
            (r#"{"alg":"RS256","x5u":"https://x"}"#, "token-malformed: header has `x5u`, which is never followed"),
            (r#"{"alg":"RS256","x5c":[]}"#, "token-malformed: header has `x5c`, which is never followed"),
            (r#"{"alg":"RS256","b64":false}"#, "token-malformed: header has `b64`, which is never followed"),
            (r#"{"alg":"RS256","zip":"DEF"}"#, "token-malformed: header has `zip`, which is never followed"),
            (r#"{"alg":"RS256","typ":"JWE"}"#, "token-malformed: `typ` is `JWE`, expected `JWT` or `at+jwt`"),
            (r#"{"alg":"RS256","typ":null}"#, "token-malformed: `typ` is not text"),
            (r#"{"alg":"RS256","kid":7}"#, "token-malformed: `kid` is not text"),
            (r#"["RS256"]"#, "token-malformed: header is not a JSON object"),
            (r#"{"alg":"RS256""#, "token-malformed: header is not JSON"),
            ("", "token-malformed: header is not JSON"),
        ] {
            assert_eq!(refused(&token(header)), expected, "{header}");
        }
    }

    #[test]
    fn what_is_not_three_segments_of_base64url_is_refused() {
        let good = token(r#"{"alg":"RS256"}"#);
        let (head, rest) = good.split_once('.').unwrap();
        for (text, expected) in [
            (String::new(), "token-malformed: is empty"),
            (head.to_owned(), "token-malformed: has 1 segments, expected 3"),
            (format!("{head}.e30"), "token-malformed: has 2 segments, expected 3"),
            (format!("{good}.x"), "token-malformed: has 4 segments, expected 3"),
            ("a.b.c.d.e".to_owned(), "token-malformed: has five segments: encrypted tokens are not accepted"),
            (format!("{head}=.{rest}"), "token-malformed: header is not base64url without padding"),
            (format!("{head}.e30.a+/b"), "token-malformed: signature is not base64url without padding"),
            (format!("{head}.e30 .c2ln"), "token-malformed: payload is not base64url without padding"),
            (format!("{head}.e31.c2ln"), "token-malformed: payload is not base64url without padding"),
            (format!("{good}\u{e9}"), "token-malformed: is not ASCII"),
        ] {
            assert_eq!(refused(&text), expected, "{text}");
        }
        assert!(Token::read(b"a.\xff.c", &[JwtAlgorithm::RS256]).is_err());
    }

    #[test]
    fn long_tokens_are_refused_unread() {
        assert!(check_size(&[b'a'; LONGEST]).is_ok());
        let problem = refusal(check_size(&[b'a'; 100 * 1024]));
        assert_eq!((problem.kind.code, problem.reason.as_deref()), ("token-too-large", Some("102400 bytes, at most 16384")));
    }
}
