//! One timer for a whole connection, moved rarely. Decides nothing: what is due when is decided in `front.rs`.
//!
//! A keep-alive connection gets a new deadline with every request. Making and cancelling a timer each time would cost more
//! than the deadline is worth, so the timer is left where it is and only looked at when it rings too early.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use tokio::time::{Instant, Sleep, sleep_until};

/// A timer that may ring early inside, but is `Ready` only when the deadline asked for has passed.
#[derive(Debug, Default)]
pub struct Alarm {
    sleep: Option<Pin<Box<Sleep>>>,
    /// Whom the timer wakes already.
    known: Known,
}

/// Whether the task that asks is one that has been told to be woken.
#[derive(Debug, Default)]
pub struct Known(Option<Waker>);

// === impl Known ===

impl Known {
    /// False the first time, and whenever another task asks.
    pub fn has(&mut self, cx: &Context<'_>) -> bool {
        let has = self.0.as_ref().is_some_and(|known| known.will_wake(cx.waker()));
        if !has {
            self.0 = Some(cx.waker().clone());
        }
        has
    }
}

// === impl Alarm ===

impl Alarm {
    /// `Ready` once `at` has passed; else the task is woken then, or earlier.
    pub fn poll_past(&mut self, cx: &mut Context<'_>, at: Instant) -> Poll<()> {
        let is_known = self.known.has(cx) && self.sleep.is_some();
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep_until(at)));
        if sleep.deadline() > at {
            sleep.as_mut().reset(at);
        } else if is_known && !sleep.is_elapsed() {
            return Poll::Pending;
        }
        while sleep.as_mut().poll(cx).is_ready() {
            if sleep.deadline() >= at {
                // A timer that has rung must be set anew before it may be polled again.
                self.sleep = None;
                return Poll::Ready(());
            }
            sleep.as_mut().reset(at);
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn a_deadline_moved_later_is_not_due_at_its_old_time() {
        let start = Instant::now();
        let mut alarm = Alarm::default();
        let soon = start + Duration::from_secs(1);
        assert!(poll_fn(|cx| Poll::Ready(alarm.poll_past(cx, soon))).await.is_pending());
        poll_fn(|cx| alarm.poll_past(cx, start + Duration::from_secs(5))).await;
        assert_eq!((Instant::now() - start).as_secs(), 5);
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_moved_earlier_is_due_at_its_new_time() {
        let start = Instant::now();
        let mut alarm = Alarm::default();
        let late = start + Duration::from_secs(60);
        assert!(poll_fn(|cx| Poll::Ready(alarm.poll_past(cx, late))).await.is_pending());
        poll_fn(|cx| alarm.poll_past(cx, start + Duration::from_secs(2))).await;
        assert_eq!((Instant::now() - start).as_secs(), 2);
    }
}
