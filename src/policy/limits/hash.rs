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
    fn gateways_that_share_a_store_have_the_same_names_for_a_caller() {
        // Another name here makes gateways of this and an earlier version count apart.
        let limit = identity("limit", "subjects", None);
        let name = |subject: &[u8]| format!("{:032x}", bucket_of(caller_under([1, 2], 1, &[b"idp", subject]), limit));
        assert_eq!(name(b"alice"), "3a014666609adfdea42330291d91c812");
        assert_eq!(name(&[b'a'; 200]), "26e702b673e2bb66929f4ee86763f4b9", "not in one piece");
    }
}
