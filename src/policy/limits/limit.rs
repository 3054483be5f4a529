//! A limit or a plan as it runs: what is counted, how much of it, and what is said of it. Immutable, compiled at load.
//!
//! Decides which settings make no sense. Does not count: see `buckets.rs`.

use std::sync::Arc;

use super::for_tags::ForTags;
use super::handover::is_long;
use super::label::Label;
use super::measure::{Counting, Measure};
use super::pace::{Kind, Pace};
use super::period::Periods;
use super::quota::Quota;
use super::throttle::Throttle;
use super::window::Bounds;
use crate::config::diagnostic::{Diagnostic, Place, Source};
use crate::config::types::{At, Rate};
use crate::ctx::{Asking, Facts, Now};
use crate::policy::buckets::identity;
use crate::policy::priority::Priority;
use crate::policy::rate_limit::{By, LimitSettings, Per, PlanSettings, Stage, Window};
use crate::report::metrics::series::LimitSeries;

/// One limit. A plan is a limit by consumer over all routes.
#[derive(Clone, Debug)]
pub struct Limit {
    name: Arc<str>,
    label: Arc<Label>,
    what: What,
    /// As it is written, such as `100/m`.
    rate: Box<str>,
    pace: Pace,
    /// Of what counts in windows.
    periods: Option<Periods>,
    is_quota: bool,
    /// How many at once, where that is what is limited.
    places: Option<u32>,
    throttle: Option<Throttle>,
    is_shared: bool,
    series: Arc<LimitSeries>,
    /// The quota of a plan that has a rate, too.
    beside: Option<Arc<Limit>>,
    by: Vec<By>,
    pub for_tags: ForTags,
    per: Option<Per>,
    stage: Option<Stage>,
    /// Of a plan, who goes first, where it says so.
    priority: Option<Priority>,
    identity: u128,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    Limit,
    Plan,
}

/// Who may get past the authentication of a route.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Callers {
    /// Nobody in particular: `auth: public`, or shadowed authentication.
    pub anonymous: bool,
    /// Bearers of tokens; they have a subject.
    pub tokens: bool,
    /// Bearers of API keys; they have a consumer and a key.
    pub api_keys: bool,
}

// === impl Limit ===

impl Limit {
    pub fn compile(name: &str, settings: &LimitSettings) -> Result<Limit, Vec<Diagnostic>> {
        let LimitSettings { rate, quota, concurrent, burst, shared, throttle, window, time_zone, by, for_tags, per, stage } = settings;
        let mut mistakes = Vec::new();
        let counting = Counting { rate, quota, concurrent, burst, throttle: throttle.as_ref(), window: window.as_ref(), time_zone };
        let measure = counting.compile(name, &by.place).map_err(|mistake| mistakes.push(mistake));
        if by.is_empty() {
            let message = "`by` is empty: expected at least one key, such as `client_ip`";
            mistakes.push(Diagnostic::at(&by.place, "limit-without-key", message));
        }
        for (index, key) in by.iter().enumerate() {
            let earlier = &by[..index];
            if earlier.iter().any(|other| other.value == key.value) {
                mistakes.push(Diagnostic::at(&key.place, "limit-key-repeated", format!("`{}` is named twice", key.value.written())));
            } else if let Some(always) = earlier.iter().find(|other| matches!(other.value, By::ClientIp | By::Global)) {
                let (key_text, always) = (key.value.written(), always.value.written());
                let message = format!("`{key_text}` is never reached: every request has `{always}`");
                mistakes
                    .push(Diagnostic::at(&key.place, "limit-key-unreachable", message).help(format!("put `{key_text}` before `{always}`")));
            }
            if *stage == Some(Stage::BeforeAuth) && key.value.needs_identity() {
                let message = format!(
                    "`{}` is not known before authentication: expected `client_ip`, `header:NAME` or `global`",
                    key.value.written()
                );
                mistakes.push(Diagnostic::at(&key.place, "limit-key-before-auth", message).help("remove `stage: before_auth`"));
            }
        }
        match measure {
            Ok(Measure { rate, pace, periods, is_quota, places }) if mistakes.is_empty() => Ok(Limit {
                name: name.into(),
                label: Arc::new(Label::new(&name.into(), &pace, periods.as_ref().map_or(&[], Periods::lengths))),
                what: What::Limit,
                rate,
                pace,
                periods,
                is_quota,
                places,
                is_shared: shared.as_ref().is_some_and(|shared| shared.value),
                throttle: throttle.as_ref().map(|throttle| Throttle::new(throttle)),
                series: Arc::new(LimitSeries::new(name)),
                beside: None,
                by: by.iter().map(|key| key.value.clone()).collect(),
                for_tags: ForTags::compile(for_tags.as_ref()),
                per: *per,
                stage: *stage,
                priority: None,
                identity: identity("limit", name, None),
            }),
            _ => Err(mistakes),
        }
    }

