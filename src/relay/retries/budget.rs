//! Decides whether a request may be sent again, so that retries never multiply an outage: only a share of all requests may be, over about a second.
//!
//! Counts what may have reached a target and is sent again, not what no target accepted: that adds nothing to anybody's load. Requests that do not fail
//! pay nothing: how many there were is read from the upstream's own counters when one fails. What is known is as short-lived as the snapshot.

use std::fmt;

use parking_lot::Mutex;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de};

use crate::config::diagnostic::Diagnostic;
use crate::config::types::{At, Percent};
use crate::relay::targets::members::SHORT_OR_LONG;

/// `none`, or `{ share: 20%, min_per_second: 10 }`.
#[derive(Clone, Debug)]
pub enum BudgetSettings {
    None,
    Of { share: Option<At<Percent>>, min_per_second: Option<At<u32>> },
}

/// How many may be sent again: the larger of both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// Of the requests of the last second.
    pub share: Percent,
    /// In a second, however few requests there are.
    pub least: u32,
}

/// What is known of the last second.
#[derive(Debug)]
pub struct Budget {
    share: Share,
    slots: Mutex<[Slot; SLOTS]>,
}

/// A tenth of a second.
#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    /// Its number since the beginning of the clock, from 1. 0: nothing is known.
    number: u64,
    /// Requests that there had been when it was first asked.
    before: u64,
    again: u64,
}

const SLOTS: usize = 10;
const SLOT_NANOS: u64 = 100_000_000;
const DEFAULT: Share = Share { share: Percent(2_000), least: 10 };
const MOST_LEAST: u32 = 1_000_000;

// === impl Share ===

impl Share {
    /// None: there is no budget.
    pub fn compile(settings: Option<&At<BudgetSettings>>, wrong: &mut Vec<Diagnostic>) -> Option<Share> {
        let Some(settings) = settings else { return Some(DEFAULT) };
        let (share, least) = match &settings.value {
            BudgetSettings::None => return None,
            BudgetSettings::Of { share, min_per_second } => (share, min_per_second),
        };
        if let Some(least) = least.as_ref().filter(|least| least.value > MOST_LEAST) {
            let message = format!("`{}` is out of range: expected 0 to {MOST_LEAST}", least.value);
            wrong.push(Diagnostic::at(&least.place, "out-of-range", message));
        }
        let found = Share {
            share: share.as_ref().map_or(DEFAULT.share, |share| share.value),
            least: least.as_ref().map_or(DEFAULT.least, |least| least.value),
        };
        if found.share.0 == 0 && found.least == 0 {
            let message = "with neither a share nor a least nothing would be sent again";
            wrong.push(Diagnostic::at(&settings.place, "inert", message).help("`attempts: 1` says so"));
        }
        Some(found)
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, at least {}/s", self.share, self.least)
    }
}

// === impl Budget ===

impl Budget {
    pub fn new(share: Share) -> Budget {
        Budget { share, slots: Mutex::default() }
    }

    pub fn share(&self) -> Share {
        self.share
    }

    /// Whether one more request may be sent again, `now` on the monotonic clock. `requests`: how many there were in all, this one included and those
    /// that were sent again left out.
    pub fn take(&self, now: u64, requests: u64) -> bool {
        let number = now / SLOT_NANOS + 1;
        let mut slots = self.slots.lock();
        let present = &mut slots[(number % SLOTS as u64) as usize];
        if present.number != number {
            *present = Slot { number, before: requests.saturating_sub(1), again: 0 };
        }
        let is_fresh = |slot: &&Slot| slot.number > 0 && slot.number + SLOTS as u64 > number && slot.number <= number;
        let fresh = slots.iter().filter(is_fresh);
        let (before, again) = fresh.fold((u64::MAX, 0), |(before, again), slot| (before.min(slot.before), again + slot.again));
        let allowed = self.share.share.of(requests.saturating_sub(before)).max(u64::from(self.share.least));
        let may = again < allowed;
        if may {
            slots[(number % SLOTS as u64) as usize].again += 1;
        }
        may
    }
}

