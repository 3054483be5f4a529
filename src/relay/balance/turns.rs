//! Turns by weight: a table in which each target has as many places as its weight says, spread evenly, so that the next is one access.
//!
//! Does not decide whether whoever has the turn can take it.

/// Who has its turn when.
#[derive(Debug)]
pub struct Turns(Box<[u32]>);

/// A table is not longer, unless there are so many targets that each would have few places; then shares are right within this part.
const LONGEST: u64 = 1 << 16;
const LEAST_PLACES: u64 = 64;

// === impl Turns ===

impl Turns {
    /// For these weights, at least one.
    pub fn new(weights: &[u16]) -> Turns {
        let divisor = weights.iter().fold(0, |divisor, weight| common(divisor, u64::from(*weight))).max(1);
        let total: u64 = weights.iter().map(|weight| u64::from(*weight) / divisor).sum();
        let longest = LONGEST.max(weights.len() as u64 * LEAST_PLACES);
        let places = |weight: u16| {
            let weight = u64::from(weight) / divisor;
            if total <= longest { weight } else { (weight * longest / total).max(1) }
        };
        // Each target's places divide the time of the table evenly. It begins at a moment of its own, or all the light ones would
        // have their turn at once.
        let mut turns: Vec<(u64, u32)> = Vec::with_capacity(total.min(longest) as usize);
        for (index, weight) in weights.iter().enumerate() {
            let (count, begin) = (places(*weight), (index as u64 + 1).wrapping_mul(0x9e37_79b9) & 0xffff_ffff);
            turns.extend((0..count).map(|turn| (((turn << 32) + begin) / count, index as u32)));
        }
        turns.sort_unstable();
        Turns(turns.into_iter().map(|(_, index)| index).collect())
    }

    pub fn at(&self, turn: usize) -> usize {
        self.0[turn % self.0.len()] as usize
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }
}

/// The greatest common divisor; of 0 and something, that.
fn common(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { common(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(turns: &Turns, targets: usize) -> Vec<usize> {
        (0..targets).map(|index| (0..turns.len()).filter(|turn| turns.at(*turn) == index).count()).collect()
    }

    #[test]
    fn everyone_has_as_many_turns_as_its_weight_says_spread_evenly() {
        let turns = Turns::new(&[10, 2, 2]);
        assert_eq!((turns.len(), counts(&turns, 3)), (7, vec![5, 1, 1]));
        let longest = (0..7).map(|from| (from..).take_while(|turn| turns.at(*turn) == 0).count()).max().unwrap();
        assert!(longest <= 4, "the heavy one has {longest} turns in a row");
        let turns = Turns::new(&[65535, 1]);
        assert_eq!(counts(&turns, 2), [65535, 1]);
        for weights in [&[3, 2][..], &[7, 5, 3, 1], &[100, 99, 1]] {
            let turns = Turns::new(weights);
            let total: usize = weights.iter().map(|weight| usize::from(*weight)).sum();
            for (index, weight) in weights.iter().enumerate() {
                // In any stretch of turns, a target has what it should within two.
                let mut had = 0.0_f64;
                for turn in 0..total {
                    had += f64::from(u8::from(turns.at(turn) == index));
                    let due = (turn + 1) as f64 * f64::from(*weight) / total as f64;
                    assert!((had - due).abs() < 2.0, "{weights:?}: {index} had {had} of {due}");
                }
            }
        }
    }

    #[test]
    fn many_targets_of_large_weights_have_their_shares_in_a_table_of_bounded_length() {
        let weights: Vec<u16> = (0..1000).map(|index| 1 + index * 65).collect();
        let turns = Turns::new(&weights);
        assert!(turns.len() <= 66_000, "{}", turns.len());
        let total: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
        for (index, count) in counts(&turns, 1000).into_iter().enumerate().skip(500) {
            let due = turns.len() as f64 * f64::from(weights[index]) / total as f64;
            assert!((count as f64 - due).abs() <= 1.5, "{index}: {count} of {due}");
        }
    }
}