    pub fn compile_plan(name: &str, settings: &PlanSettings) -> Result<Limit, Vec<Diagnostic>> {
        let PlanSettings { rate, burst, quota, time_zone, shared, priority } = settings;
        let priority = priority.as_ref().map(|priority| priority.value);
        let is_shared = shared.as_ref().is_some_and(|shared| shared.value);
        let place = [rate.as_ref().map(|at| &at.place), quota.as_ref().map(|at| &at.place)].into_iter().flatten().next();
        // Told where plans are checked, with the place of its name.
        let Some(place) = place else { return Err(Vec::new()) };
        let make = |name: Arc<str>, measure: Measure, beside: Option<Arc<Limit>>| {
            let Measure { rate, pace, periods, is_quota, places } = measure;
            let series = Arc::new(LimitSeries::new(&name));
            let identity = identity("plan", &name, None);
            let by = vec![By::Consumer, By::Subject];
            Limit {
                label: Arc::new(Label::new(&name, &pace, periods.as_ref().map_or(&[], Periods::lengths))),
                name,
                what: What::Plan,
                rate,
                pace,
                periods,
                is_quota,
                places,
                throttle: None,
                is_shared,
                series,
                beside,
                by,
                for_tags: ForTags::default(),
                per: None,
                stage: None,
                priority,
                identity,
            }
        };
        let one = |counting: Counting<'_>| counting.compile(name, place).map_err(|mistake| vec![mistake]);
        let quota_of = |burst| one(Counting { rate: &None, quota, concurrent: &None, throttle: None, burst, window: None, time_zone });
        match (rate, quota) {
            (Some(_), Some(_)) => {
                let beside = make(quota_name(name).into(), quota_of(&None)?, None);
                let own = one(Counting { rate, quota: &None, concurrent: &None, throttle: None, burst, window: None, time_zone: &None })?;
                Ok(make(name.into(), own, Some(Arc::new(beside))))
            }
            (Some(_), None) => Ok(make(
                name.into(),
                one(Counting { rate, quota, concurrent: &None, throttle: None, burst, window: None, time_zone })?,
                None,
            )),
            (None, _) => Ok(make(name.into(), quota_of(burst)?, None)),
        }
    }

