//! Decides whether one address may take requests: nothing speaks against it, or so many are out that all are used.
//!
//! Keeps each cause for which it is out, with the reason and since when. Who finds a cause is elsewhere: checks (`health/`), outcomes of
//! requests (`outliers/`, `circuit/`), the operator.

use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

/// Why an address is out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// Its health checks fail.
    Check,
    /// Requests that were sent there fared badly.
    Ejected,
    /// Its circuit is open.
    Circuit,
    /// The operator has taken it out.
    Drained,
}

/// One cause, told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Out {
    pub cause: Cause,
    /// Milliseconds since 1970.
    pub since_unix_ms: u64,
    pub reason: String,
    /// When it comes back by itself, in milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until_unix_ms: Option<u64>,
}

/// What speaks against one address now.
#[derive(Debug, Default)]
pub struct Standing {
    /// A bit for each cause, and the two below: choosing reads one word.
    bits: AtomicU8,
    outs: Mutex<[Option<Out>; Cause::ALL.len()]>,
}

/// Its circuit is half open: it takes a bounded number of requests.
const PROBED: u8 = 1 << 6;
/// So many addresses of the upstream are out that what checks and requests say of any is no reason.
const PANIC: u8 = 1 << 7;

/// What an address may be given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum May {
    Take,
    /// A request at a time that finds out.
    Probe,
    Nothing,
}

// === impl Cause ===

impl Cause {
    pub const ALL: [Cause; 4] = [Cause::Check, Cause::Ejected, Cause::Circuit, Cause::Drained];

    fn bit(self) -> u8 {
        1 << self as u8
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Cause::Check => "check",
            Cause::Ejected => "ejected",
            Cause::Circuit => "circuit",
            Cause::Drained => "drained",
        }
    }

    /// As it follows a number of addresses.
    pub fn told(self) -> &'static str {
        match self {
            Cause::Check => "by failed checks",
            Cause::Ejected => "ejected",
            Cause::Circuit => "by an open circuit",
            Cause::Drained => "drained",
        }
    }
}

// === impl Standing ===

impl Standing {
    /// One load where nothing is wrong.
    pub fn may(&self) -> May {
        match self.bits.load(Relaxed) {
            0 => May::Take,
            bits => of_odd(bits),
        }
    }

    pub fn is_out_by(&self, cause: Cause) -> bool {
        self.bits.load(Relaxed) & cause.bit() != 0
    }

    /// Whether it is taken to work by those whose verdict is put aside where too many are out.
    pub fn is_sound(&self) -> bool {
        self.bits.load(Relaxed) & (Cause::Check.bit() | Cause::Ejected.bit()) == 0
    }

    /// Whether nothing at all speaks against it.
    pub fn is_clear(&self) -> bool {
        Cause::ALL.into_iter().all(|cause| !self.is_out_by(cause))
    }

    /// Takes it out. False: it was out for this cause already, and is told as before.
    pub fn out(&self, out: Out) -> bool {
        let mut outs = self.outs.lock();
        let slot = &mut outs[out.cause as usize];
        if slot.is_some() {
            return false;
        }
        self.bits.fetch_or(out.cause.bit(), Relaxed);
        *slot = Some(out);
        true
    }

    /// The latest reason of a cause that lasts.
    pub fn say(&self, cause: Cause, reason: String) {
        if let Some(out) = &mut self.outs.lock()[cause as usize] {
            out.reason = reason;
        }
    }

    /// A cause is gone; what was told of it.
    pub fn back(&self, cause: Cause) -> Option<Out> {
        let mut outs = self.outs.lock();
        self.bits.fetch_and(!cause.bit(), Relaxed);
        outs[cause as usize].take()
    }

    /// Every cause, the gravest first.
    pub fn outs(&self) -> Vec<Out> {
        self.outs.lock().iter().flatten().cloned().collect()
    }

    pub fn until(&self, cause: Cause) -> Option<u64> {
        self.outs.lock()[cause as usize].as_ref().and_then(|out| out.until_unix_ms)
    }

    pub fn set_probed(&self, probed: bool) {
        self.set(PROBED, probed);
    }

    pub fn is_probed(&self) -> bool {
        self.bits.load(Relaxed) & PROBED != 0
    }

    pub fn set_panic(&self, panic: bool) {
        self.set(PANIC, panic);
    }

    fn set(&self, bit: u8, on: bool) {
        match on {
            true => self.bits.fetch_or(bit, Relaxed),
            false => self.bits.fetch_and(!bit, Relaxed),
        };
    }
}

#[cold]
fn of_odd(bits: u8) -> May {
    let (firm, soft) = (Cause::Circuit.bit() | Cause::Drained.bit(), Cause::Check.bit() | Cause::Ejected.bit());
    if bits & firm != 0 || (bits & soft != 0 && bits & PANIC == 0) {
        May::Nothing
    } else if bits & PROBED != 0 {
        May::Probe
    } else {
        May::Take
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn out(cause: Cause) -> Out {
        Out { cause, since_unix_ms: 7, reason: "refused".into(), until_unix_ms: None }
    }

    #[test]
    fn each_cause_is_taken_back_by_itself() {
        let standing = Standing::default();
        assert_eq!(standing.may(), May::Take);
        assert!(standing.out(out(Cause::Check)) && standing.out(out(Cause::Ejected)));
        assert!(!standing.out(out(Cause::Check)), "told once");
        assert_eq!(standing.back(Cause::Check), Some(out(Cause::Check)));
        assert_eq!(standing.may(), May::Nothing);
        assert_eq!(standing.outs(), [out(Cause::Ejected)]);
        standing.back(Cause::Ejected);
        assert_eq!((standing.may(), standing.back(Cause::Ejected)), (May::Take, None));
    }

    #[test]
    fn in_a_panic_only_the_operator_and_circuits_are_heard() {
        for (cause, may) in
            [(Cause::Check, May::Take), (Cause::Ejected, May::Take), (Cause::Circuit, May::Nothing), (Cause::Drained, May::Nothing)]
        {
            let standing = Standing::default();
            standing.out(out(cause));
            assert_eq!(standing.may(), May::Nothing);
            standing.set_panic(true);
            assert_eq!(standing.may(), may, "{cause:?}");
            standing.set_panic(false);
            assert_eq!(standing.may(), May::Nothing);
        }
        let probed = Standing::default();
        probed.set_probed(true);
        assert_eq!(probed.may(), May::Probe);
    }
}
