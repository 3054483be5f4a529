//! From what is written of a limit to what is counted: a bucket, windows, a quota's calendar, or places.
//!
//! Decides which of its settings make no sense together.

use std::time::Duration;

use super::pace::{Kind, LONGEST, Pace};
use super::period::Periods;
use super::quota::Quota;
use super::throttle::ThrottleSettings;
use crate::config::diagnostic::{Diagnostic, Place};
use crate::config::types::{At, Rate};
use crate::policy::rate_limit::Window;

/// How a limit is said to count.
#[derive(Clone, Copy)]
pub struct Counting<'a> {
    pub rate: &'a Option<At<Rate>>,
    pub quota: &'a Option<At<Quota>>,
    pub concurrent: &'a Option<At<u32>>,
    pub throttle: Option<&'a At<ThrottleSettings>>,
    pub burst: &'a Option<At<u32>>,
    pub window: Option<&'a At<Window>>,
    pub time_zone: &'a Option<At<String>>,
}

/// How it does.
pub struct Measure {
    pub rate: Box<str>,
    pub pace: Pace,
    pub periods: Option<Periods>,
    pub is_quota: bool,
    pub places: Option<u32>,
}

// === impl Counting ===

impl Counting<'_> {
    pub fn compile(self, name: &str, place: &Place) -> Result<Measure, Diagnostic> {
        let Counting { rate, quota, concurrent, throttle, burst, window, time_zone } = self;
        let inert = |place: &Place, message: &str, help: &str| Diagnostic::at(place, "inert", message.to_owned()).help(help.to_owned());
        if let Some(burst) = burst
            && (window.is_some() || quota.is_some())
        {
            return Err(inert(&burst.place, "a window has no `burst`: all of its requests may come at once", "remove it"));
        }
        if let Some(throttle) = throttle
            && (rate.is_none() || window.is_some())
        {
            let message = "only a `rate` without a `window` can be waited for: its bucket gains tokens all the time";
            return Err(inert(&throttle.place, message, "remove it"));
        }
        if let Some(At { value: most, place }) = concurrent {
            let others = [rate.as_ref().map(|at| &at.place), quota.as_ref().map(|at| &at.place)];
            if let Some(other) = others.into_iter().flatten().next() {
                let message = format!("`{name}` says `concurrent` and how many in a time: expected one of them");
                let help = "make two limits and name both where the one is used";
                return Err(Diagnostic::at(other, "limit-rate-and-quota", message).help(help));
            }
            let useless = [burst.as_ref().map(|at| &at.place), window.map(|at| &at.place), time_zone.as_ref().map(|at| &at.place)];
            if let Some(useless) = useless.into_iter().flatten().next() {
                return Err(inert(useless, "requests at once are not counted in any time", "remove it"));
            }
            let pace = Pace::of_windows(Kind::Fixed, *most, Duration::from_secs(1));
            let pace = pace.ok_or_else(|| Diagnostic::at(place, "out-of-range", "`0` is not a number of places: expected at least 1"))?;
            return Ok(Measure { rate: format!("{most} at once").into(), pace, periods: None, is_quota: false, places: Some(*most) });
        }
        let kind = window.map(|window| window.value);
        if let Some(zone) = time_zone
            && (quota.is_none() || kind == Some(Window::Sliding))
        {
            let message = "`time_zone` says when the hours, days and months of a `quota` begin, and there are none here";
            return Err(inert(&zone.place, message, "remove it"));
        }
        match (rate, quota) {
            (None, None) => {
                Err(Diagnostic::at(place, "limit-without-rate", format!("`{name}` says neither `rate`, `quota` nor `concurrent`"))
                    .help("add one, such as `rate: 100/m`, `quota: 10000/day` or `concurrent: 10`"))
            }
            (Some(_), Some(quota)) => {
                Err(Diagnostic::at(&quota.place, "limit-rate-and-quota", format!("`{name}` says `rate` and `quota`: expected one of them"))
                    .help("make two limits and name both where the one is used"))
            }
            (Some(rate), None) => {
                let text = rate.value.to_string().into();
                let windowed = |kind| {
                    let pace = Pace::of_windows(kind, rate.value.count, rate.value.per)
                        .ok_or_else(|| too_slow(rate, rate.value.count, &rate.place))?;
                    let periods = Some(Periods::Multiples(u64::try_from(rate.value.per.as_millis()).unwrap_or(u64::MAX)));
                    Ok((pace, periods))
                };
                let (pace, periods) = match kind {
                    None => (compile_pace(rate, burst.as_ref())?, None),
                    Some(Window::Fixed) => windowed(Kind::Fixed)?,
                    Some(Window::Sliding) => windowed(Kind::Sliding)?,
                };
                Ok(Measure { rate: text, pace, periods, is_quota: false, places: None })
            }
            (None, Some(At { value: quota, place })) => {
                let measure = quota.unit.measure();
                let (kind, periods) = match kind {
                    None | Some(Window::Fixed) => {
                        let zone = time_zone.as_ref();
                        let periods = Periods::calendar(quota.unit, zone.map(|zone| zone.as_str())).ok_or_else(|| {
                            let (name, place) = zone.map_or(("UTC", place), |zone| (zone.as_str(), &zone.place));
                            Diagnostic::at(
                                place,
                                "time-zone",
                                format!("`{name}` is not a time zone: expected a name such as `Europe/Berlin`"),
                            )
                        })?;
                        (Kind::Fixed, periods)
                    }
                    Some(Window::Sliding) => (Kind::Sliding, Periods::Multiples(u64::try_from(measure.as_millis()).unwrap_or(u64::MAX))),
                };
                let pace = Pace::of_windows(kind, quota.count, measure)
                    .ok_or_else(|| Diagnostic::at(place, "limit-too-slow", format!("{quota} cannot be counted")))?;
                Ok(Measure { rate: quota.to_string().into(), pace, periods: Some(periods), is_quota: true, places: None })
            }
        }
    }
}

fn compile_pace(rate: &At<Rate>, burst: Option<&At<u32>>) -> Result<Pace, Diagnostic> {
    let size = burst.map_or(rate.count, |burst| burst.value);
    let place = burst.map_or(&rate.place, |burst| &burst.place);
    if size == 0 {
        return Err(Diagnostic::at(place, "limit-burst", "`0` is not a burst: expected how many requests may come at once, at least 1"));
    }
    Pace::new(rate.value, size).ok_or_else(|| too_slow(rate, size, place))
}

fn too_slow(rate: &At<Rate>, size: u32, place: &Place) -> Diagnostic {
    let days = LONGEST.as_secs() / 86_400;
    let message = format!("a bucket of {size} at {} takes too long to fill: expected at most {days} days", rate.value);
    Diagnostic::at(place, "limit-too-slow", message).help("lower `burst` or raise `rate`")
}
