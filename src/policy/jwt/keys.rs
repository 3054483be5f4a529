//! Decides which key verifies a token, and whether its signature is right.
//!
//! Keys come from the configuration only; what a token says chooses among them and never adds one (RFC 8725 section 3.1).

use jsonwebtoken::DecodingKey;
use schemars::JsonSchema;
use serde::Deserialize;

use super::algorithm::{JwtAlgorithm, KeyType};
use super::jwks::{self, Material, PublicKey};
use super::kinds::{ALGORITHM, KEY_UNKNOWN, SIGNATURE, shown};
use super::published::RefreshSettings;
use super::token::Token;
use crate::config::diagnostic::Diagnostic;
use crate::config::interpolate::read_beside;
use crate::config::types::{At, Period, Secret};
use crate::policy::Stop;

/// Exactly one of `file`, `inline`, `secret`, `url` and `discovery`; the rest belongs to the last two.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct JwtKeysSettings {
    /// A file with a JSON Web Key Set or a PEM public key.
    pub file: Option<At<String>>,
    /// A JSON Web Key Set or a PEM public key written here.
    pub inline: Option<At<String>>,
    /// The shared secret of HS256, HS384 or HS512; at least 32 bytes.
    pub secret: Option<At<Secret>>,
    /// The URL of the provider's JSON Web Key Set. It is fetched in the background, again and again; no request waits for it but the first
    /// with a `kid` that is not known, a second at most.
    pub url: Option<At<String>>,
    /// The URL of the provider's OpenID Connect discovery document, which must be of the authenticator's `issuer` and says where the keys are.
    pub discovery: Option<At<String>>,
    /// When the set is fetched again.
    pub refresh: Option<At<RefreshSettings>>,
    /// How long the last good set is used while the provider cannot be asked; after that tokens are answered with 503 `keys-too-old`.
    /// Default: for ever.
    pub max_age: Option<At<Period>>,
    /// Allows plain http to another machine. Default false.
    pub plain_http: Option<At<bool>>,
    /// The proxy through which the provider is reached, as `http://host:port`.
    pub proxy: Option<At<String>>,
    /// A file with the root certificates that are trusted instead of the system's, in PEM.
    pub ca: Option<At<String>>,
}

/// The keys of one authenticator; at least one for every algorithm that it accepts.
pub struct KeySet {
    keys: Vec<Key>,
    /// Whether any key has a `kid`. Where none has, there is nothing that a token's `kid` could choose.
    named: bool,
}

/// One key and what it may be used for.
pub struct Key {
    kid: Option<String>,
    /// Those of the configuration's algorithms that it serves.
    serves: Vec<JwtAlgorithm>,
    key: DecodingKey,
    /// What tells it from other keys; for fingerprints.
    bytes: Vec<u8>,
}

// === impl KeySet ===

impl KeySet {
    /// Reads the keys. `algorithms` are those that tokens may use; each must be served.
    pub fn compile(settings: &At<JwtKeysSettings>, algorithms: &[At<JwtAlgorithm>]) -> Result<Self, Vec<Diagnostic>> {
        let JwtKeysSettings { file, inline, secret, url: _, discovery: _, refresh: _, max_age: _, plain_http: _, proxy: _, ca: _ } =
            &settings.value;
        let keys = match (file, inline, secret) {
            (Some(file), None, None) => read_public(file, &read_file(file)?, algorithms)?,
            (None, Some(inline), None) => read_public(inline, inline, algorithms)?,
            (None, None, Some(secret)) => vec![read_secret(secret, algorithms)?],
            _ => {
                let message = "exactly one of `file`, `inline`, `secret`, `url` and `discovery` is expected";
                return Err(vec![Diagnostic::at(&settings.place, "jwt-keys", message)]);
            }
        };
        let set = KeySet::of(keys);
        let wrong: Vec<_> = algorithms
            .iter()
            .filter(|algorithm| !set.keys.iter().any(|key| key.serves.contains(algorithm)))
            .map(|algorithm| {
                let message = format!("no key serves `{}`: no token could use it", algorithm.as_str());
                Diagnostic::at(&algorithm.place, "jwt-algorithm-unserved", message).help("remove the algorithm, or add a key for it")
            })
            .collect();
        if wrong.is_empty() { Ok(set) } else { Err(wrong) }
    }

