//! Decides what an upstream's `retries` mean: how many attempts there are, after what, how soon, and how many of all requests may be sent again.
//!
//! Does not decide about the failure of one attempt: see `verdict.rs`. Nothing here carries anything out: see `exchange/again.rs`.

pub mod backoff;
pub mod budget;
pub mod condition;
pub mod verdict;

use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use self::backoff::{Backoff, BackoffSettings};
use self::budget::{Budget, BudgetSettings, Share};
use self::condition::{Condition, Conditions};
use super::upstream::in_range;
use crate::config::diagnostic::Diagnostic;
use crate::config::types::{At, Period, Size};
use crate::relay::attempt::protocol::Protocol;

/// Whether a request is sent again, after what, and how often.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RetriesSettings {
    /// How many attempts in all, the first included. 1 to 4; default 2.
    pub attempts: Option<At<u8>>,
    /// After what a request is sent to another target: `connect` (no connection could be made), `reset` (the connection broke before an answer),
    /// `timeout` (no answer in time), a status from 400 to 599, or a status of gRPC in an answer without a body, such as `grpc-unavailable`.
    /// All but `connect` only where a request may be sent twice: GET, HEAD, OPTIONS, TRACE, PUT and DELETE, those that have an `Idempotency-Key`, and
    /// those of routes with `idempotent: true`. Default `[connect]`.
    #[serde(rename = "on")]
    pub conditions: Option<At<Vec<At<Condition>>>>,
    /// How long one attempt may take to the head of its answer, connecting included, while the client sends nothing more. Default: no shorter than `timeouts` say.
    pub attempt_timeout: Option<At<Period>>,
    /// How long is waited before another attempt, but after `connect`: a random part of `base`, doubled with each attempt. Default: not at all.
    pub backoff: Option<At<BackoffSettings>>,
    /// The longest `Retry-After` (or `grpc-retry-pushback-ms`) of an upstream that is waited for. It may be a date. After a longer one its answer goes to the client. Default 1s.
    pub retry_after: Option<At<Period>>,
    /// The largest body that is kept to be sent again; a request with a larger one is sent once. Not more than 64KiB, which is the default.
    pub body: Option<At<Size>>,
    /// How many requests may be sent again, so that retries never multiply an outage: `{ share: 20%, min_per_second: 10 }`, which is the default, or `none`.
    pub budget: Option<At<BudgetSettings>>,
}

/// The compiled form.
#[derive(Clone, Debug)]
pub struct Retries {
    /// Attempts in all, the first included: 1 to 4.
    pub attempts: u8,
    pub on: Conditions,
    pub attempt_timeout: Option<Duration>,
    pub backoff: Option<Backoff>,
    pub retry_after: Duration,
    /// Bytes.
    pub body: usize,
    /// None: without one.
    pub budget: Option<Arc<Budget>>,
    /// Whether the file says anything about it.
    pub is_written: bool,
    /// Whether the file says that there is no budget.
    pub is_unbounded: bool,
}

const DEFAULT_ATTEMPTS: u8 = 2;
/// What the sessions of clients keep of a body.
const MOST_BODY: Size = Size::kib(64);
const LEAST: Period = Period(Duration::from_millis(1));

// === impl Retries ===

impl Retries {
    pub fn compile(settings: Option<&At<RetriesSettings>>, protocol: Protocol, wrong: &mut Vec<Diagnostic>) -> Retries {
        let none = RetriesSettings::default();
        let RetriesSettings { attempts, conditions, attempt_timeout, backoff, retry_after, body, budget } =
            settings.map_or(&none, |settings| &settings.value);
        let says_nothing = attempts.is_none() && conditions.is_none() && attempt_timeout.is_none() && budget.is_none();
        if let Some(settings) = settings.filter(|_| says_nothing && backoff.is_none() && retry_after.is_none() && body.is_none()) {
            wrong.push(Diagnostic::at(&settings.place, "inert", "this changes nothing: expected `attempts` or `on`, for example"));
        }
        if let Some(attempts) = attempts
            && !(1..=4).contains(&attempts.value)
        {
            let message = format!("`{}` is not a number of attempts: expected 1 to 4, the first included", attempts.value);
            wrong.push(Diagnostic::at(&attempts.place, "out-of-range", message).help("`1` makes no second attempt"));
        }
        let on = Conditions::compile(conditions.as_ref(), protocol, wrong);
        let number = attempts.as_ref().map_or(DEFAULT_ATTEMPTS, |attempts| attempts.value);
        let mut useless = |place: Option<&crate::config::diagnostic::Place>, name: &str, needs: bool, why: &str| {
            let Some(place) = place else { return };
            if number == 1 {
                let message = format!("`{name}` has no effect here: with `attempts: 1` nothing is sent again");
                wrong.push(Diagnostic::at(place, "inert", message).help("remove it, or allow another attempt"));
            } else if !needs {
                wrong.push(Diagnostic::at(place, "inert", format!("`{name}` has no effect here: {why}")).help("remove it, or add to `on`"));
            }
        };
        useless(conditions.as_ref().map(|at| &at.place), "on", true, "");
        useless(body.as_ref().map(|at| &at.place), "body", true, "");
        let after_sending = "after `connect` alone nothing is waited for";
        useless(backoff.as_ref().map(|at| &at.place), "backoff", on.is_more_than_connect(), after_sending);
        useless(retry_after.as_ref().map(|at| &at.place), "retry_after", on.reads_answers(), "no status is among `on`");
        useless(budget.as_ref().map(|at| &at.place), "budget", true, "");
        if let Some(body) = body.as_ref().filter(|body| body.value > MOST_BODY) {
            let message = format!("`{}` is out of range: expected at most {MOST_BODY}", body.value);
            wrong.push(Diagnostic::at(&body.place, "out-of-range", message).help("no more of a body is kept while it passes"));
        }
        let backoff = backoff.as_ref().map(|backoff| Backoff::compile(backoff, wrong));
        let budget_is_none = budget.as_ref().is_some_and(|budget| matches!(budget.value, BudgetSettings::None));
        let share = Share::compile(budget.as_ref(), wrong);
        let most = Period::seconds(60);
        Retries {
            attempts: number,
            on,
            attempt_timeout: attempt_timeout.as_ref().map(|at| in_range(Some(at), at.value, LEAST, Period::seconds(3600), wrong)),
            backoff,
            retry_after: in_range(retry_after.as_ref(), Period::seconds(1), Period(Duration::ZERO), most, wrong),
            body: body.as_ref().map_or(MOST_BODY.0, |body| body.value.0) as usize,
            budget: share.map(|share| Arc::new(Budget::new(share))),
            is_written: settings.is_some(),
            is_unbounded: budget_is_none,
        }
    }

