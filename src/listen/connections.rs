//! Decides how many connections a listener may have, how fast new ones may come, and how long each may live.
//!
//! Counts nothing: see `caps.rs` and `newcomers.rs`. Does not end a connection: what is too old or has served enough is told
//! `Connection: close` with its next answer, never cut.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::diagnostic::Diagnostic;
use crate::config::types::{At, Period, Rate};

/// How many connections may be open; more are closed at once and counted.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ConnectionsSettings {
    /// In total on this listener. Default 20000.
    pub max: Option<At<u32>>,
    /// From one client address (v6 by /64). Default 10000, so that no address can take all that `max` allows by default.
    pub per_address: Option<At<u32>>,
    /// How many may be opened from one client address (v6 by /64), TLS or not, at once and then in each period. Default: as many as it likes.
    pub rate_per_address: Option<At<Rate>>,
    /// Requests on one connection; the last one's answer says `Connection: close`. Default 100000.
    pub requests: Option<At<u32>>,
    /// Age of a connection, up to a tenth less (so that many do not end together); its next answer says `Connection: close`. Tunnels may be older. Default 1h.
    pub age: Option<At<Period>>,
}

/// How many connections may be open at once, and how each ends in good time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionBounds {
    pub max: u32,
    pub per_address: u32,
    pub rate_per_address: Option<Rate>,
    pub requests: u32,
    pub age: Duration,
}

// === impl ConnectionBounds ===

impl Default for ConnectionBounds {
    fn default() -> Self {
        ConnectionBounds { max: 20_000, per_address: 10_000, rate_per_address: None, requests: 100_000, age: Duration::from_secs(3600) }
    }
}

impl ConnectionBounds {
    pub(super) fn compile(settings: Option<&ConnectionsSettings>, mistakes: &mut Vec<Diagnostic>) -> Self {
        let mut bounds = ConnectionBounds::default();
        let Some(ConnectionsSettings { max, per_address, rate_per_address, requests, age }) = settings else { return bounds };
        for count in [max, per_address].into_iter().flatten().filter(|count| count.value == 0) {
            mistakes.push(
                Diagnostic::at(&count.place, "out-of-range", "`0` connections would refuse everyone: expected at least 1")
                    .help("to serve nothing on this address, remove the listener"),
            );
        }
        if let Some(max) = max {
            bounds.max = max.value;
        }
        if let Some(each) = per_address {
            if each.value > bounds.max {
                let message = format!("`{}` connections from one address can never be open: `max` is {}", each.value, bounds.max);
                mistakes.push(Diagnostic::at(&each.place, "inert", message).help("raise `max`, or lower `per_address`"));
            }
            bounds.per_address = each.value;
        }
        bounds.rate_per_address = rate_per_address.as_ref().map(|rate| rate.value);
        if let Some(requests) = requests {
            if requests.value == 0 {
                let message = "`0` requests on a connection would answer nobody: expected at least 1";
                mistakes.push(Diagnostic::at(&requests.place, "out-of-range", message));
            }
            bounds.requests = requests.value;
        }
        if let Some(age) = age {
            if age.0.is_zero() {
                let message = format!("`{}` is out of range for the age of a connection: expected more than 0", age.value);
                mistakes.push(
                    Diagnostic::at(&age.place, "out-of-range", message).help("for one request on each connection, write `requests: 1`"),
                );
            }
            bounds.age = age.0;
        }
        bounds
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::diagnostic::{Place, Source};
    use std::sync::Arc;

    fn at<T>(value: T) -> Option<At<T>> {
        let source = Arc::new(Source::new("t.yaml", ""));
        Some(At { value, place: Place { source, line: 1, column: 1, width: 1 } })
    }

    const NONE: ConnectionsSettings =
        ConnectionsSettings { max: None, per_address: None, rate_per_address: None, requests: None, age: None };

    #[test]
    fn no_address_may_take_all_places_unless_there_are_fewer_by_choice() {
        let mut mistakes = Vec::new();
        for (max, per_address, expected) in [(None, None, 10_000), (at(30_000), None, 10_000), (at(7), at(7), 7), (None, at(3), 3)] {
            let settings = ConnectionsSettings { max, per_address, ..NONE.clone() };
            assert_eq!(ConnectionBounds::compile(Some(&settings), &mut mistakes).per_address, expected, "{settings:?}");
        }
        assert!(mistakes.is_empty());
    }

    #[test]
    fn what_is_written_is_what_runs_and_nothing_is_no_bound() {
        let mut mistakes = Vec::new();
        let rate = Rate::parse("5/m").unwrap();
        let settings = ConnectionsSettings { rate_per_address: at(rate), requests: at(8), age: at(Period::seconds(9)), ..NONE.clone() };
        let bounds = ConnectionBounds::compile(Some(&settings), &mut mistakes);
        assert_eq!((bounds.rate_per_address, bounds.requests, bounds.age), (Some(rate), 8, Duration::from_secs(9)));
        assert!(mistakes.is_empty());
        let settings = ConnectionsSettings { max: at(0), per_address: at(9), requests: at(0), age: at(Period::seconds(0)), ..NONE };
        ConnectionBounds::compile(Some(&settings), &mut mistakes);
        let codes: Vec<_> = mistakes.iter().map(|mistake| mistake.code).collect();
        assert_eq!(codes, ["out-of-range", "inert", "out-of-range", "out-of-range"]);
    }
}