    /// Reads a set that a provider has published. A key that is unsound is passed over, and told: it must not take the others with it.
    ///
    /// # Errors
    /// Why the set is of no use, in words that follow its name.
    pub fn read_published(text: &str, algorithms: &[JwtAlgorithm]) -> Result<(Self, Vec<String>), String> {
        let (published, refused) = jwks::read_published(text).map_err(|why| why.0)?;
        let keys = usable(published, algorithms)?;
        if keys.is_empty() {
            let why = refused.first().map(|why| format!("; {}", why.0)).unwrap_or_default();
            return Err(format!("has no key that could verify a token with one of `algorithms`{why}"));
        }
        Ok((KeySet::of(keys), refused.into_iter().map(|why| why.0).collect()))
    }

    fn of(keys: Vec<Key>) -> Self {
        KeySet { named: keys.iter().any(|key| key.kid.is_some()), keys }
    }

    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether what those keys verified is still right by these.
    pub fn has_all_of(&self, others: &KeySet) -> bool {
        let same = |a: &Key, b: &Key| (&a.kid, &a.serves, &a.bytes) == (&b.kid, &b.serves, &b.bytes);
        others.keys.iter().all(|other| self.keys.iter().any(|key| same(key, other)))
    }

    /// Whether another key could have this token's name: there is one that names keys, and none has it.
    pub fn lacks<'t>(&self, token: &'t Token<'_>) -> Option<&'t str> {
        let kid = token.kid.as_deref()?;
        let is_there = !self.named || self.has(kid);
        (!is_there).then_some(kid)
    }

    /// Whether one has this name.
    pub fn has(&self, kid: &str) -> bool {
        self.keys.iter().any(|key| key.kid.as_deref() == Some(kid))
    }

    /// The one key that this token may be signed with.
    pub fn choose(&self, token: &Token<'_>) -> Result<&Key, Stop> {
        self.find(token.algorithm, token.kid.as_deref())
    }

    fn find(&self, algorithm: JwtAlgorithm, kid: Option<&str>) -> Result<&Key, Stop> {
        let kid = kid.filter(|_| self.named);
        if let Some(kid) = kid
            && !self.has(kid)
        {
            return Err(KEY_UNKNOWN.because(format!("no key has `kid` `{}`; there are {}", shown(kid), self.keys.len())));
        }
        let mut fitting = self.keys.iter().filter(|key| key.serves.contains(&algorithm) && (kid.is_none() || key.kid.as_deref() == kid));
        match (fitting.next(), fitting.next(), kid) {
            (Some(key), None, _) => Ok(key),
            (None, _, Some(kid)) => Err(ALGORITHM.because(format!("key `{}` does not serve {}", shown(kid), algorithm.as_str()))),
            (None, _, None) => Err(ALGORITHM.because(format!("no key serves {}", algorithm.as_str()))),
            (Some(_), Some(_), _) => Err(KEY_UNKNOWN.because(format!("has no `kid`, and more than one key serves {}", algorithm.as_str()))),
        }
    }

    /// Bytes that differ where the keys differ. Holds secrets: to be hashed only.
    pub fn identify(&self, mut field: impl FnMut(&[u8])) {
        for key in &self.keys {
            field(key.kid.as_deref().unwrap_or_default().as_bytes());
            field(&key.bytes);
            for algorithm in &key.serves {
                field(algorithm.as_str().as_bytes());
            }
        }
    }
}

// === impl Key ===