    /// For `explain`, about a request that may be sent twice, or may not.
    pub fn told(&self, is_idempotent: bool) -> Value {
        json!({
            "attempts": self.attempts,
            "on": self.on.to_string(),
            "idempotent": is_idempotent,
            "backoff": self.backoff.map(|backoff| backoff.to_string()),
            "attempt_timeout": self.attempt_timeout.map(|time| Period(time).to_string()),
            "retry_after": Period(self.retry_after).to_string(),
            "body": Size(self.body as u64).to_string(),
            "budget": self.budget.as_ref().map(|budget| budget.share().to_string()),
        })
    }

    /// Whether heads of answers have to be looked at before they go to the client.
    pub fn reads_answers(&self) -> bool {
        self.attempts > 1 && self.on.reads_answers()
    }
}

/// What [`Retries::told`] says, for people.
pub fn in_words(told: &Value) -> Vec<String> {
    let word = |key: &str| told[key].as_str().unwrap_or("none").to_owned();
    if told["attempts"] == 1 {
        return vec!["none".to_owned()];
    }
    let mut first = format!("{} attempts in all, on {}", told["attempts"], word("on"));
    if told["idempotent"] == false {
        first.push_str("; this request may not be sent twice, so only where no target has begun with it");
    }
    vec![
        first,
        format!(
            "attempt timeout {}, backoff {}, budget {}, body {}",
            word("attempt_timeout"),
            word("backoff"),
            word("budget"),
            word("body")
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relay::upstream::tests::at;

    fn compile(settings: RetriesSettings) -> (Retries, Vec<&'static str>) {
        let mut wrong = Vec::new();
        let retries = Retries::compile(Some(&at(settings)), Protocol::Http1, &mut wrong);
        (retries, wrong.iter().map(|one| one.code).collect())
    }

    fn on(conditions: &[&str]) -> Option<At<Vec<At<Condition>>>> {
        Some(at(conditions.iter().map(|one| at(Condition::parse(one).unwrap())).collect()))
    }

    #[test]
    fn without_a_word_a_failed_connect_is_tried_elsewhere_and_there_is_a_budget() {
        let mut wrong = Vec::new();
        let retries = Retries::compile(None, Protocol::Http1, &mut wrong);
        assert!(wrong.is_empty() && !retries.is_written && !retries.reads_answers());
        assert_eq!((retries.attempts, retries.body, retries.retry_after.as_secs()), (2, 65_536, 1));
        assert_eq!(retries.on.to_string(), "connect");
        assert!(retries.backoff.is_none() && retries.attempt_timeout.is_none());
        assert_eq!(retries.budget.unwrap().share().to_string(), "20%, at least 10/s");
    }

    #[test]
    fn what_can_have_no_effect_is_refused() {
        let once = RetriesSettings { attempts: Some(at(1)), conditions: on(&["503"]), body: Some(at(Size(1))), ..Default::default() };
        assert_eq!(compile(once).1, ["inert", "inert"]);
        let idle = RetriesSettings {
            conditions: on(&["connect"]),
            backoff: Some(at(BackoffSettings { base: at(Period::seconds(1)), max: None })),
            retry_after: Some(at(Period::seconds(1))),
            ..Default::default()
        };
        assert_eq!(compile(idle).1, ["inert", "inert"]);
        assert_eq!(compile(RetriesSettings::default()).1, ["inert"]);
        assert_eq!(compile(RetriesSettings { attempts: Some(at(5)), ..Default::default() }).1, ["out-of-range"]);
        assert_eq!(compile(RetriesSettings { body: Some(at(Size(65_537))), ..Default::default() }).1, ["out-of-range"]);
        assert_eq!(
            compile(RetriesSettings { retry_after: Some(at(Period::seconds(61))), conditions: on(&["503"]), ..Default::default() }).1,
            ["out-of-range"]
        );
    }

    #[test]
    fn no_budget_has_to_be_asked_for() {
        let (retries, wrong) = compile(RetriesSettings { budget: Some(at(BudgetSettings::None)), ..Default::default() });
        assert!(wrong.is_empty() && retries.budget.is_none() && retries.is_unbounded);
    }
}
