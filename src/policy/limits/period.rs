//! Where windows begin and end: multiples of a length since 1970, or hours, days and months of a calendar with a time zone.
//!
//! The calendar is asked once a period; the answer is kept, so that a request only compares. Counts nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};

use super::quota::Unit;
use super::window::Bounds;
use crate::ctx::Now;

/// The windows of one limit.
#[derive(Clone, Debug)]
pub enum Periods {
    /// Of so many milliseconds, counted from 1970 in UTC.
    Multiples(u64),
    Calendar(Arc<Calendar>),
}

#[derive(Debug)]
pub struct Calendar {
    unit: Unit,
    zone: TimeZone,
    /// The period that was asked for last, [`packed`].
    last: AtomicU64,
}

const MS: u64 = 1_000_000;
/// For how long a period is, in seconds: 388 days.
const LENGTH_BITS: u32 = 25;

// === impl Periods ===

impl Periods {
    /// `zone` is an IANA name, such as `Europe/Berlin`; none where there is no such.
    pub fn calendar(unit: Unit, zone: Option<&str>) -> Option<Periods> {
        let zone = match zone {
            None | Some("UTC") => TimeZone::UTC,
            Some(name) => TimeZone::get(name).ok()?,
        };
        Some(Periods::Calendar(Arc::new(Calendar { unit, zone, last: AtomicU64::new(0) })))
    }

    /// The window of a moment.
    #[inline]
    pub fn bounds(&self, now: Now) -> Bounds {
        let (begin, end) = match self {
            Periods::Multiples(length) => {
                let begin = now.unix_ms - now.unix_ms % (*length).max(1);
                (begin, begin.saturating_add(*length))
            }
            Periods::Calendar(calendar) => calendar.period(now.unix_ms),
        };
        let rest = end.saturating_sub(now.unix_ms).saturating_mul(MS);
        Bounds { end: now.mono.saturating_add(rest), length: (end - begin).saturating_mul(MS) }
    }

    /// How long they are in seconds, where they differ; not all, for clocks are set by other times than an hour, too.
    pub fn lengths(&self) -> &'static [u64] {
        const HOUR: u64 = 3_600;
        match self {
            Periods::Multiples(_) => &[],
            Periods::Calendar(calendar) => match calendar.unit {
                Unit::Hour => &[],
                Unit::Day => &[24 * HOUR, 23 * HOUR, 25 * HOUR],
                Unit::Month => &[31 * 24 * HOUR, 30 * 24 * HOUR, 28 * 24 * HOUR, 29 * 24 * HOUR],
            },
        }
    }

    /// The zone of a calendar, where it is not UTC.
    pub fn zone(&self) -> Option<&str> {
        match self {
            Periods::Multiples(_) => None,
            Periods::Calendar(calendar) => calendar.zone.iana_name().filter(|name| *name != "UTC"),
        }
    }
}

// === impl Calendar ===

impl Calendar {
    #[inline]
    fn period(&self, unix_ms: u64) -> (u64, u64) {
        // One number, so that no thread sees the beginning of one and the end of another.
        let last = unpacked(self.last.load(Relaxed));
        if (last.0..last.1).contains(&unix_ms) { last } else { self.next(unix_ms) }
    }

    #[cold]
    fn next(&self, unix_ms: u64) -> (u64, u64) {
        // A moment that no calendar has, or an edge that is not found, is counted by the measure in UTC.
        let measure = self.unit.measure().as_millis() as u64;
        let begin = unix_ms - unix_ms % measure;
        let period = self.find(unix_ms).filter(|period| (period.0..period.1).contains(&unix_ms)).unwrap_or((begin, begin + measure));
        if let Some(packed) = packed(period) {
            self.last.store(packed, Relaxed);
        }
        period
    }

    fn find(&self, unix_ms: u64) -> Option<(u64, u64)> {
        let moment = Timestamp::from_millisecond(i64::try_from(unix_ms).ok()?).ok()?.to_zoned(self.zone.clone());
        let (begin, end) = match self.unit {
            Unit::Hour => return self.hour(&moment),
            Unit::Day => {
                let begin = moment.start_of_day().ok()?;
                (begin.clone(), begin.tomorrow().ok()?.start_of_day().ok()?)
            }
            Unit::Month => {
                let begin = moment.first_of_month().ok()?.start_of_day().ok()?;
                (begin.clone(), begin.checked_add(1.month()).ok()?.start_of_day().ok()?)
            }
        };
        Some((ms(begin.timestamp())?, ms(end.timestamp())?))
    }

    /// Hours of the clock on the wall, in zones that are half an hour off, too. Where it is set by half an hour, one is shorter.
    fn hour(&self, moment: &jiff::Zoned) -> Option<(u64, u64)> {
        const HOUR: u64 = 3_600_000;
        let now = moment.timestamp();
        let shift = i64::from(moment.offset().seconds()) * 1_000;
        let into = u64::try_from((now.as_millisecond() + shift).rem_euclid(HOUR as i64)).ok()?;
        let begin = ms(now)? - into;
        // `following` does not say the moment itself, and `preceding` would not either.
        let set_before = self.zone.preceding(now.checked_add(1.nanosecond()).ok()?).next().and_then(|set| ms(set.timestamp()));
        let set_after = self.zone.following(now).next().and_then(|set| ms(set.timestamp()));
        Some((begin.max(set_before.unwrap_or(0)), (begin + HOUR).min(set_after.unwrap_or(u64::MAX))))
    }
}