    /// One that stands in no configuration.
    ///
    /// # Errors
    /// What is wrong with it, for a person.
    pub fn of_command_line(
        rate: Option<Rate>,
        quota: Option<Quota>,
        burst: Option<u32>,
        window: Option<Window>,
        time_zone: Option<String>,
        by: Vec<By>,
    ) -> Result<Limit, String> {
        let place = Place { source: Arc::new(Source::new("command line", "")), line: 1, column: 1, width: 1 };
        let settings = LimitSettings {
            rate: rate.map(|value| At { value, place: place.clone() }),
            quota: quota.map(|value| At { value, place: place.clone() }),
            concurrent: None,
            burst: burst.map(|value| At { value, place: place.clone() }),
            shared: None,
            throttle: None,
            window: window.map(|value| At { value, place: place.clone() }),
            time_zone: time_zone.map(|value| At { value, place: place.clone() }),
            by: At { value: by.into_iter().map(|value| At { value, place: place.clone() }).collect(), place: place.clone() },
            for_tags: None,
            per: None,
            stage: None,
        };
        Limit::compile("simulated", &settings).map_err(|mistakes| mistakes.first().map(|one| one.message.clone()).unwrap_or_default())
    }

    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    #[inline]
    pub fn label(&self) -> &Arc<Label> {
        &self.label
    }

    pub fn priority(&self) -> Option<Priority> {
        self.priority
    }

    pub fn what(&self) -> What {
        self.what
    }

    /// As it is written, such as `100/m`.
    pub fn rate(&self) -> &str {
        &self.rate
    }

    /// How it counts, for people.
    pub fn describe(&self) -> String {
        if self.places.is_some() {
            return self.rate.to_string();
        }
        let zone = self.periods.as_ref().and_then(Periods::zone).map(|zone| format!(" in {zone}")).unwrap_or_default();
        let quota = if self.is_quota { "quota of " } else { "" };
        let kind = match (self.pace.kind(), self.is_quota) {
            (Kind::Sliding, _) => ", sliding",
            (Kind::Fixed, false) => ", in fixed windows",
            (Kind::Bucket, _) | (Kind::Fixed, true) => "",
        };
        format!("{quota}{}{kind}{zone}", self.rate)
    }

    /// Remembers whom it refused, unless it is only a simulation.
    pub fn note_refused(&self, key: u128, facts: &Facts) {
        match facts.asking {
            Asking::Really => self.series.crowd.note(key, facts.now.mono),
            Asking::Nobody => {}
        }
    }

    /// Counts in the series that `of` a name gives, which outlive snapshots.
    pub fn with_series(mut self, of: &dyn Fn(&str) -> Arc<LimitSeries>) -> Limit {
        self.beside = self.beside.map(|beside| Arc::new(Limit::clone(&beside).with_series(of)));
        let series = of(&self.name);
        series.shows(self.places.is_some(), self.throttle.is_some());
        self.series = series;
        self
    }

    #[inline]
    pub fn series(&self) -> &Arc<LimitSeries> {
        &self.series
    }

    /// How many requests may be on their way at once, where that is what is limited.
    pub fn places(&self) -> Option<u32> {
        self.places
    }

    /// Whether several gateways count together.
    #[inline]
    pub fn is_shared(&self) -> bool {
        self.is_shared
    }

    #[inline]
    pub fn throttle(&self) -> Option<&Throttle> {
        self.throttle.as_ref()
    }

    /// Whether it is a quota, whose end is another refusal than that of a rate.
    pub fn is_quota(&self) -> bool {
        self.is_quota
    }

    /// Whether what is counted here outlives a restart, where there is a place for it.
    pub fn is_long(&self) -> bool {
        is_long(&self.pace) || self.beside.as_ref().is_some_and(|beside| beside.is_long())
    }

    /// What else of the same plan is counted.
    #[inline]
    pub fn beside(&self) -> Option<&Arc<Limit>> {
        self.beside.as_ref()
    }

    /// The window of a moment; nothing to a bucket.
    #[inline]
    pub fn bounds(&self, now: Now) -> Bounds {
        self.periods.as_ref().map_or(Bounds::default(), |periods| periods.bounds(now))
    }

    #[inline]
    pub fn pace(&self) -> &Pace {
        &self.pace
    }

    /// In order of preference.
    #[inline]
    pub fn by(&self) -> &[By] {
        &self.by
    }

    pub fn stage(&self) -> Option<Stage> {
        self.stage
    }

    pub fn per(&self) -> Option<Per> {
        self.per
    }

