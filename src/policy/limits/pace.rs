//! The arithmetic of one limit: how fast a bucket fills, whether one more request fits, what is left of it (GCRA).
//! Windows have a pace, too, which names them; what they count is in `window.rs`.
//!
//! A bucket is one number, the theoretical arrival time: the moment at which it will be full again. What lies between now and
//! then is its used part, a [`Span`]. All of it is exact: a span counts nanoseconds and `1/count` of a nanosecond, so that the
//! time of one token (`per / count`) and of the whole bucket (`size * per / count`) have no remainder and 7/s does not drift.
//!
//! Does not know keys nor threads: see `buckets.rs`.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::RwLock;

use crate::config::types::Rate;

/// How long an empty bucket may take to fill, at most: 366 days. Keeps every sum far from overflow.
pub const LONGEST: Duration = Duration::from_secs(366 * 24 * 3600);

const SECOND: u64 = 1_000_000_000;

/// A time of `ns + frac / count` nanoseconds, where `count` is that of the pace it belongs to; `frac < count`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    pub ns: u64,
    pub frac: u32,
}

/// A rate and a bucket size, with what follows from them. Equal paces have equal ids for as long as the process lives, so
/// that a bucket can say in two bytes what it was counted with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    id: u16,
    kind: Kind,
    count: u32,
    size: u32,
    /// Nanoseconds.
    per: u64,
    /// The time in which one token comes back.
    step: Span,
    /// The time in which an empty bucket fills.
    full: Span,
    /// The same in units of `1/count` nanoseconds, where it is small enough, as nearly all are.
    units: Option<u64>,
}

/// How requests are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A bucket that fills all the time.
    Bucket,
    /// So many in each window; the next one begins at nothing.
    Fixed,
    /// So many in this window and what of the one before still counts.
    Sliding,
}

/// What a bucket says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// Whole tokens left.
    pub remaining: u32,
    /// Whole seconds until the bucket is full, rounded up.
    pub reset: u64,
    /// Whole seconds until there is one more whole token than now, rounded up; 0 where the bucket is full.
    pub next: u64,
}

/// All paces that this process has ever counted with, so that ids stay true over reloads: a few bytes for each distinct rate.
static KNOWN: RwLock<Known> = RwLock::new(Known { list: Vec::new(), ids: BTreeMap::new() });

struct Known {
    list: Vec<Pace>,
    ids: BTreeMap<(Kind, u32, u32, u64), u16>,
}

// === impl Pace ===

impl Pace {
    /// `size` is that of the bucket. None where the bucket would take longer than [`LONGEST`] to fill, or where a number is 0.
    pub fn new(rate: Rate, size: u32) -> Option<Pace> {
        Pace::from_parts(Kind::Bucket, rate.count, size, u64::try_from(rate.per.as_nanos()).ok()?)
    }

    /// Of windows of so many requests. `per` is about how long each is; months differ.
    pub fn of_windows(kind: Kind, count: u32, per: Duration) -> Option<Pace> {
        Pace::from_parts(kind, count, count, u64::try_from(per.as_nanos()).ok()?)
    }

    pub(super) fn from_parts(kind: Kind, count: u32, size: u32, per: u64) -> Option<Pace> {
        if count == 0 || size == 0 || per == 0 {
            return None;
        }
        let units = u128::from(size) * u128::from(per);
        let full = Span::of_units(units, count).filter(|full| u128::from(full.ns) <= LONGEST.as_nanos())?;
        let step = Span::of_units(u128::from(per), count)?;
        let units = u64::try_from(units).ok();
        let mut known = KNOWN.write();
        let id = match known.ids.get(&(kind, count, size, per)) {
            Some(id) => *id,
            None => {
                let id = u16::try_from(known.list.len()).ok()?;
                known.ids.insert((kind, count, size, per), id);
                known.list.push(Pace { id, kind, count, size, per, step, full, units });
                id
            }
        };
        Some(Pace { id, kind, count, size, per, step, full, units })
    }

    /// The pace of an id that [`id`](Pace::id) gave in this process.
    pub fn known(id: u16) -> Option<Pace> {
        KNOWN.read().list.get(usize::from(id)).copied()
    }

    #[inline]
    pub fn id(&self) -> u16 {
        self.id
    }

    #[inline]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The bucket's size in tokens.
    #[inline]
    pub fn size(&self) -> u32 {
        self.size
    }

    #[inline]
    pub fn count(&self) -> u32 {
        self.count
    }

