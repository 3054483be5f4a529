//! Tokens that are forged, out of date, meant for others, or not tokens.

use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair, RsaPublicKeyComponents};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use super::{Expect, Row, no, run_with};

/// Issues tokens with two keys: `ec` for ES256 and `rsa` for RS256.
pub struct Idp {
    ec: EcdsaKeyPair,
    rsa: RsaKeyPair,
}

// === impl Idp ===

impl Idp {
    pub fn new() -> Idp {
        let ec = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key can be made");
        Idp { ec, rsa: RsaKeyPair::generate(KeySize::Rsa2048).expect("a key can be made") }
    }

    fn rsa_jwk(&self) -> Value {
        let numbers = RsaPublicKeyComponents::<Vec<u8>>::from(self.rsa.public_key());
        json!({ "kty": "RSA", "kid": "rsa", "n": encode(&numbers.n), "e": encode(&numbers.e) })
    }

    fn ec_jwk(&self) -> Value {
        let (x, y) = self.ec.public_key().as_ref()[1..].split_at(32);
        json!({ "kty": "EC", "kid": "ec", "crv": "P-256", "x": encode(x), "y": encode(y) })
    }

    pub fn jwks(&self) -> String {
        json!({ "keys": [self.ec_jwk(), self.rsa_jwk()] }).to_string()
    }

    /// The public RSA key in PEM, as an attacker would have it.
    fn pem(&self) -> String {
        use aws_lc_rs::encoding::AsDer;
        let der = self.rsa.public_key().as_der().expect("a public key has a form");
        format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(der.as_ref()))
    }

    pub fn ec(&self, header: &Value, claims: &Value) -> String {
        let signed = unsigned(header, claims);
        let signature = self.ec.sign(&SystemRandom::new(), signed.as_bytes()).expect("it signs");
        format!("{signed}.{}", encode(signature.as_ref()))
    }

    /// A token of these bytes, whatever they are.
    fn ec_of(&self, header: &[u8], payload: &[u8]) -> String {
        let signed = format!("{}.{}", encode(header), encode(payload));
        let signature = self.ec.sign(&SystemRandom::new(), signed.as_bytes()).expect("it signs");
        format!("{signed}.{}", encode(signature.as_ref()))
    }

    fn rsa(&self, header: &Value, claims: &Value) -> String {
        let signed = unsigned(header, claims);
        let mut signature = vec![0; self.rsa.public_modulus_len()];
        self.rsa.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), signed.as_bytes(), &mut signature).expect("it signs");
        format!("{signed}.{}", encode(&signature))
    }

    /// A token that passes.
    pub fn good(&self) -> String {
        self.ec(&json!({ "alg": "ES256", "kid": "ec" }), &claims())
    }
}

fn hs256(secret: &[u8], header: &Value, claims: &Value) -> String {
    let signed = unsigned(header, claims);
    format!("{signed}.{}", encode(hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), signed.as_bytes()).as_ref()))
}

fn unsigned(header: &Value, claims: &Value) -> String {
    format!("{}.{}", encode(header.to_string().as_bytes()), encode(claims.to_string().as_bytes()))
}

fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970").as_secs()
}

pub fn claims() -> Value {
    json!({ "iss": "https://idp.example", "aud": "orders", "sub": "u1", "roles": ["a", "b"], "iat": now() - 60, "exp": now() + 600 })
}

fn with(name: &str, value: impl Into<Value>) -> Value {
    let mut claims = claims();
    claims[name] = value.into();
    claims
}

fn without(name: &str) -> Value {
    let mut claims = claims();
    claims.as_object_mut().expect("claims are an object").remove(name);
    claims
}

