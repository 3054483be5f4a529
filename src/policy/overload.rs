//! Decides whether the process as a whole can take one more request: by how many it has, and by its memory.
//!
//! Looks at no memory itself (`server/memory.rs`), and does not decide for one upstream (`relay/adaptive`).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use http::HeaderValue;
use http::header::RETRY_AFTER;
use schemars::JsonSchema;
use serde::Deserialize;

use super::priority::Priority;
use crate::config::diagnostic::Diagnostic;
use crate::config::types::{At, Size};
use crate::reply::problem::{Kind, Problem};
use crate::report::metrics::shed::Full;

/// Bounds of the process, beyond which requests are refused.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OverloadSettings {
    /// So many requests at once, on all listeners together; of those that go to upstreams, each `priority` has its share. 1 to 10000000. Default: any number.
    pub in_flight: Option<At<u32>>,
    /// So much memory of the process, resident, as the kernel counts it: beyond it all requests are refused, from nine tenths of it those to upstreams with a priority
    /// below `normal`. At least 32MiB. Default: any.
    pub memory: Option<At<Size>>,
}

/// The compiled form.
#[derive(Clone, Debug)]
pub struct Overload {
    in_flight: Option<u32>,
    pub memory: Option<u64>,
    /// What the memory was when it was last looked at, in bytes.
    resident: Arc<AtomicU64>,
}

/// What there is too much of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Excess {
    pub full: Full,
    has: u64,
    most: u64,
}

pub static GATEWAY_OVERLOADED: Kind = Kind {
    code: "gateway-overloaded",
    status: 503,
    error: "Service unavailable",
    about: "The gateway itself has as many requests at once, or as much memory, as its `overload` allows; those of low priority are refused first. Come back after `Retry-After`. The log says which it was.",
};

const LEAST_MEMORY: Size = Size::mib(32);
const MOST_IN_FLIGHT: u32 = 10_000_000;

// === impl Overload ===

impl Overload {
    pub fn compile(settings: &At<OverloadSettings>, resident: Arc<AtomicU64>) -> Result<Overload, Vec<Diagnostic>> {
        let OverloadSettings { in_flight, memory } = &settings.value;
        let mut wrong = Vec::new();
        if in_flight.is_none() && memory.is_none() {
            wrong.push(Diagnostic::at(&settings.place, "inert", "this changes nothing: expected `in_flight` or `memory`"));
        }
        if let Some(most) = in_flight.as_ref().filter(|most| !(1..=MOST_IN_FLIGHT).contains(&most.value)) {
            let message = format!("`{}` is out of range: expected 1 to {MOST_IN_FLIGHT}", most.value);
            wrong.push(Diagnostic::at(&most.place, "out-of-range", message));
        }
        if let Some(memory) = memory.as_ref().filter(|memory| memory.value < LEAST_MEMORY) {
            let message = format!("`{}` is out of range: expected at least {LEAST_MEMORY}", memory.value);
            wrong.push(Diagnostic::at(&memory.place, "out-of-range", message));
        }
        let in_flight = in_flight.as_ref().map(|most| most.value);
        let memory = memory.as_ref().map(|memory| memory.value.0);
        if wrong.is_empty() { Ok(Overload { in_flight, memory, resident }) } else { Err(wrong) }
    }

    /// Whether any request may go on, while there are so many with it.
    pub fn admit_any(&self, in_flight: u64) -> Result<(), Excess> {
        self.admit(in_flight, Priority::High)
    }

    /// Whether one with this priority may go to an upstream.
    pub fn admit(&self, in_flight: u64, priority: Priority) -> Result<(), Excess> {
        if let Some(most) = self.in_flight {
            let most = u64::from(priority.share_of(most));
            if in_flight > most {
                return Err(Excess { full: Full::InFlight, has: in_flight, most });
            }
        }
        if let Some(most) = self.memory {
            let most = match priority {
                Priority::Lowest | Priority::Low => most / 10 * 9,
                Priority::Normal | Priority::High => most,
            };
            let has = self.resident.load(Relaxed);
            if has > most {
                return Err(Excess { full: Full::Memory, has, most });
            }
        }
        Ok(())
    }

    /// For `explain`.
    pub fn told(&self) -> String {
        let in_flight = self.in_flight.map(|most| format!("{most} requests at once"));
        let memory = self.memory.map(|most| format!("{} of memory", Size(most)));
        let both: Vec<_> = [in_flight, memory].into_iter().flatten().collect();
        format!("the gateway takes {}", both.join(" and "))
    }
}

// === impl Excess ===

impl Excess {
    /// None: whatever the priority would have been.
    pub fn problem(self, priority: Option<Priority>) -> Problem {
        let Excess { full, has, most } = self;
        let what = match full {
            Full::Memory => "bytes of memory",
            Full::InFlight | Full::Upstream => "requests at once",
        };
        let priority = priority.map(|priority| format!(" with priority {}", priority.as_str())).unwrap_or_default();
        Problem::new(&GATEWAY_OVERLOADED)
            .header(RETRY_AFTER, HeaderValue::from_static("1"))
            .reason(format!("{has} of {most} {what}{priority}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relay::upstream::tests::at;

    fn compile(in_flight: Option<u32>, memory: Option<u64>) -> Result<Overload, Vec<&'static str>> {
        let settings = OverloadSettings { in_flight: in_flight.map(at), memory: memory.map(|bytes| at(Size(bytes))) };
        Overload::compile(&at(settings), Arc::new(AtomicU64::new(100 << 20))).map_err(|wrong| wrong.iter().map(|one| one.code).collect())
    }

    #[test]
    fn those_who_matter_least_are_refused_first() {
        let overload = compile(Some(100), None).unwrap();
        let full_at = |priority| (1..200).find(|in_flight| overload.admit(*in_flight, priority).is_err());
        assert_eq!(Priority::ALL.map(full_at), [Some(61), Some(76), Some(91), Some(101)]);
        let excess = overload.admit_any(101).unwrap_err();
        assert_eq!(excess.problem(None).reason.as_deref(), Some("101 of 100 requests at once"));
    }

    #[test]
    fn with_its_memory_used_up_it_takes_nothing_more() {
        let of = |most: u64| Priority::ALL.map(|priority| compile(None, Some(most << 20)).unwrap().admit(1, priority).is_ok());
        assert_eq!((of(99), of(105), of(112)), ([false; 4], [false, false, true, true], [true; 4]));
    }

    #[test]
    fn bounds_that_say_nothing_or_too_little_are_refused() {
        assert_eq!(compile(None, None).unwrap_err(), ["inert"]);
        assert_eq!(compile(Some(0), Some(1 << 20)).unwrap_err(), ["out-of-range", "out-of-range"]);
    }
}