    /// One of so many equal parts.
    pub fn part(&self, parts: u32) -> Option<Pace> {
        let size = self.size.div_ceil(parts.max(1));
        match self.kind {
            Kind::Bucket => Pace::from_parts(self.kind, self.count, size, self.per.checked_mul(u64::from(parts))?),
            Kind::Fixed | Kind::Sliding => Pace::from_parts(self.kind, (self.count / parts).max(1), (self.count / parts).max(1), self.per),
        }
    }

    /// About how long a window is, or the time in which `count` tokens come back, in nanoseconds.
    #[inline]
    pub fn per(&self) -> u64 {
        self.per
    }

    pub(super) fn parts(&self) -> (u32, u32, u64) {
        (self.count, self.size, self.per)
    }

    /// The time in which an empty bucket fills.
    #[inline]
    pub fn full(&self) -> Span {
        self.full
    }

    /// The same in whole seconds, rounded up; at least 1.
    #[inline]
    pub fn window(&self) -> u64 {
        self.full.seconds().max(1)
    }

    /// The used part after one more request; none where it does not fit.
    #[inline(always)]
    pub fn charge(&self, used: Span) -> Option<Span> {
        let after = used.plus(self.step, self.count);
        after.fits_in(self.full).then_some(after)
    }

    /// The same of one who may wait so many nanoseconds: the used part, and how long it has to.
    #[inline]
    pub fn charge_late(&self, used: Span, patience: u64) -> Option<(Span, u64)> {
        let after = used.plus(self.step, self.count);
        let late = after.minus(self.full, self.count);
        let wait = late.ns + u64::from(late.frac > 0);
        (wait <= patience).then_some((after, wait))
    }

    /// The used part where one request is taken back.
    pub fn refund(&self, used: Span) -> Span {
        used.minus(self.step, self.count)
    }

    /// Whole seconds, rounded up and at least 1, until a request fits, or may wait, that does not now.
    pub fn retry_after(&self, used: Span, patience: u64) -> u64 {
        let late = used.plus(self.step, self.count).minus(self.full, self.count);
        late.minus(Span { ns: patience, frac: 0 }, self.count).seconds().max(1)
    }

    #[inline(always)]
    pub fn read(&self, used: Span) -> Reading {
        let (remaining, rest) = match self.units {
            Some(units) if used.fits_in(self.full) => {
                let free = units - (used.ns * u64::from(self.count) + u64::from(used.frac));
                ((free / self.per) as u32, free % self.per)
            }
            Some(_) | None => self.free(used),
        };
        let tick = u64::from(self.count) * SECOND;
        let next = match () {
            () if used == Span::NONE => 0,
            // There is one more within a second.
            () if self.per <= tick => 1,
            () => (self.per - rest).div_ceil(tick),
        };
        Reading { remaining, reset: used.seconds(), next }
    }

    /// Whole tokens that are left, and what there is of the next.
    #[cold]
    fn free(&self, used: Span) -> (u32, u64) {
        let (free, per) = (self.full.minus(used, self.count).units(self.count), u128::from(self.per));
        (u32::try_from(free / per).unwrap_or(self.size).min(self.size), (free % per) as u64)
    }

    /// The used part of which a window knew the share, rounded up by less than a nanosecond's worth of floating point.
    pub fn share(&self, share: f64) -> Span {
        Span { ns: (self.full.ns as f64 * share.clamp(0.0, 1.0)).ceil() as u64, frac: 0 }.min(self.full)
    }

    /// The used part of a bucket that was counted with another pace: the same share of this one's bucket, rounded up by
    /// less than a nanosecond.
    pub fn convert(&self, used: Span, from: &Pace) -> Span {
        let now_full = u128::from(self.size) * u128::from(self.per);
        let then_full = u128::from(from.size) * u128::from(from.per);
        let shared = gcd(now_full, then_full);
        let (times, over) = (now_full / shared, then_full / shared);
        let units = used.units(from.count);
        let units = match units.checked_mul(times) {
            Some(product) => product.div_ceil(over),
            // Numbers this large have no common measure that fits; a share by floating point is off by 2^-52 of the bucket.
            None => (units as f64 * (times as f64 / over as f64)).ceil() as u128,
        };
        Span::of_units(units, self.count).map_or(self.full, |span| span.min(self.full))
    }
}

// === impl Span ===

impl Span {
    pub const NONE: Span = Span { ns: 0, frac: 0 };