// === impl BudgetSettings ===

impl<'de> Deserialize<'de> for BudgetSettings {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Long {
            share: Option<At<Percent>>,
            min_per_second: Option<At<u32>>,
        }
        struct Either;
        impl<'de> de::Visitor<'de> for Either {
            type Value = BudgetSettings;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`none`, or a budget such as `{ share: 20%, min_per_second: 10 }`")
            }
            fn visit_newtype_struct<D: Deserializer<'de>>(self, d: D) -> Result<BudgetSettings, D::Error> {
                match String::deserialize(d)?.as_str() {
                    "none" => Ok(BudgetSettings::None),
                    other => Err(de::Error::custom(format_args!(
                        "`{other}` is no budget: expected `none`, or one such as `{{ share: 20%, min_per_second: 10 }}`"
                    ))),
                }
            }
            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<BudgetSettings, A::Error> {
                let Long { share, min_per_second } = Long::deserialize(de::value::MapAccessDeserializer::new(map))?;
                Ok(BudgetSettings::Of { share, min_per_second })
            }
        }
        d.deserialize_newtype_struct(SHORT_OR_LONG, Either)
    }
}

impl JsonSchema for BudgetSettings {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "RetryBudget".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [
            { "type": "string", "enum": ["none"] },
            {
                "type": "object",
                "properties": {
                    "share": { "type": "string", "pattern": "^[0-9]{1,3}([.][0-9]{1,2})?%$", "description": "Of the requests of the last second, so many may be sent again. Default 20%." },
                    "min_per_second": { "type": "integer", "minimum": 0, "maximum": MOST_LEAST, "description": "So many in a second may be, however few requests there are. Default 10." }
                },
                "additionalProperties": false
            }
        ] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relay::upstream::tests::at;

    const SECOND: u64 = 10 * SLOT_NANOS;

    fn budget(share: u16, least: u32) -> Budget {
        Budget::new(Share { share: Percent(share * 100), least })
    }

    #[test]
    fn no_more_than_the_share_is_sent_again_however_long_an_outage_lasts() {
        let budget = budget(20, 0);
        // Every request fails, at rates that differ by a thousand.
        for (per_second, of) in [(10, 100), (1_000, 10_000), (10_000, 50_000)] {
            let again = (1..=of).filter(|n| budget.take(n * SECOND / per_second + per_second * SECOND, 1_000_000 * per_second + n)).count();
            assert!(again as u64 * 5 <= of, "{again} of {of} at {per_second}/s");
            assert!(again as u64 * 6 >= of, "{again} of {of} at {per_second}/s");
        }
    }

    #[test]
    fn a_quiet_time_saves_nothing_up() {
        let budget = budget(20, 3);
        // A million requests were well before the first one fails.
        let at_once = |from: u64| (0..100).filter(|n| budget.take(from * SECOND, 1_000_000 * from + n)).count();
        assert_eq!(at_once(1), 20, "of the hundred that failed, not of the million before");
        assert_eq!(at_once(60), 20);
    }

    #[test]
    fn a_few_in_a_second_may_be_however_few_requests_there_are() {
        let budget = budget(20, 3);
        let in_second = |second: u64| (0..10).filter(|n| budget.take(second * SECOND + n * SLOT_NANOS, second * 10 + n)).count();
        assert_eq!([in_second(1), in_second(2), in_second(3)], [3, 3, 3]);
    }

    #[test]
    fn a_budget_that_allows_nothing_is_refused() {
        let codes = |share: u16, least: u32| {
            let mut wrong = Vec::new();
            let settings = BudgetSettings::Of { share: Some(at(Percent(share))), min_per_second: Some(at(least)) };
            Share::compile(Some(&at(settings)), &mut wrong);
            wrong.iter().map(|one| one.code).collect::<Vec<_>>()
        };
        assert_eq!((codes(0, 0), codes(0, MOST_LEAST + 1)), (vec!["inert"], vec!["out-of-range"]));
        assert!(codes(0, 1).is_empty() && codes(1, 0).is_empty());
    }
}
