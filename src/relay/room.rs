//! Decides whether an attempt may open one more connection, where an upstream has so many at most: it uses one that rests, opens one, or waits.
//!
//! Counted are all that are open, over all workers, those at rest included. What a worker keeps at rest is of no use to another: one that has none
//! to the chosen address opens one all the same, so that nobody waits for what others keep. Does not answer (`admit.rs`) nor keep connections:
//! Pingora does, and tells us when one begins and ends.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Weak};

use pingora_core::upstreams::peer::{Tracer, Tracing};
use tokio::sync::Notify;

use crate::relay::targets::address::Spot;
use crate::relay::targets::group::Group;

/// Of one upstream, over all workers.
#[derive(Debug, Default)]
pub struct Room {
    /// How many there may be; 0 is any number.
    most: AtomicU32,
    open: AtomicU32,
    waiting: AtomicU32,
    /// Opened above that number, since the start.
    over: AtomicU64,
    freed: Notify,
}

/// Of one worker to one address.
#[derive(Debug, Default)]
pub struct Local {
    /// Open or being opened.
    open: AtomicU32,
    /// Attempts that have one or are about to.
    busy: AtomicU32,
    waiting: AtomicU32,
    freed: Notify,
}

/// What connections of a worker are told apart by: the key under which they are found again, and the address.
pub type Key = (u64, Spot);

/// An attempt that may connect; given back when dropped, which has to be after its connection was put away.
#[derive(Debug)]
pub struct Slot {
    group: Arc<Group>,
    local: Arc<Local>,
    /// It may open one, and has not yet.
    reserved: Arc<AtomicBool>,
}

/// What becomes of one that comes.
#[derive(Debug)]
pub enum Entry {
    In(Slot),
    Wait(Queued),
    Full,
}

/// Who leaves before its turn leaves the queue.
#[derive(Debug)]
pub struct Queued {
    group: Arc<Group>,
    local: Arc<Local>,
    pooled: bool,
}

/// Told by Pingora of one connection.
#[derive(Debug)]
struct Watched {
    group: Arc<Group>,
    local: Arc<Local>,
    reserved: Arc<AtomicBool>,
}

thread_local! {
    /// A connection never leaves its worker.
    static HERE: RefCell<HashMap<Key, Weak<Local>>> = RefCell::default();
}

// === impl Room ===

impl Room {
    /// How many there may be from now on; those that are open stay.
    pub fn set_most(&self, most: u32) {
        self.most.store(most, Relaxed);
        self.freed.notify_waiters();
    }

    /// Open at this moment, where they are counted.
    pub fn open(&self) -> Option<u32> {
        (self.most.load(Relaxed) > 0).then(|| self.open.load(Relaxed))
    }

    pub fn waiting(&self) -> u32 {
        self.waiting.load(Relaxed)
    }

    pub fn over(&self) -> u64 {
        self.over.load(Relaxed)
    }

    fn reserve(&self) -> bool {
        let most = match self.most.load(Relaxed) {
            0 => u32::MAX,
            most => most,
        };
        self.open.fetch_update(Relaxed, Relaxed, |open| (open < most).then_some(open + 1)).is_ok()
    }
}

// === impl Local ===

impl Local {
    /// What is known of these connections on this worker.
    pub fn of(key: Key) -> Arc<Local> {
        HERE.with_borrow_mut(|all| {
            if let Some(known) = all.get(&key).and_then(Weak::upgrade) {
                return known;
            }
            all.retain(|_, local| local.strong_count() > 0);
            let new = Arc::new(Local::default());
            all.insert(key, Arc::downgrade(&new));
            new
        })
    }
}

