//! Decides whether a caller has called too often: limits and plans over the buckets of `buckets.rs`.
//!
//! Of the limits of one stage all are charged or none. Does not decide which limits a route or listener has, nor whether a
//! refusal is enforced or shadowed. What a limit is made of: `limits/`.

use std::collections::BTreeMap;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;

use smallvec::SmallVec;

use super::authz::OneOrMany;
use super::buckets::Buckets;
use super::limits::asks::Asks;
use super::limits::at_once::AtOnce;
pub use super::limits::by::{By, Per};
pub use super::limits::charge::Charge;
use super::limits::charge::Told;
use super::limits::key::{Hashes, Key, Seen};
pub use super::limits::limit::{Callers, Limit, What};
use super::limits::pace::Pace;
use super::limits::places::{self, Place};
use super::limits::quota::Quota;
pub use super::limits::refusal::{KIND, is_own};
use super::limits::shared::exactness;
use super::limits::sharing::{self, Taken};
use super::limits::throttle::ThrottleSettings;
use super::limits::used::Used;
use super::priority::Priority;
use super::{Request, Stop};
use crate::config::types::{At, Rate};
use crate::ctx::Facts;
use crate::report::metrics::series::AtUpstream;

/// A limit that routes, listeners and defaults use by its name. One bucket a key over all of them, unless `per: route`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LimitSettings {
    /// So many requests in so much time, such as `100/m` or `5/5m`. Or `quota`, or `concurrent`.
    pub rate: Option<At<Rate>>,
    /// So many requests in a period of the calendar: `1000/h`, `10000/day` or `100000/month`. Instead of `rate`.
    pub quota: Option<At<Quota>>,
    /// So many requests at once, from their head to their answer's last byte. Instead of `rate` and `quota`.
    pub concurrent: Option<At<u32>>,
    /// The size of the bucket: how many requests may come at once. Default: the count of the rate.
    pub burst: Option<At<u32>>,
    /// `true`: the gateways with the same `server.limits_store` count together.
    pub shared: Option<At<bool>>,
    /// Who comes too early waits for a token instead of being refused.
    pub throttle: Option<At<ThrottleSettings>>,
    /// `fixed`: so many in each window, which begins at multiples of its length (of a `quota`, with the calendar's period; its default).
    /// `sliding`: so many in this window and the share of the last that is less than a window ago. Default for a `rate`: a bucket that
    /// fills all the time.
    pub window: Option<At<Window>>,
    /// In which the hours, days and months of a `quota` begin, such as `Europe/Berlin`. Default UTC.
    pub time_zone: Option<At<String>>,
    /// What is counted by; the first of the list that the request has.
    pub by: At<Vec<At<By>>>,
    /// Only callers with these tags are counted, each with one of these values, such as `{ kind: agent }`. Default: everybody.
    #[serde(rename = "for")]
    pub for_tags: Option<At<BTreeMap<String, OneOrMany>>>,
    /// `route`: every route that names the limit has buckets of its own. `upstream`: every upstream that requests go to has, whichever route they take.
    pub per: Option<Per>,
    /// `before_auth`: judged before authentication; only by client address, header or global.
    pub stage: Option<Stage>,
}

/// What a consumer may do in total, over all routes.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PlanSettings {
    /// So many requests in so much time. This, `quota`, or both.
    pub rate: Option<At<Rate>>,
    /// The size of the bucket. Default: the count of the rate.
    pub burst: Option<At<u32>>,
    /// So many requests in a period of the calendar: `1000/h`, `10000/day` or `100000/month`.
    pub quota: Option<At<Quota>>,
    /// In which the hours, days and months of the `quota` begin. Default UTC.
    pub time_zone: Option<At<String>>,
    /// `true`: the gateways with the same `server.limits_store` count together.
    pub shared: Option<At<bool>>,
    /// Who goes first where not all can be served: `high`, `normal` (default), `low` or `lowest`.
    pub priority: Option<At<Priority>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Window {
    Fixed,
    Sliding,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    BeforeAuth,
}

/// A limit on requests at once that had no place.
#[derive(Clone, Debug)]
pub struct Full {
    pub limit: Arc<str>,
    /// What it counted by.
    pub key_kind: &'static str,
    /// The upstream, where it counts at each of its own.
    pub at: Option<Arc<AtUpstream>>,
}

/// The limits of one stage of one route, or of one listener.
#[derive(Clone, Debug, Default)]
pub struct RateLimits {
    limits: Vec<Used>,
    /// Those that several gateways share.
    shared: Vec<Used>,
    /// Those of how many at once.
    places: Vec<Used>,
    /// Whether the plan of the caller counts here too.
    with_plan: bool,
}

