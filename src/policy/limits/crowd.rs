//! About how many different callers a limit has refused lately: few callers with many refusals are abuse, many with few are a limit that is
//! too tight.
//!
//! A bit for each of 4,096 classes of callers, for this minute and the last (linear counting). Decides nothing. Costs nothing until
//! somebody is refused, and a kilobyte then.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

const WORDS: usize = 64;
const BITS: f64 = (WORDS * 64) as f64;
const MINUTE: u64 = 60_000_000_000;

#[derive(Debug, Default)]
pub struct Crowd(OnceLock<Box<[Half; 2]>>);

/// One minute.
#[derive(Debug)]
struct Half {
    /// Which; from 1.
    minute: AtomicU64,
    bits: [AtomicU64; WORDS],
}

impl Default for Half {
    fn default() -> Self {
        Half { minute: AtomicU64::new(0), bits: [const { AtomicU64::new(0) }; WORDS] }
    }
}

// === impl Crowd ===

impl Crowd {
    /// A caller, by the hash of its bucket, at a moment of the monotonic clock.
    pub fn note(&self, key: u128, now: u64) {
        let halves = self.0.get_or_init(Box::default);
        let minute = now / MINUTE + 1;
        let half = &halves[(minute & 1) as usize];
        // Whoever comes first in a minute begins it; one who is late by a minute is not counted.
        match half.minute.load(Relaxed) {
            known if known == minute => {}
            known if known > minute => return,
            known => {
                if half.minute.compare_exchange(known, minute, Relaxed, Relaxed).is_ok() {
                    half.bits.iter().for_each(|word| word.store(0, Relaxed));
                }
            }
        }
        // Bits that tell neither shards nor sets apart.
        let class = (key >> 64) as usize % (WORDS * 64);
        half.bits[class / 64].fetch_or(1 << (class % 64), Relaxed);
    }

    /// How many in this minute and the last; none where nobody was ever refused.
    pub fn callers(&self, now: u64) -> Option<u64> {
        let halves = self.0.get()?;
        let minute = now / MINUTE + 1;
        let is_recent = |half: &Half| half.minute.load(Relaxed) + 1 >= minute;
        let zeroes: u32 = (0..WORDS)
            .map(|word| {
                halves.iter().filter(|half| is_recent(half)).fold(0, |bits, half| bits | half.bits[word].load(Relaxed)).count_zeros()
            })
            .sum();
        Some((-BITS * (f64::from(zeroes.max(1)) / BITS).ln()).round() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn different_callers_are_counted_once_and_forgotten_after_a_minute() {
        let crowd = Crowd::default();
        assert_eq!(crowd.callers(0), None);
        let buckets = crate::policy::buckets::Buckets::new(0);
        let key = |caller: u128| buckets.key(1, 0, &[&caller.to_le_bytes()]);
        for count in [1, 50, 3_000u128] {
            (0..count).for_each(|caller| (0..3).for_each(|_| crowd.note(key(caller), 5)));
            let told = crowd.callers(5).unwrap() as f64;
            assert!((told / count as f64 - 1.0).abs() < 0.1, "{told} of {count}");
        }
        assert!(crowd.callers(MINUTE + 5).unwrap() > 2_500, "the last minute counts");
        crowd.note(key(7), MINUTE + 6);
        crowd.note(key(8), 2 * MINUTE + 6);
        assert_eq!(crowd.callers(2 * MINUTE + 7), Some(2));
        assert_eq!(crowd.callers(9 * MINUTE), Some(0));
    }
}