impl Key {
    pub fn kid(&self) -> Option<&str> {
        self.kid.as_deref()
    }

    /// Verifies the token's signature. The algorithm is one that this key serves: see [`KeySet::choose`].
    pub fn verify(&self, token: &Token<'_>) -> Result<(), Stop> {
        match jsonwebtoken::crypto::verify(token.signature, token.signed, &self.key, token.algorithm.implementation()) {
            Ok(true) => Ok(()),
            Ok(false) | Err(_) => Err(SIGNATURE.because(match &self.kid {
                Some(kid) => format!("the signature is not that of key `{}`", shown(kid)),
                None => "the signature is not that of the key".to_owned(),
            })),
        }
    }
}

impl std::fmt::Debug for KeySet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.keys.iter().map(|key| (&key.kid, &key.serves))).finish()
    }
}

/// The text of a key file; its path is relative to the configuration file that names it.
fn read_file(file: &At<String>) -> Result<String, Vec<Diagnostic>> {
    read_beside(&file.place, file).map_err(|why| {
        let message = format!("key file `{}` {why}", file.value);
        vec![Diagnostic::at(&file.place, "jwt-key-file", message).help("a relative path is relative to the file it stands in")]
    })
}

fn read_public(written: &At<String>, text: &str, algorithms: &[At<JwtAlgorithm>]) -> Result<Vec<Key>, Vec<Diagnostic>> {
    let place = &written.place;
    let shared: Vec<_> = algorithms
        .iter()
        .filter(|algorithm| algorithm.key_type() == KeyType::Secret)
        .map(|algorithm| {
            let message = format!("`{}` needs a secret, but the keys are public ones", algorithm.as_str());
            Diagnostic::at(&algorithm.place, "jwt-algorithm-mixed", message)
                .help("a token signed with a public key as its secret would pass: write one authenticator for each kind of key")
        })
        .collect();
    if !shared.is_empty() {
        return Err(shared);
    }
    let published = jwks::read(text).map_err(|wrong| {
        wrong.into_iter().map(|why| Diagnostic::at(place, "jwt-keys-unsound", format!("the key text {}", why.0))).collect::<Vec<_>>()
    })?;
    let written: Vec<_> = algorithms.iter().map(|algorithm| algorithm.value).collect();
    let keys = usable(published, &written).map_err(|why| vec![Diagnostic::at(place, "jwt-keys-unsound", format!("the key text {why}"))])?;
    if keys.is_empty() {
        let message = "none of the keys can verify a token with one of `algorithms`";
        return Err(vec![
            Diagnostic::at(place, "jwt-no-usable-key", message).help("keys with another `use`, `key_ops`, `alg` or curve are passed over"),
        ]);
    }
    Ok(keys)
}

/// Those that serve one of the algorithms.
fn usable(published: Vec<PublicKey>, algorithms: &[JwtAlgorithm]) -> Result<Vec<Key>, String> {
    let mut keys: Vec<Key> = Vec::new();
    for public in published {
        let fits = |algorithm: JwtAlgorithm| {
            algorithm.key_type() == public.material.key_type() && public.only.is_none_or(|only| only == algorithm)
        };
        let serves: Vec<_> = algorithms.iter().copied().filter(|algorithm| fits(*algorithm)).collect();
        let (key, bytes) = decoding_key(&public.material);
        let same = |other: &Key| other.kid == public.kid && other.serves.iter().any(|algorithm| serves.contains(algorithm));
        if public.kid.is_some() && keys.iter().any(same) {
            return Err("has two keys with the same `kid` that serve the same algorithm: a token could not choose".to_owned());
        }
        if !serves.is_empty() {
            keys.push(Key { kid: public.kid, serves, key, bytes });
        }
    }
    Ok(keys)
}

