//! What a bucket or a window says to one more request, before anything is written. Decides nothing of its own: see `pace.rs` and `window.rs`.

use super::pace::{Kind, Pace, Reading, Span};
use super::table::State;
use super::window::{Bounds, Counted};

/// Where one limit stands, and after one more request, where it fits.
#[derive(Clone, Copy, Debug)]
pub enum Level {
    Bucket {
        used: Span,
        after: Option<Span>,
        /// Nanoseconds that the request may wait, and has to.
        patience: u64,
        wait: u64,
    },
    Window {
        counted: Counted,
        after: Option<Counted>,
        bounds: Bounds,
    },
}

/// One more request, where it fits at once.
pub struct Fits {
    /// What is written.
    pub state: State,
    pub reading: Reading,
}

impl Fits {
    /// What [`Level`] says where it fits without waiting, and without what only a refusal needs.
    #[inline(always)]
    pub fn of(state: &State, now: u64, pace: &Pace, bounds: Bounds) -> Option<Fits> {
        match pace.kind() {
            Kind::Bucket => {
                let after = pace.charge(state.used(now, pace))?;
                Some(Fits { state: State::at(now, after, pace), reading: pace.read(after) })
            }
            Kind::Fixed | Kind::Sliding => {
                let after = Counted::read(state, now, pace, bounds).charge(now, pace, bounds)?;
                Some(Fits { state: after.state(pace, bounds), reading: after.reading(now, pace, bounds) })
            }
        }
    }
}

// === impl Level ===

impl Level {
    #[inline]
    pub fn of(state: &State, now: u64, pace: &Pace, bounds: Bounds, patience: u64) -> Level {
        match pace.kind() {
            Kind::Bucket => {
                let used = state.used(now, pace);
                match patience {
                    0 => Level::Bucket { used, after: pace.charge(used), patience, wait: 0 },
                    _ => {
                        let late = pace.charge_late(used, patience);
                        Level::Bucket { used, after: late.map(|(after, _)| after), patience, wait: late.map_or(0, |(_, wait)| wait) }
                    }
                }
            }
            Kind::Fixed | Kind::Sliding => {
                let counted = Counted::read(state, now, pace, bounds);
                Level::Window { counted, after: counted.charge(now, pace, bounds), bounds }
            }
        }
    }

    #[inline]
    pub fn fits(&self) -> bool {
        match self {
            Level::Bucket { used: _, after, patience: _, wait: _ } => after.is_some(),
            Level::Window { counted: _, after, bounds: _ } => after.is_some(),
        }
    }

    #[inline]
    pub fn is_window(&self) -> bool {
        match self {
            Level::Bucket { .. } => false,
            Level::Window { .. } => true,
        }
    }

    /// Nanoseconds that a request which fits has to wait.
    #[inline]
    pub fn wait(&self) -> u64 {
        match self {
            Level::Bucket { used: _, after: _, patience: _, wait } => *wait,
            Level::Window { .. } => 0,
        }
    }

    /// What is written where the request was admitted.
    #[inline]
    pub fn state(&self, now: u64, pace: &Pace) -> State {
        match *self {
            Level::Bucket { used, after, patience: _, wait: _ } => State::at(now, after.unwrap_or(used), pace),
            Level::Window { counted, after, bounds } => after.unwrap_or(counted).state(pace, bounds),
        }
    }

    /// What is said, and the whole seconds until the request would fit; 0 where it does.
    #[inline]
    pub fn verdict(&self, is_admitted: bool, now: u64, pace: &Pace) -> (Reading, u64) {
        match *self {
            Level::Bucket { used, after, patience, wait: _ } => {
                let shown = if is_admitted { after.unwrap_or(used) } else { used };
                (pace.read(shown), if after.is_some() { 0 } else { pace.retry_after(used, patience) })
            }
            Level::Window { counted, after, bounds } => {
                let shown = if is_admitted { after.unwrap_or(counted) } else { counted };
                (shown.reading(now, pace, bounds), if after.is_some() { 0 } else { counted.retry_after(now, pace, bounds) })
            }
        }
    }
}
