//! What a token costs, by algorithm, with its signature and remembered.

use std::hint::black_box;
use std::sync::Arc;

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{self, EcdsaKeyPair, Ed25519KeyPair, KeyPair, ParsedPublicKey, RsaKeyPair};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use criterion::{Criterion, criterion_group, criterion_main};
use sluice::config::diagnostic::{Place, Source};
use sluice::config::types::{At, Secret};
use sluice::policy::jwt::{Jwt, JwtAlgorithm, JwtKeysSettings, JwtSettings};

const SECRET: &str = "0123456789abcdef0123456789abcdef";
const NOW: u64 = 1_735_689_600;

fn at<T>(value: T) -> At<T> {
    let source = Arc::new(Source::new("bench.yaml", ""));
    At { value, place: Place { source, line: 1, column: 1, width: 1 } }
}

/// Signs a token and returns it with the public key in PEM.
type Sign = Box<dyn Fn(&[u8]) -> Vec<u8>>;

fn signer(algorithm: JwtAlgorithm) -> (Sign, Option<String>) {
    let pem = |der: &[u8]| Some(format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(der)));
    match algorithm {
        JwtAlgorithm::ES256 => {
            let pair = EcdsaKeyPair::generate(&signature::ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
            let key = pem(pair.public_key().as_der().unwrap().as_ref());
            (Box::new(move |message| pair.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec()), key)
        }
        JwtAlgorithm::EdDSA => {
            let pair = Ed25519KeyPair::generate().unwrap();
            let key = pem(pair.public_key().as_der().unwrap().as_ref());
            (Box::new(move |message| pair.sign(message).as_ref().to_vec()), key)
        }
        JwtAlgorithm::RS256 | JwtAlgorithm::PS256 => {
            let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
            let key = pem(pair.public_key().as_der().unwrap().as_ref());
            let padding: &'static dyn signature::RsaEncoding =
                if algorithm == JwtAlgorithm::RS256 { &signature::RSA_PKCS1_SHA256 } else { &signature::RSA_PSS_SHA256 };
            let sign = move |message: &[u8]| {
                let mut bytes = vec![0; pair.public_modulus_len()];
                pair.sign(padding, &SystemRandom::new(), message, &mut bytes).unwrap();
                bytes
            };
            (Box::new(sign), key)
        }
        _ => (Box::new(|message| hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes()), message).as_ref().to_vec()), None),
    }
}

fn token(algorithm: JwtAlgorithm, sign: &Sign, subject: usize) -> String {
    let header = format!(r#"{{"alg":"{}","typ":"JWT"}}"#, algorithm.as_str());
    let claims = format!(
        r#"{{"iss":"https://idp.example","aud":"orders","sub":"user-{subject}","exp":{},"iat":{NOW},"scope":"orders:read orders:create","roles":["clerk"]}}"#,
        NOW + 3600
    );
    let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(sign(signed.as_bytes())))
}

fn authenticator(algorithm: JwtAlgorithm, pem: Option<String>, memory: u64) -> Jwt {
    let keys = match pem {
        Some(pem) => JwtKeysSettings { file: None, inline: Some(at(pem)), secret: None, ..Default::default() },
        None => JwtKeysSettings { file: None, inline: None, secret: Some(at(Secret::new(SECRET))), ..Default::default() },
    };
    let settings = JwtSettings {
        issuer: at("https://idp.example".to_owned()),
        audiences: at(vec!["orders".to_owned()]),
        algorithms: at(vec![at(algorithm)]),
        keys: at(keys),
        leeway: None,
        max_lifetime: None,
        scope_claim: None,
        role_claim: None,
        plan: None,
        tags: Default::default(),
        forward: [("x-user-id".to_owned(), at("sub".to_owned()))].into(),
        pass: false,
    };
    Jwt::compile(&at("idp".to_owned()), &settings, Default::default(), memory).unwrap()
}

/// The signature alone, as the library verifies it, with a key that it has taken apart: what `verified` cannot be cheaper than.
fn bare(criterion: &mut Criterion, token: &str, pem: &str) {
    let der = STANDARD.decode(pem.lines().filter(|line| !line.starts_with('-')).collect::<String>()).unwrap();
    // The point is the end of a SubjectPublicKeyInfo (RFC 5480 section 2.2).
    let point = &der[der.len() - 65..];
    let key = ParsedPublicKey::new(&signature::ECDSA_P256_SHA256_FIXED, point).unwrap();
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
    key.verify_sig(signed.as_bytes(), &signature).unwrap();
    criterion.bench_function("jwt/ES256/bare", |bench| {
        bench.iter(|| key.verify_sig(black_box(signed.as_bytes()), &signature).unwrap());
    });
}

fn tokens(criterion: &mut Criterion) {
    for algorithm in [JwtAlgorithm::HS256, JwtAlgorithm::RS256, JwtAlgorithm::PS256, JwtAlgorithm::ES256, JwtAlgorithm::EdDSA] {
        let (sign, pem) = signer(algorithm);
        let one = token(algorithm, &sign, 0);
        // No token fits into a memory of nothing, so that every signature is checked.
        let forgetful = authenticator(algorithm, pem.clone(), 0);
        assert!((0..2).all(|_| forgetful.identify(one.as_bytes(), NOW * 1000).is_ok()));
        assert_eq!(forgetful.memory().signatures(), 2);
        criterion.bench_function(&format!("jwt/{}/verified", algorithm.as_str()), |bench| {
            bench.iter(|| forgetful.identify(black_box(one.as_bytes()), NOW * 1000).unwrap());
        });
        if algorithm == JwtAlgorithm::ES256 {
            bare(criterion, &one, pem.as_deref().unwrap_or_default());
        }
        let mindful = authenticator(algorithm, pem, 16 << 20);
        assert!((0..2).all(|_| mindful.identify(one.as_bytes(), NOW * 1000).is_ok()));
        criterion.bench_function(&format!("jwt/{}/remembered", algorithm.as_str()), |bench| {
            bench.iter(|| mindful.identify(black_box(one.as_bytes()), NOW * 1000).unwrap());
        });
        assert_eq!(mindful.memory().signatures(), 1);
    }

    let (sign, pem) = signer(JwtAlgorithm::ES256);
    let jwt = authenticator(JwtAlgorithm::ES256, pem, 16 << 20);
    let thousand: Vec<_> = (0..1000).map(|subject| token(JwtAlgorithm::ES256, &sign, subject)).collect();
    assert!(thousand.iter().all(|token| jwt.identify(token.as_bytes(), NOW * 1000).is_ok()));
    let mut turn = thousand.iter().cycle();
    criterion.bench_function("jwt/ES256/remembered, 1000 in turn", |bench| {
        bench.iter(|| jwt.identify(turn.next().unwrap().as_bytes(), NOW * 1000).unwrap());
    });
    assert_eq!(jwt.memory().signatures(), 1000);
}

criterion_group!(benches, tokens);
criterion_main!(benches);
