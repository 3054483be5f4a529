//! What a gateway knows of one caller of a shared limit, and what it may admit of that until it settles again.
//!
//! Decides by arithmetic alone, of which there is one for both cases: while the store answers, what was admitted is owed to it; while it
//! does not, each request costs as many tokens as there are gateways. Where accounts are kept: `shared.rs`.

use super::pace::{Kind, Pace, Reading};
use super::shared::{Due, Said, is_turned_up};
use super::window::Bounds;
use crate::policy::buckets::{Asking, Verdict};

const SECOND: f64 = 1e9;
/// Of a request: what floating point may be off by.
const HAIR: f64 = 1e-6;

#[derive(Debug)]
pub struct Account {
    pub pace: Pace,
    /// Of windows.
    pub bounds: Bounds,
    /// Requests left in all, at a moment. Less than none where too many were admitted.
    left: f64,
    at: u64,
    /// Requests that come back in a nanosecond: of a bucket always as many, of a sliding window those of the one before.
    gain: f64,
    /// Of windows: how many this one has had, as was last known.
    counted: f64,
    /// Admitted and not settled, and being settled.
    owed: i64,
    sent: i64,
    /// Counted in windows while the store was gone.
    missed: i64,
    /// How often the store had come and gone when it was last looked at.
    turns: u32,
    pub is_dirty: bool,
}

// === impl Account ===

impl Account {
    pub fn new(asking: &Asking<'_>, now: u64, turns: u32) -> Account {
        let pace = *asking.pace;
        let gain = match pace.kind() {
            Kind::Bucket => f64::from(pace.count()) / pace.per() as f64,
            Kind::Fixed | Kind::Sliding => 0.0,
        };
        let left = f64::from(pace.size());
        Account { pace, bounds: asking.bounds, left, at: now, gain, counted: 0.0, owed: 0, sent: 0, missed: 0, turns, is_dirty: false }
    }

    /// The store has come or gone since: what is owed cannot be settled now, and what could not be settled then is.
    pub fn follow(&mut self, turns: u32, gateways: f64, now: u64) {
        if self.turns == turns {
            return;
        }
        if is_turned_up(self.turns) {
            // What is on its way may have been counted, and is not counted twice.
            self.left = self.left(now) - gateways * (self.owed + self.sent) as f64;
            self.at = now;
            self.counted += (self.owed + self.sent) as f64;
            self.missed = match self.pace.kind() {
                Kind::Bucket => 0,
                Kind::Fixed | Kind::Sliding => self.owed,
            };
            (self.owed, self.sent) = (0, 0);
        }
        if is_turned_up(turns) {
            // The estimate of what is left has them already.
            self.left += gateways * self.missed as f64;
            self.owed = std::mem::take(&mut self.missed);
        }
        self.turns = turns;
    }

    /// Whether the request is of this very limit and window, whose end differs by what clocks are rounded by.
    #[inline]
    fn is_of(&self, pace: &Pace, bounds: Bounds) -> bool {
        self.pace.id() == pace.id() && self.bounds.end.abs_diff(bounds.end) <= bounds.length / 2
    }

    /// A limit that was changed, or another window, begins anew: the store knows better a moment later. What the last window has yet to
    /// settle is handed out.
    pub fn turn(&mut self, asking: &Asking<'_>, now: u64) -> Option<Due> {
        if self.is_of(asking.pace, asking.bounds) {
            return None;
        }
        let is_next = self.pace == *asking.pace && self.bounds.end.saturating_add(asking.bounds.length * 3 / 2) > asking.bounds.end;
        let before = self.counted + (self.owed + self.sent) as f64;
        let last = std::mem::replace(self, Account { is_dirty: self.is_dirty, ..Account::new(asking, now, self.turns) });
        let owed = last.owed + last.missed;
        match self.pace.kind() {
            Kind::Sliding if is_next => {
                self.look_back(before, now);
                (owed != 0).then_some(Due { key: asking.key, pace: last.pace, bounds: last.bounds, owed })
            }
            Kind::Sliding | Kind::Fixed | Kind::Bucket => None,
        }
    }

    /// So many were in the window before a sliding one, and as many as are `counted` in this.
    fn look_back(&mut self, before: f64, now: u64) {
        let (rest, length) = (self.rest(now) as f64, self.bounds.length.max(1) as f64);
        self.left = f64::from(self.pace.size()) - self.counted - before * rest / length;
        (self.at, self.gain) = (now, before / length);
    }

    fn rest(&self, now: u64) -> u64 {
        self.bounds.end.saturating_sub(now).min(self.bounds.length)
    }

    #[inline]
    fn left(&self, now: u64) -> f64 {
        // No time is so long that the sign would matter, without which this is several instructions more.
        let since = now.saturating_sub(self.at) as i64;
        (self.left + since as f64 * self.gain).min(f64::from(self.pace.size()))
    }

    /// How many are missing until this gateway's part has room for one more; none where it has. One whole request must be there, of which
    /// no gateway knows whose it is; and where each counts alone, one for each, or all of a limit that has not as many.
    #[inline]
    fn short(&self, gateways: f64, left: f64) -> f64 {
        let needed = match is_turned_up(self.turns) {
            true => gateways * (self.owed + self.sent) as f64 + 1.0,
            false => gateways.min(f64::from(self.pace.size())),
        };
        let short = needed - left;
        if short <= HAIR { 0.0 } else { short }
    }