fn read_secret(secret: &At<Secret>, algorithms: &[At<JwtAlgorithm>]) -> Result<Key, Vec<Diagnostic>> {
    let mut wrong = Vec::new();
    for algorithm in algorithms.iter().filter(|algorithm| algorithm.key_type() != KeyType::Secret) {
        let message = format!("`{}` needs public keys, but the key is a secret", algorithm.as_str());
        wrong.push(Diagnostic::at(&algorithm.place, "jwt-algorithm-mixed", message).help("write one authenticator for each kind of key"));
    }
    let bytes = secret.reveal().as_bytes();
    let longest = algorithms.iter().max_by_key(|algorithm| algorithm.secret_bytes());
    if let Some(algorithm) = longest
        && bytes.len() < algorithm.secret_bytes()
    {
        let message = format!("the secret is shorter than {} bytes, which {} needs", algorithm.secret_bytes(), algorithm.as_str());
        wrong.push(Diagnostic::at(&secret.place, "jwt-secret-short", message).help("make one with `openssl rand -base64 64`"));
    }
    if !wrong.is_empty() {
        return Err(wrong);
    }
    let serves = algorithms.iter().map(|algorithm| algorithm.value).collect();
    Ok(Key { kid: None, serves, key: DecodingKey::from_secret(bytes), bytes: bytes.to_vec() })
}