    /// What names its buckets, on a route.
    #[inline]
    pub(in crate::policy) fn identity(&self, route: Option<&str>) -> u128 {
        match (self.per, route) {
            (Some(Per::Route), Some(route)) => identity("limit", &self.name, Some(route)),
            (Some(Per::Route | Per::Upstream) | None, _) => self.identity,
        }
    }

    /// What names its buckets at an upstream.
    pub(in crate::policy) fn identity_at(&self, upstream: &str) -> u128 {
        identity("limit at an upstream", &self.name, Some(upstream))
    }

    /// Whether some of these callers may have none of the keys that are counted by, so that all such share one bucket.
    pub fn can_come_up_empty(&self, callers: Callers) -> bool {
        let Callers { anonymous, tokens, api_keys } = callers;
        let covers = |known: &[By]| self.by.iter().any(|by| matches!(by, By::ClientIp | By::Global) || known.contains(by));
        (anonymous && !covers(&[])) || (tokens && !covers(&[By::Subject])) || (api_keys && !covers(&[By::Consumer, By::ApiKey]))
    }

    /// What is wrong with naming this limit in a listener, at `place`: before routing there is no route, no caller and no header that a route asks for.
    pub fn check_listener(&self, place: &Place) -> Vec<Diagnostic> {
        let mut mistakes = Vec::new();
        for by in self.by.iter().filter(|by| !matches!(by, By::ClientIp | By::Global)) {
            let message =
                format!("limit `{}` counts by `{}`: expected only `client_ip` or `global` on a listener", self.name, by.written());
            mistakes.push(Diagnostic::at(place, "listener-limit-key", message));
        }
        if let Some(per) = self.per {
            let message = format!("limit `{}` is `per: {}`: on a listener no route is known yet", self.name, per.as_str());
            mistakes.push(Diagnostic::at(place, "listener-limit-per-route", message));
        }
        mistakes
    }
}

/// What logs, metrics and headers call the quota of a plan that has a rate of the same name.
pub fn quota_name(plan: &str) -> String {
    format!("{plan}-quota")
}

#[cfg(test)]
pub(in crate::policy) mod tests {
    use super::*;

    use crate::config::types::Rate;

    pub fn place(line: u32) -> Place {
        let source = Arc::new(Source::new("limits.yaml", ""));
        Place { source, line, column: 1, width: 1 }
    }

    pub fn at<T>(line: u32, value: T) -> At<T> {
        At { value, place: place(line) }
    }

    pub fn settings(rate: &str, by: &[By]) -> LimitSettings {
        let by = at(3, by.iter().map(|by| at(3, by.clone())).collect());
        let rate = Some(at(1, Rate::parse(rate).unwrap()));
        LimitSettings {
            rate,
            quota: None,
            concurrent: None,
            shared: None,
            throttle: None,
            burst: None,
            window: None,
            time_zone: None,
            by,
            for_tags: None,
            per: None,
            stage: None,
        }
    }

    pub fn limit(name: &str, rate: &str, by: &[By]) -> Arc<Limit> {
        Arc::new(Limit::compile(name, &settings(rate, by)).unwrap())
    }

