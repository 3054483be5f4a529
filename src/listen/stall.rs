//! Runs an exchange, and gives it up where its upstream takes nothing more of the request, or its listener is cut.
//!
//! Decides when it looks. Does not decide how long that may take (`relay/attempt/deadline.rs`, `server/stop.rs`), nor what the client and the log are
//! told (`exchange/stuck.rs`, `exchange/finish.rs`). From outside, because Pingora polls neither side of such an exchange but the one that says nothing.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::{Context, Poll, ready};

use super::alarm::Alarm;
use crate::clock;
use crate::relay::attempt::deadline::Deadline;

/// What `exchange` gives; none where it was given up. It is dropped by then. `poll_cut` is ready where nothing may go on any more.
pub(super) async fn unless_stuck<F: Future>(
    deadline: &Deadline,
    exchange: F,
    mut poll_cut: impl FnMut(&mut Context<'_>) -> Poll<()>,
) -> Option<F::Output> {
    let mut exchange = pin!(exchange);
    let mut alarm = Alarm::default();
    poll_fn(|cx| {
        if let Poll::Ready(done) = exchange.as_mut().poll(cx) {
            return Poll::Ready(Some(done));
        }
        if poll_cut(cx).is_ready() {
            return Poll::Ready(None);
        }
        let Some(at) = deadline.taken_by() else { return Poll::Pending };
        ready!(alarm.poll_past(cx, clock::instant(at)));
        deadline.note_stuck();
        Poll::Ready(None)
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::task::yield_now;

    const SOON: Duration = Duration::from_millis(1);

    #[tokio::test]
    async fn what_stands_still_is_given_up() {
        let deadline = Deadline::default();
        deadline.await_taken(clock::mono(), SOON);
        assert_eq!(unless_stuck(&deadline, std::future::pending::<()>(), |_| Poll::Pending).await, None);
        assert!(deadline.is_stuck());
    }

    #[tokio::test]
    async fn what_is_cut_is_given_up_though_nothing_is_stuck() {
        let deadline = Deadline::default();
        assert_eq!(unless_stuck(&deadline, std::future::pending::<()>(), |_| Poll::Ready(())).await, None);
        assert!(!deadline.is_stuck());
    }

    #[tokio::test]
    async fn what_goes_on_is_left_alone() {
        let deadline = Deadline::default();
        deadline.await_taken(clock::mono(), SOON);
        let past = || deadline.taken_by().is_some_and(|at| at < clock::mono());
        let exchange = async {
            deadline.await_taken(clock::mono(), Duration::from_secs(3600));
            yield_now().await;
            assert!(!past());
            deadline.taken();
            let begun = clock::mono();
            while clock::mono() < begun + 20_000_000 {
                yield_now().await;
            }
            7
        };
        assert_eq!(unless_stuck(&deadline, exchange, |_| Poll::Pending).await, Some(7));
        assert!(!deadline.is_stuck());
    }
}