/// Asks for one connection. `pooled`: those at rest may be used. `queue`: so many may wait in all.
pub fn enter(group: &Arc<Group>, local: &Arc<Local>, pooled: bool, queue: usize) -> Entry {
    let room = &group.room;
    // Who has waited goes first.
    let may = (!pooled || local.waiting.load(Relaxed) == 0, room.waiting.load(Relaxed) == 0);
    if let Some(slot) = attempt(group, local, pooled, may) {
        return Entry::In(slot);
    }
    let has_room = |waiting: u32| ((waiting as usize) < queue).then_some(waiting + 1);
    if room.waiting.fetch_update(Relaxed, Relaxed, has_room).is_err() {
        return Entry::Full;
    }
    local.waiting.fetch_add(1, Relaxed);
    Entry::Wait(Queued { group: group.clone(), local: local.clone(), pooled })
}

/// `may`: use one that rests, open one.
fn attempt(group: &Arc<Group>, local: &Arc<Local>, pooled: bool, may: (bool, bool)) -> Option<Slot> {
    let (busy, open) = (local.busy.load(Relaxed), local.open.load(Relaxed));
    let reserved = if pooled && may.0 && busy < open {
        false
    } else if may.1 && group.room.reserve() {
        true
    } else if pooled && open == 0 {
        group.room.open.fetch_add(1, Relaxed);
        group.room.over.fetch_add(1, Relaxed);
        true
    } else {
        return None;
    };
    local.busy.fetch_add(1, Relaxed);
    if reserved {
        local.open.fetch_add(1, Relaxed);
    }
    Some(Slot { group: group.clone(), local: local.clone(), reserved: Arc::new(AtomicBool::new(reserved)) })
}

fn close(group: &Group, local: &Local) {
    group.room.open.fetch_sub(1, Relaxed);
    local.open.fetch_sub(1, Relaxed);
    group.room.freed.notify_one();
    local.freed.notify_one();
}

// === impl Queued ===

impl Queued {
    /// Until there is a connection for it.
    pub async fn turn(&mut self) -> Slot {
        let Queued { group, local, pooled } = self;
        loop {
            let (here, anywhere) = (local.freed.notified(), group.room.freed.notified());
            tokio::pin!(here, anywhere);
            // From here on nothing that is freed is missed.
            here.as_mut().enable();
            anywhere.as_mut().enable();
            if let Some(slot) = attempt(group, local, *pooled, (true, true)) {
                return slot;
            }
            tokio::select! {
                () = here => {}
                () = anywhere => {}
            }
        }
    }
}

impl Drop for Queued {
    fn drop(&mut self) {
        self.local.waiting.fetch_sub(1, Relaxed);
        self.group.room.waiting.fetch_sub(1, Relaxed);
    }
}

// === impl Slot ===

impl Slot {
    /// What tells us of the connection that the attempt opens, if it opens one.
    pub fn tracer(&self) -> Tracer {
        let Slot { group, local, reserved } = self;
        Tracer(Box::new(Watched { group: group.clone(), local: local.clone(), reserved: reserved.clone() }))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.local.busy.fetch_sub(1, Relaxed);
        if self.reserved.swap(false, Relaxed) {
            close(&self.group, &self.local);
        } else {
            self.local.freed.notify_one();
        }
    }
}

// === impl Watched ===

impl Tracing for Watched {
    fn on_connected(&self) {
        if !self.reserved.swap(false, Relaxed) {
            // One that rested had died meanwhile.
            self.group.room.open.fetch_add(1, Relaxed);
            self.local.open.fetch_add(1, Relaxed);
        }
    }

    fn on_disconnected(&self) {
        close(&self.group, &self.local);
    }

