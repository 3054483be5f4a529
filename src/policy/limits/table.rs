//! One shard of the bucket table: where a key's bucket is, and which slot a new key may have.
//!
//! Sets of eight slots of 32 bytes. A key may live in two sets, which both come from its hash; a new key goes where more slots
//! are at rest, which fills the table to well over nine tenths before a key finds no place. Does not judge: see `buckets.rs`.

use super::pace::{Kind, Pace, Span};
use super::window::Counted;

const SHARD_BITS: u32 = 6;
pub const SHARDS: usize = 1 << SHARD_BITS;

/// Some of the shards, a bit each.
#[derive(Clone, Copy, Debug, Default)]
pub struct ShardSet(u64);

const _: () = assert!(SHARDS == u64::BITS as usize);
pub const WAYS: usize = 8;
const SET_BYTES: usize = size_of::<Set>();

#[derive(Debug)]
pub struct Table {
    pub sets: Vec<Set>,
    /// The latest time at which a bucket of this shard was judged.
    pub latest: u64,
}

/// Eight keys of two words, then eight states of two words. Plain numbers, so that the allocator can hand out zeroed pages that
/// take no memory until they are used; all zeroes is a slot at rest.
pub type Set = [[u64; 16]; 2];

/// A bucket: the moment at which it is full again, and the id of the pace it was counted with. Of windows, the moment from which
/// nothing counts any more, with the requests of this window as its fraction, and a measure of those of the one before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct State {
    pub full_again: Span,
    pub pace: u16,
    pub before: u16,
}

// === functions of a key and of a size ===

pub fn sets_per_shard(bytes: u64) -> usize {
    usize::try_from(bytes / (SHARDS * SET_BYTES) as u64).unwrap_or(usize::MAX).max(1)
}

pub fn shard_of(key: u128) -> usize {
    (key >> (128 - SHARD_BITS)) as usize
}

// === impl ShardSet ===

impl ShardSet {
    #[inline]
    pub fn with(self, shard: usize) -> ShardSet {
        ShardSet(self.0 | 1 << shard)
    }

    #[inline]
    pub fn has(self, shard: usize) -> bool {
        self.0 >> shard & 1 == 1
    }

    /// Whether one of the shards lies beyond all of them.
    #[inline]
    pub fn are_before(self, shard: usize) -> bool {
        self.0 >> shard == 0
    }

    #[inline]
    pub fn ascending(self) -> impl Iterator<Item = usize> {
        let mut left = self.0;
        std::iter::from_fn(move || {
            let next = (left != 0).then_some(left.trailing_zeros() as usize);
            left &= left.wrapping_sub(1);
            next
        })
    }

    /// How many come before one of them.
    #[inline]
    pub fn place(self, shard: usize) -> usize {
        (self.0 & ((1 << shard) - 1)).count_ones() as usize
    }
}

// === impl Table ===

impl Table {
    pub fn new(sets: usize, latest: u64) -> Self {
        Table { sets: vec![[[0; 16]; 2]; sets], latest }
    }

    /// What is allocated.
    pub fn bytes(&self) -> u64 {
        (self.sets.capacity() * SET_BYTES) as u64
    }

    pub fn slots(&self) -> u64 {
        (self.sets.len() * WAYS) as u64
    }

    /// The two sets in which a key may live, from bits of it that the shard does not use.
    #[inline]
    fn homes(&self, key: u128) -> [usize; 2] {
        let home = |bits: u32| ((u64::from(bits) * self.sets.len() as u64) >> 32) as usize;
        [home(key as u32), home((key >> 32) as u32)]
    }

    /// The slot of a key with its state, where it has one.
    #[inline(always)]
    pub fn find(&self, key: u128) -> Option<(usize, usize, State)> {
        let [low, high] = words(key);
        for set in self.homes(key) {
            let keys = &self.sets[set][0];
            for way in 0..WAYS {
                if keys[2 * way] == low && keys[2 * way + 1] == high {
                    return Some((set, way, self.state(set, way)));
                }
            }
        }
        None
    }

