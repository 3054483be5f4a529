//! Signs tokens for tests, with the cryptographic library itself rather than the code that verifies.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};

/// A key pair for ES256.
pub struct Signer {
    kid: String,
    pair: EcdsaKeyPair,
}

impl Signer {
    pub fn generate(kid: &str) -> Signer {
        Signer { kid: kid.to_owned(), pair: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap() }
    }

    /// The pair whose public half is `example-ec` in `conf/keys/jwks.json`.
    pub fn example() -> Signer {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/keys/example-ec.for-tests-only.pem");
        let pem = std::fs::read_to_string(path).unwrap();
        let base64: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &STANDARD.decode(base64).unwrap()).unwrap();
        Signer { kid: "example-ec".to_owned(), pair }
    }

    /// The key set with the public half, on one line.
    pub fn jwks(&self) -> String {
        let point = self.pair.public_key().as_ref();
        let [x, y] = [&point[1..33], &point[33..]].map(|half| URL_SAFE_NO_PAD.encode(half));
        json!({ "keys": [{ "kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": self.kid, "x": x, "y": y }] }).to_string()
    }

    /// A token with these claims.
    pub fn token(&self, claims: &Value) -> String {
        let signed = signed_part(&json!({ "alg": "ES256", "typ": "JWT", "kid": self.kid }), claims);
        let signature = self.pair.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref()))
    }
}

/// A token that is signed with a shared secret.
pub fn hs256(secret: &str, claims: &Value) -> String {
    let signed = signed_part(&json!({ "alg": "HS256", "typ": "JWT" }), claims);
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, secret.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(aws_lc_rs::hmac::sign(&key, signed.as_bytes()).as_ref()))
}

fn signed_part(header: &Value, claims: &Value) -> String {
    [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string())).join(".")
}

/// Now, in whole seconds since 1970.
pub fn now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
}
