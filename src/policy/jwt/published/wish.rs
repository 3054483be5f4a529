//! Decides whether a key that is not known is asked for: once, not again for a while, and not often whatever tokens invent.
//!
//! Does not fetch: it wakes the keeper and waits for its next answer, a second at most.

use std::collections::HashMap;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::time::timeout;

use super::Published;

/// How long the first request of an unknown key may wait.
pub const PATIENCE: Duration = Duration::from_secs(1);
/// A key that was asked for is not asked for again so soon.
pub const FORGET: Duration = Duration::from_secs(30);
/// Between two fetches that unknown keys caused.
pub const PAUSE: Duration = Duration::from_secs(10);
/// So many keys are remembered as asked for; so many requests wait at most.
const MOST: usize = 1024;

/// What was asked for.
#[derive(Debug, Default)]
pub(super) struct Wishes {
    /// By the hash of `kid`: when it was first asked for.
    asked: HashMap<u64, Duration>,
    /// When an unknown key last caused a fetch.
    last: Option<Duration>,
    /// The keeper was woken and has not begun.
    pub(super) is_pending: bool,
    /// The keeper is asking.
    pub(super) is_flying: bool,
    waiting: usize,
}

/// What became of the question for a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wished {
    /// It is worth to look again.
    Answered,
    /// The provider takes its time.
    Unanswered,
    /// It was not put.
    HeldBack,
}

/// What a request with an unknown key does.
#[derive(Debug, PartialEq, Eq)]
enum Turn {
    /// Causes a fetch, and waits.
    Ask(Duration),
    /// Waits for the fetch that is on its way.
    Join(Duration),
    /// Is refused at once.
    HeldBack,
}

// === impl Wishes ===

impl Wishes {
    /// `now` is monotonic.
    fn turn(&mut self, key: u64, now: Duration) -> Turn {
        if self.waiting >= MOST {
            return Turn::HeldBack;
        }
        let is_under_way = self.is_flying || self.is_pending;
        if let Some(first) = self.asked.get(&key) {
            let waited = now.saturating_sub(*first);
            if waited < PATIENCE && is_under_way {
                return Turn::Join(PATIENCE - waited);
            }
            if waited < FORGET {
                return Turn::HeldBack;
            }
        }
        if !is_under_way && self.last.is_some_and(|last| now.saturating_sub(last) < PAUSE) {
            return Turn::HeldBack;
        }
        if self.asked.len() >= MOST {
            self.asked.retain(|_, first| now.saturating_sub(*first) < FORGET);
            if self.asked.len() >= MOST {
                // The pause protects the provider all the same.
                self.asked.clear();
            }
        }
        self.asked.insert(key, now);
        if is_under_way {
            return Turn::Join(PATIENCE);
        }
        self.last = Some(now);
        self.is_pending = true;
        Turn::Ask(PATIENCE)
    }
}

// === impl Published ===

impl Published {
    /// Asks for a key that is not known. `now` in nanoseconds, monotonic.
    pub async fn wish_for(&self, kid: &str, now: u64) -> Wished {
        if !self.is_kept.load(Relaxed) {
            return Wished::HeldBack;
        }
        let mut attempts = self.attempts.subscribe();
        let ended = *attempts.borrow_and_update();
        let turn = {
            let mut wishes = self.wishes.lock();
            let turn = wishes.turn(hash(kid), Duration::from_nanos(now));
            wishes.waiting += usize::from(turn != Turn::HeldBack);
            turn
        };
        let patience = match turn {
            // A fetch may have ended since it was looked for.
            Turn::HeldBack if self.held.load().as_ref().is_some_and(|held| held.keys.has(kid)) => return Wished::Answered,
            Turn::HeldBack => {
                self.counts.held_back.fetch_add(1, Relaxed);
                return Wished::HeldBack;
            }
            Turn::Join(patience) => patience,
            Turn::Ask(patience) => {
                self.counts.wished.fetch_add(1, Relaxed);
                self.wish.notify_one();
                patience
            }
        };
        // The client may go meanwhile.
        let _place = Place(self);
        match timeout(patience, attempts.wait_for(|count| *count > ended)).await {
            Ok(_) => Wished::Answered,
            Err(_) => Wished::Unanswered,
        }
    }
}

struct Place<'p>(&'p Published);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut wishes = self.0.wishes.lock();
        wishes.waiting = wishes.waiting.saturating_sub(1);
    }
}

/// Seeded anew in each process: nobody can make two keys one on purpose.
fn hash(kid: &str) -> u64 {
    use std::hash::BuildHasher;
    static SEED: std::sync::LazyLock<std::hash::RandomState> = std::sync::LazyLock::new(std::hash::RandomState::new);
    SEED.hash_one(kid)
}

#[cfg(test)]
impl Wishes {
    /// As a request at the beginning of time that was answered.
    pub(super) fn ask_for(&mut self, kid: &str) {
        assert_eq!(self.turn(hash(kid), Duration::ZERO), Turn::Ask(PATIENCE));
        self.is_pending = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(1000 + seconds)
    }

    #[test]
    fn a_key_is_asked_for_once_and_the_others_wait_for_the_same_answer() {
        let mut wishes = Wishes::default();
        assert_eq!(wishes.turn(1, s(0)), Turn::Ask(PATIENCE));
        assert_eq!(wishes.turn(2, s(0)), Turn::Join(PATIENCE));
        assert_eq!(wishes.turn(1, s(0) + PATIENCE / 4), Turn::Join(PATIENCE * 3 / 4));
        assert_eq!(wishes.turn(1, s(1)), Turn::HeldBack, "nobody waits longer than the first could");
    }

    #[test]
    fn invented_keys_cause_one_fetch_in_ten_seconds_however_many_they_are() {
        let mut wishes = Wishes::default();
        let mut fetches = 0;
        for key in 0..100_000u64 {
            // A thousand a second, and each fetch is answered at once.
            if let Turn::Ask(_) = wishes.turn(key, s(0) + Duration::from_millis(key)) {
                fetches += 1;
                wishes.is_pending = false;
            }
            assert!(wishes.asked.len() <= MOST);
        }
        assert_eq!(fetches, 10);
    }

    #[test]
    fn a_key_that_the_provider_does_not_have_is_not_asked_for_again_soon() {
        let mut wishes = Wishes::default();
        assert_eq!(wishes.turn(1, s(0)), Turn::Ask(PATIENCE));
        wishes.is_pending = false;
        assert_eq!(wishes.turn(1, s(29)), Turn::HeldBack);
        assert_eq!(wishes.turn(2, s(29)), Turn::Ask(PATIENCE), "another is");
        wishes.is_pending = false;
        assert_eq!(wishes.turn(1, s(40)), Turn::Ask(PATIENCE));
    }

    #[test]
    fn only_so_many_wait() {
        let mut wishes = Wishes { waiting: MOST, is_flying: true, ..Wishes::default() };
        assert_eq!(wishes.turn(1, s(0)), Turn::HeldBack);
    }
}