/// What one limit would count a request by; for `explain`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counted {
    /// The name of the limit or plan.
    pub limit: Arc<str>,
    /// Such as `client_ip`.
    pub key_kind: &'static str,
    /// Such as `client_ip 192.0.2.1`.
    pub key: String,
    /// How much, such as `100/m` or `quota of 1000/day in Europe/Berlin`.
    pub rate: String,
    /// How exact it is, where several gateways count together.
    pub shared: Option<String>,
    /// The upstream, where it counts at each of its own.
    pub upstream: Option<String>,
}

/// What names the buckets of a limit, whatever the route.
pub fn identity_of(limit: &Limit) -> u128 {
    limit.identity(None)
}

// === impl RateLimits ===

impl RateLimits {
    /// Those of a route's limits that belong to a stage; `None` is the main stage, where the caller's plan counts too. `upstreams` are those
    /// that the route goes to, the default first.
    pub fn for_route(route: &str, upstreams: &[Arc<str>], limits: &[Arc<Limit>], stage: Option<Stage>) -> Self {
        let limits = limits.iter().filter(|limit| limit.stage() == stage);
        RateLimits::of(limits.filter_map(|limit| Used::on_route(limit, route, upstreams)), stage.is_none())
    }

    /// The limits of a listener, before routing.
    pub fn for_listener(limits: &[Arc<Limit>]) -> Self {
        RateLimits::of(limits.iter().map(Used::on_listener), false)
    }

    fn of(limits: impl Iterator<Item = Used>, with_plan: bool) -> Self {
        let (places, limits): (Vec<_>, Vec<_>) = limits.partition(|used| used.limit.places().is_some());
        let (shared, limits) = limits.into_iter().partition(|used| used.limit.is_shared());
        RateLimits { limits, shared, places, with_plan }
    }