fn decoding_key(material: &Material) -> (DecodingKey, Vec<u8>) {
    match material {
        Material::Rsa { n, e } => (DecodingKey::from_rsa_raw_components(n, e), [n.as_slice(), &[0], e].concat()),
        Material::P256(point) | Material::P384(point) => (DecodingKey::from_ec_der(point), point.clone()),
        Material::Ed25519(x) => (DecodingKey::from_ed_der(x), x.clone()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::policy::fixtures::{at, at_text, codes, place_in};
    use crate::policy::jwt::fixtures::{Signer, ec256_jwk, jwks, rsa_jwk};

    fn algorithms(list: &[JwtAlgorithm]) -> Vec<At<JwtAlgorithm>> {
        list.iter().map(|algorithm| at(*algorithm)).collect()
    }

    fn inline(text: &str, list: &[JwtAlgorithm]) -> Result<KeySet, Vec<Diagnostic>> {
        KeySet::compile(
            &at(JwtKeysSettings { file: None, inline: Some(at_text(text)), secret: None, ..JwtKeysSettings::default() }),
            &algorithms(list),
        )
    }

    fn secret(text: &str, list: &[JwtAlgorithm]) -> Result<KeySet, Vec<Diagnostic>> {
        KeySet::compile(
            &at(JwtKeysSettings { file: None, inline: None, secret: Some(at(Secret::new(text))), ..JwtKeysSettings::default() }),
            &algorithms(list),
        )
    }

    use JwtAlgorithm::{ES256, ES384, HS256, HS384, HS512, PS256, RS256};

    #[test]
    fn secrets_are_as_long_as_their_hash() {
        assert!(secret(&"a".repeat(32), &[HS256]).is_ok());
        assert!(secret(&"a".repeat(64), &[HS256, HS384, HS512]).is_ok());
        assert_eq!(codes(secret(&"a".repeat(31), &[HS256])), ["jwt-secret-short"]);
        assert_eq!(codes(secret(&"a".repeat(47), &[HS256, HS384])), ["jwt-secret-short"]);
        assert_eq!(codes(secret(&"a".repeat(63), &[HS512])), ["jwt-secret-short"]);
        let told = secret("hush-hush", &[HS256]).unwrap_err();
        assert!(!format!("{told:?}").contains("hush"), "{told:?}");
    }

    #[test]
    fn secrets_and_public_keys_do_not_mix() {
        assert_eq!(codes(secret(&"a".repeat(32), &[HS256, RS256])), ["jwt-algorithm-mixed"]);
        assert_eq!(codes(inline(&jwks(&[rsa_jwk()]), &[RS256, HS256])), ["jwt-algorithm-mixed"]);
        assert_eq!(codes(inline(&jwks(&[json!({ "kty": "oct", "k": "c2VjcmV0" })]), &[RS256])), ["jwt-keys-unsound"]);
    }

    #[test]
    fn every_algorithm_needs_a_key() {
        assert_eq!(codes(inline(&jwks(&[rsa_jwk()]), &[RS256, PS256, ES256, ES384])), ["jwt-algorithm-unserved", "jwt-algorithm-unserved"]);
        assert_eq!(codes(inline(&jwks(&[rsa_jwk()]), &[ES256])), ["jwt-no-usable-key"]);
        assert_eq!(codes(inline(&jwks(&[]), &[ES256])), ["jwt-no-usable-key"]);
        let mut only = rsa_jwk();
        only["alg"] = "PS256".into();
        assert_eq!(codes(inline(&jwks(&[only]), &[RS256, PS256])), ["jwt-algorithm-unserved"]);
    }

    #[test]
    fn keys_are_written_in_exactly_one_way() {
        let none = JwtKeysSettings { file: None, inline: None, secret: None, ..JwtKeysSettings::default() };
        assert_eq!(codes(KeySet::compile(&at(none), &algorithms(&[RS256]))), ["jwt-keys"]);
        let two = JwtKeysSettings { file: Some(at_text("x")), inline: Some(at_text("y")), secret: None, ..JwtKeysSettings::default() };
        assert_eq!(codes(KeySet::compile(&at(two), &algorithms(&[RS256]))), ["jwt-keys"]);
    }

    #[test]
    fn a_key_file_is_found_beside_the_file_that_names_it() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("keys")).unwrap();
        std::fs::write(folder.path().join("keys/es.pem"), Signer::new(ES256).pem()).unwrap();
        let compile = |file: &str| {
            let file = At { value: file.to_owned(), place: place_in(folder.path().join("sluice.yaml")) };
            KeySet::compile(
                &at(JwtKeysSettings { file: Some(file), inline: None, secret: None, ..JwtKeysSettings::default() }),
                &algorithms(&[ES256]),
            )
        };
        assert!(compile("keys/es.pem").is_ok());
        assert_eq!(codes(compile("keys/none.pem")), ["jwt-key-file"]);
        assert_eq!(codes(compile("keys")), ["jwt-key-file"]);
        // Was read until the memory was full.
        assert_eq!(codes(compile("/dev/zero")), ["jwt-key-file"]);
    }

    #[test]
    fn a_token_chooses_among_keys_and_never_adds_one() {
        let named = |kid: &str, mut key: serde_json::Value| {
            key["kid"] = kid.into();
            key
        };
        let set = inline(&jwks(&[named("r1", rsa_jwk()), named("r2", rsa_jwk()), named("e1", ec256_jwk())]), &[RS256, ES256]).unwrap();
        let chosen = |algorithm, kid| match set.find(algorithm, kid) {
            Ok(key) => key.kid.clone().unwrap(),
            Err(stop) => crate::policy::fixtures::refusal(Err(stop)).reason.unwrap(),
        };
        assert_eq!(chosen(RS256, Some("r2")), "r2");
        assert_eq!(chosen(ES256, None), "e1");
        assert_eq!(chosen(RS256, None), "has no `kid`, and more than one key serves RS256");
        assert_eq!(chosen(RS256, Some("x")), "no key has `kid` `x`; there are 3");
        assert_eq!(chosen(RS256, Some("e1")), "key `e1` does not serve RS256");
        assert_eq!(codes(inline(&jwks(&[named("r", rsa_jwk()), named("r", rsa_jwk())]), &[RS256])), ["jwt-keys-unsound"]);
    }

    #[test]
    fn where_no_key_has_a_name_that_of_a_token_is_not_asked_for() {
        let set = inline(&Signer::new(ES256).pem(), &[ES256]).unwrap();
        assert!(set.find(ES256, Some("whatever")).is_ok());
    }
}
