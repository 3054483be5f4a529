//! Nearly all requests: each of their buckets has its slot, and one more fits into all of them.
//!
//! Each limit is looked at once, under the lock of its shard, and what it says is told at once; what is to be written is written when all
//! have admitted, while the locks are still held. Where one has no slot, is full, or is asked for twice, nothing was written, and
//! [`Buckets::judge`] decides. Decides nothing of its own: see `pace.rs` and `window.rs`.
//!
//! Locks are taken in the order of the limits. One that lies beyond all that are held is waited for; one that lies before is only tried, so
//! that whoever waits holds nothing that those before it could wait for.

use parking_lot::MutexGuard;

use super::level::Fits;
use super::pace::{Kind, Pace, Reading};
use super::table::{ShardSet, Table, shard_of};
use super::window::Bounds;
use crate::policy::buckets::Buckets;

/// So many limits of a request, at most.
const MOST: usize = 8;

/// One request on its way through its limits.
pub struct AtOnce<'b> {
    buckets: &'b Buckets,
    now: u64,
    held: ShardSet,
    /// Each at the place of the first slot of its shard.
    guards: [Option<MutexGuard<'b, Table>>; MOST],
    slots: [Slot; MOST],
    count: usize,
    windows: u64,
}

/// What is to be written. Without a gap, so that all are made empty at once.
#[derive(Clone, Copy, Default)]
struct Slot {
    words: [u64; 2],
    set: u32,
    way: u8,
    guard: u8,
    shard: u16,
}

// === impl AtOnce ===

impl<'b> AtOnce<'b> {
    /// `now` is on the monotonic clock, in nanoseconds.
    #[inline(always)]
    pub fn new(buckets: &'b Buckets, now: u64) -> Self {
        let (guards, slots) = ([const { None }; MOST], [Slot::default(); MOST]);
        AtOnce { buckets, now, held: ShardSet::default(), guards, slots, count: 0, windows: 0 }
    }

    /// What a bucket says after one more request. None: this is not the place to decide it.
    #[inline(always)]
    pub fn fits(&mut self, key: u128, pace: &Pace, bounds: Bounds) -> Option<Reading> {
        let (index, shard) = (self.count, shard_of(key));
        if index >= MOST {
            return None;
        }
        let guard = if self.held.has(shard) { self.guard_of(shard)? } else { self.hold(index, shard)? };
        let table = self.guards[guard].as_deref()?;
        let (set, way, state) = table.find(key)?;
        let fits = Fits::of(&state, table.latest, pace, bounds)?;
        // A table has not so many sets that they would not fit.
        let slot = Slot { words: fits.state.words(), set: set as u32, way: way as u8, guard: guard as u8, shard: shard as u16 };
        if guard != index && self.is_asked(slot) {
            return None;
        }
        self.slots[index] = slot;
        self.count = index + 1;
        self.windows += u64::from(pace.kind() != Kind::Bucket);
        Some(fits.reading)
    }

    /// All limits have admitted.
    #[inline(always)]
    pub fn keep(&mut self) {
        for slot in self.slots.iter().take(self.count) {
            if let Some(table) = &mut self.guards[usize::from(slot.guard)] {
                table.set_state(slot.set as usize, usize::from(slot.way), slot.words);
            }
        }
        if self.windows > 0 {
            self.buckets.note_windows(self.windows);
        }
    }

    #[inline(always)]
    fn hold(&mut self, index: usize, shard: usize) -> Option<usize> {
        let of = &self.buckets.shards[shard];
        let guard = if self.held.are_before(shard) { of.lock(self.now) } else { of.try_lock(self.now)? };
        self.guards[index] = Some(guard);
        self.held = self.held.with(shard);
        Some(index)
    }

    /// Where the lock of a shard is that is held.
    #[inline(never)]
    fn guard_of(&self, shard: usize) -> Option<usize> {
        self.slots.iter().take(self.count).find(|slot| usize::from(slot.shard) == shard).map(|slot| usize::from(slot.guard))
    }

    /// Whether an earlier limit asks for this very bucket.
    #[inline(never)]
    fn is_asked(&self, this: Slot) -> bool {
        self.slots.iter().take(self.count).any(|slot| (slot.guard, slot.set, slot.way) == (this.guard, this.set, this.way))
    }
}
