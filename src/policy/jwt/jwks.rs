//! Reads public keys: a JSON Web Key Set (RFC 7517) or one PEM public key (RFC 7468 section 13).
//!
//! Decides which keys are sound and which are for something else. Does not choose among them: see `keys.rs`.

use aws_lc_rs::rsa;
use aws_lc_rs::signature::{self, ParsedPublicKey, RsaPublicKeyComponents};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Map, Value};

use super::algorithm::{JwtAlgorithm, KeyType};
use super::json;

/// A sound public key that may verify signatures.
#[derive(Debug)]
pub struct PublicKey {
    pub kid: Option<String>,
    /// The only algorithm that it is for, where it says so.
    pub only: Option<JwtAlgorithm>,
    pub material: Material,
}

/// The numbers of a key, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Material {
    /// Modulus and exponent, big-endian, without leading zeros.
    Rsa { n: Vec<u8>, e: Vec<u8> },
    /// An uncompressed point of P-256: 0x04, x, y.
    P256(Vec<u8>),
    /// The same of P-384.
    P384(Vec<u8>),
    /// A public key of Ed25519, 32 bytes.
    Ed25519(Vec<u8>),
}

/// Why a text holds no keys that can be used. Never holds what the text says.
#[derive(Debug, PartialEq, Eq)]
pub struct Unsound(pub String);

/// What one entry of a set is.
enum Entry {
    Usable(PublicKey),
    /// For another purpose, or of a type that is not known: RFC 7517 section 5 says to pass over it.
    Other,
}

/// Reads every key of the text, or says of each unsound one what is wrong.
pub fn read(text: &str) -> Result<Vec<PublicKey>, Vec<Unsound>> {
    let text = text.trim();
    if text.contains("-----BEGIN ") {
        let material = read_pem(text).map_err(|why| vec![Unsound(why.to_owned())])?;
        return Ok(vec![PublicKey { kid: None, only: None, material }]);
    }
    let (keys, wrong) = read_set(text).map_err(|why| vec![why])?;
    if wrong.is_empty() { Ok(keys) } else { Err(wrong) }
}

/// Reads the sound keys of a set that a provider publishes, and says of each unsound one what is wrong.
///
/// # Errors
/// Where it is no set, or too large a one.
pub fn read_published(text: &str) -> Result<(Vec<PublicKey>, Vec<Unsound>), Unsound> {
    read_set(text.trim())
}

/// More are not looked at: a token that names none would be tried with each.
const MOST: usize = 100;

fn read_set(text: &str) -> Result<(Vec<PublicKey>, Vec<Unsound>), Unsound> {
    let one = |why: String| Unsound(why);
    let set = json::object(text.as_bytes()).map_err(|why| one(format!("is neither a JSON Web Key Set nor a PEM public key: {why}")))?;
    let Some(Value::Array(entries)) = set.get("keys") else {
        let hint =
            if set.contains_key("kty") { ", but one key: write `{ \"keys\": [ ... ] }` around it" } else { ": it has no list `keys`" };
        return Err(one(format!("is not a JSON Web Key Set{hint}")));
    };
    if entries.len() > MOST {
        return Err(one(format!("has more than {MOST} keys")));
    }
    let mut keys = Vec::new();
    let mut wrong = Vec::new();
    for (index, entry) in entries.iter().enumerate() {
        match entry.as_object().ok_or("is not an object").and_then(read_entry) {
            Ok(Entry::Usable(key)) => keys.push(key),
            Ok(Entry::Other) => {}
            Err(why) => wrong.push(Unsound(format!("key {} {why}", index + 1))),
        }
    }
    Ok((keys, wrong))
}

