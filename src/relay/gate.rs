//! Decides who goes to an upstream that takes so many requests at once: who comes first, who waits, who is refused.
//!
//! First come, first served; the queue is as long as configured, and nobody waits longer than configured. Does not answer (`admit.rs`).

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::relay::targets::group::Group;

/// Who is in, and who waits.
#[derive(Debug)]
pub struct Gate(Mutex<Inside>);

#[derive(Debug)]
struct Inside {
    /// How many may be in.
    most: u32,
    taken: u32,
    queue: VecDeque<(u64, oneshot::Sender<()>)>,
    /// Numbers who waits.
    next: u64,
}

/// What becomes of one that comes.
#[derive(Debug)]
pub enum Entry {
    In(Place),
    Wait(Waiting),
    Full,
}

/// Given back when dropped.
#[derive(Debug)]
pub struct Place(Arc<Group>);

/// Who leaves before its turn leaves the queue.
#[derive(Debug)]
pub struct Waiting {
    group: Arc<Group>,
    number: u64,
    turn: oneshot::Receiver<()>,
    has_place: bool,
}

// === impl Gate ===

impl Default for Gate {
    fn default() -> Self {
        Gate(Mutex::new(Inside { most: u32::MAX, taken: 0, queue: VecDeque::new(), next: 0 }))
    }
}

impl Gate {
    pub fn waiting(&self) -> usize {
        self.0.lock().queue.len()
    }

    pub fn taken(&self) -> u32 {
        self.0.lock().taken
    }

    /// How many may be in from now on. Where there are more, those that wait go on.
    pub fn set_most(&self, most: u32) {
        let mut inside = self.0.lock();
        inside.most = most;
        inside.call();
    }

    #[inline]
    pub fn enter(group: &Arc<Group>, queue: usize) -> Entry {
        let mut inside = group.gate.0.lock();
        if inside.taken < inside.most && inside.queue.is_empty() {
            inside.taken += 1;
            return Entry::In(Place(group.clone()));
        }
        if inside.queue.len() >= queue {
            return Entry::Full;
        }
        let (call, turn) = oneshot::channel();
        let number = inside.next;
        inside.next += 1;
        inside.queue.push_back((number, call));
        Entry::Wait(Waiting { group: group.clone(), number, turn, has_place: false })
    }

    fn leave(&self) {
        let mut inside = self.0.lock();
        inside.taken = inside.taken.saturating_sub(1);
        inside.call();
    }
}

impl Inside {
    /// Lets in who has waited longest, as long as there is room.
    fn call(&mut self) {
        if self.queue.is_empty() {
            return;
        }
        while self.taken < self.most {
            let Some((_, next)) = self.queue.pop_front() else { return };
            // One that has left takes no place.
            if next.send(()).is_ok() {
                self.taken += 1;
            }
        }
    }
}

// === impl Place ===

impl Drop for Place {
    fn drop(&mut self) {
        self.0.gate.leave();
    }
}

// === impl Waiting ===

impl Future for Waiting {
    type Output = Place;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Place> {
        match Pin::new(&mut self.turn).poll(cx) {
            Poll::Ready(Ok(())) => {
                self.has_place = true;
                Poll::Ready(Place(self.group.clone()))
            }
            // Nobody calls it any more, which cannot be: the group is held here.
            Poll::Ready(Err(_)) | Poll::Pending => Poll::Pending,
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if self.has_place {
            return;
        }
        let mut inside = self.group.gate.0.lock();
        match inside.queue.iter().position(|(number, _)| *number == self.number) {
            Some(at) => drop(inside.queue.remove(at)),
            // It had just been called.
            None => {
                inside.taken = inside.taken.saturating_sub(1);
                inside.call();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::Waker;

    fn group(most: u32) -> Arc<Group> {
        let group = Arc::new(Group::default());
        group.gate.set_most(most);
        group
    }

    fn place(entry: Entry) -> Place {
        match entry {
            Entry::In(place) => place,
            other => panic!("{other:?}"),
        }
    }

    fn waits(entry: Entry) -> Waiting {
        match entry {
            Entry::Wait(waiting) => waiting,
            other => panic!("{other:?}"),
        }
    }

    fn poll(waiting: &mut Waiting) -> Poll<Place> {
        Pin::new(waiting).poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn so_many_are_in_so_many_wait_and_the_rest_is_refused() {
        let group = group(2);
        let (one, _two) = (place(Gate::enter(&group, 2)), place(Gate::enter(&group, 2)));
        let (mut first, mut second) = (waits(Gate::enter(&group, 2)), waits(Gate::enter(&group, 2)));
        assert!(matches!(Gate::enter(&group, 2), Entry::Full));
        assert!(poll(&mut first).is_pending() && poll(&mut second).is_pending());
        drop(one);
        assert!(poll(&mut second).is_pending(), "first come, first served");
        let Poll::Ready(third) = poll(&mut first) else { panic!() };
        assert_eq!((group.gate.taken(), group.gate.waiting()), (2, 1));
        drop(third);
        assert!(poll(&mut second).is_ready());
        assert_eq!((group.gate.taken(), group.gate.waiting()), (1, 0));
    }

    #[test]
    fn who_leaves_the_queue_takes_no_place() {
        let group = group(1);
        let one = place(Gate::enter(&group, 9));
        let (gone, called, mut last) = (waits(Gate::enter(&group, 9)), waits(Gate::enter(&group, 9)), waits(Gate::enter(&group, 9)));
        drop(gone);
        assert_eq!(group.gate.waiting(), 2);
        drop(one);
        // It has been called, and does not know it yet.
        drop(called);
        assert!(poll(&mut last).is_ready());
        assert_eq!(group.gate.taken(), 0);
    }

    #[test]
    fn more_room_lets_those_in_who_wait_and_less_lets_nobody_in() {
        let group = group(1);
        let one = place(Gate::enter(&group, 9));
        let mut waiting = waits(Gate::enter(&group, 9));
        group.gate.set_most(2);
        let Poll::Ready(two) = poll(&mut waiting) else { panic!() };
        group.gate.set_most(1);
        let mut later = waits(Gate::enter(&group, 9));
        drop(one);
        assert!(poll(&mut later).is_pending());
        drop(two);
        assert!(poll(&mut later).is_ready());
    }
}
