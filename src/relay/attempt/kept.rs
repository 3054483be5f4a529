//! The connections of one worker that rest between requests.
//!
//! Decides which one a request gets, which are closed because they have rested too long, and which because there are too many (`server.pool`).
//! Does not decide whether one may rest (`connector.rs`) nor for how long (`reuse.rs`). Nobody waits on a connection that rests: whether its target
//! has closed it is looked at when it is taken, and now and then.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::Notify;

/// What connections are found again by: what says whose they are, and the address, where there is one that is not in that.
pub type Key = (u64, Option<SocketAddr>);

/// Of one worker.
#[derive(Debug)]
pub struct Kept<T> {
    most: usize,
    resting: Mutex<Resting<T>>,
    /// The first has come.
    begun: Notify,
}

#[derive(Debug)]
struct Resting<T> {
    /// Each list from the one that has rested longest to the one that came last.
    lists: BTreeMap<Key, VecDeque<One<T>>>,
    count: usize,
    /// Numbers and keys in the order in which they came; those that were taken meanwhile are there still, until `tidy`.
    order: VecDeque<(u64, Key)>,
    next: u64,
    /// How far in `order` the look has come, and when the first of those that it has passed has rested for long enough.
    looked: usize,
    due: Option<Instant>,
}

#[derive(Debug)]
struct One<T> {
    number: u64,
    until: Instant,
    connection: T,
}

/// Whether a connection is still good for a request.
pub trait Rests {
    /// Looks without waiting: nothing has come on it, not even its end.
    fn is_good(&mut self) -> bool;
}

/// How often connections that rest are looked at; more often where one rests for less.
const LOOK: Duration = Duration::from_secs(1);
/// As many as are looked at before others have their turn: some ten microseconds' worth.
const AT_ONCE: usize = 256;

/// What comes after a look.
#[derive(Debug, PartialEq, Eq)]
enum Then {
    /// There are more to be looked at.
    GoOn,
    Wait(Duration),
    /// None rests.
    Rest,
}

// === impl Kept ===

impl<T: Rests> Kept<T> {
    /// `most`: so many in all; one more closes that which has rested longest.
    pub fn new(most: usize) -> Kept<T> {
        let resting = Resting { lists: BTreeMap::new(), count: 0, order: VecDeque::new(), next: 0, looked: 0, due: None };
        Kept { most, resting: Mutex::new(resting), begun: Notify::new() }
    }

    /// The one that came last, if one is good.
    pub fn take(&self, key: Key, now: Instant) -> Option<T> {
        loop {
            let mut one = self.resting.lock().pop(key)?;
            if now < one.until && one.connection.is_good() {
                return Some(one.connection);
            }
        }
    }

    /// Lets one rest until then.
    pub fn put(&self, key: Key, connection: T, until: Instant) {
        let (is_first, closed) = self.resting.lock().push(key, connection, until, self.most);
        // Closing one is a system call; nobody has to wait for it.
        drop(closed);
        if is_first {
            self.begun.notify_one();
        }
    }

    /// Closes what has rested for too long and what its target has closed, of some; after the last of them, forgets keys that have none.
    fn look(&self, now: Instant) -> Then {
        let mut closed = Vec::new();
        let mut resting = self.resting.lock();
        let Resting { lists, count, order, looked, due, .. } = &mut *resting;
        let end = order.len().min(*looked + AT_ONCE);
        // Those that were taken meanwhile are in no list. Where others went from the front, as many are passed over until the next time.
        for (number, key) in order.range((*looked).min(end)..end) {
            let Some(list) = lists.get_mut(key) else { continue };
            let Ok(at) = list.binary_search_by_key(number, |one| one.number) else { continue };
            let one = &mut list[at];
            if now < one.until && one.connection.is_good() {
                *due = Some(due.map_or(one.until, |due| due.min(one.until)));
            } else {
                closed.extend(list.remove(at));
            }
        }
        *count -= closed.len();
        *looked = end;
        if end < order.len() {
            return Then::GoOn;
        }
        let wait = due.take().map_or(LOOK, |due| due.saturating_duration_since(now).min(LOOK));
        lists.retain(|_, list| !list.is_empty());
        *looked = 0;
        if order.len() > 2 * *count + 64 {
            resting.tidy();
        }
        if resting.count > 0 { Then::Wait(wait) } else { Then::Rest }
    }

    /// Looks after them, for ever.
    pub async fn look_after(&self) {
        loop {
            match self.look(Instant::now()) {
                Then::GoOn => tokio::task::yield_now().await,
                Then::Wait(wait) => tokio::time::sleep(wait).await,
                Then::Rest => self.begun.notified().await,
            }
        }
    }
}

// === impl Resting ===

impl<T> Resting<T> {
    fn pop(&mut self, key: Key) -> Option<One<T>> {
        let one = self.lists.get_mut(&key)?.pop_back()?;
        self.count -= 1;
        if self.order.back().is_some_and(|(number, _)| *number == one.number) {
            self.order.pop_back();
        }
        Some(one)
    }

