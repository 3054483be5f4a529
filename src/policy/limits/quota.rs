//! A quota as it is written: so many requests in a calendar hour, day or month. What is refused when it is used up.
//!
//! Decides what text is a quota. Does not know where a period begins: see `period.rs`.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de};

use crate::reply::problem::Kind;

/// So many requests in a period of the calendar: `1000/h`, `10000/day`, `100000/month`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    pub count: u32,
    pub unit: Unit,
}

/// A period of the calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    Hour,
    Day,
    Month,
}

pub static QUOTA_EXCEEDED: Kind = Kind {
    code: "quota-exceeded",
    status: 429,
    error: "Quota exceeded",
    about: "The caller has used up what it may ask for in an hour, a day or a month. Members `limit` and `key` say which quota and what it counts by; `Retry-After` says when the next period begins.",
};

const WHAT: &str = "a quota: expected a count and `h`, `day` or `month`, such as `10000/day`";

// === impl Quota ===

impl Quota {
    pub fn parse(text: &str) -> Option<Quota> {
        let (count, unit) = text.split_once('/')?;
        if count.is_empty() || !count.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        let count = count.parse().ok().filter(|count| *count > 0)?;
        let unit = match unit {
            "h" | "hour" => Unit::Hour,
            "d" | "day" => Unit::Day,
            "month" => Unit::Month,
            _ => return None,
        };
        Some(Quota { count, unit })
    }
}

impl fmt::Display for Quota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = match self.unit {
            Unit::Hour => "h",
            Unit::Day => "day",
            Unit::Month => "month",
        };
        write!(f, "{}/{unit}", self.count)
    }
}

impl<'de> Deserialize<'de> for Quota {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        Quota::parse(&text).ok_or_else(|| de::Error::custom(format_args!("`{text}` is not {WHAT}")))
    }
}

impl JsonSchema for Quota {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Quota".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "title": "quota", "type": "string", "pattern": "^[0-9]+/(h|hour|d|day|month)$" })
    }
}

// === impl Unit ===

impl Unit {
    /// How long one is, or of months, about how long: what a sliding window takes for a month.
    pub fn measure(self) -> Duration {
        let hours = match self {
            Unit::Hour => 1,
            Unit::Day => 24,
            Unit::Month => 30 * 24,
        };
        Duration::from_secs(hours * 3600)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quota_is_a_count_and_a_period_of_the_calendar() {
        for (text, shown) in [("1000/h", "1000/h"), ("1/hour", "1/h"), ("5/d", "5/day"), ("5/day", "5/day"), ("7/month", "7/month")] {
            assert_eq!(Quota::parse(text).unwrap().to_string(), shown);
        }
        for text in ["", "5", "0/day", "5/", "5/week", "5/2h", "-1/day", "+1/day", "5/m", "5000000000/day", "5/ day"] {
            assert_eq!(Quota::parse(text), None, "{text}");
        }
    }
}
