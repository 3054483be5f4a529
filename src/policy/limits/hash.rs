//! Names of limits and of buckets: 128 bits of SipHash-1-3. Decides nothing.

use std::fmt;
use std::hash::Hasher;
use std::sync::OnceLock;

use siphasher::sip128::{Hasher128, SipHasher13};

/// Keys of at most so many bytes are hashed in one piece: consumers, subjects, addresses.
const SHORT: usize = 128;

/// Which limit: the same in every process. `route` where each route has buckets of its own.
pub fn identity(what: &str, name: &str, route: Option<&str>) -> u128 {
    let mut hasher = SipHasher13::new_with_keys(0, 0);
    for part in [Some(what), Some(name), route].into_iter().flatten() {
        write_part(&mut hasher, part.as_bytes());
    }
    hasher.finish128().as_u128()
}

/// With its length, so that no two lists of parts read the same.
fn write_part(hasher: &mut SipHasher13, part: &[u8]) {
    hasher.write(&(part.len() as u64).to_le_bytes());
    hasher.write(part);
}

/// The same for one part of so many bytes, without a loop over parts.
#[inline]
pub fn caller_of<const N: usize>([low, high]: [u64; 2], kind: u8, part: &[u8; N]) -> u128 {
    // Of addresses alone, and that much less to clear.
    const ROOM: usize = 24;
    const { assert!(N <= ROOM - 9) };
    let mut all = [0; ROOM];
    all[0] = kind;
    all[1..9].copy_from_slice(&(N as u64).to_le_bytes());
    all[9..9 + N].copy_from_slice(part);
    SipHasher13::new_with_keys(low, high).hash(&all[..9 + N]).as_u128()
}

/// The hashes of a caller, kept with what is known of it: each made once, under the first two seeds that it is asked for under. Those are
/// that of the process and that of gateways which share limits.
#[derive(Default)]
pub struct Kept([OnceLock<[u64; 4]>; 2]);

// === impl Kept ===

impl Kept {
    /// The hash under a seed, which `make` makes where it is none of those that are kept.
    #[inline(always)]
    pub fn under(&self, seed: [u64; 2], make: impl Fn() -> u128) -> u128 {
        for one in &self.0 {
            if let Some([first, second, low, high]) = one.get()
                && [*first, *second] == seed
            {
                return u128::from(*low) | u128::from(*high) << 64;
            }
        }
        self.keep(seed, make)
    }

    #[inline(never)]
    fn keep(&self, seed: [u64; 2], make: impl Fn() -> u128) -> u128 {
        let caller = make();
        // The first of two who come at once is who keeps it; under a third seed nobody does.
        let made = [seed[0], seed[1], caller as u64, (caller >> 64) as u64];
        for one in &self.0 {
            let [first, second, ..] = *one.get_or_init(|| made);
            if [first, second] == seed {
                break;
            }
        }
        caller
    }
}

/// It is nobody's business: who knows it could look for others that lie beside it.
impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Kept")
    }
}

/// The bucket that a limit has for a caller. Two callers meet in one where their hashes differ by what two limits' names do, which nobody
/// can bring about who does not know the seed: the chance is that of any two hashes of 128 bits.
pub fn bucket_of(caller: u128, identity: u128) -> u128 {
    caller ^ identity
}

/// Who is counted, under a seed: that of a process, or the one that gateways share.
pub fn caller_under([low, high]: [u64; 2], kind: u8, parts: &[&[u8]]) -> u128 {
    let mut hasher = SipHasher13::new_with_keys(low, high);
    let mut short = [0; SHORT];
    let all = 1 + parts.iter().map(|part| 8 + part.len()).sum::<usize>();
    if all > SHORT {
        hasher.write(&[kind]);
        parts.iter().for_each(|part| write_part(&mut hasher, part));
        return hasher.finish128().as_u128();
    }
    // The same bytes in one piece, which is several times cheaper to hash.
    let mut end = 1;
    short[0] = kind;
    for part in parts {
        short[end..end + 8].copy_from_slice(&(part.len() as u64).to_le_bytes());
        short[end + 8..end + 8 + part.len()].copy_from_slice(part);
        end += 8 + part.len();
    }
    hasher.hash(&short[..end]).as_u128()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_a_known_length_is_hashed_as_any_other() {
        for seed in [[0, 0], [1, 2], [u64::MAX, 7]] {
            assert_eq!(caller_of(seed, 3, &[192, 0, 2, 1]), caller_under(seed, 3, &[&[192, 0, 2, 1]]));
            assert_eq!(caller_of(seed, 4, b"8 bytes."), caller_under(seed, 4, &[b"8 bytes."]));
        }
    }

    #[test]
    fn what_is_kept_is_of_one_seed_and_another_is_not_given_it() {
        let kept = Kept::default();
        let ask = |seed: [u64; 2]| kept.under(seed, || caller_under(seed, 1, &[b"idp", b"alice"]));
        for seed in [[1, 2], [1, 2], [1, 3], [0, 2], [1, 2], [1, 3]] {
            assert_eq!(ask(seed), caller_under(seed, 1, &[b"idp", b"alice"]));
        }
        for seed in [[1, 2], [1, 3]] {
            assert_eq!(kept.under(seed, || panic!("it is kept")), ask(seed));
        }
    }

    #[test]
    fn gateways_that_share_a_store_have_the_same_names_for_a_caller() {
        // Another name here makes gateways of this and an earlier version count apart.
        let limit = identity("limit", "subjects", None);
        let name = |subject: &[u8]| format!("{:032x}", bucket_of(caller_under([1, 2], 1, &[b"idp", subject]), limit));
        assert_eq!(name(b"alice"), "3a014666609adfdea42330291d91c812");
        assert_eq!(name(&[b'a'; 200]), "26e702b673e2bb66929f4ee86763f4b9", "not in one piece");
    }
}