    /// In units of `1/count` nanoseconds.
    #[inline(always)]
    fn units(self, count: u32) -> u128 {
        u128::from(self.ns) * u128::from(count) + u128::from(self.frac)
    }

    fn of_units(units: u128, count: u32) -> Option<Span> {
        let count = u128::from(count);
        Some(Span { ns: u64::try_from(units / count).ok()?, frac: u32::try_from(units % count).ok()? })
    }

    #[inline(always)]
    fn plus(self, other: Span, count: u32) -> Span {
        let frac = u64::from(self.frac) + u64::from(other.frac);
        let (carry, frac) = if frac < u64::from(count) { (0, frac) } else { (1, frac - u64::from(count)) };
        Span { ns: self.ns.saturating_add(other.ns).saturating_add(carry), frac: frac as u32 }
    }

    /// As comparing them is, and cheaper.
    #[inline(always)]
    pub fn fits_in(self, other: Span) -> bool {
        self.ns < other.ns || (self.ns == other.ns && self.frac <= other.frac)
    }

    /// Nothing where `other` is longer.
    #[inline(always)]
    fn minus(self, other: Span, count: u32) -> Span {
        match () {
            () if self.fits_in(other) => Span::NONE,
            () if self.frac >= other.frac => Span { ns: self.ns - other.ns, frac: self.frac - other.frac },
            () => Span { ns: self.ns - other.ns - 1, frac: count - other.frac + self.frac },
        }
    }

    /// Whole seconds, rounded up.
    #[inline(always)]
    fn seconds(self) -> u64 {
        self.ns.saturating_add(SECOND - 1 + u64::from(self.frac > 0)) / SECOND
    }
}

fn gcd(mut a: u128, mut b: u128) -> u128 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

#[cfg(test)]
pub(in crate::policy) mod tests {
    use super::*;

    pub fn pace(rate: &str, size: u32) -> Pace {
        Pace::new(Rate::parse(rate).unwrap(), size).unwrap()
    }

    /// A small seeded generator (SplitMix64), so that a failing case can be named by its seed.
    pub struct Dice(pub u64);

    impl Dice {
        pub fn roll(&mut self, below: u64) -> u64 {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = self.0;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            (z ^ (z >> 31)) % below
        }
    }

    /// A token bucket as one would explain it: it holds at most `size` tokens and gains `count` each `per` nanoseconds.
    /// Tokens are counted in `1/per`, so nothing is ever rounded.
    struct Model {
        tokens: u128,
        size: u128,
        count: u128,
        per: u128,
        last: u64,
    }

    impl Model {
        fn new(count: u32, size: u32, per: u64) -> Self {
            let (size, count, per) = (u128::from(size), u128::from(count), u128::from(per));
            Model { tokens: size * per, size, count, per, last: 0 }
        }
        fn advance(&mut self, now: u64) {
            self.tokens = (self.tokens + u128::from(now - self.last) * self.count).min(self.size * self.per);
            self.last = now;
        }
        fn take(&mut self) -> bool {
            let fits = self.tokens >= self.per;
            if fits {
                self.tokens -= self.per;
            }
            fits
        }
        fn remaining(&self) -> u128 {
            self.tokens / self.per
        }
        /// Seconds until there are `tokens` (in `1/per`), rounded up.
        fn until(&self, tokens: u128) -> u128 {
            tokens.saturating_sub(self.tokens).div_ceil(self.count * u128::from(SECOND))
        }
    }

