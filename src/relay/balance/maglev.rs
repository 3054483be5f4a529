//! Gives each key a target of its own, and few keys another one where targets come and go.
//!
//! The table of Maglev (Eisenbud and others, NSDI 2016, section 3.4): every target takes the next free place of its own permutation
//! in turn, as often as its weight says. A lookup is one access, whatever the number of targets. Does not know which targets work.

use std::hash::Hasher;

use siphasher::sip::SipHasher13;

/// Which target has which keys.
#[derive(Debug)]
pub struct Maglev {
    places: Box<[u32]>,
}

/// Primes; the table has at least a hundred places for each target, so that shares are right within a hundredth.
const SIZES: [u64; 6] = [1021, 4093, 16_381, 65_537, 262_147, 1_048_583];

/// The same in every process and on every gateway: a key has the same target everywhere.
const KEYS: (u64, u64) = (0x736c_7569_6365_2d68, 0x6173_682d_6b65_7973);

const FREE: u32 = u32::MAX;

/// Of what requests are told apart by.
pub fn hash(parts: &[&[u8]]) -> u64 {
    let mut hasher = SipHasher13::new_with_keys(KEYS.0, KEYS.1);
    for part in parts {
        hasher.write(&(part.len() as u64).to_le_bytes());
        hasher.write(part);
    }
    hasher.finish()
}

// === impl Maglev ===

impl Maglev {
    /// For targets of these names, at least one, all different, and their weights. Their order does not matter but for ties.
    pub fn new(names: &[&str], weights: &[u16]) -> Maglev {
        let wanted = names.len() as u64 * 100;
        let size = SIZES.into_iter().find(|size| *size >= wanted).unwrap_or(SIZES[SIZES.len() - 1]);
        let heaviest = u32::from(weights.iter().copied().max().unwrap_or(1));
        let mut takers: Vec<_> = names
            .iter()
            .zip(weights)
            .enumerate()
            .map(|(index, (name, weight))| {
                let name = name.as_bytes();
                let next = hash(&[name, b"offset"]) % size;
                (index as u32, u32::from(*weight), next, hash(&[name, b"skip"]) % (size - 1) + 1, 0)
            })
            .collect();
        // By name, so that a file in another order makes the same table.
        takers.sort_by_key(|taker| names[taker.0 as usize]);
        let mut places = vec![FREE; size as usize].into_boxed_slice();
        let mut free = size;
        'full: loop {
            for (index, weight, next, skip, credit) in &mut takers {
                *credit += *weight;
                while *credit >= heaviest {
                    *credit -= heaviest;
                    while places[*next as usize] != FREE {
                        *next = (*next + *skip) % size;
                    }
                    places[*next as usize] = *index;
                    free -= 1;
                    if free == 0 {
                        break 'full;
                    }
                }
            }
        }
        Maglev { places }
    }

    /// The index of the target that a key has; for `n` above 0 that which stands in for it, the same every time.
    pub fn index(&self, key: u64, n: u64) -> usize {
        let mixed = (key ^ n.wrapping_mul(0x9e37_79b9_7f4a_7c15)).wrapping_mul(0xff51_afd7_ed55_8ccd);
        let high = u128::from(mixed ^ mixed >> 32).wrapping_mul(self.places.len() as u128) >> 64;
        self.places[high as usize] as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(count: usize) -> Vec<String> {
        (0..count).map(|n| format!("10.0.{}.{}:80", n / 250, n % 250)).collect()
    }

    fn table(names: &[String], weights: &[u16]) -> Maglev {
        Maglev::new(&names.iter().map(String::as_str).collect::<Vec<_>>(), weights)
    }

    fn key(n: u64) -> u64 {
        hash(&[&n.to_le_bytes()])
    }

    #[test]
    fn keys_are_shared_by_weight() {
        let table = table(&names(3), &[1, 2, 7]);
        let mut counts = [0u32; 3];
        (0..100_000).for_each(|n| counts[table.index(key(n), 0)] += 1);
        for (count, share) in counts.iter().zip([10_000, 20_000, 70_000]) {
            assert!(count.abs_diff(share) < share / 20, "{counts:?}");
        }
    }

    #[test]
    fn a_target_that_goes_takes_few_keys_of_the_others_along() {
        for count in [3, 10, 100] {
            let before = names(count);
            let mut after = before.clone();
            let gone = after.remove(count / 2);
            let (old, new) = (table(&before, &vec![1; count]), table(&after, &vec![1; count - 1]));
            let keys = 20_000;
            let moved = (0..keys)
                .filter(|n| {
                    let was = &before[old.index(key(*n), 0)];
                    *was != gone && *was != after[new.index(key(*n), 0)]
                })
                .count();
            assert!(moved < keys as usize / 20, "{moved} of {keys} keys moved without need among {count}");
        }
    }

    #[test]
    fn the_order_in_the_file_does_not_matter() {
        let forwards = names(7);
        let backwards: Vec<_> = forwards.iter().rev().cloned().collect();
        let (one, other) = (table(&forwards, &[1, 2, 3, 4, 5, 6, 7]), table(&backwards, &[7, 6, 5, 4, 3, 2, 1]));
        assert!((0..10_000).all(|n| forwards[one.index(key(n), 0)] == backwards[other.index(key(n), 0)]));
    }

    #[test]
    fn who_stands_in_is_not_one_for_all() {
        let table = table(&names(10), &[1; 10]);
        let stand_ins: std::collections::BTreeSet<_> =
            (0..1000).filter(|n| table.index(key(*n), 0) == 4).map(|n| table.index(key(n), 1)).collect();
        assert_eq!(stand_ins.len(), 10, "the keys of a target that is out are shared by all: {stand_ins:?}");
    }
}