    fn boxed_clone(&self) -> Box<dyn Tracing> {
        let Watched { group, local, reserved } = self;
        Box::new(Watched { group: group.clone(), local: local.clone(), reserved: reserved.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    const A: Key = (1, Spot::Socket(1));
    const B: Key = (2, Spot::Socket(2));

    fn group(most: u32) -> Arc<Group> {
        let group = Arc::new(Group::default());
        group.room.set_most(most);
        group
    }

    fn slot(entry: Entry) -> Slot {
        match entry {
            Entry::In(slot) => slot,
            other => panic!("{other:?}"),
        }
    }

    fn waits(entry: Entry) -> Queued {
        match entry {
            Entry::Wait(queued) => queued,
            other => panic!("{other:?}"),
        }
    }

    fn is_ready(turn: std::pin::Pin<&mut impl Future<Output = Slot>>) -> Option<Slot> {
        match turn.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(slot) => Some(slot),
            Poll::Pending => None,
        }
    }

    /// Opens its connection, which stays until what is returned is told that it ends.
    fn open(slot: &Slot) -> Tracer {
        let tracer = slot.tracer();
        tracer.0.on_connected();
        tracer
    }

    #[test]
    fn so_many_are_open_and_what_rests_is_used_before_one_is_waited_for() {
        let (group, here) = (group(2), Local::of(A));
        let (one, two) = (slot(enter(&group, &here, true, 1)), slot(enter(&group, &here, true, 1)));
        let (first, _second) = (open(&one), open(&two));
        let three = {
            let mut queued = waits(enter(&group, &here, true, 1));
            assert!(matches!(enter(&group, &here, true, 1), Entry::Full));
            assert_eq!((group.room.open(), group.room.waiting()), (Some(2), 1));
            let mut turn = pin!(queued.turn());
            assert!(is_ready(turn.as_mut()).is_none());
            // The connection of the first is put away.
            drop(one);
            is_ready(turn.as_mut()).expect("one rests")
        };
        assert!(!three.reserved.load(Relaxed), "it opens none");
        drop(three);
        first.0.on_disconnected();
        assert_eq!(group.room.open(), Some(1));
        assert!(slot(enter(&group, &here, true, 0)).reserved.load(Relaxed), "the other one is busy");
    }

    #[test]
    fn a_worker_without_any_opens_one_above_the_number_and_only_one() {
        let (group, a, b) = (group(1), Local::of(A), Local::of(B));
        let one = slot(enter(&group, &a, true, 0));
        let _first = open(&one);
        let other = slot(enter(&group, &b, true, 0));
        assert_eq!((group.room.open(), group.room.over()), (Some(2), 1));
        assert!(matches!(enter(&group, &b, true, 0), Entry::Full));
        // It could not connect.
        drop(other);
        assert_eq!(group.room.open(), Some(1));
        assert!(matches!(enter(&group, &b, false, 0), Entry::Full), "where none may rest, one ends sooner or later");
    }

    #[test]
    fn one_that_died_at_rest_is_counted_again_when_another_is_opened_for_it() {
        let (group, here) = (group(5), Local::of(A));
        let one = slot(enter(&group, &here, true, 0));
        let first = open(&one);
        drop(one);
        let two = slot(enter(&group, &here, true, 0));
        first.0.on_disconnected();
        let _second = open(&two);
        assert_eq!((group.room.open(), here.open.load(Relaxed)), (Some(1), 1));
    }

    #[test]
    fn who_waits_goes_first_and_who_leaves_is_forgotten() {
        let (group, here) = (group(1), Local::of(A));
        let one = slot(enter(&group, &here, true, 9));
        let _first = open(&one);
        let gone = waits(enter(&group, &here, true, 9));
        let mut queued = waits(enter(&group, &here, true, 9));
        drop(gone);
        let mut turn = pin!(queued.turn());
        assert!(is_ready(turn.as_mut()).is_none());
        drop(one);
        let later = waits(enter(&group, &here, true, 9));
        assert!(is_ready(turn.as_mut()).is_some(), "first come, first served");
        drop(later);
        assert_eq!(group.room.waiting(), 1);
    }

    #[test]
    fn another_number_holds_from_now_on() {
        let (group, here) = (group(1), Local::of(A));
        let one = slot(enter(&group, &here, true, 9));
        let _first = open(&one);
        let mut queued = waits(enter(&group, &here, true, 9));
        let mut turn = pin!(queued.turn());
        assert!(is_ready(turn.as_mut()).is_none());
        group.room.set_most(0);
        assert!(is_ready(turn.as_mut()).is_some());
        assert_eq!(group.room.open(), None, "nobody counts any more");
    }
}