    /// Counts one more request of this limit and window that has room at once while the store answers, as nearly all do. None: it is for
    /// [`take`](Account::take) to judge.
    #[inline]
    pub fn take_at_once(&mut self, turns: u32, pace: &Pace, bounds: Bounds, gateways: f64, now: u64) -> Option<Reading> {
        if self.turns != turns || !is_turned_up(turns) || !self.is_of(pace, bounds) {
            return None;
        }
        let left = self.left(now);
        if self.short(gateways, left) > 0.0 {
            return None;
        }
        self.owed += 1;
        Some(self.reading(left - (self.owed + self.sent) as f64 + HAIR, now))
    }

    /// Judges one more request, which may wait so long, and counts it where it has room.
    pub fn take(&mut self, patience: u64, gateways: f64, now: u64) -> Verdict {
        let left = self.left(now);
        let short = self.short(gateways, left);
        let wait = if short == 0.0 { Some(0) } else { self.wait(short, patience) };
        match wait {
            None => self.verdict(None, left, gateways, now),
            Some(_) if is_turned_up(self.turns) => {
                self.owed += 1;
                self.verdict(wait, left, gateways, now)
            }
            Some(_) => {
                self.admit_alone(left - gateways, now);
                self.verdict(wait, left - gateways, gateways, now)
            }
        }
    }

    /// How long one has to wait of whom so much is missing; none where it is refused.
    fn wait(&self, short: f64, patience: u64) -> Option<u64> {
        // Only buckets are waited for.
        let wait = if patience > 0 { (short / self.gain).ceil() } else { f64::INFINITY };
        (wait <= patience as f64).then_some(wait as u64)
    }

    /// While the store is gone.
    fn admit_alone(&mut self, left: f64, now: u64) {
        (self.left, self.at) = (left, now);
        match self.pace.kind() {
            Kind::Bucket => {}
            Kind::Fixed | Kind::Sliding => (self.missed, self.counted) = (self.missed + 1, self.counted + 1.0),
        }
    }

    /// Whether there is something to settle by that.
    pub fn give_back(&mut self, is_up: bool, gateways: f64) -> bool {
        match (is_up, self.pace.kind()) {
            (true, Kind::Bucket) => self.owed -= 1,
            // It may have been of the window before.
            (true, Kind::Fixed | Kind::Sliding) => self.owed = (self.owed - 1).max(0),
            (false, Kind::Bucket) => self.left += gateways,
            (false, Kind::Fixed | Kind::Sliding) if self.missed > 0 => {
                (self.left, self.missed, self.counted) = (self.left + gateways, self.missed - 1, self.counted - 1.0);
            }
            (false, Kind::Fixed | Kind::Sliding) => {}
        }
        is_up
    }

    /// What is owed is on its way now. What was on its way before has failed there, and is told again.
    pub fn send(&mut self) -> i64 {
        self.is_dirty = false;
        self.sent += std::mem::take(&mut self.owed);
        self.sent
    }

    pub fn settled(&mut self, owed: i64, said: Said, now: u64) {
        self.sent -= owed;
        match said {
            Said::Bucket(left) => (self.left, self.at) = (left, now),
            Said::Window(counted, before) => {
                self.counted = counted;
                self.look_back(before, now);
            }
        }
    }

    pub fn is_at_rest(&self, now: u64) -> bool {
        let is_over = match self.pace.kind() {
            Kind::Bucket => self.left(now) >= f64::from(self.pace.size()),
            Kind::Fixed => self.bounds.end <= now,
            Kind::Sliding => self.bounds.end.saturating_add(self.bounds.length) <= now,
        };
        is_over && self.owed == 0 && self.sent == 0
    }

    /// What is said of one that has to wait so long, or was refused; `left` is as it is after it.
    fn verdict(&self, wait: Option<u64>, left: f64, gateways: f64, now: u64) -> Verdict {
        let free = left - (self.owed + self.sent) as f64 + HAIR;
        let rest = self.rest(now).div_ceil(SECOND as u64);
        let late = || match self.pace.kind() {
            Kind::Bucket => self.seconds(self.short(gateways, left)),
            // What another gateway's part has left may be this one's a moment later.
            Kind::Fixed | Kind::Sliding if free >= 1.0 => 1,
            Kind::Fixed => rest,
            Kind::Sliding => rest.min(self.seconds(self.short(gateways, left))),
        };
        let retry_after = if wait.is_some() { 0 } else { late().max(1) };
        Verdict { reading: self.reading(free, now), retry_after, wait: wait.unwrap_or(0), is_overflow: false }
    }

    /// With so many tokens that nobody has taken.
    #[inline]
    fn reading(&self, free: f64, now: u64) -> Reading {
        let rest = || self.rest(now).div_ceil(SECOND as u64);
        let (reset, next) = match self.pace.kind() {
            Kind::Bucket => {
                let used = (f64::from(self.pace.size()) - free).max(0.0);
                (self.seconds(used - HAIR), if used > HAIR { self.seconds(1.0) } else { 0 })
            }
            Kind::Fixed => {
                let rest = rest();
                (rest, rest)
            }
            Kind::Sliding => ((self.rest(now) + self.bounds.length).div_ceil(SECOND as u64), rest().min(self.seconds(1.0))),
        };
        Reading { remaining: free.max(0.0) as u32, reset, next }
    }

    /// In which so many come back.
    #[inline]
    fn seconds(&self, tokens: f64) -> u64 {
        if self.gain > 0.0 { rounded_up(tokens.max(0.0) / self.gain / SECOND) } else { u64::MAX }
    }
}

/// Of a number that is not negative. What the compiler would call a function for.
#[inline]
fn rounded_up(number: f64) -> u64 {
    // By way of a signed number, of which there is an instruction.
    let whole = (number as i64).max(0);
    whole.unsigned_abs().saturating_add(u64::from((whole as f64) < number))
}
