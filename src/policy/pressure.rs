//! Decides how many requests at once the memory of the process can bear, once there is more of it than there may be.
//!
//! Not by the memory alone: an allocator keeps what it once had, so a process that refuses everything beyond a bound would refuse everything until it ends. What
//! was given back is used again before there is more, so what counts is how many requests there were when the bound was passed, and whether it grows still.
//! Pure: somebody else looks (`server/memory.rs`).

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;

/// Of the process.
#[derive(Debug)]
pub struct Pressure {
    ceiling: AtomicU32,
    resident: AtomicU64,
    over: Mutex<Option<Over>>,
}

/// The bound has been passed.
#[derive(Debug)]
struct Over {
    /// The most memory that was seen since.
    high: u64,
    /// As many requests as the bound is likely to hold.
    fits: u32,
}

/// A change, to be told once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// So many requests are let in at once to begin with.
    Over(u32),
    Room,
}

// === impl Pressure ===

impl Default for Pressure {
    fn default() -> Self {
        Pressure { ceiling: AtomicU32::new(u32::MAX), resident: AtomicU64::new(0), over: Mutex::new(None) }
    }
}

impl Pressure {
    /// Requests at once.
    pub fn ceiling(&self) -> u32 {
        self.ceiling.load(Relaxed)
    }

    /// Bytes, when somebody looked last.
    pub fn resident(&self) -> u64 {
        self.resident.load(Relaxed)
    }

    /// So much memory there is, so much there may be, and so many requests are in flight.
    pub fn look(&self, resident: u64, most: Option<u64>, in_flight: u64) -> Option<Turn> {
        self.resident.store(resident, Relaxed);
        let mut over = self.over.lock();
        let in_flight = u32::try_from(in_flight).unwrap_or(u32::MAX);
        let (ceiling, turn) = match (&mut *over, most) {
            (None, None) => return None,
            (None, Some(most)) if resident <= most => return None,
            (None, Some(most)) => {
                let fits = (u128::from(in_flight) * u128::from(most) / u128::from(resident.max(1))) as u32;
                let fits = fits.max(1);
                *over = Some(Over { high: resident, fits });
                (half(fits), Some(Turn::Over(half(fits))))
            }
            // Somewhat less, or it would turn with every look.
            (Some(now), Some(most)) if resident > most / 20 * 19 => {
                let ceiling = self.ceiling();
                let next = if resident > now.high.saturating_add(now.high / 50) {
                    // Those that are there need more than those before.
                    now.high = resident;
                    now.fits = now.fits.min(ceiling).min(in_flight).max(1);
                    half(now.fits)
                } else {
                    ceiling.saturating_add(now.fits.div_ceil(20)).min(now.fits)
                };
                (next, None)
            }
            (Some(_), _) => {
                *over = None;
                (u32::MAX, Some(Turn::Room))
            }
        };
        self.ceiling.store(ceiling, Relaxed);
        turn
    }
}

fn half(count: u32) -> u32 {
    (count / 2).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;
    const MOST: Option<u64> = Some(100 * MIB);

    #[test]
    fn beyond_the_bound_half_is_let_in_and_fewer_if_it_grows_still() {
        let pressure = Pressure::default();
        assert_eq!((pressure.look(100 * MIB, MOST, 900), pressure.ceiling()), (None, u32::MAX));
        assert_eq!((pressure.look(125 * MIB, MOST, 1_000), pressure.ceiling()), (Some(Turn::Over(400)), 400));
        assert_eq!((pressure.look(140 * MIB, MOST, 1_000), pressure.ceiling()), (None, 200));
        assert_eq!((pressure.look(160 * MIB, MOST, 120), pressure.ceiling()), (None, 60));
        for _ in 0..10 {
            pressure.look(pressure.resident() + 20 * MIB, MOST, 1_000);
        }
        assert_eq!(pressure.ceiling(), 1, "one goes through in any case");
    }

    #[test]
    fn memory_that_the_allocator_keeps_refuses_nobody_for_good() {
        let pressure = Pressure::default();
        pressure.look(125 * MIB, MOST, 1_000);
        // It does not come back; nor is there any more.
        (0..100).for_each(|n| assert_eq!(pressure.look(124 * MIB + n, MOST, 10), None));
        assert_eq!(pressure.ceiling(), 800, "as many as the bound holds");
        assert_eq!(pressure.look(97 * MIB, MOST, 10), None, "not yet");
        assert_eq!((pressure.look(90 * MIB, MOST, 10), pressure.ceiling()), (Some(Turn::Room), u32::MAX));
        assert_eq!(pressure.look(90 * MIB, MOST, 10), None);
    }

    #[test]
    fn where_the_bound_is_taken_away_it_holds_no_more() {
        let pressure = Pressure::default();
        pressure.look(125 * MIB, MOST, 1_000);
        assert_eq!((pressure.look(125 * MIB, None, 10), pressure.ceiling()), (Some(Turn::Room), u32::MAX));
        assert_eq!(pressure.look(125 * MIB, None, 10), None);
    }

    #[test]
    fn a_bound_below_what_it_needs_at_rest_leaves_one_at_a_time() {
        let pressure = Pressure::default();
        assert_eq!(pressure.look(125 * MIB, MOST, 0), Some(Turn::Over(1)));
        (0..10).for_each(|_| _ = pressure.look(125 * MIB, MOST, 1));
        assert_eq!(pressure.ceiling(), 1);
    }
}