    #[test]
    fn a_thousand_random_limits_do_exactly_what_an_exact_token_bucket_does() {
        for seed in 0..1_000 {
            let mut dice = Dice(seed);
            let count = match dice.roll(3) {
                0 => 1 + dice.roll(10) as u32,
                1 => 1 + dice.roll(1_000) as u32,
                _ => 1 + dice.roll(u64::from(u32::MAX)) as u32,
            };
            let size = match dice.roll(3) {
                0 => count,
                1 => 1 + dice.roll(5) as u32,
                _ => 1 + dice.roll(100_000) as u32,
            };
            let per = [1_000_000, 250_000_000, SECOND, 60 * SECOND, 3_600 * SECOND, 24 * 3_600 * SECOND][dice.roll(6) as usize];
            let Some(pace) = Pace::from_parts(Kind::Bucket, count, size, per) else { continue };
            let mut model = Model::new(count, size, per);
            let (mut now, mut full_again) = (0u64, Span::NONE);
            for step in 0..200 {
                now += match dice.roll(4) {
                    0 => 0,
                    1 => dice.roll(2 * pace.step.ns + 2),
                    2 => pace.step.ns,
                    _ => dice.roll(pace.full.ns / 8 + 2),
                };
                let used = if full_again.ns < now { Span::NONE } else { Span { ns: full_again.ns - now, frac: full_again.frac } };
                model.advance(now);
                let context = format!("seed {seed}, step {step}: {count} per {per} ns, bucket of {size}");
                let after = pace.charge(used);
                if after.is_none() {
                    let wait = u128::from(pace.retry_after(used, 0));
                    assert_eq!(wait, model.until(model.per).max(1), "{context}");
                }
                assert_eq!(after.is_some(), model.take(), "{context}");
                let used = after.unwrap_or(used);
                full_again = Span { ns: now + used.ns, frac: used.frac };
                let read = pace.read(used);
                assert_eq!(u128::from(read.remaining), model.remaining(), "{context}");
                assert_eq!(u128::from(read.reset), model.until(model.size * model.per), "{context}");
                let next = if read.remaining == size { 0 } else { model.until((model.remaining() + 1) * model.per) };
                assert_eq!(u128::from(read.next), next, "{context}");
            }
        }
    }

    #[test]
    fn seven_a_second_is_exactly_seven_a_second_for_a_day() {
        let pace = pace("7/s", 7);
        let (mut full_again, mut admitted) = (Span::NONE, 0u64);
        for second in 0..86_400u64 {
            let now = second * SECOND;
            loop {
                let used = if full_again.ns < now { Span::NONE } else { Span { ns: full_again.ns - now, frac: full_again.frac } };
                let Some(after) = pace.charge(used) else { break };
                full_again = Span { ns: now + after.ns, frac: after.frac };
                admitted += 1;
            }
        }
        assert_eq!(admitted, 7 * 86_400);
    }

    #[test]
    fn a_changed_pace_keeps_the_used_share() {
        for (from, to, used, left) in [
            (pace("100/m", 100), pace("200/m", 200), 40, 120),
            (pace("30/s", 30), pace("6/s", 6), 10, 4),
            (pace("7/s", 7), pace("70/s", 70), 3, 40),
            (pace("5/5m", 5), pace("1000/s", 1_000), 5, 0),
            (pace("100/m", 100), pace("100/m", 10), 50, 5),
            (pace("3/s", 3), pace("3/s", 1), 1, 0),
        ] {
            let mut span = Span::NONE;
            for _ in 0..used {
                span = from.charge(span).unwrap();
            }
            let converted = to.convert(span, &from);
            assert_eq!(to.read(converted).remaining, left, "{used} of {from:?} as {to:?}");
            assert!(converted <= to.full());
        }
    }

    #[test]
    fn no_conversion_overflows_or_exceeds_the_bucket() {
        let huge = Pace::from_parts(Kind::Bucket, u32::MAX, u32::MAX, 366 * 24 * 3_600 * SECOND - 1).unwrap();
        let odd = Pace::from_parts(Kind::Bucket, u32::MAX - 1, u32::MAX - 2, 366 * 24 * 3_600 * SECOND - 7).unwrap();
        let all = odd.convert(huge.full(), &huge);
        assert!(all <= odd.full() && all.ns as f64 > odd.full().ns as f64 * (1.0 - 1e-9), "{all:?}");
        let half = Span { ns: huge.full().ns / 2, frac: 0 };
        let share = odd.convert(half, &huge).ns as f64 / odd.full().ns as f64;
        assert!((share - 0.5).abs() < 1e-9, "{share}");
        assert_eq!(huge.read(Span::NONE).remaining, u32::MAX);
        assert_eq!(huge.read(huge.full()).remaining, 0);
    }

    #[test]
    fn a_bucket_that_takes_longer_than_a_year_to_fill_is_none() {
        assert_eq!(Pace::new(Rate::parse("1/24h").unwrap(), 367), None);
        assert!(Pace::new(Rate::parse("1/24h").unwrap(), 366).is_some());
        assert_eq!(Pace::from_parts(Kind::Bucket, 0, 1, 1), None);
    }

    #[test]
    fn equal_paces_have_equal_ids() {
        assert_eq!(pace("11/m", 12).id(), pace("11/m", 12).id());
        assert_ne!(pace("11/m", 12).id(), pace("11/m", 13).id());
        let one = pace("13/m", 17);
        assert_eq!(Pace::known(one.id()), Some(one));
        assert_eq!(Pace::known(u16::MAX), None);
    }
}
