//! Decides whether the process as a whole can take one more request: by how many it has, and by its memory.
//!
//! Does not decide how many are too many for the memory (`pressure.rs`), nor for one upstream (`relay/adaptive`).

use std::sync::Arc;

use http::HeaderValue;
use http::header::RETRY_AFTER;
use schemars::JsonSchema;
use serde::Deserialize;

use super::pressure::Pressure;
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
    /// So much memory of the process, resident, as the kernel counts it. While there is more, only about half as many requests are let in as there were when it
    /// was passed, and fewer if it grows still; each `priority` has its share. At least 32MiB. Default: any.
    pub memory: Option<At<Size>>,
}

/// The compiled form.
#[derive(Clone, Debug)]
pub struct Overload {
    in_flight: Option<u32>,
    pub memory: Option<u64>,
    pressure: Arc<Pressure>,
}

/// What there is too much of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Excess {
    pub full: Full,
    has: u64,
    most: u64,
    /// Bytes, where they are what is full.
    resident: u64,
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
    pub fn compile(settings: &At<OverloadSettings>, pressure: Arc<Pressure>) -> Result<Overload, Vec<Diagnostic>> {
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
        if wrong.is_empty() { Ok(Overload { in_flight, memory, pressure }) } else { Err(wrong) }
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
                return Err(Excess { full: Full::InFlight, has: in_flight, most, resident: 0 });
            }
        }
        if self.memory.is_some() {
            let most = u64::from(priority.share_of(self.pressure.ceiling()));
            if in_flight > most {
                return Err(Excess { full: Full::Memory, has: in_flight, most, resident: self.pressure.resident() });
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
        let Excess { full, has, most, resident } = self;
        let why = match full {
            Full::Memory => format!(", as {resident} bytes of memory are used"),
            Full::InFlight | Full::Upstream => String::new(),
        };
        let priority = priority.map(|priority| format!(" with priority {}", priority.as_str())).unwrap_or_default();
        let reason = format!("{has} of {most} requests at once{priority}{why}");
        Problem::new(&GATEWAY_OVERLOADED).header(RETRY_AFTER, HeaderValue::from_static("1")).reason(reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relay::upstream::tests::at;

    fn compile(in_flight: Option<u32>, memory: Option<u64>, pressure: Arc<Pressure>) -> Result<Overload, Vec<&'static str>> {
        let settings = OverloadSettings { in_flight: in_flight.map(at), memory: memory.map(|bytes| at(Size(bytes))) };
        Overload::compile(&at(settings), pressure).map_err(|wrong| wrong.iter().map(|one| one.code).collect())
    }

    fn full_at(overload: &Overload) -> [Option<u64>; 4] {
        Priority::ALL.map(|priority| (1..200).find(|in_flight| overload.admit(*in_flight, priority).is_err()))
    }

    #[test]
    fn those_who_matter_least_are_refused_first() {
        let overload = compile(Some(100), None, Arc::default()).unwrap();
        assert_eq!(full_at(&overload), [Some(61), Some(76), Some(91), Some(101)]);
        let excess = overload.admit_any(101).unwrap_err();
        assert_eq!(excess.problem(None).reason.as_deref(), Some("101 of 100 requests at once"));
    }

    #[test]
    fn with_its_memory_used_up_it_takes_fewer_requests_where_that_is_asked_for() {
        let pressure = Arc::new(Pressure::default());
        let [with, without] = [Some(64 << 20), None].map(|memory| compile(Some(1_000), memory, pressure.clone()).unwrap());
        assert_eq!(full_at(&with), [None; 4]);
        pressure.look(80 << 20, Some(64 << 20), 100);
        assert_eq!((full_at(&with), full_at(&without)), ([Some(25), Some(31), Some(37), Some(41)], [None; 4]));
        let excess = with.admit(25, Priority::Lowest).unwrap_err();
        let reason = "25 of 24 requests at once with priority lowest, as 83886080 bytes of memory are used";
        assert_eq!((excess.full, excess.problem(Some(Priority::Lowest)).reason.as_deref()), (Full::Memory, Some(reason)));
    }

    #[test]
    fn bounds_that_say_nothing_or_too_little_are_refused() {
        assert_eq!(compile(None, None, Arc::default()).unwrap_err(), ["inert"]);
        assert_eq!(compile(Some(0), Some(1 << 20), Arc::default()).unwrap_err(), ["out-of-range", "out-of-range"]);
    }
}