pub fn rows(idp: &Idp) -> Vec<Row> {
    let es = json!({ "alg": "ES256", "kid": "ec" });
    let good = idp.good();
    let (signed, signature) = good.rsplit_once('.').expect("a token has dots");
    let authorised = |value: &[u8]| [b"GET /token HTTP/1.1\r\nHost: a.example\r\nAuthorization: ", value, b"\r\n\r\n"].concat();
    let bearer = |token: &str| authorised(format!("Bearer {token}").as_bytes());
    let refused = |rfc, token: &str, code| Row::new(rfc, bearer(token), no(401, code));
    let claim = |rfc, claims: &Value, code, reason| refused(rfc, &idp.ec(&es, claims), code).because(reason);
    let header = |rfc, more: Value| {
        let mut header = es.clone();
        header.as_object_mut().expect("a header is an object").extend(more.as_object().expect("so is more").clone());
        refused(rfc, &idp.ec(&header, &claims()), "token-malformed")
    };
    let passes = |rfc, token: &str| Row::new(rfc, bearer(token), Expect::ForwardedExactly(forwarded().into_bytes()));
    let attacker = Idp::new();
    let utf16 = |text: &str| text.encode_utf16().flat_map(u16::to_be_bytes).collect::<Vec<_>>();
    let (plain_header, plain_claims) = (es.to_string(), claims().to_string());
    let latin1 = plain_claims.replace("\"u1\"", "\"caf@\"").bytes().map(|byte| if byte == b'@' { 0xe9 } else { byte }).collect::<Vec<_>>();
    let twice = plain_claims.replacen('{', "{\"sub\":\"admin\",", 1);
    let mut other_signature = signature.to_owned();
    other_signature.replace_range(..4, if signature.starts_with("AAAA") { "BBBB" } else { "AAAA" });
    vec![
        passes("7519 7.2", &good),
        passes("7519 7.2", &idp.rsa(&json!({ "alg": "RS256", "kid": "rsa", "typ": "JWT" }), &claims())),
        // who signed it
        refused("8725 3.1", &format!("{}.", unsigned(&json!({ "alg": "none" }), &claims())), "token-algorithm"),
        refused("8725 3.1", &format!("{}.", unsigned(&json!({ "alg": "None" }), &claims())), "token-algorithm"),
        refused("8725 3.1", &format!("{}.{signature}", unsigned(&json!({ "alg": "nOnE" }), &claims())), "token-algorithm"),
        refused("8725 3.1", &hs256(idp.pem().as_bytes(), &json!({ "alg": "HS256", "kid": "rsa" }), &claims()), "token-algorithm"),
        refused("8725 3.1", &hs256(idp.jwks().as_bytes(), &json!({ "alg": "HS256" }), &claims()), "token-algorithm"),
        refused("8725 3.1", &hs256(b"", &json!({ "alg": "HS256", "kid": "ec" }), &claims()), "token-algorithm"),
        refused("8725 3.1", &idp.ec(&json!({ "alg": "ES256", "kid": "rsa" }), &claims()), "token-algorithm"),
        refused("8725 3.1", &idp.rsa(&json!({ "alg": "RS256", "kid": "ec" }), &claims()), "token-algorithm"),
        refused("8725 3.1", &idp.ec(&json!({ "alg": "RS256", "kid": "rsa" }), &claims()), "token-signature"),
        refused("7518 3.3", &idp.rsa(&json!({ "alg": "PS256", "kid": "rsa" }), &claims()), "token-algorithm"),
        refused("7515 4.1.4", &idp.ec(&json!({ "alg": "ES256", "kid": "other" }), &claims()), "token-key-unknown"),
        refused("7515 4.1.4", &idp.ec(&json!({ "alg": "ES256", "kid": "../../etc/passwd" }), &claims()), "token-key-unknown"),
        refused("7515 5.2", &attacker.good(), "token-signature"),
        refused("7515 5.2", &format!("{signed}.{other_signature}"), "token-signature"),
        refused("7515 5.2", &format!("{signed}."), "token-signature"),
        refused("8725 3.3", &format!("{}.{signature}", unsigned(&es, &with("sub", "admin"))), "token-signature"),
        refused("7518 3.4", &format!("{signed}.{}", encode(&[0; 64])), "token-signature"),
        // headers that bring keys or orders
        header("7515 4.1.3", json!({ "jwk": attacker.ec_jwk() })),
        header("7515 4.1.2", json!({ "jku": "https://evil.example/jwks.json" })),
        header("7515 4.1.5", json!({ "x5u": "https://evil.example/x.pem" })),
        header("7515 4.1.6", json!({ "x5c": ["AAAA"] })),
        header("7515 4.1.11", json!({ "crit": ["exp"] })),
        header("7797 3", json!({ "b64": false })),
        header("7515 4.1.9", json!({ "typ": "secevent+jwt" })),
        header("7515 4.1.4", json!({ "kid": ["ec"] })),
        // when and for whom
        claim("7519 4.1.4", &with("exp", now() - 3600), "token-expired", "expired 36"),
        claim("7519 4.1.4", &with("exp", now() - 1), "token-expired", "leeway 0 s"),
        claim("7519 4.1.4", &without("exp"), "token-claims", "has no `exp`"),
        claim("7519 4.1.4", &with("exp", "never"), "token-claims", "`exp` is not a number"),
        claim("7519 4.1.5", &with("nbf", now() + 500), "token-not-yet-valid", "not valid for another"),
        claim("7519 4.1.6", &with("iat", now() + 500), "token-not-yet-valid", "issued"),
        claim("7519 4.1.4", &with("exp", now() + 86_400), "token-lifetime", "at most 3600 s"),
        claim("7519 4.1.1", &with("iss", "https://evil.example"), "token-issuer", "expected issuer"),
        claim("7519 4.1.1", &without("iss"), "token-claims", "has no `iss`"),
        claim("7519 4.1.3", &with("aud", "billing"), "token-audience", "expected audience"),
        claim("7519 4.1.3", &with("aud", json!([])), "token-audience", "expected audience"),
        claim("7519 4.1.3", &without("aud"), "token-claims", "has no `aud`"),
        claim("9110 5.5", &with("sub", "u1\r\nX-Admin: 1"), "token-claims", "control or invisible"),
        claim("9110 5.5", &with("roles", json!(["a,admin"])), "token-claims", "comma"),
        // RFC 8725, what the rows above do not show
        refused(
            "8725 2.3",
            &format!(
                "{}.{}.{}.{}.{}",
                encode(br#"{"alg":"RSA-OAEP","enc":"A256GCM","kid":"rsa"}"#),
                encode(&[1; 256]),
                encode(&[2; 12]),
                encode(&[3; 64]),
                encode(&[4; 16])
            ),
            "token-malformed",
        ),
        refused("8725 2.6", &idp.ec_of(plain_header.as_bytes(), twice.as_bytes()), "token-malformed"),
        refused("8725 3.3", &idp.ec(&json!({ "alg": "ES256", "kid": "ec", "cty": "JWT" }), &json!({ "jwt": good })), "token-claims"),
        refused("8725 3.6", &idp.ec(&json!({ "alg": "ES256", "kid": "ec", "zip": "DEF" }), &claims()), "token-malformed"),
        refused("8725 3.7", &idp.ec_of(&utf16(&plain_header), plain_claims.as_bytes()), "token-malformed"),
        refused("8725 3.7", &idp.ec_of(plain_header.as_bytes(), &utf16(&plain_claims)), "token-malformed"),
        refused("8725 3.7", &idp.ec_of(plain_header.as_bytes(), &latin1), "token-malformed"),
        refused("8725 3.7", &idp.ec_of(plain_header.as_bytes(), &[b"\xef\xbb\xbf", plain_claims.as_bytes()].concat()), "token-malformed"),
        claim("8725 3.8", &with("iss", "https://idp.example/"), "token-issuer", "expected issuer"),
        claim("8725 3.8", &with("iss", "HTTPS://IDP.EXAMPLE"), "token-issuer", "expected issuer"),
        claim("8725 3.8", &with("sub", ""), "token-claims", "`sub` is empty"),
        claim("8725 3.8", &with("sub", json!({ "id": "u1" })), "token-claims", "`sub` is not text"),
        claim("8725 3.9", &with("aud", "orders2"), "token-audience", "expected audience"),
        claim("8725 3.9", &with("aud", json!({ "orders": true })), "token-claims", "`aud` is neither"),
        refused("8725 3.10", &idp.ec(&json!({ "alg": "ES256", "kid": "ec' OR '1'='1" }), &claims()), "token-key-unknown"),
        header("8725 3.10", json!({ "jku": "http://169.254.169.254/latest/meta-data" })),
        header("8725 3.11", json!({ "typ": "logout+jwt" })),
        header("8725 3.11", json!({ "typ": "dpop+jwt" })),
        header("8725 3.11", json!({ "typ": ["JWT"] })),
        passes("8725 3.11", &idp.ec(&json!({ "alg": "ES256", "kid": "ec", "typ": "application/at+jwt" }), &claims())),
        // An ID token: the same issuer and key, for its client.
        claim("8725 3.12", &with("aud", "a-client-of-the-issuer"), "token-audience", "expected audience"),
        // what is no token
        refused("6750 2.1", "x", "token-malformed"),
        refused("7519 7.2", "a.b.c.d", "token-malformed"),
        refused("7516 9", "a.b.c.d.e", "token-malformed"),
        refused("7515 2", &format!("{signed}=.{signature}"), "token-malformed"),
        refused("7519 7.2", &format!("{}.{}.{signature}", encode(b"{"), encode(plain_claims.as_bytes())), "token-malformed"),
        refused(
            "8259 4",
            &format!("{}.{}.{signature}", encode(br#"{"alg":"ES256","alg":"none"}"#), encode(plain_claims.as_bytes())),
            "token-malformed",
        ),
        refused("8725 2.1", &"a".repeat(100 << 10), "token-too-large"),
        refused("8725 2.1", &format!("{signed}.{}", "A".repeat(100 << 10)), "token-too-large"),
        Row::new("6750 2.1", authorised(b"Bearer caf\xc3\xa9.b.c"), no(401, "token-malformed")),
        Row::new("6750 2.1", authorised(b"Bearer \xff\xfe"), no(401, "token-malformed")),
        Row::new("6750 2.1", authorised(b"Bearer"), no(401, "token-malformed")),
        Row::new("6750 2.1", authorised(format!("Basic {good}").as_bytes()), no(401, "credentials-missing")),
        Row::new("6750 2.1", authorised(format!("Bearer {good}, Bearer {good}").as_bytes()), no(401, "token-malformed")),
        Row::new(
            "9110 5.3",
            format!("GET /token HTTP/1.1\r\nHost: a.example\r\nAuthorization: Bearer {good}\r\nAuthorization: Bearer x\r\n\r\n"),
            no(400, "credentials-ambiguous"),
        ),
        Row::new("6750 2.3", format!("GET /token?access_token={good} HTTP/1.1\r\nHost: a.example\r\n\r\n"), no(401, "credentials-missing")),
        // Who says so himself is not believed: the headers are the token's.
        Row::new(
            "9110 16.4",
            format!(
                "GET /token HTTP/1.1\r\nHost: a.example\r\nX-User-Id: admin\r\nx_user_id: admin\r\nAuthorization: bearer {good}\r\nX-User-Role: admin\r\n\r\n"
            ),
            Expect::ForwardedExactly(forwarded().into_bytes()),
        ),
    ]
}

/// The token stays behind, what it says goes on.
fn forwarded() -> String {
    "GET /token HTTP/1.1\r\nHost: a.example\r\nx-forwarded-for: 127.0.0.1\r\nx-forwarded-proto: http\r\nx-forwarded-host: a.example\r\n\
     x-request-id: {id}\r\ntraceparent: {trace}\r\nx-user-id: u1\r\nx-user-role: a,b\r\n\r\n"
        .to_owned()
}

#[test]
fn a_token_that_does_not_hold_opens_nothing() {
    let idp = Idp::new();
    run_with(rows(&idp), idp.jwks());
}

/// The same request to the route that believes another issuer too.
fn among(row: Row) -> Row {
    let moved = |bytes: Vec<u8>| bytes.strip_prefix(b"GET /token").map(|rest| [b"GET /among", rest].concat()).expect("all begin so");
    let expect = match row.expect {
        Expect::ForwardedExactly(bytes) => Expect::ForwardedExactly(moved(bytes)),
        Expect::Forwarded(bytes) => Expect::Forwarded(moved(bytes)),
        Expect::Refused(..) | Expect::Cut(_) => row.expect,
    };
    let reason = if row.reason == "expected issuer" { "accepted are `https://other.example`, `https://idp.example`" } else { row.reason };
    Row { bytes: moved(row.bytes), expect, reason, ..row }
}

#[test]
fn a_second_issuer_opens_nothing_to_a_token_that_does_not_hold() {
    let idp = Idp::new();
    let mut rows: Vec<_> = rows(&idp).into_iter().map(among).collect();
    // Its own rules are the other's: one key serves both here, but neither RS256 nor anybody's roles.
    let of_other = |header: Value, sign: fn(&Idp, &Value, &Value) -> String| {
        let token = sign(&idp, &header, &with("iss", "https://other.example"));
        format!("GET /among HTTP/1.1\r\nHost: a.example\r\nAuthorization: Bearer {token}\r\n\r\n")
    };
    let forwarded = forwarded().replace("/token", "/among").replace("x-user-role: a,b\r\n", "");
    let passes = Expect::ForwardedExactly(forwarded.into_bytes());
    rows.push(Row::new("8725 3.8", of_other(json!({ "alg": "ES256", "kid": "ec" }), Idp::ec), passes));
    let refused = Row::new("8725 3.1", of_other(json!({ "alg": "RS256", "kid": "rsa" }), Idp::rsa), no(401, "token-algorithm"));
    rows.push(refused.because("by `other`: `alg` is `RS256`, accepted are ES256"));
    run_with(rows, idp.jwks());
}
