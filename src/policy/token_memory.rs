//! Remembers verified tokens, so that signature arithmetic is paid once per token.
//!
//! Decides how many are kept (by bytes) and how long. Does not verify: what is put in was verified; whether it is still in force is checked on every use.

use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};

use quick_cache::sync::Cache;
use quick_cache::{DefaultHashBuilder, Equivalent, OptionsBuilder, Weighter};

use super::claims::footprint;
use super::jwt::times::Times;
use super::principal::Identity;

/// How long a token is remembered at most, in milliseconds: after that its signature is checked again.
const LONGEST: u64 = 5 * 60 * 1000;

/// About what one entry takes besides its token and identity: map, counters, vectors.
const OVERHEAD: usize = 256;

/// Verified tokens of one authenticator. Found by a seeded hash, then compared byte for byte: two tokens are never taken for one another.
pub struct TokenMemory {
    tokens: Cache<Token, Remembered, ByBytes, Hashed>,
    capacity: u64,
    signatures: AtomicU64,
}

/// What is known of a verified token.
#[derive(Clone, Debug)]
pub struct Remembered {
    pub identity: Arc<Identity>,
    pub times: Times,
    /// When its signature was verified, in milliseconds since 1970.
    verified: u64,
    /// Of the keys that verified it: see [`Held`](super::jwt::published::Held).
    pub epoch: u64,
    bytes: u32,
}

#[derive(Clone)]
struct ByBytes;

/// A token and its hash, made once however many memories are asked for it.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'t> {
    hash: u64,
    token: &'t [u8],
}

struct Token {
    hash: u64,
    token: Box<[u8]>,
}

/// What it is given is a hash already.
#[derive(Clone, Default)]
struct Hashed(u64);

// === impl Asked ===

impl<'t> Asked<'t> {
    /// Seeded anew in each process: nobody can make two tokens one on purpose.
    pub fn new(token: &'t [u8]) -> Self {
        static SEED: LazyLock<DefaultHashBuilder> = LazyLock::new(DefaultHashBuilder::default);
        Asked { hash: SEED.hash_one(token), token }
    }
}

impl Hash for Asked<'_> {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        hasher.write_u64(self.hash);
    }
}

impl Equivalent<Token> for Asked<'_> {
    fn equivalent(&self, known: &Token) -> bool {
        self.hash == known.hash && *self.token == *known.token
    }
}

// === impl Token ===

impl Hash for Token {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        hasher.write_u64(self.hash);
    }
}

impl PartialEq for Token {
    fn eq(&self, other: &Token) -> bool {
        self.hash == other.hash && self.token == other.token
    }
}

impl Eq for Token {}

// === impl Hashed ===

impl BuildHasher for Hashed {
    type Hasher = Hashed;
    fn build_hasher(&self) -> Hashed {
        Hashed(0)
    }
}

impl Hasher for Hashed {
    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
    /// Not called: both keys write one number.
    fn write(&mut self, bytes: &[u8]) {
        self.0 = bytes.iter().fold(self.0, |hash, byte| hash.rotate_left(8) ^ u64::from(*byte));
    }
    fn finish(&self) -> u64 {
        self.0
    }
}

// === impl TokenMemory ===

impl TokenMemory {
    /// `capacity`: bytes.
    pub fn new(capacity: u64) -> Self {
        let items = usize::try_from(capacity / 4096).unwrap_or(usize::MAX).clamp(16, 65_536);
        let options =
            OptionsBuilder::new().estimated_items_capacity(items).weight_capacity(capacity).build().expect("both capacities are given");
        let tokens = Cache::with_options(options, ByBytes, Hashed::default(), Default::default());
        TokenMemory { tokens, capacity, signatures: AtomicU64::new(0) }
    }

    pub fn capacity(&self) -> u64 {
        self.capacity
    }

    /// What is known of this very token, in force or not.
    pub fn recall(&self, token: &[u8]) -> Option<Remembered> {
        self.tokens.get(&Asked::new(token))
    }

    /// Whether anything is known of this very token.
    pub fn knows(&self, asked: &Asked<'_>) -> bool {
        self.tokens.contains_key(asked)
    }

    /// Remembers a token that was verified at `now`. It may be forgotten at any time.
    pub fn remember(&self, token: &[u8], identity: &Arc<Identity>, times: Times, now: u64, epoch: u64) {
        let bytes = u32::try_from(token.len() + weigh(identity) + OVERHEAD).unwrap_or(u32::MAX);
        let key = Token { hash: Asked::new(token).hash, token: token.into() };
        self.tokens.insert(key, Remembered { identity: identity.clone(), times, verified: now, epoch, bytes });
    }

