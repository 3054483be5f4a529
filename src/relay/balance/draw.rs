//! Draws an index by weight in constant time. Does not decide whether what was drawn can be used.

/// The alias method: every index is one column, filled up by at most one other index.
#[derive(Debug)]
pub struct Draw {
    /// (the share of its own column in units of 2^-32, the index that owns the rest).
    columns: Box<[(u64, u32)]>,
}

// === impl Draw ===

impl Draw {
    /// Vose's construction in integers.
    pub fn new(weights: &[u16]) -> Draw {
        let count = weights.len() as u64;
        let total: u64 = weights.iter().map(|w| u64::from(*w)).sum();
        // What each index has, in units in which a column holds `total`.
        let mut left: Vec<u64> = weights.iter().map(|w| u64::from(*w) * count).collect();
        let mut columns: Vec<(u64, u32)> = (0..weights.len()).map(|i| (1 << 32, i as u32)).collect();
        let (mut poor, mut rich): (Vec<usize>, Vec<usize>) = (0..weights.len()).partition(|i| left[*i] < total);
        while let (Some(small), Some(large)) = (poor.pop(), rich.pop()) {
            columns[small] = ((left[small] << 32) / total, large as u32);
            left[large] -= total - left[small];
            if left[large] < total { poor.push(large) } else { rich.push(large) }
        }
        Draw { columns: columns.into() }
    }

    /// The upper half of the bits picks a column, the lower half a side of it.
    #[inline]
    pub(super) fn index(&self, random: u64) -> usize {
        let column = (((random >> 32) * self.columns.len() as u64) >> 32) as usize;
        let (share, other) = self.columns[column];
        if random & 0xffff_ffff < share { column } else { other as usize }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_follow_the_weights() {
        let weights = [1u16, 65535, 300, 300, 7];
        let draw = Draw::new(&weights);
        // A full sweep of all columns and sides in small steps is as good as chance.
        let steps = 1u64 << 22;
        let mut counts = [0u64; 5];
        (0..steps).for_each(|i| counts[draw.index(i.wrapping_mul(0x9e37_79b9_7f4a_7c15))] += 1);
        let total: u64 = weights.iter().map(|w| u64::from(*w)).sum();
        for (count, weight) in counts.iter().zip(weights) {
            let expected = steps * u64::from(weight) / total;
            assert!(count.abs_diff(expected) < 400, "{counts:?}");
        }
    }
}
