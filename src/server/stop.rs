//! The end of a process: not ready, `settle`, listeners close, drain, and what is left is cut.
//!
//! Decides the order, and that a second signal ends the waiting. Where another process has taken over nobody waits before the
//! listeners close.

use std::sync::Arc;
use std::time::Duration;

use super::notify;
use super::running::Running;
use super::signals::Signals;
use crate::listen::running::RunningListener;

/// Why a process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// A signal.
    Stopped,
    /// Another process accepts in its place.
    Replaced,
}

/// How long workers that are cut, and the access log, may take to end.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// The tunnels of listeners that a reload closed live as long as those of a process that is stopped.
pub(super) fn cut_after(drain: Duration, listeners: &[Arc<RunningListener>]) {
    for listener in listeners {
        // Its connections hold it as long as there are any.
        let listener = Arc::downgrade(listener);
        tokio::spawn(async move {
            tokio::time::sleep(drain).await;
            if let Some(listener) = listener.upgrade() {
                listener.cut();
            }
        });
    }
}

// === impl Running ===

impl Running {
    /// Ends as soon as the last request is done, or at `drain`, or with the next signal.
    pub async fn stop(mut self, end: End, signals: &mut Signals) {
        let server = self.gateway().server.clone();
        let mut is_over = false;
        match end {
            End::Stopped => {
                self.stop_keys();
                self.shown().set_ready(Some("stopping"));
                notify(&[sd_notify::NotifyState::Stopping]);
                log::info!("stopping: listeners close in {:?}, then requests have {:?}", server.settle, server.drain);
                is_over = !self.unless_signalled(signals, tokio::time::sleep(server.settle)).await;
            }
            End::Replaced => {}
        }
        self.close_listeners();
        let (open, sink) = (self.open().clone(), self.sink().clone());
        if !is_over {
            let drained = tokio::time::timeout(server.drain, open.none());
            let drained = self.unless_signalled(signals, async { is_over = drained.await.is_err() }).await;
            is_over |= !drained;
        }
        self.keep_quotas();
        if is_over {
            self.cut(LAST_WORDS);
        }
        sink.flush(LAST_WORDS);
        log::info!("stopped");
    }

    /// Whether it came to its end before somebody insisted.
    async fn unless_signalled(&self, signals: &mut Signals, what: impl Future<Output = ()>) -> bool {
        tokio::pin!(what);
        loop {
            tokio::select! {
                () = &mut what => return true,
                _ = signals.user1.recv() => self.reopen_logs(),
                () = signals.end.recv() => {
                    log::warn!("told to stop again: at once");
                    return false;
                }
            }
        }
    }
}
