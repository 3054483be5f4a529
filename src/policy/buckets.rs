//! The buckets of all limits of this process: decides, exactly and for all threads at once, whether requests still fit.
//!
//! * **Bounded.** The table is allocated once and never grows: 32 bytes a bucket, no allocation for a request (up to eight limits
//!   at once). How it is laid out: `limits/table.rs`.
//! * **Nobody is forgotten.** A bucket at rest (full again) equals one that never was, so only such a slot is given away. Where
//!   none is at rest, new keys of a limit share its one overflow bucket, and that is counted. Overflow buckets stand beside
//!   the table, at most one for each limit of the configuration.
//! * **All or none.** What one request asks for is judged and charged under the locks of all shards that are involved, waited for in
//!   ascending order, the overflow's last. A refusal writes nothing. Nearly all requests need not come here: `limits/at_once.rs`.
//! * **Time does not go back.** Threads read the clock before they get here; a shard judges at the latest time it has seen, or
//!   else a slow thread could bring back a bucket that another has just given away.
//! * **A changed rate keeps the used share.** A slot says which pace (rate and size) it was counted with; with another one its
//!   used part is converted to the same share of the new bucket when it is next touched. Snapshots may overlap.
//!
//! Keys are 128-bit SipHash-1-3 values under a random seed, of the caller, and told apart by the limit's name (`limits/hash.rs`), so that nobody outside can aim at a set or at another's bucket.
//! Does not know what a key is made of nor what a refusal looks like: see `rate_limit.rs`. Hand-over and resizing: `limits/handover.rs`.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use parking_lot::{Mutex, MutexGuard};
use smallvec::SmallVec;

use super::limits::at_once::AtOnce;
pub use super::limits::hash::{bucket_of, caller_of, caller_under, identity};
use super::limits::level::Level;
use super::limits::pace::{Pace, Reading};
use super::limits::places::Places;
use super::limits::shared::Shared;
use super::limits::table::{SHARDS, ShardSet, State, Table, sets_per_shard, shard_of};
use super::limits::window::Bounds;

/// What one limit is asked of one request.
#[derive(Clone, Copy, Debug)]
pub struct Asking<'a> {
    /// Which limit, from [`identity`]; names its overflow bucket.
    pub identity: u128,
    /// Whose bucket, from [`Buckets::key`].
    pub key: u128,
    pub pace: &'a Pace,
    /// The window of the request; nothing to a bucket.
    pub bounds: Bounds,
    /// How many nanoseconds the request may wait for a token; 0 where it may not.
    pub patience: u64,
}

/// What all limits together said.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Whether all were charged; else none was.
    pub is_admitted: bool,
    /// One for each asking, in their order.
    pub verdicts: SmallVec<[Verdict; 4]>,
}

/// What one limit said: the state after the request where it was admitted, else before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub reading: Reading,
    /// Whole seconds, at least 1, until the request would fit; 0 where it does.
    pub retry_after: u64,
    /// Nanoseconds that an admitted request has to wait.
    pub wait: u64,
    /// Counted in the bucket that the limit's new keys share because the table is full.
    pub is_overflow: bool,
}

/// Figures for metrics. Counters are since the start of the process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Memory of the table in bytes.
    pub bytes: u64,
    /// Slots in the table.
    pub capacity: u64,
    /// Slots that hold a key, at rest or not.
    pub in_use: u64,
    /// Keys at rest whose slot was given to another.
    pub evicted: u64,
    /// Requests that were judged by an overflow bucket.
    pub overflowed: u64,
}

/// The table. One for the process; outlives snapshots.
#[derive(Debug)]
pub struct Buckets {
    seed: [AtomicU64; 2],
    /// What is known of the callers of limits that several gateways share.
    pub shared: Arc<Shared>,
    /// The places of limits on requests at once.
    pub places: Arc<Places>,
    pub(super) shards: Box<[Shard]>,
    pub(super) overflow: Mutex<Overflow>,
    overflowed: AtomicU64,
    /// Requests that were counted in windows, so that who keeps their counts knows whether there is anything new.
    windows_charged: AtomicU64,
}

/// Aligned so that neighbours do not share cache lines, which processors fetch in pairs.
#[derive(Debug)]
#[repr(align(128))]
pub(super) struct Shard {
    pub(super) table: Mutex<Table>,
    in_use: AtomicU64,
    evicted: AtomicU64,
}