    /// Counts a signature that had to be checked.
    pub fn note_signature(&self) {
        self.signatures.fetch_add(1, Ordering::Relaxed);
    }

    /// How many signatures had to be checked since the memory was made.
    pub fn signatures(&self) -> u64 {
        self.signatures.load(Ordering::Relaxed)
    }

    /// How many tokens are remembered, and how many bytes they take.
    pub fn held(&self) -> (usize, u64) {
        (self.tokens.len(), self.tokens.weight())
    }
}

impl std::fmt::Debug for TokenMemory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenMemory").field("capacity", &self.capacity).field("held", &self.held()).finish_non_exhaustive()
    }
}

// === impl Remembered ===

impl Remembered {
    /// How long it has been known, in milliseconds. None where the clock was set back behind that moment.
    pub fn age(&self, now: u64) -> Option<u64> {
        now.checked_sub(self.verified)
    }

    /// Whether the signature was checked recently. Not so where the clock was set back behind that moment.
    pub fn is_fresh(&self, now: u64) -> bool {
        now.checked_sub(self.verified).is_some_and(|age| age < LONGEST)
    }
}

impl Weighter<Token, Remembered> for ByBytes {
    fn weight(&self, _: &Token, known: &Remembered) -> u64 {
        u64::from(known.bytes)
    }
}

/// About how many bytes an identity takes.
fn weigh(identity: &Identity) -> usize {
    let Identity {
        credential: _,
        authenticator: _,
        subject,
        consumer: _,
        key_id: _,
        signed_by,
        scopes,
        roles,
        claims,
        headers,
        claimed_plan: _,
        claimed_tags,
        expires: _,
        cleared: _,
        hashes: _,
        spelt,
    } = identity;
    let words = |list: &[String]| list.iter().map(|word| size_of::<String>() + word.len()).sum::<usize>();
    size_of::<Identity>()
        + subject.as_ref().map_or(0, String::len)
        + spelt.as_ref().map_or(0, |text| text.len())
        + signed_by.as_ref().map_or(0, |kid| kid.len())
        + claimed_tags.iter().map(|tag| size_of_val(tag) + 32 + tag.name.len() + tag.value.len()).sum::<usize>()
        + words(scopes)
        + words(roles)
        + footprint(claims)
        + headers.iter().map(|(name, value)| 96 + name.as_str().len() + value.len()).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::policy::fixtures::NOW;
    use crate::policy::jwt::times::{Demand, TimeRules};

    fn identity(subject: &str) -> Arc<Identity> {
        Arc::new(Identity {
            credential: crate::policy::principal::Credential::Token,
            authenticator: "idp".into(),
            subject: Some(subject.to_owned()),
            claims: json!({ "sub": subject }),
            ..Identity::default()
        })
    }

    fn times() -> Times {
        let claims = json!({ "exp": NOW + 3600 });
        Times::read(claims.as_object().unwrap(), &TimeRules { leeway: 0, max_lifetime: None }, Demand::Required).unwrap()
    }

    #[test]
    fn a_token_is_known_by_all_of_its_bytes() {
        let memory = TokenMemory::new(1 << 20);
        memory.remember(b"a.b.c", &identity("u1"), times(), 1000, 0);
        assert_eq!(memory.recall(b"a.b.c").unwrap().identity.subject.as_deref(), Some("u1"));
        for other in [&b"a.b.d"[..], b"a.b.", b"a.b.cc", b"A.b.c", b""] {
            assert!(memory.recall(other).is_none());
            assert!(!memory.knows(&Asked::new(other)));
        }
        assert!(memory.knows(&Asked::new(b"a.b.c")));
        // Two tokens of one hash are two all the same.
        assert!(!memory.knows(&Asked { hash: Asked::new(b"a.b.c").hash, token: b"a.b.d" }));
    }

    #[test]
    fn a_token_is_fresh_for_five_minutes_and_not_before_it_was_verified() {
        let memory = TokenMemory::new(1 << 20);
        memory.remember(b"t", &identity("u1"), times(), 1_000_000, 0);
        let known = memory.recall(b"t").unwrap();
        assert!(known.is_fresh(1_000_000));
        assert!(known.is_fresh(1_299_999));
        assert!(!known.is_fresh(1_300_000));
        assert!(!known.is_fresh(999_999));
    }

    #[test]
    fn the_memory_stays_within_its_bytes() {
        let memory = TokenMemory::new(256 * 1024);
        for n in 0..20_000 {
            memory.remember(format!("{n:0800}").as_bytes(), &identity("u"), times(), 0, 0);
        }
        let (tokens, bytes) = memory.held();
        assert!(bytes <= 256 * 1024, "{bytes}");
        assert!(tokens > 50, "{tokens} tokens in {bytes} bytes");
    }
}
