//! Decides which of several upstreams has a request by their shares: a caller that can be told from others always the same one.
//!
//! The draw is a function of the request alone, so that every gateway, an upgraded one, and `explain` draw the same. Callers are placed
//! by weighted rendezvous (Schindelhauer and Schomaker, "Weighted Distributed Hash Tables", 2005): where a share grows, callers
//! move to it and nowhere else, whatever the order in the file.

use crate::relay::balance::maglev;

/// Shares, as they run.
#[derive(Debug)]
pub struct Shares {
    all: Box<[Share]>,
    total: u64,
}

#[derive(Debug)]
struct Share {
    /// Of the upstream's name.
    seed: u64,
    weight: u32,
    to: usize,
}

// === impl Shares ===

impl Shares {
    /// Upstreams by name, each with its weight and what it is called by the route.
    pub fn new<'n>(shares: impl Iterator<Item = (&'n str, u32, usize)>) -> Self {
        let share = |(name, weight, to): (&str, u32, usize)| Share { seed: maglev::hash(&[b"split", name.as_bytes()]), weight, to };
        let all: Box<[_]> = shares.map(share).collect();
        Shares { total: all.iter().map(|share| u64::from(share.weight)).sum(), all }
    }

    /// For the caller with this key: always the same.
    pub fn of_key(&self, key: u64) -> usize {
        let cost = |share: &Share| (distance(mixed(key ^ share.seed)), u128::from(share.weight));
        // Compared as fractions, without a division.
        let nearer = |one: &(u128, u128), other: &(u128, u128)| (one.0 * other.1).cmp(&(other.0 * one.1));
        self.all.iter().min_by(|one, other| nearer(&cost(one), &cost(other))).map_or(0, |share| share.to)
    }

    /// For a request that tells nothing of its caller: as its id falls, which is random.
    pub fn of_id(&self, id: &[u8]) -> usize {
        let mut left = ((u128::from(maglev::hash(&[b"chance", id])) * u128::from(self.total)) >> 64) as u64;
        let mut taken = |share: &&Share| match left.checked_sub(u64::from(share.weight)) {
            Some(rest) => {
                left = rest;
                false
            }
            None => true,
        };
        self.all.iter().find(&mut taken).map_or(0, |share| share.to)
    }

    /// What the upstream has of all.
    pub fn share_of(&self, to: usize) -> (u32, u64) {
        (self.all.iter().find(|share| share.to == to).map_or(0, |share| share.weight), self.total)
    }

    /// Every upstream that has a share.
    pub fn upstreams(&self) -> impl Iterator<Item = usize> {
        self.all.iter().map(|share| share.to)
    }
}

/// The finish of splitmix64: every bit depends on every other.
fn mixed(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

/// Bits behind the point of [`distance`].
const FRACTION: u32 = 24;

/// How far a random number is below 1, on a scale of logarithms: the negative binary logarithm of `bits / 2^64`. In whole numbers, because
/// libraries round logarithms each in its own way, and gateways have to agree.
fn distance(bits: u64) -> u128 {
    let bits = bits | 1;
    let zeros = bits.leading_zeros();
    let mut log = u128::from(63 - zeros) << FRACTION;
    // From 1 to below 2, with 63 bits behind the point; squared, its logarithm doubles, and what reaches 2 is the next bit.
    let mut mantissa = u128::from(bits << zeros);
    for bit in (0..FRACTION).rev() {
        mantissa = (mantissa * mantissa) >> 63;
        if mantissa >> 64 > 0 {
            mantissa >>= 1;
            log |= 1 << bit;
        }
    }
    (64 << FRACTION) - log
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(all: &[(&str, u32)]) -> Shares {
        Shares::new(all.iter().enumerate().map(|(to, (name, weight))| (*name, *weight, to)))
    }

    /// Indices for so many callers.
    fn callers(shares: &Shares, n: u64) -> Vec<usize> {
        (0..n).map(|caller| shares.of_key(maglev::hash(&[b"header", &caller.to_le_bytes()]))).collect()
    }

    fn count(of: &[usize], to: usize) -> usize {
        of.iter().filter(|one| **one == to).count()
    }

    #[test]
    fn callers_and_requests_are_shared_by_weight() {
        let split = shares(&[("stable", 95), ("canary", 5)]);
        let sticky = callers(&split, 100_000);
        assert!(count(&sticky, 1).abs_diff(5_000) < 300, "{}", count(&sticky, 1));
        let drawn: Vec<_> = (0..100_000u32).map(|id| split.of_id(format!("{id:032x}").as_bytes())).collect();
        assert!(count(&drawn, 1).abs_diff(5_000) < 300, "{}", count(&drawn, 1));
        let split = shares(&[("a", 1), ("b", 2), ("c", 7)]);
        let sticky = callers(&split, 100_000);
        for (to, share) in [10_000, 20_000, 70_000].into_iter().enumerate() {
            assert!(count(&sticky, to).abs_diff(share) < 700, "{to}: {}", count(&sticky, to));
        }
        let split = shares(&[("a", 1), ("b", 1_000_000)]);
        assert!(count(&callers(&split, 100_000), 0) < 5);
    }

    #[test]
    fn a_growing_share_takes_callers_and_moves_no_other() {
        let before = callers(&shares(&[("a", 60), ("b", 35), ("c", 5)]), 20_000);
        let after = callers(&shares(&[("a", 60), ("b", 35), ("c", 20)]), 20_000);
        let moved: Vec<_> = before.iter().zip(&after).filter(|(was, is)| was != is).collect();
        assert!(moved.iter().all(|(_, is)| **is == 2) && moved.len() > 1_000, "{}", moved.len());
    }

    #[test]
    fn the_order_in_the_file_moves_nobody() {
        let before = callers(&shares(&[("a", 3), ("b", 1)]), 1_000);
        let after = callers(&shares(&[("b", 1), ("a", 3)]), 1_000);
        assert!(before.iter().zip(&after).all(|(one, other)| one != other), "the same upstream, whose index is the other one");
    }

    #[test]
    fn what_was_drawn_once_is_drawn_by_every_later_version() {
        // Callers would change sides with an upgrade.
        let split = shares(&[("stable", 70), ("canary", 30)]);
        let sides = |of: &dyn Fn(u64) -> usize| (0..40).map(|n| char::from(b'0' + of(n) as u8)).collect::<String>();
        assert_eq!(
            sides(&|n| split.of_key(maglev::hash(&[b"consumer", format!("c{n}").as_bytes()]))),
            "0000000000001101000101101100100010000001"
        );
        assert_eq!(sides(&|n| split.of_id(format!("{n:032x}").as_bytes())), "0110111100100000110110100000001110101000");
    }

    #[test]
    fn the_distance_is_a_logarithm() {
        let exact = |bits: u64| -((bits as f64) / 2f64.powi(64)).log2();
        for bits in [1, 3, 1 << 20, u64::MAX / 3, 1 << 63, (1 << 63) + (1 << 62), u64::MAX] {
            let found = distance(bits) as f64 / f64::from(1 << FRACTION);
            assert!((found - exact(bits | 1)).abs() < 1e-6, "{bits}: {found} {}", exact(bits));
        }
    }
}