#[derive(Debug, Default)]
pub(super) struct Overflow {
    pub(super) states: HashMap<u128, State>,
    pub(super) latest: u64,
}

/// Where a bucket is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// `guard` counts the locks of one request.
    Slot {
        guard: usize,
        set: usize,
        way: usize,
    },
    Overflow,
}

/// What one asking came to before anything is written.
#[derive(Clone, Copy)]
struct Judged {
    place: Place,
    now: u64,
    level: Level,
    /// An earlier asking of the same request is for the same bucket, which is charged once.
    is_repeated: bool,
}

// === impl Buckets ===

impl Buckets {
    /// A table of at most so many bytes; at least 16 KiB.
    pub fn new(bytes: u64) -> Self {
        let random = RandomState::new();
        let sets = sets_per_shard(bytes);
        Buckets {
            seed: [0, 1].map(|half: u64| AtomicU64::new(random.hash_one(half))),
            shared: Arc::default(),
            places: Arc::default(),
            shards: (0..SHARDS).map(|_| Shard::new(sets)).collect(),
            overflow: Mutex::default(),
            overflowed: AtomicU64::new(0),
            windows_charged: AtomicU64::new(0),
        }
    }

    /// Whose bucket: a limit, a kind of key, and what the key is made of.
    pub fn key(&self, identity: u128, kind: u8, parts: &[&[u8]]) -> u128 {
        bucket_of(caller_under(self.seed(), kind, parts), identity)
    }