fn read_entry(key: &Map<String, Value>) -> Result<Entry, &'static str> {
    let text = |name: &str, odd: &'static str| match key.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.as_str())),
        Some(_) => Err(odd),
    };
    let kty = text("kty", "has a `kty` that is not text")?.ok_or("has no `kty`")?;
    if kty == "oct" {
        return Err("is a shared secret (`kty: oct`): a key set holds public keys, write secrets under `secret`");
    }
    if ["d", "p", "q", "dp", "dq", "qi", "k"].iter().any(|name| key.contains_key(*name)) {
        return Err("holds a private key: take it out, the gateway only verifies");
    }
    if text("use", "has a `use` that is not text")?.is_some_and(|purpose| purpose != "sig") {
        return Ok(Entry::Other);
    }
    match key.get("key_ops") {
        None => {}
        Some(Value::Array(ops)) if ops.iter().all(Value::is_string) && ops.iter().any(|op| op == "verify") => {}
        Some(Value::Array(ops)) if ops.iter().all(Value::is_string) => return Ok(Entry::Other),
        Some(_) => return Err("has a `key_ops` that is not a list of texts"),
    }
    let only = match text("alg", "has an `alg` that is not text")? {
        None => None,
        Some(name) => match JwtAlgorithm::parse(name) {
            Some(algorithm) => Some(algorithm),
            None => return Ok(Entry::Other), // RSA-OAEP and the like
        },
    };
    let kid = text("kid", "has a `kid` that is not text")?.map(str::to_owned);
    let number = |name: &str, odd: &'static str| {
        let value = key.get(name).and_then(Value::as_str).ok_or(odd)?;
        URL_SAFE_NO_PAD.decode(value).map_err(|_| odd)
    };
    let material = match (kty, text("crv", "has a `crv` that is not text")?) {
        ("RSA", _) => read_rsa(&number("n", "has no `n` in base64url")?, &number("e", "has no `e` in base64url")?)?,
        ("EC", Some(curve @ ("P-256" | "P-384"))) => {
            read_point(curve, &number("x", "has no `x` in base64url")?, &number("y", "has no `y` in base64url")?)?
        }
        ("EC", None) => return Err("has no `crv`"),
        ("OKP", Some("Ed25519")) => read_ed25519(number("x", "has no `x` in base64url")?)?,
        _ => return Ok(Entry::Other),
    };
    if only.is_some_and(|algorithm| algorithm.key_type() != material.key_type()) {
        return Err("has an `alg` that does not fit its `kty` or `crv`");
    }
    Ok(Entry::Usable(PublicKey { kid, only, material }))
}

/// RFC 7518 section 3.3: 2048 bits at least. A public exponent of 1 would let anybody sign.
fn read_rsa(n: &[u8], e: &[u8]) -> Result<Material, &'static str> {
    let strip = |bytes: &[u8]| bytes[bytes.iter().take_while(|byte| **byte == 0).count()..].to_vec();
    let (n, e) = (strip(n), strip(e));
    let bits = n.len() * 8 - n.first().map_or(0, |byte| byte.leading_zeros() as usize);
    if bits < 2048 {
        return Err("is an RSA key of less than 2048 bits");
    }
    if bits > 8192 {
        return Err("is an RSA key of more than 8192 bits");
    }
    if e.len() > 4 || e.last().is_none_or(|byte| byte % 2 == 0) || e == [1] {
        return Err("has a public exponent that is not an odd number from 3 to 2^32");
    }
    RsaPublicKeyComponents { n: &n, e: &e }
        .to_parsed_public_key(&signature::RSA_PKCS1_2048_8192_SHA256)
        .map_err(|_| "is not a valid RSA key")?;
    Ok(Material::Rsa { n, e })
}

fn read_point(curve: &str, x: &[u8], y: &[u8]) -> Result<Material, &'static str> {
    let bytes = if curve == "P-256" { 32 } else { 48 };
    if x.len() != bytes || y.len() != bytes {
        return Err("has coordinates whose length does not fit its `crv`");
    }
    check_point([&[4], x, y].concat())
}

fn check_point(point: Vec<u8>) -> Result<Material, &'static str> {
    const OFF: &str = "is not a point on its curve";
    match point.len() {
        65 => ParsedPublicKey::new(&signature::ECDSA_P256_SHA256_FIXED, &point).map(|_| Material::P256(point)).map_err(|_| OFF),
        97 => ParsedPublicKey::new(&signature::ECDSA_P384_SHA384_FIXED, &point).map(|_| Material::P384(point)).map_err(|_| OFF),
        _ => Err(OFF),
    }
}

fn read_ed25519(x: Vec<u8>) -> Result<Material, &'static str> {
    if x.len() != 32 {
        return Err("has an `x` that is not 32 bytes");
    }
    ParsedPublicKey::new(&signature::ED25519, &x).map_err(|_| "is not a valid Ed25519 key")?;
    Ok(Material::Ed25519(x))
}

/// The DER before the bits of a SubjectPublicKeyInfo (RFC 5480, RFC 8410); always the same for an uncompressed key of one curve.
const P256: &[u8] =
    &[0x30, 0x59, 0x30, 0x13, 6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7, 3, 0x42, 0];
