//! Names of limits and of buckets: 128 bits of SipHash-1-3. Decides nothing.

use std::hash::Hasher;

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

/// Who is counted, under a seed.
pub fn caller_under(seed: [u64; 2], kind: u8, parts: &[&[u8]]) -> u128 {
    hash_under(seed, &[kind], parts)
}

/// The bucket that a limit has for a caller. Two callers meet in one where their hashes differ by what two limits' names do, which nobody
/// can bring about who does not know the seed: the chance is that of any two hashes of 128 bits.
pub fn bucket_of(caller: u128, identity: u128) -> u128 {
    caller ^ identity
}

/// Whose bucket, under a seed that several processes share.
pub fn key_under(seed: [u64; 2], identity: u128, kind: u8, parts: &[&[u8]]) -> u128 {
    let mut head = [kind; 17];
    head[..16].copy_from_slice(&identity.to_le_bytes());
    hash_under(seed, &head, parts)
}

fn hash_under([low, high]: [u64; 2], head: &[u8], parts: &[&[u8]]) -> u128 {
    let mut hasher = SipHasher13::new_with_keys(low, high);
    let mut short = [0; SHORT];
    let all = head.len() + parts.iter().map(|part| 8 + part.len()).sum::<usize>();
    if all > SHORT {
        hasher.write(head);
        parts.iter().for_each(|part| write_part(&mut hasher, part));
        return hasher.finish128().as_u128();
    }
    // The same bytes in one piece, which is several times cheaper to hash.
    let mut end = head.len();
    short[..end].copy_from_slice(head);
    for part in parts {
        short[end..end + 8].copy_from_slice(&(part.len() as u64).to_le_bytes());
        short[end + 8..end + 8 + part.len()].copy_from_slice(part);
        end += 8 + part.len();
    }
    hasher.hash(&short[..end]).as_u128()
}