    /// Charges one token to each bucket, or none to any where one of them lacks it. `now` is on the monotonic clock, in nanoseconds.
    pub fn charge(&self, now: u64, askings: &[Asking<'_>]) -> Outcome {
        match self.admit(now, askings) {
            Some(verdicts) => Outcome { is_admitted: true, verdicts },
            None => self.judge(now, askings),
        }
    }

    /// Nearly all requests; none where it is for [`judge`](Buckets::judge) to decide, and nothing was charged.
    fn admit(&self, now: u64, askings: &[Asking<'_>]) -> Option<SmallVec<[Verdict; 4]>> {
        let mut at_once = AtOnce::new(self, now);
        let read = |asking: &Asking<'_>| {
            let reading = at_once.fits(asking.key, asking.pace, asking.bounds)?;
            Some(Verdict { reading, retry_after: 0, wait: 0, is_overflow: false })
        };
        let verdicts = askings.iter().map(read).collect::<Option<_>>()?;
        at_once.keep();
        Some(verdicts)
    }

    /// Any request: judges all it asks for, and charges it where all of that fits.
    #[inline(never)]
    pub fn judge(&self, now: u64, askings: &[Asking<'_>]) -> Outcome {
        let all = askings.iter().fold(ShardSet::default(), |all, asking| all.with(shard_of(asking.key)));
        let mut guards: SmallVec<[MutexGuard<'_, Table>; 8]> = all.ascending().map(|shard| self.shards[shard].lock(now)).collect();
        let mut overflow = None;
        let mut judged: SmallVec<[Judged; 8]> = SmallVec::new();
        for (index, asking) in askings.iter().enumerate() {
            if let Some(twin) = askings[..index].iter().position(|earlier| earlier.key == asking.key) {
                judged.push(Judged { is_repeated: true, ..judged[twin] });
                continue;
            }
            let guard = all.place(shard_of(asking.key));
            let table = &guards[guard];
            // A slot that another limit of this request is about to take is no longer there for this one.
            let taken = |set: usize, way: usize| judged.iter().any(|other| other.place == Place::Slot { guard, set, way });
            let mut one = match table.claim(asking.key, taken) {
                Some((set, way, state)) => Judged::new(Place::Slot { guard, set, way }, table.latest, state, asking),
                None => self.overflowing(overflow.get_or_insert_with(|| self.overflow.lock()), now, asking),
            };
            one.is_repeated = one.place == Place::Overflow
                && judged.iter().zip(askings).any(|(other, theirs)| other.place == one.place && theirs.identity == asking.identity);
            judged.push(one);
        }
        let is_admitted = judged.iter().all(|one| one.level.fits());
        let mut verdicts = SmallVec::new();
        for (one, asking) in judged.iter().zip(askings) {
            verdicts.push(one.verdict(is_admitted, asking.pace));
            if !is_admitted || one.is_repeated {
                continue;
            }
            let state = one.state(asking.pace);
            if one.level.is_window() {
                self.note_windows(1);
            }
            match one.place {
                Place::Slot { guard, set, way } => self.shards[shard_of(asking.key)].write(&mut guards[guard], set, way, asking.key, state),
                Place::Overflow => {
                    if let Some(overflow) = &mut overflow {
                        overflow.write(asking.identity, state);
                    }
                }
            }
        }
        Outcome { is_admitted, verdicts }
    }

    /// Takes one request back that was charged to a bucket of its own; those of overflow buckets stay.
    pub fn refund(&self, now: u64, key: u128, pace: &Pace) {
        let mut table = self.shards[shard_of(key)].lock(now);
        if let Some((set, way, state)) = table.claim(key, |_, _| false)
            && table.key(set, way) == key
        {
            let latest = table.latest;
            table.put(set, way, key, State::at(latest, pace.refund(state.used(latest, pace)), pace));
        }
    }

    fn overflowing(&self, overflow: &mut Overflow, now: u64, asking: &Asking<'_>) -> Judged {
        overflow.latest = overflow.latest.max(now);
        self.overflowed.fetch_add(1, Relaxed);
        let state = overflow.states.get(&asking.identity).copied().unwrap_or_default();
        Judged::new(Place::Overflow, overflow.latest, state, asking)
    }

    /// Takes each shard's lock for a moment, one after the other.
    pub fn figures(&self) -> Figures {
        let mut figures = Figures { overflowed: self.overflowed.load(Relaxed), ..Figures::default() };
        for shard in &self.shards {
            figures.in_use += shard.in_use.load(Relaxed);
            figures.evicted += shard.evicted.load(Relaxed);
            let table = shard.table.lock();
            figures.bytes += table.bytes();
            figures.capacity += table.slots();
        }
        figures
    }

    #[inline]
    pub(super) fn note_windows(&self, charged: u64) {
        self.windows_charged.fetch_add(charged, Relaxed);
    }

    /// Grows with each request that a window admits; never 0.
    pub fn windows_charged(&self) -> u64 {
        self.windows_charged.load(Relaxed).saturating_add(1)
    }

    /// Under which callers are hashed in this process.
    #[inline]
    pub(super) fn seed(&self) -> [u64; 2] {
        [self.seed[0].load(Relaxed), self.seed[1].load(Relaxed)]
    }

    /// Makes every key another one; only for a table that is filled anew.
    pub(super) fn set_seed(&self, seed: [u64; 2]) {
        for (half, value) in self.seed.iter().zip(seed) {
            half.store(value, Relaxed);
        }
    }
}

impl Default for Buckets {
    /// 64 MiB: about two million callers.
    fn default() -> Self {
        Buckets::new(64 << 20)
    }
}

// === impl Judged ===

impl Judged {
    fn new(place: Place, now: u64, state: State, asking: &Asking<'_>) -> Judged {
        Judged { place, now, level: Level::of(&state, now, asking.pace, asking.bounds, asking.patience), is_repeated: false }
    }

    /// What is written where the request was admitted.
    fn state(&self, pace: &Pace) -> State {
        self.level.state(self.now, pace)
    }

    fn verdict(&self, is_admitted: bool, pace: &Pace) -> Verdict {
        let (reading, retry_after) = self.level.verdict(is_admitted, self.now, pace);
        Verdict { reading, retry_after, wait: self.level.wait(), is_overflow: self.place == Place::Overflow }
    }
}

// === impl Shard ===

impl Shard {
    fn new(sets: usize) -> Self {
        Shard { table: Mutex::new(Table::new(sets, 0)), in_use: AtomicU64::new(0), evicted: AtomicU64::new(0) }
    }

    #[inline(always)]
    pub(super) fn lock(&self, now: u64) -> MutexGuard<'_, Table> {
        let mut table = self.table.lock();
        table.latest = table.latest.max(now);
        table
    }

    #[inline(always)]
    pub(super) fn try_lock(&self, now: u64) -> Option<MutexGuard<'_, Table>> {
        let mut table = self.table.try_lock()?;
        table.latest = table.latest.max(now);
        Some(table)
    }

    /// Writes a bucket into a slot that is its own or at rest. `table` is this shard's.
    fn write(&self, table: &mut Table, set: usize, way: usize, key: u128, state: State) {
        match table.put(set, way, key, state) {
            0 => _ = self.in_use.fetch_add(1, Relaxed),
            before if before != key => _ = self.evicted.fetch_add(1, Relaxed),
            _ => {}
        }
    }

    /// Says how many slots hold a key, after the table was replaced.
    pub(super) fn set_in_use(&self, slots: u64) {
        self.in_use.store(slots, Relaxed);
    }
}

// === impl Overflow ===

impl Overflow {
    fn write(&mut self, identity: u128, state: State) {
        if self.states.len() == self.states.capacity() {
            // Before it grows: limits that are gone from the configuration are at rest sooner or later.
            let latest = self.latest;
            self.states.retain(|_, state| !state.is_at_rest(latest));
        }
        self.states.insert(identity, state);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::sync::atomic::AtomicUsize;
    use std::time::Duration;

    use super::super::limits::pace::Kind;
    use super::super::limits::pace::tests::{Dice, pace};
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn ask(buckets: &Buckets, limit: u128, caller: u64, pace: &Pace, now: u64) -> Verdict {
        let key = buckets.key(limit, 0, &[&caller.to_le_bytes()]);
        let outcome = buckets.charge(now, &[Asking { identity: limit, key, pace, bounds: Bounds::default(), patience: 0 }]);
        assert_eq!(outcome.is_admitted, outcome.verdicts[0].retry_after == 0);
        outcome.verdicts[0]
    }

    /// How many of a thousand requests at one moment pass.
    fn drain(buckets: &Buckets, limit: u128, caller: u64, pace: &Pace, now: u64) -> usize {
        (0..1_000).filter(|_| ask(buckets, limit, caller, pace, now).retry_after == 0).count()
    }

    #[test]
    fn the_hundred_and_first_of_a_hundred_waits_for_a_token() {
        let (buckets, pace) = (Buckets::new(1 << 20), pace("100/m", 100));
        for left in (0..100).rev() {
            assert_eq!(ask(&buckets, 1, 7, &pace, 5).reading.remaining, left);
        }
        let refused = ask(&buckets, 1, 7, &pace, 5);
        assert_eq!((refused.reading.remaining, refused.reading.reset, refused.retry_after), (0, 60, 1));
        let refused = ask(&buckets, 1, 7, &pace, 5 + 599_999_999);
        assert_eq!(refused.retry_after, 1);
        assert_eq!(ask(&buckets, 1, 7, &pace, 5 + 600_000_000).retry_after, 0);
        assert_eq!(drain(&buckets, 1, 7, &pace, 5 + 600_000_000), 0);
        assert_eq!(drain(&buckets, 1, 7, &pace, 61 * SECOND), 100, "full again after a minute, and no fuller");
    }

    #[test]
    fn callers_and_limits_do_not_share_buckets() {
        let (buckets, pace) = (Buckets::new(1 << 20), pace("3/m", 3));
        for (limit, caller) in [(1, 1), (1, 2), (2, 1)] {
            assert_eq!(drain(&buckets, limit, caller, &pace, 0), 3);
        }
        let key = |kind, parts: &[&[u8]]| buckets.key(1, kind, parts);
        assert_ne!(key(0, &[b"a"]), key(1, &[b"a"]));
        assert_ne!(key(0, &[b"ab", b"c"]), key(0, &[b"a", b"bc"]));
        assert_ne!(identity("limit", "a", None), identity("limit", "a", Some("r")));
        assert_ne!(identity("limit", "a", None), identity("plan", "a", None));
        assert_ne!(Buckets::new(0).key(1, 0, &[b"a"]), Buckets::new(0).key(1, 0, &[b"a"]), "the seed is random");
    }

    #[test]
    fn threads_together_get_exactly_the_bucket_and_a_refusal_costs_the_other_limits_nothing() {
        const THREADS: usize = 8;
        let buckets = Buckets::new(1 << 20);
        // All share the tight limit; each thread has a wide one of its own, and all share a second wide one.
        let (tight, wide) = (pace("500/h", 500), pace("100000/h", 100_000));
        let keys: Vec<u128> = (0..THREADS as u64 + 2).map(|caller| buckets.key(9, 0, &[&caller.to_le_bytes()])).collect();
        let admitted = AtomicUsize::new(0);
        let start = Barrier::new(THREADS);
        let each: Vec<usize> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..THREADS)
                .map(|thread| {
                    let (buckets, keys, admitted, start, tight, wide) = (&buckets, &keys, &admitted, &start, &tight, &wide);
                    scope.spawn(move || {
                        start.wait();
                        let mut mine = 0;
                        for _ in 0..1_000 {
                            let asking = |key: usize, pace| Asking {
                                identity: key as u128,
                                key: keys[key],
                                pace,
                                bounds: Bounds::default(),
                                patience: 0,
                            };
                            // In an order of its own, so that locks taken in the order of asking would deadlock.
                            let mut askings = [asking(THREADS, tight), asking(thread, wide), asking(THREADS + 1, wide)];
                            askings.rotate_left(thread % 3);
                            if buckets.charge(SECOND, &askings).is_admitted {
                                mine += 1;
                            }
                        }
                        admitted.fetch_add(mine, Relaxed);
                        mine
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(admitted.load(Relaxed), 500);
        let left = |key: usize| {
            let outcome =
                buckets.charge(SECOND, &[Asking { identity: 0, key: keys[key], pace: &wide, bounds: Bounds::default(), patience: 0 }]);
            outcome.verdicts[0].reading.remaining as usize + 1
        };
        for (thread, mine) in each.into_iter().enumerate() {
            assert_eq!(left(thread), 100_000 - mine);
        }
        assert_eq!(left(THREADS + 1), 100_000 - 500);
    }

    #[test]
    fn one_refusing_limit_leaves_the_others_uncharged_and_all_say_where_they_stand() {
        let (buckets, one, many) = (Buckets::new(1 << 20), pace("1/m", 1), pace("10/m", 10));
        let askings = [
            Asking { identity: 1, key: buckets.key(1, 0, &[]), pace: &many, bounds: Bounds::default(), patience: 0 },
            Asking { identity: 2, key: buckets.key(2, 0, &[]), pace: &one, bounds: Bounds::default(), patience: 0 },
        ];
        let passed = buckets.charge(0, &askings);
        assert!(passed.is_admitted);
        assert_eq!(passed.verdicts.iter().map(|v| v.reading.remaining).collect::<Vec<_>>(), [9, 0]);
        for _ in 0..5 {
            let refused = buckets.charge(0, &askings);
            assert!(!refused.is_admitted);
            assert_eq!(refused.verdicts.iter().map(|v| (v.reading.remaining, v.retry_after)).collect::<Vec<_>>(), [(9, 0), (0, 60)]);
        }
    }

    #[test]
    fn the_same_bucket_asked_twice_by_one_request_is_charged_once() {
        let (buckets, pace) = (Buckets::new(1 << 20), pace("10/m", 10));
        let asking = Asking { identity: 1, key: buckets.key(1, 0, &[]), pace: &pace, bounds: Bounds::default(), patience: 0 };
        for left in [9, 8] {
            let outcome = buckets.charge(0, &[asking, asking]);
            assert_eq!(outcome.verdicts.iter().map(|v| v.reading.remaining).collect::<Vec<_>>(), [left, left]);
        }
    }

    /// Two tables of the same seed, one of which judges every request with [`Buckets::judge`] alone.
    #[test]
    fn what_is_admitted_at_once_is_what_would_have_been_judged() {
        let paces = [
            pace("10/s", 5),
            pace("7/s", 70),
            pace("1000000000/s", 1_000_000_000),
            Pace::of_windows(Kind::Fixed, 6, Duration::from_secs(2)).unwrap(),
            Pace::of_windows(Kind::Sliding, 9, Duration::from_secs(2)).unwrap(),
            Pace::of_windows(Kind::Sliding, 200_000, Duration::from_secs(2)).unwrap(),
        ];
        // One of so few sets that it overflows.
        for bytes in [0, 1 << 20] {
            let (quick, slow) = (Buckets::new(bytes), Buckets::new(bytes));
            slow.set_seed(quick.seed());
            let (mut dice, mut now, mut admitted) = (Dice(7), SECOND, 0);
            for step in 0..30_000 {
                now += dice.roll(SECOND / 100);
                let count = 1 + dice.roll(5) as usize;
                let askings: Vec<Asking<'_>> = (0..count)
                    .map(|_| {
                        let identity = dice.roll(8);
                        // Each limit has one at a time, and another one later.
                        let pace = &paces[(identity as usize + step / 2_000) % paces.len()];
                        let length = 2 * SECOND;
                        let is_bucket = pace.kind() == Kind::Bucket;
                        let bounds = if is_bucket { Bounds::default() } else { Bounds { end: (now / length + 1) * length, length } };
                        let identity = u128::from(identity);
                        let caller = dice.roll(if step % 3 == 0 { 1_000 } else { 10 });
                        let patience = if dice.roll(4) == 0 { dice.roll(SECOND) } else { 0 };
                        Asking { identity, key: quick.key(identity, 0, &[&caller.to_le_bytes()]), pace, bounds, patience }
                    })
                    .collect();
                // Threads read the clock before they get there.
                let late = now - dice.roll(SECOND / 10);
                let at_once = quick.admit(late, &askings);
                let judged = slow.judge(late, &askings);
                let outcome = match at_once {
                    Some(verdicts) => {
                        admitted += 1;
                        Outcome { is_admitted: true, verdicts }
                    }
                    None => quick.judge(late, &askings),
                };
                assert_eq!(outcome.is_admitted, judged.is_admitted, "step {step}");
                assert_eq!(outcome.verdicts.to_vec(), judged.verdicts.to_vec(), "step {step}");
            }
            assert_eq!((quick.figures(), quick.windows_charged()), (slow.figures(), slow.windows_charged()));
            assert!(admitted > 1_000, "{admitted}");
        }
    }

    #[test]
    fn no_limits_admit() {
        let outcome = Buckets::new(0).charge(0, &[]);
        assert!(outcome.is_admitted && outcome.verdicts.is_empty());
    }

    #[test]
    fn a_clock_that_stands_or_goes_back_gives_nothing_away() {
        let (buckets, pace) = (Buckets::new(1 << 20), pace("60/m", 60));
        assert_eq!(drain(&buckets, 1, 1, &pace, 100 * SECOND), 60);
        for now in [100 * SECOND, 99 * SECOND, 0] {
            assert_eq!(drain(&buckets, 1, 1, &pace, now), 0);
            assert_eq!(ask(&buckets, 1, 1, &pace, now).retry_after, 1, "the wait is from the latest time seen");
        }
        assert_eq!(drain(&buckets, 1, 1, &pace, 101 * SECOND), 1);
    }

    #[test]
    fn a_bucket_whose_slot_was_given_away_does_not_come_back_fuller_for_a_late_thread() {
        let (buckets, slow, fast) = (Buckets::new(0), pace("1/h", 1), pace("1/s", 1));
        let table = buckets.figures();
        assert_eq!((table.bytes, table.capacity), (16 << 10, 512));
        // One caller's bucket is at rest at second 1; strangers take every slot at second 2.
        assert_eq!(ask(&buckets, 1, 0, &fast, 0).retry_after, 0);
        (1..20_000).for_each(|caller| _ = ask(&buckets, 2, caller, &slow, 2 * SECOND));
        // Its thread read the clock when the bucket was not yet at rest. The bucket is new, but so is the time.
        let late = ask(&buckets, 1, 0, &fast, SECOND / 2);
        assert!(late.is_overflow && late.retry_after == 0);
        assert_eq!(ask(&buckets, 1, 0, &fast, 2 * SECOND).retry_after, 1);
    }

    #[test]
    fn a_changed_rate_keeps_the_used_share() {
        let buckets = Buckets::new(1 << 20);
        let (then, now) = (pace("100/m", 100), pace("10/s", 20));
        (0..75).for_each(|_| _ = ask(&buckets, 1, 1, &then, 0));
        // 75 of 100 are 15 of 20; one more leaves 4.
        assert_eq!(ask(&buckets, 1, 1, &now, 0).reading.remaining, 4);
        // And back, as the requests of two snapshots may meet: 16 of 20 are 80 of 100.
        assert_eq!(ask(&buckets, 1, 1, &then, 0).reading.remaining, 19);
    }

    #[test]
    fn three_hundred_thousand_keys_stay_in_one_mebibyte_and_new_ones_share_an_overflow_bucket() {
        let (buckets, pace) = (Buckets::new(1 << 20), pace("2/h", 2));
        let empty = buckets.figures();
        assert_eq!((empty.bytes, empty.capacity, empty.in_use), (1 << 20, 32_768, 0));
        let mut outcomes = [0u64; 3]; // in the table, in the overflow, refused
        for caller in 0..300_000 {
            let verdict = ask(&buckets, 1, caller, &pace, 0);
            match (verdict.is_overflow, verdict.retry_after) {
                (false, 0) => outcomes[0] += 1,
                (false, _) => panic!("a new caller with a bucket of its own was refused"),
                (true, 0) => outcomes[1] += 1,
                (true, _) => outcomes[2] += 1,
            }
        }
        let full = buckets.figures();
        assert_eq!(full.bytes, empty.bytes);
        assert_eq!(outcomes[0], full.in_use);
        assert!(full.in_use > full.capacity * 99 / 100, "{full:?}");
        assert_eq!(outcomes[1], 2, "the overflow is one bucket of the limit's own size");
        assert_eq!(full.overflowed, outcomes[1] + outcomes[2]);
        assert_eq!(full.evicted, 0, "nothing was at rest");
        assert_eq!(ask(&buckets, 2, 299_999, &pace, 0).retry_after, 0, "another limit has its own overflow bucket");
        // Whoever has a bucket keeps it, exactly.
        let left = |caller| (0..3).filter(|_| ask(&buckets, 1, caller, &pace, 0).retry_after == 0).count();
        assert!((0..2_000).all(|caller| left(caller) == 1));
    }

    #[test]
    fn ten_times_more_keys_than_slots_need_no_overflow_where_they_come_to_rest_in_time() {
        let (buckets, pace) = (Buckets::new(1 << 20), pace("1000/s", 1_000));
        for caller in 0..300_000u64 {
            let verdict = ask(&buckets, 1, caller, &pace, caller * 1_000);
            assert_eq!((verdict.is_overflow, verdict.reading.remaining), (false, 999));
        }
        let figures = buckets.figures();
        assert_eq!((figures.bytes, figures.overflowed), (1 << 20, 0));
        assert!(figures.in_use <= figures.capacity);
        assert_eq!(figures.evicted, 300_000 - figures.in_use);
    }

    #[test]
    fn two_limits_of_one_request_never_take_the_same_slot() {
        // A table of one set a shard makes such meetings common.
        let (buckets, pace) = (Buckets::new(0), pace("5/h", 5));
        for caller in 0..400u64 {
            let keys = [1, 2, 3].map(|limit| buckets.key(limit, 0, &[&caller.to_le_bytes()]));
            let askings: [Asking<'_>; 3] =
                std::array::from_fn(|n| Asking { identity: n as u128, key: keys[n], pace: &pace, bounds: Bounds::default(), patience: 0 });
            let first = buckets.charge(0, &askings);
            let second = buckets.charge(0, &askings);
            for (before, after) in first.verdicts.iter().zip(&second.verdicts) {
                if first.is_admitted && second.is_admitted && !after.is_overflow {
                    assert_eq!((before.reading.remaining, after.reading.remaining), (4, 3), "caller {caller}");
                }
            }
        }
        let keys: std::collections::HashSet<u128> =
            buckets.shards.iter().flat_map(|shard| shard.table.lock().busy().map(|(key, _)| key).collect::<Vec<_>>()).collect();
        assert_eq!(keys.len() as u64, buckets.figures().in_use, "no key stands in two slots");
    }

    #[test]
    fn many_callers_at_random_times_fare_as_if_each_had_the_table_to_itself() {
        let pace = pace("7/s", 5);
        let crowded = Buckets::new(1 << 20);
        let alone: Vec<Buckets> = (0..20).map(|_| Buckets::new(0)).collect();
        let (mut dice, mut now) = (Dice(42), 0);
        for _ in 0..20_000 {
            now += dice.roll(SECOND / 50);
            let caller = dice.roll(20);
            assert_eq!(ask(&crowded, 1, caller, &pace, now), ask(&alone[caller as usize], 1, caller, &pace, now));
            // Noise that takes slots and gives them back.
            ask(&crowded, 2, dice.roll(1 << 40), &pace, now);
        }
        assert!(crowded.figures().overflowed == 0);
    }
}