const P384: &[u8] = &[0x30, 0x76, 0x30, 0x10, 6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1, 6, 5, 0x2b, 0x81, 4, 0, 0x22, 3, 0x62, 0];
const ED25519: &[u8] = &[0x30, 0x2a, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 3, 0x21, 0];

fn read_pem(text: &str) -> Result<Material, &'static str> {
    if text.matches("-----BEGIN ").count() != 1 {
        return Err("holds more than one PEM block: expected one public key");
    }
    let (_, text) = text.split_once("-----BEGIN ").ok_or("is not PEM")?;
    let (label, text) = text.split_once("-----").ok_or("is not PEM")?;
    if label.ends_with("PRIVATE KEY") {
        return Err("holds a private key: expected the public one (`openssl pkey -in KEY -pubout`)");
    }
    if label == "CERTIFICATE" {
        return Err("is a certificate: expected its public key (`openssl x509 -in CERT -pubkey -noout`)");
    }
    if label != "PUBLIC KEY" && label != "RSA PUBLIC KEY" {
        return Err("is not a PEM public key");
    }
    let (body, rest) = text.split_once("-----END ").ok_or("is PEM without an end")?;
    if rest.trim_end().strip_suffix("-----") != Some(label) {
        return Err("is PEM with text behind its end");
    }
    let packed: String = body.chars().filter(|c| !c.is_ascii_whitespace()).collect();
    let der = STANDARD.decode(packed).map_err(|_| "is PEM whose body is not base64")?;
    if let Some(point) = der.strip_prefix(P256).or_else(|| der.strip_prefix(P384)) {
        return check_point(point.to_vec());
    }
    if let Some(x) = der.strip_prefix(ED25519) {
        return read_ed25519(x.to_vec());
    }
    let key = rsa::PublicKey::from_der(&der).map_err(|_| "is not an RSA, P-256, P-384 or Ed25519 public key")?;
    let numbers = RsaPublicKeyComponents::<Vec<u8>>::from(&key);
    read_rsa(&numbers.n, &numbers.e)
}

// === impl Material ===

