//! Decides who goes first where not all can be served: what a route says, else the caller's plan, else whether the caller is known.
//!
//! Does not decide whether anything is full: see `relay/adaptive` and `server/overload.rs`.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;

use super::limits::limit::Limit;
use super::rate_limit::plan_of;
use crate::ctx::Facts;

/// Who goes first where not all can be served. Each may take a share of what there is, and what is above it the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Priority {
    /// Refused first: from six tenths. Callers that nobody knows.
    Lowest,
    /// From three quarters.
    Low,
    /// From nine tenths. Callers that are known.
    Normal,
    /// Only where all is taken.
    High,
}

/// What it is that says so; for `explain`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Because<'a> {
    Route,
    Plan(&'a str),
    Known,
    Unknown,
}

// === impl Priority ===

impl Priority {
    pub const ALL: [Priority; 4] = [Priority::Lowest, Priority::Low, Priority::Normal, Priority::High];

    /// Of a request on a route that says this.
    pub fn of(route: Option<Priority>, facts: &Facts, plans: &[Arc<Limit>]) -> Priority {
        Priority::because(route, facts, plans).0
    }

    pub fn because<'a>(route: Option<Priority>, facts: &Facts, plans: &'a [Arc<Limit>]) -> (Priority, Because<'a>) {
        if let Some(route) = route {
            return (route, Because::Route);
        }
        if facts.identity.is_none() {
            return (Priority::Lowest, Because::Unknown);
        }
        let plan = plan_of(facts, plans).and_then(|plan| Some((plan.priority()?, plan)));
        plan.map_or((Priority::Normal, Because::Known), |(priority, plan)| (priority, Because::Plan(plan.name())))
    }

    /// So many of all that there may be; one in any case.
    pub fn share_of(self, all: u32) -> u32 {
        (u64::from(all) * self.percent() / 100).max(1) as u32
    }

    pub fn percent(self) -> u64 {
        match self {
            Priority::Lowest => 60,
            Priority::Low => 75,
            Priority::Normal => 90,
            Priority::High => 100,
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Priority::Lowest => "lowest",
            Priority::Low => "low",
            Priority::Normal => "normal",
            Priority::High => "high",
        }
    }
}

// === impl Because ===

impl Because<'_> {
    pub fn told(self) -> String {
        match self {
            Because::Route => "the route says so".to_owned(),
            Because::Plan(plan) => format!("plan {plan} says so"),
            Because::Known => "the caller is known".to_owned(),
            Because::Unknown => "nobody knows the caller".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_class_has_its_share_and_one_in_any_case() {
        assert_eq!(Priority::ALL.map(|one| one.share_of(1)), [1, 1, 1, 1]);
        assert_eq!(Priority::ALL.map(|one| one.share_of(20)), [12, 15, 18, 20]);
        assert_eq!(Priority::ALL.map(|one| one.share_of(u32::MAX))[3], u32::MAX);
    }
}
