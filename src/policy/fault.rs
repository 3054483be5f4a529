//! Decides whether a request is delayed or refused on purpose, so that it is seen what its callers make of that.
//!
//! Drawn by the request's id, so that deciding stays a function of the request. Where nobody waits for the answer (`explain`, `tests:`) only
//! what is certain happens; the chances are told.

use std::fmt;
use std::time::Duration;

use http::HeaderName;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{Policy, Request, Stop};
use crate::config::check::headers::valid;
use crate::config::diagnostic::Diagnostic;
use crate::config::types::{At, Percent, Period};
use crate::ctx::{Asking, Facts};
use crate::reply::problem::{Kind, Problem};

pub static FAULT_INJECTED: Kind = Kind {
    code: "fault-injected",
    status: 503,
    error: "Service unavailable",
    about: "The route's `fault` refused the request on purpose, with the status that is written there (500 to 599). `sluice check` warns of faults that any request may meet.",
};

/// Faults that the gateway makes on purpose. Judged last of the policies: what would have been refused anyway is refused as ever.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FaultSettings {
    /// Delays a share of the requests before they go on.
    pub delay: Option<DelaySettings>,
    /// Refuses a share of the requests.
    pub abort: Option<AbortSettings>,
    /// Only requests that have this header, whatever it says. Without the key, all of them, and `sluice check` warns.
    pub only_header: Option<At<String>>,
}

/// How long, and how many.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DelaySettings {
    /// How long they wait. From 1ms to 60s.
    #[serde(rename = "for")]
    pub time: At<Period>,
    /// Of all requests, or of those with the header.
    pub share: At<Percent>,
}

/// With which status, and how many.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AbortSettings {
    /// 500 to 599.
    pub status: At<u16>,
    /// Of all requests, or of those with the header.
    pub share: At<Percent>,
}

/// The compiled policy.
#[derive(Clone, Debug)]
pub struct Fault {
    delay: Option<(Duration, Percent)>,
    abort: Option<(u16, Percent)>,
    only: Option<HeaderName>,
}

/// A fault that a request has met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Met {
    Delay,
    Abort,
}

const LONGEST: Duration = Duration::from_secs(60);

/// What is wrong with it by itself, wherever it is written.
pub fn check(settings: &At<FaultSettings>, wrong: &mut Vec<Diagnostic>) {
    let FaultSettings { delay, abort, only_header } = &settings.value;
    if delay.is_none() && abort.is_none() {
        let message = "this does nothing: expected `delay` or `abort`";
        wrong.push(Diagnostic::at(&settings.place, "inert", message));
    }
    if let Some(DelaySettings { time, share: _ }) = delay
        && (time.0 < Duration::from_millis(1) || time.0 > LONGEST)
    {
        let message = format!("`{}` is out of range: expected 1ms to 60s", time.value);
        wrong.push(Diagnostic::at(&time.place, "out-of-range", message));
    }
    if let Some(AbortSettings { status, share: _ }) = abort
        && !(500..=599).contains(&status.value)
    {
        let message = format!("`{}` is no status of a fault: expected 500 to 599", status.value);
        wrong.push(Diagnostic::at(&status.place, "bad-status", message));
    }
    let shares = delay.iter().map(|delay| &delay.share).chain(abort.iter().map(|abort| &abort.share));
    for share in shares.filter(|share| share.value.0 == 0) {
        let message = "a share of nothing: expected more than 0%";
        wrong.push(Diagnostic::at(&share.place, "out-of-range", message).help("remove the fault to have none"));
    }
    if let Some(name) = only_header {
        valid(name, &name.place, wrong);
    }
}

// === impl Fault ===

impl Fault {
    /// None where a mistake was told by [`check`].
    pub fn compile(settings: &FaultSettings) -> Option<Fault> {
        let FaultSettings { delay, abort, only_header } = settings;
        let only = match only_header {
            Some(name) => Some(HeaderName::from_bytes(name.as_bytes()).ok()?),
            None => None,
        };
        let delay = delay.as_ref().map(|DelaySettings { time, share }| (time.0, share.value));
        let abort = abort.as_ref().map(|AbortSettings { status, share }| (status.value, share.value));
        Some(Fault { delay, abort, only })
    }

    /// Whether any request may meet it.
    pub fn is_for_everybody(&self) -> bool {
        self.only.is_none()
    }

