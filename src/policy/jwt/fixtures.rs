//! Key pairs and tokens for tests. Signs with the cryptographic library itself, not with the code that verifies.

use std::sync::OnceLock;

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{self, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RsaKeyPair, RsaPublicKeyComponents};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use super::algorithm::JwtAlgorithm;
use crate::policy::fixtures::{at, at_text};

pub const SECRET: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

pub struct Signer {
    pub algorithm: JwtAlgorithm,
    pair: Pair,
}

enum Pair {
    Secret(Vec<u8>),
    Rsa(&'static RsaKeyPair),
    Ec(EcdsaKeyPair),
    Ed(Ed25519KeyPair),
}

fn rsa() -> &'static RsaKeyPair {
    static PAIR: OnceLock<RsaKeyPair> = OnceLock::new();
    PAIR.get_or_init(|| RsaKeyPair::generate(KeySize::Rsa2048).unwrap())
}

impl Signer {
    /// A new key, but for RSA, of which one serves all (they are slow to make), and for secrets.
    pub fn new(algorithm: JwtAlgorithm) -> Self {
        use JwtAlgorithm::*;
        let pair = match algorithm {
            HS256 | HS384 | HS512 => Pair::Secret(SECRET.into()),
            RS256 | RS384 | RS512 | PS256 | PS384 | PS512 => Pair::Rsa(rsa()),
            ES256 => Pair::Ec(EcdsaKeyPair::generate(&signature::ECDSA_P256_SHA256_FIXED_SIGNING).unwrap()),
            ES384 => Pair::Ec(EcdsaKeyPair::generate(&signature::ECDSA_P384_SHA384_FIXED_SIGNING).unwrap()),
            EdDSA => Pair::Ed(Ed25519KeyPair::generate().unwrap()),
        };
        Signer { algorithm, pair }
    }

    /// Signs with any bytes as the secret.
    pub fn with_secret(algorithm: JwtAlgorithm, secret: &[u8]) -> Self {
        Signer { algorithm, pair: Pair::Secret(secret.to_vec()) }
    }

    pub fn all_asymmetric() -> impl Iterator<Item = Signer> {
        JwtAlgorithm::ALL.into_iter().filter(|algorithm| algorithm.secret_bytes() == 0).map(Signer::new)
    }

    pub fn jwk(&self, kid: &str) -> Value {
        let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        match &self.pair {
            Pair::Secret(_) => panic!("secrets are not published"),
            Pair::Rsa(pair) => {
                let numbers = RsaPublicKeyComponents::<Vec<u8>>::from(pair.public_key());
                json!({ "kty": "RSA", "kid": kid, "n": encode(&numbers.n), "e": encode(&numbers.e) })
            }
            Pair::Ec(pair) => {
                let (x, y) = pair.public_key().as_ref()[1..].split_at((pair.public_key().as_ref().len() - 1) / 2);
                let curve = if x.len() == 32 { "P-256" } else { "P-384" };
                json!({ "kty": "EC", "kid": kid, "crv": curve, "x": encode(x), "y": encode(y) })
            }
            Pair::Ed(pair) => json!({ "kty": "OKP", "kid": kid, "crv": "Ed25519", "x": encode(pair.public_key().as_ref()) }),
        }
    }

    /// The public key in PEM.
    pub fn pem(&self) -> String {
        let der = match &self.pair {
            Pair::Secret(_) => panic!("secrets are not published"),
            Pair::Rsa(pair) => pair.public_key().as_der().unwrap().as_ref().to_vec(),
            Pair::Ec(pair) => pair.public_key().as_der().unwrap().as_ref().to_vec(),
            Pair::Ed(pair) => pair.public_key().as_der().unwrap().as_ref().to_vec(),
        };
        let body = STANDARD.encode(der);
        let lines: Vec<_> = body.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
        format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", lines.join("\n"))
    }

    /// A token with this key's `alg` and no other header parameter.
    pub fn token(&self, claims: &Value) -> String {
        self.token_with(&json!({ "alg": self.algorithm.as_str(), "typ": "JWT" }).to_string(), &claims.to_string())
    }

    pub fn token_with(&self, header: &str, payload: &str) -> String {
        let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload));
        let signature = self.sign(signed.as_bytes());
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    fn sign(&self, message: &[u8]) -> Vec<u8> {
        use JwtAlgorithm::*;
        let random = SystemRandom::new();
        match &self.pair {
            Pair::Secret(secret) => {
                let hash = match self.algorithm {
                    HS384 => hmac::HMAC_SHA384,
                    HS512 => hmac::HMAC_SHA512,
                    _ => hmac::HMAC_SHA256,
                };
                hmac::sign(&hmac::Key::new(hash, secret), message).as_ref().to_vec()
            }
            Pair::Rsa(pair) => {
                let padding: &dyn signature::RsaEncoding = match self.algorithm {
                    RS384 => &signature::RSA_PKCS1_SHA384,
                    RS512 => &signature::RSA_PKCS1_SHA512,
                    PS256 => &signature::RSA_PSS_SHA256,
                    PS384 => &signature::RSA_PSS_SHA384,
                    PS512 => &signature::RSA_PSS_SHA512,
                    _ => &signature::RSA_PKCS1_SHA256,
                };
                let mut bytes = vec![0; pair.public_modulus_len()];
                pair.sign(padding, &random, message, &mut bytes).unwrap();
                bytes
            }
            Pair::Ec(pair) => pair.sign(&random, message).unwrap().as_ref().to_vec(),
            Pair::Ed(pair) => pair.sign(message).as_ref().to_vec(),
        }
    }
}

fn bare(algorithm: JwtAlgorithm) -> Value {
    let mut key = Signer::new(algorithm).jwk("");
    key.as_object_mut().unwrap().remove("kid");
    key
}

pub fn rsa_jwk() -> Value {
    bare(JwtAlgorithm::RS256)
}

pub fn ec256_jwk() -> Value {
    bare(JwtAlgorithm::ES256)
}

pub fn ed_jwk() -> Value {
    bare(JwtAlgorithm::EdDSA)
}

pub fn jwks(keys: &[Value]) -> String {
    json!({ "keys": keys }).to_string()
}

/// Settings of an authenticator that takes the signer's tokens, with issuer `https://idp.example` and audience `orders`.
pub fn jwt_settings(signer: &Signer) -> super::JwtSettings {
    let keys = match &signer.pair {
        Pair::Secret(secret) => {
            let secret = crate::config::types::Secret::new(std::str::from_utf8(secret).unwrap());
            super::JwtKeysSettings { file: None, inline: None, secret: Some(at(secret)), ..Default::default() }
        }
        Pair::Rsa(_) | Pair::Ec(_) | Pair::Ed(_) => {
            super::JwtKeysSettings { file: None, inline: Some(at(jwks(&[signer.jwk("k1")]))), secret: None, ..Default::default() }
        }
    };
    super::JwtSettings {
        issuer: at_text("https://idp.example"),
        audiences: at(vec!["orders".to_owned()]),
        algorithms: at(vec![at(signer.algorithm)]),
        keys: at(keys),
        leeway: None,
        max_lifetime: None,
        scope_claim: None,
        role_claim: None,
        plan: None,
        tags: Default::default(),
        forward: std::collections::BTreeMap::new(),
        pass: false,
    }
}