    /// Whether nothing is counted here, whoever calls.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.limits.is_empty() && self.shared.is_empty() && self.places.is_empty() && !self.with_plan
    }

    /// Whether a refusal may come without a charge.
    pub fn has_places(&self) -> bool {
        !self.places.is_empty()
    }

    /// Charges all limits and the caller's plan, or none and refuses with 429 `rate-limited` or `quota-exceeded`. Either way `facts.charges` says
    /// where each stands, tightest first. `plans` are the snapshot's, which consumers name by index.
    #[inline]
    pub fn judge(&self, request: &Request<'_>, facts: &mut Facts, buckets: &Buckets, plans: &[Arc<Limit>]) -> Result<(), Stop> {
        if self.is_empty() { Ok(()) } else { self.judge_each(request, facts, buckets, plans) }
    }

    fn judge_each(&self, request: &Request<'_>, facts: &mut Facts, buckets: &Buckets, plans: &[Arc<Limit>]) -> Result<(), Stop> {
        if self.places.is_empty() {
            return self.count(request, facts, buckets, plans);
        }
        // Before what is used up: a place comes back where the rest refuses.
        let places = self.take_places(request, facts, buckets)?;
        self.count(request, facts, buckets, plans)?;
        facts.places.extend(places);
        Ok(())
    }

    fn count(&self, request: &Request<'_>, facts: &mut Facts, buckets: &Buckets, plans: &[Arc<Limit>]) -> Result<(), Stop> {
        let plan = if self.with_plan { plan_of(facts, plans) } else { None };
        let (plan, shared) = if plan.is_some_and(Limit::is_shared) { (None, plan) } else { (plan, None) };
        if self.shared.is_empty() && shared.is_none() {
            return self.charge(request, facts, buckets, plan, &[]);
        }
        let mut taken = Taken::default();
        sharing::take(&self.shared, shared, request, facts, buckets, &mut taken)?;
        self.charge(request, facts, buckets, plan, &taken.alone).inspect_err(|_| taken.give_back(buckets))?;
        taken.keep(facts);
        Ok(())
    }

    fn take_places(&self, request: &Request<'_>, facts: &mut Facts, buckets: &Buckets) -> Result<SmallVec<[Place; 1]>, Stop> {
        let mut places = SmallVec::new();
        for used in &self.places {
            let (limit, chosen) = (&used.limit, facts.chosen);
            let Some(most) = limit.places().filter(|_| used.admits(facts.identity.as_deref())) else { continue };
            let key = Key::choose(limit.by(), request, &Seen::of(facts));
            let (key_kind, bucket) = (key.kind(), key.bucket(buckets, used.identity(chosen)));
            match buckets.places.take(used, chosen, bucket, key_kind, most) {
                Some(place) => places.push(place),
                None => {
                    limit.note_refused(bucket, facts);
                    facts.full = Some(Full { limit: limit.name().clone(), key_kind, at: used.at(chosen).cloned() });
                    return Err(places::refusal(limit, used.at(chosen).map(|at| &**at), key_kind, most).into());
                }
            }
        }
        Ok(places)
    }

    /// What this gateway counts itself; `alone` is what it cannot count with others.
    #[inline(always)]
    fn charge(
        &self,
        request: &Request<'_>,
        facts: &mut Facts,
        buckets: &Buckets,
        plan: Option<&Limit>,
        alone: &[(&Limit, Option<&Used>, Pace)],
    ) -> Result<(), Stop> {
        // Most routes of most gateways: nothing to count.
        if self.limits.is_empty() && alone.is_empty() && plan.is_none() {
            return Ok(());
        }
        if alone.is_empty() && self.charge_at_once(request, facts, buckets, plan) {
            return Ok(());
        }
        self.charge_any(request, facts, buckets, plan, alone)
    }

    /// Nearly all requests. False: nothing was charged, nor told.
    fn charge_at_once(&self, request: &Request<'_>, facts: &mut Facts, buckets: &Buckets, plan: Option<&Limit>) -> bool {
        let seen = Seen { identity: facts.identity.as_deref(), client: facts.client, chosen: facts.chosen, now: facts.now };
        let mut told = Told::behind(&mut facts.charges);
        let mut hashes = Hashes::new(buckets.seed(), request, seen);
        let mut at_once = AtOnce::new(buckets, seen.now.mono);
        let (mut own, mut plan) = (self.limits.iter(), plan);
        // In one loop, whose body is here once: the limits of the stage, the plan, its quota.
        loop {
            let (limit, identity) = match (own.next(), plan) {
                (Some(used), _) if !used.admits(seen.identity) => continue,
                (Some(used), _) => (&*used.limit, used.identity(seen.chosen)),
                (None, Some(next)) => {
                    plan = next.beside().map(|quota| &**quota);
                    (next, next.identity(None))
                }
                (None, None) => break,
            };
            let (key_kind, key) = hashes.bucket(limit.by(), identity);
            let (pace, bounds) = (limit.pace(), limit.bounds(seen.now));
            let Some(reading) = at_once.fits(key, pace, bounds) else {
                told.take_back();
                return false;
            };
            told.put(Charge::admitted(limit, key_kind, pace, bounds, reading));
        }
        at_once.keep();
        told.sort();
        true
    }

    #[inline(never)]
    fn charge_any(
        &self,
        request: &Request<'_>,
        facts: &mut Facts,
        buckets: &Buckets,
        plan: Option<&Limit>,
        alone: &[(&Limit, Option<&Used>, Pace)],
    ) -> Result<(), Stop> {
        let mut asks = Asks::default();
        {
            let mut hashes = Hashes::new(buckets.seed(), request, Seen::of(facts));
            for (limit, used) in applying(&self.limits, facts, plan) {
                asks.ask(limit, used, limit.pace(), true, &mut hashes);
            }
            for (limit, used, part) in alone {
                asks.ask(limit, *used, part, false, &mut hashes);
            }
        }
        asks.charge(facts, buckets)
    }

    /// What each limit and the caller's plan would count a request by. Charges nothing.
    pub fn explain(&self, request: &Request<'_>, facts: &Facts, plans: &[Arc<Limit>]) -> Vec<Counted> {
        let count = |(limit, used): (&Limit, Option<&Used>)| {
            let key = Key::choose(limit.by(), request, &Seen::of(facts));
            let upstream = used.and_then(|used| used.at(facts.chosen)).map(|at| at.upstream.to_string());
            let shared = limit.is_shared().then(|| exactness(limit.pace().size()));
            Counted { limit: limit.name().clone(), key_kind: key.kind(), key: key.to_string(), rate: limit.describe(), shared, upstream }
        };
        let plan = if self.with_plan { plan_of(facts, plans) } else { None };
        let places = applying(&self.places, facts, None).chain(applying(&self.shared, facts, None));
        applying(&self.limits, facts, plan).chain(places).map(count).collect()
    }
}

/// Those of `limits` that are for the caller, and the caller's plan.
fn applying<'a>(limits: &'a [Used], facts: &Facts, plan: Option<&'a Limit>) -> impl Iterator<Item = (&'a Limit, Option<&'a Used>)> {
    let identity = facts.identity.as_deref();
    let own = limits.iter().filter(move |used| used.admits(identity)).map(|used| (&*used.limit, Some(used)));
    let beside = plan.and_then(|plan| plan.beside()).map(|quota| &**quota);
    own.chain(plan.into_iter().chain(beside).map(|plan| (plan, None)))
}