    /// Whether it is the only one, and what had to go.
    fn push(&mut self, key: Key, connection: T, until: Instant, most: usize) -> (bool, Option<One<T>>) {
        let closed = if self.count >= most { self.pop_oldest() } else { None };
        let number = self.next;
        self.next += 1;
        self.lists.entry(key).or_default().push_back(One { number, until, connection });
        self.order.push_back((number, key));
        self.count += 1;
        if self.order.len() > 2 * most + 64 {
            self.tidy();
        }
        (self.count == 1, closed)
    }

    /// All that came before it are gone, so it is the first of its list.
    fn pop_oldest(&mut self) -> Option<One<T>> {
        while let Some((number, key)) = self.order.pop_front() {
            let list = self.lists.get_mut(&key).filter(|list| list.front().is_some_and(|one| one.number == number));
            if let Some(one) = list.and_then(VecDeque::pop_front) {
                self.count -= 1;
                return Some(one);
            }
        }
        None
    }

    fn tidy(&mut self) {
        let lists = &self.lists;
        let is_there =
            |number: &u64, key: &Key| lists.get(key).is_some_and(|list| list.binary_search_by_key(number, |one| one.number).is_ok());
        self.order.retain(|(number, key)| is_there(number, key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

    /// Closed by its target once it is told so.
    #[derive(Debug)]
    struct Fake(u32, Arc<AtomicBool>);

    impl Rests for Fake {
        fn is_good(&mut self) -> bool {
            !self.1.load(Relaxed)
        }
    }

    fn fake(name: u32) -> (Fake, Arc<AtomicBool>) {
        let closed = Arc::default();
        (Fake(name, Arc::clone(&closed)), closed)
    }

    const A: Key = (1, None);

    fn key(index: u64) -> Key {
        (index, Some(SocketAddr::from(([127, 0, 0, 1], 80))))
    }

    #[test]
    fn the_one_that_came_last_is_taken_and_one_that_was_closed_never() {
        let (kept, now) = (Kept::new(8), Instant::now());
        let later = now + Duration::from_secs(9);
        let closed: Vec<_> = (0..3)
            .map(|name| {
                let (one, closed) = fake(name);
                kept.put(A, one, later);
                closed
            })
            .collect();
        closed[2].store(true, Relaxed);
        assert!(kept.take(key(1), now).is_none(), "another address is another key");
        assert_eq!(kept.take(A, now).map(|one| one.0), Some(1));
        assert_eq!(kept.take(A, later).map(|one| one.0), None, "it has rested for too long");
        assert_eq!(kept.look(now), Then::Rest);
    }

    #[test]
    fn one_too_many_closes_the_one_that_has_rested_longest_of_all() {
        let (kept, now) = (Kept::new(3), Instant::now());
        let later = now + Duration::from_secs(9);
        // Far more turns than the order of a full pool has room for.
        for _ in 0..500 {
            kept.put(A, fake(0).0, later);
            kept.put(key(9), fake(0).0, later);
            kept.take(A, now).unwrap();
            kept.take(key(9), now).unwrap();
        }
        assert!(kept.resting.lock().order.len() <= 2 * 3 + 64);
        for index in 1..=5 {
            kept.put(key(index), fake(0).0, later);
            kept.put(key(index), fake(1).0, later);
        }
        assert_eq!(kept.resting.lock().count, 3);
        let left = |index| std::iter::from_fn(|| kept.take(key(index), now)).map(|one| one.0).collect::<Vec<_>>();
        assert_eq!((left(3), left(4), left(5)), (vec![], vec![1], vec![1, 0]));
    }

    #[test]
    fn a_look_closes_what_has_no_use_and_says_when_the_next_is_due() {
        let (kept, now) = (Kept::new(8), Instant::now());
        let (one, closed) = fake(0);
        kept.put(A, one, now + Duration::from_secs(60));
        kept.put(key(2), fake(1).0, now + Duration::from_millis(300));
        assert_eq!(kept.look(now), Then::Wait(Duration::from_millis(300)));
        assert_eq!(kept.look(now + Duration::from_millis(300)), Then::Wait(LOOK));
        closed.store(true, Relaxed);
        assert_eq!(kept.look(now), Then::Rest);
        assert!(kept.resting.lock().lists.is_empty());
    }

    #[test]
    fn many_are_looked_at_a_part_at_a_time() {
        let (kept, now) = (Kept::new(1000), Instant::now());
        let many: Vec<_> = (0..2 * AT_ONCE as u32 + 10)
            .map(|name| {
                let (one, closed) = fake(name);
                kept.put(key(u64::from(name % 7)), one, now + Duration::from_secs(60));
                closed
            })
            .collect();
        for closed in many.iter().step_by(2) {
            closed.store(true, Relaxed);
        }
        assert_eq!([kept.look(now), kept.look(now), kept.look(now)], [Then::GoOn, Then::GoOn, Then::Wait(LOOK)]);
        assert_eq!(kept.resting.lock().count, AT_ONCE + 5);
    }

    #[tokio::test(start_paused = true)]
    async fn they_are_looked_after_from_the_first_on() {
        let kept = Arc::new(Kept::new(8));
        let looking = tokio::spawn({
            let kept = kept.clone();
            async move { kept.look_after().await }
        });
        tokio::task::yield_now().await;
        kept.put(A, fake(0).0, Instant::now());
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(kept.resting.lock().count, 0);
        looking.abort();
    }
}
