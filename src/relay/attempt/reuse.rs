//! How long a connection to a target is kept for later requests.
//!
//! Decides when one is too old, or has rested for too long. Does not keep them: `kept.rs` does, and Pingora those of HTTP/2, which knows an idle time
//! only. So the age is in the key by which they are found (`peer.rs`). How many rest in all is the server's to say (`server.pool`).

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::diagnostic::Diagnostic;
use crate::config::types::{At, Period};
use crate::relay::upstream::in_range;

/// How connections to the targets are kept for later requests.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PoolSettings {
    /// How long one may rest before it is closed. Less than the targets allow, or requests meet connections that are just being closed. 0s: none is
    /// kept, each request has one of its own. 0s to 1h; default 55s.
    pub idle: Option<At<Period>>,
    /// How old one may become: it gets no further request then. 1s to 24h; default: as old as it likes.
    pub age: Option<At<Period>>,
}

/// The compiled form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reuse {
    /// Zero: never.
    pub idle: Duration,
    pub age: Option<Duration>,
}

/// Below the 60 s after which many servers close an idle connection, so that they rarely close one that is being reused.
const IDLE: Duration = Duration::from_secs(55);

// === impl Reuse ===

impl Reuse {
    pub(in crate::relay) fn compile(settings: Option<&At<PoolSettings>>, names_clients: bool, wrong: &mut Vec<Diagnostic>) -> Reuse {
        let Some(At { value: PoolSettings { idle, age }, place }) = settings else { return Reuse::default() };
        if names_clients {
            let message = "this does nothing: with `proxy_protocol` each request has a connection of its own";
            wrong.push(Diagnostic::at(place, "inert", message).help("remove `pool`"));
        } else if idle.is_none() && age.is_none() {
            wrong.push(Diagnostic::at(place, "inert", "this says nothing: expected `idle` or `age`"));
        }
        if let (Some(Period(Duration::ZERO)), Some(age)) = (idle.as_deref(), age) {
            wrong.push(Diagnostic::at(&age.place, "inert", "`age` has no effect: `idle: 0s` keeps no connection"));
        }
        let idle = in_range(idle.as_ref(), Period(IDLE), Period(Duration::ZERO), Period::seconds(3600), wrong);
        let age = age.as_ref().map(|age| in_range(Some(age), age.value, Period::seconds(1), Period::seconds(24 * 3600), wrong));
        Reuse { idle, age }
    }

    /// What changes each time that connections have become too old; those of targets with other keys at other times. `now` is monotonic.
    pub(in crate::relay) fn generation(&self, key: u64, now: u64) -> u64 {
        let Some(age) = self.age.and_then(|age| u64::try_from(age.as_nanos()).ok()) else { return 0 };
        now.wrapping_add(key % age) / age
    }
}

impl Default for Reuse {
    fn default() -> Self {
        Reuse { idle: IDLE, age: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relay::upstream::tests::at;

    fn compile(idle: Option<u64>, age: Option<u64>, names_clients: bool) -> (Reuse, Vec<&'static str>) {
        let period = |seconds: Option<u64>| seconds.map(|seconds| at(Period::seconds(seconds)));
        let mut wrong = Vec::new();
        let settings = at(PoolSettings { idle: period(idle), age: period(age) });
        let reuse = Reuse::compile(Some(&settings), names_clients, &mut wrong);
        (reuse, wrong.iter().map(|wrong| wrong.code).collect())
    }

    #[test]
    fn what_does_nothing_is_a_mistake() {
        assert_eq!(Reuse::compile(None, true, &mut Vec::new()), Reuse::default());
        assert_eq!(compile(None, None, false).1, ["inert"]);
        assert_eq!(compile(Some(5), None, true).1, ["inert"]);
        assert_eq!(compile(Some(0), Some(5), false).1, ["inert"]);
        assert_eq!(compile(Some(3601), Some(0), false).1, ["out-of-range", "out-of-range"]);
        assert_eq!(compile(Some(0), None, false), (Reuse { idle: Duration::ZERO, age: None }, vec![]));
    }

    #[test]
    fn a_generation_lasts_as_long_as_a_connection_may() {
        const SECOND: u64 = 1_000_000_000;
        let (reuse, _) = compile(None, Some(10), false);
        let (zero, seven) = (0, 7 * SECOND);
        assert_eq!([0, 9, 10, 19, 20].map(|at| reuse.generation(zero, at * SECOND)), [0, 0, 1, 1, 2]);
        assert_eq!([0, 2, 3, 12, 13].map(|at| reuse.generation(seven, at * SECOND)), [0, 0, 1, 1, 2], "others end at other times");
        assert_eq!(Reuse::default().generation(seven, u64::MAX), 0);
    }
}