impl Material {
    pub fn key_type(&self) -> KeyType {
        match self {
            Material::Rsa { .. } => KeyType::Rsa,
            Material::P256(_) => KeyType::P256,
            Material::P384(_) => KeyType::P384,
            Material::Ed25519(_) => KeyType::Ed25519,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::jwt::fixtures::{Signer, ec256_jwk, ed_jwk, jwks, rsa_jwk};

    fn read_one(key: &Value) -> Result<Vec<PublicKey>, Vec<Unsound>> {
        read(&jwks(std::slice::from_ref(key)))
    }

    fn wrong(key: &Value) -> String {
        read_one(key).unwrap_err().remove(0).0
    }

    fn with(mut key: Value, name: &str, value: impl Into<Value>) -> Value {
        key[name] = value.into();
        key
    }

    fn without(mut key: Value, name: &str) -> Value {
        key.as_object_mut().unwrap().remove(name).unwrap();
        key
    }

    #[test]
    fn keys_of_every_type_are_read_from_a_set_and_from_pem() {
        for signer in Signer::all_asymmetric() {
            let from_set = read_one(&signer.jwk("k")).unwrap().remove(0);
            assert_eq!(from_set.kid.as_deref(), Some("k"));
            let from_pem = read(&signer.pem()).unwrap().remove(0);
            assert_eq!(from_set.material, from_pem.material);
            assert_eq!(from_set.material.key_type(), signer.algorithm.key_type());
        }
    }

    #[test]
    fn keys_for_another_purpose_are_passed_over() {
        for other in [
            with(rsa_jwk(), "use", "enc"),
            with(rsa_jwk(), "alg", "RSA-OAEP-256"),
            with(rsa_jwk(), "key_ops", serde_json::json!(["encrypt"])),
            with(ec256_jwk(), "crv", "secp256k1"),
            with(ec256_jwk(), "crv", "P-521"),
            with(ec256_jwk(), "kty", "AKP"),
            with(ed_jwk(), "crv", "X25519"),
        ] {
            assert_eq!(read_one(&other).unwrap().len(), 0, "{other}");
        }
        assert_eq!(read_one(&with(rsa_jwk(), "key_ops", serde_json::json!(["verify"]))).unwrap().len(), 1);
        assert_eq!(read_one(&with(rsa_jwk(), "use", "sig")).unwrap().len(), 1);
    }

    #[test]
    fn unsound_keys_are_mistakes() {
        let small = URL_SAFE_NO_PAD.encode([0xff; 128]);
        for (key, expected) in [
            (
                serde_json::json!({ "kty": "oct", "k": "c2VjcmV0" }),
                "key 1 is a shared secret (`kty: oct`): a key set holds public keys, write secrets under `secret`",
            ),
            (with(rsa_jwk(), "d", "AQAB"), "key 1 holds a private key: take it out, the gateway only verifies"),
            (with(rsa_jwk(), "n", small), "key 1 is an RSA key of less than 2048 bits"),
            (with(rsa_jwk(), "n", "AQAB"), "key 1 is an RSA key of less than 2048 bits"),
            (with(rsa_jwk(), "n", URL_SAFE_NO_PAD.encode([0xff; 1025])), "key 1 is an RSA key of more than 8192 bits"),
            (with(rsa_jwk(), "e", "AQ"), "key 1 has a public exponent that is not an odd number from 3 to 2^32"),
            (with(rsa_jwk(), "e", "Ag"), "key 1 has a public exponent that is not an odd number from 3 to 2^32"),
            (with(rsa_jwk(), "e", ""), "key 1 has a public exponent that is not an odd number from 3 to 2^32"),
            (without(rsa_jwk(), "n"), "key 1 has no `n` in base64url"),
            (with(rsa_jwk(), "alg", "ES256"), "key 1 has an `alg` that does not fit its `kty` or `crv`"),
            (with(ec256_jwk(), "alg", "ES384"), "key 1 has an `alg` that does not fit its `kty` or `crv`"),
            (with(ec256_jwk(), "alg", "HS256"), "key 1 has an `alg` that does not fit its `kty` or `crv`"),
            (with(ec256_jwk(), "crv", "P-384"), "key 1 has coordinates whose length does not fit its `crv`"),
            (with(ec256_jwk(), "x", URL_SAFE_NO_PAD.encode([1; 32])), "key 1 is not a point on its curve"),
            (without(ec256_jwk(), "crv"), "key 1 has no `crv`"),
            (with(ed_jwk(), "x", "AQAB"), "key 1 has an `x` that is not 32 bytes"),
            (with(rsa_jwk(), "kid", 7), "key 1 has a `kid` that is not text"),
            (with(rsa_jwk(), "use", 7), "key 1 has a `use` that is not text"),
            (with(rsa_jwk(), "key_ops", "verify"), "key 1 has a `key_ops` that is not a list of texts"),
            (serde_json::json!({}), "key 1 has no `kty`"),
            (serde_json::json!("x"), "key 1 is not an object"),
        ] {
            assert_eq!(wrong(&key), expected, "{key}");
        }
    }

    #[test]
    fn every_unsound_key_of_a_set_is_told() {
        let wrong = read(&jwks(&[with(rsa_jwk(), "e", "AQ"), rsa_jwk(), without(ec256_jwk(), "x")])).unwrap_err();
        assert_eq!(wrong.len(), 2);
        assert_eq!(wrong[1].0, "key 3 has no `x` in base64url");
    }

    #[test]
    fn what_holds_no_keys_is_a_mistake() {
        let pem = Signer::new(JwtAlgorithm::ES256).pem();
        for (text, expected) in [
            (String::new(), "is neither a JSON Web Key Set nor a PEM public key: is not JSON"),
            ("{}".to_owned(), "is not a JSON Web Key Set: it has no list `keys`"),
            (rsa_jwk().to_string(), "is not a JSON Web Key Set, but one key: write `{ \"keys\": [ ... ] }` around it"),
            (r#"{"keys":[],"keys":[]}"#.to_owned(), "is neither a JSON Web Key Set nor a PEM public key: names a member twice"),
            (pem.repeat(2), "holds more than one PEM block: expected one public key"),
            (pem.replace("PUBLIC", "PRIVATE"), "holds a private key: expected the public one (`openssl pkey -in KEY -pubout`)"),
            (
                pem.replace("PUBLIC KEY", "CERTIFICATE"),
                "is a certificate: expected its public key (`openssl x509 -in CERT -pubkey -noout`)",
            ),
            (pem.replace("PUBLIC KEY", "SOMETHING"), "is not a PEM public key"),
            (format!("{pem}x"), "is PEM with text behind its end"),
            (pem.replace("MF", "!!"), "is PEM whose body is not base64"),
            (pem.replace("MF", "MG"), "is not an RSA, P-256, P-384 or Ed25519 public key"),
        ] {
            assert_eq!(read(&text).unwrap_err(), [Unsound(expected.to_owned())], "{text}");
        }
    }
}
