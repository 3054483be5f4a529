//! Decides a request's id: what a trusted proxy said, or a new one. Does not decide who is trusted: see `client_ip.rs`.
//!
//! An id ties log lines together. It is no secret and proves nothing, but it must not repeat.

use std::cell::Cell;
use std::hash::{BuildHasher, Hasher, RandomState};

use http::{HeaderMap, HeaderName, HeaderValue};
use smallvec::SmallVec;

use crate::config::types::Percent;
use crate::relay::balance::maglev::hash;

/// The header that carries the id, in both directions.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The longest id that is accepted, in characters.
const LONGEST: usize = 128;

/// A request id, as logged, returned and forwarded: 1 to 128 characters of `[A-Za-z0-9._~:/+=-]`.
///
/// Made here it is 128 random bits as 32 hex digits. Empty only before [`RequestId::decide`] ran.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestId(SmallVec<[u8; 40]>);

// === impl RequestId ===

impl RequestId {
    /// The id that a trusted peer sent in exactly one `X-Request-ID`, where it is well formed; else a new one.
    pub fn decide(peer_is_trusted: bool, headers: &HeaderMap) -> Self {
        if !peer_is_trusted {
            return Self::make();
        }
        let mut lines = headers.get_all(&X_REQUEST_ID).iter();
        match (lines.next(), lines.next()) {
            (Some(only), None) => Self::accept(only.as_bytes()).unwrap_or_else(Self::make),
            // Two ids have two readings, none has none.
            (Some(_), Some(_)) | (None, _) => Self::make(),
        }
    }

    /// A new id that no other request has.
    pub fn make() -> Self {
        let mut digits = [0; 32];
        write_hex(&random_bytes::<16>(), &mut digits);
        RequestId(SmallVec::from_slice(&digits))
    }

    /// Takes over what was sent, where it is well formed.
    pub fn accept(sent: &[u8]) -> Option<Self> {
        let is_well_formed =
            (1..=LONGEST).contains(&sent.len()) && sent.iter().all(|byte| byte.is_ascii_alphanumeric() || b"._~:/+=-".contains(byte));
        is_well_formed.then(|| RequestId(SmallVec::from_slice(sent)))
    }

    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("an id is ASCII: made here or checked by `accept`")
    }

    /// Whether this request is among a share of all. What is drawn for different purposes (`what`) is independent.
    pub fn falls_into(&self, share: Percent, what: &[u8]) -> bool {
        let drawn = hash(&[what, &self.0]);
        (u128::from(drawn) * 10_000) >> 64 < u128::from(share.0)
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// For `X-Request-ID`, to the upstream and to the client.
    pub fn to_header_value(&self) -> HeaderValue {
        HeaderValue::from_bytes(&self.0).expect("an id has only characters that a header may hold")
    }
}

/// Two lower-case hex digits for each byte.
pub(super) fn write_hex(bytes: &[u8], digits: &mut [u8]) {
    for (pair, byte) in digits.as_chunks_mut().0.iter_mut().zip(bytes) {
        *pair = HEX[usize::from(*byte)];
    }
}

/// The digits of every byte.
static HEX: [[u8; 2]; 256] = {
    let digits = b"0123456789abcdef";
    let mut pairs = [[0; 2]; 256];
    let mut byte = 0;
    while byte < 256 {
        pairs[byte] = [digits[byte >> 4], digits[byte & 15]];
        byte += 1;
    }
    pairs
};

/// Random bytes that do not repeat but are not secret: one generator per thread, seeded by the kernel.
pub(super) fn random_bytes<const N: usize>() -> [u8; N] {
    thread_local! {
        static STATE: Cell<[u64; 4]> = Cell::new(seed());
    }
    let mut bytes = [0; N];
    STATE.with(|cell| {
        let mut state = cell.get();
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&step(&mut state).to_le_bytes()[..chunk.len()]);
        }
        cell.set(state);
    });
    bytes
}

/// One step of xoshiro256++ (Blackman and Vigna): 2^256 states, so that threads never meet.
fn step(s: &mut [u64; 4]) -> u64 {
    let result = s[0].wrapping_add(s[3]).rotate_left(23).wrapping_add(s[0]);
    let shifted = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= shifted;
    s[3] = s[3].rotate_left(45);
    result
}

fn seed() -> [u64; 4] {
    let mut bytes = [0; 32];
    if getrandom::fill(&mut bytes).is_err() {
        // The standard library has other sources, and an id is not a secret.
        for chunk in bytes.chunks_exact_mut(8) {
            chunk.copy_from_slice(&RandomState::new().build_hasher().finish().to_le_bytes());
        }
    }
    let mut words = [0; 4];
    for (word, chunk) in words.iter_mut().zip(bytes.chunks_exact(8)) {
        *word = u64::from_le_bytes(chunk.try_into().expect("a chunk of eight bytes"));
    }
    // The state of all zeros would stay there for ever.
    words[0] |= 1;
    words
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn sent(values: &[&str]) -> HeaderMap {
        values.iter().map(|value| (X_REQUEST_ID, HeaderValue::from_str(value).unwrap())).collect()
    }

    #[test]
    fn an_id_made_here_is_32_hex_digits_and_never_repeats() {
        let mut seen = HashSet::new();
        for _ in 0..10_000 {
            let id = RequestId::make();
            assert_eq!(id.as_str().len(), 32);
            assert!(id.as_str().bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')), "{id:?}");
            assert!(!id.0.spilled());
            assert!(seen.insert(id.as_str().to_owned()));
        }
        let elsewhere = std::thread::spawn(|| (0..1_000).map(|_| RequestId::make()).collect::<Vec<_>>()).join().unwrap();
        assert!(elsewhere.iter().all(|id| seen.insert(id.as_str().to_owned())));
    }

    #[test]
    fn every_half_of_a_made_id_changes() {
        let ids: Vec<_> = (0..64).map(|_| RequestId::make()).collect();
        for place in 0..32 {
            assert!(ids.iter().any(|id| id.0[place] != ids[0].0[place]), "digit {place} is always the same");
        }
    }

    #[test]
    fn a_trusted_peer_names_the_request() {
        for id in ["7", "3f2c-9.a_b~c:d/e+f=", &"x".repeat(128)] {
            assert_eq!(RequestId::decide(true, &sent(&[id])).as_str(), id);
            assert_eq!(RequestId::decide(true, &sent(&[id])).to_header_value(), id);
        }
    }

    #[test]
    fn an_untrusted_peer_does_not_name_the_request() {
        assert_ne!(RequestId::decide(false, &sent(&["mine"])).as_str(), "mine");
    }

    #[test]
    fn an_id_that_is_malformed_or_sent_twice_is_replaced() {
        for bad in ["", " ", "a b", "a,b", "a\"b", "a;b", "a\u{e9}", "<script>", &"x".repeat(129)] {
            assert_eq!(RequestId::decide(true, &sent(&[bad])).as_str().len(), 32, "{bad}");
        }
        let twice = RequestId::decide(true, &sent(&["a", "a"]));
        assert_eq!(twice.as_str().len(), 32);
        assert_eq!(RequestId::decide(true, &HeaderMap::new()).as_str().len(), 32);
    }
}