    /// What it means for requests with this head; for `explain`.
    pub fn told(&self, request: &Request<'_>) -> String {
        match &self.only {
            Some(name) if !request.head.headers.contains_key(name) => format!("not without {name}"),
            Some(_) | None => self.to_string(),
        }
    }
}

impl Policy for Fault {
    async fn judge(&self, request: &Request<'_>, facts: &mut Facts) -> Result<(), Stop> {
        if self.only.as_ref().is_some_and(|name| !request.head.headers.contains_key(name)) {
            return Ok(());
        }
        let is_real = facts.asking == Asking::Really;
        let falls = |share: Percent, what: &[u8]| match share.0 {
            10_000 => true,
            _ => is_real && facts.request_id.falls_into(share, what),
        };
        if let Some((status, share)) = self.abort
            && falls(share, b"abort")
        {
            facts.fault = Some(Met::Abort);
            let reason = format!("`fault` of the route, for {share}");
            return Err(Problem::new(&FAULT_INJECTED).status(status).reason(reason).into());
        }
        if let Some((time, share)) = self.delay
            && falls(share, b"delay")
        {
            facts.fault = Some(Met::Delay);
            facts.delay = facts.delay.saturating_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
        }
        Ok(())
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((status, share)) = self.abort {
            write!(f, "{share} get {status}")?;
        }
        if let Some((time, share)) = self.delay {
            let comma = if self.abort.is_some() { ", " } else { "" };
            write!(f, "{comma}{share} wait {}", Period(time))?;
        }
        Ok(())
    }
}

// === impl Met ===

impl Met {
    pub const ALL: [Met; 2] = [Met::Delay, Met::Abort];

    pub fn as_str(self) -> &'static str {
        match self {
            Met::Delay => "delay",
            Met::Abort => "abort",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::request_id::RequestId;
    use crate::policy::fixtures::{at, facts, head, judge, refusal};

    fn fault(delay: Option<u16>, abort: Option<u16>, only: Option<&str>) -> Fault {
        let settings = FaultSettings {
            delay: delay.map(|share| DelaySettings { time: at(Period::seconds(2)), share: at(Percent(share)) }),
            abort: abort.map(|share| AbortSettings { status: at(502), share: at(Percent(share)) }),
            only_header: only.map(|name| at(name.to_owned())),
        };
        Fault::compile(&settings).unwrap()
    }

    #[test]
    fn as_many_requests_as_written_are_refused_or_delayed_whatever_the_other() {
        let fault = fault(Some(2_000), Some(500), None);
        let (mut delayed, mut refused, mut both) = (0_usize, 0_usize, 0_usize);
        for number in 0..20_000 {
            let mut facts = facts();
            facts.asking = Asking::Really;
            facts.request_id = RequestId::accept(format!("{number:032x}").as_bytes()).unwrap();
            both +=
                usize::from(facts.request_id.falls_into(Percent(2_000), b"delay") && facts.request_id.falls_into(Percent(500), b"abort"));
            match judge(&fault, &head("GET /", &[]), &mut facts) {
                Err(stop) => {
                    refused += 1;
                    let problem = refusal(Err(stop));
                    assert_eq!((problem.kind.code, problem.status, facts.fault), ("fault-injected", 502, Some(Met::Abort)));
                }
                Ok(()) => delayed += usize::from(facts.delay == 2_000_000_000 && facts.fault == Some(Met::Delay)),
            }
        }
        assert!(refused.abs_diff(1_000) < 150 && delayed.abs_diff(3_800) < 250 && both.abs_diff(200) < 70, "{refused} {delayed} {both}");
    }

    #[test]
    fn nothing_happens_by_chance_where_nobody_waits_and_nothing_at_all_without_the_header() {
        let (chance, certain) = (fault(Some(9_999), Some(9_999), Some("x-fault")), fault(None, Some(10_000), Some("x-fault")));
        let with = head("GET /", &[("x-fault", "")]);
        for _ in 0..20 {
            let mut facts = facts();
            assert!(judge(&chance, &with, &mut facts).is_ok() && facts.delay == 0);
        }
        assert_eq!(refusal(judge(&certain, &with, &mut facts())).status, 502);
        assert!(judge(&certain, &head("GET /", &[]), &mut facts()).is_ok());
    }
}
