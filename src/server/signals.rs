//! The signals that this process acts on.
//!
//! Decides nothing: who acts is in `mod.rs` and `stop.rs`.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// One stream for each. From the moment they are made, none of these signals ends the process by itself.
pub struct Signals {
    pub hang_up: Signal,
    pub user1: Signal,
    pub user2: Signal,
    pub end: Ends,
}

/// SIGTERM and SIGINT, which mean the same.
pub struct Ends {
    terminate: Signal,
    interrupt: Signal,
    is_due: bool,
}

// === impl Signals ===

impl Signals {
    pub fn new() -> io::Result<Self> {
        Ok(Signals {
            hang_up: signal(SignalKind::hangup())?,
            user1: signal(SignalKind::user_defined1())?,
            user2: signal(SignalKind::user_defined2())?,
            end: Ends { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())?, is_due: false },
        })
    }
}

// === impl Ends ===

impl Ends {
    /// Returns when one comes, or has come.
    pub async fn recv(&mut self) {
        if std::mem::take(&mut self.is_due) {
            return;
        }
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    /// For who has waited for one and leaves it to somebody else to act.
    pub fn again(&mut self) {
        self.is_due = true;
    }
}
