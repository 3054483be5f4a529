//! Finds what belongs to the SHA-256 of an API key, among ten as among a million.
//!
//! Decides nothing about keys. Digests are spread evenly already, so their first bytes are the hash of the table.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use aws_lc_rs::constant_time::verify_slices_are_equal;

use super::api_key::KeyHash;

/// Values by the hashes of keys.
#[derive(Debug)]
pub struct KeyTable<T> {
    /// In the order of the hashes.
    entries: Vec<(KeyHash, T)>,
    /// By the first eight bytes of a hash: where the entries with those begin.
    first: HashMap<u64, u32, BuildHasherDefault<AsItIs>>,
}

/// Takes a number for its own hash.
#[derive(Default)]
struct AsItIs(u64);

// === impl KeyTable ===

impl<T> Default for KeyTable<T> {
    fn default() -> Self {
        KeyTable { entries: Vec::new(), first: HashMap::default() }
    }
}

impl<T> KeyTable<T> {
    /// # Errors
    /// A hash that stands twice, with both values.
    pub fn new(mut entries: Vec<(KeyHash, T)>) -> Result<Self, (KeyHash, T, T)> {
        entries.sort_unstable_by_key(|(hash, _)| *hash);
        if let Some(at) = entries.windows(2).position(|pair| pair[0].0 == pair[1].0) {
            let mut twice = entries.drain(at..at + 2);
            if let (Some((hash, one)), Some((_, two))) = (twice.next(), twice.next()) {
                return Err((hash, one, two));
            }
        }
        let mut first = HashMap::with_capacity_and_hasher(entries.len(), BuildHasherDefault::default());
        for (at, (hash, _)) in entries.iter().enumerate() {
            first.entry(prefix(hash)).or_insert(u32::try_from(at).unwrap_or(u32::MAX));
        }
        Ok(KeyTable { entries, first })
    }

    /// What an attacker could time is the search for a hash, whose digits they cannot choose; the comparison that counts takes the
    /// same time always.
    pub fn find(&self, hash: &KeyHash) -> Option<&T> {
        let at = *self.first.get(&prefix(hash))? as usize;
        let candidates = self.entries[at..].iter().take_while(|(own, _)| own[..8] == hash[..8]);
        candidates.fold(None, |found, (own, value)| if verify_slices_are_equal(own, hash).is_ok() { Some(value) } else { found })
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = &(KeyHash, T)> {
        self.entries.iter()
    }
}

fn prefix(hash: &KeyHash) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = *hash;
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        // Never asked of numbers.
        bytes.iter().for_each(|byte| self.0 = self.0.rotate_left(8) ^ u64::from(*byte));
    }
    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(first: u8, last: u8) -> KeyHash {
        let mut hash = [first; 32];
        hash[31] = last;
        hash
    }

    #[test]
    fn what_begins_alike_is_told_apart_by_all_of_its_bytes() {
        let table = KeyTable::new(vec![(hash(2, 1), "c"), (hash(1, 2), "b"), (hash(1, 1), "a")]).unwrap();
        assert_eq!(table.len(), 3);
        for (asked, found) in
            [(hash(1, 1), Some("a")), (hash(1, 2), Some("b")), (hash(1, 3), None), (hash(2, 1), Some("c")), (hash(3, 1), None)]
        {
            assert_eq!(table.find(&asked).copied(), found);
        }
    }

    #[test]
    fn a_key_that_stands_twice_is_told_with_both() {
        let told = KeyTable::new(vec![(hash(1, 1), "a"), (hash(2, 1), "b"), (hash(1, 1), "c")]).unwrap_err();
        assert_eq!(told.0, hash(1, 1));
        assert_ne!(told.1, told.2);
    }
}