/// Begin and length in seconds; none where they are no whole ones, or do not fit.
fn packed((begin, end): (u64, u64)) -> Option<u64> {
    let (first, length) = (begin / 1_000, end.saturating_sub(begin) / 1_000);
    let fits = first >> (64 - LENGTH_BITS) == 0 && length >> LENGTH_BITS == 0;
    let packed = first << LENGTH_BITS | length;
    (fits && unpacked(packed) == (begin, end)).then_some(packed)
}

#[inline]
fn unpacked(packed: u64) -> (u64, u64) {
    let (begin, length) = (packed >> LENGTH_BITS, packed & ((1 << LENGTH_BITS) - 1));
    (begin * 1_000, (begin + length) * 1_000)
}

fn ms(moment: Timestamp) -> Option<u64> {
    u64::try_from(moment.as_millisecond()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> u64 {
        text.parse::<Timestamp>().unwrap().as_millisecond() as u64
    }

    fn period(unit: Unit, zone: Option<&str>, moment: &str) -> (String, String) {
        let Some(Periods::Calendar(calendar)) = Periods::calendar(unit, zone) else { panic!("no such zone") };
        let (begin, end) = calendar.period(at(moment));
        let text = |ms: u64| Timestamp::from_millisecond(ms as i64).unwrap().to_string();
        (text(begin), text(end))
    }

    #[test]
    fn days_and_months_begin_where_the_calendar_of_the_zone_says() {
        for (unit, zone, moment, begin, end) in [
            (Unit::Month, None, "2028-02-29T12:00:00Z", "2028-02-01T00:00:00Z", "2028-03-01T00:00:00Z"),
            (Unit::Month, Some("Europe/Berlin"), "2026-03-31T22:30:00Z", "2026-03-31T22:00:00Z", "2026-04-30T22:00:00Z"),
            // The day on which clocks go forward has 23 hours, and the one on which they go back 25.
            (Unit::Day, Some("Europe/Berlin"), "2026-03-29T12:00:00Z", "2026-03-28T23:00:00Z", "2026-03-29T22:00:00Z"),
            (Unit::Day, Some("Europe/Berlin"), "2026-10-25T12:00:00Z", "2026-10-24T22:00:00Z", "2026-10-25T23:00:00Z"),
            (Unit::Day, Some("America/New_York"), "2026-11-26T03:00:00Z", "2026-11-25T05:00:00Z", "2026-11-26T05:00:00Z"),
            (Unit::Hour, Some("Asia/Kolkata"), "2026-11-26T12:10:00Z", "2026-11-26T11:30:00Z", "2026-11-26T12:30:00Z"),
            (Unit::Hour, None, "2026-11-26T12:00:00Z", "2026-11-26T12:00:00Z", "2026-11-26T13:00:00Z"),
        ] {
            assert_eq!(period(unit, zone, moment), (begin.to_owned(), end.to_owned()), "{unit:?} {zone:?} {moment}");
        }
        assert!(Periods::calendar(Unit::Day, Some("Europe/Atlantis")).is_none());
    }

    #[test]
    fn every_moment_of_two_years_is_in_exactly_one_period() {
        for zone in ["UTC", "Europe/Berlin", "America/Sao_Paulo", "Australia/Lord_Howe", "Asia/Kathmandu", "Pacific/Apia"] {
            for unit in [Unit::Hour, Unit::Day, Unit::Month] {
                let Some(Periods::Calendar(calendar)) = Periods::calendar(unit, Some(zone)) else { panic!("{zone}") };
                let mut moment = at("2025-12-30T00:00:00Z");
                let (_, mut last) = calendar.period(moment);
                while moment < at("2027-12-30T00:00:00Z") {
                    let (begin, end) = calendar.period(last);
                    assert_eq!(begin, last, "{zone} {unit:?}");
                    assert!(end > begin && calendar.period(end - 1) == (begin, end), "{zone} {unit:?}");
                    (moment, last) = (end, end);
                }
            }
        }
    }

    #[test]
    fn a_period_is_kept_in_one_number_or_not_at_all() {
        for period in [(at("2026-03-28T23:00:00Z"), at("2026-03-29T22:00:00Z")), (at("2026-01-01T00:00:00Z"), at("2027-01-01T00:00:00Z"))] {
            assert_eq!(packed(period).map(unpacked), Some(period));
        }
        for period in [(1, 60_000), (0, 60_001), (0, u64::MAX), (u64::MAX - 1_000, u64::MAX)] {
            assert_eq!(packed(period), None, "{period:?}");
        }
        assert!(packed((0, 0)).is_some_and(|nothing| unpacked(nothing) == (0, 0)), "what is kept at first has no moment");
    }

    #[test]
    fn a_window_ends_on_the_monotonic_clock_when_it_ends_on_the_wall() {
        let now = Now { mono: 7_000, unix_ms: 90_500 };
        assert_eq!(Periods::Multiples(60_000).bounds(now), Bounds { end: 7_000 + 29_500 * MS, length: 60_000 * MS });
    }
}