    /// The slot of a key with its state, or one at rest that it may have; none where both of its sets are full. Slots that `taken`
    /// names are left out.
    pub fn claim(&self, key: u128, taken: impl Fn(usize, usize) -> bool) -> Option<(usize, usize, State)> {
        let known = self.find(key).filter(|(set, way, _)| !taken(*set, *way));
        known.or_else(|| self.vacancy(key, taken).map(|(set, way)| (set, way, State::default())))
    }

    /// A slot at rest for a new key, in the one of its sets that has more of them.
    pub fn vacancy(&self, key: u128, taken: impl Fn(usize, usize) -> bool) -> Option<(usize, usize)> {
        let [first, second] = self.homes(key).map(|set| {
            let mut at_rest = (0..WAYS).filter(|way| self.state(set, *way).is_at_rest(self.latest) && !taken(set, *way));
            at_rest.next().map(|way| (at_rest.count(), set, way))
        });
        let (_, set, way) = match (first, second) {
            (Some(first), Some(second)) if second.0 > first.0 => second,
            (Some(first), _) => first,
            (None, second) => second?,
        };
        Some((set, way))
    }

    #[inline]
    pub fn key(&self, set: usize, way: usize) -> u128 {
        let keys = &self.sets[set][0];
        u128::from(keys[2 * way]) | u128::from(keys[2 * way + 1]) << 64
    }

    #[inline]
    pub fn state(&self, set: usize, way: usize) -> State {
        let states = &self.sets[set][1];
        let rest = states[2 * way + 1];
        State { full_again: Span { ns: states[2 * way], frac: (rest >> 32) as u32 }, pace: rest as u16, before: (rest >> 16) as u16 }
    }

    /// Returns the key that was there before.
    pub fn put(&mut self, set: usize, way: usize, key: u128, state: State) -> u128 {
        let before = self.key(set, way);
        let [low, high] = words(key);
        let keys = &mut self.sets[set][0];
        (keys[2 * way], keys[2 * way + 1]) = (low, high);
        self.set_state(set, way, state.words());
        before
    }

    /// Of the key that is there.
    #[inline]
    pub fn set_state(&mut self, set: usize, way: usize, [ns, rest]: [u64; 2]) {
        let states = &mut self.sets[set][1];
        (states[2 * way], states[2 * way + 1]) = (ns, rest);
    }

    /// All buckets that are not at rest.
    pub fn busy(&self) -> impl Iterator<Item = (u128, State)> {
        let slots = (0..self.sets.len()).flat_map(|set| (0..WAYS).map(move |way| (set, way)));
        slots.map(|(set, way)| (self.key(set, way), self.state(set, way))).filter(|(_, state)| !state.is_at_rest(self.latest))
    }
}

fn words(key: u128) -> [u64; 2] {
    [key as u64, (key >> 64) as u64]
}

// === impl State ===

impl State {
    #[inline]
    pub fn at(now: u64, used: Span, pace: &Pace) -> State {
        State { full_again: Span { ns: now.saturating_add(used.ns), frac: used.frac }, pace: pace.id(), before: 0 }
    }

    /// As it is kept.
    #[inline]
    pub fn words(&self) -> [u64; 2] {
        let Span { ns, frac } = self.full_again;
        [ns, u64::from(frac) << 32 | u64::from(self.before) << 16 | u64::from(self.pace)]
    }

    #[inline]
    pub fn is_at_rest(&self, now: u64) -> bool {
        self.full_again.fits_in(Span { ns: now, frac: 0 })
    }

    /// The used part in the terms of the pace that it was counted with.
    #[inline]
    pub fn used_then(&self, now: u64) -> Span {
        if self.is_at_rest(now) { Span::NONE } else { Span { ns: self.full_again.ns - now, frac: self.full_again.frac } }
    }

    /// The used part in the terms of `pace`.
    #[inline]
    pub fn used(&self, now: u64, pace: &Pace) -> Span {
        match () {
            () if self.is_at_rest(now) => Span::NONE,
            () if self.pace == pace.id() => self.used_then(now),
            () => self.converted(self.used_then(now), pace),
        }
    }

    #[cold]
    fn converted(&self, used: Span, pace: &Pace) -> Span {
        let Some(from) = Pace::known(self.pace) else { return used };
        match from.kind() {
            Kind::Bucket => pace.convert(used, &from),
            Kind::Fixed | Kind::Sliding => pace.share(Counted::stored(self, &from).share(&from)),
        }
    }
}
