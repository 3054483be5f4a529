//! Any bytes, as a token, as the header of one, as the claims of one: nothing panics, JSON is read as a plain reader does but for
//! members named twice, and nobody gets in without the key.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use serde_json::Value;
use sluice::policy::authenticators::Method;
use sluice::policy::jwt::named::by_issuer;
use sluice::policy::jwt::token::{LONGEST, Token};
use sluice::policy::jwt::{Jwt, JwtAlgorithm, json};

/// In 2025, in milliseconds.
const NOW: u64 = 1_750_000_000_000;

pub fn hold(data: &[u8]) {
    let authenticators = &super::GATEWAY.authenticators;
    let jwt = authenticators.iter().find_map(|one| match &one.method {
        Method::Jwt(jwt) => Some(jwt),
        Method::Introspection(_) | Method::ApiKey(_) | Method::ClientCertificate(_) => None,
    });
    let jwt = jwt.expect("there is one");
    as_token(jwt, data);
    let header = format!("{}.{}.c2ln", BASE64.encode(data), BASE64.encode("{}"));
    as_token(jwt, header.as_bytes());
    as_claims(jwt, data);
    as_choice(data);
}

/// Who is chosen to judge claims is who they name to a reader that reads all of them.
fn as_choice(claims: &[u8]) {
    let named = by_issuer(format!("e30.{}.c2ln", BASE64.encode(claims)).as_bytes(), str::to_owned).ok();
    match json::object(claims) {
        Ok(members) => assert_eq!(named.as_deref(), members.get("iss").and_then(Value::as_str)),
        // Something else stands twice, or is no text: whoever is chosen finds out.
        Err(_) => assert!(named.is_none() || claims.trim_ascii_start().starts_with(b"{")),
    }
}

fn as_token(jwt: &Jwt, token: &[u8]) {
    assert!(jwt.identify(token, NOW).is_err(), "a token that nobody signed is believed");
    if token.len() > LONGEST {
        return;
    }
    for accepted in [&JwtAlgorithm::ALL[..], &[JwtAlgorithm::ES256], &[]] {
        let Ok(read) = Token::read(token, accepted) else { continue };
        assert!(accepted.contains(&read.algorithm));
        let text = std::str::from_utf8(token).expect("a token is ASCII");
        let (signed, signature) = text.rsplit_once('.').expect("a token has segments");
        assert_eq!((read.signed, read.signature), (signed.as_bytes(), signature));
        let (header, payload) = signed.split_once('.').expect("a token has three segments");
        let header: Value = serde_json::from_slice(&BASE64.decode(header).expect("base64url")).expect("JSON");
        assert_eq!(header["alg"].as_str(), Some(read.algorithm.as_str()));
        assert_eq!(header.get("kid").and_then(Value::as_str), read.kid.as_deref());
        if let Ok(claims) = read.claims() {
            let plain: Value = serde_json::from_slice(&BASE64.decode(payload).expect("base64url")).expect("JSON");
            assert_eq!(Value::Object(claims), plain);
        }
    }
}

fn as_claims(jwt: &Jwt, data: &[u8]) {
    let plain = serde_json::from_slice::<Value>(data);
    match json::object(data) {
        Ok(members) => {
            let claims = Value::Object(members);
            assert_eq!(plain.as_ref().ok(), Some(&claims));
            let Ok(identity) = jwt.assume(&claims, NOW) else { return };
            for (name, value) in &identity.headers {
                let value = std::str::from_utf8(value.as_bytes()).expect("text of the claims");
                assert!(value.trim() == value && !value.contains(char::is_control), "{name} is {value:?}");
            }
        }
        Err("is not a JSON object") => assert!(!plain.expect("JSON").is_object()),
        Err("names a member twice") => {}
        Err(_) => assert!(plain.is_err()),
    }
}