/// An identity may be remembered from before a reload, when its plan stood elsewhere: the index is a hint, the name decides.
pub fn plan_of<'a>(facts: &Facts, plans: &'a [Arc<Limit>]) -> Option<&'a Limit> {
    let (name, index) = facts.identity.as_ref()?.plan()?;
    let is_it = |plan: &&Arc<Limit>| plan.what() == What::Plan && **plan.name() == **name;
    plans.get(*index).filter(is_it).or_else(|| plans.iter().find(is_it)).map(|plan| &**plan)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use http::header::RETRY_AFTER;

    use super::super::limits::limit::tests::{at, limit, settings};
    use super::super::limits::pace::tests::Dice;
    use super::*;
    use crate::ctx::{Now, Scheme};
    use crate::policy::principal::{Consumer, Identity};
    use crate::reply::problem::Problem;

    const SECOND: u64 = 1_000_000_000;

    /// What one request shows of itself.
    #[derive(Clone, Default)]
    struct Call {
        from: Option<&'static str>,
        identity: Option<Arc<Identity>>,
        headers: Vec<(&'static str, &'static str)>,
        now: u64,
    }

    impl Call {
        fn from(address: &'static str) -> Self {
            Call { from: Some(address), ..Call::default() }
        }
        fn by(identity: Identity) -> Self {
            Call { identity: Some(Arc::new(identity)), ..Call::default() }
        }
        fn with(name: &'static str, value: &'static str) -> Self {
            Call { headers: vec![(name, value)], ..Call::default() }
        }
        fn facts(&self) -> Facts {
            let address = std::net::SocketAddr::new(self.from.unwrap_or("::1").parse().unwrap(), 1);
            let now = Now { mono: self.now, unix_ms: 0 };
            let mut facts = Facts::new(0, address, Scheme::Http, now);
            facts.identity = self.identity.clone();
            facts
        }
        fn head(&self) -> http::request::Parts {
            let request = self.headers.iter().fold(http::Request::builder(), |request, (name, value)| request.header(*name, *value));
            request.body(()).unwrap().into_parts().0
        }
    }

    fn token(authenticator: &str, subject: &str) -> Identity {
        Identity { authenticator: authenticator.into(), subject: Some(subject.into()), ..Identity::default() }
    }

    fn api_key(consumer: &str, key: &str, plan: Option<(&str, usize)>) -> Identity {
        let plan = plan.map(|(name, index)| (name.into(), index));
        let consumer = Consumer { name: consumer.into(), plan, ..Consumer::default() };
        let key_id = Some(crate::policy::principal::KeyId::of(&crate::policy::api_key::hash_key(key.as_bytes())));
        Identity { subject: None, consumer: Some(Arc::new(consumer)), key_id, ..token("keys", "") }
    }

    fn plan(name: &str, rate: &str) -> Arc<Limit> {
        Arc::new(
            Limit::compile_plan(
                name,
                &PlanSettings {
                    rate: Some(at(1, Rate::parse(rate).unwrap())),
                    burst: None,
                    quota: None,
                    time_zone: None,
                    shared: None,
                    priority: None,
                },
            )
            .unwrap(),
        )
    }

    fn judge(limits: &RateLimits, call: &Call, buckets: &Buckets, plans: &[Arc<Limit>]) -> (Option<Problem>, Facts) {
        let (mut facts, head) = (call.facts(), call.head());
        let refused = match limits.judge(&Request { head: &head }, &mut facts, buckets, plans) {
            Ok(()) => None,
            Err(Stop::Refuse(problem)) => Some(*problem),
            Err(Stop::Answer(_)) => panic!("limits answer nothing"),
        };
        (refused, facts)
    }

    fn passes(limits: &RateLimits, call: &Call, buckets: &Buckets) -> bool {
        judge(limits, call, buckets, &[]).0.is_none()
    }

    fn route(limits: &[Arc<Limit>]) -> RateLimits {
        RateLimits::for_route("r", &[], limits, None)
    }

    /// Whether two calls are counted in one bucket of a limit by `by`.
    fn share(by: &[By], one: &Call, other: &Call) -> bool {
        let (limits, buckets) = (route(&[limit("x", "1/h", by)]), Buckets::new(0));
        assert!(passes(&limits, one, &buckets) && !passes(&limits, one, &buckets));
        !passes(&limits, other, &buckets)
    }

    /// What is kept with a caller that was remembered decides nothing: the same requests of callers who were never seen before fare the same,
    /// through limits that change, buckets that are given away, an overflow, and a table with another seed.
    #[test]
    fn who_is_remembered_is_counted_as_who_is_not() {
        let by = [By::Consumer, By::Subject, By::ClientIp];
        let sets = ["3/s", "9/s"]
            .map(|rate| route(&[limit("a", rate, &by), limit("b", "20/s", &[By::Subject]), limit("c", "100/s", &[By::ClientIp])]));
        let plans = [plan("gold", "15/s"), plan("free", "4/s")];
        let consumer =
            |name: &str, plan: (&str, usize)| Consumer { name: name.into(), plan: Some((plan.0.into(), plan.1)), ..Consumer::default() };
        // The same name as a subject, as a consumer, and at another authenticator.
        let caller = |which: usize| match which % 4 {
            0 => token("idp", &format!("u{}", which / 4)),
            1 => token("other", &format!("u{}", which / 4)),
            2 => Identity { claimed_plan: Some(("free".into(), 1)), ..token("idp", &format!("p{}", which / 4)) },
            _ => Identity {
                consumer: Some(Arc::new(consumer(&format!("u{}", which / 4), ("gold", 0)))),
                ..token("idp", &format!("u{}", which / 4))
            },
        };
        let known: Vec<Arc<Identity>> = (0..400).map(|which| Arc::new(caller(which))).collect();
        let tables = [Buckets::new(0), Buckets::new(0)];
        tables[1].set_seed(tables[0].seed());
        let (mut dice, mut now, mut refused) = (Dice(3), SECOND, 0);
        for step in 0..10_000 {
            now += dice.roll(SECOND / 20);
            if step % 4_000 == 3_999 {
                // As after a restart that found the buckets of another process.
                let (dump, seed) = (Buckets::new(0).dump(now), tables[0].seed());
                tables.iter().for_each(|table| _ = table.restore(&dump, now).unwrap());
                assert_ne!(tables[0].seed(), seed);
            }
            let which = dice.roll(if step % 2 == 0 { 8 } else { 400 }) as usize;
            let limits = &sets[usize::from(step % 2_000 > 1_000)];
            let seen = |identity: Arc<Identity>| Call { identity: Some(identity), now, ..Call::from("192.0.2.7") };
            let (remembered, kept) = judge(limits, &seen(known[which].clone()), &tables[0], &plans);
            let (stranger, fresh) = judge(limits, &seen(Arc::new(caller(which))), &tables[1], &plans);
            assert_eq!(remembered.is_some(), stranger.is_some(), "step {step}");
            refused += usize::from(remembered.is_some());
            assert_eq!(format!("{:?}", kept.charges), format!("{:?}", fresh.charges), "step {step}");
        }
        assert_eq!(tables[0].figures(), tables[1].figures());
        assert!(refused > 100 && refused < 9_700, "{refused}");
        assert!(tables[0].figures().evicted > 0, "{:?}", tables[0].figures());
    }

    #[test]
    fn the_sixth_login_is_refused_and_told_why_and_how_long() {
        let (limits, buckets) = (route(&[limit("login", "5/5m", &[By::ClientIp])]), Buckets::new(0));
        let call = Call { now: 7 * SECOND, ..Call::from("192.0.2.7") };
        for left in [4, 3, 2, 1, 0] {
            let (refused, facts) = judge(&limits, &call, &buckets, &[]);
            assert!(refused.is_none());
            assert_eq!((facts.charges[0].remaining, facts.charges[0].size, facts.charges[0].window), (left, 5, 300));
        }
        let later = Call { now: 20 * SECOND, ..call };
        let (refused, facts) = judge(&limits, &later, &buckets, &[]);
        let problem = refused.unwrap();
        assert_eq!((problem.kind.code, problem.kind.status, problem.kind.error), ("rate-limited", 429, "Too many requests"));
        assert_eq!(problem.detail.as_deref(), Some("limit `login` of 5/5m by client_ip; try again in 47 s"));
        assert_eq!(problem.members.as_slice(), [("limit", "login".to_owned()), ("key", "client_ip".to_owned())]);
        assert_eq!(problem.headers.as_slice(), [(RETRY_AFTER, HeaderValue::from_static("47"))]);
        assert_eq!(problem.reason.as_deref(), Some("limit `login` of 5/5m, burst 5, by client_ip: no token for 47 s"));
        let charge = &facts.charges[0];
        assert_eq!((charge.remaining, charge.reset, charge.next, charge.retry_after), (0, 287, 47, 47));
    }

    #[test]
    fn the_thirteenth_of_a_hundred_leaves_87() {
        let (limits, buckets) = (route(&[limit("orders", "100/m", &[By::ClientIp])]), Buckets::new(0));
        let facts: Vec<Facts> = (0..13).map(|_| judge(&limits, &Call::from("::1"), &buckets, &[]).1).collect();
        assert_eq!((facts[12].charges[0].remaining, facts[12].charges[0].reset, facts[12].charges[0].next), (87, 8, 1));
    }

    #[test]
    fn the_first_key_that_the_request_has_is_counted_by() {
        let by = [By::Consumer, By::Subject, By::Header(http::HeaderName::from_static("x-tenant")), By::ClientIp];
        let (limits, buckets) = (route(&[limit("x", "10/s", &by)]), Buckets::new(0));
        for (call, kind, key) in [
            (Call::by(api_key("acme", "k1", None)), "consumer", "consumer acme"),
            (Call::by(token("idp", "u1")), "subject", "subject u1 of idp"),
            (Call::with("x-tenant", "t1"), "header", "header:x-tenant"),
            (Call::with("x-tenant", ""), "client_ip", "client_ip ::/64"),
            (Call::from("2001:db8:1:2:3::4"), "client_ip", "client_ip 2001:db8:1:2::/64"),
        ] {
            assert_eq!(judge(&limits, &call, &buckets, &[]).1.charges[0].key_kind, kind);
            let explained = limits.explain(&Request { head: &call.head() }, &call.facts(), &[]);
            let rate = "10/s".into();
            assert_eq!(explained, [Counted { limit: "x".into(), key_kind: kind, key: key.into(), rate, shared: None, upstream: None }]);
        }
    }

    #[test]
    fn callers_share_a_bucket_only_where_they_are_the_same_to_the_limit() {
        let header = || By::Header(http::HeaderName::from_static("x-a"));
        assert!(!share(&[By::Subject], &Call::by(token("one", "u")), &Call::by(token("two", "u"))));
        assert!(share(&[By::Subject], &Call::by(token("one", "u")), &Call::by(token("one", "u"))));
        assert!(share(&[By::Consumer], &Call::by(api_key("acme", "k1", None)), &Call::by(api_key("acme", "k2", None))));
        assert!(!share(&[By::ApiKey], &Call::by(api_key("acme", "k1", None)), &Call::by(api_key("acme", "k2", None))));
        assert!(share(&[By::ClientIp], &Call::from("2001:db8::1"), &Call::from("2001:db8::ffff:2")));
        assert!(!share(&[By::ClientIp], &Call::from("2001:db8::1"), &Call::from("2001:db8:0:1::1")));
        assert!(!share(&[By::ClientIp], &Call::from("::ffff:192.0.2.1"), &Call::from("::ffff:192.0.2.2")));
        assert!(share(&[By::Global], &Call::from("2001:db8::1"), &Call::with("x-a", "1")));
        assert!(share(&[header()], &Call::with("x-a", "1"), &Call::with("x-a", "1")));
        assert!(!share(&[header()], &Call::with("x-a", "1"), &Call::with("x-a", "2")));
    }

    #[test]
    fn long_header_values_are_told_apart_at_both_ends() {
        let leak = |text: String| -> &'static str { text.leak() };
        let value = |first: &str, middle: usize, last: &str| Call::with("x-a", leak(format!("{first}{}{last}", "m".repeat(middle))));
        let by = [By::Header(http::HeaderName::from_static("x-a"))];
        assert!(share(&by, &value("a", 5_000, "z"), &value("a", 5_000, "z")));
        assert!(!share(&by, &value("a", 5_000, "z"), &value("b", 5_000, "z")));
        assert!(!share(&by, &value("a", 5_000, "z"), &value("a", 5_000, "y")));
        assert!(!share(&by, &value("a", 5_000, "z"), &value("a", 5_001, "z")));
    }

    #[test]
    fn who_has_none_of_the_keys_is_counted_all_the_same() {
        let by = [By::Header(http::HeaderName::from_static("x-a"))];
        assert!(share(&by, &Call::from("2001:db8::1"), &Call::from("2001:db8:9::1")));
        let (limits, buckets) = (route(&[limit("x", "10/s", &by)]), Buckets::new(0));
        assert_eq!(judge(&limits, &Call::default(), &buckets, &[]).1.charges[0].key_kind, "unidentified");
    }

    #[test]
    fn routes_share_a_limit_unless_it_is_per_route() {
        let buckets = Buckets::new(0);
        let shared = limit("shared", "1/h", &[By::Global]);
        let own = LimitSettings { per: Some(Per::Route), ..settings("1/h", &[By::Global]) };
        let own = Arc::new(Limit::compile("own", &own).unwrap());
        let on = |name: &str, limit: &Arc<Limit>| {
            passes(&RateLimits::for_route(name, &[], std::slice::from_ref(limit), None), &Call::default(), &buckets)
        };
        assert!(on("a", &shared) && !on("b", &shared));
        assert!(on("a", &own) && on("b", &own) && !on("a", &own));
    }

    #[test]
    fn each_stage_charges_its_own_limits() {
        let early = LimitSettings { stage: Some(Stage::BeforeAuth), ..settings("5/h", &[By::ClientIp]) };
        let limits = [Arc::new(Limit::compile("early", &early).unwrap()), limit("late", "3/h", &[By::ClientIp])];
        let buckets = Buckets::new(0);
        let (call, plans) = (Call::by(api_key("acme", "k1", Some(("free", 0)))), [plan("free", "2/h")]);
        let names = |facts: Facts| facts.charges.iter().map(|charge| charge.limit.to_string()).collect::<Vec<_>>();
        let before = RateLimits::for_route("r", &[], &limits, Some(Stage::BeforeAuth));
        assert_eq!(names(judge(&before, &call, &buckets, &plans).1), ["early"]);
        assert_eq!(names(judge(&route(&limits), &call, &buckets, &plans).1), ["free", "late"]);
        assert_eq!(names(judge(&RateLimits::for_listener(&limits), &call, &buckets, &plans).1), ["late", "early"]);
        assert!(!route(&[]).is_empty() && RateLimits::for_route("r", &[], &[], Some(Stage::BeforeAuth)).is_empty());
    }

    #[test]
    fn a_plan_counts_over_all_routes_and_refuses_without_costing_the_routes_limit() {
        let (buckets, plans) = (Buckets::new(0), [plan("other", "100/h"), plan("free", "2/h")]);
        let acme = Call::by(api_key("acme", "k1", Some(("free", 1))));
        let (with, without) = (route(&[limit("x", "5/h", &[By::Consumer])]), RateLimits::for_route("s", &[], &[], None));
        let pass = |limits: &RateLimits, call: &Call| judge(limits, call, &buckets, &plans);
        assert!(pass(&with, &acme).0.is_none());
        assert!(pass(&without, &acme).0.is_none());
        for _ in 0..3 {
            let (refused, facts) = pass(&with, &acme);
            assert_eq!(refused.unwrap().detail.as_deref(), Some("plan `free` of 2/h by consumer; try again in 1800 s"));
            let charges: Vec<_> = facts.charges.iter().map(|charge| (&**charge.limit, charge.remaining)).collect();
            assert_eq!(charges, [("free", 0), ("x", 4)], "the refusing one first, the other as it was");
        }
        assert!(pass(&without, &Call::by(api_key("globex", "k2", Some(("free", 1))))).0.is_none());
        assert!(pass(&without, &Call::by(api_key("initech", "k3", None))).1.charges.is_empty());
    }

    #[test]
    fn an_identity_from_before_a_reload_still_has_its_plan() {
        let (buckets, limits) = (Buckets::new(0), RateLimits::for_route("r", &[], &[], None));
        let acme = Call::by(api_key("acme", "k1", Some(("free", 0))));
        for plans in [vec![plan("free", "2/h")], vec![plan("big", "9/h"), plan("free", "2/h")]] {
            assert_eq!(judge(&limits, &acme, &buckets, &plans).1.charges[0].size, 2);
        }
        assert!(judge(&limits, &acme, &buckets, &[plan("big", "9/h")]).1.charges.is_empty());
        let refused = judge(&limits, &acme, &buckets, &[plan("free", "2/h")]).0;
        assert!(refused.is_some(), "both requests were counted in one bucket");
    }

    fn quota(name: &str, quota: &str, window: Option<Window>) -> Arc<Limit> {
        let quota = Some(at(1, Quota::parse(quota).unwrap()));
        let window = window.map(|window| at(1, window));
        Arc::new(Limit::compile(name, &LimitSettings { rate: None, quota, window, ..settings("1/h", &[By::Global]) }).unwrap())
    }

    /// Judged at a moment of both clocks.
    fn at_ms(limits: &RateLimits, unix_ms: u64, buckets: &Buckets) -> (Option<Problem>, Facts) {
        let (mut facts, head) = (Call::default().facts(), Call::default().head());
        facts.now = Now { mono: unix_ms * 1_000_000 + 5, unix_ms };
        match limits.judge(&Request { head: &head }, &mut facts, buckets, &[]) {
            Err(Stop::Refuse(problem)) => (Some(*problem), facts),
            Ok(()) => (None, facts),
            Err(Stop::Answer(_)) => panic!("limits answer nothing"),
        }
    }

    #[test]
    fn a_quota_is_used_up_until_the_calendar_turns_and_its_refusal_is_not_that_of_a_rate() {
        const DAY: u64 = 86_400_000;
        let (limits, buckets) = (route(&[quota("daily", "2/day", None)]), Buckets::new(0));
        let noon = 20_000 * DAY + DAY / 2;
        assert!(at_ms(&limits, noon, &buckets).0.is_none() && at_ms(&limits, noon, &buckets).0.is_none());
        let (refused, facts) = at_ms(&limits, noon, &buckets);
        let problem = refused.unwrap();
        assert_eq!((problem.kind.code, problem.kind.status), ("quota-exceeded", 429));
        assert_eq!(problem.detail.as_deref(), Some("quota `daily` of 2/day by global; try again in 43200 s"));
        assert_eq!(problem.headers.as_slice(), [(RETRY_AFTER, HeaderValue::from_static("43200"))]);
        let charge = &facts.charges[0];
        assert_eq!((charge.size, charge.window, charge.remaining, charge.reset), (2, 86_400, 0, 43_200));
        assert!(at_ms(&limits, noon + DAY / 2 - 1, &buckets).0.is_some());
        assert!(at_ms(&limits, noon + DAY / 2, &buckets).0.is_none());
    }

    #[test]
    fn a_sliding_quota_does_not_begin_anew_at_midnight() {
        const HOUR: u64 = 3_600_000;
        let (limits, buckets) = (route(&[quota("rolling", "10/h", Some(Window::Sliding))]), Buckets::new(0));
        let end = 500_000 * HOUR - 1;
        let admitted = |ms: u64| (0..20).filter(|_| at_ms(&limits, ms, &buckets).0.is_none()).count();
        assert_eq!([admitted(end), admitted(end + 1), admitted(end + 1 + HOUR / 2)], [10, 0, 5]);
    }

    #[test]
    fn a_plan_with_a_rate_and_a_quota_tells_both_and_charges_both_or_neither() {
        let quota = Some(at(1, Quota::parse("3/month").unwrap()));
        let rate = Some(at(1, Rate::parse("2/h").unwrap()));
        let plan =
            Limit::compile_plan("free", &PlanSettings { rate, burst: None, quota, time_zone: None, shared: None, priority: None }).unwrap();
        let (buckets, plans, limits) = (Buckets::new(0), [Arc::new(plan)], route(&[]));
        let acme = |now: u64| Call { now, ..Call::by(api_key("acme", "k1", Some(("free", 0)))) };
        let told = |now: u64| {
            let (refused, facts) = judge(&limits, &acme(now), &buckets, &plans);
            let left: Vec<_> = facts.charges.iter().map(|charge| format!("{} {}", &**charge.limit, charge.remaining)).collect();
            (refused.map(|problem| problem.kind.code), left.join(", "))
        };
        assert_eq!(told(0), (None, "free 1, free-quota 2".to_owned()));
        assert_eq!(told(0), (None, "free 0, free-quota 1".to_owned()));
        assert_eq!(told(0), (Some("rate-limited"), "free 0, free-quota 1".to_owned()));
        assert_eq!(told(3600 * SECOND), (None, "free-quota 0, free 1".to_owned()));
        assert_eq!(told(3600 * SECOND), (Some("quota-exceeded"), "free-quota 0, free 1".to_owned()));
    }

    #[test]
    fn charges_of_all_stages_stand_tightest_first() {
        let buckets = Buckets::new(0);
        let call = Call::default();
        let (mut facts, head) = (call.facts(), call.head());
        let request = Request { head: &head };
        let listener = RateLimits::for_listener(&[limit("listener", "5/h", &[By::Global])]);
        let main =
            route(&[limit("wide", "9/h", &[By::Global]), limit("slow", "5/2h", &[By::Global]), limit("tight", "2/h", &[By::Global])]);
        let mut order = || {
            facts.charges.clear();
            let refused = [&listener, &main].map(|limits| limits.judge(&request, &mut facts, &buckets, &[]).is_err());
            (refused, facts.charges.iter().map(|charge| (charge.limit.to_string(), charge.remaining)).collect::<Vec<_>>())
        };
        let named = |list: [(&str, u32); 4]| list.map(|(name, left)| (name.to_owned(), left)).to_vec();
        assert_eq!(order(), ([false, false], named([("tight", 1), ("slow", 4), ("listener", 4), ("wide", 8)])));
        assert_eq!(order(), ([false, false], named([("tight", 0), ("slow", 3), ("listener", 3), ("wide", 7)])));
        assert_eq!(order(), ([false, true], named([("tight", 0), ("listener", 2), ("slow", 3), ("wide", 7)])));
    }

    #[test]
    fn a_reload_keeps_the_remaining_tokens() {
        let buckets = Buckets::new(0);
        let pass = |rate: &str| judge(&route(&[limit("x", rate, &[By::Global])]), &Call::default(), &buckets, &[]);
        (0..49).for_each(|_| assert!(pass("100/h").0.is_none()));
        // Compiled again, as a reload does.
        assert_eq!(pass("100/h").1.charges[0].remaining, 50);
        // Half is used; half of twenty, less this one.
        assert_eq!(pass("20/h").1.charges[0].remaining, 9);
    }

    #[test]
    fn keys_are_read_as_they_are_written() {
        for text in ["consumer", "subject", "api_key", "client_ip", "global", "header:x-tenant"] {
            let by: By = serde_json::from_value(text.into()).unwrap();
            assert_eq!(by.written(), text);
        }
        for text in ["ip", "header:", "header:a b", ""] {
            assert!(serde_json::from_value::<By>(text.into()).is_err(), "{text}");
        }
    }
}