    fn codes(settings: &LimitSettings) -> Vec<&'static str> {
        Limit::compile("x", settings).unwrap_err().into_iter().map(|mistake| mistake.code).collect()
    }

    fn header(name: &'static str) -> By {
        By::Header(http::HeaderName::from_static(name))
    }

    #[test]
    fn the_bucket_has_the_size_of_the_count_unless_a_burst_is_given() {
        assert_eq!(limit("x", "100/m", &[By::Global]).pace().size(), 100);
        let burst = LimitSettings { burst: Some(at(2, 7)), ..settings("100/m", &[By::Global]) };
        assert_eq!(Limit::compile("x", &burst).unwrap().pace().size(), 7);
        let plan = PlanSettings {
            rate: Some(at(1, Rate::parse("100/m").unwrap())),
            burst: Some(at(2, 9)),
            quota: None,
            time_zone: None,
            shared: None,
            priority: None,
        };
        let plan = Limit::compile_plan("x", &plan).unwrap();
        assert_eq!((plan.pace().size(), plan.by(), plan.what()), (9, &[By::Consumer, By::Subject][..], What::Plan));
    }

    #[test]
    fn all_mistakes_of_a_limit_are_told_at_once() {
        let mut bad = settings("1/24h", &[By::ClientIp, By::Consumer, By::ClientIp]);
        bad.burst = Some(at(2, 400));
        bad.stage = Some(Stage::BeforeAuth);
        let all = ["limit-too-slow", "limit-key-unreachable", "limit-key-before-auth", "limit-key-repeated"];
        assert_eq!(codes(&bad), all);
        bad.burst = Some(at(2, 0));
        assert_eq!(codes(&bad)[0], "limit-burst");
        assert_eq!(codes(&settings("1/s", &[])), ["limit-without-key"]);
        let plan = PlanSettings {
            rate: Some(at(1, Rate::parse("1/24h").unwrap())),
            burst: Some(at(2, 400)),
            quota: None,
            time_zone: None,
            shared: None,
            priority: None,
        };
        let mistakes = Limit::compile_plan("x", &plan).unwrap_err();
        assert_eq!(mistakes[0].message, "a bucket of 400 at 1/24h takes too long to fill: expected at most 366 days");
        assert_eq!(mistakes[0].place.as_ref().unwrap().line, 2);
    }

    #[test]
    fn only_what_is_known_before_authentication_can_be_counted_there() {
        for (by, is_known) in [
            (By::ClientIp, true),
            (header("x-a"), true),
            (By::Global, true),
            (By::Consumer, false),
            (By::Subject, false),
            (By::ApiKey, false),
        ] {
            let settings = LimitSettings { stage: Some(Stage::BeforeAuth), ..settings("1/s", std::slice::from_ref(&by)) };
            assert_eq!(Limit::compile("x", &settings).is_ok(), is_known, "{by:?}");
        }
    }

    #[test]
    fn a_list_that_leaves_some_callers_without_a_key_is_found_out() {
        let (anonymous, tokens, api_keys) = (
            Callers { anonymous: true, ..Callers::default() },
            Callers { tokens: true, ..Callers::default() },
            Callers { api_keys: true, ..Callers::default() },
        );
        for (by, empty_for) in [
            (vec![By::Consumer], [true, true, false]),
            (vec![By::Subject], [true, false, true]),
            (vec![By::ApiKey], [true, true, false]),
            (vec![By::Consumer, By::Subject], [true, false, false]),
            (vec![header("x-a")], [true, true, true]),
            (vec![header("x-a"), By::ClientIp], [false, false, false]),
            (vec![By::Global], [false, false, false]),
        ] {
            let limit = limit("x", "1/s", &by);
            assert_eq!([anonymous, tokens, api_keys].map(|callers| limit.can_come_up_empty(callers)), empty_for, "{by:?}");
        }
    }

    #[test]
    fn listeners_count_by_address_or_globally_only() {
        let codes = |settings: &LimitSettings| {
            let limit = Limit::compile("x", settings).unwrap();
            limit.check_listener(&place(9)).into_iter().map(|mistake| mistake.code).collect::<Vec<_>>()
        };
        assert!(codes(&settings("1/s", &[By::ClientIp])).is_empty());
        assert!(codes(&settings("1/s", &[By::Global])).is_empty());
        assert_eq!(codes(&settings("1/s", &[header("x-a"), By::ClientIp])), ["listener-limit-key"]);
        let per_route = LimitSettings { per: Some(Per::Route), ..settings("1/s", &[By::Global]) };
        assert_eq!(codes(&per_route), ["listener-limit-per-route"]);
    }
}
